//! Commit selection, preparation and replay (design 2.4, 2.5, `docs/protocol.md` §3).
//!
//! There is one way to the next commit, live or in replay: [`StateStore::select`] computes window, boundary and drained
//! prefix, [`prepare`](StateStore::prepare) the root, and only what the chain confirmed is applied. The chain's commit is
//! never adopted: it is computed here and must be equal.

pub(crate) mod select;

use std::collections::BTreeMap;

use alloy_sol_types::SolValue as _;
use newton_types::queue::delta_hash;
use newton_types::{B256, DeltaEntry, LeafKey, QueueKey, abi};
use redb::{ReadTransaction, ReadableTable};

use crate::blocks::{self, CommitRow};
use crate::queue::{EntryState, Outcome, settle};
use crate::store::{self, Tip};
use crate::tables::{ADOPTED, CHAIN_COMMITS, COMMITS, CONTENT, DELTAS, HEADERS, LEAVES, META};
use crate::tree::{self, StagedVersion};
use crate::{StateError, StateStore, content, delta};
use select::Verdicts;

/// Headers kept below the last boundary, so that a fork of recent finalized history is noticed.
pub(crate) const HEADERS_KEPT: u64 = 256;

/// What comes next.
#[derive(Clone, Debug)]
pub enum Next {
    /// Everything is known: prepare, sign, collect votes.
    Ready(Box<Selection>),
    /// The chain is not that far.
    Waiting(Waiting),
    /// An entry in the prefix has no final verdict: fetch it, or abstain.
    Blocked(Blocked),
    /// The chain has commits that are not replayed here: [`StateStore::catch_up`] first.
    Behind {
        /// Newest commit here.
        tip: u64,
        /// Newest finalized commit on chain.
        chain: u64,
    },
}

/// Why there is nothing to commit yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// No finalized block behind the last boundary.
    NoBlock,
    /// The chain has set no parameters.
    NoParameters,
    /// No finalized block behind the window's end.
    Boundary {
        /// End of the window, seconds since 1970.
        window_end: u64,
        /// Time of the finalized head.
        finalized: u64,
    },
    /// Empty windows are skipped, and no entry waits.
    NothingToCommit,
}

/// The entry at which selection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Sequence number of the commit.
    pub sequence: u64,
    /// Its boundary block.
    pub boundary_block: u64,
    /// The entry.
    pub entry: QueueKey,
    /// Pending or unavailable.
    pub state: EntryState,
}

/// The prefix of the queue that a commit drains.
#[derive(Clone, Debug)]
pub struct Selection {
    pub(crate) parent: Tip,
    /// End of the window, seconds since 1970.
    pub window_end: u64,
    /// Last block of the window.
    pub boundary_block: u64,
    /// Its timestamp.
    pub boundary_timestamp: u64,
    /// Rules version in force at the boundary.
    pub rules_version: u32,
    /// Every entry drained, in order, with its declared length and its outcome.
    pub drained: Vec<(QueueKey, u32, Outcome)>,
    /// Leaves written, in order.
    pub delta: Vec<DeltaEntry>,
    /// Sum of the declared lengths of all drained entries.
    pub settled_bytes: u64,
    /// The entry that no longer fitted, if one stopped the selection.
    pub deferred_from: Option<QueueKey>,
}

impl Selection {
    /// Sequence number of the commit.
    pub fn sequence(&self) -> u64 {
        self.parent.sequence + 1
    }

    /// Root that the commit builds upon.
    pub fn parent_root(&self) -> B256 {
        self.parent.root
    }

    /// Key of the last entry drained by this commit or an earlier one.
    pub fn cursor(&self) -> QueueKey {
        self.drained.last().map_or(self.parent.cursor, |d| d.0)
    }
}

/// A commit with its tree version, computed and not written.
#[derive(Clone)]
pub struct PreparedCommit {
    selection: Selection,
    staged: StagedVersion,
    commit: abi::StateCommit,
}

impl PreparedCommit {
    /// What is signed.
    pub fn commit(&self) -> &abi::StateCommit {
        &self.commit
    }

    /// What it drains and writes.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }
}

/// Where replay stands.
#[derive(Clone, Debug)]
pub enum CatchUp {
    /// Every finalized commit is here.
    UpToDate(Tip),
    /// The next finalized commit cannot be computed yet.
    Stopped {
        /// Newest commit here.
        tip: Tip,
        /// Blocked on an entry, or waiting for blocks. A commit that the chain confirmed before its window's end was
        /// finalized keeps this waiting, and is compared as soon as it can be.
        at: Box<Next>,
    },
}

/// What an unfinalized commit event led to.
#[derive(Clone, Debug)]
pub enum AtHead {
    /// It is this enclave's own commit, and applied now: a reorg can only bring the same commit again, since it follows
    /// from finalized blocks alone.
    Applied(Tip),
    /// It was applied before.
    Known,
    /// It is another commit than this enclave derives. Not a fault yet; finality decides.
    Differs {
        /// What this enclave derives.
        ours: Box<abi::StateCommit>,
    },
    /// It cannot be computed here yet.
    NotYet(Box<Next>),
}

impl StateStore {
    /// Computes what the next commit drains. Changes nothing.
    pub fn select(&self) -> Result<Next, StateError> {
        let txn = self.read()?;
        let tip = store::tip(&txn.open_table(META)?)?;
        if let Some((last, _)) = txn.open_table(CHAIN_COMMITS)?.last()? {
            return Ok(Next::Behind {
                tip: tip.sequence,
                chain: last.value(),
            });
        }
        select::select(&txn, tip, None, &self.rules, Verdicts::Own)
    }

    /// Computes root and digest fields of a selection. Changes nothing.
    pub fn prepare(&self, selection: Selection) -> Result<PreparedCommit, StateError> {
        prepare(&self.read()?, selection)
    }

    /// Applies a prepared commit that the chain confirmed with `confirmed`. Anything but equality is a divergence.
    pub fn apply(
        &self,
        prepared: &PreparedCommit,
        confirmed: &abi::StateCommit,
    ) -> Result<Tip, StateError> {
        if prepared.commit != *confirmed {
            return Err(StateError::Divergence {
                ours: Box::new(prepared.commit.clone()),
                chain: Box::new(confirmed.clone()),
            });
        }
        self.write_commit(prepared)
    }

    /// Replays every finalized commit that is not here yet: computes it, compares, applies.
    ///
    /// # Errors
    /// [`StateError::SnapshotAdopted`] where the next one came from a sealed snapshot: to go on from the former state would
    /// be to sign what governance and a quorum put aside. [`StateStore::import`] gets past it.
    pub fn catch_up(&self) -> Result<CatchUp, StateError> {
        loop {
            let txn = self.read()?;
            let tip = store::tip(&txn.open_table(META)?)?;
            let Some(row) = CommitRow::read(&txn.open_table(CHAIN_COMMITS)?, tip.sequence + 1)?
            else {
                return Ok(CatchUp::UpToDate(tip));
            };
            let adopted = blocks::adopted(&txn.open_table(ADOPTED)?, tip.sequence + 1)?;
            if let Some(error) = adopted {
                return Err(error);
            }
            match select::select(&txn, tip, row.at, &self.rules, Verdicts::Own)? {
                Next::Ready(selection) => {
                    let prepared = prepare(&txn, *selection)?;
                    drop(txn);
                    self.apply(&prepared, &row.commit()?)?;
                }
                at => {
                    return Ok(CatchUp::Stopped {
                        tip,
                        at: Box::new(at),
                    });
                }
            }
        }
    }

    /// Takes note of a commit in a pending block, so that tasks on it can be answered before it is finalized.
    pub fn apply_at_head(&self, commit: &abi::StateCommit) -> Result<AtHead, StateError> {
        if let Some(ours) = self.commit(commit.sequenceNo)? {
            return Ok(if ours == *commit {
                AtHead::Known
            } else {
                AtHead::Differs {
                    ours: Box::new(ours),
                }
            });
        }
        match self.select()? {
            Next::Ready(selection) if selection.sequence() == commit.sequenceNo => {
                let prepared = self.prepare(*selection)?;
                if prepared.commit != *commit {
                    return Ok(AtHead::Differs {
                        ours: Box::new(prepared.commit),
                    });
                }
                self.write_commit(&prepared).map(AtHead::Applied)
            }
            next => Ok(AtHead::NotYet(Box::new(next))),
        }
    }

    /// A commit that is applied here.
    pub fn commit(&self, sequence: u64) -> Result<Option<abi::StateCommit>, StateError> {
        CommitRow::read(&self.read()?.open_table(COMMITS)?, sequence)?
            .map(|row| row.commit())
            .transpose()
    }

    /// Removes tree nodes that no version from `keep_from` on needs, at most `limit`, and the deltas of the commits before it;
    /// returns how many nodes went.
    pub fn prune_versions(&self, keep_from: u64, limit: usize) -> Result<usize, StateError> {
        let txn = self.write()?;
        let removed = {
            let tip = store::tip(&txn.open_table(META)?)?;
            let mut nodes = txn.open_table(tree::NODES)?;
            let mut stale = txn.open_table(tree::STALE_NODES)?;
            // The tip is the next version's parent.
            let keep_from = keep_from.min(tip.sequence);
            delta::prune(&mut txn.open_table(DELTAS)?, keep_from)?;
            tree::prune(&mut nodes, &mut stale, keep_from, limit)?
        };
        txn.commit()?;
        Ok(removed)
    }

    /// One transaction: tree version, leaves, delta, drained entries, cursor, commit.
    pub(crate) fn write_commit(&self, prepared: &PreparedCommit) -> Result<Tip, StateError> {
        let selection = &prepared.selection;
        let sequence = selection.sequence();
        let txn = self.write()?;
        let tip = {
            let mut meta = txn.open_table(META)?;
            let parent = store::tip(&meta)?;
            if parent != selection.parent {
                return Err(StateError::NotNext {
                    tip: parent.sequence,
                    got: sequence,
                });
            }
            let mut nodes = txn.open_table(tree::NODES)?;
            let mut stale = txn.open_table(tree::STALE_NODES)?;
            tree::write(&mut nodes, &mut stale, &prepared.staged)?;
            let mut leaves = txn.open_table(LEAVES)?;
            // By key: neighbours lie on one page of the database, which is then changed once. Writes of one leaf keep their order.
            let mut delta: Vec<&DeltaEntry> = selection.delta.iter().collect();
            delta.sort_by_key(|entry| entry.leaf_key);
            for entry in delta {
                leaves.insert(
                    entry.leaf_key.as_slice(),
                    Leaf::of(entry, sequence).encode().as_slice(),
                )?;
            }
            delta::put(&mut txn.open_table(DELTAS)?, sequence, &selection.delta)?;
            let mut totals = store::totals(&meta)?;
            settle(&txn, &mut totals, sequence, &selection.drained)?;
            let mut chain = txn.open_table(CHAIN_COMMITS)?;
            let at = CommitRow::read(&chain, sequence)?.and_then(|row| row.at);
            chain.remove(sequence)?;
            let mut commits = txn.open_table(COMMITS)?;
            CommitRow::new(&prepared.commit, at).write(&mut commits, sequence)?;
            let mut headers = txn.open_table(HEADERS)?;
            let keep = selection.boundary_block.saturating_sub(HEADERS_KEPT);
            headers.retain_in(..keep, |_, _| false)?;
            let tip = Tip {
                sequence,
                root: prepared.staged.root(),
                cursor: selection.cursor(),
                boundary_block: selection.boundary_block,
            };
            store::put_totals(&mut meta, &totals)?;
            store::put_tip(&mut meta, &tip)?;
            tip
        };
        txn.commit()?;
        Ok(tip)
    }
}

pub(crate) fn prepare(
    txn: &ReadTransaction,
    selection: Selection,
) -> Result<PreparedCommit, StateError> {
    let contents = txn.open_table(CONTENT)?;
    let mut leaves = BTreeMap::new();
    for entry in &selection.delta {
        leaves.insert(LeafKey(entry.leaf_key), entry.value_hash);
    }
    // In the order of the table, so that every page is read once.
    let mut delta: Vec<&DeltaEntry> = selection.delta.iter().collect();
    delta.sort_by_key(|entry| entry.value_hash);
    for entry in delta {
        // Accepted bytes enter in the verdict's transaction; a leaf without bytes must not be signed.
        if content::length(&contents, entry.value_hash)? != Some(entry.length.into()) {
            return Err(StateError::Content {
                hash: entry.value_hash,
                reason: format!("accepted by entry {} and not stored", entry.key),
            });
        }
    }
    let nodes = txn.open_table(tree::NODES)?;
    let parent = &selection.parent;
    let staged = tree::stage(&nodes, parent.sequence, parent.root, &leaves)?;
    let cursor = selection.cursor();
    let commit = abi::StateCommit {
        sequenceNo: selection.sequence(),
        prevStateRoot: parent.root,
        newStateRoot: staged.root(),
        boundaryBlock: selection.boundary_block,
        boundaryTimestamp: selection.boundary_timestamp,
        deltaHash: delta_hash(&selection.delta),
        rulesVersion: selection.rules_version,
        drainedBlock: cursor.block,
        drainedTx: cursor.tx,
        drainedLog: cursor.log,
        drainedItem: cursor.item,
        settledBytes: selection.settled_bytes,
    };
    Ok(PreparedCommit {
        selection,
        staged,
        commit,
    })
}

/// Newest value of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub value_hash: B256,
    /// Commit that wrote it.
    pub version: u64,
    pub length: u32,
}

impl Leaf {
    fn of(entry: &DeltaEntry, version: u64) -> Self {
        Self {
            value_hash: entry.value_hash,
            version,
            length: entry.length,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        (self.value_hash, self.version, self.length).abi_encode_packed()
    }

    pub(crate) fn read(
        leaves: &impl ReadableTable<&'static [u8], &'static [u8]>,
        key: LeafKey,
    ) -> Result<Option<Self>, StateError> {
        let Some(bytes) = leaves.get(key.0.as_slice())? else {
            return Ok(None);
        };
        let bytes = <[u8; 44]>::try_from(bytes.value()).map_err(|_| StateError::Codec {
            what: "leaf",
            reason: "it is not 44 bytes".into(),
        })?;
        let number = |range: std::ops::Range<usize>| {
            bytes[range]
                .iter()
                .fold(0u64, |n, b| n << 8 | u64::from(*b))
        };
        Ok(Some(Self {
            value_hash: B256::from_slice(&bytes[..32]),
            version: number(32..40),
            length: number(40..44) as u32,
        }))
    }
}
