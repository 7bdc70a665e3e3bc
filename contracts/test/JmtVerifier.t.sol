// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {LeafProof} from "../src/interfaces/INewton.sol";
import {JmtVerifier} from "../src/libraries/JmtVerifier.sol";
import {vm} from "./utils/Vm.sol";

contract JmtVerifierTest {
    function verify(bytes32 root, bytes32 key, bytes32 valueHash, LeafProof calldata proof)
        external
        pure
        returns (bool)
    {
        return JmtVerifier.verify(root, key, valueHash, proof);
    }

    function test_vectors() public view {
        string memory json = vm.readFile("../tests/vectors/jmt.json");
        uint256 valid;
        uint256 invalid;
        for (uint256 i = 0; vm.keyExistsJson(json, string.concat("$[", vm.toString(i), "]")); ++i) {
            string memory entry = string.concat("$[", vm.toString(i), "]");
            LeafProof memory proof = LeafProof({
                siblings: vm.parseJsonBytes32Array(json, string.concat(entry, ".siblings")),
                neighbourKey: vm.parseJsonBytes32(json, string.concat(entry, ".neighbourKey")),
                neighbourValueHash: vm.parseJsonBytes32(json, string.concat(entry, ".neighbourValueHash"))
            });
            bool expected = vm.parseJsonBool(json, string.concat(entry, ".valid"));
            bool got = this.verify(
                vm.parseJsonBytes32(json, string.concat(entry, ".root")),
                vm.parseJsonBytes32(json, string.concat(entry, ".key")),
                vm.parseJsonBytes32(json, string.concat(entry, ".valueHash")),
                proof
            );
            vm.assertEq(got, expected, entry);
            if (expected) ++valid;
            else ++invalid;
        }
        vm.assertGe(valid, 10, "valid vectors");
        vm.assertGe(invalid, 10, "invalid vectors");
    }

    function test_the_empty_tree_holds_nothing() public view {
        LeafProof memory proof;
        vm.assertTrue(this.verify(JmtVerifier.EMPTY, keccak256("key"), 0, proof), "non-inclusion");
        vm.assertTrue(!this.verify(JmtVerifier.EMPTY, keccak256("key"), keccak256("value"), proof), "inclusion");
    }

    /// @dev Builds a root from random siblings by the formulas of docs/protocol.md, written out plainly.
    function testFuzz_inclusion(bytes32 key, bytes32 valueHash, bytes32[] memory siblings, uint256 flip) public view {
        vm.assume(valueHash != 0 && siblings.length <= 256);
        LeafProof memory proof;
        proof.siblings = siblings;
        bytes32 root = _root(keccak256(abi.encodePacked("JMT::LeafNode", key, valueHash)), key, siblings);
        vm.assertTrue(this.verify(root, key, valueHash, proof), "included");
        vm.assertTrue(!this.verify(root, key, keccak256(abi.encode(valueHash)), proof), "other value");
        vm.assertTrue(!this.verify(root, key, 0, proof), "absence of a present leaf");
        if (siblings.length != 0) {
            siblings[flip % siblings.length] ^= bytes32(uint256(1));
            vm.assertTrue(!this.verify(root, key, valueHash, proof), "changed sibling");
        }
    }

    function testFuzz_non_inclusion(bytes32 key, bytes32 neighbourValueHash, bytes32[] memory siblings) public view {
        vm.assume(siblings.length < 256 && neighbourValueHash != 0);
        LeafProof memory proof;
        proof.siblings = siblings;
        vm.assertTrue(this.verify(_root(JmtVerifier.EMPTY, key, siblings), key, 0, proof), "empty subtree");

        proof.neighbourKey = key ^ bytes32(uint256(1));
        proof.neighbourValueHash = neighbourValueHash;
        bytes32 leaf = keccak256(abi.encodePacked("JMT::LeafNode", proof.neighbourKey, neighbourValueHash));
        bytes32 root = _root(leaf, key, siblings);
        vm.assertTrue(this.verify(root, key, 0, proof), "neighbour");
        vm.assertTrue(!this.verify(root, proof.neighbourKey, 0, proof), "neighbour is the key");

        if (siblings.length != 0) {
            // A neighbour off the key's path proves nothing about the key.
            proof.neighbourKey = key ^ bytes32(1 << (256 - siblings.length));
            leaf = keccak256(abi.encodePacked("JMT::LeafNode", proof.neighbourKey, neighbourValueHash));
            root = _root(leaf, key, siblings);
            vm.assertTrue(!this.verify(root, key, 0, proof), "neighbour elsewhere");
        }
    }

    function _root(bytes32 start, bytes32 key, bytes32[] memory siblings) private pure returns (bytes32 current) {
        current = start;
        for (uint256 i = 0; i < siblings.length; ++i) {
            uint256 position = siblings.length - 1 - i;
            bool right = uint256(key) >> (255 - position) & 1 == 1;
            current = right
                ? keccak256(abi.encodePacked("JMT::IntrnalNode", siblings[i], current))
                : keccak256(abi.encodePacked("JMT::IntrnalNode", current, siblings[i]));
        }
    }
}
