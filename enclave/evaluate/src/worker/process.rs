//! One child process: started, spoken to over its socket, ended.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream, unix::process::ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use super::{
    WorkerConfig,
    wire::{self, FromChild, Send, Timed},
};
use crate::error::EvaluateError;

/// How long a child may take to end by itself once its socket is shut.
const END_GRACE: Duration = Duration::from_millis(200);

/// A child and the parent's end of its socket.
pub(super) struct Worker {
    pub(super) child: Child,
    pub(super) stream: UnixStream,
}

impl Worker {
    /// Starts a child, hands it its limits and waits until its sandbox is closed.
    ///
    /// # Errors
    /// [`EvaluateError::Internal`] with how the child ended.
    pub(super) fn start(config: &WorkerConfig) -> Result<Self, EvaluateError> {
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
    pub(super) fn end(mut self) -> Option<ExitStatus> {
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

/// How a child ended, for people.
pub(super) fn describe(status: Option<ExitStatus>, error: &io::Error) -> String {
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
