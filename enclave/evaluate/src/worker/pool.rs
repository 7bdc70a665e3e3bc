//! The parent's side: a fixed number of children, one request each at a time.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use alloy_primitives::B256;

use super::{
    ModuleBudget, Modules, Verdict, WorkerConfig,
    process::{Worker, describe},
    wire::{self, FromChild, Reply, Send, Timed},
};
use crate::{
    component::MAX_COMPONENT_BYTES,
    error::{EvaluateError, Finality, Stage},
    evaluate::check_artifact,
    request::{ArtifactKind, ArtifactSource, DataInput, EvaluateRequest, Evaluation, SecretBytes},
    transcript::{FetchError, HttpFetcher},
};

/// A fixed number of worker processes. All calls block; use them from blocking threads. `Send` and `Sync`.
pub struct WorkerPool {
    config: WorkerConfig,
    modules: Arc<Modules>,
    queue: Mutex<Queue>,
    freed: Condvar,
    stats: Counters,
}

/// What happened since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStats {
    /// Requests that came to an end.
    pub requests: u64,
    /// Children that died, overstayed or broke the protocol: each is an alarm.
    pub deaths: u64,
    /// Children that were replaced because they had used up their CPU time.
    pub retired: u64,
    /// Artifacts handed to children.
    pub artifacts_sent: u64,
    /// Compiled components handed to children.
    pub modules_sent: u64,
    /// Requests refused because the queue was full, or because they had waited too long.
    pub refused: u64,
    /// Requests that wait now.
    pub waiting: u64,
    /// Workers without a request now.
    pub idle: u64,
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    deaths: AtomicU64,
    retired: AtomicU64,
    artifacts_sent: AtomicU64,
    modules_sent: AtomicU64,
    refused: AtomicU64,
}

/// Idle places, and who waits for one.
struct Queue {
    slots: Vec<Slot>,
    /// Tickets in the order they were drawn: first come, first served.
    waiting: VecDeque<u64>,
    next_ticket: u64,
}

/// An idle place: a child, or the right to start one.
type Slot = Option<Worker>;

impl WorkerPool {
    /// Starts all workers.
    ///
    /// # Errors
    /// When a process cannot be started or cannot close its sandbox: the program should not go on without one.
    pub fn spawn(config: WorkerConfig) -> Result<Self, EvaluateError> {
        let modules = Modules::new(config.clone(), 1, ModuleBudget::default(), None)?;
        Self::sharing(config, Arc::new(modules))
    }

    /// The same, with compiled components that other pools use too.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    pub fn sharing(config: WorkerConfig, modules: Arc<Modules>) -> Result<Self, EvaluateError> {
        let mut slots = Vec::with_capacity(config.workers);
        for _ in 0..config.workers.max(1) {
            slots.push(Some(Worker::start(&config)?));
        }
        let queue = Mutex::new(Queue {
            slots,
            waiting: VecDeque::new(),
            next_ticket: 0,
        });
        Ok(Self {
            config,
            modules,
            queue,
            freed: Condvar::new(),
            stats: Counters::default(),
        })
    }

    /// The ingest check of one artifact. `entrypoint` is needed for Rego and refused for everything else.
    ///
    /// # Errors
    /// Only abstentions: the worker died, overstayed, or all were busy. A verdict is never among them.
    pub fn check_artifact(
        &self,
        kind: ArtifactKind,
        bytes: &[u8],
        entrypoint: Option<&str>,
    ) -> Result<Verdict, EvaluateError> {
        // Too large for a worker is too large for the rules, and nothing is parsed to see that.
        if bytes.len() > MAX_COMPONENT_BYTES {
            return Ok(match check_artifact(kind, bytes, entrypoint) {
                Ok(()) => Verdict::Accept,
                Err(reason) => Verdict::Reject(reason),
            });
        }
        let message = Send::Check {
            kind,
            length: bytes.len() as u64,
            entrypoint,
        };
        let wall = self.config.limits.request_wall;
        match self.call(&message, bytes, 0, wall, None, None)? {
            Reply::Checked(verdict) => Ok(verdict),
            Reply::Evaluated(Err(error)) => Err(error),
            _ => Err(confused()),
        }
    }

    /// Compiles a component and loads it in one idle worker, so that its first evaluation does neither.
    ///
    /// # Errors
    /// [`EvaluateError::InvalidArtifact`], or an abstention.
    pub fn prewarm(&self, wasm: B256, source: &dyn ArtifactSource) -> Result<(), EvaluateError> {
        self.modules.fetch(wasm, source)?;
        let wall = self.config.limits.request_wall;
        match self.call(&Send::Prewarm(wasm), &[], 0, wall, Some(source), None)? {
            Reply::Prewarmed(result) => result,
            _ => Err(confused()),
        }
    }

    /// Compiles the request's components before a worker is taken, so that nobody else waits for the compiler. What it refuses is found
    /// again in its place, in the order of the evaluation.
    pub(super) fn ensure_modules(
        &self,
        request: &EvaluateRequest,
        source: &dyn ArtifactSource,
    ) -> Result<(), EvaluateError> {
        for data in &request.data {
            match self.modules.ensure(data.wasm, source) {
                Err(error) if error.finality() == Finality::Abstain => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// One evaluation. `http` performs the components' requests; without it a component that asks makes the evaluation abstain.
    ///
    /// # Errors
    /// Any [`EvaluateError`].
    pub fn evaluate(
        &self,
        request: &EvaluateRequest,
        source: &dyn ArtifactSource,
        http: Option<&dyn HttpFetcher>,
    ) -> Result<Evaluation, EvaluateError> {
        self.ensure_modules(request, source)?;
        let message = Send::Evaluate(request, http.is_some());
        let (size, wall) = (size_of(request), self.wall_of(request));
        match self.call(&message, &[], size, wall, Some(source), http)? {
            Reply::Evaluated(result) => result,
            _ => Err(confused()),
        }
    }

    /// Whether a secrets document fits the schema of its template; nothing is run.
    ///
    /// # Errors
    /// [`EvaluateError::SecretsSchemaViolation`] or what else is wrong with the document, never with a value; or an abstention.
    pub fn check_secrets(
        &self,
        instance_id: B256,
        schema: Option<B256>,
        secrets: &SecretBytes,
        source: &dyn ArtifactSource,
    ) -> Result<(), EvaluateError> {
        let message = Send::CheckSecrets {
            instance_id,
            schema,
            secrets,
        };
        let wall = self.config.limits.request_wall;
        match self.call(
            &message,
            &[],
            secrets.expose().len(),
            wall,
            Some(source),
            None,
        )? {
            Reply::SecretsChecked(result) => result,
            _ => Err(confused()),
        }
    }

    /// The compiled components.
    #[must_use]
    pub const fn modules(&self) -> &Arc<Modules> {
        &self.modules
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.config.workers.max(1)
    }

    /// What happened since the start.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (waiting, idle) = {
            let queue = self.queue();
            (queue.waiting.len() as u64, queue.slots.len() as u64)
        };
        PoolStats {
            requests: load(&self.stats.requests),
            deaths: load(&self.stats.deaths),
            retired: load(&self.stats.retired),
            artifacts_sent: load(&self.stats.artifacts_sent),
            modules_sent: load(&self.stats.modules_sent),
            refused: load(&self.stats.refused),
            waiting,
            idle,
        }
    }

    /// Process ids of the idle workers, for monitoring.
    #[must_use]
    pub fn idle_process_ids(&self) -> Vec<u32> {
        self.queue()
            .slots
            .iter()
            .flatten()
            .map(|worker| worker.child.id())
            .collect()
    }

    /// Wall clock of a request that runs every component and Rego.
    pub(super) fn wall_of(&self, request: &EvaluateRequest) -> Duration {
        let limits = &self.config.limits;
        let components = u32::try_from(request.data.len()).unwrap_or(u32::MAX);
        // Compilation is not the worker's: what it waits for is added as it comes.
        limits
            .request_wall
            .saturating_add(limits.machine.rego_wall)
            .saturating_add(limits.machine.component_wall.saturating_mul(components))
    }

    pub(super) fn call(
        &self,
        message: &Send<'_>,
        bytes: &[u8],
        size_hint: usize,
        wall: Duration,
        source: Option<&dyn ArtifactSource>,
        http: Option<&dyn HttpFetcher>,
    ) -> Result<Reply, EvaluateError> {
        let mut place = self.checkout()?;
        let mut worker = match place.slot.take() {
            Some(worker) => worker,
            None => Worker::start(&self.config)?,
        };
        let outcome = self.exchange(&mut worker, message, bytes, size_hint, wall, source, http);
        self.stats.requests.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok((reply, false)) => {
                place.slot = Some(worker);
                Ok(reply)
            }
            Ok((reply, true)) => {
                self.stats.retired.fetch_add(1, Ordering::Relaxed);
                worker.end();
                Ok(reply)
            }
            Err(error) => {
                self.stats.deaths.fetch_add(1, Ordering::Relaxed);
                let timed_out = matches!(
                    error.kind(),
                    io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
                );
                let status = worker.end();
                let error = if timed_out {
                    let limit_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
                    EvaluateError::WallClockExceeded {
                        stage: Stage::Request,
                        limit_ms,
                    }
                } else {
                    EvaluateError::WorkerDied {
                        reason: describe(status, &error),
                    }
                };
                tracing::error!(%error, "a worker was lost; its request abstains");
                Err(error)
            }
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one step of one function, split for reading"
    )]
    fn exchange(
        &self,
        worker: &mut Worker,
        message: &Send<'_>,
        bytes: &[u8],
        size_hint: usize,
        wall: Duration,
        source: Option<&dyn ArtifactSource>,
        http: Option<&dyn HttpFetcher>,
    ) -> io::Result<(Reply, bool)> {
        let mut stream = Timed {
            stream: &mut worker.stream,
            deadline: Instant::now() + wall,
        };
        match wire::write(&mut stream, message, size_hint) {
            // Refused before a byte was sent: the worker is as it was.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let reason = error.to_string();
                return Ok((
                    Reply::Evaluated(Err(EvaluateError::Internal { reason })),
                    false,
                ));
            }
            other => other?,
        }
        wire::write_bytes(&mut stream, bytes)?;
        loop {
            match wire::read(&mut stream)? {
                FromChild::Done { reply, retire } => return Ok((reply, retire)),
                FromChild::NeedArtifact(hash) => {
                    let bytes = source
                        .and_then(|source| source.artifact(&hash))
                        .filter(|bytes| bytes.len() <= MAX_COMPONENT_BYTES);
                    self.stats
                        .artifacts_sent
                        .fetch_add(u64::from(bytes.is_some()), Ordering::Relaxed);
                    let length = bytes.as_ref().map(|bytes| bytes.len() as u64);
                    wire::write(&mut stream, &Send::Artifact(length), 0)?;
                    wire::write_bytes(&mut stream, bytes.as_deref().unwrap_or_default())?;
                }
                FromChild::Http(request, max_body) => {
                    let asked = Instant::now();
                    let outcome = match http {
                        Some(http) => http.fetch(&request, max_body),
                        None => Err(FetchError::absent()),
                    };
                    // The child does nothing meanwhile: its own clock bounds the run, the fetcher bounds itself.
                    stream.deadline += asked.elapsed();
                    wire::write(&mut stream, &Send::Http(outcome), 0)?;
                }
                FromChild::NeedModule(component) => {
                    let asked = Instant::now();
                    let module = match source {
                        Some(source) => self.modules.fetch(component, source),
                        None => Err(EvaluateError::ArtifactUnavailable {
                            artifact: component,
                        }),
                    };
                    // The child has waited, not worked.
                    stream.deadline += asked.elapsed();
                    let length = module.as_ref().map(|module| module.len() as u64);
                    wire::write(&mut stream, &Send::Module(length.map_err(Clone::clone)), 0)?;
                    if let Ok(module) = module {
                        self.stats.modules_sent.fetch_add(1, Ordering::Relaxed);
                        wire::write_bytes(&mut stream, &module)?;
                    }
                }
                FromChild::Ready | FromChild::Failed(_) | FromChild::Compiled(_) => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        }
    }

    fn checkout(&self) -> Result<Place<'_>, EvaluateError> {
        let wall = self.config.limits.queue_wall;
        let mut queue = self.queue();
        if queue.slots.is_empty() && queue.waiting.len() >= self.config.limits.queue_length {
            drop(queue);
            self.stats.refused.fetch_add(1, Ordering::Relaxed);
            return Err(EvaluateError::WorkersBusy { waited_ms: 0 });
        }
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        queue.waiting.push_back(ticket);
        let (mut queue, _) = self
            .freed
            .wait_timeout_while(queue, wall, |queue| {
                queue.slots.is_empty() || queue.waiting.front() != Some(&ticket)
            })
            .unwrap_or_else(PoisonError::into_inner);
        let first = queue.waiting.front() == Some(&ticket);
        queue.waiting.retain(|waiting| *waiting != ticket);
        // The last to come back has the warmest caches.
        let slot = if first { queue.slots.pop() } else { None };
        drop(queue);
        // Someone else is at the head of the queue now.
        self.freed.notify_all();
        match slot {
            Some(slot) => Ok(Place { pool: self, slot }),
            None => {
                self.stats.refused.fetch_add(1, Ordering::Relaxed);
                Err(EvaluateError::WorkersBusy {
                    waited_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
                })
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every change is a single push or removal; a panic elsewhere cannot have left half of one.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place taken from the pool; goes back when dropped, also when a caller's source or fetcher panics.
struct Place<'a> {
    pool: &'a WorkerPool,
    slot: Slot,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let slot = self.slot.take();
        self.pool.queue().slots.push(slot);
        self.pool.freed.notify_all();
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        let queue = self.queue.get_mut().unwrap_or_else(PoisonError::into_inner);
        for worker in queue.slots.drain(..).flatten() {
            worker.end();
        }
    }
}

/// Bytes of a request, roughly: for one allocation that is large enough.
pub(super) fn size_of(request: &EvaluateRequest) -> usize {
    let secrets = |data: &DataInput| data.secrets.as_ref().map_or(0, |s| s.expose().len());
    let data = request.data.iter();
    request.wasm_args.len()
        + request.policy.params.len()
        + request.intent.data.len()
        + data.fold(0, |sum, data| sum + data.params.len() + secrets(data) + 256)
}

pub(super) fn confused() -> EvaluateError {
    EvaluateError::Internal {
        reason: "the worker answered another question".to_owned(),
    }
}
