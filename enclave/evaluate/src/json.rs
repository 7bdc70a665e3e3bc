//! JSON with exact integers: the one value type from params to the signed result.
//!
//! A number that is mathematically an integer is kept with all its digits, however it was written (`1e3`, `1.0`, 2^256 − 1).
//! Any other number is the nearest binary64. The canonical form is RFC 8785 except that integers are always written as plain
//! digits, so equal values have equal bytes and re-parsing gives the same value (protocol section 5).

mod parse;
mod write;

use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_traits::FromPrimitive;

pub use parse::{JsonError, JsonErrorKind};

/// Nesting allowed in any document, input or output.
pub const MAX_DEPTH: usize = 128;

/// Digits allowed in one integer.
pub const MAX_DIGITS: usize = 1_024;

/// A JSON value.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Json {
    /// `null`
    #[default]
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer of any size.
    Int(BigInt),
    /// A number that is no integer.
    Fraction(Fraction),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Self>),
    /// An object; keys are unique.
    Object(BTreeMap<String, Self>),
}

/// A finite binary64 that is not an integer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fraction(f64);

impl Fraction {
    /// The number.
    #[must_use]
    pub const fn value(self) -> f64 {
        self.0
    }
}

impl Json {
    /// Parses strict JSON: UTF-8, one value, unique keys, at most [`MAX_DEPTH`] levels and [`MAX_DIGITS`] digits.
    ///
    /// # Errors
    /// [`JsonError`] with the byte offset.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        parse::parse(bytes)
    }

    /// The canonical bytes.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        write::canonical(self)
    }

    /// A number from a binary64: integers become exact, `None` for infinities and NaN.
    #[must_use]
    pub fn from_f64(value: f64) -> Option<Self> {
        if !value.is_finite() {
            return None;
        }
        if value.fract() == 0.0 {
            return BigInt::from_f64(value).map(Self::Int);
        }
        Some(Self::Fraction(Fraction(value)))
    }

    /// An integer.
    #[must_use]
    pub fn int(value: impl Into<BigInt>) -> Self {
        Self::Int(value.into())
    }

    /// A string.
    #[must_use]
    pub fn string(value: impl Into<String>) -> Self {
        Self::String(value.into())
    }

    /// The members, if this is an object.
    #[must_use]
    pub const fn as_object(&self) -> Option<&BTreeMap<String, Self>> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The JSON type's name.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Int(_) | Self::Fraction(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    /// Overwrites every string in place, keys included as far as they can be reached; for documents that hold secrets.
    pub fn wipe(&mut self) {
        use zeroize::Zeroize;
        match std::mem::take(self) {
            Self::String(mut text) => text.zeroize(),
            Self::Array(mut items) => items.iter_mut().for_each(Self::wipe),
            Self::Object(members) => {
                for (mut key, mut value) in members {
                    key.zeroize();
                    value.wipe();
                }
            }
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Fraction(_) => {}
        }
    }

    /// The nearest `serde_json` value: integers beyond 64 bits become binary64.
    #[must_use]
    pub fn to_serde(&self) -> serde_json::Value {
        use serde_json::Value;
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Number(int_to_serde(value)),
            Self::Fraction(value) => {
                serde_json::Number::from_f64(value.0).map_or(Value::Null, Value::Number)
            }
            Self::String(value) => Value::String(value.clone()),
            Self::Array(items) => Value::Array(items.iter().map(Self::to_serde).collect()),
            Self::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|(key, value)| (key.clone(), value.to_serde()))
                    .collect(),
            ),
        }
    }
}

/// The nearest `serde_json` number; saturates at the largest binary64.
pub(crate) fn int_to_serde(value: &BigInt) -> serde_json::Number {
    use num_traits::ToPrimitive;
    if let Some(small) = value.to_u64() {
        return small.into();
    }
    if let Some(small) = value.to_i64() {
        return small.into();
    }
    let float = value.to_f64().unwrap_or(f64::MAX).clamp(f64::MIN, f64::MAX);
    serde_json::Number::from_f64(float).unwrap_or_else(|| 0.into())
}
