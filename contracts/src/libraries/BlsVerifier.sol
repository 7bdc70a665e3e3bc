// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ICertificateVerifier} from "../interfaces/INewton.sol";

/// @notice BLS12-381 signatures with keys in G2 and signatures in G1 by the precompiles of EIP-2537; the suites are those
/// of docs/protocol.md, 7. Points are in EIP-2537 form: 128 bytes in G1, 256 in G2, infinity all zero.
/// @dev Keys must have been checked for the subgroup before they are added up: the pairing does that, addition does not.
/// `verify` is a pairing, so a key whose proof of possession was verified here is in the subgroup.
library BlsVerifier {
    uint256 internal constant G1_LENGTH = 128;
    uint256 internal constant G2_LENGTH = 256;

    // The tags are 43 bytes: a word each, and an end that both share, with the length behind it.
    bytes32 private constant SIGNATURE_TAG = "BLS_SIG_BLS12381G1_XMD:SHA-256_S";
    bytes32 private constant POSSESSION_TAG = "BLS_POP_BLS12381G1_XMD:SHA-256_S";
    bytes32 private constant TAG_END = "SWU_RO_POP_\x2b";

    uint256 private constant SHA256 = 0x02;
    uint256 private constant MODEXP = 0x05;
    uint256 private constant G1_ADD = 0x0b;
    uint256 private constant G1_MSM = 0x0c;
    uint256 private constant G2_ADD = 0x0d;
    uint256 private constant PAIRING = 0x0f;
    uint256 private constant MAP_FP_TO_G1 = 0x10;

    // A failing precompile burns what it was given. Twice today's price leaves room for repricing.
    uint256 private constant MODEXP_GAS = 2000; // 200, 500 under EIP-7883
    uint256 private constant G1_ADD_GAS = 750; // 375
    uint256 private constant G2_ADD_GAS = 1200; // 600
    uint256 private constant G1_MSM_GAS = 24_000; // 12000 for one point
    uint256 private constant PAIRING_GAS = 205_800; // 37700 + 2 * 32600
    uint256 private constant PAIRING_OF_THREE_GAS = 271_000; // 37700 + 3 * 32600
    uint256 private constant MAP_FP_TO_G1_GAS = 11_000; // 5500

    // The field's modulus in two words.
    uint256 private constant P_HIGH = 0x1a0111ea397fe69a4b1ba7b6434bacd7;
    uint256 private constant P_LOW = 0x64774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab;

    /// @notice True if `signature` is one of `message` under `publicKey`.
    function verify(bytes32 message, bytes memory publicKey, bytes memory signature) internal view returns (bool) {
        return _verify(message, SIGNATURE_TAG, publicKey, signature);
    }

    /// @notice True if `proof` is a proof of possession over `message` under `publicKey`.
    function verifyPossession(bytes32 message, bytes memory publicKey, bytes memory proof)
        internal
        view
        returns (bool)
    {
        return _verify(message, POSSESSION_TAG, publicKey, proof);
    }

    /// @notice True if `signature` is one of `message` under `publicKey` and `proof` a proof of possession over `possession`
    /// under `newKey`: both for little more than one.
    /// @dev e(signature + c * proof, -g2) * e(hash, publicKey) * e(c * hash', newKey) == 1, where c is the hash of everything
    /// that went in. If one of the two were wrong, one c in the group's order would let it pass, and c is known only once
    /// all else is fixed. The multiplication checks that the proof is in the subgroup; the pairing checks the sum, so the
    /// signature is, and both keys.
    function verifyBoth(
        bytes32 message,
        bytes memory publicKey,
        bytes memory signature,
        bytes32 possession,
        bytes memory newKey,
        bytes memory proof
    ) internal view returns (bool) {
        _requirePoints(publicKey, signature);
        _requirePoints(newKey, proof);
        uint256 c = uint256(
            keccak256(
                abi.encodePacked(
                    message, keccak256(publicKey), keccak256(signature), possession, keccak256(newKey), keccak256(proof)
                )
            )
        );
        // 0..1151 the pairs; 1152..1311 a point and its factor.
        uint256 input = _allocate(1312);
        uint256 product = input + 1152;
        _hashToG1(message, SIGNATURE_TAG, input + 384);
        _hashToG1(possession, POSSESSION_TAG, product);
        assembly ("memory-safe") {
            mstore(add(product, 128), c)
        }
        _point(G1_MSM, G1_MSM_GAS, product, 160, input + 768);
        assembly ("memory-safe") {
            mcopy(product, add(proof, 0x20), 128)
        }
        _point(G1_MSM, G1_MSM_GAS, product, 160, input + 128);
        assembly ("memory-safe") {
            mcopy(input, add(signature, 0x20), 128)
        }
        _point(G1_ADD, G1_ADD_GAS, input, 256, input);
        assembly ("memory-safe") {
            mcopy(add(input, 512), add(publicKey, 0x20), 256)
            mcopy(add(input, 896), add(newKey, 0x20), 256)
        }
        _storeGenerator(input + 128);
        return _pairing(input, 1152, PAIRING_OF_THREE_GAS);
    }

    /// @notice Sum of two points of G2.
    function add(bytes memory a, bytes memory b) internal view returns (bytes memory) {
        requireLength(a, G2_LENGTH);
        requireLength(b, G2_LENGTH);
        return _call(G2_ADD, G2_ADD_GAS, bytes.concat(a, b), G2_LENGTH);
    }

    /// @notice The point's negative.
    function negate(bytes memory point) internal pure returns (bytes memory result) {
        requireLength(point, G2_LENGTH);
        result = bytes.concat(point);
        // Layout: x.c0, x.c1, y.c0, y.c1 of 64 bytes each; y becomes p - y per coefficient, zero stays.
        assembly ("memory-safe") {
            for { let word := add(result, 160) } lt(word, add(result, 288)) { word := add(word, 64) } {
                let high := mload(word)
                let low := mload(add(word, 32))
                if or(high, low) {
                    mstore(word, sub(sub(P_HIGH, high), gt(low, P_LOW)))
                    mstore(add(word, 32), sub(P_LOW, low))
                }
            }
        }
    }

    /// @notice True for the point at infinity, in G1 or G2.
    function isInfinity(bytes memory point) internal pure returns (bool) {
        uint256 bits;
        assembly ("memory-safe") {
            let end := add(point, mload(point))
            for { let cursor := point } lt(cursor, end) {} {
                cursor := add(cursor, 32)
                bits := or(bits, mload(cursor))
            }
        }
        return bits == 0;
    }

    /// @notice Reverts unless `point` has this many bytes.
    function requireLength(bytes memory point, uint256 expected) internal pure {
        if (point.length != expected) revert ICertificateVerifier.InvalidPointLength(expected, point.length);
    }

    /// @notice The message hashed to G1 under the suite of signatures.
    function hashToG1(bytes32 message) internal view returns (bytes memory point) {
        point = new bytes(G1_LENGTH);
        uint256 start;
        assembly ("memory-safe") {
            start := add(point, 0x20)
        }
        _hashToG1(message, SIGNATURE_TAG, start);
    }

    /// @dev e(signature, -g2) * e(hash, publicKey) == 1.
    function _verify(bytes32 message, bytes32 tag, bytes memory publicKey, bytes memory signature)
        private
        view
        returns (bool)
    {
        _requirePoints(publicKey, signature);
        uint256 input = _allocate(768);
        _hashToG1(message, tag, input + 384);
        assembly ("memory-safe") {
            mcopy(input, add(signature, 0x20), 128)
            mcopy(add(input, 512), add(publicKey, 0x20), 256)
        }
        _storeGenerator(input + 128);
        return _pairing(input, 768, PAIRING_GAS);
    }

    function _requirePoints(bytes memory publicKey, bytes memory signature) private pure {
        requireLength(publicKey, G2_LENGTH);
        requireLength(signature, G1_LENGTH);
        if (isInfinity(publicKey) || isInfinity(signature)) revert ICertificateVerifier.PointAtInfinity();
    }

    /// @dev Writes -g2.
    function _storeGenerator(uint256 start) private pure {
        assembly ("memory-safe") {
            mstore(start, 0x024aa2b2f08f0a91260805272dc51051)
            mstore(add(start, 32), 0xc6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8)
            mstore(add(start, 64), 0x13e02b6052719f607dacd3a088274f65)
            mstore(add(start, 96), 0x596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e)
            mstore(add(start, 128), 0x0d1b3cc2c7027888be51d9ef691d77bc)
            mstore(add(start, 160), 0xb679afda66c73f17f9ee3837a55024f78c71363275a75d75d86bab79f74782aa)
            mstore(add(start, 192), 0x13fa4d4a0ad8b1ce186ed5061789213d)
            mstore(add(start, 224), 0x993923066dddaf1040bc3ff59f825c78df74f2d75467e25e0f55f8a00fa030ed)
        }
    }

    /// @dev Whether the product of the pairings is one.
    function _pairing(uint256 input, uint256 length, uint256 gasCap) private view returns (bool result) {
        bool ok;
        assembly ("memory-safe") {
            ok := staticcall(gasCap, PAIRING, input, length, 0, 32)
            ok := and(ok, eq(returndatasize(), 32))
            result := eq(mload(0), 1)
        }
        // A precompile's address is one byte.
        // forge-lint: disable-next-line(unsafe-typecast)
        if (!ok) revert ICertificateVerifier.PrecompileFailed(address(uint160(PAIRING)));
    }

    /// @dev Writes the point of G1 that a precompile answers with.
    function _point(uint256 precompile, uint256 gasCap, uint256 input, uint256 length, uint256 destination)
        private
        view
    {
        bool ok;
        assembly ("memory-safe") {
            ok := staticcall(gasCap, precompile, input, length, destination, 128)
            ok := and(ok, eq(returndatasize(), 128))
        }
        // A precompile's address is one byte.
        // forge-lint: disable-next-line(unsafe-typecast)
        if (!ok) revert ICertificateVerifier.PrecompileFailed(address(uint160(precompile)));
    }

    /// @dev hash_to_curve of RFC 9380 with expand_message_xmd and SHA-256; writes 128 bytes to `destination`. `tag` is the
    /// first 32 bytes of the suite's tag, the rest is the same for both.
    function _hashToG1(bytes32 message, bytes32 tag, uint256 destination) private view {
        // 0..143 msg_prime; 66..143 the input of a later block, whose end (from 99) they share; 160..385 modexp; 400..656
        // two points.
        uint256 scratch = _allocate(672);
        uint256 failed;
        assembly ("memory-safe") {
            // msg_prime = 64 zero bytes ‖ message ‖ 128 as two bytes ‖ 0 ‖ tag ‖ length of the tag
            mstore(scratch, 0)
            mstore(add(scratch, 32), 0)
            mstore(add(scratch, 64), message)
            mstore(add(scratch, 96), shl(232, 0x008000))
            mstore(add(scratch, 99), tag)
            mstore(add(scratch, 131), TAG_END)
            let ok := staticcall(gas(), SHA256, scratch, 143, 0, 32)
            let b0 := mload(0)

            let later := add(scratch, 66)
            let modexp := add(scratch, 160)
            mstore(modexp, 64)
            mstore(add(modexp, 32), 1)
            mstore(add(modexp, 64), 64)
            mstore8(add(modexp, 160), 1)
            let previous := 0
            for { let i := 0 } lt(i, 2) { i := add(i, 1) } {
                // Two blocks of 32 bytes are one field element before reduction.
                mstore(later, xor(b0, previous))
                mstore8(add(later, 32), add(mul(i, 2), 1))
                ok := and(ok, staticcall(gas(), SHA256, later, 77, 0, 32))
                previous := mload(0)
                mstore(add(modexp, 96), previous)
                mstore(later, xor(b0, previous))
                mstore8(add(later, 32), add(mul(i, 2), 2))
                ok := and(ok, staticcall(gas(), SHA256, later, 77, 0, 32))
                previous := mload(0)
                mstore(add(modexp, 128), previous)
                mstore(add(modexp, 161), P_HIGH)
                mstore(add(modexp, 193), P_LOW)
                if iszero(ok) { failed := SHA256 }

                // The element, then its point over it.
                let point := add(add(scratch, 400), mul(i, 128))
                ok := staticcall(MODEXP_GAS, MODEXP, modexp, 225, point, 64)
                if iszero(and(ok, eq(returndatasize(), 64))) { failed := MODEXP }
                ok := staticcall(MAP_FP_TO_G1_GAS, MAP_FP_TO_G1, point, 64, point, 128)
                if iszero(and(ok, eq(returndatasize(), 128))) { failed := MAP_FP_TO_G1 }
            }
            // Adding the two points after clearing the cofactor, as the maps do, or before is the same.
            ok := staticcall(G1_ADD_GAS, G1_ADD, add(scratch, 400), 256, destination, 128)
            if iszero(and(ok, eq(returndatasize(), 128))) { failed := G1_ADD }
        }
        // A precompile's address is one byte.
        // forge-lint: disable-next-line(unsafe-typecast)
        if (failed != 0) revert ICertificateVerifier.PrecompileFailed(address(uint160(failed)));
    }

    /// @dev Memory that is not initialized.
    function _allocate(uint256 length) private pure returns (uint256 start) {
        assembly ("memory-safe") {
            start := mload(0x40)
            mstore(0x40, add(start, length))
        }
    }

    /// @dev Reverts unless the precompile accepts `input` and answers with `outLength` bytes.
    function _call(uint256 precompile, uint256 gasCap, bytes memory input, uint256 outLength)
        private
        view
        returns (bytes memory output)
    {
        output = new bytes(outLength);
        bool ok;
        assembly ("memory-safe") {
            ok := staticcall(gasCap, precompile, add(input, 0x20), mload(input), add(output, 0x20), outLength)
            ok := and(ok, eq(returndatasize(), outLength))
        }
        // A precompile's address is one byte.
        // forge-lint: disable-next-line(unsafe-typecast)
        if (!ok) revert ICertificateVerifier.PrecompileFailed(address(uint160(precompile)));
    }
}
