//! The official JSON-Schema-Test-Suite, draft 2020-12: all required cases, and the optional formats.
//!
//! Its files are in `tests/vectors/json-schema`. Whatever differs from the suite's verdicts is listed here, file by file, with how many and
//! why; one more or one less fails the test.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, path::PathBuf};

use newton_evaluate::{ArtifactError, Json, schema::Schema};

/// Groups whose schema refers to a document outside of it. There is no network here: refused at ingestion.
const REMOTE: &[(&str, usize)] = &[
    ("dynamicRef.json", 5),
    ("optional/cross-draft.json", 1),
    ("refRemote.json", 15),
];

/// Groups under a meta-schema of their own, which would be such a document.
const META_SCHEMA: &[(&str, usize)] = &[
    ("optional/format-assertion.json", 2),
    ("vocabulary.json", 2),
];

/// Cases that take a format for an annotation. Here it is an assertion, as the draft allows and design 4.2 asks.
const ASSERTED: &[(&str, usize)] = &[("format.json", 17)];

/// Cases of formats that the library does not check as it is built here (internationalised names): ignored as unknown ones are.
const UNCHECKED: &[(&str, usize)] = &[
    ("optional/format/idn-email.json", 2),
    ("optional/format/idn-hostname.json", 34),
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/json-schema/tests")
}

fn files(sub: &str) -> BTreeMap<String, Json> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder().join(sub)).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let name = path.strip_prefix(folder()).unwrap().display().to_string();
            let text = fs::read(&path).unwrap();
            files.insert(name, Json::parse(&text).unwrap());
        }
    }
    files
}

fn member<'a>(value: &'a Json, name: &str) -> &'a Json {
    &value.as_object().unwrap()[name]
}

fn text(value: &Json) -> &str {
    match value {
        Json::String(text) => text,
        other => panic!("{other:?}"),
    }
}

fn items(value: &Json) -> &[Json] {
    match value {
        Json::Array(items) => items,
        other => panic!("{other:?}"),
    }
}

#[derive(Default)]
struct Tally {
    right: usize,
    remote: BTreeMap<String, usize>,
    meta_schema: BTreeMap<String, usize>,
    asserted: BTreeMap<String, usize>,
    unchecked: BTreeMap<String, usize>,
}

impl Tally {
    fn file(&mut self, file: &str, groups: &Json) {
        for group in items(groups) {
            let schema = member(group, "schema");
            match Schema::compile(&schema.canonical()) {
                Ok(schema) => {
                    for case in items(member(group, "tests")) {
                        self.case(file, &schema, case);
                    }
                }
                Err(ArtifactError::RemoteReference { reference, .. }) => {
                    assert!(reference.contains("http://localhost:1234/"), "{reference}");
                    *self.remote.entry(file.to_owned()).or_default() += 1;
                }
                Err(ArtifactError::InvalidSchema { pointer, .. }) if pointer == "/$schema" => {
                    *self.meta_schema.entry(file.to_owned()).or_default() += 1;
                }
                Err(error) => panic!("{file}: {error}"),
            }
        }
    }

    fn case(&mut self, file: &str, schema: &Schema, case: &Json) {
        let expected = *member(case, "valid") == Json::Bool(true);
        let data = member(case, "data");
        let verdict = schema.validate(data);
        // A secret is judged alike, and nothing of it is said.
        let secret = schema.validate_secret(data);
        assert_eq!(secret.is_ok(), verdict.is_ok());
        if let Err(violations) = secret {
            assert!(
                violations
                    .iter()
                    .all(|violation| violation.message.is_empty())
            );
        }
        let description = text(member(case, "description"));
        let tally = match (verdict.is_ok(), expected) {
            (true, true) | (false, false) => {
                self.right += 1;
                return;
            }
            (false, true) if description.ends_with("is only an annotation by default") => {
                &mut self.asserted
            }
            (true, false) if file.contains("/idn-") => &mut self.unchecked,
            (_, expected) => panic!("{file}: {description}: expected {expected}"),
        };
        *tally.entry(file.to_owned()).or_default() += 1;
    }
}

fn listed(exceptions: &[(&str, usize)]) -> BTreeMap<String, usize> {
    exceptions
        .iter()
        .map(|(file, count)| ((*file).to_owned(), *count))
        .collect()
}

#[test]
fn the_suites_verdicts_hold() {
    let mut tally = Tally::default();
    let mut seen = 0;
    for sub in ["", "optional", "optional/format"] {
        for (file, groups) in files(sub) {
            tally.file(&file, &groups);
            seen += 1;
        }
    }
    assert_eq!(seen, 80, "files of the suite");
    assert_eq!(tally.remote, listed(REMOTE));
    assert_eq!(tally.meta_schema, listed(META_SCHEMA));
    assert_eq!(tally.asserted, listed(ASSERTED));
    assert_eq!(tally.unchecked, listed(UNCHECKED));
    assert_eq!(tally.right, 1_799);
}
