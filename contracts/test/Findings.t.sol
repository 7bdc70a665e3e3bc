// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IPolicyClientRegistry} from "../src/interfaces/IGovernance.sol";
import {
    ArtifactRef,
    Certificate,
    ConsensusParameters,
    EnclaveAdmission,
    ICertificateVerifier,
    IOperatorRegistry,
    IPolicyDataRegistry,
    IPolicyRegistry,
    IStateCommitRegistry,
    ITaskManager,
    Intent,
    PolicyAttestation,
    StateCommit,
    Task
} from "../src/interfaces/INewton.sol";
import {BlsVerifier} from "../src/libraries/BlsVerifier.sol";
import {PolicySuite} from "./utils/PolicySuite.sol";
import {TestBls} from "./utils/TestBls.sol";
import {vm} from "./utils/Vm.sol";

/// @dev Answers owner() by calling somebody else first.
contract MeddlingClient {
    address private immutable TARGET;
    bytes private call;

    constructor(address target, bytes memory call_) {
        TARGET = target;
        call = call_;
    }

    function owner() external returns (address) {
        (bool ok, bytes memory answer) = TARGET.call(call);
        if (!ok) {
            assembly ("memory-safe") {
                revert(add(answer, 0x20), mload(answer))
            }
        }
        return msg.sender;
    }
}

/// @dev Answers owner() by burning all gas it is given.
contract BurningClient {
    function owner() external pure returns (address) {
        assembly {
            invalid()
        }
    }
}

/// @dev What went wrong elsewhere in contracts of this kind, one test each (docs/contracts.md, 8).
contract FindingsTest is PolicySuite {
    bytes32 private constant DIGEST = keccak256("digest");

    // ---------------------------------------------------------------------------------- certificates and admissions

    function test_an_empty_set_certifies_nothing_whatever_the_points() public {
        _joinMany(1);
        vm.prank(signers[0].account);
        operators.retireAdmission(signers[0].key, aggregateKey);
        signers.pop();
        _updateAggregate();
        _next(1);
        // Zero of zero is two thirds, and infinity pairs with infinity.
        Certificate memory certificate;
        certificate.setId = operators.latestSetId();
        certificate.aggregateKey = new bytes(256);
        certificate.signature = new bytes(128);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.EmptySet.selector, certificate.setId));
        certificates.verifyCertificate(DIGEST, certificate, 0, 0, 100);
    }

    function test_a_set_without_signers_certifies_nothing() public {
        _joinMany(2);
        Certificate memory certificate;
        certificate.setId = operators.latestSetId();
        certificate.aggregateKey = aggregateKey;
        certificate.nonSignerBitmap = 3;
        certificate.nonSignerKeys = bytes.concat(signers[0].key, signers[1].key);
        certificate.signature = new bytes(128);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.TooFewSigners.selector, 0, 0));
        certificates.verifyCertificate(DIGEST, certificate, 0, 0, 100);
    }

    function test_a_set_certifies_up_to_the_second_its_first_member_expires() public {
        _joinMany(2);
        Certificate memory certificate = _certify(DIGEST);
        uint64 end = operators.operatorSet(operators.latestSetId()).earliestValidUntil;
        vm.warp(end - 1);
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);
        vm.warp(end);
        vm.expectRevert(
            abi.encodeWithSelector(ICertificateVerifier.SetHasExpiredMember.selector, certificate.setId, end)
        );
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);
    }

    function test_a_key_supplied_by_the_caller_is_never_the_signers() public {
        _joinMany(3);
        uint256 own = TestBls.secret("attacker");
        Certificate memory certificate = _certify(DIGEST);
        certificate.signature = TestBls.sign(own, DIGEST);
        // As the set's key.
        certificate.aggregateKey = TestBls.publicKey(own);
        vm.expectRevert(
            abi.encodeWithSelector(
                ICertificateVerifier.AggregateKeyMismatch.selector,
                keccak256(aggregateKey),
                keccak256(TestBls.publicKey(own))
            )
        );
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);
        // As what is left: the "non-signer" is the set's key less the attacker's.
        certificate.aggregateKey = aggregateKey;
        certificate.nonSignerBitmap = 1;
        certificate.nonSignerKeys = BlsVerifier.add(aggregateKey, BlsVerifier.negate(TestBls.publicKey(own)));
        vm.expectRevert(
            abi.encodeWithSelector(
                ICertificateVerifier.NonSignerKeyMismatch.selector,
                0,
                signers[0].keyHash,
                keccak256(certificate.nonSignerKeys)
            )
        );
        certificates.verifyCertificate(DIGEST, certificate, 6667, 1, 100);
    }

    function test_a_rogue_key_has_no_proof_of_possession() public {
        _joinMany(2);
        // With this key in the set, the sum of all keys would be the attacker's own.
        Signer memory rogue = _signer("rogue");
        uint256 own = rogue.secretKey;
        rogue.key = BlsVerifier.add(rogue.key, BlsVerifier.negate(aggregateKey));
        rogue.keyHash = keccak256(rogue.key);
        bytes memory sum = BlsVerifier.add(aggregateKey, rogue.key);
        vm.assertEq(sum, TestBls.publicKey(own), "the attack would work");

        _allow(rogue.account, 1000);
        EnclaveAdmission memory admission = _admission(rogue);
        Certificate memory certificate = _certify(operators.admissionDigest(admission));
        bytes memory proof = _possession(rogue);
        _refusesRegistration(rogue, proof, admission, certificate, _noPossession(rogue));
    }

    function test_a_key_outside_the_subgroup_or_off_the_curve_is_not_admitted() public {
        string memory json = vm.readFile("../tests/vectors/bls.json");
        bytes[] memory bad = vm.parseJsonBytesArray(json, ".refused.publicKey");
        string[] memory reasons = vm.parseJsonStringArray(json, ".refused.publicKeyReason");
        Signer memory signer = _signer("newcomer");
        _allow(signer.account, 100);
        for (uint256 i = 0; i < bad.length; ++i) {
            (signer.key, signer.keyHash) = (bad[i], keccak256(bad[i]));
            EnclaveAdmission memory admission = _admission(signer);
            _approve(admission);
            bytes memory reason = abi.encodeWithSelector(ICertificateVerifier.PrecompileFailed.selector, address(0x0f));
            bytes32 why = keccak256(bytes(reasons[i]));
            if (why == keccak256("infinity")) {
                reason = abi.encodeWithSelector(ICertificateVerifier.PointAtInfinity.selector);
            } else if (why == keccak256("length")) {
                reason = abi.encodeWithSelector(ICertificateVerifier.InvalidPointLength.selector, 256, bad[i].length);
            }
            _refusesRegistration(signer, _possession(signer), admission, _noCertificate(), reason);
        }
    }

    function test_a_proof_of_possession_is_good_in_one_place() public {
        _joinMany(1);
        Signer memory signer = _signer("newcomer");
        _allow(signer.account, 100);
        EnclaveAdmission memory admission = _admission(signer);
        Certificate memory certificate = _certify(operators.admissionDigest(admission));
        address registry = address(operators);
        bytes32[5] memory elsewhere = [
            keccak256(abi.encode(signers[0].account, block.chainid, registry, signer.keyHash)),
            keccak256(abi.encode(signer.account, uint256(1), registry, signer.keyHash)),
            keccak256(abi.encode(signer.account, block.chainid, address(tasks), signer.keyHash)),
            keccak256(abi.encode(signer.account, block.chainid, registry, signers[0].keyHash)),
            operators.admissionDigest(admission)
        ];
        for (uint256 i = 0; i < elsewhere.length; ++i) {
            bytes memory proof = TestBls.possession(signer.secretKey, elsewhere[i]);
            _refusesRegistration(signer, proof, admission, certificate, _noPossession(signer));
        }
        // The right message under the suite of signatures.
        bytes32 message = keccak256(abi.encode(signer.account, block.chainid, registry, signer.keyHash));
        _refusesRegistration(
            signer, TestBls.sign(signer.secretKey, message), admission, certificate, _noPossession(signer)
        );
        _register(signer, admission, certificate);
    }

    function test_admission_in_the_block_of_a_task_counts_from_the_next_on() public {
        _joinMany(2);
        _policy();
        uint64 former = operators.latestSetId();
        Signer memory signer = _signer("newcomer");
        _allow(signer.account, 1000);
        EnclaveAdmission memory admission = _admission(signer);
        _register(signer, admission, _certify(operators.admissionDigest(admission)));
        // The same block: the newcomer neither signs this task nor is needed for it.
        vm.assertEq(operators.currentSetId(), former, "in force");
        Certificate memory ofFormer = _certify(DIGEST);
        ofFormer.setId = former;
        (bytes32 taskId, Task memory task) = _createTask(CLIENT, _intent());
        vm.assertEq(task.operatorSetId, former, "the task's set");
        PolicyAttestation memory attestation = _attest(taskId, task);
        ofFormer = _certify(tasks.attestationDigest(attestation));
        ofFormer.setId = former;
        tasks.respondToTask(taskId, task, attestation, ofFormer);
        (, task) = _createTask(CLIENT, _intent());
        vm.assertEq(task.operatorSetId, former + 1, "from the next block on");
    }

    function test_revocation_in_the_block_of_a_task_counts_from_the_next_on() public {
        _joinMany(3);
        _policy();
        (bytes32 first, Task memory firstTask) = _createTask(CLIENT, _intent());
        PolicyAttestation memory attestation = _attest(first, firstTask);
        Certificate memory certificate = _certify(tasks.attestationDigest(attestation));
        vm.prank(EMERGENCY);
        versions.revokeVersion(pcr0Hash);
        // In this block an answer is still one, and a task still has its set.
        tasks.respondToTask(first, firstTask, attestation, certificate);
        (bytes32 second, Task memory secondTask) = _createTask(CLIENT, _intent());
        attestation = _attest(second, secondTask);
        certificate = _certify(tasks.attestationDigest(attestation));
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.SetHasRevokedMember.selector, 3, 4));
        tasks.respondToTask(second, secondTask, attestation, certificate);
    }

    // ------------------------------------------------------------------------------------------ templates and clients

    function test_a_squatted_template_is_the_same_template() public {
        ArtifactRef memory rego = _artifact("rego");
        bytes[] memory dead = new bytes[](1);
        dead[0] = "dead reference";
        vm.prank(STRANGER);
        bytes32 id = policies.registerTemplate(rego, _absent(), "allow", new bytes32[](0), dead);
        vm.prank(AUTHOR);
        vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.TemplateAlreadyRegistered.selector, id));
        policies.registerTemplate(rego, _absent(), "allow", new bytes32[](0), _daRefs(1));
        // Nothing is lost: the id is the content's, the author has no powers, and the bytes can be supplied.
        vm.prank(AUTHOR);
        policies.supplyArtifact(4, rego.artifactHash, rego.byteLength, _daRefs(1)[0]);
        _registerClient();
        vm.prank(CLIENT_OWNER);
        policies.deployInstance(CLIENT, id, "", 10, true);
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.UnauthorizedClient.selector, CLIENT, STRANGER));
        policies.deployInstance(CLIENT, id, "", 11, true);
    }

    function test_a_client_cannot_be_squatted_by_coming_back() public {
        // owner() calls back into the registry, to claim in the midst of a claim, or into another contract.
        Signer memory signer = _join("first", 100);
        bytes[4] memory calls = [
            abi.encodeCall(IPolicyClientRegistry.registerClient, (STRANGER, STRANGER)),
            abi.encodeCall(IPolicyClientRegistry.setDeployer, (CLIENT, STRANGER, true)),
            abi.encodeCall(IOperatorRegistry.retireAdmission, (signer.key, aggregateKey)),
            abi.encodeCall(IStateCommitRegistry.recordRegistered, (STRANGER, 1, 1))
        ];
        address[4] memory callees = [address(clients), address(clients), address(operators), address(commits)];
        for (uint256 i = 0; i < calls.length; ++i) {
            address client = address(new MeddlingClient(callees[i], calls[i]));
            vm.expectRevert(abi.encodeWithSelector(IPolicyClientRegistry.UnauthorizedClaim.selector, client, STRANGER));
            vm.prank(STRANGER);
            clients.registerClient(client, STRANGER);
            vm.assertEq(clients.ownerOf(client), address(0), "not claimed");
        }
        vm.assertEq(clients.ownerOf(STRANGER), address(0), "nothing changed");
        vm.assertTrue(operators.isMember(signer.account), "nothing changed");
    }

    function test_a_client_that_burns_gas_burns_a_bounded_amount() public {
        address client = address(new BurningClient());
        uint256 before = gasleft();
        vm.expectRevert(abi.encodeWithSelector(IPolicyClientRegistry.UnauthorizedClaim.selector, client, STRANGER));
        vm.prank(STRANGER);
        clients.registerClient(client, STRANGER);
        vm.assertLe(before - gasleft(), 250_000, "gas");
    }

    function test_another_clients_data_instance_fills_no_slot() public {
        bytes32 dataTemplateId = _registerDataTemplate("a");
        bytes32 templateId = _registerTemplate(_one(dataTemplateId));
        _registerClient();
        vm.prank(STRANGER);
        clients.registerClient(STRANGER, STRANGER);
        vm.prank(STRANGER);
        bytes32 foreign = data.deployInstance(STRANGER, dataTemplateId, "{}", 10, true);
        vm.startPrank(CLIENT_OWNER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.MissingPolicyDataInstance.selector, dataTemplateId));
        policies.deployInstance(CLIENT, templateId, "{}", 10, true);
        vm.expectRevert(
            abi.encodeWithSelector(IPolicyDataRegistry.InstanceOfOtherClient.selector, foreign, CLIENT, STRANGER)
        );
        data.setCurrent(CLIENT, foreign);
        // The same parameters give the client an instance of its own.
        bytes32 own = data.deployInstance(CLIENT, dataTemplateId, "{}", 10, true);
        vm.assertTrue(own != foreign, "ids");
        policies.deployInstance(CLIENT, templateId, "{}", 10, true);
        vm.stopPrank();
        (,, bytes32[] memory bound) = policies.currentBinding(CLIENT);
        vm.assertEq(bound[0], own, "bound");
    }

    // ---------------------------------------------------------------------------------------------- bounds and floods

    function test_no_entry_point_gets_around_the_quota() public {
        _registerClient();
        bytes32 dataTemplateId = _registerDataTemplate("a");
        vm.prank(CLIENT_OWNER);
        bytes32 instance = data.deployInstance(CLIENT, dataTemplateId, "{}", 10, true);
        ConsensusParameters memory p = _parameters();
        // CLIENT_OWNER, as an author, is three bytes below its quota.
        vm.prank(address(policies));
        commits.recordRegistered(CLIENT_OWNER, p.authorQuotaBytes - 3, p.maxArtifactBytes);
        ArtifactRef memory four = ArtifactRef(keccak256("four"), 4);
        bytes[5] memory calls = [
            abi.encodeCall(data.registerTemplate, (four, _absent(), _absent(), _daRefs(1))),
            abi.encodeCall(data.supplyArtifact, (6, four.artifactHash, 4, "")),
            abi.encodeCall(data.setSecrets, (instance, four, "")),
            abi.encodeCall(policies.registerTemplate, (four, _absent(), "a", new bytes32[](0), _daRefs(1))),
            abi.encodeCall(policies.supplyArtifact, (4, four.artifactHash, 4, ""))
        ];
        for (uint256 i = 0; i < calls.length; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    IStateCommitRegistry.AuthorQuotaExceeded.selector,
                    CLIENT_OWNER,
                    p.authorQuotaBytes - 3,
                    4,
                    p.authorQuotaBytes
                )
            );
            vm.prank(CLIENT_OWNER);
            (bool ok,) = i < 3 ? address(data).call(calls[i]) : address(policies).call(calls[i]);
            ok;
        }
        vm.assertEq(data.secretsCount(instance), 0, "nothing is left of a refused one");
    }

    function test_a_flood_ends_and_leaves_when_it_is_settled() public {
        _joinMany(1);
        ConsensusParameters memory p = _parameters();
        uint160 authors;
        (uint64 registered,) = commits.backlog();
        while (registered + p.authorQuotaBytes <= p.maxDeferQueueBytes) {
            vm.prank(address(policies));
            commits.recordRegistered(address(0xF1000 + authors++), p.authorQuotaBytes, p.maxArtifactBytes);
            (registered,) = commits.backlog();
        }
        vm.assertEq(authors, 5, "as many authors as quotas fit");
        uint64 left = p.maxDeferQueueBytes - registered;
        vm.expectRevert(
            abi.encodeWithSelector(
                IStateCommitRegistry.BacklogFull.selector, registered, left + 1, p.maxDeferQueueBytes
            )
        );
        vm.prank(address(policies));
        commits.recordRegistered(AUTHOR, left + 1, 1);
        // One commit makes room for as much as it settles.
        StateCommit memory commit = _commit(keccak256("root 1"));
        (commit.drainedBlock, commit.settledBytes) = (commit.boundaryBlock, p.maxCommitBytes);
        _submit(commit);
        vm.prank(address(policies));
        commits.recordRegistered(AUTHOR, left + p.maxCommitBytes, 1);
    }

    function test_the_shortest_and_the_longest_life_of_an_attestation() public {
        _joinMany(1);
        _registerClient();
        bytes32 templateId = _registerTemplate(new bytes32[](0));
        uint64 maximum = _parameters().maxExpireAfter;
        uint64[3] memory tooLong = [maximum + 1, uint64(type(uint48).max) + 1, type(uint64).max];
        vm.startPrank(CLIENT_OWNER);
        for (uint256 i = 0; i < tooLong.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.ExpireAfterTooLong.selector, tooLong[i], maximum));
            policies.deployInstance(CLIENT, templateId, "", tooLong[i], true);
        }
        bytes32 longest = policies.deployInstance(CLIENT, templateId, "", maximum, true);
        bytes32 shortest = policies.deployInstance(CLIENT, templateId, "", 1, true);
        vm.stopPrank();
        vm.assertEq(policies.instances(longest).expireAfter, maximum, "longest");
        vm.assertEq(policies.instances(shortest).expireAfter, 1, "shortest");
        _next(1);

        // One block: the next one, and no other.
        (bytes32 taskId, Task memory task) = _createTask(CLIENT, _intent());
        PolicyAttestation memory attestation = _attest(taskId, task);
        Certificate memory certificate = _certify(tasks.attestationDigest(attestation));
        vm.assertEq(attestation.expirationBlock, _number(), "now");
        _next(1);
        vm.expectRevert(
            abi.encodeWithSelector(
                ITaskManager.ResponseTooLate.selector, attestation.expirationBlock, attestation.expirationBlock + 1
            )
        );
        tasks.respondToTask(taskId, task, attestation, certificate);
        vm.roll(attestation.expirationBlock);
        tasks.respondToTask(taskId, task, attestation, certificate);
    }

    function test_two_tasks_of_one_block_are_two() public {
        _joinMany(1);
        _policy();
        bytes32 first = tasks.createTask(CLIENT, _intent(), "{}", 0);
        bytes32 second = tasks.createTask(CLIENT, _intent(), "{}", 0);
        vm.assertTrue(first != second, "ids");
    }

    // --------------------------------------------------------------------------------------------------------- tools

    function _policy() private {
        vm.prank(CLIENT);
        clients.registerClient(CLIENT, CLIENT_OWNER);
        vm.prank(CLIENT_OWNER);
        clients.setDeployer(CLIENT, DEPLOYER, true);
        _deployPolicy(CLIENT, "{}");
    }

    function _intent() private view returns (Intent memory) {
        return Intent(STRANGER, CLIENT, 1, "", block.chainid, "");
    }

    function _noPossession(Signer memory signer) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IOperatorRegistry.InvalidProofOfPossession.selector, signer.account);
    }

    function _refusesRegistration(
        Signer memory signer,
        bytes memory proof,
        EnclaveAdmission memory admission,
        Certificate memory certificate,
        bytes memory reason
    ) private {
        vm.expectRevert(reason);
        vm.prank(signer.account);
        operators.registerOperator(signer.key, proof, admission, _document(signer), aggregateKey, certificate);
    }
}
