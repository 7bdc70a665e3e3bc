//! `cargo xtask torture`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use newton_torture::report::{Report, repeat, torture};
use newton_torture::run::STEPS;

/// Plays a hostile host against the enclave's crates and counts wrong outcomes, which must be none.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask torture", bin_name = "cargo xtask torture")]
struct Arguments {
    /// Seeds to play, from the first one on
    #[arg(long, default_value_t = 500)]
    runs: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Steps before the host behaves
    #[arg(long, default_value_t = STEPS)]
    steps: u64,
    /// Only these faults of the seed's plan, by position, separated by commas
    #[arg(long)]
    only: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(only) = &arguments.only {
        let only: Vec<usize> = only
            .split(',')
            .filter(|part| !part.is_empty())
            .map(|part| part.trim().parse().context("--only takes numbers"))
            .collect::<Result<_>>()?;
        let outcome = repeat(arguments.seed, arguments.steps, &only);
        println!("{outcome:#?}");
        return Ok(code(outcome.wrong.is_empty()));
    }
    let report = torture(arguments.seed, arguments.runs, |done| {
        if done % 500 == 0 {
            eprintln!("{done} runs");
        }
    });
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(code(report.wrong_outcomes == 0))
}

fn code(right: bool) -> ExitCode {
    if right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn print(report: &Report) {
    println!(
        "{} runs from seed {} in {:.1} s: {} boots, {} commits signed",
        report.runs, report.seed, report.seconds, report.boots, report.commits_signed
    );
    println!("{} faults", report.faults_injected);
    for (kind, count) in &report.faults {
        println!("  {kind:<28} {count:>8}");
    }
    println!("{} refusals", report.refusals_total);
    for (name, count) in &report.refusals {
        println!("  {name:<28} {count:>8}");
    }
    println!("{} wrong outcomes", report.wrong_outcomes);
    for failure in &report.failures {
        println!("seed {}: {:?}", failure.seed, failure.faults);
        for wrong in &failure.wrong {
            println!("  {wrong}");
        }
        println!("  repeat: {}", failure.command);
    }
}
