//! `newton-shim`: runs the enclave and relays for it; shows how it fares.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use newton_shim::{
    BackendKind, EnclaveState, Report, Shim, ShimConfig, fetch_metrics, fetch_report,
};
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};
use tracing_subscriber::EnvFilter;

/// The untrusted host relay of the Newton policy enclave.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the enclave, relay for it, start it again when it ends, stop it with the shim.
    Run {
        /// The configuration (docs/operators.md).
        #[arg(long)]
        config: PathBuf,
        /// Instead of the configuration's.
        #[arg(long)]
        backend: Option<Backend>,
        /// End when the enclave ends.
        #[arg(long)]
        once: bool,
    },
    /// Show attestation, root, queue, last commit and gas balance.
    Status {
        /// The configuration of the running shim.
        #[arg(long)]
        config: PathBuf,
        /// The whole report as JSON.
        #[arg(long)]
        json: bool,
        /// The enclave's metrics instead (Prometheus text).
        #[arg(long, conflicts_with = "json")]
        metrics: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    Nitro,
    Qemu,
    Process,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Run {
            config,
            backend,
            once,
        } => {
            let filter =
                EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
            tracing_subscriber::fmt().with_env_filter(filter).init();
            let mut config = ShimConfig::load(&config)?;
            if let Some(backend) = backend {
                config.backend = match backend {
                    Backend::Nitro => BackendKind::Nitro,
                    Backend::Qemu => BackendKind::Qemu,
                    Backend::Process => BackendKind::Process,
                };
            }
            run(config, once).await
        }
        Command::Status {
            config,
            json,
            metrics,
        } => {
            let config = ShimConfig::load(&config)?;
            let context = || format!("no shim answers in {}", config.state_dir.display());
            if metrics {
                print!(
                    "{}",
                    fetch_metrics(&config.state_dir)
                        .await
                        .with_context(context)?
                );
                return Ok(());
            }
            let report = fetch_report(&config.state_dir)
                .await
                .with_context(context)?;
            if json {
                println!("{}", serde_json::to_string_pretty(&report)?);
            } else {
                show(&report);
            }
            Ok(())
        }
    }
}

/// An enclave that stood this long before it ended is started again without a pause.
const STABLE: Duration = Duration::from_secs(60);
const MAX_PAUSE: Duration = Duration::from_secs(60);

async fn run(config: ShimConfig, once: bool) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shim = tokio::select! {
        shim = Shim::start(config) => shim?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    tracing::info!(api = %shim.api_address(), "shim up");
    let mut pause = Duration::from_secs(1);
    loop {
        let started = Instant::now();
        let supervised = async {
            match shim.wait_ready(Duration::from_secs(120)).await {
                Ok(took) => tracing::info!(?took, "the enclave is up"),
                Err(error) => tracing::error!("{error}"),
            }
            shim.wait_enclave_exit().await
        };
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            how = supervised => {
                if once {
                    shim.stop().await;
                    bail!("the enclave ended: {how}");
                }
            }
        }
        pause = if started.elapsed() > STABLE {
            Duration::from_secs(1)
        } else {
            (pause * 2).min(MAX_PAUSE)
        };
        tracing::warn!(?pause, "starting the enclave again after a pause");
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = sleep(pause) => {}
        }
        if let Err(error) = shim.restart_enclave().await {
            tracing::error!("{error}");
        }
    }
    tracing::info!("stopping");
    shim.stop().await;
    Ok(())
}

fn show(report: &Report) {
    let accelerator = report
        .accelerator
        .as_ref()
        .map(|a| format!(" ({a})"))
        .unwrap_or_default();
    let enclave = match &report.enclave {
        EnclaveState::Running if report.connected => "running, connected".to_owned(),
        EnclaveState::Running => "running, not connected".to_owned(),
        EnclaveState::Ended(how) => format!("ended: {how}"),
        EnclaveState::Stopped => "stopped".to_owned(),
    };
    println!("backend     {}{accelerator}", report.backend);
    println!("enclave     {enclave}");
    if let Some(ms) = report.boot_ms {
        println!("boot        {ms} ms");
    }
    println!("API         {}", report.api);
    for gas in &report.gas {
        let balance = gas.balance_wei.as_deref().map(|wei| format!("{wei} wei"));
        let text = balance.or_else(|| gas.error.clone()).unwrap_or_default();
        println!("gas         chain {}: {} {text}", gas.chain_id, gas.address);
    }
    match &report.appliance {
        serde_json::Value::Null => println!("appliance   has not reported yet"),
        serde_json::Value::Object(fields) => {
            let age = report.appliance_age_ms.unwrap_or_default();
            println!("appliance   reported {age} ms ago:");
            for (name, value) in fields {
                println!("  {name}: {value}");
            }
        }
        other => println!("appliance   {other}"),
    }
}
