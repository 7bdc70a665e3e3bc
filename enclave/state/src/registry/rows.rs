//! The rows. `registered_at` and other heights are the blocks of the events; what happens in a block counts from the
//! next block on, which the contracts and the callers apply.

use alloy_sol_types::SolValue;
use newton_types::events::{Artifact, ConsensusParameters, EventPosition};
use newton_types::{Address, B256, Bytes, abi};
use serde::{Deserialize, Serialize};

use crate::StateError;

/// A policy template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PolicyTemplateRow {
    pub rego: Artifact,
    pub params_schema: Artifact,
    pub entrypoint: String,
    /// Strictly ascending.
    pub data_template_refs: Vec<B256>,
    pub author: Address,
    pub registered_at: u64,
}

/// A policy-data template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DataTemplateRow {
    pub wasm: Artifact,
    pub params_schema: Artifact,
    pub secrets_schema: Artifact,
    pub author: Address,
    pub registered_at: u64,
}

/// A policy instance or a policy-data instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct InstanceRow {
    pub template_id: B256,
    pub client: Address,
    pub params_hash: B256,
    pub params: Bytes,
    /// Blocks.
    pub expire_after: u64,
    pub deployer: Address,
    pub registered_at: u64,
}

/// Where a client points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// The instance.
    pub id: B256,
    /// Block in which the pointer was set.
    pub set_at: u64,
}

/// The envelope last posted for a data instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SecretsRow {
    pub client: Address,
    pub envelope: Artifact,
    pub poster: Address,
    pub by_owner: bool,
    /// Envelopes posted so far.
    pub count: u64,
    pub posted_at: EventPosition,
}

/// A task and its answer. The structures are in their ABI encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TaskRow {
    pub(crate) task: Bytes,
    pub(crate) intent: Bytes,
    pub wasm_args: Bytes,
    pub created_at: EventPosition,
    /// Digest of the answer that the contract took, if it took one.
    pub response_digest: Option<B256>,
}

impl TaskRow {
    /// The contract's snapshot.
    pub fn task(&self) -> Result<abi::Task, StateError> {
        abi::Task::abi_decode(&self.task).map_err(|e| unreadable(&e))
    }

    /// The intent.
    pub fn intent(&self) -> Result<abi::Intent, StateError> {
        abi::Intent::abi_decode(&self.intent).map_err(|e| unreadable(&e))
    }
}

fn unreadable(error: &alloy_sol_types::Error) -> StateError {
    StateError::Codec {
        what: "task",
        reason: error.to_string(),
    }
}

/// An operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct OperatorRow {
    /// Weight that its next admission gets; 0 if it is not on the allow-list.
    pub allowed_weight: u128,
    pub latest_admission: Option<AdmissionRow>,
    pub exit_requested_at: Option<u64>,
    pub exited: bool,
}

/// One admission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct AdmissionRow {
    pub bls_key_hash: B256,
    pub tls_key_hash: B256,
    pub boot_id: B256,
    pub pcr0_hash: B256,
    pub config_hash: B256,
    pub doc_hash: B256,
    /// Block timestamp, seconds.
    pub valid_until: u64,
    pub via_certificate: bool,
    pub set_id: u64,
    pub admitted_at: u64,
}

/// An operator set checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct OperatorSetRow {
    pub set_id: u64,
    /// By rising index; indices may have gaps.
    pub members: Vec<MemberRow>,
    pub aggregate_key_hash: B256,
    pub aggregate_key: Bytes,
    pub total_weight: u128,
    pub earliest_valid_until: u64,
    /// In force from the next block on.
    pub created_at: u64,
}

/// A member of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct MemberRow {
    /// Its bit in `Certificate.nonSignerBitmap`.
    pub index: u8,
    pub operator: Address,
    pub bls_key_hash: B256,
    /// EIP-2537 form, 256 bytes.
    pub bls_public_key: Bytes,
    pub weight: u128,
    pub tls_key_hash: B256,
    pub valid_until: u64,
}

/// A whitelisted image. Heights are the first blocks in which it is active, deprecated, revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct VersionRow {
    pub pcr0: Bytes,
    pub pcr1: Bytes,
    pub pcr2: Bytes,
    pub source_hash: B256,
    pub label: String,
    pub active_from: u64,
    pub deprecated_from: Option<u64>,
    pub revoked_at: Option<u64>,
}

/// Approval or withdrawal of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfigApproval {
    pub block: u64,
    pub approved: bool,
}

/// A rules version and the first block in which it is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ScheduledRules {
    pub rules_version: u32,
    pub active_from: u64,
}

/// Consensus parameters and the window end from which they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ScheduledParameters {
    pub parameters: ConsensusParameters,
    pub active_from: u64,
}

/// Public keys of a key epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct KeyEpochRow {
    pub msk_commitment: B256,
    pub secrets_public_key: B256,
    pub privacy_public_key: B256,
    pub published_at: u64,
}
