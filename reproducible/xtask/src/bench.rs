//! `cargo xtask bench`: measurements that hold ratios, each a program of its own, built optimised.

use std::ffi::OsString;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::progress::Step;
use crate::setup::Setup;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// Page store, state tree, full windows: ratios to plain redb and bare `jmt` (design 10)
    State,
}

/// Measures, and prints what `json` asks for.
///
/// # Errors
/// If the program does not build or fails.
pub fn run(setup: &Setup, subject: Subject, json: bool) -> Result<()> {
    match subject {
        Subject::State => {
            let folder = setup.project().path("target/bench");
            std::fs::create_dir_all(&folder).context("target/bench")?;
            let arguments = vec!["--dir".into(), folder.into()];
            program(setup, "newton-bench-state", arguments, json)
        }
    }
}

/// Builds a program in the release profile and runs it in the project's folder.
fn program(setup: &Setup, name: &str, arguments: Vec<OsString>, json: bool) -> Result<()> {
    let ended = released(setup, name, arguments, json)?;
    ensure!(ended.success(), "{name}: {ended}");
    Ok(())
}

/// Builds a program in the release profile, runs it in the project's folder, and says how it ended.
pub(crate) fn released(
    setup: &Setup,
    name: &str,
    arguments: Vec<OsString>,
    json: bool,
) -> Result<ExitStatus> {
    let root = setup.project().root();
    let cargo = |verb: &str| {
        let mut cargo = Command::new("cargo");
        cargo
            .args([verb, "--quiet", "--release", "--package", name])
            .current_dir(root);
        cargo
    };
    let step = Step::begin(&format!("Compiling {name} (minutes the first time)"));
    let built = cargo("build")
        .status()
        .context("cargo could not be started")?;
    ensure!(built.success(), "{name} does not compile: {built}");
    step.done();
    let mut run = cargo("run");
    run.arg("--");
    if json {
        run.arg("--json");
    }
    run.args(arguments)
        .status()
        .context("cargo could not be started")
}
