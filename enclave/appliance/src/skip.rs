//! Dropping entries whose bytes nobody can get (design 2.3): what this boot votes for, and what it then never signs.
//!
//! A quorum for dropping an entry and a quorum for writing it must not exist at once: the chain takes whichever comes first,
//! and replay must agree with it. So a boot votes for one of them only. An entry it has accepted it never votes to drop, and an
//! entry it has voted to drop it never signs into a commit; it applies such a commit all the same if others make it.

use std::{collections::BTreeSet, sync::PoisonError};

use alloy_sol_types::SolCall;
use anyhow::{Context, Result};
use newton_relay::control::Transaction;
use newton_state::{EntryState, Outcome, Selection, StateError};
use newton_types::{
    B256, Bytes, QueueKey, abi,
    abi::IStateCommitRegistry,
    rpc::ErrorName,
    signing::{self, Scope},
};

use crate::{engine::Engine, gather::Matter, vote::NotSigning};

/// Gas of a certificate with an event.
const SKIP_GAS: u64 = 1_500_000;

/// Entries that this boot has voted to drop.
#[derive(Debug, Default)]
pub struct Skips(BTreeSet<QueueKey>);

impl Skips {
    /// Whether this boot has voted to drop an entry.
    pub fn contains(&self, entry: QueueKey) -> bool {
        self.0.contains(&entry)
    }

    /// An entry that a selection writes though this boot has voted to drop it.
    pub fn written_by(&self, selection: &Selection) -> Option<QueueKey> {
        selection
            .drained
            .iter()
            .find(|(key, _, outcome)| *outcome == Outcome::Written && self.0.contains(key))
            .map(|(key, _, _)| *key)
    }
}

/// A vote for dropping an entry.
pub struct SkipVote {
    /// EIP-712 digest.
    pub digest: B256,
    /// Signature in EIP-2537 form.
    pub signature: Bytes,
}

/// Why this boot does not vote for dropping an entry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotDropped {
    /// It may not sign at all.
    #[error("this enclave does not sign: {0}")]
    NotSigning(#[from] NotSigning),
    /// No such entry waits.
    #[error("no entry {0} waits in the queue")]
    Unknown(QueueKey),
    /// Its bytes are here, and they hold.
    #[error("entry {0} is accepted here; it is never dropped by this enclave")]
    Decided(QueueKey),
    /// Nobody has tried to fetch it yet.
    #[error("entry {0} was not tried yet")]
    NotTried(QueueKey),
    /// The operator wants to wait longer.
    #[error("entry {entry} can be dropped from block {from} on, the finalized head is {head}")]
    TooEarly {
        /// The entry.
        entry: QueueKey,
        /// First block.
        from: u64,
        /// Finalized block.
        head: u64,
    },
    /// The database failed.
    #[error("state: {0}")]
    State(#[from] StateError),
}

impl NotDropped {
    /// Its name in the API.
    pub fn name(&self) -> ErrorName {
        match self {
            Self::NotSigning(_) => ErrorName::NotAdmittedYet,
            Self::Unknown(_) => ErrorName::NotFound,
            Self::Decided(_) => ErrorName::InvalidRequest,
            Self::NotTried(_) | Self::TooEarly { .. } => ErrorName::Abstained,
            Self::State(_) => ErrorName::InternalError,
        }
    }
}

impl Engine {
    /// Votes for dropping an entry that was not accepted here for long enough.
    pub fn skip_vote(&self, entry: QueueKey) -> Result<SkipVote, NotDropped> {
        let snapshot = self.state.snapshot(None)?;
        self.standing(&snapshot)?;
        let head = self.fresh(&snapshot)?.number;
        let mut skips = self.skips.lock().unwrap_or_else(PoisonError::into_inner);
        if !skips.contains(entry) {
            // Under the lock that a commit's signature is made under: see `Engine::commit`.
            let waiting = self.state.entry(entry)?.ok_or(NotDropped::Unknown(entry))?;
            match waiting.state {
                // Dropped or rejected, it writes nothing and settles the same bytes: one commit. So whoever has judged bytes that others
                // cannot get helps them on.
                EntryState::Unavailable(_) | EntryState::Rejected { .. } => {}
                EntryState::Pending => return Err(NotDropped::NotTried(entry)),
                _ => return Err(NotDropped::Decided(entry)),
            }
            let from = entry
                .block
                .saturating_add(self.app.local.local.skip_after_blocks);
            if head < from {
                return Err(NotDropped::TooEarly { entry, from, head });
            }
            skips.0.insert(entry);
            tracing::warn!(%entry, "voting to drop an entry");
        }
        let scope = Scope {
            chain_id: self.chain.chain_id,
            contract: self.chain.contracts.state_commit_registry,
        };
        let digest = signing::skip_unavailable_digest(scope, &named(entry));
        let signature = self.app.identity.sign_statement(digest);
        Ok(SkipVote {
            digest,
            signature: Bytes::from(signature.to_eip2537().to_vec()),
        })
    }

    /// Goes for a certificate that drops the entry at the head of the queue, if it is time for that.
    pub(crate) fn drop_unavailable(&self, entry: QueueKey) -> Result<()> {
        let vote = match self.skip_vote(entry) {
            Ok(vote) => vote,
            Err(NotDropped::State(e)) => return Err(e.into()),
            Err(_) => return Ok(()),
        };
        let snapshot = self.state.snapshot(None)?;
        let head = self.fresh(&snapshot)?.timestamp;
        let rules = snapshot
            .registry()
            .parameters_at(head)?
            .context("no parameters")?;
        let matter = Matter::Skip(entry);
        let Some(certificate) =
            self.count(&snapshot, matter, vote.digest, &vote.signature, &rules)?
        else {
            return Ok(());
        };
        let call = IStateCommitRegistry::skipUnavailableCall {
            entry: named(entry),
            certificate,
        };
        let transaction = Transaction {
            chain_id: self.chain.chain_id,
            to: self.chain.contracts.state_commit_registry.into(),
            calldata: call.abi_encode(),
            gas_limit: SKIP_GAS,
        };
        self.submit(vote.digest, &matter.to_string(), transaction);
        Ok(())
    }
}

fn named(entry: QueueKey) -> abi::SkipUnavailable {
    abi::SkipUnavailable {
        blockNumber: entry.block,
        txIndex: entry.tx,
        logIndex: entry.log,
        item: entry.item,
    }
}
