//! redb over the page store against redb over a file: the same work, the same memory.

use std::fs::{File, OpenOptions};
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
/// Reads of one turn, and turns of one round: short ones, so that a pause of the machine spoils few of them.
const READS: u64 = 5_000;
const READ_TURNS: usize = 20;
const ROUNDS: usize = 5;
/// Reads of a turn that begins with nothing of the files in the host's memory.
const DISK_READS: u64 = 200;
const DISK_TURNS: usize = 20;
/// Memory for caches, less than the data: redb's alone, or one part of [`PAGES_SHARE`] the page store's, as in the appliance.
const MEMORY: usize = 16 << 20;
pub const PAGES_SHARE: usize = 64;

/// Ratios of medians over rounds that take turns.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Small commits.
    pub writes_ratio: f64,
    /// One large commit.
    pub load_ratio: f64,
    /// Random reads. What plain redb misses is in the host's memory.
    pub reads_ratio: f64,
    /// Random reads while the host's memory has nothing of the files.
    pub disk_reads_ratio: f64,
    /// Random reads, ours with twice the memory: plain redb has the host's beside its own.
    pub reads_ratio_twice_the_memory: f64,
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
    disk_reads: Vec<f64>,
}

struct Bench {
    db: Database,
    store: Option<PageStore>,
    /// The same file, to have the host forget it.
    file: File,
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
    let over = |device: Arc<dyn BlockDevice>, name: &str, memory: usize| -> Result<Bench> {
        let ahead = memory / PAGES_SHARE;
        let store = open(device, ahead)?;
        let db = Builder::new()
            .set_cache_size(memory - ahead)
            .create_with_backend(RedbBackend::new(store.clone())?)?;
        Bench::new(db, Some(store), &file(name))
    };
    let on_file = |name: &str| FileDevice::open(&file(name)).map(Arc::new);
    let mut plain = Bench::new(plain, None, &file("plain"))?;
    let mut pages = over(on_file("pages")?, "pages", MEMORY)?;
    let mut twice = over(on_file("twice")?, "twice", 2 * MEMORY)?;
    let device = Arc::new(relay::connect(dir, &file("relay"))?);
    let mut through = over(device, "relay", MEMORY)?;
    let mut all = [&mut plain, &mut pages, &mut through, &mut twice];
    for bench in &mut all {
        bench.load()?;
    }
    let before = all[1].written()?;
    for _ in 0..ROUNDS {
        for bench in &mut all {
            bench.commits()?;
        }
        for _ in 0..READ_TURNS {
            for bench in &mut all {
                bench.reads(READS)?;
            }
        }
        for _ in 0..DISK_TURNS {
            for bench in &mut all {
                bench.disk_reads()?;
            }
        }
    }
    let after = all[1].written()?;
    let commits = (COMMITS * ROUNDS as u64) as f64;
    let commit_speed = |b: &Bench| median(b.speeds.commits.clone());
    let read_speed = |b: &Bench| median(b.speeds.reads.clone());
    let disk_speed = |b: &Bench| median(b.speeds.disk_reads.clone());
    Ok(Report {
        writes_ratio: commit_speed(&pages) / commit_speed(&plain),
        load_ratio: pages.speeds.load / plain.speeds.load,
        reads_ratio: read_speed(&pages) / read_speed(&plain),
        disk_reads_ratio: disk_speed(&pages) / disk_speed(&plain),
        reads_ratio_twice_the_memory: read_speed(&twice) / read_speed(&plain),
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
    fn new(db: Database, store: Option<PageStore>, file: &Path) -> Result<Self> {
        Ok(Self {
            db,
            store,
            file: File::open(file)?,
            speeds: Speeds::default(),
            random: 1,
        })
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

    fn reads(&mut self, count: u64) -> Result<()> {
        let speed = self.read(count)?;
        self.speeds.reads.push(speed);
        Ok(())
    }

    fn disk_reads(&mut self) -> Result<()> {
        // Only what is on the disk already can be forgotten.
        self.file.sync_all()?;
        rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed)?;
        let speed = self.read(DISK_READS)?;
        self.speeds.disk_reads.push(speed);
        Ok(())
    }

    /// Random reads a second.
    fn read(&mut self, count: u64) -> Result<f64> {
        let read = self.db.begin_read()?;
        let table = read.open_table(TABLE)?;
        let begun = Instant::now();
        let mut bytes = 0;
        for _ in 0..count {
            let key = self.next();
            bytes += table.get(key)?.map_or(0, |value| value.value().len());
        }
        anyhow::ensure!(bytes as u64 == count * 300, "every entry is there");
        Ok(count as f64 / begun.elapsed().as_secs_f64())
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
