//! Several operators over one task, outside of the appliance: real keys, the real merge, real components and Rego.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::{Operator, PRICE_POLICY, World};
use newton_evaluate::{EvaluateError, merge::OutlierReason};
use newton_rounds::{
    Outcome, OutputsError, Private, Record, ReexecuteError, judge, outcome::JudgeError, reexecute,
};
use newton_types::{ABSENT, B256, Bytes, keccak256};
use proptest::prelude::*;

fn prices(world: &World, prices: &[&str]) -> Record {
    let texts: Vec<String> = prices
        .iter()
        .map(|p| format!(r#"{{"feed":{{"price":"{p}"}}}}"#))
        .collect();
    let set = world.outputs(0, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    world.merged(set)
}

fn conclude(world: &World, record: &Record) -> Result<Outcome, ReexecuteError> {
    record.conclude(&world.evaluator, &world.artifacts)
}

#[test]
fn several_engines_sign_the_same_bytes_whatever_order_the_outputs_come_in() {
    let world = World::new(PRICE_POLICY, 3);
    let base = prices(&world, &["100", "104", "103"]);
    let mut digests = Vec::new();
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0], [2, 1, 0]] {
        // An engine of its own for each enclave.
        let enclave = World::new(PRICE_POLICY, 3);
        let mut record = base.clone();
        let set = base.outputs.as_ref().unwrap();
        record.outputs = Some(order.iter().map(|i| set[*i].clone()).collect());
        let outcome = conclude(&enclave, &record).unwrap();
        assert_eq!(outcome.result, b"true");
        assert_eq!(
            outcome.attestation.data[0].outputHash,
            keccak256(r#"{"feed":{"price":"103"}}"#)
        );
        digests.push(outcome.digest);
    }
    digests.dedup();
    assert_eq!(digests.len(), 1);
    // Which outputs were used is in what is signed, though the merged value is the same.
    let two = prices(&world, &["103", "104"]);
    let other = conclude(&world, &two).unwrap();
    assert_eq!(
        other.attestation.data[0].outputHash,
        keccak256(r#"{"feed":{"price":"103"}}"#)
    );
    assert_ne!(other.digest, digests[0]);
}

#[test]
fn outliers_are_left_out_and_named_and_too_many_of_them_end_the_round() {
    let world = World::new(PRICE_POLICY, 4);
    let outcome = conclude(&world, &prices(&world, &["100", "100", "101", "500"])).unwrap();
    assert_eq!(outcome.result, b"true");
    let outliers = &outcome.outliers[&world.instance()];
    assert_eq!(outliers.len(), 1);
    assert_eq!(outliers[0].signer, world.operators[3].key_hash());
    assert_eq!(
        outliers[0].reason,
        OutlierReason::Field("/feed/price".to_owned())
    );
    let split = prices(&world, &["100", "100", "500", "500"]);
    match conclude(&world, &split).unwrap_err() {
        ReexecuteError::Abstained(EvaluateError::NoConsensus { .. }) => {}
        other => panic!("{other}"),
    }
}

#[test]
fn what_does_not_hold_refuses_the_set_by_its_own_error() {
    let world = World::new(PRICE_POLICY, 3);
    let good = prices(&world, &["100", "100", "100"]);
    let set = good.outputs.clone().unwrap();
    let verify = |set: Vec<_>| good.expected(0).unwrap().unwrap().verify(&set).map(drop);
    verify(set.clone()).unwrap();
    // Missing operators are tolerated down to the quorum.
    verify(set[..2].to_vec()).unwrap();
    let quorum = OutputsError::Quorum {
        weight: 1,
        total: 3,
        bps: 6_667,
    };
    assert_eq!(verify(set[..1].to_vec()), Err(quorum));
    assert!(matches!(
        verify(Vec::new()),
        Err(OutputsError::Quorum { weight: 0, .. })
    ));

    let mut twice = set.clone();
    twice[1] = set[0].clone();
    assert!(matches!(
        verify(twice),
        Err(OutputsError::Twice { index: 1, .. })
    ));
    let foreign = Operator::new(99);
    let mut with_foreign = set.clone();
    with_foreign[2] = world.signed_by(&foreign, 0, r#"{"feed":{"price":"100"}}"#);
    assert!(matches!(
        verify(with_foreign),
        Err(OutputsError::Foreign { index: 2, .. })
    ));
    let mut forged = set.clone();
    forged[1].outputs[0].output = Bytes::from_static(br#"{"feed":{"price":"101"}}"#);
    assert!(matches!(
        verify(forged),
        Err(OutputsError::Signature { index: 1, .. })
    ));
    let mut stolen = set.clone();
    stolen[1].outputs[0].signature = set[0].outputs[0].signature.clone();
    assert!(matches!(
        verify(stolen),
        Err(OutputsError::Signature { index: 1, .. })
    ));
    let mut transcript = set.clone();
    transcript[0].outputs[0].transcript_hash = B256::ZERO;
    assert!(matches!(
        verify(transcript),
        Err(OutputsError::Signature { index: 0, .. })
    ));
    let mut no_point = set.clone();
    no_point[0].bls_public_key = Bytes::from_static(&[0; 256]);
    assert!(matches!(
        verify(no_point),
        Err(OutputsError::Key { index: 0 })
    ));

    let mut late = set.clone();
    late[0] = world.signed_by(&world.operators[0], 1, r#"{"feed":{"price":"100"}}"#);
    let round = OutputsError::Round {
        index: 0,
        got: 1,
        expected: 0,
    };
    assert_eq!(verify(late.clone()), Err(round));
    // Said to be of this round: the signature is over the other.
    late[0].round = 0;
    assert!(matches!(
        verify(late),
        Err(OutputsError::Signature { index: 0, .. })
    ));
    let other_task = World::with_task(PRICE_POLICY, 3, B256::repeat_byte(0x77));
    let theirs = other_task.outputs(0, &[r#"{"feed":{"price":"100"}}"#; 3]);
    assert!(matches!(
        verify(theirs),
        Err(OutputsError::Signature { index: 0, .. })
    ));

    let mut double = set.clone();
    let again = double[0].outputs[0].clone();
    double[0].outputs.push(again);
    let problem = |set| match verify(set) {
        Err(OutputsError::Instance { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    assert_eq!(problem(double), "is there twice");
    let mut empty = set.clone();
    empty[0].outputs.clear();
    assert_eq!(problem(empty), "is missing");
    let mut unknown = set;
    unknown[0].outputs[0].policy_data_instance_id = B256::ZERO;
    assert_eq!(problem(unknown), "is not the task's");
}

#[test]
fn a_quorum_that_reports_an_error_has_it_signed_and_the_set_stays_bound() {
    let world = World::new(PRICE_POLICY, 3);
    let failed = r#""DataProviderError""#;
    let record = world.merged(world.outputs(0, &[failed, failed, r#"{"feed":{"price":"1"}}"#]));
    let outcome = conclude(&world, &record).unwrap();
    assert_eq!(outcome.result, br#"{"error":{"name":"DataProviderError"}}"#);
    let binding = &outcome.attestation.data[0];
    assert_eq!(binding.outputHash, ABSENT);
    assert_ne!(binding.transcriptHash, ABSENT);
}

#[test]
fn a_record_gives_the_same_digest_after_a_trip_as_json() {
    let world = World::new(PRICE_POLICY, 3);
    let record = prices(&world, &["100", "104", "103"]);
    let signed = conclude(&world, &record).unwrap();
    let text = serde_json::to_string(&record).unwrap();
    let read: Record = serde_json::from_str(&text).unwrap();
    assert_eq!(read, record);
    let elsewhere = World::new(PRICE_POLICY, 0);
    let again = reexecute(
        &read,
        &Private::default(),
        &elsewhere.evaluator,
        &elsewhere.artifacts,
    )
    .unwrap();
    assert_eq!(
        (again.digest, again.attestation),
        (signed.digest, signed.attestation)
    );
}

#[test]
fn honest_attestations_are_right_and_altered_ones_are_not() {
    let world = World::new(PRICE_POLICY, 3);
    let record = prices(&world, &["100", "104", "103"]);
    let honest = conclude(&world, &record).unwrap().attestation;
    let judged = |claimed: &_, record: &Record| {
        judge(
            record,
            claimed,
            &Private::default(),
            &world.evaluator,
            &world.artifacts,
        )
    };
    assert!(judged(&honest, &record).unwrap().correct);
    let mut wrong = honest.clone();
    wrong.evaluationResultHash = keccak256("false");
    assert!(!judged(&wrong, &record).unwrap().correct);
    let mut output = honest.clone();
    output.data[0].outputHash = keccak256("{}");
    assert!(!judged(&output, &record).unwrap().correct);

    // Other inputs than those bound never make an honest signer look wrong.
    let mut others = record.clone();
    others.outputs = prices(&world, &["100", "104"]).outputs;
    assert!(matches!(
        judged(&honest, &others),
        Err(JudgeError::Mismatch { .. })
    ));
    let mut spoilt = record.clone();
    spoilt.outputs.as_mut().unwrap()[0].outputs[0].signature = Bytes::from(vec![1; 128]);
    assert!(matches!(
        judged(&honest, &spoilt),
        Err(JudgeError::Mismatch { .. })
    ));
    let mut none = record.clone();
    none.outputs = None;
    assert!(matches!(
        judged(&honest, &none),
        Err(JudgeError::Mismatch { .. })
    ));
    let mut other_class = honest.clone();
    other_class.regoHash = B256::ZERO;
    match judged(&other_class, &record).unwrap_err() {
        JudgeError::Mismatch { field, .. } => assert_eq!(field, "regoHash"),
        other => panic!("{other}"),
    }

    // A dishonest quorum that binds forged outputs is caught by its own record.
    let mut forged = record;
    forged.outputs.as_mut().unwrap()[0].outputs[0].output =
        Bytes::from_static(br#"{"feed":{"price":"1"}}"#);
    let bound = forged
        .expected(0)
        .unwrap()
        .unwrap()
        .transcripts(forged.outputs.as_ref().unwrap());
    let mut claimed = honest;
    claimed.data[0].transcriptHash = bound[&world.instance()];
    assert!(!judged(&claimed, &forged).unwrap().correct);
}

#[test]
fn a_policy_that_may_read_the_intents_signature_is_never_found_wrong() {
    let world = World::new(
        "package p\n\nimport rego.v1\n\ndefault allow := false\n\nallow if input.intent_signature == \"0x01\"\n",
        3,
    );
    let mut record = prices(&world, &["1", "1", "1"]);
    record.intent_signature = Some(Bytes::from_static(&[1]));
    let honest = conclude(&world, &record).unwrap();
    assert_eq!(honest.result, b"true");
    let judged = |record: &Record| {
        judge(
            record,
            &honest.attestation,
            &Private::default(),
            &world.evaluator,
            &world.artifacts,
        )
    };
    assert!(judged(&record).unwrap().correct);
    record.intent_signature = None;
    assert!(matches!(judged(&record), Err(JudgeError::Undecidable(_))));
}

#[test]
fn an_evaluation_in_one_call_is_done_again_from_its_record() {
    let (world, record, secrets) = common::spend_limit();
    let http = common::no_http();
    let (signed, exchanges) = record
        .evaluate(&secrets, &world.evaluator, &world.artifacts, &http)
        .unwrap();
    assert_eq!(signed.result, b"true");
    assert!(exchanges.values().all(Vec::is_empty));
    let private = Private {
        secrets,
        exchanges: BTreeMap::new(),
    };
    let again = reexecute(&record, &private, &world.evaluator, &world.artifacts).unwrap();
    assert_eq!(again.digest, signed.digest);
    let judged = judge(
        &record,
        &signed.attestation,
        &private,
        &world.evaluator,
        &world.artifacts,
    )
    .unwrap();
    assert!(judged.correct);
    let mut wrong = signed.attestation;
    wrong.evaluationResultHash = keccak256("false");
    let judged = judge(
        &record,
        &wrong,
        &private,
        &world.evaluator,
        &world.artifacts,
    )
    .unwrap();
    assert!(!judged.correct);
}

#[test]
fn exchanges_are_sealed_for_their_task_and_instance_only() {
    use newton_evaluate::transcript::{HttpRequest, HttpResponse};
    use newton_rounds::{Transcript, TranscriptError, record::exchanges_hash};
    let key = newton_keys::HpkeKey::from_ikm(&[7; 32]);
    let (task, instance) = (B256::repeat_byte(1), B256::repeat_byte(2));
    let exchanges = vec![(
        HttpRequest {
            url: "https://a.example/".to_owned(),
            method: "GET".to_owned(),
            headers: vec![("x-api-key".to_owned(), "hunter2".to_owned())],
            body: None,
        },
        Ok(HttpResponse {
            status: 200,
            headers: Vec::new(),
            body: b"{}".to_vec(),
        }),
    )];
    let sealed = Transcript::seal(&key.public_key(), task, instance, &exchanges).unwrap();
    let opened = sealed.open(&key, task, instance).unwrap();
    assert_eq!(exchanges_hash(&opened), exchanges_hash(&exchanges));
    assert_eq!(opened, exchanges);
    assert!(!String::from_utf8_lossy(&sealed.ciphertext).contains("hunter2"));
    assert_eq!(
        sealed.open(&key, instance, task),
        Err(TranscriptError::Open)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any subset of outputs that is a quorum, in any order: the same set gives the same digest, and another set another one.
    #[test]
    fn the_digest_follows_from_the_set(values in prop::collection::vec(95u32..105, 4), drop_last: bool, turn in 0usize..4) {
        let world = World::new(PRICE_POLICY, 4);
        let texts: Vec<String> = values.iter().map(u32::to_string).collect();
        let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
        let full = prices(&world, &refs);
        let mut turned = full.clone();
        turned.outputs.as_mut().unwrap().rotate_left(turn);
        let a = conclude(&world, &full).unwrap();
        let b = conclude(&world, &turned).unwrap();
        prop_assert_eq!(a.digest, b.digest);
        if drop_last {
            let fewer = conclude(&world, &prices(&world, &refs[..3])).unwrap();
            prop_assert_ne!(fewer.digest, a.digest);
        }
    }
}
