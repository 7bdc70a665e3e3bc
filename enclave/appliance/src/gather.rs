//! Pulling votes from peers (design 2.5): one task per peer, so that one that hangs or lies costs the others nothing.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError},
    time::Duration,
};

use anyhow::{Result, bail};
use newton_api::client::ClientError;
use newton_peers::{CommitVote, StatementVote};
use newton_types::{B256, QueueKey, rpc::Disposition};
use serde_json::{Value, json};

use crate::{
    engine::{Engine, latest_set},
    peers::{self, Peer},
};

/// Longest pause after failures of a peer.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What is voted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matter {
    /// The commit with this sequence number.
    Commit(u64),
    /// Dropping this entry.
    Skip(QueueKey),
}

impl fmt::Display for Matter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit(sequence) => write!(f, "commit {sequence}"),
            Self::Skip(entry) => write!(f, "dropping entry {entry}"),
        }
    }
}

/// What was last heard of each peer.
#[derive(Debug, Default)]
pub struct PeerNotes(BTreeMap<String, String>);

impl PeerNotes {
    /// Takes the place of what was noted of `who` before.
    pub fn note(&mut self, who: &str, note: String) {
        self.0.insert(who.to_owned(), note);
    }

    /// For `newt_health`.
    pub fn health(&self) -> Value {
        self.0
            .iter()
            .map(|(address, note)| json!({ "address": address, "note": note }))
            .collect()
    }
}

/// Asks one peer for its votes until the appliance ends.
pub async fn gather(engine: Arc<Engine>, peer: Peer) {
    let pause = Duration::from_millis(engine.app.local.local.poll_ms);
    let mut wait = pause;
    let mut heard = None;
    loop {
        tokio::time::sleep(wait).await;
        let Some((matter, digest)) = engine.voted() else {
            continue;
        };
        if heard == Some(digest) {
            continue;
        }
        let outcome = ask(&engine, &peer, matter, digest).await;
        let (note, next) = match outcome {
            Ok(()) => {
                heard = Some(digest);
                (format!("{matter}: has voted"), pause)
            }
            Err(e) if is_early(&e) => (format!("{matter}: not yet"), pause),
            Err(e) => {
                let note = format!("{matter}: {}", peers::said(&e));
                tracing::warn!(peer = %peer.address, note, "no vote");
                (note, (wait * 2).min(LONGEST_PAUSE))
            }
        };
        wait = next;
        engine
            .peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note(&peer.address, note);
    }
}

impl Engine {
    /// What this boot has voted for and the chain has not confirmed.
    fn voted(&self) -> Option<(Matter, B256)> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref()
            .map(|(matter, ballot)| (*matter, ballot.digest()))
    }

    /// Counts a peer's vote, if the matter is still open.
    fn hear(&self, digest: B256, vote: &StatementVote) -> Result<()> {
        let Some(set) = latest_set(&self.state.snapshot(None)?)? else {
            bail!("no operator set");
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, ballot)) = &mut *open
            && ballot.digest() == digest
        {
            ballot.add(&set, vote.key(), &vote.signature)?;
        }
        Ok(())
    }
}

async fn ask(engine: &Arc<Engine>, peer: &Peer, matter: Matter, digest: B256) -> Result<()> {
    let chain_id = engine.chain.chain_id;
    let vote: StatementVote = match matter {
        Matter::Commit(sequence) => {
            let params = json!({ "chain_id": chain_id, "sequence_no": sequence });
            let vote: CommitVote = peer.ask("newt_getCommitVote", params).await?;
            vote.on(digest)?
        }
        Matter::Skip(entry) => {
            let params = json!({
                "chain_id": chain_id,
                "block_number": entry.block,
                "tx_index": entry.tx,
                "log_index": entry.log,
                "item": entry.item,
            });
            let vote: StatementVote = peer.ask("newt_getSkipVote", params).await?;
            vote.on(digest)?
        }
    };
    let engine = engine.clone();
    tokio::task::spawn_blocking(move || engine.hear(digest, &vote)).await?
}

/// A peer that is behind, or waits for something itself.
fn is_early(e: &anyhow::Error) -> bool {
    e.chain().any(|cause| {
        matches!(
            cause.downcast_ref::<ClientError>(),
            Some(ClientError::Rpc(rpc))
                if rpc.name == newton_types::rpc::ErrorName::NotFound
                    || rpc.name.disposition() == Disposition::Retryable
        )
    })
}
