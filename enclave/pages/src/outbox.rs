//! Sealed slots on their way to the device, in pieces of bounded size.

use std::sync::atomic::Ordering;

use newton_relay::disk::Run;

use crate::medium::Medium;
use crate::seal::Page;
use crate::{PAGE_BYTES, PageError};

/// What is gathered before it is sent.
const PIECE: usize = 4 << 20;

/// Sealed slots that the device does not have yet.
#[derive(Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    /// First slot of a contiguous run, and where its bytes start.
    runs: Vec<(u64, usize)>,
    next: Option<u64>,
}

impl Outbox {
    /// Takes a page for a slot and seals it where it lies; sends what is there before it if that is much. A page that cannot be
    /// sealed leaves nothing here: what is on its way to the host is never plaintext.
    ///
    /// # Errors
    /// The device's, or `seal`'s.
    pub(crate) fn push<T>(
        &mut self,
        medium: &Medium,
        slot: u64,
        page: &Page,
        seal: impl FnOnce(&mut [u8]) -> Result<T, PageError>,
    ) -> Result<T, PageError> {
        if self.bytes.len() >= PIECE {
            self.send(medium)?;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(page);
        let sealed = seal(&mut self.bytes[start..]);
        if sealed.is_err() {
            self.bytes[start..].fill(0);
            self.bytes.truncate(start);
            return sealed;
        }
        if self.next != Some(slot) {
            self.runs.push((slot, start));
        }
        self.next = Some(slot + 1);
        sealed
    }

    /// Sends everything; the device need not have put it on stable storage yet.
    pub(crate) fn send(&mut self, medium: &Medium) -> Result<(), PageError> {
        self.deliver(medium, false)
    }

    /// Sends everything, and waits until this and all earlier slots are on stable storage.
    pub(crate) fn send_and_flush(&mut self, medium: &Medium) -> Result<(), PageError> {
        self.deliver(medium, true)
    }

    fn deliver(&mut self, medium: &Medium, flush: bool) -> Result<(), PageError> {
        let ends = self
            .runs
            .iter()
            .skip(1)
            .map(|(_, start)| *start)
            .chain([self.bytes.len()]);
        let runs: Vec<Run<'_>> = self
            .runs
            .iter()
            .zip(ends)
            .map(|((first, start), end)| Run {
                first: *first,
                data: &self.bytes[*start..end],
            })
            .collect();
        let counters = &medium.counters;
        counters
            .slots_written
            .fetch_add((self.bytes.len() / PAGE_BYTES) as u64, Ordering::Relaxed);
        if flush {
            counters.device_writes.fetch_add(1, Ordering::Relaxed);
            medium.device.write_and_flush(&runs)?;
        } else if !runs.is_empty() {
            counters.device_writes.fetch_add(1, Ordering::Relaxed);
            medium.device.write_slots(&runs)?;
        }
        self.bytes.clear();
        self.runs.clear();
        self.next = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use newton_relay::disk::{BlockDevice, SlotRange};
    use zeroize::Zeroizing;

    use super::*;
    use crate::seal::Sealer;
    use crate::testing::MemoryDevice;
    use crate::{PageKey, StoreId};

    #[test]
    fn a_page_that_cannot_be_sealed_is_never_sent() {
        let id = StoreId {
            operator: [1; 32],
            config: [2; 32],
        };
        let device = Arc::new(MemoryDevice::default());
        device.set_len(8).unwrap();
        let medium = Medium {
            device: device.clone(),
            sealer: Sealer::derive(&PageKey::new(Zeroizing::new([3; 32])), &id, &[4; 32]),
            counters: Arc::default(),
        };
        let mut outbox = Outbox::default();
        let plain = [b'p'; PAGE_BYTES];
        let sealed = |page: &mut [u8]| {
            page.fill(b's');
            Ok(())
        };
        outbox.push(&medium, 4, &plain, sealed).unwrap();
        let error = outbox.push(&medium, 5, &plain, |_| Err::<(), _>(PageError::Stopped));
        assert!(matches!(error, Err(PageError::Stopped)));
        outbox.push(&medium, 5, &plain, sealed).unwrap();
        outbox.send(&medium).unwrap();
        let mut slots = vec![0; 2 * PAGE_BYTES];
        let range = SlotRange { first: 4, count: 2 };
        device.read_slots(&[range], &mut slots).unwrap();
        assert!(slots.iter().all(|byte| *byte == b's'));
    }
}
