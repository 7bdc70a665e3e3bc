//! redb's side.

use std::io;
use std::sync::{Mutex, PoisonError};

use redb::StorageBackend;

use crate::PageStore;
use crate::store::io_error;

impl StorageBackend for PageStore {
    fn len(&self) -> io::Result<u64> {
        self.with(|core| Ok(core.len())).map_err(io_error)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|core| core.read(offset, out)).map_err(io_error)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|core| core.set_len(len)).map_err(io_error)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|core| core.sync()).map_err(io_error)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|core| core.write(offset, data)).map_err(io_error)
    }
}

/// Magic number and the byte with redb's primary bit: as long as they stay, no commit became visible.
const HEAD: usize = 10;
/// redb's magic number.
const MAGIC: &[u8; 9] = b"redb\x1A\x0A\xA9\x0D\x0A";

/// The store as redb's backend, with one generation a redb commit instead of two.
///
/// A two-phase commit of redb (`set_quick_repair` makes one) syncs twice: before it flips the bit that makes the new root the
/// primary one, and after. On a medium that is no more than a file the first sync keeps the flip from arriving before what
/// it names. Here everything since the last generation arrives at once or not at all, so a sync before which the bit did
/// not change has nothing to keep apart, and nothing that redb has acknowledged yet: it is joined with the next one. A crash
/// between the two gives the commit before, as it may.
#[derive(Debug)]
pub struct RedbBackend {
    store: PageStore,
    published: Mutex<[u8; HEAD]>,
}

impl RedbBackend {
    /// Over a store that redb alone uses.
    ///
    /// # Errors
    /// As reading it.
    pub fn new(store: PageStore) -> io::Result<Self> {
        let published = Mutex::new(head(&store)?);
        Ok(Self { store, published })
    }
}

/// The first bytes of the store; zeros as far as it is shorter.
fn head(store: &PageStore) -> io::Result<[u8; HEAD]> {
    let mut head = [0; HEAD];
    if StorageBackend::len(store)? >= HEAD as u64 {
        store.read(0, &mut head)?;
    }
    Ok(head)
}

impl StorageBackend for RedbBackend {
    fn len(&self) -> io::Result<u64> {
        self.store.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.store.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.store.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut published = self
            .published
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = head(&self.store)?;
        if now == *published && now.starts_with(MAGIC) {
            return Ok(());
        }
        self.store.sync_data()?;
        *published = now;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.store.write(offset, data)
    }
}
