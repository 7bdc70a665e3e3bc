// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {PolicyClient} from "../src/base/PolicyClient.sol";
import {
    Certificate,
    ConsensusParameters,
    ICertificateVerifier,
    Intent,
    PolicyAttestation,
    PolicyDataBinding,
    Task
} from "../src/interfaces/INewton.sol";
import {IPolicyClient} from "../src/interfaces/IPolicyClient.sol";
import {PolicySuite} from "./utils/PolicySuite.sol";
import {vm} from "./utils/Vm.sol";

/// @dev The example's functions; its source is compiled otherwise than tests are.
interface IPolicyVault is IPolicyClient {
    event Withdrawn(address indexed token, address indexed to, uint256 amount, address indexed by);

    function namePolicyInstance(bytes32 policyInstanceId) external;
    function withdraw(address to, uint256 amount, PolicyAttestation calldata, Certificate calldata) external;
    function withdrawToken(address token, address to, uint256 amount, PolicyAttestation calldata, Certificate calldata)
        external;
}

contract Coin is ERC20("Coin", "COIN") {
    constructor(address holder) {
        _mint(holder, 1000);
    }
}

/// @dev Asks for a payment and, while it is paid, for more.
contract Thief {
    IPolicyVault private immutable VAULT;
    bytes private again;
    bytes public answer;

    constructor(IPolicyVault vault) {
        VAULT = vault;
    }

    function rob(bytes calldata first, bytes calldata second) external {
        again = second;
        (bool ok, bytes memory reason) = address(VAULT).call(first);
        if (!ok) {
            assembly ("memory-safe") {
                revert(add(reason, 0x20), mload(reason))
            }
        }
    }

    receive() external payable {
        _again();
    }

    /// @dev As a token: transfer() comes back, too.
    function transfer(address, uint256) external returns (bool) {
        _again();
        return true;
    }

    function _again() private {
        if (again.length == 0) return;
        bytes memory call = again;
        again = "";
        (, answer) = address(VAULT).call(call);
    }
}

/// @dev A client that asks for everybody's signature.
contract StrictClient is PolicyClient {
    uint256 public acted;
    address public immutable owner;

    constructor(address owner_, NewtonContracts memory newton) PolicyClient(newton) {
        owner = owner_;
    }

    function name(bytes32 id) external {
        _namePolicyInstance(id);
    }

    function act(PolicyAttestation calldata attestation, Certificate calldata certificate)
        external
        onlyAllowed(attestation, certificate, _intent(address(this), 0, "", ""))
    {
        ++acted;
    }

    function _quorumBps() internal pure override returns (uint16) {
        return 10_000;
    }
}

contract PolicyClientTest is PolicySuite {
    address private constant OWNER = address(0x0417);
    address private constant USER = address(0x05E4);
    address private constant PAYEE = address(0x9A1D);
    uint256 private constant AMOUNT = 3 ether;

    // Words of abi.encode(PolicyAttestation): the offset, then the fields in order.
    uint256 private constant FIELDS = 15;
    uint256 private constant BINDING_FIELDS = 9;
    uint256 private constant TASK_ID = 1;
    uint256 private constant POLICY_INSTANCE_ID = 2;
    uint256 private constant INTENT_HASH = 12;
    uint256 private constant RESULT_HASH = 14;

    IPolicyVault private vault;
    bytes32 private instance;

    function setUp() public override {
        super.setUp();
        _joinMany(3);
        vault = _vault();
        instance = _deployPolicy(address(vault), "{}");
        vm.prank(OWNER);
        vault.namePolicyInstance(instance);
    }

    // ------------------------------------------------------------------------------------------------------- allowed

    function test_an_allowed_withdrawal_of_ether() public {
        (PolicyAttestation memory attestation, Certificate memory certificate) = _allowed(_payment(USER));
        vm.expectEmit(address(vault));
        emit IPolicyClient.AttestationSpent(attestation.taskId, tasks.attestationDigest(attestation));
        vm.expectEmit(address(vault));
        emit IPolicyVault.Withdrawn(address(0), PAYEE, AMOUNT, USER);
        _withdraw(attestation, certificate);
        vm.assertEq(PAYEE.balance, AMOUNT, "paid");
        vm.assertEq(address(vault).balance, 100 ether - AMOUNT, "left");
        vm.assertTrue(vault.isSpent(attestation.taskId), "spent");
        vm.assertEq(tasks.responses(attestation.taskId).respondedAt, 0, "nobody answered on chain");
    }

    function test_an_allowed_withdrawal_of_tokens() public {
        Coin coin = new Coin(address(vault));
        (PolicyAttestation memory attestation, Certificate memory certificate) =
            _allowed(_tokenPayment(address(coin), 7));
        vm.prank(USER);
        vault.withdrawToken(address(coin), PAYEE, 7, attestation, certificate);
        vm.assertEq(coin.balanceOf(PAYEE), 7, "paid");
    }

    function test_an_answer_on_chain_changes_nothing() public {
        (bytes32 taskId, Task memory task) = _createTask(address(vault), _payment(USER));
        PolicyAttestation memory attestation = _attest(taskId, task);
        Certificate memory certificate = _certify(tasks.attestationDigest(attestation));
        tasks.respondToTask(taskId, task, attestation, certificate);
        _withdraw(attestation, certificate);
        vm.assertEq(PAYEE.balance, AMOUNT, "paid");
    }

    function test_a_quorum_is_enough() public {
        (PolicyAttestation memory attestation,) = _allowed(_payment(USER));
        _withdraw(attestation, _certify(tasks.attestationDigest(attestation), 4));
        vm.assertEq(PAYEE.balance, AMOUNT, "paid");
    }

    // ------------------------------------------------------------------------------------------------------- refused

    function test_no_field_can_be_altered() public {
        (PolicyAttestation memory good, Certificate memory certificate) = _allowed(_payment(USER));
        bytes memory encoded = abi.encode(good);
        // Nothing is left out below.
        vm.assertEq(encoded.length, 32 * (1 + FIELDS + 1 + 2 * BINDING_FIELDS), "encoded fields");
        for (uint256 word = 1; word < encoded.length / 32; ++word) {
            // Where the list begins, and its length, are no fields.
            if (word == FIELDS || word == FIELDS + 1) continue;
            PolicyAttestation memory bad = abi.decode(_flip(encoded, word), (PolicyAttestation));
            _refuses(bad, certificate, _reasonFor(word, good, bad));
        }
        _withdraw(good, certificate);
    }

    function test_no_binding_can_be_left_out_added_or_moved() public {
        (PolicyAttestation memory good, Certificate memory certificate) = _allowed(_payment(USER));
        PolicyAttestation memory bad = _copy(good);
        bad.data = new PolicyDataBinding[](1);
        bad.data[0] = good.data[0];
        _refuses(bad, certificate, _invalidSignature(bad));
        bad.data = new PolicyDataBinding[](0);
        _refuses(bad, certificate, _invalidSignature(bad));
        bad.data = new PolicyDataBinding[](3);
        (bad.data[0], bad.data[1], bad.data[2]) = (good.data[0], good.data[1], good.data[1]);
        _refuses(bad, certificate, _invalidSignature(bad));
        bad.data = new PolicyDataBinding[](2);
        (bad.data[0], bad.data[1]) = (good.data[1], good.data[0]);
        _refuses(bad, certificate, _invalidSignature(bad));
    }

    function test_only_the_attested_call_is_let_through() public {
        (PolicyAttestation memory attestation, Certificate memory certificate) = _allowed(_payment(USER));
        Intent[5] memory others;
        for (uint256 i = 0; i < 5; ++i) {
            others[i] = _payment(USER);
        }
        others[0].from = STRANGER;
        others[1].to = STRANGER;
        others[2].value = AMOUNT + 1;
        for (uint256 i = 0; i < 3; ++i) {
            vm.expectRevert(_intentMismatch(others[i], attestation));
            vm.prank(others[i].from);
            vault.withdraw(others[i].to, others[i].value, attestation, certificate);
        }
        // Another function, another token, another amount of it.
        vm.expectRevert(_intentMismatch(_tokenPayment(STRANGER, 7), attestation));
        vm.prank(USER);
        vault.withdrawToken(STRANGER, PAYEE, 7, attestation, certificate);
        (attestation, certificate) = _allowed(_tokenPayment(STRANGER, 7));
        vm.expectRevert(_intentMismatch(_tokenPayment(STRANGER, 8), attestation));
        vm.prank(USER);
        vault.withdrawToken(STRANGER, PAYEE, 8, attestation, certificate);
        vm.expectRevert(_intentMismatch(_tokenPayment(USER, 7), attestation));
        vm.prank(USER);
        vault.withdrawToken(USER, PAYEE, 7, attestation, certificate);
        // The calldata under a name that only looks alike, or under none.
        Intent memory misread = _tokenPayment(STRANGER, 7);
        misread.functionSignature = "many_msg_babbage(bytes1)";
        (attestation, certificate) = _allowed(misread);
        vm.expectRevert(_intentMismatch(_tokenPayment(STRANGER, 7), attestation));
        vm.prank(USER);
        vault.withdrawToken(STRANGER, PAYEE, 7, attestation, certificate);
        // Another chain's call.
        Intent memory elsewhere = _payment(USER);
        elsewhere.chainId = 1;
        (attestation, certificate) = _allowed(elsewhere);
        _refuses(attestation, certificate, _intentMismatch(_payment(USER), attestation));
    }

    function test_an_attestation_expires() public {
        (PolicyAttestation memory attestation, Certificate memory certificate) = _allowed(_payment(USER));
        vm.assertEq(attestation.expirationBlock - attestation.referenceBlock, EXPIRE_AFTER, "the least of three");
        vm.roll(attestation.expirationBlock + 1);
        _refuses(
            attestation,
            certificate,
            abi.encodeWithSelector(
                IPolicyClient.AttestationExpired.selector, attestation.expirationBlock, attestation.expirationBlock + 1
            )
        );
        vm.roll(attestation.expirationBlock);
        _withdraw(attestation, certificate);
    }

    function test_an_attestation_is_used_once() public {
        (PolicyAttestation memory attestation, Certificate memory certificate) = _allowed(_payment(USER));
        _withdraw(attestation, certificate);
        bytes memory spent = abi.encodeWithSelector(IPolicyClient.AttestationAlreadySpent.selector, attestation.taskId);
        _refuses(attestation, certificate, spent);
        // Nor by another quorum's signature over the same task, whatever else it says.
        attestation.data[0].outputHash = keccak256("another");
        _refuses(attestation, _certify(tasks.attestationDigest(attestation), 1), spent);
        // A second task for the same intent is another call.
        (attestation, certificate) = _allowed(_payment(USER));
        _withdraw(attestation, certificate);
        vm.assertEq(PAYEE.balance, 2 * AMOUNT, "paid twice, allowed twice");
    }

    function test_a_refused_use_spends_nothing() public {
        (PolicyAttestation memory attestation, Certificate memory certificate) = _allowed(_payment(USER));
        vm.deal(address(vault), AMOUNT - 1);
        vm.prank(USER);
        vm.expectPartialRevert(bytes4(keccak256("InsufficientBalance(uint256,uint256)")));
        vault.withdraw(PAYEE, AMOUNT, attestation, certificate);
        vm.assertTrue(!vault.isSpent(attestation.taskId), "not spent");
        vm.deal(address(vault), AMOUNT);
        _withdraw(attestation, certificate);
    }

    function test_another_clients_attestation() public {
        // The same template and parameters, the same intent; only the client differs.
        IPolicyVault other = _vault();
        bytes32 othersInstance = _deployPolicy(address(other), "{}");
        (bytes32 taskId, Task memory task) = _createTask(address(other), _payment(USER));
        PolicyAttestation memory attestation = _attest(taskId, task);
        Certificate memory certificate = _certify(tasks.attestationDigest(attestation));
        _refuses(
            attestation,
            certificate,
            abi.encodeWithSelector(IPolicyClient.PolicyInstanceMismatch.selector, instance, othersInstance)
        );
        vm.prank(OWNER);
        other.namePolicyInstance(othersInstance);
        vm.prank(USER);
        other.withdraw(PAYEE, AMOUNT, attestation, certificate);
    }

    function test_too_few_signatures() public {
        (PolicyAttestation memory attestation,) = _allowed(_payment(USER));
        bytes32 digest = tasks.attestationDigest(attestation);
        _refuses(
            attestation,
            _certify(digest, 3),
            abi.encodeWithSelector(ICertificateVerifier.QuorumNotReached.selector, 100, 300, 6667)
        );
        _refuses(attestation, _noCertificate(), abi.encodeWithSelector(ICertificateVerifier.EmptySet.selector, 0));
        Certificate memory forged = _certify(keccak256("something else"));
        _refuses(attestation, forged, _invalidSignature(attestation));
    }

    function test_a_set_that_was_revoked_or_is_too_old() public {
        (PolicyAttestation memory attestation, Certificate memory certificate) = _allowed(_payment(USER));
        vm.prank(EMERGENCY);
        versions.revokeVersion(pcr0Hash);
        _next(1);
        _refuses(
            attestation, certificate, abi.encodeWithSelector(ICertificateVerifier.SetHasRevokedMember.selector, 3, 4)
        );
    }

    function test_a_result_that_is_not_true() public {
        (PolicyAttestation memory attestation,) = _allowed(_payment(USER));
        bytes32[4] memory results = [
            keccak256("false"),
            bytes32(0),
            keccak256('{"error":{"name":"SchemaViolation"}}'),
            keccak256(abi.encode(true))
        ];
        for (uint256 i = 0; i < results.length; ++i) {
            attestation.evaluationResultHash = results[i];
            _refuses(
                attestation,
                _certify(tasks.attestationDigest(attestation)),
                abi.encodeWithSelector(IPolicyClient.ResultNotAllowed.selector, results[i])
            );
        }
    }

    function test_another_chains_or_managers_signature() public {
        (PolicyAttestation memory attestation,) = _allowed(_payment(USER));
        bytes32 here = tasks.attestationDigest(attestation);
        vm.chainId(1);
        bytes32 there = tasks.attestationDigest(attestation);
        vm.chainId(31_337);
        vm.assertTrue(here != there, "domains");
        _refuses(attestation, _certify(there), _invalidSignature(attestation));
        // Another contract in the domain: an implementation signs for itself.
        bytes32 slot = bytes32(uint256(keccak256("eip1967.proxy.implementation")) - 1);
        address implementation = address(uint160(uint256(vm.load(address(tasks), slot))));
        (bool ok, bytes memory answer) =
            implementation.staticcall(abi.encodeCall(tasks.attestationDigest, (attestation)));
        vm.assertTrue(ok && bytes32(answer) != here, "domains");
        _refuses(attestation, _certify(bytes32(answer)), _invalidSignature(attestation));
    }

    function test_after_a_fork_of_the_chain_signatures_for_the_other_side_are_none() public {
        vm.chainId(1);
        Intent memory intent = _payment(USER);
        intent.chainId = 1;
        (PolicyAttestation memory attestation, Certificate memory certificate) = _allowed(intent);
        vm.chainId(31_337);
        Certificate memory other = _certify(tasks.attestationDigest(attestation));
        vm.chainId(1);
        _refuses(attestation, other, _invalidSignature(attestation));
        _withdraw(attestation, certificate);
    }

    function test_a_task_of_a_reorganised_block() public {
        uint256 state = vm.snapshotState();
        (PolicyAttestation memory attestation, Certificate memory certificate) = _allowed(_payment(USER));
        vm.revertToState(state);
        // The blocks come again without it, or with it after another parent.
        _next(2);
        _createTask(address(vault), _payment(USER));
        _refuses(
            attestation,
            certificate,
            abi.encodeWithSelector(IPolicyClient.TaskNotOfThisChain.selector, attestation.taskId)
        );
    }

    // -------------------------------------------------------------------------------------------------------- naming

    function test_an_instance_is_named_by_the_owner_and_is_the_clients_own() public {
        IPolicyVault other = _vault();
        vm.startPrank(OWNER);
        vm.expectRevert(abi.encodeWithSelector(IPolicyClient.UnknownPolicyInstance.selector, keccak256("none")));
        other.namePolicyInstance(keccak256("none"));
        vm.expectRevert(
            abi.encodeWithSelector(IPolicyClient.PolicyInstanceOfOtherClient.selector, instance, address(vault))
        );
        other.namePolicyInstance(instance);
        vm.stopPrank();
        // The registry's deployers choose what tasks are made of, not what the contract asks for.
        bytes32 own = _deployPolicy(address(other), "{}");
        vm.prank(DEPLOYER);
        vm.expectRevert(abi.encodeWithSignature("OwnableUnauthorizedAccount(address)", DEPLOYER));
        other.namePolicyInstance(own);
        vm.expectEmit(address(other));
        emit IPolicyClient.PolicyInstanceNamed(own);
        vm.prank(OWNER);
        other.namePolicyInstance(own);
        vm.assertEq(other.policyInstance(), own, "named");
    }

    function test_nothing_passes_before_an_instance_is_named() public {
        IPolicyVault other = _vault();
        _deployPolicy(address(other), "{}");
        (bytes32 taskId, Task memory task) = _createTask(address(other), _payment(USER));
        PolicyAttestation memory attestation = _attest(taskId, task);
        // Nor does a zero id fit the empty name.
        attestation.policyInstanceId = 0;
        Certificate memory certificate = _certify(tasks.attestationDigest(attestation));
        vm.expectRevert(abi.encodeWithSelector(IPolicyClient.PolicyInstanceNotNamed.selector));
        vm.prank(USER);
        other.withdraw(PAYEE, AMOUNT, attestation, certificate);
    }

    function test_the_registrys_pointer_does_not_steer_the_client() public {
        (PolicyAttestation memory former, Certificate memory formerCertificate) = _allowed(_payment(USER));
        bytes32 weaker = _deployPolicy(address(vault), '{"limit":"none"}');
        (PolicyAttestation memory attestation, Certificate memory certificate) = _allowed(_payment(USER));
        _refuses(
            attestation,
            certificate,
            abi.encodeWithSelector(IPolicyClient.PolicyInstanceMismatch.selector, instance, weaker)
        );
        // Once the owner names it, what was attested under the former policy is over.
        vm.prank(OWNER);
        vault.namePolicyInstance(weaker);
        _refuses(
            former,
            formerCertificate,
            abi.encodeWithSelector(IPolicyClient.PolicyInstanceMismatch.selector, weaker, instance)
        );
        _withdraw(attestation, certificate);
    }

    function test_a_client_may_ask_for_more_than_the_chains_quorum() public {
        StrictClient strict =
            new StrictClient(OWNER, PolicyClient.NewtonContracts(tasks, policies, commits, certificates));
        _claim(address(strict), OWNER);
        strict.name(_deployPolicy(address(strict), "{}"));
        Intent memory intent = _payment(USER);
        (intent.to, intent.value) = (address(strict), 0);
        (bytes32 taskId, Task memory task) = _createTask(address(strict), intent);
        PolicyAttestation memory attestation = _attest(taskId, task);
        Certificate memory certificate = _certify(tasks.attestationDigest(attestation), 1);
        vm.expectRevert(abi.encodeWithSelector(ICertificateVerifier.QuorumNotReached.selector, 200, 300, 10_000));
        vm.prank(USER);
        strict.act(attestation, certificate);
        certificate = _certify(tasks.attestationDigest(attestation));
        vm.prank(USER);
        strict.act(attestation, certificate);
        vm.assertEq(strict.acted(), 1, "acted");
    }

    // --------------------------------------------------------------------------------------------------------- rules

    function test_the_chains_rules_are_copied_when_an_instance_is_named_and_daily() public {
        ConsensusParameters memory stricter = _parameters();
        stricter.minSigners = 3;
        vm.prank(GOVERNANCE);
        commits.setParameters(stricter);
        // In force, and a copy that is too young to be replaced.
        _next(30);
        (PolicyAttestation memory attestation,) = _allowed(_payment(USER));
        Certificate memory certificate = _certify(tasks.attestationDigest(attestation), 1);
        _withdraw(attestation, certificate);

        vm.warp(_time() + 1 days);
        (attestation,) = _allowed(_payment(USER));
        certificate = _certify(tasks.attestationDigest(attestation), 1);
        bytes memory tooFew = abi.encodeWithSelector(ICertificateVerifier.TooFewSigners.selector, 3, 2);
        _refuses(attestation, certificate, tooFew);
        certificate = _certify(tasks.attestationDigest(attestation));
        vm.expectEmit(address(vault));
        emit IPolicyClient.CertificateRulesRead(6667, 3, 100);
        _withdraw(attestation, certificate);
    }

    function test_anyone_may_have_the_rules_copied_at_once() public {
        ConsensusParameters memory stricter = _parameters();
        stricter.quorumBps = 10_000;
        vm.prank(GOVERNANCE);
        commits.setParameters(stricter);
        _next(30);
        (PolicyAttestation memory attestation,) = _allowed(_payment(USER));
        vm.expectEmit(address(vault));
        emit IPolicyClient.CertificateRulesRead(10_000, 1, 100);
        vm.prank(STRANGER);
        vault.refreshCertificateRules();
        _refuses(
            attestation,
            _certify(tasks.attestationDigest(attestation), 1),
            abi.encodeWithSelector(ICertificateVerifier.QuorumNotReached.selector, 200, 300, 10_000)
        );
    }

    // ---------------------------------------------------------------------------------------------------- reentrancy

    function test_a_payee_that_comes_back_finds_its_attestation_spent() public {
        Thief thief = new Thief(vault);
        Intent memory intent = _payment(address(thief));
        intent.to = address(thief);
        (PolicyAttestation memory attestation, Certificate memory certificate) = _allowed(intent);
        bytes memory call = abi.encodeCall(IPolicyVault.withdraw, (address(thief), AMOUNT, attestation, certificate));
        thief.rob(call, call);
        vm.assertEq(
            thief.answer(),
            abi.encodeWithSelector(IPolicyClient.AttestationAlreadySpent.selector, attestation.taskId),
            "refused inside"
        );
        vm.assertEq(address(thief).balance, AMOUNT, "paid once");
    }

    function test_a_token_that_comes_back_finds_the_attestation_spent() public {
        Thief token = new Thief(vault);
        Intent memory intent = _tokenPayment(address(token), 7);
        intent.from = address(token);
        (PolicyAttestation memory attestation, Certificate memory certificate) = _allowed(intent);
        bytes memory call =
            abi.encodeCall(IPolicyVault.withdrawToken, (address(token), PAYEE, 7, attestation, certificate));
        token.rob(call, call);
        vm.assertEq(
            token.answer(),
            abi.encodeWithSelector(IPolicyClient.AttestationAlreadySpent.selector, attestation.taskId),
            "refused inside"
        );
    }

    function test_two_attestations_may_nest() public {
        Thief payee = new Thief(vault);
        Intent memory intent = _payment(address(payee));
        intent.to = address(payee);
        bytes[2] memory calls;
        for (uint256 i = 0; i < 2; ++i) {
            (PolicyAttestation memory attestation, Certificate memory certificate) = _allowed(intent);
            calls[i] = abi.encodeCall(IPolicyVault.withdraw, (address(payee), AMOUNT, attestation, certificate));
        }
        payee.rob(calls[0], calls[1]);
        vm.assertEq(address(payee).balance, 2 * AMOUNT, "each for its own call");
    }

    // --------------------------------------------------------------------------------------------------------- tools

    function _vault() private returns (IPolicyVault created) {
        created = IPolicyVault(_create("PolicyVault", abi.encode(OWNER, tasks, policies, commits, certificates)));
        _claim(address(created), OWNER);
        vm.deal(address(created), 100 ether);
    }

    function _payment(address from) private view returns (Intent memory) {
        return Intent({from: from, to: PAYEE, value: AMOUNT, data: "", chainId: block.chainid, functionSignature: ""});
    }

    function _tokenPayment(address token, uint256 amount) private view returns (Intent memory intent) {
        intent = _payment(USER);
        (intent.to, intent.value) = (token, 0);
        intent.data = abi.encodeWithSignature("transfer(address,uint256)", PAYEE, amount);
        intent.functionSignature = "transfer(address,uint256)";
    }

    /// @dev A task for the vault and its attestation, signed by everybody.
    function _allowed(Intent memory intent)
        private
        returns (PolicyAttestation memory attestation, Certificate memory certificate)
    {
        (bytes32 taskId, Task memory task) = _createTask(address(vault), intent);
        attestation = _attest(taskId, task);
        certificate = _certify(tasks.attestationDigest(attestation));
    }

    function _withdraw(PolicyAttestation memory attestation, Certificate memory certificate) private {
        vm.prank(USER);
        vault.withdraw(PAYEE, AMOUNT, attestation, certificate);
    }

    function _refuses(PolicyAttestation memory attestation, Certificate memory certificate, bytes memory reason)
        private
    {
        vm.expectRevert(reason);
        _withdraw(attestation, certificate);
    }

    function _reasonFor(uint256 word, PolicyAttestation memory good, PolicyAttestation memory bad)
        private
        view
        returns (bytes memory)
    {
        if (word == TASK_ID) return abi.encodeWithSelector(IPolicyClient.TaskNotOfThisChain.selector, bad.taskId);
        if (word == POLICY_INSTANCE_ID) {
            return abi.encodeWithSelector(IPolicyClient.PolicyInstanceMismatch.selector, instance, bad.policyInstanceId);
        }
        if (word == INTENT_HASH) {
            return abi.encodeWithSelector(IPolicyClient.IntentMismatch.selector, good.intentHash, bad.intentHash);
        }
        if (word == RESULT_HASH) {
            return abi.encodeWithSelector(IPolicyClient.ResultNotAllowed.selector, bad.evaluationResultHash);
        }
        return _invalidSignature(bad);
    }

    function _invalidSignature(PolicyAttestation memory attestation) private view returns (bytes memory) {
        return
            abi.encodeWithSelector(ICertificateVerifier.InvalidSignature.selector, tasks.attestationDigest(attestation));
    }

    function _intentMismatch(Intent memory wanted, PolicyAttestation memory attestation)
        private
        view
        returns (bytes memory)
    {
        return abi.encodeWithSelector(
            IPolicyClient.IntentMismatch.selector, tasks.hashIntent(wanted), attestation.intentHash
        );
    }

    /// @dev Changes the lowest bit of a word.
    function _flip(bytes memory encoded, uint256 word) private pure returns (bytes memory changed) {
        changed = bytes.concat(encoded);
        changed[32 * word + 31] ^= 0x01;
    }

    function _copy(PolicyAttestation memory value) private pure returns (PolicyAttestation memory) {
        return abi.decode(abi.encode(value), (PolicyAttestation));
    }
}
