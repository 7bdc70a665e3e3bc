//! The main job, step by step, each step checked.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use alloy::primitives::B256;
use anyhow::{Context, Result, ensure};
use newton_contracts::abi::IStateCommitRegistry;
use newton_types::{LeafKey, Namespace};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

use crate::{
    World,
    admission::{self, KeptShares},
    chain::Spent,
    enclave::Enclave,
    leaves,
    policy::{self, Deployed, Example},
    tasks::{self, Answered, WireIntent},
};

/// What a run found, for machines.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// PCR0, hex.
    pub pcr0: String,
    /// PCR1, hex.
    pub pcr1: String,
    /// PCR2, hex.
    pub pcr2: String,
    /// `keccak256(PCR16)`.
    pub config_hash: B256,
    /// Whether the attestation document was signed; QEMU's is not.
    pub attestation_signed: bool,
    /// The newest committed root.
    pub state_root: B256,
    /// Its sequence number.
    pub sequence_no: u64,
    /// Transaction hashes by step.
    pub tx_hashes: BTreeMap<String, B256>,
    /// Gas by step.
    pub gas: BTreeMap<String, u64>,
    /// From starting the enclave to a verified attestation document, milliseconds.
    pub boot_ms: u64,
    /// Evaluation inside the enclave, microseconds, by task.
    pub eval_us: Vec<u64>,
    /// What callers met that never paused, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<crate::load::Report>,
    /// Length of the image, bytes; 0 for the process backend.
    pub eif_bytes: u64,
}

impl Summary {
    fn note(&mut self, step: &str, spent: Spent) {
        self.tx_hashes.insert(step.to_owned(), spent.tx);
        self.gas.insert(step.to_owned(), spent.gas);
    }
}

/// A deployment with its policy committed.
pub struct Ready {
    /// The attested enclave.
    pub enclave: Enclave,
    /// What the share holders keep.
    pub shares: KeptShares,
    /// The policy on chain.
    pub deployed: Deployed,
}

/// How patient the steps are; emulation is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// Attests, whitelists, admits, publishes the key epoch.
pub async fn admit(
    world: &World,
    summary: &mut Summary,
    say: &dyn Fn(&str),
) -> Result<(Enclave, KeptShares)> {
    let started = Instant::now();
    world.connect(PATIENCE).await?;
    summary.boot_ms = started.elapsed().as_millis() as u64;
    if let Some(boot) = world.shim.boot_time() {
        summary.boot_ms = summary.boot_ms.max(boot.as_millis() as u64);
    }
    // The first document may be of stage one; the next is over the keys to be admitted.
    let enclave = connect_stage(world, 2).await?;
    summary.attestation_signed = enclave.attested.signed;
    summary.config_hash = world.config_hash();
    let [pcr0, pcr1, pcr2] = world.pcrs.map(|p| hex::encode(p.0));
    (summary.pcr0, summary.pcr1, summary.pcr2) = (pcr0, pcr1, pcr2);
    say(&format!(
        "Enclave attested: PCR0/1/2 equal the build, PCR16 the manifest, nonce and keys bound ({})",
        if enclave.attested.signed {
            "signed up to the trusted root"
        } else {
            "EMULATED, UNSIGNED: QEMU's security module signs nothing; accepted by the development switch only"
        }
    ));
    let spent = admission::whitelist(
        &world.chain,
        &world.pcrs,
        world.config_hash(),
        "development",
        B256::ZERO,
    )
    .await?;
    for (name, spent) in ["proposeVersion", "approveConfig"].iter().zip(spent) {
        summary.note(name, spent);
    }
    crate::chain::wait_blocks(&world.chain.provider, 2).await?;
    say("Version whitelisted, configuration approved");
    let shares = world.holders.collect(&enclave).await?;
    summary.note(
        "registerOperator",
        admission::admit(&world.chain, &enclave).await?,
    );
    say("Operator registered, this boot's keys admitted");
    summary.note(
        "publishKeyEpoch",
        admission::publish_key_epoch(&world.chain, &enclave).await?,
    );
    say("Master secret's commitment and key epoch 1 published by certificate");
    Ok((enclave, shares))
}

/// Connects until the enclave's document is of this stage.
pub async fn connect_stage(world: &World, stage: u8) -> Result<Enclave> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let enclave = world.connect(PATIENCE).await?;
        if enclave.attested.stage == stage {
            return Ok(enclave);
        }
        let health: Value = enclave.call("newt_health", json!({})).await?;
        ensure!(
            health["status"] != "halted" && Instant::now() < deadline,
            "the enclave does not reach stage {stage}: {health}\n{}",
            world.console_tail()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Puts the example policy on chain and waits until all of it is committed.
pub async fn deploy_policy(
    world: &World,
    enclave: &Enclave,
    example: &Path,
    summary: &mut Summary,
    say: &dyn Fn(&str),
) -> Result<Deployed> {
    let example = Example::spend_limit(example)?;
    let secrets_key = enclave.attested.hpke_public_key;
    let deployed = policy::deploy(&world.chain, &world.da, &example, secrets_key).await?;
    for (name, spent) in &deployed.spent {
        summary.note(name, *spent);
    }
    say(&format!(
        "Policy template {} with data template {} registered, instances deployed, secrets sealed",
        deployed.policy_template, deployed.data_template
    ));
    wait_committed(world, enclave, &deployed).await?;
    let (sequence, root, spent) = last_commit(world).await?;
    summary.note("commitStateRoot", spent);
    (summary.sequence_no, summary.state_root) = (sequence, root);
    say(&format!(
        "Committed: root {root}, sequence {sequence}, transaction {}, gas {}",
        spent.tx, spent.gas
    ));
    Ok(deployed)
}

/// Waits until a policy's content and secrets are in a committed root.
///
/// # Errors
/// If that takes too long.
pub async fn wait_committed(world: &World, enclave: &Enclave, deployed: &Deployed) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = enclave
            .try_call(
                "newt_getPolicyStatus",
                json!({ "policy_client": deployed.client }),
            )
            .await;
        let secrets = enclave
            .try_call(
                "newt_getSecretsMetadata",
                json!({ "policy_data_instance_id": deployed.data_instance }),
            )
            .await;
        if let (Ok(status), Ok(secrets)) = (&status, &secrets)
            && status["ready"] == true
            && secrets["leaf"]["state"] == "committed"
        {
            return Ok(());
        }
        if Instant::now() > deadline {
            let health: Value = enclave.call("newt_health", json!({})).await?;
            anyhow::bail!(
                "not committed in time: {status:?} {secrets:?}\nhealth: {health}\n{}",
                world.console_tail()
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The newest commit on chain with what it cost.
pub async fn last_commit(world: &World) -> Result<(u64, B256, Spent)> {
    use alloy::providers::Provider;
    let registry = IStateCommitRegistry::new(
        world.chain.contracts.state_commit_registry,
        &world.chain.provider,
    );
    let events = registry
        .StateCommitted_filter()
        .from_block(0)
        .query()
        .await?;
    let (event, log) = events.last().context("nothing was committed")?;
    let tx = log
        .transaction_hash
        .context("a log without a transaction")?;
    let receipt = world
        .chain
        .provider
        .get_transaction_receipt(tx)
        .await?
        .context("a commit without a receipt")?;
    let spent = Spent {
        tx,
        gas: receipt.gas_used,
        block: receipt.block_number.unwrap_or_default(),
    };
    Ok((event.sequenceNo, event.newStateRoot, spent))
}

/// Fetches leaves with their proofs, present and absent, and checks them in Rust and by the contract.
pub async fn check_leaves(world: &World, ready: &Ready, say: &dyn Fn(&str)) -> Result<()> {
    let rego = leaves::fetch(
        &world.chain,
        &ready.enclave,
        Namespace::PolicyRego,
        ready.deployed.rego,
    )
    .await?;
    let absent = LeafKey::artifact(Namespace::PolicyDataWasm, B256::repeat_byte(0x5a));
    leaves::fetch_absent(&world.chain, &ready.enclave, absent).await?;
    say(&format!(
        "Leaf {} proved in root {} ({} siblings), and another proved absent: in Rust and by the contract",
        rego.leaf_key,
        rego.state_root,
        rego.proof.siblings.len()
    ));
    Ok(())
}

/// Two tasks: one intent that the policy allows, one that it denies.
pub async fn run_tasks(
    world: &World,
    ready: &Ready,
    example: &Path,
    summary: &mut Summary,
    say: &dyn Fn(&str),
) -> Result<()> {
    for (name, expected) in [("allow", true), ("deny", false)] {
        let intent = WireIntent::load(&example.join(format!("intents/{name}.json")))?;
        let answered = tasks::run(&world.chain, &ready.enclave, &intent, b"{}")
            .await
            .with_context(|| world.console_tail())?;
        ensure!(
            answered.allowed == expected,
            "intent {name}: the chain recorded allowed = {}",
            answered.allowed
        );
        summary.note(&format!("createTask({name})"), answered.created);
        summary.note(&format!("respondToTask({name})"), answered.responded);
        summary.eval_us.push(answered.evaluation_us);
        say(&told(&answered));
    }
    Ok(())
}

fn told(answered: &Answered) -> String {
    format!(
        "Task {}: {} (result {}), digest {}, verified on chain with EIP-2537 in {} gas",
        answered.task_id,
        if answered.allowed { "ALLOW" } else { "DENY" },
        answered.result,
        answered.digest,
        answered.responded.gas
    )
}

/// The whole main job.
pub async fn main_job(
    world: &World,
    example: &Path,
    summary: &mut Summary,
    say: &dyn Fn(&str),
) -> Result<Ready> {
    let (enclave, shares) = admit(world, summary, say).await?;
    let deployed = deploy_policy(world, &enclave, example, summary, say).await?;
    let ready = Ready {
        enclave,
        shares,
        deployed,
    };
    check_leaves(world, &ready, say).await?;
    run_tasks(world, &ready, example, summary, say).await?;
    Ok(ready)
}
