//! The Jellyfish Merkle Tree over redb, the defer queue and commit selection.

pub mod tree;
