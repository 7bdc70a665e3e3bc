//! `newt_createTask` and `newt_sendTask`: the whole way of a task in one call (design 4.8, 4b).
//!
//! Both transactions are the host's to pay for and to send, or not. What is signed follows from the task that the chain shows, whoever
//! created it. An answer goes on chain from here only if this operator's weight alone is a quorum; otherwise whoever called collects the
//! signatures of the others.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use alloy_sol_types::{SolCall, SolValue};
use newton_api::RpcError;
use newton_peers::Ballot;
use newton_relay::control::Transaction;
use newton_state::registry::TaskRow;
use newton_types::{
    Address, B256, Bytes,
    abi::{self, ITaskManager},
    keccak256,
    rpc::{
        Disposition,
        ErrorName::{self, *},
    },
    signing,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    EvaluateQuery, blocking,
    describe::{
        Field,
        Kind::{self, *},
        Param, optional,
    },
    engine, internal,
    methods::{ARGUMENTS, Access, CHAIN, CLIENT, INTENT, Method, Owner, SIGNATURE, Serve, serve},
    reads::state,
    running,
    simulate::{arguments, wire_intent},
};
use crate::{
    appliance::Appliance,
    engine::Engine,
    task::{evaluate_and_sign, stored_task},
};

/// Seconds a caller waits if it names none, and the most.
const TIMEOUT: u64 = 60;
const MAX_TIMEOUT: u64 = 300;
/// How often the followed chain is looked at.
const PAUSE: Duration = Duration::from_millis(100);
/// Tasks of the blocks since the call that are looked at.
const MAX_TASKS: usize = 1_024;
/// Tasks that calls have found, so that two equal calls at once find two.
const MAX_FOUND: usize = 4_096;
/// Orders that are under way at once, those of `newt_sendTask` that go on after their answer among them.
const MAX_ORDERS: usize = 64;

/// The methods, described as those of `methods`.
pub(super) static METHODS: &[Method] = &[
    Method {
        name: "newt_createTask",
        summary: "Has the host create a task, evaluates it, and answers it on chain where this operator's weight is a quorum.",
        access: Access::Write,
        owner: Owner::No,
        params: TASK_ORDER,
        result: TASK_DONE,
        errors: TASK_ERRORS,
        serve: serve!(|app, query: CreateQuery| create(app, query).await),
    },
    Method {
        name: "newt_sendTask",
        summary: "Has the host create a task and answers at once; newt_evaluateAndSign gives the result.",
        access: Access::Write,
        owner: Owner::No,
        params: TASK_ORDER,
        result: TASK_DONE,
        errors: TASK_ERRORS,
        serve: serve!(|app, query: CreateQuery| send(app, query).await),
    },
];

const TASK_ORDER: &[Param] = &[
    CHAIN,
    CLIENT,
    INTENT,
    SIGNATURE,
    optional(
        "quorum_threshold_percentage",
        Integer,
        "from 67 to 100; the chain's",
    ),
    ARGUMENTS,
    optional("timeout", Integer, "seconds, at most 300; 60"),
];

const TASK_DONE: &[Field] = &[
    ("task_id", Hash, "the task"),
    (
        "status",
        Text,
        "success: answered on chain; processing: signed, and the signatures of other operators are needed, by newt_evaluateAndSign; \
         failed; timeout; pending of newt_sendTask",
    ),
    ("task", Kind::Bytes, "ABI encoding"),
    (
        "task_response",
        Object,
        "as newt_evaluateAndSign answers; null before that",
    ),
    ("reference_block", Integer, "the task's block"),
    (
        "expiration",
        Integer,
        "last block in which the attestation can be used; null before there is one",
    ),
    (
        "aggregation_response",
        Object,
        "certificate (ABI) and transaction of the answer on chain; null without",
    ),
    (
        "error",
        Object,
        "code, message and data of why there is none; null",
    ),
    (
        "timestamp",
        Integer,
        "of the security module, seconds since 1970",
    ),
];

const TASK_ERRORS: &[ErrorName] = &[
    AwaitingSecret,
    Halted,
    ContractError,
    PolicyNotDeployedOnChain,
    TaskNotFound,
    Abstained,
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateQuery {
    chain_id: Option<u64>,
    policy_client: Address,
    intent: Value,
    intent_signature: Option<Bytes>,
    quorum_threshold_percentage: Option<u16>,
    wasm_args: Option<Bytes>,
    timeout: Option<u64>,
}

/// Tasks that calls of this boot have created, by id, with their blocks; and the places for orders.
pub struct Found {
    tasks: Mutex<BTreeMap<B256, u64>>,
    places: Arc<Semaphore>,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            tasks: Mutex::default(),
            places: Arc::new(Semaphore::new(MAX_ORDERS)),
        }
    }
}

impl Found {
    /// A place for one order, until it is dropped.
    fn place(&self) -> Result<OwnedSemaphorePermit, RpcError> {
        self.places.clone().try_acquire_owned().map_err(|_| {
            RpcError::new(
                ErrorName::Overloaded,
                format!("{MAX_ORDERS} tasks are under way; try again"),
            )
            .with("resource", "tasks")
        })
    }

    /// Whether this call is the first to find it.
    fn claim(&self, task_id: B256, block: u64) -> bool {
        let mut found = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if found.contains_key(&task_id) {
            return false;
        }
        if found.len() >= MAX_FOUND
            && let Some(oldest) = found.iter().min_by_key(|(_, block)| **block)
        {
            let oldest = *oldest.0;
            found.remove(&oldest);
        }
        found.insert(task_id, block);
        true
    }
}

/// Creates a task, evaluates it, and answers it on chain where one operator can.
pub(super) async fn create(app: Arc<Appliance>, query: CreateQuery) -> Result<Value, RpcError> {
    let order = Order::new(&app, query)?;
    let task_id = order.create().await?;
    order.finish(task_id).await
}

/// Creates a task, and does the rest after the answer.
pub(super) async fn send(app: Arc<Appliance>, query: CreateQuery) -> Result<Value, RpcError> {
    let order = Order::new(&app, query)?;
    let task_id = order.create().await?;
    let mut answer = order.describe(task_id, "pending").await?;
    answer["error"] = Value::Null;
    tokio::spawn(async move {
        match order.finish(task_id).await {
            Ok(done) => tracing::info!(%task_id, status = %done["status"], "task done"),
            Err(e) => tracing::warn!(%task_id, error = %e, "task not done"),
        }
    });
    Ok(answer)
}

/// One call, checked.
struct Order {
    app: Arc<Appliance>,
    engine: Arc<Engine>,
    client: Address,
    intent: abi::Intent,
    signature: Option<Bytes>,
    wasm_args: Bytes,
    quorum_bps: u16,
    deadline: Instant,
    _place: OwnedSemaphorePermit,
}

impl Order {
    fn new(app: &Arc<Appliance>, query: CreateQuery) -> Result<Self, RpcError> {
        let running = running(app)?;
        let engine = engine(&running, query.chain_id)?;
        let wire = wire_intent("intent", &query.intent)?;
        let timeout = query.timeout.unwrap_or(TIMEOUT);
        if !(1..=MAX_TIMEOUT).contains(&timeout) {
            return Err(RpcError::invalid_param(
                "timeout",
                format!("{timeout} s; from 1 to {MAX_TIMEOUT}"),
            ));
        }
        let quorum_bps = match query.quorum_threshold_percentage {
            // The chain's own.
            None => 0,
            Some(percent @ 67..=100) => percent * 100,
            Some(percent) => {
                return Err(RpcError::invalid_param(
                    "quorum_threshold_percentage",
                    format!("{percent}; from 67 to 100"),
                ));
            }
        };
        Ok(Self {
            _place: engine.found.place()?,
            app: app.clone(),
            engine,
            client: query.policy_client,
            signature: query
                .intent_signature
                .or(wire.intent_signature.map(Bytes::from)),
            intent: abi::Intent {
                from: wire.intent.from,
                to: wire.intent.to,
                value: wire.intent.value,
                data: wire.intent.data.into(),
                chainId: wire.intent.chain_id,
                functionSignature: wire.intent.function_signature.into(),
            },
            wasm_args: arguments(query.wasm_args.as_ref()).into(),
            quorum_bps,
            deadline: Instant::now() + Duration::from_secs(timeout),
        })
    }

    /// Has the host create the task, and waits until the followed chain shows it.
    async fn create(&self) -> Result<B256, RpcError> {
        let engine = self.engine.clone();
        let client = self.client;
        let head = blocking(move || {
            let snapshot = engine.snapshot().map_err(|e| state(&e))?;
            let pointer = snapshot
                .registry()
                .current_policy_instance(client)
                .map_err(|e| state(&e))?;
            if pointer.is_none() {
                return Err(RpcError::new(
                    ErrorName::PolicyNotDeployedOnChain,
                    format!("client {client} has no current policy instance"),
                ));
            }
            let head = snapshot.pending().map(|p| p.head().number);
            Ok(head.or(snapshot.finalized().map(|h| h.number)).unwrap_or(0))
        })
        .await?;
        let call = ITaskManager::createTaskCall {
            client: self.client,
            intent: self.intent.clone(),
            wasmArgs: self.wasm_args.clone(),
            quorumBps: self.quorum_bps,
        };
        let transaction = self.submit("createTask", call.abi_encode()).await?;
        tracing::info!(client = %self.client, tx = %transaction, "task submitted");
        loop {
            if let Some(task_id) = self.look(head + 1).await? {
                return Ok(task_id);
            }
            if Instant::now() > self.deadline {
                return Err(RpcError::new(
                    ErrorName::Abstained,
                    "the chain has not shown the task in time; it may still come",
                )
                .with("transaction", transaction.to_string()));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A task of blocks from `block` on that is what was asked for and that no other call has found.
    async fn look(&self, block: u64) -> Result<Option<B256>, RpcError> {
        let engine = self.engine.clone();
        let wanted = (
            self.client,
            signing::intent_hash(&self.intent),
            keccak256(&self.wasm_args),
        );
        blocking(move || {
            let snapshot = engine.snapshot().map_err(|e| state(&e))?;
            for task_id in snapshot.tasks(block, MAX_TASKS).map_err(|e| state(&e))? {
                let task = stored_task(&snapshot, task_id)?
                    .task()
                    .map_err(|e| state(&e))?;
                if (task.client, task.intentHash, task.wasmArgsHash) == wanted
                    && engine.found.claim(task_id, task.referenceBlock)
                {
                    return Ok(Some(task_id));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Evaluates and, where this operator's weight suffices, answers on chain.
    async fn finish(&self, task_id: B256) -> Result<Value, RpcError> {
        let response = loop {
            let query = EvaluateQuery {
                chain_id: Some(self.engine.chain.chain_id),
                task_id,
                intent_signature: self.signature.clone(),
                round: None,
                outputs: None,
            };
            match evaluate_and_sign(&self.app, query).await {
                Ok(response) => break response,
                Err(e) if e.name.disposition() == Disposition::Retryable => {
                    if Instant::now() > self.deadline {
                        return self.ended(task_id, "timeout", &e).await;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Err(e) => return self.ended(task_id, "failed", &e).await,
            }
        };
        let mut answer = self.describe(task_id, "processing").await?;
        answer["error"] = Value::Null;
        if let Some((certificate, call)) = self.certified(task_id, &response).await? {
            let transaction = self.submit("respondToTask", call).await?;
            answer["aggregation_response"] = json!({
                "certificate": Bytes::from(certificate.abi_encode()),
                "transaction": transaction,
            });
            answer["status"] = json!(if self.answered(task_id).await? {
                "success"
            } else {
                "timeout"
            });
        }
        let attestation = response_bytes(&response, "attestation")?;
        let attestation =
            abi::PolicyAttestation::abi_decode(&attestation).map_err(|e| internal(&e))?;
        answer["expiration"] = json!(attestation.expirationBlock);
        answer["task_response"] = response;
        Ok(answer)
    }

    /// The certificate and the call that answers the task, if this boot's signature alone is a quorum of the task's set.
    async fn certified(
        &self,
        task_id: B256,
        response: &Value,
    ) -> Result<Option<(abi::Certificate, Vec<u8>)>, RpcError> {
        let signature = response_bytes(response, "signature")?;
        let attestation = response_bytes(response, "attestation")?;
        let attestation =
            abi::PolicyAttestation::abi_decode(&attestation).map_err(|e| internal(&e))?;
        let digest = response_bytes(response, "digest")?;
        let digest = B256::try_from(digest.as_ref()).map_err(|e| internal(&e))?;
        let ours = B256::from(self.app.identity.bls_public().hash());
        let engine = self.engine.clone();
        blocking(move || {
            let snapshot = engine.snapshot().map_err(|e| state(&e))?;
            let task = task(&stored_task(&snapshot, task_id)?)?;
            let registry = snapshot.registry();
            let set = registry
                .operator_set(task.operatorSetId)
                .map_err(|e| state(&e))?;
            let rules = registry
                .parameters_at(task.referenceTimestamp)
                .map_err(|e| state(&e))?;
            let (Some(set), Some(mut rules)) = (set, rules) else {
                return Ok(None);
            };
            rules.quorum_bps = rules.quorum_bps.max(task.quorumBps);
            let mut ballot = Ballot::new(digest);
            if ballot.add(&set, ours, &signature).is_err() {
                return Ok(None);
            }
            Ok(ballot.certificate(&set, &rules).map(|certificate| {
                let call = ITaskManager::respondToTaskCall {
                    taskId: task_id,
                    task,
                    attestation,
                    certificate: certificate.clone(),
                };
                (certificate, call.abi_encode())
            }))
        })
        .await
    }

    /// Waits until the followed chain shows an answer; false if it does not in time.
    async fn answered(&self, task_id: B256) -> Result<bool, RpcError> {
        loop {
            let engine = self.engine.clone();
            let answered = blocking(move || {
                let snapshot = engine.snapshot().map_err(|e| state(&e))?;
                Ok(stored_task(&snapshot, task_id)?.response_digest.is_some())
            })
            .await?;
            if answered || Instant::now() > self.deadline {
                return Ok(answered);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ended(&self, task_id: B256, status: &str, e: &RpcError) -> Result<Value, RpcError> {
        let mut answer = self.describe(task_id, status).await?;
        answer["error"] = e.to_json();
        Ok(answer)
    }

    /// What every answer has; `null` is what is not known yet.
    async fn describe(&self, task_id: B256, status: &str) -> Result<Value, RpcError> {
        let (engine, status) = (self.engine.clone(), status.to_owned());
        blocking(move || {
            let snapshot = engine.snapshot().map_err(|e| state(&e))?;
            let task = task(&stored_task(&snapshot, task_id)?)?;
            Ok(json!({
                "task_id": task_id,
                "status": status,
                "task": Bytes::from(task.abi_encode()),
                "task_response": null,
                "reference_block": task.referenceBlock,
                "expiration": null,
                "aggregation_response": null,
                "timestamp": engine.time_seconds(),
            }))
        })
        .await
    }

    async fn submit(&self, what: &'static str, calldata: Vec<u8>) -> Result<B256, RpcError> {
        let app = self.app.clone();
        let transaction = Transaction {
            chain_id: self.engine.chain.chain_id,
            to: self.engine.chain.contracts.task_manager.into(),
            calldata,
            // The host's node estimates it.
            gas_limit: 0,
        };
        blocking(move || {
            app.control
                .submit(transaction)
                .map(B256::from)
                .map_err(|e| RpcError::new(ErrorName::ContractError, format!("{what}: {e}")))
        })
        .await
    }
}

fn task(row: &TaskRow) -> Result<abi::Task, RpcError> {
    row.task().map_err(|e| state(&e))
}

/// A hexadecimal member of an answer of ours.
fn response_bytes(response: &Value, member: &'static str) -> Result<Bytes, RpcError> {
    serde_json::from_value(response[member].clone())
        .map_err(|e| internal(&format!("{member}: {e}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn orders_are_bounded_and_the_refusal_is_typed() {
        let found = Found::default();
        let mut places: Vec<_> = (0..MAX_ORDERS).map(|_| found.place().unwrap()).collect();
        let error = found.place().unwrap_err();
        assert_eq!(error.name, ErrorName::Overloaded);
        assert_eq!(error.data["resource"], "tasks");
        places.pop();
        assert!(found.place().is_ok());
    }

    #[test]
    fn a_task_is_found_once_and_the_oldest_is_forgotten() {
        let found = Found::default();
        let id = |n: usize| B256::left_padding_from(&n.to_be_bytes());
        for n in 0..MAX_FOUND {
            assert!(found.claim(id(n), n as u64));
            assert!(!found.claim(id(n), n as u64));
        }
        assert!(found.claim(id(MAX_FOUND), MAX_FOUND as u64));
        assert!(found.claim(id(0), 0), "forgotten");
        assert!(!found.claim(id(MAX_FOUND), MAX_FOUND as u64));
    }
}
