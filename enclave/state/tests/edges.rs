//! Each edge of windows, caps, verdicts and restarts by itself.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{
    CADENCE, Chain, Disk, GENESIS_TIME, accept, artifact, config, content, key, model, open,
    parameters, reject, secrets, template,
};
use newton_state::{
    AtHead, CatchUp, EntryState, LeafStatus, Next, Outcome, PreparedCommit, Selection, StateError,
    StateStore, Verdict, Waiting,
};
use newton_types::events::{Block, RegistryEvent};
use newton_types::leaf::EMPTY_ROOT;
use newton_types::{Address, B256, LeafKey, Namespace, QueueKey, abi, keccak256};
use redb::Database;

fn started(chain: &Chain) -> (Disk, StateStore) {
    let disk = Disk::new();
    let store = open(&disk);
    store.apply_finalized(&chain.blocks).unwrap();
    (disk, store)
}

fn push(chain: &mut Chain, store: &StateStore, time: u64, events: Vec<RegistryEvent>) -> Block {
    let block = chain.push(GENESIS_TIME + time, events).clone();
    store.apply_finalized(std::slice::from_ref(&block)).unwrap();
    block
}

fn ready(store: &StateStore) -> Selection {
    match store.select().unwrap() {
        Next::Ready(selection) => *selection,
        other => panic!("not ready: {other:?}"),
    }
}

fn waiting(store: &StateStore) -> Waiting {
    match store.select().unwrap() {
        Next::Waiting(waiting) => waiting,
        other => panic!("not waiting: {other:?}"),
    }
}

fn prepared(store: &StateStore) -> PreparedCommit {
    store.prepare(ready(store)).unwrap()
}

fn committed(commit: &abi::StateCommit) -> RegistryEvent {
    RegistryEvent::StateCommitted {
        commit: commit.clone(),
        digest: B256::ZERO,
        delta_da_refs: vec![],
    }
}

/// Lets the chain confirm what the store derives.
fn land(chain: &mut Chain, store: &StateStore, time: u64) -> abi::StateCommit {
    let commit = prepared(store).commit().clone();
    push(chain, store, time, vec![committed(&commit)]);
    assert!(matches!(store.catch_up().unwrap(), CatchUp::UpToDate(_)));
    commit
}

fn rego_leaf(bytes: &[u8]) -> LeafKey {
    LeafKey::artifact(Namespace::PolicyRego, keccak256(bytes))
}

#[test]
fn genesis_is_the_empty_tree() {
    let store = open(&Disk::new());
    let tip = store.tip().unwrap();
    assert_eq!((tip.sequence, tip.root), (0, EMPTY_ROOT));
    assert_eq!(waiting(&store), Waiting::NoBlock);
    let snapshot = store.snapshot(None).unwrap();
    assert_eq!(snapshot.root(0).unwrap(), Some(EMPTY_ROOT));
    let (value, proof) = snapshot.prove(0, LeafKey(B256::repeat_byte(1))).unwrap();
    assert_eq!(value, None);
    proof
        .verify(EMPTY_ROOT, LeafKey(B256::repeat_byte(1)), B256::ZERO)
        .unwrap();
}

#[test]
fn a_boundary_is_known_only_behind_the_windows_end() {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    push(&mut chain, &store, 8, vec![]);
    assert!(matches!(waiting(&store), Waiting::Boundary { window_end, .. } if window_end == 1_010));
    // A block at the very end belongs to the window; a later one may still have the same timestamp.
    push(&mut chain, &store, 10, vec![]);
    assert!(matches!(waiting(&store), Waiting::Boundary { .. }));
    push(&mut chain, &store, 10, vec![]);
    assert!(matches!(waiting(&store), Waiting::Boundary { .. }));
    push(&mut chain, &store, 11, vec![]);
    let selection = ready(&store);
    assert_eq!((selection.window_end, selection.boundary_block), (1_010, 4));
    assert_eq!(selection.boundary_timestamp, 1_010);
}

#[test]
fn windows_without_blocks_have_no_commit_and_several_ends_share_none() {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    push(&mut chain, &store, 5, vec![]);
    // Ten windows pass without a block.
    push(&mut chain, &store, 107, vec![]);
    let first = land(&mut chain, &store, 108);
    assert_eq!((first.boundaryBlock, first.boundaryTimestamp), (2, 1_005));
    // The next boundary that is higher is in the window that ends at 110; the ones between have the same.
    assert!(matches!(
        waiting(&store),
        Waiting::Boundary {
            window_end: 1_110,
            ..
        }
    ));
    push(&mut chain, &store, 131, vec![]);
    assert_eq!(ready(&store).boundary_block, 4);
    let second = land(&mut chain, &store, 132);
    assert_eq!(second.prevStateRoot, first.newStateRoot);
    assert_eq!(second.sequenceNo, 2);
}

#[test]
fn empty_commits_write_versions_with_the_same_root() {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    push(&mut chain, &store, 5, vec![]);
    for i in 1..6 {
        push(&mut chain, &store, i * CADENCE + 1, vec![]);
        let commit = land(&mut chain, &store, i * CADENCE + 2);
        assert_eq!((commit.sequenceNo, commit.newStateRoot), (i, EMPTY_ROOT));
        assert_eq!(commit.settledBytes, 0);
        assert_eq!(
            store.snapshot(None).unwrap().root(i).unwrap(),
            Some(EMPTY_ROOT)
        );
    }
}

#[test]
fn skip_empty_takes_the_first_window_that_drains_something() {
    let mut p = parameters();
    p.skip_empty = true;
    let mut chain = Chain::new(p);
    let (_disk, store) = started(&chain);
    for i in 1..5 {
        push(&mut chain, &store, i * CADENCE + 1, vec![]);
        assert_eq!(waiting(&store), Waiting::NothingToCommit);
    }
    let bytes = content(1, 10);
    let block = push(&mut chain, &store, 55, vec![template("a", &bytes)]);
    accept(&store, key(&block, 0, 0), &bytes);
    assert!(matches!(
        waiting(&store),
        Waiting::Boundary {
            window_end: 1_060,
            ..
        }
    ));
    push(&mut chain, &store, 61, vec![]);
    let commit = land(&mut chain, &store, 62);
    assert_eq!(
        (commit.sequenceNo, commit.boundaryBlock),
        (1, block.header.number)
    );
    assert_eq!(waiting(&store), Waiting::NothingToCommit);
    // A rejected entry drains too.
    let block = push(&mut chain, &store, 75, vec![template("b", &content(2, 10))]);
    reject(&store, key(&block, 0, 0));
    push(&mut chain, &store, 81, vec![]);
    let commit = prepared(&store).commit().clone();
    assert_eq!(commit.settledBytes, 10);
    assert_eq!(commit.newStateRoot, commit.prevStateRoot);
}

/// Registers contents of these lengths in one block and returns what one window takes.
fn drained_with_cap(cap: u64, lengths: &[usize]) -> (Selection, Vec<QueueKey>) {
    let mut p = parameters();
    p.max_commit_bytes = cap;
    let mut chain = Chain::new(p);
    let (_disk, store) = started(&chain);
    let contents: Vec<_> = (0..).zip(lengths).map(|(i, l)| content(i, *l)).collect();
    let events = contents
        .iter()
        .enumerate()
        .map(|(i, c)| template(&format!("p{i}"), c))
        .collect();
    let block = push(&mut chain, &store, 5, events);
    let keys: Vec<_> = (0..contents.len()).map(|i| key(&block, i, 0)).collect();
    for (key, bytes) in keys.iter().zip(&contents) {
        accept(&store, *key, bytes);
    }
    push(&mut chain, &store, 11, vec![]);
    (ready(&store), keys)
}

#[test]
fn equal_to_the_cap_fits_and_one_byte_more_waits() {
    let (selection, keys) = drained_with_cap(100, &[60, 40]);
    assert_eq!(selection.drained.len(), 2);
    assert_eq!(selection.deferred_from, None);
    assert_eq!(selection.cursor(), keys[1]);
    let (selection, keys) = drained_with_cap(100, &[60, 41]);
    assert_eq!(selection.drained.len(), 1);
    assert_eq!(selection.deferred_from, Some(keys[1]));
    assert_eq!((selection.settled_bytes, selection.cursor()), (60, keys[0]));
}

#[test]
fn nothing_is_skipped_to_fill_the_cap() {
    let (selection, keys) = drained_with_cap(100, &[60, 50, 1, 1]);
    assert_eq!(selection.drained.len(), 1);
    assert_eq!(selection.deferred_from, Some(keys[1]));
    // One that never fits stops everything; the contract keeps maxArtifactBytes below the cap.
    let (selection, keys) = drained_with_cap(100, &[101, 1]);
    assert!(selection.drained.is_empty());
    assert_eq!(selection.deferred_from, Some(keys[0]));
    assert_eq!(selection.cursor(), QueueKey::default());
}

#[test]
fn deferred_entries_are_the_next_windows() {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    let contents: Vec<_> = (0..5).map(|i| content(i, 50)).collect();
    let events = (0..5)
        .map(|i| template(&format!("p{i}"), &contents[i]))
        .collect();
    let block = push(&mut chain, &store, 5, events);
    for (i, c) in contents.iter().enumerate() {
        accept(&store, key(&block, i, 0), c);
    }
    let mut settled = vec![];
    for n in 1..=4 {
        push(&mut chain, &store, n * CADENCE + 1, vec![]);
        settled.push(land(&mut chain, &store, n * CADENCE + 2).settledBytes);
    }
    assert_eq!(settled, [100, 100, 50, 0]);
    assert_eq!(store.queue_totals().unwrap().entries, 0);
    let all: std::collections::BTreeMap<_, _> = contents
        .iter()
        .map(|c| (rego_leaf(c), keccak256(c)))
        .collect();
    assert_eq!(store.tip().unwrap().root, model::root(&all));
}

#[test]
fn what_is_present_uses_no_cap_and_needs_no_verdict() {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    let (a, b) = (content(1, 80), content(2, 20));
    let events = vec![
        template("a", &a),
        template("a again", &a),
        template("b", &b),
        template("a once more", &a),
    ];
    let block = push(&mut chain, &store, 5, events);
    accept(&store, key(&block, 0, 0), &a);
    accept(&store, key(&block, 2, 0), &b);
    push(&mut chain, &store, 11, vec![]);
    let selection = ready(&store);
    assert_eq!(selection.settled_bytes, 80 + 80 + 20 + 80);
    assert_eq!(selection.delta.len(), 2);
    let outcomes: Vec<_> = selection.drained.iter().map(|d| d.2.clone()).collect();
    assert_eq!(
        outcomes,
        [
            Outcome::Written,
            Outcome::AlreadyPresent,
            Outcome::Written,
            Outcome::AlreadyPresent
        ]
    );
    land(&mut chain, &store, 12);
    // In a later window too, even with a wrong length and without a look at it.
    let mut wrong = artifact(&a);
    wrong.length = 3;
    let supply = RegistryEvent::ArtifactSupplied {
        namespace: Namespace::PolicyRego,
        artifact: wrong,
        supplier: Address::ZERO,
        da_ref: Default::default(),
    };
    push(&mut chain, &store, 15, vec![supply]);
    push(&mut chain, &store, 21, vec![]);
    let selection = ready(&store);
    assert_eq!((selection.settled_bytes, selection.delta.len()), (3, 0));
    // The same bytes in another role are another leaf.
    let wasm = RegistryEvent::ArtifactSupplied {
        namespace: Namespace::PolicyParamsSchema,
        artifact: artifact(&a),
        supplier: Address::ZERO,
        da_ref: Default::default(),
    };
    let block = push(&mut chain, &store, 22, vec![wasm]);
    assert_eq!(store.undecided(None, 9).unwrap()[1].key, key(&block, 0, 0));
}

#[test]
fn the_last_envelope_is_in_force_and_an_old_one_may_return() {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    let (a, b) = (content(1, 20), content(2, 20));
    let leaf = LeafKey::secrets(
        common::CHAIN_ID,
        Address::repeat_byte(9),
        B256::repeat_byte(4),
    );
    let mut values = vec![];
    for (n, envelopes) in [(1, vec![&a, &b]), (2, vec![&b, &a]), (3, vec![&a])] {
        let events = envelopes.iter().map(|e| secrets(4, e)).collect();
        let block = push(&mut chain, &store, n * CADENCE - 1, events);
        for (i, e) in envelopes.iter().enumerate() {
            accept(&store, key(&block, i, 0), e);
        }
        push(&mut chain, &store, n * CADENCE + 1, vec![]);
        let delta = ready(&store).delta.len();
        land(&mut chain, &store, n * CADENCE + 2);
        let snapshot = store.snapshot(None).unwrap();
        values.push((delta, snapshot.leaf(n, leaf).unwrap()));
    }
    let (a, b) = (keccak256(&a), keccak256(&b));
    assert_eq!(values, [(2, Some(b)), (1, Some(a)), (0, Some(a))]);
    // Old versions keep their values.
    let snapshot = store.snapshot(None).unwrap();
    assert_eq!(snapshot.leaf(0, leaf).unwrap(), None);
    assert_eq!(snapshot.leaf(1, leaf).unwrap(), Some(b));
    assert!(matches!(
        snapshot.leaf(4, leaf),
        Err(StateError::Tree(
            newton_state::tree::TreeError::MissingRoot { version: 4 }
        ))
    ));
}

#[test]
fn an_entry_without_verdict_blocks_and_a_certificate_drops_it() {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    let (lost, good) = (content(1, 30), content(2, 30));
    let block = push(
        &mut chain,
        &store,
        5,
        vec![template("lost", &lost), template("good", &good)],
    );
    let (lost_key, good_key) = (key(&block, 0, 0), key(&block, 1, 0));
    accept(&store, good_key, &good);
    push(&mut chain, &store, 11, vec![]);
    let blocked = |store: &StateStore| match store.select().unwrap() {
        Next::Blocked(blocked) => blocked,
        other => panic!("not blocked: {other:?}"),
    };
    assert_eq!(blocked(&store).state, EntryState::Pending);
    for _ in 0..2 {
        let verdict = Verdict::Unavailable {
            reason: "no source has it".into(),
            now: 77,
        };
        store.record_verdict(lost_key, verdict).unwrap();
    }
    let EntryState::Unavailable(u) = blocked(&store).state else {
        panic!("unavailable");
    };
    assert_eq!((u.attempts, u.last_attempt), (2, 77));
    assert_eq!(store.undecided(None, 10).unwrap().len(), 1);
    // The certificate comes long after the boundary; the window stays the same one.
    push(
        &mut chain,
        &store,
        35,
        vec![RegistryEvent::EntrySkipped { entry: lost_key }],
    );
    let selection = ready(&store);
    assert_eq!(selection.boundary_block, block.header.number);
    assert_eq!(selection.drained[0].2, Outcome::Skipped);
    let commit = land(&mut chain, &store, 36);
    assert_eq!(commit.settledBytes, 60);
    let snapshot = store.snapshot(None).unwrap();
    assert!(matches!(
        snapshot.leaf_status(rego_leaf(&lost)).unwrap(),
        LeafStatus::Requested { waiting, settled } if waiting.is_empty()
            && settled[0].1.outcome == Outcome::Skipped
    ));
    assert_eq!(
        snapshot.leaf_status(rego_leaf(&good)).unwrap(),
        LeafStatus::Committed {
            value_hash: keccak256(&good),
            sequence: 1,
            length: 30
        }
    );
    let nobody = LeafKey(B256::repeat_byte(3));
    assert_eq!(snapshot.leaf_status(nobody).unwrap(), LeafStatus::Unknown);
}

#[test]
fn verdicts_are_final_and_bytes_are_checked() {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    let bytes = content(1, 30);
    let block = push(&mut chain, &store, 5, vec![template("a", &bytes)]);
    let key = key(&block, 0, 0);
    let try_bytes = |bytes: &[u8]| store.record_verdict(key, Verdict::Accepted { bytes });
    assert!(matches!(
        try_bytes(&bytes[..29]),
        Err(StateError::WrongLength {
            expected: 30,
            got: 29,
            ..
        })
    ));
    assert!(matches!(
        try_bytes(&content(2, 30)),
        Err(StateError::WrongBytes { .. })
    ));
    assert_eq!(store.content(keccak256(&bytes)).unwrap(), None);
    try_bytes(&bytes).unwrap();
    try_bytes(&bytes).unwrap();
    assert_eq!(
        store.content(keccak256(&bytes)).unwrap(),
        Some(bytes.clone())
    );
    let unavailable = Verdict::Unavailable {
        reason: String::new(),
        now: 0,
    };
    store.record_verdict(key, unavailable).unwrap();
    assert_eq!(
        store.entry(key).unwrap().unwrap().state,
        EntryState::Accepted
    );
    let rejected = Verdict::Rejected {
        reason: "no".into(),
    };
    let error = store.record_verdict(key, rejected).unwrap_err();
    assert!(matches!(error, StateError::VerdictIsFinal { .. }) && !error.is_fatal());
    assert!(matches!(
        store.record_verdict(QueueKey::default(), Verdict::Accepted { bytes: &bytes }),
        Err(StateError::UnknownEntry(_))
    ));
}

#[test]
fn large_content_comes_back_whole() {
    const CHUNK: usize = 252 * 1024;
    for length in [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 7] {
        let mut chain = Chain::new(parameters());
        let (disk, store) = started(&chain);
        let bytes = content(length as u64, length);
        let block = push(&mut chain, &store, 5, vec![template("a", &bytes)]);
        accept(&store, key(&block, 0, 0), &bytes);
        drop(store);
        let store = open(&disk);
        let snapshot = store.snapshot(None).unwrap();
        assert!(snapshot.bytes(keccak256(&bytes)).unwrap() == Some(bytes));
    }
}

#[test]
fn history_that_contradicts_itself_is_fatal() {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    let applied = store.tip().unwrap();
    chain.push(GENESIS_TIME + 5, vec![]);
    let good = chain.last().clone();

    let mut other = chain.clone();
    other.blocks.pop();
    other.push(GENESIS_TIME + 6, vec![]);
    let fork = other.last().clone();

    let mut gap = good.clone();
    gap.header.number += 1;
    let mut orphan = good.clone();
    orphan.header.parent_hash = B256::repeat_byte(7);
    let mut past = good.clone();
    past.header.timestamp = GENESIS_TIME;
    let apply = |block: &Block| store.apply_finalized(std::slice::from_ref(block));

    assert!(matches!(
        apply(&gap),
        Err(StateError::Gap {
            expected: 2,
            got: 3
        })
    ));
    assert!(matches!(
        apply(&orphan),
        Err(StateError::ParentMismatch { number: 2, .. })
    ));
    assert!(matches!(
        apply(&past),
        Err(StateError::TimeFell { number: 2, .. })
    ));
    assert_eq!(store.next_block().unwrap(), 2);
    apply(&good).unwrap();
    assert_eq!(apply(&good).unwrap().blocks, 0);
    let error = apply(&fork).unwrap_err();
    assert!(matches!(error, StateError::Fork { number: 2, .. }) && error.is_fatal());
    // A bad block takes the good ones of its batch with it.
    let mut batch = chain.clone();
    batch.push(GENESIS_TIME + 7, vec![]);
    batch.push(GENESIS_TIME + 3, vec![]);
    store.apply_finalized(&batch.blocks).unwrap_err();
    assert_eq!(store.next_block().unwrap(), 3);
    assert_eq!(store.tip().unwrap(), applied);
}

#[test]
fn another_chains_database_is_refused_by_name() {
    let disk = Disk::new();
    drop(open(&disk));
    let open_as = |change: fn(&mut newton_state::ChainConfig)| {
        let mut other = config();
        change(&mut other);
        let db = Database::builder()
            .create_with_backend(disk.clone())
            .unwrap();
        StateStore::open(Arc::new(db), other)
            .err()
            .unwrap()
            .to_string()
    };
    let error = open_as(|c| c.chain_id = 1);
    assert!(
        error.contains("chain id is 31337, this appliance runs with 1"),
        "{error}"
    );
    let error = open_as(|c| c.state_commit_registry = Address::ZERO);
    assert!(error.contains("state commit registry"), "{error}");
    let error = open_as(|c| c.deployment_block = 9);
    assert!(error.contains("deployment block is 1"), "{error}");
    open(&disk);
}

#[test]
fn the_deployment_block_is_a_checkpoint() {
    let chain = Chain::new(parameters());
    let db = Database::builder()
        .create_with_backend(Disk::new())
        .unwrap();
    let mut pinned = config();
    pinned.deployment_block_hash = Some(B256::repeat_byte(5));
    let store = StateStore::open(Arc::new(db), pinned).unwrap();
    assert!(matches!(
        store.apply_finalized(&chain.blocks),
        Err(StateError::Checkpoint { number: 1, .. })
    ));
}

#[test]
fn another_commit_than_ours_is_a_divergence_with_both_as_evidence() {
    let mut chain = Chain::new(parameters());
    let (disk, store) = started(&chain);
    push(&mut chain, &store, 5, vec![]);
    push(&mut chain, &store, 11, vec![]);
    let ours = prepared(&store).commit().clone();
    let mut theirs = ours.clone();
    theirs.settledBytes = 1;
    push(&mut chain, &store, 12, vec![committed(&theirs)]);
    assert!(matches!(
        store.select().unwrap(),
        Next::Behind { tip: 0, chain: 1 }
    ));
    let error = store.catch_up().unwrap_err();
    assert!(error.is_fatal());
    let StateError::Divergence { ours: a, chain: b } = error else {
        panic!("{error}");
    };
    assert_eq!((*a, *b), (ours, theirs));
    // Nothing was adopted, and a restart says the same.
    assert_eq!(store.tip().unwrap().sequence, 0);
    drop(store);
    assert!(matches!(
        open(&disk).catch_up(),
        Err(StateError::Divergence { .. })
    ));
}

#[test]
fn a_commit_out_of_sequence_is_refused() {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    let commit = abi::StateCommit {
        sequenceNo: 2,
        ..Default::default()
    };
    let block = chain
        .push(GENESIS_TIME + 5, vec![committed(&commit)])
        .clone();
    assert!(matches!(
        store.apply_finalized(&[block]),
        Err(StateError::MalformedEvent { .. })
    ));
}

#[test]
fn a_prepared_commit_is_good_once() {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    push(&mut chain, &store, 5, vec![]);
    push(&mut chain, &store, 11, vec![]);
    let prepared = prepared(&store);
    let mut other = prepared.commit().clone();
    other.newStateRoot = B256::ZERO;
    assert!(matches!(
        store.apply(&prepared, &other),
        Err(StateError::Divergence { .. })
    ));
    assert_eq!(
        store.apply(&prepared, prepared.commit()).unwrap().sequence,
        1
    );
    assert!(matches!(
        store.apply(&prepared, prepared.commit()),
        Err(StateError::NotNext { tip: 1, got: 1 })
    ));
}

#[test]
fn a_commit_at_the_head_counts_before_it_is_final() {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    let bytes = content(1, 30);
    let block = push(&mut chain, &store, 5, vec![template("a", &bytes)]);
    accept(&store, key(&block, 0, 0), &bytes);
    push(&mut chain, &store, 11, vec![]);
    let ours = prepared(&store).commit().clone();
    let mut theirs = ours.clone();
    theirs.deltaHash = B256::ZERO;

    let mut at_head = chain.clone();
    at_head.push(GENESIS_TIME + 12, vec![committed(&theirs)]);
    let pending = store.pending(&at_head.blocks[4..]).unwrap().unwrap();
    assert!(matches!(
        store.apply_at_head(&pending.commits()[0]).unwrap(),
        AtHead::Differs { ours: o } if *o == ours
    ));
    assert_eq!(store.tip().unwrap().sequence, 0);

    assert!(matches!(store.apply_at_head(&ours).unwrap(), AtHead::Applied(t) if t.sequence == 1));
    assert!(matches!(store.apply_at_head(&ours).unwrap(), AtHead::Known));
    let snapshot = store.snapshot(None).unwrap();
    assert_eq!(
        snapshot.leaf(1, rego_leaf(&bytes)).unwrap(),
        Some(keccak256(&bytes))
    );
    let mut later = ours.clone();
    later.sequenceNo = 9;
    assert!(matches!(
        store.apply_at_head(&later).unwrap(),
        AtHead::NotYet(_)
    ));

    // Finality brings the same: fine. Finality brings another: fatal.
    let mut forked = chain.clone();
    let block = forked
        .push(GENESIS_TIME + 13, vec![committed(&theirs)])
        .clone();
    assert!(matches!(
        store.apply_finalized(&[block]),
        Err(StateError::Divergence { .. })
    ));
    push(&mut chain, &store, 12, vec![committed(&ours)]);
    assert!(matches!(
        store.catch_up().unwrap(),
        CatchUp::UpToDate(tip) if tip.sequence == 1
    ));
}

#[test]
fn pending_rows_lie_over_finalized_ones_and_are_forgotten() {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    push(&mut chain, &store, 5, vec![template("a", b"package a")]);
    let client = Address::repeat_byte(8);
    let point = |id: u8| RegistryEvent::CurrentPolicyInstanceSet {
        client,
        id: B256::repeat_byte(id),
    };
    push(&mut chain, &store, 6, vec![point(1)]);
    let finalized = chain.blocks.len();

    let mut one = chain.clone();
    one.push(
        GENESIS_TIME + 7,
        vec![point(2), template("b", b"package b")],
    );
    one.push(GENESIS_TIME + 8, vec![point(3)]);
    let pending = Arc::new(store.pending(&one.blocks[finalized..]).unwrap().unwrap());
    let current = |pending: Option<&Arc<newton_state::Pending>>| {
        let snapshot = store.snapshot(pending.cloned()).unwrap();
        let row = snapshot.registry().current_policy_instance(client).unwrap();
        row.unwrap().id
    };
    assert_eq!(current(Some(&pending)), B256::repeat_byte(3));
    assert_eq!(current(None), B256::repeat_byte(1));
    assert_eq!(pending.head().number, 5);

    // A reorg: the same base, another branch.
    let mut two = chain.clone();
    two.push(GENESIS_TIME + 9, vec![]);
    let pending = Arc::new(store.pending(&two.blocks[finalized..]).unwrap().unwrap());
    assert_eq!(current(Some(&pending)), B256::repeat_byte(1));

    // Not on top of the finalized head.
    let mut gap = two.clone();
    gap.push(GENESIS_TIME + 10, vec![]);
    assert!(matches!(
        store.pending(&gap.blocks[finalized + 1..]),
        Err(StateError::StalePending { .. })
    ));
    assert!(store.pending(&[]).unwrap().is_none());
    store.apply_finalized(&two.blocks).unwrap();
    let error = store.snapshot(Some(pending)).err().unwrap();
    assert!(matches!(error, StateError::StalePending { .. }) && !error.is_fatal());
}

#[test]
fn a_snapshot_does_not_move() {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    let bytes = content(1, 30);
    let block = push(&mut chain, &store, 5, vec![template("a", &bytes)]);
    let before = store.snapshot(None).unwrap();
    accept(&store, key(&block, 0, 0), &bytes);
    push(&mut chain, &store, 11, vec![]);
    land(&mut chain, &store, 12);
    assert_eq!(before.tip().sequence, 0);
    assert_eq!(before.root(1).unwrap(), None);
    assert_eq!(before.bytes(keccak256(&bytes)).unwrap(), None);
    let after = store.snapshot(None).unwrap();
    assert_eq!(after.tip().sequence, 1);
    assert_eq!(
        after.commit(1).unwrap().unwrap().newStateRoot,
        after.tip().root
    );
}

#[test]
fn pruned_versions_are_gone_and_the_others_keep_their_roots() {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    for n in 1..=20u64 {
        let bytes = content(n, 20);
        let events = if n % 4 == 0 {
            vec![]
        } else {
            vec![template(&format!("p{n}"), &bytes)]
        };
        let block = push(&mut chain, &store, n * CADENCE - 1, events);
        if n % 4 != 0 {
            accept(&store, key(&block, 0, 0), &bytes);
        }
        push(&mut chain, &store, n * CADENCE + 1, vec![]);
        land(&mut chain, &store, n * CADENCE + 2);
    }
    let nodes = |store: &StateStore| {
        let snapshot = store.snapshot(None).unwrap();
        (0..=20)
            .filter(|v| snapshot.root(*v).unwrap().is_some())
            .count()
    };
    let root_of = |v| store.snapshot(None).unwrap().root(v).unwrap();
    assert_eq!(nodes(&store), 21);
    let (at_15, at_20) = (root_of(15), root_of(20));
    let mut removed = 0;
    while let n @ 1.. = store.prune_versions(15, 3).unwrap() {
        removed += n;
    }
    // At least the roots of versions 0 to 14, also those that empty commits copied.
    assert!(removed >= 15, "{removed}");
    assert_eq!(nodes(&store), 6);
    assert_eq!((root_of(15), root_of(20)), (at_15, at_20));
    let snapshot = store.snapshot(None).unwrap();
    for n in (1..=15u64).filter(|n| n % 4 != 0) {
        let leaf = rego_leaf(&content(n, 20));
        let (value, proof) = snapshot.prove(15, leaf).unwrap();
        proof.verify(at_15.unwrap(), leaf, value.unwrap()).unwrap();
    }
    assert!(snapshot.prove(14, rego_leaf(b"x")).is_err());
    // Never the tip, whatever is asked for.
    drop(snapshot);
    store.prune_versions(u64::MAX, 10_000).unwrap();
    assert_eq!(root_of(20), at_20);
    assert_eq!(nodes(&store), 1);
}

#[test]
fn parameters_change_in_the_middle_of_a_backlog() {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    let contents: Vec<_> = (0..4).map(|i| content(i, 40)).collect();
    let mut events: Vec<_> = (0..4)
        .map(|i| template(&format!("p{i}"), &contents[i]))
        .collect();
    let mut less = parameters();
    less.max_commit_bytes = 40;
    events.push(RegistryEvent::ConsensusParametersSet {
        parameters: less,
        active_from_timestamp: GENESIS_TIME + 2 * CADENCE,
    });
    let block = push(&mut chain, &store, 5, events);
    for (i, c) in contents.iter().enumerate() {
        accept(&store, key(&block, i, 0), c);
    }
    let mut settled = vec![];
    for n in 1..=3 {
        push(&mut chain, &store, n * CADENCE + 1, vec![]);
        settled.push(land(&mut chain, &store, n * CADENCE + 2).settledBytes);
    }
    assert_eq!(settled, [80, 40, 40]);
}

#[test]
fn rules_and_least_epoch_are_those_of_the_entrys_block() {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    let rules = RegistryEvent::RulesVersionScheduled {
        rules_version: 2,
        active_from: 4,
    };
    let epoch = RegistryEvent::MinKeyEpochSet { min_key_epoch: 3 };
    push(
        &mut chain,
        &store,
        5,
        vec![rules, epoch, secrets(1, b"one"), template("a", b"a")],
    );
    push(
        &mut chain,
        &store,
        6,
        vec![secrets(1, b"two"), template("b", b"b")],
    );
    push(
        &mut chain,
        &store,
        7,
        vec![secrets(1, b"three"), template("c", b"c")],
    );
    let entries = store.undecided(None, 100).unwrap();
    let facts: Vec<_> = entries
        .iter()
        .map(|e| {
            let epoch = match &e.context.role {
                newton_state::Role::Secrets { min_key_epoch, .. } => Some(*min_key_epoch),
                _ => None,
            };
            (e.key.block, e.context.rules_version, epoch)
        })
        .collect();
    // What is set in a block counts from the next on.
    assert_eq!(
        facts,
        [
            (2, 1, Some(0)),
            (2, 1, None),
            (3, 1, Some(3)),
            (3, 1, None),
            (4, 2, Some(3)),
            (4, 2, None)
        ]
    );
    let after = store.undecided(Some(entries[2].key), 2).unwrap();
    assert_eq!(after[0].key, entries[3].key);
    assert_eq!(after.len(), 2);
}

#[test]
fn a_clients_owner_is_the_last_one_registered() {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    let client = Address::repeat_byte(0xc1);
    let owner = |store: &StateStore| {
        let snapshot = store.snapshot(None).unwrap();
        snapshot.registry().client_owner(client).unwrap()
    };
    assert_eq!(owner(&store), None);
    for (time, who) in [(1, Address::repeat_byte(1)), (2, Address::repeat_byte(2))] {
        let registered = RegistryEvent::ClientRegistered { client, owner: who };
        push(&mut chain, &store, time, vec![registered]);
        assert_eq!(owner(&store), Some(who));
    }
}
