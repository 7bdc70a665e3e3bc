//! Valid documents pass; every mutation is refused for its own reason.

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::LazyLock;

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

mod chain;
mod form;
mod policy;

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

/// A signed document and its parts, made once: signing costs milliseconds in a test build.
static SIGNED: LazyLock<(DocumentSpec, Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let spec = spec();
    let signed = spec.sign();
    let signature = signed[signed.len() - 96..].to_vec();
    let payload = spec.payload();
    (spec, payload, signature)
});

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]

    #[test]
    fn no_bytes_panic_the_parser(bytes in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..600)) {
        let _ = UnverifiedDocument::parse(&bytes);
        // The same behind a valid frame.
        let _ = UnverifiedDocument::parse(&SIGNED.0.assemble(&bytes, &[0; 96]));
    }

    #[test]
    fn spliced_payloads_never_panic_or_pass(at in 0usize..4000, junk in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..8)) {
        let (spec, payload, signature) = &*SIGNED;
        let at = at % payload.len();
        let mut changed = payload.clone();
        let end = (at + junk.len()).min(changed.len());
        changed.splice(at..end, junk);
        if changed != *payload {
            proptest::prop_assert!(verify(&spec.assemble(&changed, signature)).is_err());
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
