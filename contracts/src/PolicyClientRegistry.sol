// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {NewtonUpgradeable} from "./base/NewtonUpgradeable.sol";
import {IPolicyClientRegistry} from "./interfaces/IGovernance.sol";

/// @notice Who may act for a client: its owner and the deployers that one delegates to.
contract PolicyClientRegistry is NewtonUpgradeable, IPolicyClientRegistry {
    /// @dev Gas for asking a client for its owner(): a foreign contract must not burn the caller's all.
    uint256 private constant OWNER_CALL_GAS = 100_000;

    mapping(address client => address) private _owners;
    /// @dev Delegations belong to the owner who gave them, so that a new owner starts with none.
    mapping(address client => mapping(address owner => mapping(address deployer => bool))) private _deployers;

    /// @notice Called once, inside the proxy's constructor.
    function initialize(address initialOwner) external initializer {
        __Ownable_init(initialOwner);
    }

    /// @inheritdoc IPolicyClientRegistry
    function registerClient(address client, address owner_) external {
        if (client == address(0) || owner_ == address(0)) revert ZeroAddress();
        if (msg.sender != client && msg.sender != _ownOwner(client)) revert UnauthorizedClaim(client, msg.sender);
        _owners[client] = owner_;
        emit ClientRegistered(client, owner_, msg.sender);
    }

    /// @inheritdoc IPolicyClientRegistry
    function setDeployer(address client, address deployer, bool allowed) external {
        address owner_ = _owners[client];
        if (owner_ == address(0)) revert ClientNotRegistered(client);
        if (msg.sender != owner_) revert NotClientOwner(client, owner_, msg.sender);
        _deployers[client][owner_][deployer] = allowed;
        emit ClientDeployerSet(client, owner_, deployer, allowed);
    }

    /// @inheritdoc IPolicyClientRegistry
    function ownerOf(address client) external view returns (address) {
        return _owners[client];
    }

    /// @inheritdoc IPolicyClientRegistry
    function isAuthorized(address client, address account) external view returns (bool) {
        address owner_ = _owners[client];
        return owner_ != address(0) && (account == owner_ || _deployers[client][owner_][account]);
    }

    /// @dev The contract's owner(), zero if it has none or does not answer with an address.
    function _ownOwner(address client) private view returns (address result) {
        bytes4 selector = bytes4(keccak256("owner()"));
        assembly ("memory-safe") {
            mstore(0, selector)
            // Codeless addresses answer with nothing.
            if staticcall(OWNER_CALL_GAS, client, 0, 4, 0, 32) {
                let word := mload(0)
                if and(eq(returndatasize(), 32), iszero(shr(160, word))) { result := word }
            }
        }
    }
}
