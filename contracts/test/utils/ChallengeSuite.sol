// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {AttestationEvidence, IChallengeVerifier, SecretsProof} from "../../src/interfaces/IChallenges.sol";
import {
    Certificate,
    EnclaveAdmission,
    Intent,
    PolicyAttestation,
    PolicyDataBinding,
    PolicyDataInstance,
    PolicyDataTemplate,
    PolicyInstance,
    PolicyTemplate,
    Task
} from "../../src/interfaces/INewton.sol";
import {ResultOutcome} from "../../src/interfaces/IResultVerifier.sol";
import {Ids} from "../../src/libraries/Ids.sol";
import {Suite} from "./Suite.sol";
import {vm} from "./Vm.sol";

/// @dev Three operators of weight 100, a client with a policy over one data instance, tasks, and what honest signers make of
/// them. The third operator is absent from everything dishonest, so that it shows who must not pay.
abstract contract ChallengeSuite is Suite {
    uint256 internal constant ALL = 64;
    uint256 internal constant THIRD_ABSENT = 4;
    uint8 internal constant REEXECUTION = 1;
    uint8 internal constant EVALUATION = 1;
    uint8 internal constant STATE_COMMIT = 2;

    bytes32 internal dataTemplateId;
    bytes32 internal dataInstanceId;
    bytes32 internal templateId;
    bytes32 internal policyInstanceId;

    function setUp() public virtual override {
        super.setUp();
        _joinMany(3);
        _registerClient();
        dataTemplateId = _registerDataTemplate("a");
        templateId = _registerTemplate(_one(dataTemplateId));
        vm.startPrank(CLIENT_OWNER);
        dataInstanceId = data.deployInstance(CLIENT, dataTemplateId, "{}", 50, true);
        policyInstanceId = policies.deployInstance(CLIENT, templateId, "{}", 80, true);
        vm.stopPrank();
        _next(1);
    }

    // ------------------------------------------------------------------------------------------------------ evidence

    /// @dev A new task in this block; moves to the next one.
    function _newTask() internal returns (bytes32 taskId, Task memory task) {
        (bytes32 instanceId,, bytes32[] memory dataInstanceIds) = policies.currentBinding(CLIENT);
        task.client = CLIENT;
        task.policyInstanceId = instanceId;
        task.dataInstanceIds = dataInstanceIds;
        (task.stateSequenceNo, task.stateRoot) = commits.stateInForce();
        task.operatorSetId = operators.currentSetId();
        task.rulesVersion = versions.rulesVersionAt(uint64(_number()));
        task.intentHash = tasks.hashIntent(_intent());
        task.wasmArgsHash = keccak256("args");
        task.referenceBlock = uint64(_number());
        task.referenceTimestamp = uint64(_time());
        task.nonce = tasks.nextNonce();
        task.quorumBps = 6667;
        taskId = tasks.createTask(CLIENT, _intent(), "args", 0);
        vm.assertEq(tasks.taskHashes(taskId), keccak256(abi.encode(task)), "task");
        _next(1);
    }

    /// @dev What an honest enclave attests: everything from the task and the rows.
    function _honestAttestation(bytes32 taskId, Task memory task)
        internal
        view
        returns (PolicyAttestation memory attestation)
    {
        PolicyInstance memory instance = policies.instances(task.policyInstanceId);
        PolicyTemplate memory template = policies.templates(instance.templateId);
        attestation.taskId = taskId;
        attestation.policyInstanceId = task.policyInstanceId;
        attestation.policyTemplateId = instance.templateId;
        attestation.regoHash = template.rego.artifactHash;
        attestation.paramsSchemaHash = template.paramsSchema.artifactHash;
        attestation.paramsHash = instance.paramsHash;
        attestation.referenceBlock = task.referenceBlock;
        attestation.stateSequenceNo = task.stateSequenceNo;
        attestation.stateRoot = task.stateRoot;
        attestation.rulesVersion = task.rulesVersion;
        attestation.intentHash = task.intentHash;
        attestation.wasmArgsHash = task.wasmArgsHash;
        attestation.evaluationResultHash = keccak256("true");
        uint64 expireAfter = instance.expireAfter;
        attestation.data = new PolicyDataBinding[](task.dataInstanceIds.length);
        for (uint256 i = 0; i < task.dataInstanceIds.length; ++i) {
            PolicyDataInstance memory row = data.instances(task.dataInstanceIds[i]);
            PolicyDataTemplate memory of_ = data.templates(row.templateId);
            attestation.data[i] = PolicyDataBinding({
                dataInstanceId: task.dataInstanceIds[i],
                dataTemplateId: row.templateId,
                wasmHash: of_.wasm.artifactHash,
                paramsSchemaHash: of_.paramsSchema.artifactHash,
                secretsSchemaHash: of_.secretsSchema.artifactHash,
                paramsHash: row.paramsHash,
                secretsLeafHash: Ids.ABSENT,
                outputHash: keccak256("{}"),
                transcriptHash: keccak256(abi.encode(new bytes32[](0)))
            });
            if (row.expireAfter < expireAfter) expireAfter = row.expireAfter;
        }
        attestation.expirationBlock = task.referenceBlock + expireAfter;
    }

    /// @dev An honest attestation of a new task, signed by all.
    function _honest() internal returns (AttestationEvidence memory evidence) {
        bytes32 taskId;
        (taskId, evidence.task) = _newTask();
        evidence.attestation = _honestAttestation(taskId, evidence.task);
        _sign(evidence, 0);
    }

    /// @dev The same task's attestation, for a test to spoil and sign.
    function _copy(AttestationEvidence memory evidence) internal pure returns (AttestationEvidence memory) {
        return abi.decode(abi.encode(evidence), (AttestationEvidence));
    }

    function _sign(AttestationEvidence memory evidence, uint256 nonSigners) internal view {
        evidence.certificate = _certify(tasks.attestationDigest(evidence.attestation), nonSigners);
    }

    function _respond(AttestationEvidence memory evidence) internal {
        tasks.respondToTask(evidence.attestation.taskId, evidence.task, evidence.attestation, evidence.certificate);
    }

    function _noProofs() internal pure returns (SecretsProof[] memory) {
        return new SecretsProof[](0);
    }

    /// @dev The word of the whole current set about an attestation's result.
    function _outcome(AttestationEvidence memory evidence, bool correct) internal view returns (bytes memory) {
        PolicyAttestation memory inputs = _copy(evidence).attestation;
        bytes32[] memory outputs = new bytes32[](inputs.data.length);
        for (uint256 i = 0; i < outputs.length; ++i) {
            outputs[i] = inputs.data[i].outputHash;
            inputs.data[i].outputHash = 0;
        }
        bytes32 result = keccak256(abi.encode(inputs.evaluationResultHash, outputs));
        inputs.evaluationResultHash = 0;
        return _outcomeOf(
            ResultOutcome(EVALUATION, keccak256(abi.encode(inputs)), result, correct, evidence.task.rulesVersion)
        );
    }

    function _outcomeOf(ResultOutcome memory outcome) internal view returns (bytes memory) {
        return abi.encode(outcome.correct, _certify(reexecution.outcomeDigest(outcome)));
    }

    // ------------------------------------------------------------------------------------------------------- verdicts

    function _weights() internal view returns (uint96[] memory weights) {
        weights = new uint96[](signers.length);
        for (uint256 i = 0; i < signers.length; ++i) {
            weights[i] = operators.operators(signers[i].account).weight;
        }
    }

    /// @dev The accounts of the first `count` operators.
    function _accounts(uint256 count) internal view returns (address[] memory accounts) {
        accounts = new address[](count);
        for (uint256 i = 0; i < count; ++i) {
            accounts[i] = signers[i].account;
        }
    }

    /// @dev Signs without the third operator and challenges: the first two pay a tenth, the third nothing.
    function _convicts(AttestationEvidence memory evidence, uint8 class, SecretsProof[] memory proofs) internal {
        _sign(evidence, THIRD_ABSENT);
        uint96[] memory before = _weights();
        vm.expectEmit(address(challenges));
        emit IChallengeVerifier.AttestationChallenged(evidence.attestation.taskId, class, _accounts(2));
        vm.assertEq(challenges.challengeAttestation(evidence, proofs, ALL), class, "class");
        _requireTenthLost(before, 2);
        _next(1);
    }

    function _convicts(AttestationEvidence memory evidence, uint8 class) internal {
        _convicts(evidence, class, _noProofs());
    }

    /// @dev The first `count` operators lost a tenth, rounded up, and the others nothing.
    function _requireTenthLost(uint96[] memory before, uint256 count) internal view {
        for (uint256 i = 0; i < signers.length; ++i) {
            uint96 lost = i < count ? (before[i] + 9) / 10 : 0;
            vm.assertEq(operators.operators(signers[i].account).weight, before[i] - lost, "weight");
        }
    }

    /// @dev Tries on an honest attestation whatever a challenger can choose. Nothing may cost anyone anything.
    function _innocent(AttestationEvidence memory evidence, SecretsProof[] memory proofs) internal {
        uint96[] memory before = _weights();
        bytes32 taskId = evidence.attestation.taskId;

        vm.expectEmit(address(challenges));
        emit IChallengeVerifier.TaskChallengedUnsuccessfully(taskId, STRANGER);
        vm.prank(STRANGER);
        vm.assertEq(challenges.challengeAttestation(evidence, proofs, ALL), 0, "class");
        vm.assertEq(challenges.challengeAttestation(evidence, _noProofs(), 1), 0, "class, one signer");
        vm.assertEq(
            challenges.challengeEquivocation(evidence, evidence.attestation, evidence.certificate, ALL),
            0,
            "an attestation with itself"
        );
        bytes memory right = _outcome(evidence, true);
        vm.assertEq(challenges.challengeResult(evidence, REEXECUTION, right, ALL), 0, "result");

        // An outcome that the set did not sign: the same signature with the other verdict.
        (, Certificate memory certificate) = abi.decode(right, (bool, Certificate));
        _refusedResult(evidence, abi.encode(false, certificate));
        // An outcome of another set.
        certificate.setId -= 1;
        _refusedResult(evidence, abi.encode(true, certificate));

        AttestationEvidence memory changed = _copy(evidence);
        changed.task.rulesVersion += 1;
        _refused(changed);
        changed = _copy(evidence);
        changed.task.policyInstanceId = keccak256("another");
        _refused(changed);
        changed = _copy(evidence);
        changed.task.referenceBlock += 1;
        _refused(changed);
        changed = _copy(evidence);
        changed.attestation.regoHash = keccak256("another");
        _refused(changed);
        changed = _copy(evidence);
        changed.attestation.taskId = keccak256("another");
        _refused(changed);
        changed = _copy(evidence);
        changed.attestation.data = new PolicyDataBinding[](0);
        _refused(changed);
        changed = _copy(evidence);
        changed.certificate.setId = operators.latestSetId() + 1;
        _refused(changed);
        changed = _copy(evidence);
        changed.certificate.setId -= 1;
        changed.certificate.nonSignerBitmap = 1;
        changed.certificate.nonSignerKeys = signers[0].key;
        _refused(changed);
        changed = _copy(evidence);
        changed.certificate.nonSignerBitmap |= 1;
        changed.certificate.nonSignerKeys = signers[0].key;
        _refused(changed);
        _requireTenthLost(before, 0);
        for (uint256 i = 0; i < signers.length; ++i) {
            bytes32 digest = tasks.attestationDigest(evidence.attestation);
            vm.assertTrue(!challenges.isPunished(digest, signers[i].account), "left a trace");
        }
    }

    function _innocent(AttestationEvidence memory evidence) internal {
        _innocent(evidence, _noProofs());
    }

    function _refused(AttestationEvidence memory evidence) private {
        (bool ok,) =
            address(challenges).call(abi.encodeCall(challenges.challengeAttestation, (evidence, _noProofs(), ALL)));
        vm.assertTrue(!ok, "evidence that nobody signed");
    }

    function _refusedResult(AttestationEvidence memory evidence, bytes memory proof) private {
        (bool ok,) =
            address(challenges).call(abi.encodeCall(challenges.challengeResult, (evidence, REEXECUTION, proof, ALL)));
        vm.assertTrue(!ok, "an outcome that the current set did not sign");
    }

    // -------------------------------------------------------------------------------------------------------- signers

    /// @dev Replaces the boot of an operator, admitted under the image in force for new ones; moves to the next block.
    function _readmit(uint256 which, string memory name) internal {
        Signer memory former = signers[which];
        Signer memory boot = _boot(former.account, name);
        EnclaveAdmission memory admission = _admission(boot);
        Certificate memory certificate = _certify(operators.admissionDigest(admission));
        bytes memory proof = _possession(boot);
        operators.readmit(boot.key, proof, admission, _document(boot), aggregateKey, former.key, certificate);
        signers[which] = boot;
        _updateAggregate();
        _next(1);
    }

    function _intent() internal view returns (Intent memory) {
        return Intent({
            from: CLIENT,
            to: STRANGER,
            value: 5 ether,
            data: hex"a9059cbb0000",
            chainId: block.chainid,
            functionSignature: "transfer(address,uint256)"
        });
    }
}
