//! The state tree: `jmt` with keccak-256 over redb tables (design 2.1).
//!
//! Version = commit sequence number, contiguous from 0 (genesis, the empty tree). A version is staged in memory from a
//! read transaction and written whole by the transaction that also moves the commit cursor, so a reader sees either
//! none or all of it.
//!
//! The tree holds hashes only. `jmt` wants a leaf's bytes to hash them; it is given the 32-byte keccak-256 that
//! ingestion has checked, and [`TreeHasher`] passes it through. So a full window moves no second copy of its bytes,
//! and roots are those of plain `jmt` over the bytes themselves (a test holds the two against each other).

mod nodes;
mod proof;
mod vectors;

use std::collections::BTreeMap;

use alloy_primitives::Keccak256;
use anyhow::Context as _;
use jmt::storage::{Node, NodeKey, TreeReader, TreeUpdateBatch};
use jmt::{JellyfishMerkleTree, KeyHash, RootHash, SimpleHasher};
use newton_types::{B256, LeafKey, LeafProof};
use redb::ReadableTable;

pub use nodes::{NODES, STALE_NODES};
pub use vectors::{ProofVector, proof_vectors};

/// Why the tree refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The version's root node is not there: never written, or pruned. Fatal when it is the parent of a new version,
    /// since `jmt` would silently start from an empty tree.
    #[error("state tree has no root at version {version}")]
    MissingRoot {
        /// The version asked for.
        version: u64,
    },
    /// The parent version has another root than the caller builds upon.
    #[error("state tree version {version} has root {got}, expected {expected}")]
    WrongParent {
        /// The parent version.
        version: u64,
        /// Root that the caller expects there.
        expected: B256,
        /// Root that is there.
        got: B256,
    },
    /// The version exists already.
    #[error("state tree version {version} is written already")]
    VersionExists {
        /// The version.
        version: u64,
    },
    /// The tree library failed, which for an authenticated store means a broken invariant.
    #[error("state tree: {0}")]
    Inner(String),
    /// The database failed.
    #[error("state tree storage: {0}")]
    Storage(#[from] redb::StorageError),
}

/// keccak-256 for nodes; a leaf's value comes hashed already.
#[derive(Default)]
pub struct TreeHasher(Keccak256);

impl SimpleHasher for TreeHasher {
    fn new() -> Self {
        Self::default()
    }

    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finalize(self) -> [u8; 32] {
        self.0.finalize().0
    }

    /// `jmt` calls this for values alone (nodes go through `new`, `update`, `finalize`), and every value handed to it
    /// by this crate is a value hash of 32 bytes.
    fn hash(data: impl AsRef<[u8]>) -> [u8; 32] {
        let data = data.as_ref();
        match <[u8; 32]>::try_from(data) {
            Ok(value_hash) => value_hash,
            Err(_) => newton_types::keccak256(data).0,
        }
    }
}

/// A version computed but not written.
#[derive(Clone)]
pub struct StagedVersion {
    version: u64,
    root: B256,
    nodes: Vec<(Vec<u8>, Vec<u8>)>,
    stale: Vec<Vec<u8>>,
}

impl StagedVersion {
    /// The version this becomes.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Its root.
    pub fn root(&self) -> B256 {
        self.root
    }

    /// Number of nodes it writes.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }
}

/// Computes the genesis version 0: the empty tree.
pub fn stage_genesis<T: ReadableTable<&'static [u8], &'static [u8]>>(
    nodes: &T,
) -> Result<StagedVersion, TreeError> {
    if root(nodes, 0)?.is_some() {
        return Err(TreeError::VersionExists { version: 0 });
    }
    stage_unchecked(&nodes::Nothing { version: 0 }, 0, &BTreeMap::new())
}

/// Computes a version that follows none, from all of its leaves: the one a snapshot begins with. The tree's form does not
/// depend on its history, so its root is that of the same version made step by step.
pub fn stage_alone<T: ReadableTable<&'static [u8], &'static [u8]>>(
    nodes: &T,
    version: u64,
    leaves: &BTreeMap<LeafKey, B256>,
) -> Result<StagedVersion, TreeError> {
    if root(nodes, version)?.is_some() {
        return Err(TreeError::VersionExists { version });
    }
    if let Some(parent) = version.checked_sub(1)
        && root(nodes, parent)?.is_some()
    {
        return Err(TreeError::VersionExists { version: parent });
    }
    stage_unchecked(&nodes::Nothing { version }, version, leaves)
}

/// Root of a tree with these leaves, whatever the version. Touches no table.
pub fn root_of(leaves: &BTreeMap<LeafKey, B256>) -> Result<B256, TreeError> {
    Ok(stage_unchecked(&nodes::Nothing { version: 0 }, 0, leaves)?.root())
}

/// Whether [`prune`] would remove anything.
pub fn is_prunable(
    stale: &impl ReadableTable<&'static [u8], ()>,
    keep_from: u64,
) -> Result<bool, TreeError> {
    let end = nodes::stale_end(keep_from);
    Ok(stale.range::<&[u8]>(..end.as_slice())?.next().is_some())
}

/// Computes the version that follows `parent` by setting each leaf to its value hash. Without leaves the new version
/// has the parent's root; it is written all the same, because versions are contiguous.
pub fn stage<T: ReadableTable<&'static [u8], &'static [u8]>>(
    nodes: &T,
    parent: u64,
    parent_root: B256,
    leaves: &BTreeMap<LeafKey, B256>,
) -> Result<StagedVersion, TreeError> {
    let got = root(nodes, parent)?.ok_or(TreeError::MissingRoot { version: parent })?;
    if got != parent_root {
        return Err(TreeError::WrongParent {
            version: parent,
            expected: parent_root,
            got,
        });
    }
    let version = parent + 1;
    if root(nodes, version)?.is_some() {
        return Err(TreeError::VersionExists { version });
    }
    stage_unchecked(&nodes::Reader(nodes), version, leaves)
}

/// Writes a staged version. The caller commits the transaction together with what names this version as the newest.
pub fn write(
    nodes: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
    stale: &mut redb::Table<'_, &'static [u8], ()>,
    staged: &StagedVersion,
) -> Result<(), TreeError> {
    for (key, node) in &staged.nodes {
        nodes.insert(key.as_slice(), node.as_slice())?;
    }
    for key in &staged.stale {
        stale.insert(key.as_slice(), ())?;
    }
    Ok(())
}

/// Root of a version, `None` if it was never written or is pruned.
pub fn root<T: ReadableTable<&'static [u8], &'static [u8]>>(
    nodes: &T,
    version: u64,
) -> Result<Option<B256>, TreeError> {
    let reader = nodes::Reader(nodes);
    let tree = JellyfishMerkleTree::<_, TreeHasher>::new(&reader);
    let root = tree.get_root_hash_option(version).map_err(inner)?;
    Ok(root.map(|r| B256::from(r.0)))
}

/// Value hash of a leaf at a version, if it is there, and the proof of either.
pub fn prove<T: ReadableTable<&'static [u8], &'static [u8]>>(
    nodes: &T,
    version: u64,
    key: LeafKey,
) -> Result<(Option<B256>, LeafProof), TreeError> {
    let reader = nodes::Reader(nodes);
    if reader
        .get_node_option(&nodes::root_key(version))
        .map_err(inner)?
        .is_none()
    {
        return Err(TreeError::MissingRoot { version });
    }
    let tree = JellyfishMerkleTree::<_, TreeHasher>::new(&reader);
    let (_, proof) = tree
        .get_with_proof(KeyHash(key.0.0), version)
        .map_err(inner)?;
    proof::reencode(&proof, key)
}

/// Removes every node that no version from `keep_from` on can reach, at most `limit` of them; returns how many went.
/// Roots of the kept versions do not change. Call until it returns 0.
pub fn prune(
    nodes: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
    stale: &mut redb::Table<'_, &'static [u8], ()>,
    keep_from: u64,
    limit: usize,
) -> Result<usize, TreeError> {
    let end = nodes::stale_end(keep_from);
    let doomed: Vec<Vec<u8>> = stale
        .range::<&[u8]>(..end.as_slice())?
        .take(limit)
        .map(|entry| entry.map(|(key, _)| key.value().to_vec()))
        .collect::<Result<_, _>>()?;
    for key in &doomed {
        nodes.remove(nodes::node_of_stale(key))?;
        stale.remove(key.as_slice())?;
    }
    Ok(doomed.len())
}

fn stage_unchecked(
    reader: &impl TreeReader,
    version: u64,
    leaves: &BTreeMap<LeafKey, B256>,
) -> Result<StagedVersion, TreeError> {
    let tree = JellyfishMerkleTree::<_, TreeHasher>::new(reader);
    let (root, batch) = put(&tree, version, leaves).map_err(inner)?;

    let encode = |(key, node): (&NodeKey, &Node)| -> Result<_, TreeError> {
        let bytes = borsh::to_vec(node).map_err(|e| TreeError::Inner(e.to_string()))?;
        Ok((nodes::encode_key(key), bytes))
    };
    let new_nodes = batch
        .node_batch
        .nodes()
        .iter()
        .map(encode)
        .collect::<Result<_, _>>()?;
    let mut stale: Vec<Vec<u8>> = batch
        .stale_node_index_batch
        .iter()
        .map(|s| nodes::encode_stale(s.stale_since_version, &s.node_key))
        .collect();
    // An empty commit copies the root without marking the old copy stale, which would keep it for ever.
    if let Some(parent) = version.checked_sub(1) {
        let old_root = nodes::encode_stale(version, &nodes::root_key(parent));
        if !stale.contains(&old_root) {
            stale.push(old_root);
        }
    }
    Ok(StagedVersion {
        version,
        root: B256::from(root.0),
        nodes: new_nodes,
        stale,
    })
}

/// All leaves at once: every inner node is hashed once, whatever number of leaves lies under it, where one after the other would
/// hash the whole path for each. The trees are the same (a test holds the two against each other).
fn put<R: TreeReader>(
    tree: &JellyfishMerkleTree<'_, R, TreeHasher>,
    version: u64,
    leaves: &BTreeMap<LeafKey, B256>,
) -> anyhow::Result<(RootHash, TreeUpdateBatch)> {
    if leaves.is_empty() {
        // Which the other call does not take.
        return tree.put_value_set(std::iter::empty(), version);
    }
    let values = leaves
        .iter()
        .map(|(key, value_hash)| (KeyHash(key.0.0), value_hash.to_vec()))
        .collect();
    let (roots, batch) = tree.batch_put_value_sets(vec![values], None, version)?;
    let root = roots.first().context("a version has a root")?;
    Ok((*root, batch))
}

fn inner(error: impl std::fmt::Display) -> TreeError {
    TreeError::Inner(format!("{error:#}"))
}
