//! Fetching artifacts from data availability and verifying them (design 2.3 and 11).
//!
//! The chain orders a write by an event that holds the artifact's hash, its length and a [`DaRef`]; the bytes lie in EigenDA.
//! [`check_reference`] judges the reference, [`fetch_artifact`] gets the bytes. They say one of two very different things:
//!
//! * [`ArtifactError::Invalid`]: a verdict. Every enclave reaches it from the same event, the entry is rejected.
//! * [`ArtifactError::Unavailable`]: no verdict. This enclave abstains and says why; it never guesses.
//!
//! # What is checked today
//! The DA reference and the certificate are parsed strictly, and [`Certificate::check`] makes every check that needs the
//! certificate alone. The checks that need registry state or a KZG opening are named in [`NOT_YET_CHECKED`]; without the
//! manifest's development switch `incomplete_da_checks` nothing is taken in ([`Unavailable::CheckNotImplemented`]).

mod certificate;
mod check;
mod da_ref;
mod fetch;
mod payload;
mod source;

pub use certificate::{
    BatchHeader, BlobCertificate, BlobCommitment, BlobHeader, BlobInclusionInfo, Certificate,
    CertificateError, G1Point, G2Point, List, MAX_CERTIFICATE_BYTES, NonSignerStakesAndSignature,
    Pair, VERSION_BYTE_V4,
};
pub use check::{BlobParameters, CheckError, DaRules, NOT_YET_CHECKED, PendingCheck};
pub use da_ref::{DaBlob, DaRef, DaRefError, MAX_BLOBS};
pub use fetch::{
    ArtifactError, DaChecks, InvalidReason, Unavailable, check_reference, fetch_artifact,
};
pub use payload::{
    MAX_BLOB_BYTES, MAX_PAYLOAD_BYTES, PayloadError, SYMBOL_BYTES, decode_payload, encode_payload,
    encoded_symbols,
};
pub use source::{BlobSource, EigenDaProxy, FetchError};
