//! Every parser that reads bytes from the host, as a function of bytes. A function returns if the bytes were taken or refused
//! in order, and panics if a promise is broken; cargo-fuzz (`tests/fuzz/targets`) looks for bytes that break one, and
//! `tests/corpus.rs` replays what it kept.
//!
//! ```text
//! cargo +nightly fuzz run --fuzz-dir tests/fuzz/targets frames tests/fuzz/corpus/frames -- -max_total_time=600
//! ```
#![allow(clippy::unwrap_used)] // a panic is how a finding is reported

mod certificate;
mod events;
mod frames;
mod pages;
mod proofs;
mod rpc;

pub use certificate::certificate;
pub use events::events;
pub use frames::frames;
pub use pages::pages;
pub use proofs::proofs;
pub use rpc::rpc;

/// A fuzz target: a name and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets by the name of their folder in `corpus/`.
pub const TARGETS: [Target; 6] = [
    ("certificate", certificate),
    ("events", events),
    ("frames", frames),
    ("pages", pages),
    ("proofs", proofs),
    ("rpc", rpc),
];
