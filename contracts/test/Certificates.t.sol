// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Certificate, ICertificateVerifier, OperatorSet} from "../src/interfaces/INewton.sol";
import {Suite} from "./utils/Suite.sol";
import {vm} from "./utils/Vm.sol";

/// @dev Certificates as the enclaves' code aggregates them (tests/vectors/certificates.json), held against a set of the
/// same members.
contract CertificatesTest is Suite {
    string private json;

    function setUp() public override {
        super.setUp();
        json = vm.readFile("../tests/vectors/certificates.json");
        bytes32[] memory secrets = vm.parseJsonBytes32Array(json, ".secretKey");
        bytes[] memory publicKeys = vm.parseJsonBytesArray(json, ".publicKey");
        uint256[] memory weights = vm.parseJsonUintArray(json, ".weight");
        for (uint256 i = 0; i < secrets.length; ++i) {
            address account = address(uint160(0xACC0 + i));
            Signer memory signer = Signer(account, uint256(secrets[i]), publicKeys[i], keccak256(publicKeys[i]));
            _join(signer, uint96(weights[i]));
        }
    }

    function test_the_set_is_the_vectors() public view {
        OperatorSet memory set = operators.operatorSet(operators.latestSetId());
        vm.assertEq(set.members.length, 5, "members");
        vm.assertEq(set.totalWeight, 500, "weight");
        bytes memory expected = vm.parseJsonBytesArray(json, ".aggregateKey")[0];
        vm.assertEq(set.aggregateKeyHash, keccak256(expected), "aggregate key");
    }

    function test_certificates_are_taken_or_refused_as_the_vectors_say() public {
        string[] memory cases = vm.parseJsonStringArray(json, ".case");
        string[] memory errors = vm.parseJsonStringArray(json, ".error");
        bytes32[] memory digests = vm.parseJsonBytes32Array(json, ".digest");
        uint256[] memory bitmaps = vm.parseJsonUintArray(json, ".nonSignerBitmap");
        bytes[] memory keys = vm.parseJsonBytesArray(json, ".nonSignerKeys");
        bytes[] memory aggregates = vm.parseJsonBytesArray(json, ".aggregateKey");
        bytes[] memory signatures = vm.parseJsonBytesArray(json, ".signature");
        vm.assertGe(cases.length, 11, "cases");
        Certificate memory certificate;
        certificate.setId = operators.latestSetId();
        for (uint256 i = 0; i < cases.length; ++i) {
            certificate.signature = signatures[i];
            certificate.nonSignerBitmap = bitmaps[i];
            certificate.nonSignerKeys = keys[i];
            certificate.aggregateKey = aggregates[i];
            bool refused = bytes(errors[i]).length != 0;
            if (refused) vm.expectPartialRevert(_selector(errors[i]));
            uint256 weight = certificates.verifyCertificate(digests[i], certificate, 6667, 1, 100);
            if (!refused) vm.assertGe(weight * 3, 1000, cases[i]);
        }
    }

    function _selector(string memory name) private pure returns (bytes4) {
        bytes4[6] memory selectors = [
            ICertificateVerifier.QuorumNotReached.selector,
            ICertificateVerifier.InvalidSignature.selector,
            ICertificateVerifier.NonSignerKeyMismatch.selector,
            ICertificateVerifier.NonSignerKeysLength.selector,
            ICertificateVerifier.AggregateKeyMismatch.selector,
            ICertificateVerifier.NonSignerNotMember.selector
        ];
        string[6] memory names = [
            "QuorumNotReached",
            "InvalidSignature",
            "NonSignerKeyMismatch",
            "NonSignerKeysLength",
            "AggregateKeyMismatch",
            "NonSignerNotMember"
        ];
        for (uint256 i = 0; i < 6; ++i) {
            if (keccak256(bytes(names[i])) == keccak256(bytes(name))) return selectors[i];
        }
        revert(name);
    }
}
