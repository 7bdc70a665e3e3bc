//! Snapshots of peers: taken only if they give the chain's root, and then as good as replay.
#![allow(clippy::unwrap_used)]

mod common;

use common::peer::*;
use common::steps::*;
use common::*;
use newton_state::{CatchUp, LeafStatus, Next, SnapshotLeaf, StateError};
use newton_types::{B256, LeafKey, keccak256};

#[test]
fn a_snapshot_and_the_commits_after_it_lead_to_the_same_state() {
    let (mut chain, peer) = peer();
    let (disk, store) = newcomer(&chain);
    let leaves = pages(&peer, 5);
    // Three sources and the newest envelope; not the rejected one, not the replaced one.
    assert_eq!(leaves.len(), 4);
    fill(&store, &peer, &leaves);
    let tip = store.import(5, &leaves).unwrap();
    assert_eq!(tip, peer.tip().unwrap());
    assert!(matches!(store.catch_up().unwrap(), CatchUp::UpToDate(t) if t == tip));
    assert_eq!(
        store.queue_totals().unwrap(),
        peer.queue_totals().unwrap(),
        "what is drained is gone, what waits is there"
    );

    let (ours, theirs) = (store.snapshot(None).unwrap(), peer.snapshot(None).unwrap());
    for n in 0..12u64 {
        let leaf = rego_leaf(&content(n, 20));
        assert_eq!(ours.prove(5, leaf).unwrap(), theirs.prove(5, leaf).unwrap());
    }
    assert!(ours.root(4).unwrap().is_none() && ours.root(0).unwrap().is_none());
    assert_eq!(ours.commit(3).unwrap(), theirs.commit(3).unwrap());
    assert!(matches!(
        ours.leaf_status(rego_leaf(&content(77, 20))).unwrap(),
        LeafStatus::Requested { settled, .. } if settled.len() == 1
    ));
    drop((ours, theirs));

    // From here on it goes on by itself, also after a restart.
    drop(store);
    let store = open(&disk);
    let late = content(9, 20);
    let entry = store.undecided(None, 9).unwrap().pop().unwrap();
    accept(&store, entry.key, &late);
    let block = chain.push(GENESIS_TIME + 61, vec![]).clone();
    for s in [&store, &peer] {
        s.apply_finalized(std::slice::from_ref(&block)).unwrap();
    }
    let commit = prepared(&store).commit().clone();
    assert_eq!(commit, prepared(&peer).commit().clone());
    assert_eq!(commit.sequenceNo, 6);
    land(&mut chain, &store, 62);
    store.prune_versions(6, 1_000).unwrap();
    assert_eq!(
        store.snapshot(None).unwrap().root(6).unwrap(),
        Some(commit.newStateRoot)
    );
}

#[test]
fn a_tampered_snapshot_is_refused_and_leaves_nothing_behind() {
    let (chain, peer) = peer();
    let (disk, store) = newcomer(&chain);
    let leaves = pages(&peer, 5);
    fill(&store, &peer, &leaves);
    let extra = b"not of this state".to_vec();
    store.import_content(keccak256(&extra), &extra).unwrap();

    let mut missing = leaves.clone();
    missing.remove(1);
    let mut changed = leaves.clone();
    changed[2].value_hash = keccak256(&extra);
    let mut moved = leaves.clone();
    moved[3].key = LeafKey(B256::repeat_byte(0xff));
    let mut more = leaves.clone();
    more.push(SnapshotLeaf {
        key: LeafKey(B256::repeat_byte(0xff)),
        value_hash: keccak256(&extra),
    });
    let before = disk.bytes();
    for tampered in [&missing, &changed, &moved, &more, &Vec::new()] {
        let error = store.check_snapshot(5, tampered).unwrap_err();
        assert!(matches!(
            error,
            StateError::SnapshotRoot { sequence: 5, .. }
        ));
        assert!(disk.bytes() == before);
        let error = store.import(5, tampered).unwrap_err();
        assert!(
            matches!(error, StateError::SnapshotRoot { sequence: 5, .. }),
            "{error}"
        );
        assert!(!error.is_fatal());
    }
    let mut swapped = leaves.clone();
    swapped.swap(0, 1);
    let mut twice = leaves.clone();
    twice.insert(1, leaves[0]);
    for disordered in [&swapped, &twice] {
        assert!(matches!(
            store.check_snapshot(5, disordered).unwrap_err(),
            StateError::SnapshotLeaves { .. }
        ));
        assert!(matches!(
            store.import(5, disordered).unwrap_err(),
            StateError::SnapshotLeaves { .. }
        ));
    }
    // The right leaves of another commit, and a commit the chain does not have.
    assert!(matches!(
        store.import(4, &leaves).unwrap_err(),
        StateError::SnapshotRoot { sequence: 4, .. }
    ));
    assert!(matches!(
        store.import(6, &leaves).unwrap_err(),
        StateError::NotNext { got: 6, .. }
    ));
    // Bytes with another hash never get in.
    assert!(matches!(
        store
            .import_content(leaves[0].value_hash, &extra)
            .unwrap_err(),
        StateError::SnapshotContent { .. }
    ));
    assert_eq!(store.tip().unwrap().sequence, 0);
    assert_eq!(store.node_count().unwrap(), 1);
    for sequence in [0, 6] {
        assert!(matches!(
            store.check_snapshot(sequence, &leaves).unwrap_err(),
            StateError::NotNext { tip: 0, .. }
        ));
    }
    store.check_snapshot(5, &leaves).unwrap();
    store.import(5, &leaves).unwrap();
    // What is derived is not taken again.
    assert!(matches!(
        store.import(5, &leaves).unwrap_err(),
        StateError::NotNext { tip: 5, .. }
    ));
}

#[test]
fn without_the_bytes_nothing_is_taken() {
    let (chain, peer) = peer();
    let (_disk, store) = newcomer(&chain);
    let leaves = pages(&peer, 5);
    fill(&store, &peer, &leaves[1..]);
    assert!(matches!(
        store.import(5, &leaves).unwrap_err(),
        StateError::SnapshotLeaves { key, .. } if key == leaves[0].key
    ));
    assert_eq!(store.tip().unwrap().sequence, 0);
    assert!(matches!(store.select().unwrap(), Next::Behind { .. }));
}

#[test]
fn leaves_of_every_version_that_is_kept_are_served() {
    let (_chain, peer) = peer();
    let (chain, served) = peer_with_snapshots();
    for (sequence, then) in served {
        assert_eq!(pages(&peer, sequence), then, "commit {sequence}");
        let (_disk, store) = newcomer(&chain);
        fill(&store, &peer, &then);
        let tip = store.import(sequence, &then).unwrap();
        assert_eq!(tip.sequence, sequence);
    }
    peer.prune_versions(4, 1_000).unwrap();
    for (asked, kept) in [(3, false), (4, true), (5, true), (6, false)] {
        match peer.leaves(asked, None, 10) {
            Ok(_) => assert!(kept, "{asked}"),
            Err(e) => assert!(
                !kept && matches!(e, StateError::NoSnapshot { tip: 5, asked: a } if a == asked),
                "{e}"
            ),
        }
    }
}
