//! The root of a generation. Four slots hold superblocks: generation g stands in slots `g % 2` and `g % 2 + 2`, the same
//! bytes twice, so that damage to one slot loses nothing.

use crate::error::PageError;
use crate::seal::{
    KEY_ID_BYTES, NONCE_BYTES, Page, PageKey, SALT_BYTES, Seal, Sealer, StoreId, TAG_BYTES,
};
use crate::slots::RESERVED;
use crate::tree::{ENTRY_USED, Entry, MAX_HEIGHT};
use crate::{FORMAT_VERSION, PAGE_BYTES};

const MAGIC: &[u8; 8] = b"NEWTPAGE";

// Offsets of the clear part, which is the sealed part's associated data.
const VERSION: usize = 8;
const OPERATOR: usize = 12;
const CONFIG: usize = OPERATOR + 32;
const SALT: usize = CONFIG + 32;
const KEY_ID: usize = SALT + SALT_BYTES;
const NONCE: usize = KEY_ID + KEY_ID_BYTES;
const BODY: usize = NONCE + NONCE_BYTES;
const TAG: usize = BODY + BODY_BYTES;
/// All of a superblock; the rest of its slot is zero. Less than a sector of 512 bytes.
const END: usize = TAG + TAG_BYTES;

const BODY_BYTES: usize = 4 * 8 + 2 + 2 * ENTRY_USED;

/// What a generation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) generation: u64,
    /// Length of the store in bytes, as redb sees it.
    pub(crate) len: u64,
    /// Slots the file must have.
    pub(crate) slots: u64,
    /// Slots in use.
    pub(crate) used: u64,
    pub(crate) data_height: u8,
    pub(crate) map_height: u8,
    pub(crate) data_root: Entry,
    pub(crate) map_root: Entry,
}

/// The slots of a generation's superblock.
pub(crate) fn positions(generation: u64) -> [u64; 2] {
    [generation % 2, generation % 2 + 2]
}

impl Superblock {
    pub(crate) fn encode(
        &self,
        id: &StoreId,
        salt: &[u8; SALT_BYTES],
        sealer: &Sealer,
    ) -> Result<Page, PageError> {
        let mut page = [0; PAGE_BYTES];
        put_clear(&mut page, id);
        page[SALT..KEY_ID].copy_from_slice(salt);
        page[KEY_ID..NONCE].copy_from_slice(&sealer.key_id());
        let body = &mut page[BODY..TAG];
        let words = [self.generation, self.len, self.slots, self.used];
        for (out, word) in body.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *out = word.to_le_bytes();
        }
        body[32] = self.data_height;
        body[33] = self.map_height;
        body[34..34 + ENTRY_USED].copy_from_slice(&self.data_root.encode());
        body[34 + ENTRY_USED..].copy_from_slice(&self.map_root.encode());
        // The nonce is not known before sealing: the clear part without it is what is authenticated; the nonce
        // authenticates itself.
        let (clear, rest) = page.split_at_mut(NONCE);
        let Seal { nonce, tag } = sealer.seal_bytes(clear, &mut rest[BODY - NONCE..TAG - NONCE])?;
        page[NONCE..BODY].copy_from_slice(&nonce);
        page[TAG..END].copy_from_slice(&tag);
        Ok(page)
    }

    fn decode(body: &[u8]) -> Self {
        let word = |i: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&body[8 * i..8 * i + 8]);
            u64::from_le_bytes(word)
        };
        let entry = |at: usize| {
            let mut bytes = [0; ENTRY_USED];
            bytes.copy_from_slice(&body[at..at + ENTRY_USED]);
            Entry::decode(&bytes)
        };
        Self {
            generation: word(0),
            len: word(1),
            slots: word(2),
            used: word(3),
            data_height: body[32],
            map_height: body[33],
            data_root: entry(34),
            map_root: entry(34 + ENTRY_USED),
        }
    }
}

/// A superblock that authenticates, with the key and salt it came under.
pub(crate) struct Opened {
    pub(crate) superblock: Superblock,
    pub(crate) sealer: Sealer,
    pub(crate) salt: [u8; SALT_BYTES],
    /// The slots that hold exactly these bytes, of the two they should be in.
    pub(crate) intact: Vec<u64>,
    pub(crate) page: Page,
}

/// What the superblocks' slots hold.
pub(crate) enum Found {
    /// A generation.
    Opened(Box<Opened>),
    /// A store whose creation was never acknowledged.
    Unfinished,
}

/// Chooses the generation: the highest of the superblocks that authenticate. `slots` are the first slots of the file, at
/// most four, `file_bytes` its length.
pub(crate) fn find(
    slots: &[Page],
    file_bytes: u64,
    key: &PageKey,
    id: &StoreId,
) -> Result<Found, PageError> {
    let mut best: Option<Opened> = None;
    let mut reason = Reason::Foreign;
    for (slot, page) in slots.iter().enumerate() {
        match open(slot as u64, page, key, id) {
            Err(why) => reason = reason.max(why),
            Ok(found) => match &mut best {
                Some(best) if best.superblock.generation > found.superblock.generation => {}
                Some(best) if best.superblock.generation == found.superblock.generation => {
                    if best.page != found.page {
                        return Err(PageError::SuperblockConflict {
                            generation: found.superblock.generation,
                        });
                    }
                    best.intact.extend(found.intact);
                }
                _ => best = Some(found),
            },
        }
    }
    if let Some(best) = best {
        return Ok(Found::Opened(Box::new(best)));
    }
    if is_unfinished(slots, file_bytes, id) {
        return Ok(Found::Unfinished);
    }
    Err(match reason {
        Reason::Store(got) => PageError::WrongStore {
            expected: Box::new(*id),
            got: Box::new(got),
        },
        Reason::Key => PageError::WrongKey,
        Reason::Version(got) => PageError::Version {
            expected: FORMAT_VERSION,
            got,
        },
        Reason::Corrupt => PageError::SuperblockCorrupt,
        Reason::Foreign => PageError::NotAStore { bytes: file_bytes },
    })
}

/// Why a slot is no superblock of ours, the most telling last.
enum Reason {
    Foreign,
    Corrupt,
    Version(u32),
    Key,
    Store(StoreId),
}

impl Reason {
    fn rank(&self) -> u8 {
        match self {
            Self::Foreign => 0,
            Self::Corrupt => 1,
            Self::Version(_) => 2,
            Self::Key => 3,
            Self::Store(_) => 4,
        }
    }

    fn max(self, other: Self) -> Self {
        if other.rank() > self.rank() {
            other
        } else {
            self
        }
    }
}

fn open(slot: u64, page: &Page, key: &PageKey, id: &StoreId) -> Result<Opened, Reason> {
    if page[..VERSION] != *MAGIC {
        return Err(Reason::Foreign);
    }
    let mut version = [0; 4];
    version.copy_from_slice(&page[VERSION..OPERATOR]);
    let version = u32::from_le_bytes(version);
    if version != FORMAT_VERSION {
        return Err(Reason::Version(version));
    }
    let mut got = StoreId {
        operator: [0; 32],
        config: [0; 32],
    };
    got.operator.copy_from_slice(&page[OPERATOR..CONFIG]);
    got.config.copy_from_slice(&page[CONFIG..SALT]);
    if got != *id {
        return Err(Reason::Store(got));
    }
    let mut salt = [0; SALT_BYTES];
    salt.copy_from_slice(&page[SALT..KEY_ID]);
    let sealer = Sealer::derive(key, id, &salt);
    if page[KEY_ID..NONCE] != sealer.key_id() {
        return Err(Reason::Key);
    }
    let mut seal = Seal::default();
    seal.nonce.copy_from_slice(&page[NONCE..BODY]);
    seal.tag.copy_from_slice(&page[TAG..END]);
    let mut body = [0; BODY_BYTES];
    body.copy_from_slice(&page[BODY..TAG]);
    if !sealer.open_bytes(&page[..NONCE], &seal, &mut body)
        || page[END..].iter().any(|byte| *byte != 0)
    {
        return Err(Reason::Corrupt);
    }
    let superblock = Superblock::decode(&body);
    let sound = positions(superblock.generation).contains(&slot)
        && superblock.data_height <= MAX_HEIGHT
        && superblock.map_height <= MAX_HEIGHT
        && superblock.slots >= RESERVED;
    if !sound {
        return Err(Reason::Corrupt);
    }
    Ok(Opened {
        superblock,
        sealer,
        salt,
        intact: vec![slot],
        page: *page,
    })
}

/// True if a crash while the store was created can have left this: nothing beyond the superblocks, nothing in generation
/// 0's slots, and in generation 1's, byte by byte, nothing or what creation writes there.
fn is_unfinished(slots: &[Page], file_bytes: u64, id: &StoreId) -> bool {
    let mut expected = [0; PAGE_BYTES];
    put_clear(&mut expected, id);
    let torn = |page: &Page| {
        page[..SALT]
            .iter()
            .zip(&expected[..SALT])
            .all(|(got, want)| *got == 0 || got == want)
    };
    file_bytes == RESERVED * PAGE_BYTES as u64
        && slots.iter().enumerate().all(|(slot, page)| match slot % 2 {
            0 => page.iter().all(|byte| *byte == 0),
            _ => torn(page) && page[END..].iter().all(|byte| *byte == 0),
        })
}

fn put_clear(page: &mut Page, id: &StoreId) {
    page[..VERSION].copy_from_slice(MAGIC);
    page[VERSION..OPERATOR].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    page[OPERATOR..CONFIG].copy_from_slice(&id.operator);
    page[CONFIG..SALT].copy_from_slice(&id.config);
}

#[cfg(test)]
#[path = "superblock_tests.rs"]
mod tests;
