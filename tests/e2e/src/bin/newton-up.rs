//! `cargo xtask up`: sets up what is missing, builds the image, starts everything and shows it at work.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use newton_e2e::{
    Backend, Paths, World, WorldOptions, compile, load,
    run::{self, Summary},
};
use newton_xtask::{image, progress::say, setup::Setup};

/// Builds and starts everything: image, chain, contracts, DA store, host relay, enclave; and shows it at work
#[derive(Parser)]
#[command(name = "cargo xtask up")]
struct Arguments {
    /// Exit after the last check instead of staying up
    #[arg(long)]
    once: bool,
    /// Print one machine-readable summary on standard output
    #[arg(long)]
    json: bool,
    /// What runs the enclave
    #[arg(long, value_enum, default_value = "qemu")]
    backend: Kind,
    /// Where the enclave's JSON-RPC over TLS is reached
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A real EigenDA proxy instead of the embedded store
    #[arg(long, value_name = "URL")]
    da: Option<String>,
    /// Length of a commit window in seconds
    #[arg(long, default_value_t = 3)]
    cadence: u64,
    /// After the last check, have this many callers simulate a task for ten seconds
    #[arg(long, value_name = "CALLERS")]
    load: Option<usize>,
    /// Memory of the enclave in MiB
    #[arg(long, default_value_t = 1024)]
    memory: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The measured image under QEMU's nitro-enclave machine
    Qemu,
    /// The appliance as a process: quick, for development, proves nothing about the image
    Process,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .init();
    let arguments = Arguments::parse();
    let started = Instant::now();
    let outcome = prepare(&arguments).and_then(|(setup, options)| {
        tokio::runtime::Runtime::new()?.block_on(up(&arguments, &setup, &options, started))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("Error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Everything that is built before anything runs; each step is kept by the hash of its inputs.
fn prepare(arguments: &Arguments) -> Result<(Setup, WorldOptions)> {
    let setup = Setup::new()?;
    setup.packages()?;
    let tools = setup.contract_tools()?;
    let backend = match arguments.backend {
        Kind::Qemu => {
            let image = Box::new(image::build(&setup)?);
            let m = &image.measurements;
            say(&format!(
                "Image {} ({} bytes)",
                image.eif.display(),
                image.eif_bytes
            ));
            say(&format!(
                "PCR0 {}\nPCR1 {}\nPCR2 {}",
                m.pcr0, m.pcr1, m.pcr2
            ));
            Backend::Qemu {
                image,
                qemu: setup.qemu()?,
                vhost_device_vsock: setup.vhost_device_vsock()?,
            }
        }
        Kind::Process => {
            say("Compiling the appliance with its development backend");
            Backend::Process {
                appliance: compile::process_appliance(&setup)?,
                image: 1,
            }
        }
    };
    say("Compiling the contracts");
    let contracts_out = compile::contracts(&setup, &tools)?;
    let options = WorldOptions {
        paths: Paths {
            anvil: tools.anvil,
            contracts_out,
            contracts_config: setup.project().path("contracts/config"),
        },
        backend,
        folder: fresh_folder()?,
        da_url: arguments.da.clone(),
        listen: arguments.listen,
        cadence: arguments.cadence,
        memory_mib: arguments.memory,
        servers: Vec::new(),
        operators: 1,
        max_expire_after: None,
    };
    Ok((setup, options))
}

async fn up(
    arguments: &Arguments,
    setup: &Setup,
    options: &WorldOptions,
    started: Instant,
) -> Result<()> {
    let outcome = work(arguments, setup, options, started).await;
    if outcome.is_ok() {
        let _ = std::fs::remove_dir_all(&options.folder);
    } else {
        say(&format!(
            "Logs and state are kept in {}",
            options.folder.display()
        ));
    }
    outcome
}

async fn work(
    arguments: &Arguments,
    setup: &Setup,
    options: &WorldOptions,
    started: Instant,
) -> Result<()> {
    let mut summary = Summary::default();
    if let Backend::Qemu { image, .. } = &options.backend {
        summary.eif_bytes = image.eif_bytes;
    }
    let world = World::start(options, &say).await?;
    let example = setup.project().path("tests/examples/spend-limit");
    let job = run::main_job(&world, &example, &mut summary, &say);
    let ready = tokio::select! {
        ready = job => ready?,
        _ = tokio::signal::ctrl_c() => {
            world.shim.stop().await;
            anyhow::bail!("interrupted");
        }
    };
    say(&format!(
        "All checks passed after {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    let enclave = Arc::new(ready.enclave);
    if let Some(callers) = arguments.load {
        say(&format!("{callers} callers for ten seconds"));
        let params = load::simulation(&world, &example)?;
        let report = load::simulate(&enclave, &params, callers, Duration::from_secs(10)).await?;
        say(&serde_json::to_string(&report)?);
        summary.load = Some(report);
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    }
    if !arguments.once {
        say(&format!(
            "Up. JSON-RPC over TLS at {} (key sha256 {}), chain at {}; Ctrl-C ends it",
            world.shim.api_address(),
            enclave.tls_key,
            world.rpc_url()
        ));
        stay(&world).await;
    }
    world.shim.stop().await;
    Ok(())
}

/// A status line every few seconds until interrupted.
async fn stay(world: &World) {
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return,
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
        let status = world.shim.request_status(Duration::from_secs(5)).await;
        let line = status.and_then(|s| serde_json::from_str::<serde_json::Value>(&s).ok());
        match line {
            Some(v) => {
                let chain = &v["chains"][0];
                eprintln!(
                    "{} · commit {} · finalized block {} · queue {} · signing {}",
                    v["status"].as_str().unwrap_or("?"),
                    chain["sequence_no"],
                    chain["finalized_block"],
                    chain["queue_entries"],
                    chain["signing"]
                );
            }
            None => eprintln!("the enclave does not answer"),
        }
    }
}

/// A short path: it holds sockets.
fn fresh_folder() -> Result<PathBuf> {
    let folder = Path::new("/tmp").join(format!("newton-up-{}", std::process::id()));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    Ok(folder)
}
