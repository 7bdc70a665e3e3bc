//! The ingest check of Rego, and the public conventions policies rely on.

#![allow(clippy::unwrap_used)]

mod common;

use common::bare;
use newton_evaluate::{ArtifactError, Evaluator, MachineLimits, rego::check_rego};

fn value(rego: &str, entrypoint: &str) -> String {
    let (mut request, artifacts) = bare(rego, entrypoint, &[]);
    request.intent = common::intent("intents/allow.json");
    let evaluation = Evaluator::new(MachineLimits::default())
        .unwrap()
        .evaluate(&request, &artifacts, None)
        .unwrap_or_else(|error| panic!("{entrypoint}: {error}"));
    String::from_utf8(evaluation.result).unwrap()
}

#[test]
fn the_input_is_the_parsed_intent() {
    let input = value("package show\nx := input", "show.x");
    let amount = "500000000000000000";
    let recipient = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8";
    let data = format!(
        "0xa9059cbb{:0>64}{:064x}",
        &recipient[2..],
        500_000_000_000_000_000u128
    );
    assert_eq!(
        input,
        format!(
            r#"{{"chain_id":31337,"chain_id_string":"31337","data":"{data}","decoded_function_arguments":["{recipient}","{amount}"],"decoded_function_signature":"function transfer(address,uint256)","from":"0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266","function":{{"arguments":["{recipient}","{amount}"],"inputs":[{{"name":"","type":"address"}},{{"name":"","type":"uint256"}}],"name":"transfer","outputs":[],"stateMutability":"nonpayable","type":"function"}},"function_signature":"0x{}","to":"0x5fbdb2315678afecb367f032d93f642f64180aa3","value":0}}"#,
            hex::encode("transfer(address,uint256)")
        )
    );
}

#[test]
fn the_styles_authors_use_all_run() {
    for (style, source) in [
        (
            "rego.v1",
            "package p\nimport rego.v1\ndefault allow := false\nallow if input.value == 0",
        ),
        (
            "keywords",
            "package p\nimport future.keywords\ndefault allow = false\nallow if { input.value == 0 }",
        ),
        (
            "keywords.in",
            "package p\nimport future.keywords.in\nimport future.keywords.if\nallow if { 1 in [1] }",
        ),
        (
            "no import",
            "package p\ndefault allow := false\nallow if input.value == 0",
        ),
        (
            "function",
            "package p\nf(x) := y if { y := x + 1 }\nallow if f(1) == 2",
        ),
        (
            "own package",
            "package p\nf(x) := x\nallow if data.p.f(true)",
        ),
        (
            "alias",
            "package p\nimport data.p as me\nf(x) := x\nallow if me.f(true)",
        ),
        (
            "else",
            "package p\nallow := false if { input.value == 1 } else := true",
        ),
        (
            "with",
            "package p\nbase := input.value\nallow if { base == 7 with input.value as 7 }",
        ),
        (
            "every",
            "package p\nallow if { every x in [1, 2] { x > 0 } }",
        ),
        (
            "print",
            "package p\nallow if { print(\"here\", input.value); true }",
        ),
        (
            "walk",
            "package p\nallow if { walk({\"a\": 1}, [[\"a\"], 1]) }",
        ),
        (
            "output argument",
            "package p\nallow if { to_number(\"3\", n); n == 3 }",
        ),
    ] {
        for entrypoint in ["p.allow", "data.p.allow"] {
            assert_eq!(value(source, entrypoint), "true", "{style}");
        }
    }
    assert_eq!(
        value("package a.b[\"c-d\"]\nallow := true", "a.b.c-d.allow"),
        "true"
    );
    assert_eq!(value("package p\nq.r := 1", "p.q.r"), "1");
    assert_eq!(
        value("package p\nq[x] := y if { some x, y in [5] }", "p.q"),
        r#"{"0":5}"#
    );
}

#[test]
fn unknown_and_impure_functions_are_refused_by_name() {
    for (call, expected) in [
        (
            "newton.identity.kyc(input.from)",
            ArtifactError::UnknownFunction {
                function: "newton.identity.kyc".to_owned(),
                line: 2,
                domain: Some("newton.identity".to_owned()),
            },
        ),
        (
            "crypto.sha256(\"x\")",
            ArtifactError::UnknownFunction {
                function: "crypto.sha256".to_owned(),
                line: 2,
                domain: None,
            },
        ),
        (
            "typo(1)",
            ArtifactError::UnknownFunction {
                function: "typo".to_owned(),
                line: 2,
                domain: None,
            },
        ),
        (
            "http.send({\"url\": \"http://x\"})",
            ArtifactError::ImpureFunction {
                function: "http.send".to_owned(),
                line: 2,
            },
        ),
        (
            "rand.intn(\"x\", 5)",
            ArtifactError::ImpureFunction {
                function: "rand.intn".to_owned(),
                line: 2,
            },
        ),
        (
            "uuid.rfc4122(\"x\")",
            ArtifactError::ImpureFunction {
                function: "uuid.rfc4122".to_owned(),
                line: 2,
            },
        ),
        (
            "opa.runtime()",
            ArtifactError::ImpureFunction {
                function: "opa.runtime".to_owned(),
                line: 2,
            },
        ),
        (
            "net.lookup_ip_addr(\"x\")",
            ArtifactError::ImpureFunction {
                function: "net.lookup_ip_addr".to_owned(),
                line: 2,
            },
        ),
    ] {
        // Wherever the call hides.
        for source in [
            format!("package p\nallow := {call}"),
            format!("package p\nallow if {{ x := [y | y := {call}]; x }}"),
            format!("package p\nallow if not {call}"),
            format!("package p\nallow if {{ every x in [1] {{ {call} == x }} }}"),
            format!("package p\nallow := {{\"k\": [1 + count({call})]}}"),
        ] {
            assert_eq!(
                check_rego(source.as_bytes(), "p.allow").unwrap_err(),
                expected,
                "{source}"
            );
        }
    }
    let replaced = "package p\nallow if { count([]) == 5 with count as rand.intn }";
    assert!(matches!(
        check_rego(replaced.as_bytes(), "p.allow"),
        Err(ArtifactError::ImpureFunction { .. })
    ));
}

#[test]
fn recursion_is_refused() {
    for source in [
        "package p\nf(x) := f(x - 1)\nallow := f(1)",
        "package p\nf(x) := g(x)\ng(x) := f(x)\nallow := f(1)",
        "package p\nf(x) := data.p.f(x)\nallow := f(1)",
    ] {
        let error = check_rego(source.as_bytes(), "p.allow").unwrap_err();
        let ArtifactError::InvalidRego { reason } = &error else {
            panic!("{error}")
        };
        assert!(reason.contains("recursive"), "{reason}");
    }
}

#[test]
fn entrypoints_must_be_rules() {
    let source = b"package p\nallow := true\nf(x) := x\n";
    for entrypoint in ["p.allow", "data.p.allow"] {
        check_rego(source, entrypoint).unwrap();
    }
    for entrypoint in [
        "p.deny",
        "q.allow",
        "allow",
        "p",
        "",
        "p.f",
        "p.allow.x",
        "data.data.p.allow",
    ] {
        let error = check_rego(source, entrypoint).unwrap_err();
        assert!(
            matches!(error, ArtifactError::EntrypointMissing { .. }),
            "{entrypoint}: {error}"
        );
    }
}

#[test]
fn bad_sources_are_typed_and_bounded() {
    for source in [
        &b"package p\nallow := "[..],
        b"",
        b"allow := true",
        b"package p\nallow if { input.x = }",
        b"package p\n\"",
    ] {
        let shown = String::from_utf8_lossy(source);
        let Err(error) = check_rego(source, "p.allow") else {
            panic!("accepted: {shown:?}")
        };
        assert!(
            matches!(error, ArtifactError::InvalidRego { .. }),
            "{shown:?}: {error}"
        );
    }
    assert_eq!(
        check_rego(b"package p\n\xff", "p.allow"),
        Err(ArtifactError::NotUtf8 { valid_up_to: 10 })
    );
    assert!(matches!(
        check_rego(&vec![b' '; 2 << 20], "p.allow"),
        Err(ArtifactError::TooLarge { .. })
    ));
    for nested in [
        format!(
            "package p\nallow := {}1{}",
            "[".repeat(10_000),
            "]".repeat(10_000)
        ),
        format!(
            "package p\nallow := {}1{}",
            "(".repeat(100),
            ")".repeat(100)
        ),
        format!(
            "package p\nallow if {}true{}",
            "{ x := [y | ".repeat(60),
            "] }".repeat(60)
        ),
    ] {
        let error = check_rego(nested.as_bytes(), "p.allow").unwrap_err();
        assert!(
            matches!(error, ArtifactError::InvalidRego { .. }),
            "{error}"
        );
    }
}

#[test]
fn long_chains_do_not_exhaust_the_stack() {
    // Chains nest to the left as deep as they are long: what is accepted must be parsed, analysed, evaluated and dropped on a
    // common stack, whatever the build; what is longer is refused before it is parsed.
    let chain = |link: &str, times: usize, end: &str| {
        format!("package p\nallow := {}{end}", link.repeat(times))
    };
    for (link, end) in [
        ("1 + ", "1"),
        ("1 +\n", "1"),
        ("{1} | ", "{1}"),
        ("input.value\n- ", "1"),
        ("1 * [1][0] - ", "1"),
        ("1 == ", "1"),
        ("1 in ", "[1]"),
    ] {
        let long = chain(link, 20_000, end);
        let error = check_rego(long.as_bytes(), "p.allow").unwrap_err();
        assert!(
            matches!(error, ArtifactError::InvalidRego { .. }),
            "{link:?}: {error}"
        );
        let longest = chain(
            link,
            if link.contains('.') || link.contains("* ") {
                128
            } else {
                256
            },
            end,
        );
        std::thread::Builder::new()
            .stack_size(8 << 20)
            .spawn(move || {
                // Whether the grammar takes it or not: no crash.
                if check_rego(longest.as_bytes(), "p.allow").is_ok() {
                    let (request, artifacts) = bare(&longest, "p.allow", &[]);
                    let _ = Evaluator::new(MachineLimits::default())
                        .unwrap()
                        .evaluate(&request, &artifacts, None);
                }
            })
            .unwrap()
            .join()
            .unwrap_or_else(|_| panic!("{link:?} crashed"));
    }
    let references = format!("package p\nallow := input{}", ".a".repeat(20_000));
    assert!(matches!(
        check_rego(references.as_bytes(), "p.allow"),
        Err(ArtifactError::InvalidRego { .. })
    ));
}

#[test]
fn the_chain_limit_does_not_reach_across_expressions() {
    let rules: String = (0..2_000)
        .map(|n| format!("r{n} := input.value + {n} # - - -\n"))
        .collect();
    check_rego(
        format!("package p\n{rules}allow := true").as_bytes(),
        "p.allow",
    )
    .unwrap();
    let list: String = (0..2_000).map(|n| format!("-{n}, ")).collect();
    check_rego(
        format!("package p\nallow := [{list} 0]").as_bytes(),
        "p.allow",
    )
    .unwrap();
    let body: String = (0..500)
        .map(|n| format!("\tinput.value >= 0 - {n}\n"))
        .collect();
    check_rego(
        format!("package p\nallow if {{\n{body}}}").as_bytes(),
        "p.allow",
    )
    .unwrap();
}

#[test]
fn the_default_entrypoint_is_allow_of_the_package() {
    for (source, expected) in [
        ("package a\nallow := true", Some("a.allow")),
        (
            "# licence\n\n  package a.b_1 # why\nx := 1",
            Some("a.b_1.allow"),
        ),
        ("package a[\"b-c\"]\nallow := true", None),
        ("import rego.v1\npackage a", None),
        ("package\n a", None),
        ("", None),
    ] {
        assert_eq!(
            newton_evaluate::rego::default_entrypoint(source).as_deref(),
            expected,
            "{source}"
        );
    }
}
