// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {AllowlistGuard} from "./base/AllowlistGuard.sol";
import {PausableByRole} from "./base/PausableByRole.sol";
import {IPolicyClientRegistry} from "./interfaces/IGovernance.sol";
import {
    ArtifactRef,
    IPolicyDataRegistry,
    IPolicyRegistry,
    IStateCommitRegistry,
    PolicyInstance,
    PolicyTemplate
} from "./interfaces/INewton.sol";
import {ChainBlock} from "./libraries/ChainBlock.sol";
import {Ids} from "./libraries/Ids.sol";
import {RowReader} from "./libraries/RowReader.sol";
import {RowStore} from "./libraries/RowStore.sol";

/// @notice Policy templates (Rego, entrypoint, params schema, required data templates) and their instances.
contract PolicyRegistry is AllowlistGuard, PausableByRole, IPolicyRegistry {
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
    /// @notice Most bytes of an entrypoint.
    uint256 public constant MAX_ENTRYPOINT = 255;
    /// @notice Most data templates of one policy template.
    uint256 public constant MAX_DATA_TEMPLATES = 32;

    // A template's row, tightly packed:
    // author 20 | rego 32+4 | paramsSchema 32+4 | entrypoint's length 1 | entrypoint | dataTemplateRefs
    uint256 private constant REGO_AT = 20;
    uint256 private constant PARAMS_SCHEMA_AT = 56;
    uint256 private constant ENTRYPOINT_AT = 92;

    uint8 private constant NS_REGO = 4;
    uint8 private constant NS_PARAMS_SCHEMA = 5;

    IPolicyClientRegistry private immutable CLIENTS;
    IPolicyDataRegistry private immutable DATA;
    IStateCommitRegistry private immutable COMMITS;

    mapping(bytes32 templateId => TemplateRow) private _templates;
    mapping(bytes32 instanceId => InstanceRow) private _instances;
    mapping(address client => bytes32) private _current;

    constructor(IPolicyClientRegistry clients, IPolicyDataRegistry data, IStateCommitRegistry commits) {
        CLIENTS = clients;
        DATA = data;
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

    /// @inheritdoc IPolicyRegistry
    function registerTemplate(
        ArtifactRef calldata rego,
        ArtifactRef calldata paramsSchema,
        string calldata entrypoint,
        bytes32[] calldata dataTemplateRefs,
        bytes[] calldata daRefs
    ) external whenNotPaused onlyTemplateAuthor returns (bytes32 id) {
        _requirePresent(rego);
        uint256 present = _requireValid(paramsSchema) ? 2 : 1;
        if (daRefs.length != present) revert DaRefCount(present, daRefs.length);
        uint256 entrypointLength = bytes(entrypoint).length;
        if (entrypointLength == 0 || entrypointLength > MAX_ENTRYPOINT) {
            revert EntrypointLength(entrypointLength, MAX_ENTRYPOINT);
        }
        _requireSorted(dataTemplateRefs);

        id = Ids.policyTemplate(rego.artifactHash, paramsSchema.artifactHash, entrypoint, dataTemplateRefs);
        if (_templates[id].registeredAt != 0) revert TemplateAlreadyRegistered(id);
        _templates[id] = TemplateRow({
            pointer: RowStore.write(
                abi.encodePacked(
                    msg.sender,
                    rego.artifactHash,
                    rego.byteLength,
                    paramsSchema.artifactHash,
                    paramsSchema.byteLength,
                    // At most MAX_ENTRYPOINT.
                    // forge-lint: disable-next-line(unsafe-typecast)
                    uint8(entrypointLength),
                    entrypoint,
                    dataTemplateRefs
                )
            ),
            registeredAt: ChainBlock.number()
        });
        emit PolicyTemplateRegistered(id, msg.sender, rego, paramsSchema, entrypoint, dataTemplateRefs, daRefs);

        uint64 largest = rego.byteLength > paramsSchema.byteLength ? rego.byteLength : paramsSchema.byteLength;
        COMMITS.recordRegistered(msg.sender, uint64(rego.byteLength) + paramsSchema.byteLength, largest);
    }

    /// @inheritdoc IPolicyRegistry
    function supplyArtifact(uint8 namespace, bytes32 artifactHash, uint32 byteLength, bytes calldata daRef)
        external
        whenNotPaused
        onlyTemplateAuthor
    {
        if (namespace != NS_REGO && namespace != NS_PARAMS_SCHEMA) revert UnknownNamespace(namespace);
        _requirePresent(ArtifactRef(artifactHash, byteLength));
        emit ArtifactSupplied(namespace, artifactHash, msg.sender, byteLength, daRef);
        COMMITS.recordRegistered(msg.sender, byteLength, byteLength);
    }

    /// @inheritdoc IPolicyRegistry
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
        bytes32[] memory refs = _refs(template);
        if (refs.length != 0) {
            bytes32 missing = DATA.firstMissingTemplate(refs);
            if (missing != 0) revert MissingDataTemplate(missing);
        }

        bytes32 paramsHash = Ids.params(expireAfter, params);
        id = Ids.policyInstance(block.chainid, client, templateId, paramsHash);
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
        emit PolicyInstanceDeployed(id, client, templateId, params, expireAfter, msg.sender);
        if (makeCurrent) _setCurrent(client, id, refs);
    }

    /// @inheritdoc IPolicyRegistry
    function setCurrent(address client, bytes32 instanceId) external whenNotPaused {
        _requireAuthorized(client);
        InstanceRow memory row = _instances[instanceId];
        if (row.registeredAt == 0) revert MissingInstance(instanceId);
        if (row.client != client) revert InstanceOfOtherClient(instanceId, client, row.client);
        _setCurrent(client, instanceId, _refs(_templateRow(row.templateId)));
    }

    /// @inheritdoc IPolicyRegistry
    function currentPolicyInstance(address client) external view returns (bytes32) {
        return _current[client];
    }

    /// @inheritdoc IPolicyRegistry
    function currentBinding(address client)
        external
        view
        returns (bytes32 instanceId, uint64 newestRow, bytes32[] memory dataInstanceIds)
    {
        instanceId = _current[client];
        if (instanceId == 0) return (instanceId, newestRow, dataInstanceIds);
        newestRow = _instances[instanceId].registeredAt;
        bytes32[] memory refs = _refs(_templateRow(_instances[instanceId].templateId));
        if (refs.length != 0) {
            uint64 newestDataRow;
            (dataInstanceIds, newestDataRow) = _filledSlots(client, refs);
            if (newestDataRow > newestRow) newestRow = newestDataRow;
        }
    }

    /// @inheritdoc IPolicyRegistry
    function templates(bytes32 id) external view returns (PolicyTemplate memory template) {
        TemplateRow memory where = _templates[id];
        if (where.registeredAt == 0) return template;
        bytes memory row = RowStore.read(where.pointer);
        template.rego = row.artifact(REGO_AT);
        template.paramsSchema = row.artifact(PARAMS_SCHEMA_AT);
        template.entrypoint = string(row.slice(ENTRYPOINT_AT + 1, row.uint8At(ENTRYPOINT_AT)));
        template.dataTemplateRefs = _refs(row);
        template.author = row.addressAt(0);
        template.registeredAt = where.registeredAt;
    }

    /// @inheritdoc IPolicyRegistry
    function instances(bytes32 id) external view returns (PolicyInstance memory instance) {
        InstanceRow memory row = _instances[id];
        instance.templateId = row.templateId;
        instance.client = row.client;
        instance.paramsHash = row.paramsHash;
        instance.expireAfter = row.expireAfter;
        instance.registeredAt = row.registeredAt;
    }

    /// @inheritdoc IPolicyRegistry
    function computeTemplateId(
        bytes32 regoHash,
        bytes32 paramsSchemaHash,
        string calldata entrypoint,
        bytes32[] calldata dataTemplateRefs
    ) external pure returns (bytes32) {
        return Ids.policyTemplate(regoHash, paramsSchemaHash, entrypoint, dataTemplateRefs);
    }

    /// @inheritdoc IPolicyRegistry
    function computeInstanceId(address client, bytes32 templateId, bytes calldata params, uint64 expireAfter)
        public
        view
        returns (bytes32)
    {
        return Ids.policyInstance(block.chainid, client, templateId, Ids.params(expireAfter, params));
    }

    function _setCurrent(address client, bytes32 instanceId, bytes32[] memory refs) private {
        if (refs.length != 0) _filledSlots(client, refs);
        _current[client] = instanceId;
        emit CurrentPolicyInstanceSet(client, instanceId);
    }

    /// @dev The client's data instances for these templates; reverts if a slot is empty.
    function _filledSlots(address client, bytes32[] memory refs)
        private
        view
        returns (bytes32[] memory instanceIds, uint64 newestRow)
    {
        (instanceIds, newestRow) = DATA.currentPolicyDataInstances(client, refs);
        for (uint256 i = 0; i < refs.length; ++i) {
            if (instanceIds[i] == 0) revert MissingPolicyDataInstance(refs[i]);
        }
    }

    function _requireAuthorized(address client) private view {
        if (!CLIENTS.isAuthorized(client, msg.sender)) revert UnauthorizedClient(client, msg.sender);
    }

    function _templateRow(bytes32 id) private view returns (bytes memory) {
        TemplateRow memory where = _templates[id];
        if (where.registeredAt == 0) revert MissingTemplate(id);
        return RowStore.read(where.pointer);
    }

    /// @dev The data templates at the end of a template's row.
    function _refs(bytes memory row) private pure returns (bytes32[] memory refs) {
        uint256 offset = ENTRYPOINT_AT + 1 + row.uint8At(ENTRYPOINT_AT);
        refs = new bytes32[]((row.length - offset) / 32);
        for (uint256 i = 0; i < refs.length; ++i) {
            refs[i] = row.word(offset + i * 32);
        }
    }

    function _requireSorted(bytes32[] calldata refs) private pure {
        if (refs.length > MAX_DATA_TEMPLATES) revert TooManyDataTemplates(refs.length, MAX_DATA_TEMPLATES);
        // Strictly ascending from zero, which is therefore not allowed itself.
        bytes32 previous;
        for (uint256 i = 0; i < refs.length; ++i) {
            if (refs[i] <= previous) revert RefsNotSorted(i);
            previous = refs[i];
        }
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
