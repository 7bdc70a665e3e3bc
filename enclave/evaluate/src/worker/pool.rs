//! The parent's side: a fixed number of children, one request each at a time.

use std::{
    collections::VecDeque,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream, unix::process::ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use alloy_primitives::B256;
use serde_bytes::Bytes;

use super::{
    Verdict, WorkerConfig,
    wire::{self, FromChild, Reply, Send, Timed},
};
use crate::{
    error::{EvaluateError, Stage},
    request::{ArtifactKind, ArtifactSource, DataInput, EvaluateRequest, Evaluation, SecretBytes},
    transcript::{FetchError, HttpFetcher},
};

/// How long a child may take to end by itself once its socket is shut.
const END_GRACE: Duration = Duration::from_millis(200);

/// A fixed number of worker processes. All calls block; use them from blocking threads. `Send` and `Sync`.
pub struct WorkerPool {
    config: WorkerConfig,
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
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    deaths: AtomicU64,
    retired: AtomicU64,
    artifacts_sent: AtomicU64,
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

struct Worker {
    child: Child,
    stream: UnixStream,
}

impl WorkerPool {
    /// Starts all workers.
    ///
    /// # Errors
    /// When a process cannot be started or cannot close its sandbox: the program should not go on without one.
    pub fn spawn(config: WorkerConfig) -> Result<Self, EvaluateError> {
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
        let message = Send::Check {
            kind,
            bytes: Bytes::new(bytes),
            entrypoint,
        };
        let wall = self.config.limits.request_wall;
        match self.call(&message, bytes.len(), wall, None, None)? {
            Reply::Checked(verdict) => Ok(verdict),
            Reply::Evaluated(Err(error)) => Err(error),
            _ => Err(confused()),
        }
    }

    /// Compiles a component in one idle worker, so that its first evaluation there does not.
    ///
    /// # Errors
    /// [`EvaluateError::InvalidArtifact`], or an abstention.
    pub fn prewarm(&self, wasm: B256, source: &dyn ArtifactSource) -> Result<(), EvaluateError> {
        let limits = &self.config.limits;
        let wall = limits.request_wall + limits.compile_wall;
        match self.call(&Send::Prewarm(wasm), 0, wall, Some(source), None)? {
            Reply::Prewarmed(result) => result,
            _ => Err(confused()),
        }
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
        let message = Send::Evaluate(request, http.is_some());
        let (size, wall) = (size_of(request), self.wall_of(request));
        match self.call(&message, size, wall, Some(source), http)? {
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
        match self.call(&message, secrets.expose().len(), wall, Some(source), None)? {
            Reply::SecretsChecked(result) => result,
            _ => Err(confused()),
        }
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
        PoolStats {
            requests: load(&self.stats.requests),
            deaths: load(&self.stats.deaths),
            retired: load(&self.stats.retired),
            artifacts_sent: load(&self.stats.artifacts_sent),
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
        let each = limits
            .machine
            .component_wall
            .saturating_add(limits.compile_wall);
        limits
            .request_wall
            .saturating_add(limits.machine.rego_wall)
            .saturating_add(each.saturating_mul(components))
    }

    pub(super) fn call(
        &self,
        message: &Send<'_>,
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
        let outcome = self.exchange(&mut worker, message, size_hint, wall, source, http);
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

    fn exchange(
        &self,
        worker: &mut Worker,
        message: &Send<'_>,
        size_hint: usize,
        wall: Duration,
        source: Option<&dyn ArtifactSource>,
        http: Option<&dyn HttpFetcher>,
    ) -> io::Result<(Reply, bool)> {
        let mut stream = Timed {
            stream: &mut worker.stream,
            deadline: Instant::now() + wall,
        };
        wire::write(&mut stream, message, size_hint)?;
        loop {
            match wire::read(&mut stream)? {
                FromChild::Done { reply, retire } => return Ok((reply, retire)),
                FromChild::NeedArtifact(hash) => {
                    let bytes = source.and_then(|source| source.artifact(&hash));
                    self.stats
                        .artifacts_sent
                        .fetch_add(u64::from(bytes.is_some()), Ordering::Relaxed);
                    let bytes = bytes.as_deref();
                    wire::write(
                        &mut stream,
                        &Send::Artifact(bytes.map(Bytes::new)),
                        bytes.map_or(0, <[u8]>::len),
                    )?;
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
                FromChild::Ready | FromChild::Failed(_) => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        }
    }

    fn checkout(&self) -> Result<Place<'_>, EvaluateError> {
        let wall = self.config.limits.queue_wall;
        let mut queue = self.queue();
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
            None => Err(EvaluateError::WorkersBusy {
                waited_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
            }),
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

impl Worker {
    fn start(config: &WorkerConfig) -> Result<Self, EvaluateError> {
        let failed = |reason: String| EvaluateError::Internal {
            reason: format!("worker process: {reason}"),
        };
        let (stream, theirs) = UnixStream::pair().map_err(|error| failed(error.to_string()))?;
        let child = Command::new(&config.exe)
            .arg(&config.arg)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let mut worker = Self { child, stream };
        let deadline = Instant::now() + config.limits.request_wall;
        let mut timed = Timed {
            stream: &mut worker.stream,
            deadline,
        };
        let greeting = wire::write(&mut timed, &Send::Hello(&config.limits), 0)
            .and_then(|()| wire::read(&mut timed));
        match greeting {
            Ok(FromChild::Ready) => Ok(worker),
            Ok(FromChild::Failed(reason)) => {
                worker.end();
                Err(failed(reason))
            }
            Ok(_) => {
                worker.end();
                Err(failed("it spoke out of turn".to_owned()))
            }
            Err(error) => {
                let status = worker.end();
                Err(failed(describe(status, &error)))
            }
        }
    }

    /// Ends the process, by force if it does not end by itself, and reaps it.
    fn end(mut self) -> Option<ExitStatus> {
        // A child that is dying already should be seen to die of its own cause.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        let deadline = Instant::now() + END_GRACE;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                Err(_) => break,
            }
        }
        let _ = self.child.kill();
        self.child.wait().ok()
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

fn describe(status: Option<ExitStatus>, error: &io::Error) -> String {
    match status {
        Some(status) => match (status.signal(), status.code()) {
            (Some(signal), _) => format!("signal {signal}{}", signal_name(signal)),
            (None, Some(code)) => format!("exit status {code}, {error}"),
            (None, None) => error.to_string(),
        },
        None => error.to_string(),
    }
}

const fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGABRT => " (aborted: out of memory, stack exhausted, or a panic)",
        libc::SIGKILL => " (killed: out of memory, or overstayed)",
        libc::SIGSEGV => " (invalid memory access)",
        libc::SIGSYS => " (forbidden system call)",
        libc::SIGXCPU => " (CPU time used up)",
        _ => "",
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
