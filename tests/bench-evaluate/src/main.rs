//! `cargo xtask bench evaluate`: figures of evaluation (design 4.9), each ratio from samples that were taken in turns in this one run.
//!
//! Serves as its own worker process: `newton-bench-evaluate worker`.

mod artifacts;
mod cold;
mod ingest;
mod ratios;
mod sample;
mod warm;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use newton_evaluate::worker::{WorkerConfig, WorkerLimits, worker_main};
use serde::Serialize;

/// Measures evaluations.
#[derive(Debug, Parser)]
struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Folder of the spend-limit example
    #[arg(
        long,
        value_name = "FOLDER",
        default_value = "tests/examples/spend-limit"
    )]
    example: PathBuf,
    /// A large component (JavaScript, 12 MB) to be checked and compiled as well
    #[arg(long, value_name = "FILE")]
    large: Option<PathBuf>,
    /// Samples of each short measurement
    #[arg(long, default_value_t = 3_000)]
    samples: usize,
}

/// Everything that is printed.
#[derive(Debug, Serialize)]
struct Report {
    /// Warm evaluation of the spend-limit example through a worker, microseconds, median.
    p50: f64,
    /// The same, 99th percentile.
    p99: f64,
    /// Warm evaluations a second with a worker for each core.
    throughput: f64,
    /// Rego alone, against the engine called directly.
    rego_ratio: f64,
    /// One component, against the engine called directly.
    component_ratio: f64,
    /// Throughput by number of workers.
    throughput_by_cores: warm::Throughput,
    /// What `rego_ratio` is made of.
    rego: sample::Ratio,
    /// What `component_ratio` is made of.
    component: sample::Ratio,
    /// The whole evaluation against its parts.
    overhead: warm::Overhead,
    /// The check at ingestion, against bare validation.
    ingest: Vec<ingest::Ingest>,
    /// First evaluations.
    cold: cold::Cold,
    /// Cores of this machine, and how busy it was.
    machine: Machine,
}

#[derive(Debug, Serialize)]
struct Machine {
    cores: usize,
    load_average_before: String,
    load_average_after: String,
}

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("worker") {
        worker_main();
    }
    let arguments = Arguments::parse();
    let before = load();
    let artifacts = artifacts::Example::read(&arguments.example)?;
    let latency = warm::latency(&artifacts, arguments.samples)?;
    let throughput = warm::throughput(&artifacts)?;
    let rego = ratios::rego(&artifacts, arguments.samples)?;
    let component = ratios::component(&artifacts, arguments.samples)?;
    let report = Report {
        p50: latency.p50,
        p99: latency.p99,
        throughput: throughput.all_cores(),
        rego_ratio: rego.ratio,
        component_ratio: component.ratio,
        overhead: warm::overhead(&artifacts, arguments.samples)?,
        throughput_by_cores: throughput,
        rego,
        component,
        ingest: ingest::all(&artifacts, arguments.large.as_deref())?,
        cold: cold::measure(&artifacts)?,
        machine: Machine {
            cores: cores(),
            load_average_before: before,
            load_average_after: load(),
        },
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    Ok(())
}

impl Report {
    fn print(&self) {
        println!("warm, one component, through a worker");
        println!(
            "  p50 {:.0} us (goal 300), p99 {:.0} us (goal 1000)",
            self.p50, self.p99
        );
        for rate in &self.throughput_by_cores.by_workers {
            println!(
                "  {} workers: {:.0} evaluations/s",
                rate.workers, rate.per_second
            );
        }
        println!(
            "  speed-up over one worker {:.2}",
            self.throughput_by_cores.speed_up
        );
        println!("Rego alone / regorus: {}", self.rego);
        println!("one component / wasmtime: {}", self.component);
        println!(
            "through a worker / in this process: {}",
            self.overhead.worker
        );
        for ingest in &self.ingest {
            println!("{} ({} bytes)", ingest.name, ingest.bytes);
            println!("  check / validation: {}", ingest.check);
            println!("  compilation / wasmtime: {}", ingest.compile);
        }
        println!(
            "cold {:.1} ms, of which the compiler {:.1} ms; with the compiled component from storage {:.1} ms",
            self.cold.first_ms, self.cold.compile_ms, self.cold.restarted_ms
        );
    }
}

/// How this program is started as a worker.
fn config(workers: usize) -> Result<WorkerConfig> {
    Ok(WorkerConfig {
        exe: std::env::current_exe()?,
        arg: "worker".into(),
        workers,
        // A machine that is busy with other things should show in the figures, not end the run.
        limits: WorkerLimits::default().slowed(4),
    })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
