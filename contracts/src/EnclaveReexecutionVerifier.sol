// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {NewtonUpgradeable} from "./base/NewtonUpgradeable.sol";
import {Certificate, ICertificateVerifier, IOperatorRegistry, IStateCommitRegistry} from "./interfaces/INewton.sol";
import {IEnclaveReexecutionVerifier, IResultVerifier, ResultOutcome} from "./interfaces/IResultVerifier.sol";
import {ChallengeLib} from "./libraries/ChallengeLib.sol";

/// @notice Decides about results by the word of the enclaves: a quorum of the whole current set re-ran the recorded inputs
/// under the rules of that time. Whoever signed the result is part of that set and may be outvoted, not left out.
contract EnclaveReexecutionVerifier is NewtonUpgradeable, EIP712, IEnclaveReexecutionVerifier {
    IOperatorRegistry private immutable OPERATORS;
    ICertificateVerifier private immutable CERTIFICATES;
    IStateCommitRegistry private immutable COMMITS;

    constructor(IOperatorRegistry operators, ICertificateVerifier certificates, IStateCommitRegistry commits)
        EIP712("Newton Result Verification", "1")
    {
        OPERATORS = operators;
        CERTIFICATES = certificates;
        COMMITS = commits;
    }

    /// @notice Called once, inside the proxy's constructor.
    function initialize(address initialOwner) external initializer {
        __Ownable_init(initialOwner);
    }

    /// @inheritdoc IResultVerifier
    function verifyResult(
        uint8 subject,
        bytes32 inputsHash,
        bytes32 resultHash,
        uint32 rulesVersion,
        bytes calldata proof
    ) external view returns (bool) {
        (bool correct, Certificate memory certificate) = abi.decode(proof, (bool, Certificate));
        // An older set may still certify other things for a while; whoever has left it has no say here.
        uint64 current = OPERATORS.currentSetId();
        if (certificate.setId != current) revert NotCurrentSet(current, certificate.setId);
        bytes32 digest = _digest(
            ResultOutcome({
                subject: subject,
                inputsHash: inputsHash,
                resultHash: resultHash,
                correct: correct,
                rulesVersion: rulesVersion
            })
        );
        (uint16 quorumBps, uint16 minSigners, uint64 maxSetAge) = COMMITS.certificateRules();
        CERTIFICATES.verifyCertificate(digest, certificate, quorumBps, minSigners, maxSetAge);
        return correct;
    }

    /// @inheritdoc IEnclaveReexecutionVerifier
    function outcomeDigest(ResultOutcome calldata outcome) external view returns (bytes32) {
        return _digest(outcome);
    }

    function _digest(ResultOutcome memory outcome) private view returns (bytes32) {
        return _hashTypedDataV4(ChallengeLib.resultOutcome(outcome));
    }
}
