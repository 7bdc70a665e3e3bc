// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ownable2StepUpgradeable} from "@openzeppelin/contracts-upgradeable/access/Ownable2StepUpgradeable.sol";
import {UUPSUpgradeable} from "@openzeppelin/contracts-upgradeable/proxy/utils/UUPSUpgradeable.sol";

/// @notice What every contract of the set has: an owner (Safe on main networks), changed in two steps, that may upgrade.
/// @dev Addresses of the other contracts are immutables of the implementation: cheaper than storage, and an upgrade that
/// changes one is as visible as any other.
abstract contract NewtonUpgradeable is Ownable2StepUpgradeable, UUPSUpgradeable {
    constructor() {
        _disableInitializers();
    }

    /// @dev The owner may replace the implementation.
    function _authorizeUpgrade(address) internal override onlyOwner {}
}
