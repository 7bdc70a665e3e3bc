// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ICertificateVerifier} from "../src/interfaces/INewton.sol";
import {BlsVerifier} from "../src/libraries/BlsVerifier.sol";
import {TestBls} from "./utils/TestBls.sol";
import {vm} from "./utils/Vm.sol";

/// @dev The contracts and blst agree, on random cases and on RFC 9380's own; and what neither of them may take.
contract BlsAgreementTest {
    uint256 private constant CASES = 1024;

    string private json;

    function setUp() public {
        json = vm.readFile("../tests/vectors/bls-agreement.json");
    }

    function test_random_cases_are_bit_for_bit_those_of_blst() public view {
        bytes32[] memory groups = vm.parseJsonBytes32Array(json, ".groups");
        uint256 perGroup = vm.parseJsonUint(json, ".perGroup");
        vm.assertGe(groups.length * perGroup, CASES, "enough cases");
        for (uint256 i = 0; i < groups.length; ++i) {
            // A call each, so that memory is given back.
            vm.assertEq(this.group(i, perGroup), groups[i], string.concat("group ", vm.toString(i)));
        }
    }

    function test_hashing_to_the_curve_is_that_of_rfc_9380() public view {
        bytes memory tag = bytes(vm.parseJsonString(json, ".rfc9380.tag"));
        bytes[] memory messages = vm.parseJsonBytesArray(json, ".rfc9380.message");
        bytes[] memory points = vm.parseJsonBytesArray(json, ".rfc9380.point");
        vm.assertEq(messages.length, 5, "all of J.9.1");
        for (uint256 i = 0; i < messages.length; ++i) {
            vm.assertEq(TestBls.hashToG1(messages[i], tag), points[i], "point");
        }
    }

    /// @dev The contract hashes 32 bytes under two tags; the plain version, checked above, any message under any tag.
    function testFuzz_hashing_to_the_curve_is_the_plain_one(bytes32 message) public view {
        vm.assertEq(BlsVerifier.hashToG1(message), TestBls.hashToG1(message, TestBls.SUITE), "point");
    }

    function test_lengths_that_are_none() public view {
        bytes memory key = TestBls.publicKey(7);
        bytes memory signature = TestBls.sign(7, 0);
        uint16[13] memory lengths = [0, 1, 32, 48, 64, 96, 127, 128, 129, 255, 256, 257, 512];
        for (uint256 i = 0; i < lengths.length; ++i) {
            bytes memory wrong = _resized(lengths[i] < 130 ? signature : key, lengths[i]);
            if (lengths[i] != 256) {
                bytes memory reason = _length(256, lengths[i]);
                _refused(abi.encodeCall(this.verify, (0, wrong, signature)), reason);
                _refused(abi.encodeCall(this.add, (wrong, key)), reason);
                _refused(abi.encodeCall(this.add, (key, wrong)), reason);
                _refused(abi.encodeCall(this.negate, (wrong)), reason);
            }
            if (lengths[i] != 128) {
                _refused(abi.encodeCall(this.verify, (0, key, wrong)), _length(128, lengths[i]));
            }
        }
    }

    function test_infinity_is_neither_key_nor_signature() public view {
        bytes memory reason = abi.encodeWithSelector(ICertificateVerifier.PointAtInfinity.selector);
        bytes memory key = TestBls.publicKey(7);
        bytes memory signature = TestBls.sign(7, 0);
        _refused(abi.encodeCall(this.verify, (0, new bytes(256), signature)), reason);
        _refused(abi.encodeCall(this.verify, (0, key, new bytes(128))), reason);
        _refused(abi.encodeCall(this.verify, (0, new bytes(256), new bytes(128))), reason);
    }

    /// @dev Each coordinate: above the field, with something in its padding, off the curve.
    function test_every_coordinate_is_checked() public view {
        bytes memory key = TestBls.publicKey(7);
        bytes memory signature = TestBls.sign(7, 0);
        bytes memory modulus =
            hex"1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab";
        for (uint256 i = 0; i < 4; ++i) {
            _refusedKey(_with(key, i, modulus), signature);
            _refusedKey(_plus(key, 64 * i + 15), signature);
            _refusedKey(_plus(key, 64 * i), signature);
            _refusedKey(_plus(key, 64 * i + 63), signature);
            if (i > 1) continue;
            _refusedSignature(key, _with(signature, i, modulus));
            _refusedSignature(key, _plus(signature, 64 * i + 15));
            _refusedSignature(key, _plus(signature, 64 * i));
            _refusedSignature(key, _plus(signature, 64 * i + 63));
        }
        // The addition refuses what is not on the curve, too; being in the subgroup is the pairing's to check.
        _refused(
            abi.encodeCall(this.add, (key, _plus(key, 255))),
            abi.encodeWithSelector(ICertificateVerifier.PrecompileFailed.selector, address(0x0d))
        );
    }

    /// @dev A signature that verifies under the sum of a key and another that was made up to cancel it: why every key needs
    /// a proof of possession.
    function test_a_rogue_key_verifies_as_a_sum_and_has_no_proof() public view {
        (uint256 honest, uint256 attacker) = (TestBls.secret("honest"), TestBls.secret("attacker"));
        bytes memory rogue = BlsVerifier.add(TestBls.publicKey(attacker), BlsVerifier.negate(TestBls.publicKey(honest)));
        bytes memory sum = BlsVerifier.add(TestBls.publicKey(honest), rogue);
        vm.assertTrue(
            BlsVerifier.verify("message", sum, TestBls.sign(attacker, "message")), "a sum alone proves nothing"
        );
        bytes32 statement = keccak256(rogue);
        vm.assertTrue(
            !BlsVerifier.verifyPossession(statement, rogue, TestBls.possession(attacker, statement)), "no proof"
        );
    }

    /// @dev Hash over what the precompiles make of each case; checks acceptance and a deviation by the way.
    function group(uint256 number, uint256 perGroup) external view returns (bytes32) {
        bytes memory all;
        for (uint256 i = number * perGroup; i < (number + 1) * perGroup; ++i) {
            uint256 secretKey = _secret(i);
            bytes32 digest = _seed("digest", i);
            bytes memory key = TestBls.publicKey(secretKey);
            bytes memory signature = TestBls.sign(secretKey, digest);
            bytes memory proof = TestBls.possession(secretKey, digest);
            vm.assertTrue(BlsVerifier.verify(digest, key, signature), "signature");
            vm.assertTrue(BlsVerifier.verifyPossession(digest, key, proof), "possession");
            vm.assertTrue(!_verifiesDeviation(i, digest, key, signature, proof), "deviation");
            all = bytes.concat(all, key, BlsVerifier.hashToG1(digest), signature, proof);
        }
        return keccak256(all);
    }

    function verify(bytes32 digest, bytes calldata key, bytes calldata signature) external view returns (bool) {
        return BlsVerifier.verify(digest, key, signature);
    }

    function add(bytes calldata a, bytes calldata b) external view returns (bytes memory) {
        return BlsVerifier.add(a, b);
    }

    function negate(bytes calldata point) external pure returns (bytes memory) {
        return BlsVerifier.negate(point);
    }

    /// @dev The deviations of enclave/keys/tests/bls_agreement.rs, which blst refuses.
    function _verifiesDeviation(uint256 i, bytes32 digest, bytes memory key, bytes memory signature, bytes memory proof)
        private
        view
        returns (bool)
    {
        uint256 other = _secret(i + 1);
        if (i % 4 == 0) {
            // Bit i % 8 of byte i / 4 % 32.
            uint256 flipped = uint256(digest) ^ (1 << (8 * (31 - (i / 4) % 32) + i % 8));
            return BlsVerifier.verify(bytes32(flipped), key, signature);
        }
        if (i % 4 == 1) return BlsVerifier.verify(digest, TestBls.publicKey(other), signature);
        if (i % 4 == 2) return BlsVerifier.verify(digest, key, TestBls.sign(other, digest));
        return BlsVerifier.verify(digest, key, proof);
    }

    function _refusedKey(bytes memory key, bytes memory signature) private view {
        _refused(abi.encodeCall(this.verify, (0, key, signature)), _pairingFailed());
    }

    function _refusedSignature(bytes memory key, bytes memory signature) private view {
        _refused(abi.encodeCall(this.verify, (0, key, signature)), _pairingFailed());
    }

    function _refused(bytes memory call, bytes memory reason) private view {
        (bool ok, bytes memory answer) = address(this).staticcall(call);
        vm.assertTrue(!ok, "accepted");
        vm.assertEq(answer, reason, "reason");
    }

    function _pairingFailed() private pure returns (bytes memory) {
        return abi.encodeWithSelector(ICertificateVerifier.PrecompileFailed.selector, address(0x0f));
    }

    function _length(uint256 expected, uint256 got) private pure returns (bytes memory) {
        return abi.encodeWithSelector(ICertificateVerifier.InvalidPointLength.selector, expected, got);
    }

    function _secret(uint256 i) private pure returns (uint256) {
        return uint256(_seed("key", i)) & ((1 << 254) - 1);
    }

    function _seed(string memory label, uint256 i) private pure returns (bytes32) {
        return keccak256(abi.encodePacked("newton bls agreement: ", label, uint32(i)));
    }

    /// @dev Coordinate `index` replaced.
    function _with(bytes memory point, uint256 index, bytes memory coordinate)
        private
        pure
        returns (bytes memory changed)
    {
        changed = bytes.concat(point);
        for (uint256 i = 0; i < 48; ++i) {
            changed[64 * index + 16 + i] = coordinate[i];
        }
    }

    /// @dev One bit of the byte at `index` changed.
    function _plus(bytes memory point, uint256 index) private pure returns (bytes memory changed) {
        changed = bytes.concat(point);
        changed[index] ^= 0x01;
    }

    function _resized(bytes memory value, uint256 length) private pure returns (bytes memory result) {
        result = new bytes(length);
        for (uint256 i = 0; i < length && i < value.length; ++i) {
            result[i] = value[i];
        }
    }
}
