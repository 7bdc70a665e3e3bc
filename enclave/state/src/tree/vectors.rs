//! The golden vectors of `tests/vectors/jmt.json`, made from a fixed seed by the very tree that the appliance runs.

use std::collections::BTreeMap;

use newton_types::leaf::{EMPTY_ROOT, leaf_hash, node_hash};
use newton_types::{B256, LeafKey, LeafProof, keccak256};
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase};
use serde::{Deserialize, Serialize};

use super::{NODES, STALE_NODES, TreeError, prove, stage, stage_genesis, write};

/// One statement about one leaf under a root, and whether it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProofVector {
    /// Root of the tree.
    pub root: B256,
    /// Key of the leaf.
    pub key: B256,
    /// Value hash claimed; zero claims that there is no leaf.
    pub value_hash: B256,
    /// Siblings, bottom-up.
    pub siblings: Vec<B256>,
    /// Key of the neighbouring leaf, or zero.
    pub neighbour_key: B256,
    /// Its value hash, or zero.
    pub neighbour_value_hash: B256,
    /// Whether a verifier must accept.
    pub valid: bool,
}

impl ProofVector {
    fn new(root: B256, key: LeafKey, value_hash: Option<B256>, proof: LeafProof) -> Self {
        Self {
            root,
            key: key.0,
            value_hash: value_hash.unwrap_or_default(),
            siblings: proof.siblings,
            neighbour_key: proof.neighbour_key,
            neighbour_value_hash: proof.neighbour_value_hash,
            valid: true,
        }
    }

    fn invalid(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut other = self.clone();
        other.valid = false;
        change(&mut other);
        other
    }

    /// The proof in it.
    pub fn proof(&self) -> LeafProof {
        LeafProof {
            siblings: self.siblings.clone(),
            neighbour_key: self.neighbour_key,
            neighbour_value_hash: self.neighbour_value_hash,
        }
    }
}

/// All vectors, always the same.
pub fn proof_vectors() -> Result<Vec<ProofVector>, TreeError> {
    let mut out = Vec::new();
    empty_tree(&mut out)?;
    for leaves in [1, 2, 3, 17, 300] {
        random_tree(leaves, &mut out)?;
    }
    deep_tree(&mut out)?;
    invalid_at_the_limits(&mut out)?;
    Ok(out)
}

fn seeded(label: &str, i: usize) -> B256 {
    keccak256(format!("newton jmt vector {label} {i}"))
}

/// A tree of one version above genesis.
struct Sample {
    db: Database,
    root: B256,
}

impl Sample {
    fn new(leaves: &BTreeMap<LeafKey, B256>) -> Result<Self, TreeError> {
        let db = Database::builder()
            .create_with_backend(InMemoryBackend::new())
            .map_err(super::inner)?;
        let txn = db.begin_write().map_err(super::inner)?;
        let root;
        {
            let mut nodes = txn.open_table(NODES).map_err(super::inner)?;
            let mut stale = txn.open_table(STALE_NODES).map_err(super::inner)?;
            let genesis = stage_genesis(&nodes)?;
            write(&mut nodes, &mut stale, &genesis)?;
            let first = stage(&nodes, 0, EMPTY_ROOT, leaves)?;
            write(&mut nodes, &mut stale, &first)?;
            root = first.root();
        }
        txn.commit().map_err(super::inner)?;
        Ok(Self { db, root })
    }

    fn vector(&self, key: LeafKey) -> Result<ProofVector, TreeError> {
        let txn = self.db.begin_read().map_err(super::inner)?;
        let nodes = txn.open_table(NODES).map_err(super::inner)?;
        let (value, proof) = prove(&nodes, 1, key)?;
        Ok(ProofVector::new(self.root, key, value, proof))
    }
}

fn empty_tree(out: &mut Vec<ProofVector>) -> Result<(), TreeError> {
    let sample = Sample::new(&BTreeMap::new())?;
    let absent = sample.vector(LeafKey(seeded("empty", 0)))?;
    out.push(absent.invalid(|v| v.value_hash = seeded("empty value", 0)));
    out.push(absent.invalid(|v| v.root = B256::ZERO));
    out.push(absent);
    Ok(())
}

fn random_tree(count: usize, out: &mut Vec<ProofVector>) -> Result<(), TreeError> {
    let label = format!("random {count}");
    let leaves: BTreeMap<LeafKey, B256> = (0..count)
        .map(|i| {
            // Real keys share their first byte with others of their namespace, which makes paths deeper.
            let mut key = seeded(&label, i);
            key.0[0] = 1 + (i % 8) as u8;
            (LeafKey(key), seeded(&format!("{label} value"), i))
        })
        .collect();
    let sample = Sample::new(&leaves)?;

    for key in leaves.keys().take(3) {
        let there = sample.vector(*key)?;
        tamper_inclusion(&there, out);
        out.push(there);
    }
    // Absent keys until both kinds have come: an empty place, and a place taken by another leaf.
    let (mut empty, mut taken) = (0, 0);
    for i in 0..64 {
        let mut key = seeded(&format!("{label} absent"), i);
        if i % 4 != 0 {
            key.0[0] = 1 + (i % 8) as u8;
        }
        let absent = sample.vector(LeafKey(key))?;
        let kind = if absent.neighbour_key == B256::ZERO {
            &mut empty
        } else {
            &mut taken
        };
        if *kind < 2 {
            *kind += 1;
            tamper_absence(&absent, out);
            out.push(absent);
        }
    }
    Ok(())
}

fn tamper_inclusion(v: &ProofVector, out: &mut Vec<ProofVector>) {
    out.push(v.invalid(|v| v.value_hash.0[31] ^= 1));
    out.push(v.invalid(|v| v.key.0[31] ^= 1));
    out.push(v.invalid(|v| v.root.0[0] ^= 0x80));
    // The leaf is there, so its absence must not be provable with its own path or itself as neighbour.
    out.push(v.invalid(|v| v.value_hash = B256::ZERO));
    out.push(v.invalid(|v| {
        v.neighbour_key = v.key;
        v.neighbour_value_hash = v.value_hash;
        v.value_hash = B256::ZERO;
    }));
    // A neighbour does not belong into an inclusion proof, not even half of one.
    out.push(v.invalid(|v| v.neighbour_key = seeded("stray", 0)));
    out.push(v.invalid(|v| v.neighbour_value_hash = seeded("stray", 1)));
    if !v.siblings.is_empty() {
        out.push(v.invalid(|v| v.siblings[0].0[7] ^= 0x10));
        out.push(v.invalid(|v| {
            v.siblings.pop();
        }));
        out.push(v.invalid(|v| {
            v.siblings.remove(0);
        }));
    }
    out.push(v.invalid(|v| v.siblings.push(EMPTY_ROOT)));
    out.push(v.invalid(|v| v.siblings.insert(0, EMPTY_ROOT)));
    if v.siblings.len() > 1 && v.siblings[0] != v.siblings[1] {
        out.push(v.invalid(|v| v.siblings.swap(0, 1)));
    }
}

fn tamper_absence(v: &ProofVector, out: &mut Vec<ProofVector>) {
    out.push(v.invalid(|v| v.value_hash = seeded("conjured", 0)));
    out.push(v.invalid(|v| v.root.0[31] ^= 1));
    if let Some(last) = v.siblings.len().checked_sub(1) {
        out.push(v.invalid(|v| v.siblings[last].0[0] ^= 1));
    }
    if v.neighbour_key == B256::ZERO {
        out.push(v.invalid(|v| {
            v.neighbour_key = v.key;
            v.neighbour_key.0[31] ^= 1;
            v.neighbour_value_hash = seeded("conjured", 1);
        }));
        return;
    }
    out.push(v.invalid(|v| v.neighbour_value_hash = B256::ZERO));
    out.push(v.invalid(|v| v.neighbour_key = B256::ZERO));
    out.push(v.invalid(|v| v.neighbour_value_hash.0[0] ^= 1));
    out.push(v.invalid(|v| {
        v.neighbour_key = B256::ZERO;
        v.neighbour_value_hash = B256::ZERO;
    }));
    // The neighbour's own path, claimed for a key that leaves it at its last bit: hashes fit, prefix does not.
    if let Some(last_bit) = v.siblings.len().checked_sub(1) {
        out.push(v.invalid(|v| v.key = flip(v.neighbour_key, last_bit)));
    }
    // The neighbour's absence, proven by the neighbour.
    out.push(v.invalid(|v| v.key = v.neighbour_key));
}

/// Two leaves that differ in their last bit only: 256 siblings, the longest proof there is.
fn deep_tree(out: &mut Vec<ProofVector>) -> Result<(), TreeError> {
    let left = {
        let mut key = seeded("deep", 0);
        key.0[31] &= 0xfe;
        LeafKey(key)
    };
    let right = LeafKey(flip(left.0, 255));
    let leaves = BTreeMap::from([
        (left, seeded("deep value", 0)),
        (right, seeded("deep value", 1)),
    ]);
    let sample = Sample::new(&leaves)?;
    let deepest = sample.vector(right)?;
    out.push(deepest.invalid(|v| v.siblings.push(EMPTY_ROOT)));
    out.push(deepest.invalid(|v| v.siblings.insert(0, EMPTY_ROOT)));
    out.push(deepest);
    // Absent keys beside that chain: an empty place at half depth.
    out.push(sample.vector(LeafKey(flip(left.0, 127)))?);
    Ok(())
}

/// Statements that are arithmetically consistent and must be refused by a rule alone.
fn invalid_at_the_limits(out: &mut Vec<ProofVector>) -> Result<(), TreeError> {
    // 257 siblings that really hash to the root named.
    let key = LeafKey(seeded("too long", 0));
    let value = seeded("too long value", 0);
    let siblings: Vec<B256> = (0..257).map(|i| seeded("too long sibling", i)).collect();
    for wrap in [0usize, 255] {
        let mut root = leaf_hash(key, value);
        for (i, sibling) in siblings.iter().enumerate() {
            // Bit "256" does not exist; try both what wrapping to bit 0 and clamping to bit 255 would read.
            let bit = if i == 0 { wrap } else { 256 - i };
            root = if bit_of(&key.0, bit) {
                node_hash(*sibling, root)
            } else {
                node_hash(root, *sibling)
            };
        }
        out.push(ProofVector {
            root,
            key: key.0,
            value_hash: value,
            siblings: siblings.clone(),
            neighbour_key: B256::ZERO,
            neighbour_value_hash: B256::ZERO,
            valid: false,
        });
    }
    // A consistent path whose neighbour parts from the key one bit before the path ends.
    let neighbour = LeafKey(flip(key.0, 7));
    let neighbour_value = seeded("limit value", 0);
    let siblings: Vec<B256> = (0..8).map(|i| seeded("limit sibling", i)).collect();
    let mut root = leaf_hash(neighbour, neighbour_value);
    for (i, sibling) in siblings.iter().enumerate() {
        root = if bit_of(&key.0, 7 - i) {
            node_hash(*sibling, root)
        } else {
            node_hash(root, *sibling)
        };
    }
    out.push(ProofVector {
        root,
        key: key.0,
        value_hash: B256::ZERO,
        siblings,
        neighbour_key: neighbour.0,
        neighbour_value_hash: neighbour_value,
        valid: false,
    });
    Ok(())
}

fn bit_of(key: &B256, bit: usize) -> bool {
    key[bit / 8] >> (7 - bit % 8) & 1 == 1
}

fn flip(mut key: B256, bit: usize) -> B256 {
    key.0[bit / 8] ^= 1 << (7 - bit % 8);
    key
}
