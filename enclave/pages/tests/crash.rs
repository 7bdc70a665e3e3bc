//! The crash promise of design 2.6: every file that a host can show after a crash, of an unacknowledged flush, opens at
//! the generation before or its own; of an acknowledged one at its own.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::{Random, contents, open, open_with, small};
use newton_pages::testing::{MemoryDevice, Operation, apply};
use newton_pages::{Options, PAGE_BYTES, PageStore};
use redb::StorageBackend;

/// Writes between two flushes up to which every subset is tried.
const EXHAUSTIVE: usize = 10;

/// What a generation holds; `None` is a store that was not created yet.
type States = BTreeMap<u64, Vec<u8>>;

/// Checks one file a crash can have left: it opens at a generation of `allowed`, holds what that held, and goes on.
fn check(file: Vec<u8>, states: &States, allowed: &[u64], what: &str) {
    let device = MemoryDevice::new(file);
    let store = open_with(&device, small()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let generation = store.generation();
    if store.created() {
        assert!(
            allowed.contains(&0),
            "{what}: made anew, expected one of {allowed:?}"
        );
        assert_eq!(store.len().unwrap(), 0);
    } else {
        assert!(
            allowed.contains(&generation),
            "{what}: opened at {generation}, expected one of {allowed:?}"
        );
        assert!(
            contents(&store).unwrap() == states[&generation],
            "{what}: generation {generation} is wrong"
        );
    }
    // It also goes on from there, and nothing it needs is overwritten.
    let mut model = contents(&store).unwrap();
    model.resize(model.len().max(PAGE_BYTES) + PAGE_BYTES, 0);
    store.set_len(model.len() as u64).unwrap();
    model[5..105].fill(0xee);
    store.write(5, &[0xee; 100]).unwrap();
    store.sync_data().unwrap();
    assert!(
        contents(&open(&device).unwrap()).unwrap() == model,
        "{what}: after going on"
    );
}

/// Plays every crash in a recorded piece of history. `before` is the file at its start, on stable storage; `states` what
/// every generation held, `first` the generation at the start.
fn crashes(
    before: &[u8],
    log: &[Operation],
    states: &States,
    first: u64,
    random: &mut Random,
) -> usize {
    let last = *states.keys().next_back().unwrap();
    let mut stable = before.to_vec();
    // The generation a crash may not lose, and the one whose superblock may be there.
    let mut acknowledged = first;
    let mut tried = 0;
    for phase in log.split_inclusive(|operation| *operation == Operation::Flush) {
        let flushed = phase.last() == Some(&Operation::Flush);
        let writes = &phase[..phase.len() - usize::from(flushed)];
        let mut slots: Vec<u64> = writes
            .iter()
            .filter_map(|w| {
                if let Operation::Write { slot, .. } = w {
                    Some(*slot)
                } else {
                    None
                }
            })
            .collect();
        slots.sort_unstable();
        let superblock = slots.first().is_some_and(|slot| *slot < 4);
        let count = slots.len();
        slots.dedup();
        // So every reordering of a phase is one of its subsets.
        assert_eq!(
            slots.len(),
            count,
            "a slot is written twice between two flushes"
        );
        assert!(
            !superblock || slots.iter().all(|slot| *slot < 4),
            "a superblock among pages not yet flushed"
        );
        let in_flight = if superblock {
            acknowledged + 1
        } else {
            acknowledged
        };
        let allowed = [acknowledged, in_flight];
        let subsets: Vec<u64> = if writes.len() <= EXHAUSTIVE {
            (0..1 << writes.len()).collect()
        } else {
            let prefixes = (0..=writes.len().min(63))
                .step_by(3)
                .map(|n| (1u64 << n) - 1);
            prefixes.chain((0..40).map(|_| random.next())).collect()
        };
        for subset in subsets {
            let chosen = || {
                writes
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| *i > 63 || subset >> i & 1 == 1)
            };
            let mut file = stable.clone();
            chosen().for_each(|(_, write)| apply(&mut file, write));
            check(
                file.clone(),
                states,
                &allowed,
                &format!("subset {subset:b} of {} writes", writes.len()),
            );
            tried += 1;
            // The same with one write torn, at a byte or in single sectors.
            let Some((torn, write)) = chosen().next_back() else {
                continue;
            };
            let Operation::Write { slot, data } = write else {
                continue;
            };
            let start = *slot as usize * PAGE_BYTES;
            let mut old = stable
                .get(start..start + PAGE_BYTES)
                .map_or_else(|| vec![0; PAGE_BYTES], <[u8]>::to_vec);
            if random.below(2) == 0 {
                let cut = match random.below(2) {
                    0 => random.below(512),
                    _ => random.below(PAGE_BYTES as u64),
                } as usize;
                old[..cut].copy_from_slice(&data[..cut]);
            } else {
                let sectors = random.next();
                for sector in (0..PAGE_BYTES / 512).filter(|s| sectors >> s & 1 == 1) {
                    let range = sector * 512..(sector + 1) * 512;
                    old[range.clone()].copy_from_slice(&data[range]);
                }
            }
            file[start..start + PAGE_BYTES].copy_from_slice(&old);
            check(
                file,
                states,
                &allowed,
                &format!("write {torn} torn after subset {subset:b}"),
            );
            tried += 1;
        }
        writes.iter().for_each(|write| apply(&mut stable, write));
        if flushed && superblock {
            acknowledged += 1;
            check(stable.clone(), states, &[acknowledged], "acknowledged");
        }
    }
    assert_eq!(
        acknowledged, last,
        "the history ends with an acknowledged flush"
    );
    tried
}

/// Runs `work` on a store, recording, and plays all crashes in it. `work` is called with each step number and syncs once.
fn history(
    options: Options,
    prepare: impl Fn(&PageStore),
    steps: &[&dyn Fn(&PageStore)],
    seed: u64,
) -> usize {
    let device = MemoryDevice::default();
    let store = open_with(&device, options).unwrap();
    prepare(&store);
    store.sync_data().unwrap();
    let before = device.bytes();
    let first = store.generation();
    let mut states = States::from([(first, contents(&store).unwrap())]);
    device.record();
    for step in steps {
        step(&store);
        store.sync_data().unwrap();
        states.insert(store.generation(), contents(&store).unwrap());
    }
    let log = device.recorded();
    crashes(&before, &log, &states, first, &mut Random(seed))
}

fn put(store: &PageStore, page: u64, byte: u8) {
    store
        .write(page * PAGE_BYTES as u64, &[byte; PAGE_BYTES])
        .unwrap();
}

#[test]
fn every_crash_while_a_store_is_created() {
    let device = MemoryDevice::default();
    device.record();
    let store = open(&device).unwrap();
    let states = States::from([(0, Vec::new()), (1, Vec::new())]);
    let tried = crashes(&[], &device.recorded(), &states, 0, &mut Random(1));
    assert!(tried >= 6, "{tried}");
    // Every single cut of the first superblock, byte by byte.
    let whole = device.bytes();
    assert_eq!(store.generation(), 1);
    for cut in 0..PAGE_BYTES {
        let mut file = whole.clone();
        file[PAGE_BYTES + cut..2 * PAGE_BYTES].fill(0);
        file[3 * PAGE_BYTES..].fill(0);
        let store = open(&MemoryDevice::new(file)).unwrap();
        assert_eq!(store.generation(), 1);
    }
}

#[test]
fn every_crash_of_a_small_commit() {
    let prepare = |store: &PageStore| {
        store.set_len(4 * PAGE_BYTES as u64).unwrap();
        (0..4).for_each(|page| put(store, page, page as u8));
    };
    let steps: [&dyn Fn(&PageStore); 4] = [
        &|store| put(store, 1, 0xa1),
        &|store| {
            put(store, 0, 0xb0);
            put(store, 3, 0xb3);
        },
        &|store| (0..4).for_each(|page| put(store, page, 0xc0 + page as u8)),
        &|store| put(store, 2, 0xd2),
    ];
    let tried = history(Options::default(), prepare, &steps, 2);
    assert!(tried > 200, "{tried}");
}

#[test]
fn every_crash_of_growing_shrinking_and_spilling() {
    let prepare = |store: &PageStore| {
        store.set_len(PAGE_BYTES as u64).unwrap();
        put(store, 0, 0x77);
    };
    let steps: [&dyn Fn(&PageStore); 5] = [
        // The tree grows by two levels.
        &|store| {
            store.set_len(75 * PAGE_BYTES as u64).unwrap();
            put(store, 74, 0xa1);
            put(store, 70, 0xa2);
        },
        // More than the write buffer holds, and a page written again after it was sent early.
        &|store| {
            (0..6).for_each(|page| put(store, page * 12, 0xb0 + page as u8));
            put(store, 0, 0xbf);
        },
        &|store| store.set_len(2 * PAGE_BYTES as u64 + 7).unwrap(),
        &|store| store.set_len(0).unwrap(),
        &|store| {
            store.set_len(PAGE_BYTES as u64).unwrap();
            put(store, 0, 0xc0);
        },
    ];
    let tried = history(small(), prepare, &steps, 3);
    assert!(tried > 300, "{tried}");
}

#[test]
fn crashes_of_random_commits_sampled() {
    for seed in 0..4 {
        let random = std::cell::RefCell::new(Random(seed));
        let step = |store: &PageStore| {
            let mut random = random.borrow_mut();
            for _ in 0..random.below(30) {
                put(store, random.0 % 80, random.below(256) as u8);
                random.next();
            }
        };
        let prepare = |store: &PageStore| {
            store.set_len(80 * PAGE_BYTES as u64).unwrap();
            step(store);
        };
        history(
            if seed % 2 == 0 {
                small()
            } else {
                Options::default()
            },
            prepare,
            &[&step, &step, &step],
            seed,
        );
    }
}

/// A crash in the middle of a superblock's two copies, opened again, and crashed again while that opening repairs the
/// copies: never back to the generation that was left behind once a store was opened.
#[test]
fn crashes_while_a_copy_of_the_superblock_is_repaired() {
    let device = MemoryDevice::default();
    let store = open(&device).unwrap();
    store.set_len(PAGE_BYTES as u64).unwrap();
    put(&store, 0, 1);
    store.sync_data().unwrap();
    let old = contents(&store).unwrap();
    device.record();
    put(&store, 0, 2);
    store.sync_data().unwrap();
    let generation = store.generation();
    let states = States::from([
        (generation - 1, old),
        (generation, contents(&store).unwrap()),
    ]);
    let log = device.recorded();
    let superblocks: Vec<&Operation> = log
        .iter()
        .filter(|o| matches!(o, Operation::Write { slot, .. } if *slot < 4))
        .collect();
    assert_eq!(superblocks.len(), 2);
    for copy in superblocks {
        let Operation::Write { slot, .. } = copy else {
            unreachable!()
        };
        let half = MemoryDevice::new(device.bytes());
        // The copy did not arrive: what was in the slot two generations ago, or nothing.
        half.tamper(|file| file[*slot as usize * PAGE_BYTES..][..PAGE_BYTES].fill(0));
        half.record();
        assert_eq!(open(&half).unwrap().generation(), generation);
        let repair = half.recorded();
        assert_eq!(repair, [copy.clone(), Operation::Flush]);
        assert_eq!(half.bytes(), device.bytes());
        check(half.bytes(), &states, &[generation], "repaired");
    }
    // With both copies whole, opening still waits until the host has them on stable storage.
    device.record();
    open(&device).unwrap();
    assert_eq!(device.recorded(), [Operation::Flush]);
}

/// The device fails at every single operation of a commit: the store stops, says why, and opens again.
#[test]
fn a_device_that_fails_at_any_point() {
    for fuel in 0..60 {
        let device = MemoryDevice::default();
        let store = open_with(&device, small()).unwrap();
        store.set_len(80 * PAGE_BYTES as u64).unwrap();
        (0..8).for_each(|page| put(&store, page * 10, 1));
        store.sync_data().unwrap();
        let old = contents(&store).unwrap();
        let generation = store.generation();
        device.fail_after(fuel);
        let result = (0..8u64)
            .try_for_each(|page| store.write(page * 10 * PAGE_BYTES as u64, &[2; PAGE_BYTES]))
            .and_then(|()| store.sync_data());
        device.fail_after(1_000_000);
        let again = open(&device).unwrap();
        match result {
            Ok(()) => {
                assert!(fuel > 15, "{fuel}");
                assert_eq!(again.generation(), generation + 1);
            }
            Err(_) => {
                assert!(matches!(
                    *store.last_fault().unwrap(),
                    newton_pages::PageError::Device(_)
                ));
                // It does not go on with what it does not know.
                assert!(store.sync_data().is_err());
                assert!(
                    matches!(
                        *store.last_fault().unwrap(),
                        newton_pages::PageError::Device(_)
                    ),
                    "the cause stays"
                );
                let now = contents(&again).unwrap();
                if again.generation() == generation {
                    assert!(now == old);
                } else {
                    assert_eq!(again.generation(), generation + 1);
                    assert_eq!(now[10 * PAGE_BYTES], 2);
                }
            }
        }
    }
}
