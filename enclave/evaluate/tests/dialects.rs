//! Rego v1 and the older language: what is read as which, and what is neither.

#![allow(clippy::unwrap_used)]

mod common;

use common::bare;
use newton_evaluate::{ArtifactError, Evaluator, MachineLimits, rego::check_rego};

fn value(rego: &str) -> String {
    let (request, artifacts) = bare(rego, "p.allow", &[]);
    let evaluation = Evaluator::new(MachineLimits::default())
        .unwrap()
        .evaluate(&request, &artifacts, None)
        .unwrap_or_else(|error| panic!("{rego}: {error}"));
    String::from_utf8(evaluation.result).unwrap()
}

fn refusal(rego: &str) -> String {
    match check_rego(rego.as_bytes(), "p.allow") {
        Err(ArtifactError::InvalidRego { reason }) => reason,
        other => panic!("{rego}: {other:?}"),
    }
}

#[test]
fn the_older_language_runs() {
    for (source, expected) in [
        ("allow { input.value == 0 }", "true"),
        ("default allow = false\nallow { input.value == 7 }", "false"),
        (
            "allow = false { input.value == 7 } else = true { true }",
            "true",
        ),
        (
            "allow { not blocked }\nblocked { input.value == 7 }",
            "true",
        ),
        // One rule, two bodies.
        ("allow { false } { true }", "true"),
        // A set, and not an object as v1 has it.
        (
            "allow = x { x := deny }\ndeny[\"a\"] { true }\ndeny[msg] { msg := \"b\" }",
            "[\"a\",\"b\"]",
        ),
        ("allow[key] = item { item := [7][key] }", "{\"0\":7}"),
        ("f(x) = y { y := x + 1 }\nallow { f(1) == 2 }", "true"),
        ("allow { some i; [1, 2][i] == 2 }", "true"),
        ("import future.keywords.in\nallow { 1 in [1] }", "true"),
        (
            "import future.keywords.every\nallow { every x in [1] { x > 0 } }",
            "true",
        ),
        // Both styles of bodies, where the words are imported.
        (
            "import future.keywords\nallow { helper }\nhelper if 1 in [1]\ns contains 1 if true",
            "true",
        ),
        // Words that are names here: of a built-in, of a member, in text.
        ("allow { contains (\"abc\", \"b\") }", "true"),
        (
            "allow { {\"if\": {\"in\": 1}}.if.in == 1 } # if every",
            "true",
        ),
        ("allow { `\nevery` != \"contains\" }", "true"),
        // The newest public policies of that style.
        (
            "default allow := false\nallow {\n  count(violations) == 0\n  to_number(input.decoded_function_arguments[1]) < 1e20\n}\nviolations[v] { input.chain_id_string != \"31337\"; v := \"chain\" }",
            "true",
        ),
    ] {
        assert_eq!(value(&format!("package p\n{source}")), expected, "{source}");
    }
}

#[test]
fn v1_comes_first() {
    // Both languages have this source, and differ about it: an object in v1, an error of types in v0.
    assert_eq!(
        value("package p\nallow[x] := y if { some x, y in [5] }"),
        r#"{"0":5}"#
    );
    // `import rego.v1` says which language it is.
    assert!(refusal("package p\nimport rego.v1\nallow { true }").contains("`if` keyword"));
}

#[test]
fn a_mixture_without_imports_is_refused() {
    // As v0 the first rule would be a fact: `allow`, and a rule called `if`.
    for source in [
        "allow if { input.value == 7 }\nhelper { true }",
        "allow if input.value == 7\nhelper { true }",
        "default allow = false\nallow { 1 in [1] }",
        "allow { every x in [1] { x > 0 } }",
        "deny contains \"x\" { false }\nallow { true }",
        "import future.keywords.in\nallow if { 1 in [2] }\nhelper { true }",
        // The import must come first.
        "allow if { false }\nimport future.keywords\nhelper { true }",
        "allow\nhelper { true }",
        "f(x)\nallow { true }",
    ] {
        let reason = refusal(&format!("package p\n{source}"));
        assert!(!reason.is_empty(), "{source}");
    }
    // What the author reads is about v1.
    let reason = refusal("package p\nallow if { input.value == 7 }\nhelper { true }");
    assert!(
        reason.contains("policy.rego:3") && reason.contains("`if` keyword"),
        "{reason}"
    );
}

#[test]
fn the_older_language_is_checked_as_well() {
    for (source, expected) in [
        ("allow { http.send({}) }", "http.send"),
        (
            "allow { newton.identity.kyc(input.from) }",
            "newton.identity",
        ),
        ("allow { f(1) }\nf(x) { f(x) }", "recursive"),
        ("allow { x }", "x"),
    ] {
        let error = check_rego(format!("package p\n{source}").as_bytes(), "p.allow").unwrap_err();
        assert!(error.to_string().contains(expected), "{source}: {error}");
    }
    assert!(matches!(
        check_rego(b"package p\nallow { true }", "p.deny"),
        Err(ArtifactError::EntrypointMissing { .. })
    ));
}
