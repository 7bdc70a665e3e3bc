//! The JSON-RPC methods (design 4.8): described in `methods`, dispatched from there.

mod describe;
mod keys;
mod methods;
mod network;
mod openrpc;
mod owner;
pub(crate) mod reads;
mod secrets;
mod simulate;
mod tasks;

use std::{future::Future, pin::Pin, sync::Arc};

use newton_api::{Call, Handler, Permissions, RpcError};
use newton_evaluate::Json;
use newton_types::{Address, B256, Bytes, rpc::ErrorName};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    appliance::{Appliance, Unavailable},
    engine::Engine,
    running::Running,
};
use methods::{Access, Method};
pub use tasks::Found;

/// Answers calls over the running appliance.
pub struct Methods(pub Arc<Appliance>);

impl Handler for Methods {
    fn call(
        &self,
        call: Call,
    ) -> Pin<Box<dyn Future<Output = Result<Value, RpcError>> + Send + '_>> {
        Box::pin(self.dispatch(call))
    }

    /// An artifact of 24 MiB in hex, as a value and as text; everything else stays far below a limit of the rules.
    fn answer_bytes(&self, method: &str) -> usize {
        match method {
            "newt_getArtifact" | "newt_getEntryBytes" => 100 << 20,
            _ => 2 << 20,
        }
    }
}

impl Methods {
    async fn dispatch(&self, call: Call) -> Result<Value, RpcError> {
        let Some(method) = methods::find(&call.method) else {
            return Err(RpcError::new(
                ErrorName::MethodNotFound,
                format!("there is no method {}", call.method),
            ));
        };
        method.allow(call.permissions)?;
        (method.serve.run)(self.0.clone(), call.params).await
    }
}

impl Method {
    /// Whether the caller's key opens this method.
    fn allow(&self, permissions: Permissions) -> Result<(), RpcError> {
        let (granted, needed) = match self.access {
            Access::Open => return Ok(()),
            Access::Read => (permissions.read, "RpcRead"),
            Access::Write => (permissions.write, "RpcWrite"),
        };
        if granted {
            return Ok(());
        }
        Err(RpcError::new(
            ErrorName::Unauthorized,
            format!("this method needs an Authorization: Bearer key with the permission {needed}"),
        ))
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

/// Canonical JSON as a value of the answer. Integers above 64 bits are rounded there, so their text goes beside it.
pub(crate) fn json_value(canonical: &[u8]) -> Result<Value, RpcError> {
    Json::parse(canonical)
        .map(|value| value.to_serde())
        .map_err(|e| internal(&e))
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
    /// The round of `outputs`; 0 without.
    pub(crate) round: Option<u32>,
    /// What operators have prepared; without it components run here.
    pub(crate) outputs: Option<Vec<newton_rounds::OperatorOutputs>>,
}
