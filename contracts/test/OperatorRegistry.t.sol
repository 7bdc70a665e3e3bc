// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {
    Certificate,
    EnclaveAdmission,
    ICertificateVerifier,
    IOperatorRegistry,
    Operator,
    OperatorSet
} from "../src/interfaces/INewton.sol";
import {Suite} from "./utils/Suite.sol";
import {TestBls} from "./utils/TestBls.sol";
import {vm} from "./utils/Vm.sol";

contract OperatorRegistryTest is Suite {
    bytes32 private constant DIGEST = keccak256("a digest");

    // ---------------------------------------------------------------------------------------------------- admission

    function test_genesis_admission_by_the_owner() public {
        Signer memory signer = _signer("first");
        _allow(signer.account, 100);
        EnclaveAdmission memory admission = _admission(signer);
        _approve(admission);
        bytes memory proof = _possession(signer);
        vm.expectEmit(address(operators));
        emit IOperatorRegistry.OperatorAdmitted(signer.account, 1, 0, 100, false, signer.key, admission);
        vm.expectEmit(address(operators));
        emit IOperatorRegistry.OperatorSetChanged(1, signer.keyHash, 100, admission.validUntil, signer.key);
        vm.prank(signer.account);
        operators.registerOperator(signer.key, proof, admission, _document(signer), aggregateKey, _noCertificate());

        Operator memory row = operators.operators(signer.account);
        vm.assertEq(row.owner, signer.account, "owner");
        vm.assertEq(row.blsKeyHash, signer.keyHash, "key");
        vm.assertEq(row.weight, 100, "weight");
        vm.assertEq(row.bootId, admission.bootId, "boot");
        vm.assertEq(row.tlsKeyHash, admission.tlsKeyHash, "tls");
        vm.assertEq(row.configHash, CONFIG, "config");
        vm.assertEq(row.admittedAt, _number(), "admitted at");
        vm.assertEq(operators.operatorOfKey(signer.keyHash), signer.account, "operator of key");
        vm.assertTrue(operators.isMember(signer.account), "member");
        // In force from the next block on.
        vm.assertEq(operators.latestSetId(), 1, "latest");
        vm.assertEq(operators.currentSetId(), 0, "current");
        _next(1);
        vm.assertEq(operators.currentSetId(), 1, "current");
        OperatorSet memory set = operators.operatorSet(1);
        vm.assertEq(set.aggregateKeyHash, signer.keyHash, "aggregate");
        vm.assertEq(set.totalWeight, 100, "total");
        vm.assertEq(set.members.length, 1, "members");
        vm.assertEq(set.members[0].operator, signer.account, "member");
        vm.assertEq(operators.operatorSet(0).members.length, 0, "genesis");
    }

    function test_later_operators_join_by_certificate() public {
        _joinMany(4);
        OperatorSet memory set = operators.operatorSet(4);
        vm.assertEq(set.aggregateKeyHash, keccak256(aggregateKey), "aggregate");
        vm.assertEq(set.totalWeight, 400, "total");
        for (uint256 i = 0; i < 4; ++i) {
            vm.assertEq(set.members[i].index, i, "index");
            vm.assertEq(set.members[i].operator, signers[i].account, "operator");
            vm.assertEq(set.members[i].blsKeyHash, signers[i].keyHash, "key");
            vm.assertEq(operators.operatorSet(uint64(i)).members.length, i, "history");
        }
    }

    function test_an_admission_needs_all_of_its_parts() public {
        _join("first", 100);
        Signer memory signer = _signer("second");
        EnclaveAdmission memory admission = _admission(signer);
        _refusedAdmission(
            signer, admission, abi.encodeWithSelector(IOperatorRegistry.OperatorNotAllowed.selector, signer.account)
        );
        _allow(signer.account, 50);

        admission = _admission(signer);
        admission.blsKeyHash = keccak256("other");
        _refusedAdmission(
            signer,
            admission,
            abi.encodeWithSelector(IOperatorRegistry.KeyHashMismatch.selector, keccak256("other"), signer.keyHash)
        );
        admission = _admission(signer);
        admission.docHash = keccak256("other");
        _refusedAdmission(
            signer,
            admission,
            abi.encodeWithSelector(
                IOperatorRegistry.DocumentMismatch.selector, keccak256("other"), keccak256(_document(signer))
            )
        );
        admission = _admission(signer);
        admission.validUntil = uint64(_time());
        _refusedAdmission(
            signer, admission, abi.encodeWithSelector(IOperatorRegistry.AdmissionExpired.selector, _time(), _time())
        );
        admission = _admission(signer);
        admission.validUntil = uint64(_time()) + MAX_ADMISSION + 1;
        _refusedAdmission(
            signer,
            admission,
            abi.encodeWithSelector(
                IOperatorRegistry.AdmissionTooLong.selector, admission.validUntil, uint64(_time()) + MAX_ADMISSION
            )
        );
        admission = _admission(signer);
        admission.pcr0Hash = keccak256("unknown image");
        _refusedAdmission(
            signer, admission, abi.encodeWithSelector(IOperatorRegistry.VersionNotActive.selector, admission.pcr0Hash)
        );
        admission = _admission(signer);
        admission.configHash = keccak256("unknown configuration");
        _refusedAdmission(
            signer,
            admission,
            abi.encodeWithSelector(IOperatorRegistry.ConfigNotApproved.selector, admission.configHash)
        );
    }

    /// @dev The two are verified together; what is wrong is named, and neither makes up for the other.
    function test_certificate_and_possession_are_each_needed() public {
        _join("first", 100);
        Signer memory signer = _signer("second");
        _allow(signer.account, 100);
        EnclaveAdmission memory admission = _admission(signer);
        bytes32 digest = operators.admissionDigest(admission);
        Certificate memory certificate = _certify(digest);
        bytes memory proof = _possession(signer);
        bytes memory unsigned = abi.encodeWithSelector(ICertificateVerifier.InvalidSignature.selector, digest);
        bytes memory foreign = TestBls.possession(5, keccak256("message"));
        _refusedKey(
            signer,
            admission,
            certificate,
            foreign,
            abi.encodeWithSelector(IOperatorRegistry.InvalidProofOfPossession.selector, signer.account)
        );
        // Both wrong, in a way that their sum is right.
        certificate.signature = _addG1(certificate.signature, TestBls.sign(1, keccak256("x")));
        foreign = _addG1(proof, TestBls.sign(TestBls.ORDER - 1, keccak256("x")));
        _refusedKey(signer, admission, certificate, foreign, unsigned);
        certificate.signature = TestBls.sign(5, digest);
        _refusedKey(signer, admission, certificate, proof, unsigned);
        vm.assertEq(operators.latestSetId(), 1, "nothing happened");
    }

    function _refusedKey(
        Signer memory signer,
        EnclaveAdmission memory admission,
        Certificate memory certificate,
        bytes memory proof,
        bytes memory reason
    ) private {
        vm.prank(signer.account);
        vm.expectRevert(reason);
        operators.registerOperator(signer.key, proof, admission, _document(signer), aggregateKey, certificate);
    }

    function _addG1(bytes memory one, bytes memory other) private view returns (bytes memory) {
        (bool ok, bytes memory result) = address(0x0b).staticcall(bytes.concat(one, other));
        require(ok, "G1ADD");
        return result;
    }

    function test_a_key_must_be_possessed_and_is_used_once() public {
        Signer memory first = _join("first", 100);
        Signer memory signer = _signer("second");
        _allow(signer.account, 100);
        EnclaveAdmission memory admission = _admission(signer);
        Certificate memory certificate = _certify(operators.admissionDigest(admission));
        // A proof for another owner's registration of the same key.
        bytes memory stolen = TestBls.possession(
            signer.secretKey, keccak256(abi.encode(first.account, block.chainid, operators, signer.keyHash))
        );
        vm.prank(signer.account);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.InvalidProofOfPossession.selector, signer.account));
        operators.registerOperator(signer.key, stolen, admission, _document(signer), aggregateKey, certificate);

        // The first operator's key under another name.
        Signer memory thief = _boot(signer.account, "first");
        admission = _admission(thief);
        _refusedAdmission(
            thief, admission, abi.encodeWithSelector(IOperatorRegistry.KeyAlreadyUsed.selector, first.keyHash)
        );
    }

    function test_only_the_operator_registers_itself_and_once() public {
        Signer memory signer = _join("first", 100);
        Signer memory boot = _boot(signer.account, "boot 2");
        _refusedAdmission(
            boot,
            _admission(boot),
            abi.encodeWithSelector(IOperatorRegistry.OperatorAlreadyRegistered.selector, signer.account)
        );
        Signer memory other = _signer("second");
        _allow(other.account, 1);
        EnclaveAdmission memory admission = _admission(other);
        bytes memory proof = _possession(other);
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.NotOperatorOwner.selector, other.account, STRANGER));
        operators.registerOperator(other.key, proof, admission, _document(other), aggregateKey, _noCertificate());
    }

    function test_the_caller_brings_the_right_aggregate_key() public {
        _join("first", 100);
        Signer memory signer = _signer("second");
        _allow(signer.account, 100);
        EnclaveAdmission memory admission = _admission(signer);
        Certificate memory certificate = _certify(operators.admissionDigest(admission));
        bytes32 expected = keccak256(aggregateKey);
        aggregateKey = new bytes(256);
        bytes memory proof = _possession(signer);
        vm.prank(signer.account);
        vm.expectRevert(
            abi.encodeWithSelector(
                ICertificateVerifier.AggregateKeyMismatch.selector, expected, keccak256(aggregateKey)
            )
        );
        operators.registerOperator(signer.key, proof, admission, _document(signer), aggregateKey, certificate);
    }

    function test_the_owners_word_is_over_once_a_quorum_lives() public {
        _join("first", 100);
        Signer memory signer = _signer("second");
        _allow(signer.account, 100);
        EnclaveAdmission memory admission = _admission(signer);
        bytes32 digest = operators.admissionDigest(admission);
        bytes memory proof = _possession(signer);

        vm.prank(signer.account);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.AdmissionNotApproved.selector, digest));
        operators.registerOperator(signer.key, proof, admission, _document(signer), aggregateKey, _noCertificate());

        _approve(admission);
        uint64 executableAt = uint64(_time()) + TIMELOCK;
        vm.assertEq(operators.approvedAdmissions(digest), executableAt, "timelocked");
        vm.prank(signer.account);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.AdmissionTimelocked.selector, executableAt, _time()));
        operators.registerOperator(signer.key, proof, admission, _document(signer), aggregateKey, _noCertificate());

        vm.warp(executableAt);
        // 100 of 200 would be live: the operator that wants in counts as registered already.
        vm.prank(signer.account);
        operators.registerOperator(signer.key, proof, admission, _document(signer), aggregateKey, _noCertificate());
    }

    function test_the_owner_cannot_admit_while_a_quorum_lives() public {
        _join("first", 100);
        Signer memory signer = _signer("second");
        _allow(signer.account, 10);
        EnclaveAdmission memory admission = _admission(signer);
        _approve(admission);
        vm.warp(_time() + TIMELOCK);
        bytes memory proof = _possession(signer);
        vm.prank(signer.account);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.QuorumIsLive.selector, 100, 110));
        operators.registerOperator(signer.key, proof, admission, _document(signer), aggregateKey, _noCertificate());
    }

    // -------------------------------------------------------------------------------------------------- readmission

    function test_a_new_boot_replaces_the_former_key() public {
        _joinMany(3);
        Signer memory former = signers[1];
        Signer memory boot = _boot(former.account, "boot 2");
        EnclaveAdmission memory admission = _admission(boot);
        // The one that restarted cannot sign.
        Certificate memory certificate = _certify(operators.admissionDigest(admission), 2);
        bytes memory proof = _possession(boot);
        vm.prank(STRANGER);
        operators.readmit(boot.key, proof, admission, _document(boot), aggregateKey, former.key, certificate);
        signers[1] = boot;
        _updateAggregate();

        OperatorSet memory set = operators.operatorSet(4);
        vm.assertEq(set.aggregateKeyHash, keccak256(aggregateKey), "aggregate");
        vm.assertEq(set.totalWeight, 300, "total");
        vm.assertEq(set.members[1].blsKeyHash, boot.keyHash, "new key");
        vm.assertEq(operators.operatorSet(3).members[1].blsKeyHash, former.keyHash, "old set");
        _next(1);
        certificates.verifyCertificate(DIGEST, _certify(DIGEST), 6667, 1, 100);

        // Replaying the former boot's admission is refused: its key has been used.
        EnclaveAdmission memory replay = _admission(former);
        certificate = _certify(operators.admissionDigest(replay));
        proof = _possession(former);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.KeyAlreadyUsed.selector, former.keyHash));
        operators.readmit(former.key, proof, replay, _document(former), aggregateKey, boot.key, certificate);
    }

    function test_readmission_needs_the_former_key_and_a_registered_operator() public {
        _joinMany(2);
        Signer memory boot = _boot(signers[1].account, "boot 2");
        EnclaveAdmission memory admission = _admission(boot);
        Certificate memory certificate = _certify(operators.admissionDigest(admission));
        bytes memory proof = _possession(boot);
        vm.expectRevert(
            abi.encodeWithSelector(IOperatorRegistry.KeyHashMismatch.selector, signers[1].keyHash, signers[0].keyHash)
        );
        operators.readmit(boot.key, proof, admission, _document(boot), aggregateKey, signers[0].key, certificate);

        Signer memory unknown = _signer("unknown");
        admission = _admission(unknown);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.OperatorNotRegistered.selector, unknown.account));
        operators.readmit(unknown.key, proof, admission, _document(unknown), aggregateKey, "", _noCertificate());
    }

    function test_a_lone_operator_whose_enclave_died_comes_back_by_the_owners_word() public {
        Signer memory signer = _join("only", 100);
        Signer memory boot = _boot(signer.account, "boot 2");
        EnclaveAdmission memory admission = _admission(boot);
        _approve(admission);
        vm.warp(_time() + TIMELOCK);
        bytes memory proof = _possession(boot);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.QuorumIsLive.selector, 100, 100));
        operators.readmit(boot.key, proof, admission, _document(boot), aggregateKey, signer.key, _noCertificate());

        vm.prank(signer.account);
        operators.retireAdmission(signer.key, aggregateKey);
        vm.assertTrue(!operators.isMember(signer.account), "out");
        vm.assertEq(operators.operators(signer.account).weight, 100, "still slashable");
        operators.readmit(boot.key, proof, admission, _document(boot), new bytes(256), "", _noCertificate());
        _next(1);
        vm.assertEq(operators.operatorSet(operators.currentSetId()).members[0].blsKeyHash, boot.keyHash, "back");
        // The approval is spent.
        vm.assertEq(operators.approvedAdmissions(operators.admissionDigest(admission)), 0, "spent");
    }

    function test_retiring_is_the_operators_own() public {
        Signer memory signer = _join("only", 100);
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.OperatorNotRegistered.selector, STRANGER));
        operators.retireAdmission(signer.key, aggregateKey);
        vm.prank(signer.account);
        operators.retireAdmission(signer.key, aggregateKey);
        vm.prank(signer.account);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.OperatorNotAdmitted.selector, signer.account));
        operators.retireAdmission(signer.key, aggregateKey);
    }

    // ------------------------------------------------------------------------------------------------------ leaving

    function test_exit_leaves_at_once_and_completes_after_the_delay() public {
        _joinMany(3);
        Signer memory leaver = signers[2];
        vm.prank(leaver.account);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.ExitNotRequested.selector, leaver.account));
        operators.completeExit();

        vm.prank(leaver.account);
        operators.requestExit(leaver.key, aggregateKey);
        uint64 exitAt = uint64(_time()) + EXIT_DELAY;
        vm.assertEq(operators.operators(leaver.account).exitAt, exitAt, "exit at");
        signers.pop();
        _updateAggregate();
        vm.assertEq(operators.operatorSet(4).aggregateKeyHash, keccak256(aggregateKey), "aggregate");
        vm.prank(leaver.account);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.OperatorExiting.selector, leaver.account));
        operators.requestExit("", aggregateKey);

        _next(1);
        Signer memory boot = _boot(leaver.account, "boot 2");
        EnclaveAdmission memory admission = _admission(boot);
        Certificate memory certificate = _certify(operators.admissionDigest(admission));
        bytes memory proof = _possession(boot);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.OperatorExiting.selector, leaver.account));
        operators.readmit(boot.key, proof, admission, _document(boot), aggregateKey, "", certificate);

        vm.prank(leaver.account);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.ExitDelayNotOver.selector, exitAt, _time()));
        operators.completeExit();
        vm.warp(exitAt);
        uint64 last = operators.liableThrough(leaver.account);
        vm.prank(leaver.account);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.StillChallengeable.selector, last, _number()));
        operators.completeExit();
        vm.roll(last);
        vm.prank(leaver.account);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.StillChallengeable.selector, last, last));
        operators.completeExit();
        vm.roll(last + 1);
        vm.prank(leaver.account);
        operators.completeExit();
        vm.assertEq(operators.liableThrough(leaver.account), 0, "nothing left");
        vm.assertEq(operators.operators(leaver.account).owner, address(0), "gone");
    }

    function test_prune_removes_the_expired_and_only_them() public {
        _join("short", 100);
        vm.warp(_time() + 5 days);
        _join("long", 100);
        address[] memory list = new address[](1);
        list[0] = signers[0].account;
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.NotPrunable.selector, signers[0].account));
        operators.prune(list, signers[0].key, aggregateKey);

        vm.warp(_time() + 6 days);
        Certificate memory certificate = _certify(DIGEST);
        vm.expectPartialRevert(ICertificateVerifier.SetHasExpiredMember.selector);
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.MemberKeysLength.selector, 256, 512));
        operators.prune(list, bytes.concat(signers[0].key, signers[1].key), aggregateKey);
        vm.prank(STRANGER);
        operators.prune(list, signers[0].key, aggregateKey);
        signers[0] = signers[1];
        signers.pop();
        _updateAggregate();
        _next(1);
        // The member that is left keeps its index.
        vm.assertEq(operators.operatorSet(3).members[0].index, 1, "index");
        certificates.verifyCertificate(DIGEST, _certify(DIGEST), 6667, 1, 100);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.OperatorNotAdmitted.selector, list[0]));
        operators.prune(list, signers[0].key, aggregateKey);
    }

    function test_prune_removes_the_no_longer_allowed_and_the_deprecated() public {
        _joinMany(3);
        _allow(signers[2].account, 0);
        address[] memory list = new address[](1);
        list[0] = signers[2].account;
        operators.prune(list, signers[2].key, aggregateKey);
        vm.assertTrue(!operators.isMember(list[0]), "not allowed");
        signers.pop();
        _updateAggregate();

        vm.prank(GOVERNANCE);
        versions.deprecateVersion(pcr0Hash, 10);
        list = new address[](2);
        (list[0], list[1]) = (signers[0].account, signers[1].account);
        bytes memory keys_ = bytes.concat(signers[0].key, signers[1].key);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.NotPrunable.selector, list[0]));
        operators.prune(list, keys_, aggregateKey);
        _next(10);
        operators.prune(list, keys_, aggregateKey);
        vm.assertEq(operators.operatorSet(operators.latestSetId()).members.length, 0, "empty");
        vm.assertEq(operators.operatorSet(operators.latestSetId()).aggregateKeyHash, keccak256(new bytes(256)), "0");
    }

    // --------------------------------------------------------------------------------------------------- revocation

    function test_revocation_stops_all_sets_with_such_members_until_pruned() public {
        _joinMany(2);
        pcr0Hash = _propose("image 2");
        _next(ACTIVATION_DELAY);
        _join("newcomer", 200);
        Certificate memory certificate = _certify(DIGEST);
        vm.prank(EMERGENCY);
        versions.revokeVersion(pcr0Hash);
        // From the next block on.
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);
        vm.assertEq(operators.firstCleanSetId(), 0, "not yet");
        _next(1);
        vm.assertEq(operators.firstCleanSetId(), 4, "clean from");
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.SetHasRevokedMember.selector, 3, 4));
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);

        // A set made before the revoked member is gone is no better.
        vm.prank(signers[1].account);
        operators.retireAdmission(signers[1].key, aggregateKey);
        signers[1] = signers[2];
        signers.pop();
        _updateAggregate();
        _next(1);
        certificate = _certify(DIGEST);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.SetHasRevokedMember.selector, 4, 5));
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);

        address[] memory list = new address[](1);
        list[0] = signers[1].account;
        operators.prune(list, signers[1].key, aggregateKey);
        signers.pop();
        _updateAggregate();
        _next(1);
        certificates.verifyCertificate(DIGEST, _certify(DIGEST), 6667, 1, 100);
    }

    function test_revoking_an_image_nobody_runs_any_more_stops_old_sets_only() public {
        _joinMany(2);
        Certificate memory old = _certify(DIGEST);
        bytes32 oldImage = pcr0Hash;
        pcr0Hash = _propose("image 2");
        _next(ACTIVATION_DELAY);
        for (uint256 i = 0; i < 2; ++i) {
            Signer memory former = signers[i];
            Signer memory boot = _boot(former.account, string.concat("boot 2 of ", vm.toString(i)));
            EnclaveAdmission memory admission = _admission(boot);
            Certificate memory certificate = _certify(operators.admissionDigest(admission));
            operators.readmit(
                boot.key, _possession(boot), admission, _document(boot), aggregateKey, former.key, certificate
            );
            signers[i] = boot;
            _updateAggregate();
            _next(1);
        }
        vm.prank(GOVERNANCE);
        versions.revokeVersion(oldImage);
        _next(1);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.SetHasRevokedMember.selector, 2, 4));
        certificates.verifyCertificate(DIGEST, old, 6667, 1, 100);
        certificates.verifyCertificate(DIGEST, _certify(DIGEST), 6667, 1, 100);
    }

    function test_nobody_is_admitted_under_an_image_in_the_block_that_revokes_it() public {
        _join("first", 100);
        bytes32 other = _propose("image 2");
        _next(ACTIVATION_DELAY);
        pcr0Hash = other;
        Signer memory signer = _signer("second");
        _allow(signer.account, 100);
        EnclaveAdmission memory admission = _admission(signer);
        vm.prank(EMERGENCY);
        versions.revokeVersion(other);
        vm.assertTrue(versions.isActive(other), "still active in this block");
        _refusedAdmission(signer, admission, abi.encodeWithSelector(IOperatorRegistry.VersionNotActive.selector, other));
    }

    function test_only_the_version_registry_reports_revocations() public {
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(IOperatorRegistry.NotVersionRegistry.selector, STRANGER));
        operators.onVersionRevoked(pcr0Hash);
    }

    // ------------------------------------------------------------------------------------------------- certificates

    function test_certificates_with_absent_members() public {
        _joinMany(6);
        vm.assertEq(certificates.verifyCertificate(DIGEST, _certify(DIGEST), 6667, 1, 100), 600, "all");
        vm.assertEq(certificates.verifyCertificate(DIGEST, _certify(DIGEST, 2), 6667, 5, 100), 500, "five");
        vm.assertEq(certificates.verifyCertificate(DIGEST, _certify(DIGEST, 33), 6667, 4, 100), 400, "four");
        Certificate memory certificate = _certify(DIGEST, 33);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.TooFewSigners.selector, 5, 4));
        certificates.verifyCertificate(DIGEST, certificate, 6667, 5, 100);
        certificate = _certify(DIGEST, 7);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.QuorumNotReached.selector, 300, 600, 6667));
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);
        certificate = _certify(DIGEST, 1);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.QuorumNotReached.selector, 500, 600, 9000));
        certificates.verifyCertificate(DIGEST, certificate, 9000, 1, 100);
        vm.assertEq(certificates.verifyCertificate(DIGEST, _certify(DIGEST), 10_000, 6, 100), 600, "all of all");
    }

    function test_exactly_two_thirds_are_enough() public {
        _joinMany(3);
        vm.assertEq(certificates.verifyCertificate(DIGEST, _certify(DIGEST, 4), 6667, 1, 100), 200, "two of three");
    }

    function test_non_signers_are_checked_one_by_one() public {
        _joinMany(4);
        Certificate memory certificate = _certify(DIGEST, 2);
        certificate.nonSignerKeys = signers[2].key;
        vm.expectRevert(
            abi.encodeWithSelector(
                ICertificateVerifier.NonSignerKeyMismatch.selector, 1, signers[1].keyHash, signers[2].keyHash
            )
        );
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);

        certificate = _certify(DIGEST, 2);
        certificate.nonSignerBitmap = 16;
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.NonSignerNotMember.selector, 4));
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);

        certificate = _certify(DIGEST, 2);
        certificate.nonSignerKeys = "";
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.NonSignerKeysLength.selector, 256, 0));
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);

        certificate = _certify(DIGEST, 2);
        certificate.nonSignerKeys = bytes.concat(certificate.nonSignerKeys, hex"00");
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.NonSignerKeysLength.selector, 256, 257));
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);

        certificate = _certify(DIGEST);
        certificate.nonSignerKeys = signers[0].key;
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.NonSignerKeysLength.selector, 0, 256));
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);

        // Nobody signed.
        certificate = _certify(DIGEST, 15);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.TooFewSigners.selector, 0, 0));
        certificates.verifyCertificate(DIGEST, certificate, 6667, 0, 100);
    }

    function test_sets_unknown_young_old_and_empty() public {
        Certificate memory certificate = _noCertificate();
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.EmptySet.selector, 0));
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);
        certificate.setId = 1;
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.UnknownSet.selector, 1));
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.UnknownSet.selector, 1));
        operators.operatorSet(1);

        _join("first", 100);
        Certificate memory first = _certify(DIGEST);
        // Without members of its own the set lives as long as nobody changes it.
        _next(500);
        certificates.verifyCertificate(DIGEST, first, 6667, 1, 100);

        Signer memory second = _signer("second");
        _allow(second.account, 100);
        EnclaveAdmission memory admission = _admission(second);
        _register(second, admission, _certify(operators.admissionDigest(admission)));
        signers.push(second);
        _updateAggregate();
        Certificate memory young = _certify(DIGEST);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.SetNotInForceYet.selector, 2, uint64(_number())));
        certificates.verifyCertificate(DIGEST, young, 6667, 1, 100);

        uint64 superseded = uint64(_number());
        _next(100);
        certificates.verifyCertificate(DIGEST, young, 6667, 1, 100);
        certificates.verifyCertificate(DIGEST, first, 6667, 1, 100);
        _next(1);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.SetTooOld.selector, 1, superseded, 100));
        certificates.verifyCertificate(DIGEST, first, 6667, 1, 100);
    }

    function test_of_several_sets_in_one_block_only_the_last_ever_counts() public {
        _joinMany(3);
        Certificate memory before = _certify(DIGEST);
        vm.prank(signers[2].account);
        operators.retireAdmission(signers[2].key, aggregateKey);
        signers.pop();
        _updateAggregate();
        Certificate memory between = _certify(DIGEST);
        vm.prank(signers[1].account);
        operators.retireAdmission(signers[1].key, aggregateKey);
        signers.pop();
        _updateAggregate();
        vm.assertEq(operators.currentSetId(), 3, "still the former");
        certificates.verifyCertificate(DIGEST, before, 6667, 1, 100);
        _next(1);
        vm.assertEq(operators.currentSetId(), 5, "the last");
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.UnknownSet.selector, 4));
        certificates.verifyCertificate(DIGEST, between, 6667, 1, 100);
        certificates.verifyCertificate(DIGEST, _certify(DIGEST), 6667, 1, 100);
    }

    function test_signatures_and_keys_are_checked() public {
        _joinMany(2);
        Certificate memory certificate = _certify(DIGEST);
        certificate.aggregateKey = signers[0].key;
        vm.expectRevert(
            abi.encodeWithSelector(
                ICertificateVerifier.AggregateKeyMismatch.selector, keccak256(aggregateKey), signers[0].keyHash
            )
        );
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);
        certificate = _certify(DIGEST);
        certificate.signature = TestBls.sign(signers[0].secretKey, DIGEST);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.InvalidSignature.selector, DIGEST));
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);
        certificate.signature = new bytes(128);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.PointAtInfinity.selector));
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);
        certificate.signature = new bytes(127);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.InvalidPointLength.selector, 128, 127));
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);
        certificate.signature = new bytes(128);
        certificate.signature[127] = 0x01;
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.PrecompileFailed.selector, address(0x0f)));
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);
    }

    /// @dev Five admissions a run: fewer runs than elsewhere.
    /// forge-config: default.fuzz.runs = 128
    function testFuzz_quorum_is_two_thirds_of_the_weight(uint256 bitmap, uint16[5] memory weights) public {
        uint256 total;
        for (uint256 i = 0; i < 5; ++i) {
            uint96 weight = uint96(weights[i]) + 1;
            // The first members must stay able to admit the rest.
            _join(string.concat("operator ", vm.toString(i)), weight);
            total += weight;
        }
        bitmap = bitmap % 31;
        uint256 signed;
        for (uint256 i = 0; i < 5; ++i) {
            if (bitmap & (1 << i) == 0) signed += uint256(weights[i]) + 1;
        }
        Certificate memory certificate = _certify(DIGEST, bitmap);
        if (signed * 3 < total * 2) {
            vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.QuorumNotReached.selector, signed, total, 6667));
        }
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);
    }

    function test_the_allow_list_is_the_owners() public {
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSignature("OwnableUnauthorizedAccount(address)", STRANGER));
        operators.allowOperator(STRANGER, 1);
        EnclaveAdmission memory admission = _admission(_signer("x"));
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSignature("OwnableUnauthorizedAccount(address)", STRANGER));
        operators.approveAdmission(admission);
    }

    function _refusedAdmission(Signer memory signer, EnclaveAdmission memory admission, bytes memory reason) private {
        Certificate memory certificate = _certify(operators.admissionDigest(admission));
        bytes memory proof = _possession(signer);
        vm.prank(signer.account);
        vm.expectRevert(reason);
        operators.registerOperator(signer.key, proof, admission, _document(signer), aggregateKey, certificate);
    }
}
