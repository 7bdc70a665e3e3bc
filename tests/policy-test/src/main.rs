//! `newton-policy-test FOLDER…`: runs the tests of policies' folders; `cargo xtask examples` does so for this tree's.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use newton_policy_test::{Verdict, run_folder};

/// Runs the tests in policies' folders on the enclave's evaluation engine
#[derive(Debug, Parser)]
#[command(name = "newton-policy-test")]
struct Arguments {
    /// Folders with policy.rego, policy_test.rego and cases.json (docs/authors.md)
    #[arg(required = true, value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// Where built components are, as <component>.wasm
    #[arg(long, value_name = "FOLDER")]
    built: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<usize> {
    let (mut passed, mut failed, mut not_checked) = (0, 0, 0);
    for folder in &arguments.folders {
        let reports = run_folder(folder, arguments.built.as_deref())
            .with_context(|| folder.display().to_string())?;
        println!("{}", folder.display());
        for report in reports {
            let (word, why) = match report.verdict {
                Verdict::Passed => {
                    passed += 1;
                    ("passed", String::new())
                }
                Verdict::Failed(why) => {
                    failed += 1;
                    ("FAILED", format!(": {why}"))
                }
                Verdict::NotChecked(why) => {
                    not_checked += 1;
                    ("NOT CHECKED", format!(": {why}"))
                }
            };
            println!("  {word:<11} {}{why}", report.name);
        }
    }
    println!("{passed} passed, {failed} failed, {not_checked} not checked");
    Ok(failed)
}
