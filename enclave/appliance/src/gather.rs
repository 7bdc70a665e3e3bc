//! Pulling votes from peers (design 2.5): one task per peer, so that one that hangs or lies costs the others nothing.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

use alloy_sol_types::SolValue;
use newton_api::client::ClientError;
use newton_peers::{Ballot, CommitVote, StatementVote, VoteError};
use newton_state::registry::OperatorSetRow;
use newton_types::{
    Address, B256, Bytes, QueueKey, abi,
    rpc::{Disposition, ErrorName},
    signing::{self, Scope},
};
use serde_json::{Value, json};

use crate::{
    engine::{Engine, latest_set},
    metrics::count,
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
    let mut heard = None;
    // The digest that the peer failed on, and when it is asked about it again. About the next one it is asked at once: a vote of
    // a peer that was away is not to come late because it was.
    let mut failed: Option<(B256, Backoff)> = None;
    loop {
        tokio::time::sleep(pause).await;
        let Some((matter, digest)) = engine.voted() else {
            continue;
        };
        let backoff = failed.take_if(|(on, _)| *on == digest).map(|(_, b)| b);
        if heard == Some(digest) {
            continue;
        }
        if let Some(backoff) = backoff
            && Instant::now() < backoff.until
        {
            failed = Some((digest, backoff));
            continue;
        }
        let outcome = ask(&engine, &peer, matter, digest).await;
        engine.metrics().votes.count(&outcome);
        let note = match outcome {
            Ok(operator) => {
                heard = Some(digest);
                format!("{matter}: vote of operator {operator}")
            }
            Err(NoVote::Early) => format!("{matter}: not yet"),
            Err(e) => {
                let note = format!("{matter}: {e}");
                tracing::warn!(peer = %peer.address, note, "no vote");
                failed = Some((digest, Backoff::after(backoff, pause)));
                note
            }
        };
        engine
            .peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note(&peer.address, note);
    }
}

/// When a peer that has failed is asked again.
#[derive(Clone, Copy, Debug)]
struct Backoff {
    pause: Duration,
    until: Instant,
}

impl Backoff {
    /// Twice as long as before, up to [`LONGEST_PAUSE`].
    fn after(before: Option<Self>, first: Duration) -> Self {
        let pause = before
            .map_or(first, |b| b.pause)
            .saturating_mul(2)
            .min(LONGEST_PAUSE);
        Self {
            pause,
            until: Instant::now() + pause,
        }
    }
}

/// Why a peer's answer is no vote that counts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoVote {
    /// It is behind, or waits for something itself.
    #[error("not yet")]
    Early,
    /// A member's signature over another commit with this number: evidence for a challenge (design 3.4), if ours is right.
    #[error(
        "operator {} has signed another commit, root {}, ours is digest {}; digest {}, signature {}",
        .0.operator, .0.root, .0.ours, .0.digest, .0.signature
    )]
    Other(Box<OtherCommit>),
    /// No member has signed what the peer says.
    #[error("the answer does not hold: {0}")]
    Invalid(String),
    /// No answer, or a refusal.
    #[error("{0}")]
    Silent(String),
}

impl Engine {
    /// What this boot has voted for and the chain has not confirmed.
    fn voted(&self) -> Option<(Matter, B256)> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref()
            .map(|(matter, ballot)| (*matter, ballot.digest()))
    }

    /// Counts a peer's vote, if the matter is still open; says whose it is.
    fn hear(&self, digest: B256, vote: &StatementVote) -> Result<Address, NoVote> {
        let set = self.newest_set()?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *open {
            Some((_, ballot)) if ballot.digest() == digest => {
                ballot.add(&set, vote.key(), &vote.signature)
            }
            // It has landed meanwhile. What the vote is worth is found out all the same.
            _ => Ballot::new(digest).add(&set, vote.key(), &vote.signature),
        }
        .map_err(|e| NoVote::invalid(&e))
    }

    /// Whether a member has signed another commit of this number, or the peer only says so.
    fn other(&self, sequence: u64, vote: &CommitVote, ours: B256) -> NoVote {
        let commit = match abi::StateCommit::abi_decode(&vote.commit) {
            Ok(commit) if commit.sequenceNo == sequence => commit,
            Ok(commit) => {
                return NoVote::Invalid(format!(
                    "commit {}, asked for {sequence}",
                    commit.sequenceNo
                ));
            }
            Err(e) => return NoVote::Invalid(format!("no commit: {e}")),
        };
        let scope = Scope {
            chain_id: self.chain.chain_id,
            contract: self.chain.contracts.state_commit_registry,
        };
        let digest = signing::state_commit_digest(scope, &commit);
        let signed = self.newest_set().and_then(|set| {
            Ballot::new(digest)
                .add(&set, vote.key(), &vote.signature)
                .map_err(|e| NoVote::invalid(&e))
        });
        match signed {
            Ok(operator) => NoVote::Other(Box::new(OtherCommit {
                operator,
                root: commit.newStateRoot,
                digest,
                signature: vote.signature.clone(),
                ours,
            })),
            Err(e) => e,
        }
    }

    fn newest_set(&self) -> Result<OperatorSetRow, NoVote> {
        let set = self.state.snapshot(None).and_then(|s| latest_set(&s));
        match set {
            Ok(Some(set)) => Ok(set),
            // Our own state, not the peer's fault: asked again.
            Ok(None) => Err(NoVote::Early),
            Err(e) => Err(NoVote::Silent(format!("own state: {e}"))),
        }
    }
}

async fn ask(
    engine: &Arc<Engine>,
    peer: &Peer,
    matter: Matter,
    digest: B256,
) -> Result<Address, NoVote> {
    let chain_id = engine.chain.chain_id;
    let engine = engine.clone();
    let judged = match matter {
        Matter::Commit(sequence) => {
            let params = json!({ "chain_id": chain_id, "sequence_no": sequence });
            let vote: CommitVote = peer
                .ask("newt_getCommitVote", params)
                .await
                .map_err(|e| NoVote::of(&e))?;
            tokio::task::spawn_blocking(move || match vote.clone().on(digest) {
                Ok(vote) => engine.hear(digest, &vote),
                Err(_) => Err(engine.other(sequence, &vote, digest)),
            })
        }
        Matter::Skip(entry) => {
            let params = json!({
                "chain_id": chain_id,
                "block_number": entry.block,
                "tx_index": entry.tx,
                "log_index": entry.log,
                "item": entry.item,
            });
            let vote: StatementVote = peer
                .ask("newt_getSkipVote", params)
                .await
                .map_err(|e| NoVote::of(&e))?;
            let vote = vote
                .on(digest)
                .map_err(|e| NoVote::Invalid(e.to_string()))?;
            tokio::task::spawn_blocking(move || engine.hear(digest, &vote))
        }
    };
    judged
        .await
        .unwrap_or_else(|e| Err(NoVote::Silent(format!("a worker thread ended: {e}"))))
}

impl NoVote {
    fn invalid(e: &VoteError) -> Self {
        Self::Invalid(e.to_string())
    }

    /// What a failed question means. Whatever the peer sent is in it as an excerpt at most.
    fn of(e: &anyhow::Error) -> Self {
        for cause in e.chain() {
            match cause.downcast_ref::<ClientError>() {
                Some(ClientError::Rpc(rpc))
                    if rpc.name == ErrorName::NotFound
                        || rpc.name.disposition() == Disposition::Retryable =>
                {
                    return Self::Early;
                }
                Some(ClientError::Malformed(_)) => return Self::Invalid(peers::said(e)),
                _ => {}
            }
            if cause.is::<serde_json::Error>() {
                return Self::Invalid(peers::said(e));
            }
        }
        Self::Silent(peers::said(e))
    }
}

/// Another commit that a member has signed.
#[derive(Debug)]
pub struct OtherCommit {
    /// Whose key it is.
    operator: Address,
    /// Root that it signed.
    root: B256,
    /// Digest that it signed.
    digest: B256,
    /// Over that digest, EIP-2537 form.
    signature: Bytes,
    /// Digest of this boot's commit.
    ours: B256,
}

/// What peers' answers were worth, for operators.
#[derive(Default)]
pub struct VoteCounts {
    /// Votes.
    pub counted: AtomicU64,
    /// Members' signatures over another commit.
    pub other: AtomicU64,
    /// Answers that do not hold.
    pub invalid: AtomicU64,
    /// No answer, or a refusal.
    pub silent: AtomicU64,
}

impl VoteCounts {
    fn count(&self, outcome: &Result<Address, NoVote>) {
        count(match outcome {
            Ok(_) => &self.counted,
            Err(NoVote::Early) => return,
            Err(NoVote::Other(_)) => &self.other,
            Err(NoVote::Invalid(_)) => &self.invalid,
            Err(NoVote::Silent(_)) => &self.silent,
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use anyhow::{Context, anyhow};
    use newton_api::RpcError;

    use super::*;

    #[test]
    fn what_a_peer_did_is_told_apart() {
        let rpc = |name| {
            anyhow::Error::new(ClientError::Rpc(RpcError::new(name, "no"))).context("127.0.0.1:1")
        };
        for name in [
            ErrorName::NotFound,
            ErrorName::Abstained,
            ErrorName::Overloaded,
        ] {
            assert!(matches!(NoVote::of(&rpc(name)), NoVote::Early), "{name:?}");
        }
        let halted = NoVote::of(&rpc(ErrorName::Halted));
        assert!(
            matches!(&halted, NoVote::Silent(why) if why.contains("127.0.0.1:1")),
            "{halted}"
        );
        let nonsense = anyhow::Error::new(ClientError::Malformed("neither".to_owned()));
        assert!(matches!(NoVote::of(&nonsense), NoVote::Invalid(_)));
        let misshapen = serde_json::from_str::<u8>("{}")
            .context("answer")
            .unwrap_err();
        assert!(matches!(NoVote::of(&misshapen), NoVote::Invalid(_)));
        assert!(matches!(
            NoVote::of(&anyhow!("no answer in time")),
            NoVote::Silent(_)
        ));
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_start_anew_with_the_next_matter() {
        let first = Duration::from_millis(200);
        let mut backoff = None;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let next = Backoff::after(backoff, first);
            pauses.push(next.pause.as_millis());
            backoff = Some(next);
        }
        assert_eq!(
            pauses,
            [
                400, 800, 1_600, 3_200, 6_400, 12_800, 15_000, 15_000, 15_000
            ]
        );
        assert_eq!(Backoff::after(None, first).pause, 2 * first);
    }
}
