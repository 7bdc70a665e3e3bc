//! Ingestion: fetch what the queue names, judge it by bounded deterministic checks, record the verdict (design 2.3).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use newton_artifacts::{ArtifactError, DaRef, check_reference, fetch_artifact};
use newton_evaluate::{ArtifactKind, EvaluateError, worker::Verdict as Judged};
use newton_keys::hpke::Envelope;
use newton_state::{QueueEntry, Role, Verdict};
use newton_types::{B256, Namespace, QueueKey};

use crate::{bootstrap, engine::Engine, metrics::count};

/// Entries looked at in one round, so that a round ends.
const PER_ROUND: usize = 16;

/// Workers that one entry may cost in a boot.
const MAX_DEATHS: u32 = 3;

/// Entries on which workers die or overstay, with how many did. That is no verdict: it may be this machine. But no content takes a
/// worker every round for ever; the entry waits for another boot, or for `SkipUnavailable`.
#[derive(Default)]
pub struct Quarantine(Mutex<HashMap<QueueKey, u32>>);

impl Quarantine {
    fn deaths(&self, entry: QueueKey) -> u32 {
        self.map().get(&entry).copied().unwrap_or_default()
    }

    /// One more; whether it was the last one allowed.
    fn count(&self, entry: QueueKey) -> bool {
        let mut map = self.map();
        let deaths = map.entry(entry).or_default();
        *deaths += 1;
        *deaths == MAX_DEATHS
    }

    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<QueueKey, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one round brought.
#[derive(Debug, Default)]
pub struct Round {
    /// Verdicts recorded.
    pub decided: usize,
    /// Entries whose bytes could not be had.
    pub unavailable: usize,
}

/// Goes once over the undecided entries, from the front.
pub async fn round(engine: &Arc<Engine>) -> Result<Round> {
    let mut outcome = Round::default();
    let mut after: Option<QueueKey> = None;
    for _ in 0..PER_ROUND {
        let state = engine.state.clone();
        let next = blocking(move || Ok(state.undecided(after, 1)?.pop())).await?;
        let Some(entry) = next else { break };
        after = Some(entry.key);
        match verdict(engine, &entry).await {
            Ok(found) => {
                let rejected = found.as_ref().err().cloned();
                let state = engine.state.clone();
                let key = entry.key;
                blocking(move || {
                    let verdict = match &found {
                        Ok(bytes) => Verdict::Accepted { bytes },
                        Err(reason) => Verdict::Rejected {
                            reason: reason.clone(),
                        },
                    };
                    Ok(state.record_verdict(key, verdict)?)
                })
                .await?;
                outcome.decided += 1;
                if rejected.is_none() && entry.namespace() == Namespace::PolicyDataWasm {
                    prewarm(engine, entry.hash);
                }
                match rejected {
                    None => {
                        tracing::info!(entry = %entry.key, leaf = %entry.leaf_key.0, "accepted");
                    }
                    Some(reason) => {
                        count(&engine.metrics().rejected_invalid);
                        tracing::warn!(entry = %entry.key, reason, "rejected");
                    }
                }
            }
            Err(abstain) => {
                outcome.unavailable += 1;
                count(&engine.metrics().unavailable);
                if lost_a_worker(&abstain) && engine.quarantine().count(entry.key) {
                    count(&engine.metrics().quarantined);
                    tracing::error!(
                        entry = %entry.key,
                        deaths = MAX_DEATHS,
                        "content that workers do not survive: left alone in this boot"
                    );
                }
                let reason = format!("{abstain:#}");
                tracing::warn!(entry = %entry.key, reason, "no verdict yet");
                let state = engine.state.clone();
                let (key, now) = (entry.key, engine.time_seconds());
                blocking(move || {
                    Ok(state.record_verdict(key, Verdict::Unavailable { reason, now })?)
                })
                .await?;
            }
        }
    }
    Ok(outcome)
}

fn lost_a_worker(abstain: &anyhow::Error) -> bool {
    matches!(
        abstain.downcast_ref::<EvaluateError>(),
        Some(EvaluateError::WorkerDied { .. } | EvaluateError::WallClockExceeded { .. })
    )
}

/// The bytes, or the reason for which everyone rejects them; an error is an abstention.
async fn verdict(engine: &Arc<Engine>, entry: &QueueEntry) -> Result<Result<Vec<u8>, String>> {
    // Not ours to judge. The commit of that window stops this enclave, see `StateError::Rules`.
    anyhow::ensure!(
        engine.app.rules.contains(&entry.context.rules_version),
        "rules version {} is not implemented by this image",
        entry.context.rules_version
    );
    let deaths = engine.quarantine().deaths(entry.key);
    anyhow::ensure!(
        deaths < MAX_DEATHS,
        "{deaths} workers were lost on this content in this boot"
    );
    // Before anything depends on which bytes are here: whether a reference holds, everyone must see alike.
    let da_ref = match reference(engine, entry) {
        Ok(da_ref) => da_ref,
        Err(ArtifactError::Invalid(reason)) => return Ok(Err(reason.to_string())),
        Err(unavailable) => return Err(unavailable).context("judging the DA reference"),
    };
    let state = engine.state.clone();
    let hash = entry.hash;
    let bytes = match blocking(move || Ok(state.content(hash)?)).await? {
        Some(bytes) => bytes,
        None => match fetch_artifact(&engine.da, &da_ref, hash).await {
            Ok(bytes) => bytes,
            Err(unavailable) => match from_peers(engine, entry).await {
                Some(bytes) => bytes,
                None => return Err(unavailable).context("fetching from DA"),
            },
        },
    };
    if bytes.len() as u64 != u64::from(entry.length) {
        return Ok(Err(format!(
            "declared length {}, the content has {}",
            entry.length,
            bytes.len()
        )));
    }
    let engine = engine.clone();
    let (role, namespace) = (entry.context.role.clone(), entry.namespace());
    let (judged, bytes) = blocking(move || {
        let judged = judge(&engine, &role, namespace, &bytes)?;
        Ok((judged, bytes))
    })
    .await?;
    Ok(judged.map(|()| bytes))
}

/// Compiles an accepted component before anyone waits for it. That it validates and does not compile is no verdict, but
/// somebody should look.
fn prewarm(engine: &Arc<Engine>, wasm: B256) {
    let engine = engine.clone();
    tokio::task::spawn_blocking(move || {
        let bytes = match engine.state.content(wasm) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return,
            Err(e) => return tracing::warn!(%wasm, error = %e, "cannot read a component"),
        };
        let source = HashMap::from([(wasm, Arc::from(bytes))]);
        match engine.workers.prewarm(wasm, &source) {
            Ok(()) => {
                count(&engine.metrics().prewarmed);
                tracing::info!(%wasm, "component compiled");
            }
            Err(e) => {
                count(&engine.metrics().prewarm_failed);
                tracing::error!(%wasm, error = %e, "a valid component does not compile");
            }
        }
    });
}

/// Bytes that DA does not give, from a peer that has them: public ones, of the declared hash.
async fn from_peers(engine: &Engine, entry: &QueueEntry) -> Option<Vec<u8>> {
    let namespace = entry.namespace();
    if !namespace.is_public() {
        return None;
    }
    for peer in &engine.sources {
        match bootstrap::artifact(peer, engine.chain.chain_id, namespace, entry.hash).await {
            Ok(bytes) => return Some(bytes),
            Err(e) => {
                tracing::debug!(entry = %entry.key, reason = format!("{e:#}"), "not of a peer");
            }
        }
    }
    None
}

/// An entry's bytes by its DA reference, checked.
pub async fn fetch(engine: &Engine, entry: &QueueEntry) -> Result<Vec<u8>, ArtifactError> {
    let da_ref = reference(engine, entry)?;
    Ok(fetch_artifact(&engine.da, &da_ref, entry.hash).await?)
}

fn reference(engine: &Engine, entry: &QueueEntry) -> Result<DaRef, ArtifactError> {
    check_reference(
        &engine.da_rules,
        engine.da_checks,
        &entry.da_ref,
        entry.length,
    )
}

fn judge(
    engine: &Engine,
    role: &Role,
    namespace: Namespace,
    bytes: &[u8],
) -> Result<Result<(), String>> {
    if let Role::Secrets { client, .. } = role {
        return Ok(judge_envelope(engine, client.0.0, bytes));
    }
    let kind = ArtifactKind::from_namespace(namespace as u8)
        .with_context(|| format!("namespace {namespace:?} holds no artifact"))?;
    let entrypoint = match role {
        Role::Rego { entrypoint } => Some(entrypoint.as_str()),
        _ => None,
    };
    // A dead or busy worker is no verdict: it leaves as an error.
    match engine.checks.check_artifact(kind, bytes, entrypoint)? {
        Judged::Accept => Ok(Ok(())),
        Judged::Reject(reason) => Ok(Err(reason.to_string())),
    }
}

/// Public facts of an envelope only, so that anyone without keys reaches the same verdict.
fn judge_envelope(engine: &Engine, client: [u8; 20], bytes: &[u8]) -> Result<(), String> {
    let envelope = Envelope::parse(bytes).map_err(|e| e.to_string())?;
    if envelope.context.policy_client != client {
        return Err("envelope names another client".to_owned());
    }
    if envelope.context.chain_id != engine.chain.chain_id {
        return Err(format!(
            "envelope is for chain {}, expected {}",
            envelope.context.chain_id, engine.chain.chain_id
        ));
    }
    Ok(())
}

/// Database and worker calls block; they run off the async threads.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_costs_a_bounded_number_of_workers() {
        let quarantine = Quarantine::default();
        let (bad, good) = (
            QueueKey::default(),
            QueueKey {
                item: 1,
                ..QueueKey::default()
            },
        );
        let last: Vec<bool> = (0..MAX_DEATHS).map(|_| quarantine.count(bad)).collect();
        assert_eq!(last, [false, false, true]);
        assert_eq!(quarantine.deaths(bad), MAX_DEATHS);
        assert_eq!(quarantine.deaths(good), 0);
    }

    #[test]
    fn only_lost_workers_count() {
        let died = EvaluateError::WorkerDied {
            reason: "signal 6".to_owned(),
        };
        assert!(lost_a_worker(&anyhow::Error::new(died)));
        let busy = EvaluateError::WorkersBusy { waited_ms: 1 };
        assert!(!lost_a_worker(&anyhow::Error::new(busy)));
        assert!(!lost_a_worker(&anyhow::anyhow!("no route to DA")));
    }
}
