//! Governance and the operator: whitelist the image, admit the boot's keys, publish the key epoch, keep the shares.

use alloy::{
    primitives::{B256, Bytes, U256},
    providers::DynProvider,
    sol_types::SolValue,
};
use anyhow::{Context, Result, ensure};
use newton_attestation::PcrValue;
use newton_contracts::abi::{
    Certificate, EnclaveAdmission, IEnclaveVersionRegistry, IKeyRegistry, IOperatorRegistry,
    KeyEpoch,
};
use newton_keys::{HpkeKey, hpke::Sealed, shares::reseal};
use newton_types::manifest::Contracts;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    chain::{Accounts, Spent, send, wait_blocks},
    enclave::Enclave,
};

/// How long an admission of the demonstration holds, in seconds.
const ADMISSION_SECONDS: u64 = 6 * 3600;

/// The chain, seen from outside the enclave.
#[derive(Clone)]
pub struct Chain {
    /// Signs for every account.
    pub provider: DynProvider,
    /// The people.
    pub accounts: Accounts,
    /// The contracts.
    pub contracts: Contracts,
}

/// What a boot shows to be admitted.
#[derive(Clone, Deserialize, Serialize)]
pub struct AdmissionAnswer {
    /// ABI encoding.
    pub admission: Bytes,
    /// NSM document of stage 2.
    pub document: Bytes,
    /// EIP-2537 form.
    pub bls_public_key: Bytes,
    /// EIP-2537 form.
    pub proof_of_possession: Bytes,
}

/// Asks a boot for what it shows, valid for the demonstration's time.
pub async fn request(chain: &Chain, enclave: &Enclave) -> Result<AdmissionAnswer> {
    let valid_until = chain_time(chain).await? + ADMISSION_SECONDS;
    enclave
        .call(
            "newt_getAdmissionRequest",
            json!({ "valid_until": valid_until }),
        )
        .await
}

/// Proposes the image and approves the configuration.
pub async fn whitelist(
    chain: &Chain,
    pcrs: &[PcrValue; 3],
    config_hash: B256,
    label: &str,
    source_hash: B256,
) -> Result<Vec<Spent>> {
    let registry =
        IEnclaveVersionRegistry::new(chain.contracts.enclave_version_registry, &chain.provider);
    let bytes = |i: usize| Bytes::from(pcrs[i].0.to_vec());
    let governance = chain.accounts.governance;
    let proposed = send(
        "proposeVersion",
        governance,
        registry.proposeVersion(bytes(0), bytes(1), bytes(2), source_hash, label.to_owned()),
    )
    .await?;
    let approved = send(
        "approveConfig",
        governance,
        registry.approveConfig(config_hash, true),
    )
    .await?;
    Ok(vec![proposed, approved])
}

/// Admits this boot's keys by the owner's word: at genesis, or after the former boot's keys were retired.
pub async fn admit(chain: &Chain, enclave: &Enclave) -> Result<Spent> {
    let registry = IOperatorRegistry::new(chain.contracts.operator_registry, &chain.provider);
    let operator = chain.accounts.operator;
    let request = request(chain, enclave).await?;
    let admission = EnclaveAdmission::abi_decode(&request.admission).context("admission")?;
    ensure!(
        admission.operator == operator && admission.tlsKeyHash == enclave.tls_key,
        "the enclave asks for an admission of other keys than the attested ones"
    );
    ensure!(
        admission.bootId == enclave.attested.boot_id,
        "the admission is of another boot than the attested one"
    );
    if registry.allowedWeight(operator).call().await?.is_zero() {
        send(
            "allowOperator",
            chain.accounts.governance,
            registry.allowOperator(operator, alloy::primitives::aliases::U96::from(100)),
        )
        .await?;
    }
    send(
        "approveAdmission",
        chain.accounts.governance,
        registry.approveAdmission(admission.clone()),
    )
    .await?;
    let by_owner = Certificate {
        signature: Bytes::new(),
        setId: 0,
        nonSignerBitmap: U256::ZERO,
        nonSignerKeys: Bytes::new(),
        aggregateKey: Bytes::new(),
    };
    let empty_set = Bytes::from(vec![0; 256]);
    let known = registry.operators(operator).call().await?.owner;
    let spent = if known.is_zero() {
        send(
            "registerOperator",
            operator,
            registry.registerOperator(
                request.bls_public_key,
                request.proof_of_possession,
                admission,
                request.document,
                empty_set,
                by_owner,
            ),
        )
        .await?
    } else {
        send(
            "readmit",
            operator,
            registry.readmit(
                request.bls_public_key,
                request.proof_of_possession,
                admission,
                request.document,
                empty_set,
                Bytes::new(),
                by_owner,
            ),
        )
        .await?
    };
    // The set counts from the next block on.
    wait_blocks(&chain.provider, 1).await?;
    Ok(spent)
}

/// Takes the operator's lost boot out of the set, so that the owner can admit the next one.
pub async fn retire(chain: &Chain) -> Result<Spent> {
    let registry = IOperatorRegistry::new(chain.contracts.operator_registry, &chain.provider);
    let key = latest_aggregate_key(chain).await?;
    send(
        "retireAdmission",
        chain.accounts.operator,
        // The only member's key is the aggregate of the set.
        registry.retireAdmission(key.clone(), key),
    )
    .await
}

/// The certificate of a one-operator set over a signature.
pub async fn certificate(chain: &Chain, signature: Bytes) -> Result<Certificate> {
    let registry = IOperatorRegistry::new(chain.contracts.operator_registry, &chain.provider);
    Ok(Certificate {
        signature,
        setId: registry.currentSetId().call().await?,
        nonSignerBitmap: U256::ZERO,
        nonSignerKeys: Bytes::new(),
        aggregateKey: latest_aggregate_key(chain).await?,
    })
}

/// Sum of the keys of the newest set.
pub async fn latest_aggregate_key(chain: &Chain) -> Result<Bytes> {
    let registry = IOperatorRegistry::new(chain.contracts.operator_registry, &chain.provider);
    let events = registry
        .OperatorSetChanged_filter()
        .from_block(0)
        .query()
        .await?;
    let (last, _) = events.last().context("no operator set yet")?;
    Ok(last.aggregateKey.clone())
}

#[derive(Deserialize)]
struct EpochAnswer {
    key_epoch: Bytes,
    signature: Bytes,
}

/// Publishes the master secret's commitment and the first key epoch.
pub async fn publish_key_epoch(chain: &Chain, enclave: &Enclave) -> Result<Spent> {
    let registry = IKeyRegistry::new(chain.contracts.key_registry, &chain.provider);
    let vote: EpochAnswer = enclave.call("newt_getKeyEpochVote", json!({})).await?;
    let epoch = KeyEpoch::abi_decode(&vote.key_epoch).context("key epoch")?;
    let certificate = certificate(chain, vote.signature).await?;
    send(
        "publishKeyEpoch",
        chain.accounts.operator,
        registry.publishKeyEpoch(epoch, certificate),
    )
    .await
}

/// The holders of the master secret's shares: in the demonstration all on this machine, on a real network not.
pub struct ShareHolders {
    keys: Vec<HpkeKey>,
    /// Shares needed.
    pub threshold: u8,
}

/// What the holders keep after birth.
#[derive(Clone, Serialize, Deserialize)]
pub struct KeptShares {
    commitment: B256,
    threshold: u8,
    shares: Vec<KeptShare>,
}

#[derive(Clone, Serialize, Deserialize)]
struct KeptShare {
    index: u8,
    enc: B256,
    ciphertext: Bytes,
}

impl ShareHolders {
    /// Fresh holders.
    pub fn generate(holders: usize, threshold: u8) -> Result<Self> {
        let keys = (0..holders)
            .map(|_| {
                let mut seed = [0; 32];
                getrandom::fill(&mut seed).map_err(|e| anyhow::anyhow!("randomness: {e}"))?;
                Ok(HpkeKey::from_ikm(&seed))
            })
            .collect::<Result<_>>()?;
        Ok(Self { keys, threshold })
    }

    /// Their public keys, for the manifest.
    pub fn public_keys(&self) -> Vec<B256> {
        self.keys
            .iter()
            .map(|k| B256::from(k.public_key()))
            .collect()
    }

    /// Collects the shares after birth.
    pub async fn collect(&self, enclave: &Enclave) -> Result<KeptShares> {
        enclave.call("newt_getSecretShares", json!({})).await
    }

    /// Gives a freshly attested boot as many shares as it needs.
    pub async fn recover(&self, kept: &KeptShares, enclave: &Enclave) -> Result<()> {
        ensure!(
            enclave.attested.stage == 1,
            "the enclave has its secret already"
        );
        for share in kept.shares.iter().take(usize::from(kept.threshold)) {
            let sealed = Sealed {
                enc: share.enc.0,
                ciphertext: share.ciphertext.to_vec(),
            };
            let holder = &self.keys[usize::from(share.index) - 1];
            let resealed = reseal(
                holder,
                share.index,
                &kept.commitment.0,
                &sealed,
                &enclave.attested.hpke_public_key.0,
            )?;
            let _: serde_json::Value = enclave
                .call(
                    "newt_submitShare",
                    json!({
                        "index": share.index,
                        "enc": B256::from(resealed.enc),
                        "ciphertext": Bytes::from(resealed.ciphertext),
                    }),
                )
                .await?;
        }
        Ok(())
    }
}

/// Time of the newest block, in seconds.
pub async fn chain_time(chain: &Chain) -> Result<u64> {
    use alloy::providers::Provider;
    let block = chain
        .provider
        .get_block_by_number(alloy::eips::BlockNumberOrTag::Latest)
        .await?
        .context("no latest block")?;
    Ok(block.header.timestamp)
}
