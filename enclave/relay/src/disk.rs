//! The disk service (host port 7001): numbered slots of one fixed size in the host's page file.
//!
//! The guest sends request frames, several in flight; the host handles them in the order they came and answers each
//! with one reply frame under the request's id. The first request of a connection is [`Request::Hello`], which fixes
//! the slot size. A request that fails changes nothing the host reports, and the connection goes on.
//!
//! | kind | request | fields | reply |
//! |---|---|---|---|
//! | 0 | Hello | `u16` version, `u32` slot bytes | done |
//! | 1 | Read | `u32` n, n × (`u64` first, `u32` slots) | data: the slots' bytes in the order asked |
//! | 2 | Write | `u32` n, n × (`u64` first, `u32` slots, bytes) | done |
//! | 3 | Flush | | done, once all earlier writes are on stable storage |
//! | 4 | Len | | length of the file in bytes |
//! | 5 | SetLen | `u64` slots | done |
//!
//! A request is `u8 kind, u64 id, fields`; a reply is `u8 kind, u64 id, fields` with the kinds 0 done, 1 data (the rest of
//! the body), 2 length (`u64` bytes), 3 failed (`u16` code, `u32` length, text). Integers are little-endian.
//! A Write beyond the end extends the file. A Read beyond the end fails with [`ErrorCode::OutOfRange`](crate::ErrorCode).

mod client;

pub use client::{BlockDevice, DeviceError, Dial, DiskClient, DiskOptions, Duplex};

use crate::wire::{Put, Reader};
use crate::{HostError, WireError};

/// Version of the disk protocol.
pub const VERSION: u16 = 1;
/// Longest body of a request or reply frame.
pub const MAX_BODY: usize = 1 << 20;
/// Longest slot a [`Request::Hello`] may ask for.
pub const MAX_SLOT_BYTES: u32 = 64 * 1024;
/// Most ranges or runs in one request.
pub const MAX_RANGES: usize = 4096;

/// `count` slots from `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRange {
    /// Number of the first slot.
    pub first: u64,
    /// How many slots, at least one.
    pub count: u32,
}

impl SlotRange {
    /// The slot after the last one; `None` if it overflows.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.first.checked_add(u64::from(self.count))
    }
}

/// Contiguous slots to write: `data` holds a whole number of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run<'a> {
    /// Number of the first slot.
    pub first: u64,
    /// The slots' bytes.
    pub data: &'a [u8],
}

/// What the guest asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// Opens the connection.
    Hello {
        /// [`VERSION`] of the guest.
        version: u16,
        /// Length of every slot of this file in bytes, 1 to [`MAX_SLOT_BYTES`].
        slot_bytes: u32,
    },
    /// Reads slots.
    Read {
        /// What to read; the reply holds the bytes in this order.
        ranges: Vec<SlotRange>,
    },
    /// Writes slots.
    Write {
        /// What to write where.
        runs: Vec<Run<'a>>,
    },
    /// Puts all earlier writes on stable storage.
    Flush,
    /// Asks for the file's length.
    Len,
    /// Cuts or extends the file (with zeros).
    SetLen {
        /// The new length in slots.
        slots: u64,
    },
}

/// What the host answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Done.
    Done,
    /// Bytes read.
    Data(&'a [u8]),
    /// Length of the file in **bytes**, so that a file that is no whole number of slots shows.
    Len(u64),
    /// The request failed.
    Failed(HostError),
}

const HEAD: usize = 1 + 8;

/// Encodes a request's body. `slot_bytes` is the size of the connection's Hello.
///
/// # Errors
/// [`WireError::TooLong`] if the body exceeds [`MAX_BODY`] or a list [`MAX_RANGES`]; [`WireError::Invalid`] if a run is no whole
/// number of slots or a range is empty.
pub fn encode_request(
    id: u64,
    request: &Request<'_>,
    slot_bytes: u32,
) -> Result<Vec<u8>, WireError> {
    let (kind, size) = match request {
        Request::Hello { .. } => (0u8, 6),
        Request::Read { ranges } => (1, 4 + 12 * ranges.len()),
        Request::Write { runs } => (
            2,
            4 + runs.iter().map(|run| 12 + run.data.len()).sum::<usize>(),
        ),
        Request::Flush => (3, 0),
        Request::Len => (4, 0),
        Request::SetLen { .. } => (5, 8),
    };
    check_body(HEAD + size)?;
    let mut body = Vec::with_capacity(HEAD + size);
    body.put(&[kind]);
    body.put(&id.to_le_bytes());
    match request {
        Request::Hello {
            version,
            slot_bytes,
        } => {
            check_slot_bytes(*slot_bytes)?;
            body.put(&version.to_le_bytes());
            body.put(&slot_bytes.to_le_bytes());
        }
        Request::Read { ranges } => {
            put_count(&mut body, ranges.len())?;
            for range in ranges {
                check_range(range)?;
                body.put(&range.first.to_le_bytes());
                body.put(&range.count.to_le_bytes());
            }
        }
        Request::Write { runs } => {
            put_count(&mut body, runs.len())?;
            for run in runs {
                if run.data.is_empty() || !run.data.len().is_multiple_of(slot_bytes as usize) {
                    return Err(WireError::Invalid {
                        what: "written run",
                        why: "not a whole number of slots",
                    });
                }
                let count = (run.data.len() / slot_bytes as usize) as u32;
                check_range(&SlotRange {
                    first: run.first,
                    count,
                })?;
                body.put(&run.first.to_le_bytes());
                body.put(&count.to_le_bytes());
                body.put(run.data);
            }
        }
        Request::SetLen { slots } => body.put(&slots.to_le_bytes()),
        Request::Flush | Request::Len => {}
    }
    Ok(body)
}

/// Decodes a request's body. `slot_bytes` is the size of the connection's Hello (any value before it).
///
/// # Errors
/// [`WireError`] naming the field. A Read whose reply would exceed [`MAX_BODY`] is [`WireError::TooLong`].
pub fn decode_request(body: &[u8], slot_bytes: u32) -> Result<(u64, Request<'_>), WireError> {
    check_body(body.len())?;
    let mut reader = Reader::new("disk request", body);
    let kind = reader.u8()?;
    let id = reader.u64()?;
    let request = match kind {
        0 => {
            let version = reader.u16()?;
            let slot_bytes = reader.u32()?;
            check_slot_bytes(slot_bytes)?;
            Request::Hello {
                version,
                slot_bytes,
            }
        }
        1 => {
            let count = reader.count("list of ranges", MAX_RANGES, 12)?;
            let mut ranges = Vec::with_capacity(count);
            let mut slots = 0u64;
            for _ in 0..count {
                let range = SlotRange {
                    first: reader.u64()?,
                    count: reader.u32()?,
                };
                check_range(&range)?;
                slots += u64::from(range.count);
                ranges.push(range);
            }
            let got =
                usize::try_from(slots.saturating_mul(u64::from(slot_bytes))).unwrap_or(usize::MAX);
            if got > MAX_BODY - HEAD {
                return Err(WireError::TooLong {
                    what: "data asked for",
                    limit: MAX_BODY - HEAD,
                    got,
                });
            }
            Request::Read { ranges }
        }
        2 => {
            let count = reader.count("list of runs", MAX_RANGES, 12)?;
            let mut runs = Vec::with_capacity(count);
            for _ in 0..count {
                let range = SlotRange {
                    first: reader.u64()?,
                    count: reader.u32()?,
                };
                check_range(&range)?;
                let bytes = u64::from(range.count).saturating_mul(u64::from(slot_bytes));
                let data = reader.take(usize::try_from(bytes).unwrap_or(usize::MAX))?;
                runs.push(Run {
                    first: range.first,
                    data,
                });
            }
            Request::Write { runs }
        }
        3 => Request::Flush,
        4 => Request::Len,
        5 => Request::SetLen {
            slots: reader.u64()?,
        },
        kind => {
            return Err(WireError::UnknownKind {
                what: "disk request",
                kind: kind.into(),
            });
        }
    };
    reader.end()?;
    Ok((id, request))
}

/// Encodes a reply's body.
///
/// # Errors
/// [`WireError::TooLong`] if the body exceeds [`MAX_BODY`].
pub fn encode_reply(id: u64, reply: &Reply<'_>) -> Result<Vec<u8>, WireError> {
    let mut body = Vec::with_capacity(
        HEAD + if let Reply::Data(data) = reply {
            data.len()
        } else {
            16
        },
    );
    let kind = match reply {
        Reply::Done => 0u8,
        Reply::Data(_) => 1,
        Reply::Len(_) => 2,
        Reply::Failed(_) => 3,
    };
    body.put(&[kind]);
    body.put(&id.to_le_bytes());
    match reply {
        Reply::Done => {}
        Reply::Data(data) => {
            check_body(HEAD + data.len())?;
            body.put(data);
        }
        Reply::Len(bytes) => body.put(&bytes.to_le_bytes()),
        Reply::Failed(error) => body.put_host_error(error),
    }
    Ok(body)
}

/// Decodes a reply's body.
///
/// # Errors
/// [`WireError`] naming the field.
pub fn decode_reply(body: &[u8]) -> Result<(u64, Reply<'_>), WireError> {
    check_body(body.len())?;
    let mut reader = Reader::new("disk reply", body);
    let kind = reader.u8()?;
    let id = reader.u64()?;
    let reply = match kind {
        0 => Reply::Done,
        1 => Reply::Data(reader.remainder()),
        2 => Reply::Len(reader.u64()?),
        3 => Reply::Failed(reader.host_error()?),
        kind => {
            return Err(WireError::UnknownKind {
                what: "disk reply",
                kind: kind.into(),
            });
        }
    };
    reader.end()?;
    Ok((id, reply))
}

fn check_body(got: usize) -> Result<(), WireError> {
    if got > MAX_BODY {
        return Err(WireError::TooLong {
            what: "disk frame",
            limit: MAX_BODY,
            got,
        });
    }
    Ok(())
}

fn check_slot_bytes(slot_bytes: u32) -> Result<(), WireError> {
    if slot_bytes == 0 || slot_bytes > MAX_SLOT_BYTES {
        return Err(WireError::Invalid {
            what: "slot size",
            why: "must be 1 to 65536 bytes",
        });
    }
    Ok(())
}

fn check_range(range: &SlotRange) -> Result<(), WireError> {
    if range.count == 0 {
        return Err(WireError::Invalid {
            what: "slot range",
            why: "empty",
        });
    }
    if range.end().is_none() {
        return Err(WireError::Invalid {
            what: "slot range",
            why: "ends beyond the last slot number",
        });
    }
    Ok(())
}

fn put_count(body: &mut Vec<u8>, got: usize) -> Result<(), WireError> {
    if got > MAX_RANGES {
        return Err(WireError::TooLong {
            what: "list of ranges",
            limit: MAX_RANGES,
            got,
        });
    }
    body.put(&(got as u32).to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ErrorCode;

    const SLOT: u32 = 16;

    fn requests(data: &[u8]) -> Vec<Request<'_>> {
        vec![
            Request::Hello {
                version: VERSION,
                slot_bytes: SLOT,
            },
            Request::Read {
                ranges: vec![
                    SlotRange { first: 3, count: 2 },
                    SlotRange {
                        first: 900,
                        count: 1,
                    },
                ],
            },
            Request::Write {
                runs: vec![
                    Run { first: 7, data },
                    Run {
                        first: 1,
                        data: &data[..16],
                    },
                ],
            },
            Request::Flush,
            Request::Len,
            Request::SetLen { slots: 12 },
        ]
    }

    #[test]
    fn requests_and_replies_round_trip_and_no_truncation_passes() {
        let data = [0xab; 48];
        for (id, request) in requests(&data).iter().enumerate() {
            let body = encode_request(id as u64, request, SLOT).unwrap();
            assert_eq!(
                decode_request(&body, SLOT).unwrap(),
                (id as u64, request.clone())
            );
            for cut in 0..body.len() {
                assert!(
                    decode_request(&body[..cut], SLOT).is_err(),
                    "{request:?} cut at {cut}"
                );
            }
            let longer = [&body[..], &[0]].concat();
            assert!(decode_request(&longer, SLOT).is_err());
        }
        let failed = HostError::new(ErrorCode::NoSpace, "disk full");
        for reply in [
            Reply::Done,
            Reply::Data(&data),
            Reply::Len(77),
            Reply::Failed(failed),
        ] {
            let body = encode_reply(5, &reply).unwrap();
            assert_eq!(decode_reply(&body).unwrap(), (5, reply));
        }
    }

    #[test]
    fn hostile_counts_are_refused_before_allocation() {
        let mut body = vec![1u8];
        body.put(&1u64.to_le_bytes());
        body.put(&u32::MAX.to_le_bytes());
        assert!(matches!(
            decode_request(&body, SLOT),
            Err(WireError::TooLong {
                what: "list of ranges",
                ..
            })
        ));
        let greedy = Request::Read {
            ranges: vec![SlotRange {
                first: 0,
                count: u32::MAX,
            }],
        };
        let body = encode_request(1, &greedy, SLOT).unwrap();
        assert!(matches!(
            decode_request(&body, SLOT),
            Err(WireError::TooLong {
                what: "data asked for",
                ..
            })
        ));
        let wrap = Request::Read {
            ranges: vec![SlotRange {
                first: u64::MAX,
                count: 2,
            }],
        };
        assert!(matches!(
            encode_request(1, &wrap, SLOT),
            Err(WireError::Invalid { .. })
        ));
    }

    #[test]
    fn unknown_kinds_are_named() {
        let mut body = vec![9u8];
        body.put(&1u64.to_le_bytes());
        assert!(matches!(
            decode_request(&body, SLOT),
            Err(WireError::UnknownKind {
                what: "disk request",
                kind: 9
            })
        ));
        assert!(matches!(
            decode_reply(&body),
            Err(WireError::UnknownKind {
                what: "disk reply",
                kind: 9
            })
        ));
    }
}
