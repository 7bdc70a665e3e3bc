//! Which slots of the file are in use.

use std::collections::BTreeSet;

use crate::PAGE_BYTES;
use crate::seal::Page;

/// The superblocks' slots, never given out.
pub(crate) const RESERVED: u64 = 4;
/// Slots that one page of the map covers.
pub(crate) const PER_PAGE: u64 = PAGE_BYTES as u64 * 8;

/// Two bits a slot: `busy` slots must not be written, because the published generation or the coming one refers to them;
/// `next` are those the coming generation refers to.
pub(crate) struct Slots {
    busy: Vec<u64>,
    next: Vec<u64>,
    /// Slots the file has to have.
    total: u64,
    /// No slot below this one is free.
    hint: u64,
    used: u64,
    released: Vec<u64>,
    touched: BTreeSet<u64>,
}

impl Slots {
    /// The slots of a store that holds nothing.
    pub(crate) fn empty() -> Self {
        Self::from_words(vec![(1 << RESERVED) - 1], RESERVED)
    }

    /// The slots a map says are in use; `words` cover at least `total` slots.
    pub(crate) fn from_words(mut words: Vec<u64>, total: u64) -> Self {
        words.truncate(total.div_ceil(64) as usize);
        let used = words.iter().map(|word| u64::from(word.count_ones())).sum();
        Self {
            next: words.clone(),
            busy: words,
            total,
            hint: RESERVED,
            used,
            released: Vec::new(),
            touched: BTreeSet::new(),
        }
    }

    /// Slots the file has to have, from the beginning.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Slots the coming generation refers to, superblocks among them.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// Pages a map of all slots has.
    pub(crate) fn map_pages(&self) -> u64 {
        self.total.div_ceil(PER_PAGE)
    }

    /// The lowest free slot, which is now in use. Within one generation the numbers only rise.
    pub(crate) fn allocate(&mut self) -> u64 {
        let mut word = (self.hint / 64) as usize;
        let slot = loop {
            if word == self.busy.len() {
                self.busy.push(0);
                self.next.push(0);
            }
            let free = !self.busy[word];
            if free != 0 {
                break word as u64 * 64 + u64::from(free.trailing_zeros());
            }
            word += 1;
        };
        set(&mut self.busy, slot);
        set(&mut self.next, slot);
        self.total = self.total.max(slot + 1);
        self.hint = slot + 1;
        self.used += 1;
        self.touched.insert(slot / PER_PAGE);
        slot
    }

    /// The coming generation no longer refers to `slot`. It is given out again once that generation is published.
    pub(crate) fn release(&mut self, slot: u64) {
        debug_assert!(
            slot >= RESERVED && get(&self.next, slot),
            "slot {slot} is not in use"
        );
        clear(&mut self.next, slot);
        self.used -= 1;
        self.released.push(slot);
        self.touched.insert(slot / PER_PAGE);
    }

    /// The coming generation is published.
    pub(crate) fn publish(&mut self) {
        for slot in self.released.drain(..) {
            clear(&mut self.busy, slot);
            self.hint = self.hint.min(slot);
        }
        self.touched.clear();
    }

    /// Map pages that differ from the published ones.
    pub(crate) fn touched(&self) -> &BTreeSet<u64> {
        &self.touched
    }

    /// The coming generation's map page.
    pub(crate) fn page(&self, index: u64) -> Page {
        let mut page = [0; PAGE_BYTES];
        let first = (index * PER_PAGE / 64) as usize;
        let words = self.next.get(first..).unwrap_or_default();
        for (out, word) in page.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *out = word.to_le_bytes();
        }
        page
    }
}

fn set(words: &mut [u64], slot: u64) {
    words[(slot / 64) as usize] |= 1 << (slot % 64);
}

fn clear(words: &mut [u64], slot: u64) {
    words[(slot / 64) as usize] &= !(1 << (slot % 64));
}

fn get(words: &[u64], slot: u64) -> bool {
    words
        .get((slot / 64) as usize)
        .is_some_and(|word| word >> (slot % 64) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_slot_waits_for_publication() {
        let mut slots = Slots::empty();
        assert_eq!(
            (0..100).map(|_| slots.allocate()).collect::<Vec<_>>(),
            (4..104).collect::<Vec<_>>()
        );
        slots.publish();
        slots.release(10);
        slots.release(70);
        assert_eq!(
            slots.allocate(),
            104,
            "10 and 70 still belong to the published generation"
        );
        assert_eq!(slots.page(0)[1] & 4, 0, "the coming map has 10 free");
        slots.publish();
        assert_eq!(
            [slots.allocate(), slots.allocate(), slots.allocate()],
            [10, 70, 105]
        );
        assert_eq!((slots.total(), slots.used()), (106, 106));
    }

    #[test]
    fn a_map_comes_back_from_its_pages() {
        let mut slots = Slots::empty();
        for _ in 0..PER_PAGE + 5 {
            slots.allocate();
        }
        slots.release(5);
        assert_eq!(slots.map_pages(), 2);
        let words = (0..2).flat_map(|i| {
            slots
                .page(i)
                .as_chunks::<8>()
                .0
                .iter()
                .map(|c| u64::from_le_bytes(*c))
                .collect::<Vec<_>>()
        });
        let mut again = Slots::from_words(words.collect(), slots.total());
        assert_eq!((again.total(), again.used()), (slots.total(), slots.used()));
        assert_eq!([again.allocate(), again.allocate()], [5, PER_PAGE + 9]);
    }
}
