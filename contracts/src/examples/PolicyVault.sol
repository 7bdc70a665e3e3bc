// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {PolicyClient} from "../base/PolicyClient.sol";
import {Certificate, PolicyAttestation} from "../interfaces/INewton.sol";

/// @notice An example: a vault that pays whatever its policy allows, to whoever asks. Not part of the deployed set.
/// @dev Who may ask is the policy's business too: it sees the caller as the intent's `from`. The owner claims this contract in
/// the client registry (it answers `owner()`), deploys an instance for it there, and names the instance here. If the
/// network stands still, nothing leaves the vault; one for production wants a slow way out for its owner.
contract PolicyVault is PolicyClient, Ownable2Step {
    using SafeERC20 for IERC20;

    /// @notice token is zero for ether.
    event Withdrawn(address indexed token, address indexed to, uint256 amount, address indexed by);

    constructor(address initialOwner, NewtonContracts memory newton) PolicyClient(newton) Ownable(initialOwner) {}

    /// @notice Ether comes in freely; tokens are simply transferred here.
    receive() external payable {}

    /// @notice Names the policy instance that decides from now on. Owner only.
    function namePolicyInstance(bytes32 policyInstanceId) external onlyOwner {
        _namePolicyInstance(policyInstanceId);
    }

    /// @notice Sends ether. The attested intent is a plain transfer of `amount` to `to`, asked for by the caller.
    function withdraw(
        address payable to,
        uint256 amount,
        PolicyAttestation calldata attestation,
        Certificate calldata certificate
    ) external onlyAllowed(attestation, certificate, _intent(to, amount, "", "")) {
        emit Withdrawn(address(0), to, amount, msg.sender);
        Address.sendValue(to, amount);
    }

    /// @notice Sends tokens. The attested intent is the token's `transfer(to, amount)`, asked for by the caller.
    function withdrawToken(
        IERC20 token,
        address to,
        uint256 amount,
        PolicyAttestation calldata attestation,
        Certificate calldata certificate
    )
        external
        onlyAllowed(
            attestation,
            certificate,
            _intent(address(token), 0, abi.encodeCall(IERC20.transfer, (to, amount)), "transfer(address,uint256)")
        )
    {
        emit Withdrawn(address(token), to, amount, msg.sender);
        token.safeTransfer(to, amount);
    }
}
