// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {
    StateCommit,
    SealedSnapshot,
    SkipUnavailable,
    EnclaveAdmission,
    KeyEpoch,
    Intent,
    PolicyAttestation,
    PolicyDataBinding
} from "../interfaces/INewton.sol";

/// @notice EIP-712 struct hashes of everything that is signed. The type strings are those of docs/protocol.md.
library Digests {
    bytes32 internal constant STATE_COMMIT_TYPE = keccak256(
        "StateCommit(uint64 sequenceNo,bytes32 prevStateRoot,bytes32 newStateRoot,uint64 boundaryBlock,uint64 boundaryTimestamp,bytes32 deltaHash,uint32 rulesVersion,uint64 drainedBlock,uint32 drainedTx,uint32 drainedLog,uint32 drainedItem,uint64 settledBytes)"
    );
    bytes32 internal constant SEALED_SNAPSHOT_TYPE = keccak256(
        "SealedSnapshot(StateCommit commit,bytes32 snapshotHash,uint64 snapshotLength,bytes32 daRefHash)StateCommit(uint64 sequenceNo,bytes32 prevStateRoot,bytes32 newStateRoot,uint64 boundaryBlock,uint64 boundaryTimestamp,bytes32 deltaHash,uint32 rulesVersion,uint64 drainedBlock,uint32 drainedTx,uint32 drainedLog,uint32 drainedItem,uint64 settledBytes)"
    );
    bytes32 internal constant SKIP_UNAVAILABLE_TYPE =
        keccak256("SkipUnavailable(uint64 blockNumber,uint32 txIndex,uint32 logIndex,uint32 item)");
    bytes32 internal constant ENCLAVE_ADMISSION_TYPE = keccak256(
        "EnclaveAdmission(address operator,bytes32 blsKeyHash,bytes32 tlsKeyHash,bytes32 bootId,bytes32 pcr0Hash,bytes32 configHash,bytes32 docHash,uint64 validUntil)"
    );
    bytes32 internal constant KEY_EPOCH_TYPE =
        keccak256("KeyEpoch(bytes32 mskCommitment,uint64 keyEpoch,bytes32 secretsPublicKey,bytes32 privacyPublicKey)");
    bytes32 internal constant INTENT_TYPE =
        keccak256("Intent(address from,address to,uint256 value,bytes data,uint256 chainId,bytes functionSignature)");
    bytes32 internal constant POLICY_DATA_BINDING_TYPE = keccak256(
        "PolicyDataBinding(bytes32 dataInstanceId,bytes32 dataTemplateId,bytes32 wasmHash,bytes32 paramsSchemaHash,bytes32 secretsSchemaHash,bytes32 paramsHash,bytes32 secretsLeafHash,bytes32 outputHash,bytes32 transcriptHash)"
    );
    bytes32 internal constant POLICY_ATTESTATION_TYPE = keccak256(
        "PolicyAttestation(bytes32 taskId,bytes32 policyInstanceId,bytes32 policyTemplateId,bytes32 regoHash,bytes32 paramsSchemaHash,bytes32 paramsHash,uint64 referenceBlock,uint64 expirationBlock,uint64 stateSequenceNo,bytes32 stateRoot,uint32 rulesVersion,bytes32 intentHash,bytes32 wasmArgsHash,bytes32 evaluationResultHash,PolicyDataBinding[] data)PolicyDataBinding(bytes32 dataInstanceId,bytes32 dataTemplateId,bytes32 wasmHash,bytes32 paramsSchemaHash,bytes32 secretsSchemaHash,bytes32 paramsHash,bytes32 secretsLeafHash,bytes32 outputHash,bytes32 transcriptHash)"
    );

    bytes32 private constant DOMAIN_TYPE =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant ATTESTATION_NAME = keccak256("Newton Policy Attestation");
    bytes32 private constant VERSION = keccak256("1");

    /// @notice What is signed for an attestation to a task manager of this chain; as ITaskManager.attestationDigest.
    function attestationDigest(address taskManager, PolicyAttestation calldata value) internal view returns (bytes32) {
        bytes32 domain = keccak256(abi.encode(DOMAIN_TYPE, ATTESTATION_NAME, VERSION, block.chainid, taskManager));
        return keccak256(abi.encodePacked(hex"1901", domain, policyAttestation(value)));
    }

    function stateCommit(StateCommit calldata commit) internal pure returns (bytes32) {
        // A struct of value types encodes as its fields, so this is hashStruct.
        return keccak256(abi.encode(STATE_COMMIT_TYPE, commit));
    }

    function sealedSnapshot(SealedSnapshot calldata snapshot) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                SEALED_SNAPSHOT_TYPE,
                stateCommit(snapshot.commit),
                snapshot.snapshotHash,
                snapshot.snapshotLength,
                snapshot.daRefHash
            )
        );
    }

    function skipUnavailable(SkipUnavailable calldata entry) internal pure returns (bytes32) {
        return keccak256(abi.encode(SKIP_UNAVAILABLE_TYPE, entry));
    }

    function enclaveAdmission(EnclaveAdmission calldata admission) internal pure returns (bytes32) {
        return keccak256(abi.encode(ENCLAVE_ADMISSION_TYPE, admission));
    }

    function keyEpoch(KeyEpoch calldata epoch) internal pure returns (bytes32) {
        return keccak256(abi.encode(KEY_EPOCH_TYPE, epoch));
    }

    function intent(Intent calldata value) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                INTENT_TYPE,
                value.from,
                value.to,
                value.value,
                keccak256(value.data),
                value.chainId,
                keccak256(value.functionSignature)
            )
        );
    }

    function policyDataBinding(PolicyDataBinding calldata binding) internal pure returns (bytes32) {
        return keccak256(abi.encode(POLICY_DATA_BINDING_TYPE, binding));
    }

    function policyAttestation(PolicyAttestation calldata attestation) internal pure returns (bytes32) {
        PolicyDataBinding[] calldata data = attestation.data;
        bytes32[] memory hashes = new bytes32[](data.length);
        for (uint256 i = 0; i < data.length; ++i) {
            hashes[i] = policyDataBinding(data[i]);
        }
        // Split in two: all fields are single words, so the encodings simply follow each other.
        return keccak256(
            bytes.concat(
                abi.encode(
                    POLICY_ATTESTATION_TYPE,
                    attestation.taskId,
                    attestation.policyInstanceId,
                    attestation.policyTemplateId,
                    attestation.regoHash,
                    attestation.paramsSchemaHash,
                    attestation.paramsHash,
                    attestation.referenceBlock
                ),
                abi.encode(
                    attestation.expirationBlock,
                    attestation.stateSequenceNo,
                    attestation.stateRoot,
                    attestation.rulesVersion,
                    attestation.intentHash,
                    attestation.wasmArgsHash,
                    attestation.evaluationResultHash,
                    keccak256(abi.encodePacked(hashes))
                )
            )
        );
    }
}
