//! Each edge of windows, caps and verdicts by itself.
#![allow(clippy::unwrap_used)]

mod common;

use common::steps::{land, prepared, push, ready, rego_leaf, started, waiting};
use common::{
    CADENCE, Chain, Disk, accept, artifact, content, key, open, parameters, reject, secrets,
    template,
};
use newton_state::{
    EntryState, LeafStatus, Next, Outcome, Selection, StateError, StateStore, Verdict, Waiting,
};
use newton_types::events::RegistryEvent;
use newton_types::leaf::EMPTY_ROOT;
use newton_types::{Address, B256, LeafKey, Namespace, QueueKey, keccak256};

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
    assert_eq!(store.tip().unwrap().root, newton_model::root(&all));
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

/// An enclave that has rejected an entry may therefore vote to drop it for those who cannot get its bytes.
#[test]
fn a_rejected_entry_and_a_dropped_one_make_the_same_commit() {
    let commit = |dropped: bool| {
        let mut chain = Chain::new(parameters());
        let (_disk, store) = started(&chain);
        let (bad, good) = (content(1, 30), content(2, 30));
        let events = vec![template("bad", &bad), template("good", &good)];
        let block = push(&mut chain, &store, 5, events);
        accept(&store, key(&block, 1, 0), &good);
        let entry = key(&block, 0, 0);
        if dropped {
            push(
                &mut chain,
                &store,
                11,
                vec![RegistryEvent::EntrySkipped { entry }],
            );
        } else {
            reject(&store, entry);
            push(&mut chain, &store, 11, vec![]);
        }
        let selection = ready(&store);
        let outcome = &selection.drained[0].2;
        assert_eq!(*outcome == Outcome::Skipped, dropped);
        prepared(&store).commit().clone()
    };
    assert_eq!(commit(true), commit(false));
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
