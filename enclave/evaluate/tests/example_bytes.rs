//! The committed component of the spend-limit example is what its source builds to.

#![allow(clippy::unwrap_used)]

use std::{path::PathBuf, process::Command};

#[test]
fn the_example_component_is_built_from_its_source() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/examples/spend-limit")
        .canonicalize()
        .unwrap();
    let committed = std::fs::read(folder.join("spend-ledger.wasm")).unwrap();
    assert!(committed.len() < 150_000, "{} bytes", committed.len());

    let library = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", "wasm32-wasip2"])
        .current_dir(&folder)
        .output()
        .unwrap();
    let library = PathBuf::from(String::from_utf8(library.stdout).unwrap().trim());
    if !library.is_dir() {
        // Visible without --nocapture too: standard error of the process, not of the test.
        use std::io::Write as _;
        let _ = writeln!(
            std::io::stderr(),
            "\nNOT CHECKED: the target wasm32-wasip2 is not installed here, so tests/examples/spend-limit/spend-ledger.wasm was not \
             rebuilt and compared. `rustup target add wasm32-wasip2` makes this test do its work.\n"
        );
        return;
    }
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let built = scratch.join("spend-ledger.wasm");
    let output = Command::new("sh")
        .arg(folder.join("component/build.sh"))
        .arg(&built)
        .env("CARGO_TARGET_DIR", scratch.join("component"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let built = std::fs::read(&built).unwrap();
    assert!(
        built == committed,
        "built {} bytes that differ from the {} committed ones: run component/build.sh and commit the result",
        built.len(),
        committed.len()
    );
}
