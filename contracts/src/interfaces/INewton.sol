// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

// Structs, events, custom errors and external functions of the Newton contracts; those of governance and roles stand in
// IGovernance.sol, of challenges in IChallenges.sol. Without imports: the contracts implement it, and the Rust bindings
// are generated from it. Formulas and wire forms: docs/protocol.md.
// Block numbers are the chain's native ones (ChainBlock.number()). What is registered, admitted, activated or revoked
// in a block counts from the next block on.

// ---------------------------------------------------------------------------------------------- artifacts and rows

/// @notice One artifact: keccak256 of its bytes and their number. ABSENT artifacts have length 0.
struct ArtifactRef {
    bytes32 artifactHash;
    uint32 byteLength;
}

/// @notice Row of a policy template: content-addressed and chain-agnostic.
struct PolicyTemplate {
    ArtifactRef rego;
    ArtifactRef paramsSchema;
    string entrypoint;
    bytes32[] dataTemplateRefs;
    address author;
    uint64 registeredAt;
}

/// @notice Row of a policy instance: a template bound to a client and parameters on this chain. The parameters themselves
/// stand in the event; paramsHash is over them and expireAfter.
struct PolicyInstance {
    bytes32 templateId;
    address client;
    bytes32 paramsHash;
    uint64 expireAfter;
    uint64 registeredAt;
}

/// @notice Row of a policy-data template.
struct PolicyDataTemplate {
    ArtifactRef wasm;
    ArtifactRef paramsSchema;
    ArtifactRef secretsSchema;
    address author;
    uint64 registeredAt;
}

/// @notice Row of a policy-data instance; the parameters stand in the event.
struct PolicyDataInstance {
    bytes32 templateId;
    address client;
    bytes32 paramsHash;
    uint64 expireAfter;
    uint64 registeredAt;
}

// ------------------------------------------------------------------------------------------------ state and commits

/// @notice What a quorum signs for one commit (EIP-712, domain "Newton State Commit").
struct StateCommit {
    uint64 sequenceNo;
    bytes32 prevStateRoot;
    bytes32 newStateRoot;
    uint64 boundaryBlock;
    uint64 boundaryTimestamp;
    bytes32 deltaHash;
    uint32 rulesVersion;
    uint64 drainedBlock;
    uint32 drainedTx;
    uint32 drainedLog;
    uint32 drainedItem;
    uint64 settledBytes;
}

/// @notice A leaf written by a commit; deltaHash is keccak256(abi.encode(DeltaEntry[])).
struct DeltaEntry {
    bytes32 leafKey;
    bytes32 valueHash;
    uint32 length;
    uint64 blockNumber;
    uint32 txIndex;
    uint32 logIndex;
    uint32 item;
}

/// @notice Names one entry of the defer queue. A quorum certificate over it (EIP-712, domain "Newton State Commit")
/// drops that entry for everyone.
struct SkipUnavailable {
    uint64 blockNumber;
    uint32 txIndex;
    uint32 logIndex;
    uint32 item;
}

/// @notice A state that a quorum and, after a timelock, governance put in the place of what no enclave can derive any more
/// (EIP-712, domain "Newton State Commit"). commit is the next one but has no delta (deltaHash zero); snapshotHash and
/// snapshotLength are those of the sealed snapshot's bytes, daRefHash that of the reference to fetch them by.
struct SealedSnapshot {
    StateCommit commit;
    bytes32 snapshotHash;
    uint64 snapshotLength;
    bytes32 daRefHash;
}

/// @notice What the registry keeps of the latest commit; of earlier ones it keeps the root.
struct CommitRecord {
    uint64 sequenceNo;
    bytes32 stateRoot;
    uint64 boundaryBlock;
    uint64 boundaryTimestamp;
    uint32 rulesVersion;
    uint64 committedAt;
}

/// @notice Sibling hashes bottom-up, and the neighbouring leaf of a non-inclusion proof (zero otherwise).
struct LeafProof {
    bytes32[] siblings;
    bytes32 neighbourKey;
    bytes32 neighbourValueHash;
}

/// @notice An aggregated BLS12-381 signature of the operators of one set. Points are in EIP-2537 form.
struct Certificate {
    bytes signature;
    uint64 setId;
    uint256 nonSignerBitmap;
    bytes nonSignerKeys;
    bytes aggregateKey;
}

/// @notice Everything all enclaves must agree on beside the code. Derived by them from events.
/// genesisTime and cadence are seconds, maxExpireAfter, maxSetAge and the windows are blocks, quorumBps is basis points.
struct ConsensusParameters {
    uint64 genesisTime;
    uint64 cadence;
    uint64 maxCommitBytes;
    uint32 maxArtifactBytes;
    uint64 maxExpireAfter;
    uint16 quorumBps;
    uint16 minSigners;
    uint64 maxSetAge;
    uint64 maxDeferQueueBytes;
    uint64 authorQuotaBytes;
    uint64 responseWindow;
    uint64 challengeWindow;
    bool skipEmpty;
}

// --------------------------------------------------------------------------------------------------------------- tasks

/// @notice The transaction a client wants to make; intentHash is its EIP-712 hashStruct.
struct Intent {
    address from;
    address to;
    uint256 value;
    bytes data;
    uint256 chainId;
    bytes functionSignature;
}

/// @notice The snapshot taken by createTask. Only keccak256(abi.encode(Task)) is stored.
struct Task {
    address client;
    bytes32 policyInstanceId;
    bytes32[] dataInstanceIds;
    uint64 stateSequenceNo;
    bytes32 stateRoot;
    uint64 operatorSetId;
    uint32 rulesVersion;
    bytes32 intentHash;
    bytes32 wasmArgsHash;
    uint64 referenceBlock;
    uint64 referenceTimestamp;
    uint64 nonce;
    uint16 quorumBps;
}

/// @notice One data instance's part in an attestation.
struct PolicyDataBinding {
    bytes32 dataInstanceId;
    bytes32 dataTemplateId;
    bytes32 wasmHash;
    bytes32 paramsSchemaHash;
    bytes32 secretsSchemaHash;
    bytes32 paramsHash;
    bytes32 secretsLeafHash;
    bytes32 outputHash;
    bytes32 transcriptHash;
}

/// @notice What a quorum signs for one evaluation (EIP-712, domain "Newton Policy Attestation").
struct PolicyAttestation {
    bytes32 taskId;
    bytes32 policyInstanceId;
    bytes32 policyTemplateId;
    bytes32 regoHash;
    bytes32 paramsSchemaHash;
    bytes32 paramsHash;
    uint64 referenceBlock;
    uint64 expirationBlock;
    uint64 stateSequenceNo;
    bytes32 stateRoot;
    uint32 rulesVersion;
    bytes32 intentHash;
    bytes32 wasmArgsHash;
    bytes32 evaluationResultHash;
    PolicyDataBinding[] data;
}

/// @notice What the task manager keeps of an accepted response. respondedAt is zero before it.
struct TaskResponse {
    bytes32 digest;
    uint64 respondedAt;
    uint64 expirationBlock;
    uint64 setId;
    bool allowed;
}

/// @notice A task's hash, zero if there is none, and what is known of its answer: respondedAt is zero without one. Who did
/// not sign it is kept while the bitmap fits beside the rest (signersKept).
struct TaskRecord {
    bytes32 taskHash;
    bytes32 digest;
    uint64 respondedAt;
    uint64 setId;
    bool signersKept;
    uint256 nonSignerBitmap;
}

// ------------------------------------------------------------------------------------------------ operators and keys

/// @notice Admission of one boot's keys (EIP-712, domain "Newton Enclave Admission"). validUntil is a block timestamp.
struct EnclaveAdmission {
    address operator;
    bytes32 blsKeyHash;
    bytes32 tlsKeyHash;
    bytes32 bootId;
    bytes32 pcr0Hash;
    bytes32 configHash;
    bytes32 docHash;
    uint64 validUntil;
}

/// @notice An operator. weight is what it signs with; admittedAt is a block, validUntil and exitAt are timestamps: exitAt
/// is when a requested exit may be completed, zero if none was requested.
struct Operator {
    address owner;
    bytes32 blsKeyHash;
    uint96 weight;
    bytes32 pcr0Hash;
    bytes32 configHash;
    bytes32 tlsKeyHash;
    bytes32 bootId;
    uint64 admittedAt;
    uint64 validUntil;
    uint64 exitAt;
}

/// @notice A member of an operator set. index is its bit in Certificate.nonSignerBitmap; indices may have gaps.
struct OperatorSetMember {
    uint8 index;
    address operator;
    bytes32 blsKeyHash;
    uint96 weight;
}

/// @notice An operator set checkpoint with its members in ascending index. It is in force from the block after
/// createdAtBlock until the next set is.
struct OperatorSet {
    uint64 setId;
    bytes32 aggregateKeyHash;
    uint96 totalWeight;
    uint64 createdAtBlock;
    uint64 earliestValidUntil;
    OperatorSetMember[] members;
}

/// @notice Public keys of one key epoch (EIP-712, domain "Newton Key Registry"). Epochs count from 1.
struct KeyEpoch {
    bytes32 mskCommitment;
    uint64 keyEpoch;
    bytes32 secretsPublicKey;
    bytes32 privacyPublicKey;
}

// ------------------------------------------------------------------------------------------------ policy registries

/// @notice Policy templates and instances [design 2.2, 3.1].
interface IPolicyRegistry {
    /// @notice daRefs has one entry per artifact that is not ABSENT, in the order rego, paramsSchema.
    event PolicyTemplateRegistered(
        bytes32 indexed policyTemplateId,
        address indexed author,
        ArtifactRef rego,
        ArtifactRef paramsSchema,
        string entrypoint,
        bytes32[] dataTemplateRefs,
        bytes[] daRefs
    );
    event ArtifactSupplied(
        uint8 indexed namespace, bytes32 indexed artifactHash, address indexed supplier, uint32 byteLength, bytes daRef
    );
    event PolicyInstanceDeployed(
        bytes32 indexed policyInstanceId,
        address indexed client,
        bytes32 indexed policyTemplateId,
        bytes params,
        uint64 expireAfter,
        address deployer
    );
    event CurrentPolicyInstanceSet(address indexed client, bytes32 indexed policyInstanceId);

    error TemplateAlreadyRegistered(bytes32 templateId);
    error InstanceAlreadyDeployed(bytes32 instanceId);
    error MissingTemplate(bytes32 templateId);
    error MissingInstance(bytes32 instanceId);
    error MissingDataTemplate(bytes32 dataTemplateId);
    error MissingPolicyDataInstance(bytes32 dataTemplateId);
    error UnauthorizedClient(address client, address account);
    error InstanceOfOtherClient(bytes32 instanceId, address client, address instanceClient);
    error ExpireAfterZero();
    error ExpireAfterTooLong(uint64 expireAfter, uint64 maxExpireAfter);
    error ParamsTooLarge(uint256 length, uint256 maximum);
    error ParamsWithoutSchema(bytes32 templateId);
    error EntrypointLength(uint256 length, uint256 maximum);
    error TooManyDataTemplates(uint256 count, uint256 maximum);
    error RefsNotSorted(uint256 index);
    error InvalidArtifactHash(bytes32 artifactHash, uint32 byteLength);
    error DaRefCount(uint256 expected, uint256 got);
    error UnknownNamespace(uint8 namespace);

    /// @notice Registers a template. Its data templates need not exist yet.
    function registerTemplate(
        ArtifactRef calldata rego,
        ArtifactRef calldata paramsSchema,
        string calldata entrypoint,
        bytes32[] calldata dataTemplateRefs,
        bytes[] calldata daRefs
    ) external returns (bytes32 policyTemplateId);
    /// @notice Adds a queue entry for content (namespace 4 or 5), with a DA reference to fetch it by.
    function supplyArtifact(uint8 namespace, bytes32 artifactHash, uint32 byteLength, bytes calldata daRef) external;
    /// @notice Deploys an instance for a client the caller may act for; all its data templates must exist.
    function deployInstance(
        address client,
        bytes32 templateId,
        bytes calldata params,
        uint64 expireAfter,
        bool makeCurrent
    ) external returns (bytes32 policyInstanceId);
    /// @notice Points the client to an instance of its own; every data slot must be filled.
    function setCurrent(address client, bytes32 policyInstanceId) external;

    function currentPolicyInstance(address client) external view returns (bytes32);
    /// @notice Row of a template; registeredAt is zero if there is none.
    function templates(bytes32 policyTemplateId) external view returns (PolicyTemplate memory);
    /// @notice Row of an instance; registeredAt is zero if there is none.
    function instances(bytes32 policyInstanceId) external view returns (PolicyInstance memory);
    /// @notice What createTask needs of a client: its current instance and, in template order, its data instances.
    function currentBinding(address client)
        external
        view
        returns (bytes32 policyInstanceId, uint64 newestRow, bytes32[] memory dataInstanceIds);
    function computeTemplateId(
        bytes32 regoHash,
        bytes32 paramsSchemaHash,
        string calldata entrypoint,
        bytes32[] calldata dataTemplateRefs
    ) external view returns (bytes32);
    function computeInstanceId(address client, bytes32 templateId, bytes calldata params, uint64 expireAfter)
        external
        view
        returns (bytes32);
}

/// @notice Policy-data templates, instances and secrets [design 2.2, 2.3, 3.1].
interface IPolicyDataRegistry {
    /// @notice daRefs has one entry per artifact that is not ABSENT, in the order wasm, paramsSchema, secretsSchema.
    event PolicyDataTemplateRegistered(
        bytes32 indexed policyDataTemplateId,
        address indexed author,
        ArtifactRef wasm,
        ArtifactRef paramsSchema,
        ArtifactRef secretsSchema,
        bytes[] daRefs
    );
    event ArtifactSupplied(
        uint8 indexed namespace, bytes32 indexed artifactHash, address indexed supplier, uint32 byteLength, bytes daRef
    );
    event PolicyDataInstanceDeployed(
        bytes32 indexed policyDataInstanceId,
        address indexed client,
        bytes32 indexed policyDataTemplateId,
        bytes params,
        uint64 expireAfter,
        address deployer
    );
    event CurrentPolicyDataInstanceSet(
        address indexed client, bytes32 indexed policyDataTemplateId, bytes32 indexed policyDataInstanceId
    );
    /// @notice count is the number of envelopes posted for this instance so far; byOwner says that the poster was the
    /// client's owner in that block.
    event SecretsSet(
        bytes32 indexed policyDataInstanceId,
        address indexed client,
        address indexed poster,
        bool byOwner,
        ArtifactRef envelope,
        bytes daRef,
        uint64 count
    );

    error TemplateAlreadyRegistered(bytes32 templateId);
    error InstanceAlreadyDeployed(bytes32 instanceId);
    error MissingTemplate(bytes32 templateId);
    error MissingInstance(bytes32 instanceId);
    error UnauthorizedClient(address client, address account);
    error InstanceOfOtherClient(bytes32 instanceId, address client, address instanceClient);
    error ExpireAfterZero();
    error ExpireAfterTooLong(uint64 expireAfter, uint64 maxExpireAfter);
    error ParamsTooLarge(uint256 length, uint256 maximum);
    error ParamsWithoutSchema(bytes32 templateId);
    error SecretsWithoutSchema(bytes32 templateId);
    error InvalidArtifactHash(bytes32 artifactHash, uint32 byteLength);
    error DaRefCount(uint256 expected, uint256 got);
    error UnknownNamespace(uint8 namespace);

    function registerTemplate(
        ArtifactRef calldata wasm,
        ArtifactRef calldata paramsSchema,
        ArtifactRef calldata secretsSchema,
        bytes[] calldata daRefs
    ) external returns (bytes32 policyDataTemplateId);
    /// @notice Adds a queue entry for content (namespace 6, 7 or 8), with a DA reference to fetch it by.
    function supplyArtifact(uint8 namespace, bytes32 artifactHash, uint32 byteLength, bytes calldata daRef) external;
    function deployInstance(
        address client,
        bytes32 templateId,
        bytes calldata params,
        uint64 expireAfter,
        bool makeCurrent
    ) external returns (bytes32 policyDataInstanceId);
    /// @notice Fills the client's slot for the instance's template.
    function setCurrent(address client, bytes32 policyDataInstanceId) external;
    /// @notice Posts an envelope for an instance; the last one by event order is in force once committed.
    function setSecrets(bytes32 policyDataInstanceId, ArtifactRef calldata envelope, bytes calldata daRef) external;

    function currentPolicyDataInstance(address client, bytes32 policyDataTemplateId) external view returns (bytes32);
    /// @notice The client's slots for several templates and the newest registeredAt of their instances; a zero id is an
    /// empty slot.
    function currentPolicyDataInstances(address client, bytes32[] calldata policyDataTemplateIds)
        external
        view
        returns (bytes32[] memory instanceIds, uint64 newestRow);
    /// @notice The first of these templates that is not registered, zero if all are.
    function firstMissingTemplate(bytes32[] calldata policyDataTemplateIds) external view returns (bytes32);
    function templates(bytes32 policyDataTemplateId) external view returns (PolicyDataTemplate memory);
    function instances(bytes32 policyDataInstanceId) external view returns (PolicyDataInstance memory);
    /// @notice Envelopes posted for an instance so far.
    function secretsCount(bytes32 policyDataInstanceId) external view returns (uint64);
    function computeTemplateId(bytes32 wasmHash, bytes32 paramsSchemaHash, bytes32 secretsSchemaHash)
        external
        view
        returns (bytes32);
    function computeInstanceId(address client, bytes32 templateId, bytes calldata params, uint64 expireAfter)
        external
        view
        returns (bytes32);
}

// ------------------------------------------------------------------------------------------------------ certificates

/// @notice Checks certificates. The operator registry implements it; the curve stands behind this seat.
interface ICertificateVerifier {
    error UnknownSet(uint64 setId);
    error SetNotInForceYet(uint64 setId, uint64 createdAtBlock);
    error SetTooOld(uint64 setId, uint64 supersededAtBlock, uint64 maxSetAge);
    error SetHasRevokedMember(uint64 setId, uint64 firstCleanSetId);
    error SetHasExpiredMember(uint64 setId, uint64 earliestValidUntil);
    error EmptySet(uint64 setId);
    error AggregateKeyMismatch(bytes32 expected, bytes32 got);
    error NonSignerNotMember(uint8 index);
    error NonSignerKeyMismatch(uint8 index, bytes32 expected, bytes32 got);
    error NonSignerKeysLength(uint256 expected, uint256 got);
    error TooFewSigners(uint256 required, uint256 got);
    error QuorumNotReached(uint256 signedWeight, uint256 totalWeight, uint16 quorumBps);
    error InvalidSignature(bytes32 digest);
    error InvalidPointLength(uint256 expected, uint256 got);
    error PointAtInfinity();
    error PrecompileFailed(address precompile);

    /// @notice Reverts unless the certificate is a quorum's signature over digest by a set in force or superseded at
    /// most maxSetAge blocks ago, with at least minSigners signers.
    function verifyCertificate(
        bytes32 digest,
        Certificate calldata certificate,
        uint16 quorumBps,
        uint16 minSigners,
        uint64 maxSetAge
    ) external view returns (uint256 signedWeight);
}

/// @notice Who may sign [design 3.1].
interface IOperatorRegistry {
    /// @notice The operator is on the allow-list with this weight; zero takes it off.
    event OperatorAllowed(address indexed operator, uint96 weight);
    event AdmissionApproved(bytes32 indexed admissionDigest, address indexed operator, uint64 executableAt);
    /// @notice viaCertificate is false for an admission by the owner. The document stands in the calldata.
    event OperatorAdmitted(
        address indexed operator,
        uint64 indexed setId,
        uint8 index,
        uint96 weight,
        bool viaCertificate,
        bytes blsPublicKey,
        EnclaveAdmission admission
    );
    /// @notice reason: 1 retired by its owner, 2 exit requested, 3 expired, 4 version no longer active, 5 not allowed.
    event OperatorRemoved(address indexed operator, uint64 indexed setId, uint8 index, uint8 reason);
    event OperatorSetChanged(
        uint64 indexed setId,
        bytes32 aggregateKeyHash,
        uint96 totalWeight,
        uint64 earliestValidUntil,
        bytes aggregateKey
    );
    /// @notice The operator signs with this weight, which slashing left it, from this set on.
    event OperatorReweighed(address indexed operator, uint64 indexed setId, uint8 index, uint96 weight);
    /// @notice Sets below firstCleanSetId hold a revoked member and no longer certify anything.
    event SetsInvalidated(uint64 firstCleanSetId, bytes32 indexed pcr0Hash);
    event ExitRequested(address indexed operator, uint64 exitAt);
    event ExitCompleted(address indexed operator);

    error OperatorNotAllowed(address operator);
    error OperatorAlreadyRegistered(address operator);
    error OperatorNotRegistered(address operator);
    error OperatorNotAdmitted(address operator);
    error NotOperatorOwner(address operator, address account);
    error OperatorExiting(address operator);
    error KeyAlreadyUsed(bytes32 blsKeyHash);
    error KeyHashMismatch(bytes32 expected, bytes32 got);
    error DocumentMismatch(bytes32 expected, bytes32 got);
    error InvalidProofOfPossession(address operator);
    error VersionNotActive(bytes32 pcr0Hash);
    error ConfigNotApproved(bytes32 configHash);
    error AdmissionExpired(uint64 validUntil, uint64 timestamp);
    error AdmissionTooLong(uint64 validUntil, uint64 maximum);
    error AdmissionNotApproved(bytes32 admissionDigest);
    error AdmissionTimelocked(uint64 executableAt, uint64 timestamp);
    error QuorumIsLive(uint256 liveWeight, uint256 registeredWeight);
    error SetFull();
    error ZeroWeight();
    error NotPrunable(address operator);
    error MemberKeysLength(uint256 expected, uint256 got);
    error ExitNotRequested(address operator);
    error ExitDelayNotOver(uint64 executableAt, uint64 timestamp);
    error StillChallengeable(uint64 lastBlock, uint64 blockNumber);
    error NothingToReweigh(address operator, uint96 weight);
    error NoOperatorsNamed();
    error NotVersionRegistry(address account);

    /// @notice Puts an operator on the allow-list with the weight its next admission gets. Owner only.
    function allowOperator(address operator, uint96 weight) external;
    /// @notice Admits by the owner's word: at genesis, or after the timelock while live weight is below quorum.
    function approveAdmission(EnclaveAdmission calldata admission) external;
    /// @notice First admission, sent by the operator's owner. An empty certificate.signature means approveAdmission.
    /// currentAggregateKey is the latest set's (256 bytes; all zero for an empty set).
    function registerOperator(
        bytes calldata blsPublicKey,
        bytes calldata proofOfPossession,
        EnclaveAdmission calldata admission,
        bytes calldata document,
        bytes calldata currentAggregateKey,
        Certificate calldata certificate
    ) external;
    /// @notice Admission of a registered operator's new boot; anyone may send it. formerKey is the key it replaces in
    /// the latest set, empty if the operator is in no set.
    function readmit(
        bytes calldata blsPublicKey,
        bytes calldata proofOfPossession,
        EnclaveAdmission calldata admission,
        bytes calldata document,
        bytes calldata currentAggregateKey,
        bytes calldata formerKey,
        Certificate calldata certificate
    ) external;
    /// @notice Takes the caller's operator out of the set because its enclave is gone. Its weight stays slashable.
    function retireAdmission(bytes calldata blsPublicKey, bytes calldata currentAggregateKey) external;
    /// @notice Removes operators whose admission expired, whose version is not active, or that are no longer allowed.
    /// memberKeys are their keys in the same order.
    function prune(address[] calldata operators, bytes calldata memberKeys, bytes calldata currentAggregateKey) external;
    /// @notice Makes a set in which these members sign with the weight that slashing left them; anyone may send it.
    function reweigh(address[] calldata operators, bytes calldata currentAggregateKey) external;
    /// @notice Leaves the set at once; the weight stays slashable until completeExit. The two keys as in
    /// retireAdmission, both empty if the operator is in no set.
    function requestExit(bytes calldata blsPublicKey, bytes calldata currentAggregateKey) external;
    /// @notice Ends an exit once its delay is over and nothing the operator can have signed is challengeable any more.
    function completeExit() external;
    /// @notice Called by the version registry when it revokes an image.
    function onVersionRevoked(bytes32 pcr0Hash) external;

    function allowedWeight(address operator) external view returns (uint96);
    function operators(address operator) external view returns (Operator memory);
    /// @notice True while the operator's latest admission is in the latest set.
    function isMember(address operator) external view returns (bool);
    /// @notice Operator that ever had this key admitted, zero if none.
    function operatorOfKey(bytes32 blsKeyHash) external view returns (address);
    function latestSetId() external view returns (uint64);
    /// @notice The set in force in this block.
    function currentSetId() external view returns (uint64);
    function operatorSet(uint64 setId) external view returns (OperatorSet memory);
    /// @notice Sets below this id hold a revoked member.
    function firstCleanSetId() external view returns (uint64);
    function admissionDigest(EnclaveAdmission calldata admission) external view returns (bytes32);
    /// @notice Timestamp from which an approved admission may be used, zero if it is not approved.
    function approvedAdmissions(bytes32 digest) external view returns (uint64);
    /// @notice Last block in which something that an exiting operator signed as a member can be challenged, by the
    /// parameters of now; zero if no exit was requested.
    function liableThrough(address operator) external view returns (uint64);
    function exitDelay() external view returns (uint64);
    function admissionTimelock() external view returns (uint64);
    function maxAdmissionSeconds() external view returns (uint64);
}

/// @notice The master secret's public face [design 5.1].
interface IKeyRegistry {
    event KeyEpochPublished(
        uint64 indexed keyEpoch, bytes32 mskCommitment, bytes32 secretsPublicKey, bytes32 privacyPublicKey
    );
    event MinKeyEpochSet(uint64 minKeyEpoch);

    error KeyEpochNotNext(uint64 expected, uint64 got);
    error CommitmentMismatch(bytes32 expected, bytes32 got);
    error ZeroKey();
    error MinKeyEpochOutOfRange(uint64 current, uint64 keyEpoch, uint64 got);
    error UnknownKeyEpoch(uint64 keyEpoch);

    /// @notice Publishes the next epoch's keys by quorum certificate; epochs count from 1 and are write-once.
    function publishKeyEpoch(KeyEpoch calldata epoch, Certificate calldata certificate) external;
    /// @notice Envelopes of epochs below this are no longer accepted. Owner only; never falls.
    function setMinKeyEpoch(uint64 epoch) external;
    function mskCommitment() external view returns (bytes32);
    /// @notice Latest published epoch, zero if none.
    function keyEpoch() external view returns (uint64);
    function minKeyEpoch() external view returns (uint64);
    function keysOf(uint64 epoch) external view returns (KeyEpoch memory);
    function keyEpochDigest(KeyEpoch calldata epoch) external view returns (bytes32);
}

/// @notice The roots, the consensus parameters and the backlog [design 2.4, 2.5, 3.1].
interface IStateCommitRegistry {
    /// @notice deltaDaRefs say where the bytes of the delta can be had; they are not part of the digest.
    event StateCommitted(
        uint64 indexed sequenceNo, bytes32 newStateRoot, StateCommit commit, bytes32 digest, bytes[] deltaDaRefs
    );
    /// @notice Parameters at a window's end T are those of the last event with activeFromTimestamp <= T. When cadence
    /// changes, genesisTime is activeFromTimestamp, so that the new windows start where the old ones end.
    event ConsensusParametersSet(ConsensusParameters parameters, uint64 activeFromTimestamp);
    event EntrySkipped(uint64 indexed blockNumber, uint32 txIndex, uint32 logIndex, uint32 item);
    /// @notice The owner's half of a recovery; the quorum's is the certificate that it is adopted with.
    event SnapshotProposed(bytes32 indexed digest, SealedSnapshot snapshot, uint64 adoptableFrom);
    event SnapshotCancelled(bytes32 indexed digest);
    /// @notice The next root came from a sealed snapshot and not from the queue: a commit in all but its derivation. daRef is
    /// where the snapshot's bytes can be had.
    event SnapshotAdopted(
        uint64 indexed sequenceNo, bytes32 newStateRoot, SealedSnapshot snapshot, bytes32 digest, bytes daRef
    );
    event BacklogRecorded(address indexed author, uint64 length, uint64 registeredBytes);

    error SequenceMismatch(uint64 expected, uint64 got);
    error PrevRootMismatch(bytes32 expected, bytes32 got);
    error ZeroRoot();
    error BoundaryNotRising(uint64 previousBlock, uint64 got);
    error BoundaryTimeNotRising(uint64 previousTimestamp, uint64 got);
    error BoundaryInFuture(uint64 boundaryBlock, uint64 boundaryTimestamp);
    error CursorNotRising();
    error SettledTooMuch(uint64 outstanding, uint64 settled);
    error UnknownCommit(uint64 sequenceNo);
    error InvalidParameters(bytes32 field);
    error ParametersPending(uint64 activeFromTimestamp);
    error NotRegistry(address account);
    error RulesVersionMismatch(uint32 expected, uint32 got);
    error ArtifactTooLarge(uint256 length, uint256 maximum);
    error BacklogFull(uint256 outstanding, uint256 added, uint256 maximum);
    error AuthorQuotaExceeded(address author, uint256 outstanding, uint256 added, uint256 quota);
    error EntryAlreadySkipped(uint64 blockNumber, uint32 txIndex, uint32 logIndex, uint32 item);
    /// @notice field is the name of the field that may not be what it is, in ASCII.
    error InvalidSnapshot(bytes32 field);
    error SnapshotNotProposed(bytes32 digest);
    error SnapshotTimelocked(uint64 adoptableFrom, uint64 timestamp);
    error DaReferenceMismatch(bytes32 expected, bytes32 got);
    error EntryAlreadyDrained(uint64 blockNumber, uint32 txIndex, uint32 logIndex, uint32 item);

    /// @notice Accepts the next root with a quorum's certificate; anyone may submit it.
    function commitStateRoot(
        StateCommit calldata commit,
        Certificate calldata certificate,
        bytes[] calldata deltaDaRefs
    ) external;
    /// @notice Proposes a sealed snapshot, for the case that the enclaves cannot go on by themselves; proposing it again starts
    /// its timelock anew. Owner only.
    function proposeSnapshot(SealedSnapshot calldata snapshot) external returns (uint64 adoptableFrom);
    /// @notice Withdraws a proposal. Owner only.
    function cancelSnapshot(bytes32 digest) external;
    /// @notice Makes a proposed snapshot's root the next one, after its timelock, with a quorum's certificate over
    /// snapshotDigest; anyone may submit it. All checks of a commit hold.
    function adoptSnapshot(SealedSnapshot calldata snapshot, Certificate calldata certificate, bytes calldata daRef)
        external;
    /// @notice Drops a queue entry whose bytes nobody can get, by quorum certificate.
    function skipUnavailable(SkipUnavailable calldata entry, Certificate calldata certificate) external;
    /// @notice Sets new parameters (genesisTime is ignored); they hold from the first window end at least one window
    /// away. Owner only.
    function setParameters(ConsensusParameters calldata next) external returns (uint64 activeFromTimestamp);
    /// @notice Counts bytes an author asked to have committed; largest is its largest artifact. Registries only.
    function recordRegistered(address author, uint64 totalBytes, uint64 largest) external;

    function getStateRoot() external view returns (bytes32);
    function getSequenceNo() external view returns (uint64);
    /// @notice Sequence number and root that count in this block: the last commit of an earlier block.
    function stateInForce() external view returns (uint64 sequenceNo, bytes32 stateRoot);
    /// @notice Root of a commit; reverts if there is none of that number.
    function commitAt(uint64 sequenceNo) external view returns (bytes32 stateRoot);
    /// @notice The latest commit; at genesis number 0 with the deployment's block and time.
    function latestCommit() external view returns (CommitRecord memory);
    /// @notice Last queue key drained by a commit.
    function drainedThrough() external view returns (uint64 blockNumber, uint32 txIndex, uint32 logIndex, uint32 item);
    /// @notice True if (leafKey, valueHash) is in the tree of that commit; valueHash zero asks for non-inclusion.
    function verifyLeaf(uint64 sequenceNo, bytes32 leafKey, bytes32 valueHash, LeafProof calldata proof)
        external
        view
        returns (bool);
    function parameters() external view returns (ConsensusParameters memory);
    function pendingParameters() external view returns (ConsensusParameters memory next, uint64 activeFromTimestamp);
    function maxExpireAfter() external view returns (uint64);
    /// @notice Quorum, least number of signers and greatest age of a set that hold now.
    function certificateRules() external view returns (uint16 quorumBps, uint16 minSigners, uint64 maxSetAge);
    /// @notice What an answer is held against: least number of signers, greatest age of a set, blocks to answer in.
    function responseRules() external view returns (uint16 minSigners, uint64 maxSetAge, uint64 responseWindow);
    /// @notice Blocks in which a task can be answered and an answer challenged.
    function challengeRules() external view returns (uint64 responseWindow, uint64 challengeWindow);
    /// @notice Blocks after which nothing that a member's key signed can be challenged any more, counted from when the member
    /// left: the greatest set age, life of an attestation and challenge window there ever were. Never falls.
    function liabilityBlocks() external view returns (uint64);
    /// @notice Timestamp from which a proposed snapshot may be adopted, zero if it is not proposed.
    function proposedSnapshots(bytes32 digest) external view returns (uint64 adoptableFrom);
    /// @notice Seconds from proposing a snapshot to its adoption.
    function snapshotTimelock() external view returns (uint64);
    function backlog() external view returns (uint64 registeredBytes, uint64 settledBytes);
    function authorBacklog(address author) external view returns (uint64);
    function commitDigest(StateCommit calldata commit) external view returns (bytes32);
    function snapshotDigest(SealedSnapshot calldata snapshot) external view returns (bytes32);
    function skipDigest(SkipUnavailable calldata entry) external view returns (bytes32);
    function deploymentBlock() external view returns (uint64);
}

/// @notice Tasks and their answers [design 3.2].
interface ITaskManager {
    event TaskCreated(bytes32 indexed taskId, address indexed client, Task task, Intent intent, bytes wasmArgs);
    event TaskResponded(
        bytes32 indexed taskId, bytes32 digest, bytes32 evaluationResultHash, uint64 setId, uint256 nonSignerBitmap
    );

    error NoCurrentPolicyInstance(address client);
    error InstanceNotInForceYet(bytes32 policyInstanceId, uint64 registeredAt);
    error NoOperators();
    error QuorumOutOfRange(uint16 minimum, uint16 got);
    error WasmArgsTooLarge(uint256 length, uint256 maximum);
    error IntentTooLarge(uint256 length, uint256 maximum);
    error UnknownTask(bytes32 taskId);
    error TaskAlreadyResponded(bytes32 taskId);
    /// @notice field is the name of the field that disagreed, in ASCII.
    error TaskMismatch(bytes32 field, bytes32 expected, bytes32 got);
    error ResponseTooLate(uint64 lastBlock, uint64 blockNumber);

    /// @notice Snapshots everything an evaluation depends on. quorumBps zero means the chain's quorum.
    function createTask(address client, Intent calldata intent, bytes calldata wasmArgs, uint16 quorumBps)
        external
        returns (bytes32 taskId);
    /// @notice Stores the answer to a task, certified by the operator set of its snapshot.
    function respondToTask(
        bytes32 taskId,
        Task calldata task,
        PolicyAttestation calldata attestation,
        Certificate calldata certificate
    ) external;
    function taskHashes(bytes32 taskId) external view returns (bytes32);
    function responses(bytes32 taskId) external view returns (TaskResponse memory);
    /// @notice What a challenge asks of a task.
    function taskRecord(bytes32 taskId) external view returns (TaskRecord memory);
    function attestationDigest(PolicyAttestation calldata attestation) external view returns (bytes32);
    function hashIntent(Intent calldata intent) external pure returns (bytes32);
    function nextNonce() external view returns (uint64);
}
