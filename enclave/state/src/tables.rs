//! redb tables and how values are written into them. Integers in keys are big-endian, so that byte order is order.

use redb::TableDefinition;
use serde::{Serialize, de::DeserializeOwned};

use crate::StateError;

/// Keys to bytes.
pub(crate) type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;
/// Heights or sequence numbers to bytes.
pub(crate) type Numbered = TableDefinition<'static, u64, &'static [u8]>;
/// A set of keys.
pub(crate) type Keys = TableDefinition<'static, &'static [u8], ()>;

/// Single values: identity, tip, finalized header, queue totals.
pub(crate) const META: Bytes = TableDefinition::new("meta");
/// Height → `hash ‖ timestamp`, from the last commit's boundary (and some blocks before) to the finalized head.
pub(crate) const HEADERS: Numbered = TableDefinition::new("headers");
/// Rows of the registries, see [`crate::registry`].
pub(crate) const ROWS: Bytes = TableDefinition::new("registry");
/// Queue key → undrained entry.
pub(crate) const QUEUE: Bytes = TableDefinition::new("queue");
/// Queue keys of undrained entries without a final verdict.
pub(crate) const UNDECIDED: Keys = TableDefinition::new("queue/undecided");
/// Queue key → what became of a drained entry.
pub(crate) const SETTLED: Bytes = TableDefinition::new("queue/settled");
/// `leaf key ‖ queue key`: every entry that ever asked for a leaf.
pub(crate) const ENTRIES_OF_LEAF: Keys = TableDefinition::new("queue/by-leaf");
/// Leaf key → its newest value.
pub(crate) const LEAVES: Bytes = TableDefinition::new("leaves");
/// Content hash → length.
pub(crate) const CONTENT: Bytes = TableDefinition::new("content");
/// `content hash ‖ chunk number (u32)` → bytes.
pub(crate) const CHUNKS: Bytes = TableDefinition::new("content/chunks");
/// `engine fingerprint ‖ component hash` → compiled component, see [`crate::compiled`].
pub(crate) const COMPILED: Bytes = TableDefinition::new("compiled");
/// The key before `‖ chunk number (u32)` → bytes.
pub(crate) const COMPILED_CHUNKS: Bytes = TableDefinition::new("compiled/chunks");
/// Sequence number → commit that this enclave derived and the chain confirmed (ABI encoding).
pub(crate) const COMMITS: Numbered = TableDefinition::new("commits");
/// `sequence number (u64) ‖ page (u32)` → part of what a retained commit wrote, see [`crate::delta`].
pub(crate) const DELTAS: Bytes = TableDefinition::new("commits/deltas");
/// Sequence number → where and by what the chain's state was replaced: (block, tx, log, snapshot, reference).
pub(crate) const ADOPTED: Numbered = TableDefinition::new("commits/adopted");
/// Sequence number → commit seen in finalized blocks and not yet replayed.
pub(crate) const CHAIN_COMMITS: Numbered = TableDefinition::new("commits/chain");

/// `task id ‖ chunk number (u32)` → part of an evaluation record.
pub(crate) const RECORDS: Bytes = TableDefinition::new("records");
/// `last block of the challenge window ‖ task id` → length of the record.
pub(crate) const RECORDS_BY_END: Bytes = TableDefinition::new("records/by-end");

pub(crate) fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, StateError> {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out).map_err(|e| StateError::Codec {
        what,
        reason: e.to_string(),
    })?;
    Ok(out)
}

pub(crate) fn decode<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, StateError> {
    ciborium::from_reader(bytes).map_err(|e| StateError::Codec {
        what,
        reason: e.to_string(),
    })
}
