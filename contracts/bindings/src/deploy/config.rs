//! What differs between chains: `contracts/config/<chain id>.json`.

use std::path::Path;

use alloy_primitives::Address;
use serde::{Deserialize, Serialize};

use super::DeployError;

/// Configuration of a deployment to one chain. Unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeployConfig {
    /// The chain this is for; a node of another one is refused.
    pub chain_id: u64,
    /// What people call it.
    pub name: String,
    /// Owner of all contracts: a Safe on main networks, where it must be named; on test networks the deployer if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Address>,
    /// Who may revoke an image at once; the owner if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emergency_role: Option<Address>,
    /// Whether everyone may register templates.
    pub template_registration_permissionless: bool,
    /// Whether everyone may deploy instances (for clients they may act for).
    pub instance_deployment_permissionless: bool,
    /// Blocks from a version's proposal, or a rules version's scheduling, to its activation; 0 counts as 1.
    pub version_activation_delay_blocks: u64,
    /// Rules version in force from the start.
    pub rules_version: u32,
    /// Seconds from `requestExit` to `completeExit`; longer than every challenge window.
    pub exit_delay_seconds: u64,
    /// Seconds an admission by the owner waits after genesis; 0 on development chains.
    pub admission_timelock_seconds: u64,
    /// Seconds from proposing a sealed snapshot to its adoption; 0 on development chains.
    pub snapshot_timelock_seconds: u32,
    /// Greatest lifetime of an admission in seconds.
    pub max_admission_seconds: u64,
    /// First consensus parameters.
    pub parameters: ConfigParameters,
}

/// `ConsensusParameters` of the interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigParameters {
    /// Start of the first window, seconds since 1970; 0 means the timestamp of the block that deploys.
    pub genesis_time: u64,
    /// Length of a window in seconds.
    pub cadence: u64,
    /// Most bytes a commit writes.
    pub max_commit_bytes: u64,
    /// Most bytes of one artifact.
    pub max_artifact_bytes: u32,
    /// Most blocks an evaluation may stay valid.
    pub max_expire_after: u64,
    /// Least signed weight in basis points, 6667 for two thirds.
    pub quorum_bps: u16,
    /// Least number of signers.
    pub min_signers: u16,
    /// Blocks a superseded operator set may still certify.
    pub max_set_age: u64,
    /// Most bytes registered and not yet settled.
    pub max_defer_queue_bytes: u64,
    /// The same for one author.
    pub author_quota_bytes: u64,
    /// Blocks in which a task must be answered.
    pub response_window: u64,
    /// Blocks in which an answer can be challenged.
    pub challenge_window: u64,
    /// Whether windows that drain nothing have no commit.
    pub skip_empty: bool,
}

/// Networks whose contracts the deployer may own: anvil and Hardhat, Sepolia, Hoodi, Arbitrum, Base and OP Sepolia. What
/// is not known as a test network counts as a main one.
const TEST_NETWORKS: [u64; 7] = [
    31_337, 1_337, 11_155_111, 560_048, 421_614, 84_532, 11_155_420,
];

impl DeployConfig {
    /// Whether the contracts need an owner of their own there.
    pub fn is_main_network(&self) -> bool {
        !TEST_NETWORKS.contains(&self.chain_id)
    }

    /// Owner of all contracts if `deployer` makes them.
    pub fn owner(&self, deployer: Address) -> Result<Address, DeployError> {
        match self.owner {
            Some(owner) if !owner.is_zero() => Ok(owner),
            None if !self.is_main_network() => Ok(deployer),
            _ => Err(DeployError::NoOwner {
                name: self.name.clone(),
                chain_id: self.chain_id,
            }),
        }
    }

    /// Reads one configuration file.
    pub fn load(path: &Path) -> Result<Self, DeployError> {
        let text = std::fs::read_to_string(path).map_err(|source| DeployError::Read {
            path: path.to_owned(),
            source,
        })?;
        serde_json::from_str(&text).map_err(|source| DeployError::Parse {
            path: path.to_owned(),
            source,
        })
    }

    /// Reads `dir/<chain_id>.json` and checks that it is for that chain.
    pub fn for_chain(dir: &Path, chain_id: u64) -> Result<Self, DeployError> {
        let config = Self::load(&dir.join(format!("{chain_id}.json")))?;
        if config.chain_id != chain_id {
            return Err(DeployError::WrongChain {
                expected: config.chain_id,
                got: chain_id,
            });
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn dir() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../config"))
    }

    #[test]
    fn every_file_is_for_the_chain_it_is_named_after() {
        let mut count = 0;
        for entry in std::fs::read_dir(dir()).unwrap() {
            let path = entry.unwrap().path();
            let chain_id = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
            DeployConfig::for_chain(dir(), chain_id).unwrap();
            count += 1;
        }
        assert!(count >= 3);
    }

    #[test]
    fn main_networks_are_guarded_and_timelocked() {
        let main = DeployConfig::for_chain(dir(), 1).unwrap();
        assert!(!main.template_registration_permissionless);
        assert!(!main.instance_deployment_permissionless);
        assert!(main.admission_timelock_seconds > 0);
        assert!(main.parameters.min_signers > 1);
        assert!(main.snapshot_timelock_seconds > 0);
        // Whoever leaves can still be challenged for what it signed last. The contract waits for that in any case; here the
        // delay says truly how long an exit takes.
        let p = &main.parameters;
        let life = p.max_expire_after.max(p.response_window);
        assert!(main.exit_delay_seconds > 12 * (p.max_set_age + life + p.challenge_window));
        let test = DeployConfig::for_chain(dir(), 11_155_111).unwrap();
        assert!(
            test.template_registration_permissionless && test.instance_deployment_permissionless
        );
    }

    #[test]
    fn unknown_fields_are_refused() {
        let text = std::fs::read_to_string(dir().join("31337.json")).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text.replace("\"cadence\"", "\"cadense\"")).unwrap();
        let error = DeployConfig::load(file.path()).unwrap_err();
        assert!(error.to_string().contains("cadense"), "{error}");
    }
}
