//! Certificates and signatures.

use super::*;

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
                    extension(c, malformed).content = content.to_vec();
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
        // The hybrid form has the same length.
        assert_eq!(
            certificate_problem(index, |c| c.point[0] = 6 + (c.point[96] & 1)),
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
    let mut ber = leaf;
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
