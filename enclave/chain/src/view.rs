//! What the rest of the enclave may ask about a chain (design 7).

use newton_http::BoxFuture;
use newton_types::events::{EventPosition, HeaderInfo};
use newton_types::{Address, B256, Bytes};

use crate::ChainError;

/// Largest number of blocks that one question may span.
pub const MAX_RANGE: u64 = 512;

/// One log of one of the contracts asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Emitting contract.
    pub address: Address,
    /// At most four.
    pub topics: Vec<B256>,
    /// ABI-encoded data.
    pub data: Bytes,
    /// Hash of its block.
    pub block_hash: B256,
    /// Its place.
    pub position: EventPosition,
}

/// A view of one chain. What an implementation trusts is its own matter and stands in its documentation; what it returns
/// has passed its checks.
pub trait ChainView: Send + Sync {
    /// EIP-155 chain id.
    fn chain_id(&self) -> u64;

    /// The finalized head.
    fn finalized(&self) -> BoxFuture<'_, Result<HeaderInfo, ChainError>>;

    /// The newest block, which a reorg may take back.
    fn head(&self) -> BoxFuture<'_, Result<HeaderInfo, ChainError>>;

    /// Headers `from..=to`, contiguous and linked by parent hash; at most [`MAX_RANGE`].
    fn headers(&self, from: u64, to: u64) -> BoxFuture<'_, Result<Vec<HeaderInfo>, ChainError>>;

    /// All logs of `addresses` in `headers` (contiguous, at most [`MAX_RANGE`]), in chain order. The headers say which
    /// blocks are meant: a log of another block at the same height is [`ChainError::Moved`].
    fn logs<'a>(
        &'a self,
        addresses: &'a [Address],
        headers: &'a [HeaderInfo],
    ) -> BoxFuture<'a, Result<Vec<Log>, ChainError>>;

    /// A storage slot of a contract as of a block.
    fn storage(
        &self,
        address: Address,
        slot: B256,
        block: HeaderInfo,
    ) -> BoxFuture<'_, Result<B256, ChainError>>;
}
