//! Nitro Security Module (NSM) attestation documents: produced inside the enclave, parsed and verified anywhere
//! (design 6.4).
//!
//! - [`nsm`]: the security module as a trait, with the real device (feature `device`) and one in software (feature `mock`).
//! - [`document`]: the strict parser.
//! - [`verify`]: certificate chain, signature, freshness, PCR policy, nonce, user data.
//! - [`binding`]: what `user_data` commits to.
//!
//! The format is AWS's ("Nitro Enclaves Attestation Process" in the NSM API repository): COSE_Sign1 (RFC 9052) with ES384 over
//! a CBOR map, and X.509 certificates (RFC 5280) up to AWS's root.

pub mod binding;
mod cbor;
mod certificate;
pub mod document;
pub mod nsm;
mod pcr;
mod root;
pub mod verify;

pub use cbor::CborError;
pub use certificate::{CertificateProblem, Position};
pub use pcr::{PCR_BYTES, ParsePcrError, PcrValue, config_hash, pcr_hash};
pub use root::{RootError, TrustedRoot};
