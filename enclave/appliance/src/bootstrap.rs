//! A new enclave takes a peer's snapshot instead of judging everything since genesis (design 2.5).
//!
//! Blocks come first, from the chain as always. Then the leaves of one commit and their bytes, from a peer: the leaves must
//! give the root that the chain has for that commit, the bytes their hashes, before anything is written or served. A peer that
//! lies or stops costs time only; without one that helps, everything is fetched from DA and judged here.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use newton_state::{LeafStatus, SnapshotLeaf, Tip};
use newton_types::{B256, Bytes, LeafKey, Namespace, keccak256};
use serde::Deserialize;
use serde_json::json;

use crate::{engine::Engine, ingest, peers::Peer};

/// Commits that are replayed rather than asked for.
const FEW: u64 = 2;
/// How long a peer's commit may take to become final here.
const FINALITY: Duration = Duration::from_secs(120);
/// What a peer may take in all: this, and [`STEP`] for every page of leaves and every artifact that it has given. One that is
/// just slow enough to be waited for, again and again, would keep this enclave from ever starting.
const GRACE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_secs(5);
/// Leaves that a snapshot may have, so that a peer cannot fill this enclave's memory.
const MAX_LEAVES: usize = 4_000_000;

#[derive(Deserialize)]
struct Page {
    sequence_no: u64,
    /// Key and value hash.
    leaves: Vec<(B256, B256)>,
}

#[derive(Deserialize)]
struct Artifact {
    bytes: Bytes,
}

/// Takes a snapshot if this state is far behind and a peer has one; tries every peer once.
pub async fn from_peers(engine: &Arc<Engine>) {
    if engine.sources.is_empty() {
        return;
    }
    while !engine.was_at_head() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    match behind(engine).await {
        Ok(commits) if commits > FEW => {}
        _ => return,
    }
    for peer in &engine.sources {
        let note = match from_peer(engine, peer).await {
            Ok(tip) => {
                tracing::info!(peer = %peer.address, sequence = tip.sequence, root = %tip.root, "took a snapshot");
                return;
            }
            Err(e) => format!("snapshot: {e:#}"),
        };
        tracing::warn!(peer = %peer.address, note, "no snapshot");
        engine
            .peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note(&peer.address, note);
    }
}

/// Finalized commits that are not derived here.
async fn behind(engine: &Arc<Engine>) -> Result<u64> {
    let state = engine.state.clone();
    ingest::blocking(move || {
        let tip = state.tip()?.sequence;
        Ok(state
            .newest_chain_commit()?
            .map_or(0, |newest| newest.saturating_sub(tip)))
    })
    .await
}

async fn from_peer(engine: &Arc<Engine>, peer: &Peer) -> Result<Tip> {
    let mut pace = Pace::default();
    let (sequence, leaves) = leaves(engine, peer, &mut pace).await?;
    // Until the commit is final here it is not the peer that takes its time.
    final_here(engine, sequence).await?;
    let mut pace = Pace::default();
    for leaf in &leaves {
        let (state, hash) = (engine.state.clone(), leaf.value_hash);
        if ingest::blocking(move || Ok(state.content(hash)?))
            .await?
            .is_some()
        {
            continue;
        }
        let bytes = bytes(engine, peer, *leaf).await?;
        pace.step()?;
        let state = engine.state.clone();
        ingest::blocking(move || Ok(state.import_content(hash, &bytes)?)).await?;
    }
    let state = engine.state.clone();
    ingest::blocking(move || Ok(state.import(sequence, &leaves)?)).await
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

/// All leaves of the peer's newest commit.
async fn leaves(
    engine: &Arc<Engine>,
    peer: &Peer,
    pace: &mut Pace,
) -> Result<(u64, Vec<SnapshotLeaf>)> {
    let mut all: Vec<SnapshotLeaf> = Vec::new();
    let mut sequence = None;
    loop {
        let params = json!({
            "chain_id": engine.chain.chain_id,
            "sequence_no": sequence,
            "after": all.last().map(|leaf| leaf.key.0),
        });
        let page: Page = peer.ask("newt_getSnapshot", params).await?;
        let expected = *sequence.get_or_insert(page.sequence_no);
        ensure!(
            page.sequence_no == expected,
            "a page of commit {}, expected {expected}",
            page.sequence_no
        );
        if page.leaves.is_empty() {
            break;
        }
        all.extend(
            page.leaves
                .into_iter()
                .map(|(key, value_hash)| SnapshotLeaf {
                    key: LeafKey(key),
                    value_hash,
                }),
        );
        ensure!(all.len() <= MAX_LEAVES, "more than {MAX_LEAVES} leaves");
        pace.step()?;
    }
    Ok((sequence.context("no page")?, all))
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

/// A leaf's bytes: public ones from the peer, envelopes from DA by the reference that the chain has.
async fn bytes(engine: &Arc<Engine>, peer: &Peer, leaf: SnapshotLeaf) -> Result<Vec<u8>> {
    let namespace = Namespace::try_from(leaf.key.0[0])
        .map_err(|e| anyhow::anyhow!("leaf {}: {e}", leaf.key.0))?;
    if namespace.is_public() {
        return artifact(peer, engine.chain.chain_id, namespace, leaf.value_hash).await;
    }
    let state = engine.state.clone();
    let entry = ingest::blocking(move || {
        let LeafStatus::Requested { waiting, .. } = state.snapshot(None)?.leaf_status(leaf.key)?
        else {
            bail!("the chain never asked for leaf {}", leaf.key.0);
        };
        for (key, _) in waiting {
            if let Some(entry) = state.entry(key)?
                && entry.hash == leaf.value_hash
            {
                return Ok(entry);
            }
        }
        bail!("no entry of leaf {} has these bytes", leaf.key.0);
    })
    .await?;
    Ok(ingest::fetch(engine, &entry).await?)
}

/// A public artifact of a peer, checked against its hash.
pub async fn artifact(
    peer: &Peer,
    chain_id: u64,
    namespace: Namespace,
    hash: B256,
) -> Result<Vec<u8>> {
    let params = json!({ "chain_id": chain_id, "namespace": namespace as u8, "hash": hash });
    let answer: Artifact = peer.ask("newt_getArtifact", params).await?;
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
