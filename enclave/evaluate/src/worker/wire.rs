//! Frames between parent and child: a length of 4 bytes, little-endian, and postcard.
//!
//! Neither side trusts the other's length: it is bounded before anything is allocated. Public bytes (artifacts, compiled components)
//! follow their frame as they are, without the copies and the wiping that a frame gets: [`write_bytes`], [`read_bytes`].

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    time::{Duration, Instant},
};

use alloy_primitives::B256;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::{Verdict, WorkerLimits};
use crate::{
    error::{ArtifactError, EvaluateError},
    evaluate::{Concluded, Prepared},
    merge::{Outputs, Quorum},
    request::{ArtifactKind, EvaluateRequest, Evaluation, SecretBytes},
    transcript::{FetchError, HttpOutcome, HttpRequest},
};

/// Largest frame in either direction: an artifact with room beside it.
pub(super) const MAX_FRAME: usize = 40 << 20;

/// Parent to child, as the parent writes it.
#[derive(Serialize)]
pub(super) enum Send<'a> {
    Hello(&'a WorkerLimits),
    Check {
        kind: ArtifactKind,
        length: u64,
        entrypoint: Option<&'a str>,
    },
    Prewarm(B256),
    Evaluate(&'a EvaluateRequest, bool),
    CheckSecrets {
        instance_id: B256,
        schema: Option<B256>,
        secrets: &'a SecretBytes,
    },
    Artifact(Option<u64>),
    Http(Result<HttpOutcome, FetchError>),
    Prepare(&'a EvaluateRequest, bool),
    Conclude(&'a EvaluateRequest, Quorum, &'a BTreeMap<B256, Outputs>),
    Compile(u64),
    Module(Result<u64, EvaluateError>),
}

/// Parent to child, as the child reads it. The same variants in the same order as [`Send`].
#[derive(Deserialize)]
pub(super) enum Receive {
    /// First message: the limits.
    Hello(WorkerLimits),
    /// Check one artifact, of the length that follows.
    Check {
        kind: ArtifactKind,
        length: u64,
        entrypoint: Option<String>,
    },
    /// Compile into the cache.
    Prewarm(B256),
    /// Evaluate; whether HTTP can be asked for.
    Evaluate(Box<EvaluateRequest>, bool),
    /// Validate a secrets document.
    CheckSecrets {
        instance_id: B256,
        schema: Option<B256>,
        secrets: SecretBytes,
    },
    /// Answer to [`FromChild::NeedArtifact`]: the length of what follows.
    Artifact(Option<u64>),
    /// Answer to [`FromChild::Http`].
    Http(Result<HttpOutcome, FetchError>),
    /// Run the components only; whether HTTP can be asked for.
    Prepare(Box<EvaluateRequest>, bool),
    /// Merge the operators' outputs, by data instance, and decide.
    Conclude(Box<EvaluateRequest>, Quorum, BTreeMap<B256, Outputs>),
    /// Compile a component of the length that follows; the only request of its process.
    Compile(u64),
    /// Answer to [`FromChild::NeedModule`]: the length of what follows.
    Module(Result<u64, EvaluateError>),
}

/// Child to parent.
#[derive(Serialize, Deserialize)]
pub(super) enum FromChild {
    /// The sandbox is closed and requests are welcome.
    Ready,
    /// The child cannot start.
    Failed(String),
    /// Bytes wanted.
    NeedArtifact(B256),
    /// HTTP wanted; the largest body that may come back.
    Http(HttpRequest, u64),
    /// A compiled component wanted.
    NeedModule(B256),
    /// Answer to [`Receive::Compile`]: the length of what follows.
    Compiled(Result<u64, CompileRefusal>),
    /// The end of a request.
    Done {
        /// Its outcome.
        reply: Reply,
        /// Whether the child has used up its life and should be replaced.
        retire: bool,
    },
}

/// Why there is no compiled component.
#[derive(Serialize, Deserialize)]
pub(super) enum CompileRefusal {
    /// The bytes break a rule.
    Refused(ArtifactError),
    /// The compiler failed; an abstention.
    Failed(EvaluateError),
}

/// The outcome of a request.
#[derive(Serialize, Deserialize)]
pub(super) enum Reply {
    Checked(Verdict),
    Prewarmed(Result<(), EvaluateError>),
    Evaluated(Result<Evaluation, EvaluateError>),
    SecretsChecked(Result<(), EvaluateError>),
    Prepared(Result<Vec<Prepared>, EvaluateError>),
    Concluded(Result<Concluded, EvaluateError>),
}

/// Writes one message. The buffer is wiped: it may hold secrets.
pub(super) fn write<T: Serialize>(
    stream: &mut impl Write,
    message: &T,
    size_hint: usize,
) -> io::Result<()> {
    // One allocation that is large enough, so that no copy is left behind by growing.
    let mut frame = Zeroizing::new(Vec::with_capacity(size_hint + 4_096));
    frame.extend_from_slice(&[0; 4]);
    let taken = std::mem::take(&mut *frame);
    *frame = postcard::to_extend(message, taken).map_err(io::Error::other)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("message of {length} bytes, at most {MAX_FRAME} are allowed"),
        ));
    }
    // Fits: bounded just above.
    let header = u32::try_from(length)
        .map_err(io::Error::other)?
        .to_le_bytes();
    frame[..4].copy_from_slice(&header);
    stream.write_all(&frame)
}

/// Reads one message.
pub(super) fn read<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<T> {
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    let length = u32::from_le_bytes(header) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("message of {length} bytes, at most {MAX_FRAME} are allowed"),
        ));
    }
    let mut frame = Zeroizing::new(vec![0; length]);
    stream.read_exact(&mut frame)?;
    postcard::from_bytes(&frame).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Longest run of bytes behind a frame: about 45 MB of machine code come of 12 MB of JavaScript, and 24 MiB are allowed.
const MAX_BYTES: u64 = 192 << 20;

/// Writes what a frame announced.
pub(super) fn write_bytes(stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)
}

/// Reads what a frame announced.
pub(super) fn read_bytes(stream: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    if length > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{length} bytes, at most {MAX_BYTES} are allowed"),
        ));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).map_err(io::Error::other)?);
    if stream.take(length).read_to_end(&mut bytes)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

/// A stream whose reads and writes end at a deadline.
pub(super) struct Timed<'a, S> {
    pub(super) stream: &'a mut S,
    pub(super) deadline: Instant,
}

/// What [`Timed`] needs of a stream.
pub(super) trait SetTimeout {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()>;
}

impl SetTimeout for std::os::unix::net::UnixStream {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

impl<S: SetTimeout> Timed<'_, S> {
    fn arm(&self) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_timeout(left)
    }
}

impl<S: Read + SetTimeout> Read for Timed<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.arm()?;
        self.stream.read(buffer)
    }
}

impl<S: Write + SetTimeout> Write for Timed<'_, S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.arm()?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
