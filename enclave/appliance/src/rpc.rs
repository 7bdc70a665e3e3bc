//! The JSON-RPC methods (design 4.8): one table from name to function.

mod keys;
pub(crate) mod reads;

use std::{future::Future, pin::Pin, sync::Arc};

use newton_api::{Call, Handler, RpcError};
use newton_types::{Address, B256, Bytes, rpc::ErrorName};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    appliance::{Appliance, Unavailable},
    engine::Engine,
    running::Running,
    task,
};

/// Answers calls over the running appliance.
pub struct Methods(pub Arc<Appliance>);

/// Methods of the public interface that this version does not serve yet. They are named, so that a client learns that it
/// asked for the right thing too early, not for the wrong thing.
const NOT_YET: [&str; 8] = [
    "newt_storeEncryptedSecrets",
    "newt_simulatePolicyData",
    "newt_simulatePolicyDataWithClient",
    "newt_simulatePolicy",
    "newt_simulateTask",
    "newt_fetchPolicyData",
    "newt_createTask",
    "newt_sendTask",
];

impl Handler for Methods {
    fn call(
        &self,
        call: Call,
    ) -> Pin<Box<dyn Future<Output = Result<Value, RpcError>> + Send + '_>> {
        Box::pin(self.dispatch(call))
    }
}

impl Methods {
    async fn dispatch(&self, call: Call) -> Result<Value, RpcError> {
        let app = &self.0;
        let write = call.permissions.write;
        match call.method.as_str() {
            "newt_health" => call.params.parse().and_then(|None {}| health(app)),
            "newt_getAttestation" => keys::attestation(app, &call.params.parse()?),
            "newt_getAdmissionRequest" => keys::admission_request(app, &call.params.parse()?),
            "newt_getSecretShares" => call.params.parse().and_then(|None {}| keys::shares(app)),
            "newt_submitShare" => keys::submit_share(app, &call.params.parse()?),
            "newt_getKeyEpochVote" => call
                .params
                .parse()
                .and_then(|None {}| keys::epoch_vote(app)),
            "newt_getSecretsPublicKey" => call
                .params
                .parse()
                .and_then(|None {}| keys::public_key(app, keys::Domain::Secrets)),
            "newt_getPrivacyPublicKey" => call
                .params
                .parse()
                .and_then(|None {}| keys::public_key(app, keys::Domain::Privacy)),
            "newt_getArtifact" => reads::artifact(app, call.params.parse()?).await,
            "newt_getStateProof" => reads::state_proof(app, call.params.parse()?).await,
            "newt_getStateCommit" => reads::state_commit(app, call.params.parse()?).await,
            "newt_getCommitVote" => reads::commit_vote(app, call.params.parse()?).await,
            "newt_getPolicyStatus" => reads::policy_status(app, call.params.parse()?).await,
            "newt_getSecretsMetadata" => reads::secrets_metadata(app, call.params.parse()?).await,
            "newt_evaluateAndSign" if !write => Err(unauthorized()),
            "newt_evaluateAndSign" => task::evaluate_and_sign(app, call.params.parse()?).await,
            name if NOT_YET.contains(&name) => Err(RpcError::new(
                ErrorName::NotImplemented,
                format!("{name} is not served by this version"),
            )),
            name => Err(RpcError::new(
                ErrorName::MethodNotFound,
                format!("there is no method {name}"),
            )),
        }
    }
}

/// Parameters of a method that takes none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct None {}

fn health(app: &Appliance) -> Result<Value, RpcError> {
    let (phase, fault) = app.phase();
    let chains: Vec<Value> = match app.running() {
        Ok(running) => running.chains.values().map(|e| e.health()).collect(),
        Err(_) => Vec::new(),
    };
    Ok(json!({
        "status": phase,
        "fault": fault,
        "version": env!("CARGO_PKG_VERSION"),
        "platform": app.platform,
        "network": app.consensus.consensus.network,
        "operator": app.operator(),
        "boot_id": app.identity.boot_id,
        "config_hash": app.config_hash,
        "development": app.consensus.development(),
        "chains": chains,
    }))
}

/// The status line that the host may show: health and nothing else.
pub fn status(app: &Appliance) -> String {
    health(app).map_or_else(|e| e.to_json().to_string(), |v| v.to_string())
}

fn unauthorized() -> RpcError {
    RpcError::new(
        ErrorName::Unauthorized,
        "this method needs an Authorization: Bearer key with the permission RpcWrite",
    )
}

/// The running appliance, or why there is none.
pub(crate) fn running(app: &Appliance) -> Result<Arc<Running>, RpcError> {
    app.running().map_err(|unavailable| match unavailable {
        Unavailable::Starting => RpcError::new(ErrorName::AwaitingSecret, "still starting"),
        Unavailable::AwaitingSecret => RpcError::new(
            ErrorName::AwaitingSecret,
            "waiting for the share holders of the master secret",
        ),
        Unavailable::Halted(fault) => {
            RpcError::new(ErrorName::Halted, "stopped after a fault").with("fault", fault)
        }
    })
}

/// The engine of a chain; the only one if the caller names none.
pub(crate) fn engine(running: &Running, chain_id: Option<u64>) -> Result<Arc<Engine>, RpcError> {
    let engine = match chain_id {
        Some(id) => running.chains.get(&id),
        None if running.chains.len() == 1 => running.chains.values().next(),
        None => {
            return Err(RpcError::invalid_param(
                "chain_id",
                "this enclave follows several chains, name one",
            ));
        }
    };
    engine.cloned().ok_or_else(|| {
        RpcError::invalid_param("chain_id", "this enclave does not follow that chain")
    })
}

/// Runs blocking work (database, workers) off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RpcError> + Send + 'static,
) -> Result<T, RpcError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(internal(&e)))
}

/// A fault of ours. The sentence goes to the caller, so callers must not put content into it.
pub(crate) fn internal(e: &dyn std::fmt::Display) -> RpcError {
    RpcError::new(ErrorName::InternalError, e.to_string())
}

/// Fields that several methods share.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeafQuery {
    pub(crate) chain_id: Option<u64>,
    pub(crate) leaf_key: B256,
    pub(crate) sequence_no: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ArtifactQuery {
    pub(crate) chain_id: Option<u64>,
    pub(crate) namespace: u8,
    pub(crate) hash: B256,
    pub(crate) sequence_no: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommitQuery {
    pub(crate) chain_id: Option<u64>,
    pub(crate) sequence_no: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyQuery {
    pub(crate) chain_id: Option<u64>,
    pub(crate) policy_client: Address,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecretsQuery {
    pub(crate) chain_id: Option<u64>,
    pub(crate) policy_data_instance_id: B256,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EvaluateQuery {
    pub(crate) chain_id: Option<u64>,
    pub(crate) task_id: B256,
    /// Shown to Rego as `input.intent_signature`, not verified here.
    pub(crate) intent_signature: Option<Bytes>,
}
