//! Compilation: a process for each component, a bounded number at once.
//!
//! A process that compiles has run nothing before and is ended afterwards, so what it returns follows from the component and from the
//! compiler. A worker's word would not do: content that broke out of an earlier evaluation could answer for another component.

use std::{
    io,
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use alloy_primitives::B256;

use super::{
    WorkerConfig,
    process::{Worker, describe},
    wire::{self, FromChild, Send, Timed},
};
use crate::error::{EvaluateError, Stage};

/// Starts the processes.
pub(super) struct Compilers {
    config: WorkerConfig,
    free: Mutex<usize>,
    freed: Condvar,
}

impl Compilers {
    /// At most `at_once` processes.
    pub(super) fn new(mut config: WorkerConfig, at_once: usize) -> Self {
        config.limits.memory_bytes = config
            .limits
            .memory_bytes
            .max(config.limits.compile_memory_bytes);
        Self {
            config,
            free: Mutex::new(at_once.max(1)),
            freed: Condvar::new(),
        }
    }

    /// Compiles one component, whose hash the caller has checked.
    pub(super) fn compile(&self, component: B256, bytes: &[u8]) -> Result<Vec<u8>, EvaluateError> {
        let _place = self.place()?;
        let mut worker = Worker::start(&self.config)?;
        let wall = self.config.limits.compile_wall;
        let outcome = exchange(&mut worker, bytes, wall);
        let status = worker.end();
        match outcome {
            Ok(Ok(module)) => Ok(module),
            Ok(Err(error)) => Err(match error {
                Refusal::Refused(source) => EvaluateError::InvalidArtifact {
                    artifact: component,
                    source,
                },
                Refusal::Failed(error) => error,
            }),
            Err(error) => {
                tracing::error!(%component, %error, "a compilation was lost");
                Err(match error.kind() {
                    io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                        EvaluateError::WallClockExceeded {
                            stage: Stage::Compile,
                            limit_ms: millis(wall),
                        }
                    }
                    _ => EvaluateError::WorkerDied {
                        reason: describe(status, &error),
                    },
                })
            }
        }
    }

    fn place(&self) -> Result<Place<'_>, EvaluateError> {
        // As long as one compilation may take: what waits longer is behind several.
        let patience = self.config.limits.compile_wall;
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut free, _) = self
            .freed
            .wait_timeout_while(free, patience, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        if *free == 0 {
            return Err(EvaluateError::WorkersBusy {
                waited_ms: millis(patience),
            });
        }
        *free -= 1;
        Ok(Place(self))
    }
}

/// The right to run one process.
struct Place<'a>(&'a Compilers);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

use wire::CompileRefusal as Refusal;

fn exchange(
    worker: &mut Worker,
    bytes: &[u8],
    wall: Duration,
) -> io::Result<Result<Vec<u8>, Refusal>> {
    let mut stream = Timed {
        stream: &mut worker.stream,
        deadline: Instant::now() + wall,
    };
    wire::write(&mut stream, &Send::Compile(bytes.len() as u64), 0)?;
    wire::write_bytes(&mut stream, bytes)?;
    match wire::read(&mut stream)? {
        FromChild::Compiled(Ok(length)) => wire::read_bytes(&mut stream, length).map(Ok),
        FromChild::Compiled(Err(refusal)) => Ok(Err(refusal)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
