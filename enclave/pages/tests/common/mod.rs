//! What the test files share.
#![allow(dead_code)]

use std::sync::Arc;

use newton_pages::testing::MemoryDevice;
use newton_pages::{Options, PAGE_BYTES, PageError, PageKey, PageStore, StoreId};
use redb::StorageBackend;
use zeroize::Zeroizing;

pub const ID: StoreId = StoreId {
    operator: [0x11; 32],
    config: [0x22; 32],
};

/// Everything as small as it gets, so that caches miss and buffers spill.
pub fn small() -> Options {
    Options {
        write_buffer_bytes: 3 * PAGE_BYTES,
        page_cache_bytes: 0,
        node_cache_bytes: 0,
    }
}

pub fn key() -> PageKey {
    PageKey::new(Zeroizing::new([0x33; 32]))
}

pub fn open_with(device: &MemoryDevice, options: Options) -> Result<PageStore, PageError> {
    PageStore::open(Arc::new(device.clone()), &key(), ID, options)
}

pub fn open(device: &MemoryDevice) -> Result<PageStore, PageError> {
    open_with(device, Options::default())
}

/// The whole contents.
pub fn contents(store: &PageStore) -> Result<Vec<u8>, std::io::Error> {
    let mut out = vec![0; store.len()? as usize];
    store.read(0, &mut out)?;
    Ok(out)
}

/// splitmix64: the same numbers for the same seed, everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}
