//! The store against a plain vector of bytes: random reads, writes, lengths, flushes and kills.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Random, contents, open, open_with, small};
use newton_pages::testing::MemoryDevice;
use newton_pages::{Options, PAGE_BYTES};
use redb::StorageBackend;

fn run(seed: u64, options: Options, pages: u64) {
    let mut random = Random(seed);
    let device = MemoryDevice::default();
    let mut store = open_with(&device, options).unwrap();
    assert!(store.created());
    let mut model: Vec<u8> = Vec::new();
    let mut synced = model.clone();
    for step in 0..400 {
        let len = model.len() as u64;
        match random.below(20) {
            0 => {
                let new = match random.below(4) {
                    0 => random.below(pages) * PAGE_BYTES as u64,
                    1 => random.below(len + 1),
                    _ => random.below(pages * PAGE_BYTES as u64),
                };
                store.set_len(new).unwrap();
                model.resize(new as usize, 0);
            }
            1 | 2 => {
                store.sync_data().unwrap();
                synced = model.clone();
            }
            3 if random.below(3) == 0 => {
                // Killed: what was not synced is gone.
                drop(store);
                store = open_with(&device, options).unwrap();
                assert!(!store.created());
                model = synced.clone();
            }
            4..=9 if len > 0 => {
                let offset = random.below(len);
                let n = random.below((len - offset + 1).min(5 * PAGE_BYTES as u64));
                let mut out = vec![0; n as usize];
                store.read(offset, &mut out).unwrap();
                assert!(
                    out == model[offset as usize..(offset + n) as usize],
                    "seed {seed} step {step}"
                );
            }
            10.. if len > 0 => {
                let (offset, n) = if random.below(2) == 0 {
                    let offset = random.below(len);
                    (
                        offset,
                        random.below((len - offset + 1).min(3 * PAGE_BYTES as u64)),
                    )
                } else {
                    let page = random.below(len.div_ceil(PAGE_BYTES as u64)) * PAGE_BYTES as u64;
                    (page, (len - page).min(PAGE_BYTES as u64))
                };
                let data = random.bytes(n as usize);
                store.write(offset, &data).unwrap();
                model[offset as usize..(offset + n) as usize].copy_from_slice(&data);
            }
            _ => {}
        }
        assert_eq!(store.len().unwrap(), model.len() as u64);
    }
    assert!(contents(&store).unwrap() == model, "seed {seed}");
    store.sync_data().unwrap();
    assert!(
        contents(&open(&device).unwrap()).unwrap() == model,
        "seed {seed}"
    );
    // Slots do not leak: the store's pages, their nodes, and as much again for the generation before.
    let stats = store.stats().unwrap();
    let bound = 4 + pages + pages.div_ceil(64) + 8;
    assert!(stats.used_slots <= bound, "{stats:?}");
}

#[test]
fn small_stores_with_tiny_buffers() {
    for seed in 0..25 {
        run(seed, small(), 12);
    }
}

#[test]
fn stores_of_two_and_three_levels() {
    for seed in 100..104 {
        run(seed, small(), 200);
        run(seed, Options::default(), 4500);
    }
}

#[test]
fn a_file_does_not_grow_by_rewriting() {
    let device = MemoryDevice::default();
    let store = open(&device).unwrap();
    store.set_len(100 * PAGE_BYTES as u64).unwrap();
    let mut random = Random(1);
    for round in 0..300 {
        for _ in 0..5 {
            let page = random.below(100);
            store
                .write(page * PAGE_BYTES as u64, &[round as u8; PAGE_BYTES])
                .unwrap();
        }
        store.sync_data().unwrap();
    }
    let stats = store.stats().unwrap();
    assert!(stats.file_slots < 130, "{stats:?}");
    assert_eq!(
        device.bytes().len() as u64,
        stats.file_slots * PAGE_BYTES as u64
    );
    assert_eq!(stats.generation, 301);
}

#[test]
fn a_flush_takes_two_round_trips_and_nothing_to_do_none() {
    let device = MemoryDevice::default();
    let store = open(&device).unwrap();
    store.set_len(1000 * PAGE_BYTES as u64).unwrap();
    store.sync_data().unwrap();
    for page in (0..1000).step_by(100) {
        store
            .write(page * PAGE_BYTES as u64, &[1; PAGE_BYTES])
            .unwrap();
    }
    let before = store.stats().unwrap();
    device.record();
    store.sync_data().unwrap();
    // 10 pages under 10 nodes, the root, the map's one page; then the superblock twice.
    let after = store.stats().unwrap();
    assert_eq!(after.device_writes - before.device_writes, 1);
    assert_eq!(after.slots_written - before.slots_written, 22);
    assert_eq!(device.recorded().len(), 22 + 1 + 2 + 1);
    assert_eq!(after.device_reads, before.device_reads);
    device.record();
    store.sync_data().unwrap();
    assert!(device.recorded().is_empty());
    assert_eq!(store.generation(), after.generation);
}

/// One page for 32,768 slots is all that opening reads besides superblocks, however large the store.
#[test]
fn opening_does_not_walk_the_file() {
    let device = MemoryDevice::default();
    let store = open(&device).unwrap();
    store.set_len(5_000 * PAGE_BYTES as u64).unwrap();
    for page in 0..5_000u64 {
        store
            .write(page * PAGE_BYTES as u64, &page.to_le_bytes())
            .unwrap();
    }
    store.sync_data().unwrap();
    let store = open(&device).unwrap();
    let stats = store.stats().unwrap();
    assert!(stats.used_slots > 5_000);
    assert_eq!((stats.device_reads, stats.slots_read), (1, 1));
    // A read then takes the path from the root: two inner levels, one leaf node, one page.
    let mut out = [0; 8];
    store.read(3_345 * PAGE_BYTES as u64, &mut out).unwrap();
    assert_eq!(u64::from_le_bytes(out), 3_345);
    assert_eq!(store.stats().unwrap().slots_read, 5);
    // Following reads come in batches.
    for page in 3_346..3_400u64 {
        store.read(page * PAGE_BYTES as u64, &mut out).unwrap();
        assert_eq!(u64::from_le_bytes(out), page);
    }
    assert!(store.stats().unwrap().device_reads < 15);
}
