// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

// What governance decides: roles, lists, who owns a client, which images and rules count. Without imports, as INewton.sol.
// Block numbers are the chain's native ones (ChainBlock.number()); what happens in a block counts from the next block on.

/// @notice A whitelisted enclave image. activeFrom, deprecatedFrom and revokedAt are the first blocks in which it is
/// active, deprecated, revoked; zero means never.
struct EnclaveVersion {
    bytes32 pcr0Hash;
    bytes32 pcr1Hash;
    bytes32 pcr2Hash;
    bytes32 sourceHash;
    string label;
    uint64 proposedAt;
    uint64 activeFrom;
    uint64 deprecatedFrom;
    uint64 revokedAt;
}

/// @notice A pauser, named by the owner, can stop the creating, answering and registering functions of a contract.
interface IPausableByRole {
    event PauserSet(address indexed pauser);

    error NotPauser(address account);

    /// @notice Names the account that may pause. Owner only.
    function setPauser(address pauser) external;
    /// @notice Stops the guarded functions. Pauser or owner.
    function pause() external;
    /// @notice Lets the guarded functions run again. Owner only.
    function unpause() external;
    function pauser() external view returns (address);
}

/// @notice Who may register templates and deploy instances: everyone, or the accounts on two lists.
interface IAllowlistGuard {
    event TemplateRegistrationPermissionlessSet(bool permissionless);
    event InstanceDeploymentPermissionlessSet(bool permissionless);
    event TemplateAuthorSet(address indexed author, bool allowed);
    event InstanceDeployerSet(address indexed deployer, bool allowed);

    error UnauthorizedTemplateAuthor(address account);
    error UnauthorizedInstanceDeployer(address account);

    function setTemplateRegistrationPermissionless(bool permissionless) external;
    function setInstanceDeploymentPermissionless(bool permissionless) external;
    function setTemplateAuthor(address author, bool allowed) external;
    function setInstanceDeployer(address deployer, bool allowed) external;
    function templateRegistrationPermissionless() external view returns (bool);
    function instanceDeploymentPermissionless() external view returns (bool);
    function templateAuthors(address author) external view returns (bool);
    function instanceDeployers(address deployer) external view returns (bool);
}

/// @notice Client → owner → deployers. Only the client itself or its own owner() can claim it.
interface IPolicyClientRegistry {
    event ClientRegistered(address indexed client, address indexed owner, address indexed claimedBy);
    event ClientDeployerSet(address indexed client, address indexed owner, address indexed deployer, bool allowed);

    error UnauthorizedClaim(address client, address account);
    error ClientNotRegistered(address client);
    error NotClientOwner(address client, address owner, address account);
    error ZeroAddress();

    /// @notice Records `owner` as the owner of `client`. Repeating it changes the owner and drops all delegations.
    function registerClient(address client, address owner) external;
    /// @notice Lets `deployer` act for `client`, or no longer. Client's owner only.
    function setDeployer(address client, address deployer, bool allowed) external;
    /// @notice Owner of a client, zero if it is not registered.
    function ownerOf(address client) external view returns (address);
    /// @notice True for the client's owner and its deployers.
    function isAuthorized(address client, address account) external view returns (bool);
}

/// @notice Governance's whitelist of images, configurations and rules [design 3.1].
interface IEnclaveVersionRegistry {
    /// @notice pcrs is PCR0, PCR1 and PCR2, 48 bytes each.
    event VersionProposed(bytes32 indexed pcr0Hash, bytes pcrs, bytes32 sourceHash, string label, uint64 activeFrom);
    event VersionDeprecated(bytes32 indexed pcr0Hash, uint64 deprecatedFrom);
    event VersionRevoked(bytes32 indexed pcr0Hash, uint64 revokedAt);
    event ConfigApproved(bytes32 indexed configHash, bool approved);
    event RulesVersionScheduled(uint32 indexed rulesVersion, uint64 activeFrom);
    event EmergencyRoleSet(address indexed account);

    error VersionAlreadyProposed(bytes32 pcr0Hash);
    error UnknownVersion(bytes32 pcr0Hash);
    error VersionIsRevoked(bytes32 pcr0Hash);
    error VersionAlreadyDeprecated(bytes32 pcr0Hash, uint64 deprecatedFrom);
    error InvalidPcrLength(uint256 length);
    error ZeroPcr();
    error NotEmergencyRole(address account);
    error RulesVersionNotNext(uint32 expected, uint32 got);
    error RulesActivationTooEarly(uint64 earliest, uint64 got);

    /// @notice Proposes an image by its PCRs (48 bytes each); it is active after the delay. Owner only.
    function proposeVersion(
        bytes calldata pcr0,
        bytes calldata pcr1,
        bytes calldata pcr2,
        bytes32 sourceHash,
        string calldata label
    ) external returns (bytes32 pcr0Hash);
    function deprecateVersion(bytes32 pcr0Hash, uint64 graceBlocks) external;
    /// @notice Revokes for good, from the next block on. Sets that hold such a member certify nothing any more;
    /// IOperatorRegistry.prune then writes the set without them. Emergency role or owner.
    function revokeVersion(bytes32 pcr0Hash) external;
    function approveConfig(bytes32 configHash, bool approved) external;
    /// @notice Schedules the next rules version from a block on. Owner only.
    function scheduleRulesVersion(uint32 rulesVersion, uint64 activeFrom) external;
    function setEmergencyRole(address account) external;

    function versions(bytes32 pcr0Hash) external view returns (EnclaveVersion memory);
    function isActive(bytes32 pcr0Hash) external view returns (bool);
    function wasActiveAt(bytes32 pcr0Hash, uint64 blockNumber) external view returns (bool);
    function isApprovedConfig(bytes32 configHash) external view returns (bool);
    function rulesVersionAt(uint64 blockNumber) external view returns (uint32);
    function latestRulesVersion() external view returns (uint32 rulesVersion, uint64 activeFrom);
    function activationDelay() external view returns (uint64);
    function emergencyRole() external view returns (address);
}
