//! Snapshots of a peer.

use std::cell::RefCell;

use newton_peers::{SnapshotPage, SnapshotPages};
use newton_state::{SnapshotLeaf, StateError};
use newton_types::{B256, LeafKey};
use serde_json::json;

use crate::peer::{COMMITS, Newcomer, Peer, body, result};

struct World {
    peer: Peer,
    /// Leaves of every version, for changes to pick from.
    pool: Vec<SnapshotLeaf>,
    /// At genesis: whoever takes a snapshot leaves a new one.
    newcomer: Newcomer,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

impl World {
    fn new() -> Self {
        let peer = Peer::new();
        Self {
            pool: (1..=COMMITS).flat_map(|s| peer.leaves(s)).collect(),
            newcomer: Newcomer::of(&peer.blocks),
            peer,
        }
    }
}

/// A body that begins with `{`: bodies of a peer's answers, with zero bytes between them. Anything else: a commit, a page's size, and
/// changes to its honest leaves, three bytes each. What is taken has the chain's root and is what the honest peer has; what is
/// refused leaves the store as it was.
pub fn snapshot(input: &[u8]) {
    WORLD.with_borrow_mut(|world| {
        let bodies = match input {
            [b'{', ..] => input.split(|b| *b == 0).map(<[u8]>::to_vec).collect(),
            [sequence, size, changes @ ..] => changed(world, *sequence, *size, changes),
            _ => return,
        };
        if take(world, &bodies) {
            world.newcomer = Newcomer::of(&world.peer.blocks);
        }
    });
}

/// The honest answers for the newest commit.
pub fn honest_snapshot() -> Vec<u8> {
    WORLD.with_borrow(|world| {
        let leaves = world.peer.leaves(COMMITS);
        bodies(COMMITS, &leaves, 2).join(&0)
    })
}

/// What bootstrap does with the answers; whether the snapshot was taken.
fn take(world: &World, bodies: &[Vec<u8>]) -> bool {
    let (peer, newcomer) = (&world.peer, &world.newcomer);
    let store = &newcomer.store;
    let before = (store.tip().unwrap(), store.node_count().unwrap());
    let writes = newcomer.writes();
    let mut pages = SnapshotPages::default();
    let mut complete = false;
    for body in bodies {
        let Some(page) = result::<SnapshotPage>(body) else {
            break;
        };
        match pages.take(page) {
            Ok(false) => {}
            Ok(true) => {
                complete = true;
                break;
            }
            Err(_) => break,
        }
    }
    let (true, Some(sequence)) = (complete, pages.sequence()) else {
        return false;
    };
    let leaves = pages.into_leaves();
    if let Err(e) = store.check_snapshot(sequence, &leaves) {
        assert!(!e.is_fatal(), "{e}");
        assert_eq!(newcomer.writes(), writes, "refused and written");
        // Nor does it pass where nobody checks before.
        let error = store.import(sequence, &leaves).unwrap_err();
        assert!(!error.is_fatal(), "{error}");
        assert_eq!(before, (store.tip().unwrap(), store.node_count().unwrap()));
        return false;
    }
    assert_eq!(leaves, peer.leaves(sequence), "other leaves with this root");
    if let Some(last) = leaves.last() {
        let error = store.import(sequence, &leaves).unwrap_err();
        assert!(
            matches!(error, StateError::SnapshotLeaves { .. }),
            "{error}"
        );
        assert_eq!(before.0, store.tip().unwrap());
        peer.bring(store, last.value_hash);
    }
    for leaf in &leaves {
        peer.bring(store, leaf.value_hash);
    }
    let tip = store.import(sequence, &leaves).unwrap();
    let commit = peer.commit(sequence).unwrap();
    assert_eq!((tip.sequence, tip.root), (sequence, commit.newStateRoot));
    assert_eq!(store.leaves(sequence, None, 1_000).unwrap(), leaves);
    true
}

fn changed(world: &World, sequence: u8, size: u8, changes: &[u8]) -> Vec<Vec<u8>> {
    let mut sequence = u64::from(sequence) % COMMITS + 1;
    let mut leaves = world.peer.leaves(sequence);
    for change in changes.chunks_exact(3).take(16) {
        let (at, value) = (usize::from(change[1]), change[2]);
        let n = leaves.len().max(1);
        let other = world.pool[usize::from(value) % world.pool.len()];
        match change[0] % 8 {
            0 if !leaves.is_empty() => drop(leaves.remove(at % n)),
            1 if !leaves.is_empty() => leaves.insert(at % n, leaves[at % n]),
            2 if leaves.len() > 1 => leaves.swap(at % n, usize::from(value) % n),
            3 if !leaves.is_empty() => leaves[at % n].key = flip(leaves[at % n].key, at, value),
            4 if !leaves.is_empty() => leaves[at % n].value_hash.0[at % 32] ^= value,
            5 => leaves.insert(at % (leaves.len() + 1), other),
            6 if !leaves.is_empty() => leaves[at % n] = other,
            _ => sequence = u64::from(value) % (COMMITS + 3),
        }
    }
    bodies(sequence, &leaves, usize::from(size % 4) + 1)
}

fn flip(key: LeafKey, at: usize, value: u8) -> LeafKey {
    let mut key = key.0;
    key.0[at % 32] ^= value;
    LeafKey(key)
}

fn bodies(sequence: u64, leaves: &[SnapshotLeaf], size: usize) -> Vec<Vec<u8>> {
    let end: &[SnapshotLeaf] = &[];
    leaves
        .chunks(size)
        .chain([end])
        .map(|page| {
            let page: Vec<(B256, B256)> = page.iter().map(|l| (l.key.0, l.value_hash)).collect();
            body(&json!({ "sequence_no": sequence, "leaves": page }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_honest_is_taken() {
        WORLD.with_borrow_mut(|world| {
            for sequence in 0..COMMITS as u8 {
                let honest = changed(world, sequence, 1, &[]);
                assert!(take(world, &honest));
                world.newcomer = Newcomer::of(&world.peer.blocks);
                assert!(!take(world, &changed(world, sequence, 1, &[0, 0, 0])));
            }
        });
        snapshot(&honest_snapshot());
    }
}
