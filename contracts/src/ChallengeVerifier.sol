// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {AttestationRows} from "./base/AttestationRows.sol";
import {NewtonUpgradeable} from "./base/NewtonUpgradeable.sol";
import {AttestationEvidence, IChallengeVerifier, ISignerHistory, SecretsProof} from "./interfaces/IChallenges.sol";
import {IEnclaveVersionRegistry} from "./interfaces/IGovernance.sol";
import {
    Certificate,
    IPolicyDataRegistry,
    IPolicyRegistry,
    IStateCommitRegistry,
    ITaskManager,
    PolicyAttestation,
    StateCommit,
    Task,
    TaskRecord
} from "./interfaces/INewton.sol";
import {IResultVerifier} from "./interfaces/IResultVerifier.sol";
import {ISlasher} from "./interfaces/ISlasher.sol";
import {ChainBlock} from "./libraries/ChainBlock.sol";
import {ChallengeLib} from "./libraries/ChallengeLib.sol";
import {Digests} from "./libraries/Digests.sol";

/// @notice Challenges: anyone may show what operators signed; what is wrong by task, rows or re-execution costs each of its
/// signers a tenth of its weight, once.
/// @dev There is no pause. The set that a certificate names only says under which keys the signature is to be checked, so
/// any set with those keys is as good as another: who pays is the owner of the key, whatever became of it since. What is
/// marked as paid is (digest, owner), so that no choice of set, class or order makes anyone pay twice for one signature.
///
/// Challenges across chains are settled where the signers are registered, from an outcome certified where the task is;
/// that needs the other chain's set and is not here.
contract ChallengeVerifier is NewtonUpgradeable, AttestationRows, IChallengeVerifier {
    /// @dev Who is accused of what. Of the signers of `digest` only those are guilty who fit the class: for EQUIVOCATION
    /// the same key must have signed the other digest, for VERSION_NOT_ACTIVE the key's image counts.
    struct Accusation {
        uint8 class;
        bytes32 digest;
        bytes32 otherDigest;
        uint256 signers;
        uint64 referenceBlock;
    }

    /// @notice Most signers that one call slashes.
    uint256 public constant MAX_SIGNERS_PER_CALL = 64;

    ITaskManager private immutable TASKS;
    IEnclaveVersionRegistry private immutable VERSIONS;
    ISignerHistory private immutable HISTORY;
    ISlasher private immutable SLASHER;

    mapping(uint8 proofKind => IResultVerifier) private _resultVerifiers;
    mapping(bytes32 digest => mapping(address operator => bool)) private _punished;

    constructor(
        ITaskManager tasks,
        IPolicyRegistry policies,
        IPolicyDataRegistry data,
        IStateCommitRegistry commits,
        IEnclaveVersionRegistry versions,
        ISignerHistory history,
        ISlasher slasher
    ) AttestationRows(policies, data, commits) {
        TASKS = tasks;
        VERSIONS = versions;
        HISTORY = history;
        SLASHER = slasher;
    }

    /// @notice Called once, inside the proxy's constructor. SP1's seat stays empty.
    function initialize(address initialOwner, IResultVerifier reexecution) external initializer {
        __Ownable_init(initialOwner);
        _setResultVerifier(ChallengeLib.REEXECUTION, reexecution);
    }

    /// @inheritdoc IChallengeVerifier
    function challengeAttestation(
        AttestationEvidence calldata evidence,
        SecretsProof[] calldata secrets,
        uint256 maxSigners
    ) external returns (uint8 class) {
        PolicyAttestation calldata attestation = evidence.attestation;
        (bytes32 digest, uint256 signers) = _admit(evidence);
        class = _rowClass(evidence.task, attestation);
        if (class == ChallengeLib.NONE) class = _secretsClass(evidence.task, attestation, secrets);
        // Nothing is wrong with what was signed; perhaps with who signed it.
        if (class == ChallengeLib.NONE) class = ChallengeLib.VERSION_NOT_ACTIVE;
        Accusation memory accusation = Accusation({
            class: class,
            digest: digest,
            otherDigest: digest,
            signers: signers,
            referenceBlock: evidence.task.referenceBlock
        });
        return _settle(accusation, attestation.taskId, evidence.certificate, evidence.certificate, maxSigners);
    }

    /// @inheritdoc IChallengeVerifier
    function challengeResult(
        AttestationEvidence calldata evidence,
        uint8 proofKind,
        bytes calldata proof,
        uint256 maxSigners
    ) external returns (uint8 class) {
        PolicyAttestation calldata attestation = evidence.attestation;
        (bytes32 digest, uint256 signers) = _admit(evidence);
        bool correct = _verifier(proofKind)
            .verifyResult(
                ChallengeLib.EVALUATION,
                ChallengeLib.evaluationInputs(attestation),
                ChallengeLib.evaluationResult(attestation),
                evidence.task.rulesVersion,
                proof
            );
        if (correct) return _taskUnsuccessful(attestation.taskId);
        Accusation memory accusation = Accusation({
            class: ChallengeLib.WRONG_RESULT, digest: digest, otherDigest: digest, signers: signers, referenceBlock: 0
        });
        return _settle(accusation, attestation.taskId, evidence.certificate, evidence.certificate, maxSigners);
    }

    /// @inheritdoc IChallengeVerifier
    function challengeCommit(
        StateCommit calldata commit,
        Certificate calldata certificate,
        uint8 proofKind,
        bytes calldata proof,
        uint256 maxSigners
    ) external returns (uint8 class) {
        bytes32 digest = COMMITS.commitDigest(commit);
        uint256 signers = HISTORY.verifySigners(digest, certificate);
        // The registry compares rules only when they change; which were in force at the boundary is history.
        bool wrong = VERSIONS.rulesVersionAt(commit.boundaryBlock) != commit.rulesVersion;
        if (!wrong) {
            wrong = !_verifier(proofKind)
                .verifyResult(
                    ChallengeLib.STATE_COMMIT, ChallengeLib.commitInputs(commit), digest, commit.rulesVersion, proof
                );
        }
        if (!wrong) return _commitUnsuccessful(commit.sequenceNo);
        Accusation memory accusation = Accusation({
            class: ChallengeLib.WRONG_COMMIT, digest: digest, otherDigest: digest, signers: signers, referenceBlock: 0
        });
        return _settleCommit(accusation, commit.sequenceNo, certificate, certificate, maxSigners);
    }

    /// @inheritdoc IChallengeVerifier
    function challengeEquivocation(
        AttestationEvidence calldata evidence,
        PolicyAttestation calldata other,
        Certificate calldata otherCertificate,
        uint256 maxSigners
    ) external returns (uint8 class) {
        Task calldata task = evidence.task;
        PolicyAttestation calldata attestation = evidence.attestation;
        if (other.taskId != attestation.taskId) revert DifferentTasks(attestation.taskId, other.taskId);
        bytes32 digest = Digests.attestationDigest(address(TASKS), attestation);
        bytes32 otherDigest = Digests.attestationDigest(address(TASKS), other);
        // The offence is the second signature: it is enough that one of the two can still be challenged.
        TaskRecord memory record = _record(task, attestation.taskId);
        uint64 last = _lastBlock(record, task, attestation, digest);
        uint64 otherLast = _lastBlock(record, task, other, otherDigest);
        _requireInTime(otherLast > last ? otherLast : last);
        uint256 signers = _signers(record, digest, evidence.certificate);
        _signers(record, otherDigest, otherCertificate);
        if (digest == otherDigest) return _taskUnsuccessful(attestation.taskId);
        Accusation memory accusation = Accusation({
            class: ChallengeLib.EQUIVOCATION,
            digest: digest,
            otherDigest: otherDigest,
            signers: signers,
            referenceBlock: 0
        });
        return _settle(accusation, attestation.taskId, evidence.certificate, otherCertificate, maxSigners);
    }

    /// @inheritdoc IChallengeVerifier
    function challengeEquivocation(
        StateCommit calldata commit,
        Certificate calldata certificate,
        StateCommit calldata other,
        Certificate calldata otherCertificate,
        uint256 maxSigners
    ) external returns (uint8 class) {
        if (other.sequenceNo != commit.sequenceNo) {
            revert DifferentSequences(commit.sequenceNo, other.sequenceNo);
        }
        bytes32 digest = COMMITS.commitDigest(commit);
        bytes32 otherDigest = COMMITS.commitDigest(other);
        uint256 signers = HISTORY.verifySigners(digest, certificate);
        HISTORY.verifySigners(otherDigest, otherCertificate);
        if (digest == otherDigest) return _commitUnsuccessful(commit.sequenceNo);
        Accusation memory accusation = Accusation({
            class: ChallengeLib.EQUIVOCATION,
            digest: digest,
            otherDigest: otherDigest,
            signers: signers,
            referenceBlock: 0
        });
        return _settleCommit(accusation, commit.sequenceNo, certificate, otherCertificate, maxSigners);
    }

    /// @inheritdoc IChallengeVerifier
    function setResultVerifier(uint8 proofKind, IResultVerifier verifier) external onlyOwner {
        _setResultVerifier(proofKind, verifier);
    }

    /// @inheritdoc IChallengeVerifier
    function resultVerifier(uint8 proofKind) external view returns (IResultVerifier) {
        return _resultVerifiers[proofKind];
    }

    /// @inheritdoc IChallengeVerifier
    function isPunished(bytes32 digest, address operator) external view returns (bool) {
        return _punished[digest][operator];
    }

    /// @inheritdoc IChallengeVerifier
    function lastChallengeBlock(Task calldata task, PolicyAttestation calldata attestation)
        external
        view
        returns (uint64)
    {
        TaskRecord memory record = _record(task, attestation.taskId);
        return _lastBlock(record, task, attestation, Digests.attestationDigest(address(TASKS), attestation));
    }

    /// @dev Checks that an attestation is about a task of this chain, can still be challenged, and was signed.
    function _admit(AttestationEvidence calldata evidence) private view returns (bytes32 digest, uint256 signers) {
        PolicyAttestation calldata attestation = evidence.attestation;
        digest = Digests.attestationDigest(address(TASKS), attestation);
        TaskRecord memory record = _record(evidence.task, attestation.taskId);
        _requireInTime(_lastBlock(record, evidence.task, attestation, digest));
        signers = _signers(record, digest, evidence.certificate);
    }

    /// @dev What the task manager keeps of a task, once the one that was brought is that task.
    function _record(Task calldata task, bytes32 taskId) private view returns (TaskRecord memory record) {
        record = TASKS.taskRecord(taskId);
        // A task of a reorganised block is none: what was signed for it is nobody's fault.
        if (record.taskHash == 0) revert ITaskManager.UnknownTask(taskId);
        bytes32 got = keccak256(abi.encode(task));
        if (got != record.taskHash) revert ITaskManager.TaskMismatch("task", record.taskHash, got);
    }

    /// @dev Number of signers, once it is certain that they signed: by the task manager, which stored this very answer by
    /// them, or by their signature.
    function _signers(TaskRecord memory record, bytes32 digest, Certificate calldata certificate)
        private
        view
        returns (uint256 signers)
    {
        if (
            record.respondedAt == 0 || !record.signersKept || record.digest != digest
                || record.setId != certificate.setId || record.nonSignerBitmap != certificate.nonSignerBitmap
        ) return HISTORY.verifySigners(digest, certificate);
        signers = HISTORY.memberCount(record.setId);
        // Who did not sign was a member, or the answer would not have been stored.
        for (uint256 absent = record.nonSignerBitmap; absent != 0; absent &= absent - 1) {
            --signers;
        }
    }

    /// @dev How long an attestation can be challenged. A stored response is public from its
    /// block on. One that is not can be held back and used until it expires, as its signers say, or stored until the
    /// response window ends: the challenge window opens no earlier.
    function _lastBlock(
        TaskRecord memory record,
        Task calldata task,
        PolicyAttestation calldata attestation,
        bytes32 digest
    ) private view returns (uint64) {
        (uint64 responseWindow, uint64 challengeWindow) = COMMITS.challengeRules();
        uint256 from = record.respondedAt;
        if (from == 0 || record.digest != digest) {
            from = uint256(task.referenceBlock) + responseWindow;
            if (attestation.expirationBlock > from) from = attestation.expirationBlock;
        }
        uint256 last = from + challengeWindow;
        // forge-lint: disable-next-line(unsafe-typecast)
        return last > type(uint64).max ? type(uint64).max : uint64(last);
    }

    function _requireInTime(uint64 last) private view {
        uint64 number = ChainBlock.number();
        if (number > last) revert ChallengeTooLate(last, number);
    }

    function _settle(
        Accusation memory accusation,
        bytes32 taskId,
        Certificate calldata certificate,
        Certificate calldata other,
        uint256 maxSigners
    ) private returns (uint8) {
        address[] memory punished = _punish(accusation, certificate, other, maxSigners);
        if (punished.length == 0) return _taskUnsuccessful(taskId);
        emit AttestationChallenged(taskId, accusation.class, punished);
        return accusation.class;
    }

    function _settleCommit(
        Accusation memory accusation,
        uint64 sequenceNo,
        Certificate calldata certificate,
        Certificate calldata other,
        uint256 maxSigners
    ) private returns (uint8) {
        address[] memory punished = _punish(accusation, certificate, other, maxSigners);
        if (punished.length == 0) return _commitUnsuccessful(sequenceNo);
        emit CommitChallenged(sequenceNo, accusation.class, punished);
        return accusation.class;
    }

    function _taskUnsuccessful(bytes32 taskId) private returns (uint8) {
        emit TaskChallengedUnsuccessfully(taskId, msg.sender);
        return ChallengeLib.NONE;
    }

    function _commitUnsuccessful(uint64 sequenceNo) private returns (uint8) {
        emit CommitChallengedUnsuccessfully(sequenceNo, msg.sender);
        return ChallengeLib.NONE;
    }

    /// @dev Slashes up to maxSigners of the guilty in order of index, leaving out those who paid already or have nothing at
    /// stake any more. Empty if nobody is guilty; reverts if all who are were left out.
    function _punish(
        Accusation memory accusation,
        Certificate calldata certificate,
        Certificate calldata other,
        uint256 maxSigners
    ) private returns (address[] memory punished) {
        if (maxSigners == 0 || maxSigners > MAX_SIGNERS_PER_CALL) {
            revert MaxSignersOutOfRange(MAX_SIGNERS_PER_CALL, maxSigners);
        }
        punished = new address[](maxSigners);
        mapping(address => bool) storage paid = _punished[accusation.digest];
        mapping(address => bool) storage paidOther = _punished[accusation.otherDigest];
        uint256 count;
        bool guilty;
        address exited;
        uint256 left = accusation.signers;
        for (uint256 index = 0; left != 0 && count < maxSigners; ++index) {
            if (_isSet(certificate.nonSignerBitmap, index)) continue;
            // Signers are members, and there are no more than 256 of them.
            // forge-lint: disable-next-line(unsafe-typecast)
            (address operator, bytes32 key) = HISTORY.memberAt(certificate.setId, uint8(index));
            if (operator == address(0)) continue;
            --left;
            if (!_isGuilty(accusation, other, index, key)) continue;
            guilty = true;
            if (paid[operator] && paidOther[operator]) continue;
            if (!SLASHER.isSlashable(operator)) {
                exited = operator;
                continue;
            }
            paid[operator] = true;
            if (accusation.otherDigest != accusation.digest) paidOther[operator] = true;
            punished[count++] = operator;
            ChallengeLib.slashOperator(SLASHER, operator, ChallengeLib.PENALTY);
        }
        if (guilty && count == 0) {
            if (exited != address(0)) revert ISlasher.OperatorNotSlashable(exited);
            revert AlreadyPunished(accusation.digest);
        }
        assembly ("memory-safe") {
            mstore(punished, count)
        }
        if (count != 0) emit SignersPunished(accusation.digest, accusation.otherDigest, punished);
    }

    /// @dev Whether a signer of the first digest is guilty of the class.
    function _isGuilty(Accusation memory accusation, Certificate calldata other, uint256 index, bytes32 key)
        private
        view
        returns (bool)
    {
        if (accusation.class == ChallengeLib.VERSION_NOT_ACTIVE) {
            return !VERSIONS.wasActiveAt(HISTORY.imageOf(key), accusation.referenceBlock);
        }
        if (accusation.class == ChallengeLib.EQUIVOCATION) {
            // A key keeps its index. Another key of the same operator is another boot, which does not know what the former
            // one signed.
            if (_isSet(other.nonSignerBitmap, index)) return false;
            // forge-lint: disable-next-line(unsafe-typecast)
            (, bytes32 otherKey) = HISTORY.memberAt(other.setId, uint8(index));
            return otherKey == key;
        }
        return true;
    }

    function _setResultVerifier(uint8 proofKind, IResultVerifier verifier) private {
        _resultVerifiers[proofKind] = verifier;
        emit ResultVerifierSet(proofKind, address(verifier));
    }

    function _verifier(uint8 proofKind) private view returns (IResultVerifier verifier) {
        verifier = _resultVerifiers[proofKind];
        if (address(verifier) == address(0)) revert NoResultVerifier(proofKind);
    }

    function _isSet(uint256 bitmap, uint256 index) private pure returns (bool) {
        return (bitmap >> index) & 1 == 1;
    }
}
