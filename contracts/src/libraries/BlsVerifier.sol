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

    bytes private constant SIGNATURE_TAG = "BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";
    bytes private constant POSSESSION_TAG = "BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";

    address private constant MODEXP = address(0x05);
    address private constant G1_ADD = address(0x0b);
    address private constant G2_ADD = address(0x0d);
    address private constant PAIRING = address(0x0f);
    address private constant MAP_FP_TO_G1 = address(0x10);

    // A failing precompile burns what it was given. Twice today's price leaves room for repricing.
    uint256 private constant MODEXP_GAS = 2000; // 200, 500 under EIP-7883
    uint256 private constant G1_ADD_GAS = 750; // 375
    uint256 private constant G2_ADD_GAS = 1200; // 600
    uint256 private constant PAIRING_GAS = 205_800; // 37700 + 2 * 32600
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
            for { let at := add(result, 160) } lt(at, add(result, 288)) { at := add(at, 64) } {
                let high := mload(at)
                let low := mload(add(at, 32))
                if or(high, low) {
                    mstore(at, sub(sub(P_HIGH, high), gt(low, P_LOW)))
                    mstore(add(at, 32), sub(P_LOW, low))
                }
            }
        }
    }

    /// @notice True for the point at infinity, in G1 or G2.
    function isInfinity(bytes memory point) internal pure returns (bool) {
        uint256 bits;
        assembly ("memory-safe") {
            let end := add(point, mload(point))
            for { let at := point } lt(at, end) {} {
                at := add(at, 32)
                bits := or(bits, mload(at))
            }
        }
        return bits == 0;
    }

    /// @notice Reverts unless `point` has this many bytes.
    function requireLength(bytes memory point, uint256 expected) internal pure {
        if (point.length != expected) revert ICertificateVerifier.InvalidPointLength(expected, point.length);
    }

    /// @notice hash_to_curve of RFC 9380 with expand_message_xmd and SHA-256; `tag` is the suite's domain separation tag.
    function hashToG1(bytes32 message, bytes memory tag) internal view returns (bytes memory) {
        bytes memory suffix = abi.encodePacked(tag, uint8(tag.length));
        // 64 zero bytes are one block of SHA-256; 128 bytes are wanted: two field elements of 64.
        bytes32 b0 = sha256(abi.encodePacked(bytes32(0), bytes32(0), message, uint16(128), uint8(0), suffix));
        bytes32 b1 = sha256(abi.encodePacked(b0, uint8(1), suffix));
        bytes32 b2 = sha256(abi.encodePacked(b0 ^ b1, uint8(2), suffix));
        bytes32 b3 = sha256(abi.encodePacked(b0 ^ b2, uint8(3), suffix));
        bytes32 b4 = sha256(abi.encodePacked(b0 ^ b3, uint8(4), suffix));
        // Adding the two maps before clearing the cofactor or after it is the same point.
        return _call(G1_ADD, G1_ADD_GAS, bytes.concat(_mapToG1(b1, b2), _mapToG1(b3, b4)), G1_LENGTH);
    }

    /// @dev e(signature, -g2) * e(hash, publicKey) == 1.
    function _verify(bytes32 message, bytes memory tag, bytes memory publicKey, bytes memory signature)
        private
        view
        returns (bool)
    {
        requireLength(publicKey, G2_LENGTH);
        requireLength(signature, G1_LENGTH);
        if (isInfinity(publicKey) || isInfinity(signature)) revert ICertificateVerifier.PointAtInfinity();
        bytes memory result = _call(
            PAIRING, PAIRING_GAS, bytes.concat(signature, _negatedGenerator(), hashToG1(message, tag), publicKey), 32
        );
        return abi.decode(result, (uint256)) == 1;
    }

    /// @dev Reduces a 512-bit number modulo p and maps it to G1.
    function _mapToG1(bytes32 high, bytes32 low) private view returns (bytes memory) {
        bytes memory element = _call(
            MODEXP,
            MODEXP_GAS,
            abi.encodePacked(uint256(64), uint256(1), uint256(64), high, low, uint8(1), P_HIGH, P_LOW),
            64
        );
        return _call(MAP_FP_TO_G1, MAP_FP_TO_G1_GAS, element, G1_LENGTH);
    }

    function _negatedGenerator() private pure returns (bytes memory) {
        return abi.encodePacked(
            uint256(0x024aa2b2f08f0a91260805272dc51051),
            uint256(0xc6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8),
            uint256(0x13e02b6052719f607dacd3a088274f65),
            uint256(0x596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e),
            uint256(0x0d1b3cc2c7027888be51d9ef691d77bc),
            uint256(0xb679afda66c73f17f9ee3837a55024f78c71363275a75d75d86bab79f74782aa),
            uint256(0x13fa4d4a0ad8b1ce186ed5061789213d),
            uint256(0x993923066dddaf1040bc3ff59f825c78df74f2d75467e25e0f55f8a00fa030ed)
        );
    }

    /// @dev Reverts unless the precompile accepts `input` and answers with `outLength` bytes.
    function _call(address precompile, uint256 gasCap, bytes memory input, uint256 outLength)
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
        if (!ok) revert ICertificateVerifier.PrecompileFailed(precompile);
    }
}
