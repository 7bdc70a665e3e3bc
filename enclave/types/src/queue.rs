//! The defer queue's keys and the canonical delta of a commit (design 2.4, 2.5, `docs/protocol.md` §3).

use alloy_primitives::{B256, keccak256};
use alloy_sol_types::SolValue;
use serde::{Deserialize, Serialize};

use crate::abi;

/// Place of a queue entry in the chain's order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct QueueKey {
    /// Block number.
    pub block: u64,
    /// Transaction's index in the block.
    pub tx: u32,
    /// Log's index in the block.
    pub log: u32,
    /// Artifact's position in its event.
    pub item: u32,
}

impl QueueKey {
    /// 20 bytes, big-endian, so that byte order is queue order.
    pub fn to_bytes(self) -> [u8; 20] {
        let mut out = [0; 20];
        out[..8].copy_from_slice(&self.block.to_be_bytes());
        out[8..12].copy_from_slice(&self.tx.to_be_bytes());
        out[12..16].copy_from_slice(&self.log.to_be_bytes());
        out[16..].copy_from_slice(&self.item.to_be_bytes());
        out
    }

    /// Inverse of [`Self::to_bytes`].
    pub fn from_bytes(b: [u8; 20]) -> Self {
        let word = |i: usize| u32::from_be_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        Self {
            block: u64::from(word(0)) << 32 | u64::from(word(4)),
            tx: word(8),
            log: word(12),
            item: word(16),
        }
    }
}

impl std::fmt::Display for QueueKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            block,
            tx,
            log,
            item,
        } = self;
        write!(f, "{block}/{tx}/{log}/{item}")
    }
}

/// One leaf written by a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaEntry {
    /// Key of the leaf.
    pub leaf_key: B256,
    /// keccak-256 of its value.
    pub value_hash: B256,
    /// Value's length in bytes.
    pub length: u32,
    /// The queue entry that ordered it.
    pub key: QueueKey,
}

/// `keccak256(abi.encode(DeltaEntry[]))` over entries in queue order.
pub fn delta_hash(entries: &[DeltaEntry]) -> B256 {
    let encoded: Vec<abi::DeltaEntry> = entries
        .iter()
        .map(|e| abi::DeltaEntry {
            leafKey: e.leaf_key,
            valueHash: e.value_hash,
            length: e.length,
            blockNumber: e.key.block,
            txIndex: e.key.tx,
            logIndex: e.key.log,
            item: e.key.item,
        })
        .collect();
    keccak256(encoded.abi_encode())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_is_queue_order() {
        let a = QueueKey {
            block: 1,
            tx: u32::MAX,
            log: 7,
            item: 2,
        };
        let b = QueueKey {
            block: 256,
            ..QueueKey::default()
        };
        assert!(a < b && a.to_bytes() < b.to_bytes());
        assert_eq!(QueueKey::from_bytes(a.to_bytes()), a);
        assert_eq!(QueueKey::from_bytes(b.to_bytes()), b);
    }
}
