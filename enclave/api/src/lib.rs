//! JSON-RPC 2.0 over TLS that ends inside the enclave (design 4.8).
//!
//! The server takes accepted byte streams from the listen service, speaks TLS 1.3 with the key that the attestation
//! document binds, bounds every request and hands it to a [`Handler`]. It knows nothing of policies.

pub mod auth;
mod budget;
#[cfg(feature = "client")]
pub mod client;
mod error;
mod jsonrpc;
mod patience;
pub mod rate;
mod server;

pub use auth::{Caller, KeyRing, Permissions};
pub use error::RpcError;
pub use jsonrpc::{Call, Params};
pub use server::{Handler, Limits, Server, ServerStats, TlsSetupError, tls_acceptor};
