//! Proofs of leaves.

use std::collections::BTreeMap;

use newton_state::tree;
use newton_types::leaf::{EMPTY_ROOT, leaf_hash, node_hash};
use newton_types::{B256, LeafKey, LeafProof};
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase};

type Leaves = BTreeMap<LeafKey, B256>;

/// Leaves, a key and changes to its proof, all from the bytes: an honest proof holds, and no proof whatever holds for
/// anything but what is in the tree.
pub fn proofs(input: &[u8]) {
    let [count, key, flavour, rest @ ..] = input else {
        return;
    };
    let count = usize::from(count % 12).min(rest.len() / 3);
    let (head, changes) = rest.split_at(count * 3);
    let leaves: Leaves = head.chunks(3).map(leaf).collect();
    let key = match leaves.keys().nth(usize::from(*key) % 16) {
        Some(present) => *present,
        None => leaf(&[*key, *flavour, 0]).0,
    };
    let root = root(&leaves, 0);
    let truth = leaves.get(&key).copied().unwrap_or_default();
    let (value, honest) = prove(&leaves, key, root);
    assert_eq!(value.unwrap_or_default(), truth);
    honest.verify(root, key, truth).unwrap();

    let mut proof = honest;
    let mut claim = truth;
    for change in changes.chunks_exact(3).take(32) {
        alter(&mut proof, &mut claim, change, &leaves);
    }
    if proof.verify(root, key, claim).is_ok() {
        assert_eq!(claim, truth, "a proof of what is not so");
    }
}

/// Keys that share long prefixes, so that the tree is deep.
fn leaf(seed: &[u8]) -> (LeafKey, B256) {
    let mut key = [4; 32];
    key[usize::from(seed[0]) % 32] = seed[1];
    key[31] ^= seed[2];
    let value = newton_types::keccak256(seed);
    (LeafKey(B256::from(key)), value)
}

fn alter(proof: &mut LeafProof, claim: &mut B256, change: &[u8], leaves: &Leaves) {
    let n = proof.siblings.len();
    let at = usize::from(change[1]);
    let other = leaves.iter().nth(at % leaves.len().max(1));
    match change[0] % 10 {
        0 if n > 0 => proof.siblings[at % n].0[usize::from(change[2]) % 32] ^= 1,
        1 if n > 0 => drop(proof.siblings.remove(at % n)),
        2 => proof.siblings.insert(at % (n + 1), EMPTY_ROOT),
        3 => *claim = B256::ZERO,
        4 => *claim = other.map_or(B256::ZERO, |(_, value)| *value),
        5 => proof.neighbour_key = other.map_or(B256::ZERO, |(key, _)| key.0),
        6 => proof.neighbour_value_hash = other.map_or(B256::ZERO, |(_, value)| *value),
        7 => proof.neighbour_key.0[at % 32] ^= change[2],
        8 => {
            proof.neighbour_key = B256::ZERO;
            proof.neighbour_value_hash = B256::ZERO;
        }
        9 if n > 0 => proof.siblings[at % n] = other.map_or(EMPTY_ROOT, |(k, v)| leaf_hash(*k, *v)),
        _ => proof.siblings.resize(n + at, EMPTY_ROOT),
    }
}

/// The root by its definition.
fn root(leaves: &Leaves, depth: usize) -> B256 {
    match leaves.len() {
        0 => EMPTY_ROOT,
        1 => leaves
            .iter()
            .map(|(k, v)| leaf_hash(*k, *v))
            .next()
            .unwrap_or(EMPTY_ROOT),
        _ => {
            let (left, right): (Leaves, Leaves) = leaves
                .iter()
                .partition(|(key, _)| key.0[depth / 8] >> (7 - depth % 8) & 1 == 0);
            node_hash(root(&left, depth + 1), root(&right, depth + 1))
        }
    }
}

/// The tree's own proof.
fn prove(leaves: &Leaves, key: LeafKey, expected: B256) -> (Option<B256>, LeafProof) {
    let db = Database::builder()
        .set_cache_size(1 << 16)
        .create_with_backend(InMemoryBackend::new())
        .unwrap();
    let txn = db.begin_write().unwrap();
    {
        let mut nodes = txn.open_table(tree::NODES).unwrap();
        let mut stale = txn.open_table(tree::STALE_NODES).unwrap();
        let genesis = tree::stage_genesis(&nodes).unwrap();
        tree::write(&mut nodes, &mut stale, &genesis).unwrap();
        let first = tree::stage(&nodes, 0, EMPTY_ROOT, leaves).unwrap();
        assert_eq!(first.root(), expected);
        tree::write(&mut nodes, &mut stale, &first).unwrap();
    }
    txn.commit().unwrap();
    let read = db.begin_read().unwrap();
    let nodes = read.open_table(tree::NODES).unwrap();
    tree::prove(&nodes, 1, key).unwrap()
}
