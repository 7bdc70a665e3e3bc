// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @notice Takes weight from operators that misbehaved [design 3.1, 3.4]. The operator registry implements it; a staking
/// system can stand behind this seat. Without imports, since the enclave's bindings are generated from it.
interface ISlasher {
    /// @notice An operator's weight fell by `slashed` to `weight`; what its next admission gets is in the OperatorAllowed
    /// event before this one. Sets that exist keep the weight they have: IOperatorRegistry.reweigh makes the next one.
    event OperatorSlashed(address indexed operator, uint96 slashed, uint96 weight);

    /// @notice The operator has nothing at stake: never registered, exit completed, or all of it slashed.
    error OperatorNotSlashable(address operator);
    error NotChallengeVerifier(address account);
    error InvalidPercent(uint8 percent);

    /// @notice Takes `percent` of an operator's weight, rounded up, and as much of what its next admission gets.
    /// Challenge verifier only; cannot be paused.
    function slashOperator(address operator, uint8 percent) external returns (uint96 slashed);
    /// @notice True from registration until the exit is completed, unless nothing is left.
    function isSlashable(address operator) external view returns (bool);
    /// @notice The only account that may slash.
    function challengeVerifier() external view returns (address);
}
