//! What a simulation answers (design 4b).

use newton_api::RpcError;
use newton_evaluate::{Diagnostic, EvaluateError, Evaluation, Finality};
use newton_types::B256;
use serde_json::{Map, Value, json};

use super::super::{internal, json_value};
use crate::assemble::{Data, Stored, abstain};

/// What of a simulation the answer needs beside its outcome.
pub(super) struct Simulated {
    expire_after: Option<u64>,
    missing_secrets: Vec<B256>,
    suggested: Vec<&'static str>,
}

impl Simulated {
    pub(super) fn new(data: &[Data], policy_expiry: Option<u64>, stored: Stored) -> Self {
        let missing: Vec<&Data> = data.iter().filter(|d| d.lacks_secrets()).collect();
        let mut suggested = Vec::new();
        if missing.iter().any(|d| d.has_stored_secrets()) && stored == Stored::LeaveShut {
            suggested.push(
                "secrets are stored: have the client's owner sign the call (owner_signature), or give secrets with it",
            );
        }
        if missing.iter().any(|d| !d.has_stored_secrets()) {
            suggested.push(
                "no secrets are committed: seal some to the key of newt_getSecretsPublicKey, have them checked by \
                 newt_storeEncryptedSecrets and post them with setSecrets, or give secrets with the call",
            );
        }
        Self {
            expire_after: data
                .iter()
                .filter_map(|d| d.expire_after)
                .chain(policy_expiry)
                .min(),
            missing_secrets: missing.iter().map(|d| d.input.instance_id).collect(),
            suggested,
        }
    }

    /// The answer of a whole policy.
    pub(super) fn policy(
        &self,
        entrypoint: &str,
        outcome: Result<Evaluation, EvaluateError>,
    ) -> Result<Value, RpcError> {
        let evaluation = match outcome {
            Ok(evaluation) => evaluation,
            Err(e) => return self.failure("evaluation_result", &e),
        };
        let seen = evaluation
            .seen
            .as_ref()
            .ok_or_else(|| internal(&"a simulation without what Rego saw"))?;
        let result = json!({
            "parsed_intent": json_value(&seen.input)?,
            "policy_params_and_data": {
                "params": json_value(&seen.params)?,
                "wasm": json_value(&seen.wasm)?,
            },
            "entrypoint": entrypoint,
            "result": json_value(&evaluation.result)?,
            "expire_after": self.expire_after,
        });
        let mut answer = self.success("evaluation_result", result);
        // The exact texts: JSON numbers above 2^53 do not survive every client's parser.
        answer["evaluation_result_json"] = json!({
            "parsed_intent": text(&seen.input),
            "params": text(&seen.params),
            "wasm": text(&seen.wasm),
            "result": text(&evaluation.result),
        });
        answer["diagnostics"] = evaluation.diagnostics.iter().map(diagnostic).collect();
        Ok(answer)
    }

    /// The answer of one component.
    pub(super) fn component(
        &self,
        timestamp: u64,
        outcome: Result<Evaluation, EvaluateError>,
    ) -> Result<Value, RpcError> {
        let evaluation = match outcome {
            Ok(evaluation) => evaluation,
            Err(e) => {
                let mut answer = self.failure("data_result", &e)?;
                answer["policy_data"] = Value::Null;
                return Ok(answer);
            }
        };
        let data = evaluation
            .data
            .first()
            .ok_or_else(|| internal(&"a simulation without its component's output"))?;
        let result = json!({
            "policy_data_instance_id": data.instance_id,
            "policy_data_template_id": data.template_id,
            "output": json_value(&data.output)?,
            "output_json": text(&data.output),
            "output_hash": data.output_hash,
            "transcript_hash": data.transcript_hash,
            "http_requests": data.exchanges.len(),
            "fuel_used": data.fuel_used,
            "expire_after": self.expire_after,
        });
        let mut answer = self.success("data_result", result);
        // As public clients read it.
        answer["policy_data"] = json!({
            "specifier": data.instance_id,
            "data": json_value(&data.output)?,
            "timestamp": timestamp,
        });
        Ok(answer)
    }

    fn success(&self, member: &str, result: Value) -> Value {
        let mut answer = json!({ "success": true, "error": null });
        answer[member] = result;
        answer["error_details"] = if self.missing_secrets.is_empty() {
            Value::Null
        } else {
            self.details(&self.suggested)
        };
        answer
    }

    /// What follows from the content is an answer; what only this machine met is an error of the call.
    fn failure(&self, member: &str, e: &EvaluateError) -> Result<Value, RpcError> {
        if e.finality() == Finality::Abstain {
            return Err(abstain(e));
        }
        let mut suggested = self.suggested.clone();
        suggested.extend(suggestion(e));
        let mut details = self.details(&suggested);
        details["name"] = json!(e.name());
        details["violations"] = violations(e);
        let mut answer = json!({
            "success": false,
            "error": e.to_string(),
            "error_details": details,
        });
        answer[member] = Value::Null;
        Ok(answer)
    }

    fn details(&self, suggested: &[&str]) -> Value {
        json!({
            "missing_secrets": self.missing_secrets,
            "suggested_actions": suggested,
        })
    }
}

/// Where a document breaks its schema. Violations of secrets have no message.
pub(in super::super) fn violations(e: &EvaluateError) -> Value {
    let (EvaluateError::ParamsSchemaViolation { violations, .. }
    | EvaluateError::SecretsSchemaViolation { violations, .. }) = e
    else {
        return json!([]);
    };
    violations
        .iter()
        .map(|violation| {
            let mut entry = Map::new();
            entry.insert("instance_path".into(), json!(violation.instance_path));
            entry.insert("schema_path".into(), json!(violation.schema_path));
            if !violation.message.is_empty() {
                entry.insert("message".into(), json!(violation.message));
            }
            Value::Object(entry)
        })
        .collect()
}

fn suggestion(e: &EvaluateError) -> Option<&'static str> {
    Some(match e {
        EvaluateError::RegoUndefined { .. } => {
            "give the entrypoint a default, so that it has a value for every input"
        }
        EvaluateError::ParamsSchemaViolation { .. } => {
            "change the params where the pointers say, or the schema"
        }
        EvaluateError::SecretsSchemaViolation { .. } => {
            "change the secrets where the pointers say, or the schema"
        }
        EvaluateError::InvalidIntent(_) => {
            "function_signature must be the hex of the ABI signature that data is encoded by, or both 0x"
        }
        EvaluateError::MissingPolicyDataInstance { .. } => {
            "deploy an instance of the data template and make it current"
        }
        EvaluateError::ComponentLimitExceeded { .. } => {
            "have the component do less in one run; limits are part of the rules version"
        }
        _ => return None,
    })
}

fn diagnostic(diagnostic: &Diagnostic) -> Value {
    match diagnostic {
        Diagnostic::DataKeyCollision { key, replaced, by } => json!({
            "name": "DataKeyCollision",
            "key": key,
            "replaced": replaced,
            "by": by,
        }),
        _ => json!({ "name": "Unknown" }),
    }
}

/// Canonical JSON is UTF-8.
fn text(canonical: &[u8]) -> String {
    String::from_utf8_lossy(canonical).into_owned()
}
