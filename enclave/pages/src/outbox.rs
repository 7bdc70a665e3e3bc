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
    /// Takes a page for a slot; sends what is there before it if that is much. Returns the page where it lies now, to be
    /// sealed there.
    pub(crate) fn push(
        &mut self,
        medium: &Medium,
        slot: u64,
        page: &Page,
    ) -> Result<&mut [u8], PageError> {
        if self.bytes.len() >= PIECE {
            self.send(medium)?;
        }
        let start = self.bytes.len();
        if self.next != Some(slot) {
            self.runs.push((slot, start));
        }
        self.bytes.extend_from_slice(page);
        self.next = Some(slot + 1);
        Ok(&mut self.bytes[start..])
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
