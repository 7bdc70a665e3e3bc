//! Every parser that reads bytes from the host or a peer, as a function of bytes. A function returns if the bytes were taken or refused
//! in order, and panics if a promise is broken; cargo-fuzz (`tests/fuzz/targets`) looks for bytes that break one, and
//! `tests/corpus.rs` replays what it kept.
//!
//! ```text
//! cargo +nightly fuzz run --fuzz-dir tests/fuzz/targets frames tests/fuzz/corpus/frames -- -max_total_time=600
//! ```
//! A machine with the stable compiler only: `RUSTC_BOOTSTRAP=1 cargo fuzz run …`.
#![allow(clippy::unwrap_used)] // a panic is how a finding is reported

mod certificate;
mod delta;
mod events;
mod frames;
mod pages;
mod peer;
mod proofs;
mod rpc;
mod snapshot;
mod votes;

pub use certificate::certificate;
pub use delta::{delta, honest_deltas};
pub use events::events;
pub use frames::frames;
pub use pages::pages;
pub use proofs::proofs;
pub use rpc::rpc;
pub use snapshot::{honest_snapshot, snapshot};
pub use votes::{honest_votes, votes};

/// A fuzz target: a name and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets by the name of their folder in `corpus/`.
pub const TARGETS: [Target; 9] = [
    ("certificate", certificate),
    ("delta", delta),
    ("events", events),
    ("frames", frames),
    ("pages", pages),
    ("proofs", proofs),
    ("rpc", rpc),
    ("snapshot", snapshot),
    ("votes", votes),
];
