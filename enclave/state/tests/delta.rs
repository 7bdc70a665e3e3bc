//! Deltas of peers: taken only if the chain has their hash, and then as good as replay.
#![allow(clippy::unwrap_used)]

mod common;

use common::peer::*;
use common::steps::*;
use common::*;
use newton_state::{CatchUp, EntryState, LeafStatus, Next, Outcome, StateError, StateStore};
use newton_types::events::RegistryEvent;
use newton_types::{B256, DeltaEntry, keccak256};

fn delta(peer: &StateStore, sequence: u64) -> Vec<DeltaEntry> {
    let mut all = Vec::new();
    for page in 0.. {
        let entries = peer.delta(sequence, page).unwrap();
        if entries.is_empty() {
            break;
        }
        all.extend(entries);
    }
    all
}

/// Brings the bytes of a delta's entries.
fn bring(store: &StateStore, peer: &StateStore, delta: &[DeltaEntry]) {
    for entry in delta {
        let bytes = peer.content(entry.value_hash).unwrap().unwrap();
        store.import_content(entry.value_hash, &bytes).unwrap();
    }
}

fn take(store: &StateStore, peer: &StateStore, sequence: u64) {
    let delta = delta(peer, sequence);
    bring(store, peer, &delta);
    let tip = store.apply_delta(sequence, &delta).unwrap();
    assert_eq!(tip.sequence, sequence);
}

/// Everything that two states at the same commit have in common, however they got there.
fn same(store: &StateStore, peer: &StateStore) {
    let tip = peer.tip().unwrap();
    assert_eq!(store.tip().unwrap(), tip);
    assert_eq!(store.queue_totals().unwrap(), peer.queue_totals().unwrap());
    let (ours, theirs) = (store.snapshot(None).unwrap(), peer.snapshot(None).unwrap());
    for sequence in 1..=tip.sequence {
        assert_eq!(
            ours.commit(sequence).unwrap(),
            theirs.commit(sequence).unwrap()
        );
        if ours.root(sequence).unwrap().is_none() {
            continue;
        }
        assert_eq!(pages(store, sequence), pages(peer, sequence));
        for n in 0..12u64 {
            let leaf = rego_leaf(&content(n, 20));
            assert_eq!(
                ours.prove(sequence, leaf).unwrap(),
                theirs.prove(sequence, leaf).unwrap()
            );
        }
    }
}

#[test]
fn deltas_since_genesis_lead_to_the_same_state() {
    let (mut chain, peer) = peer();
    let (disk, store) = newcomer(&chain);
    for sequence in 1..=5 {
        take(&store, &peer, sequence);
        // What was taken is served on, and stands in every version.
        assert_eq!(delta(&store, sequence), delta(&peer, sequence));
    }
    assert!(
        delta(&store, 4).is_empty(),
        "an empty commit has an empty delta"
    );
    same(&store, &peer);
    let refused = rego_leaf(&content(77, 20));
    let status = store.snapshot(None).unwrap().leaf_status(refused).unwrap();
    let LeafStatus::Requested { settled, .. } = status else {
        panic!("{status:?}");
    };
    assert!(
        matches!(&settled[0].1.outcome, Outcome::Rejected { reason } if reason.contains("commit 2")),
        "{settled:?}"
    );

    // From here on it goes on by itself, also after a restart.
    drop(store);
    let store = open(&disk);
    let late = content(9, 20);
    let entry = store.undecided(None, 9).unwrap().pop().unwrap();
    assert_eq!(entry.state, EntryState::Pending);
    accept(&store, entry.key, &late);
    let block = chain.push(GENESIS_TIME + 61, vec![]).clone();
    for s in [&store, &peer] {
        s.apply_finalized(std::slice::from_ref(&block)).unwrap();
    }
    assert_eq!(prepared(&store).commit(), prepared(&peer).commit());
    land(&mut chain, &store, 62);
    assert_eq!(delta(&store, 6).len(), 1);
}

#[test]
fn a_snapshot_of_an_older_commit_and_the_deltas_after_it_lead_to_the_same_state() {
    let (chain, peer) = peer();
    for first in 1..5 {
        let (_disk, store) = newcomer(&chain);
        let leaves = pages(&peer, first);
        fill(&store, &peer, &leaves);
        store.import(first, &leaves).unwrap();
        for sequence in first + 1..=5 {
            take(&store, &peer, sequence);
        }
        same(&store, &peer);
        assert!(matches!(store.catch_up().unwrap(), CatchUp::UpToDate(_)));
        // What came with the snapshot is not known entry by entry.
        assert!(matches!(
            store.delta(first, 0).unwrap_err(),
            StateError::NoDelta { tip: 5, asked } if asked == first
        ));
    }
}

#[test]
fn a_tampered_delta_is_refused_and_leaves_nothing_behind() {
    let (chain, peer) = peer();
    let (disk, store) = newcomer(&chain);
    for sequence in 1..=4 {
        take(&store, &peer, sequence);
    }
    // Commit 5 writes a source and an envelope, which takes the place of another one in the tree.
    let right = delta(&peer, 5);
    assert_eq!(right.len(), 2);
    let envelope = newton_types::LeafKey(right[1].leaf_key);
    let waiting = store.waiting_for(envelope).unwrap();
    assert_eq!(waiting.len(), 1);
    assert_eq!(
        (waiting[0].key, waiting[0].hash),
        (right[1].key, right[1].value_hash)
    );
    bring(&store, &peer, &right);
    let extra = b"not of this state".to_vec();
    store.import_content(keccak256(&extra), &extra).unwrap();
    let extra = DeltaEntry {
        leaf_key: rego_leaf(&extra).0,
        value_hash: keccak256(&extra),
        length: extra.len() as u32,
        key: store.undecided(None, 9).unwrap().last().unwrap().key,
    };

    let with = |change: &dyn Fn(&mut Vec<DeltaEntry>)| {
        let mut tampered = right.clone();
        change(&mut tampered);
        assert_ne!(tampered, right);
        tampered
    };
    let tampered = [
        with(&|d| d.truncate(1)),
        with(&|d| *d = d[1..].to_vec()),
        with(&Vec::clear),
        with(&|d| d.push(extra)),
        with(&|d| d.push(d[0])),
        with(&|d| d.swap(0, 1)),
        with(&|d| d[1].value_hash = extra.value_hash),
        with(&|d| d[0].leaf_key = B256::repeat_byte(0x04)),
        with(&|d| d[0].length += 1),
        with(&|d| d[0].key.item += 1),
        with(&|d| *d = delta(&peer, 2)),
        with(&|d| *d = delta(&peer, 4)),
    ];
    let (tip, before) = (store.tip().unwrap(), disk.bytes());
    for (n, tampered) in tampered.iter().enumerate() {
        let error = store.apply_delta(5, tampered).unwrap_err();
        assert!(
            matches!(error, StateError::DeltaHash { sequence: 5, .. }),
            "{n}: {error}"
        );
        assert!(!error.is_fatal());
    }
    // The right delta of another commit, of one that is derived, and of one that the chain does not have.
    for got in [1, 4, 6, 7] {
        assert!(matches!(
            store.apply_delta(got, &right).unwrap_err(),
            StateError::NotNext { tip: 4, got: g } if g == got
        ));
    }
    assert_eq!(store.tip().unwrap(), tip);
    assert!(disk.bytes() == before, "the file did not change by a byte");
    store.apply_delta(5, &right).unwrap();
    same(&store, &peer);
}

#[test]
fn without_the_bytes_nothing_is_taken() {
    let (chain, peer) = peer();
    let (disk, store) = newcomer(&chain);
    let right = delta(&peer, 1);
    let before = disk.bytes();
    let error = store.apply_delta(1, &right).unwrap_err();
    assert!(
        matches!(error, StateError::DeltaContent { entry, got: None, .. } if entry == right[0].key),
        "{error}"
    );
    assert!(!error.is_fatal());
    assert!(disk.bytes() == before);
    assert_eq!(store.tip().unwrap().sequence, 0);
}

#[test]
fn a_verdict_of_ones_own_is_not_changed_by_a_delta() {
    let (chain, peer) = peer();
    let (disk, store) = newcomer(&chain);
    let right = delta(&peer, 1);
    bring(&store, &peer, &right);
    // By this enclave's own judgement the chain is wrong, which is for replay to say.
    reject(&store, right[0].key);
    let before = disk.bytes();
    let error = store.apply_delta(1, &right).unwrap_err();
    assert!(
        matches!(error, StateError::DeltaDiffers { sequence: 1, .. }),
        "{error}"
    );
    assert!(!error.is_fatal());
    assert!(disk.bytes() == before);
    assert!(matches!(
        store.catch_up().unwrap_err(),
        StateError::Divergence { .. }
    ));
}

#[test]
fn deferred_dropped_and_repeated_entries_come_out_as_in_replay() {
    let mut chain = Chain::new(parameters());
    let (_disk, peer) = started(&chain);
    // Two of 40 bytes fit into the cap of 100, the third waits; the first one comes twice.
    let parts: Vec<Vec<u8>> = (1..=3).map(|n| content(n, 40)).collect();
    let events = vec![
        template("lost", &content(50, 40)),
        template("a", &parts[0]),
        template("a again", &parts[0]),
        template("b", &parts[1]),
        template("c", &parts[2]),
    ];
    let block = push(&mut chain, &peer, 5, events);
    for (event, part) in [(1, 0), (2, 0), (3, 1), (4, 2)] {
        accept(&peer, key(&block, event, 0), &parts[part]);
    }
    let lost = key(&block, 0, 0);
    push(
        &mut chain,
        &peer,
        6,
        vec![RegistryEvent::EntrySkipped { entry: lost }],
    );
    push(&mut chain, &peer, CADENCE + 1, vec![]);
    land(&mut chain, &peer, CADENCE + 2);
    let outcomes = |store: &StateStore| {
        let snapshot = store.snapshot(None).unwrap();
        let leaves = [&content(50, 40), &parts[0], &parts[1], &parts[2]];
        leaves.map(|bytes| snapshot.leaf_status(rego_leaf(bytes)).unwrap())
    };

    let (_disk, store) = started(&chain);
    assert!(matches!(store.catch_up().unwrap(), CatchUp::Stopped { .. }));
    assert_eq!(delta(&peer, 1).len(), 2);
    take(&store, &peer, 1);
    same(&store, &peer);
    let (ours, theirs) = (outcomes(&store), outcomes(&peer));
    assert_eq!(ours[..3], theirs[..3]);
    assert!(
        matches!(&ours[3], LeafStatus::Requested { waiting, .. } if waiting[0].1 == EntryState::Pending),
        "what did not fit has no verdict here yet: {ours:?}"
    );
}

#[test]
fn deltas_go_with_the_versions_before_them() {
    let (_chain, peer) = peer();
    peer.prune_versions(3, 1_000).unwrap();
    for sequence in 0..=6 {
        match peer.delta(sequence, 0) {
            Ok(_) => assert!((3..=5).contains(&sequence), "{sequence}"),
            Err(StateError::NoDelta { tip: 5, asked }) => {
                assert!(
                    !(3..=5).contains(&sequence) && asked == sequence,
                    "{sequence}"
                );
            }
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn a_large_delta_comes_by_pages() {
    let mut p = parameters();
    p.max_commit_bytes = 1_000_000;
    let mut chain = Chain::new(p);
    let (_disk, peer) = started(&chain);
    let parts: Vec<Vec<u8>> = (0..4_100).map(|n| content(n, 20)).collect();
    let events = parts.iter().map(|b| template("x", b)).collect();
    let block = push(&mut chain, &peer, 5, events);
    let verdicts: Vec<_> = parts
        .iter()
        .enumerate()
        .map(|(n, bytes)| (key(&block, n, 0), newton_state::Verdict::Accepted { bytes }))
        .collect();
    peer.record_verdicts(&verdicts).unwrap();
    push(&mut chain, &peer, CADENCE + 1, vec![]);
    land(&mut chain, &peer, CADENCE + 2);
    let sizes: Vec<usize> = (0..5)
        .map(|page| peer.delta(1, page).unwrap().len())
        .collect();
    assert_eq!(sizes, [2_048, 2_048, 4, 0, 0]);
    let (_disk, store) = started(&chain);
    take(&store, &peer, 1);
    assert_eq!(store.tip().unwrap(), peer.tip().unwrap());
}

#[test]
fn a_window_whose_end_is_not_final_is_waited_for() {
    let (chain, peer) = peer();
    let mut early = Chain::default();
    // The chain confirms commit 1 in a block within its own window, as no honest chain does.
    let commit = peer.commit(1).unwrap().unwrap();
    let until = commit.boundaryBlock as usize;
    for block in &chain.blocks[..=until] {
        let events = block.events.iter().map(|e| e.event.clone()).collect();
        early.push(block.header.timestamp, events);
    }
    early.push(GENESIS_TIME + CADENCE - 1, vec![committed(&commit)]);
    let (_disk, store) = started(&early);
    let right = delta(&peer, 1);
    bring(&store, &peer, &right);
    let error = store.apply_delta(1, &right).unwrap_err();
    assert!(
        matches!(error, StateError::DeltaEarly { sequence: 1, .. }),
        "{error}"
    );
    assert!(!error.is_fatal());
    assert!(matches!(store.select().unwrap(), Next::Behind { .. }));
}
