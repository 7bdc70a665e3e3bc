//! One task: from the chain's snapshot to a signed attestation (design 4.2).

use std::{sync::Arc, time::Instant};

use alloy_sol_types::SolValue;
use newton_api::RpcError;
use newton_evaluate::{EvaluateError, EvaluateRequest, RULES_VERSION_1, TaskContext};
use newton_keys::Slot;
use newton_state::{Snapshot, registry::TaskRow};
use newton_types::{
    B256, Bytes, abi, keccak256,
    rpc::ErrorName,
    signing::{self, Scope},
};
use serde_json::{Value, json};

use crate::{
    appliance::Appliance,
    assemble::{Assembler, Data, Stored, abstain, evaluated},
    engine::Engine,
    rpc::{EvaluateQuery, blocking, engine, internal, json_value, reads::state, running},
    running::Running,
};

/// Evaluates a task of the chain and signs the outcome, once.
pub async fn evaluate_and_sign(
    app: &Arc<Appliance>,
    query: EvaluateQuery,
) -> Result<Value, RpcError> {
    let running = running(app)?;
    let engine = engine(&running, query.chain_id)?;
    let app = app.clone();
    blocking(move || {
        let started = Instant::now();
        let mut answer = Evaluation::new(&app, &running, &engine, &query)?.run()?;
        // For the caller's figures only; nothing signed depends on it.
        answer["evaluation_us"] = json!(started.elapsed().as_micros() as u64);
        Ok(answer)
    })
    .await
}

struct Evaluation<'a> {
    app: &'a Appliance,
    running: &'a Running,
    engine: &'a Engine,
    query: &'a EvaluateQuery,
    snapshot: Snapshot,
    task: abi::Task,
    intent: abi::Intent,
    wasm_args: Bytes,
}

impl<'a> Evaluation<'a> {
    fn new(
        app: &'a Appliance,
        running: &'a Running,
        engine: &'a Engine,
        query: &'a EvaluateQuery,
    ) -> Result<Self, RpcError> {
        let snapshot = engine.snapshot().map_err(|e| state(&e))?;
        let id = query.task_id;
        let row = stored_task(&snapshot, id)?;
        Ok(Self {
            app,
            running,
            engine,
            query,
            task: row.task().map_err(|e| state(&e))?,
            intent: row.intent().map_err(|e| state(&e))?,
            wasm_args: row.wasm_args,
            snapshot,
        })
    }

    fn run(&self) -> Result<Value, RpcError> {
        self.check_may_sign()?;
        check_root(&self.snapshot, &self.task)?;
        let assembler = Assembler {
            running: self.running,
            engine: self.engine,
            snapshot: &self.snapshot,
            before: self.task.referenceBlock,
            sequence: self.task.stateSequenceNo,
            stored: Stored::Open,
        };
        let policy = assembler.policy(self.task.policyInstanceId)?;
        let data = self
            .task
            .dataInstanceIds
            .iter()
            .map(|id| assembler.data(*id))
            .collect::<Result<Vec<_>, _>>()?;
        let expire_after = data
            .iter()
            .filter_map(|d| d.expire_after)
            .fold(policy.instance.expire_after, u64::min);
        let bindings: Vec<abi::PolicyDataBinding> = data.iter().map(Data::binding).collect();
        let request = EvaluateRequest {
            task: context(self.query.task_id, &self.task),
            intent: evaluated(&self.intent),
            intent_signature: self.query.intent_signature.as_ref().map(|s| s.to_vec()),
            wasm_args: self.wasm_args.to_vec(),
            policy: policy.input(),
            data: data.into_iter().map(|d| d.input).collect(),
            explain: false,
        };
        let outcome = assembler.evaluate(&request, None);
        let (result, bindings, error) = match outcome {
            Ok(evaluation) => {
                let bindings = fill(bindings, &evaluation.data)?;
                (evaluation.result, bindings, None)
            }
            // What every honest enclave arrives at is signed; what only this machine met is not.
            Err(e) => match e.signed_result() {
                Some(result) => (result, bindings, Some(e)),
                None => return Err(abstain(&e)),
            },
        };
        let attestation = abi::PolicyAttestation {
            taskId: self.query.task_id,
            policyInstanceId: self.task.policyInstanceId,
            policyTemplateId: policy.instance.template_id,
            regoHash: policy.template.rego.hash,
            paramsSchemaHash: policy.template.params_schema.hash,
            paramsHash: policy.instance.params_hash,
            referenceBlock: self.task.referenceBlock,
            expirationBlock: self.task.referenceBlock.saturating_add(expire_after),
            stateSequenceNo: self.task.stateSequenceNo,
            stateRoot: self.task.stateRoot,
            rulesVersion: self.task.rulesVersion,
            intentHash: signing::intent_hash(&self.intent),
            wasmArgsHash: keccak256(&self.wasm_args),
            evaluationResultHash: keccak256(&result),
            data: bindings,
        };
        self.sign(&attestation, &result, error.as_ref())
    }

    /// Signed are tasks later than this boot's admission only, under rules that this image has.
    fn check_may_sign(&self) -> Result<(), RpcError> {
        if self.task.rulesVersion != RULES_VERSION_1 {
            return Err(RpcError::new(
                ErrorName::IncompatibleRulesVersion,
                format!(
                    "the task asks for rules version {}, this image has {RULES_VERSION_1}",
                    self.task.rulesVersion
                ),
            ));
        }
        let standing = self
            .engine
            .standing(&self.snapshot)
            .map_err(|e| RpcError::new(ErrorName::NotAdmittedYet, e.to_string()))?;
        if self.task.referenceBlock <= standing.admitted_at {
            return Err(RpcError::new(
                ErrorName::NotAdmittedYet,
                format!(
                    "the task is of block {}, this boot's keys were admitted in block {}",
                    self.task.referenceBlock, standing.admitted_at
                ),
            ));
        }
        Ok(())
    }

    fn sign(
        &self,
        attestation: &abi::PolicyAttestation,
        result: &[u8],
        error: Option<&EvaluateError>,
    ) -> Result<Value, RpcError> {
        let scope = Scope {
            chain_id: self.engine.chain.chain_id,
            contract: self.engine.chain.contracts.task_manager,
        };
        let digest = signing::policy_attestation_digest(scope, attestation);
        let slot = Slot::Task {
            task_id: self.query.task_id.0,
            round: 0,
        };
        let signature = self
            .app
            .identity
            .sign(slot, digest)
            .map_err(|e| RpcError::new(ErrorName::Equivocation, e.to_string()))?;
        let value = json_value(result)?;
        Ok(json!({
            "task_id": self.query.task_id,
            "attestation": Bytes::from(attestation.abi_encode()),
            "digest": digest,
            "signature": Bytes::from(signature.to_eip2537().to_vec()),
            "bls_public_key": Bytes::from(self.app.identity.bls_public().to_eip2537().to_vec()),
            "operator_set_id": self.task.operatorSetId,
            "result": value,
            // The exact bytes that were hashed: JSON numbers above 2^53 do not survive every client's parser.
            "result_json": String::from_utf8_lossy(result),
            "error": error.map(|e| e.to_string()),
        }))
    }
}

/// Row of a task.
pub fn stored_task(snapshot: &Snapshot, id: B256) -> Result<TaskRow, RpcError> {
    snapshot
        .registry()
        .task(id)
        .map_err(|e| state(&e))?
        .ok_or_else(|| {
            RpcError::new(
                ErrorName::TaskNotFound,
                format!("no task {id} in the blocks seen so far"),
            )
        })
}

/// What of a task its evaluation depends on.
pub fn context(task_id: B256, task: &abi::Task) -> TaskContext {
    TaskContext {
        task_id,
        rules_version: task.rulesVersion,
        reference_block: task.referenceBlock,
        reference_timestamp: task.referenceTimestamp,
    }
}

/// The task's root must be the one this enclave computed under that number.
pub fn check_root(snapshot: &Snapshot, task: &abi::Task) -> Result<(), RpcError> {
    let sequence = task.stateSequenceNo;
    match snapshot.root(sequence).map_err(|e| state(&e))? {
        Some(root) if root == task.stateRoot => Ok(()),
        Some(root) => Err(RpcError::new(
            ErrorName::InternalError,
            format!(
                "root {sequence} is {} in the task and {root} here",
                task.stateRoot
            ),
        )),
        None => Err(RpcError::new(
            ErrorName::PolicyDataUnresolvable,
            format!("this enclave has not arrived at commit {sequence} yet"),
        )),
    }
}

/// Puts the outputs' hashes into the bindings; they are hashed here again, not taken from the worker.
fn fill(
    mut bindings: Vec<abi::PolicyDataBinding>,
    data: &[newton_evaluate::DataResult],
) -> Result<Vec<abi::PolicyDataBinding>, RpcError> {
    for binding in &mut bindings {
        let result = data
            .iter()
            .find(|d| d.instance_id == binding.dataInstanceId)
            .ok_or_else(|| {
                internal(&"an evaluation without the output of one of its components")
            })?;
        binding.outputHash = keccak256(&result.output);
        binding.transcriptHash = newton_evaluate::transcript::transcript_hash(&result.exchanges);
    }
    Ok(bindings)
}
