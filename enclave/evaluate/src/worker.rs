//! Worker processes for untrusted content (design 4.3). API first; the processes follow.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use alloy_primitives::B256;
use serde::{Deserialize, Serialize};

use crate::{
    error::{ArtifactError, EvaluateError},
    request::{ArtifactKind, ArtifactSource, EvaluateRequest, Evaluation},
    transcript::HttpFetcher,
};

/// The answer of an ingest check: follows from the bytes alone, so it may decide what is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The artifact may enter the state.
    Accept,
    /// It may not, and why.
    Reject(ArtifactError),
}

/// Bounds of one worker. They protect the machine, exceeding one abstains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerLimits {
    /// Bytes of private writable memory (RLIMIT_DATA).
    pub memory_bytes: u64,
    /// Wall clock of one component run.
    pub component_wall: Duration,
    /// Wall clock of one Rego evaluation.
    pub rego_wall: Duration,
    /// Wall clock of a whole request that compiles nothing new, and of an ingest check.
    pub request_wall: Duration,
    /// Added to `request_wall` for each component that may have to be compiled.
    pub compile_wall: Duration,
    /// How long a request waits for a free worker.
    pub queue_wall: Duration,
    /// CPU seconds of one worker's life (RLIMIT_CPU); a worker that used half of them is replaced between requests.
    pub cpu_seconds: u64,
    /// Bytes of compiled components kept by each worker.
    pub cache_bytes: u64,
}

/// How to start workers.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Program to run; the appliance names itself, `/proc/self/exe`.
    pub exe: PathBuf,
    /// Its first argument, upon which it must call [`worker_main`] before anything else.
    pub arg: OsString,
    /// Number of workers.
    pub workers: usize,
    /// Bounds of each.
    pub limits: WorkerLimits,
}

/// A fixed number of worker processes. All calls block; use them from blocking threads.
pub struct WorkerPool {}

impl WorkerPool {
    /// Starts the workers.
    ///
    /// # Errors
    /// When a process cannot be started or does not greet.
    pub fn spawn(config: WorkerConfig) -> Result<Self, EvaluateError> {
        let _ = config;
        Err(unfinished())
    }

    /// The ingest check of one artifact. `entrypoint` is needed for Rego and refused for everything else.
    ///
    /// # Errors
    /// Only abstentions: the worker died, timed out, was busy. A verdict is never one of them.
    pub fn check_artifact(&self, kind: ArtifactKind, bytes: &[u8], entrypoint: Option<&str>) -> Result<Verdict, EvaluateError> {
        let _ = (kind, bytes, entrypoint);
        Err(unfinished())
    }

    /// Compiles a component into every worker's cache.
    ///
    /// # Errors
    /// [`EvaluateError::InvalidArtifact`], or an abstention.
    pub fn prewarm(&self, wasm: B256, source: &dyn ArtifactSource) -> Result<(), EvaluateError> {
        let _ = (wasm, source);
        Err(unfinished())
    }

    /// One evaluation. `http` performs the components' requests; without it a component that asks abstains.
    ///
    /// # Errors
    /// Any [`EvaluateError`].
    pub fn evaluate(
        &self,
        request: &EvaluateRequest,
        source: &dyn ArtifactSource,
        http: Option<&dyn HttpFetcher>,
    ) -> Result<Evaluation, EvaluateError> {
        let _ = (request, source, http);
        Err(unfinished())
    }
}

/// Entry of the child process; never returns. Call it first thing in `main` when the first argument is the configured one.
pub fn worker_main() -> ! {
    std::process::exit(70)
}

fn unfinished() -> EvaluateError {
    EvaluateError::Internal { reason: "worker processes are not built yet".to_owned() }
}
