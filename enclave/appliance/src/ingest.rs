//! Ingestion: fetch what the queue names, judge it by bounded deterministic checks, record the verdict (design 2.3).

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use newton_artifacts::{ArtifactError, DaRef, check_reference, fetch_artifact};
use newton_evaluate::{ArtifactKind, EvaluateError, worker::Verdict as Judged};
use newton_keys::hpke::Envelope;
use newton_state::{QueueEntry, Role, StateStore, Verdict};
use newton_types::{B256, Namespace, QueueKey};
use tokio::time::{Instant, timeout_at};

use crate::{bootstrap, engine::Engine, metrics::count};

/// Entries that a round decides, and those it finds unavailable, so that a round ends.
const DECIDED_PER_ROUND: usize = 1_024;
const UNAVAILABLE_PER_ROUND: usize = 16;

/// Verdicts are recorded together: a transaction costs two flushes of the disk however many verdicts it has. Never held back
/// for longer than this, nor with more bytes.
const HELD_FOR: Duration = Duration::from_millis(250);
const HELD_BYTES: usize = 8 << 20;

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
    let mut held = Held::default();
    let mut after: Option<QueueKey> = None;
    while outcome.decided + held.verdicts.len() < DECIDED_PER_ROUND
        && outcome.unavailable < UNAVAILABLE_PER_ROUND
    {
        let state = engine.state.clone();
        let next = blocking(move || Ok(state.undecided(after, 1)?.pop())).await?;
        let Some(entry) = next else { break };
        after = Some(entry.key);
        let found = {
            let mut judging = pin!(verdict(engine, &entry));
            match held.until {
                None => judging.await,
                Some(until) => match timeout_at(until, judging.as_mut()).await {
                    Ok(found) => found,
                    // What is decided does not wait for a slow source.
                    Err(_) => {
                        outcome.decided += held.record(engine).await?;
                        judging.await
                    }
                },
            }
        };
        match found {
            Ok(found) => {
                held.push(entry, found);
                if held.bytes >= HELD_BYTES {
                    outcome.decided += held.record(engine).await?;
                }
            }
            Err(abstain) => {
                outcome.unavailable += 1;
                abstained(engine, entry.key, &abstain).await?;
            }
        }
    }
    outcome.decided += held.record(engine).await?;
    Ok(outcome)
}

/// The bytes that hold, or the reason for which they do not.
type Found = Result<Vec<u8>, String>;

/// Verdicts that are not recorded yet. A crash loses them, and the next boot arrives at the same ones.
#[derive(Default)]
struct Held {
    verdicts: Vec<(QueueEntry, Found)>,
    bytes: usize,
    /// When to record them at the latest.
    until: Option<Instant>,
}

impl Held {
    fn push(&mut self, entry: QueueEntry, found: Found) {
        self.bytes += found.as_ref().map_or(0, Vec::len);
        self.until.get_or_insert_with(|| Instant::now() + HELD_FOR);
        self.verdicts.push((entry, found));
    }

    /// Records them all and returns how many that were.
    async fn record(&mut self, engine: &Arc<Engine>) -> Result<usize> {
        let Self { verdicts, .. } = std::mem::take(self);
        let recorded = verdicts.len();
        let state = engine.state.clone();
        let verdicts = blocking(move || record(&state, verdicts)).await?;
        for (entry, found) in verdicts {
            match found {
                Ok(_) => {
                    tracing::info!(entry = %entry.key, leaf = %entry.leaf_key.0, "accepted");
                    if entry.namespace() == Namespace::PolicyDataWasm {
                        prewarm(engine, entry.hash);
                    }
                }
                Err(reason) => {
                    count(&engine.metrics().rejected_invalid);
                    tracing::warn!(entry = %entry.key, reason, "rejected");
                }
            }
        }
        Ok(recorded)
    }
}

/// Records verdicts in one transaction. If one of them does not go in (the entry was dropped meanwhile, say), the others do,
/// each in its own.
fn record(
    state: &StateStore,
    verdicts: Vec<(QueueEntry, Found)>,
) -> Result<Vec<(QueueEntry, Found)>> {
    let all: Vec<_> = verdicts
        .iter()
        .map(|(entry, found)| {
            let verdict = match found {
                Ok(bytes) => Verdict::Accepted { bytes },
                Err(reason) => Verdict::Rejected {
                    reason: reason.clone(),
                },
            };
            (entry.key, verdict)
        })
        .collect();
    if all.is_empty() {
        return Ok(verdicts);
    }
    if let Err(error) = state.record_verdicts(&all) {
        if error.is_fatal() || all.len() == 1 {
            return Err(error.into());
        }
        let results: Vec<_> = all
            .into_iter()
            .map(|(key, verdict)| state.record_verdict(key, verdict))
            .collect();
        results.into_iter().collect::<Result<(), _>>()?;
    }
    Ok(verdicts)
}

/// Notes that an entry got no verdict.
async fn abstained(engine: &Arc<Engine>, key: QueueKey, abstain: &anyhow::Error) -> Result<()> {
    count(&engine.metrics().unavailable);
    if lost_a_worker(abstain) && engine.quarantine().count(key) {
        count(&engine.metrics().quarantined);
        tracing::error!(
            entry = %key,
            deaths = MAX_DEATHS,
            "content that workers do not survive: left alone in this boot"
        );
    }
    let reason = format!("{abstain:#}");
    tracing::warn!(entry = %key, reason, "no verdict yet");
    let state = engine.state.clone();
    let now = engine.time_seconds();
    blocking(move || Ok(state.record_verdict(key, Verdict::Unavailable { reason, now })?)).await
}

fn lost_a_worker(abstain: &anyhow::Error) -> bool {
    matches!(
        abstain.downcast_ref::<EvaluateError>(),
        Some(EvaluateError::WorkerDied { .. } | EvaluateError::WallClockExceeded { .. })
    )
}

/// The bytes, or the reason for which everyone rejects them; an error is an abstention.
async fn verdict(engine: &Arc<Engine>, entry: &QueueEntry) -> Result<Found> {
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
    let chain_id = engine.chain.chain_id;
    for peer in &engine.sources {
        // From its queue, where it has just come to, or from its tree, if the same was committed before.
        let queued = bootstrap::entry_bytes(peer, chain_id, entry).await;
        let bytes = match queued {
            // One that is silent is not waited for a second time.
            Err(e) if bootstrap::is_refusal(&e) => {
                bootstrap::artifact(peer, chain_id, namespace, entry.hash).await
            }
            other => other,
        };
        match bytes {
            Ok(bytes) => return Some(bytes),
            Err(e) => {
                tracing::debug!(entry = %entry.key, reason = crate::peers::said(&e), "not of a peer");
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
    #![allow(clippy::unwrap_used)]

    use newton_pages::{Options, PageKey, PageStore, StoreId, testing::MemoryDevice};
    use newton_state::{ChainConfig, EntryState, StateError, open_database};
    use newton_types::events::{
        Artifact, Block, ChainEvent, EventPosition, HeaderInfo, RegistryEvent,
    };
    use newton_types::{Address, Bytes, keccak256};
    use zeroize::Zeroizing;

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

    /// A state with four entries of public bytes in its queue, which are returned with it.
    fn queued() -> (StateStore, Vec<(QueueEntry, Found)>) {
        let id = StoreId {
            operator: [1; 32],
            config: [2; 32],
        };
        let key = PageKey::new(Zeroizing::new([7; 32]));
        let device = Arc::new(MemoryDevice::default());
        let pages = PageStore::open(device, &key, id, Options::default()).unwrap();
        let db = open_database(pages, 1 << 20).unwrap();
        let state = StateStore::open(
            Arc::new(db),
            ChainConfig {
                chain_id: 31_337,
                state_commit_registry: Address::ZERO,
                first_block: 0,
                deployment_block: 0,
                deployment_block_hash: None,
            },
        )
        .unwrap();
        let contents: Vec<Vec<u8>> = (1..5u8).map(|n| vec![n; usize::from(n) * 100]).collect();
        let mut events = vec![RegistryEvent::RulesVersionScheduled {
            rules_version: 1,
            active_from: 0,
        }];
        events.extend(
            contents
                .iter()
                .map(|bytes| RegistryEvent::ArtifactSupplied {
                    namespace: Namespace::PolicyRego,
                    artifact: Artifact {
                        hash: keccak256(bytes),
                        length: bytes.len() as u32,
                    },
                    supplier: Address::ZERO,
                    da_ref: Bytes::from_static(b"ref"),
                }),
        );
        let header = HeaderInfo {
            number: 0,
            hash: B256::repeat_byte(1),
            parent_hash: B256::ZERO,
            timestamp: 1_000,
        };
        let events = (0..)
            .zip(events)
            .map(|(i, event)| ChainEvent {
                position: EventPosition {
                    block: 0,
                    tx: i,
                    log: i,
                },
                event,
            })
            .collect();
        state.apply_finalized(&[Block { header, events }]).unwrap();
        let entries = state.undecided(None, 10).unwrap();
        let found = contents.into_iter().map(Ok);
        (state, entries.into_iter().zip(found).collect())
    }

    #[test]
    fn verdicts_held_back_go_in_together() {
        let (state, mut verdicts) = queued();
        verdicts[2].1 = Err("not rego".to_owned());
        let recorded = record(&state, verdicts).unwrap();
        assert!(state.undecided(None, 10).unwrap().is_empty());
        for (entry, found) in recorded {
            let state_of = state.entry(entry.key).unwrap().unwrap().state;
            let expected = match &found {
                Ok(_) => EntryState::Accepted,
                Err(reason) => EntryState::Rejected {
                    reason: reason.clone(),
                },
            };
            assert_eq!(state_of, expected);
            assert_eq!(state.content(entry.hash).unwrap(), found.ok());
        }
    }

    #[test]
    fn a_verdict_that_does_not_go_in_holds_up_no_other() {
        let (state, mut verdicts) = queued();
        // As if a commit had drained it while it was judged.
        let gone = QueueKey {
            block: 7,
            ..verdicts[1].0.key
        };
        let kept = std::mem::replace(&mut verdicts[1].0.key, gone);
        let error = record(&state, verdicts).err().unwrap();
        assert!(
            matches!(error.downcast_ref(), Some(StateError::UnknownEntry(key)) if *key == gone),
            "{error:#}"
        );
        let left: Vec<_> = state.undecided(None, 10).unwrap();
        assert_eq!(left.iter().map(|e| e.key).collect::<Vec<_>>(), [kept]);
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
