//! Design 4b, sentence by sentence: what existing policies, components and clients rely on.
//!
//! Policies here are written in the manner of public ones; nothing of this repository's examples is used. What is tested more closely
//! elsewhere: styles and built-ins in `rego.rs`, `dialects.rs` and `numbers.rs`, limits and imports in `components.rs`, malformed intents in
//! `intent.rs`, requests and answers of the RPC in `newton-appliance`, components in JavaScript and Python in `newton-e2e`.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/components.rs"]
mod components;

use std::sync::{Arc, Mutex};

use common::{NOW, bare};
use components::{Text, constant};
use newton_evaluate::{
    ArtifactError, Diagnostic, EvaluateError, EvaluateRequest, Evaluation, Evaluator, Json,
    MachineLimits, SecretBytes,
    component::{NO_SECRETS, check_component},
    intent::{IntentError, WireIntent},
    transcript::{FetchError, HttpFetcher, HttpOutcome, HttpRequest, HttpResponse},
};

fn evaluate(
    request: &EvaluateRequest,
    artifacts: &common::Artifacts,
) -> Result<Evaluation, EvaluateError> {
    Evaluator::new(MachineLimits::default())?.evaluate(request, artifacts, None)
}

fn text(result: Result<Evaluation, EvaluateError>) -> String {
    String::from_utf8(result.unwrap_or_else(|error| panic!("{error}")).result).unwrap()
}

/// `rego` under `p.allow` over an intent in its wire form, params, and components with these outputs.
fn decide(rego: &str, intent: &str, params: &str, outputs: &[&str]) -> String {
    let components: Vec<_> = outputs.iter().map(|output| constant(output)).collect();
    let (mut request, artifacts) = bare(rego, "p.allow", &components);
    let intent = WireIntent::from_json(intent.as_bytes()).unwrap();
    request.intent = intent.intent;
    request.intent_signature = intent.intent_signature;
    request.policy.params = params.as_bytes().to_vec();
    text(evaluate(&request, &artifacts))
}

const ALICE: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
const TOKEN: &str = "0x5FbDB2315678afecb367f032d93F642f64180aa3";

/// A wire intent with quantities as clients write them.
fn intent(signature: &str, data: &str) -> String {
    format!(
        r#"{{"from":"{ALICE}","to":"{TOKEN}","value":"0x0","chain_id":"0xaa36a7","data":"{data}","function_signature":"0x{}"}}"#,
        hex::encode(signature)
    )
}

/// `transfer(bob, 10^10)`.
fn transfer(signature: &str) -> String {
    let data = format!("0xa9059cbb{:0>64}{:064x}", "0b0b", 10_000_000_000_u64);
    intent(signature, &data)
}

fn plain() -> String {
    intent("", "0x")
}

// Rego

#[test]
fn the_entrypoint_is_package_and_rule_with_or_without_data() {
    let rego = "package vault.risk_1\n\nimport future.keywords\n\ndefault allow := false\n\nallow if input.value == 0\n\nreason := \"none\"";
    for (entrypoint, expected) in [
        ("vault.risk_1.allow", "true"),
        ("data.vault.risk_1.allow", "true"),
        ("vault.risk_1.reason", "\"none\""),
        ("data.vault.risk_1.reason", "\"none\""),
    ] {
        let (request, artifacts) = bare(rego, entrypoint, &[]);
        assert_eq!(
            text(evaluate(&request, &artifacts)),
            expected,
            "{entrypoint}"
        );
    }
}

#[test]
fn all_three_styles_of_one_policy_decide_alike() {
    let body = "\n\tdata.params.admin == input.from\n";
    for head in [
        format!("import rego.v1\n\ndefault allow := false\n\nallow if {{{body}}}"),
        format!("import future.keywords\n\ndefault allow := false\n\nallow if {{{body}}}"),
        format!("import future.keywords.if\n\ndefault allow = false\n\nallow if {{{body}}}"),
        format!("default allow := false\n\nallow if {{{body}}}"),
        format!("default allow = false\n\nallow {{{body}}}"),
    ] {
        let rego = format!("package p\n\n{head}");
        for (admin, expected) in [
            (ALICE.to_lowercase(), "true"),
            (TOKEN.to_lowercase(), "false"),
        ] {
            let params = format!(r#"{{"admin":"{admin}"}}"#);
            assert_eq!(decide(&rego, &plain(), &params, &[]), expected, "{rego}");
        }
    }
}

#[test]
fn addresses_are_lower_case_and_bytes_are_hex() {
    let rego = "package p\nimport rego.v1\nallow := [input.from, input.to, input.data, input.function_signature]";
    assert_eq!(
        decide(rego, &transfer("transfer(address,uint256)"), "", &[]),
        format!(
            r#"["{}","{}","0xa9059cbb{:0>64}{:064x}","0x{}"]"#,
            ALICE.to_lowercase(),
            TOKEN.to_lowercase(),
            "0b0b",
            10_000_000_000_u64,
            hex::encode("transfer(address,uint256)"),
        )
    );
}

#[test]
fn value_and_chain_id_are_exact_numbers() {
    let max = format!("0x{}", "f".repeat(64));
    let all = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
    for (wire, decimal) in [
        ("0x0", "0"),
        ("0x8ac7230489e80001", "10000000000000000001"),
        ("0x10000000000000000", "18446744073709551616"),
        ("0x56bc75e2d63100001", "100000000000000000001"),
        (max.as_str(), all),
    ] {
        let wire = plain()
            .replace(r#""value":"0x0""#, &format!(r#""value":"{wire}""#))
            .replace("0xaa36a7", wire);
        let rego = format!(
            "package p\nimport rego.v1\nallow := [input.value, input.chain_id] if {{ input.value == {decimal}; input.value != {decimal} + 1 }}"
        );
        assert_eq!(
            decide(&rego, &wire, "", &[]),
            format!("[{decimal},{decimal}]")
        );
    }
}

#[test]
fn chain_id_string_serves_look_ups() {
    let rego = "package p\nimport rego.v1\nallow := data.params.allowed_actions[input.chain_id_string].max_limit > 5";
    let params = r#"{"allowed_actions":{"11155111":{"max_limit":10}}}"#;
    assert_eq!(decide(rego, &plain(), params, &[]), "true");
}

#[test]
fn the_function_is_described_as_json_abi_does() {
    let rego = "package p\nimport rego.v1\nallow := input.function";
    let expected = r#"{"arguments":["0x0000000000000000000000000000000000000b0b","10000000000"],"inputs":[{"name":"recipient","type":"address"},{"name":"amount","type":"uint256"}],"name":"transfer","outputs":[],"stateMutability":"nonpayable","type":"function"}"#;
    for signature in [
        "function transfer(address recipient, uint256 amount)",
        "transfer(address recipient, uint256 amount)",
        "transfer(address recipient,uint256 amount)",
    ] {
        assert_eq!(
            decide(rego, &transfer(signature), "", &[]),
            expected,
            "{signature}"
        );
    }
    let with_outputs = "function transfer(address to, uint256 amount) external returns (bool ok)";
    let shown = decide(rego, &transfer(with_outputs), "", &[]);
    assert!(
        shown.contains(r#""outputs":[{"name":"ok","type":"bool"}]"#),
        "{shown}"
    );
    assert_eq!(
        decide("package p\nallow := input.function", &plain(), "", &[]),
        "null"
    );
}

#[test]
fn arguments_are_texts_and_nest_as_arrays() {
    // execute((address,uint256)[],int128,uint8[2],bool,bytes) over [(token, 2^256 - 1)], -5, [1, 2], true, 0xdead
    let signature =
        "execute((address,uint256)[] calls, int128 delta, uint8[2] pair, bool flag, bytes data)";
    let selector = alloy_json_abi::Function::parse(signature)
        .unwrap()
        .selector();
    let word = |text: &str| format!("{text:0>64}");
    let data = [
        format!("0x{}", hex::encode(selector)),
        word("c0"),
        "f".repeat(63) + "b",
        word("1"),
        word("2"),
        word("1"),
        word("120"),
        word("1"),
        word(&TOKEN[2..]),
        "f".repeat(64),
        word("2"),
        format!("{:0<64}", "dead"),
    ]
    .concat();
    let rego = "package p\nimport rego.v1\nallow := [input.decoded_function_arguments, input.function.inputs[0], to_number(input.decoded_function_arguments[0][0][1])]";
    let all = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
    assert_eq!(
        decide(rego, &intent(signature, &data), "", &[]),
        format!(
            r#"[[[["{}","{all}"]],"-5",["1","2"],true,"0xdead"],{{"components":[{{"name":"","type":"address"}},{{"name":"","type":"uint256"}}],"name":"calls","type":"tuple[]"}},{all}]"#,
            TOKEN.to_lowercase()
        )
    );
}

#[test]
fn the_intents_signature_is_shown_when_given() {
    let rego =
        "package p\nimport rego.v1\ndefault allow := \"absent\"\nallow := input.intent_signature";
    assert_eq!(decide(rego, &plain(), "", &[]), "\"absent\"");
    let signed = plain().replace(
        r#""data":"0x""#,
        r#""data":"0x","intent_signature":"0xABcd""#,
    );
    assert_eq!(decide(rego, &signed, "", &[]), "\"0xabcd\"");
}

#[test]
fn params_are_data_params() {
    let rego = "package p\nimport rego.v1\nallow := data.params";
    let params = r#"{"b":[1,{"c":null}],"a":1e2}"#;
    assert_eq!(
        decide(rego, &plain(), params, &[]),
        r#"{"a":100,"b":[1,{"c":null}]}"#
    );
    assert_eq!(decide(rego, &plain(), "", &[]), "{}");
}

#[test]
fn outputs_are_merged_shallowly_and_the_last_wins() {
    let outputs = [
        r#"{"vaults":{"score":1,"tvl":5},"shared":{"a":1}}"#,
        r#"{"screening":{"error":"no key"},"shared":{"b":2}}"#,
    ];
    let merged =
        r#"{"screening":{"error":"no key"},"shared":{"b":2},"vaults":{"score":1,"tvl":5}}"#;
    // Also by its older name.
    for rego in [
        "package p\nallow := data.wasm",
        "package p\nallow := data.data",
    ] {
        assert_eq!(decide(rego, &plain(), "", &outputs), merged);
    }
    let composite = "package p\nimport rego.v1\nallow if { data.wasm.vaults.score == 1; data.data.screening.error; not data.wasm.vaults.error }";
    assert_eq!(decide(composite, &plain(), "", &outputs), "true");

    let components = outputs.map(constant);
    let (request, artifacts) = bare("package p\nallow := true", "p.allow", &components);
    let diagnostics = evaluate(&request, &artifacts).unwrap().diagnostics;
    let [Diagnostic::DataKeyCollision { key, replaced, by }] = &diagnostics[..] else {
        panic!("{diagnostics:?}");
    };
    assert_eq!(
        (key.as_str(), *replaced, *by),
        (
            "shared",
            request.data[0].instance_id,
            request.data[1].instance_id
        )
    );
}

#[test]
fn the_decision_is_any_json_value() {
    for (value, expected) in [
        ("true", "true"),
        ("false", "false"),
        ("null", "null"),
        ("1.50", "1.5"),
        ("\"why\"", "\"why\""),
        (
            "{\"allow\": true, \"reasons\": {\"b\", \"a\"}}",
            r#"{"allow":true,"reasons":["a","b"]}"#,
        ),
        ("[1, [2]]", "[1,[2]]"),
    ] {
        let (request, artifacts) = bare(&format!("package p\nallow := {value}"), "p.allow", &[]);
        let evaluation = evaluate(&request, &artifacts).unwrap();
        assert_eq!(
            String::from_utf8(evaluation.result.clone()).unwrap(),
            expected
        );
        assert_eq!(evaluation.allows(), value == "true");
    }
}

#[test]
fn functions_of_domains_that_are_not_built_are_named() {
    for (call, domain) in [
        (
            "newton.identity.kyc.is_sanctioned(input.from)",
            "newton.identity",
        ),
        ("newton.privacy.get(\"balance\")", "newton.privacy"),
        (
            "newton.crypto.ecdsa_recover_signer(\"0x\", \"0x\")",
            "newton.crypto",
        ),
        (
            "newton.time.days_between(\"2026-01-01\", \"2026-01-02\")",
            "newton.time",
        ),
    ] {
        let source = format!("package p\nallow := {call}");
        let error = newton_evaluate::rego::check_rego(source.as_bytes(), "p.allow").unwrap_err();
        let ArtifactError::UnknownFunction {
            domain: Some(named),
            line: 2,
            ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(named, domain);
        assert!(error.to_string().contains(domain), "{error}");
    }
}

#[test]
fn packs_fail_closed_on_an_error_envelope() {
    // A positive conjunction over what the pack must have said, as public packs are written.
    let rego = r#"package p

import future.keywords

default allow := false

t := data.params

v := data.wasm.stable_risk

deny contains "unapproved_route" if {
	v.route != null
	not v.route in t.approved_routes
}

deny contains sprintf("score %d below %d", [v.score, t.min_score]) if v.score < t.min_score

deny contains "wrong_target" if lower(input.to) != lower(t.vault)

deny contains "stale" if v.age > t.max_age

allow if {
	is_boolean(v.depegged)
	v.depegged == false
	is_number(v.score)
	is_array(t.approved_routes)
	is_string(input.function.name)
	input.function.name in t.functions
	to_number(input.decoded_function_arguments[1]) <= t.max_amount
	count(deny) == 0
}
"#;
    let params = format!(
        r#"{{"vault":"{TOKEN}","approved_routes":["issuer"],"min_score":60,"max_age":100,"functions":["transfer"],"max_amount":10000000000}}"#
    );
    let intent = transfer("function transfer(address recipient, uint256 amount)");
    for (output, expected) in [
        (
            r#"{"stable_risk":{"depegged":false,"score":60,"route":"issuer","age":5}}"#,
            "true",
        ),
        (
            r#"{"stable_risk":{"depegged":false,"score":60,"route":null,"age":5}}"#,
            "true",
        ),
        (
            r#"{"stable_risk":{"depegged":false,"score":59,"route":"issuer","age":5}}"#,
            "false",
        ),
        (
            r#"{"stable_risk":{"depegged":false,"score":60,"route":"other","age":5}}"#,
            "false",
        ),
        (
            r#"{"stable_risk":{"depegged":true,"score":60,"route":"issuer","age":5}}"#,
            "false",
        ),
        (r#"{"stable_risk":{"error":"status 500"}}"#, "false"),
        (r#"{"other":{"depegged":false,"score":60}}"#, "false"),
    ] {
        assert_eq!(
            decide(rego, &intent, &params, &[output]),
            expected,
            "{output}"
        );
    }
}

// Wire intent

#[test]
fn quantities_are_compact_hex() {
    for (wire, value) in [("0x0", 0), ("0x1", 1), ("0xaa36a7", 11_155_111)] {
        let parsed = WireIntent::from_json(plain().replace("0xaa36a7", wire).as_bytes()).unwrap();
        assert_eq!(parsed.intent.chain_id.to::<u64>(), value);
    }
}

#[test]
fn an_empty_signature_goes_with_empty_data() {
    let parsed = WireIntent::from_json(plain().as_bytes()).unwrap().intent;
    assert!(parsed.function_signature.is_empty() && parsed.data.is_empty());
    let input = parsed.rego_input(None).unwrap();
    let empty = Json::Array(Vec::new());
    assert_eq!(
        input.as_object().unwrap()["decoded_function_arguments"],
        empty
    );
}

#[test]
fn what_does_not_decode_is_a_final_typed_error() {
    type Expected = fn(&IntentError) -> bool;
    let cases: [(&str, String, Expected); 6] = [
        ("approve(address,uint256)", transfer("x()"), |e| {
            matches!(e, IntentError::SelectorMismatch { .. })
        }),
        (
            "transfer(address,uint256)",
            intent("transfer(address,uint256)", "0xa9059cbb"),
            |e| matches!(e, IntentError::CalldataUndecodable { .. }),
        ),
        (
            "transfer(address,",
            intent("transfer(address,", "0xa9059cbb"),
            |e| matches!(e, IntentError::SignatureInvalid { .. }),
        ),
        ("(none)", intent("", "0xa9059cbb"), |e| {
            matches!(e, IntentError::SignatureMissing { data_length: 4 })
        }),
        (
            "without data",
            intent("transfer(address,uint256)", "0x"),
            |e| matches!(e, IntentError::SelectorMismatch { .. }),
        ),
        (
            "deep",
            intent(
                &format!("f({}uint8{})", "(".repeat(1_500), ")".repeat(1_500)),
                "0x00000000",
            ),
            |_| true,
        ),
    ];
    for (signature, wire, expected) in cases {
        let (mut request, artifacts) = bare("package p\nallow := true", "p.allow", &[]);
        request.intent = WireIntent::from_json(wire.as_bytes()).unwrap().intent;
        match evaluate(&request, &artifacts) {
            Err(EvaluateError::InvalidIntent(error)) => {
                assert!(expected(&error), "{signature}: {error}");
            }
            other => panic!("{signature}: {other:?}"),
        }
    }
}

// Components

/// Answers every request and keeps it.
#[derive(Default)]
struct Server(Mutex<Vec<HttpRequest>>);

impl HttpFetcher for Server {
    fn fetch(&self, request: &HttpRequest, _: u64) -> Result<HttpOutcome, FetchError> {
        self.0.lock().unwrap().push(request.clone());
        Ok(Ok(HttpResponse {
            status: 200,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: br#"{"asked":true}"#.to_vec(),
        }))
    }
}

#[test]
fn both_versions_of_the_provider_fetch() {
    for old in [true, false] {
        let component = components::fetching(1, old);
        check_component(&component).unwrap();
        let (request, artifacts) = bare(
            "package p\nallow := data.wasm.asked",
            "p.allow",
            &[component],
        );
        let server = Arc::new(Server::default());
        let http: Arc<dyn HttpFetcher> = server.clone();
        let evaluation = Evaluator::new(MachineLimits::default())
            .unwrap()
            .evaluate(&request, &artifacts, Some(&http))
            .unwrap();
        assert!(evaluation.allows());
        assert_eq!(server.0.lock().unwrap().len(), 1);
    }
}

#[test]
fn secrets_are_the_documents_bytes() {
    let document = r#"{ "api_key" : "k", "n": 18446744073709551617 }"#;
    let (mut request, artifacts) = bare(
        "package p\nallow := data.wasm",
        "p.allow",
        &[components::telling_secrets()],
    );
    request.data[0].secrets = Some(SecretBytes::new(document.as_bytes().to_vec()));
    assert_eq!(
        text(evaluate(&request, &artifacts)),
        r#"{"api_key":"k","n":18446744073709551617}"#
    );
    request.data[0].secrets = None;
    let EvaluateError::DataProviderFailed { reason, .. } =
        evaluate(&request, &artifacts).unwrap_err()
    else {
        panic!("another error");
    };
    assert_eq!(reason, NO_SECRETS);
}

#[test]
fn every_component_of_a_task_gets_the_same_arguments() {
    let (mut request, artifacts) = bare(
        "package p\nallow := data.wasm",
        "p.allow",
        &[components::echo(), components::echo()],
    );
    let given = r#"{"wallet":"0xAb","n":1.0}"#;
    request.wasm_args = given.as_bytes().to_vec();
    let evaluation = evaluate(&request, &artifacts).unwrap();
    for data in &evaluation.data {
        assert_eq!(data.output, br#"{"n":1,"wallet":"0xAb"}"#);
    }
    // `{}` when absent.
    request.wasm_args = Vec::new();
    assert_eq!(
        evaluate(&request, &artifacts).unwrap().data[1].output,
        b"{}"
    );
}

#[test]
fn params_come_under_a_reserved_key_where_the_template_has_a_schema() {
    let (mut request, mut artifacts) = bare(
        "package p\nallow := true",
        "p.allow",
        &[components::echo(), components::echo()],
    );
    request.wasm_args = br#"{"wallet":"0xAb","_params":"the caller's"}"#.to_vec();
    for data in &mut request.data {
        data.params = br#"{"limit":7}"#.to_vec();
    }
    request.data[1].params_schema = Some(common::add(&mut artifacts, &b"{}"[..]));
    let evaluation = evaluate(&request, &artifacts).unwrap();
    // A component without a schema sees exactly what it sees today.
    assert_eq!(
        evaluation.data[0].output,
        br#"{"_params":"the caller's","wallet":"0xAb"}"#
    );
    assert_eq!(
        evaluation.data[1].output,
        br#"{"_params":{"limit":7},"wallet":"0xAb"}"#
    );
}

#[test]
fn run_is_found_by_name() {
    let run = r#"(core module $main
      (memory (export "memory") 1)
      (data (i32.const 64) "{\22found\22:true}")
      (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
      (func (export "run") (param i32 i32) (result i32)
        (i32.store (i32.const 4) (i32.const 64)) (i32.store (i32.const 8) (i32.const 14)) (i32.const 0)))
    (core instance $main (instantiate $main))
    (func (export "run") (param "input" string) (result (result string (error string)))
      (canon lift (core func $main "run") (memory (core memory $main "memory")) (realloc (core func $main "realloc"))))"#;
    let component = components::exporting_more(run);
    check_component(&component).unwrap();
    let (request, artifacts) = bare(
        "package p\nallow := data.wasm.found",
        "p.allow",
        &[component],
    );
    assert_eq!(text(evaluate(&request, &artifacts)), "true");
}

/// The interfaces of WASI 0.2.
const WASI: [&str; 27] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/run",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/timezone",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/udp",
];

#[test]
fn all_of_wasi_links_in_every_version_and_what_is_not_provided_traps() {
    let evaluator = Evaluator::new(MachineLimits::default()).unwrap();
    let run = |component| {
        let (request, artifacts) = bare("package p\nallow := true", "p.allow", &[component]);
        evaluator.evaluate(&request, &artifacts, None)
    };
    for (index, interface) in WASI.iter().enumerate() {
        let version = [0, 1, 2, 3, 6, 8, 9, 10, 12][index % 9];
        let name = format!("{interface}@0.2.{version}");
        // Linked and not called: nothing happens.
        assert!(
            run(components::touching(&name, "anything", false))
                .unwrap()
                .allows(),
            "{name}"
        );
        let error = run(components::touching(&name, "anything", true)).unwrap_err();
        let EvaluateError::DataProviderFailed { reason, .. } = &error else {
            panic!("{name}: {error}");
        };
        assert_eq!(
            reason,
            &format!("{name}#anything is not provided to data components")
        );
    }
    for version in 0..=12 {
        let name = format!("wasi:cli/environment@0.2.{version}");
        check_component(&components::touching(&name, "anything", false)).unwrap();
    }
}

#[test]
fn the_wall_clock_stands_at_the_reference_block() {
    let (request, artifacts) = bare(
        "package p\nallow := data.wasm.n",
        "p.allow",
        &[components::wall_clock()],
    );
    assert_eq!(
        text(evaluate(&request, &artifacts)),
        format!("\"{NOW:016x}\"")
    );
}

#[test]
fn what_the_public_network_refuses_is_refused_at_ingestion() {
    let importing = |import: &str| {
        let imports = format!("(import \"{import}\" (instance))");
        Text {
            imports: &imports,
            ..Text::default()
        }
        .build()
    };
    for (import, why) in [
        ("wasi:http/types@0.2.10", "newton:provider/http"),
        ("wasi:http/outgoing-handler@0.2.10", "newton:provider/http"),
        ("newton:provider/tlsn@0.2.0", "tlsn"),
        ("newton:provider/secrets@0.1.0", "http alone"),
    ] {
        let error = check_component(&importing(import)).unwrap_err();
        let ArtifactError::ForbiddenImport {
            import: named,
            reason,
        } = &error
        else {
            panic!("{import}: {error}");
        };
        assert_eq!(named, import);
        assert!(reason.contains(why), "{reason}");
    }
}
