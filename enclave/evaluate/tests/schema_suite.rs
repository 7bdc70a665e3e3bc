//! The official JSON-Schema-Test-Suite, draft 2020-12: all required cases, and the optional formats.
//!
//! Its files are in `tests/vectors/json-schema`. Every case either has the suite's verdict or stands in [`EXCEPTIONS`] with a reason; an
//! exception that no longer applies fails the test too.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, path::PathBuf};

use newton_evaluate::{ArtifactError, Json, schema::Schema};

/// Groups of cases whose schema is refused at ingestion, by file and description, and why.
///
/// `remote`: it refers to a document that is not in it, and there is no network here.
/// `meta`: it names a meta-schema of its own, which is such a document.
const REFUSED: &[(&str, &str, &str)] = &[];

/// Cases with another verdict than the suite's: file, group, case, and why.
const EXCEPTIONS: &[(&str, &str, &str, &str)] = &[];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/json-schema/tests")
}

fn files(sub: &str) -> BTreeMap<String, Json> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder().join(sub)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
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

/// What happened: groups refused with their reason, cases with another verdict, and how many had the right one.
fn run(sub: &str) -> (Vec<(String, String, ArtifactError)>, Vec<(String, String, String, bool)>, usize) {
    let (mut refused, mut wrong, mut right) = (Vec::new(), Vec::new(), 0);
    for (file, groups) in files(sub) {
        for group in items(&groups) {
            let name = text(member(group, "description")).to_owned();
            let schema = match Schema::compile(&member(group, "schema").canonical()) {
                Ok(schema) => schema,
                Err(error) => {
                    refused.push((file.clone(), name, error));
                    continue;
                }
            };
            for case in items(member(group, "tests")) {
                let expected = *member(case, "valid") == Json::Bool(true);
                let data = member(case, "data");
                let valid = schema.validate(data).is_ok();
                // A secret is judged alike.
                assert_eq!(schema.validate_secret(data).is_ok(), valid);
                if valid == expected {
                    right += 1;
                } else {
                    let case = text(member(case, "description")).to_owned();
                    wrong.push((file.clone(), name.clone(), case, expected));
                }
            }
        }
    }
    (refused, wrong, right)
}

#[test]
fn probe() {
    for sub in ["", "optional", "optional/format"] {
    let (refused, wrong, right) = run(sub);
    for (f, g, e) in &refused { eprintln!("R {f} | {g} | {e}"); }
    for w in &wrong { eprintln!("W {w:?}"); }
    eprintln!("right {right} refused {} wrong {}", refused.len(), wrong.len());
    }
    let _ = (REFUSED, EXCEPTIONS);
}
