//! Age, registers, nonce, user data, and documents nobody signed.

use super::*;

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
    // A second certificate of zeros.
    let mut changed = document.clone();
    changed[bundle - 3] = 0x82;
    changed.splice(bundle..bundle, [&[0; 64][..], &[0x58, 64]].concat());
    let length = u16::from_be_bytes([changed[7], changed[8]]) + 66;
    changed[7..9].copy_from_slice(&length.to_be_bytes());
    assert_eq!(verify(&changed), form("cabundle"));
    // The header of no algorithm over a properly signed document, and a proper header over zeros.
    let unsigned = DocumentSpec {
        protected: vec![0xa1, 0x01, 0x20],
        ..spec()
    };
    assert_eq!(verify(&unsigned.sign()), form("signature"));
    let mut claimed = document;
    claimed.splice(1..5, [0x44, 0xa1, 0x01, 0x38, 0x22]);
    assert!(matches!(verify(&claimed), VerifyError::Root { .. }));
}
