//! Digests that are signed: EIP-712 over the structures of [`crate::abi`] (`docs/protocol.md` §3, §5, §6, §12).

use std::borrow::Cow;

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_sol_types::{Eip712Domain, SolStruct, SolValue, sol};

use crate::abi;

/// Where a digest counts: the chain and the contract that verifies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Chain id.
    pub chain_id: u64,
    /// The verifying contract.
    pub contract: Address,
}

/// Digest of a state commit; `scope.contract` is the StateCommitRegistry.
pub fn state_commit_digest(scope: Scope, commit: &abi::StateCommit) -> B256 {
    commit.eip712_signing_hash(&domain("Newton State Commit", scope))
}

/// Digest of a sealed snapshot; `scope.contract` is the StateCommitRegistry.
pub fn sealed_snapshot_digest(scope: Scope, snapshot: &abi::SealedSnapshot) -> B256 {
    snapshot.eip712_signing_hash(&domain("Newton State Commit", scope))
}

/// Digest of an evaluation; `scope.contract` is the TaskManager.
pub fn policy_attestation_digest(scope: Scope, attestation: &abi::PolicyAttestation) -> B256 {
    attestation.eip712_signing_hash(&domain("Newton Policy Attestation", scope))
}

/// Digest of an admission; `scope.contract` is the OperatorRegistry.
pub fn enclave_admission_digest(scope: Scope, admission: &abi::EnclaveAdmission) -> B256 {
    admission.eip712_signing_hash(&domain("Newton Enclave Admission", scope))
}

/// Digest of a key epoch's public face; `scope.contract` is the KeyRegistry.
pub fn key_epoch_digest(scope: Scope, epoch: &abi::KeyEpoch) -> B256 {
    epoch.eip712_signing_hash(&domain("Newton Key Registry", scope))
}

/// Digest of a certificate that drops one queue entry for everyone; `scope.contract` is the StateCommitRegistry.
pub fn skip_unavailable_digest(scope: Scope, entry: &abi::SkipUnavailable) -> B256 {
    entry.eip712_signing_hash(&domain("Newton State Commit", scope))
}

/// Digest of the outcome of a re-execution; `scope.contract` is the EnclaveReexecutionVerifier.
pub fn result_outcome_digest(scope: Scope, outcome: &abi::ResultOutcome) -> B256 {
    outcome.eip712_signing_hash(&domain("Newton Result Verification", scope))
}

/// The 32 bytes that a proof of possession signs under the POP domain; `scope.contract` is the OperatorRegistry.
pub fn proof_of_possession_message(scope: Scope, owner: Address, bls_key_hash: B256) -> B256 {
    keccak256(
        (
            owner,
            U256::from(scope.chain_id),
            scope.contract,
            bls_key_hash,
        )
            .abi_encode_params(),
    )
}

sol! {
    /// A call of the JSON-RPC that a client's owner vouches for. No contract verifies it, only enclaves.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct OwnerCall {
        address client;
        string method;
        bytes32 paramsHash;
        uint64 deadline;
    }
}

/// Digest of an owner's call; `scope.contract` is the PolicyClientRegistry, which says who the owner is.
pub fn owner_call_digest(scope: Scope, call: &OwnerCall) -> B256 {
    call.eip712_signing_hash(&domain("Newton Owner Call", scope))
}

/// keccak-256 of a call's parameters in canonical JSON (RFC 8785), as an owner signs it.
pub fn params_hash(members: &serde_json::Map<String, serde_json::Value>) -> B256 {
    // Fails for no value that came out of a JSON text.
    let canonical = serde_json_canonicalizer::to_vec(members).unwrap_or_default();
    keccak256(canonical)
}

/// EIP-712 struct hash of an intent.
pub fn intent_hash(intent: &abi::Intent) -> B256 {
    intent.eip712_hash_struct()
}

/// `keccak256(abi.encode(Task))`: what the task manager stores of a task.
pub fn task_hash(task: &abi::Task) -> B256 {
    keccak256(task.abi_encode())
}

pub(crate) fn domain(name: &'static str, scope: Scope) -> Eip712Domain {
    Eip712Domain::new(
        Some(Cow::Borrowed(name)),
        Some(Cow::Borrowed("1")),
        Some(U256::from(scope.chain_id)),
        Some(scope.contract),
        None,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The type strings stand in `docs/protocol.md`; the structures must encode to the very same.
    #[test]
    fn type_strings_are_those_of_the_protocol() {
        let protocol = include_str!("../../../docs/protocol.md");
        for encoded in [
            abi::StateCommit::eip712_encode_type(),
            abi::PolicyAttestation::eip712_encode_type(),
            abi::EnclaveAdmission::eip712_encode_type(),
            abi::KeyEpoch::eip712_encode_type(),
            abi::ResultOutcome::eip712_encode_type(),
            abi::Intent::eip712_encode_type(),
            OwnerCall::eip712_encode_type(),
            abi::SkipUnavailable::eip712_encode_type(),
        ] {
            assert!(protocol.contains(encoded.as_ref()), "{encoded}");
        }
    }

    /// The digest of an owner's call, put together by hand as EIP-712 says.
    #[test]
    fn an_owners_call_is_hashed_as_the_protocol_says() {
        let members = serde_json::from_str(r#"{"b":[1,true],"a":"x"}"#).unwrap_or_default();
        let call = OwnerCall {
            client: Address::repeat_byte(2),
            method: "newt_simulateTask".to_owned(),
            paramsHash: params_hash(&members),
            deadline: 77,
        };
        assert_eq!(call.paramsHash, keccak256(r#"{"a":"x","b":[1,true]}"#));
        let scope = Scope {
            chain_id: 31_337,
            contract: Address::repeat_byte(1),
        };
        let domain_type =
            "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";
        let domain = (
            keccak256(domain_type),
            keccak256("Newton Owner Call"),
            keccak256("1"),
            U256::from(scope.chain_id),
            scope.contract,
        );
        let message = (
            keccak256("OwnerCall(address client,string method,bytes32 paramsHash,uint64 deadline)"),
            call.client,
            keccak256(&call.method),
            call.paramsHash,
            call.deadline,
        );
        let digest = [
            b"\x19\x01".as_slice(),
            keccak256(domain.abi_encode()).as_slice(),
            keccak256(message.abi_encode()).as_slice(),
        ]
        .concat();
        assert_eq!(owner_call_digest(scope, &call), keccak256(digest));
    }

    #[test]
    fn chain_and_contract_are_in_every_digest() {
        let commit = abi::StateCommit::default();
        let scope = Scope {
            chain_id: 1,
            contract: Address::repeat_byte(1),
        };
        let base = state_commit_digest(scope, &commit);
        let other_chain = Scope {
            chain_id: 2,
            ..scope
        };
        let other_contract = Scope {
            contract: Address::repeat_byte(2),
            ..scope
        };
        assert_ne!(base, state_commit_digest(other_chain, &commit));
        assert_ne!(base, state_commit_digest(other_contract, &commit));
    }
}
