//! Valid documents pass; every mutation is refused for its own reason.

#![allow(clippy::unwrap_used, missing_docs)]

use newton_attestation::document::{
    MAX_CABUNDLE, MAX_DOCUMENT_BYTES, ParseError, UnverifiedDocument,
};
use newton_attestation::nsm::mock::{
    CertificateSpec, DocumentSpec, ExtensionSpec, KeyPair, MockNsm, Pki, emulated_document,
};
use newton_attestation::nsm::{AttestationRequest, Nsm, NsmError, Refusal};
use newton_attestation::verify::{
    Expect, MAX_CLOCK_SKEW_MS, PcrPolicy, Signed, Unsigned, Verifier, VerifyError,
};
use newton_attestation::{
    CborError, CertificateProblem, PcrValue, Position, TrustedRoot, config_hash, pcr_hash,
};

/// 2026-11-20 14:13:20 UTC.
const NOW_MS: u64 = 1_795_184_000_123;
const NOW: u64 = NOW_MS / 1000;
const DAY: u64 = 86_400;
const NONCE: &[u8] = b"a nonce of the verifier's choosing";
const USER_DATA: &[u8] = &[7; 48];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];

fn pcr(n: u8) -> PcrValue {
    PcrValue([n; 48])
}

fn pki() -> Pki {
    Pki::from_seed(b"newton attestation tests")
}

fn nsm() -> MockNsm {
    MockNsm::new(
        pki(),
        "i-0123456789abcdef0-enc0123456789abcdef",
        [pcr(10), pcr(11), pcr(12)],
    )
    .at(NOW_MS)
}

fn request() -> AttestationRequest<'static> {
    AttestationRequest {
        user_data: Some(USER_DATA),
        nonce: Some(NONCE),
        public_key: None,
    }
}

fn spec() -> DocumentSpec {
    nsm().document(&request())
}

fn verifier() -> Verifier {
    Verifier {
        root: pki().root(),
        policy: PcrPolicy::image(pcr(10), pcr(11), pcr(12)),
        max_age_ms: Some(300_000),
        unsigned: Unsigned::Refuse,
    }
}

fn verify(document: &[u8]) -> Result<Signed, VerifyError> {
    verifier()
        .verify(
            document,
            NOW_MS,
            Expect::Exactly(NONCE),
            Expect::Exactly(USER_DATA),
        )
        .map(|d| d.signed)
}

/// Signs what `change` made of a valid document and returns the refusal.
fn refused(change: impl FnOnce(&mut DocumentSpec)) -> VerifyError {
    let mut spec = spec();
    change(&mut spec);
    verify(&spec.sign()).unwrap_err()
}

fn parse_error(change: impl FnOnce(&mut DocumentSpec)) -> ParseError {
    match refused(change) {
        VerifyError::Parse(error) => error,
        other => panic!("expected a parse error, got {other:?}"),
    }
}

/// Changes the certificate at `index` (root 0, leaf 3) and returns what is said about it.
fn certificate_problem(
    index: usize,
    change: impl FnOnce(&mut CertificateSpec),
) -> CertificateProblem {
    let mut document = spec();
    change(&mut document.chain[index]);
    // A changed root has another fingerprint: trust it, to get to the check in question.
    let root = TrustedRoot::from_der(&document.chain[0].to_der()).unwrap_or(pki().root());
    let verifier = Verifier { root, ..verifier() };
    let expected = match index {
        0 => Position::Root,
        3 => Position::Leaf,
        other => Position::Intermediate(other),
    };
    match verifier
        .verify(&document.sign(), NOW_MS, Expect::Any, Expect::Any)
        .unwrap_err()
    {
        VerifyError::Certificate { position, problem } => {
            assert_eq!(position, expected);
            problem
        }
        other => panic!("expected a certificate problem, got {other:?}"),
    }
}

fn extension<'a>(certificate: &'a mut CertificateSpec, oid: &[u8]) -> &'a mut ExtensionSpec {
    certificate
        .extensions
        .iter_mut()
        .find(|e| e.oid == oid)
        .unwrap()
}

#[test]
fn valid_documents_pass() {
    for (tagged, indefinite) in [(false, true), (true, true), (false, false), (true, false)] {
        let document = DocumentSpec {
            tagged,
            indefinite,
            ..spec()
        }
        .sign();
        assert_eq!(
            verify(&document),
            Ok(Signed::Signed),
            "tagged {tagged}, indefinite {indefinite}"
        );
    }
    let verified = verifier()
        .verify(
            &nsm().attestation(&request()).unwrap(),
            NOW_MS,
            Expect::Any,
            Expect::Any,
        )
        .unwrap();
    assert_eq!(verified.signed, Signed::Signed);
    assert_eq!(verified.timestamp_ms, NOW_MS);
    assert_eq!(
        verified.module_id,
        "i-0123456789abcdef0-enc0123456789abcdef"
    );
    assert_eq!(verified.pcr(0), Some(pcr(10)));
    assert_eq!(verified.pcr(3), Some(PcrValue::ZERO));
    assert_eq!(verified.pcr(16), None, "not locked");
    assert_eq!(verified.user_data.as_deref(), Some(USER_DATA));
    assert_eq!(verified.nonce.as_deref(), Some(NONCE));
    assert_eq!(verified.public_key, None);
    let text = verified.to_string();
    assert!(
        text.starts_with("document    signed\n") && text.contains(&pcr(10).to_string()),
        "{text}"
    );
}

#[test]
fn every_field_of_every_size_in_its_limits_passes() {
    let verify = |request: AttestationRequest<'_>| {
        let document = nsm().attestation(&request).unwrap();
        verifier()
            .verify(&document, NOW_MS, Expect::Any, Expect::Any)
            .unwrap()
    };
    let none = verify(AttestationRequest::default());
    assert_eq!(
        (none.user_data, none.nonce, none.public_key),
        (None, None, None)
    );
    let bytes = [0x5a; 1024];
    let full = verify(AttestationRequest {
        user_data: Some(&bytes[..512]),
        nonce: Some(&bytes[..512]),
        public_key: Some(&bytes),
    });
    assert_eq!(full.public_key.as_deref(), Some(&bytes[..]));
    let empty = verify(AttestationRequest {
        user_data: Some(&[]),
        nonce: Some(&[]),
        public_key: None,
    });
    assert_eq!(empty.user_data.as_deref(), Some(&[][..]));
}

#[test]
fn flipping_any_bit_is_refused() {
    let document = spec().sign();
    let payload_at = 1 + 1 + 4 + 1 + 3;
    let signature_at = document.len() - 96;
    let (mut parse, mut signature, mut certificate, mut other) = (0, 0, 0, 0);
    // One bit of every byte, and every bit of the frame and the first bytes of the payload.
    for bit in 0..document.len() * 8 {
        let (byte, shift) = (bit / 8, bit % 8);
        if shift != byte % 8 && (byte > 64 && byte < signature_at - 8) {
            continue;
        }
        // Signature checks cost milliseconds in a test build: every third is enough in the long middle.
        if byte > 64 && byte < signature_at - 8 && byte % 3 != 0 {
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
        parse > 50 && signature > 100 && certificate > 100,
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

#[test]
fn another_root_is_refused() {
    let other = Pki::from_seed(b"someone else");
    let error = Verifier {
        root: other.root(),
        ..verifier()
    }
    .verify(&spec().sign(), NOW_MS, Expect::Any, Expect::Any)
    .unwrap_err();
    assert_eq!(
        error,
        VerifyError::Root {
            expected: other.root().fingerprint(),
            got: pki().root().fingerprint()
        }
    );
    // And nothing of the mock's passes a production verifier.
    let error = Verifier {
        root: TrustedRoot::aws_nitro_g1(),
        ..verifier()
    }
    .verify(&spec().sign(), NOW_MS, Expect::Any, Expect::Any)
    .unwrap_err();
    assert!(matches!(error, VerifyError::Root { .. }));
    // A chain of someone else under our root certificate.
    let error = refused(|d| {
        let ours = d.chain[0].clone();
        d.chain = other.chain("m", NOW_MS);
        d.chain[0] = ours;
        d.key = KeyPair::from_seed(b"someone else", "enclave");
    });
    assert_eq!(
        error,
        VerifyError::Certificate {
            position: Position::Intermediate(1),
            problem: CertificateProblem::Signature
        }
    );
}

#[test]
fn a_signature_by_another_key_is_refused() {
    assert_eq!(
        refused(|d| d.key = KeyPair::from_seed(b"x", "enclave")),
        VerifyError::Signature
    );
    // By a key of the chain that is not the leaf's.
    assert_eq!(
        refused(|d| d.key = KeyPair::from_seed(b"newton attestation tests", "instance")),
        VerifyError::Signature
    );
    let spec = spec();
    let payload = spec.payload();
    for length in [0, 64, 95, 97, 104] {
        assert_eq!(
            verify(&spec.assemble(&payload, &vec![1; length])),
            Err(VerifyError::SignatureLength {
                expected: 96,
                got: length
            })
        );
    }
    // Zero and out-of-range scalars.
    for signature in [[0; 96], [0xff; 96]] {
        assert_eq!(
            verify(&spec.assemble(&payload, &signature)),
            Err(VerifyError::Signature)
        );
    }
    // A signature over the bare payload, without COSE's frame.
    assert_eq!(
        verify(&spec.assemble(&payload, &spec.key.sign_raw(&payload))),
        Err(VerifyError::Signature)
    );
    // A valid signature of another document.
    let other = nsm().document(&AttestationRequest {
        nonce: Some(b"other"),
        ..request()
    });
    let stolen = other.sign();
    assert_eq!(
        verify(&spec.assemble(&payload, &stolen[stolen.len() - 96..])),
        Err(VerifyError::Signature)
    );
}

#[test]
fn every_certificate_is_checked_alike() {
    for index in 0..4 {
        let signed_elsewhere = |c: &mut CertificateSpec| c.signer = KeyPair::from_seed(b"x", "x");
        if index > 0 {
            assert_eq!(
                certificate_problem(index, signed_elsewhere),
                CertificateProblem::Signature
            );
        }
        assert!(matches!(
            certificate_problem(index, |c| c.issuer = "someone".into()),
            CertificateProblem::Issuer { got, .. } if got == "CN=someone"
        ));
        assert_eq!(
            certificate_problem(index, |c| c.validity = [NOW + 1, NOW + DAY]),
            CertificateProblem::NotYetValid {
                not_before: NOW + 1,
                at: NOW
            }
        );
        assert_eq!(
            certificate_problem(index, |c| c.validity = [NOW - DAY, NOW - 1]),
            CertificateProblem::Expired {
                not_after: NOW - 1,
                at: NOW
            }
        );
        assert_eq!(
            certificate_problem(index, |c| c.extensions.push(unknown(true, 4))),
            CertificateProblem::CriticalExtension {
                oid: "2.5.29.99".into()
            }
        );
        for twice in [BASIC_CONSTRAINTS, KEY_USAGE] {
            let problem = certificate_problem(index, |c| {
                let again = extension(c, twice).clone();
                c.extensions.push(again);
            });
            assert!(matches!(
                problem,
                CertificateProblem::DuplicateExtension { .. }
            ));
        }
        for malformed in [BASIC_CONSTRAINTS, KEY_USAGE] {
            for content in [
                &[][..],
                &[0x30],
                &[0x30, 0x05],
                &[0x04, 0x00],
                &[0x30, 0x00, 0x00],
            ] {
                let problem = certificate_problem(index, |c| {
                    extension(c, malformed).content = content.to_vec()
                });
                assert!(
                    matches!(problem, CertificateProblem::MalformedExtension { .. }),
                    "{problem:?}"
                );
            }
        }
        // ECDSA with SHA-256, inside, outside and both.
        const SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
        let changes: [fn(&mut CertificateSpec); 3] = [
            |c| c.inner_algorithm = SHA256.into(),
            |c| c.outer_algorithm = SHA256.into(),
            |c| (c.inner_algorithm, c.outer_algorithm) = (SHA256.into(), SHA256.into()),
        ];
        for change in changes {
            assert!(matches!(
                certificate_problem(index, change),
                CertificateProblem::SignatureAlgorithm { got, .. } if got == "1.2.840.10045.4.3.2"
            ));
        }
        // P-256 named, a compressed point, a point off the curve, none.
        assert_eq!(
            certificate_problem(index, |c| c.curve =
                vec![0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]),
            CertificateProblem::PublicKey {
                reason: "another curve"
            }
        );
        assert_eq!(
            certificate_problem(index, |c| {
                c.point[0] = 2 + (c.point[96] & 1);
                c.point.truncate(49);
            }),
            CertificateProblem::PublicKey {
                reason: "not uncompressed"
            }
        );
        assert_eq!(
            certificate_problem(index, |c| c.point[96] ^= 1),
            CertificateProblem::PublicKey {
                reason: "not on the curve"
            }
        );
        assert_eq!(
            certificate_problem(index, |c| c.point.clear()),
            CertificateProblem::PublicKey {
                reason: "not uncompressed"
            }
        );
        // Version 2 has no extensions; what claims to be version 1 or 2 is refused in any case.
        assert!(matches!(
            certificate_problem(index, |c| c.version = 1),
            CertificateProblem::Version | CertificateProblem::Malformed { .. }
        ));
    }
}

#[test]
fn authorities_are_authorities() {
    for index in 0..3 {
        assert_eq!(
            certificate_problem(index, |c| extension(c, BASIC_CONSTRAINTS).content =
                vec![0x30, 0]),
            CertificateProblem::NotAuthority
        );
        assert_eq!(
            certificate_problem(index, |c| extension(c, BASIC_CONSTRAINTS).critical = false),
            CertificateProblem::NotAuthority
        );
        assert_eq!(
            certificate_problem(index, |c| c
                .extensions
                .retain(|e| e.oid != BASIC_CONSTRAINTS)),
            CertificateProblem::NotAuthority
        );
        // digitalSignature instead of keyCertSign; none at all.
        assert_eq!(
            certificate_problem(index, |c| extension(c, KEY_USAGE).content =
                vec![3, 2, 7, 0x80]),
            CertificateProblem::KeyUsage {
                expected: "keyCertSign"
            }
        );
        assert_eq!(
            certificate_problem(index, |c| c.extensions.retain(|e| e.oid != KEY_USAGE)),
            CertificateProblem::KeyUsage {
                expected: "keyCertSign"
            }
        );
    }
    // Two authorities below the root, one below the first intermediate, none below the second.
    let limit = |n: u8| {
        move |c: &mut CertificateSpec| {
            extension(c, BASIC_CONSTRAINTS).content = vec![0x30, 6, 1, 1, 0xff, 2, 1, n];
        }
    };
    for short in 0..2 {
        assert_eq!(
            certificate_problem(0, limit(short)),
            CertificateProblem::PathLength {
                limit: short,
                got: 2
            }
        );
    }
    assert_eq!(
        certificate_problem(1, limit(0)),
        CertificateProblem::PathLength { limit: 0, got: 1 }
    );
    // Exactly enough passes.
    let mut exact = spec();
    limit(2)(&mut exact.chain[0]);
    let root = TrustedRoot::from_der(&exact.chain[0].to_der()).unwrap();
    Verifier { root, ..verifier() }
        .verify(&exact.sign(), NOW_MS, Expect::Any, Expect::Any)
        .unwrap();
}

#[test]
fn a_leaf_is_a_leaf() {
    assert_eq!(
        certificate_problem(3, |c| extension(c, BASIC_CONSTRAINTS).content =
            vec![0x30, 3, 1, 1, 0xff]),
        CertificateProblem::LeafIsAuthority
    );
    // digitalSignature and keyCertSign.
    assert_eq!(
        certificate_problem(3, |c| extension(c, KEY_USAGE).content = vec![3, 2, 2, 0x84]),
        CertificateProblem::LeafIsAuthority
    );
    // keyEncipherment only; none.
    assert_eq!(
        certificate_problem(3, |c| extension(c, KEY_USAGE).content = vec![3, 2, 5, 0x20]),
        CertificateProblem::KeyUsage {
            expected: "digitalSignature"
        }
    );
    assert_eq!(
        certificate_problem(3, |c| c.extensions.retain(|e| e.oid != KEY_USAGE)),
        CertificateProblem::KeyUsage {
            expected: "digitalSignature"
        }
    );
    // Basic constraints may be missing, and digitalSignature may have company.
    let mut without = spec();
    without.chain[3]
        .extensions
        .retain(|e| e.oid != BASIC_CONSTRAINTS);
    extension(&mut without.chain[3], KEY_USAGE).content = vec![3, 2, 6, 0xc0];
    assert_eq!(verify(&without.sign()), Ok(Signed::Signed));
    // An unknown extension that is not critical changes nothing.
    let mut harmless = spec();
    harmless.chain[3].extensions.push(unknown(false, 4));
    assert_eq!(verify(&harmless.sign()), Ok(Signed::Signed));
}

#[test]
fn the_chain_has_all_its_links_in_order() {
    // A missing link, exchanged links, the instance's certificate as leaf.
    let issuer = |position| {
        move |error: VerifyError| {
            assert!(
                matches!(&error, VerifyError::Certificate { position: p, problem: CertificateProblem::Issuer { .. } } if *p == position),
                "{error:?}"
            );
        }
    };
    issuer(Position::Intermediate(1))(refused(|d| drop(d.chain.remove(1))));
    issuer(Position::Leaf)(refused(|d| drop(d.chain.remove(2))));
    issuer(Position::Intermediate(1))(refused(|d| d.chain.swap(1, 2)));
    assert!(matches!(
        refused(|d| drop(d.chain.remove(0))),
        VerifyError::Root { .. }
    ));
    assert_eq!(
        refused(|d| {
            d.chain.truncate(3);
            d.key = KeyPair::from_seed(b"newton attestation tests", "instance");
        }),
        VerifyError::Certificate {
            position: Position::Leaf,
            problem: CertificateProblem::LeafIsAuthority
        }
    );
    // A leaf that signs another leaf: the enclave's own certificate as an authority.
    let error = refused(|d| {
        let mut below = d.chain[3].clone();
        below.issuer = d.chain[3].subject.clone();
        below.signer = d.key.clone();
        d.key = KeyPair::from_seed(b"evil", "evil");
        below.point = d.key.public_point();
        d.chain.push(below);
    });
    // Whoever looks first sees that the instance may have no authority below itself.
    assert_eq!(
        error,
        VerifyError::Certificate {
            position: Position::Intermediate(1),
            problem: CertificateProblem::PathLength { limit: 1, got: 2 }
        }
    );
}

#[test]
fn broken_der_is_refused() {
    let leaf = spec().chain[3].to_der();
    let with_leaf = |leaf: &[u8]| {
        let spec = spec();
        let payload = spec.payload();
        let entries: Vec<_> = entries(&payload)
            .into_iter()
            .flat_map(|(name, bytes)| match name.as_str() {
                "certificate" => {
                    let length = (leaf.len() as u16).to_be_bytes();
                    [&bytes[..12], &[0x59], &length, leaf].concat()
                }
                _ => bytes,
            })
            .collect();
        verify(&spec.sign_payload(&[&[0xa9], &entries[..]].concat()))
    };
    assert_eq!(with_leaf(&leaf), Ok(Signed::Signed));
    let problem = |result: Result<Signed, VerifyError>| match result {
        Err(VerifyError::Certificate {
            position: Position::Leaf,
            problem,
        }) => problem,
        other => panic!("{other:?}"),
    };
    assert!(matches!(
        problem(with_leaf(&[&leaf[..], &[0]].concat())),
        CertificateProblem::Malformed { .. }
    ));
    assert!(matches!(
        problem(with_leaf(&leaf[..leaf.len() - 1])),
        CertificateProblem::Malformed { .. }
    ));
    assert!(matches!(
        problem(with_leaf(&[0x30; 300])),
        CertificateProblem::Malformed { .. }
    ));
    // BER: a boolean true that is not 0xff.
    let mut ber = leaf.clone();
    let at = ber
        .windows(3)
        .position(|w| w == [0x01, 0x01, 0xff])
        .unwrap();
    ber[at + 2] = 0x01;
    assert!(matches!(
        problem(with_leaf(&ber)),
        CertificateProblem::Malformed { .. } | CertificateProblem::NotCanonical
    ));
    // `critical FALSE` written out: valid BER, not DER. Signed properly, and still refused.
    let spec = spec();
    let tbs = spec.chain[3].tbs();
    let usage = [0x06, 0x03, 0x55, 0x1d, 0x0f];
    let at = tbs.windows(5).position(|w| w == usage).unwrap() + 5;
    let mut explicit = tbs.clone();
    explicit.splice(at..at, [0x01, 0x01, 0x00]);
    // Lengths around it: the extension, the list, its wrapper, the signed part (two bytes each for the outermost).
    explicit[at - 6] += 3;
    let list = tbs.windows(2).position(|w| w[0] == 0xa3).unwrap();
    explicit[list + 1] += 3;
    explicit[list + 3] += 3;
    let length = u16::from_be_bytes([explicit[2], explicit[3]]) + 3;
    assert_eq!(explicit[1], 0x82);
    explicit[2..4].copy_from_slice(&length.to_be_bytes());
    let signature = spec.chain[3].signer.sign_der(&explicit);
    let certificate = spec.chain[3].assemble(&explicit, &signature);
    let problem = problem(with_leaf(&certificate));
    assert!(
        matches!(
            problem,
            CertificateProblem::NotCanonical | CertificateProblem::Malformed { .. }
        ),
        "{problem:?}"
    );
}

#[test]
fn age_and_clock_skew() {
    let document = spec().sign();
    let at = |now_ms| {
        verifier()
            .verify(&document, now_ms, Expect::Any, Expect::Any)
            .map(|_| ())
    };
    assert_eq!(at(NOW_MS + 300_000), Ok(()));
    assert_eq!(
        at(NOW_MS + 300_001),
        Err(VerifyError::TooOld {
            max_age_ms: 300_000,
            age_ms: 300_001
        })
    );
    assert_eq!(at(NOW_MS - MAX_CLOCK_SKEW_MS), Ok(()));
    let now_ms = NOW_MS - MAX_CLOCK_SKEW_MS - 1;
    assert_eq!(
        at(now_ms),
        Err(VerifyError::FromTheFuture {
            timestamp_ms: NOW_MS,
            now_ms
        })
    );
    // Without an age limit the certificates are still checked at the document's own time.
    let ageless = Verifier {
        max_age_ms: None,
        ..verifier()
    };
    ageless
        .verify(&document, NOW_MS * 2, Expect::Any, Expect::Any)
        .unwrap();
    ageless
        .verify(&document, 0, Expect::Any, Expect::Any)
        .unwrap();
    // A forged time outside the leaf's three hours fails whatever the verifier's clock says.
    let late = refused(|d| d.timestamp_ms += 4 * 3_600_000);
    assert!(matches!(
        late,
        VerifyError::Certificate {
            position: Position::Leaf,
            problem: CertificateProblem::Expired { .. }
        }
    ));
    let huge = refused(|d| d.timestamp_ms = u64::MAX);
    assert!(matches!(
        huge,
        VerifyError::Certificate {
            problem: CertificateProblem::Expired { .. },
            ..
        }
    ));
}

#[test]
fn registers_follow_the_policy() {
    for index in 0..3u8 {
        assert_eq!(
            refused(|d| d.pcrs[usize::from(index)].1 = vec![99; 48]),
            VerifyError::Pcr {
                index,
                expected: pcr(10 + index),
                got: pcr(99)
            }
        );
        assert_eq!(
            refused(|d| d.pcrs[usize::from(index)].1 = vec![0; 48]),
            VerifyError::DebugMode { index }
        );
        assert_eq!(
            refused(|d| drop(d.pcrs.remove(usize::from(index)))),
            VerifyError::PcrMissing { index }
        );
        // Also without any expectation.
        let open = Verifier {
            policy: PcrPolicy::none(),
            ..verifier()
        };
        let mut debug = spec();
        debug.pcrs[usize::from(index)].1 = vec![0; 48];
        assert_eq!(
            open.verify(&debug.sign(), NOW_MS, Expect::Any, Expect::Any),
            Err(VerifyError::DebugMode { index })
        );
    }
    let with_config = Verifier {
        policy: verifier().policy.with(16, pcr(1).extended(b"config")),
        ..verifier()
    };
    let verify = |nsm: &MockNsm| {
        let document = nsm.attestation(&request()).unwrap();
        with_config
            .verify(&document, NOW_MS, Expect::Any, Expect::Any)
            .map(|d| d.pcr(16).unwrap())
    };
    let nsm = nsm();
    nsm.extend_pcr(16, b"config").unwrap();
    assert_eq!(
        verify(&nsm),
        Err(VerifyError::PcrMissing { index: 16 }),
        "extended, but not locked"
    );
    nsm.lock_pcr(16).unwrap();
    let expected = PcrValue::ZERO.extended(b"config");
    assert_eq!(
        verify(&nsm),
        Err(VerifyError::Pcr {
            index: 16,
            expected: pcr(1).extended(b"config"),
            got: expected
        })
    );
    let with_config = Verifier {
        policy: verifier().policy.with(16, expected),
        ..verifier()
    };
    let document = nsm.attestation(&request()).unwrap();
    let verified = with_config
        .verify(&document, NOW_MS, Expect::Any, Expect::Any)
        .unwrap();
    assert_eq!(verified.pcr(16), Some(expected));
    assert_eq!(config_hash(&expected), pcr_hash(&expected));
}

#[test]
fn nonce_and_user_data_are_compared() {
    let document = spec().sign();
    let verify = |nonce, user_data| {
        verifier()
            .verify(&document, NOW_MS, nonce, user_data)
            .map(|_| ())
    };
    assert_eq!(
        verify(Expect::Exactly(b"other"), Expect::Any),
        Err(VerifyError::Nonce {
            expected: b"other".to_vec(),
            got: Some(NONCE.to_vec())
        })
    );
    assert_eq!(
        verify(Expect::Exactly(NONCE), Expect::Exactly(&[])),
        Err(VerifyError::UserData {
            expected: vec![],
            got: Some(USER_DATA.to_vec())
        })
    );
    // Absent is not the same as empty.
    let absent = nsm().attestation(&AttestationRequest::default()).unwrap();
    assert_eq!(
        verifier().verify(&absent, NOW_MS, Expect::Exactly(&[]), Expect::Any),
        Err(VerifyError::Nonce {
            expected: vec![],
            got: None
        })
    );
}

fn emulated() -> Vec<u8> {
    let pcrs: Vec<_> = nsm().document(&request()).pcrs;
    emulated_document("i-x-enc0", NOW_MS, &pcrs, &request())
}

#[test]
fn emulated_documents_pass_only_with_the_switch_and_say_so() {
    let document = emulated();
    // The bytes of QEMU's frame: untagged array of four, {1: -1}, empty map; 64 zero bytes at the end.
    assert_eq!(document[..6], [0x84, 0x43, 0xa1, 0x01, 0x20, 0xa0]);
    assert_eq!(document[document.len() - 66..][..2], [0x58, 64]);
    assert!(document[document.len() - 64..].iter().all(|b| *b == 0));
    assert!(
        (1_100..1_400).contains(&document.len()),
        "the lab measured 1.2 KB, this has {}",
        document.len()
    );

    assert_eq!(verify(&document), Err(VerifyError::Unsigned));
    assert!(
        VerifyError::Unsigned
            .to_string()
            .contains("emulated, unsigned")
    );
    let lenient = Verifier {
        unsigned: Unsigned::AcceptEmulated,
        ..verifier()
    };
    let verify = |d: &[u8]| {
        lenient.verify(
            d,
            NOW_MS,
            Expect::Exactly(NONCE),
            Expect::Exactly(USER_DATA),
        )
    };
    let verified = verify(&document).unwrap();
    assert_eq!(verified.signed, Signed::EmulatedUnsigned);
    assert!(
        verified
            .to_string()
            .starts_with("document    emulated, unsigned\n")
    );
    // Everything else is still checked.
    let other = Verifier {
        policy: PcrPolicy::image(pcr(1), pcr(11), pcr(12)),
        ..lenient.clone()
    };
    assert!(matches!(
        other.verify(&document, NOW_MS, Expect::Any, Expect::Any),
        Err(VerifyError::Pcr { index: 0, .. })
    ));
    assert!(matches!(
        lenient.verify(&document, NOW_MS + 300_001, Expect::Any, Expect::Any),
        Err(VerifyError::TooOld { .. })
    ));
    assert!(matches!(
        lenient.verify(&document, NOW_MS, Expect::Exactly(b"x"), Expect::Any),
        Err(VerifyError::Nonce { .. })
    ));
    // A signed document is not made weaker by the switch.
    assert_eq!(verify(&spec().sign()).unwrap().signed, Signed::Signed);
    let mut forged = spec().sign();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(verify(&forged), Err(VerifyError::Signature));
}

#[test]
fn almost_emulated_documents_are_neither() {
    let lenient = Verifier {
        unsigned: Unsigned::AcceptEmulated,
        ..verifier()
    };
    let verify = |d: &[u8]| {
        lenient
            .verify(d, NOW_MS, Expect::Any, Expect::Any)
            .unwrap_err()
    };
    let document = emulated();
    let form = |field| VerifyError::EmulatedForm { field };

    let mut changed = document.clone();
    *changed.last_mut().unwrap() = 1;
    assert_eq!(verify(&changed), form("signature"));
    let certificate = document
        .windows(11)
        .position(|w| w == b"certificate")
        .unwrap()
        + 13;
    let mut changed = document.clone();
    changed[certificate] = 1;
    assert_eq!(verify(&changed), form("certificate"));
    let bundle = document.windows(8).position(|w| w == b"cabundle").unwrap() + 11;
    let mut changed = document.clone();
    changed[bundle] = 1;
    assert_eq!(verify(&changed), form("cabundle"));
    // The header of no algorithm over a properly signed document, and a proper header over zeros.
    let unsigned = DocumentSpec {
        protected: vec![0xa1, 0x01, 0x20],
        ..spec()
    };
    assert_eq!(verify(&unsigned.sign()), form("signature"));
    let mut claimed = document.clone();
    claimed.splice(1..5, [0x44, 0xa1, 0x01, 0x38, 0x22]);
    assert!(matches!(verify(&claimed), VerifyError::Root { .. }));
}

#[test]
fn the_mock_behaves_like_a_module() {
    let nsm = nsm();
    assert_eq!(
        nsm.describe().unwrap().locked_pcrs,
        (0..16).collect::<Vec<u16>>()
    );
    let refusal = |error: NsmError| match error {
        NsmError::Refused { refusal, .. } => refusal,
        other => panic!("{other}"),
    };
    assert_eq!(
        refusal(nsm.extend_pcr(0, b"x").unwrap_err()),
        Refusal::ReadOnlyIndex
    );
    assert_eq!(
        refusal(nsm.extend_pcr(32, b"x").unwrap_err()),
        Refusal::InvalidIndex
    );
    assert_eq!(
        refusal(nsm.describe_pcr(32).unwrap_err()),
        Refusal::InvalidIndex
    );
    assert_eq!(
        refusal(nsm.lock_pcr(0).unwrap_err()),
        Refusal::ReadOnlyIndex
    );
    assert_eq!(
        refusal(nsm.lock_pcrs(33).unwrap_err()),
        Refusal::InvalidIndex
    );
    let one = nsm.extend_pcr(17, b"a").unwrap();
    let two = nsm.extend_pcr(17, b"b").unwrap();
    assert_eq!(one, PcrValue::ZERO.extended(b"a"));
    assert_eq!(two, one.extended(b"b"));
    assert_eq!(nsm.describe_pcr(17).unwrap().value, two);
    nsm.lock_pcrs(32).unwrap();
    assert_eq!(
        refusal(nsm.extend_pcr(17, b"x").unwrap_err()),
        Refusal::ReadOnlyIndex
    );
    let long = [0; 513];
    assert!(matches!(
        nsm.attestation(&AttestationRequest {
            nonce: Some(&long),
            ..Default::default()
        }),
        Err(NsmError::TooLarge {
            field: "nonce",
            limit: 512,
            got: 513
        })
    ));
    let (mut a, mut b) = ([0; 300], [0; 300]);
    nsm.random(&mut a).unwrap();
    nsm.random(&mut b).unwrap();
    assert_ne!(a, b);
    // A running clock: the document is fresh and its chain valid now.
    let live = MockNsm::new(pki(), "live", [pcr(10), pcr(11), pcr(12)]);
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64;
    let document = live.attestation(&request()).unwrap();
    verifier()
        .verify(&document, now_ms, Expect::Exactly(NONCE), Expect::Any)
        .unwrap();
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic_the_parser(bytes in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..600)) {
        let _ = UnverifiedDocument::parse(&bytes);
        // The same behind a valid frame.
        let _ = UnverifiedDocument::parse(&spec().assemble(&bytes, &[0; 96]));
    }

    #[test]
    fn spliced_payloads_never_panic_or_pass(at in 0usize..4000, junk in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..8)) {
        let spec = spec();
        let payload = spec.payload();
        let at = at % payload.len();
        let mut changed = payload.clone();
        let end = (at + junk.len()).min(changed.len());
        changed.splice(at..end, junk);
        if changed != payload {
            let signature = spec.sign();
            let document = spec.assemble(&changed, &signature[signature.len() - 96..]);
            proptest::prop_assert!(verify(&document).is_err());
        }
    }
}

/// An extension nobody knows, of this length.
fn unknown(critical: bool, length: usize) -> ExtensionSpec {
    ExtensionSpec {
        oid: vec![0x55, 0x1d, 99],
        critical,
        content: vec![0; length],
    }
}

fn certificate_length(index: usize, extra: usize) -> usize {
    let mut certificate = spec().chain[index].clone();
    certificate.extensions.push(unknown(false, extra));
    certificate.to_der().len()
}

/// The payload's entries: name, and the bytes of key and value. A reader of its own, for definite lengths only.
fn entries(payload: &[u8]) -> Vec<(String, Vec<u8>)> {
    fn head(bytes: &[u8], at: &mut usize) -> (u8, usize) {
        let initial = bytes[*at];
        *at += 1;
        let width = match initial & 0x1f {
            small @ 0..=23 => return (initial >> 5, usize::from(small)),
            code => 1 << (code - 24),
        };
        let value = bytes[*at..*at + width]
            .iter()
            .fold(0, |v, b| v << 8 | usize::from(*b));
        *at += width;
        (initial >> 5, value)
    }
    fn skip(bytes: &[u8], at: &mut usize) {
        let (major, value) = head(bytes, at);
        match major {
            2 | 3 => *at += value,
            4 => (0..value).for_each(|_| skip(bytes, at)),
            5 => (0..2 * value).for_each(|_| skip(bytes, at)),
            _ => {}
        }
    }
    let mut at = 1;
    let mut entries = Vec::new();
    while at < payload.len() && payload[at] != 0xff {
        let from = at;
        let (_, length) = head(payload, &mut at);
        let name = String::from_utf8(payload[at..at + length].to_vec()).unwrap();
        at += length;
        skip(payload, &mut at);
        entries.push((name, payload[from..at].to_vec()));
    }
    entries
}
