//! Everything that can go wrong.

use newton_types::events::EventPosition;
use newton_types::{B256, Bytes, QueueKey, abi};

use crate::tree::TreeError;

/// Why the state refuses. Nothing is half-stored: every step is one transaction.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The database belongs to another chain or deployment.
    #[error("state database: {field} is {got}, this appliance runs with {expected}")]
    WrongIdentity {
        /// What differs.
        field: &'static str,
        /// What the configuration says.
        expected: String,
        /// What the database says.
        got: String,
    },
    /// A finalized block does not follow the last one.
    #[error("finalized blocks have a gap: expected block {expected}, got {got}")]
    Gap {
        /// Next height.
        expected: u64,
        /// Height given.
        got: u64,
    },
    /// A finalized height has another hash than before.
    #[error("finalized block {number} is {got}, it was {stored}: finalized history forked")]
    Fork {
        /// Height.
        number: u64,
        /// Hash known.
        stored: B256,
        /// Hash given.
        got: B256,
    },
    /// A block does not name the last one as its parent.
    #[error("block {number} has parent {got}, expected {expected}")]
    ParentMismatch {
        /// Height of the block.
        number: u64,
        /// Hash of the block before.
        expected: B256,
        /// Parent it names.
        got: B256,
    },
    /// Time ran backwards from a block to its child.
    #[error("block {number} has timestamp {got}, its parent {parent}")]
    TimeFell {
        /// Height of the child.
        number: u64,
        /// The parent's timestamp.
        parent: u64,
        /// The child's.
        got: u64,
    },
    /// The deployment block is not the one that the manifest names.
    #[error("deployment block {number} has hash {got}, the manifest says {expected}")]
    Checkpoint {
        /// Its height.
        number: u64,
        /// Hash in the manifest.
        expected: B256,
        /// Hash on the chain.
        got: B256,
    },
    /// An event that the contracts cannot have emitted.
    #[error("event at {position}: {reason}")]
    MalformedEvent {
        /// Where it stands.
        position: newton_types::events::EventPosition,
        /// What is wrong with it.
        reason: String,
    },
    /// The chain committed another state than the deterministic one.
    #[error(
        "commit {} on chain has root {}, the deterministic one is {}",
        .chain.sequenceNo, .chain.newStateRoot, .ours.newStateRoot
    )]
    Divergence {
        /// What this enclave derives.
        ours: Box<abi::StateCommit>,
        /// What the chain says.
        chain: Box<abi::StateCommit>,
    },
    /// Governance and a quorum replaced the state by a sealed snapshot, which this enclave cannot derive.
    #[error(
        "{position}: commit {} with root {} came from a sealed snapshot of {} bytes with hash {} at {da_ref}: this enclave \
         cannot go on from its own state",
        .snapshot.commit.sequenceNo, .snapshot.commit.newStateRoot, .snapshot.snapshotLength, .snapshot.snapshotHash
    )]
    SnapshotAdopted {
        /// Where the chain said so.
        position: EventPosition,
        /// What was adopted.
        snapshot: Box<abi::SealedSnapshot>,
        /// Where its bytes can be had.
        da_ref: Bytes,
    },
    /// A prepared commit does not build upon the current tip any more.
    #[error("commit {got} does not follow commit {tip}")]
    NotNext {
        /// Sequence number of the tip.
        tip: u64,
        /// Sequence number prepared.
        got: u64,
    },
    /// The queue has no such entry.
    #[error("defer queue has no entry {0}")]
    UnknownEntry(QueueKey),
    /// A verdict is final and another came.
    #[error("entry {entry} is {stored} already, got {got}")]
    VerdictIsFinal {
        /// The entry.
        entry: QueueKey,
        /// Verdict stored.
        stored: String,
        /// Verdict given.
        got: String,
    },
    /// Bytes are not those that the entry names.
    #[error("bytes of entry {entry} hash to {got}, expected {expected}")]
    WrongBytes {
        /// The entry.
        entry: QueueKey,
        /// Hash declared on chain.
        expected: B256,
        /// Hash of the bytes.
        got: B256,
    },
    /// Bytes have another length than declared.
    #[error("entry {entry} has {got} bytes, declared are {expected}")]
    WrongLength {
        /// The entry.
        entry: QueueKey,
        /// Length declared on chain.
        expected: u64,
        /// Length of the bytes.
        got: u64,
    },
    /// Content that must be there is not, or is damaged.
    #[error("content {hash}: {reason}")]
    Content {
        /// keccak-256 of the content.
        hash: B256,
        /// What is wrong.
        reason: String,
    },
    /// Parameters that no window can be computed from.
    #[error("consensus parameters: {0}")]
    Parameters(String),
    /// The next commit's rules are not implemented here.
    #[error(
        "rules version {version} is in force at boundary block {boundary}; this image implements versions up to {known}: \
         start an image that implements it"
    )]
    Rules {
        /// In force at the boundary.
        version: u32,
        /// The commit's boundary block.
        boundary: u64,
        /// Newest one implemented.
        known: u32,
    },
    /// The leaves of that commit are not kept, or not there yet.
    #[error("the leaves of commit {asked} are not kept here, the newest commit is {tip}")]
    NoSnapshot {
        /// Newest commit.
        tip: u64,
        /// Commit asked for.
        asked: u64,
    },
    /// What that commit wrote is not kept, or not there yet.
    #[error("the delta of commit {asked} is not kept here, the newest commit is {tip}")]
    NoDelta {
        /// Newest commit.
        tip: u64,
        /// Commit asked for.
        asked: u64,
    },
    /// A delta is not the one that the chain has.
    #[error("delta of commit {sequence} hashes to {got}, the chain has {expected}")]
    DeltaHash {
        /// The commit.
        sequence: u64,
        /// `deltaHash` on chain.
        expected: B256,
        /// Hash of the delta.
        got: B256,
    },
    /// An entry's bytes are not here, or have another length.
    #[error(
        "delta of commit {sequence}: content {hash} of entry {entry} has {got:?} bytes here, expected {expected}"
    )]
    DeltaContent {
        /// The commit.
        sequence: u64,
        /// The queue entry.
        entry: QueueKey,
        /// keccak-256 of its bytes.
        hash: B256,
        /// Length that the delta names.
        expected: u32,
        /// Length here, `None` without the bytes.
        got: Option<u64>,
    },
    /// With the right delta this enclave still derives another commit than the chain's. Replay decides whose fault it is.
    #[error("commit {sequence} does not follow from its delta here: {reason}")]
    DeltaDiffers {
        /// The commit.
        sequence: u64,
        /// What differs.
        reason: String,
    },
    /// The finalized blocks do not reach the end of the commit's window yet.
    #[error("commit {sequence} cannot be derived yet: {reason}")]
    DeltaEarly {
        /// The commit.
        sequence: u64,
        /// What is waited for.
        reason: String,
    },
    /// A snapshot's leaves give another root than the chain has.
    #[error("snapshot of commit {sequence} has root {got}, the chain has {expected}")]
    SnapshotRoot {
        /// The commit.
        sequence: u64,
        /// Root on chain.
        expected: B256,
        /// Root of the leaves.
        got: B256,
    },
    /// A leaf of a snapshot cannot be taken.
    #[error("snapshot: leaf {} {reason}", .key.0)]
    SnapshotLeaves {
        /// Its key.
        key: newton_types::LeafKey,
        /// What is wrong.
        reason: &'static str,
    },
    /// Bytes of a snapshot are not those asked for.
    #[error("snapshot: content {hash} hashes to {got}")]
    SnapshotContent {
        /// Hash asked for.
        hash: B256,
        /// Hash of the bytes.
        got: B256,
    },
    /// The pending blocks do not build upon the finalized block of this snapshot; follow again.
    #[error("pending blocks start at {got}, the finalized head is {finalized}")]
    StalePending {
        /// Finalized height.
        finalized: u64,
        /// First pending height.
        got: u64,
    },
    /// The tree refused.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The database failed.
    #[error("state storage: {0}")]
    Storage(#[from] Box<redb::Error>),
    /// A stored row cannot be read, though storage is authenticated: a defect or another program's file.
    #[error("stored {what}: {reason}")]
    Codec {
        /// What was read.
        what: &'static str,
        /// Why it failed.
        reason: String,
    },
}

impl StateError {
    /// Whether the appliance must stop: the chain contradicts itself or us, or what is stored is not to be trusted.
    /// Nothing of this kind goes away by trying again.
    pub fn is_fatal(&self) -> bool {
        !matches!(
            self,
            Self::UnknownEntry(_)
                | Self::VerdictIsFinal { .. }
                | Self::WrongBytes { .. }
                | Self::WrongLength { .. }
                | Self::NotNext { .. }
                | Self::StalePending { .. }
                | Self::NoSnapshot { .. }
                | Self::NoDelta { .. }
                | Self::DeltaHash { .. }
                | Self::DeltaContent { .. }
                | Self::DeltaDiffers { .. }
                | Self::DeltaEarly { .. }
                | Self::SnapshotRoot { .. }
                | Self::SnapshotLeaves { .. }
                | Self::SnapshotContent { .. }
        )
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for StateError {
            fn from(error: $error) -> Self {
                Self::Storage(Box::new(error.into()))
            }
        }
    )*};
}

from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError
);
