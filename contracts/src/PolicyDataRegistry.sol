// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {AllowlistGuard} from "./base/AllowlistGuard.sol";
import {PausableByRole} from "./base/PausableByRole.sol";
import {IPolicyClientRegistry} from "./interfaces/IGovernance.sol";
import {
    ArtifactRef,
    IPolicyDataRegistry,
    IStateCommitRegistry,
    PolicyDataInstance,
    PolicyDataTemplate
} from "./interfaces/INewton.sol";
import {ChainBlock} from "./libraries/ChainBlock.sol";
import {Ids} from "./libraries/Ids.sol";
import {RowReader} from "./libraries/RowReader.sol";
import {RowStore} from "./libraries/RowStore.sol";

/// @notice Policy-data templates (a WASM component with its schemas), their instances, and the secrets of those.
contract PolicyDataRegistry is AllowlistGuard, PausableByRole, IPolicyDataRegistry {
    using RowReader for bytes;

    /// @dev Where a template's row is (RowStore) and since when: one word.
    struct TemplateRow {
        address pointer;
        uint64 registeredAt;
    }

    /// @dev An instance in three words. Parameters stand in the event, only their hash here: nothing on the chain reads
    /// them, and code or storage for them would cost 200 gas a byte.
    struct InstanceRow {
        bytes32 templateId;
        bytes32 paramsHash;
        address client;
        uint48 expireAfter; // maxExpireAfter fits
        uint48 registeredAt;
    }

    /// @notice Most bytes of an instance's parameters.
    uint256 public constant MAX_PARAMS = 16_384;

    // A template's row, tightly packed:
    // author 20 | wasm 32+4 | paramsSchema 32+4 | secretsSchema 32+4
    uint256 private constant WASM_AT = 20;
    uint256 private constant PARAMS_SCHEMA_AT = 56;
    uint256 private constant SECRETS_SCHEMA_AT = 92;

    uint8 private constant NS_WASM = 6;
    uint8 private constant NS_SECRETS_SCHEMA = 8;

    IPolicyClientRegistry private immutable CLIENTS;
    IStateCommitRegistry private immutable COMMITS;

    mapping(bytes32 templateId => TemplateRow) private _templates;
    mapping(bytes32 instanceId => InstanceRow) private _instances;
    mapping(address client => mapping(bytes32 templateId => bytes32)) private _current;
    mapping(bytes32 instanceId => uint64) private _secretsCount;

    constructor(IPolicyClientRegistry clients, IStateCommitRegistry commits) {
        CLIENTS = clients;
        COMMITS = commits;
    }

    /// @notice Called once, inside the proxy's constructor.
    function initialize(address initialOwner, bool templatesPermissionless, bool instancesPermissionless)
        external
        initializer
    {
        __Ownable_init(initialOwner);
        __AllowlistGuard_init(templatesPermissionless, instancesPermissionless);
    }

    /// @inheritdoc IPolicyDataRegistry
    function registerTemplate(
        ArtifactRef calldata wasm,
        ArtifactRef calldata paramsSchema,
        ArtifactRef calldata secretsSchema,
        bytes[] calldata daRefs
    ) external whenNotPaused onlyTemplateAuthor returns (bytes32 id) {
        _requirePresent(wasm);
        uint256 present = 1;
        if (_requireValid(paramsSchema)) ++present;
        if (_requireValid(secretsSchema)) ++present;
        if (daRefs.length != present) revert DaRefCount(present, daRefs.length);

        id = Ids.policyDataTemplate(wasm.artifactHash, paramsSchema.artifactHash, secretsSchema.artifactHash);
        if (_templates[id].registeredAt != 0) revert TemplateAlreadyRegistered(id);
        _templates[id] = TemplateRow({
            pointer: RowStore.write(
                abi.encodePacked(
                    msg.sender,
                    wasm.artifactHash,
                    wasm.byteLength,
                    paramsSchema.artifactHash,
                    paramsSchema.byteLength,
                    secretsSchema.artifactHash,
                    secretsSchema.byteLength
                )
            ),
            registeredAt: ChainBlock.number()
        });
        emit PolicyDataTemplateRegistered(id, msg.sender, wasm, paramsSchema, secretsSchema, daRefs);

        uint64 largest = wasm.byteLength;
        if (paramsSchema.byteLength > largest) largest = paramsSchema.byteLength;
        if (secretsSchema.byteLength > largest) largest = secretsSchema.byteLength;
        uint64 total = uint64(wasm.byteLength) + paramsSchema.byteLength + secretsSchema.byteLength;
        COMMITS.recordRegistered(msg.sender, total, largest);
    }

    /// @inheritdoc IPolicyDataRegistry
    function supplyArtifact(uint8 namespace, bytes32 artifactHash, uint32 byteLength, bytes calldata daRef)
        external
        whenNotPaused
        onlyTemplateAuthor
    {
        if (namespace < NS_WASM || namespace > NS_SECRETS_SCHEMA) revert UnknownNamespace(namespace);
        _requirePresent(ArtifactRef(artifactHash, byteLength));
        emit ArtifactSupplied(namespace, artifactHash, msg.sender, byteLength, daRef);
        COMMITS.recordRegistered(msg.sender, byteLength, byteLength);
    }

    /// @inheritdoc IPolicyDataRegistry
    function deployInstance(
        address client,
        bytes32 templateId,
        bytes calldata params,
        uint64 expireAfter,
        bool makeCurrent
    ) external whenNotPaused onlyInstanceDeployer returns (bytes32 id) {
        _requireAuthorized(client);
        if (params.length > MAX_PARAMS) revert ParamsTooLarge(params.length, MAX_PARAMS);
        if (expireAfter == 0) revert ExpireAfterZero();
        uint64 maximum = COMMITS.maxExpireAfter();
        if (expireAfter > maximum) revert ExpireAfterTooLong(expireAfter, maximum);
        bytes memory template = _templateRow(templateId);
        if (params.length != 0 && template.word(PARAMS_SCHEMA_AT) == Ids.ABSENT) {
            revert ParamsWithoutSchema(templateId);
        }

        bytes32 paramsHash = Ids.params(expireAfter, params);
        id = Ids.policyDataInstance(block.chainid, client, templateId, paramsHash);
        if (_instances[id].registeredAt != 0) revert InstanceAlreadyDeployed(id);
        _instances[id] = InstanceRow({
            templateId: templateId,
            paramsHash: paramsHash,
            client: client,
            // At most maxExpireAfter, which fits.
            // forge-lint: disable-next-line(unsafe-typecast)
            expireAfter: uint48(expireAfter),
            registeredAt: uint48(ChainBlock.number())
        });
        emit PolicyDataInstanceDeployed(id, client, templateId, params, expireAfter, msg.sender);
        if (makeCurrent) _setCurrent(client, templateId, id);
    }

    /// @inheritdoc IPolicyDataRegistry
    function setCurrent(address client, bytes32 instanceId) external whenNotPaused {
        _requireAuthorized(client);
        InstanceRow memory row = _instanceRow(instanceId);
        if (row.client != client) revert InstanceOfOtherClient(instanceId, client, row.client);
        _setCurrent(client, row.templateId, instanceId);
    }

    /// @inheritdoc IPolicyDataRegistry
    function setSecrets(bytes32 instanceId, ArtifactRef calldata envelope, bytes calldata daRef)
        external
        whenNotPaused
    {
        InstanceRow memory row = _instanceRow(instanceId);
        address client = row.client;
        _requireAuthorized(client);
        _requirePresent(envelope);
        if (_templateRow(row.templateId).word(SECRETS_SCHEMA_AT) == Ids.ABSENT) {
            revert SecretsWithoutSchema(row.templateId);
        }
        uint64 count = ++_secretsCount[instanceId];
        emit SecretsSet(instanceId, client, msg.sender, CLIENTS.ownerOf(client) == msg.sender, envelope, daRef, count);
        COMMITS.recordRegistered(msg.sender, envelope.byteLength, envelope.byteLength);
    }

    /// @inheritdoc IPolicyDataRegistry
    function currentPolicyDataInstance(address client, bytes32 templateId) external view returns (bytes32) {
        return _current[client][templateId];
    }

    /// @inheritdoc IPolicyDataRegistry
    function currentPolicyDataInstances(address client, bytes32[] calldata templateIds)
        external
        view
        returns (bytes32[] memory instanceIds, uint64 newestRow)
    {
        instanceIds = new bytes32[](templateIds.length);
        for (uint256 i = 0; i < templateIds.length; ++i) {
            bytes32 id = _current[client][templateIds[i]];
            uint64 registeredAt = _instances[id].registeredAt;
            if (registeredAt > newestRow) newestRow = registeredAt;
            instanceIds[i] = id;
        }
    }

    /// @inheritdoc IPolicyDataRegistry
    function firstMissingTemplate(bytes32[] calldata templateIds) external view returns (bytes32) {
        for (uint256 i = 0; i < templateIds.length; ++i) {
            if (_templates[templateIds[i]].registeredAt == 0) return templateIds[i];
        }
        return 0;
    }

    /// @inheritdoc IPolicyDataRegistry
    function templates(bytes32 id) external view returns (PolicyDataTemplate memory template) {
        TemplateRow memory where = _templates[id];
        if (where.registeredAt == 0) return template;
        bytes memory row = RowStore.read(where.pointer);
        template.wasm = row.artifact(WASM_AT);
        template.paramsSchema = row.artifact(PARAMS_SCHEMA_AT);
        template.secretsSchema = row.artifact(SECRETS_SCHEMA_AT);
        template.author = row.addressAt(0);
        template.registeredAt = where.registeredAt;
    }

    /// @inheritdoc IPolicyDataRegistry
    function instances(bytes32 id) external view returns (PolicyDataInstance memory instance) {
        InstanceRow memory row = _instances[id];
        instance.templateId = row.templateId;
        instance.client = row.client;
        instance.paramsHash = row.paramsHash;
        instance.expireAfter = row.expireAfter;
        instance.registeredAt = row.registeredAt;
    }

    /// @inheritdoc IPolicyDataRegistry
    function secretsCount(bytes32 instanceId) external view returns (uint64) {
        return _secretsCount[instanceId];
    }

    /// @inheritdoc IPolicyDataRegistry
    function computeTemplateId(bytes32 wasmHash, bytes32 paramsSchemaHash, bytes32 secretsSchemaHash)
        external
        pure
        returns (bytes32)
    {
        return Ids.policyDataTemplate(wasmHash, paramsSchemaHash, secretsSchemaHash);
    }

    /// @inheritdoc IPolicyDataRegistry
    function computeInstanceId(address client, bytes32 templateId, bytes calldata params, uint64 expireAfter)
        public
        view
        returns (bytes32)
    {
        return Ids.policyDataInstance(block.chainid, client, templateId, Ids.params(expireAfter, params));
    }

    function _setCurrent(address client, bytes32 templateId, bytes32 instanceId) private {
        _current[client][templateId] = instanceId;
        emit CurrentPolicyDataInstanceSet(client, templateId, instanceId);
    }

    function _requireAuthorized(address client) private view {
        if (!CLIENTS.isAuthorized(client, msg.sender)) revert UnauthorizedClient(client, msg.sender);
    }

    function _templateRow(bytes32 id) private view returns (bytes memory) {
        TemplateRow memory where = _templates[id];
        if (where.registeredAt == 0) revert MissingTemplate(id);
        return RowStore.read(where.pointer);
    }

    function _instanceRow(bytes32 id) private view returns (InstanceRow memory row) {
        row = _instances[id];
        if (row.registeredAt == 0) revert MissingInstance(id);
    }

    /// @dev True for an artifact, false for ABSENT, reverts for anything between.
    function _requireValid(ArtifactRef memory ref) private pure returns (bool present) {
        present = ref.artifactHash != Ids.ABSENT;
        if (ref.artifactHash == 0 || present != (ref.byteLength != 0)) {
            revert InvalidArtifactHash(ref.artifactHash, ref.byteLength);
        }
    }

    function _requirePresent(ArtifactRef memory ref) private pure {
        if (!_requireValid(ref)) revert InvalidArtifactHash(ref.artifactHash, ref.byteLength);
    }
}
