//! The manifest: what an image is told at boot (design 6.3, `docs/protocol.md` §9).
//!
//! Two TOML texts. The consensus text is measured into PCR16 and is the same for all operators; the local text is not
//! measured and can change no verdict. Unknown fields are refused in both.

use alloy_primitives::{Address, B256};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha384};

/// Longest manifest text that is looked at, in bytes.
pub const MAX_TEXT_BYTES: usize = 256 * 1024;

/// Chains on which development switches may be on. A list of what is allowed, since a list of main networks ages.
pub const DEVELOPMENT_CHAINS: [u64; 8] = [
    31_337, 1_337, 11_155_111, 17_000, 560_048, 84_532, 11_155_420, 421_614,
];

/// The measured part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsensusManifest {
    /// What every operator of a deployment shares.
    pub consensus: Consensus,
    /// Development switches; absent in production.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub development: Option<Development>,
}

/// `[consensus]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consensus {
    /// Name of the deployment.
    pub network: String,
    /// The chain on which admission, whitelist and key epochs are read.
    pub authority_chain: u64,
    /// Chains that are followed; the authority chain is one of them.
    pub chains: Vec<Chain>,
    /// Who holds shares of the master secret.
    pub share_holders: ShareHolders,
}

/// `[[consensus.chains]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// First block in which a contract of the set can have emitted an event.
    pub first_block: u64,
    /// Block that holds the last contract deployment: the genesis commit's boundary.
    pub deployment_block: u64,
    /// Hash of that block: the checkpoint that a chain view must link to.
    pub deployment_block_hash: B256,
    /// Contract addresses.
    pub contracts: Contracts,
}

/// Addresses of the contract set on one chain (design 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Contracts {
    pub enclave_version_registry: Address,
    pub operator_registry: Address,
    pub key_registry: Address,
    pub state_commit_registry: Address,
    pub policy_client_registry: Address,
    pub policy_registry: Address,
    pub policy_data_registry: Address,
    pub task_manager: Address,
}

/// Shamir share holders of the master secret (design 5.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareHolders {
    /// Shares needed to recover, 1 to the number of holders.
    pub threshold: u8,
    /// X25519 public keys of the holders, in share order.
    pub public_keys: Vec<B256>,
}

/// `[development]`: each switch shows in `newt_health`, and none may be on for a chain outside
/// [`DEVELOPMENT_CHAINS`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Development {
    /// Trust the RPC's answers about the chain.
    pub unverified_chain_view: bool,
    /// Accept NSM documents without a signature (QEMU).
    pub accept_unsigned_documents: bool,
    /// Accept DA certificates on the checks that exist so far.
    pub incomplete_da_checks: bool,
    /// Let components reach `https` servers on loopback addresses, on any port.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub component_loopback: bool,
    /// Certificates (PEM) that vouch for servers of components' requests, beside Mozilla's roots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub component_roots: Vec<String>,
}

/// The unmeasured part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalManifest {
    /// `[local]`.
    pub local: Local,
}

/// `[local]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Local {
    /// RPC endpoint per followed chain.
    pub rpc: Vec<RpcEndpoint>,
    /// Base URL of the EigenDA proxy.
    pub da_url: String,
    /// Bearer keys, as hashes only.
    #[serde(default)]
    pub api_keys: Vec<ApiKey>,
    /// Calls of one bearer key without a rate of its own.
    #[serde(default = "default_key_rate")]
    pub key_rate: Rate,
    /// Calls of everyone without a key, together.
    #[serde(default = "default_open_rate")]
    pub open_rate: Rate,
    /// `error`, `warn`, `info` or `debug`.
    #[serde(default = "default_log_level")]
    pub log_level: String,
    /// How often the chain is polled, milliseconds.
    #[serde(default = "default_poll_ms")]
    pub poll_ms: u64,
    /// Worker processes for untrusted content.
    #[serde(default = "default_workers")]
    pub workers: usize,
    /// Requests that may wait for each worker; further ones are refused at once.
    #[serde(default = "default_queue_per_worker")]
    pub queue_per_worker: usize,
    /// How many compiled components are kept in memory; at most a quarter of it is used.
    #[serde(default)]
    pub module_cache: ModuleCache,
    /// Private memory of one worker, MiB.
    #[serde(default = "default_worker_mib")]
    pub worker_mib: u64,
    /// Wall-clock bound of one evaluation, milliseconds; exceeding it abstains.
    #[serde(default = "default_wall_ms")]
    pub evaluation_wall_ms: u64,
    /// Encrypted pages kept in enclave memory, MiB.
    #[serde(default = "default_page_cache_mib")]
    pub page_cache_mib: usize,
    /// A finalized head older than this (seconds, by the NSM's clock) stops signing.
    #[serde(default = "default_max_lag_seconds")]
    pub max_lag_seconds: u64,
    /// Where other operators' enclaves are reached, `host:port`. Who answers there is proven, never believed.
    #[serde(default)]
    pub peers: Vec<String>,
    /// Blocks after which this enclave votes to drop a queue entry whose bytes it cannot get.
    #[serde(default = "default_skip_after_blocks")]
    pub skip_after_blocks: u64,
}

/// Compiled components kept in memory: number and bytes (design 2.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleCache {
    /// 8, 256 MiB.
    Dev,
    /// 32, 1 GiB.
    #[default]
    Small,
    /// 256, 8 GiB.
    Large,
}

/// RPC endpoint of one chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RpcEndpoint {
    /// Chain id.
    pub chain_id: u64,
    /// `http` or `https` URL.
    pub url: String,
}

/// A bearer key by its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// SHA-256 of the key's bytes.
    pub sha256: B256,
    /// What it opens.
    pub permissions: Vec<Permission>,
    /// Calls it may make; absent: `local.key_rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// A token bucket: a call takes one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Tokens that come in a second.
    pub per_second: u32,
    /// Tokens the bucket holds: calls that may come at once after a rest.
    pub burst: u32,
}

impl Rate {
    fn check(self, field: &str) -> Result<(), ManifestError> {
        if self.per_second == 0 || self.burst == 0 {
            return Err(invalid(field, "per_second and burst must be above zero"));
        }
        Ok(())
    }
}

/// What a bearer key opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Permission {
    /// Reads that are not open to all.
    RpcRead,
    /// Evaluation and writes.
    RpcWrite,
}

/// Why a manifest is refused; nothing starts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Larger than [`MAX_TEXT_BYTES`].
    #[error("manifest text has {got} bytes, at most {limit}")]
    TooLong {
        /// The limit.
        limit: usize,
        /// Bytes given.
        got: usize,
    },
    /// Not TOML of this form; the message names field and place.
    #[error("manifest: {0}")]
    Malformed(String),
    /// A field has a value that cannot be.
    #[error("manifest field {field}: {reason}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong.
        reason: String,
    },
}

impl ConsensusManifest {
    /// Parses and validates the measured text.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let manifest: Self = parse(text)?;
        manifest.validate()?;
        Ok(manifest)
    }

    /// What is extended into PCR16: `SHA-384(canonical JSON)`.
    pub fn measurement(&self) -> [u8; 48] {
        let canonical = serde_json_canonicalizer::to_vec(self)
            .expect("strings, integers and arrays always have a canonical form");
        Sha384::digest(canonical).into()
    }

    /// The value of PCR16 after the extension: `SHA-384(0^48 ‖ measurement)`.
    pub fn pcr16(&self) -> [u8; 48] {
        let mut hasher = Sha384::new();
        hasher.update([0; 48]);
        hasher.update(self.measurement());
        hasher.finalize().into()
    }

    /// `keccak256(PCR16)`: the hash that governance approves on chain.
    pub fn config_hash(&self) -> B256 {
        crate::ids::pcr_hash(&self.pcr16())
    }

    /// The development switches, all off when the section is absent.
    pub fn development(&self) -> Development {
        self.development.clone().unwrap_or_default()
    }

    fn validate(&self) -> Result<(), ManifestError> {
        let c = &self.consensus;
        if c.chains.is_empty() {
            return field("consensus.chains", "at least one chain is needed");
        }
        for (i, chain) in c.chains.iter().enumerate() {
            if c.chains[..i].iter().any(|o| o.chain_id == chain.chain_id) {
                return field(
                    &format!("consensus.chains[{i}].chain_id"),
                    &format!("chain {} is listed twice", chain.chain_id),
                );
            }
        }
        for (i, chain) in c.chains.iter().enumerate() {
            if chain.first_block > chain.deployment_block {
                return field(
                    &format!("consensus.chains[{i}].first_block"),
                    &format!(
                        "must not be above deployment_block {}",
                        chain.deployment_block
                    ),
                );
            }
        }
        if !c.chains.iter().any(|ch| ch.chain_id == c.authority_chain) {
            return field(
                "consensus.authority_chain",
                &format!("chain {} is not among consensus.chains", c.authority_chain),
            );
        }
        let holders = c.share_holders.public_keys.len();
        if holders == 0 || holders > 255 {
            return field(
                "consensus.share_holders.public_keys",
                &format!("1 to 255 holders, got {holders}"),
            );
        }
        let threshold = usize::from(c.share_holders.threshold);
        if threshold == 0 || threshold > holders {
            return field(
                "consensus.share_holders.threshold",
                &format!("1 to {holders}, got {threshold}"),
            );
        }
        if self.development() != Development::default()
            && let Some(chain) = c
                .chains
                .iter()
                .find(|ch| !DEVELOPMENT_CHAINS.contains(&ch.chain_id))
        {
            return field(
                "development",
                &format!(
                    "chain {} is not a development chain; no switch may be on",
                    chain.chain_id
                ),
            );
        }
        Ok(())
    }
}

impl LocalManifest {
    /// Parses and validates the unmeasured text against the measured one.
    pub fn parse(text: &str, consensus: &ConsensusManifest) -> Result<Self, ManifestError> {
        let manifest: Self = parse(text)?;
        let l = &manifest.local;
        for chain in &consensus.consensus.chains {
            if !l.rpc.iter().any(|r| r.chain_id == chain.chain_id) {
                return Err(invalid(
                    "local.rpc",
                    &format!("no endpoint for chain {}", chain.chain_id),
                ));
            }
        }
        if !(1..=64).contains(&l.workers) {
            return Err(invalid("local.workers", "1 to 64"));
        }
        if !["error", "warn", "info", "debug"].contains(&l.log_level.as_str()) {
            return Err(invalid(
                "local.log_level",
                "one of error, warn, info, debug",
            ));
        }
        l.key_rate.check("local.key_rate")?;
        l.open_rate.check("local.open_rate")?;
        for (i, key) in l.api_keys.iter().enumerate() {
            if let Some(rate) = key.rate {
                rate.check(&format!("local.api_keys[{i}].rate"))?;
            }
        }
        if !(1..=1_024).contains(&l.queue_per_worker) {
            return Err(invalid("local.queue_per_worker", "1 to 1024"));
        }
        if l.poll_ms == 0 {
            return Err(invalid("local.poll_ms", "must be above zero"));
        }
        Ok(manifest)
    }
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ManifestError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(ManifestError::TooLong {
            limit: MAX_TEXT_BYTES,
            got: text.len(),
        });
    }
    toml::from_str(text).map_err(|e| ManifestError::Malformed(e.to_string()))
}

fn invalid(field: &str, reason: &str) -> ManifestError {
    ManifestError::Field {
        field: field.to_owned(),
        reason: reason.to_owned(),
    }
}

fn field(name: &str, reason: &str) -> Result<(), ManifestError> {
    Err(invalid(name, reason))
}

fn default_log_level() -> String {
    "info".to_owned()
}
fn default_poll_ms() -> u64 {
    500
}
fn default_workers() -> usize {
    1
}
fn default_key_rate() -> Rate {
    Rate {
        per_second: 500,
        burst: 1_000,
    }
}
fn default_open_rate() -> Rate {
    Rate {
        per_second: 100,
        burst: 300,
    }
}
fn default_queue_per_worker() -> usize {
    32
}
fn default_worker_mib() -> u64 {
    512
}
fn default_wall_ms() -> u64 {
    10_000
}
fn default_page_cache_mib() -> usize {
    64
}
fn default_max_lag_seconds() -> u64 {
    1_800
}
fn default_skip_after_blocks() -> u64 {
    7_200
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CONSENSUS: &str = r#"
[consensus]
network = "development"
authority_chain = 31337

[consensus.share_holders]
threshold = 1
public_keys = ["0x0101010101010101010101010101010101010101010101010101010101010101"]

[[consensus.chains]]
chain_id = 31337
first_block = 1
deployment_block = 3
deployment_block_hash = "0x0202020202020202020202020202020202020202020202020202020202020202"

[consensus.chains.contracts]
enclave_version_registry = "0x0000000000000000000000000000000000000001"
operator_registry = "0x0000000000000000000000000000000000000002"
key_registry = "0x0000000000000000000000000000000000000003"
state_commit_registry = "0x0000000000000000000000000000000000000004"
policy_client_registry = "0x0000000000000000000000000000000000000005"
policy_registry = "0x0000000000000000000000000000000000000006"
policy_data_registry = "0x0000000000000000000000000000000000000007"
task_manager = "0x0000000000000000000000000000000000000008"

[development]
unverified_chain_view = true
"#;

    #[test]
    fn layout_of_the_text_does_not_change_the_measurement() {
        let a = ConsensusManifest::parse(CONSENSUS).unwrap();
        let b =
            ConsensusManifest::parse(&CONSENSUS.replace("threshold = 1", "# why\nthreshold  =  1"))
                .unwrap();
        assert_eq!(a.pcr16(), b.pcr16());
        let c = ConsensusManifest::parse(&CONSENSUS.replace("block = 3", "block = 4")).unwrap();
        assert_ne!(a.config_hash(), c.config_hash());
    }

    #[test]
    fn unknown_fields_are_named() {
        let e = ConsensusManifest::parse(&CONSENSUS.replace("network", "netwrok")).unwrap_err();
        assert!(e.to_string().contains("netwrok"), "{e}");
    }

    #[test]
    fn a_main_network_refuses_development_switches() {
        let e = ConsensusManifest::parse(&CONSENSUS.replace("31337", "1")).unwrap_err();
        assert!(matches!(e, ManifestError::Field { ref field, .. } if field == "development"));
        let off = CONSENSUS
            .replace("31337", "1")
            .replace("unverified_chain_view = true", "");
        assert!(ConsensusManifest::parse(&off).is_ok());
    }

    #[test]
    fn bad_values_name_their_field() {
        for (from, to, expected) in [
            (
                "authority_chain = 31337",
                "authority_chain = 5",
                "consensus.authority_chain",
            ),
            (
                "threshold = 1",
                "threshold = 2",
                "consensus.share_holders.threshold",
            ),
            (
                "threshold = 1",
                "threshold = 0",
                "consensus.share_holders.threshold",
            ),
        ] {
            let e = ConsensusManifest::parse(&CONSENSUS.replace(from, to)).unwrap_err();
            assert!(
                matches!(e, ManifestError::Field { ref field, .. } if field == expected),
                "{e}"
            );
        }
    }

    #[test]
    fn local_needs_an_endpoint_per_chain() {
        let c = ConsensusManifest::parse(CONSENSUS).unwrap();
        let text = "[local]\nda_url = \"http://127.0.0.1:1\"\nrpc = []\n";
        let e = LocalManifest::parse(text, &c).unwrap_err();
        assert!(matches!(e, ManifestError::Field { ref field, .. } if field == "local.rpc"));
    }

    #[test]
    fn rates_and_presets_have_defaults_and_bounds() {
        let c = ConsensusManifest::parse(CONSENSUS).unwrap();
        let parse = |more: &str| {
            let text = format!(
                "[local]\nda_url = \"http://127.0.0.1:1\"\n\
                 rpc = [{{ chain_id = 31337, url = \"http://127.0.0.1:2\" }}]\n{more}\n"
            );
            LocalManifest::parse(&text, &c)
        };
        let plain = parse("").unwrap().local;
        assert_eq!(plain.module_cache, ModuleCache::Small);
        assert_eq!(plain.key_rate, default_key_rate());
        let set = "module_cache = \"dev\"\nopen_rate = { per_second = 1, burst = 2 }";
        let set = parse(set).unwrap().local;
        assert_eq!(
            (set.module_cache, set.open_rate.burst),
            (ModuleCache::Dev, 2)
        );
        let field = |more: &str| match parse(more) {
            Err(ManifestError::Field { field, .. }) => field,
            other => format!("{other:?}"),
        };
        assert_eq!(
            field("key_rate = { per_second = 0, burst = 2 }"),
            "local.key_rate"
        );
        let key = format!(
            "api_keys = [{{ sha256 = \"0x{}\", permissions = [], rate = {{ per_second = 1, burst = 0 }} }}]",
            "11".repeat(32)
        );
        assert_eq!(field(&key), "local.api_keys[0].rate");
        assert_eq!(field("queue_per_worker = 0"), "local.queue_per_worker");
        assert!(matches!(
            parse("module_cache = \"huge\""),
            Err(ManifestError::Malformed(_))
        ));
    }
}
