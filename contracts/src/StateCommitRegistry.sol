// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {NewtonUpgradeable} from "./base/NewtonUpgradeable.sol";
import {IEnclaveVersionRegistry} from "./interfaces/IGovernance.sol";
import {
    Certificate,
    CommitRecord,
    ConsensusParameters,
    ICertificateVerifier,
    IStateCommitRegistry,
    LeafProof,
    SealedSnapshot,
    SkipUnavailable,
    StateCommit
} from "./interfaces/INewton.sol";
import {ChainBlock} from "./libraries/ChainBlock.sol";
import {Digests} from "./libraries/Digests.sol";
import {JmtVerifier} from "./libraries/JmtVerifier.sol";

/// @notice The roots of the state tree, the consensus parameters, and the accounting of bytes that wait to be committed.
contract StateCommitRegistry is NewtonUpgradeable, EIP712, IStateCommitRegistry {
    /// @dev Latest commit's number, the last queue key it drained (block, tx, log, item in 48, 32, 32, 32 bits), and where it
    /// landed: sameBlock is how many commits before it landed in the same block. One word.
    struct Head {
        uint48 sequenceNo;
        uint144 drained;
        uint48 committedAt;
        uint16 sameBlock;
    }

    /// @dev Bytes ever registered and ever settled, and the latest commit's boundary: one word.
    struct Progress {
        uint64 registered;
        uint64 settled;
        uint48 boundaryBlock;
        uint48 boundaryTimestamp;
        uint32 rulesVersion;
    }

    /// @dev Those parameters that nearly every call asks for, once more and in one word. nextFrom is when _next takes over
    /// from _current and _nextRules from _rules; zero: it does not.
    struct Rules {
        uint48 nextFrom;
        uint48 maxSetAge;
        uint48 responseWindow;
        uint48 challengeWindow;
        uint32 maxArtifactBytes;
        uint16 quorumBps;
        uint16 minSigners;
    }

    /// @dev Bytes of an author that may still be unsettled. They all are once the total settled reaches `through`, since
    /// settling follows the order of registration.
    struct AuthorBacklog {
        uint64 outstanding;
        uint64 through;
    }

    /// @dev What never changes, and the greatest values that these parameters ever had: one word. They only rise, so what
    /// was signed under former parameters is covered, and instances keep the life they were deployed with.
    struct Bounds {
        uint64 deploymentBlock;
        uint48 snapshotTimelock;
        uint48 setAge;
        uint48 life; // of an attestation: until it expires or can no longer be answered with
        uint48 challengeWindow;
    }

    /// @notice Least quorum: stands for two thirds of the weight.
    uint16 private constant MIN_QUORUM_BPS = 6667;
    uint16 private constant MAX_BPS = 10_000;
    uint16 private constant MAX_SIGNERS = 256;
    /// @dev Greatest number of blocks or seconds that a parameter takes.
    uint64 private constant MAX_TIME = type(uint32).max;

    ICertificateVerifier private immutable CERTIFICATES;
    IEnclaveVersionRegistry private immutable VERSIONS;
    address private immutable POLICY_REGISTRY;
    address private immutable POLICY_DATA_REGISTRY;

    Head private _head;
    Progress private _progress;
    Rules private _rules;
    Rules private _nextRules;
    Bounds private _bounds;
    mapping(uint64 sequenceNo => bytes32) private _roots;
    mapping(address author => AuthorBacklog) private _authors;
    mapping(uint160 queueKey => bool) private _skipped;
    ConsensusParameters private _current;
    ConsensusParameters private _next;
    /// @dev When a proposed snapshot may be adopted.
    mapping(bytes32 digest => uint64) private _snapshotFrom;

    constructor(
        ICertificateVerifier certificates,
        IEnclaveVersionRegistry versions,
        address policyRegistry,
        address policyDataRegistry
    ) EIP712("Newton State Commit", "1") {
        CERTIFICATES = certificates;
        VERSIONS = versions;
        POLICY_REGISTRY = policyRegistry;
        POLICY_DATA_REGISTRY = policyDataRegistry;
    }

    /// @notice Called once, inside the proxy's constructor. genesisTime zero means this block's timestamp.
    /// @param rulesVersion the one in force from the start, so that the first commit need not ask for it
    /// @param snapshotTimelock_ seconds from proposing a sealed snapshot to its adoption
    function initialize(
        address initialOwner,
        ConsensusParameters calldata initial,
        uint32 rulesVersion,
        uint48 snapshotTimelock_
    ) external initializer {
        __Ownable_init(initialOwner);
        _checkParameters(initial);
        _current = initial;
        if (initial.genesisTime == 0) _current.genesisTime = uint64(block.timestamp);
        _rules = _rulesOf(initial);
        uint64 number = ChainBlock.number();
        (_bounds.deploymentBlock, _bounds.snapshotTimelock) = (number, snapshotTimelock_);
        _raiseBounds(initial);
        _roots[0] = JmtVerifier.EMPTY;
        // Numbers of blocks and times of chains fit into 48 bits, and so does what is below them.
        // forge-lint: disable-start(unsafe-typecast)
        _head = Head({sequenceNo: 0, drained: 0, committedAt: uint48(number), sameBlock: 0});
        (_progress.boundaryBlock, _progress.boundaryTimestamp) = (uint48(number), uint48(block.timestamp));
        // forge-lint: disable-end(unsafe-typecast)
        _progress.rulesVersion = rulesVersion;
        emit ConsensusParametersSet(_current, _current.genesisTime);
    }

    /// @inheritdoc IStateCommitRegistry
    function commitStateRoot(StateCommit calldata commit, Certificate calldata certificate, bytes[] calldata daRefs)
        external
    {
        bytes32 digest = commitDigest(commit);
        _accept(commit, digest, certificate);
        emit StateCommitted(commit.sequenceNo, commit.newStateRoot, commit, digest, daRefs);
    }

    /// @inheritdoc IStateCommitRegistry
    function proposeSnapshot(SealedSnapshot calldata snapshot) external onlyOwner returns (uint64 adoptableFrom) {
        // There is nothing to fetch, or no way to, or a difference to a state that nobody can build on.
        if (snapshot.snapshotHash == 0) revert InvalidSnapshot("snapshotHash");
        if (snapshot.snapshotLength == 0) revert InvalidSnapshot("snapshotLength");
        if (snapshot.daRefHash == 0) revert InvalidSnapshot("daRefHash");
        if (snapshot.commit.deltaHash != 0) revert InvalidSnapshot("deltaHash");
        bytes32 digest = snapshotDigest(snapshot);
        adoptableFrom = uint64(block.timestamp) + _bounds.snapshotTimelock;
        _snapshotFrom[digest] = adoptableFrom;
        emit SnapshotProposed(digest, snapshot, adoptableFrom);
    }

    /// @inheritdoc IStateCommitRegistry
    function cancelSnapshot(bytes32 digest) external onlyOwner {
        if (_snapshotFrom[digest] == 0) revert SnapshotNotProposed(digest);
        delete _snapshotFrom[digest];
        emit SnapshotCancelled(digest);
    }

    /// @inheritdoc IStateCommitRegistry
    function adoptSnapshot(SealedSnapshot calldata snapshot, Certificate calldata certificate, bytes calldata daRef)
        external
    {
        bytes32 digest = snapshotDigest(snapshot);
        uint64 from = _snapshotFrom[digest];
        if (from == 0) revert SnapshotNotProposed(digest);
        if (block.timestamp < from) revert SnapshotTimelocked(from, uint64(block.timestamp));
        bytes32 daRefHash = keccak256(daRef);
        if (daRefHash != snapshot.daRefHash) revert DaReferenceMismatch(snapshot.daRefHash, daRefHash);
        delete _snapshotFrom[digest];
        _accept(snapshot.commit, digest, certificate);
        emit SnapshotAdopted(snapshot.commit.sequenceNo, snapshot.commit.newStateRoot, snapshot, digest, daRef);
    }

    /// @inheritdoc IStateCommitRegistry
    function skipUnavailable(SkipUnavailable calldata entry, Certificate calldata certificate) external {
        uint160 key = _key(entry.blockNumber, entry.txIndex, entry.logIndex, entry.item);
        if (key <= _head.drained) {
            revert EntryAlreadyDrained(entry.blockNumber, entry.txIndex, entry.logIndex, entry.item);
        }
        if (_skipped[key]) {
            revert EntryAlreadySkipped(entry.blockNumber, entry.txIndex, entry.logIndex, entry.item);
        }
        Rules memory rules = _rulesInForce();
        CERTIFICATES.verifyCertificate(
            skipDigest(entry), certificate, rules.quorumBps, rules.minSigners, rules.maxSetAge
        );
        _skipped[key] = true;
        emit EntrySkipped(entry.blockNumber, entry.txIndex, entry.logIndex, entry.item);
    }

    /// @inheritdoc IStateCommitRegistry
    function setParameters(ConsensusParameters calldata next) external onlyOwner returns (uint64 activeFromTimestamp) {
        _checkParameters(next);
        uint64 pending = _rules.nextFrom;
        if (pending > block.timestamp) revert ParametersPending(pending);
        if (pending != 0) {
            _current = _next;
            _rules = _nextRules;
        }

        // The first window end that is a whole window away, so that no window that is open sees a change.
        ConsensusParameters storage current = _current;
        (uint64 genesis, uint64 cadence) = (current.genesisTime, current.cadence);
        uint64 earliest = uint64(block.timestamp) + cadence;
        uint64 windows = earliest <= genesis ? 1 : (earliest - genesis + cadence - 1) / cadence;
        activeFromTimestamp = genesis + windows * cadence;

        _raiseBounds(next);
        _next = next;
        _next.genesisTime = next.cadence == cadence ? genesis : activeFromTimestamp;
        _nextRules = _rulesOf(next);
        // A cadence is 48 bits at most.
        // forge-lint: disable-next-line(unsafe-typecast)
        _rules.nextFrom = uint48(activeFromTimestamp);
        emit ConsensusParametersSet(_next, activeFromTimestamp);
    }

    /// @inheritdoc IStateCommitRegistry
    function recordRegistered(address author, uint64 totalBytes, uint64 largest) external {
        if (msg.sender != POLICY_REGISTRY && msg.sender != POLICY_DATA_REGISTRY) revert NotRegistry(msg.sender);
        Progress memory progress = _progress;
        uint32 maxArtifactBytes = _rulesInForce().maxArtifactBytes;
        if (largest > maxArtifactBytes) revert ArtifactTooLarge(largest, maxArtifactBytes);

        ConsensusParameters storage limits = _parameters();
        uint256 outstanding = progress.registered - progress.settled;
        if (outstanding + totalBytes > limits.maxDeferQueueBytes) {
            revert BacklogFull(outstanding, totalBytes, limits.maxDeferQueueBytes);
        }
        AuthorBacklog memory own = _authors[author];
        uint64 ownOutstanding = progress.settled >= own.through ? 0 : own.outstanding;
        if (uint256(ownOutstanding) + totalBytes > limits.authorQuotaBytes) {
            revert AuthorQuotaExceeded(author, ownOutstanding, totalBytes, limits.authorQuotaBytes);
        }
        uint64 registered = progress.registered + totalBytes;
        _progress.registered = registered;
        _authors[author] = AuthorBacklog({outstanding: ownOutstanding + totalBytes, through: registered});
        emit BacklogRecorded(author, totalBytes, registered);
    }

    /// @inheritdoc IStateCommitRegistry
    function getStateRoot() external view returns (bytes32) {
        return _roots[_head.sequenceNo];
    }

    /// @inheritdoc IStateCommitRegistry
    function getSequenceNo() external view returns (uint64) {
        return _head.sequenceNo;
    }

    /// @inheritdoc IStateCommitRegistry
    function stateInForce() external view returns (uint64 sequenceNo, bytes32 stateRoot) {
        Head memory head = _head;
        sequenceNo = head.sequenceNo;
        // The empty tree holds from the start.
        if (sequenceNo != 0 && head.committedAt == ChainBlock.number()) sequenceNo -= uint64(head.sameBlock) + 1;
        stateRoot = _roots[sequenceNo];
    }

    /// @inheritdoc IStateCommitRegistry
    function commitAt(uint64 sequenceNo) external view returns (bytes32 stateRoot) {
        stateRoot = _roots[sequenceNo];
        if (stateRoot == 0) revert UnknownCommit(sequenceNo);
    }

    /// @inheritdoc IStateCommitRegistry
    function latestCommit() external view returns (CommitRecord memory) {
        (Head memory head, Progress memory progress) = (_head, _progress);
        return CommitRecord({
            sequenceNo: head.sequenceNo,
            stateRoot: _roots[head.sequenceNo],
            boundaryBlock: progress.boundaryBlock,
            boundaryTimestamp: progress.boundaryTimestamp,
            rulesVersion: progress.rulesVersion,
            committedAt: head.committedAt
        });
    }

    /// @inheritdoc IStateCommitRegistry
    function drainedThrough() external view returns (uint64 blockNumber, uint32 txIndex, uint32 logIndex, uint32 item) {
        uint144 key = _head.drained;
        // Each takes its own bits.
        // forge-lint: disable-next-line(unsafe-typecast)
        return (uint64(key >> 96), uint32(key >> 64), uint32(key >> 32), uint32(key));
    }

    /// @inheritdoc IStateCommitRegistry
    function verifyLeaf(uint64 sequenceNo, bytes32 leafKey, bytes32 valueHash, LeafProof calldata proof)
        external
        view
        returns (bool)
    {
        bytes32 root = _roots[sequenceNo];
        if (root == 0) revert UnknownCommit(sequenceNo);
        return JmtVerifier.verify(root, leafKey, valueHash, proof);
    }

    /// @inheritdoc IStateCommitRegistry
    function parameters() external view returns (ConsensusParameters memory) {
        return _parameters();
    }

    /// @inheritdoc IStateCommitRegistry
    function pendingParameters() external view returns (ConsensusParameters memory next, uint64 activeFromTimestamp) {
        uint64 from = _rules.nextFrom;
        if (from > block.timestamp) return (_next, from);
    }

    /// @inheritdoc IStateCommitRegistry
    function maxExpireAfter() external view returns (uint64) {
        return _parameters().maxExpireAfter;
    }

    /// @inheritdoc IStateCommitRegistry
    function certificateRules() external view returns (uint16 quorumBps, uint16 minSigners, uint64 maxSetAge) {
        Rules memory rules = _rulesInForce();
        return (rules.quorumBps, rules.minSigners, rules.maxSetAge);
    }

    /// @inheritdoc IStateCommitRegistry
    function responseRules() external view returns (uint16 minSigners, uint64 maxSetAge, uint64 responseWindow) {
        Rules memory rules = _rulesInForce();
        return (rules.minSigners, rules.maxSetAge, rules.responseWindow);
    }

    /// @inheritdoc IStateCommitRegistry
    function backlog() external view returns (uint64 registeredBytes, uint64 settledBytes) {
        return (_progress.registered, _progress.settled);
    }

    /// @inheritdoc IStateCommitRegistry
    function authorBacklog(address author) external view returns (uint64) {
        AuthorBacklog memory own = _authors[author];
        return _progress.settled >= own.through ? 0 : own.outstanding;
    }

    /// @inheritdoc IStateCommitRegistry
    function deploymentBlock() external view returns (uint64) {
        return _bounds.deploymentBlock;
    }

    /// @inheritdoc IStateCommitRegistry
    function snapshotTimelock() external view returns (uint64) {
        return _bounds.snapshotTimelock;
    }

    /// @inheritdoc IStateCommitRegistry
    function proposedSnapshots(bytes32 digest) external view returns (uint64 adoptableFrom) {
        return _snapshotFrom[digest];
    }

    /// @inheritdoc IStateCommitRegistry
    function challengeRules() external view returns (uint64 responseWindow, uint64 challengeWindow) {
        Rules memory rules = _rulesInForce();
        return (rules.responseWindow, rules.challengeWindow);
    }

    /// @inheritdoc IStateCommitRegistry
    function liabilityBlocks() external view returns (uint64) {
        Bounds memory bounds = _bounds;
        return uint64(bounds.setAge) + bounds.life + bounds.challengeWindow;
    }

    /// @inheritdoc IStateCommitRegistry
    function commitDigest(StateCommit calldata commit) public view returns (bytes32) {
        return _hashTypedDataV4(Digests.stateCommit(commit));
    }

    /// @inheritdoc IStateCommitRegistry
    function snapshotDigest(SealedSnapshot calldata snapshot) public view returns (bytes32) {
        return _hashTypedDataV4(Digests.sealedSnapshot(snapshot));
    }

    /// @inheritdoc IStateCommitRegistry
    function skipDigest(SkipUnavailable calldata entry) public view returns (bytes32) {
        return _hashTypedDataV4(Digests.skipUnavailable(entry));
    }

    /// @dev Puts the next root behind the latest one, once a quorum signed `digest`. The number rises by one each time.
    function _accept(StateCommit calldata commit, bytes32 digest, Certificate calldata certificate) private {
        Head memory head = _head;
        Progress memory progress = _progress;
        uint64 number = ChainBlock.number();
        uint64 expected = uint64(head.sequenceNo) + 1;
        if (commit.sequenceNo != expected) revert SequenceMismatch(expected, commit.sequenceNo);
        bytes32 root = _roots[head.sequenceNo];
        if (commit.prevStateRoot != root) revert PrevRootMismatch(root, commit.prevStateRoot);
        _checkBoundary(commit, progress, number);
        if (commit.newStateRoot == 0) revert ZeroRoot();
        // The drained keys rise, or stay for a commit that drains nothing, and lie within the window.
        uint160 drained = _key(commit.drainedBlock, commit.drainedTx, commit.drainedLog, commit.drainedItem);
        if (drained < head.drained || commit.drainedBlock > commit.boundaryBlock) revert CursorNotRising();

        uint64 unsettled = progress.registered - progress.settled;
        if (commit.settledBytes > unsettled) revert SettledTooMuch(unsettled, commit.settledBytes);
        // Asked only when it changes: a quorum that stays behind is a matter of a challenge.
        if (commit.rulesVersion != progress.rulesVersion) {
            uint32 rulesVersion = VERSIONS.rulesVersionAt(commit.boundaryBlock);
            if (commit.rulesVersion != rulesVersion) revert RulesVersionMismatch(rulesVersion, commit.rulesVersion);
        }

        Rules memory rules = _rulesInForce();
        CERTIFICATES.verifyCertificate(digest, certificate, rules.quorumBps, rules.minSigners, rules.maxSetAge);

        // Numbers of blocks and times of chains fit into 48 bits; what is drained and the boundary lie below them.
        // forge-lint: disable-start(unsafe-typecast)
        _head = Head({
            sequenceNo: uint48(commit.sequenceNo),
            drained: uint144(drained),
            committedAt: uint48(number),
            sameBlock: head.committedAt == number ? head.sameBlock + 1 : 0
        });
        _progress = Progress({
            registered: progress.registered,
            settled: progress.settled + commit.settledBytes,
            boundaryBlock: uint48(commit.boundaryBlock),
            boundaryTimestamp: uint48(commit.boundaryTimestamp),
            rulesVersion: commit.rulesVersion
        });
        // forge-lint: disable-end(unsafe-typecast)
        _roots[commit.sequenceNo] = commit.newStateRoot;
    }

    /// @dev The parameters that hold at this block's timestamp.
    function _parameters() private view returns (ConsensusParameters storage) {
        return _tookOver(_rules.nextFrom) ? _next : _current;
    }

    /// @dev Of the parameters that hold at this block's timestamp, those that fit into a word.
    function _rulesInForce() private view returns (Rules memory rules) {
        rules = _rules;
        if (_tookOver(rules.nextFrom)) rules = _nextRules;
    }

    function _tookOver(uint64 nextFrom) private view returns (bool) {
        return nextFrom != 0 && nextFrom <= block.timestamp;
    }

    function _checkBoundary(StateCommit calldata commit, Progress memory previous, uint64 number) private view {
        if (commit.boundaryBlock <= previous.boundaryBlock) {
            revert BoundaryNotRising(previous.boundaryBlock, commit.boundaryBlock);
        }
        // Only the genesis record is not a window's end, so that the first one may share its timestamp.
        uint64 earliest = uint64(previous.boundaryTimestamp) + (commit.sequenceNo == 1 ? 0 : 1);
        if (commit.boundaryTimestamp < earliest) {
            revert BoundaryTimeNotRising(previous.boundaryTimestamp, commit.boundaryTimestamp);
        }
        if (commit.boundaryBlock >= number || commit.boundaryTimestamp > block.timestamp) {
            revert BoundaryInFuture(commit.boundaryBlock, commit.boundaryTimestamp);
        }
    }

    function _key(uint64 blockNumber, uint32 txIndex, uint32 logIndex, uint32 item) private pure returns (uint160) {
        return (uint160(blockNumber) << 96) | (uint160(txIndex) << 64) | (uint160(logIndex) << 32) | item;
    }

    function _raiseBounds(ConsensusParameters calldata p) private {
        Bounds memory bounds = _bounds;
        uint64 life = p.maxExpireAfter > p.responseWindow ? p.maxExpireAfter : p.responseWindow;
        // _checkParameters has seen that they fit.
        // forge-lint: disable-start(unsafe-typecast)
        if (p.maxSetAge > bounds.setAge) bounds.setAge = uint48(p.maxSetAge);
        if (life > bounds.life) bounds.life = uint48(life);
        if (p.challengeWindow > bounds.challengeWindow) bounds.challengeWindow = uint48(p.challengeWindow);
        // forge-lint: disable-end(unsafe-typecast)
        _bounds = bounds;
    }

    function _rulesOf(ConsensusParameters calldata p) private pure returns (Rules memory) {
        // _checkParameters has seen that they fit.
        // forge-lint: disable-start(unsafe-typecast)
        return Rules({
            nextFrom: 0,
            maxSetAge: uint48(p.maxSetAge),
            responseWindow: uint48(p.responseWindow),
            challengeWindow: uint48(p.challengeWindow),
            maxArtifactBytes: p.maxArtifactBytes,
            quorumBps: p.quorumBps,
            minSigners: p.minSigners
        });
        // forge-lint: disable-end(unsafe-typecast)
    }

    function _checkParameters(ConsensusParameters calldata p) private pure {
        if (p.cadence == 0 || p.cadence > MAX_TIME) revert InvalidParameters("cadence");
        if (p.maxArtifactBytes == 0) revert InvalidParameters("maxArtifactBytes");
        // An artifact above the cap would stand at the head of the queue for ever.
        if (p.maxCommitBytes < p.maxArtifactBytes) revert InvalidParameters("maxCommitBytes");
        if (p.maxExpireAfter == 0 || p.maxExpireAfter > MAX_TIME) revert InvalidParameters("maxExpireAfter");
        if (p.quorumBps < MIN_QUORUM_BPS || p.quorumBps > MAX_BPS) revert InvalidParameters("quorumBps");
        if (p.minSigners == 0 || p.minSigners > MAX_SIGNERS) revert InvalidParameters("minSigners");
        if (p.maxSetAge == 0 || p.maxSetAge > MAX_TIME) revert InvalidParameters("maxSetAge");
        if (p.authorQuotaBytes < p.maxArtifactBytes) revert InvalidParameters("authorQuotaBytes");
        if (p.maxDeferQueueBytes < p.authorQuotaBytes) revert InvalidParameters("maxDeferQueueBytes");
        if (p.responseWindow == 0 || p.responseWindow > MAX_TIME) revert InvalidParameters("responseWindow");
        if (p.challengeWindow == 0 || p.challengeWindow > MAX_TIME) revert InvalidParameters("challengeWindow");
    }
}
