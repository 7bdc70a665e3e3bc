// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @dev Signs with secret keys by the scalar multiplications of EIP-2537. The suites are written out again, so that a
/// wrong one in the contract fails.
library TestBls {
    uint256 internal constant ORDER = 0x73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001;
    bytes internal constant SUITE = "BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";
    bytes internal constant POSSESSION_SUITE = "BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";

    function secret(string memory name) internal pure returns (uint256) {
        return uint256(keccak256(bytes(name))) % ORDER;
    }

    function publicKey(uint256 secretKey) internal view returns (bytes memory) {
        (bool ok, bytes memory result) = address(0x0e)
            .staticcall(
                abi.encodePacked(
                    uint256(0x024aa2b2f08f0a91260805272dc51051),
                    uint256(0xc6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8),
                    uint256(0x13e02b6052719f607dacd3a088274f65),
                    uint256(0x596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e),
                    uint256(0x0ce5d527727d6e118cc9cdc6da2e351a),
                    uint256(0xadfd9baa8cbdd3a76d429a695160d12c923ac9cc3baca289e193548608b82801),
                    uint256(0x0606c4a02ea734cc32acd2b02bc28b99),
                    uint256(0xcb3e287e85a763af267492ab572e99ab3f370d275cec1da1aaa9075ff05f79be),
                    secretKey
                )
            );
        require(ok, "G2MSM");
        return result;
    }

    function sign(uint256 secretKey, bytes32 digest) internal view returns (bytes memory) {
        return _multiply(hashToG1(digest, SUITE), secretKey);
    }

    function possession(uint256 secretKey, bytes32 message) internal view returns (bytes memory) {
        return _multiply(hashToG1(message, POSSESSION_SUITE), secretKey);
    }

    function hashToG1(bytes32 message, bytes memory tag) internal view returns (bytes memory) {
        return hashToG1(abi.encodePacked(message), tag);
    }

    /// @dev hash_to_curve of RFC 9380, written out plainly.
    function hashToG1(bytes memory message, bytes memory tag) internal view returns (bytes memory) {
        bytes memory suffix = abi.encodePacked(tag, uint8(tag.length));
        bytes32 b0 = sha256(abi.encodePacked(bytes32(0), bytes32(0), message, uint16(128), uint8(0), suffix));
        bytes32 b1 = sha256(abi.encodePacked(b0, uint8(1), suffix));
        bytes32 b2 = sha256(abi.encodePacked(b0 ^ b1, uint8(2), suffix));
        bytes32 b3 = sha256(abi.encodePacked(b0 ^ b2, uint8(3), suffix));
        bytes32 b4 = sha256(abi.encodePacked(b0 ^ b3, uint8(4), suffix));
        (bool ok, bytes memory result) =
            address(0x0b).staticcall(bytes.concat(_mapToG1(bytes.concat(b1, b2)), _mapToG1(bytes.concat(b3, b4))));
        require(ok, "G1ADD");
        return result;
    }

    function _mapToG1(bytes memory wide) private view returns (bytes memory) {
        bytes memory p = bytes.concat(
            bytes32(uint256(0x1a0111ea397fe69a4b1ba7b6434bacd7)),
            bytes32(0x64774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab)
        );
        (bool ok, bytes memory element) =
            address(0x05).staticcall(abi.encodePacked(uint256(64), uint256(1), uint256(64), wide, uint8(1), p));
        require(ok, "MODEXP");
        (ok, element) = address(0x10).staticcall(element);
        require(ok, "MAP");
        return element;
    }

    function sum(uint256[] memory secretKeys) internal pure returns (uint256 total) {
        for (uint256 i = 0; i < secretKeys.length; ++i) {
            total = addmod(total, secretKeys[i], ORDER);
        }
    }

    function _multiply(bytes memory point, uint256 scalar) private view returns (bytes memory) {
        (bool ok, bytes memory result) = address(0x0c).staticcall(bytes.concat(point, bytes32(scalar)));
        require(ok, "G1MSM");
        return result;
    }
}
