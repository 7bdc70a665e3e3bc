//! The enclave's view of a chain: headers, events in order, storage (design 7).
//!
//! [`ChainView`] is what the rest relies on. [`RpcChainView`] trusts an RPC node and exists only where the manifest
//! declares it; verified views take its place. [`Follower`] turns a view into finalized [`Block`]s and pending ones.
//!
//! [`Block`]: newton_types::events::Block

mod decode;
mod error;
mod follower;
mod rpc;
mod view;

pub use decode::{addresses, decode};
pub use error::ChainError;
pub use follower::{FinalizedStep, Follower};
pub use rpc::{HttpTransport, JsonRpcTransport, RpcChainView, UnverifiedRpc};
pub use view::{ChainView, Log, MAX_RANGE};
