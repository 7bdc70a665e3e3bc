//! Form: CBOR, COSE frame, fields and their limits.

use super::*;

#[test]
fn flipping_any_bit_is_refused() {
    let document = spec().sign();
    let payload_at = 1 + 1 + 4 + 1 + 3;
    let (mut parse, mut signature, mut certificate, mut other) = (0, 0, 0, 0);
    // Every bit of the frame, of the first bytes of the payload and of the end; one bit of every ninth byte between,
    // because a signature check costs milliseconds in a test build.
    for bit in 0..document.len() * 8 {
        let (byte, shift) = (bit / 8, bit % 8);
        let between = (48..document.len() - 8).contains(&byte);
        if between && (byte % 9 != 0 || shift != byte % 8) {
            continue;
        }
        let mut changed = document.clone();
        changed[byte] ^= 1 << shift;
        match verify(&changed).expect_err("a flipped bit passed") {
            VerifyError::Parse(_) => parse += 1,
            VerifyError::Signature => {
                assert!(byte >= payload_at, "the frame is not signed, byte {byte}");
                signature += 1;
            }
            VerifyError::Certificate { .. } | VerifyError::Root { .. } => certificate += 1,
            error => panic!("bit {bit}: {error:?}"),
        }
        other += 1;
    }
    assert!(
        parse > 50 && signature > 50 && certificate > 50,
        "{parse} {signature} {certificate} of {other}"
    );
}

#[test]
fn cutting_or_extending_at_any_byte_is_refused() {
    let document = spec().sign();
    for length in 0..document.len() {
        assert!(
            matches!(
                UnverifiedDocument::parse(&document[..length]),
                Err(ParseError::Cbor(CborError::Truncated { .. }))
            ),
            "cut at {length}"
        );
    }
    for byte in [0x00, 0x80, 0xff] {
        let extended = [&document[..], &[byte]].concat();
        assert_eq!(
            UnverifiedDocument::parse(&extended),
            Err(ParseError::Cbor(CborError::Trailing {
                at: document.len(),
                extra: 1
            }))
        );
    }
    let long = vec![0; MAX_DOCUMENT_BYTES + 1];
    assert_eq!(
        UnverifiedDocument::parse(&long),
        Err(ParseError::TooLong {
            limit: MAX_DOCUMENT_BYTES,
            got: MAX_DOCUMENT_BYTES + 1
        })
    );
}

#[test]
fn the_frame_is_exact() {
    let parse = |bytes: &[u8]| UnverifiedDocument::parse(bytes).unwrap_err();
    let document = spec().sign();
    let tail = &document[1..];

    assert_eq!(
        parse(&[&[0xd1], &document[..]].concat()),
        ParseError::Tag {
            expected: 18,
            got: 17
        }
    );
    assert!(matches!(
        parse(&[&[0xd2, 0xd2], &document[..]].concat()),
        ParseError::Cbor(CborError::Type { at: 1, .. })
    ));
    assert_eq!(
        parse(&[&[0xd8, 18], &document[..]].concat()),
        ParseError::Cbor(CborError::NotShortest { at: 0 })
    );
    assert_eq!(
        parse(&[&[0x83], tail].concat()),
        ParseError::CoseFields {
            expected: 4,
            got: 3
        }
    );
    assert_eq!(
        parse(&[&[0x85], tail].concat()),
        ParseError::CoseFields {
            expected: 4,
            got: 5
        }
    );
    assert_eq!(
        parse(&[&[0x9f], tail, &[0xff]].concat()),
        ParseError::Cbor(CborError::Indefinite { at: 0 })
    );
    assert_eq!(
        parse(&[&[0x98, 4], tail].concat()),
        ParseError::Cbor(CborError::NotShortest { at: 0 })
    );
    // An entry in the unprotected header.
    let mut entry = document.clone();
    entry.splice(6..7, [0xa1, 0x04, 0x41, 0x00]);
    assert_eq!(parse(&entry), ParseError::UnprotectedHeader { entries: 1 });
    let mut indefinite = document.clone();
    indefinite.splice(6..7, [0xbf, 0xff]);
    assert_eq!(
        parse(&indefinite),
        ParseError::Cbor(CborError::Indefinite { at: 6 })
    );
}

#[test]
fn only_es384_is_an_algorithm() {
    // ES256, ES512, EdDSA, none, a second entry, a longer encoding of the same.
    for protected in [
        &[0xa1u8, 0x01, 0x26][..],
        &[0xa1, 0x01, 0x38, 0x23],
        &[0xa1, 0x01, 0x27],
        &[0xa0],
        &[],
        &[0xa1, 0x01, 0x00],
    ] {
        assert_eq!(
            parse_error(|d| d.protected = protected.to_vec()),
            ParseError::ProtectedHeader {
                got: protected.to_vec()
            }
        );
    }
    let double = [0xa2, 0x01, 0x38, 0x22, 0x04, 0x40];
    assert!(matches!(
        parse_error(|d| d.protected = double.to_vec()),
        ParseError::ProtectedHeader { .. }
    ));
    let longer = [0xa1, 0x01, 0x39, 0x00, 0x22];
    assert!(matches!(
        parse_error(|d| d.protected = longer.to_vec()),
        ParseError::ProtectedHeader { .. }
    ));
}

#[test]
fn fields_are_known_present_and_single() {
    let spec = spec();
    let names = [
        "module_id",
        "digest",
        "timestamp",
        "pcrs",
        "certificate",
        "cabundle",
        "public_key",
        "user_data",
        "nonce",
    ];
    let entries = entries(&spec.payload());
    assert_eq!(
        entries.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(),
        names
    );
    let assemble = |entries: &[&(String, Vec<u8>)]| {
        let mut payload = vec![0xa0 | entries.len() as u8];
        entries.iter().for_each(|(_, bytes)| payload.extend(bytes));
        spec.sign_payload(&payload)
    };
    let all: Vec<_> = entries.iter().collect();
    assert_eq!(verify(&assemble(&all)), Ok(Signed::Signed));
    // Any order is fine: the bytes are what is signed.
    assert_eq!(
        verify(&assemble(&all.iter().rev().copied().collect::<Vec<_>>())),
        Ok(Signed::Signed)
    );

    for (index, name) in names.into_iter().enumerate() {
        let mut without = all.clone();
        without.remove(index);
        let document = assemble(&without);
        match name {
            // Optional: absent is absent.
            "public_key" => assert_eq!(verify(&document), Ok(Signed::Signed)),
            "user_data" => assert!(matches!(
                verify(&document),
                Err(VerifyError::UserData { got: None, .. })
            )),
            "nonce" => assert!(matches!(
                verify(&document),
                Err(VerifyError::Nonce { got: None, .. })
            )),
            _ => assert_eq!(
                verify(&document),
                Err(VerifyError::Parse(ParseError::Missing { name }))
            ),
        }
        let mut twice = all.clone();
        twice.push(all[index]);
        assert_eq!(
            verify(&assemble(&twice)),
            Err(VerifyError::Parse(ParseError::Duplicate { name }))
        );
    }

    let unknown = ("x".to_owned(), vec![0x61, b'x', 0x00]);
    let mut more = all.clone();
    more.push(&unknown);
    assert_eq!(
        verify(&assemble(&more)),
        Err(VerifyError::Parse(ParseError::UnknownField {
            name: "x".into()
        }))
    );
    let long = (
        "long".to_owned(),
        [&[0x78, 200][..], &[b'y'; 200], &[0x00]].concat(),
    );
    let mut more = all.clone();
    more.push(&long);
    assert_eq!(
        verify(&assemble(&more)),
        Err(VerifyError::Parse(ParseError::UnknownField {
            name: "y".repeat(64)
        }))
    );
    // Null where a value must be.
    for name in &names[..6] {
        let nulled: Vec<_> = entries
            .iter()
            .map(|(n, bytes)| {
                let key = bytes[..=n.len()].to_vec();
                (
                    n.clone(),
                    if n == name {
                        [&key[..], &[0xf6]].concat()
                    } else {
                        bytes.clone()
                    },
                )
            })
            .collect();
        let error = verify(&assemble(&nulled.iter().collect::<Vec<_>>())).unwrap_err();
        assert!(
            matches!(
                error,
                VerifyError::Parse(ParseError::Cbor(CborError::Type { .. }))
            ),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_count_that_promises_more_than_there_is() {
    let spec = DocumentSpec {
        indefinite: false,
        ..spec()
    };
    let mut payload = spec.payload();
    for first in [0xaa, 0xb7] {
        payload[0] = first;
        assert!(matches!(
            verify(&spec.sign_payload(&payload)),
            Err(VerifyError::Parse(ParseError::Cbor(
                CborError::Truncated { .. }
            )))
        ));
    }
    let huge = [
        &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..],
        &payload[1..],
    ]
    .concat();
    assert!(matches!(
        verify(&spec.sign_payload(&huge)),
        Err(VerifyError::Parse(ParseError::Cbor(
            CborError::Truncated { .. }
        )))
    ));
    payload[0] = 0xa8;
    assert!(matches!(
        verify(&spec.sign_payload(&payload)),
        Err(VerifyError::Parse(ParseError::Cbor(
            CborError::Trailing { .. }
        )))
    ));
}

#[test]
fn field_contents_are_in_limits() {
    assert_eq!(
        parse_error(|d| d.digest = "SHA256".into()),
        ParseError::Digest {
            got: "SHA256".into()
        }
    );
    assert_eq!(
        parse_error(|d| d.digest = "sha384".into()),
        ParseError::Digest {
            got: "sha384".into()
        }
    );
    assert_eq!(
        parse_error(|d| d.timestamp_ms = 0),
        ParseError::ZeroTimestamp
    );
    assert_eq!(
        parse_error(|d| d.module_id = String::new()),
        ParseError::Size {
            field: "module_id",
            least: 1,
            most: 256,
            got: 0
        }
    );
    assert_eq!(
        parse_error(|d| d.module_id = "m".repeat(257)),
        ParseError::Size {
            field: "module_id",
            least: 1,
            most: 256,
            got: 257
        }
    );
    assert_eq!(
        parse_error(|d| d.user_data = Some(vec![0; 513])),
        ParseError::Size {
            field: "user_data",
            least: 0,
            most: 512,
            got: 513
        }
    );
    assert_eq!(
        parse_error(|d| d.nonce = Some(vec![0; 513])),
        ParseError::Size {
            field: "nonce",
            least: 0,
            most: 512,
            got: 513
        }
    );
    assert_eq!(
        parse_error(|d| d.public_key = Some(vec![0; 1025])),
        ParseError::Size {
            field: "public_key",
            least: 1,
            most: 1024,
            got: 1025
        }
    );
    assert_eq!(
        parse_error(|d| d.public_key = Some(vec![])),
        ParseError::Size {
            field: "public_key",
            least: 1,
            most: 1024,
            got: 0
        }
    );
    assert_eq!(
        parse_error(|d| d.pcrs.clear()),
        ParseError::Size {
            field: "pcrs",
            least: 1,
            most: 32,
            got: 0
        }
    );
    assert_eq!(
        parse_error(|d| d.pcrs = (0..33).map(|i| (i, vec![1; 48])).collect()),
        ParseError::Size {
            field: "pcrs",
            least: 1,
            most: 32,
            got: 33
        }
    );
    for length in [0, 32, 47, 49, 64] {
        assert_eq!(
            parse_error(|d| d.pcrs[5].1 = vec![1; length]),
            ParseError::PcrLength {
                index: 5,
                expected: 48,
                got: length
            }
        );
    }
    for index in [32, 255, 256, u64::MAX] {
        assert_eq!(
            parse_error(|d| d.pcrs[15].0 = index),
            ParseError::PcrIndex {
                most: 31,
                got: index
            }
        );
    }
    assert_eq!(
        parse_error(|d| d.pcrs.swap(3, 4)),
        ParseError::PcrOrder {
            previous: 4,
            got: 3
        }
    );
    assert_eq!(
        parse_error(|d| d.pcrs[4].0 = 3),
        ParseError::PcrOrder {
            previous: 3,
            got: 3
        }
    );
    assert_eq!(
        parse_error(|d| d.chain.truncate(1)),
        ParseError::Size {
            field: "cabundle",
            least: 1,
            most: 8,
            got: 0
        }
    );
    assert_eq!(
        parse_error(|d| {
            let more = d.chain[1].clone();
            d.chain
                .splice(1..1, (0..MAX_CABUNDLE).map(|_| more.clone()));
        }),
        ParseError::Size {
            field: "cabundle",
            least: 1,
            most: 8,
            got: 11
        }
    );
    assert_eq!(
        parse_error(|d| d.chain[3].extensions.push(unknown(false, 1024))),
        ParseError::Size {
            field: "certificate",
            least: 1,
            most: 1024,
            got: certificate_length(3, 1024)
        }
    );
    assert_eq!(
        parse_error(|d| d.chain[1].extensions.push(unknown(false, 1024))),
        ParseError::Size {
            field: "cabundle[]",
            least: 1,
            most: 1024,
            got: certificate_length(1, 1024)
        }
    );
}

fn certificate_length(index: usize, extra: usize) -> usize {
    let mut certificate = spec().chain[index].clone();
    certificate.extensions.push(unknown(false, extra));
    certificate.to_der().len()
}
