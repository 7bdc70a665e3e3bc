// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Certificate, ICertificateVerifier, IStateCommitRegistry, SealedSnapshot} from "../src/interfaces/INewton.sol";
import {Suite} from "./utils/Suite.sol";
import {vm} from "./utils/Vm.sol";

/// @dev The way out when the enclaves cannot go on by themselves: governance after its timelock, and a quorum.
contract SealedSnapshotTest is Suite {
    function setUp() public override {
        super.setUp();
        _joinMany(3);
        _submit(_commit(keccak256("root 1")));
    }

    function test_governance_and_a_quorum_together_set_the_next_root() public {
        SealedSnapshot memory snapshot = _sealed(keccak256("restored"));
        bytes32 digest = commits.snapshotDigest(snapshot);
        uint64 from = uint64(_time()) + TIMELOCK;
        vm.expectEmit(address(commits));
        emit IStateCommitRegistry.SnapshotProposed(digest, snapshot, from);
        vm.prank(GOVERNANCE);
        vm.assertEq(commits.proposeSnapshot(snapshot), from, "adoptable from");
        vm.assertEq(commits.proposedSnapshots(digest), from, "and kept");

        vm.warp(from);
        Certificate memory certificate = _certify(digest, 4);
        vm.expectEmit(address(commits));
        emit IStateCommitRegistry.SnapshotAdopted(2, keccak256("restored"), snapshot, digest, SNAPSHOT_REF);
        vm.prank(STRANGER);
        commits.adoptSnapshot(snapshot, certificate, SNAPSHOT_REF);
        vm.assertEq(commits.getSequenceNo(), 2, "the number rises");
        vm.assertEq(commits.getStateRoot(), keccak256("restored"), "root");
        vm.assertEq(commits.commitAt(1), keccak256("root 1"), "the former root stays");
        vm.assertEq(commits.proposedSnapshots(digest), 0, "used up");

        // Once only, and commits go on behind it.
        vm.expectRevert(abi.encodeWithSelector(IStateCommitRegistry.SnapshotNotProposed.selector, digest));
        commits.adoptSnapshot(snapshot, certificate, SNAPSHOT_REF);
        _next(1);
        _submit(_commit(keccak256("root 3")));
        vm.assertEq(commits.getSequenceNo(), 3, "sequence");
    }

    function test_neither_half_is_enough() public {
        SealedSnapshot memory snapshot = _sealed(keccak256("restored"));
        bytes32 digest = commits.snapshotDigest(snapshot);
        Certificate memory certificate = _certify(digest);
        vm.expectRevert(abi.encodeWithSelector(IStateCommitRegistry.SnapshotNotProposed.selector, digest));
        commits.adoptSnapshot(snapshot, certificate, SNAPSHOT_REF);

        vm.prank(GOVERNANCE);
        uint64 from = commits.proposeSnapshot(snapshot);
        vm.warp(from - 1);
        vm.expectRevert(abi.encodeWithSelector(IStateCommitRegistry.SnapshotTimelocked.selector, from, from - 1));
        commits.adoptSnapshot(snapshot, certificate, SNAPSHOT_REF);
        vm.warp(from);
        Certificate memory few = _certify(digest, 6);
        vm.expectPartialRevert(ICertificateVerifier.QuorumNotReached.selector);
        vm.prank(GOVERNANCE);
        commits.adoptSnapshot(snapshot, few, SNAPSHOT_REF);
        // What a quorum signed as a commit is not what it signed as a snapshot, nor the other way round.
        Certificate memory asCommit = _certify(commits.commitDigest(snapshot.commit));
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.InvalidSignature.selector, digest));
        commits.adoptSnapshot(snapshot, asCommit, SNAPSHOT_REF);
        bytes32 commitDigest = commits.commitDigest(snapshot.commit);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.InvalidSignature.selector, commitDigest));
        commits.commitStateRoot(snapshot.commit, certificate, new bytes[](0));
        vm.assertEq(commits.getSequenceNo(), 1, "nothing happened");
        commits.adoptSnapshot(snapshot, certificate, SNAPSHOT_REF);
    }

    function test_a_proposal_is_of_one_snapshot_and_can_be_withdrawn() public {
        SealedSnapshot memory snapshot = _sealed(keccak256("restored"));
        bytes32 digest = commits.snapshotDigest(snapshot);
        vm.prank(GOVERNANCE);
        vm.expectRevert(abi.encodeWithSelector(IStateCommitRegistry.SnapshotNotProposed.selector, digest));
        commits.cancelSnapshot(digest);
        vm.prank(GOVERNANCE);
        commits.proposeSnapshot(snapshot);
        // Proposed again it waits again.
        vm.warp(_time() + 1 days);
        vm.prank(GOVERNANCE);
        uint64 from = commits.proposeSnapshot(snapshot);
        vm.assertEq(from, _time() + TIMELOCK, "anew");
        vm.warp(from);

        SealedSnapshot memory other = _sealed(keccak256("restored"));
        other.snapshotLength += 1;
        bytes32 otherDigest = commits.snapshotDigest(other);
        Certificate memory certificate = _certify(otherDigest);
        vm.expectRevert(abi.encodeWithSelector(IStateCommitRegistry.SnapshotNotProposed.selector, otherDigest));
        commits.adoptSnapshot(other, certificate, SNAPSHOT_REF);
        certificate = _certify(digest);
        bytes32 expected = keccak256(SNAPSHOT_REF);
        vm.expectRevert(
            abi.encodeWithSelector(IStateCommitRegistry.DaReferenceMismatch.selector, expected, keccak256("elsewhere"))
        );
        commits.adoptSnapshot(snapshot, certificate, "elsewhere");

        vm.expectEmit(address(commits));
        emit IStateCommitRegistry.SnapshotCancelled(digest);
        vm.prank(GOVERNANCE);
        commits.cancelSnapshot(digest);
        vm.expectRevert(abi.encodeWithSelector(IStateCommitRegistry.SnapshotNotProposed.selector, digest));
        commits.adoptSnapshot(snapshot, certificate, SNAPSHOT_REF);
    }

    function test_what_is_not_a_reference_is_not_proposed() public {
        SealedSnapshot memory snapshot = _sealed(keccak256("restored"));
        snapshot.snapshotHash = 0;
        _invalid(snapshot, "snapshotHash");
        snapshot = _sealed(keccak256("restored"));
        snapshot.snapshotLength = 0;
        _invalid(snapshot, "snapshotLength");
        snapshot = _sealed(keccak256("restored"));
        snapshot.daRefHash = 0;
        _invalid(snapshot, "daRefHash");
        snapshot = _sealed(keccak256("restored"));
        snapshot.commit.deltaHash = keccak256("delta");
        _invalid(snapshot, "deltaHash");
    }

    /// @dev Every check of a commit holds, above all that the number is the next one.
    function test_it_follows_the_latest_commit_or_nothing_happens() public {
        SealedSnapshot memory snapshot = _sealed(keccak256("restored"));
        snapshot.commit.sequenceNo = 1;
        _refused(snapshot, abi.encodeWithSelector(IStateCommitRegistry.SequenceMismatch.selector, 2, 1));
        snapshot.commit.sequenceNo = 3;
        _refused(snapshot, abi.encodeWithSelector(IStateCommitRegistry.SequenceMismatch.selector, 2, 3));
        snapshot = _sealed(keccak256("restored"));
        snapshot.commit.prevStateRoot = keccak256("another");
        _refused(
            snapshot,
            abi.encodeWithSelector(
                IStateCommitRegistry.PrevRootMismatch.selector, keccak256("root 1"), keccak256("another")
            )
        );
        snapshot = _sealed(bytes32(0));
        _refused(snapshot, abi.encodeWithSelector(IStateCommitRegistry.ZeroRoot.selector));
        snapshot = _sealed(keccak256("restored"));
        snapshot.commit.settledBytes = 1;
        _refused(snapshot, abi.encodeWithSelector(IStateCommitRegistry.SettledTooMuch.selector, 0, 1));
        snapshot = _sealed(keccak256("restored"));
        snapshot.commit.rulesVersion = 2;
        _refused(snapshot, abi.encodeWithSelector(IStateCommitRegistry.RulesVersionMismatch.selector, 1, 2));
        snapshot = _sealed(keccak256("restored"));
        snapshot.commit.boundaryBlock = uint64(_number()) + 100;
        _refused(snapshot, abi.encodePacked(IStateCommitRegistry.BoundaryInFuture.selector));
        vm.assertEq(commits.getSequenceNo(), 1, "still");

        // A commit that comes first makes a proposal worthless.
        snapshot = _sealed(keccak256("restored"));
        bytes32 digest = commits.snapshotDigest(snapshot);
        vm.prank(GOVERNANCE);
        vm.warp(commits.proposeSnapshot(snapshot));
        _next(1);
        _submit(_commit(keccak256("root 2")));
        Certificate memory certificate = _certify(digest);
        vm.expectRevert(abi.encodeWithSelector(IStateCommitRegistry.SequenceMismatch.selector, 3, 2));
        commits.adoptSnapshot(snapshot, certificate, SNAPSHOT_REF);
    }

    function _refused(SealedSnapshot memory snapshot, bytes memory reason) private {
        bytes32 digest = commits.snapshotDigest(snapshot);
        uint256 time = _time();
        vm.prank(GOVERNANCE);
        vm.warp(commits.proposeSnapshot(snapshot));
        Certificate memory certificate = _certify(digest);
        if (reason.length == 4) vm.expectPartialRevert(bytes4(reason));
        else vm.expectRevert(reason);
        commits.adoptSnapshot(snapshot, certificate, SNAPSHOT_REF);
        vm.warp(time);
    }

    function _invalid(SealedSnapshot memory snapshot, bytes32 field) private {
        vm.prank(GOVERNANCE);
        vm.expectRevert(abi.encodeWithSelector(IStateCommitRegistry.InvalidSnapshot.selector, field));
        commits.proposeSnapshot(snapshot);
    }
}
