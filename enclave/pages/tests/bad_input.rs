//! Files and hosts in a state that no honest run leaves: each has its own answer.
#![allow(clippy::unwrap_used)]

mod common;

use common::{contents, open, open_with, small};
use newton_pages::testing::MemoryDevice;
use newton_pages::{
    BlockDevice, DeviceError, PAGE_BYTES, PageError, PageStore, Run, SlotRange, StoreId,
};
use newton_relay::{ErrorCode, HostError};
use redb::StorageBackend;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn filled(device: &MemoryDevice) -> PageStore {
    let store = open_with(device, small()).unwrap();
    store.set_len(20 * PAGE_BYTES as u64).unwrap();
    for page in 0..20u64 {
        store
            .write(page * PAGE_BYTES as u64, &[page as u8 + 1; PAGE_BYTES])
            .unwrap();
    }
    store.sync_data().unwrap();
    store
}

#[test]
fn a_file_of_size_zero_is_a_new_store() {
    let device = MemoryDevice::default();
    drop(filled(&device));
    device.tamper(Vec::clear);
    let store = open(&device).unwrap();
    assert!(store.created());
    assert_eq!((store.generation(), store.len().unwrap()), (1, 0));
}

#[test]
fn a_file_that_is_emptied_while_it_runs_is_an_error_and_is_not_made_anew() {
    let device = MemoryDevice::default();
    let store = filled(&device);
    device.tamper(Vec::clear);
    assert!(contents(&store).is_err());
    assert!(store.last_fault().unwrap().is_integrity());
    assert!(device.bytes().is_empty());
}

#[test]
fn a_file_that_grows_changes_nothing() {
    let device = MemoryDevice::default();
    let store = filled(&device);
    let expected = contents(&store).unwrap();
    // Not a whole number of slots, while it runs and before it is opened.
    device.tamper(|file| file.extend_from_slice(&[0xdd; 3 * PAGE_BYTES + 17]));
    assert!(contents(&store).unwrap() == expected);
    store.write(0, &[9; 8]).unwrap();
    store.sync_data().unwrap();
    let expected = contents(&store).unwrap();
    drop(store);
    device.tamper(|file| file.extend_from_slice(&[0xdd; 5]));
    let again = open(&device).unwrap();
    assert!(contents(&again).unwrap() == expected);
}

/// A disk with room for some writes, as the shim reports it.
struct Full {
    inner: MemoryDevice,
    room: AtomicU64,
}

impl BlockDevice for Full {
    fn slot_bytes(&self) -> usize {
        self.inner.slot_bytes()
    }
    fn len_bytes(&self) -> Result<u64, DeviceError> {
        self.inner.len_bytes()
    }
    fn set_len(&self, slots: u64) -> Result<(), DeviceError> {
        self.inner.set_len(slots)
    }
    fn read_slots(&self, ranges: &[SlotRange], out: &mut [u8]) -> Result<(), DeviceError> {
        self.inner.read_slots(ranges, out)
    }
    fn write_slots(&self, runs: &[Run<'_>]) -> Result<(), DeviceError> {
        for run in runs {
            for (i, data) in run.data.chunks(PAGE_BYTES).enumerate() {
                let room = self.room.load(Ordering::Relaxed);
                if room == 0 {
                    return Err(HostError::new(ErrorCode::NoSpace, "disk full").into());
                }
                self.room.store(room - 1, Ordering::Relaxed);
                let first = run.first + i as u64;
                self.inner.write_slots(&[Run { first, data }])?;
            }
        }
        Ok(())
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.inner.flush()
    }
}

#[test]
fn a_full_disk_is_named_and_the_generation_before_stays() {
    let id = StoreId { ..common::ID };
    for room in 0..30 {
        let device = MemoryDevice::default();
        let store = filled(&device);
        let (generation, before) = (store.generation(), contents(&store).unwrap());
        drop(store);
        let full = Full {
            inner: device.clone(),
            room: AtomicU64::new(room),
        };
        let store = PageStore::open(Arc::new(full), &common::key(), id, small()).unwrap();
        let written = (0..20u64)
            .try_for_each(|page| store.write(page * PAGE_BYTES as u64, &[0xee; PAGE_BYTES]))
            .and_then(|()| store.sync_data());
        let again = |expected: &[u8]| {
            let again = open(&device).unwrap();
            assert!(contents(&again).unwrap() == expected, "room for {room}");
            again.generation()
        };
        if written.is_ok() {
            assert!(room > 20, "{room}");
            assert_eq!(again(&[0xee; 20 * PAGE_BYTES]), generation + 1);
            continue;
        }
        let fault = store.last_fault().unwrap();
        assert!(
            matches!(&*fault, PageError::Device(DeviceError::Host(e)) if e.code() == ErrorCode::NoSpace),
            "{fault}"
        );
        // It stays stopped, and nobody has seen the new one.
        assert!(store.sync_data().is_err());
        let reopened = open(&device).unwrap().generation();
        if reopened == generation {
            again(&before);
        } else {
            // One copy of the superblock fitted: then all of the generation is there.
            assert_eq!(again(&[0xee; 20 * PAGE_BYTES]), generation + 1);
        }
    }
}
