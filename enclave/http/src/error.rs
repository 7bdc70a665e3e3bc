//! What can go wrong with a request.

use std::{fmt, io, time::Duration};

/// Which part of an exchange was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for a free connection slot, dialling, TLS.
    Connect,
    /// From sending the request to the last byte of the answer.
    Exchange,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Exchange => "waiting for the answer",
        })
    }
}

/// Errors of [`crate::HttpClient`]. `peer` is `host:port`; paths and queries never appear.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The URL cannot be used; the URL itself is not repeated because it may hold a key.
    #[error("unusable URL: {0}")]
    InvalidUrl(&'static str),
    /// The path, a header, or the body cannot be put into a request.
    #[error("unusable request: {0}")]
    InvalidRequest(&'static str),
    /// No byte pipe to the peer.
    #[error("cannot reach {peer}: {source}")]
    Dial {
        /// `host:port`.
        peer: String,
        /// What the dialler said.
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("TLS with {peer} failed: {source}")]
    Tls {
        /// `host:port`.
        peer: String,
        /// What rustls said.
        source: io::Error,
    },
    /// The peer broke HTTP, or the connection broke.
    #[error("HTTP exchange with {peer} failed: {source}")]
    Protocol {
        /// `host:port`.
        peer: String,
        /// What hyper said.
        source: hyper::Error,
    },
    /// A limit in time was reached.
    #[error("{peer}: timed out after {after:?} while {stage}")]
    Timeout {
        /// `host:port`.
        peer: String,
        /// What was under way.
        stage: Stage,
        /// The limit.
        after: Duration,
    },
    /// The answer's body is larger than the caller allows; nothing beyond the limit was kept.
    #[error("{peer}: body of at least {got} bytes exceeds the limit of {limit}")]
    BodyTooLarge {
        /// `host:port`.
        peer: String,
        /// The limit in bytes.
        limit: usize,
        /// Bytes announced or received so far.
        got: u64,
    },
    /// A status other than 2xx where JSON was asked for.
    #[error("{peer}: status {status}, expected 2xx: {excerpt}")]
    Status {
        /// `host:port`.
        peer: String,
        /// The status code.
        status: u16,
        /// The first 200 characters of the body, control characters replaced.
        excerpt: String,
    },
    /// The body is not the JSON expected.
    #[error("{peer}: answer is not the JSON expected: {source}")]
    Json {
        /// `host:port`.
        peer: String,
        /// What serde said.
        source: serde_json::Error,
    },
}

impl HttpError {
    /// Whether trying again later may help without any change on our side.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Dial { .. } | Self::Tls { .. } | Self::Protocol { .. } | Self::Timeout { .. } => {
                true
            }
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..),
            Self::InvalidUrl(_)
            | Self::InvalidRequest(_)
            | Self::BodyTooLarge { .. }
            | Self::Json { .. } => false,
        }
    }
}
