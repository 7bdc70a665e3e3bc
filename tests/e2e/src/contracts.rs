//! Compiling the contracts with the pinned tools.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use newton_xtask::setup::{ContractTools, Setup};

/// Compiles `contracts/` and gives back the folder of artifacts. Forge compiles only what changed.
pub fn build(setup: &Setup, tools: &ContractTools) -> Result<PathBuf> {
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
