//! `cargo xtask bench state`: ratios of page store and state to what they are built on, each side by side and interleaved in
//! one run, so that a busy machine is busy for both. Absolute values stand beside them for orientation only.

mod memory;
mod pages;
mod relay;
mod tree;
mod window;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use serde::Serialize;

/// Measures page store and state.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench state", bin_name = "cargo xtask bench state")]
struct Arguments {
    /// Leave out the largest trees
    #[arg(long)]
    quick: bool,
    /// Measure only this
    #[arg(long)]
    only: Option<Part>,
    /// Memory for pages in windows, as `page_cache_mib` of the appliance
    #[arg(long, default_value_t = 64)]
    cache_mib: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Folder on the disk that is measured
    #[arg(long, default_value = ".")]
    dir: std::path::PathBuf,
    /// Open this page file, print what that took as JSON, and end
    #[arg(long, hide = true)]
    open: Option<std::path::PathBuf>,
}

/// What can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// redb over pages against redb over a file
    Pages,
    /// The state's tree against bare `jmt`
    Trees,
    /// Full windows
    Windows,
}

/// Everything that is measured. A ratio is a speed divided by the speed of what it is compared with.
#[derive(Debug, Serialize)]
struct Report {
    /// redb over pages against redb over a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pages: Option<pages::Report>,
    /// The state's tree against bare `jmt`, by leaves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trees: Vec<tree::Report>,
    /// A full window, against the goal of 5 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    windows: Option<window::Report>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(path) = &arguments.open {
        println!("{}", serde_json::to_string(&memory::open(path)?)?);
        return Ok(());
    }
    let dir = tempfile::tempdir_in(&arguments.dir)?;
    let sizes: &[usize] = if arguments.quick {
        &[10_000, 100_000]
    } else {
        &[10_000, 100_000, 1_000_000]
    };
    let measured = |part: Part, what: &str| {
        let wanted = arguments.only.is_none_or(|only| only == part);
        if wanted {
            eprintln!("{what}");
        }
        wanted
    };
    let mut report = Report {
        pages: None,
        trees: Vec::new(),
        windows: None,
    };
    if measured(Part::Pages, "page store against a plain file") {
        report.pages = Some(pages::measure(dir.path())?);
    }
    if measured(Part::Trees, "trees against bare jmt") {
        report.trees = tree::measure(dir.path(), sizes)?;
    }
    if measured(Part::Windows, "full windows") {
        let before: &[usize] = if arguments.quick {
            &[0, 51_200]
        } else {
            &[0, 100_000, 1_000_000]
        };
        report.windows = Some(window::measure(
            dir.path(),
            before,
            arguments.cache_mib << 20,
        )?);
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn print(report: &Report) {
    if let Some(pages) = &report.pages {
        println!(
            "redb over pages, speed relative to redb over a file (goals: writes 0.6, reads 0.8)"
        );
        println!(
            "  file:  writes {:.2}  bulk load {:.2}  reads {:.2}  reads from the disk {:.2}  reads with twice the memory {:.2}",
            pages.writes_ratio,
            pages.load_ratio,
            pages.reads_ratio,
            pages.disk_reads_ratio,
            pages.reads_ratio_twice_the_memory
        );
        println!(
            "  relay: writes {:.2}  bulk load {:.2}  reads {:.2}",
            pages.relay_writes_ratio, pages.relay_load_ratio, pages.relay_reads_ratio
        );
    }
    if !report.trees.is_empty() {
        println!(
            "{:>9} {:>9} {:>9} {:>9} {:>12} {:>9} {:>9} {:>9} {:>10}",
            "leaves",
            "of jmt",
            "staging",
            "of batch",
            "leaves/s",
            "proof B",
            "open ms",
            "slots",
            "memory KiB"
        );
    }
    for tree in &report.trees {
        println!(
            "{:>9} {:>9.2} {:>9.2} {:>9.2} {:>12.0} {:>9.0} {:>9.1} {:>9} {:>10}",
            tree.leaves,
            tree.leaves_ratio,
            tree.staging_ratio,
            tree.leaves_to_batch_ratio,
            tree.leaves_per_second,
            tree.proof_bytes,
            tree.open_ms,
            tree.open_slots_read,
            tree.resident_kib
        );
    }
    if let Some(windows) = &report.windows {
        println!("a window of 50 MiB (goal: 5 s, whatever the tree)");
        for window in &windows.each {
            println!(
                "  {:>6} artifacts, {:>7} leaves before: commit {:.2} s, verdicts {:.2} s",
                window.artifacts,
                window.leaves_before,
                window.commit_seconds,
                window.verdict_seconds
            );
        }
        println!(
            "  last of many small to the first: {:.2}",
            windows.last_to_first
        );
    }
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
