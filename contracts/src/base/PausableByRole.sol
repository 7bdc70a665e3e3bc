// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {PausableUpgradeable} from "@openzeppelin/contracts-upgradeable/utils/PausableUpgradeable.sol";
import {NewtonUpgradeable} from "./NewtonUpgradeable.sol";
import {IPausableByRole} from "../interfaces/IGovernance.sol";

/// @notice Creating, answering and registering can be paused by a pauser; exits and challenges cannot.
abstract contract PausableByRole is NewtonUpgradeable, PausableUpgradeable, IPausableByRole {
    /// @custom:storage-location erc7201:newton.storage.PausableByRole
    struct PausableByRoleStorage {
        address pauser;
    }

    bytes32 private constant STORAGE =
        keccak256(abi.encode(uint256(keccak256("newton.storage.PausableByRole")) - 1)) & ~bytes32(uint256(0xff));

    /// @inheritdoc IPausableByRole
    function setPauser(address account) external onlyOwner {
        _role().pauser = account;
        emit PauserSet(account);
    }

    /// @inheritdoc IPausableByRole
    function pause() external {
        if (msg.sender != _role().pauser && msg.sender != owner()) revert NotPauser(msg.sender);
        _pause();
    }

    /// @inheritdoc IPausableByRole
    function unpause() external onlyOwner {
        _unpause();
    }

    /// @notice The account that may pause beside the owner; zero if none was named.
    function pauser() external view returns (address) {
        return _role().pauser;
    }

    function _role() private pure returns (PausableByRoleStorage storage $) {
        bytes32 slot = STORAGE;
        assembly ("memory-safe") {
            $.slot := slot
        }
    }
}
