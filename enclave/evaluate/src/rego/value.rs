//! Between our JSON values and the interpreter's, without losing a digit.

use std::collections::{BTreeMap, btree_map::Entry};

use num_bigint::BigInt;
use num_traits::ToPrimitive;
use regorus::Value;

use crate::{
    error::EvaluateError,
    json::{Json, MAX_DEPTH, MAX_DIGITS},
};

/// Bits of an integer of [`MAX_DIGITS`] digits, rounded down.
const MAX_BITS: u64 = (MAX_DIGITS as u64 - 1) * 3_321 / 1_000;

/// The interpreter's value.
pub(super) fn to_rego(value: &Json) -> Result<Value, EvaluateError> {
    Ok(match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Int(value) => integer(value)?,
        Json::Fraction(value) => Value::from(value.value()),
        Json::String(text) => Value::String(text.as_str().into()),
        Json::Array(items) => {
            Value::from(items.iter().map(to_rego).collect::<Result<Vec<_>, _>>()?)
        }
        Json::Object(members) => Value::from(
            members
                .iter()
                .map(|(key, member)| Ok((Value::String(key.as_str().into()), to_rego(member)?)))
                .collect::<Result<BTreeMap<_, _>, EvaluateError>>()?,
        ),
    })
}

/// The JSON value: sets become sorted arrays, keys that are no strings become their canonical text, as OPA writes them.
pub(super) fn from_rego(value: &Value) -> Result<Json, EvaluateError> {
    convert(value, 0)
}

fn integer(value: &BigInt) -> Result<Value, EvaluateError> {
    if let Some(small) = value.to_u64() {
        return Ok(Value::from(small));
    }
    if let Some(small) = value.to_i64() {
        return Ok(Value::from(small));
    }
    // The only public way to a big integer that does not pass through a binary64.
    Value::from_numeric_string(&value.to_string()).map_err(|error| EvaluateError::Internal {
        reason: format!("integer refused by the interpreter: {error}"),
    })
}

fn convert(value: &Value, depth: usize) -> Result<Json, EvaluateError> {
    let refuse = |reason: &str| EvaluateError::ResultNotRepresentable {
        reason: reason.to_owned(),
    };
    if depth > MAX_DEPTH {
        return Err(refuse("nesting deeper than 128 levels"));
    }
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Number(number) => match number.as_big() {
            Some(integer) if integer.bits() > MAX_BITS => {
                return Err(refuse("an integer of more than 1,024 digits"));
            }
            Some(integer) => Json::Int((*integer).clone()),
            None => number
                .as_f64()
                .and_then(Json::from_f64)
                .ok_or_else(|| refuse("a number that is not finite"))?,
        },
        Value::String(text) => Json::string(&**text),
        Value::Array(items) => Json::Array(
            items
                .iter()
                .map(|item| convert(item, depth + 1))
                .collect::<Result<_, _>>()?,
        ),
        Value::Set(items) => Json::Array(
            items
                .iter_sorted()
                .map(|item| convert(item, depth + 1))
                .collect::<Result<_, _>>()?,
        ),
        Value::Object(members) => {
            let mut object = BTreeMap::new();
            for (key, member) in members.iter_sorted() {
                let key = match key {
                    Value::String(text) => (**text).to_owned(),
                    other => String::from_utf8_lossy(&convert(other, depth + 1)?.canonical())
                        .into_owned(),
                };
                match object.entry(key) {
                    Entry::Vacant(entry) => entry.insert(convert(member, depth + 1)?),
                    Entry::Occupied(_) => {
                        return Err(refuse("two keys of one object have the same text"));
                    }
                };
            }
            Json::Object(object)
        }
        Value::Undefined => return Err(refuse("an undefined value inside the result")),
    })
}
