//! Components in process: interfaces, limits, determinism, and the ingest check.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/components.rs"]
mod components;

use std::sync::{Arc, Mutex};

use alloy_primitives::B256;
use common::{NOW, bare};
use components::Text;
use newton_evaluate::{
    ArtifactError, ArtifactKind, Diagnostic, EvaluateError, Evaluation, Evaluator, Finality,
    MachineLimits, Subject, check_artifact,
    component::check_component,
    error::ComponentLimit,
    transcript::{
        Exchange, FetchError, HttpFetcher, HttpOutcome, HttpRequest, HttpResponse, transcript_hash,
    },
};

const SHOW: &str = "package show\nwasm := data.wasm\nold := data.data";
const INSTANCE: B256 = B256::repeat_byte(0xa1);

fn run(component: Vec<u8>) -> Result<Evaluation, EvaluateError> {
    let (request, artifacts) = bare(SHOW, "show.wasm", &[component]);
    Evaluator::new(MachineLimits::default())
        .unwrap()
        .evaluate(&request, &artifacts, None)
}

fn shown(component: Vec<u8>) -> String {
    String::from_utf8(run(component).unwrap().result).unwrap()
}

#[test]
fn outputs_are_merged_in_template_order() {
    let (mut request, artifacts) = bare(
        SHOW,
        "data.show.old",
        &[
            components::constant(r#"{"a":1,"shared":"first"}"#),
            components::constant(r#"{"b":2,"shared":"second"}"#),
        ],
    );
    // The order in which instances are given must not matter.
    request.data.reverse();
    let evaluation = Evaluator::new(MachineLimits::default())
        .unwrap()
        .evaluate(&request, &artifacts, None)
        .unwrap();
    assert_eq!(evaluation.result, br#"{"a":1,"b":2,"shared":"second"}"#);
    assert_eq!(
        evaluation.diagnostics,
        [Diagnostic::DataKeyCollision {
            key: "shared".to_owned(),
            replaced: INSTANCE,
            by: B256::repeat_byte(0xa2)
        }]
    );
    assert_eq!(evaluation.data[0].template_id, B256::repeat_byte(1));
}

#[test]
fn wasm_args_pass_through_untouched_unless_there_are_params() {
    let (mut request, mut artifacts) = bare(SHOW, "show.wasm", &[components::echo()]);
    let evaluator = Evaluator::new(MachineLimits::default()).unwrap();
    request.wasm_args = br#"{ "z" : 1e3, "a":2 }"#.to_vec();
    let evaluation = evaluator.evaluate(&request, &artifacts, None).unwrap();
    assert_eq!(evaluation.result, br#"{"a":2,"z":1000}"#);

    request.data[0].params = br#"{"limit":340282366920938463463374607431768211456}"#.to_vec();
    request.data[0].params_schema = Some(common::add(&mut artifacts, &br#"{"type":"object"}"#[..]));
    let evaluation = evaluator.evaluate(&request, &artifacts, None).unwrap();
    assert_eq!(
        String::from_utf8(evaluation.result).unwrap(),
        r#"{"_params":{"limit":340282366920938463463374607431768211456},"a":2,"z":1000}"#
    );

    request.wasm_args = Vec::new();
    request.data[0].params_schema = None;
    assert_eq!(
        evaluator
            .evaluate(&request, &artifacts, None)
            .unwrap()
            .result,
        b"{}"
    );
}

#[test]
fn fuel_memory_and_traps_are_final() {
    let error = run(components::endless()).unwrap_err();
    assert_eq!(
        error,
        EvaluateError::ComponentLimitExceeded {
            instance: INSTANCE,
            limit: ComponentLimit::Fuel,
            allowed: 1_000_000_000
        }
    );
    assert_eq!(error.finality(), Finality::Final);
    let error = run(components::memory_bomb()).unwrap_err();
    assert_eq!(
        error,
        EvaluateError::ComponentLimitExceeded {
            instance: INSTANCE,
            limit: ComponentLimit::Memory,
            allowed: 256 << 20
        }
    );
    let error = run(components::trap()).unwrap_err();
    assert!(
        matches!(&error, EvaluateError::DataProviderFailed { .. }),
        "{error}"
    );
    assert_eq!(error.finality(), Finality::Final);
    let error = run(components::failing("price feed is closed")).unwrap_err();
    assert_eq!(
        error,
        EvaluateError::DataProviderFailed {
            instance: INSTANCE,
            reason: "price feed is closed".to_owned()
        }
    );
}

#[test]
fn stack_and_wall_clock_abstain() {
    let error = run(components::deep_recursion()).unwrap_err();
    assert!(
        matches!(error, EvaluateError::StackExhausted { .. }),
        "{error}"
    );
    assert_eq!(error.finality(), Finality::Abstain);

    let (request, artifacts) = bare(SHOW, "show.wasm", &[components::endless()]);
    let limits = MachineLimits {
        component_wall: std::time::Duration::from_millis(20),
        ..MachineLimits::default()
    };
    let error = Evaluator::new(limits)
        .unwrap()
        .evaluate(&request, &artifacts, None)
        .unwrap_err();
    assert!(
        matches!(error, EvaluateError::WallClockExceeded { limit_ms: 20, .. }),
        "{error}"
    );
}

#[test]
fn outputs_must_be_json_objects() {
    let error = run(components::constant("[1]")).unwrap_err();
    assert_eq!(
        error,
        EvaluateError::NotAnObject {
            subject: Subject::Output(INSTANCE),
            got: "array".to_owned()
        }
    );
    let error = run(components::constant(r#"{"a":1,"a":2}"#)).unwrap_err();
    assert!(
        matches!(
            error,
            EvaluateError::InvalidJson {
                subject: Subject::Output(_),
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(error.finality(), Finality::Final);
}

#[test]
fn clocks_and_randomness_are_pinned() {
    let monotonic = components::word_of("wasi:clocks/monotonic-clock@0.2.12", "now");
    let expected = format!("{:016x}", u128::from(NOW) * 1_000_000_000);
    assert_eq!(shown(monotonic), format!(r#"{{"n":"{expected}"}}"#));

    for interface in ["wasi:random/random@0.2.3", "wasi:random/insecure@0.2.0"] {
        let function = if interface.contains("insecure") {
            "get-insecure-random-u64"
        } else {
            "get-random-u64"
        };
        let component = components::word_of(interface, function);
        let first = shown(component.clone());
        assert_eq!(shown(component.clone()), first);
        // Another task draws other numbers.
        let (mut request, artifacts) = bare(SHOW, "show.wasm", &[component]);
        request.task.task_id = B256::repeat_byte(0x02);
        let other = Evaluator::new(MachineLimits::default())
            .unwrap()
            .evaluate(&request, &artifacts, None)
            .unwrap();
        assert_ne!(other.result, first.as_bytes());
    }
}

#[test]
fn the_rest_of_wasi_links_and_ends_the_run_when_called() {
    let error = run(components::socket()).unwrap_err();
    let EvaluateError::DataProviderFailed { reason, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(
        reason,
        "wasi:sockets/instance-network@0.2.9#instance-network is not provided to data components"
    );
}

/// Answers every request with its number.
struct Numbered(Mutex<u32>);

impl HttpFetcher for Numbered {
    fn fetch(&self, request: &HttpRequest, max_body: u64) -> Result<HttpOutcome, FetchError> {
        assert_eq!(
            (request.method.as_str(), request.url.as_str()),
            ("GET", "https://a.example/")
        );
        assert_eq!((request.body.as_ref(), max_body), (None, 1 << 20));
        let mut count = self.0.lock().unwrap();
        *count += 1;
        let body = format!(r#"{{"request":{}}}"#, *count).into_bytes();
        Ok(Ok(HttpResponse {
            status: 200,
            headers: vec![("a".to_owned(), "b".to_owned())],
            body,
        }))
    }
}

#[test]
fn http_goes_through_the_fetcher_and_into_the_transcript() {
    for old in [false, true] {
        let (request, artifacts) = bare(SHOW, "show.wasm", &[components::fetching(2, old)]);
        let fetcher: Arc<dyn HttpFetcher> = Arc::new(Numbered(Mutex::new(0)));
        let evaluation = Evaluator::new(MachineLimits::default())
            .unwrap()
            .evaluate(&request, &artifacts, Some(&fetcher))
            .unwrap();
        assert_eq!(evaluation.result, br#"{"request":2}"#);
        let asked = HttpRequest {
            url: "https://a.example/".to_owned(),
            method: "GET".to_owned(),
            headers: Vec::new(),
            body: None,
        };
        let answered = |number: u32| {
            Ok(HttpResponse {
                status: 200,
                headers: vec![("a".to_owned(), "b".to_owned())],
                body: format!(r#"{{"request":{number}}}"#).into_bytes(),
            })
        };
        let exchanges = vec![
            Exchange::new(&asked, &answered(1)),
            Exchange::new(&asked, &answered(2)),
        ];
        assert_eq!(
            evaluation.data[0].transcript_hash,
            transcript_hash(&exchanges)
        );
        assert_eq!(evaluation.data[0].exchanges, exchanges);
    }
}

#[test]
fn http_has_its_limits() {
    let error = run(components::fetching(1, false)).unwrap_err();
    let unavailable = EvaluateError::HttpUnavailable {
        instance: INSTANCE,
        reason: FetchError::absent().to_string(),
    };
    assert_eq!(error, unavailable);
    assert_eq!(error.finality(), Finality::Abstain);

    let (request, artifacts) = bare(SHOW, "show.wasm", &[components::fetching(51, false)]);
    let fetcher: Arc<dyn HttpFetcher> = Arc::new(Numbered(Mutex::new(0)));
    let error = Evaluator::new(MachineLimits::default())
        .unwrap()
        .evaluate(&request, &artifacts, Some(&fetcher))
        .unwrap_err();
    assert_eq!(
        error,
        EvaluateError::ComponentLimitExceeded {
            instance: INSTANCE,
            limit: ComponentLimit::HttpRequests,
            allowed: 50
        }
    );
}

#[test]
fn output_has_its_limit() {
    // The last two are more than is copied out of a component at all.
    for (bytes, limit, allowed) in [
        ((4 << 20) + 1, ComponentLimit::Output, 4 << 20),
        ((16 << 20) + 1, ComponentLimit::Copied, 16 << 20),
        (100 << 20, ComponentLimit::Copied, 16 << 20),
    ] {
        assert_eq!(
            run(components::long(bytes)).unwrap_err(),
            EvaluateError::ComponentLimitExceeded {
                instance: INSTANCE,
                limit,
                allowed
            },
            "{bytes}"
        );
    }
    // Spaces up to the limit are read; they are no JSON.
    let error = run(components::long(4 << 20)).unwrap_err();
    assert!(
        matches!(error, EvaluateError::InvalidJson { .. }),
        "{error}"
    );
}

#[test]
fn precompiled_components_are_the_same_on_every_run() {
    let evaluator = Evaluator::new(MachineLimits::default()).unwrap();
    let other = Evaluator::new(MachineLimits::default()).unwrap();
    let bytes = components::echo();
    assert_eq!(
        evaluator.components().fingerprint(),
        other.components().fingerprint()
    );
    assert_eq!(
        evaluator.components().precompile(&bytes).unwrap(),
        other.components().precompile(&bytes).unwrap()
    );
}

#[test]
fn the_ingest_check_accepts_what_runs() {
    for component in [
        common::example("spend-ledger.wasm"),
        components::echo(),
        components::fetching(1, true),
        components::socket(),
    ] {
        check_component(&component).unwrap();
    }
}

#[test]
fn the_ingest_check_names_what_it_refuses() {
    let importing = |import: &str| {
        let imports = format!("(import \"{import}\" (instance))");
        Text {
            imports: &imports,
            ..Text::default()
        }
        .build()
    };
    for (import, reason) in [
        ("newton:provider/tlsn@0.2.0", "tlsn"),
        ("newton:provider/http@0.3.0", "0.1.0 and 0.2.0"),
        ("newton:provider/files@0.2.0", "has the interfaces"),
        ("wasi:http/outgoing-handler@0.2.0", "newton:provider/http"),
        ("wasi:io/streams@0.3.0", "WASI 0.2"),
        ("wasi:io/streams@0.2.0-rc", "WASI 0.2"),
        ("evil:host/escape@1.0.0", "no such interface"),
        ("newton:provider/http", "no version"),
    ] {
        let error = check_component(&importing(import)).unwrap_err();
        let ArtifactError::ForbiddenImport {
            import: named,
            reason: given,
        } = &error
        else {
            panic!("{import}: {error}")
        };
        assert_eq!(named, import);
        assert!(given.contains(reason), "{import}: {given}");
    }
    let function = Text {
        imports: "(import \"log\" (func))",
        ..Text::default()
    }
    .build();
    assert!(matches!(
        check_component(&function),
        Err(ArtifactError::ForbiddenImport { .. })
    ));

    let core = wat::parse_str("(module)").unwrap();
    assert_eq!(check_component(&core), Err(ArtifactError::CoreModule));
    assert!(matches!(
        check_component(b"\0asm"),
        Err(ArtifactError::InvalidComponent { .. })
    ));
    assert!(matches!(
        check_component(b""),
        Err(ArtifactError::InvalidComponent { .. })
    ));
    assert!(matches!(
        check_component(b"not wasm at all"),
        Err(ArtifactError::InvalidComponent { .. })
    ));
    assert_eq!(
        check_component(&vec![0; 60 << 20]),
        Err(ArtifactError::TooLarge {
            got: 60 << 20,
            limit: 24 << 20
        })
    );
    assert_eq!(
        check_component(&wat::parse_str("(component)").unwrap()),
        Err(ArtifactError::RunMissing)
    );
    let wrong = wat::parse_str(
        r#"(component
          (core module $m (func (export "run") (param i32) (result i32) (local.get 0)))
          (core instance $i (instantiate $m))
          (func (export "run") (param "input" u32) (result u32) (canon lift (core func $i "run"))))"#,
    )
    .unwrap();
    assert_eq!(
        check_component(&wrong),
        Err(ArtifactError::RunType {
            got: "func(input: u32) -> u32".to_owned()
        })
    );
    let mut truncated = components::echo();
    truncated.truncate(truncated.len() - 3);
    assert!(matches!(
        check_component(&truncated),
        Err(ArtifactError::InvalidComponent { .. })
    ));
    let reference = wat::parse_str("(component (core module (table 1 externref)))").unwrap();
    assert!(matches!(
        check_component(&reference),
        Err(ArtifactError::InvalidComponent { .. })
    ));
    // Shared memory is not among the accepted features.
    let threads = wat::parse_str("(component (core module (memory 1 1 shared)))").unwrap();
    assert!(matches!(
        check_component(&threads),
        Err(ArtifactError::InvalidComponent { .. })
    ));
}

#[test]
fn only_rego_takes_an_entrypoint() {
    // Rego that was supplied on its own is of no template yet.
    let rego = ArtifactKind::PolicyRego;
    check_artifact(rego, b"package a\nb := 1", None).unwrap();
    for (source, needle) in [
        ("package a", "no rule"),
        ("package a\nf(x) := x", "no rule"),
        ("package a\nb := 1 +", "policy.rego:2"),
        ("package a\nb := rand.intn(\"x\", 2)", "rand.intn"),
    ] {
        let error = check_artifact(rego, source.as_bytes(), None).unwrap_err();
        assert!(error.to_string().contains(needle), "{source}: {error}");
    }
    assert_eq!(
        check_artifact(ArtifactKind::PolicyParamsSchema, b"{}", Some("a.b")),
        Err(ArtifactError::EntrypointUse {
            kind: ArtifactKind::PolicyParamsSchema
        })
    );
    check_artifact(ArtifactKind::PolicyDataSecretsSchema, b"{}", None).unwrap();
}
