//! Identities: hashes of hashes with a tag (design 2.2, `docs/protocol.md` §1).

use alloy_primitives::{Address, B256, U256, b256, keccak256};
use alloy_sol_types::SolValue;

/// Stands for an artifact that is not there: `keccak256("NEWTON_POLICY_ARTIFACT_ABSENT_V1")`. Never zero.
pub const ABSENT: B256 = b256!("385ae9fc2190731ea0b29b2ad75e99f8f0807e267007eac2363c400f7ac7902f");

/// keccak-256 of an artifact's bytes.
pub fn artifact_hash(bytes: &[u8]) -> B256 {
    keccak256(bytes)
}

/// Id of a data template from the hashes of its three artifacts.
pub fn policy_data_template_id(wasm: B256, params_schema: B256, secrets_schema: B256) -> B256 {
    keccak256(
        (
            tag("newton.policy-data-template.v1"),
            wasm,
            params_schema,
            secrets_schema,
        )
            .abi_encode_params(),
    )
}

/// Id of a policy template. `data_template_refs` must be strictly ascending; the contract refuses others.
pub fn policy_template_id(
    rego: B256,
    entrypoint: &str,
    params_schema: B256,
    data_template_refs: &[B256],
) -> B256 {
    let refs: Vec<u8> = data_template_refs.iter().flat_map(|r| r.0).collect();
    keccak256(
        (
            tag("newton.policy-template.v1"),
            rego,
            keccak256(entrypoint.as_bytes()),
            params_schema,
            keccak256(refs),
        )
            .abi_encode_params(),
    )
}

/// `keccak256(abi.encode(uint64 expireAfter, bytes params))`; `expire_after` in blocks.
pub fn params_hash(expire_after: u64, params: &[u8]) -> B256 {
    keccak256((expire_after, params).abi_encode_params())
}

/// Id of a policy instance on one chain.
pub fn policy_instance_id(chain_id: u64, client: Address, template: B256, params: B256) -> B256 {
    instance_id(
        "newton.policy-instance.v1",
        chain_id,
        client,
        template,
        params,
    )
}

/// Id of a policy-data instance on one chain.
pub fn policy_data_instance_id(
    chain_id: u64,
    client: Address,
    template: B256,
    params: B256,
) -> B256 {
    instance_id(
        "newton.policy-data-instance.v1",
        chain_id,
        client,
        template,
        params,
    )
}

/// The preimage of a task's id (`docs/protocol.md` §1).
#[derive(Clone, Copy, Debug)]
pub struct TaskIdInputs {
    /// Chain the task lives on.
    pub chain_id: u64,
    /// The task manager's address.
    pub task_manager: Address,
    /// The task manager's running count.
    pub nonce: u64,
    /// The client that the task is for.
    pub client: Address,
    /// Hash of the block before the task's.
    pub parent_block_hash: B256,
    /// EIP-712 struct hash of the intent.
    pub intent_hash: B256,
    /// keccak-256 of the task's `wasmArgs`.
    pub wasm_args_hash: B256,
}

/// Id of a task. It mixes in the parent's block hash, so a reorged task has another id.
pub fn task_id(inputs: &TaskIdInputs) -> B256 {
    keccak256(
        (
            tag("newton.task.v1"),
            U256::from(inputs.chain_id),
            inputs.task_manager,
            inputs.nonce,
            inputs.client,
            inputs.parent_block_hash,
            inputs.intent_hash,
            inputs.wasm_args_hash,
        )
            .abi_encode_params(),
    )
}

/// An operator's id: its address, left-padded to 32 bytes.
pub fn operator_id(operator: Address) -> B256 {
    operator.into_word()
}

/// `keccak256` of a platform configuration register (48 bytes for SHA-384): `pcr0Hash`, and of PCR16 `configHash`.
pub fn pcr_hash(pcr: &[u8; 48]) -> B256 {
    keccak256(pcr)
}

fn instance_id(name: &str, chain_id: u64, client: Address, template: B256, params: B256) -> B256 {
    keccak256((tag(name), U256::from(chain_id), client, template, params).abi_encode_params())
}

fn tag(name: &str) -> B256 {
    keccak256(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_is_the_hash_of_its_name() {
        assert_eq!(ABSENT, keccak256("NEWTON_POLICY_ARTIFACT_ABSENT_V1"));
    }

    #[test]
    fn the_four_kinds_never_share_an_id() {
        let (a, b) = (B256::repeat_byte(1), B256::repeat_byte(2));
        let client = Address::repeat_byte(3);
        assert_ne!(
            policy_instance_id(1, client, a, b),
            policy_data_instance_id(1, client, a, b)
        );
        assert_ne!(
            policy_instance_id(1, client, a, b),
            policy_instance_id(2, client, a, b)
        );
    }

    #[test]
    fn refs_are_packed_without_length() {
        let id = policy_template_id(B256::ZERO, "a.b", ABSENT, &[B256::repeat_byte(9)]);
        let other = policy_template_id(B256::ZERO, "a.b", ABSENT, &[]);
        assert_ne!(id, other);
    }
}
