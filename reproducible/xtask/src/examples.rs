//! `cargo xtask examples`: the tests of the example policies, and their components.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::progress::{Step, say};
use crate::setup::{ComponentTools, Setup};

const WIT: &str = "tests/examples/spend-limit/component/wit/newton-provider.wit";

/// As much of an example's `cases.json` as building its components needs.
#[derive(Deserialize)]
struct Cases {
    components: Vec<Component>,
}

#[derive(Deserialize)]
struct Component {
    name: String,
    source: PathBuf,
    /// Built already, in the example's folder.
    wasm: Option<PathBuf>,
}

/// Runs the tests of all examples, or of `only` some, with their components if they are to be built.
///
/// # Errors
/// If an example does not exist, a component does not build, or a test fails.
pub fn run(setup: &Setup, build: bool, only: &[String]) -> Result<()> {
    let root = setup.project().root();
    let folders = folders(&setup.project().path("tests/examples"), only)?;
    let built = setup.project().path("target/examples");
    if build {
        let tools = setup.component_tools()?;
        let wit = setup.project().path(WIT);
        fs::create_dir_all(&built).with_context(|| built.display().to_string())?;
        for folder in &folders {
            components(folder, &tools, &wit, &built)?;
        }
    }
    let step = Step::begin("Compiling the test runner (minutes the first time)");
    // The workspace as a whole, so that dependencies keep the features they have everywhere else.
    let compiled = Command::new("cargo")
        .args([
            "build",
            "--quiet",
            "--workspace",
            "--bin",
            "newton-policy-test",
        ])
        .current_dir(root)
        .status()
        .context("starting cargo")?;
    ensure!(compiled.success(), "the test runner does not compile");
    step.done();
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| setup.project().path("target"), PathBuf::from);
    let mut runner = Command::new(target.join("debug/newton-policy-test"));
    if build {
        runner.arg("--built").arg(&built);
    }
    let status = runner
        .args(&folders)
        .status()
        .context("starting the test runner")?;
    ensure!(status.success(), "tests of examples failed");
    Ok(())
}

fn folders(examples: &Path, only: &[String]) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(examples).with_context(|| examples.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if only.is_empty() || only.iter().any(|wanted| wanted == name) {
            folders.push(path);
        }
    }
    ensure!(
        only.is_empty() || folders.len() == only.len(),
        "not all of {} are folders of {}",
        only.join(", "),
        examples.display()
    );
    folders.sort();
    Ok(folders)
}

fn components(folder: &Path, tools: &ComponentTools, wit: &Path, out: &Path) -> Result<()> {
    let path = folder.join("cases.json");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let cases: Cases = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    for component in cases.components {
        let source = folder.join(&component.source);
        if component.wasm.is_some() {
            continue;
        }
        let wasm = out.join(format!("{}.wasm", component.name));
        let parent = source.parent().context("a source without a folder")?;
        let mut command = match source.extension().and_then(OsStr::to_str) {
            Some("js") => tools.javascript(&source, wit, &wasm),
            Some("py") => {
                let name = source.file_stem().and_then(OsStr::to_str);
                tools.python(parent, name.context("a source without a name")?, wit, &wasm)
            }
            Some("rs") => {
                if !has_wasm_target() {
                    say(&format!(
                        "NOT CHECKED: the target wasm32-wasip2 is not installed here, so {} is not built and its cases do not run. \
                         `rustup target add wasm32-wasip2` changes that.",
                        source.display()
                    ));
                    continue;
                }
                let crate_folder = parent.parent().context("a source without a crate")?;
                let mut script = Command::new("sh");
                script.arg(crate_folder.join("build.sh")).arg(out);
                script
            }
            _ => bail!(
                "{} is in no language that components are built from",
                source.display()
            ),
        };
        let step = Step::begin(&format!("Building {}", source.display()));
        let output = command
            .output()
            .with_context(|| format!("the compiler of {}", source.display()))?;
        ensure!(
            output.status.success(),
            "{} does not build:\n{}{}",
            source.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        step.done();
    }
    Ok(())
}

fn has_wasm_target() -> bool {
    Command::new("rustc")
        .args(["--print", "target-libdir", "--target", "wasm32-wasip2"])
        .output()
        .is_ok_and(|output| {
            output.status.success()
                && Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()
        })
}
