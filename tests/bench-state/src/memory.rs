//! What opening a page file takes: time, slots read, memory. In a process of its own, so that nothing else counts.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use newton_pages::RedbBackend;
use newton_pages::testing::FileDevice;
use newton_state::{open_database, tree};
use redb::ReadableDatabase;
use serde::{Deserialize, Serialize};

use crate::pages;

/// Caches of the appliance's smaller setting.
const CACHE: usize = 8 << 20;

/// What it took.
#[derive(Debug, Serialize, Deserialize)]
pub struct Opened {
    /// From nothing to the root of the newest version.
    pub milliseconds: f64,
    /// Slots that were read for it.
    pub slots_read: u64,
    /// Resident memory afterwards, in KiB.
    pub resident_kib: u64,
}

/// Opens the file in another process.
pub fn open_elsewhere(path: &Path) -> Result<Opened> {
    let output = Command::new(std::env::current_exe()?)
        .arg("--open")
        .arg(path)
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Opens the file here.
pub fn open(path: &Path) -> Result<Opened> {
    let begun = Instant::now();
    let store = pages::open(Arc::new(FileDevice::open(path)?), CACHE)?;
    let db = open_database(RedbBackend::new(store.clone())?, CACHE)?;
    let read = db.begin_read()?;
    let nodes = read.open_table(tree::NODES)?;
    tree::root(&nodes, 1)?.context("a version that was written")?;
    let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
    Ok(Opened {
        milliseconds,
        slots_read: store.stats()?.slots_read,
        resident_kib: resident_kib()?,
    })
}

fn resident_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}
