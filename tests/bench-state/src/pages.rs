//! redb over the page store against redb over a file: the same work, the same memory.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use newton_pages::testing::FileDevice;
use newton_pages::{BlockDevice, Options, PageKey, PageStore, RedbBackend, StoreId};
use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, TableDefinition};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{median, relay};

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("t");
/// Entries of 300 bytes, some 25 MiB with redb's own pages.
const ENTRIES: u64 = 60_000;
const COMMITS: u64 = 40;
const READS: u64 = 20_000;
const ROUNDS: usize = 5;
/// Memory for caches, less than the data: redb's alone, or half of it the page store's (as the appliance does).
const MEMORY: usize = 16 << 20;

/// Ratios of medians over rounds that take turns.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Small commits.
    pub writes_ratio: f64,
    /// One large commit.
    pub load_ratio: f64,
    /// Random reads.
    pub reads_ratio: f64,
    /// Small commits through the disk protocol.
    pub relay_writes_ratio: f64,
    /// One large commit through the disk protocol.
    pub relay_load_ratio: f64,
    /// Random reads through the disk protocol.
    pub relay_reads_ratio: f64,
    /// Generations of the page store a redb commit.
    pub generations_per_commit: f64,
    /// Slots of 4 KiB written a commit of 20 entries.
    pub slots_per_commit: f64,
    /// Commits a second of plain redb, for orientation.
    pub plain_commits_per_second: f64,
    /// Reads a second of plain redb, for orientation.
    pub plain_reads_per_second: f64,
}

/// Speeds of one database, by round.
#[derive(Default)]
struct Speeds {
    load: f64,
    commits: Vec<f64>,
    reads: Vec<f64>,
}

struct Bench {
    db: Database,
    store: Option<PageStore>,
    speeds: Speeds,
    random: u64,
}

/// Plays the rounds.
pub fn measure(dir: &Path) -> Result<Report> {
    let file = |name: &str| dir.join(name);
    let plain = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(file("plain"))?;
    let plain = Builder::new()
        .set_cache_size(MEMORY)
        .create_with_backend(FileBackend::new(plain)?)?;
    let over = |device: Arc<dyn BlockDevice>| -> Result<Bench> {
        let store = open(device, MEMORY / 2)?;
        let db = Builder::new()
            .set_cache_size(MEMORY / 2)
            .create_with_backend(RedbBackend::new(store.clone())?)?;
        Ok(Bench::new(db, Some(store)))
    };
    let mut plain = Bench::new(plain, None);
    let mut pages = over(Arc::new(FileDevice::open(&file("pages"))?))?;
    let mut through = over(Arc::new(relay::connect(dir, &file("relay"))?))?;
    let mut all = [&mut plain, &mut pages, &mut through];
    for bench in &mut all {
        bench.load()?;
    }
    let before = all[1].written()?;
    for _ in 0..ROUNDS {
        for bench in &mut all {
            bench.commits()?;
        }
        for bench in &mut all {
            bench.reads()?;
        }
    }
    let after = all[1].written()?;
    let commits = (COMMITS * ROUNDS as u64) as f64;
    let commit_speed = |b: &Bench| median(b.speeds.commits.clone());
    let read_speed = |b: &Bench| median(b.speeds.reads.clone());
    Ok(Report {
        writes_ratio: commit_speed(&pages) / commit_speed(&plain),
        load_ratio: pages.speeds.load / plain.speeds.load,
        reads_ratio: read_speed(&pages) / read_speed(&plain),
        relay_writes_ratio: commit_speed(&through) / commit_speed(&plain),
        relay_load_ratio: through.speeds.load / plain.speeds.load,
        relay_reads_ratio: read_speed(&through) / read_speed(&plain),
        generations_per_commit: (after.0 - before.0) as f64 / commits,
        slots_per_commit: (after.1 - before.1) as f64 / commits,
        plain_commits_per_second: commit_speed(&plain),
        plain_reads_per_second: read_speed(&plain),
    })
}

/// A page store with a key that everybody knows.
pub fn open(device: Arc<dyn BlockDevice>, page_cache_bytes: usize) -> Result<PageStore> {
    let key = PageKey::new(Zeroizing::new([1; 32]));
    let id = StoreId {
        operator: [2; 32],
        config: [3; 32],
    };
    let options = Options {
        page_cache_bytes,
        ..Options::default()
    };
    Ok(PageStore::open(device, &key, id, options)?)
}

impl Bench {
    fn new(db: Database, store: Option<PageStore>) -> Self {
        Self {
            db,
            store,
            speeds: Speeds::default(),
            random: 1,
        }
    }

    /// Generations and slots so far.
    fn written(&self) -> Result<(u64, u64)> {
        let stats = match &self.store {
            Some(store) => store.stats()?,
            None => newton_pages::Stats::default(),
        };
        Ok((stats.generation, stats.slots_written))
    }

    fn load(&mut self) -> Result<()> {
        let begun = Instant::now();
        self.put(&(0..ENTRIES).collect::<Vec<_>>())?;
        self.speeds.load = 1.0 / begun.elapsed().as_secs_f64();
        Ok(())
    }

    fn commits(&mut self) -> Result<()> {
        let begun = Instant::now();
        for _ in 0..COMMITS {
            let keys: Vec<u64> = (0..20).map(|_| self.next()).collect();
            self.put(&keys)?;
        }
        let speed = COMMITS as f64 / begun.elapsed().as_secs_f64();
        self.speeds.commits.push(speed);
        Ok(())
    }

    fn reads(&mut self) -> Result<()> {
        let read = self.db.begin_read()?;
        let table = read.open_table(TABLE)?;
        let begun = Instant::now();
        let mut bytes = 0;
        for _ in 0..READS {
            let key = self.next();
            bytes += table.get(key)?.map_or(0, |value| value.value().len());
        }
        anyhow::ensure!(bytes as u64 == READS * 300, "every entry is there");
        let speed = READS as f64 / begun.elapsed().as_secs_f64();
        self.speeds.reads.push(speed);
        Ok(())
    }

    /// One transaction, made as the state makes them.
    fn put(&self, keys: &[u64]) -> Result<()> {
        let mut write = self.db.begin_write()?;
        write.set_quick_repair(true);
        {
            let mut table = write.open_table(TABLE)?;
            for key in keys {
                table.insert(key, [*key as u8; 300].as_slice())?;
            }
        }
        write.commit()?;
        Ok(())
    }

    fn next(&mut self) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % ENTRIES
    }
}
