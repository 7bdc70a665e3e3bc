//! Which tree versions are kept (design 2.5): those that a task may still be answered or challenged with.
//!
//! A version can be named by tasks created until the next one was confirmed. From that block on it stays for
//! `challengeWindow + maxExpireAfter` blocks, by the parameters in force at the finalized head; then its nodes go. The
//! newest version always stays. Local: no root depends on it, and an archive simply never prunes.

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata};

use crate::blocks::CommitRow;
use crate::registry::{Registry, Stored};
use crate::store;
use crate::tables::{COMMITS, META, ROWS};
use crate::{StateError, StateStore, tree};

impl StateStore {
    /// The oldest version that is kept, by the finalized head.
    pub fn retained_from(&self) -> Result<u64, StateError> {
        retained_from(&self.read()?)
    }

    /// Removes nodes that only versions below [`Self::retained_from`] need, at most `limit`; returns how many went.
    pub fn prune_expired(&self, limit: usize) -> Result<usize, StateError> {
        let keep_from = self.retained_from()?;
        let stale = self.read()?.open_table(tree::STALE_NODES)?;
        if !tree::is_prunable(&stale, keep_from)? {
            return Ok(0);
        }
        self.prune_versions(keep_from, limit)
    }

    /// Nodes of all versions that are stored.
    pub fn node_count(&self) -> Result<u64, StateError> {
        Ok(self.read()?.open_table(tree::NODES)?.len()?)
    }

    /// Nodes that no newer version needs and that wait for their versions to expire.
    pub fn stale_node_count(&self) -> Result<u64, StateError> {
        let stale = self.read()?.open_table(tree::STALE_NODES)?;
        Ok(stale.iter()?.count() as u64)
    }
}

/// The oldest version that is kept, as `txn` sees the chain.
pub(crate) fn retained_from(txn: &ReadTransaction) -> Result<u64, StateError> {
    let meta = txn.open_table(META)?;
    let tip = store::tip(&meta)?;
    let Some(head) = store::finalized(&meta)? else {
        return Ok(0);
    };
    let rows = Stored(txn.open_table(ROWS)?);
    let Some(parameters) = Registry::new(&rows).parameters_at(head.timestamp)? else {
        return Ok(0);
    };
    let kept = parameters
        .challenge_window
        .saturating_add(parameters.max_expire_after);
    let commits = txn.open_table(COMMITS)?;
    // Whether nobody can need `version` any more. Confirmations rise with the sequence, so the answers do too.
    let over = |version: u64| -> Result<bool, StateError> {
        let next = CommitRow::read(&commits, version + 1)?;
        Ok(next
            .and_then(|row| row.at)
            .is_some_and(|at| at.block.saturating_add(kept) < head.number))
    };
    let (mut low, mut high) = (0, tip.sequence);
    while low < high {
        let middle = low + (high - low) / 2;
        if over(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}
