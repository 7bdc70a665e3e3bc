//! Worker processes for untrusted content (design 4.3).
//!
//! Rego, schemas and components are parsed, compiled and run in child processes of the same binary. A child gets an empty
//! environment, one socket and nothing else: no keys, no file descriptors, resource limits, a system-call allow-list. It asks its parent
//! for artifact bytes by hash and for HTTP; the parent decides what it gets. A child that dies or overstays is replaced, and the
//! request that it held abstains.
//!
//! Components are compiled in processes of their own, one each, and kept by [`Modules`]; workers only load them.
//!
//! The parent's side is [`WorkerPool`], the child's is [`worker_main`]. `wire` has the messages, `sandbox` what a child gives up.

mod child;
mod compile;
mod modules;
mod pool;
mod process;
mod rounds;
mod sandbox;
mod wire;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{error::ArtifactError, evaluate::MachineLimits};

pub use child::worker_main;
pub use modules::{Module, ModuleBudget, ModuleStats, ModuleStore, Modules};
pub use pool::{PoolStats, WorkerPool};

/// The answer of an ingest check: follows from the bytes alone, so it may decide what is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The artifact may enter the state.
    Accept,
    /// It may not, and why.
    Reject(ArtifactError),
}

/// Bounds of one worker. They protect the machine; exceeding one abstains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerLimits {
    /// Bounds of single steps, and cache sizes.
    pub machine: MachineLimits,
    /// Bytes of private writable memory (RLIMIT_DATA). Must hold the 256 MiB a component may use and the caches.
    pub memory_bytes: u64,
    /// The same of a process that compiles one component, where that is more: about 400 MiB are used for a large one.
    pub compile_memory_bytes: u64,
    /// Wall clock of everything in a request beside component runs, Rego and compilation; the whole of an ingest check.
    pub request_wall: Duration,
    /// Wall clock of compiling one component.
    pub compile_wall: Duration,
    /// How long a request waits for a free worker.
    pub queue_wall: Duration,
    /// Requests that may wait at once; further ones are refused at once.
    pub queue_length: usize,
    /// CPU seconds of one worker's life (RLIMIT_CPU). A worker that has used half of them is replaced between requests.
    pub cpu_seconds: u64,
}

impl Default for WorkerLimits {
    fn default() -> Self {
        Self {
            machine: MachineLimits::default(),
            memory_bytes: 1 << 30,
            compile_memory_bytes: 1 << 30,
            request_wall: Duration::from_secs(10),
            compile_wall: Duration::from_secs(60),
            queue_wall: Duration::from_secs(15),
            queue_length: 256,
            cpu_seconds: 3_600,
        }
    }
}

impl WorkerLimits {
    /// The same limits with every wall clock multiplied, for machines under emulation.
    #[must_use]
    pub fn slowed(mut self, factor: u32) -> Self {
        for wall in [
            &mut self.machine.component_wall,
            &mut self.machine.rego_wall,
            &mut self.request_wall,
            &mut self.compile_wall,
            &mut self.queue_wall,
        ] {
            *wall = wall.saturating_mul(factor);
        }
        self
    }
}

/// How to start workers.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Program to run; a program names itself.
    pub exe: PathBuf,
    /// Its first argument, upon which it must call [`worker_main`] before anything else.
    pub arg: OsString,
    /// Number of workers.
    pub workers: usize,
    /// Bounds of each.
    pub limits: WorkerLimits,
}
