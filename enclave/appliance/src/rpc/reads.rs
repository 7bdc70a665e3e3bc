//! Reads of committed state. Public leaves come with their bytes; a proof goes with everything.

use std::sync::Arc;

use alloy_sol_types::SolValue;
use newton_api::RpcError;
use newton_state::{LeafStatus, Snapshot, StateError};
use newton_types::{
    ABSENT, B256, Bytes, LeafKey, LeafProof, Namespace, events::Artifact, rpc::ErrorName,
};
use serde_json::{Value, json};

use super::{
    ArtifactQuery, CommitQuery, LeafQuery, PolicyQuery, SecretsQuery, blocking, engine, internal,
    running,
};
use crate::{appliance::Appliance, engine::Engine};

/// Bytes of a public artifact with the proof that they are in the root.
pub(super) async fn artifact(app: &Appliance, query: ArtifactQuery) -> Result<Value, RpcError> {
    let namespace = Namespace::try_from(query.namespace)
        .map_err(|e| RpcError::invalid_param("namespace", e))?;
    if !namespace.is_public() {
        return Err(RpcError::invalid_param(
            "namespace",
            "0x01 to 0x03 hold ciphertext that this version gives to nobody; 0x04 to 0x08 are public",
        ));
    }
    let engine = engine(&*running(app)?, query.chain_id)?;
    blocking(move || {
        let snapshot = engine.snapshot().map_err(|e| state(&e))?;
        let key = LeafKey::artifact(namespace, query.hash);
        let mut answer = prove(&engine, &snapshot, key, query.sequence_no)?;
        if answer["value_hash"] == json!(B256::ZERO) {
            return Err(RpcError::new(
                ErrorName::NotFound,
                "no such artifact in that root; newt_getPolicyStatus says what it waits for",
            ));
        }
        let bytes = snapshot
            .bytes(query.hash)
            .map_err(|e| state(&e))?
            .ok_or_else(|| {
                RpcError::new(ErrorName::PolicyDataUnresolvable, "the bytes are not here")
            })?;
        answer["bytes"] = json!(Bytes::from(bytes));
        Ok(answer)
    })
    .await
}

/// A leaf's value hash and its proof; zero and a proof of absence if there is no such leaf.
pub(super) async fn state_proof(app: &Appliance, query: LeafQuery) -> Result<Value, RpcError> {
    let engine = engine(&*running(app)?, query.chain_id)?;
    blocking(move || {
        let snapshot = engine.snapshot().map_err(|e| state(&e))?;
        let key = LeafKey(query.leaf_key);
        prove(&engine, &snapshot, key, query.sequence_no)
    })
    .await
}

fn prove(
    engine: &Engine,
    snapshot: &Snapshot,
    key: LeafKey,
    sequence: Option<u64>,
) -> Result<Value, RpcError> {
    let sequence = sequence.unwrap_or(snapshot.tip().sequence);
    // A version that is not kept goes node by node: its root may still be there when others are gone.
    let oldest = engine.state.retained_from().map_err(|e| state(&e))?;
    if sequence < oldest {
        return Err(RpcError::new(
            ErrorName::NotFound,
            format!("commit {sequence} is not kept any more, the oldest one is {oldest}"),
        )
        .with("retained_from", oldest));
    }
    let root = snapshot
        .root(sequence)
        .map_err(|e| state(&e))?
        .ok_or_else(|| {
            RpcError::new(
                ErrorName::NotFound,
                format!("commit {sequence} is not here"),
            )
        })?;
    let (value, proof): (Option<B256>, LeafProof) =
        snapshot.prove(sequence, key).map_err(|e| state(&e))?;
    Ok(json!({
        "leaf_key": key.0,
        "value_hash": value.unwrap_or_default(),
        "sequence_no": sequence,
        "state_root": root,
        "proof": proof,
    }))
}

/// A commit as it was signed.
pub(super) async fn state_commit(app: &Appliance, query: CommitQuery) -> Result<Value, RpcError> {
    let engine = engine(&*running(app)?, query.chain_id)?;
    blocking(move || {
        let snapshot = engine.snapshot().map_err(|e| state(&e))?;
        let sequence = query.sequence_no.unwrap_or(snapshot.tip().sequence);
        let commit = snapshot
            .commit(sequence)
            .map_err(|e| state(&e))?
            .ok_or_else(|| {
                RpcError::new(
                    ErrorName::NotFound,
                    format!("commit {sequence} is not here"),
                )
            })?;
        Ok(json!({
            "sequence_no": sequence,
            "state_root": commit.newStateRoot,
            "boundary_block": commit.boundaryBlock,
            "settled_bytes": commit.settledBytes,
            "commit": Bytes::from(commit.abi_encode()),
        }))
    })
    .await
}

/// This boot's signature over a commit, for whoever collects a quorum.
pub(super) async fn commit_vote(app: &Appliance, query: CommitQuery) -> Result<Value, RpcError> {
    let engine = engine(&*running(app)?, query.chain_id)?;
    let sequence = match query.sequence_no {
        Some(sequence) => sequence,
        None => {
            let engine = engine.clone();
            blocking(move || Ok(engine.state.tip().map_err(|e| state(&e))?.sequence + 1)).await?
        }
    };
    let vote = engine.vote(sequence).ok_or_else(|| {
        RpcError::new(
            ErrorName::NotFound,
            format!(
                "this boot has not signed commit {sequence}; newt_health says what it waits for"
            ),
        )
    })?;
    Ok(json!({
        "sequence_no": sequence,
        "commit": Bytes::from(vote.commit.abi_encode()),
        "digest": vote.digest,
        "signature": vote.signature,
        "bls_public_key": Bytes::from(app.identity.bls_public().to_eip2537().to_vec()),
    }))
}

/// Where everything stands that a client's current policy depends on.
pub(super) async fn policy_status(app: &Appliance, query: PolicyQuery) -> Result<Value, RpcError> {
    let engine = engine(&*running(app)?, query.chain_id)?;
    blocking(move || status(&engine, &query)).await
}

fn status(engine: &Arc<Engine>, query: &PolicyQuery) -> Result<Value, RpcError> {
    let snapshot = engine.snapshot().map_err(|e| state(&e))?;
    let registry = snapshot.registry();
    let client = query.policy_client;
    let pointer = registry
        .current_policy_instance(client)
        .map_err(|e| state(&e))?
        .ok_or_else(|| {
            RpcError::new(
                ErrorName::PolicyNotDeployedOnChain,
                format!("client {client} has no current policy instance"),
            )
        })?;
    let missing = || internal(&"a pointer without its row");
    let instance = registry
        .policy_instance(pointer.id)
        .map_err(|e| state(&e))?
        .ok_or_else(missing)?;
    let template = registry
        .policy_template(instance.template_id)
        .map_err(|e| state(&e))?
        .ok_or_else(missing)?;
    let mut leaves = Vec::new();
    let mut leaf = |what: &str, namespace, artifact: Artifact| -> Result<(), RpcError> {
        if artifact.hash != ABSENT {
            let key = LeafKey::artifact(namespace, artifact.hash);
            leaves.push(describe(&snapshot, what, key, artifact.hash)?);
        }
        Ok(())
    };
    leaf("rego", Namespace::PolicyRego, template.rego)?;
    leaf(
        "params_schema",
        Namespace::PolicyParamsSchema,
        template.params_schema,
    )?;
    let mut data = Vec::new();
    for template_id in &template.data_template_refs {
        let slot = registry
            .current_data_instance(client, *template_id)
            .map_err(|e| state(&e))?;
        data.push(json!({
            "policy_data_template_id": template_id,
            "policy_data_instance_id": slot.map(|s| s.id),
        }));
        if let Some(row) = registry
            .data_template(*template_id)
            .map_err(|e| state(&e))?
        {
            leaf("data_wasm", Namespace::PolicyDataWasm, row.wasm)?;
            leaf(
                "data_params_schema",
                Namespace::PolicyDataParamsSchema,
                row.params_schema,
            )?;
            leaf(
                "data_secrets_schema",
                Namespace::PolicyDataSecretsSchema,
                row.secrets_schema,
            )?;
        }
    }
    let ready = leaves.iter().all(|l| l["state"] == "committed")
        && data.iter().all(|d| !d["policy_data_instance_id"].is_null());
    Ok(json!({
        "policy_client": client,
        "policy_instance_id": pointer.id,
        "policy_template_id": instance.template_id,
        "ready": ready,
        "artifacts": leaves,
        "data": data,
        "sequence_no": snapshot.tip().sequence,
    }))
}

/// What is known of a data instance's secrets; never the envelope itself.
pub(super) async fn secrets_metadata(
    app: &Appliance,
    query: SecretsQuery,
) -> Result<Value, RpcError> {
    let engine = engine(&*running(app)?, query.chain_id)?;
    blocking(move || {
        let snapshot = engine.snapshot().map_err(|e| state(&e))?;
        let id = query.policy_data_instance_id;
        let row = snapshot
            .registry()
            .secrets(id)
            .map_err(|e| state(&e))?
            .ok_or_else(|| {
                RpcError::new(
                    ErrorName::NotFound,
                    format!("no secrets were posted for {id}"),
                )
            })?;
        let key = LeafKey::secrets(engine.chain.chain_id, row.client, id);
        let leaf = describe(&snapshot, "secrets", key, row.envelope.hash)?;
        Ok(json!({
            "policy_data_instance_id": id,
            "policy_client": row.client,
            "envelope_hash": row.envelope.hash,
            "envelope_bytes": row.envelope.length,
            "count": row.count,
            "posted_by": row.poster,
            "posted_in_block": row.posted_at.block,
            "leaf": leaf,
        }))
    })
    .await
}

fn describe(snapshot: &Snapshot, what: &str, key: LeafKey, hash: B256) -> Result<Value, RpcError> {
    let status = snapshot.leaf_status(key).map_err(|e| state(&e))?;
    let (name, detail) = match status {
        LeafStatus::Committed {
            sequence,
            value_hash,
            ..
        } if value_hash == hash => ("committed", json!({ "sequence_no": sequence })),
        // A newer envelope waits behind the committed one.
        LeafStatus::Committed { sequence, .. } => {
            ("superseded", json!({ "sequence_no": sequence }))
        }
        LeafStatus::Requested { waiting, settled } => (
            if waiting.is_empty() {
                "rejected"
            } else {
                "waiting"
            },
            json!({
                "waiting": waiting.iter().map(|(k, s)| format!("{k}: {s:?}")).collect::<Vec<_>>(),
                "settled": settled.iter().map(|(k, s)| format!("{k}: {s:?}")).collect::<Vec<_>>(),
            }),
        ),
        LeafStatus::Unknown => ("unknown", json!({})),
    };
    Ok(json!({
        "artifact": what,
        "hash": hash,
        "leaf_key": key.0,
        "state": name,
        "detail": detail,
    }))
}

/// A state error for the caller.
pub(crate) fn state(e: &StateError) -> RpcError {
    internal(e)
}
