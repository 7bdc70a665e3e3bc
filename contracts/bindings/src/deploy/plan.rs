//! What is to be done for a set, and how much of it the chain has already.

use std::path::Path;

use alloy::network::TransactionBuilder;
use alloy::providers::Provider;
use alloy::rpc::types::TransactionRequest;
use alloy_primitives::{Address, Bytes};
use alloy_sol_types::SolConstructor;

use super::{
    Addresses, Artifact, CONTRACTS, DeployConfig, DeployError, constructors, init, initializers,
    predicted, proxies,
};

/// How many of an account's last nonces are searched for the beginning of a set.
const SEARCHED: u64 = 64;

/// One contract creation.
#[derive(Clone, Debug)]
pub struct PlannedStep {
    /// What is created, e.g. `OperatorRegistry` or `OperatorRegistry proxy`.
    pub name: String,
    /// Nonce of the transaction.
    pub nonce: u64,
    /// Where it is created.
    pub address: Address,
    /// The transaction's data.
    pub init_code: Bytes,
    artifact: Artifact,
    /// Addresses among its immutables.
    immutables: Vec<u8>,
}

impl PlannedStep {
    pub(super) fn request(&self, deployer: Address) -> TransactionRequest {
        TransactionRequest::default()
            .with_from(deployer)
            .with_deploy_code(self.init_code.clone())
    }

    /// Whether that is there which this step creates.
    pub(super) fn made(&self, code: &[u8]) -> Result<(), DeployError> {
        if self
            .artifact
            .is_runtime(code, self.address, &self.immutables)
        {
            return Ok(());
        }
        Err(DeployError::ForeignCode {
            name: self.name.clone(),
            address: self.address,
        })
    }
}

/// A set on a chain: all of its creations in order, of which the first [`Plan::found`] are done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What was asked for.
    pub config: DeployConfig,
    /// Who creates everything.
    pub deployer: Address,
    /// Owner of all contracts from their creation on.
    pub owner: Address,
    /// Nonce of the first creation.
    pub first_nonce: u64,
    /// The proxies.
    pub addresses: Addresses,
    /// Ten implementations, then their proxies.
    pub steps: Vec<PlannedStep>,
    /// How many steps the chain has, in order.
    pub found: usize,
}

impl Plan {
    /// Reads artifacts and chain; sends nothing.
    ///
    /// Without `first_nonce` the set is looked for behind the account's last nonces, and an account that never sent
    /// anything begins at 0. Refuses what disagrees: chain, owner, nonces, code.
    pub async fn make<P: Provider>(
        provider: &P,
        deployer: Address,
        config: &DeployConfig,
        artifacts_dir: &Path,
        first_nonce: Option<u64>,
    ) -> Result<Self, DeployError> {
        let chain_id = provider.get_chain_id().await?;
        if chain_id != config.chain_id {
            return Err(DeployError::WrongChain {
                expected: config.chain_id,
                got: chain_id,
            });
        }
        let owner = config.owner(deployer)?;
        if config.is_main_network() && provider.get_code_at(owner).await?.is_empty() {
            return Err(DeployError::OwnerWithoutCode { owner, chain_id });
        }
        let artifacts = CONTRACTS
            .into_iter()
            .map(|name| Artifact::load(artifacts_dir, name))
            .collect::<Result<Vec<_>, _>>()?;
        let proxy = Artifact::load(artifacts_dir, "NewtonProxy")?;

        let nonce = provider.get_transaction_count(deployer).await?;
        let pending = provider.get_transaction_count(deployer).pending().await?;
        if pending > nonce {
            return Err(DeployError::Unmined {
                deployer,
                mined: nonce,
                pending,
            });
        }
        let first_nonce = match first_nonce {
            Some(first) => first,
            None => search(provider, deployer, nonce, artifacts.first()).await?,
        };
        let addresses = predicted(deployer, first_nonce + CONTRACTS.len() as u64);
        let mut plan = Self {
            config: config.clone(),
            deployer,
            owner,
            first_nonce,
            addresses,
            steps: steps(config, deployer, owner, first_nonce, artifacts, &proxy),
            found: 0,
        };
        plan.found = plan.look(provider, nonce).await?;
        Ok(plan)
    }

    /// Gas of each step that is still to be sent, where the node can tell: a proxy's constructor calls its
    /// implementation, so its gas cannot be estimated before that is there.
    pub async fn estimates<P: Provider>(&self, provider: &P) -> Vec<Option<u64>> {
        let mut out = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            let implemented = index < CONTRACTS.len() || index - CONTRACTS.len() < self.found;
            out.push(if index < self.found || !implemented {
                None
            } else {
                let request = step.request(self.deployer);
                provider.estimate_gas(request).await.ok()
            });
        }
        out
    }

    async fn look<P: Provider>(&self, provider: &P, nonce: u64) -> Result<usize, DeployError> {
        if nonce < self.first_nonce {
            return Err(DeployError::NonceBehind {
                deployer: self.deployer,
                first: self.first_nonce,
                nonce,
            });
        }
        let mut found = 0;
        for step in &self.steps {
            let code = provider.get_code_at(step.address).await?;
            match (step.nonce < nonce, code.is_empty()) {
                (true, true) => {
                    return Err(DeployError::NonceSpent {
                        deployer: self.deployer,
                        nonce: step.nonce,
                        name: step.name.clone(),
                        address: step.address,
                    });
                }
                (true, false) => {
                    step.made(&code)?;
                    found += 1;
                }
                (false, true) => {}
                (false, false) => {
                    return Err(DeployError::ForeignCode {
                        name: step.name.clone(),
                        address: step.address,
                    });
                }
            }
        }
        Ok(found)
    }
}

/// Nonce at which the deployer's newest set of this code begins.
async fn search<P: Provider>(
    provider: &P,
    deployer: Address,
    nonce: u64,
    first: Option<&Artifact>,
) -> Result<u64, DeployError> {
    if nonce == 0 {
        return Ok(0);
    }
    for candidate in (nonce.saturating_sub(SEARCHED)..nonce).rev() {
        let address = deployer.create(candidate);
        let code = provider.get_code_at(address).await?;
        // The first implementation has no address in it but its own.
        if first.is_some_and(|artifact| artifact.is_runtime(&code, address, &[])) {
            return Ok(candidate);
        }
    }
    Err(DeployError::NothingFound {
        deployer,
        nonce,
        searched: SEARCHED.min(nonce),
    })
}

fn steps(
    config: &DeployConfig,
    deployer: Address,
    owner: Address,
    first_nonce: u64,
    artifacts: Vec<Artifact>,
    proxy: &Artifact,
) -> Vec<PlannedStep> {
    let addresses = predicted(deployer, first_nonce + CONTRACTS.len() as u64);
    let mut steps: Vec<PlannedStep> = CONTRACTS
        .into_iter()
        .zip(artifacts)
        .zip(constructors(&addresses))
        .zip(first_nonce..)
        .map(|(((name, artifact), arguments), nonce)| PlannedStep {
            name: name.to_owned(),
            nonce,
            address: deployer.create(nonce),
            init_code: artifact.creation_code(&arguments),
            artifact,
            immutables: arguments,
        })
        .collect();
    let behind = CONTRACTS
        .into_iter()
        .zip(proxies(&addresses))
        .zip(initializers(config, owner, &addresses))
        .zip(first_nonce..)
        .map(|(((name, address), initializer), nonce)| {
            let arguments = init::Proxy::constructorCall {
                implementation: deployer.create(nonce),
                initializer,
            }
            .abi_encode();
            PlannedStep {
                name: format!("{name} proxy"),
                nonce: nonce + CONTRACTS.len() as u64,
                address,
                init_code: proxy.creation_code(&arguments),
                artifact: proxy.clone(),
                immutables: Vec::new(),
            }
        });
    steps.extend(behind);
    steps
}
