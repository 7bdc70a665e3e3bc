//! What other operators' enclaves answer, and what of it is believed (design 2.5, 4.8).
//!
//! Nothing here asks or waits: an answer comes in as it was parsed, and is taken or refused by what the chain says. Pages must
//! lead on, so that no peer keeps an enclave busy for ever; leaves must give the chain's root, a delta must have the chain's
//! hash, and a vote must be a signature of a member's key.

mod delta;
mod quorum;
mod snapshot;
mod vote;

pub use delta::{DeltaPage, DeltaPages, DeltaRow};
pub use quorum::{Ballot, VoteError, is_quorum};
pub use snapshot::{MAX_LEAVES, SnapshotPage, SnapshotPages};
pub use vote::{CommitVote, OtherMatter, StatementVote};

/// Why a page of a peer's answer does not follow the pages before it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// It is of another commit than was asked for.
    #[error("a page of commit {got}, expected {expected}")]
    OtherCommit {
        /// The commit asked for.
        expected: u64,
        /// The page's.
        got: u64,
    },
    /// An item does not come behind the one before it.
    #[error("item {at} of commit {sequence} is not behind the one before it")]
    Order {
        /// The commit.
        sequence: u64,
        /// The item, from 0 over all pages.
        at: usize,
    },
    /// More than there can be.
    #[error("more than {most} items in commit {sequence}")]
    TooMany {
        /// The commit.
        sequence: u64,
        /// How many there can be.
        most: usize,
    },
}
