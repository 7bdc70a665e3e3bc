#![allow(clippy::unwrap_used)]
use zeroize::Zeroizing;

use super::*;

const ID: StoreId = StoreId {
    operator: [1; 32],
    config: [2; 32],
};
const FILE: u64 = 100 * PAGE_BYTES as u64;

fn key(byte: u8) -> PageKey {
    PageKey::new(Zeroizing::new([byte; 32]))
}

fn page(generation: u64) -> Page {
    let superblock = Superblock {
        generation,
        len: 3,
        slots: 9,
        used: 7,
        data_height: 1,
        map_height: 0,
        data_root: Entry {
            slot: 5,
            generation: 6,
            seal: Seal {
                nonce: [7; 24],
                tag: [8; 16],
            },
        },
        map_root: Entry::default(),
    };
    superblock
        .encode(&ID, &[3; 32], &Sealer::derive(&key(4), &ID, &[3; 32]))
        .unwrap()
}

fn found(slots: &[Page]) -> Result<Box<Opened>, PageError> {
    match find(slots, FILE, &key(4), &ID)? {
        Found::Opened(opened) => Ok(opened),
        Found::Unfinished => panic!("unfinished"),
    }
}

#[test]
fn fits_into_a_sector() {
    const { assert!(END <= 512) };
}

#[test]
fn the_highest_generation_counts_and_one_copy_is_enough() {
    let (old, new) = (page(6), page(7));
    let opened = found(&[old, new, old, new]).unwrap();
    assert_eq!(
        (opened.superblock.generation, opened.intact.clone()),
        (7, vec![1, 3])
    );
    assert_eq!(opened.superblock.data_root.slot, 5);
    let zero = [0; PAGE_BYTES];
    let opened = found(&[old, zero, old, new]).unwrap();
    assert_eq!(
        (opened.superblock.generation, opened.intact.clone()),
        (7, vec![3])
    );
    let opened = found(&[old, zero, old, zero]).unwrap();
    assert_eq!(opened.superblock.generation, 6);
}

#[test]
fn every_flipped_byte_is_noticed() {
    let (old, good) = (page(6), page(7));
    for i in 0..PAGE_BYTES {
        let mut bad = good;
        bad[i] ^= 0x10;
        let opened = found(&[old, bad, old, good]).unwrap();
        assert_eq!(
            (opened.superblock.generation, opened.intact.clone()),
            (7, vec![3]),
            "byte {i}"
        );
        assert!(found(&[bad, bad, bad, bad]).is_err(), "byte {i}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let good = page(7);
    let zero = [0; PAGE_BYTES];
    let slots = [zero, good, zero, good];
    let other = StoreId {
        operator: [9; 32],
        ..ID
    };
    let error = find(&slots, FILE, &key(4), &other).err().unwrap();
    assert!(
        matches!(error, PageError::WrongStore { expected, got } if *expected == other && *got == ID)
    );
    assert!(matches!(
        find(&slots, FILE, &key(5), &ID),
        Err(PageError::WrongKey)
    ));
    for version in [1, 3] {
        let mut other = good;
        other[VERSION] = version;
        let got = found(&[zero, other, zero, other]).err().unwrap();
        assert!(matches!(got, PageError::Version { got, .. } if got == u32::from(version)));
    }
    let mut corrupt = good;
    corrupt[TAG] ^= 1;
    assert!(matches!(
        found(&[zero, corrupt, zero, corrupt]),
        Err(PageError::SuperblockCorrupt)
    ));
    assert!(matches!(
        found(&[zero; 4]),
        Err(PageError::NotAStore { bytes: FILE })
    ));
    // A superblock moved to the other generation's slot is none.
    assert!(matches!(
        found(&[good, zero, good, zero]),
        Err(PageError::SuperblockCorrupt)
    ));
    // Sealed anew, so another nonce.
    let twin = page(7);
    assert!(matches!(
        found(&[zero, good, zero, twin]),
        Err(PageError::SuperblockConflict { generation: 7 })
    ));
}

#[test]
fn an_unfinished_creation_is_told_from_a_foreign_file() {
    let four = RESERVED * PAGE_BYTES as u64;
    let zero = [0; PAGE_BYTES];
    let unfinished =
        |slots: &[Page], bytes| matches!(find(slots, bytes, &key(4), &ID), Ok(Found::Unfinished));
    assert!(unfinished(&[zero; 4], four));
    assert!(!unfinished(&[zero; 4], four + 4096));
    assert!(!unfinished(&[zero; 3], four - 4096));
    for cut in 1..END {
        let mut torn = page(1);
        torn[cut..].fill(0);
        assert!(unfinished(&[zero, torn, zero, zero], four), "cut at {cut}");
        let mut torn = page(1);
        torn[..cut].fill(0);
        assert!(unfinished(&[zero, zero, zero, torn], four), "from {cut}");
    }
    let mut foreign = zero;
    foreign[..9].copy_from_slice(b"NEWTPAGEX");
    assert!(!unfinished(&[zero, foreign, zero, zero], four));
    foreign = zero;
    foreign[4000] = 1;
    assert!(!unfinished(&[zero, foreign, zero, zero], four));
    assert!(!unfinished(&[foreign, zero, zero, zero], four));
}
