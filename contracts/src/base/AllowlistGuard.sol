// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {NewtonUpgradeable} from "./NewtonUpgradeable.sol";
import {IAllowlistGuard} from "../interfaces/IGovernance.sol";

/// @notice Two toggles and two lists: who may register templates, who may deploy instances.
abstract contract AllowlistGuard is NewtonUpgradeable, IAllowlistGuard {
    /// @custom:storage-location erc7201:newton.storage.AllowlistGuard
    struct AllowlistGuardStorage {
        bool templateRegistrationPermissionless;
        bool instanceDeploymentPermissionless;
        mapping(address => bool) templateAuthors;
        mapping(address => bool) instanceDeployers;
    }

    bytes32 private constant STORAGE =
        keccak256(abi.encode(uint256(keccak256("newton.storage.AllowlistGuard")) - 1)) & ~bytes32(uint256(0xff));

    /// @dev Lets everyone through if the toggle is set, else the listed authors.
    modifier onlyTemplateAuthor() {
        AllowlistGuardStorage storage $ = _allowlist();
        if (!$.templateRegistrationPermissionless && !$.templateAuthors[msg.sender]) {
            revert UnauthorizedTemplateAuthor(msg.sender);
        }
        _;
    }

    /// @dev Lets everyone through if the toggle is set, else the listed deployers.
    modifier onlyInstanceDeployer() {
        AllowlistGuardStorage storage $ = _allowlist();
        if (!$.instanceDeploymentPermissionless && !$.instanceDeployers[msg.sender]) {
            revert UnauthorizedInstanceDeployer(msg.sender);
        }
        _;
    }

    /// @inheritdoc IAllowlistGuard
    function setTemplateRegistrationPermissionless(bool permissionless) external onlyOwner {
        _setTemplateRegistrationPermissionless(permissionless);
    }

    /// @inheritdoc IAllowlistGuard
    function setInstanceDeploymentPermissionless(bool permissionless) external onlyOwner {
        _setInstanceDeploymentPermissionless(permissionless);
    }

    /// @inheritdoc IAllowlistGuard
    function setTemplateAuthor(address author, bool allowed) external onlyOwner {
        _allowlist().templateAuthors[author] = allowed;
        emit TemplateAuthorSet(author, allowed);
    }

    /// @inheritdoc IAllowlistGuard
    function setInstanceDeployer(address deployer, bool allowed) external onlyOwner {
        _allowlist().instanceDeployers[deployer] = allowed;
        emit InstanceDeployerSet(deployer, allowed);
    }

    /// @inheritdoc IAllowlistGuard
    function templateRegistrationPermissionless() external view returns (bool) {
        return _allowlist().templateRegistrationPermissionless;
    }

    /// @inheritdoc IAllowlistGuard
    function instanceDeploymentPermissionless() external view returns (bool) {
        return _allowlist().instanceDeploymentPermissionless;
    }

    /// @inheritdoc IAllowlistGuard
    function templateAuthors(address author) external view returns (bool) {
        return _allowlist().templateAuthors[author];
    }

    /// @inheritdoc IAllowlistGuard
    function instanceDeployers(address deployer) external view returns (bool) {
        return _allowlist().instanceDeployers[deployer];
    }

    function __AllowlistGuard_init(bool templatesPermissionless, bool instancesPermissionless)
        internal
        onlyInitializing
    {
        _setTemplateRegistrationPermissionless(templatesPermissionless);
        _setInstanceDeploymentPermissionless(instancesPermissionless);
    }

    function _setTemplateRegistrationPermissionless(bool permissionless) private {
        _allowlist().templateRegistrationPermissionless = permissionless;
        emit TemplateRegistrationPermissionlessSet(permissionless);
    }

    function _setInstanceDeploymentPermissionless(bool permissionless) private {
        _allowlist().instanceDeploymentPermissionless = permissionless;
        emit InstanceDeploymentPermissionlessSet(permissionless);
    }

    function _allowlist() private pure returns (AllowlistGuardStorage storage $) {
        bytes32 slot = STORAGE;
        assembly ("memory-safe") {
            $.slot := slot
        }
    }
}
