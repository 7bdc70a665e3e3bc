// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ICertificateVerifier} from "../src/interfaces/INewton.sol";
import {BlsVerifier} from "../src/libraries/BlsVerifier.sol";
import {TestBls} from "./utils/TestBls.sol";
import {vm} from "./utils/Vm.sol";

contract BlsVerifierTest {
    struct Both {
        bytes32 message;
        bytes key;
        bytes signature;
        bytes32 possession;
        bytes newKey;
        bytes proof;
    }

    string private json;

    function setUp() public {
        json = vm.readFile("../tests/vectors/bls.json");
    }

    function test_suites_are_those_of_the_vectors() public view {
        vm.assertEq(vm.parseJsonString(json, ".suite"), string(TestBls.SUITE), "suite");
        vm.assertEq(vm.parseJsonString(json, ".possessionSuite"), string(TestBls.POSSESSION_SUITE), "possession suite");
    }

    function test_single_signatures_and_hashes_to_the_curve() public view {
        bytes[] memory publicKeys = vm.parseJsonBytesArray(json, ".single.publicKey");
        bytes32[] memory hashes = vm.parseJsonBytes32Array(json, ".single.publicKeyHash");
        bytes32[] memory digests = vm.parseJsonBytes32Array(json, ".single.digest");
        bytes[] memory hashed = vm.parseJsonBytesArray(json, ".single.hashedToG1");
        bytes[] memory signatures = vm.parseJsonBytesArray(json, ".single.signature");
        vm.assertGe(publicKeys.length, 10, "enough vectors");
        for (uint256 i = 0; i < publicKeys.length; ++i) {
            vm.assertEq(keccak256(publicKeys[i]), hashes[i], "key hash");
            vm.assertEq(BlsVerifier.hashToG1(digests[i]), hashed[i], "hash to G1");
            vm.assertEq(TestBls.hashToG1(digests[i], TestBls.SUITE), hashed[i], "hash to G1 of the tests");
            vm.assertTrue(this.verify(digests[i], publicKeys[i], signatures[i]), "signature");
            vm.assertTrue(!this.verify(~digests[i], publicKeys[i], signatures[i]), "other digest");
            vm.assertTrue(!this.verifyPossession(digests[i], publicKeys[i], signatures[i]), "other suite");
        }
    }

    function test_aggregates_with_all_and_with_one_absent() public view {
        bytes[] memory publicKeys = vm.parseJsonBytesArray(json, ".aggregate.publicKeys");
        bytes32[] memory digests = vm.parseJsonBytes32Array(json, ".aggregate.digest");
        bytes[] memory aggregateKeys = vm.parseJsonBytesArray(json, ".aggregate.aggregateKey");
        bytes[] memory signatures = vm.parseJsonBytesArray(json, ".aggregate.signature");
        uint256[] memory absent = vm.parseJsonUintArray(json, ".aggregate.absentIndex");
        bytes[] memory signersKeys = vm.parseJsonBytesArray(json, ".aggregate.signersKey");
        bytes[] memory without = vm.parseJsonBytesArray(json, ".aggregate.signatureWithoutAbsent");
        vm.assertGe(digests.length, 4, "enough vectors");
        for (uint256 i = 0; i < digests.length; ++i) {
            bytes memory sum = publicKeys[4 * i];
            for (uint256 k = 1; k < 4; ++k) {
                sum = BlsVerifier.add(sum, publicKeys[4 * i + k]);
            }
            vm.assertEq(sum, aggregateKeys[i], "aggregate key");
            vm.assertTrue(this.verify(digests[i], sum, signatures[i]), "aggregate");
            bytes memory rest = BlsVerifier.add(sum, BlsVerifier.negate(publicKeys[4 * i + absent[i]]));
            vm.assertEq(rest, signersKeys[i], "signers' key");
            vm.assertTrue(this.verify(digests[i], rest, without[i]), "without one");
            vm.assertTrue(!this.verify(digests[i], sum, without[i]), "missing one");
        }
    }

    function test_proofs_of_possession() public view {
        address[] memory owners = vm.parseJsonAddressArray(json, ".possession.owner");
        string[] memory chainIds = vm.parseJsonStringArray(json, ".possession.chainId");
        address[] memory registries = vm.parseJsonAddressArray(json, ".possession.registry");
        bytes[] memory publicKeys = vm.parseJsonBytesArray(json, ".possession.publicKey");
        bytes32[] memory messages = vm.parseJsonBytes32Array(json, ".possession.message");
        bytes[] memory proofs = vm.parseJsonBytesArray(json, ".possession.proof");
        for (uint256 i = 0; i < owners.length; ++i) {
            bytes32 message =
                keccak256(abi.encode(owners[i], vm.parseUint(chainIds[i]), registries[i], keccak256(publicKeys[i])));
            vm.assertEq(message, messages[i], "message");
            vm.assertTrue(this.verifyPossession(message, publicKeys[i], proofs[i]), "proof");
            vm.assertTrue(!this.verify(message, publicKeys[i], proofs[i]), "used as a signature");
        }
    }

    function test_mismatches_do_not_verify() public view {
        bytes[] memory publicKeys = vm.parseJsonBytesArray(json, ".mismatch.publicKey");
        bytes32[] memory digests = vm.parseJsonBytes32Array(json, ".mismatch.digest");
        bytes[] memory signatures = vm.parseJsonBytesArray(json, ".mismatch.signature");
        string[] memory cases = vm.parseJsonStringArray(json, ".mismatch.case");
        for (uint256 i = 0; i < cases.length; ++i) {
            vm.assertTrue(!this.verify(digests[i], publicKeys[i], signatures[i]), cases[i]);
        }
    }

    function test_bad_encodings_are_refused() public view {
        bytes memory goodKey = vm.parseJsonBytesArray(json, ".single.publicKey")[0];
        bytes32 digest = vm.parseJsonBytes32Array(json, ".single.digest")[0];
        bytes memory goodSignature = vm.parseJsonBytesArray(json, ".single.signature")[0];
        bytes[] memory publicKeys = vm.parseJsonBytesArray(json, ".refused.publicKey");
        string[] memory keyReasons = vm.parseJsonStringArray(json, ".refused.publicKeyReason");
        for (uint256 i = 0; i < publicKeys.length; ++i) {
            _refused(digest, publicKeys[i], goodSignature, keyReasons[i]);
        }
        bytes[] memory signatures = vm.parseJsonBytesArray(json, ".refused.signature");
        string[] memory signatureReasons = vm.parseJsonStringArray(json, ".refused.signatureReason");
        for (uint256 i = 0; i < signatures.length; ++i) {
            _refused(digest, goodKey, signatures[i], signatureReasons[i]);
        }
    }

    function test_a_failing_precompile_burns_no_more_than_its_cap() public view {
        bytes memory key = vm.parseJsonBytesArray(json, ".single.publicKey")[0];
        bytes memory garbage = new bytes(128);
        garbage[127] = 0x01;
        uint256 before = gasleft();
        _refused(bytes32(0), key, garbage, "not on the curve");
        vm.assertLe(before - gasleft(), 300_000, "gas");
    }

    function testFuzz_sign_add_negate(uint256 a, uint256 b, bytes32 digest) public view {
        a = a % (TestBls.ORDER - 1) + 1;
        b = b % (TestBls.ORDER - 1) + 1;
        vm.assume(a != b && addmod(a, b, TestBls.ORDER) != 0);
        bytes memory keyA = TestBls.publicKey(a);
        bytes memory keyB = TestBls.publicKey(b);
        bytes memory both = BlsVerifier.add(keyA, keyB);
        vm.assertEq(both, TestBls.publicKey(addmod(a, b, TestBls.ORDER)), "sum");
        vm.assertEq(BlsVerifier.add(both, BlsVerifier.negate(keyB)), keyA, "difference");
        vm.assertTrue(BlsVerifier.isInfinity(BlsVerifier.add(keyA, BlsVerifier.negate(keyA))), "infinity");
        vm.assertTrue(this.verify(digest, keyA, TestBls.sign(a, digest)), "signature");
        vm.assertTrue(!this.verify(digest, keyB, TestBls.sign(a, digest)), "other key");
    }

    /// @dev Both at once is exactly one and the other, also for halves that cancel out.
    function testFuzz_both_at_once_are_one_and_the_other(uint256 a, uint256 b, bytes32 message, bytes32 possession)
        public
        view
    {
        a = a % (TestBls.ORDER - 1) + 1;
        b = b % (TestBls.ORDER - 1) + 1;
        Both memory both = Both(
            message,
            TestBls.publicKey(a),
            TestBls.sign(a, message),
            possession,
            TestBls.publicKey(b),
            TestBls.possession(b, possession)
        );
        vm.assertTrue(this.verifyBoth(both), "both");
        bytes memory signature = both.signature;
        bytes memory proof = both.proof;
        // What makes the signature wrong is taken from the proof: the sum stays.
        bytes memory more = TestBls.sign(1, keccak256("something"));
        bytes memory less = TestBls.sign(TestBls.ORDER - 1, keccak256("something"));
        (both.signature, both.proof) = (_addG1(signature, more), _addG1(proof, less));
        vm.assertTrue(!this.verifyBoth(both), "halves that cancel out");
        both.proof = proof;
        vm.assertTrue(!this.verifyBoth(both), "wrong signature");
        (both.signature, both.proof) = (signature, _addG1(proof, more));
        vm.assertTrue(!this.verifyBoth(both), "wrong proof");
        (both.signature, both.proof) = (proof, signature);
        vm.assertTrue(!this.verifyBoth(both), "exchanged");
        (both.signature, both.proof) = (signature, TestBls.sign(b, possession));
        vm.assertTrue(!this.verifyBoth(both), "a signature for a proof");
        both.proof = proof;
        both.message = ~message;
        vm.assertTrue(!this.verifyBoth(both), "other message");
        (both.message, both.possession) = (message, ~possession);
        vm.assertTrue(!this.verifyBoth(both), "other possession");
        if (a == b) return;
        both.possession = possession;
        (both.key, both.newKey) = (both.newKey, both.key);
        vm.assertTrue(!this.verifyBoth(both), "keys exchanged");
    }

    /// @dev A new key that cancels the signers' key out would let anyone sign for them.
    function test_a_rogue_key_does_not_help() public view {
        bytes memory key = TestBls.publicKey(TestBls.secret("signers"));
        bytes memory rogue = BlsVerifier.add(TestBls.publicKey(7), BlsVerifier.negate(key));
        bytes32 message = keccak256("message");
        Both memory both = Both(message, key, TestBls.sign(7, message), message, rogue, TestBls.possession(7, message));
        vm.assertTrue(!this.verifyBoth(both), "rogue");
    }

    function test_both_refuse_what_one_refuses() public view {
        bytes32 message = keccak256("message");
        Both memory good = Both(
            message,
            TestBls.publicKey(3),
            TestBls.sign(3, message),
            message,
            TestBls.publicKey(5),
            TestBls.possession(5, message)
        );
        bytes[] memory keys = vm.parseJsonBytesArray(json, ".refused.publicKey");
        for (uint256 i = 0; i < keys.length; ++i) {
            _refusedBoth(Both(message, keys[i], good.signature, message, good.newKey, good.proof));
            _refusedBoth(Both(message, good.key, good.signature, message, keys[i], good.proof));
        }
        bytes[] memory points = vm.parseJsonBytesArray(json, ".refused.signature");
        for (uint256 i = 0; i < points.length; ++i) {
            _refusedBoth(Both(message, good.key, points[i], message, good.newKey, good.proof));
            _refusedBoth(Both(message, good.key, good.signature, message, good.newKey, points[i]));
        }
        vm.assertTrue(keys.length > 3 && points.length > 3, "cases");
    }

    function test_negative_of_infinity_is_infinity() public pure {
        vm.assertEq(BlsVerifier.negate(new bytes(256)), new bytes(256), "infinity");
    }

    function verify(bytes32 digest, bytes calldata key, bytes calldata signature) external view returns (bool) {
        return BlsVerifier.verify(digest, key, signature);
    }

    function verifyBoth(Both calldata b) external view returns (bool) {
        return BlsVerifier.verifyBoth(b.message, b.key, b.signature, b.possession, b.newKey, b.proof);
    }

    function _refusedBoth(Both memory both) private view {
        try this.verifyBoth(both) returns (bool) {
            revert("accepted");
        } catch (bytes memory problem) {
            bytes4 selector = bytes4(problem);
            vm.assertTrue(
                selector == ICertificateVerifier.PointAtInfinity.selector
                    || selector == ICertificateVerifier.PrecompileFailed.selector
                    || selector == ICertificateVerifier.InvalidPointLength.selector,
                "known"
            );
        }
    }

    function _addG1(bytes memory one, bytes memory other) private view returns (bytes memory) {
        (bool ok, bytes memory result) = address(0x0b).staticcall(bytes.concat(one, other));
        require(ok, "G1ADD");
        return result;
    }

    function verifyPossession(bytes32 message, bytes calldata key, bytes calldata proof) external view returns (bool) {
        return BlsVerifier.verifyPossession(message, key, proof);
    }

    function _refused(bytes32 digest, bytes memory key, bytes memory signature, string memory reason) private view {
        try this.verify(digest, key, signature) returns (bool) {
            revert(string.concat("accepted: ", reason));
        } catch (bytes memory problem) {
            bytes4 selector = bytes4(problem);
            bool known = selector == ICertificateVerifier.PointAtInfinity.selector
                || selector == ICertificateVerifier.PrecompileFailed.selector
                || selector == ICertificateVerifier.InvalidPointLength.selector;
            vm.assertTrue(known, reason);
            bool atInfinity = keccak256(bytes(reason)) == keccak256("infinity");
            vm.assertEq(selector == ICertificateVerifier.PointAtInfinity.selector, atInfinity, reason);
        }
    }
}
