//! The examples' tests, and what the runner says of tests that fail.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use newton_policy_test::{Verdict, run_folder};

fn examples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

const EXAMPLES: [&str; 8] = [
    "allow-list",
    "gas-price",
    "kyc",
    "multi-source-vote",
    "price-feed",
    "sanctions-list",
    "spend-limit",
    "token-purchase",
];

#[test]
fn the_examples_pass() {
    let mut found: Vec<_> = fs::read_dir(examples())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, EXAMPLES);
    for example in EXAMPLES {
        let reports = run_folder(&examples().join(example), None).unwrap();
        assert!(reports.len() >= 7, "{example}: {}", reports.len());
        for report in &reports {
            match &report.verdict {
                Verdict::Passed => {}
                // Components of 12 and 18 MB are built by `cargo xtask examples --build` and not here.
                Verdict::NotChecked(why) => assert!(why.contains("not built"), "{why}"),
                Verdict::Failed(why) => panic!("{example}: {}: {why}", report.name),
            }
        }
        let checked = reports
            .iter()
            .filter(|report| report.verdict == Verdict::Passed);
        assert!(checked.count() >= 7, "{example}");
        if example == "spend-limit" {
            let all = reports
                .iter()
                .all(|report| report.verdict == Verdict::Passed);
            assert!(all, "its component stands in the folder");
        }
    }
}

/// A copy of an example with one file changed.
fn changed(example: &str, file: &str, change: impl Fn(String) -> String) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &to);
            } else {
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(&examples().join(example), folder.path());
    let path = folder.path().join(file);
    let text = change(fs::read_to_string(&path).unwrap());
    fs::write(path, text).unwrap();
    folder
}

fn failures(folder: &Path) -> Vec<String> {
    run_folder(folder, None)
        .unwrap()
        .into_iter()
        .filter_map(|report| match report.verdict {
            Verdict::Failed(why) => Some(format!("{}: {why}", report.name)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_policy_that_changed_fails_its_tests() {
    // Denies turned into approvals are found by both kinds of tests.
    let folder = changed("price-feed", "policy.rego", |text| {
        text.replace("<= price *", "<= 2 * price *")
    });
    let failures = failures(folder.path());
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert_eq!(failures[0], "test_denies_beyond: it does not hold");
    assert!(
        failures[1].starts_with("two per cent away: expected false, got true over {\"price_feed\""),
        "{failures:?}"
    );
}

#[test]
fn recorded_servers_are_held_to_what_is_recorded() {
    // The component never asks: the recording says that it should.
    let folder = changed("spend-limit", "cases.json", |text| {
        text.replacen(
            r#""run": []"#,
            r#""run": [{"url":"https://a.example/"}]"#,
            1,
        )
    });
    let failures = failures(folder.path());
    assert_eq!(
        failures,
        ["the component and an authentic statement: never asked: GET https://a.example/"]
    );
}

#[test]
fn folders_that_are_none_are_errors() {
    for (file, text, says) in [
        (
            "policy.rego",
            "package price_feed\nallow := ",
            "Rego is invalid",
        ),
        (
            "policy.rego",
            "package price_feed\nallow := http.send({})",
            "http.send",
        ),
        (
            "policy.rego",
            "package other\nallow := true",
            "price_feed.allow",
        ),
        (
            "policy_test.rego",
            "package price_feed_test\nx := 1",
            "no rule is named test_",
        ),
        ("cases.json", "{", "cases.json"),
        (
            "cases.json",
            r#"{"entrypoint":"price_feed.allow","now":1,"cases":[],"colour":1}"#,
            "colour",
        ),
    ] {
        let folder = changed("price-feed", file, |_| text.to_owned());
        let error = run_folder(folder.path(), None).unwrap_err();
        assert!(format!("{error:#}").contains(says), "{says}: {error:#}");
    }
    assert!(run_folder(Path::new("/nonexistent"), None).is_err());
}
