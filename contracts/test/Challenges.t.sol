// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {AttestationEvidence, IChallengeVerifier} from "../src/interfaces/IChallenges.sol";
import {IPausableByRole} from "../src/interfaces/IGovernance.sol";
import {
    Certificate,
    ICertificateVerifier,
    IOperatorRegistry,
    OperatorSet,
    StateCommit
} from "../src/interfaces/INewton.sol";
import {IEnclaveReexecutionVerifier, IResultVerifier, ResultOutcome} from "../src/interfaces/IResultVerifier.sol";
import {ISlasher} from "../src/interfaces/ISlasher.sol";
import {ChallengeSuite} from "./utils/ChallengeSuite.sol";
import {vm} from "./utils/Vm.sol";

/// @dev Stands for a verifier of another kind of proof: an upgrade in a seat.
contract Says {
    bool private immutable WHAT;

    constructor(bool what) {
        WHAT = what;
    }

    function verifyResult(uint8, bytes32, bytes32, uint32, bytes calldata) external view returns (bool) {
        return WHAT;
    }
}

/// @dev Windows, who pays how often, and what slashing does to the sets.
contract ChallengesTest is ChallengeSuite {
    function test_a_stored_response_can_be_challenged_for_the_window_after_it() public {
        AttestationEvidence memory evidence = _wrong();
        _next(4);
        _respond(evidence);
        uint64 last = uint64(_number()) + 100;
        vm.assertEq(challenges.lastChallengeBlock(evidence.task, evidence.attestation), last, "last");
        vm.assertGe(last, evidence.attestation.expirationBlock + 1, "expired before the window ends");
        vm.roll(last + 1);
        vm.expectRevert(abi.encodeWithSelector(IChallengeVerifier.ChallengeTooLate.selector, last, last + 1));
        challenges.challengeAttestation(evidence, _noProofs(), ALL);
        vm.roll(last);
        vm.assertEq(challenges.challengeAttestation(evidence, _noProofs(), ALL), 7, "class");
    }

    function test_what_is_held_back_can_be_challenged_for_the_window_after_its_last_use() public {
        AttestationEvidence memory evidence = _wrong();
        // It can be used until it expires, later than the response window ends.
        uint64 last = evidence.attestation.expirationBlock + 100;
        vm.assertEq(challenges.lastChallengeBlock(evidence.task, evidence.attestation), last, "last");
        vm.roll(last + 1);
        bytes memory late = abi.encodeWithSelector(IChallengeVerifier.ChallengeTooLate.selector, last, last + 1);
        vm.expectRevert(late);
        challenges.challengeAttestation(evidence, _noProofs(), ALL);
        vm.expectRevert(late);
        challenges.challengeResult(evidence, REEXECUTION, "", ALL);
        vm.expectRevert(late);
        challenges.challengeEquivocation(evidence, evidence.attestation, evidence.certificate, ALL);
        vm.roll(last);
        vm.assertEq(challenges.challengeAttestation(evidence, _noProofs(), ALL), 7, "class");
    }

    function test_an_early_expiry_does_not_shorten_the_window() public {
        AttestationEvidence memory evidence = _wrong();
        evidence.attestation.expirationBlock = 0;
        _sign(evidence, 0);
        uint64 last = evidence.task.referenceBlock + 30 + 100;
        vm.assertEq(challenges.lastChallengeBlock(evidence.task, evidence.attestation), last, "last");
        evidence.attestation.expirationBlock = type(uint64).max;
        vm.assertEq(challenges.lastChallengeBlock(evidence.task, evidence.attestation), type(uint64).max, "no overflow");
    }

    function test_equivocation_is_in_time_while_either_signature_is() public {
        AttestationEvidence memory evidence = _honest();
        _respond(evidence);
        uint64 stored = uint64(_number()) + 100;
        AttestationEvidence memory other = _copy(evidence);
        other.attestation.evaluationResultHash = keccak256("false");
        _sign(other, 0);
        uint64 last = evidence.attestation.expirationBlock + 100;
        vm.assertGe(last, stored + 1, "later");
        vm.roll(last + 1);
        vm.expectRevert(abi.encodeWithSelector(IChallengeVerifier.ChallengeTooLate.selector, last, last + 1));
        challenges.challengeEquivocation(evidence, other.attestation, other.certificate, ALL);
        vm.roll(last);
        vm.assertEq(challenges.challengeEquivocation(evidence, other.attestation, other.certificate, ALL), 16, "class");
    }

    function test_one_response_costs_once_whatever_it_is_challenged_for() public {
        AttestationEvidence memory evidence = _wrong();
        _respond(evidence);
        bytes32 digest = tasks.attestationDigest(evidence.attestation);
        bytes memory wrong = _outcome(evidence, false);
        uint96[] memory before = _weights();
        address[] memory all = _accounts(3);
        vm.expectEmit(address(challenges));
        emit IChallengeVerifier.SignersPunished(digest, digest, all);
        vm.assertEq(challenges.challengeAttestation(evidence, _noProofs(), ALL), 7, "class");
        _requireTenthLost(before, 3);
        bytes memory again = abi.encodeWithSelector(IChallengeVerifier.AlreadyPunished.selector, digest);
        vm.expectRevert(again);
        challenges.challengeAttestation(evidence, _noProofs(), ALL);
        vm.expectRevert(again);
        challenges.challengeResult(evidence, REEXECUTION, wrong, ALL);
        // Another certificate over the same attestation.
        evidence.certificate = _certify(digest, THIRD_ABSENT);
        vm.expectRevert(again);
        challenges.challengeAttestation(evidence, _noProofs(), ALL);
        _requireTenthLost(before, 3);
        vm.assertTrue(challenges.isPunished(digest, signers[2].account), "paid");
    }

    function test_every_payment_uses_up_a_signature() public {
        // Two wrong answers to one task: one payment each, however they are combined.
        AttestationEvidence memory one = _wrong();
        AttestationEvidence memory two = _copy(one);
        two.attestation.regoHash = keccak256("another one");
        _sign(two, 0);
        vm.assertEq(challenges.challengeAttestation(one, _noProofs(), ALL), 7, "one");
        vm.assertEq(challenges.challengeEquivocation(one, two.attestation, two.certificate, ALL), 16, "both");
        bytes32 digest = tasks.attestationDigest(two.attestation);
        vm.expectRevert(abi.encodeWithSelector(IChallengeVerifier.AlreadyPunished.selector, digest));
        challenges.challengeAttestation(two, _noProofs(), ALL);
        vm.expectRevert(abi.encodeWithSelector(IChallengeVerifier.AlreadyPunished.selector, digest));
        challenges.challengeEquivocation(two, one.attestation, one.certificate, ALL);
        vm.assertEq(operators.operators(signers[0].account).weight, 81, "two tenths");
    }

    function test_a_large_set_is_slashed_in_several_calls() public {
        _joinMore(9);
        AttestationEvidence memory evidence = _wrong();
        uint96[] memory before = _weights();
        vm.assertEq(challenges.challengeAttestation(evidence, _noProofs(), 5), 7, "first");
        _requireTenthLost(before, 5);
        // In a later block, when the first five have another weight.
        _next(3);
        vm.assertEq(challenges.challengeAttestation(evidence, _noProofs(), 5), 7, "second");
        _requireTenthLost(before, 10);
        vm.assertEq(challenges.challengeAttestation(evidence, _noProofs(), 5), 7, "rest");
        _requireTenthLost(before, 12);
        vm.expectPartialRevert(IChallengeVerifier.AlreadyPunished.selector);
        challenges.challengeAttestation(evidence, _noProofs(), 5);
        vm.expectRevert(abi.encodeWithSelector(IChallengeVerifier.MaxSignersOutOfRange.selector, 64, 0));
        challenges.challengeAttestation(evidence, _noProofs(), 0);
        vm.expectRevert(abi.encodeWithSelector(IChallengeVerifier.MaxSignersOutOfRange.selector, 64, 65));
        challenges.challengeAttestation(evidence, _noProofs(), 65);
    }

    function test_whoever_signed_alone_pays_too() public {
        // No quorum: worth nothing as an attestation, and evidence all the same.
        AttestationEvidence memory evidence = _wrong();
        _sign(evidence, 6);
        vm.expectPartialRevert(ICertificateVerifier.QuorumNotReached.selector);
        _respond(evidence);
        uint96[] memory before = _weights();
        vm.assertEq(challenges.challengeAttestation(evidence, _noProofs(), ALL), 7, "class");
        _requireTenthLost(before, 1);
    }

    function test_a_certificate_of_another_set_than_the_tasks_is_evidence() public {
        AttestationEvidence memory evidence = _wrong();
        // The set changes before anyone signs; a client that asks only for a quorum would take it.
        _join("newcomer", 100);
        _sign(evidence, 0);
        vm.assertEq(evidence.certificate.setId, evidence.task.operatorSetId + 1, "another set");
        uint96[] memory before = _weights();
        vm.assertEq(challenges.challengeAttestation(evidence, _noProofs(), ALL), 7, "class");
        _requireTenthLost(before, 4);
    }

    function test_old_signers_pay_as_long_as_they_are_slashable() public {
        AttestationEvidence memory evidence = _wrong();
        // One restarts, one asks to leave, one is taken off the allow-list and pruned.
        _readmit(0, "boot 2");
        Signer memory leaver = signers[1];
        vm.prank(leaver.account);
        operators.requestExit(leaver.key, aggregateKey);
        Signer memory pruned = signers[2];
        signers[1] = pruned;
        signers.pop();
        _updateAggregate();
        _allow(pruned.account, 0);
        address[] memory which = new address[](1);
        which[0] = pruned.account;
        operators.prune(which, pruned.key, aggregateKey);
        _next(1);

        vm.assertEq(challenges.challengeAttestation(evidence, _noProofs(), ALL), 7, "class");
        vm.assertEq(operators.operators(signers[0].account).weight, 90, "restarted");
        vm.assertEq(operators.allowedWeight(signers[0].account), 90, "and its next admission");
        vm.assertEq(operators.operators(leaver.account).weight, 90, "leaving");
        vm.assertEq(operators.operators(pruned.account).weight, 90, "pruned");
        OperatorSet memory set = operators.operatorSet(operators.latestSetId());
        vm.assertEq(set.totalWeight, 100, "only one is in the set, not reweighed yet");
        vm.assertEq(set.members.length, 1, "members");
    }

    /// @dev Who signed a stored answer is known, by what the task manager verified.
    function test_a_stored_answer_needs_no_signature_and_takes_no_other_signers() public {
        AttestationEvidence memory evidence = _honest();
        evidence.attestation.regoHash = keccak256("other");
        _sign(evidence, 2);
        _respond(evidence);
        AttestationEvidence memory bare = _copy(evidence);
        Certificate memory none;
        none.setId = evidence.certificate.setId;
        none.nonSignerBitmap = 2;
        bare.certificate = none;
        // Whoever names others as signers must show their signature.
        for (uint256 bitmap = 0; bitmap < 8; ++bitmap) {
            if (bitmap == 2) continue;
            bare.certificate.nonSignerBitmap = bitmap;
            vm.expectPartialRevert(ICertificateVerifier.AggregateKeyMismatch.selector);
            challenges.challengeAttestation(bare, _noProofs(), ALL);
        }
        bare.certificate.nonSignerBitmap = 2;
        bare.certificate.setId -= 1;
        vm.expectPartialRevert(ICertificateVerifier.AggregateKeyMismatch.selector);
        challenges.challengeAttestation(bare, _noProofs(), ALL);
        bare.certificate.setId += 1;
        bare.attestation.regoHash = keccak256("yet another");
        vm.expectPartialRevert(ICertificateVerifier.AggregateKeyMismatch.selector);
        challenges.challengeAttestation(bare, _noProofs(), ALL);
        bare.attestation.regoHash = keccak256("other");

        vm.assertEq(challenges.challengeAttestation(bare, _noProofs(), ALL), 7, "class");
        vm.assertEq(operators.operators(signers[0].account).weight, 90, "signed");
        vm.assertEq(operators.operators(signers[1].account).weight, 100, "did not sign");
        vm.assertEq(operators.operators(signers[2].account).weight, 90, "signed too");
        vm.expectPartialRevert(IChallengeVerifier.AlreadyPunished.selector);
        challenges.challengeAttestation(evidence, _noProofs(), ALL);
    }

    function test_nobody_pays_after_the_exit() public {
        AttestationEvidence memory evidence = _wrong();
        StateCommit memory commit = _commit(keccak256("wrong"));
        commit.rulesVersion = 9;
        Certificate memory alone = _certify(commits.commitDigest(commit), 6);
        Certificate memory both = _certify(commits.commitDigest(commit), 4);
        address leaver = signers[0].account;
        vm.prank(leaver);
        operators.requestExit(signers[0].key, aggregateKey);
        // Past the delay, and slashable until it is completed.
        vm.warp(_time() + EXIT_DELAY);
        _next(1);
        vm.assertEq(challenges.challengeAttestation(evidence, _noProofs(), 1), 7, "class");
        vm.assertEq(operators.operators(leaver).weight, 90, "paid");
        _outlive();
        vm.prank(leaver);
        operators.completeExit();
        vm.assertTrue(!_slasher().isSlashable(leaver), "gone");
        vm.expectRevert(abi.encodeWithSelector(ISlasher.OperatorNotSlashable.selector, leaver));
        challenges.challengeCommit(commit, alone, REEXECUTION, "", ALL);
        // The others pay nevertheless.
        vm.assertEq(challenges.challengeCommit(commit, both, REEXECUTION, "", ALL), 14, "class");
        vm.assertEq(operators.operators(signers[1].account).weight, 90, "the other");
        vm.prank(address(challenges));
        vm.expectRevert(abi.encodeWithSelector(ISlasher.OperatorNotSlashable.selector, leaver));
        _slasher().slashOperator(leaver, 10);
    }

    function test_only_the_challenge_verifier_slashes() public {
        ISlasher slasher = _slasher();
        vm.assertEq(slasher.challengeVerifier(), address(challenges), "who may");
        address[3] memory others = [STRANGER, GOVERNANCE, signers[0].account];
        for (uint256 i = 0; i < 3; ++i) {
            vm.prank(others[i]);
            vm.expectRevert(abi.encodeWithSelector(ISlasher.NotChallengeVerifier.selector, others[i]));
            slasher.slashOperator(signers[1].account, 10);
        }
        vm.startPrank(address(challenges));
        vm.expectRevert(abi.encodeWithSelector(ISlasher.InvalidPercent.selector, 0));
        slasher.slashOperator(signers[1].account, 0);
        vm.expectRevert(abi.encodeWithSelector(ISlasher.InvalidPercent.selector, 101));
        slasher.slashOperator(signers[1].account, 101);
        vm.expectRevert(abi.encodeWithSelector(ISlasher.OperatorNotSlashable.selector, STRANGER));
        slasher.slashOperator(STRANGER, 10);
        vm.stopPrank();
    }

    function test_sets_keep_their_weights_until_anyone_has_a_new_one_made() public {
        uint64 former = operators.latestSetId();
        vm.expectEmit(address(operators));
        emit IOperatorRegistry.OperatorAllowed(signers[0].account, 90);
        vm.expectEmit(address(operators));
        emit ISlasher.OperatorSlashed(signers[0].account, 10, 90);
        _slash(0, 10);
        _slash(1, 10);
        _slash(0, 10);
        vm.assertEq(operators.latestSetId(), former, "no set for it");
        vm.assertEq(operators.operatorSet(former).totalWeight, 300, "nor another weight");
        vm.expectEmit(address(operators));
        emit IOperatorRegistry.OperatorReweighed(signers[0].account, former + 1, 0, 81);
        vm.expectEmit(address(operators));
        emit IOperatorRegistry.OperatorReweighed(signers[1].account, former + 1, 1, 90);
        vm.prank(STRANGER);
        operators.reweigh(_accounts(0, 1), aggregateKey);
        vm.assertEq(operators.latestSetId(), former + 1, "one set for both");
        vm.assertEq(operators.currentSetId(), former, "not in force yet");
        OperatorSet memory set = operators.operatorSet(former);
        vm.assertEq(set.totalWeight, 300, "the former set stays as it was");
        vm.assertEq(set.members[0].weight, 100, "and its members");
        set = operators.operatorSet(former + 1);
        vm.assertEq(set.totalWeight, 81 + 90 + 100, "total");
        vm.assertEq(set.members[0].weight, 81, "first");
        vm.assertEq(set.members[1].weight, 90, "second");
        vm.assertEq(set.aggregateKeyHash, keccak256(aggregateKey), "same keys");
        _next(1);
        vm.assertEq(operators.currentSetId(), former + 1, "in force");
        // 90 + 81 of 271 is no quorum, 100 + 90 is.
        bytes32 digest = keccak256("something");
        Certificate memory certificate = _certify(digest, 4);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.QuorumNotReached.selector, 171, 271, 6667));
        certificates.verifyCertificate(digest, certificate, 6667, 1, 100);
        vm.assertEq(certificates.verifyCertificate(digest, _certify(digest, 1), 6667, 1, 100), 190, "signed");
        // The next admission gets no more, and takes exactly the member's weight out of the sum.
        _slash(0, 10);
        _readmit(0, "boot 2");
        set = operators.operatorSet(operators.latestSetId());
        vm.assertEq(set.totalWeight, 72 + 90 + 100, "total after a readmission");
        vm.assertEq(set.members[0].weight, 72, "with what is left");
    }

    function test_leaving_takes_the_weight_out_that_the_set_has() public {
        _slash(0, 10);
        Signer memory former = signers[0];
        vm.prank(former.account);
        operators.requestExit(former.key, aggregateKey);
        OperatorSet memory set = operators.operatorSet(operators.latestSetId());
        vm.assertEq(set.totalWeight, 200, "total");
        vm.assertEq(set.members.length, 2, "members");
        vm.assertEq(operators.operators(former.account).weight, 90, "still at stake");
    }

    function test_only_who_was_slashed_is_reweighed() public {
        address first = signers[0].account;
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.NothingToReweigh.selector, first, 100));
        operators.reweigh(_accounts(0, 1), aggregateKey);
        _slash(0, 10);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.NothingToReweigh.selector, first, 90));
        operators.reweigh(_accounts(0, 0), aggregateKey);
        vm.expectRevert(IOperatorRegistry.NoOperatorsNamed.selector);
        operators.reweigh(new address[](0), aggregateKey);
        vm.expectPartialRevert(ICertificateVerifier.AggregateKeyMismatch.selector);
        operators.reweigh(_one(first), signers[0].key);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.OperatorNotAdmitted.selector, STRANGER));
        operators.reweigh(_one(STRANGER), aggregateKey);
        Signer memory gone = signers[0];
        vm.prank(gone.account);
        operators.retireAdmission(gone.key, aggregateKey);
        signers[0] = signers[2];
        signers.pop();
        _updateAggregate();
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.OperatorNotAdmitted.selector, first));
        operators.reweigh(_one(first), aggregateKey);
    }

    function test_a_new_set_of_a_revoked_members_set_certifies_nothing_either() public {
        bytes32 digest = keccak256("something");
        vm.prank(EMERGENCY);
        versions.revokeVersion(pcr0Hash);
        _slash(0, 10);
        operators.reweigh(_one(signers[0].account), aggregateKey);
        _next(1);
        Certificate memory certificate = _certify(digest);
        vm.expectPartialRevert(ICertificateVerifier.SetHasRevokedMember.selector);
        certificates.verifyCertificate(digest, certificate, 6667, 1, 100);
    }

    function testFuzz_slashing_rounds_up_and_never_exceeds_the_weight(uint96 weight, uint8 percent) public {
        vm.assume(weight != 0 && percent != 0 && percent <= 100 && weight < type(uint96).max - 1000);
        _join("heavy", weight);
        vm.prank(address(challenges));
        uint96 slashed = _slasher().slashOperator(signers[3].account, percent);
        vm.assertEq(slashed, (uint256(weight) * percent + 99) / 100, "rounded up");
        vm.assertLe(slashed, weight, "no more than there is");
        vm.assertEq(operators.operators(signers[3].account).weight, weight - slashed, "left");
        operators.reweigh(_one(signers[3].account), aggregateKey);
        vm.assertEq(operators.operatorSet(operators.latestSetId()).totalWeight, uint256(300) + weight - slashed, "set");
    }

    function test_a_member_without_weight_signs_for_nothing_and_can_be_pruned() public {
        Signer memory light = _join("light", 1);
        vm.prank(address(challenges));
        vm.assertEq(_slasher().slashOperator(light.account, 10), 1, "rounded up");
        vm.assertTrue(!_slasher().isSlashable(light.account), "nothing left");
        operators.reweigh(_one(light.account), aggregateKey);
        _next(1);
        OperatorSet memory set = operators.operatorSet(operators.latestSetId());
        vm.assertEq(set.totalWeight, 300, "total");
        vm.assertEq(set.members.length, 4, "still a member");
        bytes32 digest = keccak256("something");
        vm.assertEq(certificates.verifyCertificate(digest, _certify(digest), 6667, 1, 100), 300, "with it");
        vm.assertEq(certificates.verifyCertificate(digest, _certify(digest, 8), 6667, 1, 100), 300, "without it");

        address[] memory which = new address[](1);
        which[0] = light.account;
        operators.prune(which, light.key, aggregateKey);
        signers.pop();
        _updateAggregate();
        _next(1);
        vm.assertEq(certificates.verifyCertificate(digest, _certify(digest), 6667, 1, 100), 300, "after pruning");
        for (uint256 i = 0; i < 3; ++i) {
            vm.prank(address(challenges));
            _slasher().slashOperator(signers[i].account, 100);
            operators.reweigh(_one(signers[i].account), aggregateKey);
        }
        _next(1);
        Certificate memory certificate = _certify(digest);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.EmptySet.selector, operators.latestSetId()));
        certificates.verifyCertificate(digest, certificate, 6667, 1, 100);
    }

    function test_challenges_and_exits_cannot_be_paused() public {
        AttestationEvidence memory evidence = _wrong();
        address[4] memory pausable = [address(policies), address(data), address(operators), address(tasks)];
        vm.startPrank(GOVERNANCE);
        for (uint256 i = 0; i < 4; ++i) {
            IPausableByRole(pausable[i]).pause();
        }
        (bool ok,) = address(challenges).call(abi.encodeWithSignature("pause()"));
        vm.assertTrue(!ok, "no such function");
        vm.stopPrank();
        vm.expectRevert(abi.encodeWithSignature("EnforcedPause()"));
        tasks.createTask(CLIENT, _intent(), "", 0);

        vm.assertEq(challenges.challengeAttestation(evidence, _noProofs(), ALL), 7, "class");
        vm.assertEq(operators.operators(signers[0].account).weight, 90, "paid");
        vm.prank(signers[0].account);
        operators.requestExit(signers[0].key, aggregateKey);
        vm.warp(_time() + EXIT_DELAY);
        _outlive();
        vm.prank(signers[0].account);
        operators.completeExit();
        vm.assertTrue(!_slasher().isSlashable(signers[0].account), "left");
    }

    function test_governance_fills_the_seats_of_result_verifiers() public {
        AttestationEvidence memory evidence = _honest();
        vm.assertEq(address(challenges.resultVerifier(1)), address(reexecution), "enclaves");
        vm.assertEq(address(challenges.resultVerifier(2)), address(0), "SP1");
        vm.expectRevert(abi.encodeWithSelector(IChallengeVerifier.NoResultVerifier.selector, 2));
        challenges.challengeResult(evidence, 2, "", ALL);
        IResultVerifier verifier = IResultVerifier(address(new Says(false)));
        vm.expectRevert(abi.encodeWithSignature("OwnableUnauthorizedAccount(address)", address(this)));
        challenges.setResultVerifier(2, verifier);
        vm.expectEmit(address(challenges));
        emit IChallengeVerifier.ResultVerifierSet(2, address(verifier));
        vm.prank(GOVERNANCE);
        challenges.setResultVerifier(2, verifier);
        vm.assertEq(challenges.challengeResult(evidence, 2, "", ALL), 9, "decided there");
        vm.prank(GOVERNANCE);
        challenges.setResultVerifier(2, IResultVerifier(address(0)));
        vm.expectRevert(abi.encodeWithSelector(IChallengeVerifier.NoResultVerifier.selector, 2));
        challenges.challengeResult(evidence, 2, "", ALL);
    }

    function test_outcomes_are_of_the_whole_current_set() public {
        AttestationEvidence memory evidence = _honest();
        evidence.attestation.evaluationResultHash = keccak256("false");
        _sign(evidence, 0);
        bytes memory before = _outcome(evidence, false);
        // A newcomer joins: from the next block on, the former set's word is not enough, fresh as it is.
        _join("newcomer", 100);
        uint64 current = operators.currentSetId();
        vm.expectRevert(
            abi.encodeWithSelector(IEnclaveReexecutionVerifier.NotCurrentSet.selector, current, current - 1)
        );
        challenges.challengeResult(evidence, REEXECUTION, before, ALL);
        // Two of four are no quorum.
        (, Certificate memory certificate) = abi.decode(_outcome(evidence, false), (bool, Certificate));
        ResultOutcome memory outcome = ResultOutcome(STATE_COMMIT, 0, 0, false, 1);
        certificate = _certify(reexecution.outcomeDigest(outcome), 12);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.QuorumNotReached.selector, 200, 400, 6667));
        reexecution.verifyResult(STATE_COMMIT, 0, 0, 1, abi.encode(false, certificate));
        vm.assertEq(
            challenges.challengeResult(evidence, REEXECUTION, _outcome(evidence, false), ALL), 9, "the new set's word"
        );
    }

    function test_outcome_digests() public view {
        ResultOutcome memory outcome = ResultOutcome(1, keccak256("inputs"), keccak256("result"), true, 7);
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Newton Result Verification"),
                keccak256("1"),
                block.chainid,
                reexecution
            )
        );
        bytes32 structHash = keccak256(
            abi.encode(
                keccak256(
                    "ResultOutcome(uint8 subject,bytes32 inputsHash,bytes32 resultHash,bool correct,uint32 rulesVersion)"
                ),
                outcome.subject,
                outcome.inputsHash,
                outcome.resultHash,
                outcome.correct,
                outcome.rulesVersion
            )
        );
        vm.assertEq(
            reexecution.outcomeDigest(outcome), keccak256(abi.encodePacked(hex"1901", domain, structHash)), "digest"
        );
    }

    function test_only_the_owner_upgrades_them() public {
        address[2] memory both = [address(challenges), address(reexecution)];
        address next = address(new Says(true));
        for (uint256 i = 0; i < 2; ++i) {
            (bool ok, bytes memory reason) =
                both[i].call(abi.encodeWithSignature("upgradeToAndCall(address,bytes)", next, ""));
            vm.assertTrue(!ok, "a stranger upgraded");
            vm.assertEq(reason, abi.encodeWithSignature("OwnableUnauthorizedAccount(address)", address(this)), "reason");
        }
    }

    /// @dev An attestation with another Rego, signed by all.
    function _wrong() private returns (AttestationEvidence memory evidence) {
        evidence = _honest();
        evidence.attestation.regoHash = keccak256("other");
        _sign(evidence, 0);
    }

    function _slash(uint256 which, uint8 percent) private {
        vm.prank(address(challenges));
        _slasher().slashOperator(signers[which].account, percent);
    }

    function _one(address account) private pure returns (address[] memory list) {
        list = new address[](1);
        list[0] = account;
    }

    function _accounts(uint256 first, uint256 second) private view returns (address[] memory list) {
        list = new address[](2);
        (list[0], list[1]) = (signers[first].account, signers[second].account);
    }

    function _slasher() private view returns (ISlasher) {
        return ISlasher(address(operators));
    }

    function _joinMore(uint256 count) private {
        for (uint256 i = 0; i < count; ++i) {
            _join(string.concat("further operator ", vm.toString(i)), 100);
        }
    }
}
