//! The tag tree: where every page is, and the nonce and tag it must open under.
//!
//! A node is a sealed page of 64 entries; the entry of a node stands in the node above, the topmost in the superblock.
//! So the root's entry authenticates every page, and an update rewrites the path from the page to the root.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::PAGE_BYTES;
use crate::PageError;
use crate::cache::Cache;
use crate::medium::Medium;
use crate::outbox::Outbox;
use crate::seal::{Kind, NONCE_BYTES, Page, Place, Seal, TAG_BYTES};
use crate::slots::Slots;

/// log2 of the entries of a node.
pub(crate) const FANOUT_BITS: u32 = 6;
/// Entries of a node.
pub(crate) const FANOUT: usize = 1 << FANOUT_BITS;
/// Length of an entry in a node.
const ENTRY_BYTES: usize = PAGE_BYTES / FANOUT;
/// The part of an entry that is in use.
pub(crate) const ENTRY_USED: usize = 16 + NONCE_BYTES + TAG_BYTES;
/// The greatest height: page numbers of 54 bits and more, far beyond any 64-bit file length.
pub(crate) const MAX_HEIGHT: u8 = 9;

/// Where a sealed page is, and what proves it. The default stands for a page of zeros that was never written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Entry {
    /// The slot; 0 (a superblock's) for a page of zeros.
    pub(crate) slot: u64,
    pub(crate) generation: u64,
    pub(crate) seal: Seal,
}

impl Entry {
    pub(crate) fn is_null(&self) -> bool {
        self.slot == 0
    }

    pub(crate) fn encode(&self) -> [u8; ENTRY_USED] {
        let mut out = [0; ENTRY_USED];
        out[..8].copy_from_slice(&self.slot.to_le_bytes());
        out[8..16].copy_from_slice(&self.generation.to_le_bytes());
        out[16..16 + NONCE_BYTES].copy_from_slice(&self.seal.nonce);
        out[16 + NONCE_BYTES..].copy_from_slice(&self.seal.tag);
        out
    }

    pub(crate) fn decode(bytes: &[u8; ENTRY_USED]) -> Self {
        let mut entry = Self::default();
        let (slot, rest) = bytes.split_at(8);
        let (generation, rest) = rest.split_at(8);
        let (nonce, tag) = rest.split_at(NONCE_BYTES);
        let mut word = [0; 8];
        word.copy_from_slice(slot);
        entry.slot = u64::from_le_bytes(word);
        word.copy_from_slice(generation);
        entry.generation = u64::from_le_bytes(word);
        entry.seal.nonce.copy_from_slice(nonce);
        entry.seal.tag.copy_from_slice(tag);
        entry
    }
}

type Node = [Entry; FANOUT];

fn encode_node(node: &Node) -> Page {
    let mut page = [0; PAGE_BYTES];
    for (out, entry) in page.as_chunks_mut::<ENTRY_BYTES>().0.iter_mut().zip(node) {
        out[..ENTRY_USED].copy_from_slice(&entry.encode());
    }
    page
}

fn decode_node(page: &Page) -> Node {
    let mut node = [Entry::default(); FANOUT];
    for (entry, bytes) in node.iter_mut().zip(page.as_chunks::<ENTRY_BYTES>().0) {
        let mut used = [0; ENTRY_USED];
        used.copy_from_slice(&bytes[..ENTRY_USED]);
        *entry = Entry::decode(&used);
    }
    node
}

/// Everything that writing into a tree needs besides the tree.
pub(crate) struct Writer<'a> {
    pub(crate) medium: &'a Medium,
    pub(crate) slots: &'a mut Slots,
    pub(crate) outbox: &'a mut Outbox,
    /// The coming generation.
    pub(crate) generation: u64,
}

/// One of the two trees. Nodes are named by level (1 is just over the pages) and position; level 0 is the pages.
pub(crate) struct Tree {
    kind: Kind,
    height: u8,
    root: Entry,
    /// Nodes that differ from the published ones, ordered from the bottom up.
    dirty: BTreeMap<(u8, u64), Box<Node>>,
    clean: Cache<(u8, u64), Arc<Node>>,
}

impl Tree {
    pub(crate) fn new(kind: Kind, height: u8, root: Entry, cached_nodes: usize) -> Self {
        Self {
            kind,
            height,
            root,
            dirty: BTreeMap::new(),
            clean: Cache::new(cached_nodes),
        }
    }

    pub(crate) fn height(&self) -> u8 {
        self.height
    }

    pub(crate) fn root(&self) -> Entry {
        self.root
    }

    pub(crate) fn place(&self, level: u8, index: u64, generation: u64) -> Place {
        Place {
            kind: self.kind,
            level,
            index,
            generation,
        }
    }

    /// The entry of a page (level 0) or node. Pages beyond the tree are zeros.
    pub(crate) fn entry(
        &mut self,
        medium: &Medium,
        level: u8,
        index: u64,
    ) -> Result<Entry, PageError> {
        if level >= self.height {
            return Ok(if level == self.height && index == 0 {
                self.root
            } else {
                Entry::default()
            });
        }
        if index >> (FANOUT_BITS * u32::from(self.height - level)) != 0 {
            return Ok(Entry::default());
        }
        let parent = (level + 1, index >> FANOUT_BITS);
        let child = index as usize % FANOUT;
        if let Some(node) = self.dirty.get(&parent) {
            return Ok(node[child]);
        }
        Ok(self.load(medium, parent)?[child])
    }

    /// Makes the tree reach over `pages` pages.
    pub(crate) fn grow(&mut self, pages: u64) {
        while self.height < MAX_HEIGHT && pages > 1 << (FANOUT_BITS * u32::from(self.height)) {
            self.height += 1;
            if !self.root.is_null() || self.dirty.contains_key(&(self.height - 1, 0)) {
                let mut node = Box::new([Entry::default(); FANOUT]);
                node[0] = self.root;
                self.dirty.insert((self.height, 0), node);
            }
            self.root = Entry::default();
        }
    }

    /// Sets a page's or node's entry, and releases the slot of the old one.
    pub(crate) fn set(
        &mut self,
        medium: &Medium,
        slots: &mut Slots,
        level: u8,
        index: u64,
        entry: Entry,
    ) -> Result<(), PageError> {
        let old = if level == self.height {
            std::mem::replace(&mut self.root, entry)
        } else {
            let node = self.node_mut(medium, (level + 1, index >> FANOUT_BITS))?;
            std::mem::replace(&mut node[index as usize % FANOUT], entry)
        };
        if !old.is_null() {
            slots.release(old.slot);
        }
        Ok(())
    }

    /// Seals a page into a free slot and puts its entry into the tree.
    pub(crate) fn put(
        &mut self,
        writer: &mut Writer<'_>,
        index: u64,
        page: &Page,
    ) -> Result<(), PageError> {
        let slot = writer.slots.allocate();
        self.put_at(writer, 0, index, page, slot)
    }

    /// Seals a page or node into `slot`, which was allocated for it.
    fn put_at(
        &mut self,
        writer: &mut Writer<'_>,
        level: u8,
        index: u64,
        page: &Page,
        slot: u64,
    ) -> Result<(), PageError> {
        let generation = writer.generation;
        let (medium, place) = (writer.medium, self.place(level, index, generation));
        let seal = writer
            .outbox
            .push(medium, slot, page, |page| medium.sealer.seal(place, page))?;
        self.set(
            writer.medium,
            writer.slots,
            level,
            index,
            Entry {
                slot,
                generation,
                seal,
            },
        )
    }

    /// Seals all changed nodes, bottom up, so that the root's entry is that of the coming generation.
    pub(crate) fn put_nodes(&mut self, writer: &mut Writer<'_>) -> Result<(), PageError> {
        for level in 1..=self.height {
            let changed: Vec<u64> = self
                .dirty
                .range((level, 0)..(level + 1, 0))
                .map(|((_, index), _)| *index)
                .collect();
            for index in changed {
                let node = &self.dirty[&(level, index)];
                if node.iter().all(Entry::is_null) {
                    self.set(writer.medium, writer.slots, level, index, Entry::default())?;
                } else {
                    let page = encode_node(node);
                    let slot = writer.slots.allocate();
                    self.put_at(writer, level, index, &page, slot)?;
                }
            }
        }
        Ok(())
    }

    /// Puts the slot map and its nodes. They take slots themselves, which changes the map: so first slots are given to
    /// every page and node that changes, until nothing more does, and then all are sealed.
    pub(crate) fn put_map(&mut self, writer: &mut Writer<'_>) -> Result<(), PageError> {
        let mut given: BTreeMap<(u8, u64), u64> = BTreeMap::new();
        loop {
            self.grow(writer.slots.map_pages());
            let mut changed: Vec<(u8, u64)> = Vec::new();
            for page in writer.slots.touched() {
                changed.extend(
                    (0..=self.height)
                        .map(|level| (level, page >> (FANOUT_BITS * u32::from(level)))),
                );
            }
            changed.extend(self.dirty.keys());
            changed.sort_unstable();
            changed.dedup();
            changed.retain(|place| !given.contains_key(place));
            if changed.is_empty() {
                break;
            }
            for (level, index) in changed {
                // Releases the old slot now, since that too changes the map.
                self.set(writer.medium, writer.slots, level, index, Entry::default())?;
                given.insert((level, index), writer.slots.allocate());
            }
        }
        for ((level, index), slot) in given {
            let page = match self.dirty.get(&(level, index)) {
                _ if level == 0 => writer.slots.page(index),
                Some(node) => encode_node(node),
                None => unreachable!("every node over a changed map page was changed with it"),
            };
            self.put_at(writer, level, index, &page, slot)?;
        }
        Ok(())
    }

    /// The coming generation is published: what was changed is what is on the device.
    pub(crate) fn publish(&mut self) {
        for (place, node) in std::mem::take(&mut self.dirty) {
            if node.iter().any(|entry| !entry.is_null()) {
                self.clean.insert(place, Arc::from(node));
            }
        }
    }

    /// Forgets every page from `pages` on and releases their slots.
    pub(crate) fn truncate(
        &mut self,
        medium: &Medium,
        slots: &mut Slots,
        pages: u64,
    ) -> Result<(), PageError> {
        self.truncate_under(medium, slots, pages, self.height, 0)
    }

    fn truncate_under(
        &mut self,
        medium: &Medium,
        slots: &mut Slots,
        pages: u64,
        level: u8,
        index: u64,
    ) -> Result<(), PageError> {
        let bits = FANOUT_BITS * u32::from(level);
        let (first, last) = (index << bits, (index << bits) | ((1 << bits) - 1));
        if last < pages {
            return Ok(());
        }
        let entry = self.entry(medium, level, index)?;
        if entry.is_null() && !self.dirty.contains_key(&(level, index)) {
            return Ok(());
        }
        if level > 0 {
            for child in (index << FANOUT_BITS)..=((index << FANOUT_BITS) | (FANOUT as u64 - 1)) {
                self.truncate_under(medium, slots, pages, level - 1, child)?;
            }
        }
        if first >= pages {
            self.dirty.remove(&(level, index));
            self.clean.remove((level, index));
            if !entry.is_null() {
                self.set(medium, slots, level, index, Entry::default())?;
            }
        }
        Ok(())
    }

    /// A node to change. With it all nodes above become changed: what is not under a changed root is not changed.
    fn node_mut(&mut self, medium: &Medium, place: (u8, u64)) -> Result<&mut Node, PageError> {
        let (mut level, mut index) = place;
        while level <= self.height && !self.dirty.contains_key(&(level, index)) {
            let node = self.load(medium, (level, index))?;
            self.clean.remove((level, index));
            self.dirty.insert((level, index), Box::new(*node));
            (level, index) = (level + 1, index >> FANOUT_BITS);
        }
        let Some(node) = self.dirty.get_mut(&place) else {
            unreachable!("inserted above, or there before")
        };
        Ok(node)
    }

    /// A node that is not changed, from the cache or the device.
    fn load(&mut self, medium: &Medium, (level, index): (u8, u64)) -> Result<Arc<Node>, PageError> {
        if let Some(node) = self.clean.get((level, index)) {
            return Ok(node);
        }
        let entry = self.entry(medium, level, index)?;
        if entry.is_null() {
            return Ok(Arc::new([Entry::default(); FANOUT]));
        }
        let pages = medium.read(&[(self.place(level, index, entry.generation), entry)])?;
        let node = Arc::new(decode_node(&pages[0]));
        self.clean.insert((level, index), Arc::clone(&node));
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_round_trip() {
        let mut node = [Entry::default(); FANOUT];
        for (i, entry) in node.iter_mut().enumerate().step_by(3) {
            *entry = Entry {
                slot: i as u64 + 4,
                generation: u64::MAX - i as u64,
                seal: Seal {
                    nonce: [i as u8; 24],
                    tag: [!i as u8; 16],
                },
            };
        }
        assert_eq!(decode_node(&encode_node(&node)), node);
    }
}
