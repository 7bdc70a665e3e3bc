//! Keywords with integers beyond 64 bits, compared exactly.
//!
//! `{"maximum": 2^256 − 1}` becomes `{"x-newton-exact-maximum": "<canonical JSON of the number>"}`, which a custom keyword
//! evaluates. Only values that `serde_json` cannot hold are rewritten; everything else stays with the library.

use std::cmp::Ordering;

use jsonschema::{Keyword, ValidationError, ValidationOptions};
use num_bigint::BigInt;
use num_traits::{ToPrimitive, Zero};

use super::node::ExactJson;
use crate::json::Json;

const PREFIX: &str = "x-newton-exact-";
const KEYWORDS: [&str; 7] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "const",
    "enum",
];
/// Keywords whose members are schemas under names of the author's choosing.
const NAMED: [&str; 5] = [
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "dependentSchemas",
];
/// Keywords whose values are data, not schemas.
const DATA: [&str; 4] = ["const", "enum", "default", "examples"];

/// Registers the private keywords.
pub(super) fn register<'i, R>(
    options: ValidationOptions<'i, R, ExactJson>,
) -> ValidationOptions<'i, R, ExactJson> {
    KEYWORDS.into_iter().fold(options, |options, keyword| {
        options.with_keyword(format!("{PREFIX}{keyword}"), move |_, value, _| {
            compile(keyword, value)
        })
    })
}

/// The schema with inexact keywords replaced.
pub(super) fn rewrite(schema: &Json) -> Json {
    match schema {
        Json::Array(items) => Json::Array(items.iter().map(rewrite).collect()),
        Json::Object(members) => Json::Object(
            members
                .iter()
                .map(|(key, value)| {
                    if KEYWORDS.contains(&key.as_str()) && inexact(key, value) {
                        let text = String::from_utf8_lossy(&value.canonical()).into_owned();
                        return (format!("{PREFIX}{key}"), Json::String(text));
                    }
                    let value = match value {
                        Json::Object(named) if NAMED.contains(&key.as_str()) => Json::Object(
                            named
                                .iter()
                                .map(|(name, schema)| (name.clone(), rewrite(schema)))
                                .collect(),
                        ),
                        other if DATA.contains(&key.as_str()) => other.clone(),
                        other => rewrite(other),
                    };
                    (key.clone(), value)
                })
                .collect(),
        ),
        other => other.clone(),
    }
}

/// A schema path as the author wrote it.
pub(super) fn public_path(path: &str) -> String {
    path.replace(PREFIX, "")
}

fn inexact(keyword: &str, value: &Json) -> bool {
    match (keyword, value) {
        // The library divides by a binary64.
        ("multipleOf", Json::Int(value)) => *value > BigInt::from(1u64 << 53),
        ("const" | "enum", value) => holds_big(value),
        (_, Json::Int(value)) => is_big(value),
        _ => false,
    }
}

fn is_big(value: &BigInt) -> bool {
    value.to_u64().is_none() && value.to_i64().is_none()
}

fn holds_big(value: &Json) -> bool {
    match value {
        Json::Int(value) => is_big(value),
        Json::Array(items) => items.iter().any(holds_big),
        Json::Object(members) => members.values().any(holds_big),
        _ => false,
    }
}

fn compile(
    keyword: &'static str,
    value: &serde_json::Value,
) -> Result<Box<dyn for<'i> Keyword<'i, ExactJson>>, ValidationError<'static>> {
    let operand = value
        .as_str()
        .and_then(|text| Json::parse(text.as_bytes()).ok())
        .ok_or_else(|| ValidationError::schema(format!("{PREFIX}{keyword} is reserved")))?;
    if keyword == "enum" && !matches!(operand, Json::Array(_)) {
        return Err(ValidationError::schema("enum must be an array"));
    }
    Ok(Box::new(Exact { keyword, operand }))
}

struct Exact {
    keyword: &'static str,
    operand: Json,
}

impl Exact {
    fn holds(&self, instance: &Json) -> bool {
        match (self.keyword, &self.operand) {
            ("const", operand) => instance == operand,
            ("enum", Json::Array(options)) => options.contains(instance),
            ("multipleOf", Json::Int(divisor)) => match instance {
                Json::Int(value) => !divisor.is_zero() && (value % divisor).is_zero(),
                // A fraction is no multiple of an integer.
                Json::Fraction(_) => false,
                _ => true,
            },
            (bound, Json::Int(limit)) => {
                compare(instance, limit).is_none_or(|ordering| match bound {
                    "minimum" => ordering != Ordering::Less,
                    "maximum" => ordering != Ordering::Greater,
                    "exclusiveMinimum" => ordering == Ordering::Greater,
                    _ => ordering == Ordering::Less,
                })
            }
            _ => false,
        }
    }
}

/// `None` for anything but a number.
fn compare(instance: &Json, limit: &BigInt) -> Option<Ordering> {
    match instance {
        Json::Int(value) => Some(value.cmp(limit)),
        // The limit is beyond 64 bits and a binary64 with a fraction is below 2^52, so the limit's sign decides.
        Json::Fraction(_) => Some(if limit.sign() == num_bigint::Sign::Minus {
            Ordering::Greater
        } else {
            Ordering::Less
        }),
        _ => None,
    }
}

impl<'i> Keyword<'i, ExactJson> for Exact {
    fn validate(&self, instance: &'i Json) -> Result<(), ValidationError<'i>> {
        if self.holds(instance) {
            return Ok(());
        }
        let operand = String::from_utf8_lossy(&self.operand.canonical()).into_owned();
        Err(ValidationError::custom(format!(
            "value does not satisfy {} {operand}",
            self.keyword
        )))
    }

    fn is_valid(&self, instance: &'i Json) -> bool {
        self.holds(instance)
    }
}
