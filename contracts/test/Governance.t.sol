// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {
    EnclaveVersion,
    IEnclaveVersionRegistry,
    IPausableByRole,
    IPolicyClientRegistry
} from "../src/interfaces/IGovernance.sol";
import {Certificate, ICertificateVerifier, IKeyRegistry, KeyEpoch} from "../src/interfaces/INewton.sol";
import {ChainBlock, IArbSys} from "../src/libraries/ChainBlock.sol";
import {RowStore} from "../src/libraries/RowStore.sol";
import {Suite} from "./utils/Suite.sol";
import {vm} from "./utils/Vm.sol";

contract EnclaveVersionRegistryTest is Suite {
    function test_a_version_is_active_after_the_delay_until_deprecated_or_revoked() public {
        uint64 from = uint64(_number()) + ACTIVATION_DELAY;
        bytes memory pcrs = bytes.concat(_pcr("new"), _pcr("kernel"), _pcr("application"));
        vm.expectEmit(address(versions));
        emit IEnclaveVersionRegistry.VersionProposed(keccak256(_pcr("new")), pcrs, keccak256("source"), "new", from);
        bytes32 id = _propose("new");
        EnclaveVersion memory version = versions.versions(id);
        vm.assertEq(version.pcr1Hash, keccak256(_pcr("kernel")), "pcr1");
        vm.assertEq(version.pcr2Hash, keccak256(_pcr("application")), "pcr2");
        vm.assertEq(version.label, "new", "label");
        vm.assertEq(version.activeFrom, from, "active from");
        vm.assertTrue(!versions.isActive(id), "not yet");
        vm.assertTrue(!versions.wasActiveAt(id, from - 1), "before");
        vm.assertTrue(versions.wasActiveAt(id, from), "at");
        vm.roll(from);
        vm.assertTrue(versions.isActive(id), "now");

        vm.prank(GOVERNANCE);
        versions.deprecateVersion(id, 10);
        vm.assertTrue(versions.wasActiveAt(id, from + 9), "grace");
        vm.assertTrue(!versions.wasActiveAt(id, from + 10), "deprecated");
        vm.prank(GOVERNANCE);
        vm.expectRevert(
            abi.encodeWithSelector(IEnclaveVersionRegistry.VersionAlreadyDeprecated.selector, id, from + 10)
        );
        versions.deprecateVersion(id, 1);

        vm.roll(from + 3);
        vm.prank(EMERGENCY);
        versions.revokeVersion(id);
        vm.assertTrue(versions.isActive(id), "until the next block");
        vm.assertTrue(versions.wasActiveAt(id, from + 1), "the past stays");
        vm.roll(from + 4);
        vm.assertTrue(!versions.isActive(id), "revoked");
        vm.prank(EMERGENCY);
        vm.expectRevert(abi.encodeWithSelector(IEnclaveVersionRegistry.VersionIsRevoked.selector, id));
        versions.revokeVersion(id);
        vm.prank(GOVERNANCE);
        vm.expectRevert(abi.encodeWithSelector(IEnclaveVersionRegistry.VersionIsRevoked.selector, id));
        versions.deprecateVersion(id, 1);
        vm.prank(GOVERNANCE);
        vm.expectRevert(abi.encodeWithSelector(IEnclaveVersionRegistry.VersionAlreadyProposed.selector, id));
        versions.proposeVersion(_pcr("new"), _pcr("kernel"), _pcr("application"), 0, "again");
    }

    function test_pcrs_are_48_bytes_and_not_those_of_debug_mode() public {
        vm.startPrank(GOVERNANCE);
        vm.expectRevert(abi.encodeWithSelector(IEnclaveVersionRegistry.InvalidPcrLength.selector, 32));
        versions.proposeVersion(new bytes(32), _pcr("b"), _pcr("c"), 0, "");
        vm.expectRevert(abi.encodeWithSelector(IEnclaveVersionRegistry.InvalidPcrLength.selector, 49));
        versions.proposeVersion(_pcr("a"), new bytes(49), _pcr("c"), 0, "");
        vm.expectRevert(abi.encodeWithSelector(IEnclaveVersionRegistry.ZeroPcr.selector));
        versions.proposeVersion(new bytes(48), _pcr("b"), _pcr("c"), 0, "");
        vm.expectRevert(abi.encodeWithSelector(IEnclaveVersionRegistry.UnknownVersion.selector, keccak256("unknown")));
        versions.deprecateVersion(keccak256("unknown"), 1);
        vm.stopPrank();
    }

    function test_rules_versions_follow_each_other_at_blocks_ahead() public {
        vm.assertEq(versions.rulesVersionAt(START_BLOCK - 1), 0, "before genesis");
        vm.assertEq(versions.rulesVersionAt(START_BLOCK), 1, "genesis");
        uint64 earliest = uint64(_number()) + ACTIVATION_DELAY;
        vm.startPrank(GOVERNANCE);
        vm.expectRevert(abi.encodeWithSelector(IEnclaveVersionRegistry.RulesVersionNotNext.selector, 2, 3));
        versions.scheduleRulesVersion(3, earliest);
        vm.expectRevert(
            abi.encodeWithSelector(IEnclaveVersionRegistry.RulesActivationTooEarly.selector, earliest, earliest - 1)
        );
        versions.scheduleRulesVersion(2, earliest - 1);
        vm.expectEmit(address(versions));
        emit IEnclaveVersionRegistry.RulesVersionScheduled(2, earliest + 10);
        versions.scheduleRulesVersion(2, earliest + 10);
        vm.expectRevert(
            abi.encodeWithSelector(
                IEnclaveVersionRegistry.RulesActivationTooEarly.selector, earliest + 11, earliest + 10
            )
        );
        versions.scheduleRulesVersion(3, earliest + 10);
        vm.stopPrank();
        vm.assertEq(versions.rulesVersionAt(earliest + 9), 1, "before");
        vm.assertEq(versions.rulesVersionAt(earliest + 10), 2, "at");
        (uint32 latest, uint64 from) = versions.latestRulesVersion();
        vm.assertEq(latest, 2, "latest");
        vm.assertEq(from, earliest + 10, "from");
    }

    function test_configurations_and_roles() public {
        vm.assertTrue(versions.isApprovedConfig(CONFIG), "approved");
        vm.prank(GOVERNANCE);
        versions.approveConfig(CONFIG, false);
        vm.assertTrue(!versions.isApprovedConfig(CONFIG), "withdrawn");
        vm.prank(GOVERNANCE);
        versions.setEmergencyRole(STRANGER);
        vm.assertEq(versions.emergencyRole(), STRANGER, "role");
        vm.prank(EMERGENCY);
        vm.expectRevert(abi.encodeWithSelector(IEnclaveVersionRegistry.NotEmergencyRole.selector, EMERGENCY));
        versions.revokeVersion(pcr0Hash);
        // The owner always may.
        vm.prank(GOVERNANCE);
        versions.revokeVersion(pcr0Hash);

        vm.startPrank(EMERGENCY);
        bytes memory notOwner = abi.encodeWithSignature("OwnableUnauthorizedAccount(address)", EMERGENCY);
        vm.expectRevert(notOwner);
        versions.proposeVersion(_pcr("a"), _pcr("b"), _pcr("c"), 0, "");
        vm.expectRevert(notOwner);
        versions.deprecateVersion(pcr0Hash, 1);
        vm.expectRevert(notOwner);
        versions.approveConfig(CONFIG, true);
        vm.expectRevert(notOwner);
        versions.scheduleRulesVersion(2, 1_000_000);
        vm.expectRevert(notOwner);
        versions.setEmergencyRole(EMERGENCY);
        vm.stopPrank();
    }
}

contract KeyRegistryTest is Suite {
    function setUp() public override {
        super.setUp();
        _joinMany(3);
    }

    function test_epochs_are_certified_follow_each_other_and_stay() public {
        KeyEpoch memory epoch = _epoch(1);
        Certificate memory certificate = _certify(keys.keyEpochDigest(epoch));
        vm.expectEmit(address(keys));
        emit IKeyRegistry.KeyEpochPublished(1, epoch.mskCommitment, epoch.secretsPublicKey, epoch.privacyPublicKey);
        keys.publishKeyEpoch(epoch, certificate);
        vm.assertEq(keys.keyEpoch(), 1, "epoch");
        vm.assertEq(keys.mskCommitment(), epoch.mskCommitment, "commitment");
        vm.assertEq(keccak256(abi.encode(keys.keysOf(1))), keccak256(abi.encode(epoch)), "keys");

        vm.expectRevert(abi.encodeWithSelector(IKeyRegistry.KeyEpochNotNext.selector, 2, 1));
        keys.publishKeyEpoch(epoch, certificate);
        KeyEpoch memory other = _epoch(2);
        other.mskCommitment = keccak256("another secret");
        certificate = _certify(keys.keyEpochDigest(other));
        vm.expectRevert(
            abi.encodeWithSelector(IKeyRegistry.CommitmentMismatch.selector, epoch.mskCommitment, other.mskCommitment)
        );
        keys.publishKeyEpoch(other, certificate);
        keys.publishKeyEpoch(_epoch(2), _certify(keys.keyEpochDigest(_epoch(2))));
        vm.assertEq(keccak256(abi.encode(keys.keysOf(1))), keccak256(abi.encode(epoch)), "write-once");
        vm.expectRevert(abi.encodeWithSelector(IKeyRegistry.UnknownKeyEpoch.selector, 3));
        keys.keysOf(3);
        vm.expectRevert(abi.encodeWithSelector(IKeyRegistry.UnknownKeyEpoch.selector, 0));
        keys.keysOf(0);
    }

    function test_nothing_is_published_without_a_quorum_or_with_a_zero_key() public {
        KeyEpoch memory epoch = _epoch(1);
        Certificate memory certificate = _certify(keys.keyEpochDigest(epoch), 3);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.QuorumNotReached.selector, 100, 300, 6667));
        keys.publishKeyEpoch(epoch, certificate);
        epoch.privacyPublicKey = 0;
        vm.expectRevert(abi.encodeWithSelector(IKeyRegistry.ZeroKey.selector));
        keys.publishKeyEpoch(epoch, certificate);
    }

    function test_the_least_epoch_never_falls_and_never_leads() public {
        keys.publishKeyEpoch(_epoch(1), _certify(keys.keyEpochDigest(_epoch(1))));
        keys.publishKeyEpoch(_epoch(2), _certify(keys.keyEpochDigest(_epoch(2))));
        vm.startPrank(GOVERNANCE);
        keys.setMinKeyEpoch(2);
        vm.assertEq(keys.minKeyEpoch(), 2, "least");
        vm.expectRevert(abi.encodeWithSelector(IKeyRegistry.MinKeyEpochOutOfRange.selector, 2, 2, 1));
        keys.setMinKeyEpoch(1);
        vm.expectRevert(abi.encodeWithSelector(IKeyRegistry.MinKeyEpochOutOfRange.selector, 2, 2, 3));
        keys.setMinKeyEpoch(3);
        vm.stopPrank();
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSignature("OwnableUnauthorizedAccount(address)", STRANGER));
        keys.setMinKeyEpoch(2);
    }

    function _epoch(uint64 number) private pure returns (KeyEpoch memory) {
        return KeyEpoch({
            mskCommitment: keccak256("msk"),
            keyEpoch: number,
            secretsPublicKey: keccak256(abi.encode("secrets", number)),
            privacyPublicKey: keccak256(abi.encode("privacy", number))
        });
    }
}

/// @dev A client with an owner of its own.
contract OwnedClient {
    address public owner;

    constructor(address owner_) {
        owner = owner_;
    }
}

/// @dev Answers owner() with more or less than an address.
contract OddClient {
    bytes private answer;

    constructor(bytes memory answer_) {
        answer = answer_;
    }

    fallback(bytes calldata) external returns (bytes memory) {
        return answer;
    }
}

contract PolicyClientRegistryTest is Suite {
    function test_a_client_is_claimed_by_itself_or_its_own_owner() public {
        _registerClient();
        vm.assertEq(clients.ownerOf(CLIENT), CLIENT_OWNER, "by itself");

        address owned = address(new OwnedClient(DEPLOYER));
        vm.expectEmit(address(clients));
        emit IPolicyClientRegistry.ClientRegistered(owned, CLIENT_OWNER, DEPLOYER);
        vm.prank(DEPLOYER);
        clients.registerClient(owned, CLIENT_OWNER);
        vm.assertEq(clients.ownerOf(owned), CLIENT_OWNER, "by its owner");
        // Being named the owner here gives no right to claim again.
        vm.prank(CLIENT_OWNER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyClientRegistry.UnauthorizedClaim.selector, owned, CLIENT_OWNER));
        clients.registerClient(owned, STRANGER);
    }

    function test_nobody_else_can_claim_a_client() public {
        address[5] memory odd = [
            CLIENT,
            address(new OwnedClient(DEPLOYER)),
            address(new OddClient("")),
            address(new OddClient(abi.encode(STRANGER, STRANGER))),
            address(new OddClient(abi.encode(uint256(uint160(STRANGER)) | (1 << 160))))
        ];
        for (uint256 i = 0; i < odd.length; ++i) {
            vm.prank(STRANGER);
            vm.expectRevert(abi.encodeWithSelector(IPolicyClientRegistry.UnauthorizedClaim.selector, odd[i], STRANGER));
            clients.registerClient(odd[i], STRANGER);
        }
        vm.startPrank(CLIENT);
        vm.expectRevert(abi.encodeWithSelector(IPolicyClientRegistry.ZeroAddress.selector));
        clients.registerClient(CLIENT, address(0));
        vm.expectRevert(abi.encodeWithSelector(IPolicyClientRegistry.ZeroAddress.selector));
        clients.registerClient(address(0), CLIENT);
        vm.stopPrank();
    }

    function test_delegates_act_until_revoked_or_the_owner_changes() public {
        vm.prank(CLIENT_OWNER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyClientRegistry.ClientNotRegistered.selector, CLIENT));
        clients.setDeployer(CLIENT, DEPLOYER, true);
        vm.assertTrue(!clients.isAuthorized(CLIENT, address(0)), "nobody");
        _registerClient();
        vm.assertTrue(clients.isAuthorized(CLIENT, CLIENT_OWNER), "owner");
        vm.expectEmit(address(clients));
        emit IPolicyClientRegistry.ClientDeployerSet(CLIENT, CLIENT_OWNER, DEPLOYER, true);
        vm.prank(CLIENT_OWNER);
        clients.setDeployer(CLIENT, DEPLOYER, true);
        vm.assertTrue(clients.isAuthorized(CLIENT, DEPLOYER), "delegate");
        vm.prank(DEPLOYER);
        vm.expectRevert(
            abi.encodeWithSelector(IPolicyClientRegistry.NotClientOwner.selector, CLIENT, CLIENT_OWNER, DEPLOYER)
        );
        clients.setDeployer(CLIENT, STRANGER, true);

        vm.prank(CLIENT);
        clients.registerClient(CLIENT, STRANGER);
        vm.assertTrue(!clients.isAuthorized(CLIENT, DEPLOYER), "not under a new owner");
        vm.assertTrue(!clients.isAuthorized(CLIENT, CLIENT_OWNER), "the former owner is out");
        vm.prank(CLIENT);
        clients.registerClient(CLIENT, CLIENT_OWNER);
        vm.prank(CLIENT_OWNER);
        clients.setDeployer(CLIENT, DEPLOYER, false);
        vm.assertTrue(!clients.isAuthorized(CLIENT, DEPLOYER), "revoked");
    }
}

/// @dev An implementation that says that it is another.
contract NextImplementation {
    bytes32 public constant proxiableUUID = 0x360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc;

    function version() external pure returns (string memory) {
        return "next";
    }
}

contract ProxiesTest is Suite {
    function test_initializers_run_once_and_never_on_implementations() public {
        bytes memory again = abi.encodeWithSignature("InvalidInitialization()");
        address[4] memory simple = [address(clients), address(keys), address(tasks), _implementation(address(keys))];
        for (uint256 i = 0; i < simple.length; ++i) {
            (bool ok, bytes memory reason) = simple[i].call(abi.encodeWithSignature("initialize(address)", STRANGER));
            vm.assertTrue(!ok, "initialized twice");
            vm.assertEq(reason, again, "reason");
        }
    }

    function test_only_the_owner_upgrades() public {
        address next = address(new NextImplementation());
        bytes memory call = abi.encodeWithSignature("upgradeToAndCall(address,bytes)", next, "");
        address[8] memory all = [
            address(clients),
            address(data),
            address(policies),
            address(commits),
            address(versions),
            address(operators),
            address(keys),
            address(tasks)
        ];
        for (uint256 i = 0; i < all.length; ++i) {
            vm.prank(STRANGER);
            (bool ok, bytes memory reason) = all[i].call(call);
            vm.assertTrue(!ok, "a stranger upgraded");
            vm.assertEq(reason, abi.encodeWithSignature("OwnableUnauthorizedAccount(address)", STRANGER), "reason");
            vm.prank(GOVERNANCE);
            (ok,) = all[i].call(call);
            vm.assertTrue(ok, "upgrade");
            vm.assertEq(NextImplementation(all[i]).version(), "next", "upgraded");
        }
    }

    function test_pausing_has_a_role_and_unpausing_the_owner() public {
        IPausableByRole pausable = IPausableByRole(address(policies));
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(IPausableByRole.NotPauser.selector, STRANGER));
        pausable.pause();
        vm.expectEmit(address(policies));
        emit IPausableByRole.PauserSet(STRANGER);
        vm.prank(GOVERNANCE);
        pausable.setPauser(STRANGER);
        vm.assertEq(pausable.pauser(), STRANGER, "pauser");
        vm.prank(STRANGER);
        pausable.pause();
        bytes memory paused = abi.encodeWithSignature("EnforcedPause()");
        vm.expectRevert(paused);
        policies.registerTemplate(_artifact("rego"), _absent(), "a", new bytes32[](0), _daRefs(1));
        vm.expectRevert(paused);
        policies.supplyArtifact(4, keccak256("x"), 1, "");
        vm.expectRevert(paused);
        policies.deployInstance(CLIENT, 0, "", 1, true);
        vm.expectRevert(paused);
        policies.setCurrent(CLIENT, 0);
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSignature("OwnableUnauthorizedAccount(address)", STRANGER));
        pausable.unpause();
        vm.prank(GOVERNANCE);
        pausable.unpause();
        _registerTemplate(new bytes32[](0));
    }

    function test_exits_cannot_be_paused() public {
        Signer memory signer = _join("first", 100);
        vm.prank(GOVERNANCE);
        IPausableByRole(address(operators)).pause();
        vm.prank(signer.account);
        operators.requestExit(signer.key, aggregateKey);
        vm.warp(_time() + EXIT_DELAY);
        _outlive();
        vm.prank(signer.account);
        operators.completeExit();
        vm.assertEq(operators.operators(signer.account).owner, address(0), "gone");
    }

    function _implementation(address proxy) private view returns (address) {
        bytes32 slot = bytes32(uint256(keccak256("eip1967.proxy.implementation")) - 1);
        return address(uint160(uint256(vm.load(proxy, slot))));
    }
}

contract LibrariesTest {
    function testFuzz_rows_come_back_as_they_were(bytes memory row) public {
        vm.assertEq(RowStore.read(RowStore.write(row)), row, "row");
    }

    function test_rows_are_bounded() public {
        bytes memory largest = new bytes(24_575);
        largest[24_574] = 0x01;
        vm.assertEq(RowStore.read(RowStore.write(largest)), largest, "largest");
        vm.expectRevert(abi.encodeWithSelector(RowStore.RowTooLarge.selector, 24_576, 24_575));
        this.write(new bytes(24_576));
    }

    function test_a_row_cannot_be_called_into_doing_anything() public {
        address row = RowStore.write(hex"ff");
        (bool ok, bytes memory result) = row.call("");
        vm.assertTrue(ok && result.length == 0, "STOP");
        vm.assertEq(RowStore.read(row), hex"ff", "still there");
    }

    function test_block_numbers_are_the_chains_own() public {
        vm.roll(100);
        vm.assertEq(ChainBlock.number(), 100, "L1");
        IArbSys arbSys = IArbSys(address(0x64));
        vm.mockCall(address(arbSys), abi.encodeCall(IArbSys.arbBlockNumber, ()), abi.encode(5000));
        vm.mockCall(address(arbSys), abi.encodeCall(IArbSys.arbBlockHash, (4999)), abi.encode(keccak256("parent")));
        uint256[3] memory arbitrum = [uint256(42_161), 42_170, 421_614];
        for (uint256 i = 0; i < arbitrum.length; ++i) {
            vm.chainId(arbitrum[i]);
            vm.assertEq(ChainBlock.number(), 5000, "Arbitrum");
            vm.assertEq(ChainBlock.parentHash(), keccak256("parent"), "Arbitrum's parent");
        }
        vm.chainId(1);
        vm.assertEq(ChainBlock.parentHash(), blockhash(99), "L1's parent");
    }

    function write(bytes memory row) external returns (address) {
        return RowStore.write(row);
    }
}
