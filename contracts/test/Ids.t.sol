// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {
    DeltaEntry,
    EnclaveAdmission,
    Intent,
    KeyEpoch,
    PolicyAttestation,
    SealedSnapshot,
    SkipUnavailable,
    StateCommit,
    Task
} from "../src/interfaces/INewton.sol";
import {ResultOutcome} from "../src/interfaces/IResultVerifier.sol";
import {Ids} from "../src/libraries/Ids.sol";
import {Suite} from "./utils/Suite.sol";
import {vm} from "./utils/Vm.sol";

/// @dev The Rust side writes tests/vectors/ids.json; digests are asked from the contracts' own code, put at the address and
/// chain id of the vectors' domain.
contract IdsTest is Suite {
    string private json;
    address private scope;

    function setUp() public override {
        super.setUp();
        json = vm.readFile("../tests/vectors/ids.json");
        scope = vm.parseJsonAddress(json, ".scope.verifyingContract");
        vm.chainId(vm.parseJsonUint(json, ".scope.chainId"));
    }

    function test_absent() public view {
        vm.assertEq(Ids.ABSENT, vm.parseJsonBytes32(json, ".absent"), "ABSENT");
    }

    function test_ids() public {
        uint256 i;
        for (; vm.keyExistsJson(json, _at("ids", i)); ++i) {
            string memory at_ = _at("ids", i);
            vm.chainId(vm.parseUint(_string(at_, "chainId")));
            address client = vm.parseJsonAddress(json, string.concat(at_, ".client"));
            uint64 expireAfter = uint64(vm.parseUint(_string(at_, "expireAfter")));
            bytes memory params = vm.parseJsonBytes(json, string.concat(at_, ".params"));
            bytes32 templateId = policies.computeTemplateId(
                _word(at_, "regoHash"),
                _word(at_, "paramsSchemaHash"),
                _string(at_, "entrypoint"),
                vm.parseJsonBytes32Array(json, string.concat(at_, ".dataTemplateRefs"))
            );
            vm.assertEq(templateId, _word(at_, "policyTemplateId"), "policyTemplateId");
            bytes32 dataTemplateId = data.computeTemplateId(
                _word(at_, "wasmHash"), _word(at_, "paramsSchemaHash"), _word(at_, "secretsSchemaHash")
            );
            vm.assertEq(dataTemplateId, _word(at_, "policyDataTemplateId"), "policyDataTemplateId");
            vm.assertEq(Ids.params(expireAfter, params), _word(at_, "paramsHash"), "paramsHash");
            vm.assertEq(
                policies.computeInstanceId(client, templateId, params, expireAfter),
                _word(at_, "policyInstanceId"),
                "policyInstanceId"
            );
            vm.assertEq(
                data.computeInstanceId(client, dataTemplateId, params, expireAfter),
                _word(at_, "policyDataInstanceId"),
                "policyDataInstanceId"
            );
        }
        vm.assertGe(i, 4, "vectors");
    }

    function test_task_ids() public view {
        uint256 i;
        for (; vm.keyExistsJson(json, _at("taskIds", i)); ++i) {
            string memory at_ = _at("taskIds", i);
            bytes32 id = Ids.task(
                vm.parseUint(_string(at_, "chainId")),
                vm.parseJsonAddress(json, string.concat(at_, ".taskManager")),
                uint64(vm.parseUint(_string(at_, "nonce"))),
                vm.parseJsonAddress(json, string.concat(at_, ".client")),
                _word(at_, "parentBlockHash"),
                _word(at_, "intentHash"),
                _word(at_, "wasmArgsHash")
            );
            vm.assertEq(id, _word(at_, "taskId"), "taskId");
        }
        vm.assertGe(i, 4, "vectors");
    }

    function test_state_commit_digests() public {
        _place(address(commits));
        for (uint256 i = 0; i < _count("stateCommits"); ++i) {
            StateCommit memory value = abi.decode(_encoded("stateCommits", i), (StateCommit));
            vm.assertEq(abi.encode(value), _encoded("stateCommits", i), "encoding");
            (bool ok, bytes memory digest) = scope.staticcall(abi.encodeCall(commits.commitDigest, (value)));
            _same(ok, digest, "stateCommits", i);
        }
    }

    function test_attestation_digests() public {
        _place(address(tasks));
        for (uint256 i = 0; i < _count("attestations"); ++i) {
            PolicyAttestation memory value = abi.decode(_encoded("attestations", i), (PolicyAttestation));
            vm.assertEq(value.data.length, i, "a vector for each number of bindings");
            (bool ok, bytes memory digest) = scope.staticcall(abi.encodeCall(tasks.attestationDigest, (value)));
            _same(ok, digest, "attestations", i);
        }
    }

    function test_admission_digests() public {
        _place(address(operators));
        for (uint256 i = 0; i < _count("admissions"); ++i) {
            EnclaveAdmission memory value = abi.decode(_encoded("admissions", i), (EnclaveAdmission));
            (bool ok, bytes memory digest) = scope.staticcall(abi.encodeCall(operators.admissionDigest, (value)));
            _same(ok, digest, "admissions", i);
        }
        // The proof of possession's message, as the registry computes it for an operator.
        bytes32 message = keccak256(
            abi.encode(
                vm.parseJsonAddress(json, ".possession.owner"),
                block.chainid,
                scope,
                vm.parseJsonBytes32(json, ".possession.blsKeyHash")
            )
        );
        vm.assertEq(message, vm.parseJsonBytes32(json, ".possession.message"), "possession");
    }

    function test_skip_digests() public {
        _place(address(commits));
        for (uint256 i = 0; i < _count("skips"); ++i) {
            SkipUnavailable memory value = abi.decode(_encoded("skips", i), (SkipUnavailable));
            (bool ok, bytes memory digest) = scope.staticcall(abi.encodeCall(commits.skipDigest, (value)));
            _same(ok, digest, "skips", i);
        }
    }

    function test_snapshot_digests() public {
        _place(address(commits));
        for (uint256 i = 0; i < _count("snapshots"); ++i) {
            SealedSnapshot memory value = abi.decode(_encoded("snapshots", i), (SealedSnapshot));
            (bool ok, bytes memory digest) = scope.staticcall(abi.encodeCall(commits.snapshotDigest, (value)));
            _same(ok, digest, "snapshots", i);
        }
    }

    function test_key_epoch_digests() public {
        _place(address(keys));
        for (uint256 i = 0; i < _count("keyEpochs"); ++i) {
            KeyEpoch memory value = abi.decode(_encoded("keyEpochs", i), (KeyEpoch));
            (bool ok, bytes memory digest) = scope.staticcall(abi.encodeCall(keys.keyEpochDigest, (value)));
            _same(ok, digest, "keyEpochs", i);
        }
    }

    function test_result_outcome_digests() public {
        _place(address(reexecution));
        for (uint256 i = 0; i < _count("resultOutcomes"); ++i) {
            ResultOutcome memory value = abi.decode(_encoded("resultOutcomes", i), (ResultOutcome));
            (bool ok, bytes memory digest) = scope.staticcall(abi.encodeCall(reexecution.outcomeDigest, (value)));
            _same(ok, digest, "resultOutcomes", i);
        }
    }

    function test_intents_tasks_and_deltas() public view {
        for (uint256 i = 0; i < _count("intents"); ++i) {
            Intent memory value = abi.decode(_encoded("intents", i), (Intent));
            vm.assertEq(tasks.hashIntent(value), _word(_at("intents", i), "digest"), "intentHash");
        }
        for (uint256 i = 0; i < _count("tasks"); ++i) {
            Task memory value = abi.decode(_encoded("tasks", i), (Task));
            vm.assertEq(keccak256(abi.encode(value)), _word(_at("tasks", i), "digest"), "taskHash");
        }
        for (uint256 i = 0; i < _count("deltas"); ++i) {
            DeltaEntry[] memory value = abi.decode(_encoded("deltas", i), (DeltaEntry[]));
            vm.assertEq(keccak256(abi.encode(value)), _word(_at("deltas", i), "hash"), "deltaHash");
        }
    }

    /// @dev Puts the code behind a proxy at the domain's address.
    function _place(address proxy) private {
        bytes32 slot = bytes32(uint256(keccak256("eip1967.proxy.implementation")) - 1);
        vm.etch(scope, address(uint160(uint256(vm.load(proxy, slot)))).code);
    }

    function _same(bool ok, bytes memory got, string memory section, uint256 i) private view {
        vm.assertTrue(ok, section);
        vm.assertEq(abi.decode(got, (bytes32)), _word(_at(section, i), "digest"), section);
    }

    function _count(string memory section) private view returns (uint256 count) {
        while (vm.keyExistsJson(json, _at(section, count))) ++count;
        vm.assertGe(count, 1, section);
    }

    function _encoded(string memory section, uint256 i) private view returns (bytes memory) {
        return vm.parseJsonBytes(json, string.concat(_at(section, i), ".encoded"));
    }

    function _at(string memory section, uint256 i) private pure returns (string memory) {
        return string.concat(".", section, "[", vm.toString(i), "]");
    }

    function _word(string memory at_, string memory field) private view returns (bytes32) {
        return vm.parseJsonBytes32(json, string.concat(at_, ".", field));
    }

    function _string(string memory at_, string memory field) private view returns (string memory) {
        return vm.parseJsonString(json, string.concat(at_, ".", field));
    }
}
