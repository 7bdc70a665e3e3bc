//! `cargo xtask bench`: measurements that hold ratios, each a program of its own, built optimised.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::progress::Step;
use crate::setup::Setup;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// Evaluation: latency, throughput, ratios to the engines (design 4.9)
    Evaluate,
    /// Page store, state tree, full windows: ratios to plain redb and bare `jmt` (design 10)
    State,
}

/// Measures, and prints what `json` asks for. `arguments` go to the program that does it.
///
/// # Errors
/// If the program does not build or fails.
pub fn run(
    setup: &Setup,
    subject: Subject,
    mut arguments: Vec<OsString>,
    json: bool,
) -> Result<()> {
    match subject {
        Subject::Evaluate => {
            match javascript(setup) {
                Ok(path) => arguments.extend(["--large".into(), path.into()]),
                // Without Node there is everything but this one.
                Err(error) => eprintln!("no JavaScript component is measured: {error:#}"),
            }
            program(setup, "newton-bench-evaluate", arguments, json)
        }
        Subject::State => {
            let folder = setup.project().path("target/bench");
            std::fs::create_dir_all(&folder).context("target/bench")?;
            arguments.extend(["--dir".into(), folder.into()]);
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

/// The example component in JavaScript, built into the target folder.
fn javascript(setup: &Setup) -> Result<PathBuf> {
    let project = setup.project();
    let tools = setup.component_tools()?;
    let folder = project.path("target/bench");
    std::fs::create_dir_all(&folder).context("target/bench")?;
    let out = folder.join("price-feed.wasm");
    if out.exists() {
        return Ok(out);
    }
    let source = project.path("tests/examples/price-feed/component/price-feed.js");
    let wit = project.path("tests/examples/spend-limit/component/wit/newton-provider.wit");
    let output = tools
        .javascript(&source, &wit, &out)
        .output()
        .context("node could not be started")?;
    ensure!(
        output.status.success(),
        "the component does not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(out)
}
