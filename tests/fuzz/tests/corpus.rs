//! What fuzzing kept, through the same functions: nothing of it breaks a promise any more.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use newton_fuzz::TARGETS;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target)
}

#[test]
fn every_committed_input_passes() {
    for (name, target) in TARGETS {
        let mut files: Vec<PathBuf> = fs::read_dir(corpus(name))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(files.len() >= 3, "{name} has {} inputs", files.len());
        for file in files {
            let bytes = fs::read(&file).unwrap();
            println!("{}", file.display());
            target(&bytes);
        }
    }
}

#[test]
fn every_target_takes_nothing_and_nonsense() {
    for (_, target) in TARGETS {
        target(&[]);
        for length in 1..80usize {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 37 + length) as u8).collect();
            target(&bytes);
        }
    }
}
