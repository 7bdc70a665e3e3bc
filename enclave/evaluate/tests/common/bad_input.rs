//! The list of bad input of the issue: each gets an error of its own in bounded time, costs no worker unless it must, and the next
//! request is served.

use std::time::Duration;

use newton_evaluate::{
    ArtifactError, ArtifactKind, EvaluateError, Finality, SecretBytes,
    worker::{Verdict, WorkerPool},
};

use super::{
    SHOW,
    common::{self, add, bare, spend_limit},
    components, config, limits,
};

pub const TESTS: &[(&str, fn())] = &[
    (
        "bad_components_are_rejected_by_name",
        bad_components_are_rejected_by_name,
    ),
    (
        "bad_texts_are_rejected_by_name",
        bad_texts_are_rejected_by_name,
    ),
    (
        "bad_documents_are_final_by_name",
        bad_documents_are_final_by_name,
    ),
    (
        "greedy_components_are_final_by_name",
        greedy_components_are_final_by_name,
    ),
    (
        "policies_without_a_decision_allow_nothing",
        policies_without_a_decision_allow_nothing,
    ),
    ("a_megabyte_of_params_passes", a_megabyte_of_params_passes),
    ("greed_of_one_delays_nobody", greed_of_one_delays_nobody),
    (
        "a_request_too_large_costs_no_worker",
        a_request_too_large_costs_no_worker,
    ),
];

fn pool() -> WorkerPool {
    WorkerPool::spawn(config(1, limits())).unwrap()
}

fn still_serves(pool: &WorkerPool) {
    let (request, artifacts) = spend_limit();
    assert!(pool.evaluate(&request, &artifacts, None).unwrap().allows());
    assert_eq!(pool.stats().deaths, 0);
}

fn rejected(pool: &WorkerPool, kind: ArtifactKind, bytes: &[u8]) -> ArtifactError {
    let entrypoint = (kind == ArtifactKind::PolicyRego).then_some("p.allow");
    match pool.check_artifact(kind, bytes, entrypoint).unwrap() {
        Verdict::Reject(reason) => reason,
        Verdict::Accept => panic!("{kind:?} of {} bytes was accepted", bytes.len()),
    }
}

fn bad_components_are_rejected_by_name() {
    let pool = pool();
    let reject = |bytes: &[u8]| rejected(&pool, ArtifactKind::PolicyDataWasm, bytes).name();
    assert_eq!(reject(b""), "InvalidComponent");
    assert_eq!(reject(b"#!/bin/sh\n"), "InvalidComponent");
    assert_eq!(reject(b"\0asm\x01\0\0\0"), "CoreModule");
    // Cut off in the middle.
    let whole = common::example("spend-ledger.wasm");
    assert_eq!(reject(&whole[..whole.len() / 2]), "InvalidComponent");
    // 60 MiB: more than a frame to a worker holds.
    let mut large = whole;
    large.resize(60 << 20, 0);
    assert_eq!(
        rejected(&pool, ArtifactKind::PolicyDataWasm, &large),
        ArtifactError::TooLarge {
            got: 60 << 20,
            limit: 24 << 20
        }
    );
    still_serves(&pool);
}

fn deep(levels: usize) -> Vec<u8> {
    [vec![b'['; levels], vec![b']'; levels]].concat()
}

fn bad_texts_are_rejected_by_name() {
    let pool = pool();
    let schema = |bytes: &[u8]| rejected(&pool, ArtifactKind::PolicyParamsSchema, bytes).name();
    for text in [
        &deep(10_000)[..],
        br#"{"type":"object","type":"object"}"#,
        br#"{"minimum":NaN}"#,
        b"{\"title\":\"\xff\"}",
        b"",
    ] {
        let name = schema(text);
        assert!(matches!(name, "NotJson" | "NotUtf8"), "{name}");
    }
    let rego = |bytes: &[u8]| rejected(&pool, ArtifactKind::PolicyRego, bytes).name();
    assert_eq!(rego(b"package p\nallow := \"\xff\""), "NotUtf8");
    assert_eq!(rego(b""), "InvalidRego");
    let nested = [&b"package p\nallow := "[..], &deep(10_000)].concat();
    assert_eq!(rego(&nested), "InvalidRego");
    assert_eq!(rego(&vec![b' '; 60 << 20]), "ArtifactTooLarge");
    still_serves(&pool);
}

fn bad_documents_are_final_by_name() {
    let pool = pool();
    let large = [b"{\"a\":\"", &vec![b'x'; 1 << 20][..], b"\"}"].concat();
    let documents: [(&[u8], &str); 6] = [
        (&deep(10_000), "InvalidJson"),
        (br#"{"daily_limit":1,"daily_limit":2}"#, "InvalidJson"),
        (b"{\"a\":\"\xff\"}", "InvalidJson"),
        (br#"{"a":NaN}"#, "InvalidJson"),
        (br#"{"a":1e9999}"#, "InvalidJson"),
        (&large, "DocumentTooLarge"),
    ];
    for (document, name) in documents {
        for place in 0..3 {
            let (mut request, artifacts) = spend_limit();
            let document = document.to_vec();
            match place {
                0 => request.policy.params = document,
                1 => request.data[0].params = document,
                _ => request.wasm_args = document,
            }
            let error = pool.evaluate(&request, &artifacts, None).unwrap_err();
            let shown = String::from_utf8_lossy(
                &request.policy.params[..40.min(request.policy.params.len())],
            )
            .into_owned();
            assert_eq!(
                (error.name(), error.finality()),
                (name, Finality::Final),
                "{place} {shown}: {error}"
            );
        }
    }
    // Secrets of the wrong shape, and nothing of them in the error.
    for secrets in [
        &b"[\"hunter2\"]"[..],
        b"\"hunter2\"",
        b"{\"ledger_key\":7}",
        b"hunter2",
    ] {
        let (mut request, artifacts) = spend_limit();
        request.data[0].secrets = Some(SecretBytes::new(secrets.to_vec()));
        let error = pool.evaluate(&request, &artifacts, None).unwrap_err();
        assert!(
            matches!(error.name(), "SecretsSchemaViolation" | "InvalidJson"),
            "{error}"
        );
        assert!(!format!("{error:?} {error}").contains("hunter2"));
    }
    still_serves(&pool);
}

fn greedy_components_are_final_by_name() {
    let pool = pool();
    for (component, name, about) in [
        (components::endless(), "ComponentLimitExceeded", "fuel"),
        (
            components::memory_bomb(),
            "ComponentLimitExceeded",
            "memory",
        ),
        (
            components::long((4 << 20) + 1),
            "ComponentLimitExceeded",
            "output",
        ),
        (
            components::constant(&"[".repeat(10_000)),
            "InvalidJson",
            "output",
        ),
        (
            components::constant(r#"{"a":1,"a":2}"#),
            "InvalidJson",
            "output",
        ),
        (
            components::constant(r#"{"a":NaN}"#),
            "InvalidJson",
            "output",
        ),
        (components::constant("true"), "NotAnObject", "output"),
        (components::trap(), "DataProviderError", "unreachable"),
    ] {
        let (request, artifacts) = bare(SHOW, "show.wasm", &[component]);
        let error = pool.evaluate(&request, &artifacts, None).unwrap_err();
        assert_eq!(
            (error.name(), error.finality()),
            (name, Finality::Final),
            "{error}"
        );
        assert!(error.to_string().contains(about), "{error}");
    }
    let (request, artifacts) = bare(SHOW, "show.wasm", &[components::deep_recursion()]);
    let error = pool.evaluate(&request, &artifacts, None).unwrap_err();
    assert_eq!(
        (error.name(), error.finality()),
        ("StackExhausted", Finality::Abstain)
    );
    still_serves(&pool);
}

fn policies_without_a_decision_allow_nothing() {
    let pool = pool();
    let run = |rego: &str, entrypoint: &str| {
        let (request, artifacts) = bare(rego, entrypoint, &[]);
        pool.evaluate(&request, &artifacts, None)
    };
    let error = run(
        "package p\nimport rego.v1\nallow if input.value == -1",
        "p.allow",
    )
    .unwrap_err();
    assert_eq!(
        (error.name(), error.finality()),
        ("PolicyResultUndefined", Finality::Final)
    );
    // Any JSON value is a result (design 4b); only `true` allows.
    for (value, canonical) in [
        ("\"true\"", "\"true\""),
        ("1", "1"),
        ("[true]", "[true]"),
        ("null", "null"),
    ] {
        let evaluation = run(&format!("package p\nallow := {value}"), "p.allow").unwrap();
        assert_eq!(evaluation.result, canonical.as_bytes());
        assert!(!evaluation.allows());
    }
    still_serves(&pool);
}

fn a_megabyte_of_params_passes() {
    let pool = pool();
    let (mut request, artifacts) = bare("package p\nallow := count(data.params.a)", "p.allow", &[]);
    let frame = br#"{"a":""}"#.len();
    let filler = vec![b'x'; (1 << 20) - frame];
    request.policy.params = [b"{\"a\":\"", &filler[..], b"\"}"].concat();
    let evaluation = pool.evaluate(&request, &artifacts, None).unwrap();
    assert_eq!(evaluation.result, filler.len().to_string().as_bytes());
    still_serves(&pool);
}

fn greed_of_one_delays_nobody() {
    let pool = WorkerPool::spawn(config(2, limits())).unwrap();
    let (greedy, artifacts) = bare(SHOW, "show.wasm", &[components::endless()]);
    let (small, others) = spend_limit();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| pool.evaluate(&greedy, &artifacts, None));
        while pool.stats().idle == 2 && !first.is_finished() {
            std::thread::yield_now();
        }
        for _ in 0..5 {
            assert!(pool.evaluate(&small, &others, None).unwrap().allows());
        }
        let error = first.join().unwrap().unwrap_err();
        assert_eq!(error.name(), "ComponentLimitExceeded");
    });
    assert_eq!(pool.stats().deaths, 0);
}

fn a_request_too_large_costs_no_worker() {
    let mut limits = limits();
    limits.request_wall = limits.request_wall.max(Duration::from_secs(60));
    let pool = WorkerPool::spawn(config(1, limits)).unwrap();
    let before = pool.idle_process_ids();
    let (mut request, mut artifacts) = spend_limit();
    request.wasm_args = vec![b' '; 60 << 20];
    let error = pool.evaluate(&request, &artifacts, None).unwrap_err();
    assert!(matches!(error, EvaluateError::Internal { .. }), "{error}");
    assert_eq!(pool.idle_process_ids(), before);
    // Nor an artifact that no frame holds.
    let (mut request, _) = spend_limit();
    request.policy.rego = add(&mut artifacts, vec![b' '; 60 << 20]);
    let error = pool.evaluate(&request, &artifacts, None).unwrap_err();
    assert_eq!(error.finality(), Finality::Abstain, "{error}");
    assert_eq!(pool.idle_process_ids(), before);
    still_serves(&pool);
}
