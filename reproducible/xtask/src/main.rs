//! `cargo xtask`: everything one does with this tree.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use newton_xtask::reproduce::{self, Mutation};
use newton_xtask::setup::Setup;
use newton_xtask::{bench, e2e, examples, gas, image, suite, torture};
use serde::Serialize;

/// Sets up this machine, builds the measured image, runs and tests it, builds it again and compares.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install and build all tools: system packages, contract tools, QEMU, vsock daemon, kernel source
    Setup,
    /// Build the image and print PCR0, PCR1 and PCR2
    Image {
        /// Also copy the image and its measurements into this folder
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Build the image again in a clean copy, under other conditions, and compare; exits with 4 if it differs
    Reproduce {
        /// Compare with this image file instead of a first build
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        /// Change one byte of one input, to see that it is found
        #[arg(long, hide = true, value_name = "PART")]
        mutate: Option<Mutation>,
    },
    /// Read the sources without running them: formatting, lints, documentation, dependencies
    Lint,
    /// Run every test: unit, contracts, end to end over the image, reproduction of its measurements
    Test {
        /// Leave out what needs the image
        #[arg(long)]
        quick: bool,
    },
    /// Run the tests of the example policies on the enclave's evaluation engine
    Examples {
        /// Build the components first (JavaScript, Python, and Rust where its target is installed) and run them too
        #[arg(long)]
        build: bool,
        /// Only these folders of `tests/examples`
        #[arg(value_name = "EXAMPLE")]
        only: Vec<String>,
    },
    /// Measure what the contracts cost and how large they are, beside the design's goals
    Gas {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Measure one part beside what it stands on
    Bench {
        /// Which part
        subject: bench::Subject,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        /// For the program that measures, after `--`; its `--help` shows them
        #[arg(last = true)]
        arguments: Vec<OsString>,
        /// Leave out what takes longest (`state` only)
        #[arg(long)]
        quick: bool,
    },
    /// Play a hostile host against the enclave's crates; exits with 1 if one run ended as none may
    Torture(torture::Torture),
    /// Build and start everything: image, chain, contracts, DA store, host relay, enclave; and show it at work
    #[command(disable_help_flag = true)]
    Up {
        /// For the program that does it; `--help` shows them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// A reproduction that found a difference.
const EXIT_DIFFERENT: u8 = 4;

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn finish(count: suite::Count) -> ExitCode {
    println!("{} passed, {} failed", count.passed, count.failed);
    if count.failed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn run(task: Task) -> Result<ExitCode> {
    let setup = Setup::new()?;
    match task {
        Task::Setup => setup.all()?,
        Task::Image { out, json } => {
            let mut image = image::build(&setup)?;
            if let Some(folder) = out {
                image = image::export(&image, &folder)?;
            }
            if json {
                print_json(&image)?;
            } else {
                println!("{} ({} bytes)", image.eif.display(), image.eif_bytes);
                println!("PCR0 {}", image.measurements.pcr0);
                println!("PCR1 {}", image.measurements.pcr1);
                println!("PCR2 {}", image.measurements.pcr2);
            }
        }
        Task::Reproduce {
            against,
            json,
            mutate,
        } => {
            let report = reproduce::reproduce(&setup, against.as_deref(), mutate)?;
            report.say();
            if json {
                print_json(&report)?;
            } else {
                println!("PCR0 {} first", report.comparison.first.pcr0);
                println!("PCR0 {} second", report.comparison.second.pcr0);
                println!(
                    "{}",
                    if report.reproduced {
                        "reproduced"
                    } else {
                        "DIFFERENT"
                    }
                );
            }
            if !report.reproduced {
                return Ok(ExitCode::from(EXIT_DIFFERENT));
            }
        }
        Task::Lint => return Ok(finish(suite::lint(&setup)?)),
        Task::Test { quick } => {
            return Ok(finish(suite::run(&setup, quick)?));
        }
        Task::Examples { build, only } => examples::run(&setup, build, &only)?,
        Task::Gas { json } => {
            let report = gas::measure(&setup)?;
            if json {
                print_json(&report)?;
            } else {
                report.print();
            }
            report.require_all()?;
        }
        Task::Bench {
            subject,
            json,
            mut arguments,
            quick,
        } => {
            if quick {
                arguments.push("--quick".into());
            }
            bench::run(&setup, subject, arguments, json)?;
        }
        Task::Torture(torture) => return torture::run(&setup, &torture),
        Task::Up { arguments } => {
            match e2e::become_program(setup.project(), "newton-up", &arguments)? {}
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_json(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}
