// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {NewtonUpgradeable} from "./base/NewtonUpgradeable.sol";
import {EnclaveVersion, IEnclaveVersionRegistry} from "./interfaces/IGovernance.sol";
import {IOperatorRegistry} from "./interfaces/INewton.sol";
import {ChainBlock} from "./libraries/ChainBlock.sol";

/// @notice Governance's whitelist: enclave images by PCR0, configurations, and the rules version by block.
/// @dev History is never changed: every function only sets a block that lies in the future.
contract EnclaveVersionRegistry is NewtonUpgradeable, IEnclaveVersionRegistry {
    struct RulesActivation {
        uint32 rulesVersion;
        uint64 activeFrom;
    }

    uint256 private constant PCR_LENGTH = 48;

    /// @dev Told of revocations, so that sets with such members stop certifying.
    IOperatorRegistry private immutable OPERATORS;

    mapping(bytes32 pcr0Hash => EnclaveVersion) private _versions;
    mapping(bytes32 configHash => bool) private _configs;
    RulesActivation[] private _rules;
    uint64 private _activationDelay;
    address private _emergencyRole;

    constructor(IOperatorRegistry operators) {
        OPERATORS = operators;
    }

    /// @notice Called once, inside the proxy's constructor.
    /// @param activationDelay_ blocks between a proposal and its activation
    /// @param rulesVersion the rules in force from this block on
    function initialize(address initialOwner, address emergency, uint64 activationDelay_, uint32 rulesVersion)
        external
        initializer
    {
        __Ownable_init(initialOwner);
        _activationDelay = activationDelay_;
        _setEmergencyRole(emergency);
        _pushRules(rulesVersion, ChainBlock.number());
    }

    /// @inheritdoc IEnclaveVersionRegistry
    function proposeVersion(
        bytes calldata pcr0,
        bytes calldata pcr1,
        bytes calldata pcr2,
        bytes32 sourceHash,
        string calldata label
    ) external onlyOwner returns (bytes32 pcr0Hash) {
        pcr0Hash = _pcrHash(pcr0);
        EnclaveVersion storage version = _versions[pcr0Hash];
        if (version.proposedAt != 0) revert VersionAlreadyProposed(pcr0Hash);
        uint64 number = ChainBlock.number();
        uint64 activeFrom = number + _atLeastNextBlock(_activationDelay);
        version.pcr0Hash = pcr0Hash;
        version.pcr1Hash = _pcrHash(pcr1);
        version.pcr2Hash = _pcrHash(pcr2);
        version.sourceHash = sourceHash;
        version.label = label;
        version.proposedAt = number;
        version.activeFrom = activeFrom;
        bytes memory pcrs = bytes.concat(pcr0, pcr1, pcr2);
        emit VersionProposed(pcr0Hash, pcrs, sourceHash, label, activeFrom);
    }

    /// @inheritdoc IEnclaveVersionRegistry
    function deprecateVersion(bytes32 pcr0Hash, uint64 graceBlocks) external onlyOwner {
        EnclaveVersion storage version = _known(pcr0Hash);
        if (version.revokedAt != 0) revert VersionIsRevoked(pcr0Hash);
        if (version.deprecatedFrom != 0) revert VersionAlreadyDeprecated(pcr0Hash, version.deprecatedFrom);
        uint64 from = ChainBlock.number() + _atLeastNextBlock(graceBlocks);
        version.deprecatedFrom = from;
        emit VersionDeprecated(pcr0Hash, from);
    }

    /// @inheritdoc IEnclaveVersionRegistry
    function revokeVersion(bytes32 pcr0Hash) external {
        if (msg.sender != _emergencyRole && msg.sender != owner()) revert NotEmergencyRole(msg.sender);
        EnclaveVersion storage version = _known(pcr0Hash);
        if (version.revokedAt != 0) revert VersionIsRevoked(pcr0Hash);
        uint64 from = ChainBlock.number() + 1;
        version.revokedAt = from;
        emit VersionRevoked(pcr0Hash, from);
        OPERATORS.onVersionRevoked(pcr0Hash);
    }

    /// @inheritdoc IEnclaveVersionRegistry
    function approveConfig(bytes32 configHash, bool approved) external onlyOwner {
        _configs[configHash] = approved;
        emit ConfigApproved(configHash, approved);
    }

    /// @inheritdoc IEnclaveVersionRegistry
    function scheduleRulesVersion(uint32 rulesVersion, uint64 activeFrom) external onlyOwner {
        RulesActivation memory last = _rules[_rules.length - 1];
        if (rulesVersion != last.rulesVersion + 1) revert RulesVersionNotNext(last.rulesVersion + 1, rulesVersion);
        uint64 earliest = ChainBlock.number() + _atLeastNextBlock(_activationDelay);
        if (earliest <= last.activeFrom) earliest = last.activeFrom + 1;
        if (activeFrom < earliest) revert RulesActivationTooEarly(earliest, activeFrom);
        _pushRules(rulesVersion, activeFrom);
    }

    /// @inheritdoc IEnclaveVersionRegistry
    function setEmergencyRole(address account) external onlyOwner {
        _setEmergencyRole(account);
    }

    /// @inheritdoc IEnclaveVersionRegistry
    function versions(bytes32 pcr0Hash) external view returns (EnclaveVersion memory) {
        return _versions[pcr0Hash];
    }

    /// @inheritdoc IEnclaveVersionRegistry
    function isActive(bytes32 pcr0Hash) external view returns (bool) {
        return wasActiveAt(pcr0Hash, ChainBlock.number());
    }

    /// @inheritdoc IEnclaveVersionRegistry
    function isApprovedConfig(bytes32 configHash) external view returns (bool) {
        return _configs[configHash];
    }

    /// @inheritdoc IEnclaveVersionRegistry
    function rulesVersionAt(uint64 blockNumber) external view returns (uint32) {
        // Nearly always the last entry. Blocks before the first activation answer with zero.
        for (uint256 i = _rules.length; i != 0; --i) {
            RulesActivation memory rules = _rules[i - 1];
            if (rules.activeFrom <= blockNumber) return rules.rulesVersion;
        }
        return 0;
    }

    /// @inheritdoc IEnclaveVersionRegistry
    function latestRulesVersion() external view returns (uint32 rulesVersion, uint64 activeFrom) {
        RulesActivation memory last = _rules[_rules.length - 1];
        return (last.rulesVersion, last.activeFrom);
    }

    /// @inheritdoc IEnclaveVersionRegistry
    function activationDelay() external view returns (uint64) {
        return _activationDelay;
    }

    /// @inheritdoc IEnclaveVersionRegistry
    function emergencyRole() external view returns (address) {
        return _emergencyRole;
    }

    /// @inheritdoc IEnclaveVersionRegistry
    function wasActiveAt(bytes32 pcr0Hash, uint64 blockNumber) public view returns (bool) {
        EnclaveVersion storage version = _versions[pcr0Hash];
        (uint64 from, uint64 deprecated, uint64 revoked) =
            (version.activeFrom, version.deprecatedFrom, version.revokedAt);
        return from != 0 && from <= blockNumber && (deprecated == 0 || blockNumber < deprecated)
            && (revoked == 0 || blockNumber < revoked);
    }

    function _known(bytes32 pcr0Hash) private view returns (EnclaveVersion storage version) {
        version = _versions[pcr0Hash];
        if (version.proposedAt == 0) revert UnknownVersion(pcr0Hash);
    }

    function _setEmergencyRole(address account) private {
        _emergencyRole = account;
        emit EmergencyRoleSet(account);
    }

    function _pushRules(uint32 rulesVersion, uint64 activeFrom) private {
        _rules.push(RulesActivation(rulesVersion, activeFrom));
        emit RulesVersionScheduled(rulesVersion, activeFrom);
    }

    /// @dev keccak256 of a PCR; one that is all zero belongs to a debug-mode enclave.
    function _pcrHash(bytes calldata pcr) private pure returns (bytes32) {
        if (pcr.length != PCR_LENGTH) revert InvalidPcrLength(pcr.length);
        if (bytes32(pcr[:32]) == 0 && bytes16(pcr[32:]) == 0) revert ZeroPcr();
        return keccak256(pcr);
    }

    function _atLeastNextBlock(uint64 delay) private pure returns (uint64) {
        return delay == 0 ? 1 : delay;
    }
}
