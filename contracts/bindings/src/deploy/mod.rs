//! Puts the whole set of contracts on a chain, wired together, and reads back what it put there.
//!
//! Every contract is an implementation behind a proxy whose constructor calls the initializer. Implementations hold the
//! proxies' addresses as immutables, so these are computed from the deployer's nonce before anything is sent, and checked
//! after. Nothing else may send from the deployer's account meanwhile.
//!
//! Since every address follows from the deployer and the nonce of the first creation, the chain itself says how far a
//! deployment got: [`Plan`] looks, and [`Plan::execute`] sends only what is missing.

mod artifact;
mod config;
mod error;
mod plan;
mod readback;
mod run;
mod transport;

use std::path::Path;

use alloy::providers::Provider;
use alloy_primitives::aliases::U48;
use alloy_primitives::{Address, B256, Bytes};
use alloy_sol_types::{SolCall, SolValue, sol};
use serde::{Deserialize, Serialize};

pub use artifact::Artifact;
pub use config::{ConfigParameters, DeployConfig};
pub use error::DeployError;
pub use plan::{Plan, PlannedStep};
pub use readback::Difference;
pub use run::Outcome;
pub use transport::NodeTransport;

/// Initializers and constructors that no other program needs.
mod init {
    #![allow(missing_docs)]
    use super::sol;

    sol! {
        struct Parameters {
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
        interface Owned { function initialize(address initialOwner) external; }
        interface Guarded {
            function initialize(address initialOwner, bool templatesPermissionless, bool instancesPermissionless) external;
        }
        interface StateCommits {
            function initialize(address initialOwner, Parameters initial, uint32 rulesVersion, uint48 snapshotTimelock)
                external;
        }
        interface Versions {
            function initialize(address initialOwner, address emergency, uint64 activationDelay, uint32 rulesVersion) external;
        }
        interface Operators {
            function initialize(address initialOwner, uint64 exitDelay, uint64 admissionTimelock, uint64 maxAdmissionSeconds)
                external;
        }
        interface Challenges { function initialize(address initialOwner, address reexecution) external; }
        contract Proxy { constructor(address implementation, bytes initializer); }
    }
}

/// Where the contracts of one chain are. These are the proxies: the only addresses anyone talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// PolicyClientRegistry.
    pub policy_client_registry: Address,
    /// PolicyDataRegistry.
    pub policy_data_registry: Address,
    /// PolicyRegistry.
    pub policy_registry: Address,
    /// StateCommitRegistry.
    pub state_commit_registry: Address,
    /// EnclaveVersionRegistry.
    pub enclave_version_registry: Address,
    /// OperatorRegistry; certificates are checked here too.
    pub operator_registry: Address,
    /// KeyRegistry.
    pub key_registry: Address,
    /// TaskManager.
    pub task_manager: Address,
    /// ChallengeVerifier.
    pub challenge_verifier: Address,
    /// EnclaveReexecutionVerifier.
    pub enclave_reexecution_verifier: Address,
}

/// One contract creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What was created, e.g. `OperatorRegistry` or `OperatorRegistry proxy`.
    pub name: String,
    /// Where.
    pub address: Address,
    /// The transaction.
    pub transaction: B256,
    /// Gas it used.
    pub gas: u64,
}

/// What a deployment made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// The chain.
    pub chain_id: u64,
    /// Who created everything.
    pub deployer: Address,
    /// Nonce of the first creation; all addresses follow from it.
    pub first_nonce: u64,
    /// The contracts.
    pub addresses: Addresses,
    /// Block of the first creation: logs before it are of no interest.
    pub deployment_block: u64,
    /// Genesis boundary: the block in which the StateCommitRegistry was initialized.
    pub genesis_block: u64,
    /// Hash of that block, which a manifest names too.
    pub genesis_hash: B256,
    /// Owner of all contracts at their creation.
    pub owner: Address,
    /// Every transaction in order, as far as they are known.
    pub steps: Vec<Step>,
}

impl Deployment {
    /// Gas of all steps.
    pub fn gas(&self) -> u64 {
        self.steps.iter().map(|step| step.gas).sum()
    }
}

/// Contracts in the order of their proxies' nonces.
const CONTRACTS: [&str; 10] = [
    "PolicyClientRegistry",
    "PolicyDataRegistry",
    "PolicyRegistry",
    "StateCommitRegistry",
    "EnclaveVersionRegistry",
    "OperatorRegistry",
    "KeyRegistry",
    "TaskManager",
    "ChallengeVerifier",
    "EnclaveReexecutionVerifier",
];

/// Deploys a new set from the artifacts of `forge build` (`contracts/out`) and checks what came of it.
///
/// `provider` must be able to send from `deployer` (a wallet, or an unlocked account of a development node). The owner of
/// everything is `config.owner`, or the deployer if that is not set. Sends 20 transactions, one after the other, each
/// waited for. What is to be repeatable uses [`Plan`].
pub async fn deploy<P: Provider>(
    provider: &P,
    deployer: Address,
    config: &DeployConfig,
    artifacts_dir: &Path,
) -> Result<Deployment, DeployError> {
    let nonce = provider.get_transaction_count(deployer).await?;
    let plan = Plan::make(provider, deployer, config, artifacts_dir, Some(nonce)).await?;
    Ok(plan.execute(provider, None).await?.deployment)
}

/// Addresses of the proxies if the first of them is created with `nonce`.
fn predicted(deployer: Address, nonce: u64) -> Addresses {
    let at = |offset: u64| deployer.create(nonce + offset);
    Addresses {
        policy_client_registry: at(0),
        policy_data_registry: at(1),
        policy_registry: at(2),
        state_commit_registry: at(3),
        enclave_version_registry: at(4),
        operator_registry: at(5),
        key_registry: at(6),
        task_manager: at(7),
        challenge_verifier: at(8),
        enclave_reexecution_verifier: at(9),
    }
}

/// The proxies in the order of [`CONTRACTS`].
fn proxies(a: &Addresses) -> [Address; 10] {
    [
        a.policy_client_registry,
        a.policy_data_registry,
        a.policy_registry,
        a.state_commit_registry,
        a.enclave_version_registry,
        a.operator_registry,
        a.key_registry,
        a.task_manager,
        a.challenge_verifier,
        a.enclave_reexecution_verifier,
    ]
}

/// Constructor arguments of the implementations in the order of [`CONTRACTS`]: the contracts each one talks to.
fn constructors(a: &Addresses) -> [Vec<u8>; 10] {
    [
        Vec::new(),
        (a.policy_client_registry, a.state_commit_registry).abi_encode_params(),
        (
            a.policy_client_registry,
            a.policy_data_registry,
            a.state_commit_registry,
        )
            .abi_encode_params(),
        (
            a.operator_registry,
            a.enclave_version_registry,
            a.policy_registry,
            a.policy_data_registry,
        )
            .abi_encode_params(),
        (a.operator_registry,).abi_encode_params(),
        (
            a.enclave_version_registry,
            a.state_commit_registry,
            a.challenge_verifier,
        )
            .abi_encode_params(),
        (a.operator_registry, a.state_commit_registry).abi_encode_params(),
        (
            a.policy_registry,
            a.state_commit_registry,
            a.operator_registry,
            a.operator_registry,
            a.enclave_version_registry,
        )
            .abi_encode_params(),
        (
            a.task_manager,
            a.policy_registry,
            a.policy_data_registry,
            a.state_commit_registry,
            a.enclave_version_registry,
            a.operator_registry,
            a.operator_registry,
        )
            .abi_encode_params(),
        (
            a.operator_registry,
            a.operator_registry,
            a.state_commit_registry,
        )
            .abi_encode_params(),
    ]
}

/// Initializer calls in the order of [`CONTRACTS`].
fn initializers(config: &DeployConfig, owner: Address, a: &Addresses) -> [Bytes; 10] {
    let owned: Bytes = init::Owned::initializeCall {
        initialOwner: owner,
    }
    .abi_encode()
    .into();
    let guarded: Bytes = init::Guarded::initializeCall {
        initialOwner: owner,
        templatesPermissionless: config.template_registration_permissionless,
        instancesPermissionless: config.instance_deployment_permissionless,
    }
    .abi_encode()
    .into();
    let p = &config.parameters;
    let commits = init::StateCommits::initializeCall {
        initialOwner: owner,
        initial: init::Parameters {
            genesisTime: p.genesis_time,
            cadence: p.cadence,
            maxCommitBytes: p.max_commit_bytes,
            maxArtifactBytes: p.max_artifact_bytes,
            maxExpireAfter: p.max_expire_after,
            quorumBps: p.quorum_bps,
            minSigners: p.min_signers,
            maxSetAge: p.max_set_age,
            maxDeferQueueBytes: p.max_defer_queue_bytes,
            authorQuotaBytes: p.author_quota_bytes,
            responseWindow: p.response_window,
            challengeWindow: p.challenge_window,
            skipEmpty: p.skip_empty,
        },
        rulesVersion: config.rules_version,
        snapshotTimelock: U48::from(config.snapshot_timelock_seconds),
    };
    let versions = init::Versions::initializeCall {
        initialOwner: owner,
        emergency: config.emergency_role.unwrap_or(owner),
        activationDelay: config.version_activation_delay_blocks,
        rulesVersion: config.rules_version,
    };
    let operators = init::Operators::initializeCall {
        initialOwner: owner,
        exitDelay: config.exit_delay_seconds,
        admissionTimelock: config.admission_timelock_seconds,
        maxAdmissionSeconds: config.max_admission_seconds,
    };
    let challenges = init::Challenges::initializeCall {
        initialOwner: owner,
        reexecution: a.enclave_reexecution_verifier,
    };
    [
        owned.clone(),
        guarded.clone(),
        guarded,
        commits.abi_encode().into(),
        versions.abi_encode().into(),
        operators.abi_encode().into(),
        owned.clone(),
        owned.clone(),
        challenges.abi_encode().into(),
        owned,
    ]
}
