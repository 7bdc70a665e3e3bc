//! What one commit wrote, for an enclave that has the state before it (design 2.5).
//!
//! The canonical delta's hash is in the commit that a quorum signed, so a peer's delta is believed only if the chain has its
//! hash. It then stands in for verdicts, and for nothing else: window, boundary, cap, cursor, settled bytes, rules and root are
//! derived from this enclave's own blocks, queue and tree as in replay, and the whole commit must be equal.

use std::collections::BTreeSet;

use newton_types::queue::delta_hash;
use newton_types::{B256, DeltaEntry, QueueKey, abi};

use crate::blocks::{self, CommitRow};
use crate::commit::{
    Next, prepare,
    select::{self, Verdicts},
};
use crate::store::{self, Tip};
use crate::tables::{ADOPTED, CHAIN_COMMITS, CONTENT, DELTAS, META};
use crate::{StateError, StateStore, content};

/// Entries of one page.
const PAGE: usize = 2_048;
/// Leaf key, value hash, length (u32), queue key.
const ENTRY_BYTES: usize = 32 + 32 + 4 + 20;

/// Whether the chain has this delta for `commit`.
///
/// # Errors
/// [`StateError::DeltaHash`] if it has another one.
pub fn check_delta(commit: &abi::StateCommit, delta: &[DeltaEntry]) -> Result<(), StateError> {
    let got = delta_hash(delta);
    if got == commit.deltaHash {
        return Ok(());
    }
    Err(StateError::DeltaHash {
        sequence: commit.sequenceNo,
        expected: commit.deltaHash,
        got,
    })
}

impl StateStore {
    /// A page of what commit `sequence` wrote, in the queue's order; an empty page is the end. Pages count from 0.
    ///
    /// # Errors
    /// [`StateError::NoDelta`] if it is not kept: from before the retained versions or the snapshot that this state began
    /// with, or not there yet.
    pub fn delta(&self, sequence: u64, page: u32) -> Result<Vec<DeltaEntry>, StateError> {
        let txn = self.read()?;
        let deltas = txn.open_table(DELTAS)?;
        if let Some(row) = deltas.get(row_key(sequence, page).as_slice())? {
            return decode(row.value());
        }
        if page > 0 && deltas.get(row_key(sequence, 0).as_slice())?.is_some() {
            return Ok(Vec::new());
        }
        Err(StateError::NoDelta {
            tip: store::tip(&txn.open_table(META)?)?.sequence,
            asked: sequence,
        })
    }

    /// A commit that finalized blocks show and this state has not derived.
    pub fn chain_commit(&self, sequence: u64) -> Result<Option<abi::StateCommit>, StateError> {
        CommitRow::read(&self.read()?.open_table(CHAIN_COMMITS)?, sequence)?
            .map(|row| row.commit())
            .transpose()
    }

    /// Derives the next commit, `sequence`, with the verdicts that its delta shows, and applies it if it is the chain's. The
    /// bytes of the delta's entries must be here ([`Self::import_content`]). All or nothing; verdicts of this enclave's own
    /// stay what they are.
    ///
    /// # Errors
    /// [`StateError::NotNext`] if the chain has no such commit or it is not the next one here, [`StateError::DeltaHash`],
    /// [`StateError::DeltaContent`] without the bytes, [`StateError::DeltaEarly`], [`StateError::DeltaDiffers`];
    /// [`StateError::SnapshotAdopted`] where no delta leads on.
    pub fn apply_delta(&self, sequence: u64, delta: &[DeltaEntry]) -> Result<Tip, StateError> {
        let txn = self.read()?;
        let tip = store::tip(&txn.open_table(META)?)?;
        let row = CommitRow::read(&txn.open_table(CHAIN_COMMITS)?, sequence)?
            .filter(|_| sequence == tip.sequence + 1)
            .ok_or(StateError::NotNext {
                tip: tip.sequence,
                got: sequence,
            })?;
        if let Some(error) = blocks::adopted(&txn.open_table(ADOPTED)?, sequence)? {
            return Err(error);
        }
        let commit = row.commit()?;
        check_delta(&commit, delta)?;
        let contents = txn.open_table(CONTENT)?;
        for entry in delta {
            let got = content::length(&contents, entry.value_hash)?;
            if got != Some(entry.length.into()) {
                return Err(StateError::DeltaContent {
                    sequence,
                    entry: entry.key,
                    hash: entry.value_hash,
                    expected: entry.length,
                    got,
                });
            }
        }
        let written: BTreeSet<QueueKey> = delta.iter().map(|entry| entry.key).collect();
        let verdicts = Verdicts::Of {
            sequence,
            written: &written,
            until: QueueKey {
                block: commit.drainedBlock,
                tx: commit.drainedTx,
                log: commit.drainedLog,
                item: commit.drainedItem,
            },
        };
        let selection = match select::select(&txn, tip, row.at, &self.rules, verdicts)? {
            Next::Ready(selection) => *selection,
            other => {
                return Err(StateError::DeltaEarly {
                    sequence,
                    reason: format!("{other:?}"),
                });
            }
        };
        let differs = |reason| StateError::DeltaDiffers { sequence, reason };
        // Bytes of other entries were not looked for.
        if selection.delta != delta {
            return Err(differs("other entries would be written".to_owned()));
        }
        let prepared = prepare(&txn, selection)?;
        if *prepared.commit() != commit {
            return Err(differs(format!(
                "root {}, the chain has {}; or another field",
                prepared.commit().newStateRoot,
                commit.newStateRoot
            )));
        }
        drop(txn);
        self.write_commit(&prepared)
    }
}

/// Keeps what a commit wrote. An empty delta has one empty page, so that it is told from one that is not kept.
pub(crate) fn put(
    deltas: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
    sequence: u64,
    delta: &[DeltaEntry],
) -> Result<(), StateError> {
    let pages = delta.chunks(PAGE).chain(delta.is_empty().then_some(delta));
    for (page, entries) in pages.enumerate() {
        let row = row_key(sequence, page as u32);
        deltas.insert(row.as_slice(), encode(entries).as_slice())?;
    }
    Ok(())
}

/// Removes the deltas of commits before `keep_from`.
pub(crate) fn prune(
    deltas: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
    keep_from: u64,
) -> Result<(), StateError> {
    let end = row_key(keep_from, 0);
    deltas.retain_in::<&[u8], _>(..end.as_slice(), |_, _| false)?;
    Ok(())
}

fn row_key(sequence: u64, page: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&sequence.to_be_bytes());
    key[8..].copy_from_slice(&page.to_be_bytes());
    key
}

fn encode(entries: &[DeltaEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    for entry in entries {
        out.extend_from_slice(entry.leaf_key.as_slice());
        out.extend_from_slice(entry.value_hash.as_slice());
        out.extend_from_slice(&entry.length.to_be_bytes());
        out.extend_from_slice(&entry.key.to_bytes());
    }
    out
}

fn decode(row: &[u8]) -> Result<Vec<DeltaEntry>, StateError> {
    let (entries, []) = row.as_chunks::<ENTRY_BYTES>() else {
        return Err(StateError::Codec {
            what: "delta",
            reason: format!("{} bytes are no whole entries", row.len()),
        });
    };
    Ok(entries.iter().map(entry).collect())
}

fn entry(bytes: &[u8; ENTRY_BYTES]) -> DeltaEntry {
    let mut length = [0; 4];
    length.copy_from_slice(&bytes[64..68]);
    let mut key = [0; 20];
    key.copy_from_slice(&bytes[68..]);
    DeltaEntry {
        leaf_key: B256::from_slice(&bytes[..32]),
        value_hash: B256::from_slice(&bytes[32..64]),
        length: u32::from_be_bytes(length),
        key: QueueKey::from_bytes(key),
    }
}
