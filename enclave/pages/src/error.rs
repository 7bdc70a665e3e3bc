//! Everything that can be wrong with a page file.

use std::io;
use std::sync::Arc;

use newton_relay::disk::DeviceError;

use crate::StoreId;

/// Why the page store refuses. Every integrity error names what it found unfit; none means that data was lost, only that
/// the host does not show it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// The page the host returned is not the one last written: altered, stale, swapped, or cut off.
    #[error(
        "page {page} (slot {slot}, generation {generation}) is altered, stale, swapped or missing"
    )]
    PageCorrupt {
        /// Page number.
        page: u64,
        /// The slot of the file it should be in.
        slot: u64,
        /// The generation that wrote it.
        generation: u64,
    },
    /// A node of the tag tree is not the one last written.
    #[error(
        "tag tree node of pages {first_page} to {last_page} (level {level}, slot {slot}, generation {generation}) is \
         altered, stale, swapped or missing"
    )]
    NodeCorrupt {
        /// Height over the pages, 1 or more.
        level: u8,
        /// First page under it.
        first_page: u64,
        /// Last page under it.
        last_page: u64,
        /// The slot of the file it should be in.
        slot: u64,
        /// The generation that wrote it.
        generation: u64,
    },
    /// A page of the slot map, or of the tree over it, is not the one last written.
    #[error(
        "slot map page {index} (level {level}, slot {slot}, generation {generation}) is altered, stale, swapped or missing"
    )]
    MapCorrupt {
        /// Height over the map's pages, 0 for a page itself.
        level: u8,
        /// Position in its level.
        index: u64,
        /// The slot of the file it should be in.
        slot: u64,
        /// The generation that wrote it.
        generation: u64,
    },
    /// The file is of this store, and no superblock of it authenticates.
    #[error(
        "no superblock authenticates (slots 0 to 3): altered, or torn together with the one before"
    )]
    SuperblockCorrupt,
    /// Two superblocks of one generation differ.
    #[error("two superblocks of generation {generation} differ")]
    SuperblockConflict {
        /// That generation.
        generation: u64,
    },
    /// The file is not empty and not a page file. It is left as it is.
    #[error("the file ({bytes} bytes) is not empty and not a page file; it was left as it is")]
    NotAStore {
        /// Its length.
        bytes: u64,
    },
    /// The file belongs to another operator or configuration.
    #[error("the page file belongs to another store: expected {expected}, got {got}")]
    WrongStore {
        /// Who opens it.
        expected: Box<StoreId>,
        /// Who the file says it is of (not authenticated).
        got: Box<StoreId>,
    },
    /// The file was made with another page key.
    #[error("the page file was made with another page key")]
    WrongKey,
    /// The file's format version is another one.
    #[error("page file format: expected version {expected}, got {got}")]
    Version {
        /// This program's.
        expected: u32,
        /// The file's.
        got: u32,
    },
    /// The file is shorter than its generation made it.
    #[error("the page file is truncated: expected {expected} slots, got {got}")]
    Truncated {
        /// Slots in use when its generation was published.
        expected: u64,
        /// Whole slots there are.
        got: u64,
    },
    /// The device's slots have another size.
    #[error("slot size: expected {expected} bytes, got {got}")]
    SlotSize {
        /// [`crate::PAGE_BYTES`].
        expected: usize,
        /// The device's.
        got: usize,
    },
    /// Bytes beyond the store's end were asked for.
    #[error("bytes {offset} to {end} are beyond the store's end at {len}")]
    OutOfBounds {
        /// First byte asked for.
        offset: u64,
        /// The byte after the last.
        end: u64,
        /// The store's length.
        len: u64,
    },
    /// The medium failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The operating system has no randomness.
    #[error("no randomness for nonces: {0}")]
    Random(getrandom::Error),
    /// An earlier flush failed or panicked: what the file holds is known again only after opening it anew.
    #[error("the page store stopped after an earlier failure")]
    Stopped,
}

impl PageError {
    /// The page error inside an error of redb's backend, if it is one.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error
            .get_ref()?
            .downcast_ref::<Arc<Self>>()
            .map(AsRef::as_ref)
    }

    /// True if the host showed other bytes than were written, so that an operator should look at the disk or the host.
    #[must_use]
    pub fn is_integrity(&self) -> bool {
        matches!(
            self,
            Self::PageCorrupt { .. }
                | Self::NodeCorrupt { .. }
                | Self::MapCorrupt { .. }
                | Self::SuperblockCorrupt
                | Self::SuperblockConflict { .. }
                | Self::Truncated { .. }
        )
    }
}
