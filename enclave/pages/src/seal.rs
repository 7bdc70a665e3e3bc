//! Keys, and sealing one page.

use std::fmt;

use hkdf::Hkdf;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{FORMAT_VERSION, PAGE_BYTES, PageError};

/// The operator's page key: 32 secret bytes derived from the master secret (design 5.1). Zeroized on drop.
pub struct PageKey(Zeroizing<[u8; 32]>);

impl PageKey {
    /// Takes the key.
    #[must_use]
    pub fn new(key: Zeroizing<[u8; 32]>) -> Self {
        Self(key)
    }
}

/// Whose store it is. Both values are public and stand in the file in clear; a file of another one is refused by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreId {
    /// `operatorId` of `docs/protocol.md` section 1.
    pub operator: [u8; 32],
    /// What else the store is bound to, chosen by the appliance: a hash of the chains it holds.
    pub config: [u8; 32],
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("operator 0x")?;
        self.operator
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(" config 0x")?;
        self.config
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A page in memory.
pub(crate) type Page = [u8; PAGE_BYTES];

/// Length of a nonce: 192 random bits, so that no counter has to survive a host that rolls files back. AES-GCM's own 96 are
/// too few to be random; therefore these choose the key of the one page.
pub(crate) const NONCE_BYTES: usize = 24;
/// Length of a tag.
pub(crate) const TAG_BYTES: usize = 16;
/// Length of the salt chosen when a store is created.
pub(crate) const SALT_BYTES: usize = 32;
/// Length of the value that tells whether a file was made with a key.
pub(crate) const KEY_ID_BYTES: usize = 16;

/// Which tree a sealed page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The pages redb writes, and the tag tree over them.
    Data = 1,
    /// The slot map and the tree over it.
    Map = 2,
}

/// What a sealed page is; part of what its tag authenticates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) kind: Kind,
    /// Height over the tree's pages, 0 for a page itself.
    pub(crate) level: u8,
    /// Position in its level.
    pub(crate) index: u64,
    /// The generation that wrote it.
    pub(crate) generation: u64,
}

/// Nonce and tag of something sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Seal {
    pub(crate) nonce: [u8; NONCE_BYTES],
    pub(crate) tag: [u8; TAG_BYTES],
}

/// Seals and opens the pages of one store. The store's key is zeroized on drop.
pub(crate) struct Sealer {
    /// HKDF keyed with the store's key, from which every page's key comes.
    secret: Hkdf<Sha256>,
    key_id: [u8; KEY_ID_BYTES],
    store: [u8; 32],
}

impl Sealer {
    /// Derives a store's key from the page key and the salt of its creation.
    pub(crate) fn derive(key: &PageKey, id: &StoreId, salt: &[u8; SALT_BYTES]) -> Self {
        let hkdf = Hkdf::<Sha256>::new(Some(salt), key.0.as_slice());
        let version = FORMAT_VERSION.to_le_bytes();
        let context: [&[u8]; 3] = [&version, &id.operator, &id.config];
        let expand = |label: &[u8], out: &mut [u8]| {
            let [version, operator, config] = context;
            let info = [label, version, operator, config];
            // HKDF fails only above 255 × 32 bytes of output.
            let Ok(()) = hkdf.expand_multi_info(&info, out) else {
                unreachable!("HKDF output is short")
            };
        };
        let mut secret = Zeroizing::new([0; 32]);
        expand(b"newton-pages-seal-v2", secret.as_mut_slice());
        let mut key_id = [0; KEY_ID_BYTES];
        expand(b"newton-pages-key-id-v2", &mut key_id);
        let mut hasher = Sha256::new();
        hasher.update(b"newton-pages-store-v2");
        context.iter().for_each(|part| hasher.update(part));
        hasher.update(salt);
        let Ok(secret) = Hkdf::from_prk(secret.as_slice()) else {
            unreachable!("HKDF takes a key as long as the hash")
        };
        Self {
            secret,
            key_id,
            store: hasher.finalize().into(),
        }
    }

    /// A value that differs for every key and salt and tells nothing about the key.
    pub(crate) fn key_id(&self) -> [u8; KEY_ID_BYTES] {
        self.key_id
    }

    /// Encrypts a page where it stands.
    pub(crate) fn seal(&self, place: Place, page: &mut [u8]) -> Result<Seal, PageError> {
        self.seal_bytes(&self.associated_data(place), page)
    }

    /// Decrypts a page where it stands; false if it is not the one sealed.
    pub(crate) fn open(&self, place: Place, seal: &Seal, page: &mut [u8]) -> bool {
        self.open_bytes(&self.associated_data(place), seal, page)
    }

    /// Encrypts bytes that are no page under associated data of their own, which must not begin like a page's.
    pub(crate) fn seal_bytes(
        &self,
        associated_data: &[u8],
        bytes: &mut [u8],
    ) -> Result<Seal, PageError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(PageError::Random)?;
        let tag = self.seal_under(nonce, associated_data, bytes);
        Ok(Seal { nonce, tag })
    }

    /// Decrypts what [`Sealer::seal_bytes`] made. What does not authenticate is of no use to the caller any more.
    pub(crate) fn open_bytes(&self, associated_data: &[u8], seal: &Seal, bytes: &mut [u8]) -> bool {
        self.key_under(&seal.nonce)
            .open_in_place_separate_tag(
                only_nonce(),
                Aad::from(associated_data),
                seal.tag.into(),
                bytes,
                0..,
            )
            .is_ok()
    }

    fn seal_under(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated_data: &[u8],
        bytes: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        let sealed = self.key_under(&nonce).seal_in_place_separate_tag(
            only_nonce(),
            Aad::from(associated_data),
            bytes,
        );
        // The cipher fails only on messages of 64 GiB.
        let Ok(sealed) = sealed else {
            unreachable!("a page is short")
        };
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(sealed.as_ref());
        tag
    }

    /// The key of what was sealed under `nonce`, and of nothing else.
    fn key_under(&self, nonce: &[u8; NONCE_BYTES]) -> LessSafeKey {
        let mut key = Zeroizing::new([0; 32]);
        let info: [&[u8]; 2] = [b"newton-pages-slot-v2", nonce];
        // 32 bytes are one block of HKDF and the length of the cipher's key.
        let Ok(()) = self.secret.expand_multi_info(&info, key.as_mut_slice()) else {
            unreachable!("HKDF output is short")
        };
        let Ok(key) = UnboundKey::new(&AES_256_GCM, key.as_slice()) else {
            unreachable!("a key of 32 bytes")
        };
        LessSafeKey::new(key)
    }

    fn associated_data(&self, place: Place) -> [u8; 58] {
        let mut data = [0; 58];
        data[..8].copy_from_slice(b"NEWTSLOT");
        data[8] = place.kind as u8;
        data[9] = place.level;
        data[10..18].copy_from_slice(&place.index.to_le_bytes());
        data[18..26].copy_from_slice(&place.generation.to_le_bytes());
        data[26..].copy_from_slice(&self.store);
        data
    }
}

/// AES-GCM's nonce: every key seals once.
fn only_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sealer(key: u8, operator: u8, config: u8, salt: u8) -> Sealer {
        let id = StoreId {
            operator: [operator; 32],
            config: [config; 32],
        };
        Sealer::derive(&PageKey::new(Zeroizing::new([key; 32])), &id, &[salt; 32])
    }

    const PLACE: Place = Place {
        kind: Kind::Data,
        level: 0,
        index: 7,
        generation: 3,
    };

    #[test]
    fn a_page_opens_only_as_what_it_was_sealed() {
        let sealer = sealer(1, 2, 3, 4);
        let mut page = [9; PAGE_BYTES];
        let seal = sealer.seal(PLACE, &mut page).unwrap();
        assert_ne!(page, [9; PAGE_BYTES]);
        let opens =
            |place: Place, seal: &Seal, page: &[u8]| sealer.open(place, seal, &mut page.to_vec());
        assert!(opens(PLACE, &seal, &page));
        assert!(!opens(
            Place {
                kind: Kind::Map,
                ..PLACE
            },
            &seal,
            &page
        ));
        assert!(!opens(Place { level: 1, ..PLACE }, &seal, &page));
        assert!(!opens(Place { index: 8, ..PLACE }, &seal, &page));
        assert!(!opens(
            Place {
                generation: 2,
                ..PLACE
            },
            &seal,
            &page
        ));
        let mut other = seal;
        other.nonce[0] ^= 1;
        assert!(!opens(PLACE, &other, &page));
        page[4095] ^= 1;
        assert!(!opens(PLACE, &seal, &page));
    }

    #[test]
    fn every_input_changes_the_key() {
        let base = sealer(1, 2, 3, 4);
        let mut page = [9; PAGE_BYTES];
        let seal = base.seal(PLACE, &mut page).unwrap();
        for other in [
            sealer(9, 2, 3, 4),
            sealer(1, 9, 3, 4),
            sealer(1, 2, 9, 4),
            sealer(1, 2, 3, 9),
        ] {
            assert_ne!(other.key_id(), base.key_id());
            // The associated data made equal, the key alone must refuse.
            let other = Sealer {
                store: base.store,
                ..other
            };
            assert!(!other.open(PLACE, &seal, &mut page.to_vec()));
        }
    }

    #[test]
    fn nonces_do_not_repeat() {
        let sealer = sealer(1, 2, 3, 4);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            assert!(seen.insert(sealer.seal(PLACE, &mut [0; PAGE_BYTES]).unwrap().nonce));
        }
    }

    /// The store's key and id by Python's `hmac` and `hashlib`, written down once: the derivation is part of the format.
    #[test]
    fn derivation_is_fixed() {
        let sealer = sealer(1, 2, 3, 4);
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(&sealer.key_id()), "7c50bad7cd05f8770fee23797f14c7c7");
        assert_eq!(
            hex(&sealer.store),
            "4938b7db0634dac696ac047a18fec3890759e39b0349645cc714fc160bcaecde"
        );
    }

    /// A sealed page by Python's `hmac` and `cryptography`: the cipher and its keys are part of the format.
    #[test]
    fn a_sealed_page_is_fixed() {
        let sealer = sealer(1, 2, 3, 4);
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let plain: Page = std::array::from_fn(|i| (i % 251) as u8);
        let mut page = plain;
        let nonce = [5; NONCE_BYTES];
        let tag = sealer.seal_under(nonce, &sealer.associated_data(PLACE), &mut page);
        assert_eq!(hex(&tag), "6710b772b2b404572afd5adae40fe898");
        assert_eq!(
            hex(&Sha256::digest(page)),
            "c30aa5f294693941fc9e81d1db207b05d1d36e912816fbd04d3a244cfeb469f5"
        );
        assert!(sealer.open(PLACE, &Seal { nonce, tag }, &mut page));
        assert_eq!(page, plain);
    }
}
