//! Checks of a certificate that need nothing but the certificate and the rules (design 11.2).
//!
//! Which checks exist and which do not is said here and nowhere else: [`Certificate::check`] makes the first kind,
//! [`NOT_YET_CHECKED`] lists the second. All of the first are necessary conditions of EigenDA's on-chain verifier, so a
//! certificate refused here is refused by the complete verification too.

use crate::{Certificate, G1Point, G2Point, encoded_symbols};
use alloy_primitives::{B256, U256, keccak256, uint};
use std::fmt;

/// The base field of BN254.
const FIELD: U256 = uint!(0x30644e72e131a029b85045b68181585d97816a916871ca8d3c208c16d87cfd47_U256);
/// Most quorums that may sign.
const MAX_SIGNED_QUORUMS: usize = 5;
/// Most non-signers, counted once in every quorum.
const MAX_NON_SIGNERS: usize = 415;

/// A check of design 11.2 and 11.3 that is not written yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PendingCheck {
    /// Aggregate keys, quorum bitmaps and stakes at the reference block, by index into the registries' histories.
    RegistryState,
    /// BN254 aggregate signature of the signers; `apkG2` in the subgroup and matching.
    OperatorSignature,
    /// signed·100 ≥ total·threshold per quorum: blob quorums are confirmed, not only signed.
    QuorumThresholds,
    /// The certificate's reference block is at most 14,400 blocks before inclusion.
    Recency,
    /// The encoded payload opens the KZG commitment; the length proof holds.
    BlobCommitment,
}

/// Every check that is missing. As long as this is not empty, certificates are taken in only under the manifest's
/// development switch.
pub const NOT_YET_CHECKED: &[PendingCheck] = &[
    PendingCheck::RegistryState,
    PendingCheck::OperatorSignature,
    PendingCheck::QuorumThresholds,
    PendingCheck::Recency,
    PendingCheck::BlobCommitment,
];

impl fmt::Display for PendingCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RegistryState => "operator registry state at the reference block",
            Self::OperatorSignature => "operators' aggregate signature",
            Self::QuorumThresholds => "signed stake against the quorum thresholds",
            Self::Recency => "recency of the reference block",
            Self::BlobCommitment => "KZG opening of the blob's commitment",
        })
    }
}

/// Parameters of one blob version in EigenDA's threshold registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobParameters {
    /// The version.
    pub version: u16,
    /// Most operators of a quorum.
    pub max_operators: u32,
    /// Chunks after erasure coding.
    pub chunks: u32,
    /// Encoded size ÷ original size.
    pub coding_rate: u8,
}

/// What EigenDA's verifier is configured with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaRules {
    /// The only derivation version accepted.
    pub derivation_version: u16,
    /// Known blob versions.
    pub blob_versions: Vec<BlobParameters>,
    /// Percentage of stake that must have signed.
    pub confirmation_threshold: u8,
    /// Percentage of stake that may be dishonest.
    pub adversary_threshold: u8,
    /// Quorums every blob must be in.
    pub required_quorums: Vec<u8>,
}

impl Default for DaRules {
    /// EigenDA's mainnet as of early 2026: derivation version 0, blob version 0 with 3,537 operators, 8,192 chunks, coding
    /// rate 8; thresholds 55 % and 33 %; quorums 0 and 1.
    fn default() -> Self {
        Self {
            derivation_version: 0,
            blob_versions: vec![BlobParameters {
                version: 0,
                max_operators: 3537,
                chunks: 8192,
                coding_rate: 8,
            }],
            confirmation_threshold: 55,
            adversary_threshold: 33,
            required_quorums: vec![0, 1],
        }
    }
}

/// Why a well-formed certificate does not prove what it should. Each is a verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// Another derivation version.
    #[error("derivation version {got}, expected {expected}")]
    DerivationVersion {
        /// The one in force.
        expected: u16,
        /// The certificate's.
        got: u16,
    },
    /// The blob is not in the batch.
    #[error("inclusion proof leads to {got:?}, the batch root is {expected}")]
    Inclusion {
        /// The batch root.
        expected: B256,
        /// Where the proof leads; `None` if its length is not a multiple of 32.
        got: Option<B256>,
    },
    /// The registry has no such blob version.
    #[error("blob version {got} is not known")]
    BlobVersion {
        /// The blob's version.
        got: u16,
    },
    /// The blob version's parameters are too weak for the thresholds.
    #[error("blob version {version}: {left} is below the {right} that the thresholds demand")]
    SecurityParameters {
        /// The blob's version.
        version: u16,
        /// codingRate·(chunks − maxOperators)·(confirmation − adversary).
        left: u64,
        /// 100·chunks.
        right: u64,
    },
    /// Too many, or no, quorums or non-signers.
    #[error("{what}: {got}, expected {min} to {max}")]
    Count {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        got: usize,
        /// Least.
        min: usize,
        /// Most.
        max: usize,
    },
    /// Lists that belong together differ in length.
    #[error("{what} has {got} entries, expected {expected}")]
    Lengths {
        /// Which list.
        what: &'static str,
        /// Length of the list it belongs to.
        expected: usize,
        /// Its length.
        got: usize,
    },
    /// A list that must be strictly increasing is not.
    #[error("{what} is not strictly increasing at position {at}")]
    Order {
        /// Which list.
        what: &'static str,
        /// Position of the first entry out of order.
        at: usize,
    },
    /// A quorum of the first set is not in the second.
    #[error("quorum {quorum} is {of} but not {missing_in}")]
    Quorum {
        /// The quorum.
        quorum: u8,
        /// The set it is in.
        of: &'static str,
        /// The set it lacks in.
        missing_in: &'static str,
    },
    /// A coordinate is not below the field's modulus, or a G1 point is not on the curve.
    #[error("{what} is not a point of BN254: {why}")]
    Point {
        /// Which point.
        what: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// The committed blob cannot hold the length the DA reference names.
    #[error("blob of {symbols} symbols, a payload of {length} bytes needs {needed}")]
    BlobLength {
        /// Committed length in symbols.
        symbols: u32,
        /// Payload bytes of the DA reference.
        length: u32,
        /// Symbols needed.
        needed: usize,
    },
}

impl Certificate {
    /// Makes every check that needs the certificate alone, in the order of design 11.2. `length` is the payload's length in
    /// the DA reference.
    ///
    /// # Errors
    /// [`CheckError`], the first that fails.
    pub fn check(&self, rules: &DaRules, length: u32) -> Result<(), CheckError> {
        let (expected, got) = (rules.derivation_version, self.offchain_derivation_version);
        if got != expected {
            return Err(CheckError::DerivationVersion { expected, got });
        }
        let (expected, got) = (
            self.batch_header.batch_root,
            self.blob_inclusion_info.computed_root(),
        );
        if got != Some(expected) {
            return Err(CheckError::Inclusion { expected, got });
        }
        let header = &self.blob_inclusion_info.blob_certificate.blob_header;
        rules.check_blob_version(header.version)?;
        self.check_counts()?;
        self.check_points()?;
        let blob = ascending("blob quorums", &header.quorum_numbers)?;
        let signed = ascending("signed quorums", &self.signed_quorum_numbers)?;
        subset(&rules.required_quorums, "required", blob, "a blob quorum")?;
        subset(blob, "a blob quorum", signed, "signed")?;
        let (symbols, needed) = (header.commitment.length, encoded_symbols(length as usize));
        if needed > symbols as usize || !symbols.is_power_of_two() {
            return Err(CheckError::BlobLength {
                symbols,
                length,
                needed,
            });
        }
        Ok(())
    }

    fn check_counts(&self) -> Result<(), CheckError> {
        let count = |what, got, min, max| {
            if (min..=max).contains(&got) {
                Ok(())
            } else {
                Err(CheckError::Count {
                    what,
                    got,
                    min,
                    max,
                })
            }
        };
        let same = |what, got, expected| {
            if got == expected {
                Ok(())
            } else {
                Err(CheckError::Lengths {
                    what,
                    expected,
                    got,
                })
            }
        };
        let state = &self.non_signer_stakes_and_signature;
        let quorums = self.signed_quorum_numbers.len();
        let indices = &state.non_signer_stake_indices.0;
        count("signed quorums", quorums, 1, MAX_SIGNED_QUORUMS)?;
        count(
            "non-signers of all quorums",
            indices.iter().map(|i| i.0.len()).sum(),
            0,
            MAX_NON_SIGNERS,
        )?;
        same("quorumApks", state.quorum_apks.0.len(), quorums)?;
        same(
            "quorumApkIndices",
            state.quorum_apk_indices.0.len(),
            quorums,
        )?;
        same(
            "totalStakeIndices",
            state.total_stake_indices.0.len(),
            quorums,
        )?;
        same("nonSignerStakeIndices", indices.len(), quorums)?;
        let keys = &state.non_signer_pubkeys.0;
        same(
            "nonSignerQuorumBitmapIndices",
            state.non_signer_quorum_bitmap_indices.0.len(),
            keys.len(),
        )?;
        let hashes: Vec<_> = keys.iter().map(|key| key.hash()).collect();
        strictly_increasing("hashes of non-signer keys", &hashes)
    }

    fn check_points(&self) -> Result<(), CheckError> {
        let state = &self.non_signer_stakes_and_signature;
        let commitment = &self
            .blob_inclusion_info
            .blob_certificate
            .blob_header
            .commitment;
        commitment.commitment.check("commitment")?;
        commitment.length_commitment.check("length commitment")?;
        commitment.length_proof.check("length proof")?;
        for key in &state.non_signer_pubkeys.0 {
            key.check("non-signer key")?;
        }
        for key in &state.quorum_apks.0 {
            key.check("quorum key")?;
        }
        state.sigma.check("signature")?;
        state.apk_g2.check("aggregate key")
    }
}

impl DaRules {
    fn check_blob_version(&self, version: u16) -> Result<(), CheckError> {
        let parameters = self.blob_versions.iter().find(|p| p.version == version);
        let BlobParameters {
            max_operators,
            chunks,
            coding_rate,
            ..
        } = parameters.ok_or(CheckError::BlobVersion { got: version })?;
        // Saturating: where the contract refuses an underflow, zero is below the right side too (chunks > 0).
        let spare = u64::from(chunks.saturating_sub(*max_operators));
        let margin = u64::from(
            self.confirmation_threshold
                .saturating_sub(self.adversary_threshold),
        );
        let (left, right) = (
            u64::from(*coding_rate) * spare * margin,
            100 * u64::from(*chunks),
        );
        if left < right || *chunks == 0 {
            return Err(CheckError::SecurityParameters {
                version,
                left,
                right,
            });
        }
        Ok(())
    }
}

impl G1Point {
    /// `keccak256(abi.encode(x, y))`: how the registries name an operator.
    pub fn hash(&self) -> B256 {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.x.to_be_bytes::<32>());
        bytes[32..].copy_from_slice(&self.y.to_be_bytes::<32>());
        keccak256(bytes)
    }

    /// On the curve y² = x³ + 3, or infinity. G1 has prime order, so that is membership.
    fn check(&self, what: &'static str) -> Result<(), CheckError> {
        let (x, y) = (self.x, self.y);
        if x >= FIELD || y >= FIELD {
            return Err(CheckError::Point {
                what,
                why: "coordinate is not below the modulus",
            });
        }
        let right = x
            .mul_mod(x, FIELD)
            .mul_mod(x, FIELD)
            .add_mod(U256::from(3), FIELD);
        if y.mul_mod(y, FIELD) != right && (x, y) != (U256::ZERO, U256::ZERO) {
            return Err(CheckError::Point {
                what,
                why: "not on the curve",
            });
        }
        Ok(())
    }
}

impl G2Point {
    /// Coordinates only: curve and subgroup belong to [`PendingCheck::OperatorSignature`] and
    /// [`PendingCheck::BlobCommitment`].
    fn check(&self, what: &'static str) -> Result<(), CheckError> {
        if self.x.0.iter().chain(&self.y.0).any(|c| *c >= FIELD) {
            return Err(CheckError::Point {
                what,
                why: "coordinate is not below the modulus",
            });
        }
        Ok(())
    }
}

fn ascending<'a>(what: &'static str, quorums: &'a [u8]) -> Result<&'a [u8], CheckError> {
    strictly_increasing(what, quorums)?;
    Ok(quorums)
}

fn strictly_increasing<T: PartialOrd>(what: &'static str, items: &[T]) -> Result<(), CheckError> {
    match items.windows(2).position(|pair| pair[0] >= pair[1]) {
        None => Ok(()),
        Some(at) => Err(CheckError::Order { what, at: at + 1 }),
    }
}

fn subset(
    inner: &[u8],
    of: &'static str,
    outer: &[u8],
    missing_in: &'static str,
) -> Result<(), CheckError> {
    match inner.iter().find(|quorum| !outer.contains(quorum)) {
        None => Ok(()),
        Some(quorum) => Err(CheckError::Quorum {
            quorum: *quorum,
            of,
            missing_in,
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{List, certificate::tests::real_v4};

    fn real() -> Certificate {
        Certificate::parse(&real_v4()).unwrap()
    }

    fn refused(change: impl FnOnce(&mut Certificate)) -> CheckError {
        let mut certificate = real();
        change(&mut certificate);
        certificate.check(&DaRules::default(), 31).unwrap_err()
    }

    /// Changes the blob header and moves the batch root to where the proof then leads.
    fn resealed(change: impl FnOnce(&mut Certificate)) -> CheckError {
        refused(|c| {
            change(c);
            c.batch_header.batch_root = c.blob_inclusion_info.computed_root().unwrap();
        })
    }

    #[test]
    fn a_real_certificate_passes() {
        let certificate = real();
        let symbols = certificate
            .blob_inclusion_info
            .blob_certificate
            .blob_header
            .commitment
            .length;
        certificate
            .check(&DaRules::default(), (symbols - 1) * 31)
            .unwrap();
        let error = certificate
            .check(&DaRules::default(), (symbols - 1) * 31 + 1)
            .unwrap_err();
        assert!(matches!(error, CheckError::BlobLength { .. }), "{error}");
    }

    #[test]
    fn every_check_refuses_for_its_own_reason() {
        use CheckError as E;
        assert_eq!(
            refused(|c| c.offchain_derivation_version = 1),
            E::DerivationVersion {
                expected: 0,
                got: 1
            }
        );
        assert!(matches!(
            refused(|c| c.batch_header.batch_root.0[0] ^= 1),
            E::Inclusion { got: Some(_), .. }
        ));
        let cut = |c: &mut Certificate| c.blob_inclusion_info.inclusion_proof = vec![0; 31].into();
        assert!(matches!(refused(cut), E::Inclusion { got: None, .. }));
        assert_eq!(
            resealed(|c| c.blob_inclusion_info.blob_certificate.blob_header.version = 7),
            E::BlobVersion { got: 7 }
        );
        assert!(matches!(
            refused(|c| c.signed_quorum_numbers = vec![].into()),
            E::Count { got: 0, .. }
        ));
        assert!(matches!(
            refused(|c| c.signed_quorum_numbers = vec![0, 1, 2, 3, 4, 5].into()),
            E::Count { got: 6, .. }
        ));
        assert!(matches!(
            refused(|c| c.signed_quorum_numbers = vec![0].into()),
            E::Lengths {
                what: "quorumApks",
                expected: 1,
                got: 2
            }
        ));
        let many = |c: &mut Certificate| {
            c.non_signer_stakes_and_signature.non_signer_stake_indices.0[0] = List(vec![0; 416]);
        };
        assert!(matches!(
            refused(many),
            E::Count {
                got: 416,
                max: 415,
                ..
            }
        ));
        let twice = |c: &mut Certificate| {
            let state = &mut c.non_signer_stakes_and_signature;
            state.non_signer_pubkeys.0 = vec![state.sigma; 2];
            state.non_signer_quorum_bitmap_indices.0 = vec![0; 2];
        };
        assert!(matches!(refused(twice), E::Order { at: 1, .. }));
        let sigma = |c: &mut Certificate| c.non_signer_stakes_and_signature.sigma.x += U256::ONE;
        assert!(matches!(
            refused(sigma),
            E::Point {
                what: "signature",
                why: "not on the curve"
            }
        ));
        let large = |c: &mut Certificate| c.non_signer_stakes_and_signature.apk_g2.y.0[1] = FIELD;
        assert!(matches!(
            refused(large),
            E::Point {
                what: "aggregate key",
                ..
            }
        ));
        assert_eq!(
            refused(|c| c.signed_quorum_numbers = vec![1, 0].into()),
            E::Order {
                what: "signed quorums",
                at: 1
            }
        );
        assert_eq!(
            refused(|c| c.signed_quorum_numbers = vec![0, 2].into()),
            E::Quorum {
                quorum: 1,
                of: "a blob quorum",
                missing_in: "signed"
            }
        );
        let one = |c: &mut Certificate| {
            c.blob_inclusion_info
                .blob_certificate
                .blob_header
                .quorum_numbers = vec![0].into();
        };
        assert_eq!(
            resealed(one),
            E::Quorum {
                quorum: 1,
                of: "required",
                missing_in: "a blob quorum"
            }
        );
        let odd = |c: &mut Certificate| {
            c.blob_inclusion_info
                .blob_certificate
                .blob_header
                .commitment
                .length = 3;
        };
        assert!(matches!(resealed(odd), E::BlobLength { symbols: 3, .. }));
    }

    #[test]
    fn security_parameters_are_those_of_the_contract() {
        let mut rules = DaRules::default();
        // 8·(8192 − 3537)·22 = 819,280 ≥ 819,200; one point of threshold less is too little.
        rules.check_blob_version(0).unwrap();
        rules.confirmation_threshold = 54;
        assert_eq!(
            rules.check_blob_version(0),
            Err(CheckError::SecurityParameters {
                version: 0,
                left: 782_040,
                right: 819_200
            })
        );
        rules.blob_versions[0].chunks = 0;
        assert!(rules.check_blob_version(0).is_err());
    }
}
