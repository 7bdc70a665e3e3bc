//! The vectors in `tests/vectors/certificates.json`: whole certificates, aggregated here and held against the operator
//! registry by the contracts' tests (`NEWTON_BLESS=1` writes the file).
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;

use blst::min_sig::SecretKey;
use newton_keys::bls::{PublicKey, Signature};
use serde_json::{Value, json};
use sha3::{Digest as _, Keccak256};

const SUITE: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";
/// A set of five with these weights, 500 in all.
const WEIGHTS: [u64; 5] = [100, 100, 100, 150, 50];

/// Name, members that do not sign, and the contract's error; empty if it takes the certificate.
const CASES: [(&str, &[usize], &str); 11] = [
    ("all sign", &[], ""),
    ("one absent", &[2], ""),
    ("two absent, still a quorum", &[1, 4], ""),
    ("two absent, no quorum", &[0, 3], "QuorumNotReached"),
    ("signature of others", &[1], "InvalidSignature"),
    ("signature over another digest", &[1], "InvalidSignature"),
    (
        "absent keys in another order",
        &[1, 4],
        "NonSignerKeyMismatch",
    ),
    ("an absent key too few", &[1, 4], "NonSignerKeysLength"),
    ("an absent key too many", &[1], "NonSignerKeysLength"),
    ("aggregate without the absent", &[1], "AggregateKeyMismatch"),
    ("an index that nobody has", &[1], "NonSignerNotMember"),
];

#[test]
fn the_vector_file_is_what_this_code_makes() {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/certificates.json");
    if std::env::var_os("NEWTON_BLESS").is_some() {
        let text = serde_json::to_string_pretty(&vectors()).unwrap();
        std::fs::write(&path, format!("{text}\n")).unwrap();
    }
    let stored: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(
        stored == vectors(),
        "tests/vectors/certificates.json differs from what the code makes; NEWTON_BLESS=1 rewrites it"
    );
}

/// What the contract takes verifies here, and what it refuses for its signature does not.
#[test]
fn the_vectors_hold() {
    let v = vectors();
    let bytes = |field: &str, i: usize| hex::decode(&v[field][i].as_str().unwrap()[2..]).unwrap();
    for (i, (name, absent, error)) in CASES.into_iter().enumerate() {
        if !matches!(error, "" | "InvalidSignature") {
            continue;
        }
        let all = PublicKey::from_eip2537(&bytes("aggregateKey", i)).unwrap();
        let absent: Vec<_> = absent.iter().map(|m| public(*m)).collect();
        let signers = all.without(&absent).unwrap();
        let digest: [u8; 32] = bytes("digest", i).try_into().unwrap();
        let signature = Signature::from_eip2537(&bytes("signature", i)).unwrap();
        let taken = signers.verify(&digest, &signature).is_ok();
        assert_eq!(taken, error.is_empty(), "{name}");
    }
}

fn vectors() -> Value {
    let members: Vec<_> = (0..WEIGHTS.len()).map(public).collect();
    let aggregate = PublicKey::aggregate(&members).unwrap();
    let mut out = json!({
        "secretKey": (0..WEIGHTS.len()).map(|m| hex0x(scalar(m))).collect::<Vec<_>>(),
        "publicKey": members.iter().map(|k| hex0x(k.to_eip2537())).collect::<Vec<_>>(),
        "weight": WEIGHTS,
        "case": [], "error": [], "digest": [], "signature": [], "nonSignerBitmap": [], "nonSignerKeys": [],
        "aggregateKey": [],
    });
    let mut push = |field: &str, value: Value| out[field].as_array_mut().unwrap().push(value);
    for (name, absent, error) in CASES {
        let digest = seed("certificate digest", name);
        let signers: Vec<_> = (0..WEIGHTS.len()).filter(|m| !absent.contains(m)).collect();
        let sign = |members: &[usize], digest: &[u8; 32]| {
            let signatures: Vec<_> = members.iter().map(|m| signature(*m, digest)).collect();
            Signature::aggregate(&signatures).unwrap().to_eip2537()
        };
        let mut bitmap: u64 = absent.iter().map(|m| 1 << m).sum();
        let mut keys: Vec<_> = absent.iter().map(|m| public(*m).to_eip2537()).collect();
        let mut signed = sign(&signers, &digest);
        let mut aggregate_key = aggregate.to_eip2537();
        match name {
            "signature of others" => signed = sign(&signers[1..], &digest),
            "signature over another digest" => signed = sign(&signers, &seed("other", name)),
            "absent keys in another order" => keys.reverse(),
            "an absent key too few" => drop(keys.pop()),
            "an absent key too many" => keys.push(public(2).to_eip2537()),
            "aggregate without the absent" => {
                aggregate_key = aggregate.without([&public(1)]).unwrap().to_eip2537();
            }
            "an index that nobody has" => bitmap = 1 << 7,
            _ => {}
        }
        push("case", name.into());
        push("error", error.into());
        push("digest", hex0x(digest).into());
        push("signature", hex0x(signed).into());
        push("nonSignerBitmap", bitmap.into());
        push("nonSignerKeys", hex0x(keys.concat()).into());
        push("aggregateKey", hex0x(aggregate_key).into());
    }
    out
}

fn signature(member: usize, digest: &[u8; 32]) -> Signature {
    let signature = secret(member).sign(digest, SUITE, &[]);
    Signature::from_compressed(&signature.compress()).unwrap()
}

fn public(member: usize) -> PublicKey {
    PublicKey::from_compressed(&secret(member).sk_to_pk().compress()).unwrap()
}

fn secret(member: usize) -> SecretKey {
    SecretKey::from_bytes(&scalar(member)).unwrap()
}

/// Below 2^254, which is below the group's order.
fn scalar(member: usize) -> [u8; 32] {
    let mut bytes = seed("certificate member", &member.to_string());
    bytes[0] &= 0x3f;
    bytes
}

fn seed(label: &str, of: &str) -> [u8; 32] {
    Keccak256::digest(format!("newton vectors: {label} {of}")).into()
}

fn hex0x(bytes: impl AsRef<[u8]>) -> String {
    format!("0x{}", hex::encode(bytes))
}
