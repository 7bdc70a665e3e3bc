//! Challenges from outside: an operator that signs what it likes, and the evidence against it.

use std::{sync::Arc, time::Duration};

use alloy::{
    primitives::{Address, B256, Bytes, U256, address, aliases::U96, keccak256},
    providers::Provider,
    rpc::types::TransactionRequest,
    sol_types::SolValue,
};
use anyhow::{Context, Result, ensure};
use newton_contracts::abi::{
    Certificate, EnclaveAdmission, IOperatorRegistry, PolicyAttestation, StateCommit, Task,
};
use newton_keys::bls::{BlsKey, Possession};
use serde_json::{Value, json};

use crate::{
    World,
    admission::{self, Chain},
    chain::{CHAIN_ID, fund, send, wait_blocks},
    enclave::Enclave,
    network::{self, Vote},
};

/// How long an enclave may ask to be asked again.
const PATIENCE: Duration = Duration::from_secs(180);
/// Signers that one challenge slashes at most.
const MAX_SIGNERS: u64 = 10;

/// An operator without an enclave: its key is a test's, and governance has taken its word.
#[derive(Clone)]
pub struct Dishonest {
    /// Its owner.
    pub operator: Address,
    key: Arc<BlsKey>,
}

impl Dishonest {
    /// Registers it by the owner's word, which counts at genesis: before any enclave is admitted.
    ///
    /// # Errors
    /// If a contract refuses.
    pub async fn register(world: &World, weight: u64) -> Result<Self> {
        let chain = &world.chain;
        let operator = address!("00000000000000000000000000000000000d15a5");
        let key = BlsKey::generate(&[0xd1; 32]).map_err(|e| anyhow::anyhow!("{e}"))?;
        fund(&chain.provider, operator).await?;
        let _: () = chain
            .provider
            .client()
            .request("anvil_impersonateAccount", (operator,))
            .await?;
        let statement = Possession {
            owner: operator.into(),
            chain_id: CHAIN_ID,
            registry: chain.contracts.operator_registry.into(),
        };
        let admission = EnclaveAdmission {
            operator,
            blsKeyHash: B256::from(key.public_key().hash()),
            tlsKeyHash: keccak256("no enclave"),
            bootId: keccak256("no boot"),
            pcr0Hash: keccak256(world.pcrs[0].0),
            configHash: world.config_hash(),
            docHash: keccak256([]),
            validUntil: admission::chain_time(chain).await? + 6 * 3600,
        };
        let possession = key.prove_possession(&statement).to_eip2537().to_vec();
        allow(chain, operator, weight).await?;
        register_by_owner(
            chain,
            Impersonated(operator),
            key.public_key().to_eip2537().to_vec().into(),
            possession.into(),
            admission,
            Bytes::new(),
            vec![0; 256].into(),
        )
        .await?;
        Ok(Self {
            operator,
            key: Arc::new(key),
        })
    }

    /// Its signature over any digest.
    pub fn sign(&self, digest: B256) -> Vote {
        Vote {
            digest,
            signature: self.key.sign(&digest.0).to_eip2537().to_vec().into(),
            bls_public_key: self.key.public_key().to_eip2537().to_vec().into(),
        }
    }
}

/// Admits an enclave by the owner's word while the live weight is no quorum of what is registered.
///
/// # Errors
/// If a contract refuses.
pub async fn admit_second(chain: &Chain, enclave: &Enclave) -> Result<()> {
    let request = admission::request(chain, enclave).await?;
    let admitted = EnclaveAdmission::abi_decode(&request.admission).context("admission")?;
    allow(chain, admitted.operator, 100).await?;
    let aggregate = admission::latest_aggregate_key(chain).await?;
    register_by_owner(
        chain,
        Impersonated(admitted.operator),
        request.bls_public_key,
        request.proof_of_possession,
        admitted,
        request.document,
        aggregate,
    )
    .await
}

/// Who sends: anvil signs for accounts that it plays itself, the wallet for the others.
struct Impersonated(Address);

async fn allow(chain: &Chain, operator: Address, weight: u64) -> Result<()> {
    let registry = IOperatorRegistry::new(chain.contracts.operator_registry, &chain.provider);
    send(
        "allowOperator",
        chain.accounts.governance,
        registry.allowOperator(operator, U96::from(weight)),
    )
    .await
    .map(drop)
}

async fn register_by_owner(
    chain: &Chain,
    owner: Impersonated,
    key: Bytes,
    possession: Bytes,
    admission: EnclaveAdmission,
    document: Bytes,
    aggregate: Bytes,
) -> Result<()> {
    let registry = IOperatorRegistry::new(chain.contracts.operator_registry, &chain.provider);
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
    let call = registry
        .registerOperator(key, possession, admission, document, aggregate, by_owner)
        .calldata()
        .clone();
    let request = TransactionRequest::default()
        .from(owner.0)
        .to(chain.contracts.operator_registry)
        .input(call.into());
    submit(chain, "registerOperator", request).await?;
    // The set counts from the next block on.
    wait_blocks(&chain.provider, 1).await?;
    Ok(())
}

/// Sends through the node itself, which plays accounts without a key.
async fn submit(chain: &Chain, what: &str, request: TransactionRequest) -> Result<bool> {
    let from = request.from.context("no sender")?;
    let _: () = chain
        .provider
        .client()
        .request("anvil_impersonateAccount", (from,))
        .await?;
    let hash: B256 = chain
        .provider
        .client()
        .request("eth_sendTransaction", (request,))
        .await
        .with_context(|| what.to_owned())?;
    loop {
        if let Some(receipt) = chain.provider.get_transaction_receipt(hash).await? {
            ensure!(receipt.status(), "{what}: transaction {hash} reverted");
            return Ok(true);
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// What enclaves say about something signed.
pub struct Verdict {
    /// Whether it is right.
    pub correct: bool,
    /// `abi.encode(bool correct, Certificate)`: the proof for the contract.
    pub proof: Bytes,
}

/// Asks every enclave to do something signed again, and makes their outcomes a proof. They must agree.
///
/// # Errors
/// If an enclave refuses, or they differ.
pub async fn verdict(world: &World, enclaves: &[&Enclave], mut question: Value) -> Result<Verdict> {
    question["verifier"] = json!(world.deployment.addresses.enclave_reexecution_verifier);
    let mut votes = Vec::new();
    let mut correct = None;
    for enclave in enclaves {
        // The task may have been seen by one of them only.
        let answer =
            network::patiently(enclave, "newt_getResultOutcome", &question, PATIENCE).await?;
        let said = answer["correct"].as_bool().context("correct")?;
        ensure!(
            correct.is_none_or(|c| c == said),
            "enclaves differ: {answer}"
        );
        correct = Some(said);
        votes.push(serde_json::from_value(answer).context("an outcome")?);
    }
    let correct = correct.context("no enclave was asked")?;
    let certificate = network::certificate(&world.chain, &votes).await?;
    Ok(Verdict {
        correct,
        proof: (correct, certificate).abi_encode_params().into(),
    })
}

/// `challengeResult` against an attestation.
///
/// # Errors
/// If the contract refuses the evidence.
pub async fn challenge_result(
    world: &World,
    evidence: (Task, PolicyAttestation, Certificate),
    proof: Bytes,
) -> Result<()> {
    let arguments = (evidence, REEXECUTION, proof, U256::from(MAX_SIGNERS)).abi_encode_params();
    call(world, "challengeResult", &arguments).await
}

/// `challengeCommit` against a state commit.
///
/// # Errors
/// If the contract refuses the evidence.
pub async fn challenge_commit(
    world: &World,
    commit: StateCommit,
    certificate: Certificate,
    proof: Bytes,
) -> Result<()> {
    let arguments = (
        commit,
        certificate,
        REEXECUTION,
        proof,
        U256::from(MAX_SIGNERS),
    )
        .abi_encode_params();
    call(world, "challengeCommit", &arguments).await
}

/// Kind of proof.
const REEXECUTION: U256 = U256::from_limbs([1, 0, 0, 0]);

async fn call(world: &World, function: &str, arguments: &[u8]) -> Result<()> {
    let path = world
        .contracts_out()
        .join("ChallengeVerifier.sol/ChallengeVerifier.json");
    let artifact: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let selector = artifact["methodIdentifiers"]
        .as_object()
        .and_then(|methods| {
            let mut named = methods
                .iter()
                .filter(|(name, _)| name.split('(').next() == Some(function));
            named.next().and_then(|(_, selector)| selector.as_str())
        })
        .with_context(|| format!("no {function} in {}", path.display()))?;
    let mut input = alloy::primitives::hex::decode(selector)?;
    input.extend_from_slice(arguments);
    // Nobody in particular: whoever sends through the node itself must not send through the provider, which counts by itself.
    let challenger = address!("00000000000000000000000000000000c4a11e9e");
    fund(&world.chain.provider, challenger).await?;
    let request = TransactionRequest::default()
        .from(challenger)
        .to(world.deployment.addresses.challenge_verifier)
        .gas_limit(5_000_000)
        .input(Bytes::from(input).into());
    submit(&world.chain, function, request).await.map(drop)
}

/// Weight that an operator's next admission gets: falls with every slash.
///
/// # Errors
/// If the chain does not answer.
pub async fn weight(chain: &Chain, operator: Address) -> Result<U96> {
    let registry = IOperatorRegistry::new(chain.contracts.operator_registry, &chain.provider);
    Ok(registry.allowedWeight(operator).call().await?)
}
