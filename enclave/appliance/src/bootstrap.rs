//! A new enclave takes a peer's snapshot instead of judging everything since genesis, one that lags takes the deltas since
//! (design 2.5).
//!
//! Blocks come first, from the chain as always. Then the leaves of one commit, from a peer: they must give the root that the
//! chain has for that commit. Then what each later commit wrote: it must have the hash that the chain has. Only then are bytes
//! fetched, each by its hash, and the root must be the chain's again before anything is written or served. A peer that lies or
//! stops costs time only; without one that helps, everything is fetched from DA and judged here.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use newton_api::client::ClientError;
use newton_peers::{DeltaPage, DeltaPages, SnapshotPage, SnapshotPages};
use newton_state::{QueueEntry, SnapshotLeaf, StateError, Tip};
use newton_types::{B256, Bytes, DeltaEntry, LeafKey, Namespace, abi, keccak256, rpc::ErrorName};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    engine::Engine,
    ingest,
    peers::{self, Peer},
};

/// Commits that are replayed rather than asked for.
const FEW: u64 = 2;
/// How long a peer's commit may take to become final here.
const FINALITY: Duration = Duration::from_secs(120);
/// What a peer may take in all: this, and [`STEP`] for every page and every artifact that it has given. One that is just slow enough
/// to be waited for, again and again, would keep this enclave from ever starting. What it gave by then stays.
const GRACE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_secs(5);
/// What a peer may take in all from an enclave that has something to judge meanwhile.
const LONGEST_RUNNING: Duration = Duration::from_secs(3 * 60);

#[derive(Deserialize)]
struct Artifact {
    bytes: Bytes,
}

/// Takes a snapshot and deltas if this state is far behind and a peer has them; tries every peer once.
pub async fn from_peers(engine: &Arc<Engine>) {
    if engine.sources.is_empty() {
        return;
    }
    while !engine.was_at_head() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for peer in &engine.sources {
        if !is_far_behind(engine).await {
            return;
        }
        match snapshot_and_deltas(engine, peer).await {
            Ok(tip) => {
                tracing::info!(peer = %peer.address, sequence = tip.sequence, root = %tip.root, "caught up from a peer");
            }
            Err(e) => refuse(engine, peer, &e),
        }
    }
}

/// The same for an enclave that came to lag while it ran: deltas only, since whoever has the state before them needs no more.
pub async fn deltas_from_peers(engine: &Arc<Engine>) {
    for peer in &engine.sources {
        if !is_far_behind(engine).await {
            return;
        }
        let asking = tokio::time::timeout(LONGEST_RUNNING, deltas(engine, peer)).await;
        let outcome = asking.with_context(|| format!("no end within {LONGEST_RUNNING:?}"));
        if let Err(e) = outcome.flatten() {
            refuse(engine, peer, &e);
        }
    }
}

/// What a peer gave was not taken: `newt_health` says why.
fn refuse(engine: &Engine, peer: &Peer, e: &anyhow::Error) {
    let note = peers::said(e);
    tracing::warn!(peer = %peer.address, note, "this peer did not lead to the chain's newest commit");
    engine
        .peers
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .note(&peer.address, note);
}

/// Whether more finalized commits than a few are not derived here.
async fn is_far_behind(engine: &Arc<Engine>) -> bool {
    let state = engine.state.clone();
    let behind = ingest::blocking(move || {
        let tip = state.tip()?.sequence;
        Ok(state
            .newest_chain_commit()?
            .map_or(0, |newest| newest.saturating_sub(tip)))
    });
    behind.await.is_ok_and(|commits| commits > FEW)
}

async fn snapshot_and_deltas(engine: &Arc<Engine>, peer: &Peer) -> Result<Tip> {
    let state = engine.state.clone();
    if ingest::blocking(move || Ok(state.tip()?.sequence)).await? > 0 {
        // What is derived already need not come again, if the peer still has all that was written since.
        match deltas(engine, peer).await {
            Err(e) if !is_gone(&e) => return Err(e),
            Err(_) => {}
            done => return done,
        }
    }
    snapshot(engine, peer).await.context("snapshot")?;
    deltas(engine, peer).await
}

/// Takes the newest snapshot of a peer.
async fn snapshot(engine: &Arc<Engine>, peer: &Peer) -> Result<Tip> {
    let (sequence, leaves) = leaves(engine, peer).await?;
    // Until the commit is final here it is not the peer that takes its time.
    final_here(engine, sequence).await?;
    let state = engine.state.clone();
    let leaves = ingest::blocking(move || {
        state.check_snapshot(sequence, &leaves)?;
        Ok(leaves)
    })
    .await?;
    let mut pace = Pace::default();
    for leaf in &leaves {
        bring(engine, peer, leaf.key, leaf.value_hash, &mut pace).await?;
    }
    let state = engine.state.clone();
    ingest::blocking(move || Ok(state.import(sequence, &leaves)?)).await
}

/// Takes what every commit after this state's wrote, one by one, up to the newest finalized one.
async fn deltas(engine: &Arc<Engine>, peer: &Peer) -> Result<Tip> {
    let mut pace = Pace::default();
    loop {
        let state = engine.state.clone();
        let (tip, next, waiting) = ingest::blocking(move || {
            let tip = state.tip()?;
            let next = state.chain_commit(tip.sequence + 1)?;
            Ok((tip, next, state.queue_totals()?.entries))
        })
        .await?;
        let Some(commit) = next else { return Ok(tip) };
        let sequence = commit.sequenceNo;
        take_delta(engine, peer, &commit, waiting, &mut pace)
            .await
            .with_context(|| format!("commit {sequence} by its delta"))?;
    }
}

async fn take_delta(
    engine: &Arc<Engine>,
    peer: &Peer,
    commit: &abi::StateCommit,
    waiting: u64,
    pace: &mut Pace,
) -> Result<()> {
    let sequence = commit.sequenceNo;
    let mut pages = DeltaPages::of(commit, waiting);
    loop {
        let params = json!({
            "chain_id": engine.chain.chain_id,
            "sequence_no": sequence,
            "page": pages.page(),
        });
        let page: DeltaPage = peer.ask("newt_getDelta", params).await?;
        pace.step()?;
        if pages.take(page)? {
            break;
        }
    }
    let delta: Vec<DeltaEntry> = pages.finish()?;
    for entry in &delta {
        let leaf = LeafKey(entry.leaf_key);
        bring(engine, peer, leaf, entry.value_hash, pace).await?;
    }
    let state = engine.state.clone();
    let outcome = ingest::blocking(move || Ok(state.apply_delta(sequence, &delta))).await?;
    match outcome {
        Ok(tip) => {
            tracing::info!(peer = %peer.address, sequence, root = %tip.root, "took a delta");
            Ok(())
        }
        // Replay was faster.
        Err(StateError::NotNext { tip, .. }) if tip >= sequence => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// How long a peer has taken for what it has given.
#[derive(Debug)]
struct Pace {
    since: Instant,
    steps: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            steps: 0,
        }
    }
}

impl Pace {
    /// One more page or artifact.
    fn step(&mut self) -> Result<()> {
        self.steps = self.steps.saturating_add(1);
        self.check(self.since.elapsed())
    }

    fn check(&self, taken: Duration) -> Result<()> {
        let limit = GRACE.saturating_add(STEP.saturating_mul(self.steps));
        ensure!(
            taken <= limit,
            "too slow: {taken:?} for {} pages and artifacts, {limit:?} are allowed",
            self.steps
        );
        Ok(())
    }
}

/// Whether the way by deltas does not lead on, without a fault of the peer's.
fn is_gone(e: &anyhow::Error) -> bool {
    e.chain().any(|cause| {
        matches!(
            cause.downcast_ref::<ClientError>(),
            Some(ClientError::Rpc(rpc)) if rpc.name == ErrorName::NotFound
        ) || matches!(
            cause.downcast_ref::<StateError>(),
            Some(StateError::SnapshotAdopted { .. })
        )
    })
}

/// All leaves of the peer's newest commit.
async fn leaves(engine: &Arc<Engine>, peer: &Peer) -> Result<(u64, Vec<SnapshotLeaf>)> {
    let mut pace = Pace::default();
    let mut pages = SnapshotPages::default();
    loop {
        let params = json!({
            "chain_id": engine.chain.chain_id,
            "sequence_no": pages.sequence(),
            "after": pages.after().map(|key| key.0),
        });
        let page: SnapshotPage = peer.ask("newt_getSnapshot", params).await?;
        pace.step()?;
        if pages.take(page)? {
            break;
        }
    }
    let sequence = pages.sequence().context("no page")?;
    Ok((sequence, pages.into_leaves()))
}

/// Waits until the chain's commit `sequence` is final here.
async fn final_here(engine: &Arc<Engine>, sequence: u64) -> Result<()> {
    let state = engine.state.clone();
    let wait = async {
        loop {
            let state = state.clone();
            let newest = ingest::blocking(move || Ok(state.newest_chain_commit()?)).await?;
            if newest >= Some(sequence) {
                return Ok::<(), anyhow::Error>(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(FINALITY, wait)
        .await
        .with_context(|| format!("commit {sequence} is not final here"))?
}

/// Gets a leaf's bytes if they are not here: public ones from the peer, envelopes from DA by the reference that the chain has.
async fn bring(
    engine: &Arc<Engine>,
    peer: &Peer,
    leaf: LeafKey,
    hash: B256,
    pace: &mut Pace,
) -> Result<()> {
    let state = engine.state.clone();
    if ingest::blocking(move || Ok(state.content(hash)?))
        .await?
        .is_some()
    {
        return Ok(());
    }
    let namespace =
        Namespace::try_from(leaf.0[0]).map_err(|e| anyhow::anyhow!("leaf {}: {e}", leaf.0))?;
    let bytes = if namespace.is_public() {
        let bytes = artifact(peer, engine.chain.chain_id, namespace, hash).await?;
        pace.step()?;
        bytes
    } else {
        let state = engine.state.clone();
        let entry = ingest::blocking(move || {
            state
                .waiting_for(leaf)?
                .into_iter()
                .find(|entry| entry.hash == hash)
                .with_context(|| format!("no entry of leaf {} has bytes {hash}", leaf.0))
        })
        .await?;
        ingest::fetch(engine, &entry).await?
    };
    let state = engine.state.clone();
    ingest::blocking(move || Ok(state.import_content(hash, &bytes)?)).await
}

/// Whether a peer answered, and gave nothing.
pub fn is_refusal(e: &anyhow::Error) -> bool {
    e.chain().any(|cause| {
        matches!(
            cause.downcast_ref::<ClientError>(),
            Some(ClientError::Rpc(_))
        )
    })
}

/// A public artifact of a peer, checked against its hash.
pub async fn artifact(
    peer: &Peer,
    chain_id: u64,
    namespace: Namespace,
    hash: B256,
) -> Result<Vec<u8>> {
    let params = json!({ "chain_id": chain_id, "namespace": namespace as u8, "hash": hash });
    bytes_of(peer, "newt_getArtifact", params, hash).await
}

/// Bytes of an entry that waits at a peer, checked against their hash.
pub async fn entry_bytes(peer: &Peer, chain_id: u64, entry: &QueueEntry) -> Result<Vec<u8>> {
    let params = json!({
        "chain_id": chain_id,
        "block_number": entry.key.block,
        "tx_index": entry.key.tx,
        "log_index": entry.key.log,
        "item": entry.key.item,
    });
    bytes_of(peer, "newt_getEntryBytes", params, entry.hash).await
}

async fn bytes_of(peer: &Peer, method: &str, params: Value, hash: B256) -> Result<Vec<u8>> {
    let answer: Artifact = peer.ask(method, params).await?;
    let got = keccak256(&answer.bytes);
    ensure!(
        got == hash,
        "{}: bytes hash to {got}, asked for {hash}",
        peer.address
    );
    Ok(answer.bytes.to_vec())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_peer_has_time_for_what_it_gives_and_no_more() {
        let pace = |steps| Pace {
            steps,
            ..Pace::default()
        };
        assert!(pace(0).check(GRACE).is_ok());
        assert!(pace(10).check(GRACE + 10 * STEP).is_ok());
        for steps in [0, 1, 1_000] {
            let over = GRACE + STEP * steps + Duration::from_millis(1);
            let error = pace(steps).check(over).unwrap_err().to_string();
            assert!(error.contains(&format!("for {steps} pages")), "{error}");
        }
        // A peer that gives one leaf a page, each just in time, is left long before it has given what a snapshot may have.
        let mut pace = Pace::default();
        let each = Duration::from_secs(19);
        let given = (1..=100u32).find(|n| {
            pace.steps = *n;
            pace.check(each * *n).is_err()
        });
        assert_eq!(given, Some(5));
    }
}
