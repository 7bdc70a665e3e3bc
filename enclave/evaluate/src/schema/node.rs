//! Our JSON values as `jsonschema` sees them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, btree_map},
};

use jsonschema::{
    json::{self, NodeIdentity},
    types::JsonType,
};
use num_bigint::BigInt;
use num_traits::{FromPrimitive, ToPrimitive};

use crate::json::{Fraction, Json, int_to_serde};

/// The representation [`Json`] for `jsonschema`.
pub struct ExactJson;

impl json::Json for ExactJson {
    type Node<'a> = &'a Json;
    type PreparedKey = String;
    type StringBuffer = Json;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(buffer: &mut Json, string: &str, f: impl FnOnce(&Json) -> T) -> T {
        *buffer = Json::string(string);
        f(buffer)
    }
}

/// A number with all its digits.
#[derive(Clone, Copy)]
pub enum Number<'a> {
    /// An integer.
    Int(&'a BigInt),
    /// Anything else.
    Fraction(Fraction),
}

impl json::JsonNumber for Number<'_> {
    fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Int(value) => value.to_u64(),
            Self::Fraction(_) => None,
        }
    }

    fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(value) => value.to_i64(),
            Self::Fraction(_) => None,
        }
    }

    fn as_f64(&self) -> Option<f64> {
        match self {
            // Beyond binary64 this is an infinity, which must not reach comparisons: the sign then comes from as_str.
            Self::Int(value) => value.to_f64().filter(|float| float.is_finite()),
            Self::Fraction(value) => Some(value.value()),
        }
    }

    fn as_str(&self) -> Cow<'_, str> {
        Cow::Owned(match self {
            Self::Int(value) => value.to_string(),
            Self::Fraction(value) => value.value().to_string(),
        })
    }

    fn to_number(&self) -> Cow<'_, serde_json::Number> {
        Cow::Owned(match self {
            Self::Int(value) => int_to_serde(value),
            Self::Fraction(value) => {
                serde_json::Number::from_f64(value.value()).unwrap_or_else(|| 0.into())
            }
        })
    }

    fn is_integer(&self) -> bool {
        matches!(self, Self::Int(_))
    }

    fn is_written_as_integer(&self) -> bool {
        matches!(self, Self::Int(_))
    }
}

impl<'a> json::Node<'a, ExactJson> for &'a Json {
    type Object = &'a BTreeMap<String, Json>;
    type Array = &'a [Json];
    type Number = Number<'a>;

    fn as_object(&self) -> Option<Self::Object> {
        Json::as_object(self)
    }

    fn as_array(&self) -> Option<Self::Array> {
        match self {
            Json::Array(items) => Some(items),
            _ => None,
        }
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        match self {
            Json::String(text) => Some(Cow::Borrowed(text)),
            _ => None,
        }
    }

    fn as_number(&self) -> Option<Number<'a>> {
        match self {
            Json::Int(value) => Some(Number::Int(value)),
            Json::Fraction(value) => Some(Number::Fraction(*value)),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match self {
            Json::Bool(value) => Some(*value),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Json::Null)
    }

    fn json_type(&self) -> JsonType {
        match self {
            Json::Null => JsonType::Null,
            Json::Bool(_) => JsonType::Boolean,
            Json::Int(_) | Json::Fraction(_) => JsonType::Number,
            Json::String(_) => JsonType::String,
            Json::Array(_) => JsonType::Array,
            Json::Object(_) => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &serde_json::Value) -> bool {
        equal(self, expected)
    }

    fn to_value(&self) -> Cow<'a, serde_json::Value> {
        Cow::Owned(self.to_serde())
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref::<Json>(self).addr()))
    }
}

impl<'a> json::Object<'a, ExactJson> for &'a BTreeMap<String, Json> {
    type Node = &'a Json;
    type MemberName = &'a str;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        BTreeMap::len(self)
    }

    fn get(&self, key: &String) -> Option<&'a Json> {
        BTreeMap::get(self, key)
    }

    fn members(&self) -> Members<'a> {
        Members(BTreeMap::iter(self))
    }
}

/// The members of an object.
pub struct Members<'a>(btree_map::Iter<'a, String, Json>);

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a Json);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(key, value)| (key.as_str(), value))
    }
}

impl<'a> json::Array<'a, ExactJson> for &'a [Json] {
    type Node = &'a Json;
    type ElementsIter = std::slice::Iter<'a, Json>;

    fn len(&self) -> usize {
        <[Json]>::len(self)
    }

    fn elements(&self) -> Self::ElementsIter {
        <[Json]>::iter(self)
    }

    fn is_unique(&self) -> bool {
        // Canonical bytes are equal exactly when the values are.
        let mut seen = std::collections::BTreeSet::new();
        self.iter().all(|item| seen.insert(item.canonical()))
    }
}

fn equal(value: &Json, expected: &serde_json::Value) -> bool {
    use serde_json::Value;
    match (value, expected) {
        (Json::Null, Value::Null) => true,
        (Json::Bool(left), Value::Bool(right)) => left == right,
        (Json::String(left), Value::String(right)) => left == right,
        (Json::Int(left), Value::Number(right)) => exact(right).as_ref() == Some(left),
        (Json::Fraction(left), Value::Number(right)) => right.as_f64() == Some(left.value()),
        (Json::Array(left), Value::Array(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|(left, right)| equal(left, right))
        }
        (Json::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, value)| right.get(key).is_some_and(|right| equal(value, right)))
        }
        _ => false,
    }
}

fn exact(number: &serde_json::Number) -> Option<BigInt> {
    if let Some(small) = number.as_u64() {
        return Some(small.into());
    }
    if let Some(small) = number.as_i64() {
        return Some(small.into());
    }
    number
        .as_f64()
        .filter(|float| float.fract() == 0.0)
        .and_then(BigInt::from_f64)
}
