//! Opening and creating.

use super::*;
use crate::medium::Medium;
use crate::seal::{Kind, Page, SALT_BYTES, Sealer};
use crate::slots::{PER_PAGE, RESERVED, Slots};
use crate::superblock::{self, Found, Opened, Superblock, positions};
use crate::tree::{Entry, Tree};

impl Core {
    /// The second value tells whether the store is new.
    pub(super) fn open(
        device: Arc<dyn BlockDevice>,
        key: &PageKey,
        id: StoreId,
        options: Options,
        counters: Arc<Counters>,
    ) -> Result<(Self, bool), PageError> {
        if device.slot_bytes() != PAGE_BYTES {
            return Err(PageError::SlotSize {
                expected: PAGE_BYTES,
                got: device.slot_bytes(),
            });
        }
        let bytes = device.len_bytes()?;
        if bytes == 0 {
            return Ok((Self::create(device, key, id, options, counters)?, true));
        }
        let whole = bytes / PAGE_BYTES as u64;
        let mut slots = vec![[0; PAGE_BYTES]; whole.min(RESERVED) as usize];
        if !slots.is_empty() {
            let ranges = [SlotRange {
                first: 0,
                count: slots.len() as u32,
            }];
            device.read_slots(&ranges, slots.as_flattened_mut())?;
        }
        match superblock::find(&slots, bytes, key, &id)? {
            Found::Unfinished => Ok((Self::create(device, key, id, options, counters)?, true)),
            Found::Opened(opened) => {
                let expected = opened.superblock.slots;
                if whole < expected {
                    return Err(PageError::Truncated {
                        expected,
                        got: whole,
                    });
                }
                heal(&*device, &opened)?;
                let Opened {
                    superblock,
                    sealer,
                    salt,
                    ..
                } = *opened;
                let medium = Medium {
                    device,
                    sealer,
                    counters,
                };
                Ok((Self::load(medium, id, salt, &superblock, options)?, false))
            }
        }
    }

    fn create(
        device: Arc<dyn BlockDevice>,
        key: &PageKey,
        id: StoreId,
        options: Options,
        counters: Arc<Counters>,
    ) -> Result<Self, PageError> {
        // First the length, so that a crash leaves no length that is a stranger's.
        device.set_len(RESERVED)?;
        device.flush()?;
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(PageError::Random)?;
        let sealer = Sealer::derive(key, &id, &salt);
        let first = Superblock {
            generation: 1,
            len: 0,
            slots: RESERVED,
            used: RESERVED,
            data_height: 0,
            map_height: 0,
            data_root: Entry::default(),
            map_root: Entry::default(),
        };
        let medium = Medium {
            device,
            sealer,
            counters,
        };
        let page = first.encode(&id, &salt, &medium.sealer)?;
        write_superblock(&*medium.device, 1, &page)?;
        Self::load(medium, id, salt, &first, options)
    }

    fn load(
        medium: Medium,
        id: StoreId,
        salt: [u8; SALT_BYTES],
        superblock: &Superblock,
        options: Options,
    ) -> Result<Self, PageError> {
        let nodes = (options.node_cache_bytes / PAGE_BYTES).max(64);
        let data = Tree::new(
            Kind::Data,
            superblock.data_height,
            superblock.data_root,
            nodes,
        );
        let mut map = Tree::new(Kind::Map, superblock.map_height, superblock.map_root, 64);
        let slots = if superblock.slots == RESERVED {
            Slots::empty()
        } else {
            Slots::from_words(
                read_map(&medium, &mut map, superblock.slots)?,
                superblock.slots,
            )
        };
        if slots.used() != superblock.used {
            // Both are authentic, so this is our own bug; going on could overwrite pages in use.
            return Err(PageError::SuperblockCorrupt);
        }
        Ok(Self::new(
            medium, id, salt, superblock, data, map, slots, options,
        ))
    }
}

/// Reads the slot map: a few requests, and no more than one page for 32,768 slots and its nodes.
fn read_map(medium: &Medium, map: &mut Tree, slots: u64) -> Result<Vec<u64>, PageError> {
    let mut words = Vec::new();
    let pages = slots.div_ceil(PER_PAGE);
    let mut first = 0;
    while first < pages {
        let mut batch = Vec::new();
        for index in first..pages.min(first + 256) {
            let entry = map.entry(medium, 0, index)?;
            batch.push((map.place(0, index, entry.generation), entry));
        }
        first += batch.len() as u64;
        for page in medium.read(&batch)? {
            words.extend(
                page.as_chunks::<8>()
                    .0
                    .iter()
                    .map(|word| u64::from_le_bytes(*word)),
            );
        }
    }
    Ok(words)
}

/// Makes what was found durable before anything relies on it: the host may have shown a superblock that it had not put on
/// stable storage, and a copy may be missing.
fn heal(device: &dyn BlockDevice, opened: &Opened) -> Result<(), PageError> {
    let runs: Vec<_> = positions(opened.superblock.generation)
        .into_iter()
        .filter(|slot| !opened.intact.contains(slot))
        .map(|first| newton_relay::disk::Run {
            first,
            data: &opened.page,
        })
        .collect();
    Ok(device.write_and_flush(&runs)?)
}

/// Publishes a superblock: both its copies, on stable storage.
pub(super) fn write_superblock(
    device: &dyn BlockDevice,
    generation: u64,
    page: &Page,
) -> Result<(), PageError> {
    let runs = positions(generation).map(|first| newton_relay::disk::Run { first, data: page });
    Ok(device.write_and_flush(&runs)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use newton_relay::disk::{DeviceError, Run};
    use zeroize::Zeroizing;

    use super::*;
    use crate::outbox::Outbox;
    use crate::tree::Writer;

    /// Slots by number, so that a file of gigabytes with a few pages in it costs what it holds.
    #[derive(Default)]
    struct Sparse(Mutex<std::collections::HashMap<u64, Vec<u8>>>);

    impl BlockDevice for Sparse {
        fn slot_bytes(&self) -> usize {
            PAGE_BYTES
        }

        fn len_bytes(&self) -> Result<u64, DeviceError> {
            Ok(0)
        }

        fn set_len(&self, _: u64) -> Result<(), DeviceError> {
            Ok(())
        }

        fn read_slots(&self, ranges: &[SlotRange], out: &mut [u8]) -> Result<(), DeviceError> {
            let slots = ranges
                .iter()
                .flat_map(|range| (0..u64::from(range.count)).map(|i| range.first + i));
            for (slot, out) in slots.zip(out.chunks_mut(PAGE_BYTES)) {
                out.copy_from_slice(
                    self.0
                        .lock()
                        .unwrap()
                        .get(&slot)
                        .ok_or(DeviceError::OutOfRange)?,
                );
            }
            Ok(())
        }

        fn write_slots(&self, runs: &[Run<'_>]) -> Result<(), DeviceError> {
            for run in runs {
                for (i, data) in run.data.chunks(PAGE_BYTES).enumerate() {
                    self.0
                        .lock()
                        .unwrap()
                        .insert(run.first + i as u64, data.to_vec());
                }
            }
            Ok(())
        }

        fn flush(&self) -> Result<(), DeviceError> {
            Ok(())
        }
    }

    /// Publishes the map as a generation does.
    fn publish(medium: &Medium, map: &mut Tree, slots: &mut Slots, generation: u64) {
        let mut outbox = Outbox::default();
        map.put_map(&mut Writer {
            medium,
            slots,
            outbox: &mut outbox,
            generation,
        })
        .unwrap();
        outbox.send_and_flush(medium).unwrap();
        map.publish();
        slots.publish();
    }

    /// The map's pages take slots of the map: of one page, of several under a node, and when it grows a level while it
    /// is written, it comes back as it was.
    #[test]
    fn maps_of_one_and_many_pages_come_back() {
        let id = StoreId {
            operator: [1; 32],
            config: [2; 32],
        };
        let sealer = Sealer::derive(&PageKey::new(Zeroizing::new([3; 32])), &id, &[4; 32]);
        let medium = Medium {
            device: Arc::new(Sparse::default()),
            sealer,
            counters: Arc::default(),
        };
        let mut map = Tree::new(Kind::Map, 0, Entry::default(), 64);
        let mut slots = Slots::empty();
        let mut generation = 2;
        // Ends just below, at and above the slots that one page and 64 pages cover.
        let totals = [
            100,
            PER_PAGE - 3,
            PER_PAGE - 1,
            PER_PAGE,
            3 * PER_PAGE,
            64 * PER_PAGE - 40,
            64 * PER_PAGE,
            70 * PER_PAGE,
        ];
        for total in totals {
            while slots.total() < total {
                slots.allocate();
            }
            // Also a change that touches one page only.
            for release in [None, Some(slots.total() / 2)] {
                if let Some(slot) = release {
                    slots.release(slot);
                }
                publish(&medium, &mut map, &mut slots, generation);
                generation += 1;
                let mut again = Tree::new(Kind::Map, map.height(), map.root(), 64);
                let words = read_map(&medium, &mut again, slots.total()).unwrap();
                let read = Slots::from_words(words, slots.total());
                assert_eq!(
                    (read.used(), read.total()),
                    (slots.used(), slots.total()),
                    "{total}"
                );
                for page in 0..slots.map_pages() {
                    assert!(
                        read.page(page) == slots.page(page),
                        "{total}: map page {page}"
                    );
                }
            }
        }
        assert_eq!(map.height(), 2);
    }
}
