//! Platform configuration registers.

use core::fmt;
use core::str::FromStr;

use sha3::{Digest as _, Keccak256};

/// Bytes of a register (SHA-384).
pub const PCR_BYTES: usize = 48;

/// The value of one platform configuration register.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PcrValue(pub [u8; PCR_BYTES]);

impl PcrValue {
    /// The value of a register nothing was extended into; in PCR0 to PCR2 the mark of an enclave in debug mode.
    pub const ZERO: Self = Self([0; PCR_BYTES]);

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; PCR_BYTES] {
        &self.0
    }

    /// What the register holds after extending it with `data`: SHA-384(old ‖ data).
    #[must_use]
    pub fn extended(&self, data: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(
            sha2::Sha384::new()
                .chain_update(self.0)
                .chain_update(data)
                .finalize()
                .into(),
        )
    }
}

impl fmt::Display for PcrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PcrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PcrValue({self})")
    }
}

impl FromStr for PcrValue {
    type Err = ParsePcrError;

    /// 96 hex digits, with or without `0x`.
    fn from_str(text: &str) -> Result<Self, ParsePcrError> {
        let bytes =
            hex::decode(text.strip_prefix("0x").unwrap_or(text)).map_err(|_| ParsePcrError::Hex)?;
        let got = bytes.len();
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| ParsePcrError::Length {
                expected: PCR_BYTES,
                got,
            })
    }
}

/// A text is not a register value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParsePcrError {
    /// Not hex.
    #[error("a PCR value must be hex")]
    Hex,
    /// Wrong length.
    #[error("a PCR value has {expected} bytes, got {got}")]
    Length {
        /// Always 48.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
}

/// `keccak256` of a register's 48 bytes: `pcr0Hash` on chain.
#[must_use]
pub fn pcr_hash(pcr: &PcrValue) -> [u8; 32] {
    Keccak256::digest(pcr.0).into()
}

/// `configHash` on chain: [`pcr_hash`] of PCR16, into which the enclave extends the manifest's consensus part (design 6.3).
#[must_use]
pub fn config_hash(pcr16: &PcrValue) -> [u8; 32] {
    pcr_hash(pcr16)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hash_of_a_zero_register() {
        // keccak256 of 48 zero bytes, computed by another implementation.
        assert_eq!(
            hex::encode(pcr_hash(&PcrValue::ZERO)),
            include_str!("../tests/golden/keccak_zero_pcr.hex").trim()
        );
    }

    #[test]
    fn text_round_trip_and_errors() {
        let value = PcrValue(core::array::from_fn(|i| i as u8));
        assert_eq!(value.to_string().parse::<PcrValue>().unwrap(), value);
        assert_eq!(format!("0x{value}").parse::<PcrValue>().unwrap(), value);
        assert_eq!("zz".parse::<PcrValue>(), Err(ParsePcrError::Hex));
        assert_eq!(
            "00".parse::<PcrValue>(),
            Err(ParsePcrError::Length {
                expected: 48,
                got: 1
            })
        );
    }
}
