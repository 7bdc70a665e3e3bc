//! Documents that come as JSON inside a call.
//!
//! Parameters are read by a parser that rounds integers above 64 bits. Where a document may hold such, its text is taken as a string;
//! a number that has been rounded is refused rather than evaluated.

use newton_api::RpcError;
use newton_evaluate::intent::{IntentError, WireIntent};
use newton_types::Bytes;
use serde_json::Value;

/// Integers up to here are the same in binary64.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// JSON text of a document: an object as it is, or a string that holds the text. Nothing at all counts as empty.
pub(super) fn document(field: &str, value: Option<&Value>) -> Result<Vec<u8>, RpcError> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(text.clone().into_bytes()),
        Some(value @ Value::Object(_)) => {
            if is_rounded(value) {
                return Err(RpcError::invalid_param(
                    field,
                    "holds an integer above 64 bits; give the document's text as a string to keep every digit",
                ));
            }
            serde_json::to_vec(value).map_err(|e| super::super::internal(&e))
        }
        // The value itself is not repeated: it may be secret.
        Some(_) => Err(RpcError::invalid_param(
            field,
            "must be a JSON object, or a string with its text",
        )),
    }
}

/// An intent in its wire form.
pub(in crate::rpc) fn wire_intent(field: &str, value: &Value) -> Result<WireIntent, RpcError> {
    if is_rounded(value) {
        return Err(RpcError::invalid_param(
            field,
            "holds an integer above 64 bits; write quantities as 0x and hex digits",
        ));
    }
    let text = serde_json::to_vec(value).map_err(|e| super::super::internal(&e))?;
    WireIntent::from_json(&text).map_err(|e| {
        let member = match &e {
            IntentError::MissingField { field }
            | IntentError::UnknownField { field }
            | IntentError::InvalidField { field, .. }
            | IntentError::TooLong { field, .. } => Some(field.clone()),
            _ => None,
        };
        let path = member.map_or_else(|| field.to_owned(), |member| format!("{field}.{member}"));
        RpcError::invalid_param(&path, &e)
    })
}

/// `wasm_args` as bytes; none at all counts as `{}` in the evaluation.
pub(in crate::rpc) fn arguments(bytes: Option<&Bytes>) -> Vec<u8> {
    bytes.map(|b| b.to_vec()).unwrap_or_default()
}

/// Whether a number in here stands for an integer that the parser could not keep.
fn is_rounded(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            number.is_f64()
                && number
                    .as_f64()
                    .is_some_and(|n| n.fract() == 0.0 && n.abs() > EXACT)
        }
        Value::Array(items) => items.iter().any(is_rounded),
        Value::Object(members) => members.values().any(is_rounded),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn documents_keep_every_digit_or_are_refused() {
        let text = r#"{"limit":115792089237316195423570985008687907853269984665640564039457584007913129639935}"#;
        let given = document("params", Some(&json!(text))).unwrap();
        assert_eq!(given, text.as_bytes());
        let parsed: Value = serde_json::from_str(text).unwrap();
        let refused = document("params", Some(&parsed)).unwrap_err();
        assert_eq!(refused.data["field"], "params");
        let small = json!({ "limit": u64::MAX, "share": 0.5 });
        let given = document("params", Some(&small)).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&given).unwrap(), small);
        assert_eq!(document("params", None).unwrap(), b"");
    }

    #[test]
    fn what_is_no_document_is_not_repeated() {
        let refused = document("secrets", Some(&json!(["hunter2"]))).unwrap_err();
        assert!(!refused.to_json().to_string().contains("hunter2"));
    }

    #[test]
    fn a_wrong_intent_names_its_field() {
        let address = format!("0x{}", "11".repeat(20));
        let good = json!({
            "from": address, "to": address, "value": "0x0", "chain_id": "0x1", "data": "0x", "function_signature": "0x",
        });
        wire_intent("intent", &good).unwrap();
        for (member, wrong) in [
            ("from", json!("0x11")),
            ("value", json!("1")),
            ("data", json!(7)),
            ("colour", json!("red")),
        ] {
            let mut intent = good.clone();
            intent[member] = wrong;
            let refused = wire_intent("intent", &intent).unwrap_err();
            assert_eq!(refused.data["field"], format!("intent.{member}"));
        }
        let mut rounded = good;
        rounded["value"] = json!(1e30);
        let refused = wire_intent("intent", &rounded).unwrap_err();
        assert_eq!(refused.data["field"], "intent");
    }
}
