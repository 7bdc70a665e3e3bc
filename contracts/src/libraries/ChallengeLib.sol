// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {PolicyAttestation, StateCommit} from "../interfaces/INewton.sol";
import {ResultOutcome} from "../interfaces/IResultVerifier.sol";
import {ISlasher} from "../interfaces/ISlasher.sol";

/// @notice Classes of challenges, what they cost a signer, and the hashes by which results are decided
/// [docs/protocol.md, 12].
library ChallengeLib {
    // Rows of the matrix. 1, 2 and 11 are refused before anything is signed for or accepted, so nobody pays for them.
    uint8 internal constant NONE = 0;
    uint8 internal constant WRONG_TEMPLATE = 3;
    uint8 internal constant WRONG_INSTANCE = 4;
    uint8 internal constant DATA_INSTANCE_NOT_IN_TASK = 5;
    uint8 internal constant DATA_TEMPLATE_NOT_REQUIRED = 6;
    uint8 internal constant WRONG_REGO = 7;
    uint8 internal constant WRONG_WASM_OR_SCHEMA = 8;
    uint8 internal constant WRONG_RESULT = 9;
    uint8 internal constant INSTANCE_TOO_NEW = 10;
    uint8 internal constant WRONG_STATE = 12;
    uint8 internal constant VERSION_NOT_ACTIVE = 13;
    uint8 internal constant WRONG_COMMIT = 14;
    uint8 internal constant WRONG_TASK_FIELD = 15;
    uint8 internal constant EQUIVOCATION = 16;

    /// @notice What an offence costs, in percent of the weight.
    uint8 internal constant PENALTY = 10;

    // Kinds of proofs about results.
    uint8 internal constant REEXECUTION = 1;
    uint8 internal constant SP1 = 2;

    // What a result is of.
    uint8 internal constant EVALUATION = 1;
    uint8 internal constant STATE_COMMIT = 2;

    bytes32 internal constant RESULT_OUTCOME_TYPE = keccak256(
        "ResultOutcome(uint8 subject,bytes32 inputsHash,bytes32 resultHash,bool correct,uint32 rulesVersion)"
    );

    /// @notice Takes `percent` of an operator's weight, rounded up.
    function slashOperator(ISlasher slasher, address operator, uint8 percent) internal returns (uint96) {
        return slasher.slashOperator(operator, percent);
    }

    /// @notice `percent` of a weight, rounded up; never more than the weight for up to 100.
    function share(uint96 weight, uint8 percent) internal pure returns (uint96) {
        // At most the weight.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint96((uint256(weight) * percent + 99) / 100);
    }

    /// @notice Hash of all of an attestation that determines its result: the attestation with the results left out.
    function evaluationInputs(PolicyAttestation memory attestation) internal pure returns (bytes32) {
        attestation.evaluationResultHash = 0;
        for (uint256 i = 0; i < attestation.data.length; ++i) {
            attestation.data[i].outputHash = 0;
        }
        return keccak256(abi.encode(attestation));
    }

    /// @notice Hash of an attestation's results: the policy's and every component's.
    function evaluationResult(PolicyAttestation calldata attestation) internal pure returns (bytes32) {
        bytes32[] memory outputs = new bytes32[](attestation.data.length);
        for (uint256 i = 0; i < outputs.length; ++i) {
            outputs[i] = attestation.data[i].outputHash;
        }
        return keccak256(abi.encode(attestation.evaluationResultHash, outputs));
    }

    /// @notice Hash of what a state commit follows from, beside the chain itself.
    function commitInputs(StateCommit calldata commit) internal pure returns (bytes32) {
        return keccak256(abi.encode(commit.sequenceNo, commit.prevStateRoot));
    }

    /// @notice EIP-712 hashStruct of an outcome.
    function resultOutcome(ResultOutcome memory outcome) internal pure returns (bytes32) {
        return keccak256(abi.encode(RESULT_OUTCOME_TYPE, outcome));
    }
}
