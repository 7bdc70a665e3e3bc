//! Our writer against AWS's: see `tests/vectors/eif/README.md`.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use newton_eif::{BuildMetadata, Image, Metadata, Parts, write};

fn vector(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/eif");
    fs::read(folder.join(name)).unwrap()
}

fn metadata() -> Metadata {
    let mut metadata = Metadata::new("vector", "1", "6.12.0");
    // What the vector was made with, whatever version this crate has.
    metadata.build_metadata = BuildMetadata {
        build_tool_version: "0.1.0".to_owned(),
        ..metadata.build_metadata
    };
    metadata
}

#[test]
fn writes_the_same_bytes() {
    let ours = write(&Parts {
        kernel: &vector("kernel"),
        command_line: &String::from_utf8(vector("command_line")).unwrap(),
        ramdisks: &[&vector("ramdisk-0"), &vector("ramdisk-1")],
        metadata: &metadata(),
        // The defaults of AWS's writer, which cannot be told otherwise.
        default_memory_bytes: 1 << 30,
        default_cpus: 2,
    })
    .unwrap();
    assert_eq!(hex::encode(ours), hex::encode(vector("image.bin")));
}

#[test]
fn reads_and_measures_alike() {
    let file = vector("image.bin");
    let image = Image::parse(&file).unwrap();
    assert_eq!(image.kernel(), vector("kernel"));
    assert_eq!(image.command_line().as_bytes(), vector("command_line"));
    assert_eq!(image.ramdisks(), [vector("ramdisk-0"), vector("ramdisk-1")]);
    assert_eq!(image.metadata().unwrap(), metadata());

    let theirs: serde_json::Value = serde_json::from_slice(&vector("measurements.json")).unwrap();
    let ours = image.measurements();
    assert_eq!(ours.pcr0.to_string(), theirs["PCR0"]);
    assert_eq!(ours.pcr1.to_string(), theirs["PCR1"]);
    assert_eq!(ours.pcr2.to_string(), theirs["PCR2"]);
}
