//! The device with the store's key: reads slots and opens what they hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use newton_relay::disk::{BlockDevice, DeviceError, SlotRange};

use crate::seal::{Kind, Page, Place, Sealer};
use crate::tree::{Entry, FANOUT_BITS};
use crate::{PAGE_BYTES, PageError};

/// Counters; see [`crate::Stats`].
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) slots_read: AtomicU64,
    pub(crate) slots_written: AtomicU64,
    pub(crate) device_reads: AtomicU64,
    pub(crate) device_writes: AtomicU64,
}

/// A device and the key of the store on it.
pub(crate) struct Medium {
    pub(crate) device: Arc<dyn BlockDevice>,
    pub(crate) sealer: Sealer,
    pub(crate) counters: Arc<Counters>,
}

impl Medium {
    /// Reads and opens the pages that `entries` describe, in their order, in one round trip.
    pub(crate) fn read(&self, entries: &[(Place, Entry)]) -> Result<Vec<Page>, PageError> {
        let mut pages = vec![[0; PAGE_BYTES]; entries.len()];
        self.read_into(entries, &mut pages)?;
        Ok(pages)
    }

    /// The same into `pages`, one for every entry. After an error they hold nothing that may be looked at.
    pub(crate) fn read_into(
        &self,
        entries: &[(Place, Entry)],
        pages: &mut [Page],
    ) -> Result<(), PageError> {
        let (one, many);
        let ranges: &[SlotRange] = if let [(_, entry)] = entries {
            one = [range(entry)];
            &one
        } else {
            many = ranges(entries);
            &many
        };
        self.counters.device_reads.fetch_add(1, Ordering::Relaxed);
        self.counters
            .slots_read
            .fetch_add(entries.len() as u64, Ordering::Relaxed);
        match self.device.read_slots(ranges, pages.as_flattened_mut()) {
            Ok(()) => {}
            Err(DeviceError::OutOfRange) => return Err(self.cut_off(entries)?),
            Err(error) => return Err(error.into()),
        }
        for ((place, entry), page) in entries.iter().zip(pages) {
            if !self.sealer.open(*place, &entry.seal, page) {
                return Err(corrupt(*place, entry.slot));
            }
        }
        Ok(())
    }

    /// Names the first of `entries` that lies beyond the device's end.
    fn cut_off(&self, entries: &[(Place, Entry)]) -> Result<PageError, PageError> {
        let slots = self.device.len_bytes()? / PAGE_BYTES as u64;
        let missing = entries.iter().find(|(_, entry)| entry.slot >= slots);
        Ok(
            missing.map_or(DeviceError::OutOfRange.into(), |(place, entry)| {
                corrupt(*place, entry.slot)
            }),
        )
    }
}

/// The slots of `entries`, those that follow each other together.
fn ranges(entries: &[(Place, Entry)]) -> Vec<SlotRange> {
    let mut ranges: Vec<SlotRange> = Vec::new();
    for (_, entry) in entries {
        match ranges.last_mut() {
            Some(last) if last.end() == Some(entry.slot) => last.count += 1,
            _ => ranges.push(range(entry)),
        }
    }
    ranges
}

fn range(entry: &Entry) -> SlotRange {
    SlotRange {
        first: entry.slot,
        count: 1,
    }
}

fn corrupt(place: Place, slot: u64) -> PageError {
    let Place {
        kind,
        level,
        index,
        generation,
    } = place;
    match (kind, level) {
        (Kind::Data, 0) => PageError::PageCorrupt {
            page: index,
            slot,
            generation,
        },
        (Kind::Data, level) => {
            let bits = FANOUT_BITS * u32::from(level);
            let first_page = index << bits;
            PageError::NodeCorrupt {
                level,
                first_page,
                last_page: first_page | ((1 << bits) - 1),
                slot,
                generation,
            }
        }
        (Kind::Map, level) => PageError::MapCorrupt {
            level,
            index,
            slot,
            generation,
        },
    }
}
