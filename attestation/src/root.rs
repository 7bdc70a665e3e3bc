//! The certificate at the top of a chain.

use core::fmt;

use sha2::{Digest as _, Sha256};
use x509_cert::der::{DecodePem as _, Encode as _};

/// AWS Nitro Enclaves Root-G1, as AWS publishes it. Valid until 2049-10-28.
const AWS_ROOT_G1_PEM: &str = include_str!("aws_nitro_root_g1.pem");

/// SHA-256 of the DER form of AWS's root, from the AWS documentation ("Verifying the root of trust").
const AWS_ROOT_G1_FINGERPRINT: [u8; 32] = [
    0x64, 0x1a, 0x03, 0x21, 0xa3, 0xe2, 0x44, 0xef, 0xe4, 0x56, 0x46, 0x31, 0x95, 0xd6, 0x06, 0x31,
    0x7e, 0xd7, 0xcd, 0xcc, 0x3c, 0x17, 0x56, 0xe0, 0x98, 0x93, 0xf3, 0xc6, 0x8f, 0x79, 0xbb, 0x5b,
];

/// The root a chain must start from, known by the SHA-256 of its DER form.
///
/// Documents carry the root as the first certificate of their bundle, so the fingerprint is enough to pin it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedRoot {
    fingerprint: [u8; 32],
}

impl TrustedRoot {
    /// AWS Nitro Enclaves Root-G1.
    #[must_use]
    pub fn aws_nitro_g1() -> Self {
        Self {
            fingerprint: AWS_ROOT_G1_FINGERPRINT,
        }
    }

    /// AWS's root certificate itself, PEM.
    #[must_use]
    pub fn aws_nitro_g1_pem() -> &'static str {
        AWS_ROOT_G1_PEM
    }

    /// A root known by its fingerprint.
    #[must_use]
    pub fn from_fingerprint(fingerprint: [u8; 32]) -> Self {
        Self { fingerprint }
    }

    /// The root whose DER form this is.
    ///
    /// # Errors
    /// [`RootError`] if it is not one certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, RootError> {
        use x509_cert::der::Decode as _;
        x509_cert::Certificate::from_der(der).map_err(|e| RootError {
            reason: e.to_string(),
        })?;
        Ok(Self {
            fingerprint: Sha256::digest(der).into(),
        })
    }

    /// The root whose PEM form this is.
    ///
    /// # Errors
    /// [`RootError`] if it is not one certificate.
    pub fn from_pem(pem: &str) -> Result<Self, RootError> {
        let certificate = x509_cert::Certificate::from_pem(pem.trim()).map_err(|e| RootError {
            reason: e.to_string(),
        })?;
        let der = certificate.to_der().map_err(|e| RootError {
            reason: e.to_string(),
        })?;
        Ok(Self {
            fingerprint: Sha256::digest(der).into(),
        })
    }

    /// SHA-256 of the DER form.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

impl fmt::Display for TrustedRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.fingerprint))
    }
}

/// The root given is not a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the root is not an X.509 certificate: {reason}")]
pub struct RootError {
    /// The parser's words.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_built_in_root_has_the_documented_fingerprint() {
        assert_eq!(
            TrustedRoot::from_pem(AWS_ROOT_G1_PEM).unwrap(),
            TrustedRoot::aws_nitro_g1()
        );
        assert_eq!(
            TrustedRoot::aws_nitro_g1().to_string(),
            "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
        );
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert!(TrustedRoot::from_pem("hello").is_err());
        assert!(TrustedRoot::from_der(&[0x30, 0x00]).is_err());
    }
}
