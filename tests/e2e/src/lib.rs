//! The main job end to end, over real parts only: a real chain node, the real contracts, the real image under QEMU (or the
//! appliance as a process), a store with the EigenDA proxy's interface.
//!
//! [`World`] is a running deployment; the modules beside it are what its people do.

pub mod admission;
pub mod chain;
pub mod challenge;
pub mod compile;
pub mod enclave;
pub mod hostile;
pub mod impostor;
pub mod leaves;
pub mod load;
pub mod network;
pub mod policy;
pub mod relay;
pub mod run;
pub mod tasks;
mod world;

pub use world::{Backend, Host, HttpsServer, Member, Paths, World, WorldOptions, pcrs};
