//! The state of one chain: a Jellyfish Merkle Tree over redb, the registries' rows, the defer queue, commit selection
//! (design part 2).
//!
//! Everything is derived from finalized blocks and from bytes that are checked by hash. The caller's loop:
//!
//! 1. [`StateStore::apply_finalized`] the blocks since [`StateStore::next_block`];
//! 2. fetch and judge [`StateStore::undecided`] entries, [`StateStore::record_verdicts`];
//! 3. [`StateStore::catch_up`] with the commits that the chain has confirmed;
//! 4. [`StateStore::select`] → [`StateStore::prepare`] the next commit, and sign it once;
//! 5. [`StateStore::pending`] and [`StateStore::snapshot`] for the evaluations of this poll.
//!
//! Every step is one redb transaction, every step may be repeated, and no step reads a clock. Calls block on the
//! database. Errors with [`StateError::is_fatal`] mean stop.

mod blocks;
mod commit;
mod compiled;
mod content;
mod delta;
mod error;
mod import;
mod queue;
mod records;
pub mod registry;
mod retention;
mod schedule;
mod snapshot;
mod store;
mod tables;
pub mod tree;

pub use blocks::{Applied, Pending};
pub use commit::{AtHead, Blocked, CatchUp, Next, PreparedCommit, Selection, Waiting};
pub use compiled::MAX_COMPILED_BYTES;
pub use delta::check_delta;
pub use error::StateError;
pub use import::SnapshotLeaf;
pub use queue::{
    EntryContext, EntryState, Outcome, QueueEntry, Role, Settled, Unavailable, Verdict,
};
pub use records::KeptRecord;
pub use registry::Registry;
pub use snapshot::{LeafStatus, Snapshot};
pub use store::{ChainConfig, FinalizedHead, QueueTotals, StateStore, Tip, open_database};
