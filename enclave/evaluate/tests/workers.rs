//! Worker processes: the same answers as in process, and what happens when content kills one.

#![allow(clippy::unwrap_used)]

#[path = "common/bad_input.rs"]
mod bad_input;
mod common;
#[path = "common/components.rs"]
mod components;
#[path = "common/modules.rs"]
mod modules;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{bare, example, spend_limit};
use newton_evaluate::{
    ArtifactError, ArtifactKind, EvaluateError, Evaluator, Finality, MachineLimits, SecretBytes,
    transcript::{FetchError, HttpFetcher, HttpOutcome, HttpRequest, HttpResponse},
    worker::{Verdict, WorkerConfig, WorkerLimits, WorkerPool, worker_main},
};

const SHOW: &str = "package show\nwasm := data.wasm";

const TESTS: &[(&str, fn())] = &[
    (
        "a_worker_answers_as_this_process_does",
        a_worker_answers_as_this_process_does,
    ),
    ("artifacts_are_sent_once", artifacts_are_sent_once),
    ("verdicts_come_from_workers", verdicts_come_from_workers),
    (
        "secrets_are_checked_in_workers",
        secrets_are_checked_in_workers,
    ),
    (
        "a_memory_bomb_kills_a_worker_and_nothing_else",
        a_memory_bomb_kills_a_worker_and_nothing_else,
    ),
    ("deep_recursion_abstains", deep_recursion_abstains),
    (
        "a_request_that_overstays_is_ended",
        a_request_that_overstays_is_ended,
    ),
    ("busy_workers_refuse_in_time", busy_workers_refuse_in_time),
    ("workers_serve_side_by_side", workers_serve_side_by_side),
    ("http_is_asked_of_the_parent", http_is_asked_of_the_parent),
    ("a_used_up_worker_is_replaced", a_used_up_worker_is_replaced),
    ("a_worker_is_sealed", a_worker_is_sealed),
    ("files_are_out_of_reach", files_are_out_of_reach),
    (
        "a_program_that_is_no_worker_is_reported",
        a_program_that_is_no_worker_is_reported,
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments
        .first()
        .is_some_and(|argument| argument == "worker")
    {
        worker_main();
    }
    if arguments.iter().any(|argument| argument == "--list") {
        TESTS
            .iter()
            .chain(modules::TESTS)
            .chain(bad_input::TESTS)
            .for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let (mut passed, mut failed) = (0, 0);
    let all = TESTS.iter().chain(modules::TESTS).chain(bad_input::TESTS);
    for (name, test) in all {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let ok = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        *(if ok { &mut passed } else { &mut failed }) += 1;
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n"
    );
    ExitCode::from(u8::from(failed > 0))
}

fn limits() -> WorkerLimits {
    // This may run on a machine that is busy with builds.
    WorkerLimits::default().slowed(4)
}

fn pool(workers: usize, limits: WorkerLimits) -> WorkerPool {
    WorkerPool::spawn(config(workers, limits)).unwrap()
}

fn config(workers: usize, limits: WorkerLimits) -> WorkerConfig {
    // The measured, static binary can be put through the same tests: NEWTON_WORKER_EXE=<newton-appliance>.
    let exe = match std::env::var_os("NEWTON_WORKER_EXE") {
        Some(exe) => exe.into(),
        None => std::env::current_exe().unwrap(),
    };
    WorkerConfig {
        exe,
        arg: "worker".into(),
        workers,
        limits,
    }
}

fn a_worker_answers_as_this_process_does() {
    let (request, artifacts) = spend_limit();
    let here = Evaluator::new(MachineLimits::default())
        .unwrap()
        .evaluate(&request, &artifacts, None)
        .unwrap();
    let pool = pool(1, limits());
    let there = pool.evaluate(&request, &artifacts, None).unwrap();
    assert_eq!(there, here);
    assert!(there.allows());

    let (mut request, artifacts) = spend_limit();
    request.policy.params = b"{}".to_vec();
    let here = Evaluator::new(MachineLimits::default())
        .unwrap()
        .evaluate(&request, &artifacts, None)
        .unwrap_err();
    assert_eq!(pool.evaluate(&request, &artifacts, None).unwrap_err(), here);
    assert_eq!(here.name(), "ParamsSchemaViolation");
    assert_eq!(pool.stats().deaths, 0);
}

fn artifacts_are_sent_once() {
    let (request, artifacts) = spend_limit();
    let pool = pool(1, limits());
    pool.prewarm(request.data[0].wasm, &artifacts).unwrap();
    // The component's bytes went to a process of their own; a worker gets what came out of it.
    let sent = |pool: &WorkerPool| (pool.stats().artifacts_sent, pool.stats().modules_sent);
    assert_eq!(sent(&pool), (0, 1));
    pool.evaluate(&request, &artifacts, None).unwrap();
    // Rego, its schema, the component's params schema; the secrets schema is not needed without secrets.
    assert_eq!(sent(&pool), (3, 1));
    let started = Instant::now();
    pool.evaluate(&request, &artifacts, None).unwrap();
    println!("warm evaluation through a worker: {:?}", started.elapsed());
    assert_eq!(sent(&pool), (3, 1));

    let (request, mut artifacts) = spend_limit();
    artifacts.remove(&request.policy.rego);
    let fresh = self::pool(1, limits());
    let error = fresh.evaluate(&request, &artifacts, None).unwrap_err();
    assert_eq!(
        error,
        EvaluateError::ArtifactUnavailable {
            artifact: request.policy.rego
        }
    );
}

fn verdicts_come_from_workers() {
    let pool = pool(1, limits());
    let check =
        |kind, bytes: &[u8], entrypoint| pool.check_artifact(kind, bytes, entrypoint).unwrap();
    let rego = example("policy.rego");
    assert_eq!(
        check(ArtifactKind::PolicyRego, &rego, Some("spend_limit.allow")),
        Verdict::Accept
    );
    assert_eq!(
        check(ArtifactKind::PolicyRego, &rego, Some("spend_limit.missing")),
        Verdict::Reject(ArtifactError::EntrypointMissing {
            entrypoint: "spend_limit.missing".to_owned(),
            package: "spend_limit".to_owned()
        })
    );
    assert_eq!(
        check(
            ArtifactKind::PolicyParamsSchema,
            &example("params.schema.json"),
            None
        ),
        Verdict::Accept
    );
    assert_eq!(
        check(
            ArtifactKind::PolicyDataWasm,
            &example("spend-ledger.wasm"),
            None
        ),
        Verdict::Accept
    );
    assert!(matches!(
        check(ArtifactKind::PolicyDataWasm, &vec![0; 30 << 20], None),
        Verdict::Reject(ArtifactError::TooLarge { .. })
    ));
    assert_eq!(pool.stats().deaths, 0);
}

fn secrets_are_checked_in_workers() {
    let (request, artifacts) = spend_limit();
    let pool = pool(1, limits());
    let (id, schema) = (request.data[0].instance_id, request.data[0].secrets_schema);
    let check = |schema, text: &[u8]| {
        let secrets = SecretBytes::new(text.to_vec());
        pool.check_secrets(id, schema, &secrets, &artifacts)
    };
    check(schema, common::secrets().expose()).unwrap();
    let error = check(schema, br#"{"ledger_key":"hunter2"}"#).unwrap_err();
    let EvaluateError::SecretsSchemaViolation { violations, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(violations[0].instance_path, "/ledger_key");
    assert!(!format!("{error:?} {error}").contains("hunter2"));
    let error = check(schema, br#"{"ledger_key":"hunter2"#).unwrap_err();
    assert!(
        matches!(error, EvaluateError::InvalidJson { .. }),
        "{error}"
    );
    assert!(!format!("{error:?} {error}").contains("hunter2"));
    let absent = Some(alloy_primitives::B256::repeat_byte(9));
    let error = check(absent, b"{}").unwrap_err();
    assert_eq!(error.finality(), Finality::Abstain, "{error}");
}

fn a_memory_bomb_kills_a_worker_and_nothing_else() {
    let bomb = "package bomb\nimport rego.v1\n\
        x := [s | some a in numbers.range(1, 2000); some b in numbers.range(1, 2000); s := sprintf(\"%d-%d-%d\", [a, b, input.value])]";
    let (request, artifacts) = bare(bomb, "bomb.x", &[]);
    let mut limits = limits();
    limits.memory_bytes = 300 << 20;
    limits.machine.rego_wall = Duration::from_secs(120);
    limits.request_wall = Duration::from_secs(120);
    let pool = pool(1, limits);
    let error = pool.evaluate(&request, &artifacts, None).unwrap_err();
    let EvaluateError::WorkerDied { reason } = &error else {
        panic!("{error}")
    };
    assert!(reason.contains("signal 6"), "{reason}");
    assert_eq!(
        (error.finality(), error.signed_result()),
        (Finality::Abstain, None)
    );
    assert_eq!(pool.stats().deaths, 1);

    // The next request gets a fresh worker and the answer of before.
    let (request, artifacts) = spend_limit();
    let after = pool.evaluate(&request, &artifacts, None).unwrap();
    let here = Evaluator::new(MachineLimits::default())
        .unwrap()
        .evaluate(&request, &artifacts, None)
        .unwrap();
    assert_eq!(after, here);
}

fn deep_recursion_abstains() {
    let pool = pool(1, limits());
    let (request, artifacts) = bare(SHOW, "show.wasm", &[components::deep_recursion()]);
    let error = pool.evaluate(&request, &artifacts, None).unwrap_err();
    assert!(
        matches!(error, EvaluateError::StackExhausted { .. }),
        "{error}"
    );
    // Rules that reach themselves through data that only exists at run time.
    let rego = "package deep\nimport rego.v1\nx := data.deep[input.data] if true\ny := x";
    let (request, artifacts) = bare(rego, "deep.y", &[]);
    let outcome = pool.evaluate(&request, &artifacts, None);
    assert!(outcome.is_err(), "{outcome:?}");
    // Still serving.
    let (request, artifacts) = spend_limit();
    assert!(pool.evaluate(&request, &artifacts, None).unwrap().allows());
}

fn a_request_that_overstays_is_ended() {
    let mut limits = limits();
    limits.request_wall = Duration::from_millis(1_500);
    limits.compile_wall = Duration::from_millis(1);
    limits.machine.rego_wall = Duration::from_millis(1);
    limits.machine.component_wall = Duration::from_millis(1);
    let slow = "package slow\nimport rego.v1\nx := count([1 | some a in numbers.range(1, 3000); some b in numbers.range(1, 3000); a == b])";
    let (request, artifacts) = bare(slow, "slow.x", &[]);
    let pool = pool(1, limits);
    let error = pool.evaluate(&request, &artifacts, None).unwrap_err();
    assert!(
        matches!(error, EvaluateError::WallClockExceeded { .. }),
        "{error}"
    );

    // A schema whose validation takes exponential time has no clock of its own: the parent's is the last.
    let mut schema = "{\"$defs\":{\"n0\":{\"type\":\"string\"}".to_owned();
    for level in 1..40 {
        let below = level - 1;
        schema.push_str(&format!(
            ",\"n{level}\":{{\"anyOf\":[{{\"$ref\":\"#/$defs/n{below}\"}},{{\"$ref\":\"#/$defs/n{below}\",\"minLength\":1}}]}}"
        ));
    }
    schema.push_str("},\"$ref\":\"#/$defs/n39\"}");
    let (mut request, mut artifacts) = bare("package ok\nx := true", "ok.x", &[]);
    request.policy.params_schema = Some(common::add(&mut artifacts, schema.into_bytes()));
    request.policy.params = b"1".to_vec();
    let outcome = pool.evaluate(&request, &artifacts, None);
    // A validator that remembers may well be fast; what counts is that the answer comes in time and is not an approval.
    assert!(outcome.is_err(), "{outcome:?}");
    assert!(
        pool.evaluate(
            &bare("package ok\nx := true", "ok.x", &[]).0,
            &bare("package ok\nx := true", "ok.x", &[]).1,
            None
        )
        .unwrap()
        .allows()
    );
}

fn busy_workers_refuse_in_time() {
    let mut limits = limits();
    limits.queue_wall = Duration::from_millis(50);
    let pool = pool(1, limits);
    let (request, artifacts) = bare(SHOW, "show.wasm", &[components::endless()]);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| pool.evaluate(&request, &artifacts, None));
        while !pool.idle_process_ids().is_empty() {
            std::thread::yield_now();
        }
        // The endless component holds the only worker until its fuel is gone.
        let refused = pool
            .check_artifact(ArtifactKind::PolicyParamsSchema, b"{}", None)
            .unwrap_err();
        assert_eq!(refused, EvaluateError::WorkersBusy { waited_ms: 50 });
        assert!(matches!(
            first.join().unwrap(),
            Err(EvaluateError::ComponentLimitExceeded { .. })
        ));
    });
}

fn workers_serve_side_by_side() {
    let pool = pool(2, limits());
    let (request, artifacts) = spend_limit();
    let expected = pool.evaluate(&request, &artifacts, None).unwrap();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    (0..5)
                        .map(|_| pool.evaluate(&request, &artifacts, None))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for thread in all {
            for outcome in thread.join().unwrap() {
                assert_eq!(outcome.unwrap(), expected);
            }
        }
    });
    assert_eq!((pool.stats().requests, pool.stats().deaths), (41, 0));
}

struct Canned;

impl HttpFetcher for Canned {
    fn fetch(&self, request: &HttpRequest, _: u64) -> Result<HttpOutcome, FetchError> {
        assert_eq!(request.url, "https://a.example/");
        Ok(Ok(HttpResponse {
            status: 200,
            headers: Vec::new(),
            body: br#"{"price":7}"#.to_vec(),
        }))
    }
}

fn http_is_asked_of_the_parent() {
    let pool = pool(1, limits());
    let (request, artifacts) = bare(SHOW, "show.wasm", &[components::fetching(3, false)]);
    let evaluation = pool.evaluate(&request, &artifacts, Some(&Canned)).unwrap();
    assert_eq!(evaluation.result, br#"{"price":7}"#);
    assert_eq!(evaluation.data[0].exchanges.len(), 3);
    let error = pool.evaluate(&request, &artifacts, None).unwrap_err();
    assert_eq!(error.name(), "HttpUnavailable");
}

fn a_used_up_worker_is_replaced() {
    let mut limits = limits();
    // Half of one second, rounded down: every worker is used up after its first request.
    limits.cpu_seconds = 1;
    let pool = pool(1, limits);
    let before = pool.idle_process_ids();
    assert_eq!(
        pool.check_artifact(ArtifactKind::PolicyParamsSchema, b"{}", None)
            .unwrap(),
        Verdict::Accept
    );
    assert_eq!(
        pool.check_artifact(ArtifactKind::PolicyParamsSchema, b"{}", None)
            .unwrap(),
        Verdict::Accept
    );
    assert_eq!((pool.stats().retired, pool.stats().deaths), (2, 0));
    assert_ne!(pool.idle_process_ids(), before);
}

fn a_worker_is_sealed() {
    let pool = pool(1, limits());
    let id = pool.idle_process_ids()[0];
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("{name}: {status}"))
            .trim()
            .to_owned()
    };
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("NoNewPrivs:"), "1");
    for task in std::fs::read_dir(format!("/proc/{id}/task")).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        assert!(status.contains("Seccomp:\t2"), "{status}");
    }
    let mut open: Vec<String> = std::fs::read_dir(format!("/proc/{id}/fd"))
        .unwrap()
        .map(|entry| {
            std::fs::read_link(entry.unwrap().path())
                .unwrap()
                .display()
                .to_string()
        })
        .collect();
    open.sort();
    assert_eq!(open[..3], ["/dev/null", "/dev/null", "/dev/null"]);
    // A statically linked program keeps the random device open beside the socket.
    open.retain(|target| !target.starts_with("/dev/"));
    assert!(
        matches!(&open[..], [socket] if socket.starts_with("socket:")),
        "{open:?}"
    );
    assert_eq!(std::fs::read(format!("/proc/{id}/environ")).unwrap(), b"");
    let limits = std::fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
    let data = limits
        .lines()
        .find(|line| line.starts_with("Max data size"))
        .unwrap();
    assert!(data.contains("1073741824"), "{data}");
}

fn files_are_out_of_reach() {
    // "Local" makes the date library look for the machine's time zone: refused, so it is UTC everywhere.
    let rego = "package zone\nx := time.clock([0, \"Local\"])";
    let (request, artifacts) = bare(rego, "zone.x", &[]);
    let pool = pool(1, limits());
    assert_eq!(
        pool.evaluate(&request, &artifacts, None).unwrap().result,
        b"[0,0,0]"
    );
    assert_eq!(pool.stats().deaths, 0);
}

fn a_program_that_is_no_worker_is_reported() {
    let config = WorkerConfig {
        exe: "/bin/true".into(),
        arg: "worker".into(),
        workers: 1,
        limits: limits(),
    };
    let Err(error) = WorkerPool::spawn(config) else {
        panic!("a worker came up")
    };
    assert!(error.to_string().contains("exit status 0"), "{error}");
    let config = WorkerConfig {
        exe: "/nonexistent".into(),
        arg: "worker".into(),
        workers: 1,
        limits: limits(),
    };
    assert!(WorkerPool::spawn(config).is_err());
    let _: Arc<dyn HttpFetcher> = Arc::new(Canned);
}
