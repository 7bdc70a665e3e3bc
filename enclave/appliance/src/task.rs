//! One task: from the chain's snapshot to a signed attestation (design 4.2, 4.5).

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_sol_types::SolValue;
use newton_api::RpcError;
use newton_evaluate::{RULES_VERSION_1, SecretBytes, TaskContext, transcript::HttpFetcher};
use newton_keys::Slot;
use newton_rounds::{
    OperatorOutputs, Outcome, OutputsError, Record, ReexecuteError, Transcript,
    record::{OperatorSet, RECORD_VERSION},
};
use newton_state::{Snapshot, registry::TaskRow};
use newton_types::{B256, Bytes, abi, rpc::ErrorName};
use serde_json::{Value, json};

use crate::{
    appliance::Appliance,
    assemble::{Assembler, SnapshotBytes, Stored, abstain},
    engine::Engine,
    rounds::{
        Recorder,
        prepare::{self, PrepareQuery},
    },
    rpc::{EvaluateQuery, blocking, engine, internal, json_value, reads::state, running},
    running::{KEY_EPOCH, Running},
};

/// Longest that a caller waits for prepared outputs (design 4b). The work goes on, and the next call finds what it came to.
const PREPARE_WALL: Duration = Duration::from_secs(30);
/// The same for an answer over prepared outputs.
const COMMIT_WALL: Duration = Duration::from_secs(15);

/// Runs a task's data components and signs their outputs.
pub async fn fetch_policy_data(
    app: &Arc<Appliance>,
    query: PrepareQuery,
) -> Result<Value, RpcError> {
    let running = running(app)?;
    let engine = engine(&running, query.chain_id)?;
    let app = app.clone();
    let work = blocking(move || {
        let question = Question::new(&app, &running, &engine, query.task_id)?;
        prepare::prepare(&app, &question, &query)
    });
    within(PREPARE_WALL, work).await
}

/// Evaluates a task of the chain and signs the outcome, once.
pub async fn evaluate_and_sign(
    app: &Arc<Appliance>,
    query: EvaluateQuery,
) -> Result<Value, RpcError> {
    let running = running(app)?;
    let engine = engine(&running, query.chain_id)?;
    let app = app.clone();
    let commit = query.outputs.is_some();
    let work = blocking(move || {
        let started = Instant::now();
        let question = Question::new(&app, &running, &engine, query.task_id)?;
        let answer = question.answer(query);
        app.metrics.evaluations.observe(started.elapsed());
        let mut answer = answer?;
        // For the caller's figures only; nothing signed depends on it.
        answer["evaluation_us"] = json!(started.elapsed().as_micros() as u64);
        Ok(answer)
    });
    if commit {
        within(COMMIT_WALL, work).await
    } else {
        work.await
    }
}

async fn within(
    wall: Duration,
    work: impl Future<Output = Result<Value, RpcError>>,
) -> Result<Value, RpcError> {
    tokio::time::timeout(wall, work).await.unwrap_or_else(|_| {
        Err(RpcError::new(
            ErrorName::Abstained,
            format!("not done within {} s; ask again", wall.as_secs()),
        ))
    })
}

/// A task as one snapshot shows it.
pub struct Question<'a> {
    app: &'a Appliance,
    /// Keys, workers, the components' way out.
    pub running: &'a Running,
    /// The chain.
    pub engine: &'a Engine,
    /// The one view.
    pub snapshot: Snapshot,
    /// The task's id.
    pub task_id: B256,
    /// Its snapshot by the contract.
    pub task: abi::Task,
    intent: abi::Intent,
    /// Its arguments.
    pub wasm_args: Bytes,
}

impl<'a> Question<'a> {
    /// Looks a task up.
    pub fn new(
        app: &'a Appliance,
        running: &'a Running,
        engine: &'a Engine,
        task_id: B256,
    ) -> Result<Self, RpcError> {
        let snapshot = engine.snapshot().map_err(|e| state(&e))?;
        let row = stored_task(&snapshot, task_id)?;
        Ok(Self {
            app,
            running,
            engine,
            task_id,
            task: row.task().map_err(|e| state(&e))?,
            intent: row.intent().map_err(|e| state(&e))?,
            wasm_args: row.wasm_args,
            snapshot,
        })
    }

    fn answer(&self, query: EvaluateQuery) -> Result<Value, RpcError> {
        // The first answer stays, whatever is brought now.
        if let Some(kept) = self.engine.rounds.answer(self.task_id) {
            return Ok((*kept).clone());
        }
        self.check_may_sign()?;
        self.check_root()?;
        let record = match query.outputs {
            Some(outputs) if !self.task.dataInstanceIds.is_empty() => {
                self.commit(outputs, query.round.unwrap_or(0), query.intent_signature)?
            }
            _ => self.alone(query.intent_signature)?,
        };
        self.sign(record)
    }

    /// Components and Rego in one call: what one operator alone does.
    fn alone(&self, signature: Option<Bytes>) -> Result<(Record, Outcome), RpcError> {
        let (mut record, secrets) = self.record(Stored::Open)?;
        record.intent_signature = signature;
        let source = SnapshotBytes::new(&self.snapshot, None);
        let recorder = Arc::new(Recorder::new(self.running.http.fetcher()));
        let http: Arc<dyn HttpFetcher> = recorder.clone();
        let workers = self.running.workers.as_ref();
        let (outcome, exchanges) = record
            .evaluate(&secrets, workers, &source, &http)
            .map_err(|e| failed(&e))?;
        let hashes = exchanges.iter().map(|(id, list)| (*id, list.as_slice()));
        let key = self.running.master.secrets_key(KEY_EPOCH).public_key();
        let transcripts = recorder.seal(&record, &key, hashes);
        keep_transcripts(&mut record, &transcripts);
        Ok((record, outcome))
    }

    /// Rego over what a quorum has prepared. No component runs and no secret is opened.
    fn commit(
        &self,
        mut outputs: Vec<OperatorOutputs>,
        round: u32,
        signature: Option<Bytes>,
    ) -> Result<(Record, Outcome), RpcError> {
        let (mut record, _) = self.record(Stored::LeaveShut)?;
        record.intent_signature = signature;
        record.operator_set = Some(self.operator_set()?);
        for entry in &mut outputs {
            entry.outputs.sort_by_key(|o| o.policy_data_instance_id);
        }
        outputs.sort_by(|a, b| a.bls_public_key.cmp(&b.bls_public_key));
        let own = prepare::own(self, round);
        if let Some(own) = &own
            && !outputs.contains(&own.outputs)
        {
            return Err(RpcError::new(
                ErrorName::InvalidOutputs,
                "this boot has prepared this round, and its outputs are not among these",
            )
            .with("reason", "own outputs missing"));
        }
        // Checked before the merge, which takes the round from the set.
        prepare::expected(&record, round)?
            .verify(&outputs)
            .map_err(|e| refused(&e))?;
        record.outputs = Some(outputs);
        let source = SnapshotBytes::new(&self.snapshot, None);
        let outcome = record
            .conclude(self.running.workers.as_ref(), &source)
            .map_err(|e| failed(&e))?;
        if let Some(own) = own {
            keep_transcripts(&mut record, &own.transcripts);
        }
        Ok((record, outcome))
    }

    /// The task's record before anything has run, and the secrets if they may be opened.
    pub fn record(
        &self,
        stored: Stored,
    ) -> Result<(Record, BTreeMap<B256, SecretBytes>), RpcError> {
        let assembler = Assembler {
            running: self.running,
            engine: self.engine,
            snapshot: &self.snapshot,
            before: self.task.referenceBlock,
            sequence: self.task.stateSequenceNo,
            stored,
        };
        let policy = assembler.policy(self.task.policyInstanceId)?;
        let mut secrets = BTreeMap::new();
        let mut data = Vec::with_capacity(self.task.dataInstanceIds.len());
        for id in &self.task.dataInstanceIds {
            let mut found = assembler.data(*id)?;
            if let Some(opened) = found.input.secrets.take() {
                secrets.insert(*id, opened);
            }
            data.push(found.part());
        }
        let record = Record {
            version: RECORD_VERSION,
            chain_id: self.engine.chain.chain_id,
            task_manager: self.engine.chain.contracts.task_manager,
            task_id: self.task_id,
            task: self.task.abi_encode().into(),
            intent: self.intent.abi_encode().into(),
            wasm_args: self.wasm_args.clone(),
            intent_signature: None,
            policy: policy.part(),
            data,
            outputs: None,
            operator_set: None,
            attestation: Bytes::new(),
        };
        Ok((record, secrets))
    }

    /// The task's operator set, as the chain's rows have it.
    pub fn operator_set(&self) -> Result<OperatorSet, RpcError> {
        let id = self.task.operatorSetId;
        let row = self
            .snapshot
            .registry()
            .operator_set(id)
            .map_err(|e| state(&e))?
            .ok_or_else(|| internal(&format!("operator set {id} of the task has no row")))?;
        Ok(OperatorSet {
            members: row
                .members
                .iter()
                .map(|member| (member.bls_key_hash, member.weight.to_string()))
                .collect(),
            total_weight: row.total_weight.to_string(),
        })
    }

    /// Signed are tasks later than this boot's admission only, under rules that this image has.
    pub fn check_may_sign(&self) -> Result<(), RpcError> {
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

    /// The task's root must be the one this enclave computed under that number.
    pub fn check_root(&self) -> Result<(), RpcError> {
        check_root(&self.snapshot, &self.task)
    }

    fn sign(&self, (mut record, outcome): (Record, Outcome)) -> Result<Value, RpcError> {
        let answer = self.engine.rounds.answer_once(self.task_id, || {
            // One slot for all rounds: contracts slash two digests for one task.
            let slot = Slot::Task {
                task_id: self.task_id.0,
                round: 0,
            };
            let value = json_value(&outcome.result)?;
            let until = self.last_challenge(&outcome.attestation)?;
            let signature = self
                .app
                .identity
                .sign(slot, outcome.digest)
                .map_err(|e| RpcError::new(ErrorName::Equivocation, e.to_string()))?;
            let attestation = Bytes::from(outcome.attestation.abi_encode());
            record.attestation = attestation.clone();
            let round = record.outputs.as_ref().and_then(|set| set.first());
            // The result stands in it twice, and hex doubles the attestation.
            let bytes = 2_048 + 2 * attestation.len() + 3 * outcome.result.len();
            let answer = json!({
                "task_id": self.task_id,
                "attestation": attestation,
                "digest": outcome.digest,
                "signature": Bytes::from(signature.to_eip2537().to_vec()),
                "bls_public_key": Bytes::from(self.app.identity.bls_public().to_eip2537().to_vec()),
                "operator_set_id": self.task.operatorSetId,
                "round": round.map(|entry| entry.round),
                "result": value,
                // The exact bytes that were hashed: JSON numbers above 2^53 do not survive every client's parser.
                "result_json": String::from_utf8_lossy(&outcome.result),
                "error": outcome.error.as_ref().map(ToString::to_string),
                "outliers": outliers(&outcome),
            });
            self.engine.rounds.keep(record, until);
            Ok::<_, RpcError>((answer, bytes))
        })?;
        Ok((*answer).clone())
    }

    /// Last block in which an attestation can be challenged, by the parameters in force now.
    fn last_challenge(&self, attestation: &abi::PolicyAttestation) -> Result<u64, RpcError> {
        let schedule = self
            .snapshot
            .registry()
            .parameters()
            .map_err(|e| state(&e))?;
        let windows = schedule.iter().map(|scheduled| scheduled.parameters);
        // The longest of those that are known: a record too many is no harm.
        let (response, challenge) = windows.fold((0, 0), |(r, c), p| {
            (p.response_window.max(r), p.challenge_window.max(c))
        });
        Ok(attestation
            .referenceBlock
            .saturating_add(response)
            .max(attestation.expirationBlock)
            .saturating_add(challenge))
    }
}

fn keep_transcripts(record: &mut Record, transcripts: &BTreeMap<B256, Transcript>) {
    for data in &mut record.data {
        data.transcript = transcripts.get(&data.instance_id).cloned();
    }
}

fn outliers(outcome: &Outcome) -> Vec<Value> {
    use newton_evaluate::merge::OutlierReason;
    let named = outcome.outliers.iter().flat_map(|(instance, list)| {
        list.iter().map(move |outlier| {
            let (reason, field) = match &outlier.reason {
                OutlierReason::Differs => ("differs", None),
                OutlierReason::Field(field) => ("too far from the median", Some(field)),
                OutlierReason::Malformed => ("malformed", None),
            };
            json!({
                "policy_data_instance_id": instance,
                "bls_key_hash": outlier.signer,
                "reason": reason,
                "field": field,
            })
        })
    });
    named.collect()
}

/// Why there is no outcome, for the caller.
fn failed(e: &ReexecuteError) -> RpcError {
    match e {
        ReexecuteError::Abstained(e) => abstain(e),
        ReexecuteError::Outputs(e) => refused(e),
        e => internal(e),
    }
}

/// Why a set of outputs is refused, for the caller.
pub fn refused(e: &OutputsError) -> RpcError {
    let (name, reason) = match e {
        OutputsError::Quorum { .. } => (ErrorName::QuorumNotReached, "quorum"),
        OutputsError::Key { .. } => (ErrorName::InvalidOutputs, "key"),
        OutputsError::Foreign { .. } => (ErrorName::InvalidOutputs, "foreign"),
        OutputsError::Twice { .. } => (ErrorName::InvalidOutputs, "twice"),
        OutputsError::Round { .. } => (ErrorName::InvalidOutputs, "round"),
        OutputsError::Instance { .. } => (ErrorName::InvalidOutputs, "data instance"),
        OutputsError::Signature { .. } => (ErrorName::InvalidOutputs, "signature"),
    };
    RpcError::new(name, e.to_string()).with("reason", reason)
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
