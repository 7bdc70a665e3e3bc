// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ArtifactRef, IPolicyDataRegistry, PolicyDataInstance, PolicyDataTemplate} from "../src/interfaces/INewton.sol";
import {Ids} from "../src/libraries/Ids.sol";
import {Suite} from "./utils/Suite.sol";
import {vm} from "./utils/Vm.sol";

contract PolicyDataRegistryTest is Suite {
    function setUp() public override {
        super.setUp();
        _registerClient();
    }

    function test_a_template_is_stored_announced_and_counted() public {
        bytes32 id = data.computeTemplateId(keccak256("wasm a"), keccak256("params"), keccak256("secrets"));
        vm.expectEmit(address(data));
        emit IPolicyDataRegistry.PolicyDataTemplateRegistered(
            id, AUTHOR, _artifact("wasm a"), _artifact("params"), _artifact("secrets"), _daRefs(3)
        );
        vm.assertEq(_registerDataTemplate("a"), id, "id");
        PolicyDataTemplate memory row = data.templates(id);
        vm.assertEq(row.wasm.artifactHash, keccak256("wasm a"), "wasm");
        vm.assertEq(row.wasm.byteLength, 6, "wasm length");
        vm.assertEq(row.paramsSchema.artifactHash, keccak256("params"), "params");
        vm.assertEq(row.paramsSchema.byteLength, 6, "params length");
        vm.assertEq(row.secretsSchema.artifactHash, keccak256("secrets"), "secrets");
        vm.assertEq(row.secretsSchema.byteLength, 7, "secrets length");
        vm.assertEq(row.author, AUTHOR, "author");
        vm.assertEq(row.registeredAt, _number(), "registered at");
        vm.assertEq(commits.authorBacklog(AUTHOR), 19, "backlog");
        vm.assertEq(data.templates(keccak256("unknown")).registeredAt, 0, "unknown");

        vm.prank(AUTHOR);
        vm.expectRevert(abi.encodeWithSelector(IPolicyDataRegistry.TemplateAlreadyRegistered.selector, id));
        data.registerTemplate(_artifact("wasm a"), _artifact("params"), _artifact("secrets"), _daRefs(3));
    }

    function test_artifacts_are_there_or_absent_and_have_a_reference_each() public {
        vm.expectRevert(abi.encodeWithSelector(IPolicyDataRegistry.InvalidArtifactHash.selector, Ids.ABSENT, 0));
        data.registerTemplate(_absent(), _absent(), _absent(), _daRefs(0));
        vm.expectRevert(abi.encodeWithSelector(IPolicyDataRegistry.InvalidArtifactHash.selector, bytes32(0), 0));
        data.registerTemplate(_artifact("wasm"), ArtifactRef(0, 0), _absent(), _daRefs(1));
        vm.expectRevert(abi.encodeWithSelector(IPolicyDataRegistry.DaRefCount.selector, 2, 3));
        data.registerTemplate(_artifact("wasm"), _absent(), _artifact("secrets"), _daRefs(3));
        data.registerTemplate(_artifact("wasm"), _absent(), _artifact("secrets"), _daRefs(2));
    }

    function test_supplied_artifacts_are_of_this_registrys_namespaces() public {
        for (uint8 namespace = 6; namespace <= 8; ++namespace) {
            vm.expectEmit(address(data));
            emit IPolicyDataRegistry.ArtifactSupplied(namespace, keccak256("x"), address(this), 1, "reference");
            data.supplyArtifact(namespace, keccak256("x"), 1, "reference");
        }
        vm.expectRevert(abi.encodeWithSelector(IPolicyDataRegistry.UnknownNamespace.selector, 5));
        data.supplyArtifact(5, keccak256("x"), 1, "reference");
        vm.expectRevert(abi.encodeWithSelector(IPolicyDataRegistry.UnknownNamespace.selector, 9));
        data.supplyArtifact(9, keccak256("x"), 1, "reference");
        vm.expectRevert(abi.encodeWithSelector(IPolicyDataRegistry.InvalidArtifactHash.selector, Ids.ABSENT, 0));
        data.supplyArtifact(6, Ids.ABSENT, 0, "reference");
    }

    function test_an_instance_fills_its_own_clients_slot() public {
        bytes32 templateId = _registerDataTemplate("a");
        bytes32 id = data.computeInstanceId(CLIENT, templateId, "{}", 50);
        vm.expectEmit(address(data));
        emit IPolicyDataRegistry.PolicyDataInstanceDeployed(id, CLIENT, templateId, "{}", 50, CLIENT_OWNER);
        vm.expectEmit(address(data));
        emit IPolicyDataRegistry.CurrentPolicyDataInstanceSet(CLIENT, templateId, id);
        vm.prank(CLIENT_OWNER);
        data.deployInstance(CLIENT, templateId, "{}", 50, true);
        PolicyDataInstance memory row = data.instances(id);
        vm.assertEq(row.templateId, templateId, "template");
        vm.assertEq(row.client, CLIENT, "client");
        vm.assertEq(row.paramsHash, keccak256(abi.encode(uint64(50), bytes("{}"))), "params hash");
        vm.assertEq(row.expireAfter, 50, "expire after");
        vm.assertEq(data.currentPolicyDataInstance(CLIENT, templateId), id, "slot");
        vm.assertEq(data.instances(keccak256("unknown")).registeredAt, 0, "unknown");

        vm.prank(CLIENT_OWNER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyDataRegistry.InstanceAlreadyDeployed.selector, id));
        data.deployInstance(CLIENT, templateId, "{}", 50, true);

        vm.prank(STRANGER);
        clients.registerClient(STRANGER, STRANGER);
        vm.prank(STRANGER);
        vm.expectRevert(
            abi.encodeWithSelector(IPolicyDataRegistry.InstanceOfOtherClient.selector, id, STRANGER, CLIENT)
        );
        data.setCurrent(STRANGER, id);
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyDataRegistry.UnauthorizedClient.selector, CLIENT, STRANGER));
        data.setCurrent(CLIENT, id);
        vm.prank(CLIENT_OWNER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyDataRegistry.MissingInstance.selector, keccak256("unknown")));
        data.setCurrent(CLIENT, keccak256("unknown"));
    }

    function test_two_clients_swap_one_slot_independently() public {
        bytes32 templateId = _registerDataTemplate("a");
        vm.prank(STRANGER);
        clients.registerClient(STRANGER, STRANGER);
        vm.prank(CLIENT_OWNER);
        bytes32 mine = data.deployInstance(CLIENT, templateId, "{}", 50, true);
        vm.startPrank(STRANGER);
        bytes32 theirs = data.deployInstance(STRANGER, templateId, "{}", 50, true);
        bytes32 later = data.deployInstance(STRANGER, templateId, "{\"b\":1}", 50, false);
        vm.assertTrue(mine != theirs, "an instance per client");
        data.setCurrent(STRANGER, later);
        vm.stopPrank();
        vm.assertEq(data.currentPolicyDataInstance(CLIENT, templateId), mine, "mine");
        vm.assertEq(data.currentPolicyDataInstance(STRANGER, templateId), later, "theirs");
    }

    function test_what_an_instance_must_not_be() public {
        bytes32 templateId = _registerDataTemplate("a");
        vm.startPrank(CLIENT_OWNER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyDataRegistry.ExpireAfterZero.selector));
        data.deployInstance(CLIENT, templateId, "", 0, true);
        vm.expectRevert(abi.encodeWithSelector(IPolicyDataRegistry.ExpireAfterTooLong.selector, 1_000_001, 1_000_000));
        data.deployInstance(CLIENT, templateId, "", 1_000_001, true);
        vm.expectRevert(abi.encodeWithSelector(IPolicyDataRegistry.ParamsTooLarge.selector, 16_385, 16_384));
        data.deployInstance(CLIENT, templateId, new bytes(16_385), 50, true);
        vm.expectRevert(abi.encodeWithSelector(IPolicyDataRegistry.MissingTemplate.selector, keccak256("unknown")));
        data.deployInstance(CLIENT, keccak256("unknown"), "", 50, true);
        vm.stopPrank();
        bytes32 plain = data.registerTemplate(_artifact("wasm"), _absent(), _absent(), _daRefs(1));
        vm.startPrank(CLIENT_OWNER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyDataRegistry.ParamsWithoutSchema.selector, plain));
        data.deployInstance(CLIENT, plain, "{}", 50, true);
        bytes32 id = data.deployInstance(CLIENT, plain, "", 50, true);
        vm.expectRevert(abi.encodeWithSelector(IPolicyDataRegistry.SecretsWithoutSchema.selector, plain));
        data.setSecrets(id, _artifact("envelope"), "reference");
        vm.stopPrank();
    }

    function test_secrets_are_posted_by_the_owner_or_a_delegate_and_counted() public {
        bytes32 templateId = _registerDataTemplate("a");
        vm.startPrank(CLIENT_OWNER);
        bytes32 id = data.deployInstance(CLIENT, templateId, "", 50, true);
        clients.setDeployer(CLIENT, DEPLOYER, true);
        vm.expectEmit(address(data));
        emit IPolicyDataRegistry.SecretsSet(id, CLIENT, CLIENT_OWNER, true, _artifact("envelope 1"), "reference", 1);
        data.setSecrets(id, _artifact("envelope 1"), "reference");
        vm.stopPrank();
        vm.expectEmit(address(data));
        emit IPolicyDataRegistry.SecretsSet(id, CLIENT, DEPLOYER, false, _artifact("envelope 2"), "reference", 2);
        vm.prank(DEPLOYER);
        data.setSecrets(id, _artifact("envelope 2"), "reference");
        vm.assertEq(data.secretsCount(id), 2, "count");
        vm.assertEq(commits.authorBacklog(DEPLOYER), 10, "backlog");

        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyDataRegistry.UnauthorizedClient.selector, CLIENT, STRANGER));
        data.setSecrets(id, _artifact("envelope 3"), "reference");
        vm.prank(CLIENT_OWNER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyDataRegistry.InvalidArtifactHash.selector, Ids.ABSENT, 0));
        data.setSecrets(id, _absent(), "reference");
        vm.prank(CLIENT_OWNER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyDataRegistry.MissingInstance.selector, keccak256("unknown")));
        data.setSecrets(keccak256("unknown"), _artifact("envelope 3"), "reference");
    }
}
