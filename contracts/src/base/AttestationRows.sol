// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IChallengeVerifier, SecretsProof} from "../interfaces/IChallenges.sol";
import {
    IPolicyDataRegistry,
    IPolicyRegistry,
    IStateCommitRegistry,
    PolicyAttestation,
    PolicyDataBinding,
    PolicyDataInstance,
    PolicyDataTemplate,
    PolicyInstance,
    PolicyTemplate,
    Task
} from "../interfaces/INewton.sol";
import {ChallengeLib} from "../libraries/ChallengeLib.sol";
import {Ids} from "../libraries/Ids.sol";

/// @notice Compares an attestation with its task and with the rows that the task names.
/// @dev Everything is looked up by the ids in the task, whose hash is stored; rows are write-once. So the answer for an
/// attestation never changes, and none of it depends on who asks or how.
abstract contract AttestationRows {
    bytes32 private constant LOW_31 = bytes32(type(uint256).max >> 8);
    bytes32 private constant NS_SECRETS = bytes32(uint256(3) << 248);

    IPolicyRegistry private immutable POLICIES;
    IPolicyDataRegistry private immutable DATA;
    IStateCommitRegistry internal immutable COMMITS;

    constructor(IPolicyRegistry policies, IPolicyDataRegistry data, IStateCommitRegistry commits) {
        POLICIES = policies;
        DATA = data;
        COMMITS = commits;
    }

    /// @dev The first class that holds by rows and task alone; zero if none does.
    function _rowClass(Task calldata task, PolicyAttestation calldata attestation) internal view returns (uint8) {
        if (attestation.policyInstanceId != task.policyInstanceId) {
            uint64 registeredAt = POLICIES.instances(attestation.policyInstanceId).registeredAt;
            return registeredAt >= task.referenceBlock ? ChallengeLib.INSTANCE_TOO_NEW : ChallengeLib.WRONG_INSTANCE;
        }
        PolicyInstance memory instance = POLICIES.instances(task.policyInstanceId);
        if (attestation.policyTemplateId != instance.templateId) return ChallengeLib.WRONG_TEMPLATE;
        if (attestation.paramsHash != instance.paramsHash) return ChallengeLib.WRONG_INSTANCE;
        PolicyTemplate memory template = POLICIES.templates(instance.templateId);
        if (attestation.regoHash != template.rego.artifactHash) return ChallengeLib.WRONG_REGO;
        if (attestation.paramsSchemaHash != template.paramsSchema.artifactHash) {
            return ChallengeLib.WRONG_WASM_OR_SCHEMA;
        }
        if (attestation.data.length != task.dataInstanceIds.length) return ChallengeLib.DATA_INSTANCE_NOT_IN_TASK;

        uint64 expireAfter = instance.expireAfter;
        for (uint256 i = 0; i < task.dataInstanceIds.length; ++i) {
            (uint8 class, uint64 ofData) = _bindingClass(task, i, attestation.data[i], template.dataTemplateRefs[i]);
            if (class != ChallengeLib.NONE) return class;
            if (ofData < expireAfter) expireAfter = ofData;
        }

        if (attestation.stateSequenceNo != task.stateSequenceNo || attestation.stateRoot != task.stateRoot) {
            return ChallengeLib.WRONG_STATE;
        }
        if (
            attestation.referenceBlock != task.referenceBlock
                || attestation.expirationBlock != task.referenceBlock + expireAfter
                || attestation.rulesVersion != task.rulesVersion || attestation.intentHash != task.intentHash
                || attestation.wasmArgsHash != task.wasmArgsHash
        ) return ChallengeLib.WRONG_TASK_FIELD;
        return ChallengeLib.NONE;
    }

    /// @dev WRONG_STATE if a proof shows another secrets leaf than was attested. Reverts for proofs that show nothing. The
    /// data instances of the attestation are those of the task.
    function _secretsClass(Task calldata task, PolicyAttestation calldata attestation, SecretsProof[] calldata proofs)
        internal
        view
        returns (uint8 class)
    {
        for (uint256 i = 0; i < proofs.length; ++i) {
            SecretsProof calldata shown = proofs[i];
            if (shown.index >= task.dataInstanceIds.length) {
                revert IChallengeVerifier.BindingOutOfRange(shown.index, task.dataInstanceIds.length);
            }
            bytes32 h = keccak256(abi.encode(block.chainid, task.client, task.dataInstanceIds[shown.index]));
            bytes32 leafKey = (h & LOW_31) | NS_SECRETS;
            if (!COMMITS.verifyLeaf(task.stateSequenceNo, leafKey, shown.valueHash, shown.proof)) {
                revert IChallengeVerifier.InvalidSecretsProof(shown.index);
            }
            bytes32 expected = shown.valueHash == 0 ? Ids.ABSENT : shown.valueHash;
            if (attestation.data[shown.index].secretsLeafHash != expected) class = ChallengeLib.WRONG_STATE;
        }
    }

    function _bindingClass(Task calldata task, uint256 i, PolicyDataBinding calldata binding, bytes32 requiredTemplate)
        private
        view
        returns (uint8 class, uint64 expireAfter)
    {
        bytes32 id = task.dataInstanceIds[i];
        if (binding.dataInstanceId != id) {
            uint64 registeredAt = DATA.instances(binding.dataInstanceId).registeredAt;
            class = registeredAt >= task.referenceBlock
                ? ChallengeLib.INSTANCE_TOO_NEW
                : ChallengeLib.DATA_INSTANCE_NOT_IN_TASK;
            return (class, 0);
        }
        if (binding.dataTemplateId != requiredTemplate) return (ChallengeLib.DATA_TEMPLATE_NOT_REQUIRED, 0);
        PolicyDataInstance memory instance = DATA.instances(id);
        if (binding.paramsHash != instance.paramsHash) return (ChallengeLib.WRONG_INSTANCE, 0);
        PolicyDataTemplate memory template = DATA.templates(instance.templateId);
        if (
            binding.wasmHash != template.wasm.artifactHash
                || binding.paramsSchemaHash != template.paramsSchema.artifactHash
                || binding.secretsSchemaHash != template.secretsSchema.artifactHash
        ) return (ChallengeLib.WRONG_WASM_OR_SCHEMA, 0);
        return (ChallengeLib.NONE, instance.expireAfter);
    }
}
