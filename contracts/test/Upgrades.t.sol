// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IEnclaveVersionRegistry, IPolicyClientRegistry} from "../src/interfaces/IGovernance.sol";
import {
    Certificate,
    ICertificateVerifier,
    IKeyRegistry,
    IOperatorRegistry,
    IPolicyDataRegistry,
    IPolicyRegistry,
    IStateCommitRegistry,
    ITaskManager,
    Intent,
    KeyEpoch,
    PolicyAttestation,
    Task
} from "../src/interfaces/INewton.sol";
import {ISlasher} from "../src/interfaces/ISlasher.sol";
import {PolicySuite} from "./utils/PolicySuite.sol";
import {vm} from "./utils/Vm.sol";

/// @dev An upgrade keeps everything: the whole set, at work, is put behind new implementations of the same code, and every
/// row is what it was. What a layout that moved would do is for the layout snapshots.
contract UpgradesTest is PolicySuite {
    struct Asked {
        address target;
        bytes call;
    }

    Asked[] private asked;

    function test_an_upgrade_keeps_every_row_and_the_network_goes_on() public {
        _joinMany(3);
        bytes32 instanceId = _instance();
        keys.publishKeyEpoch(_epoch(), _certify(keys.keyEpochDigest(_epoch())));
        _submit(_commit(keccak256("root 1")));
        (bytes32 taskId, Task memory task) = _createTask(CLIENT, _intent());
        _answer(taskId, task);
        (bytes32 running, Task memory runningTask) = _createTask(CLIENT, _intent());
        vm.prank(address(challenges));
        ISlasher(address(operators)).slashOperator(signers[1].account, 10);

        _ask(instanceId, taskId, running);
        bytes32[] memory before = _answers();
        for (uint256 i = 0; i < proxies.length; ++i) {
            _upgrade(proxies[i]);
        }
        bytes32[] memory afterwards = _answers();
        for (uint256 i = 0; i < before.length; ++i) {
            vm.assertEq(afterwards[i], before[i], vm.toString(i));
        }

        // And on: a task from before is answered, a commit follows, the slash reaches the set.
        _answer(running, runningTask);
        _submit(_commit(keccak256("root 2")));
        vm.assertEq(commits.getSequenceNo(), 2, "sequence");
        address[] memory list = new address[](1);
        list[0] = signers[1].account;
        operators.reweigh(list, aggregateKey);
        vm.assertEq(operators.operatorSet(operators.latestSetId()).totalWeight, 290, "weight");
    }

    /// @dev The same code at another address, which its immutables name, behind the proxy.
    function _upgrade(address proxy) private {
        bytes32 slot = bytes32(uint256(keccak256("eip1967.proxy.implementation")) - 1);
        address old = address(uint160(uint256(vm.load(proxy, slot))));
        address next = address(uint160(uint256(keccak256(abi.encode("next", old)))));
        bytes memory code = old.code;
        uint256 replaced;
        for (uint256 i = 0; i + 20 <= code.length; ++i) {
            bytes20 word;
            assembly ("memory-safe") {
                word := mload(add(add(code, 0x20), i))
            }
            if (word != bytes20(old)) continue;
            for (uint256 k = 0; k < 20; ++k) {
                code[i + k] = bytes20(next)[k];
            }
            ++replaced;
        }
        vm.assertGe(replaced, 1, "its own address");
        vm.etch(next, code);
        vm.prank(GOVERNANCE);
        (bool ok,) = proxy.call(abi.encodeWithSignature("upgradeToAndCall(address,bytes)", next, ""));
        vm.assertTrue(ok, "upgrade");
        vm.assertEq(address(uint160(uint256(vm.load(proxy, slot)))), next, "behind the proxy");
    }

    function _ask(bytes32 instanceId, bytes32 taskId, bytes32 running) private {
        for (uint256 i = 0; i < proxies.length; ++i) {
            _add(proxies[i], abi.encodeWithSignature("owner()"));
        }
        bytes32 templateId = policies.instances(instanceId).templateId;
        _add(address(policies), abi.encodeCall(IPolicyRegistry.instances, (instanceId)));
        _add(address(policies), abi.encodeCall(IPolicyRegistry.templates, (templateId)));
        _add(address(policies), abi.encodeCall(IPolicyRegistry.currentBinding, (CLIENT)));
        bytes32[] memory refs = policies.templates(templateId).dataTemplateRefs;
        _add(address(data), abi.encodeCall(IPolicyDataRegistry.templates, (refs[0])));
        _add(address(data), abi.encodeCall(IPolicyDataRegistry.currentPolicyDataInstances, (CLIENT, refs)));
        _add(address(clients), abi.encodeCall(IPolicyClientRegistry.isAuthorized, (CLIENT, DEPLOYER)));
        _add(address(commits), abi.encodeCall(IStateCommitRegistry.latestCommit, ()));
        _add(address(commits), abi.encodeCall(IStateCommitRegistry.parameters, ()));
        _add(address(commits), abi.encodeCall(IStateCommitRegistry.liabilityBlocks, ()));
        _add(address(commits), abi.encodeCall(IStateCommitRegistry.backlog, ()));
        _add(address(versions), abi.encodeCall(IEnclaveVersionRegistry.versions, (pcr0Hash)));
        for (uint64 id = 0; id <= operators.latestSetId(); ++id) {
            _add(address(operators), abi.encodeCall(IOperatorRegistry.operatorSet, (id)));
        }
        _add(address(operators), abi.encodeCall(IOperatorRegistry.operators, (signers[1].account)));
        Certificate memory certificate = _certify(taskId);
        _add(
            address(operators),
            abi.encodeCall(ICertificateVerifier.verifyCertificate, (taskId, certificate, 6667, 1, 100))
        );
        _add(address(keys), abi.encodeCall(IKeyRegistry.keysOf, (1)));
        _add(address(tasks), abi.encodeCall(ITaskManager.taskRecord, (taskId)));
        _add(address(tasks), abi.encodeCall(ITaskManager.responses, (taskId)));
        _add(address(tasks), abi.encodeCall(ITaskManager.taskRecord, (running)));
        _add(address(challenges), abi.encodeWithSignature("resultVerifier(uint8)", REEXECUTION));
    }

    function _add(address target, bytes memory call) private {
        asked.push(Asked(target, call));
    }

    function _answers() private returns (bytes32[] memory answers) {
        answers = new bytes32[](asked.length);
        for (uint256 i = 0; i < asked.length; ++i) {
            (bool ok, bytes memory answer) = asked[i].target.call(asked[i].call);
            vm.assertTrue(ok, "answers");
            vm.assertTrue(answer.length >= 32, "something");
            answers[i] = keccak256(answer);
        }
    }

    function _instance() private returns (bytes32 instanceId) {
        _registerClient();
        vm.prank(CLIENT_OWNER);
        clients.setDeployer(CLIENT, DEPLOYER, true);
        bytes32 dataTemplateId = _registerDataTemplate("a");
        bytes32 templateId = _registerTemplate(_one(dataTemplateId));
        vm.startPrank(DEPLOYER);
        data.deployInstance(CLIENT, dataTemplateId, "{}", 100, true);
        instanceId = policies.deployInstance(CLIENT, templateId, "{}", 100, true);
        vm.stopPrank();
        _next(1);
    }

    function _answer(bytes32 taskId, Task memory task) private {
        PolicyAttestation memory attestation = _attest(taskId, task);
        Certificate memory certificate = _certify(tasks.attestationDigest(attestation));
        tasks.respondToTask(taskId, task, attestation, certificate);
        _next(1);
    }

    function _intent() private view returns (Intent memory) {
        return Intent(CLIENT, STRANGER, 1 ether, "", block.chainid, "");
    }

    function _epoch() private pure returns (KeyEpoch memory) {
        return KeyEpoch(keccak256("msk"), 1, keccak256("secrets"), keccak256("privacy"));
    }
}
