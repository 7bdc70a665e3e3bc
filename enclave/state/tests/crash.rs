//! Killed at every flush: what a restart finds is a state from which the same loop reaches the same root, without redb
//! walking the file first. (That a flush is atomic is the page store's promise.)
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::{CADENCE, Chain, GENESIS_TIME, config, content, parameters, template};
use newton_state::{CatchUp, Next, StateStore, Tip, Verdict, open_database};
use newton_types::events::RegistryEvent;
use newton_types::{B256, keccak256};
use redb::{Database, StorageBackend};

/// Keeps a copy of the file as of every flush.
#[derive(Clone, Debug, Default)]
struct Recorder {
    file: Arc<Mutex<Vec<u8>>>,
    flushed: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl StorageBackend for Recorder {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.file.lock().unwrap().len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let at = offset as usize;
        out.copy_from_slice(&self.file.lock().unwrap()[at..at + out.len()]);
        Ok(())
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.file.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }
    fn sync_data(&self) -> std::io::Result<()> {
        let copy = self.file.lock().unwrap().clone();
        let mut flushed = self.flushed.lock().unwrap();
        if flushed.last() != Some(&copy) {
            flushed.push(copy);
        }
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let at = offset as usize;
        self.file.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// Opens as the appliance does, and says whether redb had to walk the file.
fn open(recorder: &Recorder) -> (StateStore, bool) {
    // What redb itself would do with this image.
    let repaired = Arc::new(AtomicBool::new(false));
    let flag = repaired.clone();
    let copy = Recorder {
        file: Arc::new(Mutex::new(recorder.file.lock().unwrap().clone())),
        ..Recorder::default()
    };
    let _ = Database::builder()
        .set_repair_callback(move |_| flag.store(true, Ordering::SeqCst))
        .create_with_backend(copy);
    let db = open_database(recorder.clone(), 1 << 20).unwrap();
    let store = StateStore::open(Arc::new(db), config()).unwrap();
    (store, repaired.load(Ordering::SeqCst))
}

/// The appliance's loop over a chain that may have landed commits already. With `land`, its own commits land.
fn run(store: &StateStore, chain: &mut Chain, land: bool) -> Tip {
    loop {
        let next = store.next_block().unwrap() as usize;
        let end = chain.blocks.len().min(next + 2);
        if next < end {
            store.apply_finalized(&chain.blocks[next..end]).unwrap();
        }
        for entry in store.undecided(None, 2).unwrap() {
            let bytes = (0..9)
                .map(bytes_of)
                .find(|b| keccak256(b) == entry.hash)
                .unwrap();
            let verdict = if entry.hash[0] % 4 == 0 {
                Verdict::Rejected {
                    reason: "by its hash".into(),
                }
            } else {
                Verdict::Accepted { bytes: &bytes }
            };
            store.record_verdict(entry.key, verdict).unwrap();
        }
        let stopped = matches!(store.catch_up().unwrap(), CatchUp::Stopped { .. });
        let mut landed = false;
        if land
            && end == chain.blocks.len()
            && let Next::Ready(selection) = store.select().unwrap()
        {
            let commit = store.prepare(*selection).unwrap().commit().clone();
            let event = RegistryEvent::StateCommitted {
                commit,
                digest: B256::ZERO,
                delta_da_refs: vec![],
            };
            let time = chain.last().header.timestamp + 1;
            chain.push(time, vec![event]);
            landed = true;
        }
        if !landed && !stopped && end == chain.blocks.len() {
            return store.tip().unwrap();
        }
    }
}

fn bytes_of(i: u64) -> Vec<u8> {
    // One of them in several chunks.
    content(i, if i == 4 { 600_000 } else { 20 + i as usize })
}

#[test]
fn every_flush_is_a_place_to_restart_from() {
    let mut p = parameters();
    p.max_commit_bytes = 600_030;
    let mut chain = Chain::new(p);
    for i in 0..9 {
        let events = vec![template(&format!("p{i}"), &bytes_of(i))];
        chain.push(GENESIS_TIME + (i + 1) * CADENCE / 2, events);
    }
    chain.push(GENESIS_TIME + 20 * CADENCE, vec![]);
    let recorder = Recorder::default();
    let (store, _) = open(&recorder);
    let expected = run(&store, &mut chain, true);
    assert!(expected.sequence >= 5, "{expected:?}");
    let flushed = recorder.flushed.lock().unwrap().clone();
    assert!(flushed.len() > 20, "{}", flushed.len());
    drop(store);

    let mut walked = 0;
    for image in flushed {
        let killed = Recorder {
            file: Arc::new(Mutex::new(image)),
            ..Recorder::default()
        };
        let (store, repaired) = open(&killed);
        walked += usize::from(repaired);
        let tip = run(&store, &mut chain.clone(), false);
        assert_eq!(tip, expected);
    }
    // Before the first transaction there is no allocator state to load, and nothing to walk either.
    assert!(walked <= 2, "{walked} opened with a walk");
}

#[test]
fn only_an_unfinished_creation_is_created_anew() {
    let with = |bytes: Vec<u8>| Recorder {
        file: Arc::new(Mutex::new(bytes)),
        ..Recorder::default()
    };
    open_database(with(vec![0; 8192]), 1 << 20).unwrap();
    open_database(with(vec![0; 3]), 1 << 20).unwrap();
    let other = with(vec![7; 8192]);
    assert!(open_database(other.clone(), 1 << 20).is_err());
    assert_eq!(*other.file.lock().unwrap(), vec![7; 8192]);
}
