//! What `newton-shim status` shows, over a Unix socket in the state folder.

use crate::shim::Inner;
use alloy_primitives::Address;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Weak;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// Longest wait for the enclave's own status.
const PATIENCE: Duration = Duration::from_secs(2);

/// The shim and its enclave at a glance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// `nitro`, `qemu` or `process`.
    pub backend: String,
    /// `kvm` or `tcg` under QEMU.
    pub accelerator: Option<String>,
    /// Whether it runs.
    pub enclave: EnclaveState,
    /// Whether its control channel stands.
    pub connected: bool,
    /// From start to hello, in milliseconds.
    pub boot_ms: Option<u64>,
    /// Where its API is reached.
    pub api: String,
    /// The gas payer, per chain.
    pub gas: Vec<GasStatus>,
    /// What the enclave says of itself (its own JSON), null before its first word.
    pub appliance: Value,
    /// How old that is, in milliseconds.
    pub appliance_age_ms: Option<u64>,
}

/// Whether the enclave runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnclaveState {
    /// It runs.
    Running,
    /// It has ended, and how.
    Ended(String),
    /// It was not started, or was stopped.
    Stopped,
}

/// The gas payer on a chain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GasStatus {
    /// The chain.
    pub chain_id: u64,
    /// The account.
    pub address: Address,
    /// Its balance, decimal.
    pub balance_wei: Option<String>,
    /// Why there is no balance.
    pub error: Option<String>,
}

/// Asks a running shim for its report.
///
/// # Errors
/// If nothing listens at the socket, or what it says is no report.
pub async fn fetch_report(state_dir: &Path) -> io::Result<Report> {
    let text = ask(state_dir, b's').await?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

/// Asks a running shim for the enclave's metrics (Prometheus text).
///
/// # Errors
/// If nothing listens at the socket.
pub async fn fetch_metrics(state_dir: &Path) -> io::Result<String> {
    String::from_utf8(ask(state_dir, b'm').await?).map_err(io::Error::other)
}

async fn ask(state_dir: &Path, what: u8) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(state_dir.join("status.sock")).await?;
    stream.write_all(&[what]).await?;
    let mut answer = Vec::new();
    // The shim's own host is not hostile to the operator, but a limit costs nothing.
    stream
        .take(16 * 1024 * 1024)
        .read_to_end(&mut answer)
        .await?;
    Ok(answer)
}

/// Listens for [`fetch_report`]; only the shim's user may connect.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers one question a connection, one connection at a time.
pub(crate) async fn serve(listener: UnixListener, shim: Weak<Inner>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Some(shim) = shim.upgrade() else { return };
                // Who asks and goes away needs no answer.
                let _ = timeout(3 * PATIENCE, answer(stream, &shim)).await;
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a status request failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, shim: &Inner) -> io::Result<()> {
    let text = match stream.read_u8().await? {
        b'm' => shim.control.metrics().into_bytes(),
        _ => serde_json::to_vec(&report(shim).await)?,
    };
    stream.write_all(&text).await?;
    stream.shutdown().await
}

async fn report(shim: &Inner) -> Report {
    // The answer is kept by the control channel like any other status.
    shim.control.request_status(PATIENCE).await;
    let status = shim.control.status();
    let gas = match &shim.gas {
        Some(gas) => timeout(PATIENCE, gas.status()).await.unwrap_or_default(),
        None => Vec::new(),
    };
    Report {
        backend: format!("{:?}", shim.config.backend).to_lowercase(),
        accelerator: shim.accelerator().map(|a| format!("{a:?}").to_lowercase()),
        enclave: shim.enclave_state(),
        connected: shim.control.is_connected(),
        boot_ms: shim.boot_time().map(|t| t.as_millis() as u64),
        api: shim.api.to_string(),
        gas,
        appliance_age_ms: status.as_ref().map(|(age, _)| age.as_millis() as u64),
        appliance: status.map_or(Value::Null, |(_, json)| {
            serde_json::from_str(&json).unwrap_or(Value::String(json))
        }),
    }
}
