//! The vocabulary of the methods' descriptions.

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) need: Need,
    pub(super) about: &'static str,
}

/// Whether a parameter must be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Required,
    Optional,
    /// A list that may be left out.
    List,
    /// A former name, answered with an error that names the new one.
    Renamed,
}

/// A member of a result: name, form, what it is.
pub(super) type Field = (&'static str, Kind, &'static str);

/// Forms of values on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Integer,
    Text,
    /// 20 bytes in hex.
    Address,
    /// 32 bytes in hex.
    Hash,
    /// Any bytes in hex.
    Bytes,
    /// Any JSON.
    Json,
    Object,
    List,
    /// A JSON object, or a string with its text.
    Document,
    /// An intent in its wire form.
    Intent,
    /// One data component of a simulated policy.
    DataEntry,
    /// The answer of `newt_fetchPolicyData`, as far as it counts.
    OperatorOutputs,
}

pub(super) const fn required(name: &'static str, kind: Kind, about: &'static str) -> Param {
    param(name, kind, Need::Required, about)
}

/// `about` ends with what stands for an absent value.
pub(super) const fn optional(name: &'static str, kind: Kind, about: &'static str) -> Param {
    param(name, kind, Need::Optional, about)
}

pub(super) const fn list(name: &'static str, kind: Kind, about: &'static str) -> Param {
    param(name, kind, Need::List, about)
}

pub(super) const fn renamed(name: &'static str, to: &'static str) -> Param {
    param(name, Kind::Json, Need::Renamed, to)
}

const fn param(name: &'static str, kind: Kind, need: Need, about: &'static str) -> Param {
    Param {
        name,
        kind,
        need,
        about,
    }
}

/// Names of the fields that a parameter structure reads, as its `Deserialize` states them.
#[cfg(test)]
pub(super) fn fields_of<T: serde::de::DeserializeOwned>() -> Vec<&'static str> {
    let mut names = Vec::new();
    // Never succeeds: it is asked only for what it would read.
    let _ = T::deserialize(capture::Fields(&mut names));
    names
}

#[cfg(test)]
mod capture {
    use serde::{
        Deserializer,
        de::{Error, Visitor, value::Error as Captured},
        forward_to_deserialize_any,
    };

    pub(super) struct Fields<'a>(pub(super) &'a mut Vec<&'static str>);

    impl<'de> Deserializer<'de> for Fields<'_> {
        type Error = Captured;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Captured> {
            self.0.extend_from_slice(fields);
            Err(Captured::custom("captured"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Captured> {
            Err(Captured::custom("not a structure"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
            tuple tuple_struct map enum identifier ignored_any
        }
    }
}
