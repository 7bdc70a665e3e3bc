//! The `attestation` program.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use newton_attestation::PcrValue;
use newton_attestation::nsm::mock::{MockNsm, Pki, emulated_document};
use newton_attestation::nsm::{AttestationRequest, Nsm as _};
use serde_json::Value;
use tempfile::TempDir;

const NOW_MS: u64 = 1_795_184_000_000;

struct Files {
    dir: TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self {
            dir: TempDir::new().unwrap(),
        };
        let document = nsm().attestation(&request()).unwrap();
        files.write("raw", &document);
        files.write("hex", format!("0x{}\n", hex::encode(&document)).as_bytes());
        let base64 = Command::new("base64")
            .arg(files.path("raw"))
            .output()
            .unwrap()
            .stdout;
        files.write("base64", &base64);
        files.write("root.der", &pki().root_der());
        let pcrs = nsm().document(&request()).pcrs;
        files.write(
            "emulated",
            &emulated_document("i-x-enc0", NOW_MS, &pcrs, &request()),
        );
        files
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.dir.path().join(name), bytes).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().into()
    }

    /// `verify` with everything right, and further arguments.
    fn verify(&self, file: &str, more: &[&str]) -> Output {
        let (file, root, at) = (self.path(file), self.path("root.der"), NOW_MS.to_string());
        let [p0, p1, p2] = [10, 11, 12].map(|n| pcr(n).to_string());
        let fixed = [
            "verify", &file, "--root", &root, "--at", &at, "--pcr0", &p0, "--pcr1", &p1, "--pcr2",
            &p2,
        ];
        run(&[&fixed[..], more].concat())
    }
}

fn pki() -> Pki {
    Pki::from_seed(b"cli tests")
}

fn pcr(n: u8) -> PcrValue {
    PcrValue([n; 48])
}

fn nsm() -> MockNsm {
    MockNsm::new(pki(), "i-mock-enc0", [pcr(10), pcr(11), pcr(12)]).at(NOW_MS)
}

fn request() -> AttestationRequest<'static> {
    AttestationRequest {
        user_data: Some(&[1, 2, 3]),
        nonce: Some(&[4, 5, 6]),
        public_key: None,
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_attestation"))
}

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn verifies_raw_hex_and_base64_and_standard_input() {
    let files = Files::new();
    for form in ["raw", "hex", "base64"] {
        let output = files.verify(form, &["--nonce", "040506", "--user-data", "0x010203"]);
        assert_eq!(code(&output), 0, "{form}: {output:?}");
        let text = text(&output);
        assert!(
            text.contains("verified    yes\ndocument    signed\n"),
            "{text}"
        );
        assert!(
            text.contains(&format!("PCR0        {}", pcr(10))) && text.contains("pcr0_hash   0x"),
            "{text}"
        );
    }
    let path = files.path("root.der");
    let [p0, p1, p2] = [10, 11, 12].map(|n| pcr(n).to_string());
    let at = NOW_MS.to_string();
    let mut child = program()
        .args([
            "verify", "-", "--root", &path, "--at", &at, "--pcr0", &p0, "--pcr1", &p1, "--pcr2",
            &p2,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&std::fs::read(files.path("hex")).unwrap())
        .unwrap();
    assert_eq!(code(&child.wait_with_output().unwrap()), 0);
}

#[test]
fn a_failed_verification_exits_4_and_names_the_check() {
    let files = Files::new();
    let wrong = pcr(99).to_string();
    for (arguments, word) in [
        (vec!["--pcr16", &wrong], "PCR16 is not in the document"),
        (vec!["--pcr8", &wrong], "PCR8 is 0000"),
        (vec!["--nonce", "00"], "nonce is 040506, expected 00"),
        (
            vec!["--user-data", "00"],
            "user_data is 010203, expected 00",
        ),
    ] {
        let output = files.verify("raw", &arguments);
        assert_eq!(code(&output), 4, "{output:?}");
        let text = text(&output);
        assert!(
            text.contains("verified    no") && text.contains(word),
            "{text}"
        );
        assert!(text.contains("claims to be signed, not verified"), "{text}");
    }
    // AWS's root by default.
    let file = files.path("raw");
    let [p0, p1, p2] = [10, 11, 12].map(|n| pcr(n).to_string());
    let output = run(&[
        "verify", &file, "--pcr0", &p0, "--pcr1", &p1, "--pcr2", &p2, "--json",
    ]);
    assert_eq!(code(&output), 4);
    let value = json(&output);
    assert_eq!(value["verified"], false);
    assert!(
        value["error"]
            .as_str()
            .unwrap()
            .contains("641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b")
    );
    // Not a document at all.
    files.write("junk", &[0x84, 0x00]);
    for output in [
        files.verify("junk", &[]),
        run(&["show", &files.path("junk")]),
    ] {
        assert_eq!(code(&output), 4, "{output:?}");
        assert!(text(&output).contains("malformed"));
    }
}

#[test]
fn emulated_documents_say_so_everywhere() {
    let files = Files::new();
    let path = files.path("emulated");
    let refused = files.verify("emulated", &[]);
    assert_eq!(code(&refused), 4);
    assert!(text(&refused).contains("emulated, unsigned"), "{refused:?}");
    let accepted = files.verify("emulated", &["--accept-emulated"]);
    assert_eq!(code(&accepted), 0);
    assert!(text(&accepted).contains("document    emulated, unsigned\n"));
    let wrong = files.verify("emulated", &["--accept-emulated", "--nonce", "00"]);
    assert_eq!(code(&wrong), 4);
    assert!(text(&wrong).contains("emulated, unsigned"));
    for output in [
        files.verify("emulated", &["--json"]),
        files.verify("emulated", &["--json", "--accept-emulated"]),
        run(&["show", &path, "--json"]),
    ] {
        assert_eq!(json(&output)["document"], "emulated, unsigned");
    }
    assert!(text(&run(&["show", &path])).contains("emulated, unsigned"));
    // The switch changes nothing for a signed one.
    let signed = files.verify("raw", &["--accept-emulated", "--json"]);
    assert_eq!(json(&signed)["document"], "signed");
}

#[test]
fn show_prints_what_is_there_and_claims_nothing() {
    let files = Files::new();
    let output = run(&["show", &files.path("hex")]);
    assert_eq!(code(&output), 0);
    let text = text(&output);
    assert!(
        text.starts_with("verified    no (show checks nothing)\ndocument    claims to be signed"),
        "{text}"
    );
    assert!(
        text.contains("certificate CN=mock.nitro-enclaves") && text.contains("user_data   010203"),
        "{text}"
    );
    let value = json(&run(&["show", &files.path("raw"), "--json"]));
    assert_eq!(value["verified"], false);
    assert_eq!(value["pcrs"]["0"], pcr(10).to_string());
    assert_eq!(value["certificates"].as_array().unwrap().len(), 4);
    assert_eq!(value["nonce"], "040506");
    assert_eq!(value["public_key"], Value::Null);
}

#[test]
fn wrong_usage_exits_2() {
    let files = Files::new();
    let raw = files.path("raw");
    let pcr = pcr(1).to_string();
    files.write("text", b"certainly no document!");
    files.write("empty", b" \n");
    files.write("huge", &vec![b'0'; 100_000]);
    let (missing, text, empty, huge) = (
        files.path("missing"),
        files.path("text"),
        files.path("empty"),
        files.path("huge"),
    );
    for arguments in [
        &[][..],
        &["verify", &raw],
        &[
            "verify", &raw, "--pcr0", "00", "--pcr1", &pcr, "--pcr2", &pcr,
        ],
        &[
            "verify", &raw, "--pcr0", &pcr, "--pcr1", &pcr, "--pcr2", &pcr, "--nonce", "xyz",
        ],
        &[
            "verify", &raw, "--pcr0", &pcr, "--pcr1", &pcr, "--pcr2", &pcr, "--root", &text,
        ],
        &[
            "verify", &raw, "--pcr0", &pcr, "--pcr1", &pcr, "--pcr2", &pcr, "--root", &missing,
        ],
        &["show", &missing],
        &["show", &text],
        &["show", &empty],
        &["show", &huge],
        &["frobnicate"],
    ] {
        let output = run(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty());
        assert!(output.stdout.is_empty());
    }
}
