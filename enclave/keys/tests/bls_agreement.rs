//! The vectors in `tests/vectors/bls-agreement.json`: `blst` and the contracts agree on a thousand random cases, and both with
//! RFC 9380's own.
//!
//! Keys and digests follow from the index, so the file holds one hash per group over everything `blst` makes of them; the
//! contracts' test makes the same bytes with the precompiles and must arrive at the same hashes. `NEWTON_BLESS=1` writes it.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;

use blst::BLST_ERROR;
use blst::min_sig::{SecretKey, Signature};
use serde_json::{Value, json};
use sha3::{Digest as _, Keccak256};

const GROUPS: u32 = 32;
const PER_GROUP: u32 = 32;
const SUITE: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";
const POSSESSION_SUITE: &[u8] = b"BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";

/// RFC 9380, J.9.1: BLS12381G1_XMD:SHA-256_SSWU_RO_; message, P.x, P.y.
const RFC_9380_TAG: &str = "QUUX-V01-CS02-with-BLS12381G1_XMD:SHA-256_SSWU_RO_";
const RFC_9380: [(&str, &str, &str); 5] = [
    (
        "",
        "052926add2207b76ca4fa57a8734416c8dc95e24501772c814278700eed6d1e4e8cf62d9c09db0fac349612b759e79a1",
        "08ba738453bfed09cb546dbb0783dbb3a5f1f566ed67bb6be0e8c67e2e81a4cc68ee29813bb7994998f3eae0c9c6a265",
    ),
    (
        "abc",
        "03567bc5ef9c690c2ab2ecdf6a96ef1c139cc0b2f284dca0a9a7943388a49a3aee664ba5379a7655d3c68900be2f6903",
        "0b9c15f3fe6e5cf4211f346271d7b01c8f3b28be689c8429c85b67af215533311f0b8dfaaa154fa6b88176c229f2885d",
    ),
    (
        "abcdef0123456789",
        "11e0b079dea29a68f0383ee94fed1b940995272407e3bb916bbf268c263ddd57a6a27200a784cbc248e84f357ce82d98",
        "03a87ae2caf14e8ee52e51fa2ed8eefe80f02457004ba4d486d6aa1f517c0889501dc7413753f9599b099ebcbbd2d709",
    ),
    (
        "q128_",
        "15f68eaa693b95ccb85215dc65fa81038d69629f70aeee0d0f677cf22285e7bf58d7cb86eefe8f2e9bc3f8cb84fac488",
        "1807a1d50c29f430b8cafc4f8638dfeeadf51211e1602a5f184443076715f91bb90a48ba1e370edce6ae1062f5e6dd38",
    ),
    (
        "a512_",
        "082aabae8b7dedb0e78aeb619ad3bfd9277a2f77ba7fad20ef6aabdc6c31d19ba5a6d12283553294c1825c4b3ca2dcfe",
        "05b84ae5a942248eea39e1d91030458c40153f3b654ab7872d779ad1e942856a20c438e8d99bc8abfbf74729ce1f7ac8",
    ),
];

#[test]
fn the_vector_file_is_what_blst_makes() {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/bls-agreement.json");
    if std::env::var_os("NEWTON_BLESS").is_some() {
        let text = serde_json::to_string_pretty(&vectors()).unwrap();
        std::fs::write(&path, format!("{text}\n")).unwrap();
    }
    let stored: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(
        stored == vectors(),
        "tests/vectors/bls-agreement.json differs from what blst makes; NEWTON_BLESS=1 rewrites it"
    );
}

#[test]
fn blst_agrees_with_rfc_9380() {
    for (message, x, y) in RFC_9380 {
        let message = rfc_message(message);
        let point = hashed(&message, RFC_9380_TAG.as_bytes());
        assert_eq!(hex::encode(&point.serialize()[..48]), x, "P.x");
        assert_eq!(hex::encode(&point.serialize()[48..]), y, "P.y");
    }
}

/// What the contracts refuse in each case, blst refuses, too.
#[test]
fn blst_takes_the_cases_and_refuses_their_deviations() {
    for i in 0..GROUPS * PER_GROUP {
        let (key, other) = (key(i), key(i + 1));
        let digest = seed("digest", i);
        let signature = key.sign(&digest, SUITE, &[]);
        assert_eq!(
            verify(&key, &digest, &signature),
            BLST_ERROR::BLST_SUCCESS,
            "case {i}"
        );
        let deviation = match i % 4 {
            0 => {
                let mut flipped = digest;
                flipped[(i / 4 % 32) as usize] ^= 1 << (i % 8);
                verify(&key, &flipped, &signature)
            }
            1 => verify(&other, &digest, &signature),
            2 => verify(&key, &digest, &other.sign(&digest, SUITE, &[])),
            _ => verify(&key, &digest, &key.sign(&digest, POSSESSION_SUITE, &[])),
        };
        assert_eq!(deviation, BLST_ERROR::BLST_VERIFY_FAIL, "case {i}");
    }
}

fn vectors() -> Value {
    let groups: Vec<_> = (0..GROUPS).map(|group| hex0x(group_hash(group))).collect();
    let points = RFC_9380.map(|(_, x, y)| hex0x(padded(&hex::decode([x, y].concat()).unwrap())));
    json!({
        "groups": groups,
        "perGroup": PER_GROUP,
        "rfc9380": {
            "tag": RFC_9380_TAG,
            "message": RFC_9380.map(|(message, ..)| hex0x(rfc_message(message))),
            "point": points,
        },
    })
}

/// Hash over key, hashed digest, signature and proof of possession of each case, in EIP-2537 form.
fn group_hash(group: u32) -> [u8; 32] {
    let mut hash = Keccak256::new();
    for i in group * PER_GROUP..(group + 1) * PER_GROUP {
        let (key, digest) = (key(i), seed("digest", i));
        let public = key.sk_to_pk().serialize();
        // blst writes c1 before c0, EIP-2537 c0 before c1.
        for coordinate in [1, 0, 3, 2] {
            hash.update(padded(&public[coordinate * 48..(coordinate + 1) * 48]));
        }
        hash.update(padded(&hashed(&digest, SUITE).serialize()));
        hash.update(padded(&key.sign(&digest, SUITE, &[]).serialize()));
        hash.update(padded(
            &key.sign(&digest, POSSESSION_SUITE, &[]).serialize(),
        ));
    }
    hash.finalize().into()
}

fn verify(key: &SecretKey, digest: &[u8; 32], signature: &Signature) -> BLST_ERROR {
    signature.verify(true, digest, SUITE, &[], &key.sk_to_pk(), true)
}

/// Signing with the secret key 1 gives the hashed point itself.
fn hashed(message: &[u8], tag: &[u8]) -> Signature {
    let mut one = [0u8; 32];
    one[31] = 1;
    SecretKey::from_bytes(&one).unwrap().sign(message, tag, &[])
}

/// The two long messages are a name and a letter many times.
fn rfc_message(message: &str) -> Vec<u8> {
    let repeated = match message {
        "q128_" => "q".repeat(128),
        "a512_" => "a".repeat(512),
        _ => String::new(),
    };
    [message, &repeated].concat().into_bytes()
}

/// Below 2^254, which is below the group's order.
fn key(i: u32) -> SecretKey {
    let mut bytes = seed("key", i);
    bytes[0] &= 0x3f;
    SecretKey::from_bytes(&bytes).unwrap()
}

fn seed(label: &str, i: u32) -> [u8; 32] {
    Keccak256::new()
        .chain_update("newton bls agreement: ")
        .chain_update(label)
        .chain_update(i.to_be_bytes())
        .finalize()
        .into()
}

/// EIP-2537 pads each 48-byte coordinate to 64.
fn padded(raw: &[u8]) -> Vec<u8> {
    raw.chunks(48)
        .flat_map(|coordinate| [&[0u8; 16][..], coordinate].concat())
        .collect()
}

fn hex0x(bytes: impl AsRef<[u8]>) -> Value {
    json!(format!("0x{}", hex::encode(bytes)))
}
