//! JSON Schema, draft 2020-12: no remote references, formats asserted, a linear regular expression engine, exact integers.
//!
//! `jsonschema` validates our own [`Json`] values directly, so instances keep every digit. Integers in the schema itself that
//! do not fit 64 bits would be rounded by its `serde_json` input; the few keywords that take numbers are rewritten to private
//! exact ones for those (see `exact`).

mod exact;
mod node;

use jsonschema::{Draft, PatternOptions, Validator, error::ValidationErrorKind};

use crate::{
    error::{ArtifactError, Violation},
    json::Json,
};

pub use node::ExactJson;

/// Bytes of one schema.
pub const MAX_SCHEMA_BYTES: usize = 1 << 20;

/// Violations reported of one document.
pub const MAX_VIOLATIONS: usize = 32;

const MAX_MESSAGE_CHARS: usize = 256;
const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The ingest check of the schema namespaces.
///
/// # Errors
/// [`ArtifactError`]; every reason follows from the bytes.
pub fn check_schema(bytes: &[u8]) -> Result<(), ArtifactError> {
    Schema::compile(bytes).map(drop)
}

/// A compiled schema.
pub struct Schema {
    validator: Validator<ExactJson>,
}

impl Schema {
    /// Parses and compiles a schema.
    ///
    /// # Errors
    /// [`ArtifactError`] for anything [`check_schema`] refuses.
    pub fn compile(bytes: &[u8]) -> Result<Self, ArtifactError> {
        if bytes.len() > MAX_SCHEMA_BYTES {
            return Err(ArtifactError::TooLarge {
                got: bytes.len() as u64,
                limit: MAX_SCHEMA_BYTES as u64,
            });
        }
        let schema = Json::parse(bytes)?;
        let invalid = |pointer: &str, reason: String| ArtifactError::InvalidSchema {
            pointer: pointer.to_owned(),
            reason,
        };
        match &schema {
            Json::Bool(_) => {}
            Json::Object(members) => match members.get("$schema") {
                None => {}
                Some(Json::String(draft)) if draft.trim_end_matches('#') == DRAFT => {}
                Some(other) => {
                    let got = String::from_utf8_lossy(&other.canonical()).into_owned();
                    return Err(invalid(
                        "/$schema",
                        format!("expected {DRAFT:?}, got {got}"),
                    ));
                }
            },
            other => {
                return Err(invalid(
                    "",
                    format!("expected an object or a boolean, got {}", other.type_name()),
                ));
            }
        }
        let options = exact::register(jsonschema::options_for::<ExactJson>())
            .with_draft(Draft::Draft202012)
            .should_validate_formats(true)
            .should_ignore_unknown_formats(true)
            .with_pattern_options(PatternOptions::regex())
            .offline();
        let rewritten = exact::rewrite(&schema).to_serde();
        let validator = options.build(&rewritten).map_err(|error| {
            let pointer = error.instance_path().to_string();
            match error.kind() {
                ValidationErrorKind::Referencing(reference) => ArtifactError::RemoteReference {
                    pointer,
                    reference: capped(&reference.to_string()),
                },
                _ => ArtifactError::InvalidSchema {
                    pointer,
                    reason: capped(&error.to_string()),
                },
            }
        })?;
        Ok(Self { validator })
    }

    /// Validates params. Messages name the offending values.
    ///
    /// # Errors
    /// The violations, at most [`MAX_VIOLATIONS`].
    pub fn validate(&self, instance: &Json) -> Result<(), Vec<Violation>> {
        self.violations(instance, |error| capped(&error.to_string()))
    }

    /// Validates secrets: violations carry pointers and no message, because messages quote values.
    ///
    /// # Errors
    /// The violations, at most [`MAX_VIOLATIONS`].
    pub fn validate_secret(&self, instance: &Json) -> Result<(), Vec<Violation>> {
        self.violations(instance, |_| String::new())
    }

    fn violations(
        &self,
        instance: &Json,
        message: impl Fn(&jsonschema::ValidationError<'_>) -> String,
    ) -> Result<(), Vec<Violation>> {
        if self.validator.is_valid(instance) {
            return Ok(());
        }
        let violations = self
            .validator
            .iter_errors(instance)
            .take(MAX_VIOLATIONS)
            .map(|error| Violation {
                instance_path: error.instance_path().to_string(),
                schema_path: exact::public_path(&error.schema_path().to_string()),
                message: message(&error),
            })
            .collect();
        Err(violations)
    }
}

fn capped(text: &str) -> String {
    let mut capped: String = text.chars().take(MAX_MESSAGE_CHARS).collect();
    if capped.len() < text.len() {
        capped.push('…');
    }
    capped
}
