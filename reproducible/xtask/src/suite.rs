//! `cargo xtask test`: every test of the tree, the quick ones first, with one count at the end.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::image;
use crate::progress::{Step, say, seconds};
use crate::reproduce;
use crate::setup::{ContractTools, Setup};

/// How many tests passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed, and suites that did not get as far as their tests.
    pub failed: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    fn of(passed: bool) -> Self {
        Self {
            passed: u64::from(passed),
            failed: u64::from(!passed),
        }
    }
}

/// Runs everything. A suite that fails does not keep the later ones from running, unless they need what it builds.
///
/// # Errors
/// Only if this machine cannot be set up.
pub fn run(setup: &Setup, quick: bool) -> Result<Count> {
    let begun = Instant::now();
    let mut count = Count::default();
    setup.packages()?;
    let tools = setup.contract_tools()?;
    link_libraries(setup, &tools)?;
    let root = setup.project().root().to_owned();
    let contracts = setup.project().path("contracts");

    count.add(formatting(&root, &tools, &contracts));
    // One core is busy with the contracts, the other compiles the Rust tests meanwhile. If they do not compile, the suite
    // below says so.
    let compiling = cargo(&root)
        .args(["test", "--workspace", "--no-run", "--quiet"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    // The Rust tests deploy what this compiles.
    count.add(whole(
        "Compiling the contracts",
        Command::new(&tools.forge)
            .args(["build", "--use"])
            .arg(&tools.solc)
            .current_dir(&contracts),
    ));
    count.add(counted(
        "Contract tests",
        Command::new(&tools.forge)
            .args(["test", "--use"])
            .arg(&tools.solc)
            // The gas of the snapshot is that of this source, or the suite fails.
            .env("FORGE_SNAPSHOT_CHECK", "true")
            .current_dir(&contracts),
    ));
    if let Ok(mut compiling) = compiling {
        let step = Step::begin("Compiling the Rust tests (minutes the first time)");
        let _ = compiling.wait();
        step.done();
    }
    count.add(counted(
        "Rust tests",
        cargo(&root)
            .args(["test", "--workspace", "--no-fail-fast", "--quiet"])
            .env("NEWTON_ANVIL", &tools.anvil),
    ));
    if !quick {
        count.add(image_suites(setup, &root));
    }
    say(&format!("All of it took {}", seconds(begun.elapsed())));
    Ok(count)
}

/// What reads the sources without running them: formatting, lints, documentation, dependencies.
///
/// # Errors
/// Only if this machine cannot be set up.
pub fn lint(setup: &Setup) -> Result<Count> {
    setup.packages()?;
    let tools = setup.contract_tools()?;
    let root = setup.project().root().to_owned();
    let mut count = formatting(&root, &tools, &setup.project().path("contracts"));
    count.add(whole(
        "Clippy",
        cargo(&root).args([
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--features",
            "newton-e2e/run,newton-appliance/process",
            "--",
            "-D",
            "warnings",
        ]),
    ));
    count.add(whole(
        "Documentation",
        cargo(&root)
            .args(["doc", "--quiet", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    ));
    let deny = cargo(&root)
        .args(["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if deny.is_ok_and(|status| status.success()) {
        count.add(whole(
            "Dependencies: licences, bans, sources",
            cargo(&root).args(["deny", "check", "licenses", "bans", "sources"]),
        ));
    } else {
        say("NOT CHECKED: dependencies, since `cargo install cargo-deny` was not done here");
    }
    Ok(count)
}

fn formatting(root: &Path, tools: &ContractTools, contracts: &Path) -> Count {
    let mut count = whole(
        "Rust formatting",
        cargo(root).args(["fmt", "--all", "--check"]),
    );
    count.add(whole(
        "Solidity formatting",
        Command::new(&tools.forge)
            .args(["fmt", "--check"])
            .current_dir(contracts),
    ));
    count
}

/// The suites that need the image: end to end over QEMU, and its reproduction.
fn image_suites(setup: &Setup, root: &Path) -> Count {
    let mut count = Count::default();
    let built = setup
        .qemu()
        .and_then(|_| setup.vhost_device_vsock())
        .and_then(|_| image::build(setup));
    if let Err(error) = built {
        eprintln!("FAILED: building the image: {error:#}");
        return Count::of(false);
    }
    count.add(counted(
        "End-to-end tests over the real image",
        // The workspace as a whole, so that dependencies keep the features they were compiled with above.
        cargo(root).args([
            "test",
            "--quiet",
            "--workspace",
            "--features",
            "newton-e2e/run",
            "--test",
            "process",
            "--test",
            "operators",
            "--test",
            "rounds",
            "--test",
            "image",
            "--",
            "--test-threads=1",
            "--nocapture",
        ]),
    ));
    let step = Step::begin("Reproducing the image's measurements from a clean copy");
    let reproduced = reproduce::reproduce(setup, None, None);
    step.done();
    match reproduced {
        Ok(report) => {
            report.say();
            count.add(Count::of(report.reproduced));
        }
        Err(error) => {
            eprintln!("FAILED: reproduction: {error:#}");
            count.add(Count::of(false));
        }
    }
    count
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root);
    command
}

/// A command that is one test: it succeeds or not.
fn whole(what: &str, command: &mut Command) -> Count {
    let step = Step::begin(what);
    let outcome = command.stdin(Stdio::null()).status();
    step.done();
    let passed = matches!(&outcome, Ok(status) if status.success());
    if !passed {
        eprintln!("FAILED: {what}: {}", told(outcome.map(|s| s.to_string())));
    }
    Count::of(passed)
}

/// A command whose output says how many tests it ran.
fn counted(what: &str, command: &mut Command) -> Count {
    let step = Step::begin(what);
    let outcome = stream(command);
    step.done();
    match outcome {
        Ok((mut count, succeeded)) => {
            // A suite that does not compile, or counts nothing, has failed whatever it printed.
            if (!succeeded && count.failed == 0) || count == Count::default() {
                count.failed += 1;
            }
            if count.failed > 0 {
                eprintln!("FAILED: {what}");
            }
            count
        }
        Err(error) => {
            eprintln!("FAILED: {what}: {error:#}");
            Count::of(false)
        }
    }
}

fn stream(command: &mut Command) -> Result<(Count, bool)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("it could not be started")?;
    let mut count = Count::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.context("its output cannot be read")?;
            println!("{line}");
            if let Some(found) = parse(&line) {
                count.add(found);
            }
        }
    }
    let status = child.wait().context("it cannot be waited for")?;
    Ok((count, status.success()))
}

/// Reads cargo's `test result: ok. 3 passed; 0 failed; …` and forge's `Suite result: ok. 3 passed; 0 failed; …`.
fn parse(line: &str) -> Option<Count> {
    // Forge colours its output on some terminals.
    let start = line
        .find("est result: ")
        .or_else(|| line.find("uite result: "))?;
    let mut numbers = line[start..].split([';', '.']).filter_map(|part| {
        let (number, word) = part.trim().split_once(' ')?;
        Some((number.parse::<u64>().ok()?, word.to_owned()))
    });
    let passed = numbers.find(|(_, word)| word.starts_with("passed"))?.0;
    let failed = numbers.find(|(_, word)| word.starts_with("failed"))?.0;
    Some(Count { passed, failed })
}

fn told(outcome: std::io::Result<String>) -> String {
    outcome.unwrap_or_else(|error| error.to_string())
}

/// Links the contract libraries into `contracts/`: forge resolves imports below its project's folder only, and they lie
/// in the cache.
///
/// # Errors
/// If something else is in the way.
pub fn link_libraries(setup: &Setup, tools: &ContractTools) -> Result<()> {
    let link = setup.project().path("contracts/node_modules");
    if std::fs::read_link(&link).is_ok_and(|to| to == tools.node_modules) {
        return Ok(());
    }
    if link.symlink_metadata().is_ok() {
        std::fs::remove_file(&link).with_context(|| format!("{} is in the way", link.display()))?;
    }
    std::os::unix::fs::symlink(&tools.node_modules, &link)
        .with_context(|| format!("{} cannot be made", link.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_runners_lines_are_read() {
        let cargo = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.07s";
        let forge =
            "Suite result: ok. 12 passed; 0 failed; 0 skipped; finished in 1.20ms (2.3ms CPU time)";
        assert_eq!(
            parse(cargo),
            Some(Count {
                passed: 3,
                failed: 2
            })
        );
        assert_eq!(
            parse(forge),
            Some(Count {
                passed: 12,
                failed: 0
            })
        );
        assert_eq!(parse("running 3 tests"), None);
    }

    #[test]
    fn a_suite_that_does_not_run_counts_as_failed() {
        assert_eq!(counted("nothing", &mut Command::new("true")).failed, 1);
        assert_eq!(counted("failure", &mut Command::new("false")).failed, 1);
        assert_eq!(
            counted("absent", &mut Command::new("/no/such/program")).failed,
            1
        );
    }
}
