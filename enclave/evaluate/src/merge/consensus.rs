//! `x-newton-consensus`: which numbers of an output are merged by their median.

use crate::{error::ArtifactError, json::Json};

/// The keyword, at the top level of a data template's params schema.
pub const KEYWORD: &str = "x-newton-consensus";

/// Fields that one schema may name.
pub const MAX_FIELDS: usize = 64;

const MEDIAN: &str = "median";

/// The declared fields; none without the keyword.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Consensus {
    fields: Vec<Field>,
}

/// A JSON pointer into the output (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field(String);

impl Consensus {
    /// What a params schema declares: `"x-newton-consensus": { "/pointer/into/the/output": "median", … }`.
    ///
    /// # Errors
    /// [`ArtifactError::InvalidSchema`] with the pointer of what is wrong.
    pub fn of_schema(schema: &Json) -> Result<Self, ArtifactError> {
        let at = |pointer: &str| format!("/{KEYWORD}{pointer}");
        let declared = match schema.as_object().and_then(|members| members.get(KEYWORD)) {
            None => return Ok(Self::default()),
            Some(Json::Object(declared)) => declared,
            Some(other) => {
                return Err(invalid(
                    at(""),
                    format!(
                        "expected an object from JSON pointers to \"median\", got {}",
                        other.type_name()
                    ),
                ));
            }
        };
        if declared.len() > MAX_FIELDS {
            return Err(invalid(
                at(""),
                format!(
                    "{} fields, at most {MAX_FIELDS} are allowed",
                    declared.len()
                ),
            ));
        }
        let mut fields = Vec::with_capacity(declared.len());
        for (pointer, rule) in declared {
            let place = at(&format!(
                "/{}",
                pointer.replace('~', "~0").replace('/', "~1")
            ));
            if !is_pointer(pointer) {
                return Err(invalid(
                    place,
                    "not a JSON pointer to a member of the output".to_owned(),
                ));
            }
            if *rule != Json::string(MEDIAN) {
                return Err(invalid(place, format!("the only rule is {MEDIAN:?}")));
            }
            fields.push(Field(pointer.clone()));
        }
        Ok(Self { fields })
    }

    /// The same of a schema's bytes.
    ///
    /// # Errors
    /// [`ArtifactError`], also for bytes that are no JSON.
    pub fn of_schema_bytes(bytes: &[u8]) -> Result<Self, ArtifactError> {
        Self::of_schema(&Json::parse(bytes)?)
    }

    pub(super) fn fields(&self) -> &[Field] {
        &self.fields
    }
}

impl Field {
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    pub(super) fn find<'j>(&self, value: &'j mut Json) -> Option<&'j mut Json> {
        place(value, &self.0)
    }
}

/// What a pointer points at.
pub(super) fn place<'j>(value: &'j mut Json, pointer: &str) -> Option<&'j mut Json> {
    pointer
        .split('/')
        .skip(1)
        .try_fold(value, |value, token| match value {
            Json::Object(members) => members.get_mut(&token.replace("~1", "/").replace("~0", "~")),
            Json::Array(items) => items.get_mut(index(token)?),
            _ => None,
        })
}

fn index(token: &str) -> Option<usize> {
    let plain = token == "0" || !token.starts_with('0');
    (plain && token.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| token.parse().ok())
        .flatten()
}

/// Not the empty pointer: an output is an object, never a number.
fn is_pointer(text: &str) -> bool {
    let escapes = text
        .split('~')
        .skip(1)
        .all(|after| after.starts_with(['0', '1']));
    text.starts_with('/') && escapes
}

fn invalid(pointer: String, reason: String) -> ArtifactError {
    ArtifactError::InvalidSchema { pointer, reason }
}
