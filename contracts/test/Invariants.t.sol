// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Certificate, EnclaveAdmission, OperatorSet, StateCommit} from "../src/interfaces/INewton.sol";
import {ISlasher} from "../src/interfaces/ISlasher.sol";
import {Suite} from "./utils/Suite.sol";
import {vm} from "./utils/Vm.sol";

/// @dev Random walks of operators that come, restart and go, and of commits; forge calls the functions that begin with
/// `walk`, the invariants are checked after each.
contract WalkerSuite is Suite {
    uint256 public boots;
    uint64 public lastSequence;
    bool public fell;

    function walkJoin(uint96 weight) external {
        if (signers.length >= 6) return;
        _join(string.concat("walker ", vm.toString(boots++)), weight % 1000 + 1);
    }

    function walkReadmit(uint256 which) external {
        if (signers.length == 0) return;
        which %= signers.length;
        Signer memory former = signers[which];
        Signer memory boot = _boot(former.account, string.concat("walker ", vm.toString(boots++)));
        EnclaveAdmission memory admission = _admission(boot);
        Certificate memory certificate = _certify(operators.admissionDigest(admission), 0);
        bytes memory proof = _possession(boot);
        operators.readmit(boot.key, proof, admission, _document(boot), aggregateKey, former.key, certificate);
        signers[which] = boot;
        _updateAggregate();
        _next(1);
    }

    function walkExit(uint256 which) external {
        // The last one stays: coming back would need the owner.
        if (signers.length < 2) return;
        which %= signers.length;
        Signer memory leaver = signers[which];
        vm.prank(leaver.account);
        operators.requestExit(leaver.key, aggregateKey);
        signers[which] = signers[signers.length - 1];
        signers.pop();
        _updateAggregate();
        _next(1);
    }

    function walkSlash(uint256 which, uint8 percent) external {
        if (signers.length == 0) return;
        // Two in one block, perhaps the same one twice. Some weight stays, or nobody could certify.
        for (uint256 i = 0; i < 2; ++i) {
            address operator = signers[(which % signers.length + i * (percent % 2)) % signers.length].account;
            if (operators.operators(operator).weight < 10) continue;
            vm.prank(address(challenges));
            ISlasher(address(operators)).slashOperator(operator, percent % 50 + 1);
        }
        _next(1);
    }

    function walkCommit(bytes32 root) external {
        if (signers.length == 0 || root == 0) return;
        StateCommit memory commit = _commit(root);
        commits.commitStateRoot(commit, _certifyAll(commits.commitDigest(commit)), new bytes[](0));
        uint64 sequence = commits.getSequenceNo();
        if (sequence != lastSequence + 1) fell = true;
        lastSequence = sequence;
        _next(1);
    }

    function check() external view {
        vm.assertTrue(!fell, "the sequence rises by one");
        OperatorSet memory set = operators.operatorSet(operators.latestSetId());
        vm.assertEq(set.members.length, signers.length, "members");
        vm.assertEq(set.aggregateKeyHash, keccak256(aggregateKey), "aggregate key");
        uint256 weight;
        for (uint256 i = 0; i < set.members.length; ++i) {
            weight += set.members[i].weight;
            vm.assertEq(operators.operators(set.members[i].operator).weight, set.members[i].weight, "row");
            vm.assertTrue(operators.isMember(set.members[i].operator), "member");
            if (i != 0) vm.assertTrue(set.members[i].index > set.members[i - 1].index, "ascending");
        }
        vm.assertEq(weight, set.totalWeight, "weights sum up");
    }

    /// @dev Everybody signs, so the order of indices does not matter.
    function _certifyAll(bytes32 digest) private view returns (Certificate memory) {
        return _certify(digest, 0);
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
        bytes4[] memory selectors = new bytes4[](5);
        selectors[0] = WalkerSuite.walkJoin.selector;
        selectors[1] = WalkerSuite.walkReadmit.selector;
        selectors[2] = WalkerSuite.walkExit.selector;
        selectors[3] = WalkerSuite.walkCommit.selector;
        selectors[4] = WalkerSuite.walkSlash.selector;
        list = new FuzzSelector[](1);
        list[0] = FuzzSelector(address(walker), selectors);
    }

    function invariant_sets_and_sequence() external view {
        walker.check();
    }
}
