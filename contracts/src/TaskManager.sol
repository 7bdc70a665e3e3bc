// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {PausableByRole} from "./base/PausableByRole.sol";
import {IEnclaveVersionRegistry} from "./interfaces/IGovernance.sol";
import {
    Certificate,
    ICertificateVerifier,
    IOperatorRegistry,
    IPolicyRegistry,
    IStateCommitRegistry,
    ITaskManager,
    Intent,
    PolicyAttestation,
    Task,
    TaskRecord,
    TaskResponse
} from "./interfaces/INewton.sol";
import {ChainBlock} from "./libraries/ChainBlock.sol";
import {Digests} from "./libraries/Digests.sol";
import {Ids} from "./libraries/Ids.sol";

/// @notice Tasks: a snapshot of everything an evaluation depends on, and its certified answer.
contract TaskManager is PausableByRole, EIP712, ITaskManager {
    /// @dev An accepted answer in two words. nonSigners are those of its certificate if they are among the first 104 indices of
    /// the set (signersKept): a challenge need not verify the signature again then.
    struct Answer {
        bytes32 digest;
        uint48 respondedAt;
        uint48 expirationBlock;
        uint40 setId;
        bool allowed;
        bool signersKept;
        uint104 nonSigners;
    }

    /// @notice Most bytes of a task's WASM arguments.
    uint256 public constant MAX_WASM_ARGS = 32_768;
    /// @notice Most bytes of an intent's calldata and function signature together.
    uint256 public constant MAX_INTENT = 65_536;

    uint16 private constant MAX_BPS = 10_000;
    /// @dev The only result that allows: keccak256 of canonical JSON `true`.
    bytes32 private constant ALLOWED = keccak256("true");

    IPolicyRegistry private immutable POLICIES;
    IStateCommitRegistry private immutable COMMITS;
    IOperatorRegistry private immutable OPERATORS;
    ICertificateVerifier private immutable CERTIFICATES;
    IEnclaveVersionRegistry private immutable VERSIONS;

    uint64 private _nonce;
    mapping(bytes32 taskId => bytes32) private _taskHashes;
    mapping(bytes32 taskId => Answer) private _answers;

    constructor(
        IPolicyRegistry policies,
        IStateCommitRegistry commits,
        IOperatorRegistry operators,
        ICertificateVerifier certificates,
        IEnclaveVersionRegistry versions
    ) EIP712("Newton Policy Attestation", "1") {
        POLICIES = policies;
        COMMITS = commits;
        OPERATORS = operators;
        CERTIFICATES = certificates;
        VERSIONS = versions;
    }

    /// @notice Called once, inside the proxy's constructor.
    function initialize(address initialOwner) external initializer {
        __Ownable_init(initialOwner);
    }

    /// @inheritdoc ITaskManager
    function createTask(address client, Intent calldata intent, bytes calldata wasmArgs, uint16 quorumBps)
        external
        whenNotPaused
        returns (bytes32 taskId)
    {
        if (wasmArgs.length > MAX_WASM_ARGS) revert WasmArgsTooLarge(wasmArgs.length, MAX_WASM_ARGS);
        uint256 intentLength = intent.data.length + intent.functionSignature.length;
        if (intentLength > MAX_INTENT) revert IntentTooLarge(intentLength, MAX_INTENT);

        Task memory task = _snapshot(client, quorumBps);
        task.intentHash = hashIntent(intent);
        task.wasmArgsHash = keccak256(wasmArgs);
        // The parent's hash makes the task of a reorganised block another task.
        taskId = Ids.task(
            block.chainid,
            address(this),
            task.nonce,
            client,
            ChainBlock.parentHash(),
            task.intentHash,
            task.wasmArgsHash
        );
        _taskHashes[taskId] = keccak256(abi.encode(task));
        emit TaskCreated(taskId, client, task, intent, wasmArgs);
    }

    /// @inheritdoc ITaskManager
    function respondToTask(
        bytes32 taskId,
        Task calldata task,
        PolicyAttestation calldata attestation,
        Certificate calldata certificate
    ) external whenNotPaused {
        bytes32 taskHash = _taskHashes[taskId];
        if (taskHash == 0) revert UnknownTask(taskId);
        if (_answers[taskId].respondedAt != 0) revert TaskAlreadyResponded(taskId);
        _require("task", taskHash, keccak256(abi.encode(task)));
        _requireSnapshot(taskId, task, attestation);
        _require("operatorSetId", bytes32(uint256(task.operatorSetId)), bytes32(uint256(certificate.setId)));

        uint64 number = ChainBlock.number();
        (uint16 minSigners, uint64 maxSetAge, uint64 responseWindow) = COMMITS.responseRules();
        uint64 last = task.referenceBlock + responseWindow;
        if (attestation.expirationBlock < last) last = attestation.expirationBlock;
        if (number > last) revert ResponseTooLate(last, number);

        bytes32 digest = attestationDigest(attestation);
        CERTIFICATES.verifyCertificate(digest, certificate, task.quorumBps, minSigners, maxSetAge);

        uint256 absent = certificate.nonSignerBitmap;
        bool kept = absent <= type(uint104).max;
        // Numbers of blocks and sets are far smaller; the expiration is what the signers say, so that is checked.
        // forge-lint: disable-start(unsafe-typecast)
        _answers[taskId] = Answer({
            digest: digest,
            respondedAt: uint48(number),
            expirationBlock: SafeCast.toUint48(attestation.expirationBlock),
            setId: SafeCast.toUint40(certificate.setId),
            allowed: attestation.evaluationResultHash == ALLOWED,
            signersKept: kept,
            nonSigners: kept ? uint104(absent) : 0
        });
        // forge-lint: disable-end(unsafe-typecast)
        emit TaskResponded(
            taskId, digest, attestation.evaluationResultHash, certificate.setId, certificate.nonSignerBitmap
        );
    }

    /// @inheritdoc ITaskManager
    function taskHashes(bytes32 taskId) external view returns (bytes32) {
        return _taskHashes[taskId];
    }

    /// @inheritdoc ITaskManager
    function responses(bytes32 taskId) external view returns (TaskResponse memory) {
        Answer memory answer = _answers[taskId];
        return TaskResponse({
            digest: answer.digest,
            respondedAt: answer.respondedAt,
            expirationBlock: answer.expirationBlock,
            setId: answer.setId,
            allowed: answer.allowed
        });
    }

    /// @inheritdoc ITaskManager
    function taskRecord(bytes32 taskId) external view returns (TaskRecord memory record) {
        record.taskHash = _taskHashes[taskId];
        Answer storage answer = _answers[taskId];
        record.respondedAt = answer.respondedAt;
        if (record.respondedAt == 0) return record;
        (record.setId, record.signersKept, record.nonSignerBitmap) =
        (answer.setId, answer.signersKept, answer.nonSigners);
        record.digest = answer.digest;
    }

    /// @inheritdoc ITaskManager
    function nextNonce() external view returns (uint64) {
        return _nonce;
    }

    /// @inheritdoc ITaskManager
    function attestationDigest(PolicyAttestation calldata attestation) public view returns (bytes32) {
        return _hashTypedDataV4(Digests.policyAttestation(attestation));
    }

    /// @inheritdoc ITaskManager
    function hashIntent(Intent calldata intent) public pure returns (bytes32) {
        return Digests.intent(intent);
    }

    /// @dev Everything of a task but its intent and arguments, as it counts in this block.
    function _snapshot(address client, uint16 quorumBps) private returns (Task memory task) {
        uint64 newestRow;
        (task.policyInstanceId, newestRow, task.dataInstanceIds) = POLICIES.currentBinding(client);
        if (task.policyInstanceId == 0) revert NoCurrentPolicyInstance(client);
        uint64 number = ChainBlock.number();
        // Rows count from the block after their registration.
        if (newestRow >= number) revert InstanceNotInForceYet(task.policyInstanceId, newestRow);
        task.client = client;
        (task.stateSequenceNo, task.stateRoot) = COMMITS.stateInForce();
        task.operatorSetId = OPERATORS.currentSetId();
        if (task.operatorSetId == 0) revert NoOperators();
        task.rulesVersion = VERSIONS.rulesVersionAt(number);
        task.referenceBlock = number;
        task.referenceTimestamp = uint64(block.timestamp);
        task.nonce = _nonce++;
        (uint16 minimum,,) = COMMITS.certificateRules();
        if (quorumBps == 0) quorumBps = minimum;
        if (quorumBps < minimum || quorumBps > MAX_BPS) revert QuorumOutOfRange(minimum, quorumBps);
        task.quorumBps = quorumBps;
    }

    /// @dev Everything an attestation copies from its task.
    function _requireSnapshot(bytes32 taskId, Task calldata task, PolicyAttestation calldata attestation) private pure {
        _require("taskId", taskId, attestation.taskId);
        _require("policyInstanceId", task.policyInstanceId, attestation.policyInstanceId);
        _require("referenceBlock", bytes32(uint256(task.referenceBlock)), bytes32(uint256(attestation.referenceBlock)));
        _require(
            "stateSequenceNo", bytes32(uint256(task.stateSequenceNo)), bytes32(uint256(attestation.stateSequenceNo))
        );
        _require("stateRoot", task.stateRoot, attestation.stateRoot);
        _require("rulesVersion", bytes32(uint256(task.rulesVersion)), bytes32(uint256(attestation.rulesVersion)));
        _require("intentHash", task.intentHash, attestation.intentHash);
        _require("wasmArgsHash", task.wasmArgsHash, attestation.wasmArgsHash);
        _require("data.length", bytes32(task.dataInstanceIds.length), bytes32(attestation.data.length));
        for (uint256 i = 0; i < task.dataInstanceIds.length; ++i) {
            _require("data.dataInstanceId", task.dataInstanceIds[i], attestation.data[i].dataInstanceId);
        }
    }

    function _require(bytes32 field, bytes32 expected, bytes32 got) private pure {
        if (expected != got) revert TaskMismatch(field, expected, got);
    }
}
