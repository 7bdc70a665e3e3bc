//! The enclave appliance: wires every part and owns the commit loop (design 1, 6).
//!
//! `appliance` runs it; `appliance worker` is the keyless process for untrusted content that it starts of itself.

mod admission;
mod appliance;
mod assemble;
mod boot;
mod bootstrap;
mod dialer;
mod disk;
mod engine;
mod fetch;
mod gather;
mod identity;
mod ingest;
mod logging;
mod metrics;
mod peers;
mod platform;
mod pools;
mod readmit;
mod rounds;
mod rpc;
mod running;
mod secret;
mod skip;
mod task;
mod vote;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("worker") {
        newton_evaluate::worker::worker_main();
    }
    logging::start();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("no runtime: {e}");
            return ExitCode::FAILURE;
        }
    };
    // Ending is final: init reboots the enclave, so that nothing is ever served from a broken state.
    match runtime.block_on(boot::run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!(error = format!("{e:#}"), "the appliance ends");
            ExitCode::FAILURE
        }
    }
}
