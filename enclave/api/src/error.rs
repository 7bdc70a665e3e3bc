//! The error object of an answer.

use newton_types::rpc::ErrorName;
use serde_json::{Map, Value, json};

/// An error of the table in [`newton_types::rpc`], with a sentence and structured data for the caller.
#[derive(Clone, Debug, PartialEq)]
pub struct RpcError {
    /// Which error.
    pub name: ErrorName,
    /// One sentence that says what was wrong.
    pub message: String,
    /// Members of `data` beside `name` and `disposition`.
    pub data: Map<String, Value>,
}

impl RpcError {
    /// An error with a sentence.
    pub fn new(name: ErrorName, message: impl Into<String>) -> Self {
        Self {
            name,
            message: message.into(),
            data: Map::new(),
        }
    }

    /// `InvalidParams` that names the field.
    pub fn invalid_param(field: &str, reason: impl std::fmt::Display) -> Self {
        Self::new(ErrorName::InvalidParams, format!("{field}: {reason}")).with("field", field)
    }

    /// Adds a member to `data`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.data.insert(key.to_owned(), value.into());
        self
    }

    /// The JSON-RPC error object.
    pub fn to_json(&self) -> Value {
        let mut data = self.data.clone();
        data.insert("name".to_owned(), self.name.as_str().into());
        data.insert("disposition".to_owned(), json!(self.name.disposition()));
        json!({ "code": self.name.code(), "message": self.message, "data": data })
    }
}

impl std::fmt::Display for RpcError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name.as_str(), self.message)
    }
}

impl std::error::Error for RpcError {}
