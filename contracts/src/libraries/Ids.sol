// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @notice Identities [docs/protocol.md, 1].
library Ids {
    /// @notice Stands for an artifact that is not there.
    bytes32 internal constant ABSENT = keccak256("NEWTON_POLICY_ARTIFACT_ABSENT_V1");
    bytes32 private constant T_POLICY_TEMPLATE = keccak256("newton.policy-template.v1");
    bytes32 private constant T_POLICY_DATA_TEMPLATE = keccak256("newton.policy-data-template.v1");
    bytes32 private constant T_POLICY_INSTANCE = keccak256("newton.policy-instance.v1");
    bytes32 private constant T_POLICY_DATA_INSTANCE = keccak256("newton.policy-data-instance.v1");
    bytes32 private constant T_TASK = keccak256("newton.task.v1");

    function policyTemplate(
        bytes32 regoHash,
        bytes32 paramsSchemaHash,
        string memory entrypoint,
        bytes32[] memory dataTemplateRefs
    ) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                T_POLICY_TEMPLATE,
                regoHash,
                keccak256(bytes(entrypoint)),
                paramsSchemaHash,
                keccak256(abi.encodePacked(dataTemplateRefs))
            )
        );
    }

    function policyDataTemplate(bytes32 wasmHash, bytes32 paramsSchemaHash, bytes32 secretsSchemaHash)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(T_POLICY_DATA_TEMPLATE, wasmHash, paramsSchemaHash, secretsSchemaHash));
    }

    function params(uint64 expireAfter, bytes memory paramsBytes) internal pure returns (bytes32) {
        return keccak256(abi.encode(expireAfter, paramsBytes));
    }

    function policyInstance(uint256 chainId, address client, bytes32 templateId, bytes32 paramsHash)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(T_POLICY_INSTANCE, chainId, client, templateId, paramsHash));
    }

    function policyDataInstance(uint256 chainId, address client, bytes32 templateId, bytes32 paramsHash)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(T_POLICY_DATA_INSTANCE, chainId, client, templateId, paramsHash));
    }

    function task(
        uint256 chainId,
        address taskManager,
        uint64 nonce,
        address client,
        bytes32 parentBlockHash,
        bytes32 intentHash,
        bytes32 wasmArgsHash
    ) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(T_TASK, chainId, taskManager, nonce, client, parentBlockHash, intentHash, wasmArgsHash)
        );
    }
}
