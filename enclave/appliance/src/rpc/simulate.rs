//! Simulations: the evaluation of a task without the task. Nothing is stored and nothing is signed (design 4b).
//!
//! Content of the caller (a policy's source, documents) goes to the keyless workers only. Stored secrets are opened for the client's
//! owner, who signs the call; everybody else is told which secrets were missing.

mod answer;
mod documents;

use std::{collections::BTreeSet, sync::Arc};

use newton_api::RpcError;
use newton_evaluate::{
    ArtifactError, ArtifactKind, EvaluateRequest, Intent, PolicyInput, RULES_VERSION_1,
    SecretBytes, TaskContext, intent::WireIntent, rego::default_entrypoint, worker::Verdict,
};
use newton_state::Snapshot;
use newton_types::{Address, B256, Bytes, U256, keccak256, rpc::ErrorName};
use serde::Deserialize;
use serde_json::Value;

use super::{
    blocking, engine,
    owner::{Signed, head_block, head_time},
    reads::state,
    running,
};
use crate::{
    appliance::Appliance,
    assemble::{Assembler, Data, Stored, abstain, evaluated},
    engine::Engine,
    running::Running,
    task::{check_root, context, stored_task},
};
use answer::Simulated;
pub(super) use answer::violations;
use documents::document;
pub(super) use documents::{arguments, wire_intent};

/// Names, as owners sign them.
pub(super) const POLICY: &str = "newt_simulatePolicy";
pub(super) const DATA_WITH_CLIENT: &str = "newt_simulatePolicyDataWithClient";
pub(super) const TASK: &str = "newt_simulateTask";

/// Data components of one simulated policy.
const MAX_DATA: usize = 16;

/// The policy around a data component that is simulated alone.
const ALLOW: &str = "package simulation\n\nallow := true\n";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyQuery {
    chain_id: Option<u64>,
    policy_client: Address,
    policy: String,
    intent: Value,
    entrypoint: Option<String>,
    #[serde(default)]
    policy_data: Vec<DataEntry>,
    policy_params: Option<Value>,
    intent_signature: Option<Bytes>,
}

/// One data component: a deployed instance, or a template with params.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DataEntry {
    pub(super) policy_data_instance_id: Option<B256>,
    pub(super) policy_data_address: Option<Value>,
    pub(super) policy_data_template_id: Option<B256>,
    pub(super) params: Option<Value>,
    pub(super) secrets: Option<Value>,
    pub(super) wasm_args: Option<Bytes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DataQuery {
    chain_id: Option<u64>,
    policy_client: Option<Address>,
    policy_data_instance_id: Option<B256>,
    policy_data_address: Option<Value>,
    policy_data_template_id: Option<B256>,
    params: Option<Value>,
    secrets: Option<Value>,
    wasm_args: Option<Bytes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientDataQuery {
    chain_id: Option<u64>,
    policy_client: Address,
    policy_data_instance_id: Option<B256>,
    policy_data_address: Option<Value>,
    wasm_args: Option<Bytes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskQuery {
    chain_id: Option<u64>,
    task_id: Option<B256>,
    policy_client: Option<Address>,
    intent: Option<Value>,
    intent_signature: Option<Bytes>,
    wasm_args: Option<Bytes>,
}

/// A policy's source that stands on no chain, over data components that do.
pub(super) async fn policy(
    app: &Arc<Appliance>,
    call: Signed<PolicyQuery>,
) -> Result<Value, RpcError> {
    let chain_id = call.query.chain_id;
    simulate(app, chain_id, move |running, engine, snapshot| {
        let query = &call.query;
        let client = query.policy_client;
        let stored = stored(&call, engine, snapshot, POLICY, client)?;
        let mut intent = wire_intent("intent", &query.intent)?;
        if let Some(signature) = &query.intent_signature {
            intent.intent_signature = Some(signature.to_vec());
        }
        let params = document("policy_params", query.policy_params.as_ref())?;
        let entrypoint = match &query.entrypoint {
            Some(entrypoint) => entrypoint.clone(),
            None => default_entrypoint(&query.policy).ok_or_else(|| {
                RpcError::invalid_param(
                    "entrypoint",
                    "the source does not begin with a package name, so name the entrypoint",
                )
            })?,
        };
        check_source(running, &query.policy, &entrypoint)?;
        if query.policy_data.len() > MAX_DATA {
            return Err(RpcError::invalid_param(
                "policy_data",
                format!("at most {MAX_DATA} components"),
            ));
        }
        let assembler = at_head(running, engine, snapshot, stored);
        let wasm_args = common_arguments(&query.policy_data)?;
        let data = query
            .policy_data
            .iter()
            .map(|entry| entry.resolve(&assembler, client))
            .collect::<Result<Vec<_>, _>>()?;
        let refs: BTreeSet<B256> = data.iter().map(|d| d.input.template_id).collect();
        if refs.len() != data.len() {
            return Err(RpcError::invalid_param(
                "policy_data",
                "two entries have the same data template; a policy takes one instance of each",
            ));
        }
        let policy = PolicyInput {
            client,
            rego: keccak256(&query.policy),
            entrypoint,
            params_schema: None,
            params,
            data_template_refs: refs.into_iter().collect(),
        };
        let simulated = Simulated::new(&data, None, stored);
        let task = at_head_context(&assembler)?;
        let request = request(task, intent, wasm_args, policy, data);
        let outcome = assembler.evaluate(&request, Some(query.policy.as_bytes()));
        simulated.policy(&request.policy.entrypoint, outcome)
    })
    .await
}

/// One data component, with secrets that come with the call or without any.
pub(super) async fn data(app: &Arc<Appliance>, query: DataQuery) -> Result<Value, RpcError> {
    simulate(app, query.chain_id, move |running, engine, snapshot| {
        let entry = DataEntry {
            policy_data_instance_id: query.policy_data_instance_id,
            policy_data_address: query.policy_data_address,
            policy_data_template_id: query.policy_data_template_id,
            params: query.params,
            secrets: query.secrets,
            wasm_args: query.wasm_args,
        };
        let assembler = at_head(running, engine, snapshot, Stored::LeaveShut);
        let client = match (query.policy_client, entry.policy_data_template_id) {
            (Some(client), _) => client,
            // Public clients name the instance alone, and it names its client.
            (None, None) => {
                let id = renamed(
                    entry.policy_data_instance_id,
                    entry.policy_data_address.as_ref(),
                )?;
                assembler.data(id)?.input.client
            }
            (None, Some(_)) => {
                return Err(RpcError::invalid_param(
                    "policy_client",
                    "missing: a template has no client of its own",
                ));
            }
        };
        component(&assembler, client, &entry)
    })
    .await
}

/// One data component, with the secrets stored for it. The client's owner only.
pub(super) async fn data_with_client(
    app: &Arc<Appliance>,
    call: Signed<ClientDataQuery>,
) -> Result<Value, RpcError> {
    let chain_id = call.query.chain_id;
    simulate(app, chain_id, move |running, engine, snapshot| {
        let query = &call.query;
        let client = query.policy_client;
        call.check(engine, snapshot, DATA_WITH_CLIENT, client)?;
        let entry = DataEntry {
            policy_data_instance_id: query.policy_data_instance_id,
            policy_data_address: query.policy_data_address.clone(),
            policy_data_template_id: None,
            params: None,
            secrets: None,
            wasm_args: query.wasm_args.clone(),
        };
        let assembler = at_head(running, engine, snapshot, Stored::Open);
        component(&assembler, client, &entry)
    })
    .await
}

/// A task of the chain, or the one that `createTask` would make now.
pub(super) async fn task(app: &Arc<Appliance>, call: Signed<TaskQuery>) -> Result<Value, RpcError> {
    let chain_id = call.query.chain_id;
    simulate(app, chain_id, move |running, engine, snapshot| {
        match call.query.task_id {
            Some(id) => existing_task(running, engine, snapshot, &call, id),
            None => next_task(running, engine, snapshot, &call),
        }
    })
    .await
}

fn existing_task(
    running: &Running,
    engine: &Engine,
    snapshot: &Snapshot,
    call: &Signed<TaskQuery>,
    id: B256,
) -> Result<Value, RpcError> {
    let query = &call.query;
    for (field, given) in [
        ("policy_client", query.policy_client.is_some()),
        ("intent", query.intent.is_some()),
        ("wasm_args", query.wasm_args.is_some()),
    ] {
        if given {
            return Err(RpcError::invalid_param(
                field,
                "stands in the task that task_id names",
            ));
        }
    }
    let row = stored_task(snapshot, id)?;
    let task = row.task().map_err(|e| state(&e))?;
    check_root(snapshot, &task)?;
    let stored = stored(call, engine, snapshot, TASK, task.client)?;
    let assembler = Assembler {
        running,
        engine,
        snapshot,
        before: task.referenceBlock,
        sequence: task.stateSequenceNo,
        stored,
    };
    let intent = WireIntent {
        intent: evaluated(&row.intent().map_err(|e| state(&e))?),
        intent_signature: query.intent_signature.as_ref().map(|s| s.to_vec()),
    };
    let what = Whole {
        context: context(id, &task),
        policy_instance: task.policyInstanceId,
        data_instances: task.dataInstanceIds,
        intent,
        wasm_args: row.wasm_args.to_vec(),
    };
    whole(&assembler, what)
}

fn next_task(
    running: &Running,
    engine: &Engine,
    snapshot: &Snapshot,
    call: &Signed<TaskQuery>,
) -> Result<Value, RpcError> {
    let query = &call.query;
    let missing = |field| RpcError::invalid_param(field, "needed where no task_id is given");
    let client = query
        .policy_client
        .ok_or_else(|| missing("policy_client"))?;
    let intent = query.intent.as_ref().ok_or_else(|| missing("intent"))?;
    let mut intent = wire_intent("intent", intent)?;
    if let Some(signature) = &query.intent_signature {
        intent.intent_signature = Some(signature.to_vec());
    }
    let stored = stored(call, engine, snapshot, TASK, client)?;
    let assembler = at_head(running, engine, snapshot, stored);
    let registry = assembler.registry();
    let pointer = registry
        .current_policy_instance(client)
        .map_err(|e| state(&e))?
        .ok_or_else(|| {
            RpcError::new(
                ErrorName::PolicyNotDeployedOnChain,
                format!("client {client} has no current policy instance"),
            )
        })?;
    let template = assembler.policy(pointer.id)?.template;
    let mut data_instances = Vec::new();
    for template_id in &template.data_template_refs {
        // An empty slot is the evaluation's to report.
        let slot = registry
            .current_data_instance(client, *template_id)
            .map_err(|e| state(&e))?;
        data_instances.extend(slot.map(|slot| slot.id));
    }
    let what = Whole {
        context: at_head_context(&assembler)?,
        policy_instance: pointer.id,
        data_instances,
        intent,
        wasm_args: arguments(query.wasm_args.as_ref()),
    };
    whole(&assembler, what)
}

/// Everything of one task.
struct Whole {
    context: TaskContext,
    policy_instance: B256,
    data_instances: Vec<B256>,
    intent: WireIntent,
    wasm_args: Vec<u8>,
}

fn whole(assembler: &Assembler<'_>, what: Whole) -> Result<Value, RpcError> {
    let policy = assembler.policy(what.policy_instance)?;
    let data = what
        .data_instances
        .iter()
        .map(|id| assembler.data(*id))
        .collect::<Result<Vec<_>, _>>()?;
    let expiry = Some(policy.instance.expire_after);
    let simulated = Simulated::new(&data, expiry, assembler.stored);
    let request = request(
        what.context,
        what.intent,
        what.wasm_args,
        policy.input(),
        data,
    );
    let outcome = assembler.evaluate(&request, None);
    let mut answer = simulated.policy(&request.policy.entrypoint, outcome)?;
    answer["policy_instance_id"] = serde_json::json!(what.policy_instance);
    answer["state_sequence_no"] = serde_json::json!(assembler.sequence);
    Ok(answer)
}

/// One component under a policy that allows everything.
fn component(
    assembler: &Assembler<'_>,
    client: Address,
    entry: &DataEntry,
) -> Result<Value, RpcError> {
    let data = vec![entry.resolve(assembler, client)?];
    let policy = PolicyInput {
        client,
        rego: keccak256(ALLOW),
        entrypoint: "simulation.allow".to_owned(),
        params_schema: None,
        params: Vec::new(),
        data_template_refs: data.iter().map(|d| d.input.template_id).collect(),
    };
    let nothing = WireIntent {
        intent: Intent {
            from: client,
            to: client,
            value: U256::ZERO,
            data: Vec::new(),
            chain_id: U256::from(assembler.engine.chain.chain_id),
            function_signature: Vec::new(),
        },
        intent_signature: None,
    };
    let simulated = Simulated::new(&data, None, assembler.stored);
    let wasm_args = arguments(entry.wasm_args.as_ref());
    let task = at_head_context(assembler)?;
    let request = request(task, nothing, wasm_args, policy, data);
    simulated.component(
        request.task.reference_timestamp,
        assembler.evaluate(&request, Some(ALLOW.as_bytes())),
    )
}

impl DataEntry {
    fn resolve(&self, assembler: &Assembler<'_>, client: Address) -> Result<Data, RpcError> {
        let mut data = match (self.policy_data_template_id, self.policy_data_instance_id) {
            (Some(template), None) if self.policy_data_address.is_none() => {
                let params = document("params", self.params.as_ref())?;
                assembler.undeployed_data(client, template, params)?
            }
            (Some(_), _) => {
                return Err(RpcError::invalid_param(
                    "policy_data_template_id",
                    "name either a deployed instance or a template",
                ));
            }
            (None, instance) => {
                let id = renamed(instance, self.policy_data_address.as_ref())?;
                if self.params.is_some() {
                    return Err(RpcError::invalid_param(
                        "params",
                        "a deployed instance has its own; give them with policy_data_template_id",
                    ));
                }
                let data = assembler.data(id)?;
                if data.input.client != client {
                    return Err(RpcError::invalid_param(
                        "policy_data_instance_id",
                        format!("{id} belongs to client {}", data.input.client),
                    ));
                }
                data
            }
        };
        if let Some(secrets) = &self.secrets {
            let secrets = document("secrets", Some(secrets))?;
            data.input.secrets = Some(SecretBytes::new(secrets));
        }
        Ok(data)
    }
}

/// The id of a data instance; its former name is answered with the new one.
pub(super) fn renamed(instance: Option<B256>, address: Option<&Value>) -> Result<B256, RpcError> {
    if address.is_some() {
        return Err(RpcError::invalid_param(
            "policy_data_address",
            "is now policy_data_instance_id: the bytes32 id of a deployed policy-data instance",
        ));
    }
    instance.ok_or_else(|| {
        RpcError::invalid_param(
            "policy_data_instance_id",
            "missing: the id of a deployed policy-data instance",
        )
    })
}

/// What the ingest check says of a source, before anything runs.
fn check_source(running: &Running, source: &str, entrypoint: &str) -> Result<(), RpcError> {
    let verdict = running
        .pools
        .simulations
        .check_artifact(
            ArtifactKind::PolicyRego,
            source.as_bytes(),
            Some(entrypoint),
        )
        .map_err(|e| abstain(&e))?;
    match verdict {
        Verdict::Accept => Ok(()),
        Verdict::Reject(reason) => {
            let field = match reason {
                ArtifactError::EntrypointMissing { .. } => "entrypoint",
                _ => "policy",
            };
            Err(RpcError::invalid_param(field, &reason).with("reason", reason.name()))
        }
    }
}

/// The arguments of a task go to all of its components, so entries that give some must agree.
fn common_arguments(entries: &[DataEntry]) -> Result<Vec<u8>, RpcError> {
    let mut given = entries.iter().filter_map(|entry| entry.wasm_args.as_ref());
    let first = given.next();
    if given.any(|other| Some(other) != first) {
        return Err(RpcError::invalid_param(
            "wasm_args",
            "the same arguments go to every component of a task, these differ",
        ));
    }
    Ok(arguments(first))
}

/// Whether this caller may have stored secrets opened: the owner may, a false owner is refused.
fn stored<T: serde::de::DeserializeOwned>(
    call: &Signed<T>,
    engine: &Engine,
    snapshot: &Snapshot,
    method: &str,
    client: Address,
) -> Result<Stored, RpcError> {
    if !call.is_signed() {
        return Ok(Stored::LeaveShut);
    }
    call.check(engine, snapshot, method, client)?;
    Ok(Stored::Open)
}

fn at_head<'a>(
    running: &'a Running,
    engine: &'a Engine,
    snapshot: &'a Snapshot,
    stored: Stored,
) -> Assembler<'a> {
    Assembler {
        running,
        engine,
        snapshot,
        before: head_block(snapshot) + 1,
        sequence: snapshot.tip().sequence,
        stored,
    }
}

/// The block at the head as reference, and the rules in force there. The id, of no task, seeds the components' random source.
fn at_head_context(assembler: &Assembler<'_>) -> Result<TaskContext, RpcError> {
    let block = head_block(assembler.snapshot);
    let rules = assembler
        .registry()
        .rules_version_at(block)
        .map_err(|e| state(&e))?;
    Ok(TaskContext {
        task_id: keccak256("newton.simulation.v1"),
        rules_version: rules.max(RULES_VERSION_1),
        reference_block: block,
        reference_timestamp: head_time(assembler.snapshot),
    })
}

fn request(
    task: TaskContext,
    intent: WireIntent,
    wasm_args: Vec<u8>,
    policy: PolicyInput,
    data: Vec<Data>,
) -> EvaluateRequest {
    EvaluateRequest {
        task,
        intent: intent.intent,
        intent_signature: intent.intent_signature,
        wasm_args,
        policy,
        data: data.into_iter().map(|d| d.input).collect(),
        explain: true,
    }
}

/// Runs a simulation off the async threads, as many at once as leave workers for tasks.
async fn simulate(
    app: &Arc<Appliance>,
    chain_id: Option<u64>,
    work: impl FnOnce(&Running, &Engine, &Snapshot) -> Result<Value, RpcError> + Send + 'static,
) -> Result<Value, RpcError> {
    let running = running(app)?;
    let engine = engine(&running, chain_id)?;
    let permit = running
        .simulations
        .clone()
        .try_acquire_owned()
        .map_err(|_| {
            RpcError::new(
                ErrorName::Overloaded,
                "as many simulations as may run at once are running, try again",
            )
        })?;
    blocking(move || {
        let _permit = permit;
        let snapshot = engine.snapshot().map_err(|e| state(&e))?;
        work(&running, &engine, &snapshot)
    })
    .await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use newton_api::Params;
    use serde_json::json;

    use super::*;

    fn params(value: &Value) -> Params {
        value.as_object().unwrap().clone().into()
    }

    #[test]
    fn public_clients_requests_are_read() {
        let address = format!("0x{}", "Ab".repeat(20));
        let instance = B256::repeat_byte(7);
        // Public clients take the prefix off signatures and arguments; the intent keeps its.
        let intent = json!({
            "from": address, "to": address, "value": "0x0", "chain_id": "0xaa36a7", "data": "0x", "function_signature": "0x",
        });
        for (arguments, signature) in [("7b7d", "0aff"), ("0x7b7d", "0x0aff")] {
            let call: Signed<PolicyQuery> = Signed::parse(params(&json!({
                "policy_client": address,
                "policy": "package p",
                "intent": intent,
                "entrypoint": "p.allow",
                "policy_data": [{ "policy_data_instance_id": instance, "wasm_args": arguments }, { "policy_data_instance_id": instance }],
                "policy_params": {},
                "intent_signature": signature,
            })))
            .unwrap();
            let query = call.query;
            assert_eq!(query.intent_signature.unwrap().to_vec(), [0x0a, 0xff]);
            assert_eq!(common_arguments(&query.policy_data).unwrap(), b"{}");
            let call: Signed<TaskQuery> = Signed::parse(params(&json!({
                "policy_client": address, "intent": intent, "intent_signature": signature, "wasm_args": arguments,
            })))
            .unwrap();
            assert_eq!(arguments_of(&call.query), b"{}");
            let query: DataQuery = params(&json!({
                "policy_data_instance_id": instance, "secrets": "{}", "wasm_args": arguments,
            }))
            .parse()
            .unwrap();
            assert_eq!(query.policy_client, None);
        }
        // The least that 4b asks for.
        let call: Signed<PolicyQuery> = Signed::parse(params(&json!({
            "policy_client": address, "policy": "package p", "intent": intent,
        })))
        .unwrap();
        assert!(call.query.policy_data.is_empty() && !call.is_signed());
    }

    fn arguments_of(query: &TaskQuery) -> Vec<u8> {
        arguments(query.wasm_args.as_ref())
    }

    #[test]
    fn a_former_name_is_answered_with_the_new_one() {
        let error = renamed(None, Some(&json!("0x00"))).unwrap_err();
        assert_eq!(error.data["field"], "policy_data_address");
        assert!(error.message.contains("policy_data_instance_id"));
    }
}
