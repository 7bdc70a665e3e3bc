//! Leaves into the state's tree, in redb over pages, against bare `jmt` in memory.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use jmt::storage::{LeafNode, Node, NodeKey, TreeReader};
use jmt::{JellyfishMerkleTree, KeyHash};
use newton_pages::RedbBackend;
use newton_pages::testing::FileDevice;
use newton_state::open_database;
use newton_state::tree::{self, TreeHasher};
use newton_types::{B256, LeafKey, keccak256};
use redb::{Database, ReadableDatabase};
use serde::Serialize;

use crate::{median, memory, pages};

/// Leaves that one commit adds to the tree.
const ADDED: usize = 2_000;
const ROUNDS: usize = 5;
/// Leaves of one version while the tree is built.
const BATCH: usize = 50_000;
const CACHE: usize = 64 << 20;

/// One size.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Leaves in the tree before.
    pub leaves: usize,
    /// Leaves a second, staged, written and committed, to leaves a second of bare `jmt`, which puts one after the other.
    pub leaves_ratio: f64,
    /// Of it the computation alone, which reads its nodes from the database.
    pub staging_ratio: f64,
    /// Leaves a second, staged, written and committed, to those of `jmt`'s call that puts many at once, in memory.
    pub leaves_to_batch_ratio: f64,
    /// Of it the computation alone.
    pub staging_to_batch_ratio: f64,
    /// Leaves a second of bare `jmt`, for orientation.
    pub jmt_leaves_per_second: f64,
    /// Ours, for orientation.
    pub leaves_per_second: f64,
    /// Bytes of siblings in an inclusion proof, on average.
    pub proof_bytes: f64,
    /// Opening the file as a kill left it, to the newest root.
    pub open_ms: f64,
    /// Slots read for it.
    pub open_slots_read: u64,
    /// Resident memory of a process that did so.
    pub resident_kib: u64,
    /// Length of the page file.
    pub file_bytes: u64,
}

/// Nodes in memory.
struct Memory(HashMap<NodeKey, Node>);

impl TreeReader for Memory {
    fn get_node_option(&self, key: &NodeKey) -> anyhow::Result<Option<Node>> {
        Ok(self.0.get(key).cloned())
    }

    fn get_value_option(&self, _: u64, _: KeyHash) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(Some(Vec::new()))
    }

    fn get_rightmost_leaf(&self) -> anyhow::Result<Option<(NodeKey, LeafNode)>> {
        Ok(None)
    }
}

type Leaves = BTreeMap<LeafKey, B256>;

struct Bare {
    nodes: Memory,
    version: u64,
}

impl Bare {
    /// Adds leaves; returns the root, and the seconds that it took one by one and at once.
    fn add(&mut self, leaves: &Leaves) -> Result<(B256, f64, f64)> {
        let tree = JellyfishMerkleTree::<_, TreeHasher>::new(&self.nodes);
        let begun = Instant::now();
        let values = leaves
            .iter()
            .map(|(key, value)| (KeyHash(key.0.0), Some(value.to_vec())));
        let (root, _) = tree.put_value_set(values, self.version)?;
        let one_by_one = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let batch = self.put(leaves)?;
        let at_once = begun.elapsed().as_secs_f64();
        anyhow::ensure!(batch == B256::from(root.0), "both calls make one root");
        Ok((batch, one_by_one, at_once))
    }

    fn put(&mut self, leaves: &Leaves) -> Result<B256> {
        let tree = JellyfishMerkleTree::<_, TreeHasher>::new(&self.nodes);
        let values = leaves
            .iter()
            .map(|(key, value)| (KeyHash(key.0.0), value.to_vec()))
            .collect();
        let (roots, batch) = tree.batch_put_value_sets(vec![values], None, self.version)?;
        let stale = batch.stale_node_index_batch;
        self.nodes.0.extend(batch.node_batch.nodes().clone());
        for index in stale {
            self.nodes.0.remove(&index.node_key);
        }
        self.version += 1;
        Ok(B256::from(roots[0].0))
    }
}

struct Ours {
    db: Database,
    version: u64,
    root: B256,
}

impl Ours {
    /// Adds leaves in one commit; returns the time that the computation took.
    fn add(&mut self, leaves: &Leaves) -> Result<f64> {
        let read = self.db.begin_read()?;
        let nodes = read.open_table(tree::NODES)?;
        let begun = Instant::now();
        let staged = tree::stage(&nodes, self.version, self.root, leaves)?;
        let staging = begun.elapsed().as_secs_f64();
        drop((nodes, read));
        let mut write = self.db.begin_write()?;
        write.set_quick_repair(true);
        {
            let mut nodes = write.open_table(tree::NODES)?;
            let mut stale = write.open_table(tree::STALE_NODES)?;
            tree::write(&mut nodes, &mut stale, &staged)?;
        }
        write.commit()?;
        self.version = staged.version();
        self.root = staged.root();
        Ok(staging)
    }
}

/// Measures one tree after the other.
pub fn measure(dir: &Path, sizes: &[usize]) -> Result<Vec<Report>> {
    sizes.iter().map(|size| one(dir, *size)).collect()
}

fn one(dir: &Path, size: usize) -> Result<Report> {
    let path = dir.join(format!("tree-{size}"));
    let store = pages::open(Arc::new(FileDevice::open(&path)?), CACHE)?;
    let db = open_database(RedbBackend::new(store)?, CACHE)?;
    let mut ours = genesis(db)?;
    let mut bare = Bare {
        nodes: Memory(HashMap::from([(
            NodeKey::new(0, std::iter::empty().collect()),
            Node::Null,
        )])),
        version: 1,
    };
    let mut next = 0;
    while next < size {
        let count = BATCH.min(size - next);
        let batch = leaves(next, count);
        next += count;
        ours.add(&batch)?;
        anyhow::ensure!(bare.put(&batch)? == ours.root, "both have one root");
    }
    let (mut jmt, mut at_once) = (Vec::new(), Vec::new());
    let (mut total, mut staging) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let batch = leaves(next, ADDED);
        next += ADDED;
        let (root, one_by_one, many) = bare.add(&batch)?;
        jmt.push(ADDED as f64 / one_by_one);
        at_once.push(ADDED as f64 / many);
        let begun = Instant::now();
        staging.push(ADDED as f64 / ours.add(&batch)?);
        total.push(ADDED as f64 / begun.elapsed().as_secs_f64());
        anyhow::ensure!(root == ours.root, "both have one root");
    }
    let proof_bytes = proofs(&ours, next)?;
    // While it is open: as a kill would leave it.
    let copy = dir.join("copy");
    std::fs::copy(&path, &copy)?;
    // Else opening, which flushes, would wait for the copy to reach the disk.
    std::fs::File::open(&copy)?.sync_all()?;
    let opened = memory::open_elsewhere(&copy)?;
    let file_bytes = std::fs::metadata(&copy)?.len();
    std::fs::remove_file(&copy)?;
    drop(ours);
    std::fs::remove_file(&path)?;
    let (jmt, at_once) = (median(jmt), median(at_once));
    let (total, staging) = (median(total), median(staging));
    Ok(Report {
        leaves: size,
        leaves_ratio: total / jmt,
        staging_ratio: staging / jmt,
        leaves_to_batch_ratio: total / at_once,
        staging_to_batch_ratio: staging / at_once,
        jmt_leaves_per_second: jmt,
        leaves_per_second: total,
        proof_bytes,
        open_ms: opened.milliseconds,
        open_slots_read: opened.slots_read,
        resident_kib: opened.resident_kib,
        file_bytes,
    })
}

fn genesis(db: Database) -> Result<Ours> {
    let write = db.begin_write()?;
    let root = {
        let mut nodes = write.open_table(tree::NODES)?;
        let mut stale = write.open_table(tree::STALE_NODES)?;
        let genesis = tree::stage_genesis(&nodes)?;
        tree::write(&mut nodes, &mut stale, &genesis)?;
        genesis.root()
    };
    write.commit()?;
    Ok(Ours {
        db,
        version: 0,
        root,
    })
}

fn proofs(ours: &Ours, count: usize) -> Result<f64> {
    const SAMPLES: usize = 200;
    let read = ours.db.begin_read()?;
    let nodes = read.open_table(tree::NODES)?;
    let mut bytes = 0;
    for i in 0..SAMPLES {
        let (key, value) = leaves(i * (count / SAMPLES), 1)
            .pop_first()
            .context("a leaf")?;
        let (got, proof) = tree::prove(&nodes, ours.version, key)?;
        anyhow::ensure!(got == Some(value));
        proof.verify(ours.root, key, value)?;
        bytes += 32 * proof.siblings.len();
    }
    Ok(bytes as f64 / SAMPLES as f64)
}

fn leaves(from: usize, count: usize) -> Leaves {
    (from..from + count)
        .map(|i| {
            let hash = keccak256((i as u64).to_be_bytes());
            let key = LeafKey::artifact(newton_types::Namespace::PolicyRego, hash);
            (key, hash)
        })
        .collect()
}
