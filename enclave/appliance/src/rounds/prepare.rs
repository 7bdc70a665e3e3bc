//! The first phase: this operator's own outputs, signed.

use std::{collections::BTreeMap, sync::Arc};

use newton_api::RpcError;
use newton_keys::Slot;
use newton_rounds::{Expected, OperatorOutputs, ReexecuteError, SignedOutput};
use newton_types::{B256, Bytes, keccak256, rpc::ErrorName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{MAX_ROUNDS, Recorder, kept::Own};
use crate::{
    appliance::Appliance,
    assemble::{SnapshotBytes, Stored, abstain},
    rpc::internal,
    running::KEY_EPOCH,
    task::{Question, refused},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PrepareQuery {
    pub(crate) chain_id: Option<u64>,
    pub(crate) task_id: B256,
    /// 0 without.
    pub(crate) round: Option<u32>,
    /// For a round above 0: the outputs of the round before, which must not agree.
    pub(crate) previous: Option<Vec<OperatorOutputs>>,
}

/// Runs the task's data components and signs what they gave. Only here secrets are opened.
pub(crate) fn prepare(
    app: &Appliance,
    question: &Question<'_>,
    query: &PrepareQuery,
) -> Result<Value, RpcError> {
    let (task_id, round) = (query.task_id, query.round.unwrap_or(0));
    let rounds = &question.engine.rounds;
    if let Some(own) = rounds.own(task_id, round) {
        return Ok(own.answer.clone());
    }
    question.check_may_sign()?;
    question.check_root()?;
    check_open(question, query, round)?;
    let (mut record, secrets) = question.record(Stored::Open)?;
    record.operator_set = Some(question.operator_set()?);
    let expected = expected(&record, round)?;
    let key = B256::from(app.identity.bls_public().hash());
    if !expected.members.iter().any(|member| member.key_hash == key) {
        return Err(RpcError::new(
            ErrorName::OperatorNotRegistered,
            format!(
                "this boot's key is not in operator set {}",
                question.task.operatorSetId
            ),
        ));
    }
    let request = record.request(&secrets).map_err(|e| internal(&e))?;
    let source = SnapshotBytes::new(&question.snapshot, None);
    let http = Recorder::new(question.running.http.fetcher());
    let prepared = question
        .running
        .workers
        .prepare(&request, &source, Some(&http))
        .map_err(|e| abstain(&e))?;
    let secrets_key = question.running.master.secrets_key(KEY_EPOCH).public_key();
    let transcripts = http.seal(
        &record,
        &secrets_key,
        prepared.iter().filter_map(|p| {
            let result = p.outcome.as_ref().ok()?;
            Some((p.instance_id, result.exchanges.as_slice()))
        }),
    );
    let own = rounds.own_once(task_id, round, || {
        let mut outputs = Vec::with_capacity(prepared.len());
        let mut digests = BTreeMap::new();
        for p in &prepared {
            let output = Bytes::from(p.output());
            let transcript_hash = p.transcript_hash();
            let digest = expected
                .digest(p.instance_id, &output, transcript_hash)
                .ok_or_else(|| internal(&"an output of another task"))?;
            let slot = Slot::Output {
                task_id: task_id.0,
                round,
                data_instance_id: p.instance_id.0,
            };
            let signature = app
                .identity
                .sign(slot, digest)
                .map_err(|e| RpcError::new(ErrorName::Equivocation, e.to_string()))?;
            digests.insert(p.instance_id, digest);
            outputs.push(SignedOutput {
                policy_data_instance_id: p.instance_id,
                output,
                transcript_hash,
                signature: Bytes::from(signature.to_eip2537().to_vec()),
            });
        }
        outputs.sort_by_key(|o: &SignedOutput| o.policy_data_instance_id);
        let outputs = OperatorOutputs {
            round,
            bls_public_key: Bytes::from(app.identity.bls_public().to_eip2537().to_vec()),
            outputs,
        };
        Ok::<_, RpcError>(Own {
            answer: answer(question, &expected, &outputs, &digests),
            outputs,
            transcripts,
        })
    })?;
    Ok(own.answer.clone())
}

fn answer(
    question: &Question<'_>,
    expected: &Expected,
    own: &OperatorOutputs,
    digests: &BTreeMap<B256, B256>,
) -> Value {
    let outputs: Vec<Value> = own
        .outputs
        .iter()
        .map(|o| {
            json!({
                "policy_data_instance_id": o.policy_data_instance_id,
                "output": o.output,
                "output_json": String::from_utf8_lossy(&o.output),
                "transcript_hash": o.transcript_hash,
                "secrets_leaf_hash": expected.instances.get(&o.policy_data_instance_id),
                "digest": digests.get(&o.policy_data_instance_id),
                "signature": o.signature,
            })
        })
        .collect();
    json!({
        "task_id": expected.task_id,
        "round": own.round,
        "wasm_args_hash": keccak256(&question.wasm_args),
        "operator_set_id": question.task.operatorSetId,
        "bls_public_key": own.bls_public_key,
        "outputs": outputs,
    })
}

pub(crate) fn expected(record: &newton_rounds::Record, round: u32) -> Result<Expected, RpcError> {
    record
        .expected(round)
        .map_err(|e| internal(&e))?
        .ok_or_else(|| internal(&"a record without its operator set"))
}

/// A round is open if nothing was signed for the task, and, above 0, if the outputs of the round before do not agree: nobody gets to
/// draw until the outputs please.
fn check_open(question: &Question<'_>, query: &PrepareQuery, round: u32) -> Result<(), RpcError> {
    let closed = |reason: &str| {
        RpcError::new(ErrorName::RoundNotOpen, format!("round {round}: {reason}"))
            .with("reason", reason)
    };
    if question.task.dataInstanceIds.is_empty() {
        return Err(closed(
            "the policy has no data components, nothing is to be prepared",
        ));
    }
    if round >= MAX_ROUNDS {
        return Err(closed("there are four rounds, 0 to 3"));
    }
    if question.engine.rounds.answer(query.task_id).is_some() {
        return Err(closed("this boot has answered the task"));
    }
    let Some(before) = round.checked_sub(1) else {
        return Ok(());
    };
    let Some(previous) = query.previous.clone() else {
        return Err(RpcError::invalid_param(
            "previous",
            "a round above 0 needs the outputs of the round before",
        ));
    };
    let (mut record, _) = question.record(Stored::LeaveShut)?;
    record.operator_set = Some(question.operator_set()?);
    // An empty set has no round of its own, and no weight either.
    expected(&record, before)?
        .verify(&previous)
        .map_err(|e| refused(&e))?;
    record.outputs = Some(previous);
    let source = SnapshotBytes::new(&question.snapshot, None);
    match record.conclude(question.running.workers.as_ref(), &source) {
        Err(ReexecuteError::Abstained(newton_evaluate::EvaluateError::NoConsensus { .. })) => {
            Ok(())
        }
        Err(ReexecuteError::Abstained(e)) => Err(abstain(&e)),
        Err(ReexecuteError::Outputs(e)) => Err(refused(&e)),
        Err(ReexecuteError::Unreadable(e)) => Err(internal(&e)),
        Err(e) => Err(internal(&e)),
        Ok(_) => Err(closed("the outputs of the round before agree")),
    }
}

/// This boot's outputs of a round, for the record.
pub(crate) fn own(question: &Question<'_>, round: u32) -> Option<Arc<Own>> {
    question.engine.rounds.own(question.task_id, round)
}
