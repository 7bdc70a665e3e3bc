//! `cargo xtask torture`: a hostile host against the enclave's crates, many times.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::bench::released;
use crate::setup::Setup;

/// How often, and what.
#[derive(Debug, Args)]
pub struct Torture {
    /// Seeds to play, from the first one on
    #[arg(long, default_value_t = 500)]
    runs: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Steps before the host behaves
    #[arg(long)]
    steps: Option<u64>,
    /// Only these faults of the seed's plan, by position, separated by commas
    #[arg(long)]
    only: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Plays them. Fails if one run ended as none may.
///
/// # Errors
/// If the program does not build or cannot be started.
pub fn run(setup: &Setup, torture: &Torture) -> Result<ExitCode> {
    let mut arguments = vec![
        "--runs".into(),
        torture.runs.to_string().into(),
        "--seed".into(),
        torture.seed.to_string().into(),
    ];
    if let Some(steps) = torture.steps {
        arguments.extend(["--steps".into(), steps.to_string().into()]);
    }
    if let Some(only) = &torture.only {
        arguments.extend(["--only".into(), only.into()]);
    }
    let ended = released(setup, "newton-torture", arguments, torture.json)?;
    Ok(if ended.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
