//! Data component of the multi-source vote: the first source, which scores addresses from 0 to 100.
//!
//! `wasm_args` is `{ "address": "0x…" }`; the policy compares it with the recipient. Never fails an evaluation by itself: a source without an
//! answer does not vote.

use newton::provider::http::{HttpRequest, fetch};
use serde_json::{Value, json};

wit_bindgen::generate!({ world: "newton-provider", path: "../../spend-limit/component/wit" });

struct Vote;

export!(Vote);

impl Guest for Vote {
    fn run(input: String) -> Result<String, String> {
        let vote = vote(&input).unwrap_or_else(|error| json!({ "error": error }));
        Ok(json!({ "vote_first": vote }).to_string())
    }
}

fn vote(input: &str) -> Result<Value, String> {
    let input: Value = serde_json::from_str(input).map_err(|_| "wasm_args is not JSON")?;
    let address = input["address"].as_str().ok_or("address is missing")?.to_lowercase();
    let url = input["_params"]["url"].as_str().ok_or("url is missing")?;
    let response = fetch(&HttpRequest {
        url: format!("{url}/{address}"),
        method: "GET".to_owned(),
        headers: Vec::new(),
        body: None,
    })?;
    if response.status != 200 {
        return Err(format!("the server answered with status {}", response.status));
    }
    let answer: Value = serde_json::from_slice(&response.body).map_err(|_| "the server answered no JSON")?;
    let risk = answer["risk"].as_u64().ok_or("risk is missing")?;
    let checked_at = answer["checked_at"].as_u64().ok_or("checked_at is missing")?;
    Ok(json!({ "address": address, "safe": risk < 50, "certainty": risk.abs_diff(50) * 2, "checked_at": checked_at }))
}
