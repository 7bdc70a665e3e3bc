//! Asks the deployed contracts what they are.

use std::fmt::{self, Display, Formatter};

use alloy::providers::Provider;
use alloy_primitives::{Address, B256, b256};

use super::{CONTRACTS, DeployConfig, DeployError, Plan, proxies};
use crate::abi;

/// Storage slot of a proxy's implementation (ERC-1967).
const IMPLEMENTATION_SLOT: B256 =
    b256!("360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc");

alloy::sol! {
    #[sol(rpc)]
    #[allow(missing_docs)]
    interface IOwnable { function owner() external view returns (address); }
    #[sol(rpc)]
    #[allow(missing_docs)]
    interface IResultSeats { function resultVerifier(uint8 proofKind) external view returns (address); }
}

/// One answer that is not the configuration's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The contract.
    pub contract: &'static str,
    /// What was asked.
    pub what: &'static str,
    /// What the configuration says.
    pub expected: String,
    /// What the contract answers.
    pub got: String,
    /// Whether its owner, or the network at work, can have changed it since the deployment.
    pub governed: bool,
}

impl Display for Difference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{} is {}, the configuration says {}",
            self.contract, self.what, self.got, self.expected
        )
    }
}

/// Compares what the first `count` proxies say with what was asked for.
pub(super) async fn differences<P: Provider>(
    provider: &P,
    plan: &Plan,
    count: usize,
) -> Result<Vec<Difference>, DeployError> {
    let (config, owner) = (&plan.config, plan.owner);
    let mut out = Differences::default();
    for ((contract, proxy), step) in CONTRACTS
        .into_iter()
        .zip(proxies(&plan.addresses))
        .zip(&plan.steps)
        .take(count)
    {
        let slot = provider
            .get_storage_at(proxy, IMPLEMENTATION_SLOT.into())
            .await?;
        let implementation = Address::from_word(B256::from(slot));
        out.governed(contract, "implementation", step.address, implementation);
        let got = IOwnable::new(proxy, provider).owner().call().await?;
        out.governed(contract, "owner", owner, got);
        match contract {
            "PolicyRegistry" | "PolicyDataRegistry" => {
                guard(provider, config, contract, proxy, &mut out).await?;
            }
            "StateCommitRegistry" => commits(provider, config, proxy, &mut out).await?,
            "EnclaveVersionRegistry" => {
                versions(provider, config, owner, proxy, &mut out).await?;
            }
            "OperatorRegistry" => operators(provider, plan, proxy, &mut out).await?,
            "ChallengeVerifier" => seats(provider, plan, proxy, &mut out).await?,
            _ => {}
        }
    }
    Ok(out.0)
}

#[derive(Default)]
struct Differences(Vec<Difference>);

impl Differences {
    /// What nobody can change.
    fn fixed<T: Copy + PartialEq + Display>(
        &mut self,
        contract: &'static str,
        what: &'static str,
        expected: T,
        got: T,
    ) {
        self.note(contract, what, &expected, &got, false);
    }

    /// What the owner can change, or the network at work does.
    fn governed<T: Copy + PartialEq + Display>(
        &mut self,
        contract: &'static str,
        what: &'static str,
        expected: T,
        got: T,
    ) {
        self.note(contract, what, &expected, &got, true);
    }

    fn note<T: PartialEq + Display>(
        &mut self,
        contract: &'static str,
        what: &'static str,
        expected: &T,
        got: &T,
        governed: bool,
    ) {
        if expected != got {
            self.0.push(Difference {
                contract,
                what,
                expected: expected.to_string(),
                got: got.to_string(),
                governed,
            });
        }
    }
}

async fn guard<P: Provider>(
    provider: &P,
    config: &DeployConfig,
    contract: &'static str,
    at: Address,
    out: &mut Differences,
) -> Result<(), DeployError> {
    let guard = abi::IAllowlistGuard::new(at, provider);
    out.governed(
        contract,
        "templateRegistrationPermissionless",
        config.template_registration_permissionless,
        guard.templateRegistrationPermissionless().call().await?,
    );
    out.governed(
        contract,
        "instanceDeploymentPermissionless",
        config.instance_deployment_permissionless,
        guard.instanceDeploymentPermissionless().call().await?,
    );
    Ok(())
}

async fn commits<P: Provider>(
    provider: &P,
    config: &DeployConfig,
    at: Address,
    out: &mut Differences,
) -> Result<(), DeployError> {
    const NAME: &str = "StateCommitRegistry";
    let commits = abi::IStateCommitRegistry::new(at, provider);
    let sequence = commits.getSequenceNo().call().await?;
    out.governed(NAME, "getSequenceNo", 0, sequence);
    out.fixed(
        NAME,
        "snapshotTimelock",
        config.snapshot_timelock_seconds.into(),
        commits.snapshotTimelock().call().await?,
    );
    let p = commits.parameters().call().await?;
    let wanted = &config.parameters;
    if wanted.genesis_time != 0 {
        out.governed(NAME, "genesisTime", wanted.genesis_time, p.genesisTime);
    }
    for (what, expected, got) in [
        ("cadence", wanted.cadence, p.cadence),
        ("maxCommitBytes", wanted.max_commit_bytes, p.maxCommitBytes),
        (
            "maxArtifactBytes",
            wanted.max_artifact_bytes.into(),
            p.maxArtifactBytes.into(),
        ),
        ("maxExpireAfter", wanted.max_expire_after, p.maxExpireAfter),
        ("quorumBps", wanted.quorum_bps.into(), p.quorumBps.into()),
        ("minSigners", wanted.min_signers.into(), p.minSigners.into()),
        ("maxSetAge", wanted.max_set_age, p.maxSetAge),
        (
            "maxDeferQueueBytes",
            wanted.max_defer_queue_bytes,
            p.maxDeferQueueBytes,
        ),
        (
            "authorQuotaBytes",
            wanted.author_quota_bytes,
            p.authorQuotaBytes,
        ),
        ("responseWindow", wanted.response_window, p.responseWindow),
        (
            "challengeWindow",
            wanted.challenge_window,
            p.challengeWindow,
        ),
        ("skipEmpty", wanted.skip_empty.into(), p.skipEmpty.into()),
    ] {
        out.governed(NAME, what, expected, got);
    }
    Ok(())
}

async fn versions<P: Provider>(
    provider: &P,
    config: &DeployConfig,
    owner: Address,
    at: Address,
    out: &mut Differences,
) -> Result<(), DeployError> {
    const NAME: &str = "EnclaveVersionRegistry";
    let versions = abi::IEnclaveVersionRegistry::new(at, provider);
    out.fixed(
        NAME,
        "activationDelay",
        config.version_activation_delay_blocks,
        versions.activationDelay().call().await?,
    );
    out.governed(
        NAME,
        "emergencyRole",
        config.emergency_role.unwrap_or(owner),
        versions.emergencyRole().call().await?,
    );
    out.governed(
        NAME,
        "latestRulesVersion",
        config.rules_version,
        versions.latestRulesVersion().call().await?.rulesVersion,
    );
    Ok(())
}

async fn operators<P: Provider>(
    provider: &P,
    plan: &Plan,
    at: Address,
    out: &mut Differences,
) -> Result<(), DeployError> {
    const NAME: &str = "OperatorRegistry";
    let operators = abi::IOperatorRegistry::new(at, provider);
    for (what, expected, got) in [
        (
            "exitDelay",
            plan.config.exit_delay_seconds,
            operators.exitDelay().call().await?,
        ),
        (
            "admissionTimelock",
            plan.config.admission_timelock_seconds,
            operators.admissionTimelock().call().await?,
        ),
        (
            "maxAdmissionSeconds",
            plan.config.max_admission_seconds,
            operators.maxAdmissionSeconds().call().await?,
        ),
    ] {
        out.fixed(NAME, what, expected, got);
    }
    // An immutable: only an upgrade changes it.
    out.governed(
        NAME,
        "challengeVerifier",
        plan.addresses.challenge_verifier,
        abi::ISlasher::new(at, provider)
            .challengeVerifier()
            .call()
            .await?,
    );
    Ok(())
}

/// Re-execution by enclaves decides; SP1's seat is empty.
async fn seats<P: Provider>(
    provider: &P,
    plan: &Plan,
    at: Address,
    out: &mut Differences,
) -> Result<(), DeployError> {
    let seats = IResultSeats::new(at, provider);
    for (kind, expected) in [
        (1, plan.addresses.enclave_reexecution_verifier),
        (2, Address::ZERO),
    ] {
        let got = seats.resultVerifier(kind).call().await?;
        out.governed("ChallengeVerifier", "resultVerifier", expected, got);
    }
    Ok(())
}
