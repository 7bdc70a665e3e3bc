#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// RFC 9380 appendix J.9.1, suite BLS12381G1_XMD:SHA-256_SSWU_RO_: (message, x, y).
const HASH_TO_G1: [(&str, &str, &str); 3] = [
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
];

/// The generator of G2 (EIP-2537, "Curve parameters"): x.c0, x.c1, y.c0, y.c1.
const G2_GENERATOR: [&str; 4] = [
    "024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8",
    "13e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e",
    "0ce5d527727d6e118cc9cdc6da2e351aadfd9baa8cbdd3a76d429a695160d12c923ac9cc3baca289e193548608b82801",
    "0606c4a02ea734cc32acd2b02bc28b99cb3e287e85a763af267492ab572e99ab3f370d275cec1da1aaa9075ff05f79be",
];

fn key(n: u8) -> BlsKey {
    BlsKey::generate(&[n; 32]).unwrap()
}

fn one() -> min_sig::SecretKey {
    let mut one = [0u8; 32];
    one[31] = 1;
    min_sig::SecretKey::from_bytes(&one).unwrap()
}

fn slot(field: &str) -> Vec<u8> {
    let mut bytes = vec![0u8; 16];
    bytes.extend(hex::decode(field).unwrap());
    bytes
}

#[test]
fn hash_to_curve_is_rfc_9380() {
    // The secret key 1 signs with the hashed point itself.
    for (message, x, y) in HASH_TO_G1 {
        let dst = b"QUUX-V01-CS02-with-BLS12381G1_XMD:SHA-256_SSWU_RO_";
        let point = Signature(one().sign(message.as_bytes(), dst, &[]));
        assert_eq!(point.to_eip2537().to_vec(), [slot(x), slot(y)].concat());
    }
}

#[test]
fn key_one_is_the_generator_in_eip_2537_order() {
    let key = BlsKey::from_secret(one());
    let expected = G2_GENERATOR.map(slot).concat();
    assert_eq!(key.public_key().to_eip2537().to_vec(), expected);
    assert_eq!(
        PublicKey::from_eip2537(&expected).unwrap(),
        key.public_key()
    );
}

#[test]
fn key_generation_is_eip_2333_hkdf_mod_r() {
    // EIP-2333 test case 0: the master key is KeyGen(seed) without key info.
    let seed = hex::decode(
        "c55257c360c07c72029aebc1b53c05ed0362ada38ead3e3e9efa3708e53495531f09a6987599d18264c1e1c92f2cf141630c7a3c4ab7c81b2f001698e7463b04",
    )
    .unwrap();
    let secret = min_sig::SecretKey::key_gen(&seed, &[]).unwrap();
    // 6083874454709270928345386274498605044986640685124978867557563392430687146096
    let expected = "0d7359d57963ab8fbbde1852dcf553fedbc31f464d80ee7d40ae683122b45070";
    assert_eq!(hex::encode(secret.to_bytes()), expected);
    // The key info is in use: our keys differ from bare ones.
    assert_ne!(
        BlsKey::generate(&seed).unwrap().secret.to_bytes(),
        secret.to_bytes()
    );
}

#[test]
fn key_generation_needs_32_bytes() {
    for len in 0..32 {
        assert_eq!(
            BlsKey::generate(&vec![7; len]).err().unwrap(),
            BlsError::KeyMaterialTooShort {
                expected: 32,
                got: len
            }
        );
    }
    BlsKey::generate(&[7; 32]).unwrap();
}

#[test]
fn sign_and_verify() {
    let (a, b) = (key(1), key(2));
    let signature = a.sign(&[9; 32]);
    a.public_key().verify(&[9; 32], &signature).unwrap();
    assert_eq!(
        a.public_key().verify(&[8; 32], &signature),
        Err(BlsError::SignatureInvalid)
    );
    assert_eq!(
        b.public_key().verify(&[9; 32], &signature),
        Err(BlsError::SignatureInvalid)
    );
    assert_eq!(signature, a.sign(&[9; 32]), "signing is deterministic");
}

#[test]
fn possession_binds_everything_and_is_no_signature() {
    let a = key(1);
    let statement = Possession {
        owner: [1; 20],
        chain_id: 31337,
        registry: [2; 20],
    };
    let proof = a.prove_possession(&statement);
    a.public_key()
        .verify_possession(&statement, &proof)
        .unwrap();
    let others = [
        Possession {
            owner: [3; 20],
            ..statement
        },
        Possession {
            chain_id: 1,
            ..statement
        },
        Possession {
            registry: [3; 20],
            ..statement
        },
    ];
    for other in others {
        assert_eq!(
            a.public_key().verify_possession(&other, &proof),
            Err(BlsError::PossessionInvalid)
        );
    }
    assert_eq!(
        key(2).public_key().verify_possession(&statement, &proof),
        Err(BlsError::PossessionInvalid)
    );
    // Domains are apart: a proof is not a signature over the same 32 bytes, nor the other way round.
    let message = statement.message(&a.public_key());
    assert_eq!(
        a.public_key().verify(&message, &proof),
        Err(BlsError::SignatureInvalid)
    );
    assert_eq!(
        a.public_key()
            .verify_possession(&statement, &a.sign(&message)),
        Err(BlsError::PossessionInvalid)
    );
}

#[test]
fn possession_message_is_abi_encode() {
    let a = key(1).public_key();
    let statement = Possession {
        owner: [0x11; 20],
        chain_id: 0x0102_0304_0506_0708,
        registry: [0x22; 20],
    };
    let mut expected = vec![0; 12];
    expected.extend([0x11; 20]);
    expected.extend([0; 24]);
    expected.extend([1, 2, 3, 4, 5, 6, 7, 8]);
    expected.extend([0; 12]);
    expected.extend([0x22; 20]);
    expected.extend(Keccak256::digest(a.to_eip2537()));
    assert_eq!(
        statement.message(&a).to_vec(),
        Keccak256::digest(&expected).to_vec()
    );
}

#[test]
fn aggregates_verify_and_shrink() {
    let keys: Vec<_> = (1..=4).map(key).collect();
    let publics: Vec<_> = keys.iter().map(BlsKey::public_key).collect();
    let digest = [5; 32];
    let all = PublicKey::aggregate(&publics).unwrap();
    let signatures: Vec<_> = keys.iter().map(|k| k.sign(&digest)).collect();
    all.verify(&digest, &Signature::aggregate(&signatures).unwrap())
        .unwrap();

    // Member 2 is missing: the full key must not accept, the reduced one must.
    let partial = Signature::aggregate(
        signatures
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != 2)
            .map(|(_, s)| s),
    )
    .unwrap();
    assert_eq!(
        all.verify(&digest, &partial),
        Err(BlsError::SignatureInvalid)
    );
    let reduced = all.without([&publics[2]]).unwrap();
    reduced.verify(&digest, &partial).unwrap();
    assert_eq!(
        reduced,
        PublicKey::aggregate([&publics[0], &publics[1], &publics[3]]).unwrap()
    );
    assert_eq!(all.without([]).unwrap(), all);

    assert_eq!(
        all.without(&publics),
        Err(BlsError::Infinity {
            what: Point::PublicKey
        })
    );
    assert_eq!(
        PublicKey::aggregate([]),
        Err(BlsError::Empty {
            what: Point::PublicKey
        })
    );
    assert_eq!(
        Signature::aggregate([]),
        Err(BlsError::Empty {
            what: Point::Signature
        })
    );
}

#[test]
fn signatures_that_cancel_out_are_refused() {
    let signature = key(1).sign(&[1; 32]);
    let mut negated = signature.to_compressed();
    negated[0] ^= 0x20;
    let negated = Signature::from_compressed(&negated).unwrap();
    assert_eq!(
        Signature::aggregate([&signature, &negated]),
        Err(BlsError::Infinity {
            what: Point::Signature
        })
    );
}

#[test]
fn doubling_works() {
    // The general addition formula fails on equal points in naive code.
    let a = key(1);
    let twice_key = PublicKey::aggregate([&a.public_key(), &a.public_key()]).unwrap();
    let s = a.sign(&[1; 32]);
    twice_key
        .verify(&[1; 32], &Signature::aggregate([&s, &s]).unwrap())
        .unwrap();
}

#[test]
fn infinity_is_refused_in_every_encoding() {
    let key = BlsError::Infinity {
        what: Point::PublicKey,
    };
    let signature = BlsError::Infinity {
        what: Point::Signature,
    };
    let with_first = |len: usize, first: u8| {
        let mut bytes = vec![0u8; len];
        bytes[0] = first;
        bytes
    };
    assert_eq!(
        PublicKey::from_compressed(&with_first(96, 0xc0)),
        Err(key.clone())
    );
    assert_eq!(
        PublicKey::from_uncompressed(&with_first(192, 0x40)),
        Err(key.clone())
    );
    assert_eq!(
        PublicKey::from_uncompressed(&with_first(192, 0)),
        Err(key.clone())
    );
    assert_eq!(PublicKey::from_eip2537(&[0; 256]), Err(key));
    assert_eq!(
        Signature::from_compressed(&with_first(48, 0xc0)),
        Err(signature.clone())
    );
    assert_eq!(
        Signature::from_uncompressed(&with_first(96, 0x40)),
        Err(signature.clone())
    );
    assert_eq!(Signature::from_eip2537(&[0; 128]), Err(signature));
}

#[test]
fn malformed_encodings_are_refused_by_name() {
    let public = key(1).public_key();
    let signature = key(1).sign(&[1; 32]);

    for len in [0, 1, 95, 97, 192, 256] {
        assert_eq!(
            PublicKey::from_compressed(&vec![0x80; len]),
            Err(BlsError::Length {
                what: Point::PublicKey,
                expected: 96,
                got: len
            })
        );
    }
    assert_eq!(
        Signature::from_eip2537(&[0; 127]),
        Err(BlsError::Length {
            what: Point::Signature,
            expected: 128,
            got: 127
        })
    );
    let mut bytes = public.to_compressed();
    bytes[0] &= 0x7f;
    assert_eq!(
        PublicKey::from_compressed(&bytes),
        Err(BlsError::Flags {
            what: Point::PublicKey,
            got: bytes[0]
        })
    );
    // Infinity flag on a finite point.
    let mut bytes = signature.to_compressed();
    bytes[0] |= 0x40;
    assert_eq!(
        Signature::from_compressed(&bytes),
        Err(BlsError::Flags {
            what: Point::Signature,
            got: bytes[0]
        })
    );
    let mut bytes = signature.to_uncompressed();
    bytes[0] |= 0x20;
    assert_eq!(
        Signature::from_uncompressed(&bytes),
        Err(BlsError::Flags {
            what: Point::Signature,
            got: bytes[0]
        })
    );
    for coordinate in 0..4 {
        for offset in 0..16 {
            let mut bytes = public.to_eip2537();
            bytes[coordinate * 64 + offset] = 1;
            assert_eq!(
                PublicKey::from_eip2537(&bytes),
                Err(BlsError::Padding {
                    what: Point::PublicKey,
                    coordinate
                })
            );
        }
        let mut bytes = public.to_eip2537();
        bytes[coordinate * 64 + 16..(coordinate + 1) * 64].fill(0xff);
        assert_eq!(
            PublicKey::from_eip2537(&bytes),
            Err(BlsError::NotCanonical {
                what: Point::PublicKey
            })
        );
    }
    // Any other y is off the curve.
    let mut bytes = signature.to_eip2537();
    bytes[127] ^= 1;
    assert_eq!(
        Signature::from_eip2537(&bytes),
        Err(BlsError::NotOnCurve {
            what: Point::Signature
        })
    );
    let mut bytes = public.to_eip2537();
    bytes[255] ^= 1;
    assert_eq!(
        PublicKey::from_eip2537(&bytes),
        Err(BlsError::NotOnCurve {
            what: Point::PublicKey
        })
    );
}

#[test]
fn points_outside_the_subgroup_are_refused_in_every_encoding() {
    let (mut keys, mut signatures) = (0, 0);
    for x in 1u8..=40 {
        let mut bytes = [0u8; 96];
        (bytes[0], bytes[95]) = (0x80, x);
        if let Ok(point) = min_sig::PublicKey::uncompress(&bytes) {
            let want = Err(BlsError::NotInSubgroup {
                what: Point::PublicKey,
            });
            assert_eq!(PublicKey::from_compressed(&bytes), want);
            assert_eq!(PublicKey::from_uncompressed(&point.serialize()), want);
            assert_eq!(
                PublicKey::from_eip2537(&PublicKey(point).to_eip2537()),
                want
            );
            keys += 1;
        }
        let mut bytes = [0u8; 48];
        (bytes[0], bytes[47]) = (0x80, x);
        if let Ok(point) = min_sig::Signature::uncompress(&bytes) {
            let want = Err(BlsError::NotInSubgroup {
                what: Point::Signature,
            });
            assert_eq!(Signature::from_compressed(&bytes), want);
            assert_eq!(Signature::from_uncompressed(&point.serialize()), want);
            assert_eq!(
                Signature::from_eip2537(&Signature(point).to_eip2537()),
                want
            );
            signatures += 1;
        }
    }
    // About half of all x are on the curve, and hardly any of those in the subgroup.
    assert!(
        keys > 5 && signatures > 5,
        "{keys} keys, {signatures} signatures tried"
    );
}

#[test]
fn debug_shows_public_values_only() {
    let public = key(1).public_key();
    assert_eq!(
        format!("{public:?}"),
        format!("PublicKey({})", hex::encode(public.to_compressed()))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn encodings_round_trip(ikm: [u8; 32], digest: [u8; 32]) {
        let key = BlsKey::generate(&ikm).unwrap();
        let public = key.public_key();
        prop_assert_eq!(PublicKey::from_compressed(&public.to_compressed()).unwrap(), public);
        prop_assert_eq!(PublicKey::from_uncompressed(&public.to_uncompressed()).unwrap(), public);
        prop_assert_eq!(PublicKey::from_eip2537(&public.to_eip2537()).unwrap(), public);
        let signature = key.sign(&digest);
        prop_assert_eq!(Signature::from_compressed(&signature.to_compressed()).unwrap(), signature);
        prop_assert_eq!(Signature::from_uncompressed(&signature.to_uncompressed()).unwrap(), signature);
        prop_assert_eq!(Signature::from_eip2537(&signature.to_eip2537()).unwrap(), signature);
    }

    #[test]
    fn no_bytes_panic_a_parser(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = PublicKey::from_compressed(&bytes);
        let _ = PublicKey::from_uncompressed(&bytes);
        let _ = PublicKey::from_eip2537(&bytes);
        let _ = Signature::from_compressed(&bytes);
        let _ = Signature::from_uncompressed(&bytes);
        let _ = Signature::from_eip2537(&bytes);
    }
}
