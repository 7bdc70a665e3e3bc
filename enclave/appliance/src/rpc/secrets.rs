//! `newt_storeEncryptedSecrets`: looks at an envelope inside the enclave and disperses it. What makes it count is `setSecrets` on chain.

use std::sync::Arc;

use newton_api::RpcError;
use newton_artifacts::{DaBlob, DaRef, MAX_PAYLOAD_BYTES};
use newton_evaluate::{EvaluateError, Finality, Json};
use newton_keys::hpke::Envelope;
use newton_state::Snapshot;
use newton_types::{Address, B256, Bytes, LeafKey, Namespace, keccak256, rpc::ErrorName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    blocking, engine, internal,
    owner::{Signed, head_block},
    reads::state,
    running,
    simulate::{renamed, violations},
};
use crate::{
    appliance::Appliance,
    assemble::{Assembler, SnapshotBytes, Stored, abstain, open},
    engine::Engine,
    running::Running,
};

/// The method's name, as the owner signs it.
pub(super) const STORE: &str = "newt_storeEncryptedSecrets";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoreQuery {
    chain_id: Option<u64>,
    policy_client: Address,
    policy_data_instance_id: Option<B256>,
    policy_data_address: Option<Value>,
    envelope: String,
}

/// What is wrong with an envelope, or nothing.
struct Checked {
    schema: Value,
    error: Option<(String, Value)>,
}

/// Validates and disperses.
pub(super) async fn store(
    app: &Arc<Appliance>,
    call: Signed<StoreQuery>,
) -> Result<Value, RpcError> {
    let running = running(app)?;
    let engine = engine(&running, call.query.chain_id)?;
    let instance = renamed(
        call.query.policy_data_instance_id,
        call.query.policy_data_address.as_ref(),
    )?;
    let checked_by = engine.clone();
    let (checked, envelope) = blocking(move || {
        let checked = check(&running, &checked_by, &call, instance)?;
        Ok((checked, call.query.envelope))
    })
    .await?;
    if let Some((error, violations)) = checked.error {
        return Ok(json!({
            "success": false,
            "schema": checked.schema,
            "error": error,
            "violations": violations,
        }));
    }
    let da_ref = disperse(&engine, envelope.as_bytes()).await?;
    Ok(json!({
        "success": true,
        "schema": checked.schema,
        "data_ref_id": keccak256(&envelope),
        // What the owner sends to the chain; until then the envelope counts for nothing.
        "set_secrets": {
            "contract": engine.chain.contracts.policy_data_registry,
            "policy_data_instance_id": instance,
            "artifact_hash": keccak256(&envelope),
            "byte_length": envelope.len(),
            "da_ref": Bytes::from(da_ref),
        },
    }))
}

fn check(
    running: &Running,
    engine: &Engine,
    call: &Signed<StoreQuery>,
    id: B256,
) -> Result<Checked, RpcError> {
    let client = call.query.policy_client;
    let snapshot = engine.snapshot().map_err(|e| state(&e))?;
    // Before anything is opened: what an envelope holds is told to the owner alone.
    call.check(engine, &snapshot, STORE, client)?;
    let assembler = Assembler {
        running,
        engine,
        snapshot: &snapshot,
        before: head_block(&snapshot) + 1,
        sequence: snapshot.tip().sequence,
        stored: Stored::LeaveShut,
    };
    let row = assembler.data_row(id)?;
    if row.client != client {
        return Err(RpcError::invalid_param(
            "policy_data_instance_id",
            format!("belongs to client {}", row.client),
        ));
    }
    let template = assembler.data_template(row.template_id)?;
    if template.secrets_schema.is_absent() {
        return Err(RpcError::invalid_param(
            "policy_data_instance_id",
            format!("data template {} takes no secrets", row.template_id),
        ));
    }
    let schema_hash = template.secrets_schema.hash;
    let schema = schema(&snapshot, schema_hash)?;
    let envelope = Envelope::parse(call.query.envelope.as_bytes())
        .map_err(|e| RpcError::invalid_param("envelope", e))?;
    let secrets = match open(running, engine, client, &envelope) {
        Ok(secrets) => secrets,
        Err(e) => {
            return Ok(Checked {
                schema,
                error: Some((e.to_string(), json!([]))),
            });
        }
    };
    let source = SnapshotBytes::new(&snapshot, None);
    let verdict = running
        .pools
        .checks
        .check_secrets(id, Some(schema_hash), &secrets, &source);
    let error = match verdict {
        Ok(()) => None,
        Err(e) if e.finality() == Finality::Final => Some((e.to_string(), violations(&e))),
        Err(e @ EvaluateError::ArtifactMismatch { .. }) => return Err(internal(&e)),
        Err(e) => return Err(abstain(&e)),
    };
    Ok(Checked { schema, error })
}

/// The public schema, for the author to compare with.
fn schema(snapshot: &Snapshot, hash: B256) -> Result<Value, RpcError> {
    let bytes = snapshot
        .bytes(hash)
        .map_err(|e| state(&e))?
        .ok_or_else(|| {
            RpcError::new(ErrorName::PolicyDataUnresolvable, "the schema is not here").with(
                "leaf_key",
                LeafKey::artifact(Namespace::PolicyDataSecretsSchema, hash)
                    .0
                    .to_string(),
            )
        })?;
    Json::parse(&bytes)
        .map(|schema| schema.to_serde())
        .map_err(|e| internal(&e))
}

async fn disperse(engine: &Engine, bytes: &[u8]) -> Result<Vec<u8>, RpcError> {
    let mut blobs = Vec::new();
    for part in bytes.chunks(MAX_PAYLOAD_BYTES) {
        let certificate = engine.da.put(part.to_vec()).await.map_err(|e| {
            RpcError::new(
                ErrorName::PolicyDataUnresolvable,
                format!("the envelope is fine and could not be dispersed: {e}"),
            )
        })?;
        blobs.push(DaBlob {
            certificate: certificate.to_vec().into(),
            length: u32::try_from(part.len()).map_err(|e| internal(&e))?,
        });
    }
    DaRef::new(blobs)
        .map(|reference| reference.encode())
        .map_err(|e| internal(&e))
}
