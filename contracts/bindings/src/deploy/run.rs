//! Sends what a plan still lacks, one transaction after the other.

use alloy::network::TransactionBuilder;
use alloy::providers::Provider;
use alloy::rpc::types::TransactionReceipt;
use alloy_primitives::{Address, B256};

use super::readback::{self, Difference};
use super::{CONTRACTS, DeployError, Deployment, Plan, PlannedStep, Step, proxies};
use crate::abi;

/// What came of a plan.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The set, complete and read back.
    pub deployment: Deployment,
    /// Transactions sent by this run.
    pub sent: usize,
    /// What governance changed since; empty if this run sent anything.
    pub changes: Vec<Difference>,
}

impl Plan {
    /// Sends the missing creations and reads everything back. `former` is what an earlier run knew of the same set.
    pub async fn execute<P: Provider>(
        &self,
        provider: &P,
        former: Option<&Deployment>,
    ) -> Result<Outcome, DeployError> {
        self.execute_some(provider, former, self.steps.len()).await
    }

    /// As [`Plan::execute`], but stops with an error before it sends more than `limit` transactions: what an interruption
    /// leaves, for tests.
    #[doc(hidden)]
    pub async fn execute_some<P: Provider>(
        &self,
        provider: &P,
        former: Option<&Deployment>,
        limit: usize,
    ) -> Result<Outcome, DeployError> {
        let complete = self.found == self.steps.len();
        // What is there already must be what would be made now, before anything stands on it.
        let found = self.found.saturating_sub(CONTRACTS.len());
        let changes = readback::differences(provider, self, found).await?;
        refuse(&changes, complete)?;

        let mut steps: Vec<Step> = former
            .map(|former| former.steps.clone())
            .unwrap_or_default();
        let missing = &self.steps[self.found..];
        let (mut first_block, mut genesis_block) = (None, None);
        for (sent, step) in missing.iter().enumerate() {
            if sent == limit {
                return Err(DeployError::Stopped { sent });
            }
            let receipt = self.create(provider, step).await?;
            let block = receipt.block_number.unwrap_or_default();
            if step.nonce == self.first_nonce {
                first_block = Some(block);
            }
            if step.address == self.addresses.state_commit_registry {
                genesis_block = Some(block);
            }
            steps.push(Step {
                name: step.name.clone(),
                address: step.address,
                transaction: receipt.transaction_hash,
                gas: receipt.gas_used,
            });
        }
        if !missing.is_empty() {
            let all = proxies(&self.addresses).len();
            refuse(&readback::differences(provider, self, all).await?, false)?;
        }

        let commits =
            abi::IStateCommitRegistry::new(self.addresses.state_commit_registry, provider);
        let recorded = commits.deploymentBlock().call().await?;
        if let Some(sent_in) = genesis_block.filter(|block| *block != recorded) {
            return Err(DeployError::ReadBack {
                contract: "StateCommitRegistry",
                what: "deploymentBlock",
                expected: sent_in.to_string(),
                got: recorded.to_string(),
            });
        }
        let deployment_block = match (first_block, former) {
            (Some(block), _) => block,
            (None, Some(former)) => former.deployment_block,
            (None, None) => self.created_in(provider, recorded).await?,
        };
        Ok(Outcome {
            deployment: Deployment {
                chain_id: self.config.chain_id,
                deployer: self.deployer,
                first_nonce: self.first_nonce,
                addresses: self.addresses,
                deployment_block,
                genesis_block: recorded,
                genesis_hash: hash_of(provider, recorded).await?,
                owner: self.owner,
                steps,
            },
            sent: missing.len(),
            changes,
        })
    }

    async fn create<P: Provider>(
        &self,
        provider: &P,
        step: &PlannedStep,
    ) -> Result<TransactionReceipt, DeployError> {
        let request = step.request(self.deployer).with_nonce(step.nonce);
        let receipt: TransactionReceipt = provider
            .send_transaction(request)
            .await?
            .get_receipt()
            .await?;
        if !receipt.status() || receipt.contract_address != Some(step.address) {
            return Err(DeployError::CreationFailed {
                name: step.name.clone(),
                transaction: receipt.transaction_hash,
            });
        }
        step.made(&provider.get_code_at(step.address).await?)?;
        Ok(receipt)
    }

    /// Block of the first creation, searched backwards from a later one so that a node without old state can answer for a
    /// young set.
    async fn created_in<P: Provider>(&self, provider: &P, later: u64) -> Result<u64, DeployError> {
        let first: Address = self.deployer.create(self.first_nonce);
        let (mut with, mut step) = (later, 1);
        let mut without = loop {
            let Some(block) = with.checked_sub(step) else {
                break None;
            };
            if exists(provider, first, block, with).await? {
                (with, step) = (block, step * 2);
            } else {
                break Some(block);
            }
        };
        if without.is_none() && !exists(provider, first, 0, with).await? {
            without = Some(0);
        }
        let Some(mut without) = without else {
            return Ok(0);
        };
        while with - without > 1 {
            let middle = without + (with - without) / 2;
            if exists(provider, first, middle, with).await? {
                with = middle;
            } else {
                without = middle;
            }
        }
        Ok(with)
    }
}

async fn exists<P: Provider>(
    provider: &P,
    address: Address,
    block: u64,
    known: u64,
) -> Result<bool, DeployError> {
    match provider.get_code_at(address).number(block).await {
        Ok(code) => Ok(!code.is_empty()),
        Err(error) if error.is_error_resp() => Err(DeployError::NoHistory { block: known }),
        Err(error) => Err(error.into()),
    }
}

async fn hash_of<P: Provider>(provider: &P, block: u64) -> Result<B256, DeployError> {
    let found = provider.get_block_by_number(block.into()).await?;
    Ok(found.ok_or(DeployError::BlockGone(block))?.header.hash)
}

/// A set that is complete may have been governed since; one in the making must be exactly what was asked for.
fn refuse(differences: &[Difference], complete: bool) -> Result<(), DeployError> {
    match differences.iter().find(|d| !(complete && d.governed)) {
        None => Ok(()),
        Some(d) => Err(DeployError::ReadBack {
            contract: d.contract,
            what: d.what,
            expected: d.expected.clone(),
            got: d.got.clone(),
        }),
    }
}
