//! One framing for disk, dial headers and control.
//!
//! ```text
//! u32 LE  length of the body
//! u32 LE  CRC-32 (IEEE 802.3) of the body
//! body
//! ```
//! The checksum finds transport faults and bugs of a shim; against a hostile host only cryptography helps.

use std::io::{self, Read, Write};

use crate::WireError;

/// Length of a frame's header.
pub const HEADER_BYTES: usize = 8;

/// A frame's header, checked against the service's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    len: usize,
    crc: u32,
}

impl Header {
    /// The header of `body`.
    ///
    /// # Errors
    /// [`WireError::TooLong`] if the body exceeds `limit`.
    pub fn of(body: &[u8], limit: usize) -> Result<Self, WireError> {
        check_len(body.len(), limit)?;
        Ok(Self {
            len: body.len(),
            crc: crc32fast::hash(body),
        })
    }

    /// Reads a header. Check the body with [`Header::verify`] once it is there.
    ///
    /// # Errors
    /// [`WireError::TooLong`] if the announced length exceeds `limit`.
    pub fn decode(bytes: [u8; HEADER_BYTES], limit: usize) -> Result<Self, WireError> {
        let [l0, l1, l2, l3, c0, c1, c2, c3] = bytes;
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        check_len(len, limit)?;
        Ok(Self {
            len,
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
        })
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        // Both constructors bound the length by a limit that fits.
        bytes[..4].copy_from_slice(&(self.len as u32).to_le_bytes());
        bytes[4..].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    /// Length of the body in bytes.
    #[must_use]
    pub fn body_len(self) -> usize {
        self.len
    }

    /// Checks the body that came.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::Checksum`].
    pub fn verify(self, body: &[u8]) -> Result<(), WireError> {
        if body.len() != self.len {
            return Err(WireError::Truncated {
                what: "frame",
                expected: self.len,
                got: body.len(),
            });
        }
        let got = crc32fast::hash(body);
        if got != self.crc {
            return Err(WireError::Checksum {
                expected: self.crc,
                got,
            });
        }
        Ok(())
    }
}

/// Writes one frame and flushes nothing: streams here are unbuffered.
///
/// # Errors
/// [`WireError::TooLong`] before a byte is written, [`WireError::Io`].
pub fn write_frame<W: Write + ?Sized>(
    stream: &mut W,
    body: &[u8],
    limit: usize,
) -> Result<(), WireError> {
    let header = Header::of(body, limit)?;
    // One buffer, so that a small frame is one packet.
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(body);
    stream.write_all(&bytes)?;
    Ok(())
}

/// Reads one frame; `None` if the stream ended between two frames.
///
/// # Errors
/// [`WireError::TooLong`] before the body is read, [`WireError::Truncated`], [`WireError::Checksum`],
/// [`WireError::Io`].
pub fn read_frame<R: Read + ?Sized>(
    stream: &mut R,
    limit: usize,
) -> Result<Option<Vec<u8>>, WireError> {
    let mut bytes = [0; HEADER_BYTES];
    match read_full(stream, &mut bytes)? {
        0 => return Ok(None),
        HEADER_BYTES => {}
        got => {
            return Err(WireError::Truncated {
                what: "frame",
                expected: HEADER_BYTES,
                got,
            });
        }
    }
    let header = Header::decode(bytes, limit)?;
    let mut body = vec![0; header.body_len()];
    let got = read_full(stream, &mut body)?;
    body.truncate(got);
    header.verify(&body)?;
    Ok(Some(body))
}

fn check_len(got: usize, limit: usize) -> Result<(), WireError> {
    let limit = limit.min(u32::MAX as usize);
    if got > limit {
        return Err(WireError::TooLong {
            what: "frame",
            limit,
            got,
        });
    }
    Ok(())
}

/// Fills `out` as far as the stream goes and says how far.
fn read_full<R: Read + ?Sized>(stream: &mut R, out: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn framed(body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, body, 100).unwrap();
        bytes
    }

    #[test]
    fn fixed_bytes() {
        // CRC-32 of "123456789" is the check value of the catalogue of parametrised CRC algorithms.
        let mut expected = vec![9, 0, 0, 0];
        expected.extend_from_slice(&0xcbf4_3926u32.to_le_bytes());
        expected.extend_from_slice(b"123456789");
        assert_eq!(framed(b"123456789"), expected);
    }

    #[test]
    fn two_frames_then_a_clean_end() {
        let bytes = [framed(b"a"), framed(b"")].concat();
        let mut stream = &bytes[..];
        assert_eq!(read_frame(&mut stream, 100).unwrap().unwrap(), b"a");
        assert_eq!(read_frame(&mut stream, 100).unwrap().unwrap(), b"");
        assert!(read_frame(&mut stream, 100).unwrap().is_none());
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_refused() {
        let bytes = framed(b"page bytes");
        for cut in 1..bytes.len() {
            let error = read_frame(&mut &bytes[..cut], 100).unwrap_err();
            assert!(
                matches!(error, WireError::Truncated { .. }),
                "{cut}: {error}"
            );
        }
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 1;
            let error = read_frame(&mut &bad[..], 100).unwrap_err();
            let right = match i {
                0..4 => matches!(
                    error,
                    WireError::Truncated { .. }
                        | WireError::TooLong { .. }
                        | WireError::Checksum { .. }
                ),
                _ => matches!(error, WireError::Checksum { .. }),
            };
            assert!(right, "{i}: {error}");
        }
    }

    #[test]
    fn an_announced_length_above_the_limit_is_refused_before_the_body() {
        let mut bytes = framed(b"x");
        bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = read_frame(&mut &bytes[..], 100).unwrap_err();
        assert!(matches!(
            error,
            WireError::TooLong {
                limit: 100,
                got: 0xffff_ffff,
                ..
            }
        ));
        let mut out = Vec::new();
        assert!(matches!(
            write_frame(&mut out, &[0; 101], 100),
            Err(WireError::TooLong { got: 101, .. })
        ));
        assert!(out.is_empty());
    }
}
