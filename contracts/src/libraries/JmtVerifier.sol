// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {LeafProof} from "../interfaces/INewton.sol";

/// @notice Checks inclusion and non-inclusion of a leaf in the state tree [docs/protocol.md, 2].
library JmtVerifier {
    /// @notice Root of the empty tree and of every empty subtree.
    bytes32 internal constant EMPTY = "SPARSE_MERKLE_PLACEHOLDER_HASH__";
    bytes32 private constant LEAF_TAG = "JMT::LeafNode"; // 13 bytes
    bytes32 private constant NODE_TAG = "JMT::IntrnalNode"; // 16 bytes, spelt so in the jmt crate
    uint256 private constant KEY_BITS = 256;

    /// @notice True if the tree with this root has the leaf (valueHash not zero) or has none under key (valueHash zero).
    function verify(bytes32 root, bytes32 key, bytes32 valueHash, LeafProof calldata proof)
        internal
        pure
        returns (bool)
    {
        bytes32[] calldata siblings = proof.siblings;
        uint256 count = siblings.length;
        if (count > KEY_BITS) return false;
        bool noNeighbour = proof.neighbourKey == 0 && proof.neighbourValueHash == 0;

        bytes32 current;
        if (valueHash != 0) {
            if (!noNeighbour) return false;
            current = _leaf(key, valueHash);
        } else if (noNeighbour) {
            current = EMPTY;
        } else {
            // The neighbour is where the key would be: another leaf on the same path down to here.
            if (proof.neighbourKey == key) return false;
            if (count != 0 && uint256(key ^ proof.neighbourKey) >> (KEY_BITS - count) != 0) return false;
            current = _leaf(proof.neighbourKey, proof.neighbourValueHash);
        }

        assembly ("memory-safe") {
            let buffer := mload(0x40)
            mstore(buffer, NODE_TAG)
            let left := add(buffer, 16)
            let right := add(buffer, 48)
            // The deepest sibling belongs to bit count-1 of the key, counted from the most significant.
            let path := shr(sub(KEY_BITS, count), key)
            if iszero(count) { path := 0 }
            let end := add(siblings.offset, shl(5, count))
            for { let at := siblings.offset } lt(at, end) { at := add(at, 32) } {
                switch and(path, 1)
                case 0 {
                    mstore(left, current)
                    mstore(right, calldataload(at))
                }
                default {
                    mstore(left, calldataload(at))
                    mstore(right, current)
                }
                current := keccak256(buffer, 80)
                path := shr(1, path)
            }
        }
        return current == root;
    }

    function _leaf(bytes32 key, bytes32 valueHash) private pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let buffer := mload(0x40)
            mstore(buffer, LEAF_TAG)
            mstore(add(buffer, 13), key)
            mstore(add(buffer, 45), valueHash)
            hash := keccak256(buffer, 77)
        }
    }
}
