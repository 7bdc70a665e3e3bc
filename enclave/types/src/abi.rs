//! The contracts' structures, events and errors, from the one file that the Solidity side compiles too.
#![allow(
    missing_docs,
    clippy::too_many_arguments,
    clippy::unwrap_used,
    clippy::pub_underscore_fields
)]

alloy_sol_types::sol! {
    #[derive(Debug, Default, PartialEq, Eq)]
    struct ArtifactRef { bytes32 artifactHash; uint32 byteLength; }
    #[derive(Debug, Default, PartialEq, Eq)]
    struct StateCommit { uint64 sequenceNo; bytes32 prevStateRoot; bytes32 newStateRoot; uint64 boundaryBlock; uint64 boundaryTimestamp; bytes32 deltaHash; uint32 rulesVersion; uint64 drainedBlock; uint32 drainedTx; uint32 drainedLog; uint32 drainedItem; uint64 settledBytes; }
    #[derive(Debug, Default, PartialEq, Eq)]
    struct DeltaEntry { bytes32 leafKey; bytes32 valueHash; uint32 length; uint64 blockNumber; uint32 txIndex; uint32 logIndex; uint32 item; }
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Intent { address from; address to; uint256 value; bytes data; uint256 chainId; bytes functionSignature; }
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Task { address client; bytes32 policyInstanceId; bytes32[] dataInstanceIds; uint64 stateSequenceNo; bytes32 stateRoot; uint64 operatorSetId; uint32 rulesVersion; bytes32 intentHash; bytes32 wasmArgsHash; uint64 referenceBlock; uint64 referenceTimestamp; uint64 nonce; uint16 quorumBps; }
    #[derive(Debug, Default, PartialEq, Eq)]
    struct PolicyDataBinding { bytes32 dataInstanceId; bytes32 dataTemplateId; bytes32 wasmHash; bytes32 paramsSchemaHash; bytes32 secretsSchemaHash; bytes32 paramsHash; bytes32 secretsLeafHash; bytes32 outputHash; bytes32 transcriptHash; }
    #[derive(Debug, Default, PartialEq, Eq)]
    struct PolicyAttestation { bytes32 taskId; bytes32 policyInstanceId; bytes32 policyTemplateId; bytes32 regoHash; bytes32 paramsSchemaHash; bytes32 paramsHash; uint64 referenceBlock; uint64 expirationBlock; uint64 stateSequenceNo; bytes32 stateRoot; uint32 rulesVersion; bytes32 intentHash; bytes32 wasmArgsHash; bytes32 evaluationResultHash; PolicyDataBinding[] data; }
    #[derive(Debug, Default, PartialEq, Eq)]
    struct EnclaveAdmission { address operator; bytes32 blsKeyHash; bytes32 tlsKeyHash; bytes32 bootId; bytes32 pcr0Hash; bytes32 configHash; bytes32 docHash; uint64 validUntil; }
    #[derive(Debug, Default, PartialEq, Eq)]
    struct KeyEpoch { bytes32 mskCommitment; uint64 keyEpoch; bytes32 secretsPublicKey; bytes32 privacyPublicKey; }
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Certificate { bytes signature; uint64 setId; uint256 nonSignerBitmap; bytes nonSignerKeys; bytes aggregateKey; }
}
