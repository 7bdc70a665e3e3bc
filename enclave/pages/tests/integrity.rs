//! A host that alters, swaps, withholds or rolls back: every read gives what was written, or an error that names what is
//! unfit.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{ID, contents, key, open, open_with, small};
use newton_pages::testing::MemoryDevice;
use newton_pages::{PAGE_BYTES, PageError, PageKey, PageStore, StoreId};
use redb::StorageBackend;
use zeroize::Zeroizing;

const PAGES: u64 = 70;

/// A store of 70 pages in two levels with some history, so that its file has pages, nodes, map, free and stale slots.
fn sample() -> (MemoryDevice, Vec<u8>) {
    let device = MemoryDevice::default();
    let store = open(&device).unwrap();
    store.set_len(PAGES * PAGE_BYTES as u64).unwrap();
    for round in 0..3u64 {
        for page in (0..PAGES).step_by(1 + round as usize * 3) {
            store
                .write(
                    page * PAGE_BYTES as u64,
                    &[(page + round * 71) as u8; PAGE_BYTES],
                )
                .unwrap();
        }
        store.sync_data().unwrap();
    }
    let model = contents(&store).unwrap();
    (device, model)
}

fn slots(device: &MemoryDevice) -> usize {
    device.bytes().len() / PAGE_BYTES
}

fn slot_mut(bytes: &mut [u8], slot: usize) -> &mut [u8] {
    &mut bytes[slot * PAGE_BYTES..(slot + 1) * PAGE_BYTES]
}

/// Opens and reads page by page; the first page error, if there is one.
fn read_all(store: &PageStore, model: &[u8]) -> Result<(), (u64, Arc<PageError>)> {
    for page in 0..model.len() / PAGE_BYTES {
        let mut out = [0; PAGE_BYTES];
        match store.read((page * PAGE_BYTES) as u64, &mut out) {
            Ok(()) => assert!(
                out == model[page * PAGE_BYTES..][..PAGE_BYTES],
                "page {page} is wrong"
            ),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
                assert!(PageError::of(&error).is_some());
                return Err((page as u64, store.last_fault().unwrap()));
            }
        }
    }
    Ok(())
}

/// Counts what came of damage.
#[derive(Default, Debug)]
struct Tally {
    unharmed: usize,
    pages: usize,
    nodes: usize,
    map: usize,
}

impl Tally {
    fn count(&mut self, device: &MemoryDevice, model: &[u8], damaged: usize) {
        let generation = 4;
        match open_with(device, small()) {
            Ok(store) => {
                assert_eq!(store.generation(), generation, "slot {damaged}");
                match read_all(&store, model) {
                    Ok(()) => self.unharmed += 1,
                    Err((page, error)) => match *error {
                        PageError::PageCorrupt {
                            page: named, slot, ..
                        } => {
                            assert_eq!((named, slot), (page, damaged as u64));
                            self.pages += 1;
                        }
                        PageError::NodeCorrupt {
                            first_page,
                            last_page,
                            slot,
                            ..
                        } => {
                            assert!((first_page..=last_page).contains(&page));
                            assert_eq!(slot, damaged as u64);
                            self.nodes += 1;
                        }
                        _ => panic!("slot {damaged}: {error}"),
                    },
                }
            }
            Err(PageError::MapCorrupt { slot, .. }) => {
                assert_eq!(slot, damaged as u64);
                self.map += 1;
            }
            Err(error) => panic!("slot {damaged}: {error}"),
        }
    }
}

#[test]
fn a_flipped_bit_in_any_slot_is_named_or_harmless() {
    let (device, model) = sample();
    let good = device.bytes();
    let mut tally = Tally::default();
    for slot in 0..slots(&device) {
        // Superblocks byte by byte are tested at their module.
        for byte in [0, 200, 2048, 4095] {
            device.tamper(|bytes| slot_mut(bytes, slot)[byte] ^= 1 << (byte % 8));
            tally.count(&device, &model, slot);
            device.tamper(|bytes| bytes.clone_from(&good));
        }
    }
    // 70 pages, two nodes and the root, one page of map; all else is superblocks and free slots.
    assert_eq!(
        (tally.pages, tally.nodes, tally.map),
        (70 * 4, 3 * 4, 4),
        "{tally:?}"
    );
    assert_eq!(tally.unharmed, (slots(&device) - 74) * 4, "{tally:?}");
}

#[test]
fn a_slot_of_zeros_or_of_another_slot_is_named_or_harmless() {
    let (device, model) = sample();
    let good = device.bytes();
    let n = slots(&device);
    for other in 0..4 {
        let mut tally = Tally::default();
        for slot in 0..n {
            let from = match other {
                0 => None,
                // Its neighbours, and one far away: pages, nodes, stale ones.
                1 => Some((slot + 1) % n),
                2 => Some((slot + n - 1) % n),
                _ => Some((slot + n / 2) % n),
            };
            let replacement = from.map_or_else(
                || vec![0; PAGE_BYTES],
                |from| good[from * PAGE_BYTES..][..PAGE_BYTES].to_vec(),
            );
            device.tamper(|bytes| slot_mut(bytes, slot).copy_from_slice(&replacement));
            tally.count(&device, &model, slot);
            device.tamper(|bytes| bytes.clone_from(&good));
        }
        assert_eq!(
            (tally.pages, tally.nodes, tally.map),
            (70, 3, 1),
            "{tally:?}"
        );
    }
}

#[test]
fn every_old_state_of_every_slot_is_refused_while_running() {
    let device = MemoryDevice::default();
    let store = open_with(&device, small()).unwrap();
    store.set_len(8 * PAGE_BYTES as u64).unwrap();
    let mut files = Vec::new();
    for round in 0..6u8 {
        for page in 0..8 {
            store
                .write(page * PAGE_BYTES as u64, &[round; PAGE_BYTES])
                .unwrap();
        }
        store.sync_data().unwrap();
        files.push(device.bytes());
    }
    let now = files.pop().unwrap();
    let model = contents(&store).unwrap();
    // Push everything out of the small cache between reads.
    for old in &files {
        // The whole file rolled back: nothing of it is taken for the present.
        device.tamper(|bytes| bytes.clone_from(old));
        let mut refused = 0;
        for page in 0..8u64 {
            let mut out = [0; PAGE_BYTES];
            let fresh = open_view(&store, page, &mut out);
            match fresh {
                Ok(()) => assert_eq!(out, [5; PAGE_BYTES]),
                Err(error) => {
                    let error = PageError::of(&error).unwrap();
                    assert!(error.is_integrity(), "{error}");
                    refused += 1;
                }
            }
        }
        // At most what the cache (32 pages at the least) holds can still be read; of a running store nothing else.
        assert!(refused == 0 || refused == 8);
        device.tamper(|bytes| bytes.clone_from(&now));
    }
    assert!(contents(&store).unwrap() == model);
}

fn open_view(store: &PageStore, page: u64, out: &mut [u8]) -> std::io::Result<()> {
    store.read(page * PAGE_BYTES as u64, out)
}

/// With a store far larger than its cache, a file rolled back under it is refused at the next read, page by page, and the
/// right file put back is read again.
#[test]
fn a_file_rolled_back_under_a_running_store() {
    let device = MemoryDevice::default();
    let store = open_with(&device, small()).unwrap();
    let pages = 200u64;
    store.set_len(pages * PAGE_BYTES as u64).unwrap();
    let mut files = Vec::new();
    for round in 0..3u8 {
        for page in 0..pages {
            store
                .write(page * PAGE_BYTES as u64, &[round; PAGE_BYTES])
                .unwrap();
        }
        store.sync_data().unwrap();
        files.push(device.bytes());
    }
    for old in &files[..2] {
        device.tamper(|bytes| bytes.clone_from(old));
        let mut refused = 0;
        for page in 0..pages {
            let mut out = [0; PAGE_BYTES];
            match store.read(page * PAGE_BYTES as u64, &mut out) {
                Ok(()) => assert_eq!(out, [2; PAGE_BYTES], "page {page} is of the past"),
                Err(error) => {
                    let PageError::PageCorrupt { page: named, .. } = PageError::of(&error).unwrap()
                    else {
                        panic!("{error}")
                    };
                    assert_eq!(*named, page);
                    refused += 1;
                }
            }
        }
        assert!(refused >= pages - 32, "{refused}");
    }
    device.tamper(|bytes| bytes.clone_from(&files[2]));
    assert!(contents(&store).unwrap() == vec![2; pages as usize * PAGE_BYTES]);
}

/// What the design says the store cannot see by itself, so that nobody relies on it: a whole older file, between runs.
#[test]
fn an_older_whole_file_opens_at_its_own_generation() {
    let device = MemoryDevice::default();
    let store = open(&device).unwrap();
    store.set_len(PAGE_BYTES as u64).unwrap();
    store.sync_data().unwrap();
    let old = device.bytes();
    store.write(0, b"later").unwrap();
    store.sync_data().unwrap();
    drop(store);
    device.tamper(|bytes| bytes.clone_from(&old));
    assert_eq!(open(&device).unwrap().generation(), 2);
}

#[test]
fn strangers_and_strange_files_are_refused_and_left_alone() {
    let (device, _) = sample();
    let before = device.bytes();
    let with = |key: [u8; 32], id: StoreId| {
        let key = PageKey::new(Zeroizing::new(key));
        PageStore::open(Arc::new(device.clone()), &key, id, small())
            .err()
            .unwrap()
    };
    let other = StoreId {
        operator: [9; 32],
        ..ID
    };
    assert!(
        matches!(with([0x33; 32], other), PageError::WrongStore { expected, got } if *expected == other && *got == ID)
    );
    let other = StoreId {
        config: [9; 32],
        ..ID
    };
    let error = with([0x33; 32], other);
    assert!(matches!(error, PageError::WrongStore { .. }));
    assert!(
        error.to_string().contains(&"22".repeat(32))
            && error.to_string().contains(&"09".repeat(32))
    );
    assert!(matches!(with([0x34; 32], ID), PageError::WrongKey));
    assert!(device.bytes() == before);

    for garbage in [
        vec![7; 100],
        vec![0; 100],
        vec![0; 5 * PAGE_BYTES],
        vec![7; PAGE_BYTES],
        vec![7; 100 * PAGE_BYTES],
    ] {
        let strange = MemoryDevice::new(garbage.clone());
        let error = open(&strange).err().unwrap();
        assert!(
            matches!(error, PageError::NotAStore { bytes } if bytes == garbage.len() as u64),
            "{error}"
        );
        assert!(strange.bytes() == garbage);
    }
}

#[test]
fn a_truncated_file_is_refused() {
    let (device, model) = sample();
    let n = slots(&device);
    for keep in 1..n {
        let cut = MemoryDevice::new(device.bytes()[..keep * PAGE_BYTES].to_vec());
        let error = open(&cut).err().unwrap();
        let right = match error {
            PageError::Truncated { expected, got } => (expected, got) == (n as u64, keep as u64),
            // Generation 4 stands in slots 0 and 2, so one is always there.
            _ => false,
        };
        assert!(right, "{keep}: {error}");
    }
    // Cut under a running store: the page is named.
    let store = open_with(&device, small()).unwrap();
    device.tamper(|bytes| bytes.truncate(10 * PAGE_BYTES));
    let (page, error) = read_all(&store, &model).unwrap_err();
    let named = match *error {
        PageError::PageCorrupt {
            page: named, slot, ..
        } => named == page && slot >= 10,
        PageError::NodeCorrupt { slot, .. } => slot >= 10,
        _ => false,
    };
    assert!(named, "{error}");
}

#[test]
fn no_plaintext_and_no_key_in_the_file() {
    let device = MemoryDevice::default();
    let store = open(&device).unwrap();
    store.set_len(3 * PAGE_BYTES as u64).unwrap();
    let secret = b"a secret that must not be seen by the host";
    store.write(100, secret).unwrap();
    store.sync_data().unwrap();
    let file = device.bytes();
    let shows = |needle: &[u8]| file.windows(needle.len()).any(|window| window == needle);
    assert!(!shows(&secret[..16]));
    assert!(!shows(&[0x33; 16]));
    assert!(shows(&ID.operator), "the store's identity stands in clear");
    let _ = key();
    assert!(!format!("{store:?}").contains("33333"));
}

#[test]
fn bounds_are_kept() {
    let device = MemoryDevice::default();
    let store = open(&device).unwrap();
    store.set_len(100).unwrap();
    let mut out = [0; 10];
    store.read(90, &mut out).unwrap();
    let error = store.read(91, &mut out).unwrap_err();
    assert!(matches!(
        PageError::of(&error),
        Some(PageError::OutOfBounds {
            offset: 91,
            end: 101,
            len: 100
        })
    ));
    assert!(store.write(100, &[1]).is_err());
    assert!(store.write(u64::MAX, &[1]).is_err());
    store.write(100, &[]).unwrap();
    // An error of the caller does not stop the store.
    store.sync_data().unwrap();
}
