// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @notice What every contract shows that lets calls through by attestation [docs/contracts.md, 6].
interface IPolicyClient {
    /// @notice From here on the client takes attestations of this policy instance and of no other.
    event PolicyInstanceNamed(bytes32 indexed policyInstanceId);
    /// @notice A call was let through. digest is what the quorum signed.
    event AttestationSpent(bytes32 indexed taskId, bytes32 digest);
    /// @notice The chain's rules for certificates were copied again.
    event CertificateRulesRead(uint16 quorumBps, uint16 minSigners, uint64 maxSetAge);

    error PolicyInstanceNotNamed();
    error UnknownPolicyInstance(bytes32 policyInstanceId);
    error PolicyInstanceOfOtherClient(bytes32 policyInstanceId, address client);
    error PolicyInstanceMismatch(bytes32 expected, bytes32 got);
    error IntentMismatch(bytes32 expected, bytes32 got);
    error ResultNotAllowed(bytes32 evaluationResultHash);
    error AttestationExpired(uint64 expirationBlock, uint64 blockNumber);
    error AttestationAlreadySpent(bytes32 taskId);
    error TaskNotOfThisChain(bytes32 taskId);

    /// @notice Copies the chain's rules for certificates at once, for whoever does not want to wait until the copy in use is
    /// too old. Anyone may call it.
    function refreshCertificateRules() external;
    /// @notice The instance whose attestations are taken, zero before one is named.
    function policyInstance() external view returns (bytes32);
    /// @notice True once a call was let through by this task's attestation.
    function isSpent(bytes32 taskId) external view returns (bool);
}
