// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {
    Intent,
    PolicyAttestation,
    PolicyDataBinding,
    PolicyDataInstance,
    PolicyDataTemplate,
    PolicyInstance,
    PolicyTemplate,
    Task
} from "../../src/interfaces/INewton.sol";
import {Ids} from "../../src/libraries/Ids.sol";
import {Suite} from "./Suite.sol";
import {vm} from "./Vm.sol";

/// @dev Policies, tasks, and attestations as honest enclaves make them: from the task and the rows.
abstract contract PolicySuite is Suite {
    uint64 internal constant EXPIRE_AFTER = 50;

    /// @dev An instance with two data instances for a client that DEPLOYER may act for; current from the next block on.
    function _deployPolicy(address client, string memory params) internal returns (bytes32 instanceId) {
        bytes32[] memory refs = _dataTemplates();
        vm.startPrank(DEPLOYER);
        for (uint256 i = 0; i < refs.length; ++i) {
            data.deployInstance(client, refs[i], bytes(params), EXPIRE_AFTER + uint64(i), true);
        }
        vm.stopPrank();
        bytes32 templateId = Ids.policyTemplate(keccak256("rego"), keccak256("params"), "vault.allow", refs);
        if (policies.templates(templateId).registeredAt == 0) _registerTemplate(refs);
        vm.prank(DEPLOYER);
        instanceId = policies.deployInstance(client, templateId, bytes(params), EXPIRE_AFTER + 2, true);
        _next(1);
    }

    /// @dev Two data templates in template order, registered if they are not.
    function _dataTemplates() internal returns (bytes32[] memory refs) {
        refs = new bytes32[](2);
        string[2] memory names = ["a", "b"];
        for (uint256 i = 0; i < 2; ++i) {
            refs[i] = Ids.policyDataTemplate(
                keccak256(bytes(string.concat("wasm ", names[i]))), keccak256("params"), keccak256("secrets")
            );
            if (data.templates(refs[i]).registeredAt == 0) _registerDataTemplate(names[i]);
        }
        if (refs[0] > refs[1]) (refs[0], refs[1]) = (refs[1], refs[0]);
    }

    /// @dev A task and its snapshot; moves to the next block.
    function _createTask(address client, Intent memory intent) internal returns (bytes32 taskId, Task memory task) {
        (task.policyInstanceId,, task.dataInstanceIds) = policies.currentBinding(client);
        task.client = client;
        (task.stateSequenceNo, task.stateRoot) = commits.stateInForce();
        task.operatorSetId = operators.currentSetId();
        task.rulesVersion = versions.rulesVersionAt(uint64(_number()));
        task.intentHash = tasks.hashIntent(intent);
        task.wasmArgsHash = keccak256("{}");
        task.referenceBlock = uint64(_number());
        task.referenceTimestamp = uint64(_time());
        task.nonce = tasks.nextNonce();
        (task.quorumBps,,) = commits.certificateRules();
        taskId = tasks.createTask(client, intent, "{}", 0);
        vm.assertEq(tasks.taskHashes(taskId), keccak256(abi.encode(task)), "task");
        _next(1);
    }

    function _attest(bytes32 taskId, Task memory task) internal view returns (PolicyAttestation memory attestation) {
        PolicyInstance memory instance = policies.instances(task.policyInstanceId);
        PolicyTemplate memory template = policies.templates(instance.templateId);
        uint64 least = instance.expireAfter;
        attestation.data = new PolicyDataBinding[](task.dataInstanceIds.length);
        for (uint256 i = 0; i < attestation.data.length; ++i) {
            PolicyDataInstance memory dataInstance = data.instances(task.dataInstanceIds[i]);
            if (dataInstance.expireAfter < least) least = dataInstance.expireAfter;
            attestation.data[i] = _binding(task.dataInstanceIds[i], dataInstance);
        }
        attestation.taskId = taskId;
        attestation.policyInstanceId = task.policyInstanceId;
        attestation.policyTemplateId = instance.templateId;
        attestation.regoHash = template.rego.artifactHash;
        attestation.paramsSchemaHash = template.paramsSchema.artifactHash;
        attestation.paramsHash = instance.paramsHash;
        attestation.referenceBlock = task.referenceBlock;
        attestation.expirationBlock = task.referenceBlock + least;
        attestation.stateSequenceNo = task.stateSequenceNo;
        attestation.stateRoot = task.stateRoot;
        attestation.rulesVersion = task.rulesVersion;
        attestation.intentHash = task.intentHash;
        attestation.wasmArgsHash = task.wasmArgsHash;
        attestation.evaluationResultHash = keccak256("true");
    }

    function _binding(bytes32 instanceId, PolicyDataInstance memory instance)
        private
        view
        returns (PolicyDataBinding memory)
    {
        PolicyDataTemplate memory template = data.templates(instance.templateId);
        return PolicyDataBinding({
            dataInstanceId: instanceId,
            dataTemplateId: instance.templateId,
            wasmHash: template.wasm.artifactHash,
            paramsSchemaHash: template.paramsSchema.artifactHash,
            secretsSchemaHash: template.secretsSchema.artifactHash,
            paramsHash: instance.paramsHash,
            secretsLeafHash: Ids.ABSENT,
            outputHash: keccak256(abi.encode("output", instanceId)),
            transcriptHash: keccak256(abi.encode("transcript", instanceId))
        });
    }

    /// @dev Makes a client of a contract whose own owner() is `owner`: DEPLOYER may deploy for it.
    function _claim(address client, address owner) internal {
        vm.startPrank(owner);
        clients.registerClient(client, owner);
        clients.setDeployer(client, DEPLOYER, true);
        vm.stopPrank();
    }
}
