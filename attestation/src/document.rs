//! The strict parser of attestation documents.
//!
//! Parsing proves nothing: see [`verify`](crate::verify). Limits are those of AWS's "Nitro Enclaves Attestation Process"
//! (section 3.2.2), which are narrower than its CDDL; PCRs of other lengths than SHA-384's and an unknown digest are
//! refused because nothing produces them.
//!
//! All CBOR must be deterministic but for one thing: the payload's map may have an indefinite length, since AWS's own
//! documents have had one since 2025. What is hashed on chain is the document's bytes, never a re-encoding.

use std::collections::BTreeMap;

use crate::cbor::{CborError, Reader};
use crate::pcr::{PCR_BYTES, PcrValue};

/// Longest payload of a document.
pub const MAX_PAYLOAD_BYTES: usize = 16_384;
/// Longest document: the payload, the signature and the frame around them.
pub const MAX_DOCUMENT_BYTES: usize = MAX_PAYLOAD_BYTES + 128;
/// Longest certificate.
pub const MAX_CERTIFICATE_BYTES: usize = 1024;
/// Most certificates between root and leaf that are looked at. AWS's chains have four (root and three intermediates).
pub const MAX_CABUNDLE: usize = 8;
/// Longest `public_key`.
pub const MAX_PUBLIC_KEY_BYTES: usize = 1024;
/// Longest `user_data` and `nonce`.
pub const MAX_USER_DATA_BYTES: usize = 512;
/// Longest `module_id`. AWS sets no limit; its ids have 39 characters.
pub const MAX_MODULE_ID_BYTES: usize = 256;
/// Number of registers.
pub const MAX_PCRS: usize = 32;

/// COSE tag of a COSE_Sign1 (RFC 9052 section 2).
const TAG_COSE_SIGN1: u64 = 18;
/// `{1: -35}`: ES384 (RFC 9053).
const PROTECTED_ES384: &[u8] = &[0xa1, 0x01, 0x38, 0x22];
/// `{1: -1}`: what QEMU's emulated module writes, since it signs nothing.
const PROTECTED_EMULATED: &[u8] = &[0xa1, 0x01, 0x20];

/// A well-formed document of which nothing is proved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnverifiedDocument {
    /// Algorithm the protected header names.
    pub algorithm: Algorithm,
    /// The signed bytes, as they were.
    pub payload: Vec<u8>,
    /// The signature, as it was. Its length is checked when it is verified.
    pub signature: Vec<u8>,
    /// Who says it: id of the security module.
    pub module_id: String,
    /// When, in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// Locked registers by index.
    pub pcrs: BTreeMap<u8, PcrValue>,
    /// The signing certificate, DER.
    pub certificate: Vec<u8>,
    /// The certificates above it, root first, DER.
    pub cabundle: Vec<Vec<u8>>,
    /// Public key the enclave put in.
    pub public_key: Option<Vec<u8>>,
    /// Data the enclave put in.
    pub user_data: Option<Vec<u8>>,
    /// Nonce the enclave put in.
    pub nonce: Option<Vec<u8>>,
}

/// Signature algorithm of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA with P-384 and SHA-384.
    Es384,
    /// None: the header of QEMU's emulated module.
    Emulated,
}

impl Algorithm {
    fn protected(self) -> &'static [u8] {
        match self {
            Self::Es384 => PROTECTED_ES384,
            Self::Emulated => PROTECTED_EMULATED,
        }
    }
}

impl UnverifiedDocument {
    /// Parses a COSE_Sign1, tagged or not, and its payload.
    ///
    /// # Errors
    /// [`ParseError`] at the first deviation.
    pub fn parse(document: &[u8]) -> Result<Self, ParseError> {
        if document.len() > MAX_DOCUMENT_BYTES {
            return Err(ParseError::TooLong {
                limit: MAX_DOCUMENT_BYTES,
                got: document.len(),
            });
        }
        let mut reader = Reader::new(document);
        if reader.peek()? == crate::cbor::Kind::Tag {
            let got = reader.tag()?;
            if got != TAG_COSE_SIGN1 {
                return Err(ParseError::Tag {
                    expected: TAG_COSE_SIGN1,
                    got,
                });
            }
        }
        let got = reader.array()?;
        if got != 4 {
            return Err(ParseError::CoseFields { expected: 4, got });
        }
        let protected = reader.bytes()?;
        let algorithm = match protected {
            PROTECTED_ES384 => Algorithm::Es384,
            PROTECTED_EMULATED => Algorithm::Emulated,
            other => {
                return Err(ParseError::ProtectedHeader {
                    got: other.iter().copied().take(16).collect(),
                });
            }
        };
        let entries = reader.map()?;
        if entries != 0 {
            return Err(ParseError::UnprotectedHeader { entries });
        }
        let payload = reader.bytes()?;
        let signature = reader.bytes()?;
        reader.end()?;
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(ParseError::Size {
                field: "payload",
                least: 1,
                most: MAX_PAYLOAD_BYTES,
                got: payload.len(),
            });
        }
        let fields = Fields::parse(payload)?;
        Ok(Self {
            algorithm,
            payload: payload.to_vec(),
            signature: signature.to_vec(),
            module_id: required("module_id", fields.module_id)?,
            timestamp_ms: required("timestamp", fields.timestamp_ms)?,
            pcrs: {
                required("digest", fields.digest)?;
                required("pcrs", fields.pcrs)?
            },
            certificate: required("certificate", fields.certificate)?,
            cabundle: required("cabundle", fields.cabundle)?,
            public_key: fields.public_key.flatten(),
            user_data: fields.user_data.flatten(),
            nonce: fields.nonce.flatten(),
        })
    }

    /// The bytes the signature is over: COSE's `Sig_structure` (RFC 9052 section 4.4) without external data.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        sig_structure(self.algorithm.protected(), &self.payload)
    }
}

pub(crate) fn sig_structure(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    crate::cbor::Writer::default()
        .array(4)
        .text("Signature1")
        .bytes(protected)
        .bytes(&[])
        .bytes(payload)
        .finish()
}

/// Why bytes are not an attestation document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Too long to be looked at.
    #[error("document has {got} bytes, at most {limit} are accepted")]
    TooLong {
        /// Limit in bytes.
        limit: usize,
        /// Bytes given.
        got: usize,
    },
    /// Malformed or non-deterministic CBOR.
    #[error(transparent)]
    Cbor(#[from] CborError),
    /// Tagged as something else than a COSE_Sign1.
    #[error("CBOR tag is {got}, expected {expected} (COSE_Sign1)")]
    Tag {
        /// Tag 18.
        expected: u64,
        /// Tag found.
        got: u64,
    },
    /// Not four fields.
    #[error("COSE_Sign1 has {got} fields, expected {expected}")]
    CoseFields {
        /// Always 4.
        expected: u64,
        /// Fields found.
        got: u64,
    },
    /// The protected header is neither `{1: -35}` nor that of QEMU's emulated module.
    #[error("protected header is {}, expected a1013822 (ES384) or a10120 (emulated)", hex::encode(.got))]
    ProtectedHeader {
        /// Its first bytes.
        got: Vec<u8>,
    },
    /// The unprotected header is not empty.
    #[error("unprotected header has {entries} entries, expected none")]
    UnprotectedHeader {
        /// Number of entries.
        entries: u64,
    },
    /// An unknown field.
    #[error("unknown field `{name}`")]
    UnknownField {
        /// Its name, cut at 64 bytes.
        name: String,
    },
    /// A field occurs twice.
    #[error("field `{name}` occurs twice")]
    Duplicate {
        /// Its name.
        name: &'static str,
    },
    /// A mandatory field is missing.
    #[error("field `{name}` is missing")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// A field is too short or too long.
    #[error("field `{field}` has size {got}, expected {least} to {most}")]
    Size {
        /// Its name.
        field: &'static str,
        /// Least size.
        least: usize,
        /// Greatest size.
        most: usize,
        /// Size found.
        got: usize,
    },
    /// The registers' digest is not SHA-384.
    #[error("digest is `{got}`, expected `SHA384`")]
    Digest {
        /// Its name, cut at 64 bytes.
        got: String,
    },
    /// The timestamp is zero.
    #[error("timestamp is zero")]
    ZeroTimestamp,
    /// A register index that does not exist.
    #[error("PCR index {got} does not exist, the highest is {most}")]
    PcrIndex {
        /// Highest index.
        most: u64,
        /// Index found.
        got: u64,
    },
    /// Register indices are not strictly ascending: out of order, or one occurs twice.
    #[error("PCR index {got} follows {previous}: not strictly ascending")]
    PcrOrder {
        /// Index before it.
        previous: u8,
        /// Index found.
        got: u8,
    },
    /// A register of another length than SHA-384's.
    #[error("PCR{index} has {got} bytes, expected {expected}")]
    PcrLength {
        /// Index.
        index: u8,
        /// Always 48.
        expected: usize,
        /// Bytes found.
        got: usize,
    },
}

/// Fields as they come; `Some(None)` is an optional field present as null.
#[derive(Default)]
struct Fields {
    module_id: Option<String>,
    digest: Option<()>,
    timestamp_ms: Option<u64>,
    pcrs: Option<BTreeMap<u8, PcrValue>>,
    certificate: Option<Vec<u8>>,
    cabundle: Option<Vec<Vec<u8>>>,
    public_key: Option<Option<Vec<u8>>>,
    user_data: Option<Option<Vec<u8>>>,
    nonce: Option<Option<Vec<u8>>>,
}

impl Fields {
    fn parse(payload: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(payload);
        let mut fields = Self::default();
        let mut entries = reader.open_map()?;
        // Each round reads something or fails, so a huge count ends with the input.
        while entries.next(&mut reader)? {
            match reader.text()? {
                "module_id" => {
                    let text = sized(
                        "module_id",
                        reader.text()?.as_bytes(),
                        1,
                        MAX_MODULE_ID_BYTES,
                    )?;
                    // The bytes came from a str.
                    set(
                        "module_id",
                        &mut fields.module_id,
                        String::from_utf8_lossy(text).into_owned(),
                    )?;
                }
                "digest" => {
                    let got = reader.text()?;
                    if got != "SHA384" {
                        return Err(ParseError::Digest {
                            got: shortened(got),
                        });
                    }
                    set("digest", &mut fields.digest, ())?;
                }
                "timestamp" => {
                    let value = reader.unsigned()?;
                    if value == 0 {
                        return Err(ParseError::ZeroTimestamp);
                    }
                    set("timestamp", &mut fields.timestamp_ms, value)?;
                }
                "pcrs" => set("pcrs", &mut fields.pcrs, pcrs(&mut reader)?)?,
                "certificate" => {
                    let der = sized("certificate", reader.bytes()?, 1, MAX_CERTIFICATE_BYTES)?;
                    set("certificate", &mut fields.certificate, der.to_vec())?;
                }
                "cabundle" => set("cabundle", &mut fields.cabundle, cabundle(&mut reader)?)?,
                "public_key" => {
                    let value = optional("public_key", &mut reader, 1, MAX_PUBLIC_KEY_BYTES)?;
                    set("public_key", &mut fields.public_key, value)?;
                }
                "user_data" => {
                    let value = optional("user_data", &mut reader, 0, MAX_USER_DATA_BYTES)?;
                    set("user_data", &mut fields.user_data, value)?;
                }
                "nonce" => {
                    let value = optional("nonce", &mut reader, 0, MAX_USER_DATA_BYTES)?;
                    set("nonce", &mut fields.nonce, value)?;
                }
                other => {
                    return Err(ParseError::UnknownField {
                        name: shortened(other),
                    });
                }
            }
        }
        reader.end()?;
        Ok(fields)
    }
}

fn set<T>(name: &'static str, field: &mut Option<T>, value: T) -> Result<(), ParseError> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(ParseError::Duplicate { name }),
    }
}

fn required<T>(name: &'static str, field: Option<T>) -> Result<T, ParseError> {
    field.ok_or(ParseError::Missing { name })
}

fn sized<'a>(
    field: &'static str,
    bytes: &'a [u8],
    least: usize,
    most: usize,
) -> Result<&'a [u8], ParseError> {
    if (least..=most).contains(&bytes.len()) {
        Ok(bytes)
    } else {
        Err(ParseError::Size {
            field,
            least,
            most,
            got: bytes.len(),
        })
    }
}

/// AWS's text says that no field may be null, but real documents and QEMU's carry null for what was not given.
fn optional(
    field: &'static str,
    reader: &mut Reader<'_>,
    least: usize,
    most: usize,
) -> Result<Option<Vec<u8>>, ParseError> {
    match reader.optional_bytes()? {
        Some(bytes) => Ok(Some(sized(field, bytes, least, most)?.to_vec())),
        None => Ok(None),
    }
}

fn pcrs(reader: &mut Reader<'_>) -> Result<BTreeMap<u8, PcrValue>, ParseError> {
    let count = reader.map()?;
    if !(1..=MAX_PCRS as u64).contains(&count) {
        let got = usize::try_from(count).unwrap_or(usize::MAX);
        return Err(ParseError::Size {
            field: "pcrs",
            least: 1,
            most: MAX_PCRS,
            got,
        });
    }
    let mut pcrs = BTreeMap::new();
    for _ in 0..count {
        let most = MAX_PCRS as u64 - 1;
        let got = reader.unsigned()?;
        let index = u8::try_from(got).ok().filter(|i| u64::from(*i) <= most);
        let index = index.ok_or(ParseError::PcrIndex { most, got })?;
        if let Some((&previous, _)) = pcrs.last_key_value()
            && previous >= index
        {
            return Err(ParseError::PcrOrder {
                previous,
                got: index,
            });
        }
        let bytes = reader.bytes()?;
        let value: [u8; PCR_BYTES] = bytes.try_into().map_err(|_| ParseError::PcrLength {
            index,
            expected: PCR_BYTES,
            got: bytes.len(),
        })?;
        pcrs.insert(index, PcrValue(value));
    }
    Ok(pcrs)
}

fn cabundle(reader: &mut Reader<'_>) -> Result<Vec<Vec<u8>>, ParseError> {
    let count = reader.array()?;
    let Some(count) = usize::try_from(count)
        .ok()
        .filter(|c| (1..=MAX_CABUNDLE).contains(c))
    else {
        let got = usize::try_from(count).unwrap_or(usize::MAX);
        return Err(ParseError::Size {
            field: "cabundle",
            least: 1,
            most: MAX_CABUNDLE,
            got,
        });
    };
    let entry = |reader: &mut Reader<'_>| -> Result<Vec<u8>, ParseError> {
        Ok(sized("cabundle[]", reader.bytes()?, 1, MAX_CERTIFICATE_BYTES)?.to_vec())
    };
    (0..count).map(|_| entry(reader)).collect()
}

/// Names from the input end in errors and logs: keep them short.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
