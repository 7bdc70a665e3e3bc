//! What can be wrong with a point, a key or a signature.

use core::fmt;

/// Which kind of point an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A point of G2.
    PublicKey,
    /// A point of G1.
    Signature,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PublicKey => "public key",
            Self::Signature => "signature",
        })
    }
}

/// Errors of the BLS part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlsError {
    /// Key generation needs at least 32 bytes of randomness.
    #[error("key material has {got} bytes, expected at least {expected}")]
    KeyMaterialTooShort {
        /// Least number of bytes.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// An encoding has the wrong length.
    #[error("{what} has {got} bytes, expected {expected}")]
    Length {
        /// Kind of point.
        what: Point,
        /// Length of this encoding.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// The flag bits in the first byte do not belong to this encoding.
    #[error("{what} does not start with the flags of its encoding: first byte {got:#04x}")]
    Flags {
        /// Kind of point.
        what: Point,
        /// The first byte.
        got: u8,
    },
    /// One of the 16 bytes before a coordinate in EIP-2537 form is not zero.
    #[error("{what} has a non-zero byte in the padding of coordinate {coordinate}")]
    Padding {
        /// Kind of point.
        what: Point,
        /// Index of the 64-byte coordinate.
        coordinate: usize,
    },
    /// A coordinate is not below the field modulus.
    #[error("{what} has a coordinate that is not below the field modulus")]
    NotCanonical {
        /// Kind of point.
        what: Point,
    },
    /// The coordinates do not satisfy the curve equation.
    #[error("{what} is not on the curve")]
    NotOnCurve {
        /// Kind of point.
        what: Point,
    },
    /// The point is on the curve but outside the prime-order subgroup.
    #[error("{what} is not in the prime-order subgroup")]
    NotInSubgroup {
        /// Kind of point.
        what: Point,
    },
    /// The point at infinity signs everything and is never accepted.
    #[error("{what} is the point at infinity")]
    Infinity {
        /// Kind of point.
        what: Point,
    },
    /// Nothing to add up.
    #[error("no {what} to aggregate")]
    Empty {
        /// Kind of point.
        what: Point,
    },
    /// The signature does not verify under this key and digest.
    #[error("signature does not verify under this key and digest")]
    SignatureInvalid,
    /// The proof of possession does not verify for this key, owner, chain and registry.
    #[error("proof of possession does not verify for this key, owner, chain and registry")]
    PossessionInvalid,
}
