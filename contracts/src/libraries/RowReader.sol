// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ArtifactRef} from "../interfaces/INewton.sol";

/// @notice Reads tightly packed rows. Rows are written by the contract that reads them, so offsets are within bounds.
library RowReader {
    function word(bytes memory row, uint256 offset) internal pure returns (bytes32 result) {
        assembly ("memory-safe") {
            result := mload(add(add(row, 0x20), offset))
        }
    }

    function addressAt(bytes memory row, uint256 offset) internal pure returns (address) {
        return address(bytes20(word(row, offset)));
    }

    function uint32At(bytes memory row, uint256 offset) internal pure returns (uint32) {
        return uint32(bytes4(word(row, offset)));
    }

    function uint8At(bytes memory row, uint256 offset) internal pure returns (uint8) {
        return uint8(bytes1(word(row, offset)));
    }

    /// @notice An artifact's hash and length.
    function artifact(bytes memory row, uint256 offset) internal pure returns (ArtifactRef memory) {
        return ArtifactRef({artifactHash: word(row, offset), byteLength: uint32At(row, offset + 32)});
    }

    /// @notice A copy of `length` bytes from `offset`.
    function slice(bytes memory row, uint256 offset, uint256 length) internal pure returns (bytes memory result) {
        result = new bytes(length);
        assembly ("memory-safe") {
            mcopy(add(result, 0x20), add(add(row, 0x20), offset), length)
        }
    }
}
