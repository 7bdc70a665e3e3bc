// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @notice Write-once rows kept as the code of a contract that cannot be called: cheaper than storage from three words
/// on, and a row cannot be changed by construction.
library RowStore {
    /// @notice Most bytes of a row: the code size limit of EIP-170 less the leading STOP.
    uint256 internal constant MAX_LENGTH = 24_575;

    error RowTooLarge(uint256 length, uint256 maximum);
    error RowNotWritten();

    /// @notice Stores `data` and returns where.
    function write(bytes memory data) internal returns (address pointer) {
        if (data.length > MAX_LENGTH) revert RowTooLarge(data.length, MAX_LENGTH);
        // Init code (10 bytes): PUSH2 size, DUP1, PUSH1 10, PUSH0, CODECOPY, PUSH0, RETURN; then STOP and the row.
        bytes memory initCode = abi.encodePacked(hex"61", uint16(data.length + 1), hex"80600a5f395ff300", data);
        assembly ("memory-safe") {
            pointer := create(0, add(initCode, 0x20), mload(initCode))
        }
        if (pointer == address(0)) revert RowNotWritten();
    }

    /// @notice Reads the row at `pointer`; empty if there is none.
    function read(address pointer) internal view returns (bytes memory data) {
        assembly ("memory-safe") {
            let size := extcodesize(pointer)
            data := mload(0x40)
            if size { size := sub(size, 1) }
            mstore(data, size)
            extcodecopy(pointer, add(data, 0x20), 1, size)
            mstore(0x40, and(add(add(data, size), 0x3f), not(0x1f)))
        }
    }
}
