//! Canonical JSON against the shared vectors, and its properties.

#![allow(clippy::unwrap_used)]

use alloy_primitives::{hex, keccak256};
use newton_evaluate::{Json, json::JsonErrorKind};

fn vectors() -> Json {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/jcs.json");
    Json::parse(&std::fs::read(path).unwrap()).unwrap()
}

fn cases(list: &str) -> Vec<Vec<(String, String)>> {
    let vectors = vectors();
    let Json::Array(cases) = &vectors.as_object().unwrap()[list] else {
        panic!("no list {list}")
    };
    cases
        .iter()
        .map(|case| {
            let text = |value: &Json| match value {
                Json::String(text) => text.clone(),
                other => panic!("{other:?}"),
            };
            case.as_object()
                .unwrap()
                .iter()
                .map(|(key, value)| (key.clone(), text(value)))
                .collect()
        })
        .collect()
}

fn field<'a>(case: &'a [(String, String)], name: &str) -> &'a str {
    &case.iter().find(|(key, _)| key == name).unwrap().1
}

#[test]
fn canonical_forms_match_the_vectors() {
    let cases = cases("canonical");
    assert!(cases.len() > 35);
    for case in &cases {
        let name = field(case, "name");
        let value = Json::parse(field(case, "input").as_bytes())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let canonical = value.canonical();
        assert_eq!(
            String::from_utf8_lossy(&canonical),
            field(case, "canonical"),
            "{name}"
        );
        assert_eq!(
            hex::encode_prefixed(keccak256(&canonical)),
            field(case, "keccak256"),
            "{name}"
        );
        // Canonical bytes are a fixed point.
        assert_eq!(Json::parse(&canonical).unwrap(), value, "{name}");
    }
}

#[test]
fn refused_texts_are_refused() {
    let cases = cases("refused");
    assert!(cases.len() > 20);
    for case in &cases {
        assert!(
            Json::parse(field(case, "input").as_bytes()).is_err(),
            "{}",
            field(case, "name")
        );
    }
}

#[test]
fn errors_say_where_and_never_what() {
    for (text, offset, kind) in [
        (
            &b"{\"secret\":1,\"secret\":2}"[..],
            12,
            JsonErrorKind::DuplicateKey,
        ),
        (b"[1,2", 4, JsonErrorKind::UnexpectedEnd),
        (b"[1,x]", 3, JsonErrorKind::UnexpectedCharacter),
        (b"1 2", 2, JsonErrorKind::TrailingBytes),
        (b"\"ab\xff\"", 3, JsonErrorKind::NotUtf8),
        (b"\"a\\ud800\"", 2, JsonErrorKind::LoneSurrogate),
    ] {
        let error = Json::parse(text).unwrap_err();
        assert_eq!(
            (error.offset, error.kind),
            (offset, kind),
            "{}",
            String::from_utf8_lossy(text)
        );
        assert!(!error.to_string().contains("secret"));
    }
    let deep = [b"[".repeat(10_000), b"]".repeat(10_000)].concat();
    assert_eq!(Json::parse(&deep).unwrap_err().kind, JsonErrorKind::TooDeep);
    let level = [b"[".repeat(128), b"]".repeat(128)].concat();
    assert!(Json::parse(&level).is_ok());
}

#[test]
fn binary64_values_become_exact() {
    assert_eq!(Json::from_f64(f64::NAN), None);
    assert_eq!(Json::from_f64(f64::INFINITY), None);
    assert_eq!(Json::from_f64(-0.0).unwrap().canonical(), b"0");
    assert_eq!(
        Json::from_f64(1e21).unwrap().canonical(),
        b"1000000000000000000000"
    );
    assert_eq!(Json::from_f64(0.1).unwrap().canonical(), b"0.1");
}

proptest::proptest! {
    #[test]
    fn parsing_what_was_written_gives_the_value(value in values()) {
        let canonical = value.canonical();
        let parsed = Json::parse(&canonical).unwrap();
        proptest::prop_assert_eq!(&parsed, &value);
        proptest::prop_assert_eq!(parsed.canonical(), canonical);
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
        let _ = Json::parse(&bytes);
    }
}

fn values() -> impl proptest::strategy::Strategy<Value = Json> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        any::<i128>().prop_map(Json::int),
        any::<f64>().prop_map(|float| Json::from_f64(float).unwrap_or(Json::Null)),
        any::<String>().prop_map(Json::string),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Json::Array),
            proptest::collection::btree_map(any::<String>(), inner, 0..6).prop_map(Json::Object),
        ]
    })
}
