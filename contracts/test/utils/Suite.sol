// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {AttestationEvidence, IChallengeVerifier} from "../../src/interfaces/IChallenges.sol";
import {IEnclaveVersionRegistry, IPolicyClientRegistry} from "../../src/interfaces/IGovernance.sol";
import {
    ArtifactRef,
    Certificate,
    ConsensusParameters,
    EnclaveAdmission,
    ICertificateVerifier,
    IKeyRegistry,
    IOperatorRegistry,
    IPolicyDataRegistry,
    IPolicyRegistry,
    IStateCommitRegistry,
    ITaskManager,
    PolicyAttestation,
    SealedSnapshot,
    StateCommit
} from "../../src/interfaces/INewton.sol";
import {IEnclaveReexecutionVerifier, ResultOutcome} from "../../src/interfaces/IResultVerifier.sol";
import {Ids} from "../../src/libraries/Ids.sol";
import {TestBls} from "./TestBls.sol";
import {vm} from "./Vm.sol";

/// @dev The whole set behind proxies, as the deployment makes it, and operators with real keys.
abstract contract Suite {
    struct Signer {
        address account;
        uint256 secretKey;
        bytes key;
        bytes32 keyHash;
    }

    address internal constant GOVERNANCE = address(0x600D);
    address internal constant EMERGENCY = address(0xE911);
    address internal constant STRANGER = address(0x5742);
    address internal constant AUTHOR = address(0xA117);
    address internal constant CLIENT = address(0xC11E);
    address internal constant CLIENT_OWNER = address(0xC0FE);
    address internal constant DEPLOYER = address(0xDE91);

    uint64 internal constant START_BLOCK = 1000;
    uint64 internal constant START_TIME = 1_800_000_000;
    uint64 internal constant EXIT_DELAY = 7 days;
    uint64 internal constant TIMELOCK = 2 days;
    uint64 internal constant MAX_ADMISSION = 30 days;
    uint64 internal constant ACTIVATION_DELAY = 5;
    bytes32 internal constant CONFIG = keccak256("config");
    bytes internal constant SNAPSHOT_REF = "where the sealed bytes are";
    uint8 internal constant REEXECUTION = 1;
    uint8 internal constant EVALUATION = 1;
    uint8 internal constant STATE_COMMIT = 2;

    IPolicyClientRegistry internal clients;
    IPolicyDataRegistry internal data;
    IPolicyRegistry internal policies;
    IStateCommitRegistry internal commits;
    IEnclaveVersionRegistry internal versions;
    IOperatorRegistry internal operators;
    /// @dev The operator registry by its other face.
    ICertificateVerifier internal certificates;
    IKeyRegistry internal keys;
    ITaskManager internal tasks;
    IChallengeVerifier internal challenges;
    IEnclaveReexecutionVerifier internal reexecution;

    /// @dev Every contract of the set, in order of deployment.
    address[] internal proxies;
    string[] internal proxyNames;

    bytes32 internal pcr0Hash;
    bytes internal aggregateKey;
    /// @dev Secret keys that make up the latest set, in order of index.
    Signer[] internal signers;

    function setUp() public virtual {
        vm.roll(START_BLOCK);
        vm.warp(START_TIME);
        aggregateKey = new bytes(256);
        _deployAll();
        pcr0Hash = _propose("image");
        vm.prank(GOVERNANCE);
        versions.approveConfig(CONFIG, true);
        _next(ACTIVATION_DELAY);
    }

    // -------------------------------------------------------------------------------------------------- deployment

    function _parameters() internal pure returns (ConsensusParameters memory) {
        return ConsensusParameters({
            genesisTime: 0,
            cadence: 120,
            maxCommitBytes: 52_428_800,
            maxArtifactBytes: 25_165_824,
            maxExpireAfter: 1_000_000,
            quorumBps: 6667,
            minSigners: 1,
            maxSetAge: 100,
            maxDeferQueueBytes: 524_288_000,
            authorQuotaBytes: 104_857_600,
            responseWindow: 30,
            challengeWindow: 100,
            skipEmpty: true
        });
    }

    function _deployAll() internal {
        uint64 nonce = vm.getNonce(address(this));
        address[10] memory expected;
        for (uint64 i = 0; i < 10; ++i) {
            expected[i] = vm.computeCreateAddress(address(this), nonce + 10 + i);
        }
        clients = IPolicyClientRegistry(expected[0]);
        data = IPolicyDataRegistry(expected[1]);
        policies = IPolicyRegistry(expected[2]);
        commits = IStateCommitRegistry(expected[3]);
        versions = IEnclaveVersionRegistry(expected[4]);
        operators = IOperatorRegistry(expected[5]);
        certificates = ICertificateVerifier(expected[5]);
        keys = IKeyRegistry(expected[6]);
        tasks = ITaskManager(expected[7]);
        challenges = IChallengeVerifier(expected[8]);
        reexecution = IEnclaveReexecutionVerifier(expected[9]);

        address[10] memory code = [
            _implement("PolicyClientRegistry", ""),
            _implement("PolicyDataRegistry", abi.encode(clients, commits)),
            _implement("PolicyRegistry", abi.encode(clients, data, commits)),
            _implement("StateCommitRegistry", abi.encode(operators, versions, policies, data)),
            _implement("EnclaveVersionRegistry", abi.encode(operators)),
            _implement("OperatorRegistry", abi.encode(versions, commits, challenges)),
            _implement("KeyRegistry", abi.encode(operators, commits)),
            _implement("TaskManager", abi.encode(policies, commits, operators, operators, versions)),
            _implement("ChallengeVerifier", abi.encode(tasks, policies, data, commits, versions, operators, operators)),
            _implement("EnclaveReexecutionVerifier", abi.encode(operators, operators, commits))
        ];
        bytes[10] memory calls = [
            abi.encodeWithSignature("initialize(address)", GOVERNANCE),
            abi.encodeWithSignature("initialize(address,bool,bool)", GOVERNANCE, true, true),
            abi.encodeWithSignature("initialize(address,bool,bool)", GOVERNANCE, true, true),
            abi.encodeWithSignature(
                "initialize(address,(uint64,uint64,uint64,uint32,uint64,uint16,uint16,uint64,uint64,uint64,uint64,uint64,bool),uint32,uint48)",
                GOVERNANCE,
                _parameters(),
                1,
                TIMELOCK
            ),
            abi.encodeWithSignature(
                "initialize(address,address,uint64,uint32)", GOVERNANCE, EMERGENCY, ACTIVATION_DELAY, 1
            ),
            abi.encodeWithSignature(
                "initialize(address,uint64,uint64,uint64)", GOVERNANCE, EXIT_DELAY, TIMELOCK, MAX_ADMISSION
            ),
            abi.encodeWithSignature("initialize(address)", GOVERNANCE),
            abi.encodeWithSignature("initialize(address)", GOVERNANCE),
            abi.encodeWithSignature("initialize(address,address)", GOVERNANCE, reexecution),
            abi.encodeWithSignature("initialize(address)", GOVERNANCE)
        ];
        for (uint256 i = 0; i < 10; ++i) {
            require(_create("NewtonProxy", abi.encode(code[i], calls[i])) == expected[i], "address");
            proxies.push(expected[i]);
        }
    }

    /// @dev What stands behind the next proxy.
    function _implement(string memory name, bytes memory arguments) private returns (address) {
        proxyNames.push(name);
        return _create(name, arguments);
    }

    /// @dev From the compiler's artifacts: `new` would put every contract's code into every test's.
    function _create(string memory name, bytes memory arguments) internal returns (address created) {
        bytes memory code = bytes.concat(vm.getCode(string.concat(name, ".sol:", name)), arguments);
        assembly ("memory-safe") {
            created := create(0, add(code, 0x20), mload(code))
        }
        require(created != address(0), name);
    }

    // ---------------------------------------------------------------------------------------------------- versions

    function _pcr(string memory name) internal pure returns (bytes memory) {
        return abi.encodePacked(keccak256(bytes(name)), bytes16(keccak256(bytes(name))));
    }

    function _propose(string memory name) internal returns (bytes32) {
        vm.prank(GOVERNANCE);
        return versions.proposeVersion(_pcr(name), _pcr("kernel"), _pcr("application"), keccak256("source"), name);
    }

    // --------------------------------------------------------------------------------------------------- operators

    function _signer(string memory name) internal view returns (Signer memory signer) {
        signer.account = address(uint160(uint256(keccak256(bytes(name)))));
        return _boot(signer.account, name);
    }

    /// @dev A boot's new key for an operator.
    function _boot(address account, string memory name) internal view returns (Signer memory signer) {
        signer.account = account;
        signer.secretKey = TestBls.secret(name);
        signer.key = TestBls.publicKey(signer.secretKey);
        signer.keyHash = keccak256(signer.key);
    }

    function _document(Signer memory signer) internal pure returns (bytes memory) {
        return abi.encodePacked("document of ", signer.keyHash);
    }

    function _admission(Signer memory signer) internal view returns (EnclaveAdmission memory) {
        return EnclaveAdmission({
            operator: signer.account,
            blsKeyHash: signer.keyHash,
            tlsKeyHash: keccak256(abi.encode("tls", signer.keyHash)),
            bootId: keccak256(abi.encode("boot", signer.keyHash)),
            pcr0Hash: pcr0Hash,
            configHash: CONFIG,
            docHash: keccak256(_document(signer)),
            validUntil: uint64(_time()) + 10 days
        });
    }

    function _possession(Signer memory signer) internal view returns (bytes memory) {
        return TestBls.possession(
            signer.secretKey, keccak256(abi.encode(signer.account, block.chainid, operators, signer.keyHash))
        );
    }

    function _allow(address account, uint96 weight) internal {
        vm.prank(GOVERNANCE);
        operators.allowOperator(account, weight);
    }

    function _approve(EnclaveAdmission memory admission) internal {
        vm.prank(GOVERNANCE);
        operators.approveAdmission(admission);
    }

    function _noCertificate() internal pure returns (Certificate memory certificate) {}

    function _register(Signer memory signer, EnclaveAdmission memory admission, Certificate memory certificate)
        internal
    {
        bytes memory proof = _possession(signer);
        vm.prank(signer.account);
        operators.registerOperator(signer.key, proof, admission, _document(signer), aggregateKey, certificate);
    }

    /// @dev Admits an operator: the first by the owner's word, the others by certificate. Moves to the next block.
    function _join(string memory name, uint96 weight) internal returns (Signer memory signer) {
        signer = _signer(name);
        _join(signer, weight);
    }

    function _join(Signer memory signer, uint96 weight) internal {
        _allow(signer.account, weight);
        EnclaveAdmission memory admission = _admission(signer);
        Certificate memory certificate;
        if (signers.length == 0) _approve(admission);
        else certificate = _certify(operators.admissionDigest(admission));
        _register(signer, admission, certificate);
        signers.push(signer);
        _updateAggregate();
        _next(1);
    }

    function _joinMany(uint256 count) internal {
        for (uint256 i = 0; i < count; ++i) {
            _join(string.concat("operator ", vm.toString(i)), 100);
        }
    }

    function _updateAggregate() internal {
        uint256 total;
        for (uint256 i = 0; i < signers.length; ++i) {
            total = addmod(total, signers[i].secretKey, TestBls.ORDER);
        }
        aggregateKey = signers.length == 0 ? new bytes(256) : TestBls.publicKey(total);
    }

    /// @dev A certificate of all members of the latest set.
    function _certify(bytes32 digest) internal view returns (Certificate memory) {
        return _certify(digest, 0);
    }

    /// @dev A certificate without the members named by the bitmap.
    function _certify(bytes32 digest, uint256 nonSigners) internal view returns (Certificate memory certificate) {
        uint256 total;
        for (uint256 i = 0; i < signers.length; ++i) {
            if (nonSigners & (1 << i) != 0) {
                certificate.nonSignerKeys = bytes.concat(certificate.nonSignerKeys, signers[i].key);
            } else {
                total = addmod(total, signers[i].secretKey, TestBls.ORDER);
            }
        }
        certificate.signature = TestBls.sign(total, digest);
        certificate.setId = operators.latestSetId();
        certificate.nonSignerBitmap = nonSigners;
        certificate.aggregateKey = aggregateKey;
    }

    // ------------------------------------------------------------------------------------------------------ commits

    /// @dev The next commit after the latest one, over the blocks up to the parent.
    function _commit(bytes32 root) internal view returns (StateCommit memory commit) {
        commit.sequenceNo = commits.getSequenceNo() + 1;
        commit.prevStateRoot = commits.getStateRoot();
        commit.newStateRoot = root;
        commit.boundaryBlock = uint64(_number()) - 1;
        commit.boundaryTimestamp = uint64(_time()) - 12;
        commit.deltaHash = keccak256(abi.encode(root));
        commit.rulesVersion = 1;
        (commit.drainedBlock, commit.drainedTx, commit.drainedLog, commit.drainedItem) = commits.drainedThrough();
    }

    /// @dev A sealed snapshot in the place of the next commit.
    function _sealed(bytes32 root) internal view returns (SealedSnapshot memory snapshot) {
        snapshot.commit = _commit(root);
        snapshot.commit.deltaHash = 0;
        snapshot.snapshotHash = keccak256("sealed bytes");
        snapshot.snapshotLength = 12;
        snapshot.daRefHash = keccak256(SNAPSHOT_REF);
    }

    function _submit(StateCommit memory commit) internal {
        Certificate memory certificate = _certify(commits.commitDigest(commit));
        commits.commitStateRoot(commit, certificate, new bytes[](0));
        _next(1);
    }

    // ---------------------------------------------------------------------------------------------------- challenges

    /// @dev The word of the whole latest set about an attestation's result.
    function _outcome(AttestationEvidence memory evidence, bool correct) internal view returns (bytes memory) {
        PolicyAttestation memory inputs = _copy(evidence).attestation;
        bytes32[] memory outputs = new bytes32[](inputs.data.length);
        for (uint256 i = 0; i < outputs.length; ++i) {
            outputs[i] = inputs.data[i].outputHash;
            inputs.data[i].outputHash = 0;
        }
        bytes32 result = keccak256(abi.encode(inputs.evaluationResultHash, outputs));
        inputs.evaluationResultHash = 0;
        return _outcomeOf(
            ResultOutcome(EVALUATION, keccak256(abi.encode(inputs)), result, correct, evidence.task.rulesVersion)
        );
    }

    function _outcomeOf(ResultOutcome memory outcome) internal view returns (bytes memory) {
        return abi.encode(outcome.correct, _certify(reexecution.outcomeDigest(outcome)));
    }

    /// @dev The same task's attestation, for a test to spoil and sign.
    function _copy(AttestationEvidence memory evidence) internal pure returns (AttestationEvidence memory) {
        return abi.decode(abi.encode(evidence), (AttestationEvidence));
    }

    // ------------------------------------------------------------------------------------------------------ policies

    function _artifact(string memory content) internal pure returns (ArtifactRef memory) {
        return ArtifactRef({artifactHash: keccak256(bytes(content)), byteLength: uint32(bytes(content).length)});
    }

    function _absent() internal pure returns (ArtifactRef memory) {
        return ArtifactRef({artifactHash: Ids.ABSENT, byteLength: 0});
    }

    /// @dev DA references of one blob with a certificate of 250 bytes each.
    function _daRefs(uint256 count) internal pure returns (bytes[] memory refs) {
        refs = new bytes[](count);
        for (uint256 i = 0; i < count; ++i) {
            refs[i] = abi.encodePacked(keccak256("da"), keccak256("ref"), new bytes(250 - 64));
        }
    }

    function _registerClient() internal {
        vm.prank(CLIENT);
        clients.registerClient(CLIENT, CLIENT_OWNER);
    }

    function _registerDataTemplate(string memory name) internal returns (bytes32) {
        vm.prank(AUTHOR);
        return data.registerTemplate(
            _artifact(string.concat("wasm ", name)), _artifact("params"), _artifact("secrets"), _daRefs(3)
        );
    }

    function _registerTemplate(bytes32[] memory refs) internal returns (bytes32) {
        vm.prank(AUTHOR);
        return policies.registerTemplate(_artifact("rego"), _artifact("params"), "vault.allow", refs, _daRefs(2));
    }

    // --------------------------------------------------------------------------------------------------------- tools

    /// @dev Until nothing that a member signed can be challenged any more, once it has left.
    function _outlive() internal {
        vm.roll(_number() + commits.liabilityBlocks() + 1);
    }

    function _next(uint256 blocks) internal {
        vm.roll(_number() + blocks);
        vm.warp(_time() + 12 * blocks);
    }

    /// @dev The compiler takes block.number to be the same all through a call, which `roll` breaks.
    function _number() internal view returns (uint256) {
        return vm.getBlockNumber();
    }

    function _time() internal view returns (uint256) {
        return vm.getBlockTimestamp();
    }

    function _one(bytes32 value) internal pure returns (bytes32[] memory list) {
        list = new bytes32[](1);
        list[0] = value;
    }
}
