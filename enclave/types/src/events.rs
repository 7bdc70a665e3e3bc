//! The contracts' events in chain order, decoded: what replay rebuilds all state from.
//!
//! `newton-chain` makes these from logs, `newton-state` applies them. Only events that change what an enclave derives are
//! here; others are known and dropped by the decoder.

use alloy_primitives::{Address, B256, Bytes};
use serde::{Deserialize, Serialize};

use crate::leaf::Namespace;
use crate::queue::QueueKey;
use crate::{ABSENT, abi};

/// Number, hash, parent and time of a block: what the windows and the header chain need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderInfo {
    /// The chain's own block number.
    pub number: u64,
    /// Block hash.
    pub hash: B256,
    /// Hash of the block before.
    pub parent_hash: B256,
    /// Seconds since 1970.
    pub timestamp: u64,
}

/// A block with the contracts' events in it, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Its header.
    pub header: HeaderInfo,
    /// Its events, by rising log index.
    pub events: Vec<ChainEvent>,
}

/// Place of a log in the chain.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct EventPosition {
    /// Block number.
    pub block: u64,
    /// Transaction's index in the block.
    pub tx: u32,
    /// Log's index in the block.
    pub log: u32,
}

impl EventPosition {
    /// Key of the queue entry for the event's artifact at position `item`.
    pub fn item(self, item: u32) -> QueueKey {
        QueueKey {
            block: self.block,
            tx: self.tx,
            log: self.log,
            item,
        }
    }
}

impl std::fmt::Display for EventPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.block, self.tx, self.log)
    }
}

/// An event and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ChainEvent {
    /// Its place.
    pub position: EventPosition,
    /// What it says.
    pub event: RegistryEvent,
}

/// Hash and length of one artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Artifact {
    /// keccak-256 of its bytes, or [`ABSENT`].
    pub hash: B256,
    /// Number of bytes; 0 exactly if absent.
    pub length: u32,
}

impl Artifact {
    /// The artifact that is not there.
    pub const NONE: Self = Self {
        hash: ABSENT,
        length: 0,
    };

    /// Whether it stands for nothing.
    pub fn is_absent(&self) -> bool {
        self.hash == ABSENT
    }
}

/// The consensus parameters of a chain; units as in `INewton.sol` (bytes, seconds, blocks, basis points).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ConsensusParameters {
    pub genesis_time: u64,
    pub cadence: u64,
    pub max_commit_bytes: u64,
    pub max_artifact_bytes: u32,
    pub max_expire_after: u64,
    pub quorum_bps: u16,
    pub min_signers: u16,
    pub max_set_age: u64,
    pub max_defer_queue_bytes: u64,
    pub author_quota_bytes: u64,
    pub response_window: u64,
    pub challenge_window: u64,
    pub skip_empty: bool,
}

/// What a contract said. Field names are those of `INewton.sol`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum RegistryEvent {
    PolicyTemplateRegistered {
        id: B256,
        author: Address,
        rego: Artifact,
        params_schema: Artifact,
        entrypoint: String,
        data_template_refs: Vec<B256>,
        /// One per artifact that is not absent, in the order above.
        da_refs: Vec<Bytes>,
    },
    PolicyDataTemplateRegistered {
        id: B256,
        author: Address,
        wasm: Artifact,
        params_schema: Artifact,
        secrets_schema: Artifact,
        /// One per artifact that is not absent, in the order above.
        da_refs: Vec<Bytes>,
    },
    ArtifactSupplied {
        namespace: Namespace,
        artifact: Artifact,
        supplier: Address,
        da_ref: Bytes,
    },
    PolicyInstanceDeployed {
        id: B256,
        client: Address,
        template_id: B256,
        params: Bytes,
        expire_after: u64,
        deployer: Address,
    },
    PolicyDataInstanceDeployed {
        id: B256,
        client: Address,
        template_id: B256,
        params: Bytes,
        expire_after: u64,
        deployer: Address,
    },
    CurrentPolicyInstanceSet {
        client: Address,
        id: B256,
    },
    CurrentPolicyDataInstanceSet {
        client: Address,
        template_id: B256,
        id: B256,
    },
    ClientRegistered {
        client: Address,
        owner: Address,
    },
    SecretsSet {
        instance_id: B256,
        client: Address,
        poster: Address,
        by_owner: bool,
        envelope: Artifact,
        da_ref: Bytes,
        count: u64,
    },
    StateCommitted {
        commit: abi::StateCommit,
        digest: B256,
        delta_da_refs: Vec<Bytes>,
    },
    /// Governance and a quorum put a sealed snapshot's root behind the latest commit: nothing that follows from the queue.
    SnapshotAdopted {
        snapshot: abi::SealedSnapshot,
        digest: B256,
        da_ref: Bytes,
    },
    ConsensusParametersSet {
        parameters: ConsensusParameters,
        active_from_timestamp: u64,
    },
    EntrySkipped {
        entry: QueueKey,
    },
    TaskCreated {
        task_id: B256,
        task: abi::Task,
        intent: abi::Intent,
        wasm_args: Bytes,
    },
    TaskResponded {
        task_id: B256,
        digest: B256,
        evaluation_result_hash: B256,
        set_id: u64,
    },
    OperatorAllowed {
        operator: Address,
        weight: u128,
    },
    OperatorAdmitted {
        operator: Address,
        set_id: u64,
        index: u8,
        weight: u128,
        via_certificate: bool,
        /// EIP-2537 form, 256 bytes.
        bls_public_key: Bytes,
        admission: abi::EnclaveAdmission,
    },
    OperatorRemoved {
        operator: Address,
        set_id: u64,
        index: u8,
        reason: u8,
    },
    OperatorSetChanged {
        set_id: u64,
        aggregate_key_hash: B256,
        total_weight: u128,
        earliest_valid_until: u64,
        aggregate_key: Bytes,
    },
    /// An operator's weight fell to `weight`. Sets that exist keep theirs, and what its next admission gets is in the
    /// `OperatorAllowed` before this.
    OperatorSlashed {
        operator: Address,
        weight: u128,
    },
    /// From this set on, a member signs with the weight that slashing left it.
    OperatorReweighed {
        operator: Address,
        set_id: u64,
        index: u8,
        weight: u128,
    },
    SetsInvalidated {
        first_clean_set_id: u64,
        pcr0_hash: B256,
    },
    ExitRequested {
        operator: Address,
        exit_at: u64,
    },
    ExitCompleted {
        operator: Address,
    },
    VersionProposed {
        pcr0_hash: B256,
        pcr0: Bytes,
        pcr1: Bytes,
        pcr2: Bytes,
        source_hash: B256,
        label: String,
        active_from: u64,
    },
    VersionDeprecated {
        pcr0_hash: B256,
        deprecated_from: u64,
    },
    VersionRevoked {
        pcr0_hash: B256,
        revoked_at: u64,
    },
    ConfigApproved {
        config_hash: B256,
        approved: bool,
    },
    RulesVersionScheduled {
        rules_version: u32,
        active_from: u64,
    },
    KeyEpochPublished {
        key_epoch: u64,
        msk_commitment: B256,
        secrets_public_key: B256,
        privacy_public_key: B256,
    },
    MinKeyEpochSet {
        min_key_epoch: u64,
    },
}
