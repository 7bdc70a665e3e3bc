//! A snapshot of a peer (design 2.5): the leaves of one commit, believed only once they give the root that the chain has.
//!
//! Rows, queue and commits come from the chain's finalized blocks as always; what a snapshot saves is to fetch and judge every
//! artifact since genesis. Of a leaf the peer's word is taken for nothing: key and value hash are in the root, the bytes have
//! that hash, and the length is theirs. Versions before the snapshot's are not there, as if they had been pruned.

use std::collections::BTreeMap;

use newton_types::{B256, LeafKey, Namespace, keccak256};
use redb::ReadableTable;

use crate::blocks::CommitRow;
use crate::commit::Leaf;
use crate::queue::{Outcome, decode_entry, queue_key, settle};
use crate::registry::{Registry, Stored};
use crate::retention::retained_from;
use crate::store::{self, Tip};
use crate::tables::{
    CHAIN_COMMITS, CHUNKS, COMMITS, CONTENT, DELTAS, HEADERS, LEAVES, META, QUEUE, ROWS,
};
use crate::{StateError, StateStore, content, tree};

/// A leaf of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotLeaf {
    /// Its key.
    pub key: LeafKey,
    /// keccak-256 of its bytes.
    pub value_hash: B256,
}

impl StateStore {
    /// Leaves of commit `sequence`, by rising key, from behind `after`; an empty page is the end.
    ///
    /// # Errors
    /// [`StateError::NoSnapshot`] if that version is not kept, or not there yet.
    pub fn leaves(
        &self,
        sequence: u64,
        after: Option<LeafKey>,
        limit: usize,
    ) -> Result<Vec<SnapshotLeaf>, StateError> {
        let txn = self.read()?;
        let tip = store::tip(&txn.open_table(META)?)?;
        let nodes = txn.open_table(tree::NODES)?;
        if sequence < retained_from(&txn)? || tree::root(&nodes, sequence)?.is_none() {
            return Err(StateError::NoSnapshot {
                tip: tip.sequence,
                asked: sequence,
            });
        }
        let leaves = txn.open_table(LEAVES)?;
        let from = after.map(|key| key.0).unwrap_or_default();
        let mut out = Vec::new();
        for item in leaves.range::<&[u8]>(from.as_slice()..)? {
            if out.len() >= limit {
                break;
            }
            let key = LeafKey(B256::from_slice(item?.0.value()));
            if after.is_some_and(|after| key.0 <= after.0) {
                continue;
            }
            let Some(leaf) = Leaf::read(&leaves, key)? else {
                continue;
            };
            let value_hash = if leaf.version <= sequence {
                Some(leaf.value_hash)
            } else if Namespace::try_from(key.0[0]).is_ok_and(Namespace::is_public) {
                // Its key names its value, so it was written once.
                None
            } else {
                tree::prove(&nodes, sequence, key)?.0
            };
            out.extend(value_hash.map(|value_hash| SnapshotLeaf { key, value_hash }));
        }
        Ok(out)
    }

    /// Whether the chain has the root that these leaves give, for commit `sequence` which this state has not derived. Changes
    /// nothing; to be asked before any bytes are fetched, so that no peer fills this state with what the chain never had.
    ///
    /// # Errors
    /// As [`Self::import`], except for bytes.
    pub fn check_snapshot(&self, sequence: u64, leaves: &[SnapshotLeaf]) -> Result<(), StateError> {
        check_order(leaves)?;
        let expected = match self.chain_commit(sequence)? {
            Some(commit) => commit.newStateRoot,
            None => {
                return Err(StateError::NotNext {
                    tip: self.tip()?.sequence,
                    got: sequence,
                });
            }
        };
        let values = leaves.iter().map(|l| (l.key, l.value_hash)).collect();
        let got = tree::root_of(&values)?;
        if got == expected {
            return Ok(());
        }
        Err(StateError::SnapshotRoot {
            sequence,
            expected,
            got,
        })
    }

    /// Stores bytes of a snapshot or a delta under their hash. They are of use to nobody until a leaf names them.
    ///
    /// # Errors
    /// [`StateError::SnapshotContent`] if they have another hash.
    pub fn import_content(&self, hash: B256, bytes: &[u8]) -> Result<(), StateError> {
        let got = keccak256(bytes);
        if got != hash {
            return Err(StateError::SnapshotContent { hash, got });
        }
        let txn = self.write()?;
        content::put(
            &mut txn.open_table(CONTENT)?,
            &mut txn.open_table(CHUNKS)?,
            hash,
            bytes,
        )?;
        txn.commit()?;
        Ok(())
    }

    /// The newest commit that finalized blocks show and this state has not derived.
    pub fn newest_chain_commit(&self) -> Result<Option<u64>, StateError> {
        let txn = self.read()?;
        let commits = txn.open_table(CHAIN_COMMITS)?;
        let last = commits.last()?;
        Ok(last.map(|(sequence, _)| sequence.value()))
    }

    /// Takes the leaves of commit `sequence` as the state, if they give the root that the chain has for it. Their bytes must
    /// be here. Only for a commit that this state has not derived. All or nothing.
    ///
    /// # Errors
    /// [`StateError::SnapshotRoot`] if they give another root, [`StateError::SnapshotLeaves`] if they are out of order or bytes
    /// are missing, [`StateError::NotNext`] if it is derived already or the chain has no such commit.
    pub fn import(&self, sequence: u64, leaves: &[SnapshotLeaf]) -> Result<Tip, StateError> {
        check_order(leaves)?;
        let txn = self.write()?;
        let tip = {
            let mut meta = txn.open_table(META)?;
            let former = store::tip(&meta)?;
            let mut chain = txn.open_table(CHAIN_COMMITS)?;
            let Some(row) = CommitRow::read(&chain, sequence)? else {
                return Err(StateError::NotNext {
                    tip: former.sequence,
                    got: sequence,
                });
            };
            let commit = row.commit()?;

            let mut nodes = txn.open_table(tree::NODES)?;
            let mut stale = txn.open_table(tree::STALE_NODES)?;
            // Versions are contiguous, and those between the former tip and the snapshot will never be here.
            nodes.retain(|_, _| false)?;
            stale.retain(|_, ()| false)?;
            txn.open_table(DELTAS)?.retain(|_, _| false)?;
            let values: BTreeMap<LeafKey, B256> =
                leaves.iter().map(|l| (l.key, l.value_hash)).collect();
            let staged = tree::stage_alone(&nodes, sequence, &values)?;
            if staged.root() != commit.newStateRoot {
                return Err(StateError::SnapshotRoot {
                    sequence,
                    expected: commit.newStateRoot,
                    got: staged.root(),
                });
            }
            tree::write(&mut nodes, &mut stale, &staged)?;

            let contents = txn.open_table(CONTENT)?;
            let mut table = txn.open_table(LEAVES)?;
            table.retain(|_, _| false)?;
            for leaf in leaves {
                let length = content::length(&contents, leaf.value_hash)?
                    .and_then(|length| u32::try_from(length).ok())
                    .ok_or(StateError::SnapshotLeaves {
                        key: leaf.key,
                        reason: "has no bytes here",
                    })?;
                let row = Leaf {
                    value_hash: leaf.value_hash,
                    version: sequence,
                    length,
                };
                table.insert(leaf.key.0.as_slice(), row.encode().as_slice())?;
            }

            let tip = Tip {
                sequence,
                root: commit.newStateRoot,
                cursor: newton_types::QueueKey {
                    block: commit.drainedBlock,
                    tx: commit.drainedTx,
                    log: commit.drainedLog,
                    item: commit.drainedItem,
                },
                boundary_block: commit.boundaryBlock,
            };
            let mut totals = store::totals(&meta)?;
            let drained = drained(&txn, &tip, &values)?;
            settle(&txn, &mut totals, sequence, &drained)?;
            let mut commits = txn.open_table(COMMITS)?;
            for derived in 1..=sequence {
                if let Some(row) = CommitRow::read(&chain, derived)? {
                    row.write(&mut commits, derived)?;
                    chain.remove(derived)?;
                }
            }
            let keep = tip
                .boundary_block
                .saturating_sub(crate::commit::HEADERS_KEPT);
            txn.open_table(HEADERS)?.retain_in(..keep, |_, _| false)?;
            store::put_totals(&mut meta, &totals)?;
            store::put_tip(&mut meta, &tip)?;
            tip
        };
        txn.commit()?;
        Ok(tip)
    }
}

fn check_order(leaves: &[SnapshotLeaf]) -> Result<(), StateError> {
    match leaves.windows(2).find(|w| w[0].key.0 >= w[1].key.0) {
        None => Ok(()),
        Some(pair) => Err(StateError::SnapshotLeaves {
            key: pair[1].key,
            reason: "is out of order",
        }),
    }
}

type Drained = Vec<(newton_types::QueueKey, u32, Outcome)>;

/// The entries up to a snapshot's cursor. How each was drained is for queries only; the root says what was written.
fn drained(
    txn: &redb::WriteTransaction,
    tip: &Tip,
    values: &BTreeMap<LeafKey, B256>,
) -> Result<Drained, StateError> {
    let rows = Stored(txn.open_table(ROWS)?);
    let registry = Registry::new(&rows);
    let queue = txn.open_table(QUEUE)?;
    let until = tip.cursor.to_bytes();
    let mut out = Vec::new();
    for item in queue.range::<&[u8]>(..=until.as_slice())? {
        let (key, value) = item?;
        let key = queue_key(key.value())?;
        let entry = decode_entry(key, value.value())?;
        let outcome = if values.get(&entry.leaf_key) == Some(&entry.hash) {
            Outcome::Written
        } else if registry.skipped(key)?.is_some() {
            Outcome::Skipped
        } else {
            Outcome::Rejected {
                reason: format!(
                    "drained before the snapshot of commit {}, which has no such leaf",
                    tip.sequence
                ),
            }
        };
        out.push((key, entry.length, outcome));
    }
    Ok(out)
}
