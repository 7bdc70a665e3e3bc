//! Tree versions go by a stated rule, their nodes really go, and proofs hold at every version that stays.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::steps::*;
use common::*;
use newton_types::{B256, LeafKey, Namespace, keccak256};

/// Commits 1 to `count`, each with one leaf, each window's commit confirmed in the block after its boundary.
fn history(count: u64, kept_blocks: u64) -> (Chain, Disk, newton_state::StateStore) {
    let mut p = parameters();
    (p.challenge_window, p.max_expire_after) = (kept_blocks / 2, kept_blocks - kept_blocks / 2);
    let mut chain = Chain::new(p);
    let (disk, store) = started(&chain);
    for n in 1..=count {
        let bytes = content(n, 20);
        let block = push(
            &mut chain,
            &store,
            n * CADENCE - 1,
            vec![template(&format!("p{n}"), &bytes)],
        );
        accept(&store, key(&block, 0, 0), &bytes);
        push(&mut chain, &store, n * CADENCE + 1, vec![]);
        land(&mut chain, &store, n * CADENCE + 2);
    }
    (chain, disk, store)
}

fn prune(store: &newton_state::StateStore) -> usize {
    let mut removed = 0;
    while let n @ 1.. = store.prune_expired(7).unwrap() {
        removed += n;
    }
    removed
}

#[test]
fn a_version_stays_for_both_windows_after_the_next_one_was_confirmed() {
    let kept = 10;
    let (chain, _disk, store) = history(30, kept);
    let head = chain.last().header.number;
    // Commit n is confirmed in block 3n + 1: block 0 and 1 are the deployment, and three blocks make a commit.
    let confirmed = |n: u64| 3 * n + 1;
    assert_eq!(confirmed(30), head);
    let expected = (0..30)
        .find(|version| confirmed(version + 1) + kept >= head)
        .unwrap();
    assert_eq!(store.retained_from().unwrap(), expected);
    let roots: Vec<_> = (0..=30)
        .map(|v| store.snapshot(None).unwrap().root(v).unwrap().unwrap())
        .collect();
    assert!(prune(&store) > 0);
    let snapshot = store.snapshot(None).unwrap();
    for version in 0..=30u64 {
        let root = snapshot.root(version).unwrap();
        if version < expected {
            assert_eq!(root, None, "version {version}");
            assert!(snapshot.prove(version, rego_leaf(b"x")).is_err());
            continue;
        }
        assert_eq!(root, Some(roots[version as usize]));
        // Every leaf of that version is in it, every later one is not, nor is one that never was.
        for n in 1..=31u64 {
            let leaf = rego_leaf(&content(n, 20));
            let (value, proof) = snapshot.prove(version, leaf).unwrap();
            let there = n <= version;
            assert_eq!(value, there.then(|| keccak256(content(n, 20))));
            proof
                .verify(root.unwrap(), leaf, value.unwrap_or_default())
                .unwrap();
        }
    }
    // Nothing more is due until blocks come.
    assert_eq!(prune(&store), 0);
}

#[test]
fn after_pruning_exactly_the_nodes_of_the_kept_versions_are_left() {
    let (mut chain, _disk, store) = history(40, 4);
    let before = store.node_count().unwrap();
    assert!(prune(&store) > 0);
    // Blocks pass without commits until every version but the newest has expired.
    for n in 0..20 {
        push(&mut chain, &store, 402 + n / 10, vec![]);
    }
    assert!(prune(&store) > 0);
    assert_eq!(store.retained_from().unwrap(), 40);
    let after = store.node_count().unwrap();
    assert_eq!(store.stale_node_count().unwrap(), 0);

    // The same leaves in one commit: the tree's form does not depend on its history, so this is what must be left.
    let mut p = parameters();
    p.max_commit_bytes = 10_000;
    let mut once = Chain::new(p);
    let (_disk, fresh) = started(&once);
    let contents: Vec<_> = (1..=40).map(|n| content(n, 20)).collect();
    let events = contents
        .iter()
        .enumerate()
        .map(|(n, bytes)| template(&format!("q{n}"), bytes))
        .collect();
    let block = push(&mut once, &fresh, 5, events);
    for (n, bytes) in contents.iter().enumerate() {
        accept(&fresh, key(&block, n, 0), bytes);
    }
    push(&mut once, &fresh, 11, vec![]);
    let commit = land(&mut once, &fresh, 12);
    assert_eq!(commit.newStateRoot, store.tip().unwrap().root);
    // Genesis is its own node there.
    assert_eq!(after, fresh.node_count().unwrap() - 1);
    assert!(before > 3 * after, "{before} nodes before, {after} after");
}

#[test]
fn proofs_of_absence_hold_for_any_key() {
    let (_chain, _disk, store) = history(12, 1_000);
    let snapshot = store.snapshot(None).unwrap();
    let present: BTreeSet<B256> = (1..=12).map(|n| rego_leaf(&content(n, 20)).0).collect();
    for version in 0..=12u64 {
        let root = snapshot.root(version).unwrap().unwrap();
        for n in 0..40u64 {
            let namespace = Namespace::try_from(4 + (n % 5) as u8).unwrap();
            let leaf = LeafKey::artifact(namespace, keccak256(n.to_be_bytes()));
            assert!(!present.contains(&leaf.0));
            let (value, proof) = snapshot.prove(version, leaf).unwrap();
            assert_eq!(value, None);
            proof.verify(root, leaf, B256::ZERO).unwrap();
            // A proof of absence proves nothing else.
            assert!(proof.verify(root, leaf, B256::repeat_byte(1)).is_err());
        }
    }
}
