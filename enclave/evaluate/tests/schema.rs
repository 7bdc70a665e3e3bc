//! JSON Schema: draft 2020-12 with exact integers, formats, no remote references.

#![allow(clippy::unwrap_used)]

use newton_evaluate::{
    ArtifactError, Json, Violation,
    schema::{Schema, check_schema},
};

fn violations(schema: &str, instance: &str) -> Vec<Violation> {
    let schema =
        Schema::compile(schema.as_bytes()).unwrap_or_else(|error| panic!("{schema}: {error}"));
    schema
        .validate(&Json::parse(instance.as_bytes()).unwrap())
        .err()
        .unwrap_or_default()
}

fn valid(schema: &str, instance: &str) -> bool {
    violations(schema, instance).is_empty()
}

#[test]
fn integers_are_exact_at_every_size() {
    let max = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
    let above = "115792089237316195423570985008687907853269984665640564039457584007913129639936";
    let schema = format!(r#"{{"type":"integer","minimum":0,"maximum":{max}}}"#);
    assert!(valid(&schema, max));
    assert!(!valid(&schema, above));
    assert!(!valid(&schema, "-1"));
    assert!(!valid(&schema, "1.5"));
    assert!(valid(&schema, "1.0"));
    let found = violations(&schema, above);
    assert_eq!(
        (
            found[0].instance_path.as_str(),
            found[0].schema_path.as_str()
        ),
        ("", "/maximum")
    );

    assert!(valid(
        r#"{"exclusiveMinimum":18446744073709551616}"#,
        "18446744073709551617"
    ));
    assert!(!valid(
        r#"{"exclusiveMinimum":18446744073709551616}"#,
        "18446744073709551616"
    ));
    assert!(!valid(
        r#"{"maximum":18446744073709551615}"#,
        "18446744073709551616"
    ));
    assert!(valid(
        r#"{"const":100000000000000000001}"#,
        "100000000000000000001"
    ));
    assert!(!valid(
        r#"{"const":100000000000000000001}"#,
        "100000000000000000000"
    ));
    assert!(!valid(
        r#"{"enum":[1,100000000000000000001]}"#,
        "100000000000000000002"
    ));
    assert!(valid(r#"{"enum":[1,100000000000000000001]}"#, "1"));
    assert!(valid(r#"{"multipleOf":10}"#, "100000000000000000000"));
    assert!(!valid(r#"{"multipleOf":10}"#, "100000000000000000001"));
    assert!(!valid(
        r#"{"multipleOf":100000000000000000000}"#,
        "100000000000000000001"
    ));
    assert!(!valid(r#"{"uniqueItems":true}"#, "[1, 1.0]"));
    assert!(valid(
        r#"{"uniqueItems":true}"#,
        "[100000000000000000000, 100000000000000000001]"
    ));
    // A property may bear a keyword's name, and data may hold anything.
    assert!(valid(
        r#"{"properties":{"const":{"maximum":18446744073709551616}}}"#,
        r#"{"const":5}"#
    ));
    assert!(!valid(
        r#"{"properties":{"const":{"maximum":18446744073709551616}}}"#,
        r#"{"const":18446744073709551617}"#
    ));
    assert!(valid(
        r#"{"const":{"maximum":18446744073709551616}}"#,
        r#"{"maximum":18446744073709551616}"#
    ));
}

#[test]
fn formats_are_asserted() {
    for (format, good, bad) in [
        ("date-time", r#""2026-01-01T00:00:00Z""#, r#""yesterday""#),
        ("email", r#""a@b.example""#, r#""a""#),
        ("uri", r#""https://a.example/""#, r#""a b""#),
        ("ipv4", r#""10.0.0.1""#, r#""10.0.0.256""#),
        (
            "uuid",
            r#""2eb8aa08-aa98-11ea-b4aa-73b441d16380""#,
            r#""2eb8aa08""#,
        ),
    ] {
        let schema = format!(r#"{{"format":"{format}"}}"#);
        assert!(valid(&schema, good), "{format}");
        assert!(!valid(&schema, bad), "{format}");
    }
}

#[test]
fn violations_point_at_the_place() {
    let schema = r##"{"type":"object","properties":{"a/b":{"items":{"$ref":"#/$defs/n"}}},"required":["c"],"$defs":{"n":{"type":"number"}}}"##;
    let found = violations(schema, r#"{"a/b":[1,"x"]}"#);
    let paths: Vec<_> = found
        .iter()
        .map(|v| (v.instance_path.as_str(), v.schema_path.as_str()))
        .collect();
    assert!(paths.contains(&("", "/required")), "{paths:?}");
    assert!(
        paths.iter().any(|(instance, _)| *instance == "/a~1b/1"),
        "{paths:?}"
    );
}

#[test]
fn secret_messages_are_empty() {
    let schema =
        Schema::compile(br#"{"properties":{"key":{"pattern":"^[a-f]+$","maxLength":3}}}"#).unwrap();
    let found = schema
        .validate_secret(&Json::parse(br#"{"key":"SECRET"}"#).unwrap())
        .unwrap_err();
    assert_eq!(found.len(), 2);
    for violation in &found {
        assert_eq!(violation.instance_path, "/key");
        assert!(!format!("{violation:?}").contains("SECRET"));
    }
}

#[test]
fn unusable_schemas_are_refused() {
    let refused = |schema: &str| check_schema(schema.as_bytes()).unwrap_err();
    assert!(matches!(refused("{"), ArtifactError::NotJson(_)));
    assert!(matches!(refused("[]"), ArtifactError::InvalidSchema { .. }));
    assert!(matches!(
        refused(r#"{"type":"text"}"#),
        ArtifactError::InvalidSchema { .. }
    ));
    assert!(matches!(
        refused(r#"{"minLength":-1}"#),
        ArtifactError::InvalidSchema { .. }
    ));
    assert!(matches!(
        refused(r#"{"type":"string","type":"number"}"#),
        ArtifactError::NotJson(_)
    ));
    // Look-around needs a backtracking engine.
    assert!(matches!(
        refused(r#"{"pattern":"^(?=a)"}"#),
        ArtifactError::InvalidSchema { .. }
    ));
    let draft = refused(r#"{"$schema":"http://json-schema.org/draft-07/schema#"}"#);
    let ArtifactError::InvalidSchema { pointer, .. } = &draft else {
        panic!("{draft}")
    };
    assert_eq!(pointer, "/$schema");
    for reference in [
        "https://a.example/schema.json",
        "file:///etc/passwd",
        "other.json",
        "#/$defs/missing",
    ] {
        let error = refused(&format!(
            r#"{{"properties":{{"a":{{"$ref":"{reference}"}}}}}}"#
        ));
        assert!(
            matches!(error, ArtifactError::RemoteReference { .. }),
            "{reference}: {error}"
        );
    }
    assert!(matches!(
        check_schema(&vec![b' '; (1 << 20) + 1]),
        Err(ArtifactError::TooLarge { .. })
    ));
    check_schema(b"true").unwrap();
}

#[test]
fn regular_expressions_are_linear() {
    let evil = format!("\"{}!\"", "a".repeat(50_000));
    let started = std::time::Instant::now();
    assert!(!valid(r#"{"pattern":"^(a+)+$"}"#, &evil));
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
}
