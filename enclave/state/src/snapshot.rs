//! One consistent view for one evaluation (design 2.7): a single read transaction, and the pending rows over it.

use std::sync::Arc;

use newton_types::{B256, LeafKey, LeafProof, QueueKey, abi};
use redb::ReadOnlyTable;

use crate::blocks::{CommitRow, Pending};
use crate::commit::Leaf;
use crate::queue::{EntryState, Settled, decode_entry, leaf_index, queue_key};
use crate::registry::{self, Registry, Rows, Stored};
use crate::store::{self, FinalizedHead, QueueTotals, Tip};
use crate::tables::{
    CHUNKS, COMMITS, CONTENT, ENTRIES_OF_LEAF, LEAVES, META, QUEUE, ROWS, SETTLED, decode,
};
use crate::{StateError, StateStore, content, tree};

type BytesTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// A read handle: nothing seen through it changes while it lives. Holding one for long keeps old pages from being
/// reused, so take a new one per evaluation.
pub struct Snapshot {
    rows: PendingOver,
    nodes: BytesTable,
    leaves: BytesTable,
    content: BytesTable,
    chunks: BytesTable,
    queue: BytesTable,
    settled: BytesTable,
    of_leaf: ReadOnlyTable<&'static [u8], ()>,
    commits: ReadOnlyTable<u64, &'static [u8]>,
    tip: Tip,
    finalized: Option<FinalizedHead>,
    totals: QueueTotals,
}

/// Where a leaf stands, for queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeafStatus {
    /// In the tree.
    Committed {
        /// Its value hash.
        value_hash: B256,
        /// Commit that wrote it.
        sequence: u64,
        /// Bytes.
        length: u32,
    },
    /// Not in the tree; entries ask for it.
    Requested {
        /// Entries in the queue.
        waiting: Vec<(QueueKey, EntryState)>,
        /// Entries that are drained: rejected or dropped.
        settled: Vec<(QueueKey, Settled)>,
    },
    /// Nothing ever asked for it.
    Unknown,
}

impl StateStore {
    /// Opens a snapshot, with pending blocks over it or without.
    pub fn snapshot(&self, pending: Option<Arc<Pending>>) -> Result<Snapshot, StateError> {
        let txn = self.read()?;
        let meta = txn.open_table(META)?;
        let finalized = store::finalized(&meta)?;
        if let Some(pending) = &pending
            && finalized != Some(pending.base)
        {
            return Err(StateError::StalePending {
                finalized: finalized.map_or(0, |f| f.number),
                got: pending.base.number + 1,
            });
        }
        Ok(Snapshot {
            rows: PendingOver {
                base: Stored(txn.open_table(ROWS)?),
                pending,
            },
            nodes: txn.open_table(tree::NODES)?,
            leaves: txn.open_table(LEAVES)?,
            content: txn.open_table(CONTENT)?,
            chunks: txn.open_table(CHUNKS)?,
            queue: txn.open_table(QUEUE)?,
            settled: txn.open_table(SETTLED)?,
            of_leaf: txn.open_table(ENTRIES_OF_LEAF)?,
            commits: txn.open_table(COMMITS)?,
            tip: store::tip(&meta)?,
            finalized,
            totals: store::totals(&meta)?,
        })
    }
}

impl Snapshot {
    /// The newest commit.
    pub fn tip(&self) -> &Tip {
        &self.tip
    }

    /// The finalized head.
    pub fn finalized(&self) -> Option<&FinalizedHead> {
        self.finalized.as_ref()
    }

    /// The pending blocks that rows are read through.
    pub fn pending(&self) -> Option<&Pending> {
        self.rows.pending.as_deref()
    }

    /// Depth of the defer queue.
    pub fn queue_totals(&self) -> QueueTotals {
        self.totals
    }

    /// Rows of the registries, at the pending head if the snapshot has one.
    pub fn registry(&self) -> Registry<'_> {
        Registry::new(&self.rows)
    }

    /// Tasks of finalized blocks from `block` on, in the order of their blocks, at most `limit`: what may still be
    /// unanswered after a restart. Those of pending blocks are in [`Self::pending`].
    pub fn finalized_tasks(&self, block: u64, limit: usize) -> Result<Vec<B256>, StateError> {
        let index = registry::Kind::TaskByBlock;
        let from = registry::key(index, block.to_be_bytes());
        let to = registry::key(index, [0xff; 41]);
        self.rows
            .base
            .0
            .range::<&[u8]>(from.as_slice()..to.as_slice())?
            .take(limit)
            // kind (1) ‖ block (8) ‖ task id (32)
            .map(|row| Ok(B256::from_slice(&row?.0.value()[9..])))
            .collect()
    }

    /// Tasks of finalized and pending blocks from `block` on, in the order of their blocks, at most `limit` of either.
    pub fn tasks(&self, block: u64, limit: usize) -> Result<Vec<B256>, StateError> {
        let mut tasks = self.finalized_tasks(block, limit)?;
        if let Some(pending) = &self.rows.pending {
            let from = registry::key(registry::Kind::TaskByBlock, block.to_be_bytes());
            let to = registry::key(registry::Kind::TaskByBlock, [0xff; 41]);
            let pending = pending.changes.range(from..to).take(limit);
            tasks.extend(pending.map(|(key, _)| B256::from_slice(&key[9..])));
        }
        Ok(tasks)
    }

    /// Root of a version, `None` if it is not written or pruned.
    pub fn root(&self, version: u64) -> Result<Option<B256>, StateError> {
        Ok(tree::root(&self.nodes, version)?)
    }

    /// A commit.
    pub fn commit(&self, sequence: u64) -> Result<Option<abi::StateCommit>, StateError> {
        CommitRow::read(&self.commits, sequence)?
            .map(|row| row.commit())
            .transpose()
    }

    /// Value hash of a leaf at a version.
    pub fn leaf(&self, version: u64, key: LeafKey) -> Result<Option<B256>, StateError> {
        if self.root(version)?.is_none() {
            return Err(tree::TreeError::MissingRoot { version }.into());
        }
        // Leaves are never removed, so the newest value answers for every version since it was written.
        match Leaf::read(&self.leaves, key)? {
            None => Ok(None),
            Some(leaf) if leaf.version <= version => Ok(Some(leaf.value_hash)),
            Some(_) => Ok(tree::prove(&self.nodes, version, key)?.0),
        }
    }

    /// Value hash of a leaf at a version, if it is there, and the proof of either.
    pub fn prove(
        &self,
        version: u64,
        key: LeafKey,
    ) -> Result<(Option<B256>, LeafProof), StateError> {
        Ok(tree::prove(&self.nodes, version, key)?)
    }

    /// Content by its hash, compared with it again. `None` if it is not here (never had, or evicted).
    pub fn bytes(&self, hash: B256) -> Result<Option<Vec<u8>>, StateError> {
        content::get(&self.content, &self.chunks, hash)
    }

    /// Whether content is here, and its length.
    pub fn bytes_length(&self, hash: B256) -> Result<Option<u64>, StateError> {
        content::length(&self.content, hash)
    }

    /// Where a leaf stands.
    pub fn leaf_status(&self, key: LeafKey) -> Result<LeafStatus, StateError> {
        if let Some(leaf) = Leaf::read(&self.leaves, key)? {
            return Ok(LeafStatus::Committed {
                value_hash: leaf.value_hash,
                sequence: leaf.version,
                length: leaf.length,
            });
        }
        let (mut waiting, mut settled) = (Vec::new(), Vec::new());
        let last = QueueKey {
            block: u64::MAX,
            tx: u32::MAX,
            log: u32::MAX,
            item: u32::MAX,
        };
        let range = leaf_index(key, QueueKey::default())..=leaf_index(key, last);
        let range = range.start().as_slice()..=range.end().as_slice();
        for item in self.of_leaf.range::<&[u8]>(range)? {
            let (index, _) = item?;
            let entry = queue_key(&index.value()[32..])?;
            let bytes = entry.to_bytes();
            if let Some(value) = self.queue.get(bytes.as_slice())? {
                waiting.push((entry, decode_entry(entry, value.value())?.state));
            } else if let Some(value) = self.settled.get(bytes.as_slice())? {
                settled.push((entry, decode("settled entry", value.value())?));
            }
        }
        Ok(if waiting.is_empty() && settled.is_empty() {
            LeafStatus::Unknown
        } else {
            LeafStatus::Requested { waiting, settled }
        })
    }
}

struct PendingOver {
    base: Stored<BytesTable>,
    pending: Option<Arc<Pending>>,
}

impl Rows for PendingOver {
    fn raw(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        if let Some(pending) = &self.pending
            && let Some(value) = pending.changes.get(key)
        {
            return Ok(Some(value.clone()));
        }
        self.base.raw(key)
    }
}
