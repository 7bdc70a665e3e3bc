// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IPausableByRole, IPolicyClientRegistry} from "../src/interfaces/IGovernance.sol";
import {AccessTable} from "./utils/AccessTable.sol";
import {Vm, vm} from "./utils/Vm.sol";

/// @dev Stands at the address of a role; asked for its owner(), it makes a call that this role may make.
contract Meddler {
    AccessMatrixTest private immutable TEST;

    constructor() {
        TEST = AccessMatrixTest(msg.sender);
    }

    function owner() external returns (address) {
        (address target, bytes memory call) = TEST.meddling();
        (bool ok,) = target.call(call);
        require(ok, "refused");
        return TEST.claimant();
    }
}

/// @dev Every state-changing function of every contract, called by every role: it succeeds or is refused with exactly the
/// reason of the table. The table's completeness is checked against the compiler's ABI, so a new function needs a row.
contract AccessMatrixTest is AccessTable {
    struct Call {
        address target;
        bytes data;
    }

    /// What the meddler is to do, and for whom it would answer.
    Call public meddling;
    address public constant claimant = STRANGER;

    function test_every_function_is_in_the_table() public view {
        for (uint256 i = 0; i < proxies.length; ++i) {
            string memory json = vm.readFile(string.concat("out/", proxyNames[i], ".sol/", proxyNames[i], ".json"));
            bytes memory found = vm.parseJson(
                json, "$.abi[?(@.stateMutability == 'nonpayable' || @.stateMutability == 'payable')].name"
            );
            string[] memory functions = abi.decode(found, (string[]));
            // Four of the owner's, and the initializer.
            vm.assertGe(functions.length, 5, "functions found");
            // Names may be overloaded: each signature needs a row of its own.
            string[] memory signatures = vm.parseJsonKeys(json, "$.methodIdentifiers");
            uint256 checked;
            for (uint256 k = 0; k < signatures.length; ++k) {
                if (!_changesState(functions, signatures[k])) continue;
                bytes4 selector = bytes4(keccak256(bytes(signatures[k])));
                vm.assertTrue(_hasRow(proxies[i], selector), string.concat(proxyNames[i], ".", signatures[k]));
                ++checked;
            }
            vm.assertEq(checked, functions.length, "every function was looked for");
        }
    }

    /// @dev Whoever adds a contract to src/ has to deploy it in the suite, and so to give its functions rows.
    function test_every_contract_is_in_the_table() public view {
        Vm.DirEntry[] memory entries = vm.readDir("src", 1);
        uint256 contracts;
        for (uint256 i = 0; i < entries.length; ++i) {
            if (entries[i].isDir) continue;
            ++contracts;
            vm.assertTrue(_isDeployed(entries[i].path), entries[i].path);
        }
        vm.assertEq(contracts, proxies.length, "one contract in each file of src/");
        vm.assertEq(proxyNames.length, proxies.length, "names");
    }

    function test_every_role_may_exactly_what_the_table_says() public {
        uint256 refused;
        for (uint256 i = 0; i < rows.length; ++i) {
            Row memory row = rows[i];
            for (uint256 role = 0; role < ROLES; ++role) {
                string memory what = string.concat(row.name, " by role ", vm.toString(role));
                (bool ok, bytes memory answer) = _try(row, accounts[role], false);
                if (row.allowed & (1 << role) != 0) {
                    vm.assertEq(ok ? bytes("") : answer, "", what);
                } else {
                    vm.assertTrue(!ok, what);
                    vm.assertEq(answer, _reason(row, Role(role)), what);
                    ++refused;
                }
            }
        }
        vm.assertGe(refused, 1000, "refusals");
    }

    function test_a_pause_stops_what_creates_answers_and_registers_and_nothing_else() public {
        uint256 stopped;
        for (uint256 i = 0; i < rows.length; ++i) {
            Row memory row = rows[i];
            if (!_isPausable(row.target) || row.before.length != 0 || row.allowed == 0) continue;
            address account = accounts[_first(row.allowed)];
            (bool ok, bytes memory answer) = _try(row, account, true);
            bool isPause = keccak256(bytes(row.name)) == keccak256("pause");
            vm.assertEq(ok, !row.pausable && !isPause, row.name);
            if (!ok) {
                vm.assertEq(answer, abi.encodeWithSignature("EnforcedPause()"), row.name);
                ++stopped;
            }
        }
        // Two registries with four functions and one more, two admissions, task and answer, and four pauses.
        vm.assertEq(stopped, 4 + 5 + 2 + 2 + 4, "stopped");
    }

    /// @dev Whom the functions call: each other, and nobody else. What cannot be called cannot come back.
    function test_only_a_claim_asks_a_foreign_contract_and_only_to_read() public {
        uint256 foreign;
        for (uint256 i = 0; i < rows.length; ++i) {
            Row memory row = rows[i];
            if (row.allowed == 0 || row.before.length != 0) continue;
            uint256 state = vm.snapshotState();
            address account = accounts[_first(row.allowed)];
            if (keccak256(bytes(row.name)) == keccak256("registerClient")) account = STRANGER;
            vm.startStateDiffRecording();
            vm.prank(account);
            (bool ok,) = row.target.call(row.call);
            Vm.AccountAccess[] memory accesses = vm.stopAndReturnStateDiff();
            vm.assertEq(ok, account != STRANGER, row.name);
            vm.assertGe(accesses.length, 2, "recorded: the proxy and what stands behind it");
            for (uint256 k = 0; k < accesses.length; ++k) {
                if (_isTrusted(accesses[k])) continue;
                vm.assertEq(row.name, "registerClient", "asks a foreign contract");
                vm.assertEq(accesses[k].account, CLIENT, "the client");
                vm.assertEq(uint256(accesses[k].kind), uint256(Vm.AccountAccessKind.StaticCall), "to read");
                ++foreign;
            }
            vm.revertToState(state);
        }
        vm.assertGe(foreign, 1, "a claim by another than the client asks the client");
    }

    /// @dev The one contract that is asked comes back into each function with the rights for it: nothing changes.
    function test_nobody_comes_back_through_a_claim() public {
        bytes memory code = address(new Meddler()).code;
        uint256 tried;
        for (uint256 i = 0; i < rows.length; ++i) {
            Row memory row = rows[i];
            if (row.allowed == 0 || row.before.length != 0) continue;
            address account = accounts[_first(row.allowed)];
            // The set's own contracts answer no owner() that calls.
            if (account.code.length != 0) continue;
            uint256 state = vm.snapshotState();
            vm.etch(account, code);
            meddling = Call(row.target, row.call);
            vm.startStateDiffRecording();
            vm.prank(claimant);
            (bool ok, bytes memory answer) =
                address(clients).call(abi.encodeCall(IPolicyClientRegistry.registerClient, (account, claimant)));
            Vm.AccountAccess[] memory accesses = vm.stopAndReturnStateDiff();
            vm.assertTrue(!ok, row.name);
            vm.assertEq(
                answer,
                abi.encodeWithSelector(IPolicyClientRegistry.UnauthorizedClaim.selector, account, claimant),
                row.name
            );
            vm.assertTrue(_reached(accesses, row.target, account), "came back");
            vm.revertToState(state);
            ++tried;
        }
        vm.assertGe(tried, 70, "functions");
    }

    /// @dev Calls on a state of its own.
    function _try(Row memory row, address account, bool paused) private returns (bool ok, bytes memory answer) {
        uint256 state = vm.snapshotState();
        if (paused) {
            vm.prank(GOVERNANCE);
            _send(row.target, abi.encodeCall(IPausableByRole.pause, ()));
        }
        if (row.before.length != 0) {
            vm.prank(GOVERNANCE);
            _send(row.target, row.before);
        }
        vm.prank(account);
        (ok, answer) = row.target.call(row.call);
        vm.revertToState(state);
    }

    function _reason(Row memory row, Role role) private view returns (bytes memory) {
        for (uint256 i = 0; i < exceptions.length; ++i) {
            if (exceptions[i].selector == bytes4(row.call) && exceptions[i].role == role) return exceptions[i].reason;
        }
        return row.named ? bytes.concat(row.refusal, abi.encode(accounts[uint256(role)])) : row.refusal;
    }

    function _hasRow(address target, bytes4 selector) private view returns (bool) {
        for (uint256 i = 0; i < rows.length; ++i) {
            if (rows[i].target == target && bytes4(rows[i].call) == selector) return true;
        }
        return false;
    }

    /// @dev Whether a signature is that of one of these functions.
    function _changesState(string[] memory functions, string memory signature) private pure returns (bool) {
        for (uint256 i = 0; i < functions.length; ++i) {
            if (vm.indexOf(signature, string.concat(functions[i], "(")) == 0) return true;
        }
        return false;
    }

    function _isDeployed(string memory path) private view returns (bool) {
        for (uint256 i = 0; i < proxyNames.length; ++i) {
            if (vm.indexOf(path, string.concat("/src/", proxyNames[i], ".sol")) != type(uint256).max) return true;
        }
        return false;
    }

    /// @dev Whether `account`, asked for its owner, got as far as calling `target`.
    function _reached(Vm.AccountAccess[] memory accesses, address target, address account) private pure returns (bool) {
        for (uint256 i = 0; i < accesses.length; ++i) {
            if (accesses[i].accessor == account && accesses[i].account == target) return true;
        }
        return false;
    }

    /// @dev Calls to the set's proxies, their implementations and precompiles; and what is no call.
    function _isTrusted(Vm.AccountAccess memory access) private view returns (bool) {
        if (uint256(access.kind) > uint256(Vm.AccountAccessKind.StaticCall)) return true;
        if (access.account <= address(0xff)) return true;
        for (uint256 i = 0; i < proxies.length; ++i) {
            if (access.account == proxies[i] || access.account == _implementation(proxies[i])) return true;
        }
        return false;
    }

    function _first(uint256 bits) private pure returns (uint256 position) {
        while (bits & (1 << position) == 0) ++position;
    }
}
