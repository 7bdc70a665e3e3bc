//! Records on request, and judgements of what others signed (design 3.5).

use std::{collections::BTreeMap, sync::Arc};

use alloy_sol_types::SolValue;
use newton_api::RpcError;
use newton_evaluate::RULES_VERSION_1;
use newton_keys::Slot;
use newton_rounds::{
    Private, Record,
    outcome::{
        EVALUATION, JudgeError, STATE_COMMIT, commit_inputs, evaluation_inputs, evaluation_result,
    },
};
use newton_types::{
    Address, B256, Bytes, abi, keccak256,
    rpc::ErrorName,
    signing::{self, Scope},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    appliance::Appliance,
    assemble::{SnapshotBytes, Stored, abstain},
    engine::Engine,
    rpc::{blocking, engine, internal, reads::state, running},
    running::{KEY_EPOCH, Running},
    task::Question,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordQuery {
    pub(crate) chain_id: Option<u64>,
    pub(crate) task_id: B256,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutcomeQuery {
    pub(crate) chain_id: Option<u64>,
    /// The result verifier under whose domain the outcome is signed.
    pub(crate) verifier: Address,
    /// ABI encoding; this or `commit`.
    pub(crate) attestation: Option<Bytes>,
    /// What the attestation's signer recorded; without it this enclave's own record of the task.
    pub(crate) record: Option<Box<Record>>,
    /// ABI encoding.
    pub(crate) commit: Option<Bytes>,
}

/// The record of a task that this enclave signed.
pub(crate) async fn record(app: &Arc<Appliance>, query: RecordQuery) -> Result<Value, RpcError> {
    let running = running(app)?;
    let engine = engine(&running, query.chain_id)?;
    blocking(move || {
        let bytes = engine
            .evaluation_record(query.task_id)
            .map_err(|e| state(&e))?
            .ok_or_else(|| {
                RpcError::new(
                    ErrorName::NotFound,
                    format!(
                        "no record of task {}: not signed here, or its time is over",
                        query.task_id
                    ),
                )
            })?;
        let record: Value = serde_json::from_slice(&bytes).map_err(|e| internal(&e))?;
        Ok(json!({ "task_id": query.task_id, "record": record }))
    })
    .await
}

/// Does again what somebody signed, and signs whether it is right.
pub(crate) async fn outcome(app: &Arc<Appliance>, query: OutcomeQuery) -> Result<Value, RpcError> {
    let running = running(app)?;
    let engine = engine(&running, query.chain_id)?;
    let app = app.clone();
    blocking(move || {
        let snapshot = engine.snapshot().map_err(|e| state(&e))?;
        engine
            .standing(&snapshot)
            .map_err(|e| RpcError::new(ErrorName::NotAdmittedYet, e.to_string()))?;
        let outcome = match (&query.attestation, &query.commit) {
            (Some(attestation), None) => {
                let claimed = abi::PolicyAttestation::abi_decode(attestation)
                    .map_err(|e| RpcError::invalid_param("attestation", e.to_string()))?;
                evaluation(&app, &running, &engine, &claimed, query.record.as_deref())?
            }
            (None, Some(commit)) => {
                let claimed = abi::StateCommit::abi_decode(commit)
                    .map_err(|e| RpcError::invalid_param("commit", e.to_string()))?;
                state_commit(&engine, &claimed)?
            }
            _ => {
                return Err(RpcError::invalid_param(
                    "attestation",
                    "give either attestation or commit",
                ));
            }
        };
        sign(&app, &engine, query.verifier, &outcome)
    })
    .await
}

fn evaluation(
    app: &Appliance,
    running: &Running,
    engine: &Engine,
    claimed: &abi::PolicyAttestation,
    given: Option<&Record>,
) -> Result<abi::ResultOutcome, RpcError> {
    let question = Question::new(app, running, engine, claimed.taskId)?;
    let version = question.task.rulesVersion;
    check_rules(version)?;
    question.check_root()?;
    let (mut record, secrets) = question.record(Stored::Open)?;
    let kept: Option<Record> = match given {
        Some(_) => None,
        None => engine
            .evaluation_record(claimed.taskId)
            .map_err(|e| state(&e))?
            .map(|bytes| serde_json::from_slice(&bytes))
            .transpose()
            .map_err(|e| internal(&e))?,
    };
    let mut private = Private {
        secrets,
        exchanges: BTreeMap::new(),
    };
    // Of the record only what the attestation binds by hash; everything else is read from the chain's rows.
    if let Some(brought) = given.or(kept.as_ref()) {
        record.intent_signature = brought.intent_signature.clone();
        record.outputs = brought.outputs.clone();
        if record.outputs.is_some() {
            record.operator_set = Some(question.operator_set()?);
        }
        let key = running.master.secrets_key(KEY_EPOCH);
        for data in &brought.data {
            let Some(transcript) = &data.transcript else {
                continue;
            };
            let exchanges = transcript
                .open(&key, claimed.taskId, data.instance_id)
                .map_err(|e| RpcError::new(ErrorName::RecordMismatch, e.to_string()))?;
            private.exchanges.insert(data.instance_id, exchanges);
        }
    }
    let source = SnapshotBytes::new(&question.snapshot, None);
    let workers = running.workers.as_ref();
    let judged = newton_rounds::judge(&record, claimed, &private, workers, &source)
        .map_err(|e| undecided(&e))?;
    Ok(abi::ResultOutcome {
        subject: EVALUATION,
        inputsHash: evaluation_inputs(claimed),
        resultHash: evaluation_result(claimed),
        correct: judged.correct,
        rulesVersion: version,
    })
}

/// A commit is right if it is the one that this enclave derived itself and the chain confirmed under that number.
fn state_commit(
    engine: &Engine,
    claimed: &abi::StateCommit,
) -> Result<abi::ResultOutcome, RpcError> {
    check_rules(claimed.rulesVersion)?;
    let finalized = engine.state.snapshot(None).map_err(|e| state(&e))?;
    let ours = finalized
        .commit(claimed.sequenceNo)
        .map_err(|e| state(&e))?
        .ok_or_else(|| {
            RpcError::new(
                ErrorName::NotFound,
                format!(
                    "commit {} is not derived and confirmed here yet",
                    claimed.sequenceNo
                ),
            )
        })?;
    let scope = Scope {
        chain_id: engine.chain.chain_id,
        contract: engine.chain.contracts.state_commit_registry,
    };
    Ok(abi::ResultOutcome {
        subject: STATE_COMMIT,
        inputsHash: commit_inputs(claimed),
        resultHash: signing::state_commit_digest(scope, claimed),
        correct: ours == *claimed,
        rulesVersion: claimed.rulesVersion,
    })
}

fn check_rules(version: u32) -> Result<(), RpcError> {
    if version == RULES_VERSION_1 {
        return Ok(());
    }
    Err(RpcError::new(
        ErrorName::IncompatibleRulesVersion,
        format!("rules version {version}, this image has {RULES_VERSION_1}"),
    ))
}

fn sign(
    app: &Appliance,
    engine: &Engine,
    verifier: Address,
    outcome: &abi::ResultOutcome,
) -> Result<Value, RpcError> {
    let scope = Scope {
        chain_id: engine.chain.chain_id,
        contract: verifier,
    };
    let digest = signing::result_outcome_digest(scope, outcome);
    // The same question has one answer in a boot.
    let question = abi::ResultOutcome {
        correct: false,
        ..outcome.clone()
    };
    let slot = Slot::Outcome {
        question: keccak256((verifier, question.abi_encode()).abi_encode()).0,
    };
    let signature = app
        .identity
        .sign(slot, digest)
        .map_err(|e| RpcError::new(ErrorName::Equivocation, e.to_string()))?;
    Ok(json!({
        "subject": outcome.subject,
        "inputs_hash": outcome.inputsHash,
        "result_hash": outcome.resultHash,
        "correct": outcome.correct,
        "rules_version": outcome.rulesVersion,
        "digest": digest,
        "signature": Bytes::from(signature.to_eip2537().to_vec()),
        "bls_public_key": Bytes::from(app.identity.bls_public().to_eip2537().to_vec()),
    }))
}

fn undecided(e: &JudgeError) -> RpcError {
    match e {
        JudgeError::Mismatch { field, .. } => {
            RpcError::new(ErrorName::RecordMismatch, e.to_string()).with("field", field.as_str())
        }
        JudgeError::Undecidable(_) => RpcError::new(ErrorName::Undecidable, e.to_string()),
        JudgeError::Abstained(e) => abstain(e),
        e => internal(e),
    }
}
