// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {
    Certificate,
    EnclaveAdmission,
    Intent,
    LeafProof,
    PolicyAttestation,
    PolicyDataBinding,
    StateCommit,
    Task
} from "../src/interfaces/INewton.sol";
import {AttestationEvidence} from "../src/interfaces/IChallenges.sol";
import {ChallengeSuite} from "./utils/ChallengeSuite.sol";
import {PolicySuite} from "./utils/PolicySuite.sol";
import {vm} from "./utils/Vm.sol";

/// @dev What the example vault does, unguarded.
contract OpenVault {
    event Withdrawn(address indexed token, address indexed to, uint256 amount, address indexed by);

    receive() external payable {}

    function withdraw(address to, uint256 amount) external {
        emit Withdrawn(address(0), to, amount, msg.sender);
        (bool ok,) = to.call{value: amount}("");
        require(ok, "call");
    }
}

interface IVault {
    function namePolicyInstance(bytes32 policyInstanceId) external;
    function withdraw(address to, uint256 amount, PolicyAttestation calldata, Certificate calldata) external;
}

/// @dev Gas of whole transactions, intrinsic gas and calldata included (foundry.toml isolates the calls of every
/// test); written to snapshots/. DA references are 250 bytes, as a certificate of one blob; documents are
/// 4,500 bytes without zeros, as those of the Nitro module.
contract GasTest is PolicySuite {
    string private constant GROUP = "transactions";

    /// @dev The first commit of a chain, with the words that are still zero.
    function test_gas_first_commit() public {
        _joinMany(1);
        vm.prank(address(policies));
        commits.recordRegistered(AUTHOR, 1000, 1000);
        StateCommit memory commit = _commit(keccak256("root 1"));
        (commit.drainedBlock, commit.drainedTx, commit.drainedLog, commit.settledBytes) =
        (commit.boundaryBlock, 3, 7, 500);
        Certificate memory certificate = _certify(commits.commitDigest(commit));
        commits.commitStateRoot(commit, certificate, new bytes[](0));
        uint256 gas = vm.snapshotGasLastCall(GROUP, "commitStateRoot, first of a chain, no DA reference");
        _below(gas, 230_000, "first commit");
    }

    /// @dev commitStateRoot, whoever signed, and with three members absent.
    function test_gas_commit() public {
        _joinMany(10);
        // A first commit, so that the slots of the head are warm in no way but written.
        _submit(_commit(keccak256("root 1")));
        // Its entries' bytes are settled.
        vm.prank(address(policies));
        commits.recordRegistered(AUTHOR, 1000, 1000);
        StateCommit memory commit = _commit(keccak256("root 2"));
        (commit.drainedBlock, commit.drainedTx, commit.drainedLog, commit.settledBytes) =
        (commit.boundaryBlock, 3, 7, 500);
        Certificate memory certificate = _certify(commits.commitDigest(commit));
        bytes[] memory daRefs = _daRefs(1);
        commits.commitStateRoot(commit, certificate, daRefs);
        uint256 gas = vm.snapshotGasLastCall(GROUP, "commitStateRoot, 10 of 10 sign, 1 DA reference");
        _below(gas, 230_000, "commit");
        _next(1);

        commit = _commit(keccak256("root 3"));
        (commit.drainedBlock, commit.settledBytes) = (commit.boundaryBlock, 500);
        certificate = _certify(commits.commitDigest(commit), 2 + 16 + 128);
        commits.commitStateRoot(commit, certificate, daRefs);
        gas = vm.snapshotGasLastCall(GROUP, "commitStateRoot, 3 of 10 absent, 1 DA reference");
        _below(gas, 270_000, "commit with three absent");
    }

    function test_gas_registries() public {
        _registerClient();
        _registerDataTemplate("first of its author");
        vm.snapshotGasLastCall(GROUP, "registerTemplate (data), author's first, 3 DA references");
        bytes32 dataTemplateId = _registerDataTemplate("b");
        vm.snapshotGasLastCall(GROUP, "registerTemplate (data), 3 DA references");
        bytes32 templateId = _registerTemplate(_one(dataTemplateId));
        uint256 gas = vm.snapshotGasLastCall(GROUP, "registerTemplate, 1 data template, 2 DA references");
        _below(gas, 200_000, "registerTemplate");
        vm.prank(CLIENT_OWNER);
        data.deployInstance(CLIENT, dataTemplateId, _filled(256), 100, true);
        gas = vm.snapshotGasLastCall(GROUP, "deployInstance (data), 256 bytes of params, made current");
        _below(gas, 210_000, "deployInstance (data)");
        vm.prank(CLIENT_OWNER);
        policies.deployInstance(CLIENT, templateId, _filled(256), 100, true);
        gas = vm.snapshotGasLastCall(GROUP, "deployInstance, 256 bytes of params, made current");
        _below(gas, 210_000, "deployInstance");
        bytes32 dataInstanceId = data.currentPolicyDataInstance(CLIENT, dataTemplateId);
        vm.prank(CLIENT_OWNER);
        data.setSecrets(dataInstanceId, _artifact("envelope"), _daRefs(1)[0]);
        vm.snapshotGasLastCall(GROUP, "setSecrets, 1 DA reference");
    }

    function test_gas_task() public {
        _joinMany(10);
        _registerClient();
        bytes32 dataTemplateId = _registerDataTemplate("a");
        bytes32 templateId = _registerTemplate(_one(dataTemplateId));
        vm.startPrank(CLIENT_OWNER);
        data.deployInstance(CLIENT, dataTemplateId, "{}", 100, true);
        policies.deployInstance(CLIENT, templateId, "{}", 100, true);
        vm.stopPrank();
        _next(1);
        tasks.createTask(CLIENT, _intent(), "{}", 0);
        _next(1);
        Task memory task = _task();
        bytes32 taskId = tasks.createTask(CLIENT, _intent(), "{}", 0);
        vm.snapshotGasLastCall(GROUP, "createTask, 1 data instance, 68 bytes of calldata");
        _next(1);
        PolicyAttestation memory attestation = _attestation(taskId, task);
        Certificate memory certificate = _certify(tasks.attestationDigest(attestation));
        tasks.respondToTask(taskId, task, attestation, certificate);
        uint256 gas = vm.snapshotGasLastCall(GROUP, "respondToTask, 10 of 10 sign, 1 data instance");
        _below(gas, 260_000, "respondToTask");
    }

    /// @dev What a guarded call costs more than the same call without a guard, calldata included.
    function test_gas_client() public {
        _joinMany(10);
        address user = address(0x05E4);
        IVault vault = IVault(_create("PolicyVault", abi.encode(user, tasks, policies, commits, certificates)));
        _claim(address(vault), user);
        bytes32 dataTemplateId = _registerDataTemplate("a");
        bytes32 templateId = _registerTemplate(_one(dataTemplateId));
        vm.startPrank(DEPLOYER);
        data.deployInstance(address(vault), dataTemplateId, "{}", 100, true);
        bytes32 instanceId = policies.deployInstance(address(vault), templateId, "{}", 100, true);
        vm.stopPrank();
        _next(1);
        vm.prank(user);
        vault.namePolicyInstance(instanceId);
        OpenVault open = new OpenVault();
        vm.deal(address(vault), 10 ether);
        vm.deal(address(open), 10 ether);
        vm.deal(AUTHOR, 1 ether);

        Intent memory intent = _intent();
        (intent.from, intent.to, intent.data, intent.functionSignature) = (user, AUTHOR, "", "");
        (bytes32 taskId, Task memory task) = _createTask(address(vault), intent);
        PolicyAttestation memory attestation = _attest(taskId, task);
        Certificate memory certificate = _certify(tasks.attestationDigest(attestation));
        vm.prank(user);
        vault.withdraw(AUTHOR, 1 ether, attestation, certificate);
        uint256 guarded = vm.snapshotGasLastCall(GROUP, "PolicyVault.withdraw, 10 of 10 sign, 1 data instance");
        vm.prank(user);
        open.withdraw(AUTHOR, 1 ether);
        uint256 unguarded = vm.snapshotGasLastCall(GROUP, "the same withdrawal without a policy");
        vm.snapshotValue(GROUP, "direct use in a PolicyClient, above the call", guarded - unguarded);
        _below(guarded - unguarded, 200_000, "direct use");
    }

    function test_gas_leaf() public {
        _joinMany(1);
        LeafProof memory proof;
        proof.siblings = new bytes32[](20);
        bytes32 key = keccak256("key");
        bytes32 current = keccak256(abi.encodePacked("JMT::LeafNode", key, keccak256("value")));
        for (uint256 i = 0; i < 20; ++i) {
            proof.siblings[i] = keccak256(abi.encode(i));
            current = uint256(key) >> (236 + i) & 1 == 1
                ? keccak256(abi.encodePacked("JMT::IntrnalNode", proof.siblings[i], current))
                : keccak256(abi.encodePacked("JMT::IntrnalNode", current, proof.siblings[i]));
        }
        _submit(_commit(current));
        vm.assertTrue(commits.verifyLeaf(1, key, keccak256("value"), proof), "included");
        uint256 gas = vm.snapshotGasLastCall(GROUP, "verifyLeaf, 20 siblings");
        _below(gas, 60_000, "verifyLeaf");
    }

    function test_gas_admission() public {
        _joinMany(3);
        Signer memory signer = _signer("newcomer");
        _allow(signer.account, 100);
        EnclaveAdmission memory admission = _admission(signer);
        admission.docHash = keccak256(_filled(4500));
        Certificate memory certificate = _certify(operators.admissionDigest(admission));
        bytes memory proof = _possession(signer);
        vm.prank(signer.account);
        operators.registerOperator(signer.key, proof, admission, _filled(4500), aggregateKey, certificate);
        vm.snapshotGasLastCall(GROUP, "registerOperator by certificate, document of 4500 bytes");
        signers.push(signer);
        _updateAggregate();
        _next(1);

        Signer memory former = signers[1];
        Signer memory boot = _boot(former.account, "boot 2");
        admission = _admission(boot);
        admission.docHash = keccak256(_filled(4500));
        certificate = _certify(operators.admissionDigest(admission));
        proof = _possession(boot);
        operators.readmit(boot.key, proof, admission, _filled(4500), aggregateKey, former.key, certificate);
        vm.snapshotGasLastCall(GROUP, "readmit by certificate, document of 4500 bytes");
    }

    /// @dev EIP-170; the larger ones stand close to it.
    function test_code_sizes() public {
        for (uint256 i = 0; i < proxyNames.length; ++i) {
            string memory name = proxyNames[i];
            uint256 size = vm.getDeployedCode(string.concat(name, ".sol:", name)).length;
            vm.snapshotValue("sizes", name, size);
            vm.assertGe(size, 1000, name);
            vm.assertLe(size, 24_576, name);
        }
    }

    function _task() private view returns (Task memory task) {
        (bytes32 instanceId,, bytes32[] memory dataInstanceIds) = policies.currentBinding(CLIENT);
        task.client = CLIENT;
        task.policyInstanceId = instanceId;
        task.dataInstanceIds = dataInstanceIds;
        (task.stateSequenceNo, task.stateRoot) = commits.stateInForce();
        task.operatorSetId = operators.currentSetId();
        task.rulesVersion = 1;
        task.intentHash = tasks.hashIntent(_intent());
        task.wasmArgsHash = keccak256("{}");
        task.referenceBlock = uint64(_number());
        task.referenceTimestamp = uint64(_time());
        task.nonce = tasks.nextNonce();
        task.quorumBps = 6667;
    }

    function _intent() private view returns (Intent memory) {
        return Intent({
            from: CLIENT,
            to: STRANGER,
            value: 1 ether,
            data: _filled(68),
            chainId: block.chainid,
            functionSignature: "transfer(address,uint256)"
        });
    }

    function _attestation(bytes32 taskId, Task memory task)
        private
        pure
        returns (PolicyAttestation memory attestation)
    {
        attestation.taskId = taskId;
        attestation.policyInstanceId = task.policyInstanceId;
        attestation.policyTemplateId = keccak256("template");
        attestation.regoHash = keccak256("rego");
        attestation.paramsSchemaHash = keccak256("params");
        attestation.paramsHash = keccak256("{}");
        attestation.referenceBlock = task.referenceBlock;
        attestation.expirationBlock = task.referenceBlock + 100;
        attestation.stateSequenceNo = task.stateSequenceNo;
        attestation.stateRoot = task.stateRoot;
        attestation.rulesVersion = task.rulesVersion;
        attestation.intentHash = task.intentHash;
        attestation.wasmArgsHash = task.wasmArgsHash;
        attestation.evaluationResultHash = keccak256("true");
        attestation.data = new PolicyDataBinding[](1);
        bytes32 word = keccak256("word");
        attestation.data[0] = PolicyDataBinding(task.dataInstanceIds[0], word, word, word, word, word, word, word, word);
    }

    function _filled(uint256 length) private pure returns (bytes memory filled) {
        filled = new bytes(length);
        for (uint256 i = 0; i < length; ++i) {
            filled[i] = 0xff;
        }
    }

    /// @dev The goal of each transaction, in gas.
    function _below(uint256 gas, uint256 limit, string memory what) private pure {
        vm.assertLe(gas, limit, what);
    }
}

/// @dev What a challenger pays. Ten operators, all of whom signed, one data instance.
contract ChallengeGasTest is ChallengeSuite {
    string private constant GROUP = "transactions";

    function setUp() public override {
        super.setUp();
        for (uint256 i = 3; i < 10; ++i) {
            _join(string.concat("operator ", vm.toString(i)), 100);
        }
    }

    function test_gas_challenges() public {
        AttestationEvidence memory evidence = _honest();
        challenges.challengeAttestation(evidence, _noProofs(), ALL);
        vm.snapshotGasLastCall(GROUP, "challengeAttestation, nothing wrong, 10 signers looked at");
        evidence.attestation.data[0].wasmHash = keccak256("other");
        _sign(evidence, 0);
        challenges.challengeAttestation(evidence, _noProofs(), 1);
        uint256 gas = vm.snapshotGasLastCall(GROUP, "challengeAttestation, wrong WASM, held back, 1 signer slashed");
        vm.assertLe(gas, 340_000, "row check, held back");
        _next(1);
        challenges.challengeAttestation(evidence, _noProofs(), ALL);
        vm.snapshotGasLastCall(GROUP, "challengeAttestation, wrong WASM, held back, 9 further signers slashed");
        address[] memory list = new address[](10);
        for (uint256 i = 0; i < 10; ++i) {
            list[i] = signers[i].account;
        }
        operators.reweigh(list, aggregateKey);
        vm.snapshotGasLastCall(GROUP, "reweigh, 10 members");
        _next(1);
        evidence = _honest();
        evidence.attestation.data[0].wasmHash = keccak256("other");
        _sign(evidence, 0);
        _respond(evidence);
        _next(1);
        // Its signature was verified when it was stored.
        (evidence.certificate.signature, evidence.certificate.aggregateKey) = ("", "");
        challenges.challengeAttestation(evidence, _noProofs(), 1);
        gas = vm.snapshotGasLastCall(GROUP, "challengeAttestation, wrong WASM, 1 signer slashed");
        vm.assertLe(gas, 300_000, "row check");
        _next(1);
        evidence.attestation.evaluationResultHash = keccak256("false");
        _sign(evidence, 0);
        challenges.challengeResult(evidence, REEXECUTION, _outcome(evidence, false), 1);
        vm.snapshotGasLastCall(GROUP, "challengeResult by re-execution, 1 signer slashed");
    }
}
