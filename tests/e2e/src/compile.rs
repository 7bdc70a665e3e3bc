//! Compiling what a world is made of.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use newton_xtask::setup::{ContractTools, Setup};

/// Compiles `contracts/` with the pinned tools and gives back the folder of artifacts. Forge compiles only what changed.
///
/// # Errors
/// With the compiler's output, if they do not compile.
pub fn contracts(setup: &Setup, tools: &ContractTools) -> Result<PathBuf> {
    let folder = setup.project().path("contracts");
    newton_xtask::suite::link_libraries(setup, tools)?;
    let output = Command::new(&tools.forge)
        .args(["build", "--skip", "test", "--use"])
        .arg(&tools.solc)
        .current_dir(&folder)
        .output()
        .context("starting forge")?;
    ensure!(
        output.status.success(),
        "the contracts do not compile:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(folder.join("out"))
}

/// Compiles the appliance with its development backend, which the image never holds, into the target folder in use.
///
/// # Errors
/// If it does not compile.
pub fn process_appliance(setup: &Setup) -> Result<PathBuf> {
    let status = Command::new("cargo")
        .args([
            "build",
            "--quiet",
            // The workspace as a whole, so that dependencies keep the features they were compiled with for the tests.
            "--workspace",
            "--bin",
            "newton-appliance",
            "--features",
            "newton-appliance/process",
        ])
        .current_dir(setup.project().root())
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "the appliance does not compile");
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| setup.project().path("target"), PathBuf::from);
    Ok(target.join("debug/newton-appliance"))
}

/// Builds a JavaScript component of `tests/examples/` to `out`.
///
/// # Errors
/// With the compiler's output, if it does not build.
pub fn javascript_component(setup: &Setup, source: &str, out: &Path) -> Result<()> {
    let tools = setup.component_tools()?;
    let project = setup.project();
    let output = Command::new("node")
        .arg(tools.join("componentize.mjs"))
        .arg(project.path(source))
        .arg(project.path("tests/examples/spend-limit/component/wit/newton-provider.wit"))
        .arg(out)
        .output()
        .context("starting node")?;
    ensure!(
        output.status.success(),
        "{source} does not build:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
