// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ERC1967Proxy} from "@openzeppelin/contracts/proxy/ERC1967/ERC1967Proxy.sol";

/// @notice The proxy in front of every contract of the set. Its constructor calls the initializer, so that nobody can come
/// between deployment and initialization. Upgrades go through the implementation (UUPS).
contract NewtonProxy is ERC1967Proxy {
    /// @param implementation what calls are delegated to
    /// @param initializer the encoded initializer call
    constructor(address implementation, bytes memory initializer) ERC1967Proxy(implementation, initializer) {}
}
