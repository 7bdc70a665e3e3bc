//! The enclave's end of the disk service.

use std::io::{self, Read, Write};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{MAX_BODY, Reply, Request, Run, SlotRange, VERSION, decode_reply, encode_request};
use crate::transport::backoff_from;
use crate::{Connector, ErrorCode, HostError, WireError, ports, read_frame, write_frame};

/// Numbered slots of one size on an untrusted medium. What a read returns may be anything; the caller checks it.
///
/// Writes may reach the medium in any order, in part, or not at all until [`BlockDevice::flush`] returns.
pub trait BlockDevice: Send + Sync + 'static {
    /// Length of a slot in bytes.
    fn slot_bytes(&self) -> usize;

    /// Length of the medium in **bytes**: no whole number of slots if someone else wrote it.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn len_bytes(&self) -> Result<u64, DeviceError>;

    /// Cuts the medium to `slots` or extends it with zeros.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn set_len(&self, slots: u64) -> Result<(), DeviceError>;

    /// Reads the ranges, one after the other, into `out`, which has exactly their length.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] if a slot lies beyond the end; [`DeviceError`].
    fn read_slots(&self, ranges: &[SlotRange], out: &mut [u8]) -> Result<(), DeviceError>;

    /// Writes the runs, extending the medium as needed.
    ///
    /// # Errors
    /// [`DeviceError`]; then any part may have been written.
    fn write_slots(&self, runs: &[Run<'_>]) -> Result<(), DeviceError>;

    /// Returns once everything written before is on stable storage.
    ///
    /// # Errors
    /// [`DeviceError`]; then nothing is known about the writes since the last flush.
    fn flush(&self) -> Result<(), DeviceError>;

    /// Writes, then flushes: one round trip where the device can.
    ///
    /// # Errors
    /// As both.
    fn write_and_flush(&self, runs: &[Run<'_>]) -> Result<(), DeviceError> {
        self.write_slots(runs)?;
        self.flush()
    }
}

/// Why the medium failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// A slot beyond the end of the medium was read.
    #[error("page device: read beyond the end of the file")]
    OutOfRange,
    /// The host reports an error.
    #[error("page device: {0}")]
    Host(#[from] HostError),
    /// The host broke the protocol, or the connection broke and stayed away for the time allowed.
    #[error("page device: {0}")]
    Wire(#[from] WireError),
    /// The caller's buffer does not fit its ranges or runs.
    #[error("page device: expected {expected} bytes, got {got}")]
    Length {
        /// What the ranges amount to.
        expected: usize,
        /// What the buffer holds.
        got: usize,
    },
}

/// How patient the client is.
#[derive(Debug, Clone)]
pub struct DiskOptions {
    /// Longest wait for one read or write of the stream. A flush of a slow disk has to fit.
    pub io_timeout: Duration,
    /// How long the client tries to reconnect after the connection broke, before an operation fails.
    pub patience: Duration,
    /// The pause before an operation is tried for the second time; it doubles from there, up to 2 s.
    pub first_pause: Duration,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            io_timeout: Duration::from_secs(60),
            patience: Duration::from_secs(120),
            first_pause: Duration::from_millis(50),
        }
    }
}

/// Frames in flight. Replies to writes and requests of reads are small, and the two are never mixed in one batch, so that
/// neither side can wait for the other with both directions full.
const WINDOW: usize = 8;
/// Ranges of one read frame, so that a window of requests fits into a socket's buffer.
const RANGES_PER_FRAME: usize = 512;
/// Fields of a message before its content: kind, id, count.
const OVERHEAD: usize = 1 + 8 + 4;
/// Fields of a run before its bytes.
const RUN_OVERHEAD: usize = 12;
/// How often an operation is repeated because the host's frames were damaged.
const MAX_DAMAGED: u32 = 3;

/// The host's page file as a [`BlockDevice`].
///
/// Every operation may be repeated, so a broken connection is made anew and the operation runs again: the shim may
/// restart at any time.
pub struct DiskClient {
    dial: Dial,
    slot_bytes: u32,
    options: DiskOptions,
    link: Mutex<Link>,
}

/// Bytes both ways.
pub trait Duplex: Read + Write + Send {}

impl<T: Read + Write + Send> Duplex for T {}

/// Makes a connection to a disk service.
pub type Dial = Box<dyn Fn() -> io::Result<Box<dyn Duplex>> + Send + Sync>;

struct Link {
    stream: Option<Box<dyn Duplex>>,
    next_id: u64,
}

impl DiskClient {
    /// Connects to the host's disk service, waiting for it as long as `options.patience`.
    ///
    /// # Errors
    /// [`DeviceError`]; [`WireError::Invalid`] within it for a slot size the protocol does not allow.
    pub fn connect(
        connector: Connector,
        slot_bytes: u32,
        options: DiskOptions,
    ) -> Result<Self, DeviceError> {
        let io_timeout = options.io_timeout;
        let dial = Box::new(move || -> io::Result<Box<dyn Duplex>> {
            let stream = connector.connect(ports::DISK)?;
            stream.set_timeouts(Some(io_timeout))?;
            Ok(Box::new(stream))
        });
        Self::over(dial, slot_bytes, options)
    }

    /// The same over connections that `dial` makes; `options.io_timeout` is theirs to keep.
    ///
    /// # Errors
    /// As [`DiskClient::connect`].
    pub fn over(dial: Dial, slot_bytes: u32, options: DiskOptions) -> Result<Self, DeviceError> {
        super::check_slot_bytes(slot_bytes)?;
        let link = Mutex::new(Link {
            stream: None,
            next_id: 0,
        });
        let client = Self {
            dial,
            slot_bytes,
            options,
            link,
        };
        client.len_bytes()?;
        Ok(client)
    }

    /// Runs the requests, pipelined, and hands each reply to `take`; all of it again if the connection breaks.
    fn run(
        &self,
        requests: &[Request<'_>],
        take: &mut dyn FnMut(usize, Reply<'_>) -> Result<(), WireError>,
    ) -> Result<(), DeviceError> {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + self.options.patience;
        let mut damaged = 0;
        for attempt in 0.. {
            let result = self.attempt(&mut link, requests, take);
            let Err(DeviceError::Wire(error)) = result else {
                return result;
            };
            // Framing may be lost: never reuse a stream after a wire error.
            link.stream = None;
            if !error.is_disconnect() {
                damaged += 1;
            }
            if damaged >= MAX_DAMAGED || Instant::now() >= deadline {
                return Err(error.into());
            }
            thread::sleep(backoff_from(self.options.first_pause, attempt));
        }
        unreachable!("the loop has no end of its own")
    }

    fn attempt(
        &self,
        link: &mut Link,
        requests: &[Request<'_>],
        take: &mut dyn FnMut(usize, Reply<'_>) -> Result<(), WireError>,
    ) -> Result<(), DeviceError> {
        let Link { stream, next_id } = link;
        if stream.is_none() {
            let fresh = stream.insert((self.dial)().map_err(WireError::from)?);
            let hello = [Request::Hello {
                version: VERSION,
                slot_bytes: self.slot_bytes,
            }];
            pipeline(
                &mut **fresh,
                next_id,
                self.slot_bytes,
                &hello,
                &mut |_, reply| expect_done(&reply),
            )?;
        }
        // Set above.
        let Some(stream) = stream.as_mut() else {
            unreachable!("connected above")
        };
        pipeline(&mut **stream, next_id, self.slot_bytes, requests, take)
    }

    fn done(&self, requests: &[Request<'_>]) -> Result<(), DeviceError> {
        self.run(requests, &mut |_, reply| expect_done(&reply))
    }

    fn write_requests<'a>(&self, runs: &[Run<'a>]) -> Result<Vec<Request<'a>>, DeviceError> {
        let slot = self.slot_bytes as usize;
        let mut requests = Vec::new();
        let mut frame: Vec<Run<'a>> = Vec::new();
        let mut room = MAX_BODY - OVERHEAD;
        for run in runs {
            if !run.data.len().is_multiple_of(slot) {
                let expected = run.data.len().next_multiple_of(slot);
                return Err(DeviceError::Length {
                    expected,
                    got: run.data.len(),
                });
            }
            let mut rest = *run;
            while !rest.data.is_empty() {
                if room < RUN_OVERHEAD + slot || frame.len() == super::MAX_RANGES {
                    requests.push(Request::Write {
                        runs: std::mem::take(&mut frame),
                    });
                    room = MAX_BODY - OVERHEAD;
                }
                let slots = ((room - RUN_OVERHEAD) / slot).min(rest.data.len() / slot);
                let (data, more) = rest.data.split_at(slots * slot);
                frame.push(Run {
                    first: rest.first,
                    data,
                });
                room -= RUN_OVERHEAD + data.len();
                rest = Run {
                    first: rest.first + slots as u64,
                    data: more,
                };
            }
        }
        if !frame.is_empty() {
            requests.push(Request::Write { runs: frame });
        }
        Ok(requests)
    }
}

impl BlockDevice for DiskClient {
    fn slot_bytes(&self) -> usize {
        self.slot_bytes as usize
    }

    fn len_bytes(&self) -> Result<u64, DeviceError> {
        let mut bytes = 0;
        self.run(&[Request::Len], &mut |_, reply| match reply {
            Reply::Len(len) => {
                bytes = len;
                Ok(())
            }
            _ => Err(UNEXPECTED),
        })?;
        Ok(bytes)
    }

    fn set_len(&self, slots: u64) -> Result<(), DeviceError> {
        self.done(&[Request::SetLen { slots }])
    }

    fn read_slots(&self, ranges: &[SlotRange], out: &mut [u8]) -> Result<(), DeviceError> {
        let slot = self.slot_bytes as usize;
        let expected = ranges
            .iter()
            .map(|range| range.count as usize)
            .sum::<usize>()
            .saturating_mul(slot);
        if out.len() != expected {
            return Err(DeviceError::Length {
                expected,
                got: out.len(),
            });
        }
        let mut requests = Vec::new();
        // Where each request's bytes go.
        let mut targets = Vec::new();
        let mut frame: Vec<SlotRange> = Vec::new();
        let frame_slots = ((MAX_BODY - OVERHEAD) / slot) as u32;
        let mut room = frame_slots;
        let mut start = 0;
        let mut close = |frame: &mut Vec<SlotRange>, room: &mut u32| {
            let len = (frame_slots - *room) as usize * slot;
            requests.push(Request::Read {
                ranges: std::mem::take(frame),
            });
            targets.push(start..start + len);
            start += len;
            *room = frame_slots;
        };
        for range in ranges {
            let mut rest = *range;
            while rest.count > 0 {
                if room == 0 || frame.len() == RANGES_PER_FRAME {
                    close(&mut frame, &mut room);
                }
                let count = rest.count.min(room);
                frame.push(SlotRange {
                    first: rest.first,
                    count,
                });
                room -= count;
                rest = SlotRange {
                    first: rest.first.saturating_add(count.into()),
                    count: rest.count - count,
                };
            }
        }
        if !frame.is_empty() {
            close(&mut frame, &mut room);
        }
        self.run(&requests, &mut |i, reply| {
            let Reply::Data(data) = reply else {
                return Err(UNEXPECTED);
            };
            let target = &mut out[targets[i].clone()];
            if data.len() != target.len() {
                return Err(WireError::Truncated {
                    what: "slots read",
                    expected: target.len(),
                    got: data.len(),
                });
            }
            target.copy_from_slice(data);
            Ok(())
        })
    }

    fn write_slots(&self, runs: &[Run<'_>]) -> Result<(), DeviceError> {
        self.done(&self.write_requests(runs)?)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.done(&[Request::Flush])
    }

    fn write_and_flush(&self, runs: &[Run<'_>]) -> Result<(), DeviceError> {
        let mut requests = self.write_requests(runs)?;
        requests.push(Request::Flush);
        self.done(&requests)
    }
}

const UNEXPECTED: WireError = WireError::Invalid {
    what: "disk reply",
    why: "of another kind than asked for",
};

fn expect_done(reply: &Reply<'_>) -> Result<(), WireError> {
    if *reply == Reply::Done {
        Ok(())
    } else {
        Err(UNEXPECTED)
    }
}

/// Sends the requests with at most [`WINDOW`] unanswered. After a failed one nothing more is sent, the rest of the answers
/// is taken off the stream, and the first failure is returned.
fn pipeline(
    stream: &mut dyn Duplex,
    next_id: &mut u64,
    slot_bytes: u32,
    requests: &[Request<'_>],
    take: &mut dyn FnMut(usize, Reply<'_>) -> Result<(), WireError>,
) -> Result<(), DeviceError> {
    let first_id = *next_id;
    let (mut sent, mut answered) = (0, 0);
    let mut failure = None;
    loop {
        while failure.is_none() && sent < requests.len() && sent - answered < WINDOW {
            let body = encode_request(*next_id, &requests[sent], slot_bytes)?;
            write_frame(stream, &body, MAX_BODY)?;
            *next_id += 1;
            sent += 1;
        }
        if answered == sent {
            return failure.map_or(Ok(()), Err);
        }
        let Some(body) = read_frame(stream, MAX_BODY)? else {
            return Err(WireError::Truncated {
                what: "frame",
                expected: crate::HEADER_BYTES,
                got: 0,
            }
            .into());
        };
        let (id, reply) = decode_reply(&body)?;
        if id != first_id + answered as u64 {
            return Err(WireError::Invalid {
                what: "disk reply",
                why: "not the one that is due",
            }
            .into());
        }
        match reply {
            Reply::Failed(error) if failure.is_none() => {
                failure = Some(match error.code() {
                    ErrorCode::OutOfRange => DeviceError::OutOfRange,
                    _ => DeviceError::Host(error),
                });
            }
            Reply::Failed(_) => {}
            reply => take(answered, reply)?,
        }
        answered += 1;
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
