// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {
    Certificate,
    ICertificateVerifier,
    IPolicyRegistry,
    IStateCommitRegistry,
    ITaskManager,
    Intent,
    PolicyAttestation,
    PolicyInstance
} from "../interfaces/INewton.sol";
import {IPolicyClient} from "../interfaces/IPolicyClient.sol";
import {ChainBlock} from "../libraries/ChainBlock.sol";
import {Digests} from "../libraries/Digests.sol";

/// @notice For vaults and wallets: lets a call through only with an attestation that this contract's policy allows it. Works
/// with what the operators signed alone; nobody need have called respondToTask.
/// @dev Where each thing comes from, so that nothing is believed that the caller could choose:
///  - chain and task manager: from here; they are part of the digest, so a signature made for others is none;
///  - the policy instance: from here. Its id contains chain, client, template and parameters, so no other client's
///    attestation passes, and pointing the registry elsewhere does not change what this contract asks for;
///  - the intent: from the call that is about to be made, never from the attestation;
///  - the task: it must be one of this chain's. A task of a reorganised block is not, since its id mixes in the parent's
///    hash;
///  - quorum, least number of signers, greatest age of a set: the chain's parameters, and this contract's own quorum if that
///    is higher. A task's own quorum is its creator's choice, and anyone may create one: it protects nobody here. A copy of
///    the parameters is kept, since asking for them costs 12,000 gas: after RULES_LIFETIME the next call asks anew, and
///    anyone may do so before;
///  - all other fields: copied from the task by the quorum that signs them, and slashable if wrong.
/// State is in a namespace of its own, so that upgradeable contracts may inherit this.
abstract contract PolicyClient is IPolicyClient {
    /// @dev The contracts of the set that a client asks.
    struct NewtonContracts {
        ITaskManager tasks;
        IPolicyRegistry policies;
        IStateCommitRegistry commits;
        ICertificateVerifier certificates;
    }

    /// @dev What certificates are held against, as of `readAt` (a block timestamp): one word.
    struct CertificateRules {
        uint16 quorumBps;
        uint16 minSigners;
        uint64 maxSetAge;
        uint64 readAt;
    }

    /// @custom:storage-location erc7201:newton.storage.PolicyClient
    struct PolicyClientStorage {
        bytes32 policyInstanceId;
        CertificateRules rules;
        mapping(bytes32 taskId => bool) spent;
    }

    /// @notice Seconds for which a copy of the chain's certificate rules is used.
    uint64 public constant RULES_LIFETIME = 1 days;

    bytes32 private constant STORAGE =
        keccak256(abi.encode(uint256(keccak256("newton.storage.PolicyClient")) - 1)) & ~bytes32(uint256(0xff));
    /// @dev The only result that allows: keccak256 of canonical JSON `true`.
    bytes32 private constant ALLOWED = keccak256("true");

    ITaskManager private immutable TASKS;
    IPolicyRegistry private immutable POLICIES;
    IStateCommitRegistry private immutable COMMITS;
    ICertificateVerifier private immutable CERTIFICATES;

    /// @dev Lets the function run if `attestation` allows `intent` and has not been used before. `intent` must describe what
    /// the function is about to do: build it with `_intent` from the function's own arguments.
    modifier onlyAllowed(
        PolicyAttestation calldata attestation,
        Certificate calldata certificate,
        Intent memory intent
    ) {
        _spendAttestation(attestation, certificate, intent);
        _;
    }

    constructor(NewtonContracts memory newton) {
        TASKS = newton.tasks;
        POLICIES = newton.policies;
        COMMITS = newton.commits;
        CERTIFICATES = newton.certificates;
    }

    /// @inheritdoc IPolicyClient
    function refreshCertificateRules() external {
        _readCertificateRules();
    }

    /// @inheritdoc IPolicyClient
    function policyInstance() external view returns (bytes32) {
        return _policyClient().policyInstanceId;
    }

    /// @inheritdoc IPolicyClient
    function isSpent(bytes32 taskId) external view returns (bool) {
        return _policyClient().spent[taskId];
    }

    /// @dev Names the instance to ask for; it must be registered for this contract. Whoever may call this decides what the
    /// contract may do: guard it like an upgrade.
    function _namePolicyInstance(bytes32 policyInstanceId) internal {
        PolicyInstance memory row = POLICIES.instances(policyInstanceId);
        if (row.registeredAt == 0) revert UnknownPolicyInstance(policyInstanceId);
        if (row.client != address(this)) revert PolicyInstanceOfOtherClient(policyInstanceId, row.client);
        _policyClient().policyInstanceId = policyInstanceId;
        emit PolicyInstanceNamed(policyInstanceId);
        _readCertificateRules();
    }

    /// @dev Checks everything and spends the task, before anything else is done: code that is called later and comes back
    /// finds it spent.
    function _spendAttestation(
        PolicyAttestation calldata attestation,
        Certificate calldata certificate,
        Intent memory intent
    ) internal {
        PolicyClientStorage storage $ = _policyClient();
        bytes32 instance = $.policyInstanceId;
        if (instance == 0) revert PolicyInstanceNotNamed();
        if (attestation.policyInstanceId != instance) {
            revert PolicyInstanceMismatch(instance, attestation.policyInstanceId);
        }
        bytes32 intentHash = _hashIntent(intent);
        if (attestation.intentHash != intentHash) revert IntentMismatch(intentHash, attestation.intentHash);
        if (attestation.evaluationResultHash != ALLOWED) revert ResultNotAllowed(attestation.evaluationResultHash);
        uint64 number = ChainBlock.number();
        if (number > attestation.expirationBlock) revert AttestationExpired(attestation.expirationBlock, number);
        bytes32 taskId = attestation.taskId;
        if ($.spent[taskId]) revert AttestationAlreadySpent(taskId);
        if (TASKS.taskHashes(taskId) == 0) revert TaskNotOfThisChain(taskId);

        $.spent[taskId] = true;
        bytes32 digest = Digests.attestationDigest(address(TASKS), attestation);
        CertificateRules memory rules = $.rules;
        if (block.timestamp > rules.readAt + RULES_LIFETIME) rules = _readCertificateRules();
        uint16 quorumBps = _quorumBps();
        if (quorumBps < rules.quorumBps) quorumBps = rules.quorumBps;
        CERTIFICATES.verifyCertificate(digest, certificate, quorumBps, rules.minSigners, rules.maxSetAge);
        emit AttestationSpent(taskId, digest);
    }

    /// @dev The least signed weight this contract asks for in basis points, if it is above the chain's.
    function _quorumBps() internal view virtual returns (uint16) {
        return 0;
    }

    /// @dev The intent of the caller to have this contract call `target`. `functionSignature` is the ABI text by which the
    /// policy reads `data` ("transfer(address,uint256)"), empty without data. It must be the function's own: what merely
    /// shares its selector would be read as something else.
    function _intent(address target, uint256 value, bytes memory data, bytes memory functionSignature)
        internal
        view
        returns (Intent memory)
    {
        return Intent({
            from: msg.sender,
            to: target,
            value: value,
            data: data,
            chainId: block.chainid,
            functionSignature: functionSignature
        });
    }

    function _readCertificateRules() private returns (CertificateRules memory rules) {
        (rules.quorumBps, rules.minSigners, rules.maxSetAge) = COMMITS.certificateRules();
        rules.readAt = uint64(block.timestamp);
        _policyClient().rules = rules;
        emit CertificateRulesRead(rules.quorumBps, rules.minSigners, rules.maxSetAge);
    }

    function _hashIntent(Intent memory intent) private pure returns (bytes32) {
        return keccak256(
            abi.encode(
                Digests.INTENT_TYPE,
                intent.from,
                intent.to,
                intent.value,
                keccak256(intent.data),
                intent.chainId,
                keccak256(intent.functionSignature)
            )
        );
    }

    function _policyClient() private pure returns (PolicyClientStorage storage $) {
        bytes32 slot = STORAGE;
        assembly ("memory-safe") {
            $.slot := slot
        }
    }
}
