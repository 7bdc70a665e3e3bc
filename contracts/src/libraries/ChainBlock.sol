// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @dev The part of Arbitrum's ArbSys precompile that tells its own block numbers from those of L1.
interface IArbSys {
    function arbBlockNumber() external view returns (uint256);
    function arbBlockHash(uint256 blockNumber) external view returns (bytes32);
}

/// @notice The chain's native block number: `block.number`, except where an L2 defines that as L1's.
library ChainBlock {
    IArbSys private constant ARB_SYS = IArbSys(0x0000000000000000000000000000000000000064);
    uint256 private constant ARBITRUM_ONE = 42_161;
    uint256 private constant ARBITRUM_NOVA = 42_170;
    uint256 private constant ARBITRUM_SEPOLIA = 421_614;

    /// @notice Number of the block this call runs in.
    function number() internal view returns (uint64) {
        // Block numbers fit into 64 bits on every chain.
        return uint64(_isArbitrum() ? ARB_SYS.arbBlockNumber() : block.number);
    }

    /// @notice Hash of the block before the one this call runs in.
    function parentHash() internal view returns (bytes32) {
        return _isArbitrum() ? ARB_SYS.arbBlockHash(ARB_SYS.arbBlockNumber() - 1) : blockhash(block.number - 1);
    }

    function _isArbitrum() private view returns (bool) {
        uint256 id = block.chainid;
        return id == ARBITRUM_ONE || id == ARBITRUM_NOVA || id == ARBITRUM_SEPOLIA;
    }
}
