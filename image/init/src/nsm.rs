//! Seeds the kernel's random number generator from the Nitro security module, the only source of randomness in an
//! enclave that the host does not control.
//!
//! Requests and responses are CBOR (RFC 8949), as the NSM API documents them:
//! `"GetRandom"` → `{"GetRandom": {"random": h'…'}}`, or `{"Error": "…"}`.

use std::fs::{File, OpenOptions};
use std::io;

use thiserror::Error;

use crate::sys;

const DEVICE: &str = "/dev/nsm";
const RANDOM: &str = "/dev/random";
/// The text string `GetRandom`.
const REQUEST: &[u8] = b"\x69GetRandom";
/// Up to the byte string: a map of one, `GetRandom`, a map of one, `random`.
const RESPONSE: &[u8] = b"\xa1\x69GetRandom\xa1\x66random";
/// Fewer bytes than this are no seed. The NSM gives 256.
const MIN_SEED: usize = 32;
const MAX_SEED: usize = 256;

/// Why there is no seed.
#[derive(Debug, Error)]
pub enum NsmError {
    #[error("{path}: {cause}")]
    Device {
        path: &'static str,
        cause: io::Error,
    },
    #[error("the NSM's answer is not a random byte string: {got:02x?}")]
    Answer { got: Vec<u8> },
    #[error("the NSM gave {got} random bytes, expected {MIN_SEED} to {MAX_SEED}")]
    Length { got: usize },
}

/// Asks the NSM for random bytes and credits them to the kernel's generator.
///
/// # Errors
/// If there is no NSM, or it gives no randomness: an enclave without it must not make keys.
pub fn seed_kernel() -> Result<(), NsmError> {
    let device = open(DEVICE)?;
    let mut buffer = [0; 0x3000];
    let len = sys::nsm_request(&device, REQUEST, &mut buffer).map_err(failed(DEVICE))?;
    let seed = random_bytes(&buffer[..len])?;
    let generator = open(RANDOM)?;
    sys::add_entropy(&generator, seed).map_err(failed(RANDOM))
}

fn open(path: &'static str) -> Result<File, NsmError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(failed(path))
}

fn failed(path: &'static str) -> impl Fn(io::Error) -> NsmError {
    move |cause| NsmError::Device { path, cause }
}

/// The byte string in a `GetRandom` answer, which must be all there is.
fn random_bytes(response: &[u8]) -> Result<&[u8], NsmError> {
    // The start is enough to tell an error's name, and holds no seed.
    let malformed = || NsmError::Answer {
        got: response[..response.len().min(RESPONSE.len())].to_vec(),
    };
    let rest = response.strip_prefix(RESPONSE).ok_or_else(malformed)?;
    let (len, bytes) = match rest {
        [head @ 0x40..=0x57, bytes @ ..] => (usize::from(head - 0x40), bytes),
        [0x58, len, bytes @ ..] => (usize::from(*len), bytes),
        [0x59, high, low, bytes @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), bytes),
        _ => return Err(malformed()),
    };
    if bytes.len() != len {
        return Err(malformed());
    }
    if !(MIN_SEED..=MAX_SEED).contains(&len) {
        return Err(NsmError::Length { got: len });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn answer(head: &[u8], bytes: usize) -> Vec<u8> {
        let mut answer = RESPONSE.to_vec();
        answer.extend_from_slice(head);
        answer.extend((0..bytes).map(|byte| byte as u8));
        answer
    }

    #[test]
    fn takes_the_bytes_out_of_an_answer() {
        let long = answer(&[0x59, 1, 0], 256);
        assert_eq!(random_bytes(&long).unwrap().len(), 256);
        let short = answer(&[0x58, 64], 64);
        assert_eq!(random_bytes(&short).unwrap(), &short[short.len() - 64..]);
    }

    #[test]
    fn refuses_other_answers() {
        let error = b"\xa1\x65Error\x70InvalidOperation";
        assert!(matches!(random_bytes(error), Err(NsmError::Answer { .. })));
        assert!(matches!(random_bytes(b""), Err(NsmError::Answer { .. })));
        for (head, bytes) in [
            (&[0x59, 1, 0][..], 255),
            (&[0x59, 1, 0], 257),
            (&[0x58], 0),
            (&[0x78, 64], 64),
        ] {
            let answer = answer(head, bytes);
            assert!(
                matches!(random_bytes(&answer), Err(NsmError::Answer { .. })),
                "{head:?}"
            );
        }
    }

    #[test]
    fn refuses_too_little_and_too_much() {
        assert!(matches!(
            random_bytes(&answer(&[0x40], 0)),
            Err(NsmError::Length { got: 0 })
        ));
        assert!(matches!(
            random_bytes(&answer(&[0x50], 16)),
            Err(NsmError::Length { got: 16 })
        ));
        assert!(matches!(
            random_bytes(&answer(&[0x59, 1, 1], 257)),
            Err(NsmError::Length { got: 257 })
        ));
    }

    #[test]
    fn an_error_shows_no_random_byte() {
        let mut cut = answer(&[0x59, 1, 0], 100);
        cut.truncate(90);
        let Err(NsmError::Answer { got }) = random_bytes(&cut) else {
            unreachable!()
        };
        assert_eq!(got, RESPONSE);
    }
}
