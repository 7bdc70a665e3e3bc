//! What the program prints. Every output says whether the document is signed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use newton_attestation::document::{Algorithm, UnverifiedDocument};
use newton_attestation::verify::{Signed, VerifiedDocument};
use newton_attestation::{PcrValue, config_hash, pcr_hash};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

/// Prints JSON or text, one line break at the end.
pub(crate) fn print(as_json: bool, json: &Value, text: impl FnOnce() -> String) {
    if as_json {
        println!("{json:#}");
    } else {
        println!("{}", text().trim_end());
    }
}

pub(crate) fn verified_text(document: &VerifiedDocument) -> String {
    let mut text = format!("verified    yes\n{document}\n");
    text.push_str(&hashes_text(&document.pcrs));
    if document.signed == Signed::EmulatedUnsigned {
        text.push_str("\nThis document is emulated, unsigned: anybody can make one. It proves nothing about a remote machine.\n");
    }
    text
}

pub(crate) fn verified_json(document: &VerifiedDocument) -> Value {
    let hex = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(hex::encode);
    let mut value = json!({
        "verified": true,
        "document": document.signed.to_string(),
        "module_id": document.module_id,
        "timestamp_ms": document.timestamp_ms,
        "pcrs": pcrs_json(&document.pcrs),
        "public_key": hex(&document.public_key),
        "user_data": hex(&document.user_data),
        "nonce": hex(&document.nonce),
    });
    add_hashes(&mut value, &document.pcrs);
    value
}

pub(crate) fn refused_text(error: &str, algorithm: Option<Algorithm>) -> String {
    format!(
        "verified    no\ndocument    {}\nreason      {error}\n",
        claim(algorithm)
    )
}

pub(crate) fn refused_json(error: &str, algorithm: Option<Algorithm>) -> Value {
    json!({ "verified": false, "document": claim(algorithm), "error": error })
}

pub(crate) fn shown_text(document: &UnverifiedDocument) -> String {
    let optional = |bytes: &Option<Vec<u8>>| bytes.as_deref().map_or("-".into(), hex::encode);
    let mut text = format!(
        "verified    no (show checks nothing)\ndocument    {}\nmodule      {}\ntimestamp   {} ms\n",
        claim(Some(document.algorithm)),
        document.module_id,
        document.timestamp_ms
    );
    // Writing to a String cannot fail.
    for (index, value) in &document.pcrs {
        let note = if *value == PcrValue::ZERO {
            "zero".into()
        } else {
            value.to_string()
        };
        let _ = writeln!(text, "{:<12}{note}", format!("PCR{index}"));
    }
    text.push_str(&hashes_text(&document.pcrs));
    let _ = writeln!(text, "user_data   {}", optional(&document.user_data));
    let _ = writeln!(text, "nonce       {}", optional(&document.nonce));
    let _ = writeln!(text, "public_key  {}", optional(&document.public_key));
    for certificate in certificates(document) {
        let _ = writeln!(text, "certificate {}", certificate.text());
    }
    text
}

pub(crate) fn shown_json(document: &UnverifiedDocument) -> Value {
    let hex = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(hex::encode);
    let mut value = json!({
        "verified": false,
        "document": claim(Some(document.algorithm)),
        "module_id": document.module_id,
        "timestamp_ms": document.timestamp_ms,
        "pcrs": pcrs_json(&document.pcrs),
        "public_key": hex(&document.public_key),
        "user_data": hex(&document.user_data),
        "nonce": hex(&document.nonce),
        "certificates": certificates(document).map(|c| c.json()).collect::<Vec<_>>(),
    });
    add_hashes(&mut value, &document.pcrs);
    value
}

fn claim(algorithm: Option<Algorithm>) -> &'static str {
    match algorithm {
        Some(Algorithm::Es384) => "claims to be signed, not verified",
        Some(Algorithm::Emulated) => "emulated, unsigned",
        None => "malformed",
    }
}

fn pcrs_json(pcrs: &BTreeMap<u8, PcrValue>) -> Value {
    pcrs.iter()
        .map(|(index, value)| (index.to_string(), json!(value.to_string())))
        .collect()
}

/// The names the contracts know the image and its configuration by.
fn hashes(pcrs: &BTreeMap<u8, PcrValue>) -> impl Iterator<Item = (&'static str, String)> {
    let pcr0 = pcrs.get(&0).map(|pcr| ("pcr0_hash", hex0x(pcr_hash(pcr))));
    let config = pcrs
        .get(&16)
        .map(|pcr| ("config_hash", hex0x(config_hash(pcr))));
    [pcr0, config].into_iter().flatten()
}

fn hashes_text(pcrs: &BTreeMap<u8, PcrValue>) -> String {
    hashes(pcrs)
        .map(|(name, hash)| format!("{name:<12}{hash}\n"))
        .collect()
}

fn add_hashes(value: &mut Value, pcrs: &BTreeMap<u8, PcrValue>) {
    for (name, hash) in hashes(pcrs) {
        value[name] = json!(hash);
    }
}

fn hex0x(bytes: [u8; 32]) -> String {
    format!("0x{}", hex::encode(bytes))
}

/// Root first, leaf last.
fn certificates(document: &UnverifiedDocument) -> impl Iterator<Item = Summary> {
    document
        .cabundle
        .iter()
        .chain([&document.certificate])
        .map(|der| Summary::new(der))
}

struct Summary {
    subject: String,
    from: String,
    until: String,
    fingerprint: String,
}

impl Summary {
    fn new(der: &[u8]) -> Self {
        let fingerprint = hex::encode(Sha256::digest(der));
        match Certificate::from_der(der) {
            Ok(certificate) => {
                let tbs = certificate.tbs_certificate();
                Self {
                    subject: tbs.subject().to_string(),
                    from: tbs.validity().not_before.to_string(),
                    until: tbs.validity().not_after.to_string(),
                    fingerprint,
                }
            }
            Err(_) => Self {
                subject: format!("not a certificate ({} bytes)", der.len()),
                from: "-".into(),
                until: "-".into(),
                fingerprint,
            },
        }
    }

    fn text(&self) -> String {
        format!(
            "{}\n            {} to {}\n            sha256 {}",
            self.subject, self.from, self.until, self.fingerprint
        )
    }

    fn json(&self) -> Value {
        json!({ "subject": self.subject, "not_before": self.from, "not_after": self.until, "sha256": self.fingerprint })
    }
}
