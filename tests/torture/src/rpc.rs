//! The chain's node: answers from the blocks, bent as planned.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy_sol_types::SolEvent;
use newton_chain::{ChainError, JsonRpcTransport};
use newton_http::BoxFuture;
use newton_types::events::{Artifact, Block, ConsensusParameters, RegistryEvent};
use newton_types::manifest::Contracts;
use newton_types::{Address, B256, abi};
use serde_json::{Value, json};

use crate::disk::Host;
use crate::plan::Rpc as Fault;
use crate::random::Random;
use crate::world::{CHAIN_ID, World, block, committed};

/// Blocks between the head and the finalized head.
const FINALITY: u64 = 2;

/// The contracts of all runs.
#[must_use]
pub fn contracts() -> Contracts {
    let at = |i: u8| Address::repeat_byte(0xa0 + i);
    Contracts {
        enclave_version_registry: at(0),
        operator_registry: at(1),
        key_registry: at(2),
        state_commit_registry: at(3),
        policy_client_registry: at(4),
        policy_registry: at(5),
        policy_data_registry: at(6),
        task_manager: at(7),
    }
}

/// A node. Clones share it.
#[derive(Clone)]
pub struct Node(Arc<Mutex<State>>);

/// What it shows and does.
pub struct State {
    world: Arc<World>,
    host: Host,
    /// The newest block.
    pub head: u64,
    /// Whether everything up to the head is final.
    pub all_final: bool,
    /// Blocks shown in the place of those above the finalized head.
    fork: Vec<Block>,
    requests: u64,
    faults: BTreeMap<u64, (Fault, u64)>,
    /// Faults that took place.
    pub injected: Vec<String>,
}

impl Node {
    /// A node over the blocks.
    #[must_use]
    pub fn new(world: Arc<World>, host: Host, faults: BTreeMap<u64, (Fault, u64)>) -> Self {
        Self(Arc::new(Mutex::new(State {
            world,
            host,
            head: 1,
            all_final: false,
            fork: Vec::new(),
            requests: 0,
            faults,
            injected: Vec::new(),
        })))
    }

    /// What it shows.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// No more faults from here on.
    pub fn behave(&mut self) {
        self.faults.clear();
        self.fork.clear();
    }

    /// Moves the head on; a fork does not live longer.
    pub fn advance(&mut self, blocks: u64) {
        self.head = (self.head + blocks).min(self.world.blocks.len() as u64 - 1);
        self.fork.clear();
    }

    fn finalized(&self) -> u64 {
        if self.all_final {
            self.head
        } else {
            self.head.saturating_sub(FINALITY)
        }
    }

    fn block(&self, number: u64) -> Option<&Block> {
        if number > self.head {
            return None;
        }
        match number.checked_sub(self.finalized() + 1) {
            Some(i) if !self.fork.is_empty() => self.fork.get(i as usize),
            _ => self.world.blocks.get(number as usize),
        }
    }

    /// Another branch from the finalized head on: the same heights, no events, and a commit that nobody derives or, as a
    /// host that has seen the enclave's vote could, the one that this enclave derives.
    fn fork(&mut self, dice: u64) {
        let mut random = Random::of(dice, 6);
        let finalized = self.finalized();
        let base = &self.world.blocks[finalized as usize];
        let landed = newton_model::chain_commits(&self.world.blocks[..=finalized as usize]).len();
        let derived = self
            .world
            .derived(finalized as usize)
            .commits
            .get(landed)
            .cloned();
        let mut commit = derived.unwrap_or_default();
        commit.sequenceNo = landed as u64 + 1;
        commit.newStateRoot = B256::repeat_byte(random.draw() as u8);
        let (mut parent, mut time) = (base.header.hash, base.header.timestamp);
        let mut blocks = Vec::new();
        for number in finalized + 1..=self.head {
            time += random.below(5);
            let events = if number == finalized + 1 {
                vec![committed(&commit)]
            } else {
                vec![]
            };
            let next = block(number, parent, time, events);
            parent = next.header.hash;
            blocks.push(next);
        }
        self.fork = blocks;
    }

    fn number(&self, tag: &Value) -> u64 {
        match tag.as_str() {
            Some("latest") => self.head,
            Some("finalized") => self.finalized(),
            Some(hex) => u64::from_str_radix(hex.trim_start_matches("0x"), 16).unwrap_or(u64::MAX),
            None => u64::MAX,
        }
    }

    fn answer(&self, call: &Value) -> Value {
        let params = &call["params"];
        let result = match call["method"].as_str().unwrap_or_default() {
            "eth_chainId" => json!(format!("{CHAIN_ID:#x}")),
            "eth_getBlockByNumber" => self
                .block(self.number(&params[0]))
                .map_or(Value::Null, header),
            "eth_getLogs" => {
                let (from, to) = (&params[0]["fromBlock"], &params[0]["toBlock"]);
                (self.number(from)..=self.number(to))
                    .filter_map(|n| self.block(n))
                    .flat_map(logs)
                    .collect()
            }
            _ => Value::Null,
        };
        json!({"jsonrpc": "2.0", "id": call["id"], "result": result})
    }

    fn request(&mut self, body: &[u8]) -> Result<Vec<u8>, ChainError> {
        self.host.look_at("a question to the node", body);
        let calls: Value = serde_json::from_slice(body).unwrap_or_default();
        let number = self.requests;
        self.requests += 1;
        let due = self.faults.iter().next().map(|(at, fault)| (*at, *fault));
        let mut fault = due.filter(|(at, _)| *at <= number);
        let method = calls
            .get(0)
            .unwrap_or(&calls)
            .get("method")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if let Some((_, (kind, dice))) = fault
            && kind == Fault::ForkPending
            && method == "eth_getBlockByNumber"
            && self.head > self.finalized()
        {
            self.fork(dice);
        }
        let mut answer = match &calls {
            Value::Array(calls) => Value::Array(calls.iter().map(|c| self.answer(c)).collect()),
            call => self.answer(call),
        };
        let mut bytes = None;
        if let Some((at, (kind, dice))) = fault {
            match bend(self, kind, dice, method, &calls, &mut answer) {
                Bent::No => fault = None,
                Bent::Answer => {}
                Bent::Bytes(with) => bytes = Some(with),
                Bent::Error(error) => bytes = Some(Err(error)),
            }
            if fault.is_some() {
                self.faults.remove(&at);
                self.injected.push(format!("rpc.{kind:?}"));
            }
        }
        bytes.unwrap_or_else(|| Ok(answer.to_string().into_bytes()))
    }
}

impl JsonRpcTransport for Node {
    fn request(&self, body: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, ChainError>> {
        let answer = self.state().request(&body);
        Box::pin(async move { answer })
    }
}

enum Bent {
    /// The fault does not fit the question.
    No,
    /// The answer was changed.
    Answer,
    /// These bytes instead.
    Bytes(Result<Vec<u8>, ChainError>),
    /// No answer.
    Error(ChainError),
}

fn bend(
    state: &State,
    kind: Fault,
    dice: u64,
    method: &str,
    calls: &Value,
    answer: &mut Value,
) -> Bent {
    let mut random = Random::of(dice, 5);
    if kind == Fault::Cut {
        let text = answer.to_string().into_bytes();
        return Bent::Bytes(Ok(text[..text.len() / 2].to_vec()));
    }
    let blocks = method == "eth_getBlockByNumber";
    let one = match answer {
        Value::Array(list) => {
            let at = random.below(list.len().max(1) as u64) as usize;
            &mut list[at]
        }
        one => one,
    };
    let result = &mut one["result"];
    let logs = result.as_array().map_or(0, Vec::len);
    match kind {
        Fault::Unreachable => return Bent::Error(ChainError::Unreachable("as planned".into())),
        Fault::Garbage => return Bent::Bytes(Ok(b"{\"id\":0,\"result\":".to_vec())),
        Fault::Refuse => {
            *one = json!({"id": one["id"], "error": {"code": -32000, "message": "as planned"}});
        }
        Fault::WrongId => one["id"] = json!(4_096),
        Fault::Null if blocks => *result = Value::Null,
        Fault::WrongHeight if blocks && calls.is_array() => result["number"] = json!("0xfffff"),
        Fault::WrongHash if blocks && calls.is_array() => {
            result["hash"] = json!(B256::repeat_byte(0x66));
        }
        Fault::BrokenLink if blocks && calls.is_array() => {
            result["parentHash"] = json!(B256::repeat_byte(0x67));
        }
        Fault::ForeignLog if logs > 0 => result[0]["address"] = json!(Address::repeat_byte(0x11)),
        Fault::LogOfOtherBlock if logs > 0 => {
            result[0]["blockHash"] = json!(B256::repeat_byte(0x68));
        }
        Fault::SwapLogs if logs > 1 => {
            if let Some(list) = result.as_array_mut() {
                list.swap(0, logs - 1);
            }
        }
        Fault::RepeatLog if logs > 0 => {
            if let Some(list) = result.as_array_mut() {
                list.push(list[logs - 1].clone());
            }
        }
        Fault::RemovedLog if logs > 0 => result[0]["removed"] = json!(true),
        Fault::FinalityBack if blocks && calls["params"][0] == "finalized" => {
            let back = state.finalized().saturating_sub(1 + random.below(4));
            *result = header(&state.world.blocks[back as usize]);
        }
        Fault::HeadBack if blocks && calls["params"][0] == "latest" => {
            let back = state.finalized();
            *result = header(&state.world.blocks[back as usize]);
        }
        Fault::ForkPending if !state.fork.is_empty() => {}
        _ => return Bent::No,
    }
    Bent::Answer
}

fn header(block: &Block) -> Value {
    let header = &block.header;
    json!({
        "number": format!("{:#x}", header.number),
        "hash": header.hash,
        "parentHash": header.parent_hash,
        "timestamp": format!("{:#x}", header.timestamp),
    })
}

fn logs(block: &Block) -> Vec<Value> {
    let at = contracts();
    let log = |event: &newton_types::events::ChainEvent| {
        let (address, data) = match &event.event {
            RegistryEvent::PolicyTemplateRegistered {
                id,
                author,
                rego,
                params_schema,
                entrypoint,
                data_template_refs,
                da_refs,
            } => (
                at.policy_registry,
                abi::IPolicyRegistry::PolicyTemplateRegistered {
                    policyTemplateId: *id,
                    author: *author,
                    rego: artifact(rego),
                    paramsSchema: artifact(params_schema),
                    entrypoint: entrypoint.clone(),
                    dataTemplateRefs: data_template_refs.clone(),
                    daRefs: da_refs.clone(),
                }
                .encode_log_data(),
            ),
            RegistryEvent::ArtifactSupplied {
                namespace,
                artifact,
                supplier,
                da_ref,
            } => (
                at.policy_registry,
                abi::IPolicyRegistry::ArtifactSupplied {
                    namespace: *namespace as u8,
                    artifactHash: artifact.hash,
                    supplier: *supplier,
                    byteLength: artifact.length,
                    daRef: da_ref.clone(),
                }
                .encode_log_data(),
            ),
            RegistryEvent::SecretsSet {
                instance_id,
                client,
                poster,
                by_owner,
                envelope,
                da_ref,
                count,
            } => (
                at.policy_data_registry,
                abi::IPolicyDataRegistry::SecretsSet {
                    policyDataInstanceId: *instance_id,
                    client: *client,
                    poster: *poster,
                    byOwner: *by_owner,
                    envelope: artifact(envelope),
                    daRef: da_ref.clone(),
                    count: *count,
                }
                .encode_log_data(),
            ),
            RegistryEvent::EntrySkipped { entry } => (
                at.state_commit_registry,
                abi::IStateCommitRegistry::EntrySkipped {
                    blockNumber: entry.block,
                    txIndex: entry.tx,
                    logIndex: entry.log,
                    item: entry.item,
                }
                .encode_log_data(),
            ),
            RegistryEvent::StateCommitted { commit, digest, .. } => (
                at.state_commit_registry,
                abi::IStateCommitRegistry::StateCommitted {
                    sequenceNo: commit.sequenceNo,
                    newStateRoot: commit.newStateRoot,
                    commit: commit.clone(),
                    digest: *digest,
                    deltaDaRefs: vec![],
                }
                .encode_log_data(),
            ),
            RegistryEvent::ConsensusParametersSet {
                parameters,
                active_from_timestamp,
            } => (
                at.state_commit_registry,
                abi::IStateCommitRegistry::ConsensusParametersSet {
                    parameters: sol(parameters),
                    activeFromTimestamp: *active_from_timestamp,
                }
                .encode_log_data(),
            ),
            RegistryEvent::RulesVersionScheduled {
                rules_version,
                active_from,
            } => (
                at.enclave_version_registry,
                abi::IEnclaveVersionRegistry::RulesVersionScheduled {
                    rulesVersion: *rules_version,
                    activeFrom: *active_from,
                }
                .encode_log_data(),
            ),
            other => unreachable!("no run has {other:?}"),
        };
        json!({
            "address": address, "topics": data.topics(), "data": data.data,
            "blockHash": block.header.hash, "blockNumber": format!("{:#x}", block.header.number),
            "transactionIndex": format!("{:#x}", event.position.tx),
            "logIndex": format!("{:#x}", event.position.log), "removed": false,
        })
    };
    block.events.iter().map(log).collect()
}

fn artifact(artifact: &Artifact) -> abi::ArtifactRef {
    abi::ArtifactRef {
        artifactHash: artifact.hash,
        byteLength: artifact.length,
    }
}

fn sol(p: &ConsensusParameters) -> abi::ConsensusParameters {
    abi::ConsensusParameters {
        genesisTime: p.genesis_time,
        cadence: p.cadence,
        maxCommitBytes: p.max_commit_bytes,
        maxArtifactBytes: p.max_artifact_bytes,
        maxExpireAfter: p.max_expire_after,
        quorumBps: p.quorum_bps,
        minSigners: p.min_signers,
        maxSetAge: p.max_set_age,
        maxDeferQueueBytes: p.max_defer_queue_bytes,
        authorQuotaBytes: p.author_quota_bytes,
        responseWindow: p.response_window,
        challengeWindow: p.challenge_window,
        skipEmpty: p.skip_empty,
    }
}
