//! How nodes lie in redb.

use jmt::KeyHash;
use jmt::storage::{LeafNode, NibblePath, Node, NodeKey, TreeReader};
use redb::{ReadableTable, TableDefinition};

/// `version (u64 big-endian) ‖ number of nibbles (u8) ‖ nibbles, two a byte` → the node in borsh. Version first: a
/// commit appends at the right edge of the B-tree.
pub const NODES: TableDefinition<'static, &'static [u8], &'static [u8]> =
    TableDefinition::new("tree/nodes");

/// `version since which it is stale (u64 big-endian) ‖ key of the node`.
pub const STALE_NODES: TableDefinition<'static, &'static [u8], ()> =
    TableDefinition::new("tree/stale");

/// Reads nodes from any table, of a read or a write transaction.
pub(super) struct Reader<'t, T>(pub &'t T);

impl<T: ReadableTable<&'static [u8], &'static [u8]>> TreeReader for Reader<'_, T> {
    fn get_node_option(&self, node_key: &NodeKey) -> anyhow::Result<Option<Node>> {
        let key = encode_key(node_key);
        let Some(bytes) = self.0.get(key.as_slice())? else {
            return Ok(None);
        };
        Ok(Some(borsh::from_slice(bytes.value())?))
    }

    /// Values live in the content table; a proof carries the value's hash, and that is all we take from it.
    fn get_value_option(
        &self,
        _max_version: u64,
        _key_hash: KeyHash,
    ) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(Some(Vec::new()))
    }

    /// Asked for by `jmt`'s own restore only, which this crate does not use.
    fn get_rightmost_leaf(&self) -> anyhow::Result<Option<(NodeKey, LeafNode)>> {
        Ok(None)
    }
}

/// An empty tree at the version before `version`, for the first one of a database.
pub(super) struct Nothing {
    pub version: u64,
}

impl TreeReader for Nothing {
    fn get_node_option(&self, node_key: &NodeKey) -> anyhow::Result<Option<Node>> {
        let parent = self.version.checked_sub(1).map(root_key);
        Ok((parent.as_ref() == Some(node_key)).then_some(Node::Null))
    }

    fn get_value_option(&self, _: u64, _: KeyHash) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(Some(Vec::new()))
    }

    fn get_rightmost_leaf(&self) -> anyhow::Result<Option<(NodeKey, LeafNode)>> {
        Ok(None)
    }
}

pub(super) fn root_key(version: u64) -> NodeKey {
    NodeKey::new(version, std::iter::empty().collect::<NibblePath>())
}

pub(super) fn encode_key(key: &NodeKey) -> Vec<u8> {
    let path = key.nibble_path();
    let count = path.num_nibbles();
    let mut out = Vec::with_capacity(9 + count.div_ceil(2));
    out.extend_from_slice(&key.version().to_be_bytes());
    // At most 64 nibbles in a 32-byte key.
    out.push(count as u8);
    for (i, nibble) in path.nibbles().enumerate() {
        let nibble = nibble.as_usize() as u8;
        if i % 2 == 0 {
            out.push(nibble << 4);
        } else if let Some(last) = out.last_mut() {
            *last |= nibble;
        }
    }
    out
}

pub(super) fn encode_stale(since: u64, key: &NodeKey) -> Vec<u8> {
    let mut out = since.to_be_bytes().to_vec();
    out.extend_from_slice(&encode_key(key));
    out
}

/// First stale key that a tree kept from `keep_from` on still needs: a node stale since v serves versions below v.
pub(super) fn stale_end(keep_from: u64) -> Vec<u8> {
    keep_from.saturating_add(1).to_be_bytes().to_vec()
}

pub(super) fn node_of_stale(key: &[u8]) -> &[u8] {
    &key[8..]
}
