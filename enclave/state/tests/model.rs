//! Random chains: what a live enclave derives, what a fresh one replays, and what the model says are the same, whatever
//! the batches, the restarts and the order of verdicts.
#![allow(clippy::unwrap_used)]

mod common;

use common::{CHAIN_ID, Chain, Disk, artifact, content, open, parameters, secrets, template};
use newton_state::{CatchUp, Next, StateStore, Verdict};
use newton_types::events::RegistryEvent;
use newton_types::{Address, B256, Bytes, Namespace, ids, keccak256};
use proptest::prelude::*;

/// Contents that templates and envelopes draw from; small, so that duplicates come.
const POOL: u64 = 24;

#[derive(Clone, Debug)]
enum Op {
    Rego(u64),
    WithSchema(u64, u64),
    Supply(u64),
    Secrets(u8, u64),
    NewParameters { cap: u64, cadence: u64 },
}

#[derive(Clone, Debug)]
struct Step {
    /// Seconds since the block before.
    wait: u64,
    ops: Vec<Op>,
    /// Drop the database and open it again before this block.
    restart: bool,
    /// How many undecided entries are judged after this block.
    verdicts: usize,
}

fn op() -> impl Strategy<Value = Op> {
    let c = 0..POOL;
    prop_oneof![
        6 => c.clone().prop_map(Op::Rego),
        3 => (c.clone(), c.clone()).prop_map(|(a, b)| Op::WithSchema(a, b)),
        3 => c.clone().prop_map(Op::Supply),
        3 => (0..3u8, c).prop_map(|(i, e)| Op::Secrets(i, e)),
        1 => (60..150u64, 3..25u64).prop_map(|(cap, cadence)| Op::NewParameters { cap, cadence }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    (
        prop_oneof![3 => 0..6u64, 2 => 6..14u64, 1 => 30..60u64],
        prop::collection::vec(op(), 0..4),
        prop::bool::weighted(0.15),
        prop_oneof![4 => Just(100usize), 1 => 0..3usize],
    )
        .prop_map(|(wait, ops, restart, verdicts)| Step {
            wait,
            ops,
            restart,
            verdicts,
        })
}

/// 1 to 60 bytes; nothing is above the cap.
fn bytes_of(c: u64) -> Vec<u8> {
    content(c, 1 + (c as usize * 37) % 60)
}

fn is_good(hash: B256) -> bool {
    let c = (0..POOL).find(|c| keccak256(bytes_of(*c)) == hash).unwrap();
    c % 5 != 3
}

/// Nobody ever gets these: a certificate drops their entries.
fn is_lost(hash: B256) -> bool {
    let c = (0..POOL).find(|c| keccak256(bytes_of(*c)) == hash).unwrap();
    c == 7
}

fn events(step: &Step, count: &mut u64, now: u64, schedule: &mut Grid) -> Vec<RegistryEvent> {
    step.ops
        .iter()
        .filter_map(|op| {
            *count += 1;
            Some(match op {
                Op::Rego(c) => template(&format!("p{count}"), &bytes_of(*c)),
                Op::WithSchema(c, schema) => {
                    let (rego, schema) = (artifact(&bytes_of(*c)), artifact(&bytes_of(*schema)));
                    let name = format!("p{count}");
                    RegistryEvent::PolicyTemplateRegistered {
                        id: ids::policy_template_id(rego.hash, &name, schema.hash, &[]),
                        author: Address::ZERO,
                        rego,
                        params_schema: schema,
                        entrypoint: name,
                        data_template_refs: vec![],
                        da_refs: vec![Bytes::new(), Bytes::new()],
                    }
                }
                Op::Supply(c) => RegistryEvent::ArtifactSupplied {
                    namespace: Namespace::PolicyRego,
                    artifact: artifact(&bytes_of(*c)),
                    supplier: Address::ZERO,
                    da_ref: Bytes::new(),
                },
                Op::Secrets(i, c) => secrets(*i, &bytes_of(*c)),
                Op::NewParameters { cap, cadence } => {
                    return schedule.change(now, *cap, *cadence);
                }
            })
        })
        .collect()
}

/// What the contract does with new parameters: they hold from the first window end at least one window away.
struct Grid {
    current: newton_types::events::ConsensusParameters,
    next_from: u64,
}

impl Grid {
    fn change(&mut self, now: u64, cap: u64, cadence: u64) -> Option<RegistryEvent> {
        if now < self.next_from {
            return None;
        }
        let (genesis, old) = (self.current.genesis_time, self.current.cadence);
        let windows = (now + old).saturating_sub(genesis).div_ceil(old).max(1);
        let from = genesis + windows * old;
        self.current.max_commit_bytes = cap;
        if cadence != old {
            self.current.cadence = cadence;
            self.current.genesis_time = from;
        }
        self.next_from = from;
        Some(RegistryEvent::ConsensusParametersSet {
            parameters: self.current,
            active_from_timestamp: from,
        })
    }
}

/// Judges up to `limit` undecided entries. Lost content stays unavailable.
fn judge(store: &StateStore, limit: usize) {
    for entry in store.undecided(None, limit).unwrap() {
        let c = (0..POOL)
            .find(|c| keccak256(bytes_of(*c)) == entry.hash)
            .unwrap();
        let bytes = bytes_of(c);
        let verdict = if is_lost(entry.hash) {
            Verdict::Unavailable {
                reason: "gone".into(),
                now: 5,
            }
        } else if is_good(entry.hash) {
            Verdict::Accepted { bytes: &bytes }
        } else {
            Verdict::Rejected {
                reason: "does not parse".into(),
            }
        };
        store.record_verdict(entry.key, verdict).unwrap();
    }
}

/// Runs a live enclave whose commits land in the next block; returns the chain.
fn live(steps: &[Step], skip_empty: bool) -> (Chain, Disk) {
    let mut initial = parameters();
    initial.skip_empty = skip_empty;
    let mut grid = Grid {
        current: initial,
        next_from: 0,
    };
    let mut chain = Chain::new(initial);
    let disk = Disk::new();
    let mut store = open(&disk);
    store.apply_finalized(&chain.blocks).unwrap();
    let mut count = 0;
    let mut landing: Vec<RegistryEvent> = Vec::new();
    for step in steps {
        if step.restart {
            drop(store);
            store = open(&disk);
        }
        let now = chain.last().header.timestamp + step.wait;
        let mut events = events(step, &mut count, now, &mut grid);
        events.append(&mut landing);
        let block = chain.push(now, events).clone();
        store.apply_finalized(std::slice::from_ref(&block)).unwrap();
        // Repeating a block changes nothing.
        store.apply_finalized(std::slice::from_ref(&block)).unwrap();
        judge(&store, step.verdicts);
        let CatchUp::UpToDate(_) = store.catch_up().unwrap() else {
            panic!("its own commit must replay");
        };
        match store.select().unwrap() {
            Next::Ready(selection) => {
                let prepared = store.prepare(*selection).unwrap();
                landing.push(RegistryEvent::StateCommitted {
                    commit: prepared.commit().clone(),
                    digest: B256::ZERO,
                    delta_da_refs: vec![],
                });
            }
            Next::Blocked(blocked) => {
                let entry = store.entry(blocked.entry).unwrap().unwrap();
                if is_lost(entry.hash) {
                    landing.push(RegistryEvent::EntrySkipped { entry: entry.key });
                }
            }
            Next::Waiting(_) => {}
            Next::Behind { .. } => panic!("caught up"),
        }
    }
    (chain, disk)
}

/// A fresh enclave on the whole chain, with batches and verdicts in another rhythm.
fn replay(chain: &Chain, batch: usize, verdicts: usize) -> StateStore {
    let disk = Disk::new();
    let mut store = open(&disk);
    for (i, blocks) in chain.blocks.chunks(batch).enumerate() {
        store.apply_finalized(blocks).unwrap();
        if i % 3 == 2 {
            drop(store);
            store = open(&disk);
        }
    }
    for _ in 0..100_000 {
        match store.catch_up().unwrap() {
            CatchUp::UpToDate(_) => return store,
            CatchUp::Stopped { .. } => {
                assert!(matches!(store.select().unwrap(), Next::Behind { .. }));
                // In an enclave that starts over, lost content is lost as well.
                let before = store.undecided(None, 10_000).unwrap().len();
                judge(&store, verdicts + before);
            }
        }
    }
    panic!("replay does not end");
}

fn check(steps: &[Step], skip_empty: bool, batch: usize, verdicts: usize) {
    let (chain, disk) = live(steps, skip_empty);
    let landed = newton_model::chain_commits(&chain.blocks);
    let store = open(&disk);

    let expected = newton_model::follows_from(CHAIN_ID, &chain.blocks, |e| is_good(e.hash)).commits;
    for ((_, commit), model) in landed.iter().zip(&expected) {
        assert_eq!(commit, model);
    }
    assert!(landed.len() <= expected.len());

    let again = replay(&chain, batch, verdicts);
    assert_eq!(again.tip().unwrap(), store.tip().unwrap());
    assert_eq!(again.queue_totals().unwrap(), store.queue_totals().unwrap());

    // Every leaf at every version, by its proof.
    let entries = newton_model::entries(CHAIN_ID, &chain.blocks);
    let snapshot = store.snapshot(None).unwrap();
    for version in 0..=store.tip().unwrap().sequence {
        let root = snapshot.root(version).unwrap().unwrap();
        for e in &entries {
            let (value, proof) = snapshot.prove(version, e.leaf).unwrap();
            proof
                .verify(root, e.leaf, value.unwrap_or_default())
                .unwrap();
            assert_eq!(snapshot.leaf(version, e.leaf).unwrap(), value);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn live_replay_and_model_agree(
        steps in prop::collection::vec(step(), 1..40),
        skip_empty: bool,
        batch in 1..9usize,
        verdicts in 0..4usize,
    ) {
        check(&steps, skip_empty, batch, verdicts);
    }
}

/// The generator reaches what it is meant to reach; otherwise the property above says little.
#[test]
fn generated_chains_are_interesting() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, TestRunner};
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let (mut commits, mut written, mut skips, mut rejected, mut changed) = (0, 0, 0, 0, 0);
    for _ in 0..24 {
        let steps = prop::collection::vec(step(), 30..40)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let (chain, _) = live(&steps, false);
        let landed = newton_model::chain_commits(&chain.blocks);
        commits += landed.len();
        written += landed
            .iter()
            .filter(|(_, c)| c.newStateRoot != c.prevStateRoot)
            .count();
        for event in chain.blocks.iter().flat_map(|b| &b.events) {
            match &event.event {
                RegistryEvent::EntrySkipped { .. } => skips += 1,
                RegistryEvent::ConsensusParametersSet { .. } => changed += 1,
                _ => {}
            }
        }
        rejected += newton_model::entries(CHAIN_ID, &chain.blocks)
            .iter()
            .filter(|e| !is_good(e.hash))
            .count();
    }
    assert!(
        commits > 150 && written > 60,
        "{commits} commits, {written} with leaves"
    );
    assert!(
        skips > 3 && rejected > 20 && changed > 30,
        "{skips} {rejected} {changed}"
    );
}
