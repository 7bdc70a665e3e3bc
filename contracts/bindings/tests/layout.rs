//! The storage of what stands behind proxies: a changed layout must be a decision, not an accident.
//!
//! Compares the compiler's storage layouts (`forge build` writes them into the artifacts) with `contracts/snapshots/layout`.
//! `NEWTON_BLESS=1` writes them anew; then read the difference: an upgrade may only add behind what is there.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

const CONTRACTS: [&str; 10] = [
    "ChallengeVerifier",
    "EnclaveReexecutionVerifier",
    "EnclaveVersionRegistry",
    "KeyRegistry",
    "OperatorRegistry",
    "PolicyClientRegistry",
    "PolicyDataRegistry",
    "PolicyRegistry",
    "StateCommitRegistry",
    "TaskManager",
];

fn out_dir() -> PathBuf {
    std::env::var_os("NEWTON_CONTRACTS_OUT").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../out"),
        PathBuf::from,
    )
}

/// Type names without the compiler's numbers, which change with every edit: `t_struct(Head)123_storage`.
fn plain(name: &str) -> String {
    let mut result = String::new();
    let mut rest = name;
    while let Some(end) = rest.find(')') {
        result.push_str(&rest[..=end]);
        rest = rest[end + 1..].trim_start_matches(|c: char| c.is_ascii_digit());
    }
    result + rest
}

fn members(layout: &Value, list: &Value, indent: usize, text: &mut String) {
    for entry in list.as_array().unwrap() {
        let name = entry["type"].as_str().unwrap();
        writeln!(
            text,
            "{:indent$}{}+{} {} {}",
            "",
            entry["slot"].as_str().unwrap(),
            entry["offset"],
            entry["label"].as_str().unwrap(),
            plain(name)
        )
        .unwrap();
        describe(layout, name, indent + 2, text);
    }
}

/// Structs wherever they stand: as a member, as a mapping's value, in an array.
fn describe(layout: &Value, name: &str, indent: usize, text: &mut String) {
    let ty = &layout["types"][name];
    if ty["members"].is_array() {
        members(layout, &ty["members"], indent, text);
    }
    for inner in ["value", "base"] {
        if let Some(inner) = ty[inner].as_str() {
            describe(layout, inner, indent, text);
        }
    }
}

#[test]
fn layouts_are_those_of_the_snapshot() {
    let snapshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots/layout");
    let bless = std::env::var_os("NEWTON_BLESS").is_some();
    let mut changed = Vec::new();
    for contract in CONTRACTS {
        let artifact = out_dir().join(format!("{contract}.sol/{contract}.json"));
        let artifact: Value =
            serde_json::from_slice(&std::fs::read(&artifact).unwrap_or_else(|error| {
                panic!("run `forge build` first: {}: {error}", artifact.display())
            }))
            .unwrap();
        let layout = &artifact["storageLayout"];
        let mut text = String::new();
        members(layout, &layout["storage"], 0, &mut text);
        let path = snapshots.join(format!("{contract}.txt"));
        if bless {
            std::fs::create_dir_all(&snapshots).unwrap();
            std::fs::write(&path, &text).unwrap();
        } else if std::fs::read_to_string(&path).unwrap_or_default() != text {
            changed.push(contract);
        }
    }
    assert!(
        changed.is_empty(),
        "storage layouts changed: {changed:?}; NEWTON_BLESS=1 writes the snapshots anew"
    );
}
