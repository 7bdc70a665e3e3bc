//! Verification of one document: design 6.4 promises at most 5 ms.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use newton_attestation::PcrValue;
use newton_attestation::document::UnverifiedDocument;
use newton_attestation::nsm::mock::{MockNsm, Pki};
use newton_attestation::nsm::{AttestationRequest, Nsm as _};
use newton_attestation::verify::{Expect, PcrPolicy, Unsigned, Verifier};

const NOW_MS: u64 = 1_795_184_000_000;

fn verify(criterion: &mut Criterion) {
    let pki = Pki::from_seed(b"bench");
    let measurements = [1, 2, 3].map(|n| PcrValue([n; 48]));
    let nsm = MockNsm::new(pki.clone(), "i-bench", measurements).at(NOW_MS);
    let request = AttestationRequest {
        user_data: Some(&[1; 48]),
        nonce: Some(&[2; 32]),
        public_key: None,
    };
    let document = nsm.attestation(&request).expect("the mock signs");
    let [pcr0, pcr1, pcr2] = measurements;
    let verifier = Verifier {
        root: pki.root(),
        policy: PcrPolicy::image(pcr0, pcr1, pcr2),
        max_age_ms: Some(300_000),
        unsigned: Unsigned::Refuse,
    };
    criterion.bench_function("verify a signed document (chain of 4)", |bencher| {
        bencher.iter(|| {
            verifier
                .verify(
                    black_box(&document),
                    NOW_MS,
                    Expect::Exactly(&[2; 32]),
                    Expect::Exactly(&[1; 48]),
                )
                .expect("valid")
        });
    });
    criterion.bench_function("parse a document", |bencher| {
        bencher.iter(|| UnverifiedDocument::parse(black_box(&document)).expect("valid"));
    });
}

criterion_group!(benches, verify);
criterion_main!(benches);
