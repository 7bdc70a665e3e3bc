//! History that contradicts itself or another's, restarts, snapshots and pruning, each by itself.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::steps::{committed, land, prepared, push, rego_leaf, started};
use common::{
    CADENCE, Chain, Disk, GENESIS_TIME, accept, config, content, key, open, parameters, secrets,
    template,
};
use newton_state::{AtHead, CatchUp, Next, StateError, StateStore};
use newton_types::events::{Block, RegistryEvent};
use newton_types::{Address, B256, abi, keccak256};
use redb::Database;

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
