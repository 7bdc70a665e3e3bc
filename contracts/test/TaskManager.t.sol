// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {
    Certificate,
    ICertificateVerifier,
    IPolicyRegistry,
    ITaskManager,
    Intent,
    PolicyAttestation,
    PolicyDataBinding,
    Task,
    TaskResponse
} from "../src/interfaces/INewton.sol";
import {Suite} from "./utils/Suite.sol";
import {vm} from "./utils/Vm.sol";

contract TaskManagerTest is Suite {
    bytes32 private dataTemplateId;
    bytes32 private dataInstanceId;
    bytes32 private policyInstanceId;

    function setUp() public override {
        super.setUp();
        _joinMany(3);
        _registerClient();
        dataTemplateId = _registerDataTemplate("a");
        bytes32 templateId = _registerTemplate(_one(dataTemplateId));
        vm.startPrank(CLIENT_OWNER);
        dataInstanceId = data.deployInstance(CLIENT, dataTemplateId, "{}", 100, true);
        policyInstanceId = policies.deployInstance(CLIENT, templateId, "{}", 100, true);
        vm.stopPrank();
        _next(1);
    }

    function test_a_task_is_a_snapshot() public {
        Intent memory intent = _intent();
        Task memory expected = _expectedTask(intent, "args");
        bytes32 taskId = tasks.createTask(CLIENT, intent, "args", 0);
        bytes32 wanted = keccak256(
            abi.encode(
                keccak256("newton.task.v1"),
                block.chainid,
                tasks,
                uint64(0),
                CLIENT,
                blockhash(_number() - 1),
                expected.intentHash,
                keccak256("args")
            )
        );
        vm.assertEq(taskId, wanted, "task id");
        vm.assertEq(tasks.taskHashes(taskId), keccak256(abi.encode(expected)), "task hash");
        vm.assertEq(tasks.nextNonce(), 1, "nonce");
    }

    function test_a_task_announces_everything() public {
        Intent memory intent = _intent();
        Task memory expected = _expectedTask(intent, "args");
        vm.expectEmit(address(tasks));
        emit ITaskManager.TaskCreated(_taskId(expected), CLIENT, expected, intent, "args");
        tasks.createTask(CLIENT, intent, "args", 0);
    }

    function test_a_later_change_does_not_touch_a_running_task() public {
        (bytes32 taskId, Task memory task) = _create();
        vm.startPrank(CLIENT_OWNER);
        data.deployInstance(CLIENT, dataTemplateId, "{\"other\":1}", 100, true);
        vm.stopPrank();
        _submit(_commit(keccak256("root 1")));
        _respond(taskId, task, _attestation(taskId, task));
        vm.assertTrue(tasks.responses(taskId).respondedAt != 0, "answered");
    }

    function test_rows_count_from_the_next_block_on() public {
        vm.prank(CLIENT_OWNER);
        data.deployInstance(CLIENT, dataTemplateId, "{\"other\":1}", 100, true);
        vm.expectRevert(
            abi.encodeWithSelector(ITaskManager.InstanceNotInForceYet.selector, policyInstanceId, uint64(_number()))
        );
        tasks.createTask(CLIENT, _intent(), "", 0);
        _next(1);
        tasks.createTask(CLIENT, _intent(), "", 0);
    }

    function test_what_a_task_needs() public {
        vm.expectRevert(abi.encodeWithSelector(ITaskManager.NoCurrentPolicyInstance.selector, STRANGER));
        tasks.createTask(STRANGER, _intent(), "", 0);
        vm.expectRevert(abi.encodeWithSelector(ITaskManager.QuorumOutOfRange.selector, 6667, 6666));
        tasks.createTask(CLIENT, _intent(), "", 6666);
        vm.expectRevert(abi.encodeWithSelector(ITaskManager.QuorumOutOfRange.selector, 6667, 10_001));
        tasks.createTask(CLIENT, _intent(), "", 10_001);
        vm.expectRevert(abi.encodeWithSelector(ITaskManager.WasmArgsTooLarge.selector, 32_769, 32_768));
        tasks.createTask(CLIENT, _intent(), new bytes(32_769), 0);
        Intent memory intent = _intent();
        intent.data = new bytes(65_536);
        vm.expectRevert(
            abi.encodeWithSelector(
                ITaskManager.IntentTooLarge.selector, 65_536 + intent.functionSignature.length, 65_536
            )
        );
        tasks.createTask(CLIENT, intent, "", 0);
    }

    function test_an_answer_is_stored_and_announced() public {
        (bytes32 taskId, Task memory task) = _create();
        _next(2);
        PolicyAttestation memory attestation = _attestation(taskId, task);
        bytes32 digest = tasks.attestationDigest(attestation);
        Certificate memory certificate = _certify(digest, 4);
        vm.expectEmit(address(tasks));
        emit ITaskManager.TaskResponded(taskId, digest, keccak256("true"), 3, 4);
        tasks.respondToTask(taskId, task, attestation, certificate);
        TaskResponse memory response = tasks.responses(taskId);
        vm.assertEq(response.digest, digest, "digest");
        vm.assertEq(response.respondedAt, _number(), "at");
        vm.assertEq(response.expirationBlock, task.referenceBlock + 100, "expiration");
        vm.assertEq(response.setId, 3, "set");
        vm.assertTrue(response.allowed, "allowed");

        vm.expectRevert(abi.encodeWithSelector(ITaskManager.TaskAlreadyResponded.selector, taskId));
        tasks.respondToTask(taskId, task, attestation, certificate);
    }

    function test_only_the_result_true_allows() public {
        (bytes32 taskId, Task memory task) = _create();
        PolicyAttestation memory attestation = _attestation(taskId, task);
        attestation.evaluationResultHash = keccak256("false");
        _respond(taskId, task, attestation);
        vm.assertTrue(!tasks.responses(taskId).allowed, "denied");
    }

    function test_an_answer_must_fit_its_task() public {
        (bytes32 taskId, Task memory task) = _create();
        PolicyAttestation memory good = _attestation(taskId, task);
        bytes32 zero;

        vm.expectRevert(abi.encodeWithSelector(ITaskManager.UnknownTask.selector, zero));
        tasks.respondToTask(zero, task, good, _noCertificate());

        Task memory other = abi.decode(abi.encode(task), (Task));
        other.quorumBps = 1;
        vm.expectRevert(
            abi.encodeWithSelector(
                ITaskManager.TaskMismatch.selector,
                bytes32("task"),
                keccak256(abi.encode(task)),
                keccak256(abi.encode(other))
            )
        );
        tasks.respondToTask(taskId, other, good, _noCertificate());

        PolicyAttestation memory bad = _copy(good);
        bad.taskId = zero;
        _mismatch(taskId, task, bad, "taskId", taskId, zero);
        bad = _copy(good);
        bad.policyInstanceId = zero;
        _mismatch(taskId, task, bad, "policyInstanceId", policyInstanceId, zero);
        bad = _copy(good);
        bad.referenceBlock = 1;
        _mismatch(taskId, task, bad, "referenceBlock", bytes32(uint256(task.referenceBlock)), bytes32(uint256(1)));
        bad = _copy(good);
        bad.stateSequenceNo = 9;
        _mismatch(taskId, task, bad, "stateSequenceNo", zero, bytes32(uint256(9)));
        bad = _copy(good);
        bad.stateRoot = zero;
        _mismatch(taskId, task, bad, "stateRoot", task.stateRoot, zero);
        bad = _copy(good);
        bad.rulesVersion = 2;
        _mismatch(taskId, task, bad, "rulesVersion", bytes32(uint256(1)), bytes32(uint256(2)));
        bad = _copy(good);
        bad.intentHash = zero;
        _mismatch(taskId, task, bad, "intentHash", task.intentHash, zero);
        bad = _copy(good);
        bad.wasmArgsHash = zero;
        _mismatch(taskId, task, bad, "wasmArgsHash", task.wasmArgsHash, zero);
        bad = _copy(good);
        bad.data = new PolicyDataBinding[](0);
        _mismatch(taskId, task, bad, "data.length", bytes32(uint256(1)), zero);
        bad = _copy(good);
        bad.data[0].dataInstanceId = zero;
        _mismatch(taskId, task, bad, "data.dataInstanceId", dataInstanceId, zero);
    }

    function test_the_set_is_the_tasks() public {
        (bytes32 taskId, Task memory task) = _create();
        PolicyAttestation memory attestation = _attestation(taskId, task);
        Certificate memory certificate = _certify(tasks.attestationDigest(attestation));
        certificate.setId = 2;
        vm.expectRevert(
            abi.encodeWithSelector(
                ITaskManager.TaskMismatch.selector, bytes32("operatorSetId"), bytes32(uint256(3)), bytes32(uint256(2))
            )
        );
        tasks.respondToTask(taskId, task, attestation, certificate);
    }

    function test_answers_come_within_the_window_and_before_expiry() public {
        (bytes32 taskId, Task memory task) = _create();
        PolicyAttestation memory attestation = _attestation(taskId, task);
        _next(31);
        Certificate memory certificate = _certify(tasks.attestationDigest(attestation));
        vm.expectRevert(
            abi.encodeWithSelector(ITaskManager.ResponseTooLate.selector, task.referenceBlock + 30, uint64(_number()))
        );
        tasks.respondToTask(taskId, task, attestation, certificate);
        // An attestation that expires earlier than the window.
        attestation.expirationBlock = task.referenceBlock + 5;
        vm.expectRevert(
            abi.encodeWithSelector(ITaskManager.ResponseTooLate.selector, task.referenceBlock + 5, uint64(_number()))
        );
        tasks.respondToTask(taskId, task, attestation, certificate);
    }

    function test_a_tasks_own_quorum_counts() public {
        bytes32 taskId = tasks.createTask(CLIENT, _intent(), "args", 10_000);
        Task memory task = _expectedTask(_intent(), "args");
        (task.nonce, task.quorumBps) = (0, 10_000);
        PolicyAttestation memory attestation = _attestation(taskId, task);
        Certificate memory certificate = _certify(tasks.attestationDigest(attestation), 1);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.QuorumNotReached.selector, 200, 300, 10_000));
        tasks.respondToTask(taskId, task, attestation, certificate);
        _respond(taskId, task, attestation);
    }

    function test_a_signature_of_another_chain_or_manager_is_none() public {
        (bytes32 taskId, Task memory task) = _create();
        PolicyAttestation memory attestation = _attestation(taskId, task);
        vm.chainId(1);
        bytes32 foreign = tasks.attestationDigest(attestation);
        vm.chainId(31_337);
        Certificate memory certificate = _certify(foreign);
        vm.expectRevert(
            abi.encodeWithSelector(ICertificateVerifier.InvalidSignature.selector, tasks.attestationDigest(attestation))
        );
        tasks.respondToTask(taskId, task, attestation, certificate);
    }

    function test_an_emptied_slot_is_named() public {
        // A second template needs a slot that the client never filled.
        bytes32 other = _registerDataTemplate("b");
        vm.prank(AUTHOR);
        bytes32 templateId =
            policies.registerTemplate(_artifact("rego 2"), _absent(), "vault.allow", _one(other), _daRefs(1));
        vm.startPrank(CLIENT_OWNER);
        bytes32 instanceId = policies.deployInstance(CLIENT, templateId, "", 100, false);
        vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.MissingPolicyDataInstance.selector, other));
        policies.setCurrent(CLIENT, instanceId);
        vm.stopPrank();
    }

    function test_creating_and_answering_can_be_paused() public {
        (bytes32 taskId, Task memory task) = _create();
        PolicyAttestation memory attestation = _attestation(taskId, task);
        Certificate memory certificate = _certify(tasks.attestationDigest(attestation));
        vm.prank(GOVERNANCE);
        (bool ok,) = address(tasks).call(abi.encodeWithSignature("pause()"));
        vm.assertTrue(ok, "paused");
        vm.expectRevert(abi.encodeWithSignature("EnforcedPause()"));
        tasks.createTask(CLIENT, _intent(), "", 0);
        vm.expectRevert(abi.encodeWithSignature("EnforcedPause()"));
        tasks.respondToTask(taskId, task, attestation, certificate);
    }

    function _intent() private view returns (Intent memory) {
        return Intent({
            from: CLIENT,
            to: STRANGER,
            value: 5 ether,
            data: hex"a9059cbb0000",
            chainId: block.chainid,
            functionSignature: "transfer(address,uint256)"
        });
    }

    function _expectedTask(Intent memory intent, bytes memory args) private view returns (Task memory task) {
        task.client = CLIENT;
        task.policyInstanceId = policyInstanceId;
        task.dataInstanceIds = _one(dataInstanceId);
        (task.stateSequenceNo, task.stateRoot) = commits.stateInForce();
        task.operatorSetId = 3;
        task.rulesVersion = 1;
        task.intentHash = keccak256(
            abi.encode(
                keccak256(
                    "Intent(address from,address to,uint256 value,bytes data,uint256 chainId,bytes functionSignature)"
                ),
                intent.from,
                intent.to,
                intent.value,
                keccak256(intent.data),
                intent.chainId,
                keccak256(intent.functionSignature)
            )
        );
        task.wasmArgsHash = keccak256(args);
        task.referenceBlock = uint64(_number());
        task.referenceTimestamp = uint64(_time());
        task.nonce = tasks.nextNonce();
        task.quorumBps = 6667;
    }

    function _taskId(Task memory task) private view returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256("newton.task.v1"),
                block.chainid,
                tasks,
                task.nonce,
                task.client,
                blockhash(_number() - 1),
                task.intentHash,
                task.wasmArgsHash
            )
        );
    }

    function _create() private returns (bytes32 taskId, Task memory task) {
        task = _expectedTask(_intent(), "args");
        taskId = tasks.createTask(CLIENT, _intent(), "args", 0);
        vm.assertEq(tasks.taskHashes(taskId), keccak256(abi.encode(task)), "task");
    }

    function _attestation(bytes32 taskId, Task memory task)
        private
        view
        returns (PolicyAttestation memory attestation)
    {
        attestation.taskId = taskId;
        attestation.policyInstanceId = task.policyInstanceId;
        attestation.policyTemplateId = policies.instances(task.policyInstanceId).templateId;
        attestation.regoHash = keccak256("rego");
        attestation.referenceBlock = task.referenceBlock;
        attestation.expirationBlock = task.referenceBlock + 100;
        attestation.stateSequenceNo = task.stateSequenceNo;
        attestation.stateRoot = task.stateRoot;
        attestation.rulesVersion = task.rulesVersion;
        attestation.intentHash = task.intentHash;
        attestation.wasmArgsHash = task.wasmArgsHash;
        attestation.evaluationResultHash = keccak256("true");
        attestation.data = new PolicyDataBinding[](task.dataInstanceIds.length);
        for (uint256 i = 0; i < attestation.data.length; ++i) {
            attestation.data[i].dataInstanceId = task.dataInstanceIds[i];
        }
    }

    function _respond(bytes32 taskId, Task memory task, PolicyAttestation memory attestation) private {
        Certificate memory certificate = _certify(tasks.attestationDigest(attestation));
        tasks.respondToTask(taskId, task, attestation, certificate);
    }

    function _mismatch(
        bytes32 taskId,
        Task memory task,
        PolicyAttestation memory attestation,
        bytes32 field,
        bytes32 expected,
        bytes32 got
    ) private {
        vm.expectRevert(abi.encodeWithSelector(ITaskManager.TaskMismatch.selector, field, expected, got));
        tasks.respondToTask(taskId, task, attestation, _noCertificate());
    }

    function _copy(PolicyAttestation memory value) private pure returns (PolicyAttestation memory) {
        return abi.decode(abi.encode(value), (PolicyAttestation));
    }
}
