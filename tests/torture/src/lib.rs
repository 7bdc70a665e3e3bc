//! Torture: one seed is one reproducible run of a hostile host against the enclave's own crates, all in one process and one
//! thread (design 10).
//!
//! The real parts: the relay's disk client and frames, the page store, redb, the state, the chain's view and follower, the
//! artifacts' checks. The host's parts: a disk service over a medium that loses what was not flushed ([`disk`]), a node
//! ([`rpc`]), a blob store ([`da`]). [`plan`] makes a list of faults from the seed; [`run`] plays it, and after every step and
//! at the end `newton_model` decides: the right root or a refusal that names its cause; no signature over anything but what the
//! model derives; no acknowledged write lost on a medium that was honest; no plaintext and no key in what the host sees.

pub mod da;
pub mod disk;
pub mod enclave;
pub mod plan;
pub mod random;
pub mod report;
pub mod rpc;
pub mod run;
pub mod world;
