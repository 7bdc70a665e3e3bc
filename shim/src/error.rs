//! What can go wrong in the shim itself.

use crate::AllowError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Errors of the shim.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShimError {
    /// The configuration file is not what it should be.
    #[error("configuration {path}: {reason}")]
    Config {
        /// The file, or the field's name.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// An entry of the allow-list.
    #[error("allow-list: {0}")]
    Allow(#[from] AllowError),
    /// A file or socket.
    #[error("{what} {path}: {source}")]
    File {
        /// What it is for.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another shim serves this page file.
    #[error("page file {path} is in use by another shim")]
    PageFileInUse {
        /// Where it is.
        path: PathBuf,
    },
    /// A socket in the state folder would have a path that the system does not allow.
    #[error(
        "state folder {path} is too long: sockets in it may have {limit} bytes, the longest would have {got}"
    )]
    PathTooLong {
        /// The folder.
        path: PathBuf,
        /// Most bytes of a socket's path.
        limit: usize,
        /// Bytes of the longest one.
        got: usize,
    },
    /// A port of the guest's or the API's.
    #[error("cannot listen for {what}: {source}")]
    Listen {
        /// The service.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The enclave ended before it was ready.
    #[error(
        "the enclave ended before it was ready ({reason}); last lines of its console:\n{console}"
    )]
    Ended {
        /// How.
        reason: String,
        /// The end of its console.
        console: String,
    },
    /// The enclave did not say hello in time.
    #[error("the enclave was not ready after {after:?}; last lines of its console:\n{console}")]
    NotReady {
        /// The limit.
        after: Duration,
        /// The end of its console.
        console: String,
    },
    /// `nitro-cli` failed, or this is no Nitro host.
    #[error("nitro-cli {command}: {reason}")]
    Nitro {
        /// Its subcommand.
        command: &'static str,
        /// What it said.
        reason: String,
    },
    /// The gas payer's key.
    #[error("gas payer's key from {from}: {reason}")]
    GasKey {
        /// The file or variable.
        from: String,
        /// What is wrong; never the key.
        reason: &'static str,
    },
    /// The gas payer's endpoint of a chain.
    #[error("gas payer's endpoint of chain {chain_id}: {source}")]
    GasChain {
        /// The chain.
        chain_id: u64,
        /// What is wrong.
        source: newton_http::HttpError,
    },
}

impl ShimError {
    pub(crate) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
