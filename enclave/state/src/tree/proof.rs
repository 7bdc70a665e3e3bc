//! From `jmt`'s proof, whose sibling list is private, to the protocol's.

use borsh::BorshDeserialize;
use jmt::proof::SparseMerkleProof;
use newton_types::leaf::{EMPTY_ROOT, leaf_hash, node_hash};
use newton_types::{B256, LeafKey, LeafProof};

use super::{TreeError, TreeHasher};

/// The borsh form of `jmt::proof::SparseMerkleProof`, version 0.12.
#[derive(BorshDeserialize)]
struct JmtProof {
    leaf: Option<([u8; 32], [u8; 32])>,
    siblings: Vec<JmtNode>,
}

#[derive(BorshDeserialize)]
enum JmtNode {
    Null,
    Internal { left: [u8; 32], right: [u8; 32] },
    Leaf { key: [u8; 32], value: [u8; 32] },
}

impl JmtNode {
    fn hash(&self) -> B256 {
        match self {
            Self::Null => EMPTY_ROOT,
            Self::Internal { left, right } => node_hash(B256::from(left), B256::from(right)),
            Self::Leaf { key, value } => leaf_hash(LeafKey(B256::from(key)), B256::from(value)),
        }
    }
}

/// The value hash under `key`, if it is there, and the proof of either.
pub(super) fn reencode(
    proof: &SparseMerkleProof<TreeHasher>,
    key: LeafKey,
) -> Result<(Option<B256>, LeafProof), TreeError> {
    let bytes = borsh::to_vec(proof).map_err(super::inner)?;
    let proof: JmtProof = borsh::from_slice(&bytes).map_err(super::inner)?;
    let mut out = LeafProof {
        siblings: proof.siblings.iter().map(JmtNode::hash).collect(),
        ..LeafProof::default()
    };
    let value_hash = match proof.leaf {
        Some((leaf, value)) if leaf == key.0.0 => Some(B256::from(value)),
        Some((leaf, value)) => {
            out.neighbour_key = B256::from(leaf);
            out.neighbour_value_hash = B256::from(value);
            None
        }
        None => None,
    };
    Ok((value_hash, out))
}
