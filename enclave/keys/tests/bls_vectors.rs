//! The vectors in `tests/vectors/bls.json`, which the contracts' tests read too.
//!
//! The file is made from fixed seeds by this test (`NEWTON_BLESS=1` writes it); without that, the test makes the content
//! again and compares, so neither side can drift.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;

use newton_keys::bls::{BlsError, BlsKey, Possession, PublicKey, Signature};
use serde_json::{Value, json};
use sha3::{Digest as _, Keccak256};

const CASES: u32 = 24;
const AGGREGATES: u32 = 8;
const MEMBERS: u32 = 4;
const POSSESSIONS: u32 = 8;

#[test]
fn the_vector_file_is_what_this_code_makes() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/bls.json");
    if std::env::var_os("NEWTON_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = serde_json::to_string_pretty(&vectors()).unwrap();
        std::fs::write(&path, format!("{text}\n")).unwrap();
    }
    // Compared as values: the order of JSON fields depends on features other crates of the workspace turn on.
    let stored: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(
        stored == vectors(),
        "tests/vectors/bls.json differs from what the code makes; NEWTON_BLESS=1 rewrites it"
    );
}

#[test]
fn the_vectors_hold() {
    let v = vectors();
    let list = |section: &str, field: &str| -> Vec<Vec<u8>> {
        let values = v[section][field].as_array().unwrap();
        values
            .iter()
            .map(|x| hex::decode(&x.as_str().unwrap()[2..]).unwrap())
            .collect()
    };
    let digest = |bytes: &[u8]| -> [u8; 32] { bytes.try_into().unwrap() };

    for i in 0..CASES as usize {
        let key = PublicKey::from_eip2537(&list("single", "publicKey")[i]).unwrap();
        let signature = Signature::from_eip2537(&list("single", "signature")[i]).unwrap();
        key.verify(&digest(&list("single", "digest")[i]), &signature)
            .unwrap();
    }
    for i in 0..AGGREGATES as usize {
        let keys: Vec<_> = list("aggregate", "publicKeys")[i * 4..(i + 1) * 4]
            .iter()
            .map(|k| PublicKey::from_eip2537(k).unwrap())
            .collect();
        let digest = digest(&list("aggregate", "digest")[i]);
        let all = PublicKey::aggregate(&keys).unwrap();
        assert_eq!(
            all.to_eip2537().to_vec(),
            list("aggregate", "aggregateKey")[i]
        );
        all.verify(
            &digest,
            &Signature::from_eip2537(&list("aggregate", "signature")[i]).unwrap(),
        )
        .unwrap();
        let absent = usize::try_from(v["aggregate"]["absentIndex"][i].as_u64().unwrap()).unwrap();
        let signers = all.without([&keys[absent]]).unwrap();
        assert_eq!(
            signers.to_eip2537().to_vec(),
            list("aggregate", "signersKey")[i]
        );
        let partial =
            Signature::from_eip2537(&list("aggregate", "signatureWithoutAbsent")[i]).unwrap();
        signers.verify(&digest, &partial).unwrap();
        assert_eq!(
            all.verify(&digest, &partial),
            Err(BlsError::SignatureInvalid)
        );
    }
    for (i, key) in list("refused", "publicKey").iter().enumerate() {
        let error = PublicKey::from_eip2537(key).unwrap_err();
        assert_eq!(v["refused"]["publicKeyReason"][i], reason(&error));
    }
    for (i, signature) in list("refused", "signature").iter().enumerate() {
        let error = Signature::from_eip2537(signature).unwrap_err();
        assert_eq!(v["refused"]["signatureReason"][i], reason(&error));
    }
    for i in 0..list("mismatch", "publicKey").len() {
        let key = PublicKey::from_eip2537(&list("mismatch", "publicKey")[i]).unwrap();
        let signature = Signature::from_eip2537(&list("mismatch", "signature")[i]).unwrap();
        let digest = digest(&list("mismatch", "digest")[i]);
        assert_eq!(
            key.verify(&digest, &signature),
            Err(BlsError::SignatureInvalid)
        );
    }
}

fn vectors() -> Value {
    json!({
        "suite": "BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_",
        "possessionSuite": "BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_",
        "single": single(),
        "aggregate": aggregate(),
        "possession": possession(),
        "mismatch": mismatch(),
        "refused": refused(),
    })
}

fn single() -> Value {
    let cases: Vec<_> = (0..CASES)
        .map(|i| (key("single", i), seed("single digest", i)))
        .collect();
    json!({
        "publicKey": cases.iter().map(|(k, _)| hex0x(k.public_key().to_eip2537())).collect::<Vec<_>>(),
        "publicKeyCompressed": cases.iter().map(|(k, _)| hex0x(k.public_key().to_compressed())).collect::<Vec<_>>(),
        "publicKeyHash": cases.iter().map(|(k, _)| hex0x(k.public_key().hash())).collect::<Vec<_>>(),
        "digest": cases.iter().map(|(_, d)| hex0x(d)).collect::<Vec<_>>(),
        // Signing the digest with the secret key 1 gives the hashed point itself.
        "hashedToG1": cases.iter().map(|(_, d)| hex0x(hashed(d))).collect::<Vec<_>>(),
        "signature": cases.iter().map(|(k, d)| hex0x(k.sign(d).to_eip2537())).collect::<Vec<_>>(),
        "signatureCompressed": cases.iter().map(|(k, d)| hex0x(k.sign(d).to_compressed())).collect::<Vec<_>>(),
    })
}

fn aggregate() -> Value {
    let mut out = json!({
        "members": MEMBERS, "publicKeys": [], "digest": [], "signatures": [], "aggregateKey": [], "signature": [],
        "absentIndex": [], "signersKey": [], "signatureWithoutAbsent": [],
    });
    let mut push = |field: &str, value: Value| out[field].as_array_mut().unwrap().push(value);
    for i in 0..AGGREGATES {
        let digest = seed("aggregate digest", i);
        let keys: Vec<_> = (0..MEMBERS)
            .map(|m| key("aggregate", i * MEMBERS + m))
            .collect();
        let publics: Vec<_> = keys.iter().map(BlsKey::public_key).collect();
        let signatures: Vec<_> = keys.iter().map(|k| k.sign(&digest)).collect();
        let absent = (i % MEMBERS) as usize;
        let present = signatures
            .iter()
            .enumerate()
            .filter(|(m, _)| *m != absent)
            .map(|(_, s)| s);
        let all = PublicKey::aggregate(&publics).unwrap();

        publics
            .iter()
            .for_each(|k| push("publicKeys", hex0x(k.to_eip2537())));
        signatures
            .iter()
            .for_each(|s| push("signatures", hex0x(s.to_eip2537())));
        push("digest", hex0x(digest));
        push("aggregateKey", hex0x(all.to_eip2537()));
        push(
            "signature",
            hex0x(Signature::aggregate(&signatures).unwrap().to_eip2537()),
        );
        push("absentIndex", json!(absent));
        push(
            "signersKey",
            hex0x(all.without([&publics[absent]]).unwrap().to_eip2537()),
        );
        push(
            "signatureWithoutAbsent",
            hex0x(Signature::aggregate(present).unwrap().to_eip2537()),
        );
    }
    out
}

fn possession() -> Value {
    let chains = [1, 31_337, 11_155_111, u64::MAX];
    let cases: Vec<_> = (0..POSSESSIONS)
        .map(|i| {
            let statement = Possession {
                owner: seed("possession owner", i)[12..].try_into().unwrap(),
                chain_id: chains[i as usize % chains.len()],
                registry: seed("possession registry", i)[12..].try_into().unwrap(),
            };
            (key("possession", i), statement)
        })
        .collect();
    json!({
        "owner": cases.iter().map(|(_, s)| hex0x(s.owner)).collect::<Vec<_>>(),
        // As strings: JSON readers elsewhere lose precision above 2^53.
        "chainId": cases.iter().map(|(_, s)| s.chain_id.to_string()).collect::<Vec<_>>(),
        "registry": cases.iter().map(|(_, s)| hex0x(s.registry)).collect::<Vec<_>>(),
        "publicKey": cases.iter().map(|(k, _)| hex0x(k.public_key().to_eip2537())).collect::<Vec<_>>(),
        "message": cases.iter().map(|(k, s)| hex0x(s.message(&k.public_key()))).collect::<Vec<_>>(),
        "proof": cases.iter().map(|(k, s)| hex0x(k.prove_possession(s).to_eip2537())).collect::<Vec<_>>(),
    })
}

/// Well-formed values that must not verify.
fn mismatch() -> Value {
    let (a, b) = (key("mismatch", 0), key("mismatch", 1));
    let (d, e) = (seed("mismatch digest", 0), seed("mismatch digest", 1));
    let mut negated = a.sign(&d).to_compressed();
    negated[0] ^= 0x20;
    let negated = Signature::from_compressed(&negated).unwrap();
    let statement = Possession {
        owner: [1; 20],
        chain_id: 1,
        registry: [2; 20],
    };
    let pop_message = statement.message(&a.public_key());
    let cases = [
        ("other key", b.public_key(), d, a.sign(&d)),
        ("other digest", a.public_key(), e, a.sign(&d)),
        ("negated signature", a.public_key(), d, negated),
        (
            "proof of possession used as a signature",
            a.public_key(),
            pop_message,
            a.prove_possession(&statement),
        ),
        (
            "one of two signatures missing",
            PublicKey::aggregate([&a.public_key(), &b.public_key()]).unwrap(),
            d,
            a.sign(&d),
        ),
    ];
    json!({
        "case": cases.iter().map(|(name, ..)| json!(name)).collect::<Vec<_>>(),
        "publicKey": cases.iter().map(|(_, k, ..)| hex0x(k.to_eip2537())).collect::<Vec<_>>(),
        "digest": cases.iter().map(|(_, _, d, _)| hex0x(d)).collect::<Vec<_>>(),
        "signature": cases.iter().map(|(.., s)| hex0x(s.to_eip2537())).collect::<Vec<_>>(),
    })
}

/// EIP-2537 encodings that must be refused, with the reason.
fn refused() -> Value {
    let public = key("refused", 0).public_key();
    let signature = key("refused", 0).sign(&seed("refused digest", 0));

    let mut keys = vec![vec![0u8; 256]];
    keys.extend(outside_g2().take(4));
    let mut signatures = vec![vec![0u8; 128]];
    signatures.extend(outside_g1().take(4));

    let mut off_curve = public.to_eip2537();
    off_curve[255] ^= 1;
    keys.push(off_curve.to_vec());
    let mut off_curve = signature.to_eip2537();
    off_curve[127] ^= 1;
    signatures.push(off_curve.to_vec());

    let mut padded = public.to_eip2537();
    padded[64] = 1;
    keys.push(padded.to_vec());
    let mut padded = signature.to_eip2537();
    padded[15] = 1;
    signatures.push(padded.to_vec());

    // The same point with its first coordinate plus p: fits 48 bytes, is not canonical.
    let mut raised = public.to_eip2537();
    add_modulus(&mut raised[16..64]);
    keys.push(raised.to_vec());
    let mut raised = signature.to_eip2537();
    add_modulus(&mut raised[16..64]);
    signatures.push(raised.to_vec());

    keys.push(public.to_eip2537()[..255].to_vec());
    signatures.push(signature.to_eip2537()[..127].to_vec());

    let key_reasons: Vec<_> = keys
        .iter()
        .map(|k| reason(&PublicKey::from_eip2537(k).unwrap_err()))
        .collect();
    let signature_reasons: Vec<_> = signatures
        .iter()
        .map(|s| reason(&Signature::from_eip2537(s).unwrap_err()))
        .collect();
    json!({
        "publicKey": keys.iter().map(hex0x).collect::<Vec<_>>(),
        "publicKeyReason": key_reasons,
        "signature": signatures.iter().map(hex0x).collect::<Vec<_>>(),
        "signatureReason": signature_reasons,
    })
}

fn reason(error: &BlsError) -> &'static str {
    match error {
        BlsError::Infinity { .. } => "infinity",
        BlsError::NotInSubgroup { .. } => "not in subgroup",
        BlsError::NotOnCurve { .. } => "not on curve",
        BlsError::Padding { .. } => "padding",
        BlsError::NotCanonical { .. } => "not canonical",
        BlsError::Length { .. } => "length",
        other => panic!("unexpected reason {other:?}"),
    }
}

/// On the curve, outside the subgroup: blst decompresses without checking the group.
fn outside_g1() -> impl Iterator<Item = Vec<u8>> {
    (1u8..=255).filter_map(|x| {
        let mut bytes = [0u8; 48];
        (bytes[0], bytes[47]) = (0x80, x);
        let point = blst::min_sig::Signature::uncompress(&bytes)
            .ok()
            .filter(|p| !p.subgroup_check())?;
        Some(padded(&point.serialize(), &[0, 1]))
    })
}

fn outside_g2() -> impl Iterator<Item = Vec<u8>> {
    (1u8..=255).filter_map(|x| {
        let mut bytes = [0u8; 96];
        (bytes[0], bytes[95]) = (0x80, x);
        let point = blst::min_sig::PublicKey::uncompress(&bytes)
            .ok()
            .filter(|p| p.validate().is_err())?;
        Some(padded(&point.serialize(), &[1, 0, 3, 2]))
    })
}

fn padded(raw: &[u8], order: &[usize]) -> Vec<u8> {
    order
        .iter()
        .flat_map(|i| [&[0u8; 16][..], &raw[i * 48..(i + 1) * 48]].concat())
        .collect()
}

fn add_modulus(field: &mut [u8]) {
    let modulus = hex::decode(
        "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab",
    )
    .unwrap();
    let mut carry = 0u16;
    for (byte, add) in field.iter_mut().zip(&modulus).rev() {
        let sum = u16::from(*byte) + u16::from(*add) + carry;
        *byte = (sum & 0xff) as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
}

fn hashed(digest: &[u8; 32]) -> Vec<u8> {
    let mut one = [0u8; 32];
    one[31] = 1;
    let point = blst::min_sig::SecretKey::from_bytes(&one).unwrap().sign(
        digest,
        newton_keys::bls::DST_SIGNATURE,
        &[],
    );
    padded(&point.serialize(), &[0, 1])
}

fn key(label: &str, i: u32) -> BlsKey {
    BlsKey::generate(&seed(&format!("{label} key"), i)).unwrap()
}

fn seed(label: &str, i: u32) -> [u8; 32] {
    Keccak256::new()
        .chain_update("newton bls vectors: ")
        .chain_update(label)
        .chain_update(i.to_be_bytes())
        .finalize()
        .into()
}

fn hex0x(bytes: impl AsRef<[u8]>) -> Value {
    json!(format!("0x{}", hex::encode(bytes)))
}
