//! `cargo xtask gas`: what the contracts cost and how large they are, measured anew, beside the goals of the design.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::command::run_logged;
use crate::progress::Step;
use crate::setup::Setup;
use crate::suite::link_libraries;

/// EIP-170's limit of a contract's code.
const MAX_CODE: u64 = 24_576;

/// What the design asks for, and how the snapshot's entry for it begins.
struct Goal {
    name: &'static str,
    gas: u64,
    entry: &'static str,
}

const GOALS: &[Goal] = &[
    goal("commit_state_root", 230_000, "commitStateRoot, 10 of 10"),
    goal(
        "commit_state_root_3_absent",
        270_000,
        "commitStateRoot, 3 of 10 absent",
    ),
    goal("register_template", 200_000, "registerTemplate, "),
    goal("deploy_instance", 210_000, "deployInstance, "),
    goal("respond_to_task", 260_000, "respondToTask, "),
    goal(
        "policy_client_above_the_call",
        200_000,
        "direct use in a PolicyClient",
    ),
    goal(
        "row_check_challenge",
        300_000,
        "challengeAttestation, wrong WASM, 1 signer",
    ),
    goal("verify_leaf", 60_000, "verifyLeaf, "),
    goal("readmit", 330_000, "readmit "),
    goal("register_operator", 550_000, "registerOperator "),
];

const fn goal(name: &'static str, gas: u64, entry: &'static str) -> Goal {
    Goal { name, gas, entry }
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Gas by entry of the design.
    pub gas: BTreeMap<&'static str, u64>,
    /// Entries of the design that were not measured, with the reason.
    pub missing: BTreeMap<&'static str, String>,
    /// Bytes of code by contract.
    pub sizes: BTreeMap<String, u64>,
}

/// Runs the contracts' gas tests with the pinned tools and reads what they wrote.
///
/// # Errors
/// If a test fails or forge left no snapshot.
pub fn measure(setup: &Setup) -> Result<Report> {
    setup.packages()?;
    let tools = setup.contract_tools()?;
    link_libraries(setup, &tools)?;
    let contracts = setup.project().path("contracts");
    let mut step = Step::begin("Measuring the contracts");
    let mut forge = Command::new(&tools.forge);
    forge
        .args(["test", "--match-path", "test/Gas.t.sol", "--use"])
        .arg(&tools.solc)
        .current_dir(&contracts);
    run_logged(&mut forge, &setup.cache().log("gas"), &mut step)?;
    step.done();
    let snapshots = contracts.join("snapshots");
    Ok(Report::new(
        &read(&snapshots.join("transactions.json"))?,
        read(&snapshots.join("sizes.json"))?,
    ))
}

impl Report {
    fn new(entries: &BTreeMap<String, u64>, sizes: BTreeMap<String, u64>) -> Self {
        let mut report = Self {
            gas: BTreeMap::new(),
            missing: BTreeMap::new(),
            sizes,
        };
        for goal in GOALS {
            match find(entries, goal) {
                Ok(gas) => drop(report.gas.insert(goal.name, gas)),
                Err(error) => drop(report.missing.insert(goal.name, error.to_string())),
            }
        }
        report
    }

    /// Fails if an entry of the design was not measured.
    ///
    /// # Errors
    /// One that names all of them.
    pub fn require_all(&self) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        bail!("not measured: {:?}", self.missing)
    }

    /// Prints a table with goals and headroom.
    pub fn print(&self) {
        println!(
            "{:<30} {:>9} {:>9} {:>9}",
            "gas", "goal", "measured", "left"
        );
        for goal in GOALS {
            if let Some(&gas) = self.gas.get(goal.name) {
                println!(
                    "{:<30} {:>9} {gas:>9} {:>9}",
                    goal.name,
                    goal.gas,
                    left(goal.gas, gas)
                );
            }
        }
        println!();
        println!("{:<30} {:>9} {:>9} {:>9}", "code", "limit", "bytes", "left");
        for (name, &size) in &self.sizes {
            println!(
                "{name:<30} {MAX_CODE:>9} {size:>9} {:>9}",
                left(MAX_CODE, size)
            );
        }
    }
}

/// What is left below a limit, negative above it.
fn left(limit: u64, value: u64) -> i128 {
    i128::from(limit) - i128::from(value)
}

/// Forge writes numbers as strings.
fn read(path: &Path) -> Result<BTreeMap<String, u64>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    parse(&text).with_context(|| format!("{} is not a snapshot", path.display()))
}

fn parse(text: &str) -> Result<BTreeMap<String, u64>> {
    let entries: BTreeMap<String, String> = serde_json::from_str(text)?;
    entries
        .into_iter()
        .map(|(name, value)| {
            let value = value
                .parse()
                .with_context(|| format!("{name}: {value} is no number"))?;
            Ok((name, value))
        })
        .collect()
}

fn find(entries: &BTreeMap<String, u64>, goal: &Goal) -> Result<u64> {
    let mut found = entries
        .iter()
        .filter(|(name, _)| name.starts_with(goal.entry));
    match (found.next(), found.next()) {
        (Some((_, &gas)), None) => Ok(gas),
        (None, _) => bail!("no measurement begins with {:?}", goal.entry),
        (Some(_), Some(_)) => bail!("two measurements begin with {:?}", goal.entry),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_committed_snapshot_has_every_entry() {
        let text = include_str!("../../../contracts/snapshots/transactions.json");
        let entries = parse(text).unwrap();
        // Challenges come with their contracts: until one is measured, none need be.
        let challenges = entries.keys().any(|name| name.contains("challenge"));
        for goal in GOALS {
            if !challenges && goal.name == "row_check_challenge" {
                continue;
            }
            assert!(find(&entries, goal).unwrap() > 10_000, "{}", goal.name);
        }
    }

    #[test]
    fn committed_sizes_are_within_the_limit() {
        let text = include_str!("../../../contracts/snapshots/sizes.json");
        let sizes = parse(text).unwrap();
        assert!(sizes.len() >= 8);
        for (name, size) in sizes {
            assert!(size <= MAX_CODE, "{name} has {size} bytes");
        }
    }

    #[test]
    fn an_entry_that_is_missing_or_ambiguous_is_named() {
        let mut entries: BTreeMap<String, u64> = GOALS
            .iter()
            .map(|goal| (format!("{}…", goal.entry), goal.gas))
            .collect();
        let report = Report::new(&entries, BTreeMap::new());
        assert_eq!(report.gas["readmit"], 330_000);
        report.require_all().unwrap();
        entries.insert("readmit twice".to_owned(), 1);
        let report = Report::new(&entries, BTreeMap::new());
        assert!(report.missing["readmit"].starts_with("two measurements"));
        entries.retain(|name, _| !name.starts_with("readmit"));
        let report = Report::new(&entries, BTreeMap::new());
        assert!(report.missing["readmit"].starts_with("no measurement"));
        let error = report.require_all().unwrap_err().to_string();
        assert!(error.contains("readmit"), "{error}");
    }

    #[test]
    fn numbers_are_strings_and_nothing_else() {
        assert_eq!(parse(r#"{"a": "12"}"#).unwrap()["a"], 12);
        assert!(parse(r#"{"a": "twelve"}"#).is_err());
        assert!(parse(r#"{"a": 12}"#).is_err());
    }
}
