//! DA references: `abi.encode((bytes certificate, uint32 length)[])` (`docs/protocol.md` section 4).

use crate::{MAX_CERTIFICATE_BYTES, MAX_PAYLOAD_BYTES};
use alloy_sol_types::{SolValue, sol};
use bytes::Bytes;

/// Most blobs of one artifact: 24 MiB need two.
pub const MAX_BLOBS: usize = 4;

const WORD: usize = 32;
/// Longest encoding: array head, and per blob an offset, a tuple head, a length and the padded certificate.
const MAX_ENCODED: usize =
    2 * WORD + MAX_BLOBS * (4 * WORD + MAX_CERTIFICATE_BYTES.next_multiple_of(WORD));

sol! {
    struct WireBlob { bytes certificate; uint32 length; }
}

/// Where an artifact's bytes lie: its blobs in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaRef {
    blobs: Vec<DaBlob>,
}

/// One blob of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaBlob {
    /// Version byte ‖ RLP, as the proxy returned it; not parsed yet.
    pub certificate: Bytes,
    /// Length of the blob's payload in bytes.
    pub length: u32,
}

/// Why bytes are not a DA reference of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DaRefError {
    /// Not the canonical ABI encoding.
    #[error("DA reference is not canonical abi.encode((bytes,uint32)[]): {0}")]
    Encoding(&'static str),
    /// No blob, or too many.
    #[error("DA reference of {got} blobs, expected 1 to {MAX_BLOBS}")]
    Blobs {
        /// Number of blobs claimed.
        got: u64,
    },
    /// A certificate is empty or too long.
    #[error("certificate of blob {blob} has {got} bytes, expected 1 to {MAX_CERTIFICATE_BYTES}")]
    Certificate {
        /// Position of the blob.
        blob: usize,
        /// Bytes claimed.
        got: u64,
    },
    /// A blob is empty or larger than EigenDA allows.
    #[error("blob {blob} has a length of {got}, expected 1 to {MAX_PAYLOAD_BYTES}")]
    BlobLength {
        /// Position of the blob.
        blob: usize,
        /// Its length.
        got: u32,
    },
    /// The lengths do not sum up to the artifact's.
    #[error("lengths of the blobs sum to {got}, the artifact has {expected} bytes")]
    Sum {
        /// The artifact's `byteLength`.
        expected: u32,
        /// Sum of the blobs' lengths.
        got: u64,
    },
}

impl DaRef {
    /// A reference from its blobs.
    ///
    /// # Errors
    /// Any but [`DaRefError::Encoding`] and [`DaRefError::Sum`].
    pub fn new(blobs: Vec<DaBlob>) -> Result<Self, DaRefError> {
        if blobs.is_empty() || blobs.len() > MAX_BLOBS {
            return Err(DaRefError::Blobs {
                got: blobs.len() as u64,
            });
        }
        for (
            blob,
            DaBlob {
                certificate,
                length,
            },
        ) in blobs.iter().enumerate()
        {
            if certificate.is_empty() || certificate.len() > MAX_CERTIFICATE_BYTES {
                return Err(DaRefError::Certificate {
                    blob,
                    got: certificate.len() as u64,
                });
            }
            if *length == 0 || *length as usize > MAX_PAYLOAD_BYTES {
                return Err(DaRefError::BlobLength { blob, got: *length });
            }
        }
        Ok(Self { blobs })
    }

    /// Decodes a reference. Every count is checked before anything is allocated for it, and re-encoding must give the
    /// same bytes.
    ///
    /// # Errors
    /// Any but [`DaRefError::Sum`], for which see [`DaRef::check_sum`].
    pub fn decode(encoded: &[u8]) -> Result<Self, DaRefError> {
        if encoded.len() > MAX_ENCODED {
            return Err(DaRefError::Encoding("longer than any reference can be"));
        }
        if word(encoded, 0)? != WORD as u64 {
            return Err(DaRefError::Encoding("offset of the array"));
        }
        let count = word(encoded, WORD)?;
        if count == 0 || count > MAX_BLOBS as u64 {
            return Err(DaRefError::Blobs { got: count });
        }
        let base = 2 * WORD;
        let mut blobs = Vec::with_capacity(count as usize);
        for blob in 0..count as usize {
            let tuple = offset(base, word(encoded, base + blob * WORD)?)?;
            let bytes = offset(tuple, word(encoded, tuple)?)?;
            let length = u32::try_from(word(encoded, tuple + WORD)?)
                .map_err(|_| DaRefError::Encoding("length exceeds uint32"))?;
            let got = word(encoded, bytes)?;
            if got > MAX_CERTIFICATE_BYTES as u64 {
                return Err(DaRefError::Certificate { blob, got });
            }
            let start = bytes + WORD;
            let certificate = encoded.get(start..start + got as usize).ok_or(TRUNCATED)?;
            blobs.push(DaBlob {
                certificate: Bytes::copy_from_slice(certificate),
                length,
            });
        }
        let decoded = Self::new(blobs)?;
        if decoded.encode() != encoded {
            return Err(DaRefError::Encoding("offsets, padding or trailing bytes"));
        }
        Ok(decoded)
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let wire = |blob: &DaBlob| WireBlob {
            certificate: blob.certificate.clone().into(),
            length: blob.length,
        };
        self.blobs.iter().map(wire).collect::<Vec<_>>().abi_encode()
    }

    /// Whether the lengths sum up to the artifact's `byteLength`.
    ///
    /// # Errors
    /// [`DaRefError::Sum`].
    pub fn check_sum(&self, byte_length: u32) -> Result<(), DaRefError> {
        let got = self.blobs.iter().map(|blob| u64::from(blob.length)).sum();
        if got == u64::from(byte_length) {
            Ok(())
        } else {
            Err(DaRefError::Sum {
                expected: byte_length,
                got,
            })
        }
    }

    /// The blobs, in order; at least one.
    pub fn blobs(&self) -> &[DaBlob] {
        &self.blobs
    }
}

const TRUNCATED: DaRefError = DaRefError::Encoding("truncated");

/// The word at `at`, which must fit into 64 bits.
fn word(encoded: &[u8], at: usize) -> Result<u64, DaRefError> {
    let word = at
        .checked_add(WORD)
        .and_then(|end| encoded.get(at..end))
        .ok_or(TRUNCATED)?;
    let (high, low) = word.split_at(WORD - 8);
    if high.iter().any(|b| *b != 0) {
        return Err(DaRefError::Encoding("a number exceeds 64 bits"));
    }
    // `low` has 8 bytes: the word has 32.
    Ok(low.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
}

/// `base + offset`, kept within what an encoding can have.
fn offset(base: usize, offset: u64) -> Result<usize, DaRefError> {
    match usize::try_from(offset) {
        Ok(offset) if offset <= MAX_ENCODED => Ok(base + offset),
        _ => Err(DaRefError::Encoding("offset out of range")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn blob(certificate: &[u8], length: u32) -> DaBlob {
        DaBlob {
            certificate: Bytes::copy_from_slice(certificate),
            length,
        }
    }

    #[test]
    fn the_encoding_is_solidity_s() {
        // abi.encode of [(0x03aabb, 5)], worked out by hand from the ABI specification.
        let word = |n: u8| {
            let mut w = [0; 32];
            w[31] = n;
            w
        };
        let mut expected = [
            word(0x20),
            word(1),
            word(0x20),
            word(0x40),
            word(5),
            word(3),
        ]
        .concat();
        expected.extend_from_slice(&[3, 0xaa, 0xbb]);
        expected.resize(7 * 32, 0);
        let reference = DaRef::new(vec![blob(&[3, 0xaa, 0xbb], 5)]).unwrap();
        assert_eq!(reference.encode(), expected);
        assert_eq!(DaRef::decode(&expected).unwrap(), reference);
    }

    #[test]
    fn caps_hold() {
        assert_eq!(DaRef::new(vec![]), Err(DaRefError::Blobs { got: 0 }));
        assert_eq!(
            DaRef::new(vec![blob(&[1], 1); 5]),
            Err(DaRefError::Blobs { got: 5 })
        );
        assert_eq!(
            DaRef::new(vec![blob(&[], 1)]),
            Err(DaRefError::Certificate { blob: 0, got: 0 })
        );
        assert_eq!(
            DaRef::new(vec![blob(&[1], 1), blob(&[1], 0)]),
            Err(DaRefError::BlobLength { blob: 1, got: 0 })
        );
        let largest = blob(&[9; MAX_CERTIFICATE_BYTES], MAX_PAYLOAD_BYTES as u32);
        let reference = DaRef::new(vec![largest; 4]).unwrap();
        let encoded = reference.encode();
        assert_eq!(encoded.len(), MAX_ENCODED);
        assert_eq!(DaRef::decode(&encoded).unwrap(), reference);
        assert!(reference.check_sum(4 * MAX_PAYLOAD_BYTES as u32).is_ok());
        assert!(matches!(
            reference.check_sum(7),
            Err(DaRefError::Sum { expected: 7, .. })
        ));

        let mut many = encoded;
        many[32..64].fill(0xff);
        assert_eq!(
            DaRef::decode(&many),
            Err(DaRefError::Encoding("a number exceeds 64 bits"))
        );
        many[32..64].fill(0);
        many[63] = 200;
        assert_eq!(DaRef::decode(&many), Err(DaRefError::Blobs { got: 200 }));
    }

    #[test]
    fn other_encodings_of_the_same_value_are_refused() {
        let good = DaRef::new(vec![blob(&[3, 1], 7)]).unwrap().encode();
        let mut trailing = good.clone();
        trailing.extend_from_slice(&[0; 32]);
        let mut dirty = good.clone();
        *dirty.last_mut().unwrap() = 1;
        for bad in [
            trailing,
            dirty,
            good[..good.len() - 1].to_vec(),
            good[..100].to_vec(),
            vec![],
        ] {
            assert!(matches!(DaRef::decode(&bad), Err(DaRefError::Encoding(_))));
        }
    }

    proptest! {
        #[test]
        fn round_trip(blobs in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 1..100), 1..1000u32), 1..=4)) {
            let reference = DaRef::new(blobs.iter().map(|(c, l)| blob(c, *l)).collect()).unwrap();
            prop_assert_eq!(DaRef::decode(&reference.encode()).unwrap(), reference);
        }

        #[test]
        fn no_panic_and_only_canonical(at in 0usize..300, byte: u8, cut in 0usize..300) {
            let good = DaRef::new(vec![blob(&[3, 1], 7), blob(&[4; 40], 8)]).unwrap().encode();
            let mut bad = good;
            if let Some(b) = bad.get_mut(at) { *b = byte; }
            bad.truncate(bad.len() - cut.min(bad.len()));
            if let Ok(decoded) = DaRef::decode(&bad) {
                prop_assert_eq!(decoded.encode(), bad);
            }
        }

        #[test]
        fn no_panic_on_any_bytes(bytes in proptest::collection::vec(prop_oneof![4 => Just(0u8), 1 => any::<u8>()], 0..400)) {
            let _ = DaRef::decode(&bytes);
        }
    }
}
