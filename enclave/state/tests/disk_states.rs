//! Every intermediate disk state of real commits (design 2.6): the state's transactions, through redb, over the page store,
//! recorded write by write as the host sees them. Whatever a crash leaves of them opens as the state that was acknowledged
//! or as the one in flight, and recovery itself may crash anywhere.
//!
//! Between two flushes a commit writes some twenty slots: a million subsets, more with torn writes. They need not be tried one
//! by one to be all covered. What opening gives depends on nothing but the slots it reads; if none of the slots in flight is
//! among these, every subset of them, in any order and torn anywhere, gives the same. So the test watches what is read, and
//! asserts just that; only superblocks, two slots a commit, are tried in every combination. Some subsets are tried all the same, to
//! test the watching.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{CADENCE, Chain, GENESIS_TIME, accept, config, content, parameters, template};
use newton_pages::testing::{MemoryDevice, Operation, apply};
use newton_pages::{Options, PAGE_BYTES, PageKey, PageStore, RedbBackend, StoreId};
use newton_state::{CatchUp, Next, StateStore, open_database};
use newton_types::events::RegistryEvent;
use newton_types::{B256, LeafKey, Namespace, keccak256};
use zeroize::Zeroizing;

const ARTIFACTS: u64 = 4;

fn open(device: &MemoryDevice) -> StateStore {
    let key = PageKey::new(Zeroizing::new([1; 32]));
    let id = StoreId {
        operator: [2; 32],
        config: [3; 32],
    };
    let options = Options {
        page_cache_bytes: 0,
        node_cache_bytes: 0,
        ..Options::default()
    };
    let pages = PageStore::open(Arc::new(device.clone()), &key, id, options).unwrap();
    let db = open_database(RedbBackend::new(pages).unwrap(), 1 << 16).unwrap();
    StateStore::open(Arc::new(db), config()).unwrap()
}

/// Everything there is to see of a state.
fn seen(store: &StateStore) -> String {
    let snapshot = store.snapshot(None).unwrap();
    let tip = snapshot.tip();
    let mut out = format!("{:?} {:?}", tip, store.finalized().unwrap());
    for entry in store.undecided(None, 100).unwrap() {
        out += &format!(" {:?}", entry.key);
    }
    for sequence in 1..=tip.sequence {
        out += &format!(" {:?}", store.commit(sequence).unwrap());
    }
    for i in 0..ARTIFACTS {
        let hash = keccak256(bytes_of(i));
        let leaf = LeafKey::artifact(Namespace::PolicyRego, hash);
        out += &format!(" {:?}", snapshot.prove(tip.sequence, leaf).unwrap());
        out += &format!(" {:?}", store.content(hash).unwrap().map(keccak256));
    }
    out
}

/// What a file opens as, and which of its slots that depended on.
fn opened(file: Vec<u8>) -> (String, BTreeSet<u64>) {
    let device = MemoryDevice::new(file);
    device.watch();
    let store = open(&device);
    let seen = seen(&store);
    (seen, device.watched())
}

fn bytes_of(i: u64) -> Vec<u8> {
    content(i, 20 + i as usize)
}

/// Some blocks, verdicts and commits, each a redb transaction: the file before them, what was written, and after each what is
/// seen and how much was written until then.
fn history(device: &MemoryDevice) -> (Vec<u8>, Vec<Operation>, Vec<(usize, String)>) {
    let mut chain = Chain::new(parameters());
    let store = open(device);
    let mut log = Vec::new();
    let mut states = vec![(0, seen(&store))];
    let stable = device.bytes();
    device.record();
    let mut note = |store: &StateStore| {
        log.extend(device.recorded());
        device.record();
        states.push((log.len(), seen(store)));
    };
    store.apply_finalized(&chain.blocks).unwrap();
    note(&store);
    for i in 0..ARTIFACTS {
        let events = vec![template(&format!("p{i}"), &bytes_of(i))];
        let block = chain.push(GENESIS_TIME + (i + 1) * CADENCE, events).clone();
        store.apply_finalized(std::slice::from_ref(&block)).unwrap();
        note(&store);
        accept(&store, common::key(&block, 0, 0), &bytes_of(i));
        note(&store);
        if let Next::Ready(selection) = store.select().unwrap() {
            let commit = store.prepare(*selection).unwrap().commit().clone();
            let event = RegistryEvent::StateCommitted {
                commit,
                digest: B256::ZERO,
                delta_da_refs: vec![],
            };
            let time = chain.last().header.timestamp + 1;
            let block = chain.push(time, vec![event]).clone();
            store.apply_finalized(std::slice::from_ref(&block)).unwrap();
            note(&store);
            assert!(matches!(store.catch_up().unwrap(), CatchUp::UpToDate(_)));
            note(&store);
        }
    }
    assert!(store.tip().unwrap().sequence >= 2);
    (stable, log, states)
}

fn slot_of(operation: &Operation) -> Option<u64> {
    match operation {
        Operation::Write { slot, .. } => Some(*slot),
        _ => None,
    }
}

/// Both copies of a superblock, each absent, torn at a byte, or whole.
fn superblocks(stable: &[u8], writes: &[Operation]) -> Vec<Vec<u8>> {
    let cuts = [0, 1, 123, 148, 293, 309, 512, PAGE_BYTES];
    let mut files = vec![stable.to_vec()];
    for write in writes {
        let Operation::Write { slot, data } = write else {
            panic!("a superblock's flush has nothing but superblocks");
        };
        let at = *slot as usize * PAGE_BYTES;
        files = files
            .iter()
            .flat_map(|file| {
                cuts.iter().map(|cut| {
                    let mut file = file.clone();
                    file[at..at + cut].copy_from_slice(&data[..*cut]);
                    file
                })
            })
            .collect();
    }
    files
}

/// Plays every crash of a log over `stable`. `allowed` says what may be seen when so many operations were acknowledged, the
/// one in flight included. Returns the number of files tried, and those worth a second crash.
fn crashes(
    mut stable: Vec<u8>,
    log: &[Operation],
    allowed: &dyn Fn(usize) -> Vec<String>,
) -> (usize, Vec<Vec<u8>>) {
    let (mut tried, mut at, mut interesting) = (0, 0, Vec::new());
    for phase in log.split_inclusive(|operation| *operation == Operation::Flush) {
        let writes: Vec<Operation> = phase
            .iter()
            .filter(|o| **o != Operation::Flush)
            .cloned()
            .collect();
        let may = allowed(at);
        let mut check = |file: Vec<u8>| {
            tried += 1;
            let (seen, depends_on) = opened(file);
            assert!(may.contains(&seen), "operation {at}: saw {seen}");
            (seen, depends_on)
        };
        let slots: BTreeSet<u64> = writes.iter().filter_map(slot_of).collect();
        if slots.iter().any(|slot| *slot < 4) {
            for file in superblocks(&stable, &writes) {
                check(file);
            }
            // One copy arrived: opening has something to repair.
            for write in &writes {
                let mut file = stable.clone();
                apply(&mut file, write);
                interesting.push(file);
            }
        } else {
            let (before, depends_on) = check(stable.clone());
            let both: Vec<_> = slots.intersection(&depends_on).collect();
            assert!(
                both.is_empty(),
                "operation {at}: slots {both:?} are in flight, and read of the file before them"
            );
            for write in &writes {
                if let Operation::SetLen { slots } = write {
                    assert!(
                        *slots as usize * PAGE_BYTES >= stable.len(),
                        "the file is cut"
                    );
                }
            }
            // Two of the subsets, to see that it is so.
            for odd in [0, 1] {
                let mut file = stable.clone();
                let some = writes.iter().skip(odd).step_by(2);
                some.for_each(|write| apply(&mut file, write));
                assert_eq!(check(file).0, before);
            }
        }
        writes.iter().for_each(|write| apply(&mut stable, write));
        at += phase.len();
    }
    (tried, interesting)
}

#[test]
fn every_crash_of_small_commits_and_of_their_recovery() {
    let device = MemoryDevice::default();
    let (stable, log, states) = history(&device);
    let allowed = |at: usize| {
        let acknowledged = states.iter().rposition(|(end, _)| *end <= at).unwrap();
        let in_flight = (acknowledged + 1).min(states.len() - 1);
        vec![states[acknowledged].1.clone(), states[in_flight].1.clone()]
    };
    let (tried, interesting) = crashes(stable, &log, &allowed);
    assert!(tried > 500, "{tried}");
    assert!(interesting.len() > 20, "{}", interesting.len());

    // Recovery writes too: what it has shown stays, wherever it crashes.
    for file in interesting.into_iter().step_by(5) {
        let device = MemoryDevice::new(file.clone());
        device.record();
        let shown = seen(&open(&device));
        let recovery = device.recorded();
        let repaired = recovery.iter().position(|o| *o == Operation::Flush);
        let repaired = repaired.expect("opening flushes before it relies on anything") + 1;
        // Before the first flush nobody has seen anything.
        let (before, _) = opened(file.clone());
        let allowed = |at: usize| {
            let mut may = vec![shown.clone()];
            if at < repaired {
                may.push(before.clone());
            }
            may
        };
        crashes(file, &recovery, &allowed);
    }
}

/// The very first start, killed after every single operation: the next one begins anew or goes on, and ends at genesis.
#[test]
fn every_prefix_of_a_creation_starts_again() {
    let device = MemoryDevice::default();
    device.record();
    let genesis = seen(&open(&device));
    let log = device.recorded();
    assert!(log.len() > 30, "{}", log.len());
    for end in 0..=log.len() {
        let mut file = Vec::new();
        log[..end].iter().for_each(|o| apply(&mut file, o));
        let (first, _) = opened(file.clone());
        assert_eq!(first, genesis, "after {end} operations");
    }
}
