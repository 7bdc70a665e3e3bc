//! Limits that are part of a rules version.
//!
//! A value here decides what is signed, so it may change only with a new rules version activated on chain (design 4.4,
//! decision 37). Limits that only protect the machine live in [`crate::evaluate::MachineLimits`] and may differ between
//! operators, because exceeding them abstains.

use serde::{Deserialize, Serialize};

/// The first rules version: the engines and limits of this release.
pub const RULES_VERSION_1: u32 = 1;

/// Limits under which results and errors are reproducible by every honest enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleLimits {
    /// Fuel of one component run.
    pub fuel: u64,
    /// Bytes of linear memory of one component run, over all its core instances.
    pub memory_bytes: u64,
    /// Elements of all tables of one component run.
    pub table_elements: u64,
    /// HTTP requests of one component run.
    pub http_requests: u32,
    /// Bytes of one HTTP request or response body.
    pub http_body_bytes: u64,
    /// Bytes of the string one component run may return.
    pub output_bytes: u64,
    /// Bytes copied out of a component in one call, as the engine counts them.
    pub copied_bytes: u64,
    /// Bytes of one random request, and the fuel each 32 bytes of randomness cost.
    pub random_bytes: u64,
    /// Bytes of `wasm_args`.
    pub wasm_args_bytes: u64,
    /// Bytes of one params or secrets document.
    pub document_bytes: u64,
    /// Bytes of the canonical result.
    pub result_bytes: u64,
}

impl RuleLimits {
    /// The limits of `rules_version`, or `None` when this release does not know it.
    #[must_use]
    pub const fn of(rules_version: u32) -> Option<Self> {
        match rules_version {
            RULES_VERSION_1 => Some(Self {
                fuel: 1_000_000_000,
                memory_bytes: 256 << 20,
                table_elements: 1_000_000,
                http_requests: 50,
                http_body_bytes: 1 << 20,
                output_bytes: 4 << 20,
                copied_bytes: 16 << 20,
                random_bytes: 1 << 20,
                wasm_args_bytes: 1 << 20,
                document_bytes: 1 << 20,
                result_bytes: 1 << 20,
            }),
            _ => None,
        }
    }
}
