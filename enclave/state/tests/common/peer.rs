//! What a peer has and a newcomer lacks.

use newton_state::{CatchUp, SnapshotLeaf, StateStore};
use newton_types::keccak256;

use super::steps::*;
use super::*;

/// A peer with five commits, among them a rejected entry, a replaced envelope and an empty window; then one entry that waits.
pub fn peer() -> (Chain, StateStore) {
    let (chain, store, _) = history();
    (chain, store)
}

/// The same chain, with the leaves of each commit as they were served while it was the newest.
pub fn peer_with_snapshots() -> (Chain, Vec<(u64, Vec<SnapshotLeaf>)>) {
    let (chain, _, served) = history();
    (chain, served)
}

fn history() -> (Chain, StateStore, Vec<(u64, Vec<SnapshotLeaf>)>) {
    let mut chain = Chain::new(parameters());
    let (_disk, store) = started(&chain);
    let bad = content(77, 20);
    let mut served = Vec::new();
    for n in 1..=5u64 {
        let bytes = content(n, 20);
        let mut events = vec![template(&format!("p{n}"), &bytes)];
        match n {
            2 => events.push(template("bad", &bad)),
            3 => events = vec![secrets(1, b"first envelope")],
            4 => events.clear(),
            5 => events.push(secrets(1, b"second envelope")),
            _ => {}
        }
        let block = push(&mut chain, &store, n * CADENCE - 1, events);
        for event in 0..block.events.len() {
            let entry = store.entry(key(&block, event, 0)).unwrap().unwrap();
            let known = [
                bytes.as_slice(),
                b"first envelope".as_slice(),
                b"second envelope",
            ];
            match known.iter().find(|b| keccak256(b) == entry.hash) {
                Some(bytes) => accept(&store, entry.key, bytes),
                None => reject(&store, entry.key),
            }
        }
        push(&mut chain, &store, n * CADENCE + 1, vec![]);
        land(&mut chain, &store, n * CADENCE + 2);
        served.push((n, pages(&store, n)));
    }
    let late = content(9, 20);
    let block = push(&mut chain, &store, 55, vec![template("late", &late)]);
    accept(&store, key(&block, 0, 0), &late);
    (chain, store, served)
}

/// A new enclave that has seen the blocks and judged nothing.
pub fn newcomer(chain: &Chain) -> (Disk, StateStore) {
    let (disk, store) = started(chain);
    assert!(matches!(store.catch_up().unwrap(), CatchUp::Stopped { .. }));
    assert_eq!(store.newest_chain_commit().unwrap(), Some(5));
    (disk, store)
}

/// All leaves of a commit, by small pages.
pub fn pages(peer: &StateStore, sequence: u64) -> Vec<SnapshotLeaf> {
    let mut leaves: Vec<SnapshotLeaf> = Vec::new();
    loop {
        let page = peer
            .leaves(sequence, leaves.last().map(|l| l.key), 2)
            .unwrap();
        if page.is_empty() {
            return leaves;
        }
        leaves.extend(page);
    }
}

/// Brings the bytes of a snapshot's leaves.
pub fn fill(store: &StateStore, peer: &StateStore, leaves: &[SnapshotLeaf]) {
    for leaf in leaves {
        let bytes = peer.content(leaf.value_hash).unwrap().unwrap();
        store.import_content(leaf.value_hash, &bytes).unwrap();
    }
}
