//! Data component of the spend-limit example.
//!
//! The wallet's ledger writes a statement of what an account has spent today and authenticates it with a key that it shares with this
//! data instance. The task carries the statement in `wasm_args`:
//!
//! ```json
//! { "statement": { "account": "0x…", "spent": "1500", "issued_at": 1764000000 }, "mac": "<hex HMAC-SHA256>" }
//! ```
//!
//! The MAC is over `account ‖ "|" ‖ spent ‖ "|" ‖ issued_at` as text. The output is wrapped under the pack id `spend_ledger`; every failure
//! is an `error` under the same id, so that the policy decides what it means.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

wit_bindgen::generate!({ world: "newton-provider", path: "wit" });

struct SpendLedger;

export!(SpendLedger);

impl Guest for SpendLedger {
    fn run(input: String) -> Result<String, String> {
        let pack = statement(&input).unwrap_or_else(|error| json!({ "error": error }));
        Ok(json!({ "spend_ledger": pack }).to_string())
    }
}

fn statement(input: &str) -> Result<Value, String> {
    let input: Value = serde_json::from_str(input).map_err(|_| "wasm_args is not JSON")?;
    let secrets = newton::provider::secrets::get()?;
    let secrets: Value = serde_json::from_slice(&secrets.value).map_err(|_| "secrets are not JSON")?;
    let key = secrets["ledger_key"].as_str().and_then(unhex).ok_or("ledger_key is not hex")?;

    let statement = &input["statement"];
    let account = statement["account"].as_str().ok_or("statement.account is missing")?;
    let spent = statement["spent"].as_str().ok_or("statement.spent is missing")?;
    let issued_at = statement["issued_at"].as_u64().ok_or("statement.issued_at is missing")?;
    let mac = input["mac"].as_str().and_then(unhex).ok_or("mac is missing")?;
    let mut expected = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| "ledger_key has a wrong length")?;
    expected.update(format!("{account}|{spent}|{issued_at}").as_bytes());
    expected.verify_slice(&mac).map_err(|_| "the statement is not authentic")?;

    let max_age = input["_params"]["max_age_seconds"].as_u64().ok_or("max_age_seconds is missing")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| "the clock is before 1970")?.as_secs();
    let age = now.checked_sub(issued_at).ok_or("the statement is from the future")?;
    if age > max_age || issued_at / 86_400 != now / 86_400 {
        return Err("the statement is too old".to_owned());
    }
    Ok(json!({ "account": account, "spent": spent, "issued_at": issued_at }))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}
