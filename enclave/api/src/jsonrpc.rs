//! Strict JSON-RPC 2.0 requests (<https://www.jsonrpc.org/specification>). Batches and notifications are refused.

use newton_types::rpc::ErrorName;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{RpcError, auth::Permissions};

/// One request, parsed and authorised.
#[derive(Clone, Debug)]
pub struct Call {
    /// Method name.
    pub method: String,
    /// Named parameters.
    pub params: Params,
    /// What the caller's bearer key opens.
    pub permissions: Permissions,
}

/// Named parameters of a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params(Map<String, Value>);

impl Params {
    /// Reads the parameters into a type that says `deny_unknown_fields`.
    pub fn parse<T: DeserializeOwned>(self) -> Result<T, RpcError> {
        serde_json::from_value(Value::Object(self.0)).map_err(|e| {
            let text = e.to_string();
            // serde names the field in back ticks: "unknown field `x`", "missing field `y`".
            let field = text.split('`').nth(1).unwrap_or("params").to_owned();
            RpcError::new(ErrorName::InvalidParams, text).with("field", field)
        })
    }

    /// Takes one parameter out.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// The parameters as they came.
    pub const fn members(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl From<Map<String, Value>> for Params {
    fn from(members: Map<String, Value>) -> Self {
        Self(members)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    jsonrpc: String,
    id: Value,
    method: String,
    #[serde(default)]
    params: Option<Value>,
}

/// A request's id and either its parts or why it is refused.
pub(crate) struct Parsed {
    pub(crate) id: Value,
    pub(crate) request: Result<(String, Params), RpcError>,
}

pub(crate) fn parse(body: &[u8]) -> Parsed {
    let value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(e) => return refused(Value::Null, ErrorName::ParseError, e.to_string()),
    };
    if value.is_array() {
        return refused(
            Value::Null,
            ErrorName::InvalidRequest,
            "batches are not served; send one request at a time".to_owned(),
        );
    }
    let id = value.get("id").cloned().unwrap_or(Value::Null);
    let raw: Raw = match serde_json::from_value(value) {
        Ok(raw) => raw,
        Err(e) => return refused(Value::Null, ErrorName::InvalidRequest, e.to_string()),
    };
    if raw.jsonrpc != "2.0" {
        let got = format!("jsonrpc must be \"2.0\", got {:?}", raw.jsonrpc);
        return refused(Value::Null, ErrorName::InvalidRequest, got);
    }
    if !(raw.id.is_string() || raw.id.is_number()) {
        let got = "id must be a string or a number".to_owned();
        return refused(Value::Null, ErrorName::InvalidRequest, got);
    }
    let params = match raw.params {
        None => Map::new(),
        Some(Value::Object(map)) => map,
        // Public clients send the one parameter object inside an array, too.
        Some(Value::Array(mut list)) if list.len() == 1 && list[0].is_object() => {
            match list.remove(0) {
                Value::Object(map) => map,
                _ => Map::new(),
            }
        }
        Some(_) => {
            let why = "params must be an object with named parameters".to_owned();
            return refused(id, ErrorName::InvalidParams, why);
        }
    };
    Parsed {
        id,
        request: Ok((raw.method, Params(params))),
    }
}

pub(crate) fn answer(id: &Value, outcome: Result<Value, RpcError>) -> Vec<u8> {
    let body = match outcome {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(error) => json!({ "jsonrpc": "2.0", "id": id, "error": error.to_json() }),
    };
    body.to_string().into_bytes()
}

fn refused(id: Value, name: ErrorName, message: String) -> Parsed {
    Parsed {
        id,
        request: Err(RpcError::new(name, message)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Wanted {
        a: u32,
    }

    #[test]
    fn a_request_is_read_with_string_and_number_ids() {
        for id in ["\"x\"", "7"] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m","params":{{"a":1}}}}"#);
            let (method, params) = parse(body.as_bytes()).request.unwrap();
            assert_eq!(method, "m");
            assert_eq!(params.parse::<Wanted>().unwrap().a, 1);
        }
    }

    #[test]
    fn every_malformed_request_has_its_error() {
        for (body, name) in [
            ("{", ErrorName::ParseError),
            ("[]", ErrorName::InvalidRequest),
            (r#"{"id":1,"method":"m"}"#, ErrorName::InvalidRequest),
            (
                r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#,
                ErrorName::InvalidRequest,
            ),
            (
                r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#,
                ErrorName::InvalidRequest,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"m","params":[1]}"#,
                ErrorName::InvalidParams,
            ),
        ] {
            assert_eq!(
                parse(body.as_bytes()).request.unwrap_err().name,
                name,
                "{body}"
            );
        }
    }

    #[test]
    fn a_wrong_parameter_is_named() {
        for (params, field) in [("{}", "a"), (r#"{"a":1,"b":2}"#, "b")] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{params}}}"#);
            let (_, params) = parse(body.as_bytes()).request.unwrap();
            let error = params.parse::<Wanted>().unwrap_err();
            assert_eq!(error.data["field"], field);
        }
    }
}
