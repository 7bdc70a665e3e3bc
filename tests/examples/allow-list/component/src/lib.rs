//! Data component of the allow-list example: fetches the organisation's register of contracts and their functions.
//!
//! The answer of the server is `{ "chain_id": 1, "contracts": [{ "address": "0x…", "functions": ["transfer"] }] }`; only these members are
//! handed on. Never fails an evaluation by itself: what goes wrong is in the output, and the policy denies.

use newton::provider::http::{HttpRequest, fetch};
use serde_json::{Value, json};

wit_bindgen::generate!({ world: "newton-provider", path: "../../spend-limit/component/wit" });

struct AllowList;

export!(AllowList);

impl Guest for AllowList {
    fn run(input: String) -> Result<String, String> {
        let pack = register(&input).unwrap_or_else(|error| json!({ "error": error }));
        Ok(json!({ "allow_list": pack }).to_string())
    }
}

fn register(input: &str) -> Result<Value, String> {
    let input: Value = serde_json::from_str(input).map_err(|_| "wasm_args is not JSON")?;
    let url = input["_params"]["url"].as_str().ok_or("url is missing")?;
    let response = fetch(&HttpRequest {
        url: url.to_owned(),
        method: "GET".to_owned(),
        headers: vec![("accept".to_owned(), "application/json".to_owned())],
        body: None,
    })?;
    if response.status != 200 {
        return Err(format!("the server answered with status {}", response.status));
    }
    let answer: Value = serde_json::from_slice(&response.body).map_err(|_| "the server answered no JSON")?;
    let contracts = answer["contracts"].as_array().ok_or("contracts are missing")?;
    let contracts: Vec<Value> = contracts
        .iter()
        .map(|entry| json!({ "address": entry["address"], "functions": entry["functions"] }))
        .collect();
    Ok(json!({ "chain_id": answer["chain_id"], "contracts": contracts }))
}
