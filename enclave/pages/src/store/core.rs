//! Reading, writing and publishing.

use super::open::write_superblock;
use super::*;
use crate::cache::Cache;
use crate::medium::Medium;
use crate::outbox::Outbox;
use crate::seal::{Page, Place, SALT_BYTES};
use crate::slots::Slots;
use crate::superblock::Superblock;
use crate::tree::{Entry, FANOUT_BITS, Tree, Writer};

/// Pages read beyond those asked for, when reads follow each other.
const READ_AHEAD: u64 = 15;

pub(crate) struct Core {
    medium: Medium,
    id: StoreId,
    salt: [u8; SALT_BYTES],
    /// The published generation.
    generation: u64,
    len: u64,
    data: Tree,
    map: Tree,
    slots: Slots,
    /// Written pages that are in no slot yet.
    dirty: BTreeMap<u64, Written>,
    /// Pages read ahead, and those that were read or written in part. What redb has read or written whole it keeps itself; a
    /// second copy here would be memory that its cache lacks.
    clean: Cache<u64, Arc<Page>>,
    outbox: Outbox,
    /// True if the coming generation differs from the published one.
    changed: bool,
    /// True after a failure that leaves the file's generation unknown.
    stopped: bool,
    max_dirty: usize,
    /// The page after the last one read.
    next_read: u64,
}

/// A written page.
struct Written {
    page: Box<Page>,
    /// True if some of it was written without the rest: likely to happen again, and then the rest is needed.
    in_part: bool,
}

impl Core {
    #[allow(clippy::too_many_arguments)] // called once, with the parts of an opened store
    pub(super) fn new(
        medium: Medium,
        id: StoreId,
        salt: [u8; SALT_BYTES],
        superblock: &Superblock,
        data: Tree,
        map: Tree,
        slots: Slots,
        options: Options,
    ) -> Self {
        let Options {
            write_buffer_bytes,
            page_cache_bytes,
            ..
        } = options;
        Self {
            medium,
            id,
            salt,
            generation: superblock.generation,
            len: superblock.len,
            data,
            map,
            slots,
            dirty: BTreeMap::new(),
            clean: Cache::new((page_cache_bytes / PAGE_BYTES).max(32)),
            outbox: Outbox::default(),
            changed: false,
            stopped: false,
            max_dirty: (write_buffer_bytes / PAGE_BYTES).max(1),
            next_read: 0,
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Published generation, slots of the file, slots in use.
    pub(crate) fn size(&self) -> (u64, u64, u64) {
        (self.generation, self.slots.total(), self.slots.used())
    }

    pub(crate) fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), PageError> {
        self.check(offset, out.len())?;
        if out.is_empty() {
            return Ok(());
        }
        let out_len = out.len() as u64;
        let (first, last) = (page_of(offset), page_of(offset + out_len - 1));
        let ahead = if first == last && first == self.next_read {
            READ_AHEAD
        } else {
            0
        };
        self.next_read = last + 1;
        if ahead == 0 && self.read_whole(offset, out)? {
            return Ok(());
        }
        let whole = |page: u64| {
            let start = page * PAGE_BYTES as u64;
            start >= offset && start + PAGE_BYTES as u64 <= offset + out_len
        };
        let mut missing = Vec::new();
        for page in first..=last {
            if let Some(written) = self.dirty.get(&page) {
                copy_out(page, &written.page, offset, out);
            } else if let Some(bytes) = self.clean.get(page) {
                copy_out(page, &bytes, offset, out);
                if whole(page) {
                    self.clean.remove(page);
                }
            } else {
                missing.push(page);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        for (page, bytes) in self.fetch(&missing, ahead)? {
            copy_out(page, &bytes, offset, out);
            if !whole(page) {
                self.clean.insert(page, bytes);
            }
        }
        Ok(())
    }

    /// Reads whole pages that are all on the device only, without a copy between. False, and nothing done, if they are not.
    fn read_whole(&mut self, offset: u64, out: &mut [u8]) -> Result<bool, PageError> {
        let (pages, rest) = out.as_chunks_mut::<PAGE_BYTES>();
        if !offset.is_multiple_of(PAGE_BYTES as u64) || !rest.is_empty() {
            return Ok(false);
        }
        let first = page_of(offset);
        if let [page] = pages {
            let Some(place) = self.on_device(first)? else {
                return Ok(false);
            };
            self.medium
                .read_into(&[place], std::slice::from_mut(page))?;
            return Ok(true);
        }
        let mut places = Vec::with_capacity(pages.len());
        for page in first..first + pages.len() as u64 {
            match self.on_device(page)? {
                Some(place) => places.push(place),
                None => return Ok(false),
            }
        }
        self.medium.read_into(&places, pages)?;
        Ok(true)
    }

    /// Where a page is that is on the device and not at hand, and what it must open under.
    fn on_device(&mut self, page: u64) -> Result<Option<(Place, Entry)>, PageError> {
        if self.dirty.contains_key(&page) || self.clean.contains(page) {
            return Ok(None);
        }
        let entry = self.data.entry(&self.medium, 0, page)?;
        let place = self.data.place(0, page, entry.generation);
        Ok((!entry.is_null()).then_some((place, entry)))
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), PageError> {
        self.check(offset, bytes.len())?;
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let page = page_of(at);
            let start = (at % PAGE_BYTES as u64) as usize;
            let (piece, more) = rest.split_at(rest.len().min(PAGE_BYTES - start));
            let in_part = piece.len() < PAGE_BYTES;
            if in_part && !self.dirty.contains_key(&page) {
                let page_before = Box::new(*self.one(page)?);
                self.put_written(page, page_before, true);
            }
            match self.dirty.get_mut(&page) {
                Some(written) => {
                    written.page[start..start + piece.len()].copy_from_slice(piece);
                    written.in_part |= in_part;
                }
                None => {
                    let mut whole = Box::new([0; PAGE_BYTES]);
                    whole.copy_from_slice(piece);
                    self.put_written(page, whole, false);
                }
            }
            self.changed = true;
            at += piece.len() as u64;
            rest = more;
            if self.dirty.len() >= self.max_dirty {
                self.stopping(Self::spill)?;
            }
        }
        Ok(())
    }

    fn put_written(&mut self, number: u64, page: Box<Page>, in_part: bool) {
        self.clean.remove(number);
        self.dirty.insert(number, Written { page, in_part });
    }

    pub(crate) fn set_len(&mut self, len: u64) -> Result<(), PageError> {
        self.check_running()?;
        if len == self.len {
            return Ok(());
        }
        let pages = len.div_ceil(PAGE_BYTES as u64);
        if len < self.len {
            // What a longer length shows again must be zeros.
            let kept = (len % PAGE_BYTES as u64) as usize;
            if kept != 0 {
                let last = page_of(len);
                let mut page = match self.dirty.remove(&last) {
                    Some(written) => written.page,
                    None => Box::new(*self.one(last)?),
                };
                page[kept..].fill(0);
                self.put_written(last, page, true);
            }
            self.dirty.split_off(&pages);
            self.clean.retain(|page| *page < pages);
            self.stopping(|core| core.data.truncate(&core.medium, &mut core.slots, pages))?;
        }
        self.data.grow(pages);
        self.len = len;
        self.changed = true;
        Ok(())
    }

    /// Publishes everything written as the next generation. Returns once it is on stable storage.
    pub(crate) fn sync(&mut self) -> Result<(), PageError> {
        self.check_running()?;
        if !self.changed {
            return Ok(());
        }
        self.stopping(Self::publish)
    }

    fn publish(&mut self) -> Result<(), PageError> {
        let generation = self.generation + 1;
        self.put_dirty()?;
        let mut writer = Writer {
            medium: &self.medium,
            slots: &mut self.slots,
            outbox: &mut self.outbox,
            generation,
        };
        self.data.put_nodes(&mut writer)?;
        self.map.put_map(&mut writer)?;
        self.outbox.send_and_flush(&self.medium)?;
        let superblock = Superblock {
            generation,
            len: self.len,
            slots: self.slots.total(),
            used: self.slots.used(),
            data_height: self.data.height(),
            map_height: self.map.height(),
            data_root: self.data.root(),
            map_root: self.map.root(),
        };
        let page = superblock.encode(&self.id, &self.salt, &self.medium.sealer)?;
        write_superblock(&*self.medium.device, generation, &page)?;
        self.generation = generation;
        self.data.publish();
        self.map.publish();
        self.slots.publish();
        self.keep_dirty();
        self.changed = false;
        Ok(())
    }

    /// Sends the written pages early, to slots nothing refers to yet.
    fn spill(&mut self) -> Result<(), PageError> {
        self.put_dirty()?;
        self.outbox.send(&self.medium)?;
        self.keep_dirty();
        Ok(())
    }

    /// Seals every written page into a slot of the coming generation.
    fn put_dirty(&mut self) -> Result<(), PageError> {
        let mut writer = Writer {
            medium: &self.medium,
            slots: &mut self.slots,
            outbox: &mut self.outbox,
            generation: self.generation + 1,
        };
        for (number, written) in &self.dirty {
            self.data.put(&mut writer, *number, &written.page)?;
        }
        Ok(())
    }

    /// Written pages that are in their slots are forgotten, but for those of which parts were written.
    fn keep_dirty(&mut self) {
        for (number, written) in std::mem::take(&mut self.dirty) {
            if written.in_part {
                self.clean.insert(number, Arc::from(written.page));
            }
        }
    }

    /// One page, from memory or the device.
    fn one(&mut self, page: u64) -> Result<Arc<Page>, PageError> {
        if let Some(bytes) = self.clean.get(page) {
            return Ok(bytes);
        }
        let mut pages = self.fetch(&[page], 0)?;
        // One was asked for.
        let Some((_, bytes)) = pages.pop() else {
            unreachable!("fetch returns what it is asked for")
        };
        Ok(bytes)
    }

    /// Pages from the device, in one round trip; up to `ahead` more after the last one go to the cache.
    fn fetch(&mut self, pages: &[u64], ahead: u64) -> Result<Vec<(u64, Arc<Page>)>, PageError> {
        let mut out = Vec::with_capacity(pages.len());
        let mut wanted = Vec::new();
        let mut places = Vec::new();
        for &page in pages {
            let entry = self.data.entry(&self.medium, 0, page)?;
            if entry.is_null() {
                out.push((page, Arc::new([0; PAGE_BYTES])));
            } else {
                wanted.push(page);
                places.push((self.data.place(0, page, entry.generation), entry));
            }
        }
        if places.is_empty() {
            return Ok(out);
        }
        let asked = places.len();
        let last = *pages.last().unwrap_or(&0);
        for page in last + 1..(last + 1 + ahead).min(self.len.div_ceil(PAGE_BYTES as u64)) {
            // Only what costs nothing more: pages not at hand, under the same node, whose slots follow on.
            if page >> FANOUT_BITS != last >> FANOUT_BITS {
                break;
            }
            let entry = self.data.entry(&self.medium, 0, page)?;
            let follows = places
                .last()
                .is_some_and(|(_, previous)| entry.slot == previous.slot + 1);
            if !follows || self.dirty.contains_key(&page) || self.clean.contains(page) {
                break;
            }
            wanted.push(page);
            places.push((self.data.place(0, page, entry.generation), entry));
        }
        let mut read = self.medium.read(&places);
        if read.is_err() && places.len() > asked {
            // Damage in a page that nobody asked for is nobody's error yet.
            places.truncate(asked);
            read = self.medium.read(&places);
        }
        for (i, (page, bytes)) in wanted.into_iter().zip(read?).enumerate() {
            if i < asked {
                out.push((page, Arc::new(bytes)));
            } else {
                self.clean.insert(page, Arc::new(bytes));
            }
        }
        Ok(out)
    }

    /// Runs what changes trees and slots: if it fails, the store stops, since its memory is neither the published nor the
    /// coming generation.
    fn stopping(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), PageError>,
    ) -> Result<(), PageError> {
        let result = work(self);
        self.stopped |= result.is_err();
        result
    }

    fn check_running(&self) -> Result<(), PageError> {
        if self.stopped {
            Err(PageError::Stopped)
        } else {
            Ok(())
        }
    }

    fn check(&self, offset: u64, len: usize) -> Result<(), PageError> {
        self.check_running()?;
        let end = offset.saturating_add(len as u64);
        if end > self.len {
            return Err(PageError::OutOfBounds {
                offset,
                end,
                len: self.len,
            });
        }
        Ok(())
    }
}

fn page_of(offset: u64) -> u64 {
    offset / PAGE_BYTES as u64
}

/// Copies the part of `page` that lies in `out`, which begins at byte `offset` of the store.
fn copy_out(page: u64, bytes: &Page, offset: u64, out: &mut [u8]) {
    let start = page * PAGE_BYTES as u64;
    if start >= offset {
        let at = (start - offset) as usize;
        let n = (out.len() - at).min(PAGE_BYTES);
        out[at..at + n].copy_from_slice(&bytes[..n]);
    } else {
        let skip = (offset - start) as usize;
        let n = (PAGE_BYTES - skip).min(out.len());
        out[..n].copy_from_slice(&bytes[skip..skip + n]);
    }
}
