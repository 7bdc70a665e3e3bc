//! One chain's loop: follow, ingest, commit, vote (design 2.3–2.5).
//!
//! Two tasks share an engine: [`follow`] applies blocks and commits, [`ingest()`] fetches and judges. Both only ever do
//! steps that may be repeated, so an error of one round is logged and the next round goes on, except for a fault that
//! [`StateError::is_fatal`] names: that halts the appliance.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use newton_artifacts::{DaChecks, DaRules, EigenDaProxy};
use newton_attestation::document::UnverifiedDocument;
use newton_chain::{ChainError, Follower};
use newton_evaluate::worker::WorkerPool;
use newton_peers::Ballot;
use newton_relay::control::Transaction;
use newton_state::{
    AtHead, CatchUp, EntryState, FinalizedHead, Next, Pending, Selection, Snapshot, StateError,
    StateStore, registry::OperatorSetRow,
};
use newton_types::{
    B256, QueueKey, abi,
    events::{Block, ConsensusParameters},
    manifest::Chain,
    queue::delta_hash,
};
use serde_json::{Value, json};

use crate::{
    appliance::Appliance,
    bootstrap,
    gather::{Matter, PeerNotes},
    ingest,
    metrics::Metrics,
    peers::Peer,
    rounds::Rounds,
    rpc::Found,
    skip::Skips,
    vote::{self, NotSigning, Standing, Vote},
};

/// What did not land is submitted again after this time.
const RESUBMIT: Duration = Duration::from_secs(8);
/// Every enclave may submit what has a quorum. Each waits its turn, which another one has first at every commit, so that
/// few pay for the same; only time is lost if those before are down.
const TURN: Duration = Duration::from_millis(1500);
/// Expired tree nodes removed in one round.
const PRUNED_AT_ONCE: usize = 2_000;
/// Votes kept for peers that are behind.
const VOTES_KEPT: usize = 64;

/// Everything about one followed chain.
pub struct Engine {
    /// The chain as the manifest names it.
    pub chain: Chain,
    /// Its state.
    pub state: StateStore,
    /// Where blobs come from.
    pub da: EigenDaProxy,
    /// What certificates must satisfy.
    pub da_rules: DaRules,
    /// How far they are judged.
    pub da_checks: DaChecks,
    /// Keyless processes for tasks.
    pub workers: Arc<WorkerPool>,
    /// Those for checks at ingestion.
    pub checks: Arc<WorkerPool>,
    /// Of the master secret that this boot has.
    commitment: B256,
    /// Peers that may have bytes.
    pub sources: Vec<Peer>,
    at_head: AtomicBool,
    pub(crate) app: Arc<Appliance>,
    /// What this boot remembers of its answers.
    pub rounds: Rounds,
    /// Tasks that its callers have created.
    pub found: Found,
    pending: RwLock<Option<Arc<Pending>>>,
    votes: Mutex<BTreeMap<u64, Vote>>,
    pub(crate) skips: Mutex<Skips>,
    /// What this boot has voted for and the chain has not confirmed, with the votes so far.
    pub(crate) open: Mutex<Option<(Matter, Ballot)>>,
    due: Mutex<Option<(B256, Instant)>>,
    pub(crate) peers: Mutex<PeerNotes>,
    notes: Mutex<Notes>,
    quarantine: ingest::Quarantine,
}

/// What the last rounds said, for `newt_health`.
#[derive(Clone, Default)]
struct Notes {
    not_signing: Option<String>,
    waiting: Option<String>,
    blocked: Option<(QueueKey, EntryState)>,
    unreachable: Option<String>,
}

impl Engine {
    /// An engine over opened state.
    pub fn new(
        app: Arc<Appliance>,
        chain: Chain,
        state: StateStore,
        da: EigenDaProxy,
        workers: Arc<WorkerPool>,
        checks: Arc<WorkerPool>,
        commitment: B256,
    ) -> Self {
        let da_checks = if app.consensus.development().incomplete_da_checks {
            DaChecks::Incomplete
        } else {
            DaChecks::Complete
        };
        Self {
            chain,
            state,
            da,
            da_rules: DaRules::default(),
            da_checks,
            workers,
            checks,
            commitment,
            sources: Vec::new(),
            at_head: AtomicBool::new(false),
            rounds: Rounds::default(),
            found: Found::default(),
            app,
            pending: RwLock::default(),
            votes: Mutex::default(),
            skips: Mutex::default(),
            open: Mutex::default(),
            due: Mutex::default(),
            peers: Mutex::default(),
            notes: Mutex::default(),
            quarantine: ingest::Quarantine::default(),
        }
    }

    /// The same with peers that may have bytes.
    #[must_use]
    pub fn with_sources(mut self, sources: Vec<Peer>) -> Self {
        self.sources = sources;
        self
    }

    /// Whether this boot has seen every finalized block at least once.
    pub fn was_at_head(&self) -> bool {
        self.at_head.load(Ordering::Relaxed)
    }

    /// Content that workers do not survive.
    pub const fn quarantine(&self) -> &ingest::Quarantine {
        &self.quarantine
    }

    /// Figures for operators.
    pub fn metrics(&self) -> &Metrics {
        &self.app.metrics
    }

    /// One view of finalized state and, over it, the blocks above.
    pub fn snapshot(&self) -> Result<Snapshot, StateError> {
        let pending = self
            .pending
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match self.state.snapshot(pending) {
            // Finality moved between the two; the rows below are newer than the layer was.
            Err(StateError::StalePending { .. }) => self.state.snapshot(None),
            other => other,
        }
    }

    /// This boot's vote for a commit.
    pub fn vote(&self, sequence: u64) -> Option<Vote> {
        self.votes().get(&sequence).cloned()
    }

    /// The security module's time, in seconds since 1970; 0 if it gives none.
    pub fn time_seconds(&self) -> u64 {
        let request = newton_attestation::nsm::AttestationRequest::default();
        self.app
            .nsm
            .attestation(&request)
            .ok()
            .and_then(|bytes| UnverifiedDocument::parse(&bytes).ok())
            .map_or(0, |document| document.timestamp_ms / 1000)
    }

    /// The finalized head, if it is not too old to rely on.
    pub fn fresh<'a>(&self, snapshot: &'a Snapshot) -> Result<&'a FinalizedHead, NotSigning> {
        let head = snapshot.finalized().ok_or(NotSigning::NotAdmitted)?;
        let limit = self.app.local.local.max_lag_seconds;
        let lag = self.time_seconds().saturating_sub(head.timestamp);
        if lag > limit {
            return Err(NotSigning::Stale { lag, limit });
        }
        Ok(head)
    }

    /// Whether this boot may sign: admitted in the finalized chain, and the chain's view is fresh.
    pub fn standing(&self, snapshot: &Snapshot) -> Result<Standing, NotSigning> {
        let head = self.fresh(snapshot)?;
        let finalized = self.state.snapshot(None)?;
        vote::standing(
            &finalized.registry(),
            &self.app.identity,
            head.number,
            head.timestamp,
        )
    }

    /// What `newt_health` says of this chain.
    pub fn health(&self) -> Value {
        let notes = self
            .notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let Ok(snapshot) = self.snapshot() else {
            return json!({ "chain_id": self.chain.chain_id, "fault": "the state cannot be read" });
        };
        let totals = snapshot.queue_totals();
        json!({
            "chain_id": self.chain.chain_id,
            "sequence_no": snapshot.tip().sequence,
            "state_root": snapshot.tip().root,
            "finalized_block": snapshot.finalized().map(|h| h.number),
            "head_block": snapshot.pending().map(|p| p.head().number),
            "rules": self.rules(&snapshot),
            "queue_entries": totals.entries,
            "queue_bytes": totals.bytes,
            "signing": self.standing(&snapshot).is_ok(),
            "not_signing": notes.not_signing,
            "waiting": notes.waiting,
            "blocked": notes.blocked.map(|(entry, state)| self.blocked(entry, &state)),
            "peers": self.peers.lock().unwrap_or_else(PoisonError::into_inner).health(),
            "unreachable": notes.unreachable,
        })
    }

    /// What the image implements, and what governance has scheduled: an image that is too old is seen before it halts.
    fn rules(&self, snapshot: &Snapshot) -> Value {
        let registry = snapshot.registry();
        let head = snapshot.finalized().map_or(0, |head| head.number);
        let ahead: Vec<Value> = registry
            .rules_schedule()
            .unwrap_or_default()
            .iter()
            .filter(|scheduled| scheduled.active_from > head)
            .map(|scheduled| {
                json!({
                    "version": scheduled.rules_version,
                    "active_from": scheduled.active_from,
                    "implemented": self.app.rules.contains(&scheduled.rules_version),
                })
            })
            .collect();
        json!({
            "implemented": [self.app.rules.start(), self.app.rules.end()],
            "in_force": registry.rules_version_at(head).unwrap_or_default(),
            "scheduled": ahead,
        })
    }

    fn votes(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Vote>> {
        self.votes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut Notes)) {
        change(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Follows the chain until the appliance ends or halts.
pub async fn follow(engine: Arc<Engine>, mut follower: Follower) {
    let pause = Duration::from_millis(engine.app.local.local.poll_ms);
    while !engine.app.is_halted() {
        match engine.poll(&mut follower).await {
            Ok(Progress::Behind) => continue,
            Ok(Progress::AtHead) => {
                engine.at_head.store(true, Ordering::Relaxed);
                engine.note(|n| n.unreachable = None);
            }
            Err(e) => engine.failed(&e),
        }
        tokio::time::sleep(pause).await;
    }
}

enum Progress {
    Behind,
    AtHead,
}

/// Fetches and judges queue entries until the appliance ends.
pub async fn ingest(engine: Arc<Engine>) {
    let pause = Duration::from_millis(engine.app.local.local.poll_ms);
    let mut idle = pause;
    bootstrap::from_peers(&engine).await;
    loop {
        match ingest::round(&engine).await {
            Ok(round) if round.decided > 0 && round.unavailable == 0 => {
                idle = pause;
                continue;
            }
            // Nobody is helped by asking a dead source every moment. Others may have judged what cannot be had any more.
            Ok(round) if round.unavailable > 0 => {
                bootstrap::deltas_from_peers(&engine).await;
                idle = (idle * 2).min(Duration::from_secs(30));
            }
            Ok(_) => idle = pause,
            Err(e) => engine.failed(&e),
        }
        tokio::time::sleep(idle).await;
    }
}

impl Engine {
    fn failed(&self, e: &anyhow::Error) {
        let fatal = e.chain().any(|cause| {
            cause
                .downcast_ref::<StateError>()
                .is_some_and(StateError::is_fatal)
                || cause
                    .downcast_ref::<ChainError>()
                    .is_some_and(ChainError::is_contradiction)
        });
        let text = format!("{e:#}");
        if fatal {
            self.app.halt(&text);
        } else {
            tracing::warn!(error = text, "round failed, will be repeated");
            self.note(|n| n.unreachable = Some(text));
        }
    }

    async fn poll(self: &Arc<Self>, follower: &mut Follower) -> Result<Progress> {
        let step = follower.finalized().await?;
        if !step.blocks.is_empty() {
            let engine = self.clone();
            let blocks = step.blocks.clone();
            blocking(move || engine.finalized(&blocks)).await?;
            follower.delivered(&step);
        }
        if !step.is_complete() {
            return Ok(Progress::Behind);
        }
        let pending = follower.pending().await?.to_vec();
        let engine = self.clone();
        blocking(move || engine.advance(&pending)).await?;
        Ok(Progress::AtHead)
    }

    fn finalized(&self, blocks: &[Block]) -> Result<()> {
        self.state.apply_finalized(blocks)?;
        self.state.catch_up()?;
        self.check_secret();
        Ok(())
    }

    /// Two boots before the first publication make two secrets; the chain takes one, and the other is worth nothing.
    fn check_secret(&self) {
        if self.chain.chain_id != self.app.authority().chain_id {
            return;
        }
        let published = self
            .state
            .snapshot(None)
            .and_then(|s| s.registry().key_epoch(crate::running::KEY_EPOCH));
        if let Ok(Some(row)) = published
            && row.msk_commitment != self.commitment
        {
            self.app.halt(&format!(
                "the chain has published the commitment {} of another master secret, this boot's has {}: boot again to recover it",
                row.msk_commitment, self.commitment
            ));
        }
    }

    /// One round at the head: replay what the chain confirmed, layer the pending blocks, go for the next commit.
    fn advance(&self, pending: &[Block]) -> Result<()> {
        let before = self.state.tip()?.sequence;
        let caught_up = self.state.catch_up()?;
        let pending = self.state.pending(pending)?.map(Arc::new);
        if let Some(pending) = &pending {
            for commit in pending.commits() {
                if let AtHead::Differs { ours } = self.state.apply_at_head(commit)? {
                    tracing::error!(
                        sequence = commit.sequenceNo,
                        chain = %commit.newStateRoot,
                        ours = %ours.newStateRoot,
                        "the chain's pending commit is not ours; finality decides"
                    );
                }
            }
        }
        *self.pending.write().unwrap_or_else(PoisonError::into_inner) = pending;
        let tip = self.state.tip()?;
        self.state.prune_expired(PRUNED_AT_ONCE)?;
        if tip.sequence > before {
            tracing::info!(sequence = tip.sequence, root = %tip.root, "committed");
        }
        match caught_up {
            CatchUp::UpToDate(_) => self.commit(),
            CatchUp::Stopped { at, .. } => {
                self.note(|n| n.waiting = Some(format!("replay: {}", describe(&at))));
                Ok(())
            }
        }
    }

    /// Computes the next commit, signs it, and submits it once a quorum has signed the same.
    fn commit(&self) -> Result<()> {
        let selection = match self.state.select()? {
            Next::Ready(selection) => selection,
            other => {
                self.note(|n| {
                    n.waiting = Some(describe(&other));
                    n.blocked = match &other {
                        Next::Blocked(blocked) => Some((blocked.entry, blocked.state.clone())),
                        _ => None,
                    };
                });
                match &other {
                    Next::Blocked(blocked) => self.drop_unavailable(blocked.entry)?,
                    _ => self.close(),
                }
                return Ok(());
            }
        };
        let snapshot = self.state.snapshot(None)?;
        if let Err(reason) = self.standing(&snapshot) {
            self.note(|n| n.not_signing = Some(reason.to_string()));
            return Ok(());
        }
        self.note(|n| {
            n.not_signing = None;
            n.blocked = None;
            n.waiting = Some(format!("commit {} to land", selection.sequence()));
        });
        let window_end = selection.window_end;
        let vote = match self.vote(selection.sequence()) {
            Some(vote) if is_of(&vote, &selection) => vote,
            _ => {
                // Held until the vote stands: this boot never votes both for dropping an entry and for writing it.
                let skips = self.skips.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(entry) = skips.written_by(&selection) {
                    self.note(|n| {
                        n.waiting = Some(format!(
                            "entry {entry}: this boot has voted to drop it; the chain decides"
                        ));
                    });
                    return Ok(());
                }
                let started = Instant::now();
                let prepared = self.state.prepare(*selection)?;
                self.metrics().commits.observe(started.elapsed());
                let commit = prepared.commit().clone();
                vote::sign(self, &self.app.identity, commit).context("signing a commit")?
            }
        };
        self.keep(vote.clone());
        let parameters = snapshot
            .registry()
            .parameters_at(window_end)?
            .context("a selection without parameters")?;
        let matter = Matter::Commit(vote.commit.sequenceNo);
        let Some(certificate) =
            self.count(&snapshot, matter, vote.digest, &vote.signature, &parameters)?
        else {
            return Ok(());
        };
        self.submit(
            vote.digest,
            &matter.to_string(),
            vote::submission(self, &vote, certificate),
        );
        Ok(())
    }

    /// Counts this boot's own vote and gives back the certificate once peers' votes make it a quorum and it is this boot's turn.
    pub(crate) fn count(
        &self,
        snapshot: &Snapshot,
        matter: Matter,
        digest: B256,
        signature: &[u8],
        rules: &ConsensusParameters,
    ) -> Result<Option<abi::Certificate>> {
        let Some(set) = latest_set(snapshot)? else {
            return Ok(None);
        };
        let ours = B256::from(self.app.identity.bls_public().hash());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let ballot = match &mut *open {
            Some((at, ballot)) if *at == matter && ballot.digest() == digest => ballot,
            other => &mut other.insert((matter, Ballot::new(digest))).1,
        };
        // Between two admissions this boot may be in no set.
        if ballot.add(&set, ours, signature).is_err() {
            return Ok(None);
        }
        let Some(certificate) = ballot.certificate(&set, rules) else {
            return Ok(None);
        };
        Ok(self
            .is_due(digest, turn(&set, ours, digest))
            .then_some(certificate))
    }

    /// Whether it is time to submit this: a while after the quorum was first there, then every [`RESUBMIT`].
    fn is_due(&self, digest: B256, turn: u32) -> bool {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let at = match *due {
            Some((last, at)) if last == digest => at,
            _ => now + TURN * turn,
        };
        let is_due = at <= now;
        *due = Some((digest, if is_due { now + RESUBMIT } else { at }));
        is_due
    }

    /// Nothing is voted on.
    fn close(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn keep(&self, vote: Vote) {
        let mut votes = self.votes();
        votes.insert(vote.commit.sequenceNo, vote);
        while votes.len() > VOTES_KEPT {
            votes.pop_first();
        }
    }

    pub(crate) fn submit(&self, digest: B256, what: &str, transaction: Transaction) {
        match self.app.control.submit(transaction) {
            Ok(hash) => tracing::info!(what, tx = %B256::from(hash), %digest, "submitted"),
            // The host may refuse or fail; the votes stand and are submitted again, by us or by anyone.
            Err(e) => tracing::warn!(what, error = %e, "the host did not take the transaction"),
        }
    }

    /// An entry that blocks the queue, and why its bytes are not here, for `newt_health`.
    fn blocked(&self, entry: QueueKey, state: &EntryState) -> Value {
        let why = match state {
            EntryState::Unavailable(why) => json!({
                "attempts": why.attempts,
                "last_attempt": why.last_attempt,
                "reason": why.reason,
            }),
            _ => json!({ "attempts": 0 }),
        };
        let skips = self.skips.lock().unwrap_or_else(PoisonError::into_inner);
        json!({ "entry": entry.to_string(), "why": why, "voted_to_drop": skips.contains(entry) })
    }
}

/// The newest operator set of finalized rows.
pub(crate) fn latest_set(snapshot: &Snapshot) -> Result<Option<OperatorSetRow>, StateError> {
    let registry = snapshot.registry();
    match registry.latest_set_id()? {
        Some(id) => registry.operator_set(id),
        None => Ok(None),
    }
}

/// How many members come before `ours`; another one is first for every digest.
fn turn(set: &OperatorSetRow, ours: B256, digest: B256) -> u32 {
    let members = set.members.len().max(1);
    let position = set
        .members
        .iter()
        .position(|m| m.bls_key_hash == ours)
        .unwrap_or(0);
    let first = usize::from(digest[31]) % members;
    ((position + members - first) % members) as u32
}

/// Whether a vote is for the commit that a selection leads to, so that its root need not be computed again.
fn is_of(vote: &Vote, selection: &Selection) -> bool {
    let commit = &vote.commit;
    let drained = QueueKey {
        block: commit.drainedBlock,
        tx: commit.drainedTx,
        log: commit.drainedLog,
        item: commit.drainedItem,
    };
    commit.prevStateRoot == selection.parent_root()
        && commit.boundaryBlock == selection.boundary_block
        && commit.boundaryTimestamp == selection.boundary_timestamp
        && commit.rulesVersion == selection.rules_version
        && commit.settledBytes == selection.settled_bytes
        && drained == selection.cursor()
        && commit.deltaHash == delta_hash(&selection.delta)
}

fn describe(next: &Next) -> String {
    match next {
        Next::Ready(selection) => format!("commit {}", selection.sequence()),
        Next::Waiting(waiting) => format!("{waiting:?}"),
        Next::Blocked(blocked) => {
            format!(
                "commit {}: entry {} has no verdict yet",
                blocked.sequence, blocked.entry
            )
        }
        Next::Behind { tip, chain } => {
            format!("the chain is at commit {chain}, this state at {tip}")
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("a worker thread ended")?
}
