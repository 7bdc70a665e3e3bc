//! Deltas of a peer.

use std::cell::RefCell;

use newton_peers::{DeltaPage, DeltaPages, DeltaRow};
use newton_state::StateStore;
use newton_types::queue::delta_hash;
use newton_types::{DeltaEntry, abi};
use serde_json::json;

use crate::peer::{COMMITS, Newcomer, Peer, body, result};

struct World {
    peer: Peer,
    /// What all commits wrote, for changes to pick from.
    pool: Vec<DeltaEntry>,
    /// At genesis: whoever takes a delta leaves a new one.
    newcomer: Newcomer,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

impl World {
    fn new() -> Self {
        let peer = Peer::new();
        Self {
            pool: (1..=COMMITS).flat_map(|s| peer.delta(s)).collect(),
            newcomer: Newcomer::of(&peer.blocks),
            peer,
        }
    }
}

/// A body that begins with `{`: bodies of a peer's answers to what a newcomer asks, with zero bytes between them. Anything else:
/// a page's size and changes to the honest delta of the first commit, three bytes each. What is taken is what the honest peer
/// has; what is refused leaves the store as it was. A quorum that had signed the changed delta's hash would not get it in either.
pub fn delta(input: &[u8]) {
    WORLD.with_borrow_mut(|world| {
        let taken = match input {
            [b'{', ..] => {
                let mut bodies = input.split(|b| *b == 0);
                let mut taken = 0;
                while take(world, &mut bodies) {
                    taken += 1;
                }
                taken
            }
            [size, changes @ ..] => {
                let honest = world.peer.delta(1);
                let changed = changed(world, &honest, changes);
                if changed != honest {
                    signed_all_the_same(&world.peer, &changed);
                }
                let bodies = bodies(1, &changed, usize::from(size % 3) + 1);
                u64::from(take(world, &mut bodies.iter().map(Vec::as_slice)))
            }
            [] => 0,
        };
        if taken > 0 {
            world.newcomer = Newcomer::of(&world.peer.blocks);
        }
    });
}

/// The honest answers for all commits.
pub fn honest_deltas() -> Vec<u8> {
    WORLD.with_borrow(|world| honest_bodies(world).join(&0))
}

fn honest_bodies(world: &World) -> Vec<Vec<u8>> {
    (1..=COMMITS)
        .flat_map(|sequence| bodies(sequence, &world.peer.delta(sequence), 1))
        .collect()
}

/// What bootstrap does with the answers for the next commit; whether it was taken.
fn take<'a>(world: &World, bodies: &mut impl Iterator<Item = &'a [u8]>) -> bool {
    let (peer, newcomer) = (&world.peer, &world.newcomer);
    let store = &newcomer.store;
    let (before, writes) = (store.tip().unwrap(), newcomer.writes());
    let Some(commit) = store.chain_commit(before.sequence + 1).unwrap() else {
        return false;
    };
    let delta = collect(&commit, store.queue_totals().unwrap().entries, bodies);
    assert_eq!(newcomer.writes(), writes, "nothing is vouched for yet");
    let Some(delta) = delta else { return false };
    assert_eq!(
        delta,
        peer.delta(commit.sequenceNo),
        "not what the chain has"
    );
    for entry in &delta {
        peer.bring(store, entry.value_hash);
    }
    let tip = store.apply_delta(commit.sequenceNo, &delta).unwrap();
    assert_eq!(
        (tip.sequence, tip.root),
        (commit.sequenceNo, commit.newStateRoot)
    );
    assert_eq!(store.delta(tip.sequence, 0).unwrap(), delta);
    same_leaves(store, &peer.store, tip.sequence);
    true
}

fn collect<'a>(
    commit: &abi::StateCommit,
    waiting: u64,
    bodies: &mut impl Iterator<Item = &'a [u8]>,
) -> Option<Vec<DeltaEntry>> {
    let mut pages = DeltaPages::of(commit, waiting);
    loop {
        let page: DeltaPage = result(bodies.next()?)?;
        if pages.take(page).ok()? {
            break;
        }
    }
    match pages.finish() {
        Ok(delta) => Some(delta),
        Err(e) => {
            assert!(!e.is_fatal(), "{e}");
            None
        }
    }
}

/// The chain's commit 1 with the hash of this delta, and the rest of it honest.
fn signed_all_the_same(peer: &Peer, delta: &[DeltaEntry]) {
    let blocks = peer.blocks_with(1, |commit| commit.deltaHash = delta_hash(delta));
    let newcomer = Newcomer::of(&blocks);
    let store = &newcomer.store;
    for entry in delta {
        peer.bring(store, entry.value_hash);
    }
    let (before, writes) = (store.tip().unwrap(), newcomer.writes());
    let error = store.apply_delta(1, delta).unwrap_err();
    assert!(!error.is_fatal(), "{error}");
    assert_eq!(store.tip().unwrap(), before);
    assert_eq!(newcomer.writes(), writes, "refused and written: {error}");
}

fn same_leaves(ours: &StateStore, theirs: &StateStore, sequence: u64) {
    let leaves = |store: &StateStore| store.leaves(sequence, None, 1_000).unwrap();
    assert_eq!(leaves(ours), leaves(theirs));
}

fn changed(world: &World, honest: &[DeltaEntry], changes: &[u8]) -> Vec<DeltaEntry> {
    let mut delta = honest.to_vec();
    for change in changes.chunks_exact(3).take(16) {
        let (at, value) = (usize::from(change[1]), change[2]);
        let n = delta.len().max(1);
        let other = world.pool[usize::from(value) % world.pool.len()];
        match change[0] % 9 {
            0 if !delta.is_empty() => drop(delta.remove(at % n)),
            1 if !delta.is_empty() => delta.insert(at % n, delta[at % n]),
            2 if delta.len() > 1 => delta.swap(at % n, usize::from(value) % n),
            3 if !delta.is_empty() => delta[at % n].leaf_key.0[at % 32] ^= value,
            4 if !delta.is_empty() => delta[at % n].value_hash.0[at % 32] ^= value,
            5 if !delta.is_empty() => delta[at % n].length ^= u32::from(value) << (at % 32),
            6 if !delta.is_empty() => delta[at % n].key.block ^= u64::from(value) << (at % 64),
            7 => delta.insert(at % (delta.len() + 1), other),
            _ if !delta.is_empty() => delta[at % n] = other,
            _ => {}
        }
    }
    delta
}

fn bodies(sequence: u64, delta: &[DeltaEntry], size: usize) -> Vec<Vec<u8>> {
    let end: &[DeltaEntry] = &[];
    delta
        .chunks(size)
        .chain([end])
        .map(|page| {
            let page: Vec<DeltaRow> = page.iter().map(|e| (*e).into()).collect();
            body(&json!({ "sequence_no": sequence, "entries": page }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_honest_is_taken() {
        WORLD.with_borrow_mut(|world| {
            let honest = honest_bodies(world);
            let mut bodies = honest.iter().map(Vec::as_slice);
            for _ in 0..COMMITS {
                assert!(take(world, &mut bodies));
            }
            assert!(!take(world, &mut bodies));
            world.newcomer = Newcomer::of(&world.peer.blocks);
            let mut cut_short = honest.iter().skip(1).map(Vec::as_slice);
            assert!(!take(world, &mut cut_short));
        });
        delta(&honest_deltas());
    }
}
