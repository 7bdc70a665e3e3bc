//! The page store: bytes in, generations out.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use newton_relay::disk::{BlockDevice, SlotRange};

use crate::medium::Counters;
use crate::{PAGE_BYTES, PageError, PageKey, StoreId};

mod core;
mod open;

use core::Core;

/// How much memory the store may take. redb has a cache of its own, set by the state crate, which should get most of it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bytes of written pages held back until a flush; above it they go to the host early (to free slots, where nothing
    /// refers to them yet).
    pub write_buffer_bytes: usize,
    /// Bytes of pages kept that were read ahead, or read or written in part.
    pub page_cache_bytes: usize,
    /// Bytes of tag tree nodes kept. One node of 4 KiB covers 256 KiB of pages.
    pub node_cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            write_buffer_bytes: 16 << 20,
            page_cache_bytes: 256 << 10,
            node_cache_bytes: 8 << 20,
        }
    }
}

/// Counters since the store was opened, and its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// The published generation.
    pub generation: u64,
    /// Slots the page file has to have.
    pub file_slots: u64,
    /// Slots in use.
    pub used_slots: u64,
    /// Slots read from the host.
    pub slots_read: u64,
    /// Slots written to the host.
    pub slots_written: u64,
    /// Requests for slots.
    pub device_reads: u64,
    /// Requests that write or flush.
    pub device_writes: u64,
}

/// A [`redb::StorageBackend`] over an untrusted device. Clones share the store: keep one to ask for
/// [`PageStore::last_fault`] after handing the other to redb.
#[derive(Clone)]
pub struct PageStore {
    shared: Arc<Shared>,
}

struct Shared {
    core: Mutex<Core>,
    counters: Arc<Counters>,
    generation: AtomicU64,
    fault: Mutex<Option<Arc<PageError>>>,
    created: bool,
}

impl PageStore {
    /// Opens the store on `device`, or creates it if the device is empty (length zero, or what a crash during creation
    /// left). Reads the superblocks and the slot map, one bit a slot; no page.
    ///
    /// # Errors
    /// [`PageError`]. A device that holds anything else than this store is left as it is.
    pub fn open(
        device: Arc<dyn BlockDevice>,
        key: &PageKey,
        id: StoreId,
        options: Options,
    ) -> Result<Self, PageError> {
        let counters = Arc::new(Counters::default());
        let (core, created) = Core::open(device, key, id, options, Arc::clone(&counters))?;
        let generation = AtomicU64::new(core.generation());
        Ok(Self {
            shared: Arc::new(Shared {
                core: Mutex::new(core),
                counters,
                generation,
                fault: Mutex::new(None),
                created,
            }),
        })
    }

    /// True if this call to [`PageStore::open`] made the store.
    #[must_use]
    pub fn created(&self) -> bool {
        self.shared.created
    }

    /// The published generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Length in bytes.
    ///
    /// # Errors
    /// [`PageError::Stopped`].
    pub fn byte_len(&self) -> Result<u64, PageError> {
        self.with(|core| Ok(core.len())).map_err(unshare)
    }

    /// Counters and size.
    ///
    /// # Errors
    /// [`PageError::Stopped`].
    pub fn stats(&self) -> Result<Stats, PageError> {
        let (generation, file_slots, used_slots) =
            self.with(|core| Ok(core.size())).map_err(unshare)?;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        Ok(Stats {
            generation,
            file_slots,
            used_slots,
            slots_read: load(&counters.slots_read),
            slots_written: load(&counters.slots_written),
            device_reads: load(&counters.device_reads),
            device_writes: load(&counters.device_writes),
        })
    }

    /// The error that stopped or last disturbed the store, for the operator: redb hands on its text only.
    #[must_use]
    pub fn last_fault(&self) -> Option<Arc<PageError>> {
        self.shared
            .fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Runs `work` on the store and keeps its error. What failed first stays: later errors follow from it.
    pub(crate) fn with<T>(
        &self,
        work: impl FnOnce(&mut Core) -> Result<T, PageError>,
    ) -> Result<T, Arc<PageError>> {
        let result = match self.shared.core.lock() {
            Ok(mut core) => {
                let result = work(&mut core);
                self.shared
                    .generation
                    .store(core.generation(), Ordering::Release);
                result
            }
            // A panic may have left the trees half-changed.
            Err(_) => Err(PageError::Stopped),
        };
        result.map_err(|error| {
            let error = Arc::new(error);
            let mut fault = self.fault();
            if !matches!(*error, PageError::Stopped) || fault.is_none() {
                *fault = Some(Arc::clone(&error));
            }
            error
        })
    }

    fn fault(&self) -> MutexGuard<'_, Option<Arc<PageError>>> {
        self.shared
            .fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nothing of the store: it holds keys.
impl fmt::Debug for PageStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageStore")
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

/// `byte_len` and `stats` fail only on a stopped store.
fn unshare(_: Arc<PageError>) -> PageError {
    PageError::Stopped
}

/// An error as redb takes it; [`PageError::of`] gets it back.
pub(crate) fn io_error(error: Arc<PageError>) -> io::Error {
    let kind = match *error {
        PageError::OutOfBounds { .. } => io::ErrorKind::UnexpectedEof,
        PageError::Device(_) | PageError::Stopped | PageError::Random(_) => io::ErrorKind::Other,
        _ => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, error)
}
