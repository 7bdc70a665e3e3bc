//! Whole evaluations in process: the example, and every error in its place.

#![allow(clippy::unwrap_used)]

mod common;

use alloy_primitives::{Address, B256, U256, keccak256};
use common::{NOW, bare, intent, secrets, spend_limit};
use newton_evaluate::{EvaluateError, Evaluation, Evaluator, Finality, MachineLimits, Subject};

const MAC_30: &str = "8f709356bbac8c35156911d0fbd3555b612a4ac4fe1de65ee1be12e95692b410";
const MAC_30_1: &str = "232f48c8ef0363eed57a37cfb93ff33d96ae88cece7b63078367b2c8ff6670e0";
const MAC_OLD: &str = "f03c82ff47c9783b501c2cb488d505966f5bae7bee1cd22ad4a696bfb8c7b703";

fn evaluator() -> Evaluator {
    Evaluator::new(MachineLimits::default()).unwrap()
}

fn run(
    request: &newton_evaluate::EvaluateRequest,
    artifacts: &common::Artifacts,
) -> Result<Evaluation, EvaluateError> {
    evaluator().evaluate(request, artifacts, None)
}

#[test]
fn a_small_payment_is_allowed_without_a_statement() {
    let (request, artifacts) = spend_limit();
    let evaluation = run(&request, &artifacts).unwrap();
    assert!(evaluation.allows());
    assert_eq!(evaluation.result_hash, keccak256("true"));
    let output = std::str::from_utf8(&evaluation.data[0].output).unwrap();
    assert_eq!(
        output,
        r#"{"spend_ledger":{"error":"no secrets are stored for this data instance"}}"#
    );
    assert_eq!(evaluation.data[0].output_hash, keccak256(output));
    assert!(evaluation.diagnostics.is_empty());
    println!("fuel {}", evaluation.data[0].fuel_used);
}

#[test]
fn what_rego_saw_is_given_to_those_who_ask() {
    let (mut request, artifacts) = spend_limit();
    let plain = run(&request, &artifacts).unwrap();
    assert_eq!(plain.seen, None);
    request.explain = true;
    let explained = run(&request, &artifacts).unwrap();
    let seen = explained.seen.clone().unwrap();
    assert_eq!(
        Evaluation {
            seen: None,
            ..explained
        },
        plain
    );
    assert_eq!(seen.wasm, plain.data[0].output);
    let input = String::from_utf8(seen.input).unwrap();
    assert!(input.contains(r#""name":"transfer""#), "{input}");
    let params = String::from_utf8(seen.params).unwrap();
    assert!(params.starts_with(r#"{"daily_limit":"#), "{params}");
}

#[test]
fn a_payment_above_the_limit_is_denied() {
    let (mut request, artifacts) = spend_limit();
    request.intent = intent("intents/deny.json");
    let evaluation = run(&request, &artifacts).unwrap();
    assert_eq!(evaluation.result, b"false");
}

#[test]
fn a_large_payment_needs_an_authentic_statement() {
    let statement = |spent: &str, issued_at: u64, mac: &str| {
        format!(
            r#"{{"statement":{{"account":"0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266","spent":"{spent}","issued_at":{issued_at}}},"mac":"{mac}"}}"#
        )
        .into_bytes()
    };
    let cases = [
        // HMAC-SHA256 by Python's hmac module over the example's key.
        ("30000000000000000000", NOW - 60, MAC_30, "true"),
        ("30000000000000000001", NOW - 60, MAC_30_1, "false"),
        ("30000000000000000000", NOW - 60, MAC_30_1, "false"),
        ("0", NOW - 7200, MAC_OLD, "false"),
    ];
    for (spent, issued_at, mac, expected) in cases {
        let (mut request, artifacts) = spend_limit();
        request.intent = intent("intents/needs-statement.json");
        request.data[0].secrets = Some(secrets());
        request.wasm_args = statement(spent, issued_at, mac);
        let evaluation = run(&request, &artifacts).unwrap();
        assert_eq!(
            std::str::from_utf8(&evaluation.result).unwrap(),
            expected,
            "{}",
            String::from_utf8_lossy(&evaluation.data[0].output)
        );
    }
}

#[test]
fn the_same_request_gives_the_same_bytes() {
    let (request, artifacts) = spend_limit();
    let one = evaluator();
    let first = one.evaluate(&request, &artifacts, None).unwrap();
    // Warm, and by another engine.
    assert_eq!(one.evaluate(&request, &artifacts, None).unwrap(), first);
    assert_eq!(run(&request, &artifacts).unwrap(), first);
}

#[test]
fn warm_evaluations_ask_for_no_bytes() {
    let (request, artifacts) = spend_limit();
    let evaluator = evaluator();
    evaluator.evaluate(&request, &artifacts, None).unwrap();
    let empty = common::Artifacts::new();
    assert!(evaluator.evaluate(&request, &empty, None).unwrap().allows());
}

#[test]
fn instances_must_match_the_template() {
    let (mut request, artifacts) = spend_limit();
    request.policy.data_template_refs = vec![B256::repeat_byte(0x99)];
    let error = run(&request, &artifacts).unwrap_err();
    assert!(
        matches!(error, EvaluateError::PolicyDataKindMismatch { .. }),
        "{error}"
    );
    assert_eq!(error.name(), "PolicyDataKindMismatch");

    let (mut request, artifacts) = spend_limit();
    request.data[0].client = Address::repeat_byte(0xc2);
    assert!(matches!(
        run(&request, &artifacts),
        Err(EvaluateError::PolicyDataKindMismatch { .. })
    ));

    let (mut request, artifacts) = spend_limit();
    request.data.clear();
    let error = run(&request, &artifacts).unwrap_err();
    assert_eq!(
        error,
        EvaluateError::MissingPolicyDataInstance {
            template: B256::repeat_byte(0x70)
        }
    );
    assert_eq!(error.finality(), Finality::Final);
    assert_eq!(
        error.signed_result().unwrap(),
        br#"{"error":{"name":"MissingPolicyDataInstance"}}"#
    );
}

#[test]
fn params_are_validated_with_pointers() {
    let (mut request, artifacts) = spend_limit();
    request.policy.params =
        br#"{"token":"0x00","recipients":[],"small_payment":"1","daily_limit":"2"}"#.to_vec();
    let EvaluateError::ParamsSchemaViolation {
        subject,
        violations,
    } = run(&request, &artifacts).unwrap_err()
    else {
        panic!("another error")
    };
    assert_eq!(subject, Subject::PolicyParams);
    let pointers: Vec<_> = violations
        .iter()
        .map(|violation| violation.instance_path.as_str())
        .collect();
    assert_eq!(pointers, ["/recipients", "/token"]);

    // Empty params count as {} and so miss what is required.
    let (mut request, artifacts) = spend_limit();
    request.data[0].params = Vec::new();
    let error = run(&request, &artifacts).unwrap_err();
    assert!(
        matches!(&error, EvaluateError::ParamsSchemaViolation { subject: Subject::DataParams(id), .. }
            if *id == B256::repeat_byte(0xd1)),
        "{error}"
    );
}

#[test]
fn secret_violations_never_show_a_value() {
    let (mut request, artifacts) = spend_limit();
    request.data[0].secrets = Some(newton_evaluate::SecretBytes::new(
        br#"{"ledger_key":"hunter2-is-my-secret"}"#.to_vec(),
    ));
    let error = run(&request, &artifacts).unwrap_err();
    assert_eq!(error.name(), "SecretsSchemaViolation");
    let EvaluateError::SecretsSchemaViolation { violations, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(violations[0].instance_path, "/ledger_key");
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn documents_are_bounded_and_strict() {
    let (mut request, artifacts) = spend_limit();
    request.policy.params = vec![b' '; (1 << 20) + 1];
    assert!(matches!(
        run(&request, &artifacts),
        Err(EvaluateError::DocumentTooLarge { .. })
    ));

    for bad in [
        &br#"{"a":1,"a":2}"#[..],
        b"{\"a\":\"\xff\"}",
        br#"{"a":NaN}"#,
        br#"{"a":1} x"#,
        &[b"[".repeat(10_000), b"]".repeat(10_000)].concat(),
    ] {
        let (mut request, artifacts) = spend_limit();
        request.wasm_args = bad.to_vec();
        let error = run(&request, &artifacts).unwrap_err();
        assert!(
            matches!(
                error,
                EvaluateError::InvalidJson {
                    subject: Subject::WasmArgs,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn artifacts_are_held_to_their_hash() {
    let (request, mut artifacts) = spend_limit();
    artifacts.insert(request.policy.rego, b"package other".as_slice().into());
    let error = run(&request, &artifacts).unwrap_err();
    assert!(
        matches!(error, EvaluateError::ArtifactMismatch { .. }),
        "{error}"
    );
    assert_eq!(error.finality(), Finality::Abstain);

    let (request, mut artifacts) = spend_limit();
    artifacts.remove(&request.data[0].wasm);
    let error = run(&request, &artifacts).unwrap_err();
    assert_eq!(
        error,
        EvaluateError::ArtifactUnavailable {
            artifact: request.data[0].wasm
        }
    );
}

#[test]
fn unknown_rules_abstain() {
    let (mut request, artifacts) = spend_limit();
    request.task.rules_version = 2;
    let error = run(&request, &artifacts).unwrap_err();
    assert_eq!(
        error,
        EvaluateError::UnsupportedRulesVersion { got: 2, known: 1 }
    );
    assert_eq!(error.signed_result(), None);
}

#[test]
fn a_uint256_reaches_rego_with_every_digit() {
    let rego = "package exact\nimport rego.v1\n\
        max := input.value\nnext := input.value + 1\n\
        text := format_int(input.value, 10)\n\
        decoded := to_number(\"115792089237316195423570985008687907853269984665640564039457584007913129639935\")\n\
        roundtrip := json.unmarshal(json.marshal({\"n\": input.value})).n\n\
        printed := sprintf(\"%d\", [input.value])\n\
        param := data.params.n";
    let all = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
    for (rule, value, expected) in [
        ("max", U256::MAX, all.to_owned()),
        (
            "next",
            U256::MAX,
            "115792089237316195423570985008687907853269984665640564039457584007913129639936"
                .to_owned(),
        ),
        ("text", U256::MAX, format!("\"{all}\"")),
        ("decoded", U256::ZERO, all.to_owned()),
        ("roundtrip", U256::MAX, all.to_owned()),
        ("printed", U256::MAX, format!("\"{all}\"")),
        ("param", U256::ZERO, "100000000000000000001".to_owned()),
        (
            "max",
            U256::from(1u128 << 64),
            "18446744073709551616".to_owned(),
        ),
        (
            "next",
            U256::from(u64::MAX),
            "18446744073709551616".to_owned(),
        ),
    ] {
        let (mut request, artifacts) = bare(rego, &format!("data.exact.{rule}"), &[]);
        request.intent.value = value;
        request.policy.params = br#"{"n":100000000000000000001}"#.to_vec();
        let evaluation =
            run(&request, &artifacts).unwrap_or_else(|error| panic!("{rule}: {error}"));
        assert_eq!(
            String::from_utf8(evaluation.result).unwrap(),
            expected,
            "{rule}"
        );
    }
}

#[test]
fn results_that_are_no_boolean_are_canonical_json() {
    let rego = "package shape\nimport rego.v1\n\
        object := {\"b\": {3, 1, 2}, \"a\": [1.5, null, \"x\"], 7: true}\n\
        never := true if input.value == 12345\n\
        deny contains \"b\"\ndeny contains \"a\"";
    for (rule, expected) in [
        ("object", r#"{"7":true,"a":[1.5,null,"x"],"b":[1,2,3]}"#),
        ("deny", r#"["a","b"]"#),
    ] {
        let (request, artifacts) = bare(rego, &format!("shape.{rule}"), &[]);
        let evaluation =
            run(&request, &artifacts).unwrap_or_else(|error| panic!("{rule}: {error}"));
        assert_eq!(String::from_utf8(evaluation.result).unwrap(), expected);
        let again = run(&request, &artifacts).unwrap();
        assert_eq!(again.result_hash, keccak256(expected));
    }
    let (request, artifacts) = bare(rego, "shape.never", &[]);
    let error = run(&request, &artifacts).unwrap_err();
    assert_eq!(error.name(), "PolicyResultUndefined");
    assert_eq!(error.finality(), Finality::Final);
}

#[test]
fn strict_errors_and_conflicts_are_final() {
    let rego = "package strict\nimport rego.v1\n\
        type_error := lower(input.value)\n\
        conflict := 1 if input.value >= 0\nconflict := 2 if input.value >= 0\n\
        hidden if not lower(input.value)";
    for rule in ["type_error", "conflict", "hidden"] {
        let (request, artifacts) = bare(rego, &format!("strict.{rule}"), &[]);
        let error = run(&request, &artifacts).unwrap_err();
        assert!(
            matches!(error, EvaluateError::RegoFailed { .. }),
            "{rule}: {error}"
        );
        assert_eq!(error.finality(), Finality::Final);
    }
}

#[test]
fn time_is_the_reference_blocks() {
    let (request, artifacts) = bare("package clock\nnow := time.now_ns()", "clock.now", &[]);
    let evaluation = run(&request, &artifacts).unwrap();
    assert_eq!(
        String::from_utf8(evaluation.result).unwrap(),
        format!("{NOW}000000000")
    );
}

#[test]
fn endless_rego_abstains() {
    let rego = "package slow\nimport rego.v1\n\
        n := count([1 | some a in numbers.range(1, 3000); some b in numbers.range(1, 3000); some c in numbers.range(1, 3000); a + b == c])";
    let (request, artifacts) = bare(rego, "slow.n", &[]);
    let limits = MachineLimits {
        rego_wall: std::time::Duration::from_millis(200),
        ..MachineLimits::default()
    };
    let started = std::time::Instant::now();
    let error = Evaluator::new(limits)
        .unwrap()
        .evaluate(&request, &artifacts, None)
        .unwrap_err();
    assert!(
        matches!(error, EvaluateError::WallClockExceeded { .. }),
        "{error}"
    );
    assert_eq!(error.finality(), Finality::Abstain);
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
}
