// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {AttestationEvidence, IChallengeVerifier, SecretsProof} from "../../src/interfaces/IChallenges.sol";
import {
    IAllowlistGuard,
    IEnclaveVersionRegistry,
    IPausableByRole,
    IPolicyClientRegistry
} from "../../src/interfaces/IGovernance.sol";
import {
    Certificate,
    EnclaveAdmission,
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
    SealedSnapshot,
    SkipUnavailable,
    StateCommit,
    Task
} from "../../src/interfaces/INewton.sol";
import {IResultVerifier, ResultOutcome} from "../../src/interfaces/IResultVerifier.sol";
import {ISlasher} from "../../src/interfaces/ISlasher.sol";
import {PolicySuite} from "./PolicySuite.sol";
import {vm} from "./Vm.sol";

/// @dev One of two functions with the same name: only an interface of its own tells them apart.
interface IAttestationEquivocation {
    function challengeEquivocation(
        AttestationEvidence calldata,
        PolicyAttestation calldata,
        Certificate calldata,
        uint256
    ) external returns (uint8);
}

interface ICommitEquivocation {
    function challengeEquivocation(
        StateCommit calldata,
        Certificate calldata,
        StateCommit calldata,
        Certificate calldata,
        uint256
    ) external returns (uint8);
}

/// @dev Who may call what: the roles, a world in which each can do what it may, and a row for each function.
abstract contract AccessTable is PolicySuite {
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
        Challenges,
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

    uint256 internal constant ROLES = uint256(type(Role).max) + 1;
    uint256 internal constant ANYONE = (1 << ROLES) - 1;
    bytes4 internal constant NOT_OWNER = bytes4(keccak256("OwnableUnauthorizedAccount(address)"));
    address internal constant HEIR = address(0x4E14);
    address internal constant PAUSER = address(0x9A05);
    address internal constant LISTED = address(0x115D);

    address[] internal accounts;
    Row[] internal rows;
    Exception[] internal exceptions;

    Signer internal leaver;
    Signer internal newcomer;
    bytes32 internal dataTemplateId;
    bytes32 internal templateId;
    bytes32 internal dataInstanceId;
    bytes32 internal instanceId;

    function setUp() public override {
        super.setUp();
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
            address(challenges),
            STRANGER
        ];
        for (uint256 i = 0; i < proxies.length; ++i) {
            _commonRows(proxies[i]);
        }
        _listRows();
        _policyRows();
        _operatorRows();
        _governanceRows();
        _taskRows();
        _challengeRows();
    }

    // ---------------------------------------------------------------------------------------------------- the world

    function _world() internal {
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
        _outlive();
        // Slashed, so that there is something to put into a set.
        vm.prank(address(challenges));
        ISlasher(address(operators)).slashOperator(signers[1].account, 10);

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
        for (uint256 i = 0; i < proxies.length; ++i) {
            _send(proxies[i], abi.encodeWithSignature("transferOwnership(address)", HEIR));
            if (_isPausable(proxies[i])) _send(proxies[i], abi.encodeCall(IPausableByRole.setPauser, (PAUSER)));
        }
        for (uint256 i = 1; i < 3; ++i) {
            IAllowlistGuard list = IAllowlistGuard(proxies[i]);
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

    function _commonRows(address target) internal {
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

    function _initializeRow(address target) internal {
        bytes memory call = abi.encodeWithSignature("initialize(address)", STRANGER);
        if (target == address(data) || target == address(policies)) {
            call = abi.encodeWithSignature("initialize(address,bool,bool)", STRANGER, true, true);
        } else if (target == address(commits)) {
            call = abi.encodeWithSignature(
                "initialize(address,(uint64,uint64,uint64,uint32,uint64,uint16,uint16,uint64,uint64,uint64,uint64,uint64,bool),uint32,uint48)",
                STRANGER,
                _parameters(),
                1,
                0
            );
        } else if (target == address(versions)) {
            call = abi.encodeWithSignature("initialize(address,address,uint64,uint32)", STRANGER, STRANGER, 1, 1);
        } else if (target == address(operators)) {
            call = abi.encodeWithSignature("initialize(address,uint64,uint64,uint64)", STRANGER, 1, 1, 1);
        } else if (target == address(challenges)) {
            call = abi.encodeWithSignature("initialize(address,address)", STRANGER, STRANGER);
        }
        _row(target, "initialize", call, 0, abi.encodeWithSignature("InvalidInitialization()"));
        rows[rows.length - 1].named = false;
    }

    function _listRows() internal {
        for (uint256 i = 1; i < 3; ++i) {
            address target = proxies[i];
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

    function _policyRows() internal {
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

    function _instanceRows() internal {
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

    function _operatorRows() internal {
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
        _row(
            address(operators),
            "slashOperator",
            abi.encodeCall(ISlasher.slashOperator, (signers[0].account, 10)),
            _bit(Role.Challenges),
            abi.encodePacked(ISlasher.NotChallengeVerifier.selector)
        );
        _reweighRow();
        _leavingRows();
    }

    function _reweighRow() internal {
        address[] memory slashed = new address[](1);
        slashed[0] = signers[1].account;
        _row(
            address(operators),
            "reweigh",
            abi.encodeCall(IOperatorRegistry.reweigh, (slashed, aggregateKey)),
            ANYONE,
            ""
        );
    }

    function _leavingRows() internal {
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

    function _governanceRows() internal {
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
        _snapshotRows(address(commits));
    }

    function _commitRows(address target) internal {
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

    function _snapshotRows(address target) internal {
        SealedSnapshot memory snapshot = _sealed(keccak256("root 2"));
        bytes32 digest = commits.snapshotDigest(snapshot);
        bytes memory propose = abi.encodeCall(IStateCommitRegistry.proposeSnapshot, (snapshot));
        vm.prank(GOVERNANCE);
        commits.proposeSnapshot(snapshot);
        vm.warp(_time() + TIMELOCK);
        _owned(target, "proposeSnapshot", propose);
        _owned(target, "cancelSnapshot", abi.encodeCall(IStateCommitRegistry.cancelSnapshot, (digest)));
        _row(
            target,
            "adoptSnapshot",
            abi.encodeCall(IStateCommitRegistry.adoptSnapshot, (snapshot, _certify(digest), SNAPSHOT_REF)),
            ANYONE,
            ""
        );
    }

    function _taskRows() internal {
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

    /// @dev Honest evidence: what anyone may bring, and nothing comes of it.
    function _challengeRows() internal {
        address target = address(challenges);
        AttestationEvidence memory evidence = _honestEvidence();
        _row(
            target,
            "challengeAttestation",
            abi.encodeCall(IChallengeVerifier.challengeAttestation, (evidence, new SecretsProof[](0), 64)),
            ANYONE,
            ""
        );
        _row(
            target,
            "challengeResult",
            abi.encodeCall(IChallengeVerifier.challengeResult, (evidence, REEXECUTION, _outcome(evidence, true), 64)),
            ANYONE,
            ""
        );
        StateCommit memory commit = _commit(keccak256("root 2"));
        bytes32 digest = commits.commitDigest(commit);
        Certificate memory certificate = _certify(digest);
        bytes memory proof = _outcomeOf(
            ResultOutcome(STATE_COMMIT, keccak256(abi.encode(commit.sequenceNo, commit.prevStateRoot)), digest, true, 1)
        );
        _row(
            target,
            "challengeCommit",
            abi.encodeCall(IChallengeVerifier.challengeCommit, (commit, certificate, REEXECUTION, proof, 64)),
            ANYONE,
            ""
        );
        _row(
            target,
            "challengeEquivocation",
            abi.encodeCall(
                IAttestationEquivocation.challengeEquivocation,
                (evidence, evidence.attestation, evidence.certificate, 64)
            ),
            ANYONE,
            ""
        );
        _row(
            target,
            "challengeEquivocation",
            abi.encodeCall(ICommitEquivocation.challengeEquivocation, (commit, certificate, commit, certificate, 64)),
            ANYONE,
            ""
        );
        _owned(
            target,
            "setResultVerifier",
            abi.encodeCall(IChallengeVerifier.setResultVerifier, (REEXECUTION, IResultVerifier(STRANGER)))
        );
    }

    function _honestEvidence() internal returns (AttestationEvidence memory evidence) {
        bytes32 taskId;
        (taskId, evidence.task) = _createTask(CLIENT, Intent(STRANGER, CLIENT, 2, "", block.chainid, ""));
        evidence.attestation = _attest(taskId, evidence.task);
        evidence.certificate = _certify(tasks.attestationDigest(evidence.attestation));
    }

    // --------------------------------------------------------------------------------------------------------- tools

    function _owned(address target, string memory name, bytes memory call) internal {
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

    function _except(bytes4 selector, Role role, bytes memory reason) internal {
        exceptions.push(Exception(selector, role, reason));
    }

    function _send(address target, bytes memory call) internal {
        (bool ok,) = target.call(call);
        vm.assertTrue(ok, "preparation");
    }

    function _isPausable(address target) internal view returns (bool) {
        return target == address(data) || target == address(policies) || target == address(operators)
            || target == address(tasks);
    }

    function _implementation(address proxy) internal view returns (address) {
        bytes32 slot = bytes32(uint256(keccak256("eip1967.proxy.implementation")) - 1);
        return address(uint160(uint256(vm.load(proxy, slot))));
    }

    function _epoch(uint64 number) internal pure returns (KeyEpoch memory) {
        return KeyEpoch(keccak256("msk"), number, keccak256("secrets"), keccak256("privacy"));
    }

    function _bit(Role role) internal pure returns (uint256) {
        return 1 << uint256(role);
    }
}
