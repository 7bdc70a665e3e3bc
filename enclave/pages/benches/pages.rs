//! redb on the page store against plain redb, side by side in one run: `cargo bench -p newton-pages`.
//!
//! Every row does the same: load 20,000 entries of 300 bytes in one transaction, 200 transactions of 20 random entries each,
//! 20,000 random reads with a redb cache too small for them, and opening the file again. "flushes" and "slots" are generations
//! and slots written a commit. "relay" is the disk protocol over
//! a Unix socket with a host thread that writes the file, so all but vsock itself.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use newton_pages::testing::MemoryDevice;
use newton_pages::{
    BlockDevice, DeviceError, Options, PageKey, PageStore, Run, SLOT_BYTES, SlotRange, StoreId,
};
use newton_relay::disk::{
    self, DiskClient, DiskOptions, Reply, Request, decode_request, encode_reply,
};
use newton_relay::{Acceptor, Connector, ErrorCode, HostError, WireError, read_frame, write_frame};
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{Builder, Database, ReadableDatabase, StorageBackend, TableDefinition};
use zeroize::Zeroizing;

/// The page store of the row that runs, if it has one: to ask what a commit costs the host.
static STORE: Mutex<Option<PageStore>> = Mutex::new(None);

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("t");
const ENTRIES: u64 = 20_000;
const COMMITS: u64 = 200;
/// redb's cache: less than the pages read.
const CACHE: usize = 1 << 20;

fn main() {
    // `cargo test --benches` runs this too: then it only has to compile.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let dir =
        tempfile::tempdir_in(std::env::var("BENCH_DIR").unwrap_or_else(|_| ".".into())).unwrap();
    println!(
        "{:<34} {:>10} {:>14} {:>12} {:>10} {:>9} {:>9}",
        "redb over", "load ms", "commits/s", "reads/s", "open ms", "flushes", "slots"
    );
    let memory = run(
        "memory",
        InMemoryBackend::new,
        None::<fn() -> InMemoryBackend>,
    );
    let plain = dir.path().join("plain");
    let open_plain = || FileBackend::new(open_file(&plain)).unwrap();
    let file = run("file (fdatasync)", open_plain, Some(open_plain));

    let device = MemoryDevice::default();
    let open = || store(Arc::new(device.clone()));
    let sealed_memory = run("pages over memory", open, Some(open));

    let path = dir.path().join("pages");
    let open = || store(Arc::new(FileDevice(open_file(&path))));
    let sealed_file = run("pages over file", open, Some(open));

    let path = dir.path().join("relay");
    let sockets = dir.path().join("sockets");
    fs::create_dir(&sockets).unwrap();
    let acceptor = Acceptor::unix(&sockets.join("host_7001")).unwrap();
    thread::spawn(move || serve(&acceptor, &FileDevice(open_file(&path))));
    let open = || {
        let connector = Connector::Unix {
            dir: sockets.clone(),
        };
        store(Arc::new(
            DiskClient::connect(connector, SLOT_BYTES as u32, DiskOptions::default()).unwrap(),
        ))
    };
    let relay = run("pages over relay and file", open, Some(open));

    println!();
    let ratio = |what: &str, a: &Figures, b: &Figures| {
        println!(
            "{what:<34} load ×{:.2}  commits ×{:.2}  reads ×{:.2}",
            b.load / a.load,
            a.commits / b.commits,
            a.reads / b.reads
        );
    };
    ratio("memory: pages / plain (speed)", &sealed_memory, &memory);
    ratio("file: pages / plain (speed)", &sealed_file, &file);
    ratio("relay: pages / plain file (speed)", &relay, &file);
}

/// Load time in ms, commits and reads per second.
struct Figures {
    load: f64,
    commits: f64,
    reads: f64,
}

fn run<A: StorageBackend, B: StorageBackend>(
    name: &str,
    create: impl FnOnce() -> A,
    reopen: Option<impl FnOnce() -> B>,
) -> Figures {
    let db = Builder::new()
        .set_cache_size(CACHE)
        .create_with_backend(create())
        .unwrap();
    let start = Instant::now();
    put(&db, 0..ENTRIES);
    let load = start.elapsed().as_secs_f64() * 1e3;

    let mut random = 1u64;
    let mut next = move || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % ENTRIES
    };
    let before = written();
    let start = Instant::now();
    for _ in 0..COMMITS {
        put(&db, (0..20).map(|_| next()).collect::<Vec<_>>());
    }
    let commits = COMMITS as f64 / start.elapsed().as_secs_f64();
    let after = written();
    // Else its connection would stand in the way of the next one.
    *STORE.lock().unwrap() = None;
    let flushes = (after.0 - before.0) as f64 / COMMITS as f64;
    let slots = (after.1 - before.1) as f64 / COMMITS as f64;

    let start = Instant::now();
    let read = db.begin_read().unwrap();
    let table = read.open_table(TABLE).unwrap();
    for _ in 0..ENTRIES {
        assert_eq!(table.get(next()).unwrap().unwrap().value().len(), 300);
    }
    let reads = ENTRIES as f64 / start.elapsed().as_secs_f64();
    drop((table, read, db));

    let open = reopen.map(|reopen| {
        let start = Instant::now();
        Builder::new()
            .set_cache_size(CACHE)
            .create_with_backend(reopen())
            .unwrap();
        start.elapsed()
    });
    let open = open.map_or("-".to_owned(), |open: Duration| {
        format!("{:.1}", open.as_secs_f64() * 1e3)
    });
    println!(
        "{name:<34} {load:>10.0} {commits:>14.0} {reads:>12.0} {open:>10} {flushes:>9.1} {slots:>9.1}"
    );
    Figures {
        load,
        commits,
        reads,
    }
}

fn put(db: &Database, keys: impl IntoIterator<Item = u64>) {
    let mut write = db.begin_write().unwrap();
    write.set_quick_repair(true);
    {
        let mut table = write.open_table(TABLE).unwrap();
        for key in keys {
            table.insert(key, [key as u8; 300].as_slice()).unwrap();
        }
    }
    write.commit().unwrap();
}

fn store(device: Arc<dyn BlockDevice>) -> PageStore {
    let key = PageKey::new(Zeroizing::new([1; 32]));
    let id = StoreId {
        operator: [2; 32],
        config: [3; 32],
    };
    let store = PageStore::open(device, &key, id, Options::default()).unwrap();
    *STORE.lock().unwrap() = Some(store.clone());
    store
}

/// Flushes and slots written so far.
fn written() -> (u64, u64) {
    let store = STORE.lock().unwrap();
    store.as_ref().map_or((0, 0), |store| {
        let stats = store.stats().unwrap();
        (stats.generation, stats.slots_written)
    })
}

fn open_file(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap()
}

/// A file as a device, in this process.
struct FileDevice(File);

fn wire(error: io::Error) -> DeviceError {
    WireError::from(error).into()
}

impl BlockDevice for FileDevice {
    fn slot_bytes(&self) -> usize {
        SLOT_BYTES
    }

    fn len_bytes(&self) -> Result<u64, DeviceError> {
        Ok(self.0.metadata().map_err(wire)?.len())
    }

    fn set_len(&self, slots: u64) -> Result<(), DeviceError> {
        self.0.set_len(slots * SLOT_BYTES as u64).map_err(wire)
    }

    fn read_slots(&self, ranges: &[SlotRange], out: &mut [u8]) -> Result<(), DeviceError> {
        let mut done = 0;
        for range in ranges {
            let len = range.count as usize * SLOT_BYTES;
            self.0
                .read_exact_at(&mut out[done..done + len], range.first * SLOT_BYTES as u64)
                .map_err(wire)?;
            done += len;
        }
        Ok(())
    }

    fn write_slots(&self, runs: &[Run<'_>]) -> Result<(), DeviceError> {
        runs.iter().try_for_each(|run| {
            self.0
                .write_all_at(run.data, run.first * SLOT_BYTES as u64)
                .map_err(wire)
        })
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.0.sync_data().map_err(wire)
    }
}

/// The host's side of the disk protocol.
fn serve(acceptor: &Acceptor, file: &FileDevice) {
    while let Ok(mut stream) = acceptor.accept() {
        let mut slot_bytes = 1;
        while let Ok(Some(body)) = read_frame(&mut stream, disk::MAX_BODY) {
            let (id, request) = decode_request(&body, slot_bytes).unwrap();
            let mut data = Vec::new();
            let done = |result: Result<(), DeviceError>| match result {
                Ok(()) => Reply::Done,
                Err(error) => Reply::Failed(HostError::new(ErrorCode::Io, &error.to_string())),
            };
            let reply = match request {
                Request::Hello {
                    slot_bytes: bytes, ..
                } => {
                    slot_bytes = bytes;
                    Reply::Done
                }
                Request::Read { ranges } => {
                    data.resize(
                        ranges.iter().map(|r| r.count as usize).sum::<usize>() * SLOT_BYTES,
                        0,
                    );
                    match done(file.read_slots(&ranges, &mut data)) {
                        Reply::Done => Reply::Data(&data),
                        failed => failed,
                    }
                }
                Request::Write { runs } => done(file.write_slots(&runs)),
                Request::Flush => done(file.flush()),
                Request::Len => Reply::Len(file.len_bytes().unwrap()),
                Request::SetLen { slots } => done(file.set_len(slots)),
            };
            if write_frame(
                &mut stream,
                &encode_reply(id, &reply).unwrap(),
                disk::MAX_BODY,
            )
            .is_err()
            {
                break;
            }
        }
    }
}
