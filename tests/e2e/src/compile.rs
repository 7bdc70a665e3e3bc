//! Compiling what a world is made of.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
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

/// Builds the component of an example that is written in JavaScript or Python to `out`.
///
/// # Errors
/// With the compiler's output, if it does not build.
pub fn component(setup: &Setup, source: &str, out: &Path) -> Result<()> {
    let tools = setup.component_tools()?;
    let project = setup.project();
    let wit = project.path("tests/examples/spend-limit/component/wit/newton-provider.wit");
    let path = project.path(source);
    let mut command = match path.extension().and_then(OsStr::to_str) {
        Some("js") => tools.javascript(&path, &wit, out),
        Some("py") => {
            let folder = path.parent().context("a source without a folder")?;
            let name = path.file_stem().and_then(OsStr::to_str);
            tools.python(folder, name.context("a source without a name")?, &wit, out)
        }
        _ => bail!("{source} is neither JavaScript nor Python"),
    };
    let output = command
        .output()
        .with_context(|| format!("the compiler of {source}"))?;
    ensure!(
        output.status.success(),
        "{source} does not build:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
