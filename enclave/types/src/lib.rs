//! Identifiers, digests and wire forms that every other program of this workspace shares.
//!
//! No I/O and no async. The formulas stand in `docs/protocol.md`; each is held to `tests/vectors/` from here and from
//! Solidity by the same file.

pub mod abi;
pub mod events;
pub mod ids;
pub mod leaf;
pub mod manifest;
pub mod outputs;
pub mod queue;
pub mod rpc;
pub mod signing;

pub use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
pub use ids::ABSENT;
pub use leaf::{LeafKey, LeafProof, Namespace};
pub use queue::{DeltaEntry, QueueKey};
