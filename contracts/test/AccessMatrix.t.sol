// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {
    Certificate,
    EnclaveAdmission,
    ICertificateVerifier,
    IAllowlistGuard,
    IEnclaveVersionRegistry,
    IKeyRegistry,
    IOperatorRegistry,
    IPausableByRole,
    IPolicyClientRegistry,
    IPolicyDataRegistry,
    IPolicyRegistry,
    IStateCommitRegistry,
    ITaskManager,
    Intent,
    KeyEpoch,
    PolicyAttestation,
    SkipUnavailable,
    StateCommit,
    Task
} from "../src/interfaces/INewton.sol";
import {PolicySuite} from "./utils/PolicySuite.sol";
import {Vm, vm} from "./utils/Vm.sol";

/// @dev Every state-changing function of every contract, called by every role: it succeeds or is refused with exactly the
/// reason of the table. The table's completeness is checked against the compiler's ABI, so a new function needs a row.
contract AccessMatrixTest is PolicySuite {
    enum Role {
        Owner,
        Heir, // to whom the owner has offered its place
        Emergency,
        Pauser,
        Author, // on the list of template authors
        Deployer, // on the list of instance deployers, acts for no client
        Client,
        ClientOwner,
        Delegate, // acts for the client
        Operator,
        Leaver, // an operator whose exit may be completed
        Newcomer, // allowed, not registered
        Versions, // the contracts among themselves
        Policies,
        Data,
        Stranger
    }

    struct Row {
        address target;
        string name;
        bytes call;
        /// Sent by the owner before.
        bytes before;
        /// Bit r: role r may.
        uint256 allowed;
        /// Why others may not; the caller's address is appended if `named`.
        bytes refusal;
        bool named;
        bool pausable;
    }

    struct Exception {
        bytes4 selector;
        Role role;
        bytes reason;
    }

    uint256 private constant ROLES = uint256(type(Role).max) + 1;
    uint256 private constant ANYONE = (1 << ROLES) - 1;
    bytes4 private constant NOT_OWNER = bytes4(keccak256("OwnableUnauthorizedAccount(address)"));
    address private constant HEIR = address(0x4E14);
    address private constant PAUSER = address(0x9A05);
    address private constant LISTED = address(0x115D);

    address[] private targets;
    string[] private names;
    address[] private accounts;
    Row[] private rows;
    Exception[] private exceptions;

    Signer private leaver;
    Signer private newcomer;
    bytes32 private dataTemplateId;
    bytes32 private templateId;
    bytes32 private dataInstanceId;
    bytes32 private instanceId;

    function setUp() public override {
        super.setUp();
        targets = [
            address(clients),
            address(data),
            address(policies),
            address(commits),
            address(versions),
            address(operators),
            address(keys),
            address(tasks)
        ];
        names = [
            "PolicyClientRegistry",
            "PolicyDataRegistry",
            "PolicyRegistry",
            "StateCommitRegistry",
            "EnclaveVersionRegistry",
            "OperatorRegistry",
            "KeyRegistry",
            "TaskManager"
        ];
        _world();
        accounts = [
            GOVERNANCE,
            HEIR,
            EMERGENCY,
            PAUSER,
            AUTHOR,
            LISTED,
            CLIENT,
            CLIENT_OWNER,
            DEPLOYER,
            signers[0].account,
            leaver.account,
            newcomer.account,
            address(versions),
            address(policies),
            address(data),
            STRANGER
        ];
        for (uint256 i = 0; i < targets.length; ++i) {
            _commonRows(targets[i]);
        }
        _listRows();
        _policyRows();
        _operatorRows();
        _governanceRows();
        _taskRows();
    }

    function test_every_function_is_in_the_table() public view {
        for (uint256 i = 0; i < targets.length; ++i) {
            string memory json = vm.readFile(string.concat("out/", names[i], ".sol/", names[i], ".json"));
            bytes memory found = vm.parseJson(
                json, "$.abi[?(@.stateMutability == 'nonpayable' || @.stateMutability == 'payable')].name"
            );
            string[] memory functions = abi.decode(found, (string[]));
            vm.assertGe(functions.length, 6, "functions found");
            for (uint256 k = 0; k < functions.length; ++k) {
                vm.assertTrue(_hasRow(targets[i], functions[k]), string.concat(names[i], ".", functions[k]));
            }
        }
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

    // ---------------------------------------------------------------------------------------------------- the world

    function _world() private {
        _joinMany(3);
        _join("dismissed", 100);
        leaver = _join("leaver", 100);
        vm.prank(leaver.account);
        operators.requestExit(leaver.key, aggregateKey);
        signers.pop();
        _updateAggregate();
        _allow(signers[3].account, 0);
        newcomer = _signer("newcomer");
        _allow(newcomer.account, 100);
        _next(1);
        vm.warp(_time() + EXIT_DELAY);

        _registerClient();
        vm.prank(CLIENT_OWNER);
        clients.setDeployer(CLIENT, DEPLOYER, true);
        dataTemplateId = _registerDataTemplate("a");
        templateId = _registerTemplate(_one(dataTemplateId));
        vm.startPrank(CLIENT_OWNER);
        dataInstanceId = data.deployInstance(CLIENT, dataTemplateId, "{}", 100, true);
        instanceId = policies.deployInstance(CLIENT, templateId, "{}", 100, true);
        vm.stopPrank();
        keys.publishKeyEpoch(_epoch(1), _certify(keys.keyEpochDigest(_epoch(1))));
        _submit(_commit(keccak256("root 1")));

        vm.startPrank(GOVERNANCE);
        for (uint256 i = 0; i < targets.length; ++i) {
            _send(targets[i], abi.encodeWithSignature("transferOwnership(address)", HEIR));
            if (_isPausable(targets[i])) _send(targets[i], abi.encodeCall(IPausableByRole.setPauser, (PAUSER)));
        }
        for (uint256 i = 1; i < 3; ++i) {
            IAllowlistGuard list = IAllowlistGuard(targets[i]);
            list.setTemplateRegistrationPermissionless(false);
            list.setInstanceDeploymentPermissionless(false);
            list.setTemplateAuthor(AUTHOR, true);
            list.setInstanceDeployer(LISTED, true);
            list.setInstanceDeployer(CLIENT_OWNER, true);
            list.setInstanceDeployer(DEPLOYER, true);
        }
        vm.stopPrank();
        _next(1);
    }

    // ---------------------------------------------------------------------------------------------------- the table

    function _commonRows(address target) private {
        _owned(target, "transferOwnership", abi.encodeWithSignature("transferOwnership(address)", STRANGER));
        _owned(target, "renounceOwnership", abi.encodeWithSignature("renounceOwnership()"));
        _row(
            target,
            "acceptOwnership",
            abi.encodeWithSignature("acceptOwnership()"),
            _bit(Role.Heir),
            abi.encodePacked(NOT_OWNER)
        );
        address same = _implementation(target);
        _owned(target, "upgradeToAndCall", abi.encodeWithSignature("upgradeToAndCall(address,bytes)", same, ""));
        _initializeRow(target);
        if (!_isPausable(target)) return;
        _owned(target, "setPauser", abi.encodeCall(IPausableByRole.setPauser, (STRANGER)));
        _owned(target, "unpause", abi.encodeCall(IPausableByRole.unpause, ()));
        rows[rows.length - 1].before = abi.encodeCall(IPausableByRole.pause, ());
        _row(
            target,
            "pause",
            abi.encodeCall(IPausableByRole.pause, ()),
            _bit(Role.Owner) | _bit(Role.Pauser),
            abi.encodePacked(IPausableByRole.NotPauser.selector)
        );
    }

    function _initializeRow(address target) private {
        bytes memory call = abi.encodeWithSignature("initialize(address)", STRANGER);
        if (target == address(data) || target == address(policies)) {
            call = abi.encodeWithSignature("initialize(address,bool,bool)", STRANGER, true, true);
        } else if (target == address(commits)) {
            call = abi.encodeWithSignature(
                "initialize(address,(uint64,uint64,uint64,uint32,uint64,uint16,uint16,uint64,uint64,uint64,uint64,uint64,bool))",
                STRANGER,
                _parameters()
            );
        } else if (target == address(versions)) {
            call = abi.encodeWithSignature("initialize(address,address,uint64,uint32)", STRANGER, STRANGER, 1, 1);
        } else if (target == address(operators)) {
            call = abi.encodeWithSignature("initialize(address,uint64,uint64,uint64)", STRANGER, 1, 1, 1);
        }
        _row(target, "initialize", call, 0, abi.encodeWithSignature("InvalidInitialization()"));
        rows[rows.length - 1].named = false;
    }

    function _listRows() private {
        for (uint256 i = 1; i < 3; ++i) {
            address target = targets[i];
            _owned(
                target,
                "setTemplateRegistrationPermissionless",
                abi.encodeCall(IAllowlistGuard.setTemplateRegistrationPermissionless, (true))
            );
            _owned(
                target,
                "setInstanceDeploymentPermissionless",
                abi.encodeCall(IAllowlistGuard.setInstanceDeploymentPermissionless, (true))
            );
            _owned(target, "setTemplateAuthor", abi.encodeCall(IAllowlistGuard.setTemplateAuthor, (STRANGER, true)));
            _owned(target, "setInstanceDeployer", abi.encodeCall(IAllowlistGuard.setInstanceDeployer, (STRANGER, true)));
        }
    }

    function _policyRows() private {
        _row(
            address(clients),
            "registerClient",
            abi.encodeCall(IPolicyClientRegistry.registerClient, (CLIENT, STRANGER)),
            _bit(Role.Client),
            abi.encodeWithSelector(IPolicyClientRegistry.UnauthorizedClaim.selector, CLIENT)
        );
        _row(
            address(clients),
            "setDeployer",
            abi.encodeCall(IPolicyClientRegistry.setDeployer, (CLIENT, STRANGER, true)),
            _bit(Role.ClientOwner),
            abi.encodeWithSelector(IPolicyClientRegistry.NotClientOwner.selector, CLIENT, CLIENT_OWNER)
        );
        bytes memory notAuthor = abi.encodePacked(IAllowlistGuard.UnauthorizedTemplateAuthor.selector);
        uint256 author = _bit(Role.Author);
        _pausable(
            address(data),
            "registerTemplate",
            abi.encodeCall(IPolicyDataRegistry.registerTemplate, (_artifact("new"), _absent(), _absent(), _daRefs(1))),
            author,
            notAuthor
        );
        _pausable(
            address(data),
            "supplyArtifact",
            abi.encodeCall(IPolicyDataRegistry.supplyArtifact, (6, keccak256("new"), 3, "")),
            author,
            notAuthor
        );
        _pausable(
            address(policies),
            "registerTemplate",
            abi.encodeCall(
                IPolicyRegistry.registerTemplate, (_artifact("new"), _absent(), "allow", new bytes32[](0), _daRefs(1))
            ),
            author,
            notAuthor
        );
        _pausable(
            address(policies),
            "supplyArtifact",
            abi.encodeCall(IPolicyRegistry.supplyArtifact, (4, keccak256("new"), 3, "")),
            author,
            notAuthor
        );
        _instanceRows();
    }

    function _instanceRows() private {
        uint256 clientRoles = _bit(Role.ClientOwner) | _bit(Role.Delegate);
        bytes memory notListed = abi.encodePacked(IAllowlistGuard.UnauthorizedInstanceDeployer.selector);
        bytes memory notClient = abi.encodeWithSelector(IPolicyRegistry.UnauthorizedClient.selector, CLIENT);
        _pausable(
            address(data),
            "deployInstance",
            abi.encodeCall(IPolicyDataRegistry.deployInstance, (CLIENT, dataTemplateId, "{1}", 100, true)),
            clientRoles,
            notListed
        );
        _pausable(
            address(policies),
            "deployInstance",
            abi.encodeCall(IPolicyRegistry.deployInstance, (CLIENT, templateId, "{1}", 100, true)),
            clientRoles,
            notListed
        );
        // Being on the list is not being the client's.
        _except(IPolicyRegistry.deployInstance.selector, Role.Deployer, bytes.concat(notClient, abi.encode(LISTED)));
        _pausable(
            address(data),
            "setCurrent",
            abi.encodeCall(IPolicyDataRegistry.setCurrent, (CLIENT, dataInstanceId)),
            clientRoles,
            notClient
        );
        _pausable(
            address(policies),
            "setCurrent",
            abi.encodeCall(IPolicyRegistry.setCurrent, (CLIENT, instanceId)),
            clientRoles,
            notClient
        );
        _pausable(
            address(data),
            "setSecrets",
            abi.encodeCall(IPolicyDataRegistry.setSecrets, (dataInstanceId, _artifact("envelope"), _daRefs(1)[0])),
            clientRoles,
            notClient
        );
    }

    function _operatorRows() private {
        EnclaveAdmission memory admission = _admission(newcomer);
        _owned(address(operators), "allowOperator", abi.encodeCall(IOperatorRegistry.allowOperator, (STRANGER, 100)));
        _owned(address(operators), "approveAdmission", abi.encodeCall(IOperatorRegistry.approveAdmission, (admission)));
        Certificate memory certificate = _certify(operators.admissionDigest(admission));
        _pausable(
            address(operators),
            "registerOperator",
            abi.encodeCall(
                IOperatorRegistry.registerOperator,
                (newcomer.key, _possession(newcomer), admission, _document(newcomer), aggregateKey, certificate)
            ),
            _bit(Role.Newcomer),
            abi.encodeWithSelector(IOperatorRegistry.NotOperatorOwner.selector, newcomer.account)
        );
        Signer memory boot = _boot(signers[1].account, "boot 2");
        admission = _admission(boot);
        certificate = _certify(operators.admissionDigest(admission));
        _pausable(
            address(operators),
            "readmit",
            abi.encodeCall(
                IOperatorRegistry.readmit,
                (boot.key, _possession(boot), admission, _document(boot), aggregateKey, signers[1].key, certificate)
            ),
            ANYONE,
            ""
        );
        address[] memory dismissed = new address[](1);
        dismissed[0] = signers[3].account;
        _row(
            address(operators),
            "prune",
            abi.encodeCall(IOperatorRegistry.prune, (dismissed, signers[3].key, aggregateKey)),
            ANYONE,
            ""
        );
        _row(
            address(operators),
            "onVersionRevoked",
            abi.encodeCall(IOperatorRegistry.onVersionRevoked, (pcr0Hash)),
            _bit(Role.Versions),
            abi.encodePacked(IOperatorRegistry.NotVersionRegistry.selector)
        );
        _leavingRows();
    }

    function _leavingRows() private {
        bytes memory notRegistered = abi.encodePacked(IOperatorRegistry.OperatorNotRegistered.selector);
        bytes memory leaving = abi.encode(leaver.account);
        _row(
            address(operators),
            "retireAdmission",
            abi.encodeCall(IOperatorRegistry.retireAdmission, (signers[0].key, aggregateKey)),
            _bit(Role.Operator),
            notRegistered
        );
        _except(
            IOperatorRegistry.retireAdmission.selector,
            Role.Leaver,
            bytes.concat(IOperatorRegistry.OperatorNotAdmitted.selector, leaving)
        );
        _row(
            address(operators),
            "requestExit",
            abi.encodeCall(IOperatorRegistry.requestExit, (signers[0].key, aggregateKey)),
            _bit(Role.Operator),
            notRegistered
        );
        _except(
            IOperatorRegistry.requestExit.selector,
            Role.Leaver,
            bytes.concat(IOperatorRegistry.OperatorExiting.selector, leaving)
        );
        _row(
            address(operators),
            "completeExit",
            abi.encodeCall(IOperatorRegistry.completeExit, ()),
            _bit(Role.Leaver),
            notRegistered
        );
        _except(
            IOperatorRegistry.completeExit.selector,
            Role.Operator,
            abi.encodeWithSelector(IOperatorRegistry.ExitNotRequested.selector, signers[0].account)
        );
    }

    function _governanceRows() private {
        address target = address(versions);
        _owned(
            target,
            "proposeVersion",
            abi.encodeCall(IEnclaveVersionRegistry.proposeVersion, (_pcr("a"), _pcr("b"), _pcr("c"), 0, "new"))
        );
        _owned(target, "deprecateVersion", abi.encodeCall(IEnclaveVersionRegistry.deprecateVersion, (pcr0Hash, 1)));
        _row(
            target,
            "revokeVersion",
            abi.encodeCall(IEnclaveVersionRegistry.revokeVersion, (pcr0Hash)),
            _bit(Role.Owner) | _bit(Role.Emergency),
            abi.encodePacked(IEnclaveVersionRegistry.NotEmergencyRole.selector)
        );
        _owned(target, "approveConfig", abi.encodeCall(IEnclaveVersionRegistry.approveConfig, (CONFIG, false)));
        _owned(
            target,
            "scheduleRulesVersion",
            abi.encodeCall(IEnclaveVersionRegistry.scheduleRulesVersion, (2, uint64(_number()) + 100))
        );
        _owned(target, "setEmergencyRole", abi.encodeCall(IEnclaveVersionRegistry.setEmergencyRole, (STRANGER)));

        target = address(keys);
        Certificate memory certificate = _certify(keys.keyEpochDigest(_epoch(2)));
        _row(
            target,
            "publishKeyEpoch",
            abi.encodeCall(IKeyRegistry.publishKeyEpoch, (_epoch(2), certificate)),
            ANYONE,
            ""
        );
        _owned(target, "setMinKeyEpoch", abi.encodeCall(IKeyRegistry.setMinKeyEpoch, (1)));
        _commitRows(address(commits));
    }

    function _commitRows(address target) private {
        StateCommit memory commit = _commit(keccak256("root 2"));
        Certificate memory certificate = _certify(commits.commitDigest(commit));
        _row(
            target,
            "commitStateRoot",
            abi.encodeCall(IStateCommitRegistry.commitStateRoot, (commit, certificate, _daRefs(1))),
            ANYONE,
            ""
        );
        SkipUnavailable memory entry = SkipUnavailable(uint64(_number()), 1, 1, 0);
        certificate = _certify(commits.skipDigest(entry));
        _row(
            target,
            "skipUnavailable",
            abi.encodeCall(IStateCommitRegistry.skipUnavailable, (entry, certificate)),
            ANYONE,
            ""
        );
        _owned(target, "setParameters", abi.encodeCall(IStateCommitRegistry.setParameters, (_parameters())));
        _row(
            target,
            "recordRegistered",
            abi.encodeCall(IStateCommitRegistry.recordRegistered, (STRANGER, 1, 1)),
            _bit(Role.Policies) | _bit(Role.Data),
            abi.encodePacked(IStateCommitRegistry.NotRegistry.selector)
        );
    }

    function _taskRows() private {
        Intent memory intent = Intent(STRANGER, CLIENT, 1, "", block.chainid, "");
        (bytes32 taskId, Task memory task) = _createTask(CLIENT, intent);
        PolicyAttestation memory attestation = _attest(taskId, task);
        Certificate memory certificate = _certify(tasks.attestationDigest(attestation));
        _pausable(
            address(tasks), "createTask", abi.encodeCall(ITaskManager.createTask, (CLIENT, intent, "{}", 0)), ANYONE, ""
        );
        _pausable(
            address(tasks),
            "respondToTask",
            abi.encodeCall(ITaskManager.respondToTask, (taskId, task, attestation, certificate)),
            ANYONE,
            ""
        );
    }

    // --------------------------------------------------------------------------------------------------------- tools

    function _owned(address target, string memory name, bytes memory call) private {
        _row(target, name, call, _bit(Role.Owner), abi.encodePacked(NOT_OWNER));
    }

    function _pausable(address target, string memory name, bytes memory call, uint256 allowed, bytes memory refusal)
        private
    {
        _row(target, name, call, allowed, refusal);
        rows[rows.length - 1].pausable = true;
    }

    function _row(address target, string memory name, bytes memory call, uint256 allowed, bytes memory refusal)
        private
    {
        Row storage row = rows.push();
        row.target = target;
        row.name = name;
        row.call = call;
        row.allowed = allowed;
        row.refusal = refusal;
        row.named = true;
    }

    function _except(bytes4 selector, Role role, bytes memory reason) private {
        exceptions.push(Exception(selector, role, reason));
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

    function _send(address target, bytes memory call) private {
        (bool ok,) = target.call(call);
        vm.assertTrue(ok, "preparation");
    }

    function _reason(Row memory row, Role role) private view returns (bytes memory) {
        for (uint256 i = 0; i < exceptions.length; ++i) {
            if (exceptions[i].selector == bytes4(row.call) && exceptions[i].role == role) return exceptions[i].reason;
        }
        return row.named ? bytes.concat(row.refusal, abi.encode(accounts[uint256(role)])) : row.refusal;
    }

    function _hasRow(address target, string memory name) private view returns (bool) {
        for (uint256 i = 0; i < rows.length; ++i) {
            if (rows[i].target == target && keccak256(bytes(rows[i].name)) == keccak256(bytes(name))) return true;
        }
        return false;
    }

    function _isPausable(address target) private view returns (bool) {
        return target == address(data) || target == address(policies) || target == address(operators)
            || target == address(tasks);
    }

    /// @dev Calls to the set's proxies, their implementations and precompiles; and what is no call.
    function _isTrusted(Vm.AccountAccess memory access) private view returns (bool) {
        if (uint256(access.kind) > uint256(Vm.AccountAccessKind.StaticCall)) return true;
        if (access.account <= address(0xff)) return true;
        for (uint256 i = 0; i < targets.length; ++i) {
            if (access.account == targets[i] || access.account == _implementation(targets[i])) return true;
        }
        return false;
    }

    function _implementation(address proxy) private view returns (address) {
        bytes32 slot = bytes32(uint256(keccak256("eip1967.proxy.implementation")) - 1);
        return address(uint160(uint256(vm.load(proxy, slot))));
    }

    function _epoch(uint64 number) private pure returns (KeyEpoch memory) {
        return KeyEpoch(keccak256("msk"), number, keccak256("secrets"), keccak256("privacy"));
    }

    function _bit(Role role) private pure returns (uint256) {
        return 1 << uint256(role);
    }

    function _first(uint256 bits) private pure returns (uint256 position) {
        while (bits & (1 << position) == 0) ++position;
    }
}
