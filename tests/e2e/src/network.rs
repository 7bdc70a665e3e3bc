//! Several operators: admission by those that are there already, certificates of several signatures.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use alloy::{
    consensus::Transaction as _,
    primitives::{Address, B256, Bytes, U256, keccak256},
    providers::Provider,
    sol_types::{SolCall, SolValue},
};
use anyhow::{Context, Result, bail, ensure};
use newton_api::client::ClientError;
use newton_contracts::abi::{
    Certificate, EnclaveAdmission, IOperatorRegistry, IStateCommitRegistry, StateCommit,
};
use newton_keys::bls::Signature;
use newton_types::rpc::Disposition;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Host, Member, World,
    admission::{self, AdmissionAnswer, Chain, KeptShares},
    chain::{Spent, send, wait_blocks},
    enclave::Enclave,
};

/// A vote as enclaves answer it.
#[derive(Clone, Debug, Deserialize)]
pub struct Vote {
    /// EIP-712 digest.
    pub digest: B256,
    /// EIP-2537 form.
    pub signature: Bytes,
    /// EIP-2537 form.
    pub bls_public_key: Bytes,
}

/// Starts operator `index`, gives its enclave the master secret by shares, and has it admitted by `voters`.
///
/// # Errors
/// If one of these steps fails or takes longer than `patience`.
pub async fn join(
    world: &World,
    index: usize,
    shares: &KeptShares,
    voters: &[&Enclave],
    patience: Duration,
) -> Result<(Member, Enclave)> {
    join_as(world, index, &Host::default(), shares, voters, patience).await
}

/// The same on a host of its own kind.
///
/// # Errors
/// As [`join`].
pub async fn join_as(
    world: &World,
    index: usize,
    host: &Host,
    shares: &KeptShares,
    voters: &[&Enclave],
    patience: Duration,
) -> Result<(Member, Enclave)> {
    // A boot that does not see the master secret's commitment in the finalized chain would make another secret.
    all_final(world, voters, patience).await?;
    let member = world.join_as(index, host).await?;
    recover(world, &member, shares, patience).await?;
    let enclave = connect_stage(world, &member, 2, patience).await?;
    admit(&world.chain, member.operator, &enclave, voters, patience)
        .await
        .with_context(|| member.console_tail())?;
    Ok((member, enclave))
}

/// Waits until all that was done so far is final for these enclaves.
pub async fn all_final(world: &World, enclaves: &[&Enclave], patience: Duration) -> Result<()> {
    let head = world.chain.provider.get_block_number().await?;
    for enclave in enclaves {
        wait_for(enclave, patience, "what was done is final", |h| {
            h["chains"][0]["finalized_block"].as_u64() >= Some(head)
        })
        .await?;
    }
    Ok(())
}

/// The share holders give a boot the secret once it waits for them.
pub async fn recover(
    world: &World,
    member: &Member,
    shares: &KeptShares,
    patience: Duration,
) -> Result<()> {
    let waiting = connect_stage(world, member, 1, patience).await?;
    wait(member, &waiting, patience, "it waits for shares", |h| {
        h["status"] == "awaiting_secret"
    })
    .await?;
    world.holders.recover(shares, &waiting).await
}

/// Connects until the document of a member's enclave is of this stage.
pub async fn connect_stage(
    world: &World,
    member: &Member,
    stage: u8,
    patience: Duration,
) -> Result<Enclave> {
    let deadline = Instant::now() + patience;
    loop {
        let enclave = world.connect_to(member, patience).await?;
        if enclave.attested.stage == stage {
            return Ok(enclave);
        }
        let health: Value = enclave.call("newt_health", json!({})).await?;
        ensure!(
            health["status"] != "halted" && Instant::now() < deadline,
            "the enclave does not reach stage {stage}: {health}\n{}",
            member.console_tail()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until a member's health says what is expected.
pub async fn wait(
    member: &Member,
    enclave: &Enclave,
    patience: Duration,
    what: &str,
    there: impl Fn(&Value) -> bool,
) -> Result<Value> {
    wait_for(enclave, patience, what, there)
        .await
        .with_context(|| member.console_tail())
}

/// Waits until an enclave's health says what is expected.
pub async fn wait_for(
    enclave: &Enclave,
    patience: Duration,
    what: &str,
    there: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let deadline = Instant::now() + patience;
    loop {
        let health: Value = enclave.call("newt_health", json!({})).await?;
        if there(&health) {
            return Ok(health);
        }
        if Instant::now() > deadline {
            bail!("waited in vain for: {what}; health: {health}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Puts an operator on the allow-list and registers the boot's keys by a certificate of `voters`.
pub async fn admit(
    chain: &Chain,
    operator: Address,
    candidate: &Enclave,
    voters: &[&Enclave],
    patience: Duration,
) -> Result<Spent> {
    let registry = IOperatorRegistry::new(chain.contracts.operator_registry, &chain.provider);
    if registry.allowedWeight(operator).call().await?.is_zero() {
        send(
            "allowOperator",
            chain.accounts.governance,
            registry.allowOperator(operator, alloy::primitives::aliases::U96::from(100)),
        )
        .await?;
    }
    let request = admission::request(chain, candidate).await?;
    let admitted = EnclaveAdmission::abi_decode(&request.admission).context("admission")?;
    ensure!(
        admitted.operator == operator && admitted.bootId == candidate.attested.boot_id,
        "the enclave asks for an admission of something else"
    );
    let votes = votes(
        voters,
        "newt_getAdmissionVote",
        &serde_json::to_value(&request)?,
        patience,
    )
    .await?;
    let certificate = certificate(chain, &votes).await?;
    let aggregate = admission::latest_aggregate_key(chain).await?;
    let AdmissionAnswer {
        document,
        bls_public_key,
        proof_of_possession,
        ..
    } = request;
    let spent = send(
        "registerOperator",
        operator,
        registry.registerOperator(
            bls_public_key,
            proof_of_possession,
            admitted,
            document,
            aggregate,
            certificate,
        ),
    )
    .await?;
    wait_blocks(&chain.provider, 1).await?;
    Ok(spent)
}

/// One vote of each; asks again while an enclave says that a retry can help.
pub async fn votes(
    voters: &[&Enclave],
    method: &str,
    params: &Value,
    patience: Duration,
) -> Result<Vec<Vote>> {
    let mut votes = Vec::new();
    for voter in voters {
        let answer = patiently(voter, method, params, patience).await?;
        votes.push(serde_json::from_value(answer).context("a vote")?);
    }
    Ok(votes)
}

/// An answer; asks again while the enclave says that a retry can help.
///
/// # Errors
/// If it refuses for good, or takes longer than `patience`.
pub async fn patiently(
    enclave: &Enclave,
    method: &str,
    params: &Value,
    patience: Duration,
) -> Result<Value> {
    let deadline = Instant::now() + patience;
    loop {
        match enclave.try_call(method, params.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(ClientError::Rpc(e))
                if e.name.disposition() == Disposition::Retryable && Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(e) => return Err(e).context(method.to_owned()),
        }
    }
}

/// The certificate that some members' votes make for the set in force, by the contract's own list of members.
pub async fn certificate(chain: &Chain, votes: &[Vote]) -> Result<Certificate> {
    let registry = IOperatorRegistry::new(chain.contracts.operator_registry, &chain.provider);
    let set_id = registry.latestSetId().call().await?;
    let set = registry.operatorSet(set_id).call().await?;
    let signed: BTreeMap<B256, &Vote> = votes
        .iter()
        .map(|vote| (keccak256(&vote.bls_public_key), vote))
        .collect();
    let mut signatures = Vec::new();
    let (mut bitmap, mut absent) = (U256::ZERO, Vec::new());
    let mut keys = None;
    for member in &set.members {
        if let Some(vote) = signed.get(&member.blsKeyHash) {
            signatures.push(
                Signature::from_eip2537(&vote.signature)
                    .map_err(|e| anyhow::anyhow!("a vote's signature: {e}"))?,
            );
            continue;
        }
        if keys.is_none() {
            keys = Some(keys_by_hash(chain).await?);
        }
        let key = keys
            .as_ref()
            .and_then(|keys| keys.get(&member.blsKeyHash))
            .context("a member whose key no event shows")?;
        bitmap.set_bit(usize::from(member.index), true);
        absent.extend_from_slice(key);
    }
    let signature = Signature::aggregate(&signatures)
        .map_err(|e| anyhow::anyhow!("adding signatures up: {e}"))?;
    Ok(Certificate {
        signature: Bytes::from(signature.to_eip2537().to_vec()),
        setId: set_id,
        nonSignerBitmap: bitmap,
        nonSignerKeys: absent.into(),
        aggregateKey: admission::latest_aggregate_key(chain).await?,
    })
}

/// Members of the certificate's set that did not sign a commit, and the commit as it was sent.
///
/// # Errors
/// If there is no such commit, or its transaction is not a commit's.
pub async fn absent(chain: &Chain, sequence: u64) -> Result<(StateCommit, Vec<Address>)> {
    let registry =
        IStateCommitRegistry::new(chain.contracts.state_commit_registry, &chain.provider);
    let events = registry
        .StateCommitted_filter()
        .from_block(0)
        .query()
        .await?;
    let (_, log) = events
        .iter()
        .find(|(event, _)| event.sequenceNo == sequence)
        .with_context(|| format!("no commit {sequence}"))?;
    let hash = log.transaction_hash.context("a log without transaction")?;
    let transaction = chain
        .provider
        .get_transaction_by_hash(hash)
        .await?
        .context("a commit without transaction")?;
    let call = IStateCommitRegistry::commitStateRootCall::abi_decode(transaction.input())?;
    let operators = IOperatorRegistry::new(chain.contracts.operator_registry, &chain.provider);
    let set = operators.operatorSet(call.certificate.setId).call().await?;
    let absent = set
        .members
        .iter()
        .filter(|m| call.certificate.nonSignerBitmap.bit(m.index.into()))
        .map(|m| m.operator)
        .collect();
    Ok((call.commit, absent))
}

/// Every key that was ever admitted, by its hash.
async fn keys_by_hash(chain: &Chain) -> Result<BTreeMap<B256, Bytes>> {
    let registry = IOperatorRegistry::new(chain.contracts.operator_registry, &chain.provider);
    let events = registry
        .OperatorAdmitted_filter()
        .from_block(0)
        .query()
        .await?;
    Ok(events
        .into_iter()
        .map(|(event, _)| (keccak256(&event.blsPublicKey), event.blsPublicKey))
        .collect())
}
