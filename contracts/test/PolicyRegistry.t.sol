// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IAllowlistGuard} from "../src/interfaces/IGovernance.sol";
import {
    ArtifactRef,
    IPolicyRegistry,
    IStateCommitRegistry,
    PolicyInstance,
    PolicyTemplate
} from "../src/interfaces/INewton.sol";
import {Ids} from "../src/libraries/Ids.sol";
import {Suite} from "./utils/Suite.sol";
import {vm} from "./utils/Vm.sol";

contract PolicyRegistryTest is Suite {
    bytes32[] private none;

    function setUp() public override {
        super.setUp();
        _registerClient();
    }

    function test_a_template_is_stored_announced_and_counted() public {
        bytes32[] memory refs = new bytes32[](2);
        (refs[0], refs[1]) = (bytes32(uint256(1)), keccak256("not registered yet"));
        bytes32 id = policies.computeTemplateId(keccak256("rego"), keccak256("params"), "vault.allow", refs);
        vm.expectEmit(address(policies));
        emit IPolicyRegistry.PolicyTemplateRegistered(
            id, AUTHOR, _artifact("rego"), _artifact("params"), "vault.allow", refs, _daRefs(2)
        );
        vm.assertEq(_registerTemplate(refs), id, "id");

        PolicyTemplate memory row = policies.templates(id);
        vm.assertEq(row.rego.artifactHash, keccak256("rego"), "rego");
        vm.assertEq(row.rego.byteLength, 4, "rego length");
        vm.assertEq(row.paramsSchema.artifactHash, keccak256("params"), "schema");
        vm.assertEq(row.paramsSchema.byteLength, 6, "schema length");
        vm.assertEq(row.entrypoint, "vault.allow", "entrypoint");
        vm.assertEq(row.dataTemplateRefs.length, 2, "refs");
        vm.assertEq(row.dataTemplateRefs[0], refs[0], "ref 0");
        vm.assertEq(row.dataTemplateRefs[1], refs[1], "ref 1");
        vm.assertEq(row.author, AUTHOR, "author");
        vm.assertEq(row.registeredAt, _number(), "registered at");
        vm.assertEq(commits.authorBacklog(AUTHOR), 10, "backlog");
        vm.assertEq(policies.templates(keccak256("unknown")).registeredAt, 0, "unknown");
    }

    function testFuzz_rows_hold_what_was_registered(
        bytes32 regoHash,
        uint32 length,
        bytes32 schemaHash,
        uint8 entrypointLength,
        uint8 refCount
    ) public {
        vm.assume(regoHash != 0 && regoHash != Ids.ABSENT && schemaHash != 0 && schemaHash != Ids.ABSENT);
        length = length % 25_165_824 + 1;
        bytes memory entrypoint = new bytes(uint256(entrypointLength) % 255 + 1);
        for (uint256 i = 0; i < entrypoint.length; ++i) {
            entrypoint[i] = "e";
        }
        bytes32[] memory refs = new bytes32[](refCount % 33);
        for (uint256 i = 0; i < refs.length; ++i) {
            refs[i] = bytes32((i + 1) << 200);
        }
        vm.prank(AUTHOR);
        bytes32 id = policies.registerTemplate(
            ArtifactRef(regoHash, length), ArtifactRef(schemaHash, 1), string(entrypoint), refs, _daRefs(2)
        );
        PolicyTemplate memory row = policies.templates(id);
        vm.assertEq(row.rego.artifactHash, regoHash, "rego");
        vm.assertEq(row.rego.byteLength, length, "length");
        vm.assertEq(row.paramsSchema.artifactHash, schemaHash, "schema");
        vm.assertEq(row.entrypoint, string(entrypoint), "entrypoint");
        vm.assertEq(keccak256(abi.encode(row.dataTemplateRefs)), keccak256(abi.encode(refs)), "refs");
        vm.assertEq(
            id,
            policies.computeTemplateId(
                row.rego.artifactHash, row.paramsSchema.artifactHash, row.entrypoint, row.dataTemplateRefs
            ),
            "the id can be recomputed from the row"
        );
    }

    function test_what_a_template_must_not_be() public {
        _registerTemplate(none);
        bytes32 id = policies.computeTemplateId(keccak256("rego"), keccak256("params"), "vault.allow", none);
        _refused(abi.encodeWithSelector(IPolicyRegistry.TemplateAlreadyRegistered.selector, id));
        policies.registerTemplate(_artifact("rego"), _artifact("params"), "vault.allow", none, _daRefs(2));

        _refused(abi.encodeWithSelector(IPolicyRegistry.InvalidArtifactHash.selector, Ids.ABSENT, 0));
        policies.registerTemplate(_absent(), _artifact("params"), "vault.allow", none, _daRefs(1));
        _refused(abi.encodeWithSelector(IPolicyRegistry.InvalidArtifactHash.selector, Ids.ABSENT, 1));
        policies.registerTemplate(_artifact("rego"), ArtifactRef(Ids.ABSENT, 1), "vault.allow", none, _daRefs(2));
        _refused(abi.encodeWithSelector(IPolicyRegistry.InvalidArtifactHash.selector, bytes32(0), 4));
        policies.registerTemplate(ArtifactRef(0, 4), _absent(), "vault.allow", none, _daRefs(1));
        _refused(abi.encodeWithSelector(IPolicyRegistry.InvalidArtifactHash.selector, keccak256("rego"), 0));
        policies.registerTemplate(ArtifactRef(keccak256("rego"), 0), _absent(), "vault.allow", none, _daRefs(1));

        _refused(abi.encodeWithSelector(IPolicyRegistry.DaRefCount.selector, 1, 2));
        policies.registerTemplate(_artifact("rego 2"), _absent(), "vault.allow", none, _daRefs(2));
        _refused(abi.encodeWithSelector(IPolicyRegistry.DaRefCount.selector, 2, 1));
        policies.registerTemplate(_artifact("rego 2"), _artifact("params"), "vault.allow", none, _daRefs(1));

        _refused(abi.encodeWithSelector(IPolicyRegistry.EntrypointLength.selector, 0, 255));
        policies.registerTemplate(_artifact("rego 2"), _absent(), "", none, _daRefs(1));
        _refused(abi.encodeWithSelector(IPolicyRegistry.EntrypointLength.selector, 256, 255));
        policies.registerTemplate(_artifact("rego 2"), _absent(), string(new bytes(256)), none, _daRefs(1));

        bytes32[] memory refs = new bytes32[](2);
        (refs[0], refs[1]) = (bytes32(uint256(2)), bytes32(uint256(1)));
        _refused(abi.encodeWithSelector(IPolicyRegistry.RefsNotSorted.selector, 1));
        policies.registerTemplate(_artifact("rego 2"), _absent(), "vault.allow", refs, _daRefs(1));
        refs[1] = refs[0];
        _refused(abi.encodeWithSelector(IPolicyRegistry.RefsNotSorted.selector, 1));
        policies.registerTemplate(_artifact("rego 2"), _absent(), "vault.allow", refs, _daRefs(1));
        _refused(abi.encodeWithSelector(IPolicyRegistry.RefsNotSorted.selector, 0));
        policies.registerTemplate(_artifact("rego 2"), _absent(), "vault.allow", new bytes32[](1), _daRefs(1));
        _refused(abi.encodeWithSelector(IPolicyRegistry.TooManyDataTemplates.selector, 33, 32));
        policies.registerTemplate(_artifact("rego 2"), _absent(), "vault.allow", new bytes32[](33), _daRefs(1));

        uint32 tooLong = _parameters().maxArtifactBytes + 1;
        _refused(abi.encodeWithSelector(IStateCommitRegistry.ArtifactTooLarge.selector, tooLong, tooLong - 1));
        policies.registerTemplate(ArtifactRef(keccak256("big"), tooLong), _absent(), "vault.allow", none, _daRefs(1));
    }

    function test_a_dead_reference_can_be_replaced_by_anyone() public {
        vm.expectEmit(address(policies));
        emit IPolicyRegistry.ArtifactSupplied(4, keccak256("rego"), STRANGER, 4, "reference");
        vm.prank(STRANGER);
        policies.supplyArtifact(4, keccak256("rego"), 4, "reference");
        vm.assertEq(commits.authorBacklog(STRANGER), 4, "backlog");

        vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.UnknownNamespace.selector, 6));
        policies.supplyArtifact(6, keccak256("rego"), 4, "reference");
        vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.InvalidArtifactHash.selector, Ids.ABSENT, 0));
        policies.supplyArtifact(5, Ids.ABSENT, 0, "reference");
    }

    function test_an_instance_is_stored_announced_and_pointed_to() public {
        bytes32 templateId = _registerTemplate(none);
        bytes32 id = policies.computeInstanceId(CLIENT, templateId, "{\"a\":1}", 50);
        vm.expectEmit(address(policies));
        emit IPolicyRegistry.PolicyInstanceDeployed(id, CLIENT, templateId, "{\"a\":1}", 50, CLIENT_OWNER);
        vm.expectEmit(address(policies));
        emit IPolicyRegistry.CurrentPolicyInstanceSet(CLIENT, id);
        vm.prank(CLIENT_OWNER);
        vm.assertEq(policies.deployInstance(CLIENT, templateId, "{\"a\":1}", 50, true), id, "id");

        PolicyInstance memory row = policies.instances(id);
        vm.assertEq(row.templateId, templateId, "template");
        vm.assertEq(row.client, CLIENT, "client");
        vm.assertEq(row.paramsHash, keccak256(abi.encode(uint64(50), bytes("{\"a\":1}"))), "params hash");
        vm.assertEq(row.expireAfter, 50, "expire after");
        vm.assertEq(row.registeredAt, _number(), "registered at");
        vm.assertEq(policies.currentPolicyInstance(CLIENT), id, "current");
        vm.assertEq(policies.instances(keccak256("unknown")).registeredAt, 0, "unknown");
        (bytes32 current, uint64 newest, bytes32[] memory slots) = policies.currentBinding(CLIENT);
        vm.assertEq(current, id, "binding");
        vm.assertEq(newest, _number(), "newest");
        vm.assertEq(slots.length, 0, "slots");

        vm.prank(CLIENT_OWNER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.InstanceAlreadyDeployed.selector, id));
        policies.deployInstance(CLIENT, templateId, "{\"a\":1}", 50, false);
        // Another expiry is another instance; not pointed to unless asked.
        vm.prank(CLIENT_OWNER);
        bytes32 other = policies.deployInstance(CLIENT, templateId, "{\"a\":1}", 51, false);
        vm.assertTrue(other != id, "other id");
        vm.assertEq(policies.currentPolicyInstance(CLIENT), id, "still");
        vm.prank(CLIENT_OWNER);
        policies.setCurrent(CLIENT, other);
        vm.assertEq(policies.currentPolicyInstance(CLIENT), other, "changed");
    }

    function test_what_an_instance_must_not_be() public {
        bytes32 templateId = _registerTemplate(none);
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.UnauthorizedClient.selector, CLIENT, STRANGER));
        policies.deployInstance(CLIENT, templateId, "", 50, true);
        // The client itself is not its owner.
        vm.prank(CLIENT);
        vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.UnauthorizedClient.selector, CLIENT, CLIENT));
        policies.deployInstance(CLIENT, templateId, "", 50, true);

        vm.startPrank(CLIENT_OWNER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.ExpireAfterZero.selector));
        policies.deployInstance(CLIENT, templateId, "", 0, true);
        vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.ExpireAfterTooLong.selector, 1_000_001, 1_000_000));
        policies.deployInstance(CLIENT, templateId, "", 1_000_001, true);
        vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.ParamsTooLarge.selector, 16_385, 16_384));
        policies.deployInstance(CLIENT, templateId, new bytes(16_385), 50, true);
        policies.deployInstance(CLIENT, templateId, new bytes(16_384), 50, true);
        vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.MissingTemplate.selector, keccak256("unknown")));
        policies.deployInstance(CLIENT, keccak256("unknown"), "", 50, true);
        vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.MissingInstance.selector, keccak256("unknown")));
        policies.setCurrent(CLIENT, keccak256("unknown"));
        vm.stopPrank();

        vm.prank(AUTHOR);
        bytes32 plain = policies.registerTemplate(_artifact("rego 2"), _absent(), "a", none, _daRefs(1));
        vm.startPrank(CLIENT_OWNER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.ParamsWithoutSchema.selector, plain));
        policies.deployInstance(CLIENT, plain, "{}", 50, true);
        policies.deployInstance(CLIENT, plain, "", 50, true);
        vm.stopPrank();
    }

    function test_any_order_but_nothing_missing_in_the_end() public {
        bytes32 dataTemplateId = data.computeTemplateId(keccak256("wasm a"), keccak256("params"), keccak256("secrets"));
        bytes32 templateId = _registerTemplate(_one(dataTemplateId));
        vm.startPrank(CLIENT_OWNER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.MissingDataTemplate.selector, dataTemplateId));
        policies.deployInstance(CLIENT, templateId, "", 50, false);
        vm.stopPrank();

        vm.assertEq(_registerDataTemplate("a"), dataTemplateId, "id");
        vm.startPrank(CLIENT_OWNER);
        bytes32 id = policies.deployInstance(CLIENT, templateId, "", 50, false);
        vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.MissingPolicyDataInstance.selector, dataTemplateId));
        policies.setCurrent(CLIENT, id);
        bytes32 dataId = data.deployInstance(CLIENT, dataTemplateId, "", 50, true);
        policies.setCurrent(CLIENT, id);
        vm.stopPrank();
        (,, bytes32[] memory slots) = policies.currentBinding(CLIENT);
        vm.assertEq(slots[0], dataId, "slot");
    }

    function test_a_client_points_only_to_its_own_instances() public {
        bytes32 templateId = _registerTemplate(none);
        vm.prank(CLIENT_OWNER);
        bytes32 id = policies.deployInstance(CLIENT, templateId, "", 50, true);
        vm.prank(STRANGER);
        clients.registerClient(STRANGER, STRANGER);
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.InstanceOfOtherClient.selector, id, STRANGER, CLIENT));
        policies.setCurrent(STRANGER, id);
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyRegistry.UnauthorizedClient.selector, CLIENT, STRANGER));
        policies.setCurrent(CLIENT, id);
    }

    function test_guarded_registries_let_only_the_listed_through() public {
        IAllowlistGuard guard = IAllowlistGuard(address(policies));
        vm.startPrank(GOVERNANCE);
        guard.setTemplateRegistrationPermissionless(false);
        guard.setInstanceDeploymentPermissionless(false);
        vm.stopPrank();
        vm.assertTrue(!guard.templateRegistrationPermissionless(), "templates");
        vm.assertTrue(!guard.instanceDeploymentPermissionless(), "instances");

        _refused(abi.encodeWithSelector(IAllowlistGuard.UnauthorizedTemplateAuthor.selector, AUTHOR));
        policies.registerTemplate(_artifact("rego"), _artifact("params"), "vault.allow", none, _daRefs(2));
        _refused(abi.encodeWithSelector(IAllowlistGuard.UnauthorizedTemplateAuthor.selector, AUTHOR));
        policies.supplyArtifact(4, keccak256("rego"), 4, "reference");
        vm.expectEmit(address(policies));
        emit IAllowlistGuard.TemplateAuthorSet(AUTHOR, true);
        vm.prank(GOVERNANCE);
        guard.setTemplateAuthor(AUTHOR, true);
        vm.assertTrue(guard.templateAuthors(AUTHOR), "author");
        bytes32 templateId = _registerTemplate(none);

        vm.prank(CLIENT_OWNER);
        vm.expectRevert(abi.encodeWithSelector(IAllowlistGuard.UnauthorizedInstanceDeployer.selector, CLIENT_OWNER));
        policies.deployInstance(CLIENT, templateId, "", 50, true);
        vm.expectEmit(address(policies));
        emit IAllowlistGuard.InstanceDeployerSet(CLIENT_OWNER, true);
        vm.prank(GOVERNANCE);
        guard.setInstanceDeployer(CLIENT_OWNER, true);
        vm.assertTrue(guard.instanceDeployers(CLIENT_OWNER), "deployer");
        vm.prank(CLIENT_OWNER);
        policies.deployInstance(CLIENT, templateId, "", 50, true);

        vm.startPrank(STRANGER);
        bytes memory notOwner = abi.encodeWithSignature("OwnableUnauthorizedAccount(address)", STRANGER);
        vm.expectRevert(notOwner);
        guard.setTemplateRegistrationPermissionless(true);
        vm.expectRevert(notOwner);
        guard.setInstanceDeploymentPermissionless(true);
        vm.expectRevert(notOwner);
        guard.setTemplateAuthor(STRANGER, true);
        vm.expectRevert(notOwner);
        guard.setInstanceDeployer(STRANGER, true);
        vm.stopPrank();
    }

    function _refused(bytes memory reason) private {
        vm.prank(AUTHOR);
        vm.expectRevert(reason);
    }
}
