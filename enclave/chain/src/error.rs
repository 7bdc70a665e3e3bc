//! What can go wrong between us and the chain.

use newton_types::events::EventPosition;
use newton_types::{Address, B256};

/// Errors of a chain view. Three kinds matter to the appliance: try again ([`Self::is_retryable`]), stop signing until
/// answers verify again (the rest), stop for good ([`Self::is_contradiction`]).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// No answer.
    #[error("chain RPC unreachable: {0}")]
    Unreachable(String),
    /// The answer is larger than the transport takes; ask for less.
    #[error("the node's answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The caller asked for more blocks than go at once, or for none.
    #[error(
        "{method}: asked for blocks {from} to {to}, at most {} go at once",
        crate::MAX_RANGE
    )]
    Range {
        /// The method.
        method: &'static str,
        /// First block.
        from: u64,
        /// Last block.
        to: u64,
    },
    /// The node answered with an error of its own.
    #[error("{method}: node answered error {code}: {message}")]
    Refused {
        /// The method asked.
        method: &'static str,
        /// JSON-RPC error code.
        code: i64,
        /// First 200 characters of its message.
        message: String,
    },
    /// The answer is not what was asked for.
    #[error("{method}: {reason} (answer's hash {answer_hash})")]
    Invalid {
        /// The method asked.
        method: &'static str,
        /// What is wrong.
        reason: String,
        /// keccak-256 of the whole answer, for the log.
        answer_hash: B256,
    },
    /// The chain moved between two questions about blocks that are not final; ask again.
    #[error("the chain moved at block {number} while it was read")]
    Moved {
        /// Height.
        number: u64,
    },
    /// A finalized block is not the one that was known.
    #[error("finalized block {number} is {got}, known as {known}: finalized history forked")]
    Contradiction {
        /// Height.
        number: u64,
        /// Hash known before.
        known: B256,
        /// Hash given now.
        got: B256,
    },
    /// The node serves another chain.
    #[error("node serves chain {got}, the manifest names {expected}")]
    WrongChain {
        /// Chain id of the manifest.
        expected: u64,
        /// Chain id of the node.
        got: u64,
    },
    /// One of our contracts emitted an event that this image does not know: it is older than the contracts.
    #[error("event {topic} of contract {address} at {position} is unknown to this image")]
    UnknownEvent {
        /// The contract.
        address: Address,
        /// First topic, zero if there is none.
        topic: B256,
        /// Where it stands.
        position: EventPosition,
    },
    /// An event's data is not of its type.
    #[error("event {topic} of contract {address} at {position}: {reason}")]
    MalformedEvent {
        /// The contract.
        address: Address,
        /// First topic.
        topic: B256,
        /// Where it stands.
        position: EventPosition,
        /// What is wrong.
        reason: String,
    },
    /// This view would have to trust the RPC, and the manifest does not say so.
    #[error("the manifest does not declare development.unverified_chain_view")]
    NotDeclared,
}

impl ChainError {
    /// Whether asking again later may help by itself.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::Refused { .. } | Self::Moved { .. }
        )
    }

    /// Whether finalized history contradicts itself: stop, with this as the evidence.
    pub fn is_contradiction(&self) -> bool {
        matches!(self, Self::Contradiction { .. })
    }
}
