//! Verification of attestation documents.

use core::fmt;
use std::collections::BTreeMap;

use crate::certificate::{CertificateProblem, Position, verify_chain};
use crate::document::{Algorithm, ParseError, UnverifiedDocument};
use crate::pcr::PcrValue;
use crate::root::TrustedRoot;

/// How far a document's clock may be ahead of ours, in milliseconds.
pub const MAX_CLOCK_SKEW_MS: u64 = 60_000;

/// Bytes of the zeros QEMU's emulated module puts in place of signature and certificates.
const EMULATED_ZEROS: usize = 64;

/// Registers that hold zeros in an enclave started in debug mode (AWS Nitro Enclaves user guide).
const MEASURED_PCRS: [u8; 3] = [0, 1, 2];

/// What a verifier demands of every document.
#[derive(Clone, Debug)]
pub struct Verifier {
    /// The root the chain must start from.
    pub root: TrustedRoot,
    /// Expected registers.
    pub policy: PcrPolicy,
    /// Greatest age of a document, in milliseconds; `None` leaves freshness to the nonce.
    pub max_age_ms: Option<u64>,
    /// Whether QEMU's unsigned documents pass.
    pub unsigned: Unsigned,
}

/// Whether documents of QEMU's emulated security module pass, which anybody can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Unsigned {
    /// Never: the only choice where money is at stake.
    #[default]
    Refuse,
    /// Yes, and every output says so. Only under the manifest's development switch (design 6.3).
    AcceptEmulated,
}

/// Registers and the values they must have.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PcrPolicy {
    expected: BTreeMap<u8, PcrValue>,
}

impl PcrPolicy {
    /// The measurements of one image.
    #[must_use]
    pub fn image(pcr0: PcrValue, pcr1: PcrValue, pcr2: PcrValue) -> Self {
        Self {
            expected: BTreeMap::from([(0, pcr0), (1, pcr1), (2, pcr2)]),
        }
    }

    /// No expectation: the caller looks the measured values up elsewhere, on chain for instance. Debug mode is refused
    /// all the same.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// One register more: PCR8 (image signer), PCR16 (configuration).
    #[must_use]
    pub fn with(mut self, index: u8, value: PcrValue) -> Self {
        self.expected.insert(index, value);
        self
    }
}

/// What is demanded of an optional field of one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect<'a> {
    /// Exactly these bytes.
    Exactly(&'a [u8]),
    /// Anything, also nothing.
    Any,
}

impl Expect<'_> {
    fn admits(&self, got: Option<&[u8]>) -> bool {
        match self {
            Self::Any => true,
            // Not constant-time: nonces and bindings are public.
            Self::Exactly(expected) => got == Some(*expected),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Any => Vec::new(),
            Self::Exactly(expected) => expected.to_vec(),
        }
    }
}

impl Verifier {
    /// Verifies a document. `now_ms` is the verifier's time in milliseconds since 1970.
    ///
    /// Order: form, signature algorithm, root, chain at the document's time, signature, age, debug mode, registers, nonce,
    /// user data. The first failure is returned.
    ///
    /// # Errors
    /// [`VerifyError`]: which check failed, with what was expected and found.
    pub fn verify(
        &self,
        document: &[u8],
        now_ms: u64,
        nonce: Expect<'_>,
        user_data: Expect<'_>,
    ) -> Result<VerifiedDocument, VerifyError> {
        let document = UnverifiedDocument::parse(document)?;
        let signed = self.verify_origin(&document)?;
        self.verify_age(document.timestamp_ms, now_ms)?;
        self.verify_pcrs(&document.pcrs)?;
        if !nonce.admits(document.nonce.as_deref()) {
            return Err(VerifyError::Nonce {
                expected: nonce.bytes(),
                got: document.nonce,
            });
        }
        if !user_data.admits(document.user_data.as_deref()) {
            return Err(VerifyError::UserData {
                expected: user_data.bytes(),
                got: document.user_data,
            });
        }
        Ok(VerifiedDocument {
            signed,
            module_id: document.module_id,
            timestamp_ms: document.timestamp_ms,
            pcrs: document.pcrs,
            public_key: document.public_key,
            user_data: document.user_data,
            nonce: document.nonce,
        })
    }

    fn verify_origin(&self, document: &UnverifiedDocument) -> Result<Signed, VerifyError> {
        match document.algorithm {
            Algorithm::Es384 => {
                let key = verify_chain(
                    &self.root,
                    &document.cabundle,
                    &document.certificate,
                    document.timestamp_ms,
                )?;
                key.verify(&document.signed_bytes(), &document.signature)?;
                Ok(Signed::Signed)
            }
            Algorithm::Emulated => {
                is_emulated(document)?;
                match self.unsigned {
                    Unsigned::AcceptEmulated => Ok(Signed::EmulatedUnsigned),
                    Unsigned::Refuse => Err(VerifyError::Unsigned),
                }
            }
        }
    }

    fn verify_age(&self, timestamp_ms: u64, now_ms: u64) -> Result<(), VerifyError> {
        let Some(max_age_ms) = self.max_age_ms else {
            return Ok(());
        };
        if timestamp_ms > now_ms.saturating_add(MAX_CLOCK_SKEW_MS) {
            return Err(VerifyError::FromTheFuture {
                timestamp_ms,
                now_ms,
            });
        }
        let age_ms = now_ms.saturating_sub(timestamp_ms);
        if age_ms > max_age_ms {
            Err(VerifyError::TooOld { max_age_ms, age_ms })
        } else {
            Ok(())
        }
    }

    fn verify_pcrs(&self, pcrs: &BTreeMap<u8, PcrValue>) -> Result<(), VerifyError> {
        for index in MEASURED_PCRS {
            match pcrs.get(&index) {
                Some(value) if *value == PcrValue::ZERO => {
                    return Err(VerifyError::DebugMode { index });
                }
                Some(_) => {}
                // Unlocked at the time: whatever it holds is not vouched for.
                None => return Err(VerifyError::PcrMissing { index }),
            }
        }
        for (&index, &expected) in &self.policy.expected {
            match pcrs.get(&index) {
                Some(&got) if got == expected => {}
                Some(&got) => {
                    return Err(VerifyError::Pcr {
                        index,
                        expected,
                        got,
                    });
                }
                None => return Err(VerifyError::PcrMissing { index }),
            }
        }
        Ok(())
    }
}

/// Exactly the form of QEMU's module: zeros where signature and certificates belong.
fn is_emulated(document: &UnverifiedDocument) -> Result<(), VerifyError> {
    let zeros = |bytes: &[u8]| bytes.len() == EMULATED_ZEROS && bytes.iter().all(|b| *b == 0);
    let field = if !zeros(&document.signature) {
        "signature"
    } else if !zeros(&document.certificate) {
        "certificate"
    } else if document.cabundle.len() != 1 || !zeros(&document.cabundle[0]) {
        "cabundle"
    } else {
        return Ok(());
    };
    Err(VerifyError::EmulatedForm { field })
}

/// A document that passed, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedDocument {
    /// Whether a Nitro security module vouches for it.
    pub signed: Signed,
    /// Id of the security module.
    pub module_id: String,
    /// When it was made, in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// Locked registers by index.
    pub pcrs: BTreeMap<u8, PcrValue>,
    /// Public key the enclave put in.
    pub public_key: Option<Vec<u8>>,
    /// Data the enclave put in.
    pub user_data: Option<Vec<u8>>,
    /// Nonce the enclave put in.
    pub nonce: Option<Vec<u8>>,
}

impl VerifiedDocument {
    /// A register's value, if it was locked.
    #[must_use]
    pub fn pcr(&self, index: u8) -> Option<PcrValue> {
        self.pcrs.get(&index).copied()
    }
}

impl fmt::Display for VerifiedDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let optional = |bytes: &Option<Vec<u8>>| bytes.as_deref().map_or("-".into(), hex::encode);
        writeln!(f, "document    {}", self.signed)?;
        writeln!(f, "module      {}", self.module_id)?;
        writeln!(f, "timestamp   {} ms", self.timestamp_ms)?;
        for (index, value) in &self.pcrs {
            // Registers nobody extended say nothing.
            if *value != PcrValue::ZERO {
                writeln!(f, "{:<12}{value}", format!("PCR{index}"))?;
            }
        }
        writeln!(f, "user_data   {}", optional(&self.user_data))?;
        writeln!(f, "nonce       {}", optional(&self.nonce))?;
        write!(f, "public_key  {}", optional(&self.public_key))
    }
}

/// Who vouches for a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// A Nitro security module, by a chain to the trusted root.
    Signed,
    /// Nobody: QEMU's emulated module.
    EmulatedUnsigned,
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signed => "signed",
            Self::EmulatedUnsigned => "emulated, unsigned",
        })
    }
}

/// Which check a document failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Not a document.
    #[error("malformed: {0}")]
    Parse(#[from] ParseError),
    /// From QEMU's emulated module, which is not accepted here.
    #[error("the document is emulated, unsigned; this verifier demands a signature")]
    Unsigned,
    /// Names no signature algorithm, but is not what QEMU's module writes either.
    #[error(
        "the document names no signature algorithm, yet its {field} is not {EMULATED_ZEROS} zero bytes"
    )]
    EmulatedForm {
        /// First field that differs.
        field: &'static str,
    },
    /// The bundle starts with another root.
    #[error("root certificate has fingerprint {}, expected {}", hex::encode(.got), hex::encode(.expected))]
    Root {
        /// SHA-256 of the trusted root.
        expected: [u8; 32],
        /// SHA-256 of the first certificate of the bundle.
        got: [u8; 32],
    },
    /// A certificate of the chain fails.
    #[error("{position} {problem}")]
    Certificate {
        /// Which.
        position: Position,
        /// Why.
        problem: CertificateProblem,
    },
    /// The signature has the wrong length.
    #[error("signature has {got} bytes, expected {expected} (ES384)")]
    SignatureLength {
        /// Always 96.
        expected: usize,
        /// Bytes found.
        got: usize,
    },
    /// The signature does not verify under the leaf's key.
    #[error("signature does not verify under the leaf certificate's key")]
    Signature,
    /// Too old.
    #[error("document is {age_ms} ms old, at most {max_age_ms} ms are accepted")]
    TooOld {
        /// Limit.
        max_age_ms: u64,
        /// Its age.
        age_ms: u64,
    },
    /// Made later than now, beyond the accepted skew.
    #[error(
        "document was made at {timestamp_ms} ms, more than {MAX_CLOCK_SKEW_MS} ms after now ({now_ms} ms)"
    )]
    FromTheFuture {
        /// Its time.
        timestamp_ms: u64,
        /// The verifier's time.
        now_ms: u64,
    },
    /// The enclave runs in debug mode: its host can read its console, and nothing is measured.
    #[error("PCR{index} is zero: the enclave runs in debug mode")]
    DebugMode {
        /// The register.
        index: u8,
    },
    /// A register that must have a value was not locked.
    #[error("PCR{index} is not in the document (not locked when it was made)")]
    PcrMissing {
        /// The register.
        index: u8,
    },
    /// A register has another value.
    #[error("PCR{index} is {got}, expected {expected}")]
    Pcr {
        /// The register.
        index: u8,
        /// Value demanded.
        expected: PcrValue,
        /// Value found.
        got: PcrValue,
    },
    /// Another nonce, or none.
    #[error("nonce is {}, expected {}", shown(.got.as_deref()), hex::encode(.expected))]
    Nonce {
        /// Nonce demanded.
        expected: Vec<u8>,
        /// Nonce found.
        got: Option<Vec<u8>>,
    },
    /// Other user data, or none.
    #[error("user_data is {}, expected {}", shown(.got.as_deref()), hex::encode(.expected))]
    UserData {
        /// User data demanded.
        expected: Vec<u8>,
        /// User data found.
        got: Option<Vec<u8>>,
    },
}

fn shown(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "absent".into(), hex::encode)
}
