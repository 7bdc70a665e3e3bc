//! Asks the deployed contracts what they are.

use std::fmt::Display;

use alloy::providers::Provider;
use alloy_primitives::{Address, B256, b256};

use super::{Addresses, CONTRACTS, DeployConfig, DeployError, proxies};
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

/// Compares what the chain says with what was asked for.
pub(super) async fn check<P: Provider>(
    provider: &P,
    config: &DeployConfig,
    a: &Addresses,
    owner: Address,
    genesis_block: u64,
) -> Result<(), DeployError> {
    for (contract, proxy) in CONTRACTS.into_iter().zip(proxies(a)) {
        let implementation = provider
            .get_storage_at(proxy, IMPLEMENTATION_SLOT.into())
            .await?;
        same(
            contract,
            "has an implementation",
            true,
            !implementation.is_zero(),
        )?;
        let got = IOwnable::new(proxy, provider).owner().call().await?;
        same(contract, "owner", owner, got)?;
    }

    for (contract, address) in [
        ("PolicyRegistry", a.policy_registry),
        ("PolicyDataRegistry", a.policy_data_registry),
    ] {
        let guard = abi::IAllowlistGuard::new(address, provider);
        same(
            contract,
            "templateRegistrationPermissionless",
            config.template_registration_permissionless,
            guard.templateRegistrationPermissionless().call().await?,
        )?;
        same(
            contract,
            "instanceDeploymentPermissionless",
            config.instance_deployment_permissionless,
            guard.instanceDeploymentPermissionless().call().await?,
        )?;
    }

    let commits = abi::IStateCommitRegistry::new(a.state_commit_registry, provider);
    same(
        "StateCommitRegistry",
        "deploymentBlock",
        genesis_block,
        commits.deploymentBlock().call().await?,
    )?;
    same(
        "StateCommitRegistry",
        "getSequenceNo",
        0,
        commits.getSequenceNo().call().await?,
    )?;
    let p = commits.parameters().call().await?;
    let wanted = &config.parameters;
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
        same("StateCommitRegistry", what, expected, got)?;
    }

    let versions = abi::IEnclaveVersionRegistry::new(a.enclave_version_registry, provider);
    same(
        "EnclaveVersionRegistry",
        "activationDelay",
        config.version_activation_delay_blocks,
        versions.activationDelay().call().await?,
    )?;
    same(
        "EnclaveVersionRegistry",
        "emergencyRole",
        config.emergency_role.unwrap_or(owner),
        versions.emergencyRole().call().await?,
    )?;
    same(
        "EnclaveVersionRegistry",
        "latestRulesVersion",
        config.rules_version,
        versions.latestRulesVersion().call().await?.rulesVersion,
    )?;

    let operators = abi::IOperatorRegistry::new(a.operator_registry, provider);
    for (what, expected, got) in [
        (
            "exitDelay",
            config.exit_delay_seconds,
            operators.exitDelay().call().await?,
        ),
        (
            "admissionTimelock",
            config.admission_timelock_seconds,
            operators.admissionTimelock().call().await?,
        ),
        (
            "maxAdmissionSeconds",
            config.max_admission_seconds,
            operators.maxAdmissionSeconds().call().await?,
        ),
    ] {
        same("OperatorRegistry", what, expected, got)?;
    }
    same(
        "OperatorRegistry",
        "challengeVerifier",
        a.challenge_verifier,
        abi::ISlasher::new(a.operator_registry, provider)
            .challengeVerifier()
            .call()
            .await?,
    )?;

    // Re-execution by enclaves decides; SP1's seat is empty.
    let seats = IResultSeats::new(a.challenge_verifier, provider);
    for (kind, expected) in [(1, a.enclave_reexecution_verifier), (2, Address::ZERO)] {
        same(
            "ChallengeVerifier",
            "resultVerifier",
            expected,
            seats.resultVerifier(kind).call().await?,
        )?;
    }
    Ok(())
}

fn same<T: Copy + PartialEq + Display>(
    contract: &'static str,
    what: &'static str,
    expected: T,
    got: T,
) -> Result<(), DeployError> {
    if expected == got {
        return Ok(());
    }
    Err(DeployError::ReadBack {
        contract,
        what,
        expected: expected.to_string(),
        got: got.to_string(),
    })
}
