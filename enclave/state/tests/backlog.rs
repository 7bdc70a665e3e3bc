//! Long queues, late finality, forks below finality, rules that an image does not have.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::steps::*;
use common::*;
use newton_state::{CatchUp, Next, StateError, StateStore, Verdict, Waiting};
use newton_types::events::RegistryEvent;
use redb::Database;

/// Entries come a thousand a block. Two of three ask for content that another one has: they use no cap.
#[test]
fn a_hundred_thousand_entries_drain_by_the_cap() {
    const PER_BLOCK: u64 = 1_000;
    let entries = 100_000;
    let mut p = parameters();
    // Contents have 10 bytes; a window takes a fifth as many as there are entries.
    p.max_commit_bytes = 10 * entries / 5;
    p.skip_empty = true;
    let mut chain = Chain::new(p);
    let (_disk, store) = started(&chain);
    let bytes_of = |n: u64| content(n / 3, 10);
    let mut verdicts = Vec::new();
    for block in 0..entries / PER_BLOCK {
        let events = (block * PER_BLOCK..(block + 1) * PER_BLOCK)
            .map(|n| template(&format!("p{n}"), &bytes_of(n)))
            .collect();
        let block = push(&mut chain, &store, 5, events);
        for (i, event) in block.events.iter().enumerate() {
            let RegistryEvent::PolicyTemplateRegistered { .. } = event.event else {
                continue;
            };
            verdicts.push(key(&block, i, 0));
        }
    }
    assert_eq!(store.queue_totals().unwrap().entries, entries);
    // Decided from the back: order of arrival is nothing to the selection.
    for (at, keys) in verdicts.chunks(5_000).enumerate().rev() {
        let contents: Vec<_> = (0..keys.len() as u64)
            .map(|i| bytes_of(at as u64 * 5_000 + i))
            .collect();
        let batch: Vec<_> = keys
            .iter()
            .zip(&contents)
            .map(|(key, bytes)| (*key, Verdict::Accepted { bytes }))
            .collect();
        store.record_verdicts(&batch).unwrap();
    }
    let mut drained = 0;
    let mut windows = 0;
    while store.queue_totals().unwrap().entries > 0 {
        windows += 1;
        push(&mut chain, &store, windows * CADENCE + 1, vec![]);
        let selection = ready(&store);
        let written: u64 = selection.delta.iter().map(|d| u64::from(d.length)).sum();
        assert!(written <= p.max_commit_bytes);
        if selection.deferred_from.is_some() {
            assert_eq!(written, p.max_commit_bytes);
        }
        drained += selection.drained.len() as u64;
        land(&mut chain, &store, windows * CADENCE + 2);
    }
    assert_eq!(drained, entries);
    // A third of them are contents of their own.
    assert_eq!(windows, 2);
    assert_eq!(store.queue_totals().unwrap().bytes, 0);
}

#[test]
fn finality_that_lags_by_hours_merges_and_skips_no_window() {
    const MINUTE: u64 = 60;
    let mut p = parameters();
    p.cadence = MINUTE;
    let mut chain = Chain::new(p);
    let (_disk, live) = started(&chain);
    let (_late_disk, late) = started(&chain);
    // Two hours of windows of a minute with one block each; the late one sees none of them.
    for n in 1..=120u64 {
        push(&mut chain, &live, n * MINUTE + 1, vec![]);
        if n == 50 {
            let bytes = content(1, 30);
            let block = push(
                &mut chain,
                &live,
                n * MINUTE + 2,
                vec![template("p", &bytes)],
            );
            accept(&live, key(&block, 0, 0), &bytes);
        }
    }
    assert!(matches!(
        late.select().unwrap(),
        Next::Waiting(Waiting::NoBlock | Waiting::Boundary { .. })
    ));
    let from = late.next_block().unwrap() as usize;
    late.apply_finalized(&chain.blocks[from..]).unwrap();
    accept(
        &late,
        late.undecided(None, 1).unwrap()[0].key,
        &content(1, 30),
    );
    // Both go through every window in order and agree on each.
    let mut boundaries = Vec::new();
    while let Next::Ready(_) = live.select().unwrap() {
        let ours = prepared(&live);
        let theirs = prepared(&late);
        assert_eq!(ours.commit(), theirs.commit());
        boundaries.push(ours.commit().boundaryTimestamp);
        for store in [&live, &late] {
            let prepared = prepared(store);
            let commit = prepared.commit().clone();
            store.apply(&prepared, &commit).unwrap();
        }
    }
    assert_eq!(boundaries.len(), 119);
    assert!(boundaries.windows(2).all(|w| w[1] - w[0] <= 2 * MINUTE));
    assert_eq!(live.tip().unwrap(), late.tip().unwrap());
}

#[test]
fn pending_blocks_may_fork_and_finalized_ones_may_not() {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    let fork = chain.clone();
    let one = chain
        .push(GENESIS_TIME + 3, vec![template("one", b"one")])
        .clone();
    let mut other_chain = fork;
    let other = other_chain
        .push(GENESIS_TIME + 3, vec![template("two", b"two")])
        .clone();
    // A reorg of what is not final is another layer over the same state.
    for block in [&one, &other, &one] {
        let pending = store.pending(std::slice::from_ref(block)).unwrap().unwrap();
        assert_eq!(pending.head().hash, block.header.hash);
        assert_eq!(store.queue_totals().unwrap().entries, 0);
    }
    store.apply_finalized(std::slice::from_ref(&one)).unwrap();
    assert_eq!(store.queue_totals().unwrap().entries, 1);
    let forked = store
        .apply_finalized(std::slice::from_ref(&other))
        .unwrap_err();
    assert!(matches!(forked, StateError::Fork { number: 2, .. }));
    assert!(forked.is_fatal());
    // A gap, and a block on the fork, are refused by name; nothing of them is stored.
    let next = other_chain.push(GENESIS_TIME + 4, vec![]).clone();
    let over = other_chain.push(GENESIS_TIME + 5, vec![]).clone();
    assert!(matches!(
        store.apply_finalized(std::slice::from_ref(&over)),
        Err(StateError::Gap {
            expected: 3,
            got: 4
        })
    ));
    assert!(matches!(
        store.apply_finalized(std::slice::from_ref(&next)),
        Err(StateError::ParentMismatch { number: 3, .. })
    ));
    assert_eq!(store.next_block().unwrap(), 3);
}

/// An image with rules 1 and one with rules 1 and 2, over the same chain.
#[test]
fn new_rules_start_at_a_boundary_and_an_image_without_them_stops() {
    let mut chain = Chain::new(parameters());
    let open = |disk: &Disk| -> StateStore {
        let db = Database::builder()
            .create_with_backend(disk.clone())
            .unwrap();
        StateStore::open(Arc::new(db), config()).unwrap()
    };
    let (old_disk, new_disk) = (Disk::new(), Disk::new());
    let (old, new) = (
        open(&old_disk).implementing(1..=1),
        open(&new_disk).implementing(1..=2),
    );
    for store in [&old, &new] {
        store.apply_finalized(&chain.blocks).unwrap();
    }
    let step = |chain: &mut Chain, time: u64, events: Vec<RegistryEvent>| {
        let block = chain.push(GENESIS_TIME + time, events).clone();
        for store in [&old, &new] {
            store.apply_finalized(std::slice::from_ref(&block)).unwrap();
        }
        block
    };
    let scheduled = RegistryEvent::RulesVersionScheduled {
        rules_version: 2,
        active_from: 6,
    };
    step(&mut chain, 3, vec![scheduled]);
    // Blocks up to 5 are under rules 1: the first window's boundary is block 3, the second one's block 6.
    let (mut commits, mut refused) = (Vec::new(), None);
    for n in 1..=4u64 {
        let bytes = content(n, 20);
        let block = step(
            &mut chain,
            n * CADENCE - 1,
            vec![template(&format!("p{n}"), &bytes)],
        );
        for store in [&old, &new] {
            accept(store, key(&block, 0, 0), &bytes);
        }
        step(&mut chain, n * CADENCE + 1, vec![]);
        let ours = prepared(&new);
        match old.select() {
            Ok(Next::Ready(selection)) => {
                assert_eq!(old.prepare(*selection).unwrap().commit(), ours.commit());
                assert_eq!(ours.commit().rulesVersion, 1);
            }
            // The others went on without it.
            Ok(Next::Behind { tip: 1, .. }) if refused.is_some() => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert_eq!(ours.commit().rulesVersion, 2);
                assert!(error.is_fatal());
                refused.get_or_insert(error.to_string());
            }
        }
        let commit = ours.commit().clone();
        commits.push(commit.rulesVersion);
        step(&mut chain, n * CADENCE + 2, vec![committed(&commit)]);
        assert!(matches!(new.catch_up().unwrap(), CatchUp::UpToDate(_)));
        // Replay stops at the same place: what others made by the new rules is not taken over.
        match old.catch_up() {
            Ok(CatchUp::UpToDate(tip)) => assert_eq!(tip, new.tip().unwrap()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert!(matches!(
                error,
                StateError::Rules {
                    version: 2,
                    known: 1,
                    ..
                }
            )),
        }
    }
    assert_eq!(commits, [1, 2, 2, 2]);
    assert_eq!(old.tip().unwrap().sequence, 1);
    let refused = refused.unwrap();
    assert!(
        refused.contains("rules version 2") && refused.contains("up to 1"),
        "{refused}"
    );
    // The image that has the rules goes on from the very same state.
    drop(old);
    let upgraded = open(&old_disk).implementing(1..=2);
    for entry in upgraded.undecided(None, 100).unwrap() {
        let bytes = (1..=4)
            .map(|n| content(n, 20))
            .find(|b| newton_types::keccak256(b) == entry.hash);
        accept(&upgraded, entry.key, &bytes.unwrap());
    }
    assert!(matches!(upgraded.catch_up().unwrap(), CatchUp::UpToDate(_)));
    assert_eq!(upgraded.tip().unwrap(), new.tip().unwrap());
}
