// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

// Without imports: the enclave's bindings are generated from it.

/// @notice What a quorum signs after re-executing (EIP-712, domain "Newton Result Verification"). subject: 1 an evaluation,
/// 2 a state commit. The hashes are those of docs/protocol.md, 12.
struct ResultOutcome {
    uint8 subject;
    bytes32 inputsHash;
    bytes32 resultHash;
    bool correct;
    uint32 rulesVersion;
}

/// @notice Decides whether a result follows from its inputs [design 3.5].
interface IResultVerifier {
    /// @notice Reverts unless the proof decides about exactly this; true if the result is right.
    function verifyResult(
        uint8 subject,
        bytes32 inputsHash,
        bytes32 resultHash,
        uint32 rulesVersion,
        bytes calldata proof
    ) external view returns (bool correct);
}

/// @notice Re-execution by a quorum of the whole current set, the signers included. A proof is
/// abi.encode(bool correct, Certificate certificate).
interface IEnclaveReexecutionVerifier is IResultVerifier {
    error NotCurrentSet(uint64 currentSetId, uint64 got);

    function outcomeDigest(ResultOutcome calldata outcome) external view returns (bytes32);
}
