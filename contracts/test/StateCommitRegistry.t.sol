// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {
    Certificate,
    CommitRecord,
    ConsensusParameters,
    ICertificateVerifier,
    IStateCommitRegistry,
    LeafProof,
    SkipUnavailable,
    StateCommit
} from "../src/interfaces/INewton.sol";
import {JmtVerifier} from "../src/libraries/JmtVerifier.sol";
import {Suite} from "./utils/Suite.sol";
import {vm} from "./utils/Vm.sol";

contract StateCommitRegistryTest is Suite {
    bytes[] private daRefs;

    function setUp() public override {
        super.setUp();
        _joinMany(3);
    }

    function test_genesis_is_the_empty_tree() public view {
        vm.assertEq(commits.getStateRoot(), JmtVerifier.EMPTY, "root");
        vm.assertEq(commits.getSequenceNo(), 0, "sequence");
        vm.assertEq(commits.latestCommit().boundaryBlock, START_BLOCK, "boundary");
        vm.assertEq(commits.deploymentBlock(), START_BLOCK, "deployment block");
    }

    function test_a_certified_commit_is_stored_and_announced() public {
        StateCommit memory commit = _commit(keccak256("root 1"));
        bytes32 digest = commits.commitDigest(commit);
        Certificate memory certificate = _certify(digest);
        vm.expectEmit(address(commits));
        emit IStateCommitRegistry.StateCommitted(1, commit.newStateRoot, commit, digest, daRefs);
        commits.commitStateRoot(commit, certificate, daRefs);

        vm.assertEq(commits.getStateRoot(), keccak256("root 1"), "root");
        vm.assertEq(commits.getSequenceNo(), 1, "sequence");
        vm.assertEq(commits.commitAt(1), commit.newStateRoot, "history");
        CommitRecord memory record = commits.latestCommit();
        vm.assertEq(record.stateRoot, commit.newStateRoot, "record");
        vm.assertEq(record.boundaryBlock, commit.boundaryBlock, "boundary");
        vm.assertEq(record.boundaryTimestamp, commit.boundaryTimestamp, "time");
        vm.assertEq(record.rulesVersion, 1, "rules");
        vm.assertEq(record.committedAt, _number(), "committed at");
    }

    function test_a_commit_counts_from_the_next_block_on() public {
        StateCommit memory commit = _commit(keccak256("root 1"));
        commits.commitStateRoot(commit, _certify(commits.commitDigest(commit)), daRefs);
        (uint64 sequenceNo, bytes32 root) = commits.stateInForce();
        vm.assertEq(sequenceNo, 0, "before");
        vm.assertEq(root, JmtVerifier.EMPTY, "before");
        _next(1);
        (sequenceNo, root) = commits.stateInForce();
        vm.assertEq(sequenceNo, 1, "after");
        vm.assertEq(root, keccak256("root 1"), "after");
    }

    function test_sequence_and_previous_root_must_follow() public {
        StateCommit memory commit = _commit(keccak256("root"));
        commit.sequenceNo = 2;
        _refused(commit, abi.encodeWithSelector(IStateCommitRegistry.SequenceMismatch.selector, 1, 2));
        commit = _commit(keccak256("root"));
        commit.prevStateRoot = keccak256("another");
        _refused(
            commit,
            abi.encodeWithSelector(
                IStateCommitRegistry.PrevRootMismatch.selector, JmtVerifier.EMPTY, commit.prevStateRoot
            )
        );
        commit = _commit(0);
        _refused(commit, abi.encodeWithSelector(IStateCommitRegistry.ZeroRoot.selector));
    }

    function test_boundaries_rise_and_lie_in_the_past() public {
        _submit(_commit(keccak256("root 1")));
        CommitRecord memory previous = commits.latestCommit();

        StateCommit memory commit = _commit(keccak256("root 2"));
        commit.boundaryBlock = previous.boundaryBlock;
        _refused(
            commit,
            abi.encodeWithSelector(
                IStateCommitRegistry.BoundaryNotRising.selector, previous.boundaryBlock, previous.boundaryBlock
            )
        );
        commit = _commit(keccak256("root 2"));
        commit.boundaryTimestamp = previous.boundaryTimestamp;
        _refused(
            commit,
            abi.encodeWithSelector(
                IStateCommitRegistry.BoundaryTimeNotRising.selector,
                previous.boundaryTimestamp,
                previous.boundaryTimestamp
            )
        );
        commit = _commit(keccak256("root 2"));
        commit.boundaryBlock = uint64(_number());
        _refused(
            commit,
            abi.encodeWithSelector(
                IStateCommitRegistry.BoundaryInFuture.selector, commit.boundaryBlock, commit.boundaryTimestamp
            )
        );
        commit = _commit(keccak256("root 2"));
        commit.boundaryTimestamp = uint64(_time()) + 1;
        _refused(
            commit,
            abi.encodeWithSelector(
                IStateCommitRegistry.BoundaryInFuture.selector, commit.boundaryBlock, commit.boundaryTimestamp
            )
        );
    }

    function test_the_rules_version_is_that_of_the_boundary() public {
        StateCommit memory commit = _commit(keccak256("root"));
        commit.rulesVersion = 2;
        _refused(commit, abi.encodeWithSelector(IStateCommitRegistry.RulesVersionMismatch.selector, 1, 2));

        uint64 activeFrom = uint64(_number()) + 10;
        vm.prank(GOVERNANCE);
        versions.scheduleRulesVersion(2, activeFrom);
        _next(11);
        commit = _commit(keccak256("root"));
        vm.assertEq(commit.boundaryBlock, activeFrom, "boundary");
        // Asked whenever it changes; a quorum that stays behind is a matter of a challenge.
        commit.rulesVersion = 3;
        _refused(commit, abi.encodeWithSelector(IStateCommitRegistry.RulesVersionMismatch.selector, 2, 3));
        commit.rulesVersion = 2;
        _submit(commit);
        commit = _commit(keccak256("root 2"));
        _refused(commit, abi.encodeWithSelector(IStateCommitRegistry.RulesVersionMismatch.selector, 2, 1));
    }

    function test_the_cursor_never_falls_and_stays_within_the_window() public {
        StateCommit memory commit = _commit(keccak256("root 1"));
        (commit.drainedBlock, commit.drainedTx, commit.drainedLog, commit.drainedItem) = (commit.boundaryBlock, 3, 2, 1);
        _submit(commit);
        (uint64 blockNumber, uint32 tx_, uint32 log, uint32 item) = commits.drainedThrough();
        vm.assertEq(blockNumber, commit.boundaryBlock, "block");
        vm.assertEq(uint256(tx_) << 64 | uint256(log) << 32 | item, uint256(3) << 64 | uint256(2) << 32 | 1, "rest");

        StateCommit memory next = _commit(keccak256("root 2"));
        next.drainedItem = 0;
        _refused(next, abi.encodeWithSelector(IStateCommitRegistry.CursorNotRising.selector));
        next = _commit(keccak256("root 2"));
        next.drainedLog = 1;
        next.drainedItem = 7;
        _refused(next, abi.encodeWithSelector(IStateCommitRegistry.CursorNotRising.selector));
        next = _commit(keccak256("root 2"));
        next.drainedBlock = next.boundaryBlock + 1;
        _refused(next, abi.encodeWithSelector(IStateCommitRegistry.CursorNotRising.selector));
        _submit(_commit(keccak256("root 2")));
    }

    function test_a_quorum_must_have_signed_this_very_commit() public {
        StateCommit memory commit = _commit(keccak256("root"));
        Certificate memory certificate = _certify(commits.commitDigest(commit));
        commit.deltaHash = keccak256("another delta");
        vm.expectRevert(
            abi.encodeWithSelector(ICertificateVerifier.InvalidSignature.selector, commits.commitDigest(commit))
        );
        commits.commitStateRoot(commit, certificate, daRefs);
    }

    function test_leaves_are_checked_against_committed_roots() public {
        bytes32 key = keccak256("key");
        bytes32 value = keccak256("value");
        LeafProof memory proof;
        proof.siblings = _one(keccak256("sibling"));
        bytes32 leaf = keccak256(abi.encodePacked("JMT::LeafNode", key, value));
        bytes32 root = uint256(key) >> 255 == 1
            ? keccak256(abi.encodePacked("JMT::IntrnalNode", proof.siblings[0], leaf))
            : keccak256(abi.encodePacked("JMT::IntrnalNode", leaf, proof.siblings[0]));
        _submit(_commit(root));
        vm.assertTrue(commits.verifyLeaf(1, key, value, proof), "included");
        vm.assertTrue(!commits.verifyLeaf(0, key, value, proof), "not in the empty tree");
        LeafProof memory none;
        vm.assertTrue(commits.verifyLeaf(0, key, 0, none), "absent from the empty tree");
        vm.expectRevert(abi.encodeWithSelector(IStateCommitRegistry.UnknownCommit.selector, 2));
        commits.verifyLeaf(2, key, value, proof);
        vm.expectRevert(abi.encodeWithSelector(IStateCommitRegistry.UnknownCommit.selector, 2));
        commits.commitAt(2);
    }

    // ------------------------------------------------------------------------------------------------------ backlog

    function test_only_the_registries_record_bytes() public {
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(IStateCommitRegistry.NotRegistry.selector, STRANGER));
        commits.recordRegistered(AUTHOR, 1, 1);
    }

    function test_an_author_is_bounded_until_its_bytes_are_settled() public {
        uint64 quota = _parameters().authorQuotaBytes;
        uint64 largest = _parameters().maxArtifactBytes;
        _record(AUTHOR, quota - 1, largest);
        vm.assertEq(commits.authorBacklog(AUTHOR), quota - 1, "backlog");
        vm.prank(address(policies));
        vm.expectRevert(
            abi.encodeWithSelector(IStateCommitRegistry.AuthorQuotaExceeded.selector, AUTHOR, quota - 1, 2, quota)
        );
        commits.recordRegistered(AUTHOR, 2, 2);
        _record(AUTHOR, 1, 1);
        // Another author still may.
        _record(STRANGER, 10, 10);

        // Settling the author's bytes, but not the stranger's, frees its quota.
        StateCommit memory commit = _commit(keccak256("root 1"));
        commit.settledBytes = quota;
        _submit(commit);
        vm.assertEq(commits.authorBacklog(AUTHOR), 0, "settled");
        vm.assertEq(commits.authorBacklog(STRANGER), 10, "not settled");
        _record(AUTHOR, quota, largest);
        (uint64 registered, uint64 settled) = commits.backlog();
        vm.assertEq(registered, 2 * quota + 10, "registered");
        vm.assertEq(settled, quota, "settled");
    }

    function test_the_backlog_is_bounded_over_all_authors() public {
        ConsensusParameters memory p = _parameters();
        for (uint160 i = 0; i < 5; ++i) {
            _record(address(0xF000 + i), p.authorQuotaBytes, p.maxArtifactBytes);
        }
        vm.prank(address(policies));
        vm.expectRevert(
            abi.encodeWithSelector(
                IStateCommitRegistry.BacklogFull.selector, p.maxDeferQueueBytes, 1, p.maxDeferQueueBytes
            )
        );
        commits.recordRegistered(AUTHOR, 1, 1);
    }

    function test_an_artifact_above_the_limit_is_refused() public {
        uint64 maximum = _parameters().maxArtifactBytes;
        _record(AUTHOR, maximum, maximum);
        vm.prank(address(data));
        vm.expectRevert(abi.encodeWithSelector(IStateCommitRegistry.ArtifactTooLarge.selector, maximum + 1, maximum));
        commits.recordRegistered(AUTHOR, maximum + 1, maximum + 1);
    }

    function test_no_more_is_settled_than_was_registered() public {
        _record(AUTHOR, 10, 10);
        StateCommit memory commit = _commit(keccak256("root"));
        commit.settledBytes = 11;
        _refused(commit, abi.encodeWithSelector(IStateCommitRegistry.SettledTooMuch.selector, 10, 11));
    }

    // --------------------------------------------------------------------------------------------------- parameters

    function test_parameters_change_at_a_window_end_at_least_a_window_away() public {
        ConsensusParameters memory next = _parameters();
        next.maxExpireAfter = 77;
        vm.prank(GOVERNANCE);
        uint64 from = commits.setParameters(next);
        uint64 genesis = commits.parameters().genesisTime;
        vm.assertEq((from - genesis) % 120, 0, "at a window end");
        vm.assertGe(from, _time() + 120, "a window away");
        vm.assertLe(from, _time() + 240, "not later than needed");
        vm.assertEq(commits.maxExpireAfter(), _parameters().maxExpireAfter, "not yet");
        (ConsensusParameters memory pending, uint64 pendingFrom) = commits.pendingParameters();
        vm.assertEq(pending.maxExpireAfter, 77, "pending");
        vm.assertEq(pendingFrom, from, "pending from");

        vm.prank(GOVERNANCE);
        vm.expectRevert(abi.encodeWithSelector(IStateCommitRegistry.ParametersPending.selector, from));
        commits.setParameters(next);

        vm.warp(from);
        vm.assertEq(commits.maxExpireAfter(), 77, "now");
        vm.assertEq(commits.parameters().genesisTime, genesis, "same windows");
        (, pendingFrom) = commits.pendingParameters();
        vm.assertEq(pendingFrom, 0, "nothing pending");

        // A new cadence starts its windows where the old ones end.
        next.cadence = 60;
        vm.prank(GOVERNANCE);
        uint64 second = commits.setParameters(next);
        vm.assertEq(commits.maxExpireAfter(), 77, "still the first change");
        vm.warp(second);
        vm.assertEq(commits.parameters().cadence, 60, "cadence");
        vm.assertEq(commits.parameters().genesisTime, second, "genesis of the new windows");
    }

    function test_the_quorum_of_the_moment_counts() public {
        ConsensusParameters memory next = _parameters();
        next.quorumBps = 9000;
        vm.prank(GOVERNANCE);
        uint64 from = commits.setParameters(next);
        StateCommit memory commit = _commit(keccak256("root 1"));
        commits.commitStateRoot(commit, _certify(commits.commitDigest(commit), 1), daRefs);

        vm.warp(from);
        vm.roll(_number() + 20);
        commit = _commit(keccak256("root 2"));
        Certificate memory certificate = _certify(commits.commitDigest(commit), 1);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.QuorumNotReached.selector, 200, 300, 9000));
        commits.commitStateRoot(commit, certificate, daRefs);
    }

    function test_bad_parameters_are_refused_by_name() public {
        ConsensusParameters memory p = _parameters();
        p.cadence = 0;
        _badParameters(p, "cadence");
        p = _parameters();
        p.maxArtifactBytes = 0;
        _badParameters(p, "maxArtifactBytes");
        p = _parameters();
        p.maxCommitBytes = p.maxArtifactBytes - 1;
        _badParameters(p, "maxCommitBytes");
        p = _parameters();
        p.maxExpireAfter = 0;
        _badParameters(p, "maxExpireAfter");
        p.maxExpireAfter = 1 << 32;
        _badParameters(p, "maxExpireAfter");
        p = _parameters();
        p.quorumBps = 6666;
        _badParameters(p, "quorumBps");
        p.quorumBps = 10_001;
        _badParameters(p, "quorumBps");
        p = _parameters();
        p.minSigners = 0;
        _badParameters(p, "minSigners");
        p.minSigners = 257;
        _badParameters(p, "minSigners");
        p = _parameters();
        p.maxSetAge = 0;
        _badParameters(p, "maxSetAge");
        p.maxSetAge = 1 << 32;
        _badParameters(p, "maxSetAge");
        p = _parameters();
        p.cadence = 1 << 32;
        _badParameters(p, "cadence");
        p = _parameters();
        p.authorQuotaBytes = p.maxArtifactBytes - 1;
        _badParameters(p, "authorQuotaBytes");
        p = _parameters();
        p.maxDeferQueueBytes = p.authorQuotaBytes - 1;
        _badParameters(p, "maxDeferQueueBytes");
        p = _parameters();
        p.responseWindow = 0;
        _badParameters(p, "responseWindow");
        p = _parameters();
        p.challengeWindow = 0;
        _badParameters(p, "challengeWindow");
    }

    function test_parameters_are_the_owners() public {
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSignature("OwnableUnauthorizedAccount(address)", STRANGER));
        commits.setParameters(_parameters());
    }

    // ----------------------------------------------------------------------------------------------------- skipping

    function test_a_quorum_can_drop_an_entry_once_and_only_ahead_of_the_cursor() public {
        SkipUnavailable memory entry = SkipUnavailable({blockNumber: 5000, txIndex: 1, logIndex: 2, item: 0});
        Certificate memory certificate = _certify(commits.skipDigest(entry));
        vm.expectEmit(address(commits));
        emit IStateCommitRegistry.EntrySkipped(5000, 1, 2, 0);
        commits.skipUnavailable(entry, certificate);
        vm.expectRevert(abi.encodeWithSelector(IStateCommitRegistry.EntryAlreadySkipped.selector, 5000, 1, 2, 0));
        commits.skipUnavailable(entry, certificate);

        StateCommit memory commit = _commit(keccak256("root"));
        commit.drainedBlock = commit.boundaryBlock;
        _submit(commit);
        entry.blockNumber = commit.boundaryBlock;
        (entry.txIndex, entry.logIndex) = (0, 0);
        certificate = _certify(commits.skipDigest(entry));
        vm.expectRevert(
            abi.encodeWithSelector(IStateCommitRegistry.EntryAlreadyDrained.selector, commit.boundaryBlock, 0, 0, 0)
        );
        commits.skipUnavailable(entry, certificate);

        entry.item = 1;
        vm.expectRevert(
            abi.encodeWithSelector(ICertificateVerifier.InvalidSignature.selector, commits.skipDigest(entry))
        );
        commits.skipUnavailable(entry, certificate);
    }

    function testFuzz_any_changed_field_breaks_the_certificate(uint256 field, uint64 change) public {
        vm.assume(change != 0);
        StateCommit memory commit = _commit(keccak256("root"));
        Certificate memory certificate = _certify(commits.commitDigest(commit));
        field %= 3;
        if (field == 0) commit.newStateRoot ^= bytes32(uint256(change));
        else if (field == 1) commit.deltaHash ^= bytes32(uint256(change));
        else commit.boundaryTimestamp -= change % 12 + 1;
        vm.expectPartialRevert(ICertificateVerifier.InvalidSignature.selector);
        commits.commitStateRoot(commit, certificate, daRefs);
    }

    function _refused(StateCommit memory commit, bytes memory reason) private {
        Certificate memory certificate = _certify(commits.commitDigest(commit));
        vm.expectRevert(reason);
        commits.commitStateRoot(commit, certificate, daRefs);
    }

    function _record(address author, uint64 total, uint64 largest) private {
        vm.prank(address(policies));
        commits.recordRegistered(author, total, largest);
    }

    /// @dev Whoever left is liable by the greatest values there ever were, from when they are announced.
    function test_liability_never_falls() public {
        ConsensusParameters memory p = _parameters();
        vm.assertEq(commits.liabilityBlocks(), p.maxSetAge + p.maxExpireAfter + p.challengeWindow, "at first");
        (p.maxSetAge, p.maxExpireAfter, p.challengeWindow, p.responseWindow) = (200, 10, 50, 2_000_000);
        vm.prank(GOVERNANCE);
        uint64 from = commits.setParameters(p);
        uint64 expected = 200 + 2_000_000 + _parameters().challengeWindow;
        vm.assertEq(commits.liabilityBlocks(), expected, "each at its greatest");
        vm.warp(from);
        (p.maxSetAge, p.maxExpireAfter, p.challengeWindow, p.responseWindow) = (1, 1, 1, 1);
        vm.prank(GOVERNANCE);
        vm.warp(commits.setParameters(p));
        vm.assertEq(commits.liabilityBlocks(), expected, "stays");
        (uint64 responseWindow, uint64 challengeWindow) = commits.challengeRules();
        vm.assertEq(uint256(responseWindow) + challengeWindow, 2, "rules of now");
    }

    function _badParameters(ConsensusParameters memory p, bytes32 field) private {
        vm.prank(GOVERNANCE);
        vm.expectRevert(abi.encodeWithSelector(IStateCommitRegistry.InvalidParameters.selector, field));
        commits.setParameters(p);
    }
}
