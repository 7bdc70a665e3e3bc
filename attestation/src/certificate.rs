//! The certificate chain of a document (RFC 5280 section 6, and AWS's "Nitro Enclaves Attestation Process" section 3.2.3).
//!
//! The profile is narrow: X.509 version 3, P-384 keys, ECDSA with SHA-384, basic constraints and key usage as the only
//! critical extensions. Revocation lists are not used, as AWS advises.

use core::fmt;
use std::collections::BTreeSet;

use p384::ecdsa::signature::Verifier as _;
use p384::ecdsa::{DerSignature, Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};

use crate::root::TrustedRoot;
use crate::verify::VerifyError;

const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");

/// Bytes of an uncompressed P-384 point.
const POINT_BYTES: usize = 97;

/// Where in the chain a certificate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// First of the bundle.
    Root,
    /// At this index of the bundle (1 is signed by the root).
    Intermediate(usize),
    /// The certificate that signed the document.
    Leaf,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root certificate"),
            Self::Intermediate(index) => write!(f, "intermediate certificate {index}"),
            Self::Leaf => f.write_str("leaf certificate"),
        }
    }
}

/// What is wrong with one certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// Not a DER certificate.
    #[error("is not an X.509 certificate: {reason}")]
    Malformed {
        /// The parser's words.
        reason: String,
    },
    /// Parses, but is not the canonical encoding of what it says.
    #[error("is not in canonical DER")]
    NotCanonical,
    /// Not version 3.
    #[error("is not an X.509 version 3 certificate")]
    Version,
    /// Signed with something else than ECDSA and SHA-384, or the two places that name the algorithm differ.
    #[error(
        "names signature algorithm {got}, expected {expected} (ECDSA with SHA-384, without parameters)"
    )]
    SignatureAlgorithm {
        /// Object identifier expected.
        expected: String,
        /// Object identifier found.
        got: String,
    },
    /// The key is not an uncompressed point of P-384.
    #[error("has a public key that is not an uncompressed P-384 point: {reason}")]
    PublicKey {
        /// Which check failed.
        reason: &'static str,
    },
    /// The issuer is not the subject of the certificate above.
    #[error("names issuer `{got}`, expected `{expected}`")]
    Issuer {
        /// Subject of the certificate above.
        expected: String,
        /// Issuer named.
        got: String,
    },
    /// The signature does not verify under the key of the certificate above.
    #[error("has a signature that does not verify under its issuer's key")]
    Signature,
    /// Not valid yet at the document's time.
    #[error("is valid only from {not_before} s, document made at {at} s")]
    NotYetValid {
        /// Seconds since 1970.
        not_before: u64,
        /// Seconds since 1970.
        at: u64,
    },
    /// No longer valid at the document's time.
    #[error("is valid only until {not_after} s, document made at {at} s")]
    Expired {
        /// Seconds since 1970.
        not_after: u64,
        /// Seconds since 1970.
        at: u64,
    },
    /// An extension occurs twice.
    #[error("has extension {oid} twice")]
    DuplicateExtension {
        /// Object identifier.
        oid: String,
    },
    /// A critical extension this verifier does not know.
    #[error("has unknown critical extension {oid}")]
    CriticalExtension {
        /// Object identifier.
        oid: String,
    },
    /// An extension's content is malformed.
    #[error("has a malformed extension {oid}")]
    MalformedExtension {
        /// Object identifier.
        oid: String,
    },
    /// A certificate authority without basic constraints, with them but not critical, or with cA false.
    #[error("is not marked as a certificate authority by critical basic constraints")]
    NotAuthority,
    /// The leaf claims to be a certificate authority.
    #[error("is marked as a certificate authority, but signs documents")]
    LeafIsAuthority,
    /// More certificate authorities below than it allows.
    #[error("allows {limit} certificate authorities below itself, the chain has {got}")]
    PathLength {
        /// Its path length constraint.
        limit: u8,
        /// Certificate authorities below.
        got: usize,
    },
    /// The key usage extension is missing or lacks the bit.
    #[error("lacks key usage {expected}")]
    KeyUsage {
        /// `keyCertSign` or `digitalSignature`.
        expected: &'static str,
    },
}

/// The key a verified chain ends in.
pub(crate) struct DocumentKey(VerifyingKey);

impl DocumentKey {
    /// Verifies an ES384 signature: r ‖ s, 48 bytes each.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
        if signature.len() != 96 {
            return Err(VerifyError::SignatureLength {
                expected: 96,
                got: signature.len(),
            });
        }
        let signature = Signature::from_slice(signature).map_err(|_| VerifyError::Signature)?;
        self.0
            .verify(message, &signature)
            .map_err(|_| VerifyError::Signature)
    }
}

/// Verifies root → intermediates → leaf at the document's time and returns the leaf's key.
pub(crate) fn verify_chain(
    root: &TrustedRoot,
    cabundle: &[Vec<u8>],
    leaf: &[u8],
    at_ms: u64,
) -> Result<DocumentKey, VerifyError> {
    // The fingerprint comes first: without the right root nothing else is worth a look.
    let root_der = cabundle.first().map(Vec::as_slice).unwrap_or_default();
    let got: [u8; 32] = Sha256::digest(root_der).into();
    if got != root.fingerprint() {
        return Err(VerifyError::Root {
            expected: root.fingerprint(),
            got,
        });
    }

    let mut above: Option<Checked> = None;
    for (index, der) in cabundle.iter().enumerate() {
        let position = if index == 0 {
            Position::Root
        } else {
            Position::Intermediate(index)
        };
        let below = cabundle.len() - 1 - index;
        let checked = check(der, above.as_ref(), at_ms)
            .and_then(|c| c.is_authority(below).map(|()| c))
            .map_err(|problem| VerifyError::Certificate { position, problem })?;
        above = Some(checked);
    }
    let leaf = check(leaf, above.as_ref(), at_ms)
        .and_then(|c| c.is_leaf().map(|()| c))
        .map_err(|problem| VerifyError::Certificate {
            position: Position::Leaf,
            problem,
        })?;
    Ok(DocumentKey(leaf.key))
}

struct Checked {
    certificate: Certificate,
    key: VerifyingKey,
}

/// Everything that does not depend on the position. Without `above` the certificate is the root, which is trusted by its
/// fingerprint; it must still name itself as issuer.
fn check(der: &[u8], above: Option<&Checked>, at_ms: u64) -> Result<Checked, CertificateProblem> {
    let malformed = |e: x509_cert::der::Error| CertificateProblem::Malformed {
        reason: e.to_string(),
    };
    let certificate = Certificate::from_der(der).map_err(malformed)?;
    // With this the bytes below are the bytes that were signed.
    if certificate.to_der().map_err(malformed)? != der {
        return Err(CertificateProblem::NotCanonical);
    }
    let tbs = certificate.tbs_certificate();
    if tbs.version() != Version::V3 {
        return Err(CertificateProblem::Version);
    }
    for algorithm in [certificate.signature_algorithm(), tbs.signature()] {
        if algorithm.oid != ECDSA_WITH_SHA384 || algorithm.parameters.is_some() {
            return Err(CertificateProblem::SignatureAlgorithm {
                expected: ECDSA_WITH_SHA384.to_string(),
                got: algorithm.oid.to_string(),
            });
        }
    }
    let key = public_key(&certificate)?;
    let issuer = above.map_or(tbs.subject(), |above| {
        above.certificate.tbs_certificate().subject()
    });
    if tbs.issuer() != issuer {
        return Err(CertificateProblem::Issuer {
            expected: issuer.to_string(),
            got: tbs.issuer().to_string(),
        });
    }
    if let Some(above) = above {
        let signature = certificate
            .signature()
            .as_bytes()
            .and_then(|b| DerSignature::from_bytes(b).ok());
        let signature = signature.ok_or(CertificateProblem::Signature)?;
        let signed = tbs.to_der().map_err(malformed)?;
        above
            .key
            .verify(&signed, &signature)
            .map_err(|_| CertificateProblem::Signature)?;
    }
    let at = at_ms / 1000;
    let not_before = tbs.validity().not_before.to_unix_duration().as_secs();
    let not_after = tbs.validity().not_after.to_unix_duration().as_secs();
    if at < not_before {
        return Err(CertificateProblem::NotYetValid { not_before, at });
    }
    if at > not_after {
        return Err(CertificateProblem::Expired { not_after, at });
    }
    let mut seen = BTreeSet::new();
    for extension in tbs.extensions().into_iter().flatten() {
        let oid = extension.extn_id;
        if !seen.insert(oid) {
            return Err(CertificateProblem::DuplicateExtension {
                oid: oid.to_string(),
            });
        }
        if extension.critical && oid != BASIC_CONSTRAINTS && oid != KEY_USAGE {
            return Err(CertificateProblem::CriticalExtension {
                oid: oid.to_string(),
            });
        }
    }
    Ok(Checked { certificate, key })
}

impl Checked {
    fn is_authority(&self, authorities_below: usize) -> Result<(), CertificateProblem> {
        let (constraints, critical) = self
            .extension::<BasicConstraints>(BASIC_CONSTRAINTS)?
            .ok_or(CertificateProblem::NotAuthority)?;
        if !constraints.ca || !critical {
            return Err(CertificateProblem::NotAuthority);
        }
        if let Some(limit) = constraints.path_len_constraint
            && authorities_below > usize::from(limit)
        {
            return Err(CertificateProblem::PathLength {
                limit,
                got: authorities_below,
            });
        }
        match self.extension::<KeyUsage>(KEY_USAGE)? {
            Some((usage, _)) if usage.key_cert_sign() => Ok(()),
            _ => Err(CertificateProblem::KeyUsage {
                expected: "keyCertSign",
            }),
        }
    }

    fn is_leaf(&self) -> Result<(), CertificateProblem> {
        if let Some((constraints, _)) = self.extension::<BasicConstraints>(BASIC_CONSTRAINTS)?
            && (constraints.ca || constraints.path_len_constraint.is_some())
        {
            return Err(CertificateProblem::LeafIsAuthority);
        }
        // AWS's leaf carries its key usage without marking it critical.
        match self.extension::<KeyUsage>(KEY_USAGE)? {
            Some((usage, _)) if usage.key_cert_sign() => Err(CertificateProblem::LeafIsAuthority),
            Some((usage, _)) if usage.digital_signature() => Ok(()),
            _ => Err(CertificateProblem::KeyUsage {
                expected: "digitalSignature",
            }),
        }
    }

    /// Content of an extension and whether it is critical.
    fn extension<'a, T: x509_cert::der::Decode<'a>>(
        &'a self,
        oid: ObjectIdentifier,
    ) -> Result<Option<(T, bool)>, CertificateProblem> {
        let extensions: &[Extension] = self
            .certificate
            .tbs_certificate()
            .extensions()
            .map_or(&[], Vec::as_slice);
        let Some(extension) = extensions.iter().find(|e| e.extn_id == oid) else {
            return Ok(None);
        };
        T::from_der(extension.extn_value.as_bytes())
            .map(|value| Some((value, extension.critical)))
            .map_err(|_| CertificateProblem::MalformedExtension {
                oid: oid.to_string(),
            })
    }
}

fn public_key(certificate: &Certificate) -> Result<VerifyingKey, CertificateProblem> {
    let problem = |reason| CertificateProblem::PublicKey { reason };
    let info = certificate.tbs_certificate().subject_public_key_info();
    if info.algorithm.oid != EC_PUBLIC_KEY {
        return Err(problem("not an elliptic curve key"));
    }
    let curve = info
        .algorithm
        .parameters
        .as_ref()
        .and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
    if curve != Some(SECP384R1) {
        return Err(problem("another curve"));
    }
    let point = info
        .subject_public_key
        .as_bytes()
        .ok_or(problem("not a whole number of bytes"))?;
    if point.len() != POINT_BYTES || point[0] != 4 {
        return Err(problem("not uncompressed"));
    }
    VerifyingKey::from_sec1_bytes(point).map_err(|_| problem("not on the curve"))
}
