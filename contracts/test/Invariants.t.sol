// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IAllowlistGuard, IPausableByRole} from "../src/interfaces/IGovernance.sol";
import {
    Certificate,
    ConsensusParameters,
    EnclaveAdmission,
    OperatorSet,
    StateCommit
} from "../src/interfaces/INewton.sol";
import {ISlasher} from "../src/interfaces/ISlasher.sol";
import {Suite} from "./utils/Suite.sol";
import {vm} from "./utils/Vm.sol";

/// @dev Random walks of operators that come, restart and go, of commits, of authors and clients that register, of governance,
/// and of strangers that try what is governance's; forge calls the functions that begin with `walk`, the invariants are
/// checked after each.
contract WalkerSuite is Suite {
    uint256 public boots;
    uint256 public registrations;
    uint256 public refusals;
    uint64 public lastSequence;
    bool public fell;
    bool public overSlashed;

    /// Hashes of what must never change again: sets and roots by number, rows by id.
    bytes32[] private sets;
    bytes32[] private roots;
    bytes32[] private ids;
    mapping(bytes32 id => bytes32) private rows;
    /// What governance set last, and since when.
    ConsensusParameters private wanted;
    ConsensusParameters private former;
    uint64 private wantedFrom;

    function setUp() public override {
        super.setUp();
        _registerClient();
        _remember();
        wanted = commits.parameters();
        former = wanted;
    }

    function walkJoin(uint96 weight) external {
        if (signers.length >= 6) return;
        _join(string.concat("walker ", vm.toString(boots++)), weight % 1000 + 1);
        _remember();
    }

    function walkReadmit(uint256 which) external {
        if (signers.length == 0) return;
        which %= signers.length;
        Signer memory former_ = signers[which];
        Signer memory boot = _boot(former_.account, string.concat("walker ", vm.toString(boots++)));
        EnclaveAdmission memory admission = _admission(boot);
        Certificate memory certificate = _certify(operators.admissionDigest(admission));
        bytes memory proof = _possession(boot);
        operators.readmit(boot.key, proof, admission, _document(boot), aggregateKey, former_.key, certificate);
        signers[which] = boot;
        _updateAggregate();
        _next(1);
        _remember();
    }

    function walkExit(uint256 which) external {
        // The last one stays: coming back would need the owner.
        if (signers.length < 2) return;
        which %= signers.length;
        Signer memory leaver = signers[which];
        vm.prank(leaver.account);
        operators.requestExit(leaver.key, aggregateKey);
        _drop(which);
    }

    function walkPrune(uint256 which) external {
        if (signers.length < 2) return;
        which %= signers.length;
        address[] memory list = new address[](1);
        list[0] = signers[which].account;
        _allow(list[0], 0);
        operators.prune(list, signers[which].key, aggregateKey);
        _drop(which);
    }

    function walkSlash(uint256 which, uint8 percent) external {
        if (signers.length == 0) return;
        // Two in one block, perhaps the same one twice. Some weight stays, or nobody could certify.
        for (uint256 i = 0; i < 2; ++i) {
            address operator = signers[(which % signers.length + i * (percent % 2)) % signers.length].account;
            uint96 weight = operators.operators(operator).weight;
            if (weight < 10) continue;
            vm.prank(address(challenges));
            uint96 slashed = ISlasher(address(operators)).slashOperator(operator, percent % 50 + 1);
            uint96 left = operators.operators(operator).weight;
            if (slashed == 0 || slashed > weight || left != weight - slashed) overSlashed = true;
            if (operators.allowedWeight(operator) > left) overSlashed = true;
        }
        _next(1);
    }

    function walkReweigh(uint256 which) external {
        if (signers.length == 0) return;
        address operator = signers[which % signers.length].account;
        OperatorSet memory set = operators.operatorSet(operators.latestSetId());
        for (uint256 i = 0; i < set.members.length; ++i) {
            if (set.members[i].operator != operator) continue;
            if (set.members[i].weight == operators.operators(operator).weight) return;
        }
        address[] memory list = new address[](1);
        list[0] = operator;
        operators.reweigh(list, aggregateKey);
        _next(1);
        _remember();
    }

    function walkCommit(bytes32 root) external {
        if (signers.length == 0 || root == 0) return;
        StateCommit memory commit = _commit(root);
        commits.commitStateRoot(commit, _certify(commits.commitDigest(commit)), new bytes[](0));
        uint64 sequence = commits.getSequenceNo();
        if (sequence != lastSequence + 1) fell = true;
        lastSequence = sequence;
        _next(1);
        _remember();
    }

    /// @dev A template of each kind and an instance of each, by whoever.
    function walkRegister(uint160 author) external {
        string memory name = vm.toString(registrations++);
        vm.prank(address(author % 100 + 1000));
        bytes32 dataTemplateId = data.registerTemplate(_artifact(name), _artifact("p"), _absent(), _daRefs(2));
        vm.prank(address(author % 100 + 1000));
        bytes32 templateId =
            policies.registerTemplate(_artifact(name), _artifact("p"), "allow", _one(dataTemplateId), _daRefs(2));
        vm.startPrank(CLIENT_OWNER);
        bytes32 dataInstanceId = data.deployInstance(CLIENT, dataTemplateId, bytes(name), 100, true);
        bytes32 instanceId = policies.deployInstance(CLIENT, templateId, bytes(name), 100, author % 2 == 0);
        vm.stopPrank();
        bytes32[4] memory added = [dataTemplateId, templateId, dataInstanceId, instanceId];
        for (uint256 i = 0; i < 4; ++i) {
            ids.push(added[i]);
            rows[added[i]] = _rowHash(added[i]);
        }
        _next(1);
    }

    /// @dev Once more, with other references or for others: refused, or without effect on what is there.
    function walkRepeat(uint256 which, address author) external {
        if (registrations == 0 || author == address(0)) return;
        string memory name = vm.toString(which % registrations);
        vm.prank(author);
        try data.registerTemplate(_artifact(name), _artifact("p"), _absent(), _daRefs(2)) {
            vm.assertTrue(false, "registered twice");
        } catch {}
        vm.prank(author);
        data.supplyArtifact(6, keccak256(bytes(name)), 1, "elsewhere");
    }

    function walkGovern(uint64 cadence, uint64 maxExpireAfter) external {
        (, uint64 pending) = commits.pendingParameters();
        if (pending != 0) return;
        ConsensusParameters memory next = _parameters();
        next.cadence = cadence % 240 + 12;
        next.maxExpireAfter = maxExpireAfter % 1000 + 100;
        former = commits.parameters();
        vm.prank(GOVERNANCE);
        wantedFrom = commits.setParameters(next);
        (wanted,) = commits.pendingParameters();
        vm.assertGe(wantedFrom, _time() + former.cadence, "at least a window away");
    }

    function walkWait(uint256 blocks) external {
        _next(blocks % 40 + 1);
    }

    /// @dev What is governance's, tried by anybody else.
    function walkMeddle(address account, uint256 which) external {
        if (account == GOVERNANCE || account == EMERGENCY || account == address(0)) return;
        if (account == address(policies) || account == address(data) || account == address(versions)) return;
        bytes[10] memory calls = [
            abi.encodeCall(commits.setParameters, (_parameters())),
            abi.encodeCall(commits.recordRegistered, (account, 1, 1)),
            abi.encodeCall(operators.allowOperator, (account, 1)),
            abi.encodeCall(operators.onVersionRevoked, (pcr0Hash)),
            abi.encodeCall(versions.approveConfig, (CONFIG, false)),
            abi.encodeCall(versions.revokeVersion, (pcr0Hash)),
            abi.encodeCall(versions.setEmergencyRole, (account)),
            abi.encodeCall(IPausableByRole.pause, ()),
            abi.encodeCall(IAllowlistGuard.setTemplateRegistrationPermissionless, (false)),
            abi.encodeWithSignature("transferOwnership(address)", account)
        ];
        address[10] memory callees = [
            address(commits),
            address(commits),
            address(operators),
            address(operators),
            address(versions),
            address(versions),
            address(versions),
            address(tasks),
            address(policies),
            address(keys)
        ];
        which %= calls.length;
        vm.prank(account);
        (bool ok,) = callees[which].call(calls[which]);
        vm.assertTrue(!ok, "a stranger governs");
        ++refusals;
    }

    function checkSequence() external view {
        vm.assertTrue(!fell, "the sequence rises by one");
        vm.assertEq(commits.getSequenceNo(), lastSequence, "and does nothing else");
        for (uint64 i = 0; i < roots.length; ++i) {
            vm.assertEq(commits.commitAt(i), roots[i], "roots stay");
        }
    }

    function checkSlashing() external view {
        vm.assertTrue(!overSlashed, "slashing takes what it says and no more than there is");
    }

    function checkSets() external view {
        OperatorSet memory set = operators.operatorSet(operators.latestSetId());
        vm.assertEq(set.members.length, signers.length, "members");
        vm.assertEq(set.aggregateKeyHash, keccak256(aggregateKey), "aggregate key");
        for (uint256 i = 0; i < set.members.length; ++i) {
            uint96 weight = operators.operators(set.members[i].operator).weight;
            vm.assertLe(weight, set.members[i].weight, "slashing only lowers, and the set follows");
            vm.assertTrue(operators.isMember(set.members[i].operator), "member");
            if (i != 0) vm.assertTrue(set.members[i].index > set.members[i - 1].index, "ascending");
        }
        for (uint64 id = 0; id < sets.length; ++id) {
            set = operators.operatorSet(id);
            vm.assertEq(keccak256(abi.encode(set)), sets[id], "sets stay");
            uint256 weight;
            for (uint256 i = 0; i < set.members.length; ++i) {
                weight += set.members[i].weight;
            }
            vm.assertEq(weight, set.totalWeight, "weights sum up to the checkpoint");
        }
    }

    function checkRows() external view {
        for (uint256 i = 0; i < ids.length; ++i) {
            vm.assertEq(_rowHash(ids[i]), rows[ids[i]], "rows stay");
        }
    }

    function checkGovernance() external view {
        ConsensusParameters memory expected = _time() >= wantedFrom ? wanted : former;
        vm.assertEq(
            keccak256(abi.encode(commits.parameters())), keccak256(abi.encode(expected)), "parameters are governance's"
        );
        vm.assertTrue(versions.isApprovedConfig(CONFIG) && versions.isActive(pcr0Hash), "versions");
        vm.assertEq(versions.emergencyRole(), EMERGENCY, "emergency");
        vm.assertTrue(IAllowlistGuard(address(policies)).templateRegistrationPermissionless(), "lists");
    }

    function _drop(uint256 which) private {
        signers[which] = signers[signers.length - 1];
        signers.pop();
        _updateAggregate();
        _next(1);
        _remember();
    }

    /// @dev New sets and roots, as they are now.
    function _remember() private {
        while (sets.length <= operators.latestSetId()) {
            sets.push(keccak256(abi.encode(operators.operatorSet(uint64(sets.length)))));
        }
        while (roots.length <= commits.getSequenceNo()) {
            roots.push(commits.commitAt(uint64(roots.length)));
        }
    }

    /// @dev Of whichever kind of row has this id.
    function _rowHash(bytes32 id) private view returns (bytes32) {
        return
            keccak256(
                abi.encode(data.templates(id), policies.templates(id), data.instances(id), policies.instances(id))
            );
    }
}

contract InvariantsTest {
    WalkerSuite private walker;

    function setUp() public {
        walker = new WalkerSuite();
        walker.setUp();
    }

    function targetContracts() external view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(walker);
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    function targetSelectors() external view returns (FuzzSelector[] memory list) {
        bytes4[] memory selectors = new bytes4[](12);
        selectors[0] = WalkerSuite.walkJoin.selector;
        selectors[1] = WalkerSuite.walkReadmit.selector;
        selectors[2] = WalkerSuite.walkExit.selector;
        selectors[3] = WalkerSuite.walkPrune.selector;
        selectors[4] = WalkerSuite.walkCommit.selector;
        selectors[5] = WalkerSuite.walkRegister.selector;
        selectors[6] = WalkerSuite.walkRepeat.selector;
        selectors[7] = WalkerSuite.walkGovern.selector;
        selectors[8] = WalkerSuite.walkWait.selector;
        selectors[9] = WalkerSuite.walkMeddle.selector;
        selectors[10] = WalkerSuite.walkSlash.selector;
        selectors[11] = WalkerSuite.walkReweigh.selector;
        list = new FuzzSelector[](1);
        list[0] = FuzzSelector(address(walker), selectors);
    }

    function invariant_the_sequence_never_falls_and_roots_stay() external view {
        walker.checkSequence();
    }

    function invariant_weights_sum_up_and_sets_stay() external view {
        walker.checkSets();
    }

    function invariant_slashing_never_exceeds_the_weight() external view {
        walker.checkSlashing();
    }

    function invariant_rows_never_change() external view {
        walker.checkRows();
    }

    function invariant_nobody_but_governance_changes_parameters() external view {
        walker.checkGovernance();
    }

    /// @dev The walks do what they are for: one straight through all of them.
    function test_the_walks_walk() external {
        walker.walkJoin(5);
        walker.walkJoin(7);
        walker.walkReadmit(1);
        walker.walkCommit("root");
        walker.walkRegister(2);
        walker.walkRepeat(0, address(0xA));
        walker.walkGovern(50, 60);
        for (uint256 i = 0; i < 10; ++i) {
            walker.walkMeddle(address(0xB), i);
        }
        walker.walkExit(0);
        walker.walkWait(39);
        walker.walkJoin(9);
        walker.walkJoin(900);
        walker.walkSlash(2, 10);
        walker.walkReweigh(2);
        walker.walkPrune(0);
        walker.checkSlashing();
        assert(walker.lastSequence() == 1 && walker.registrations() == 1 && walker.refusals() == 10);
        walker.checkSequence();
        walker.checkSets();
        walker.checkRows();
        walker.checkGovernance();
    }
}
