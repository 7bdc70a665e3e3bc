//! Load on an enclave through the shim: callers that never pause.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use newton_api::client::ClientError;
use newton_types::rpc::{Disposition, ErrorName};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{World, enclave::Enclave};

/// What became of the calls. Latencies are the callers', TLS handshake included, of answers alone.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Callers at once.
    pub callers: usize,
    /// Seconds until the last caller was done.
    pub seconds: f64,
    /// Evaluations answered.
    pub served: usize,
    /// Typed refusals to try again.
    pub refused: usize,
    /// Evaluations answered a second.
    pub served_per_second: f64,
    /// Median, microseconds.
    pub p50_us: u64,
    /// 99th percentile, microseconds.
    pub p99_us: u64,
}

/// Parameters of `newt_simulateTask` for the client of the main job. Simulations evaluate anew each time, as tasks that the enclave has
/// answered do not.
///
/// # Errors
/// If the example has no such intent.
pub fn simulation(world: &World, example: &Path) -> Result<Value> {
    let path = example.join("intents/allow.json");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let intent: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(json!({ "policy_client": world.chain.accounts.client, "intent": intent }))
}

/// Has `callers` evaluate the same again and again for `duration`.
///
/// # Errors
/// If a call is answered by anything else than the policy's approval or a refusal that is typed `Overloaded` or `RateLimited` and retryable.
pub async fn simulate(
    enclave: &Arc<Enclave>,
    params: &Value,
    callers: usize,
    duration: Duration,
) -> Result<Report> {
    let started = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..callers {
        let (enclave, params) = (enclave.clone(), params.clone());
        running.spawn(async move {
            let (mut latencies, mut refused) = (Vec::new(), 0);
            while started.elapsed() < duration {
                let asked = Instant::now();
                match enclave.try_call("newt_simulateTask", params.clone()).await {
                    Ok(answer) => {
                        let result = &answer["evaluation_result"]["result"];
                        ensure!(*result == json!(true), "another answer: {answer}");
                        latencies.push(asked.elapsed());
                    }
                    Err(ClientError::Rpc(e)) => {
                        let typed =
                            matches!(e.name, ErrorName::Overloaded | ErrorName::RateLimited);
                        ensure!(
                            typed && e.name.disposition() == Disposition::Retryable,
                            "refused otherwise: {e}"
                        );
                        refused += 1;
                    }
                    Err(other) => return Err(other).context("a call without an answer"),
                }
            }
            Ok((latencies, refused))
        });
    }
    let mut report = Report {
        callers,
        ..Report::default()
    };
    let mut latencies = Vec::new();
    while let Some(outcome) = running.join_next().await {
        let (more, refused) = outcome.context("a caller panicked")??;
        latencies.extend(more);
        report.refused += refused;
    }
    report.seconds = started.elapsed().as_secs_f64();
    report.served = latencies.len();
    report.served_per_second = latencies.len() as f64 / report.seconds;
    latencies.sort_unstable();
    let percentile = |percent: usize| {
        let index = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
        latencies.get(index).map_or(0, |l| l.as_micros() as u64)
    };
    (report.p50_us, report.p99_us) = (percentile(50), percentile(99));
    Ok(report)
}
