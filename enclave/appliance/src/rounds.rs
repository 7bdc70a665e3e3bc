//! Tasks of several operators: prepared outputs, answers and records (design 3.5, 4.5).
//!
//! A gateway carries messages between operators and chooses as little as possible:
//! - this boot signs one output per (task, round, data instance) and **one answer per task**, whatever the round, because the contracts
//!   slash two;
//! - a set of outputs that leaves out this boot's own is not signed;
//! - a later round opens only to whoever shows that the one before did not agree.

pub mod judge;
mod kept;
pub mod prepare;
mod recorder;

pub use kept::{Rounds, keep_records};
pub use recorder::Recorder;

/// Rounds of preparing one task.
pub const MAX_ROUNDS: u32 = 4;
