// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {AttestationEvidence, IChallengeVerifier, SecretsProof} from "../src/interfaces/IChallenges.sol";
import {
    Certificate,
    ICertificateVerifier,
    ITaskManager,
    LeafProof,
    PolicyDataBinding,
    StateCommit
} from "../src/interfaces/INewton.sol";
import {ResultOutcome} from "../src/interfaces/IResultVerifier.sol";
import {Ids} from "../src/libraries/Ids.sol";
import {ChallengeSuite} from "./utils/ChallengeSuite.sol";
import {TestBls} from "./utils/TestBls.sol";
import {vm} from "./utils/Vm.sol";

/// @dev The sixteen rows [docs/protocol.md, 12], and for each an honest twin in the same circumstances.
contract ChallengeMatrixTest is ChallengeSuite {
    function test_row_01_a_replay_from_another_chain_is_rejected() public {
        AttestationEvidence memory evidence = _honest();
        _innocent(evidence);
        bytes32 here = tasks.attestationDigest(evidence.attestation);
        vm.chainId(1);
        bytes32 there = tasks.attestationDigest(evidence.attestation);
        vm.chainId(31_337);
        evidence.certificate = _certify(there);
        uint96[] memory before = _weights();
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.InvalidSignature.selector, here));
        challenges.challengeAttestation(evidence, _noProofs(), ALL);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.InvalidSignature.selector, here));
        _respond(evidence);
        _requireTenthLost(before, 0);
    }

    function test_row_02_use_after_expiry_is_rejected() public {
        AttestationEvidence memory evidence = _honest();
        vm.roll(evidence.attestation.expirationBlock + 1);
        vm.expectRevert(
            abi.encodeWithSelector(
                ITaskManager.ResponseTooLate.selector, evidence.task.referenceBlock + 30, uint64(_number())
            )
        );
        _respond(evidence);
        // That somebody tries to use it is not its signers' fault.
        _innocent(evidence);
    }

    function test_row_03_wrong_template() public {
        // Another template of the same author, required by nothing here.
        vm.prank(AUTHOR);
        bytes32 other = policies.registerTemplate(
            _artifact("rego 2"), _artifact("params"), "vault.allow", _one(dataTemplateId), _daRefs(2)
        );
        AttestationEvidence memory evidence = _honest();
        _innocent(evidence);
        evidence.attestation.policyTemplateId = other;
        _convicts(evidence, 3);
    }

    function test_row_04_wrong_instance_or_params() public {
        vm.prank(CLIENT_OWNER);
        bytes32 other = policies.deployInstance(CLIENT, templateId, "{\"limit\":1}", 80, false);
        _next(1);
        AttestationEvidence memory evidence = _honest();
        // A pointer that moves after the task was created changes nothing.
        vm.prank(CLIENT_OWNER);
        policies.setCurrent(CLIENT, other);
        _next(1);
        _innocent(evidence);

        AttestationEvidence memory bad = _copy(evidence);
        bad.attestation.policyInstanceId = other;
        _convicts(bad, 4);
        bad = _copy(evidence);
        bad.attestation.paramsHash = policies.instances(other).paramsHash;
        _convicts(bad, 4);
        bad = _copy(evidence);
        bad.attestation.data[0].paramsHash = keccak256("other");
        _convicts(bad, 4);
    }

    function test_row_05_data_instance_not_in_the_snapshot() public {
        vm.prank(CLIENT_OWNER);
        bytes32 other = data.deployInstance(CLIENT, dataTemplateId, "{\"other\":1}", 50, false);
        _next(1);
        AttestationEvidence memory evidence = _honest();
        vm.prank(CLIENT_OWNER);
        data.setCurrent(CLIENT, other);
        _innocent(evidence);

        AttestationEvidence memory bad = _copy(evidence);
        bad.attestation.data[0].dataInstanceId = other;
        _convicts(bad, 5);
        bad = _copy(evidence);
        bad.attestation.data[0].dataInstanceId = keccak256("never registered");
        _convicts(bad, 5);
        bad = _copy(evidence);
        bad.attestation.data = new PolicyDataBinding[](0);
        _convicts(bad, 5);
        bad = _copy(evidence);
        bad.attestation.data = new PolicyDataBinding[](2);
        (bad.attestation.data[0], bad.attestation.data[1]) =
        (evidence.attestation.data[0], evidence.attestation.data[0]);
        _convicts(bad, 5);
    }

    function test_row_06_data_template_not_required() public {
        bytes32 other = _registerDataTemplate("b");
        AttestationEvidence memory evidence = _honest();
        _innocent(evidence);
        evidence.attestation.data[0].dataTemplateId = other;
        _convicts(evidence, 6);
    }

    function test_row_07_wrong_rego() public {
        AttestationEvidence memory evidence = _honest();
        _innocent(evidence);
        evidence.attestation.regoHash = keccak256("package other");
        _convicts(evidence, 7);
    }

    function test_row_08_wrong_wasm_or_schema() public {
        AttestationEvidence memory evidence = _honest();
        _innocent(evidence);
        AttestationEvidence memory bad = _copy(evidence);
        bad.attestation.paramsSchemaHash = Ids.ABSENT;
        _convicts(bad, 8);
        bad = _copy(evidence);
        bad.attestation.data[0].wasmHash = keccak256("other");
        _convicts(bad, 8);
        bad = _copy(evidence);
        bad.attestation.data[0].paramsSchemaHash = keccak256("other");
        _convicts(bad, 8);
        bad = _copy(evidence);
        bad.attestation.data[0].secretsSchemaHash = Ids.ABSENT;
        _convicts(bad, 8);
    }

    function test_row_09_wrong_result() public {
        AttestationEvidence memory evidence = _honest();
        _innocent(evidence);

        // Right inputs, another result. The whole set decides, the wrong signers in it: two of three are enough.
        AttestationEvidence memory bad = _copy(evidence);
        bad.attestation.evaluationResultHash = keccak256("false");
        _sign(bad, THIRD_ABSENT);
        vm.assertEq(challenges.challengeAttestation(bad, _noProofs(), ALL), 0, "rows do not show it");
        bytes memory wrong = _outcome(bad, false);
        // It says nothing about what is honest, nor about the same result under other rules.
        (bool ok,) =
            address(challenges).call(abi.encodeCall(challenges.challengeResult, (evidence, REEXECUTION, wrong, ALL)));
        vm.assertTrue(!ok, "a decision about another result");
        AttestationEvidence memory otherRules = _copy(bad);
        otherRules.task.rulesVersion = 2;
        (ok,) = address(challenges)
            .call(abi.encodeCall(challenges.challengeResult, (bad, REEXECUTION, _outcome(otherRules, false), ALL)));
        vm.assertTrue(!ok, "a decision under other rules");

        uint96[] memory before = _weights();
        vm.expectEmit(address(challenges));
        emit IChallengeVerifier.AttestationChallenged(bad.attestation.taskId, 9, _accounts(2));
        vm.assertEq(challenges.challengeResult(bad, REEXECUTION, wrong, ALL), 9, "class");
        _requireTenthLost(before, 2);
        _next(1);

        // A component's output is a result too.
        bad = _copy(evidence);
        bad.attestation.data[0].outputHash = keccak256("other");
        _sign(bad, THIRD_ABSENT);
        before = _weights();
        vm.assertEq(challenges.challengeResult(bad, REEXECUTION, _outcome(bad, false), ALL), 9, "output");
        _requireTenthLost(before, 2);
    }

    function test_row_10_instance_registered_at_or_after_the_reference_block() public {
        // The twin: registered in the last block before the task's.
        vm.startPrank(CLIENT_OWNER);
        data.deployInstance(CLIENT, dataTemplateId, "{\"newest\":1}", 50, true);
        policies.deployInstance(CLIENT, templateId, "{\"newest\":1}", 80, true);
        vm.stopPrank();
        _next(1);
        bytes32 taskId;
        AttestationEvidence memory evidence;
        (taskId, evidence.task) = _newTask();
        vm.assertEq(
            policies.instances(evidence.task.policyInstanceId).registeredAt + 1, evidence.task.referenceBlock, "block"
        );
        evidence.attestation = _honestAttestation(taskId, evidence.task);
        _sign(evidence, 0);
        _innocent(evidence);

        // In the task's own block.
        vm.roll(evidence.task.referenceBlock);
        vm.startPrank(CLIENT_OWNER);
        bytes32 late = policies.deployInstance(CLIENT, templateId, "{\"late\":1}", 80, false);
        bytes32 lateData = data.deployInstance(CLIENT, dataTemplateId, "{\"late\":1}", 50, false);
        vm.stopPrank();
        _next(1);
        AttestationEvidence memory bad = _copy(evidence);
        bad.attestation.policyInstanceId = late;
        _convicts(bad, 10);
        bad = _copy(evidence);
        bad.attestation.data[0].dataInstanceId = lateData;
        _convicts(bad, 10);
    }

    function test_row_11_a_signer_not_in_the_set_is_rejected() public {
        AttestationEvidence memory evidence = _honest();
        _innocent(evidence);
        AttestationEvidence memory bad = _copy(evidence);
        bad.attestation.regoHash = keccak256("other");
        bytes32 digest = tasks.attestationDigest(bad.attestation);
        uint96[] memory before = _weights();

        // Somebody else's signature in the name of the set, or beside it.
        bad.certificate.signature = TestBls.sign(TestBls.secret("nobody"), digest);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.InvalidSignature.selector, digest));
        challenges.challengeAttestation(bad, _noProofs(), ALL);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.InvalidSignature.selector, digest));
        _respond(bad);

        // A key of their own as the set's.
        bad.certificate.aggregateKey = TestBls.publicKey(TestBls.secret("nobody"));
        vm.expectRevert(
            abi.encodeWithSelector(
                ICertificateVerifier.AggregateKeyMismatch.selector,
                keccak256(aggregateKey),
                keccak256(bad.certificate.aggregateKey)
            )
        );
        challenges.challengeAttestation(bad, _noProofs(), ALL);

        // An index that nobody holds.
        bad.certificate = _certify(digest);
        bad.certificate.nonSignerBitmap = 8;
        bad.certificate.nonSignerKeys = signers[0].key;
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.NonSignerNotMember.selector, 3));
        challenges.challengeAttestation(bad, _noProofs(), ALL);

        // Nobody signed at all.
        bad.certificate.nonSignerBitmap = 7;
        bad.certificate.nonSignerKeys = bytes.concat(signers[0].key, signers[1].key, signers[2].key);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.TooFewSigners.selector, 1, 0));
        challenges.challengeAttestation(bad, _noProofs(), ALL);
        _requireTenthLost(before, 0);
    }

    function test_row_12_wrong_root_or_sequence() public {
        _submit(_commit(keccak256("root 1")));
        AttestationEvidence memory evidence = _honest();
        vm.assertEq(evidence.task.stateSequenceNo, 1, "sequence");
        _submit(_commit(keccak256("root 2")));
        _innocent(evidence);
        AttestationEvidence memory bad = _copy(evidence);
        bad.attestation.stateRoot = keccak256("root 2");
        _convicts(bad, 12);
        bad = _copy(evidence);
        bad.attestation.stateSequenceNo = 2;
        _convicts(bad, 12);
    }

    function test_row_12_wrong_secrets_leaf() public {
        bytes32 value = keccak256("envelope");
        bytes32 key = _secretsKey(dataInstanceId);
        _submit(_commit(_leaf(key, value)));
        AttestationEvidence memory evidence = _honest();
        evidence.attestation.data[0].secretsLeafHash = value;
        _sign(evidence, 0);
        SecretsProof[] memory included = new SecretsProof[](1);
        included[0].valueHash = value;
        _innocent(evidence, included);

        // The secrets change afterwards: the task's root counts.
        bytes32 later = keccak256("later envelope");
        _submit(_commit(_leaf(key, later)));
        SecretsProof[] memory stale = new SecretsProof[](1);
        stale[0].valueHash = later;
        vm.expectRevert(abi.encodeWithSelector(IChallengeVerifier.InvalidSecretsProof.selector, 0));
        challenges.challengeAttestation(evidence, stale, ALL);
        included[0].index = 1;
        vm.expectRevert(abi.encodeWithSelector(IChallengeVerifier.BindingOutOfRange.selector, 1, 1));
        challenges.challengeAttestation(evidence, included, ALL);
        included[0].index = 0;

        AttestationEvidence memory bad = _copy(evidence);
        bad.attestation.data[0].secretsLeafHash = Ids.ABSENT;
        _sign(bad, THIRD_ABSENT);
        vm.assertEq(challenges.challengeAttestation(bad, _noProofs(), ALL), 0, "no proof, no case");
        _convicts(bad, 12, included);
        bad.attestation.data[0].secretsLeafHash = later;
        _convicts(bad, 12, included);
    }

    function test_row_12_a_secrets_leaf_that_is_not_there() public {
        bytes32 neighbour = _secretsKey(keccak256("another instance"));
        bytes32 value = keccak256("envelope");
        _submit(_commit(_leaf(neighbour, value)));
        SecretsProof[] memory absent = new SecretsProof[](1);
        absent[0].proof = LeafProof(new bytes32[](0), neighbour, value);
        AttestationEvidence memory evidence = _honest();
        _innocent(evidence, absent);
        evidence.attestation.data[0].secretsLeafHash = value;
        _convicts(evidence, 12, absent);
    }

    function test_row_13_signer_under_a_version_not_active() public {
        bytes32 former = pcr0Hash;
        bytes32 second = _propose("image 2");
        _next(ACTIVATION_DELAY);
        vm.prank(GOVERNANCE);
        versions.deprecateVersion(former, 10);
        uint64 from = versions.versions(former).deprecatedFrom;
        // The third operator follows in time.
        pcr0Hash = second;
        _readmit(2, "boot under image 2");

        // The twin: the last block in which the image is active, challenged after.
        vm.roll(from - 1);
        AttestationEvidence memory evidence = _honest();
        vm.assertEq(evidence.task.referenceBlock, from - 1, "last active block");
        _next(3);
        _innocent(evidence);

        vm.roll(from);
        evidence = _honest();
        uint96[] memory before = _weights();
        vm.expectEmit(address(challenges));
        emit IChallengeVerifier.AttestationChallenged(evidence.attestation.taskId, 13, _accounts(2));
        vm.assertEq(challenges.challengeAttestation(evidence, _noProofs(), ALL), 13, "class");
        _requireTenthLost(before, 2);

        // What counts is the image that the key was admitted under, not the operator's present one.
        _next(1);
        evidence = _honest();
        _readmit(0, "another boot under image 2");
        before = _weights();
        vm.assertEq(challenges.challengeAttestation(evidence, _noProofs(), ALL), 13, "class");
        _requireTenthLost(before, 2);
        // And that boot is innocent of what comes after.
        _next(1);
        evidence = _honest();
        before = _weights();
        vm.assertEq(challenges.challengeAttestation(evidence, _noProofs(), ALL), 13, "class");
        vm.assertEq(operators.operators(signers[0].account).weight, before[0], "the new boot");
        vm.assertEq(operators.operators(signers[1].account).weight, before[1] - (before[1] + 9) / 10, "the old one");
    }

    function test_row_13_revocation_counts_from_the_next_block_on() public {
        AttestationEvidence memory evidence = _honest();
        bytes32 former = pcr0Hash;
        vm.roll(evidence.task.referenceBlock);
        vm.prank(EMERGENCY);
        versions.revokeVersion(former);
        vm.assertEq(versions.versions(former).revokedAt, evidence.task.referenceBlock + 1, "revoked from");
        // The set certifies nothing any more, so _innocent's outcomes cannot be had: the rows alone.
        uint96[] memory before = _weights();
        _next(5);
        vm.assertEq(challenges.challengeAttestation(evidence, _noProofs(), ALL), 0, "signed when it was active");
        _requireTenthLost(before, 0);

        evidence = _honest();
        _convicts(evidence, 13);
    }

    function test_row_14_a_commit_that_is_not_the_selection() public {
        StateCommit memory commit = _commit(keccak256("right"));
        Certificate memory certificate = _certify(commits.commitDigest(commit));
        StateCommit memory bad = _commit(keccak256("wrong"));
        Certificate memory badCertificate = _certify(commits.commitDigest(bad), THIRD_ABSENT);
        uint96[] memory before = _weights();

        bytes memory right = _commitOutcome(commit, true);
        vm.expectEmit(address(challenges));
        emit IChallengeVerifier.CommitChallengedUnsuccessfully(commit.sequenceNo, address(this));
        vm.assertEq(challenges.challengeCommit(commit, certificate, REEXECUTION, right, ALL), 0, "right");
        bytes memory wrong = _commitOutcome(bad, false);
        (bool ok,) = address(challenges)
            .call(abi.encodeCall(challenges.challengeCommit, (commit, certificate, REEXECUTION, wrong, ALL)));
        vm.assertTrue(!ok, "a decision about another commit");
        (ok,) = address(challenges)
            .call(abi.encodeCall(challenges.challengeCommit, (bad, certificate, REEXECUTION, wrong, ALL)));
        vm.assertTrue(!ok, "signed by nobody");
        vm.assertEq(_equivocation(commit, certificate, commit, certificate), 0, "with itself");
        _requireTenthLost(before, 0);

        // Accepted or not makes no difference, and neither does time.
        commits.commitStateRoot(bad, badCertificate, new bytes[](0));
        _next(2000);
        vm.expectEmit(address(challenges));
        emit IChallengeVerifier.CommitChallenged(bad.sequenceNo, 14, _accounts(2));
        vm.assertEq(challenges.challengeCommit(bad, badCertificate, REEXECUTION, wrong, ALL), 14, "class");
        _requireTenthLost(before, 2);
        vm.expectRevert(abi.encodeWithSelector(IChallengeVerifier.AlreadyPunished.selector, commits.commitDigest(bad)));
        challenges.challengeCommit(bad, badCertificate, REEXECUTION, wrong, ALL);
    }

    function test_row_14_a_commit_under_rules_that_were_not_in_force() public {
        uint64 from = uint64(_number() + ACTIVATION_DELAY);
        vm.prank(GOVERNANCE);
        versions.scheduleRulesVersion(2, from);
        vm.roll(from + 1);
        // The twin's boundary is the first block under the new rules.
        StateCommit memory commit = _commit(keccak256("root"));
        vm.assertEq(commit.boundaryBlock, from, "boundary");
        commit.rulesVersion = 2;
        Certificate memory certificate = _certify(commits.commitDigest(commit));
        vm.assertEq(
            challenges.challengeCommit(commit, certificate, REEXECUTION, _commitOutcome(commit, true), ALL), 0, "right"
        );
        // The registry does not ask when the rules stay the same.
        commit.rulesVersion = 1;
        certificate = _certify(commits.commitDigest(commit), THIRD_ABSENT);
        uint96[] memory before = _weights();
        vm.assertEq(challenges.challengeCommit(commit, certificate, REEXECUTION, "", ALL), 14, "stale rules");
        _requireTenthLost(before, 2);
    }

    function test_row_15_fields_that_are_not_the_tasks() public {
        AttestationEvidence memory evidence = _honest();
        vm.assertEq(evidence.attestation.expirationBlock, evidence.task.referenceBlock + 50, "the least of both");
        _innocent(evidence);
        AttestationEvidence memory bad = _copy(evidence);
        bad.attestation.referenceBlock += 1;
        _convicts(bad, 15);
        bad = _copy(evidence);
        bad.attestation.expirationBlock += 1;
        _convicts(bad, 15);
        bad = _copy(evidence);
        bad.attestation.expirationBlock -= 1;
        _convicts(bad, 15);
        bad = _copy(evidence);
        bad.attestation.expirationBlock = type(uint64).max;
        _convicts(bad, 15);
        bad = _copy(evidence);
        bad.attestation.rulesVersion = 2;
        _convicts(bad, 15);
        bad = _copy(evidence);
        bad.attestation.intentHash = keccak256("another intent");
        _convicts(bad, 15);
        bad = _copy(evidence);
        bad.attestation.wasmArgsHash = keccak256("other arguments");
        _convicts(bad, 15);
    }

    function test_row_16_two_attestations_for_one_task() public {
        AttestationEvidence memory evidence = _honest();
        _innocent(evidence);
        // The first two sign one, the last two the other: only the one in the middle signed both.
        _sign(evidence, 4);
        AttestationEvidence memory other = _copy(evidence);
        other.attestation.data[0].transcriptHash = keccak256("another run");
        _sign(other, 1);
        address[] memory middle = new address[](1);
        middle[0] = signers[1].account;
        vm.expectEmit(address(challenges));
        emit IChallengeVerifier.AttestationChallenged(evidence.attestation.taskId, 16, middle);
        vm.assertEq(challenges.challengeEquivocation(evidence, other.attestation, other.certificate, ALL), 16, "class");
        vm.assertEq(operators.operators(signers[0].account).weight, 100, "signed one");
        vm.assertEq(operators.operators(signers[1].account).weight, 90, "signed both");
        vm.assertEq(operators.operators(signers[2].account).weight, 100, "signed one");

        // Nobody signed both of these.
        AttestationEvidence memory third = _copy(evidence);
        third.attestation.data[0].transcriptHash = keccak256("a third run");
        _sign(third, 3);
        _sign(evidence, 4);
        vm.assertEq(
            challenges.challengeEquivocation(evidence, third.attestation, third.certificate, ALL), 0, "nobody in both"
        );
        // Two tasks are two answers.
        _next(1);
        AttestationEvidence memory next = _honest();
        vm.expectRevert(
            abi.encodeWithSelector(
                IChallengeVerifier.DifferentTasks.selector, evidence.attestation.taskId, next.attestation.taskId
            )
        );
        challenges.challengeEquivocation(evidence, next.attestation, next.certificate, ALL);
    }

    function test_row_16_two_commits_for_one_sequence() public {
        StateCommit memory commit = _commit(keccak256("one"));
        Certificate memory certificate = _certify(commits.commitDigest(commit), THIRD_ABSENT);
        // Another boot of the second operator signs another one, and the set has changed for both.
        _readmit(1, "boot 2");
        StateCommit memory other = _copyOf(commit);
        other.newStateRoot = keccak256("two");
        Certificate memory otherCertificate = _certify(commits.commitDigest(other));
        address[] memory first = _accounts(1);
        vm.expectEmit(address(challenges));
        emit IChallengeVerifier.CommitChallenged(commit.sequenceNo, 16, first);
        vm.assertEq(_equivocation(commit, certificate, other, otherCertificate), 16, "class");
        vm.assertEq(operators.operators(signers[0].account).weight, 90, "one key signed both");
        vm.assertEq(operators.operators(signers[1].account).weight, 100, "two boots signed one each");
        vm.assertEq(operators.operators(signers[2].account).weight, 100, "signed one");

        other.sequenceNo += 1;
        otherCertificate = _certify(commits.commitDigest(other));
        vm.expectRevert(
            abi.encodeWithSelector(IChallengeVerifier.DifferentSequences.selector, commit.sequenceNo, other.sequenceNo)
        );
        challenges.challengeEquivocation(commit, certificate, other, otherCertificate, ALL);
    }

    /// @dev One byte of an honest challenge changed anywhere, or nothing: nobody pays.
    function testFuzz_no_argument_costs_an_honest_signer_anything(uint256 position, uint8 flip, uint8 function_)
        public
    {
        AttestationEvidence memory evidence = _honest();
        _sign(evidence, THIRD_ABSENT);
        bytes memory call;
        if (function_ % 3 == 0) {
            call = abi.encodeCall(challenges.challengeAttestation, (evidence, _noProofs(), ALL));
        } else if (function_ % 3 == 1) {
            call = abi.encodeCall(challenges.challengeResult, (evidence, REEXECUTION, _outcome(evidence, true), ALL));
        } else {
            AttestationEvidence memory all = _copy(evidence);
            _sign(all, 0);
            call = abi.encodeWithSelector(
                bytes4(
                    keccak256(
                        "challengeEquivocation(((address,bytes32,bytes32[],uint64,bytes32,uint64,uint32,bytes32,bytes32,uint64,uint64,uint64,uint16),(bytes32,bytes32,bytes32,bytes32,bytes32,bytes32,uint64,uint64,uint64,bytes32,uint32,bytes32,bytes32,bytes32,(bytes32,bytes32,bytes32,bytes32,bytes32,bytes32,bytes32,bytes32,bytes32)[]),(bytes,uint64,uint256,bytes,bytes)),(bytes32,bytes32,bytes32,bytes32,bytes32,bytes32,uint64,uint64,uint64,bytes32,uint32,bytes32,bytes32,bytes32,(bytes32,bytes32,bytes32,bytes32,bytes32,bytes32,bytes32,bytes32,bytes32)[]),(bytes,uint64,uint256,bytes,bytes),uint256)"
                    )
                ),
                evidence,
                all.attestation,
                all.certificate,
                ALL
            );
        }
        (bool ok,) = address(challenges).call(call);
        vm.assertTrue(ok, "admissible before the change");
        position = 4 + position % (call.length - 4);
        call[position] ^= bytes1(flip);
        (ok,) = address(challenges).call(call);
        uint96[] memory before = new uint96[](3);
        (before[0], before[1], before[2]) = (100, 100, 100);
        _requireTenthLost(before, 0);
    }

    function _equivocation(
        StateCommit memory commit,
        Certificate memory certificate,
        StateCommit memory other,
        Certificate memory otherCertificate
    ) private returns (uint8) {
        return challenges.challengeEquivocation(commit, certificate, other, otherCertificate, ALL);
    }

    function _commitOutcome(StateCommit memory commit, bool correct) private view returns (bytes memory) {
        bytes32 inputs = keccak256(abi.encode(commit.sequenceNo, commit.prevStateRoot));
        return
            _outcomeOf(ResultOutcome(STATE_COMMIT, inputs, commits.commitDigest(commit), correct, commit.rulesVersion));
    }

    function _copyOf(StateCommit memory commit) private pure returns (StateCommit memory) {
        return abi.decode(abi.encode(commit), (StateCommit));
    }

    function _secretsKey(bytes32 instanceId) private view returns (bytes32) {
        bytes32 h = keccak256(abi.encode(block.chainid, CLIENT, instanceId));
        return bytes32(abi.encodePacked(uint8(3), bytes31(h << 8)));
    }

    /// @dev The root of a tree with this one leaf.
    function _leaf(bytes32 key, bytes32 value) private pure returns (bytes32) {
        return keccak256(abi.encodePacked("JMT::LeafNode", key, value));
    }
}
