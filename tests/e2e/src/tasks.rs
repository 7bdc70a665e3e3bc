//! A client's task: created on chain, evaluated by the enclave, answered on chain.

use alloy::{
    primitives::{Address, B256, Bytes, U256, hex, keccak256},
    sol_types::{SolEvent, SolValue},
};
use anyhow::{Context, Result, bail, ensure};
use newton_contracts::abi::{ITaskManager, Intent, PolicyAttestation, Task};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

use crate::{
    admission::{Chain, certificate},
    chain::{Spent, explain, send},
    enclave::Enclave,
};
use newton_api::client::ClientError;

/// An intent in the wire form of `tests/examples/*/…json` (design 4b).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireIntent {
    from: Address,
    to: Address,
    value: U256,
    #[serde(rename = "chain_id")]
    chain_id: U256,
    data: Bytes,
    function_signature: Bytes,
}

impl WireIntent {
    /// Reads a file.
    pub fn load(path: &std::path::Path) -> Result<Intent> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let wire: Self = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        Ok(Intent {
            from: wire.from,
            to: wire.to,
            value: wire.value,
            data: wire.data,
            chainId: wire.chain_id,
            functionSignature: wire.function_signature,
        })
    }
}

/// What became of a task.
#[derive(Debug)]
pub struct Answered {
    /// Task id.
    pub task_id: B256,
    /// Digest that was signed and verified on chain.
    pub digest: B256,
    /// Whether the result was `true`, as the contract recorded it.
    pub allowed: bool,
    /// The result as JSON.
    pub result: Value,
    /// Time of the evaluation inside the enclave, microseconds.
    pub evaluation_us: u64,
    /// Creating the task.
    pub created: Spent,
    /// Answering it.
    pub responded: Spent,
}

/// What `newt_evaluateAndSign` answers.
#[derive(Deserialize)]
pub struct Evaluated {
    /// ABI encoding of the attestation.
    pub attestation: Bytes,
    /// Its EIP-712 digest.
    pub digest: B256,
    /// Signature, EIP-2537 form.
    pub signature: Bytes,
    /// The entrypoint's value.
    pub result: Value,
    /// Microseconds inside the enclave.
    pub evaluation_us: u64,
}

/// Creates a task for the client and gives back its id and snapshot.
pub async fn create(
    chain: &Chain,
    intent: &Intent,
    wasm_args: &[u8],
) -> Result<(B256, Task, Spent)> {
    let manager = ITaskManager::new(chain.contracts.task_manager, &chain.provider);
    let client = chain.accounts.client;
    let call = manager
        .createTask(client, intent.clone(), Bytes::copy_from_slice(wasm_args), 0)
        .from(client);
    let receipt = call
        .send()
        .await
        .map_err(|e| explain("createTask", &e))?
        .get_receipt()
        .await
        .context("createTask: no receipt")?;
    ensure!(
        receipt.status(),
        "createTask reverted in {}",
        receipt.transaction_hash
    );
    let created = receipt
        .inner
        .logs()
        .iter()
        .find_map(|log| ITaskManager::TaskCreated::decode_log(&log.inner).ok())
        .context("createTask made no TaskCreated event")?;
    let spent = Spent {
        tx: receipt.transaction_hash,
        gas: receipt.gas_used,
        block: receipt.block_number.unwrap_or_default(),
    };
    Ok((created.taskId, created.task.clone(), spent))
}

/// Asks the enclave for its evaluation, waiting while it has not seen the task yet.
pub async fn evaluate(enclave: &Enclave, task_id: B256, patience: Duration) -> Result<Evaluated> {
    let deadline = Instant::now() + patience;
    loop {
        match enclave
            .try_call("newt_evaluateAndSign", json!({ "task_id": task_id }))
            .await
        {
            Ok(answer) => {
                return serde_json::from_value(answer).context("newt_evaluateAndSign's answer");
            }
            Err(ClientError::Rpc(e))
                if e.name.disposition() == newton_types::rpc::Disposition::Retryable
                    && Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(e) => return Err(e).context("newt_evaluateAndSign"),
        }
    }
}

/// The whole way: create, evaluate, answer on chain, read back what the contract stored.
pub async fn run(
    chain: &Chain,
    enclave: &Enclave,
    intent: &Intent,
    wasm_args: &[u8],
) -> Result<Answered> {
    let (task_id, task, created) = create(chain, intent, wasm_args).await?;
    let evaluated = evaluate(enclave, task_id, Duration::from_secs(60)).await?;
    let attestation =
        PolicyAttestation::abi_decode(&evaluated.attestation).context("attestation")?;
    let manager = ITaskManager::new(chain.contracts.task_manager, &chain.provider);
    let digest = manager
        .attestationDigest(attestation.clone())
        .call()
        .await?;
    ensure!(
        digest == evaluated.digest,
        "the contract computes digest {digest}, the enclave signed {}",
        evaluated.digest
    );
    let certificate = certificate(chain, evaluated.signature).await?;
    let responded = send(
        "respondToTask",
        chain.accounts.operator,
        manager.respondToTask(task_id, task, attestation.clone(), certificate),
    )
    .await?;
    let stored = manager.responses(task_id).call().await?;
    ensure!(
        stored.digest == digest,
        "the contract stored another digest"
    );
    let allowed = attestation.evaluationResultHash == keccak256("true");
    if stored.allowed != allowed {
        bail!(
            "the contract recorded allowed = {}, the attestation says {allowed}",
            stored.allowed
        );
    }
    Ok(Answered {
        task_id,
        digest,
        allowed,
        result: evaluated.result,
        evaluation_us: evaluated.evaluation_us,
        created,
        responded,
    })
}

/// `0x`-less hex of a function signature as it stands on the wire, for messages.
pub fn signature_text(intent: &Intent) -> String {
    String::from_utf8(intent.functionSignature.to_vec())
        .unwrap_or_else(|_| hex::encode(&intent.functionSignature))
}
