//! Encrypted, authenticated pages behind redb (design 2.6; the format is `docs/storage.md`).
//!
//! [`PageStore`] is a [`redb::StorageBackend`] over a [`BlockDevice`] that nobody trusts: the host's page file. Every page is
//! sealed with AES-256-GCM under a key of its own; nonce and tag of a page stand in its parent in a tree whose root
//! is in the superblock and, while the store runs, in memory. So a page that is altered, stale, swapped or missing is an
//! error that names it, on every read.
//!
//! A flush publishes one **generation**: pages go to free slots, then one of two superblocks. Whatever the host made of an
//! unacknowledged flush, the file opens at the generation before it or at its own; after an acknowledged one at its own.
//!
//! What the store cannot see is a whole older file put in place between two runs; the appliance therefore brings its
//! state up to the chain's before it signs anything.

mod backend;
mod cache;
mod error;
mod medium;
mod outbox;
mod seal;
mod slots;
mod store;
mod superblock;
mod tree;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use backend::RedbBackend;
pub use error::PageError;
pub use newton_relay::disk::{BlockDevice, DeviceError, Run, SlotRange};
pub use seal::{PageKey, StoreId};
pub use store::{Options, PageStore, Stats};

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// Bytes of a slot of the page file, which is what the [`BlockDevice`] must have: a sealed page, exactly as long as the
/// page, since nonce and tag stand in the node above it.
pub const SLOT_BYTES: usize = PAGE_BYTES;

/// Version of the file format.
pub const FORMAT_VERSION: u32 = 2;
