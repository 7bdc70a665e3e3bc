// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {OperatorSets} from "./base/OperatorSets.sol";
import {PausableByRole} from "./base/PausableByRole.sol";
import {IEnclaveVersionRegistry} from "./interfaces/IGovernance.sol";
import {
    Certificate,
    EnclaveAdmission,
    ICertificateVerifier,
    IOperatorRegistry,
    IStateCommitRegistry,
    Operator,
    OperatorSet
} from "./interfaces/INewton.sol";
import {ISlasher} from "./interfaces/ISlasher.sol";
import {BlsVerifier} from "./libraries/BlsVerifier.sol";
import {ChainBlock} from "./libraries/ChainBlock.sol";
import {ChallengeLib} from "./libraries/ChallengeLib.sol";
import {Digests} from "./libraries/Digests.sol";

/// @notice Who may sign: the allow-list, admissions of enclave boots, and the sets they make up.
/// @dev An operator is known by its owner's address. Weight for quorum purposes is the one it was admitted with.
contract OperatorRegistry is PausableByRole, OperatorSets, EIP712, IOperatorRegistry, ISlasher {
    // OperatorRemoved.reason
    uint8 private constant RETIRED = 1;
    uint8 private constant EXITED = 2;
    uint8 private constant EXPIRED = 3;
    uint8 private constant VERSION_NOT_ACTIVE = 4;
    uint8 private constant NOT_ALLOWED = 5;

    IEnclaveVersionRegistry private immutable VERSIONS;
    IStateCommitRegistry private immutable COMMITS;
    /// @dev The only one that may slash.
    address private immutable CHALLENGES;

    uint64 private _exitDelay;
    uint64 private _admissionTimelock;
    uint64 private _maxAdmissionSeconds;
    /// @dev Set once enough operators for a certificate have been admitted: from then on the owner's word is timelocked.
    bool private _genesisOver;
    /// @dev Allowed weight of all registered operators that are not exiting: what live weight is compared with.
    uint96 private _registeredWeight;

    mapping(address operator => uint96) private _allowed;
    mapping(bytes32 digest => uint64) private _approvedAt;
    /// @dev Block of an exit's request.
    mapping(address operator => uint64) private _exitRequestedAt;

    constructor(IEnclaveVersionRegistry versions, IStateCommitRegistry commits, address challenges)
        EIP712("Newton Enclave Admission", "1")
    {
        VERSIONS = versions;
        COMMITS = commits;
        CHALLENGES = challenges;
    }

    /// @notice Called once, inside the proxy's constructor.
    /// @param exitDelay_ seconds from requestExit to completeExit, longer than every challenge window
    /// @param admissionTimelock_ seconds an owner's admission waits after genesis
    /// @param maxAdmissionSeconds_ greatest lifetime of an admission
    function initialize(address initialOwner, uint64 exitDelay_, uint64 admissionTimelock_, uint64 maxAdmissionSeconds_)
        external
        initializer
    {
        __Ownable_init(initialOwner);
        __OperatorSets_init();
        _exitDelay = exitDelay_;
        _admissionTimelock = admissionTimelock_;
        _maxAdmissionSeconds = maxAdmissionSeconds_;
    }

    /// @inheritdoc IOperatorRegistry
    function allowOperator(address operator, uint96 weight) external onlyOwner {
        if (_isCounted(operator)) _registeredWeight = _registeredWeight - _allowed[operator] + weight;
        _allowed[operator] = weight;
        emit OperatorAllowed(operator, weight);
    }

    /// @inheritdoc IOperatorRegistry
    function approveAdmission(EnclaveAdmission calldata admission) external onlyOwner {
        bytes32 digest = admissionDigest(admission);
        _approvedAt[digest] = uint64(block.timestamp);
        emit AdmissionApproved(digest, admission.operator, approvedAdmissions(digest));
    }

    /// @inheritdoc IOperatorRegistry
    function registerOperator(
        bytes calldata blsPublicKey,
        bytes calldata proofOfPossession,
        EnclaveAdmission calldata admission,
        bytes calldata document,
        bytes calldata currentAggregateKey,
        Certificate calldata certificate
    ) external whenNotPaused {
        address operator = admission.operator;
        if (msg.sender != operator) revert NotOperatorOwner(operator, msg.sender);
        if (_members[operator].blsKeyHash != 0) revert OperatorAlreadyRegistered(operator);
        _registeredWeight += _allowed[operator];
        _admit(blsPublicKey, proofOfPossession, admission, document, currentAggregateKey, "", certificate);
    }

    /// @inheritdoc IOperatorRegistry
    function readmit(
        bytes calldata blsPublicKey,
        bytes calldata proofOfPossession,
        EnclaveAdmission calldata admission,
        bytes calldata document,
        bytes calldata currentAggregateKey,
        bytes calldata formerKey,
        Certificate calldata certificate
    ) external whenNotPaused {
        MemberState storage operator = _registered(admission.operator);
        if (operator.exitAt != 0) revert OperatorExiting(admission.operator);
        _admit(blsPublicKey, proofOfPossession, admission, document, currentAggregateKey, formerKey, certificate);
    }

    /// @inheritdoc IOperatorRegistry
    function retireAdmission(bytes calldata blsPublicKey, bytes calldata currentAggregateKey) external {
        _registered(msg.sender);
        if (!_members[msg.sender].member) revert OperatorNotAdmitted(msg.sender);
        _removeOne(msg.sender, RETIRED, blsPublicKey, currentAggregateKey);
    }

    /// @inheritdoc IOperatorRegistry
    function prune(address[] calldata operators_, bytes calldata memberKeys, bytes calldata currentAggregateKey)
        external
    {
        uint256 expected = operators_.length * BlsVerifier.G2_LENGTH;
        if (operators_.length == 0 || memberKeys.length != expected) {
            revert MemberKeysLength(expected, memberKeys.length);
        }
        bytes memory aggregate = _openAggregate(currentAggregateKey);
        uint64 setId = _nextSetId();
        for (uint256 i = 0; i < operators_.length; ++i) {
            bytes calldata key = memberKeys[i * BlsVerifier.G2_LENGTH:(i + 1) * BlsVerifier.G2_LENGTH];
            aggregate = _remove(operators_[i], _pruneReason(operators_[i]), key, aggregate, setId);
        }
        _closeSet(setId, aggregate);
    }

    /// @inheritdoc IOperatorRegistry
    function reweigh(address[] calldata operators_, bytes calldata currentAggregateKey) external {
        bytes memory aggregate = _openAggregate(currentAggregateKey);
        uint64 setId = _nextSetId();
        for (uint256 i = 0; i < operators_.length; ++i) {
            _reweigh(operators_[i], setId);
        }
        if (operators_.length == 0) revert NoOperatorsNamed();
        _closeSet(setId, aggregate);
    }

    /// @inheritdoc IOperatorRegistry
    function requestExit(bytes calldata blsPublicKey, bytes calldata currentAggregateKey) external {
        MemberState storage operator = _registered(msg.sender);
        if (operator.exitAt != 0) revert OperatorExiting(msg.sender);
        _registeredWeight -= _allowed[msg.sender];
        uint64 exitAt = uint64(block.timestamp) + _exitDelay;
        operator.exitAt = SafeCast.toUint48(exitAt);
        _exitRequestedAt[msg.sender] = ChainBlock.number();
        emit ExitRequested(msg.sender, exitAt);
        if (_members[msg.sender].member) _removeOne(msg.sender, EXITED, blsPublicKey, currentAggregateKey);
    }

    /// @inheritdoc IOperatorRegistry
    function completeExit() external {
        uint64 exitAt = _registered(msg.sender).exitAt;
        if (exitAt == 0) revert ExitNotRequested(msg.sender);
        if (block.timestamp < exitAt) revert ExitDelayNotOver(exitAt, uint64(block.timestamp));
        // Whatever the delay: not before the last attestation it can have signed is out of reach of challenges.
        (uint64 last, uint64 number) = (liableThrough(msg.sender), ChainBlock.number());
        if (number <= last) revert StillChallengeable(last, number);
        delete _members[msg.sender];
        delete _exitRequestedAt[msg.sender];
        emit ExitCompleted(msg.sender);
    }

    /// @inheritdoc IOperatorRegistry
    function onVersionRevoked(bytes32 pcr0Hash) external {
        if (msg.sender != address(VERSIONS)) revert NotVersionRegistry(msg.sender);
        _invalidateVersion(pcr0Hash);
    }

    /// @inheritdoc ISlasher
    function slashOperator(address operator, uint8 percent) external returns (uint96 slashed) {
        if (msg.sender != CHALLENGES) revert NotChallengeVerifier(msg.sender);
        if (percent == 0 || percent > 100) revert InvalidPercent(percent);
        if (!isSlashable(operator)) revert OperatorNotSlashable(operator);
        // The weight of the next admission falls too, or a new boot would undo it.
        uint96 allowed = _allowed[operator];
        uint96 ofAllowed = ChallengeLib.share(allowed, percent);
        if (_isCounted(operator)) _registeredWeight -= ofAllowed;
        _allowed[operator] = allowed - ofAllowed;
        emit OperatorAllowed(operator, allowed - ofAllowed);

        MemberState storage row = _members[operator];
        uint96 weight = row.weight;
        slashed = ChallengeLib.share(weight, percent);
        row.weight = weight - slashed;
        emit OperatorSlashed(operator, slashed, weight - slashed);
    }

    /// @inheritdoc ISlasher
    function challengeVerifier() external view returns (address) {
        return CHALLENGES;
    }

    /// @inheritdoc IOperatorRegistry
    function allowedWeight(address operator) external view returns (uint96) {
        return _allowed[operator];
    }

    /// @inheritdoc IOperatorRegistry
    function operators(address operator) external view returns (Operator memory) {
        return _operator(operator);
    }

    /// @inheritdoc IOperatorRegistry
    function isMember(address operator) external view returns (bool) {
        return _members[operator].member;
    }

    /// @inheritdoc IOperatorRegistry
    function operatorOfKey(bytes32 blsKeyHash) external view returns (address) {
        return _keys[blsKeyHash].operator;
    }

    /// @inheritdoc IOperatorRegistry
    function latestSetId() external view returns (uint64) {
        return _latestSetId();
    }

    /// @inheritdoc IOperatorRegistry
    function currentSetId() external view returns (uint64) {
        return _currentSetId();
    }

    /// @inheritdoc IOperatorRegistry
    function firstCleanSetId() external view returns (uint64) {
        return _firstCleanSetId();
    }

    /// @inheritdoc IOperatorRegistry
    function operatorSet(uint64 setId) external view returns (OperatorSet memory) {
        return _operatorSet(setId);
    }

    /// @inheritdoc IOperatorRegistry
    function liableThrough(address operator) public view returns (uint64) {
        uint64 requestedAt = _exitRequestedAt[operator];
        return requestedAt == 0 ? 0 : requestedAt + COMMITS.liabilityBlocks();
    }

    /// @inheritdoc IOperatorRegistry
    function exitDelay() external view returns (uint64) {
        return _exitDelay;
    }

    /// @inheritdoc IOperatorRegistry
    function admissionTimelock() external view returns (uint64) {
        return _admissionTimelock;
    }

    /// @inheritdoc IOperatorRegistry
    function maxAdmissionSeconds() external view returns (uint64) {
        return _maxAdmissionSeconds;
    }

    /// @inheritdoc ISlasher
    function isSlashable(address operator) public view returns (bool) {
        MemberState storage row = _members[operator];
        // A row without a key has neither block nor weight.
        return row.admittedAt != 0 && (row.weight != 0 || _allowed[operator] != 0);
    }

    /// @inheritdoc IOperatorRegistry
    function approvedAdmissions(bytes32 digest) public view returns (uint64) {
        uint64 approvedAt = _approvedAt[digest];
        return approvedAt == 0 || !_genesisOver ? approvedAt : approvedAt + _admissionTimelock;
    }

    /// @inheritdoc IOperatorRegistry
    function admissionDigest(EnclaveAdmission calldata admission) public view returns (bytes32) {
        return _hashTypedDataV4(Digests.enclaveAdmission(admission));
    }

    /// @dev Checks an admission, then puts its key into the next set in place of the operator's former one.
    function _admit(
        bytes calldata blsPublicKey,
        bytes calldata proofOfPossession,
        EnclaveAdmission calldata admission,
        bytes calldata document,
        bytes calldata currentAggregateKey,
        bytes memory formerKey,
        Certificate calldata certificate
    ) private {
        address operator = admission.operator;
        uint96 weight = _allowed[operator];
        if (weight == 0) revert OperatorNotAllowed(operator);
        _checkAdmission(blsPublicKey, admission, document);
        (uint16 quorumBps, uint16 minSigners, uint64 maxSetAge) = COMMITS.certificateRules();
        bytes32 digest = admissionDigest(admission);
        bytes32 possession = keccak256(abi.encode(operator, block.chainid, address(this), admission.blsKeyHash));
        bool viaCertificate = certificate.signature.length != 0;
        if (viaCertificate) {
            (bytes memory key,) = _quorumKey(certificate, quorumBps, minSigners, maxSetAge);
            bytes memory signature = certificate.signature;
            if (!BlsVerifier.verifyBoth(digest, key, signature, possession, blsPublicKey, proofOfPossession)) {
                // Which of the two it was.
                if (!BlsVerifier.verify(digest, key, signature)) revert InvalidSignature(digest);
                revert InvalidProofOfPossession(operator);
            }
        } else {
            _consumeApproval(digest, minSigners);
            if (!BlsVerifier.verifyPossession(possession, blsPublicKey, proofOfPossession)) {
                revert InvalidProofOfPossession(operator);
            }
        }

        bytes memory aggregate = _openAggregate(currentAggregateKey);
        uint64 setId = _nextSetId();
        uint8 index;
        (index, aggregate) = _put(admission, weight, blsPublicKey, formerKey, aggregate, setId);
        emit OperatorAdmitted(operator, setId, index, weight, viaCertificate, blsPublicKey, admission);
        uint256 count = _closeSet(setId, aggregate);
        if (!_genesisOver && count >= minSigners) _genesisOver = true;
    }

    function _checkAdmission(bytes calldata blsPublicKey, EnclaveAdmission calldata admission, bytes calldata document)
        private
        view
    {
        bytes32 keyHash = keccak256(blsPublicKey);
        if (keyHash != admission.blsKeyHash) revert KeyHashMismatch(admission.blsKeyHash, keyHash);
        if (_keys[keyHash].operator != address(0)) revert KeyAlreadyUsed(keyHash);
        bytes32 docHash = keccak256(document);
        if (docHash != admission.docHash) revert DocumentMismatch(admission.docHash, docHash);
        uint64 timestamp = uint64(block.timestamp);
        if (admission.validUntil <= timestamp) revert AdmissionExpired(admission.validUntil, timestamp);
        uint64 maximum = timestamp + _maxAdmissionSeconds;
        if (admission.validUntil > maximum) revert AdmissionTooLong(admission.validUntil, maximum);
        // An admission counts from the next block on, so that is where the image must be active.
        if (!VERSIONS.wasActiveAt(admission.pcr0Hash, ChainBlock.number() + 1)) {
            revert VersionNotActive(admission.pcr0Hash);
        }
        if (!VERSIONS.isApprovedConfig(admission.configHash)) revert ConfigNotApproved(admission.configHash);
    }

    /// @dev The owner's word counts at genesis, later after the timelock and only while no quorum can sign.
    function _consumeApproval(bytes32 digest, uint16 minSigners) private {
        uint64 executableAt = approvedAdmissions(digest);
        if (executableAt == 0) revert AdmissionNotApproved(digest);
        if (block.timestamp < executableAt) revert AdmissionTimelocked(executableAt, uint64(block.timestamp));
        if (_genesisOver) {
            (uint256 live, uint256 count) = _liveWeight();
            if (count >= minSigners && live * 3 >= uint256(_registeredWeight) * 2) {
                revert QuorumIsLive(live, _registeredWeight);
            }
        }
        delete _approvedAt[digest];
    }

    function _removeOne(address operator, uint8 reason, bytes calldata blsPublicKey, bytes calldata currentAggregateKey)
        private
    {
        // Before there is a next set: the key is checked against the latest one.
        bytes memory aggregate = _openAggregate(currentAggregateKey);
        uint64 setId = _nextSetId();
        _closeSet(setId, _remove(operator, reason, blsPublicKey, aggregate, setId));
    }

    /// @dev Why anyone may take this operator out of the set; reverts if nobody may.
    function _pruneReason(address operator) private view returns (uint8) {
        MemberState storage row = _members[operator];
        if (!row.member) revert OperatorNotAdmitted(operator);
        if (row.validUntil <= block.timestamp) return EXPIRED;
        if (!VERSIONS.wasActiveAt(_imageOf(row.blsKeyHash), ChainBlock.number() + 1)) return VERSION_NOT_ACTIVE;
        // Also when slashing left nothing of the weight: a member without weight only counts as a signer.
        if (_allowed[operator] == 0 || row.weight == 0) return NOT_ALLOWED;
        revert NotPrunable(operator);
    }

    /// @dev True for operators whose allowed weight is part of _registeredWeight.
    function _isCounted(address operator) private view returns (bool) {
        MemberState storage row = _members[operator];
        return row.admittedAt != 0 && row.exitAt == 0;
    }

    function _registered(address operator) private view returns (MemberState storage row) {
        row = _members[operator];
        if (row.blsKeyHash == 0) revert OperatorNotRegistered(operator);
    }
}
