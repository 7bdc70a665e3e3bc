//! Programs of other packages that the task runner builds and becomes. They are heavy; the task runner itself stays small.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress::Step;
use crate::project::Project;

/// Builds a program of the package `newton-e2e` and becomes it.
///
/// # Errors
/// If it does not build or cannot be started.
pub fn become_program(
    project: &Project,
    program: &str,
    arguments: &[OsString],
) -> Result<Infallible> {
    let step = Step::begin(&format!("Compiling {program} (minutes the first time)"));
    let built = Command::new("cargo")
        .args([
            "build",
            "--quiet",
            "--package",
            "newton-e2e",
            "--bin",
            program,
        ])
        .current_dir(project.root())
        .status()
        .context("cargo could not be started")?;
    anyhow::ensure!(built.success(), "{program} does not compile: {built}");
    step.done();
    let error = Command::new("cargo")
        .args([
            "run",
            "--quiet",
            "--package",
            "newton-e2e",
            "--bin",
            program,
            "--",
        ])
        .args(arguments)
        .current_dir(project.root())
        .exec();
    Err(error).context("cargo could not be started")
}
