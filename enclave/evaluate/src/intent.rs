//! From the wire intent to what Rego sees as `input` (design 4b).

use std::collections::BTreeMap;

use alloy_dyn_abi::{DynSolValue, JsonAbiExt};
use alloy_json_abi::{Function, Param, StateMutability};
use alloy_primitives::{Address, U256};
use num_bigint::{BigInt, Sign};
use serde::{Deserialize, Serialize};

use crate::json::{Json, JsonError};

/// Bytes of calldata accepted in an intent.
pub const MAX_CALLDATA: usize = 128 << 10;
/// Bytes of a function signature accepted in an intent.
pub const MAX_SIGNATURE: usize = 4 << 10;

/// A client's intent, as EIP-712 hashes it (protocol section 5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Who acts.
    pub from: Address,
    /// Whom the call goes to.
    pub to: Address,
    /// Wei.
    pub value: U256,
    /// Calldata, selector included.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
    /// Chain the call is for.
    pub chain_id: U256,
    /// The human-readable ABI signature as bytes, or empty.
    #[serde(with = "serde_bytes")]
    pub function_signature: Vec<u8>,
}

/// An intent as it came over RPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireIntent {
    /// The intent.
    pub intent: Intent,
    /// EIP-712 signature, when the client gave one.
    pub intent_signature: Option<Vec<u8>>,
}

/// What is wrong with an intent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum IntentError {
    /// Not strict JSON.
    #[error("not JSON: {0}")]
    NotJson(#[from] JsonError),
    /// Not a JSON object.
    #[error("expected an object, got {got}")]
    NotAnObject {
        /// JSON type found.
        got: String,
    },
    /// A field is missing.
    #[error("field {field} is missing")]
    MissingField {
        /// Field name.
        field: String,
    },
    /// A field that does not exist.
    #[error("unknown field {field}")]
    UnknownField {
        /// Field name.
        field: String,
    },
    /// A field has the wrong form.
    #[error("field {field}: expected {expected}")]
    InvalidField {
        /// Field name.
        field: String,
        /// The form expected.
        expected: String,
    },
    /// A field is too long.
    #[error("field {field} has {got} bytes, at most {limit} are allowed")]
    TooLong {
        /// Field name.
        field: String,
        /// Bytes found.
        got: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Calldata without a signature to read it by.
    #[error("data has {data_length} bytes but function_signature is empty")]
    SignatureMissing {
        /// Bytes of calldata.
        data_length: u64,
    },
    /// The signature is not a human-readable ABI signature.
    #[error("function_signature {signature:?} is not an ABI signature: {reason}")]
    SignatureInvalid {
        /// As given, invalid UTF-8 replaced.
        signature: String,
        /// The parser's message.
        reason: String,
    },
    /// The calldata is for another function.
    #[error("calldata has selector {got}, function_signature has {expected}")]
    SelectorMismatch {
        /// Selector of the signature.
        expected: String,
        /// Selector of the calldata.
        got: String,
    },
    /// The arguments do not decode.
    #[error("calldata does not decode as {signature}: {reason}")]
    CalldataUndecodable {
        /// Canonical signature.
        signature: String,
        /// The decoder's message.
        reason: String,
    },
}

impl WireIntent {
    /// Parses the JSON of an intent.
    ///
    /// `from`, `to` are addresses, `value`, `chain_id` hex quantities (leading zeros are accepted; a JSON integer too), `data`
    /// and `function_signature` hex bytes, `intent_signature` is optional.
    ///
    /// # Errors
    /// [`IntentError`] naming the field.
    pub fn from_json(bytes: &[u8]) -> Result<Self, IntentError> {
        Self::from_value(&Json::parse(bytes)?)
    }

    /// The same from a parsed value.
    ///
    /// # Errors
    /// [`IntentError`] naming the field.
    pub fn from_value(value: &Json) -> Result<Self, IntentError> {
        const FIELDS: [&str; 7] = [
            "from",
            "to",
            "value",
            "data",
            "chain_id",
            "function_signature",
            "intent_signature",
        ];
        let members = value.as_object().ok_or_else(|| IntentError::NotAnObject {
            got: value.type_name().to_owned(),
        })?;
        if let Some(unknown) = members.keys().find(|key| !FIELDS.contains(&key.as_str())) {
            return Err(IntentError::UnknownField {
                field: unknown.chars().take(64).collect(),
            });
        }
        Ok(Self {
            intent: Intent {
                from: address(members, "from")?,
                to: address(members, "to")?,
                value: quantity(members, "value")?,
                data: bytes(members, "data", MAX_CALLDATA)?,
                chain_id: quantity(members, "chain_id")?,
                function_signature: bytes(members, "function_signature", MAX_SIGNATURE)?,
            },
            intent_signature: match members.get("intent_signature") {
                None | Some(Json::Null) => None,
                Some(_) => Some(bytes(members, "intent_signature", 4 << 10)?),
            },
        })
    }
}

impl Intent {
    /// The Rego `input`.
    ///
    /// Beside the fields of the wire form: `chain_id_string`, `function` (as JSON ABI has it, with `arguments`),
    /// `decoded_function_signature`, `decoded_function_arguments` and, when given, `intent_signature`. Without a function
    /// signature `function` is null and the arguments are empty.
    ///
    /// # Errors
    /// [`IntentError`] when signature and calldata do not agree.
    pub fn rego_input(&self, intent_signature: Option<&[u8]>) -> Result<Json, IntentError> {
        let decoded = self.decode()?;
        let mut input = BTreeMap::from([
            (
                "from".to_owned(),
                Json::string(hex_lower(self.from.as_slice())),
            ),
            ("to".to_owned(), Json::string(hex_lower(self.to.as_slice()))),
            ("value".to_owned(), uint(self.value)),
            ("chain_id".to_owned(), uint(self.chain_id)),
            (
                "chain_id_string".to_owned(),
                Json::string(self.chain_id.to_string()),
            ),
            ("data".to_owned(), Json::string(hex_lower(&self.data))),
            (
                "function_signature".to_owned(),
                Json::string(hex_lower(&self.function_signature)),
            ),
        ]);
        let (function, signature, arguments) = match decoded {
            None => (Json::Null, Json::string(""), Json::Array(Vec::new())),
            Some((function, arguments)) => {
                let arguments = Json::Array(arguments);
                let signature = Json::string(format!("function {}", function.signature()));
                let function = description(function, arguments.clone());
                (function, signature, arguments)
            }
        };
        input.insert("function".to_owned(), function);
        input.insert("decoded_function_signature".to_owned(), signature);
        input.insert("decoded_function_arguments".to_owned(), arguments);
        if let Some(signature) = intent_signature {
            input.insert(
                "intent_signature".to_owned(),
                Json::string(hex_lower(signature)),
            );
        }
        Ok(Json::Object(input))
    }

    fn decode(&self) -> Result<Option<(Function, Vec<Json>)>, IntentError> {
        limit("data", self.data.len(), MAX_CALLDATA)?;
        limit(
            "function_signature",
            self.function_signature.len(),
            MAX_SIGNATURE,
        )?;
        if self.function_signature.is_empty() {
            return match self.data.len() {
                0 => Ok(None),
                length => Err(IntentError::SignatureMissing {
                    data_length: length as u64,
                }),
            };
        }
        let text = std::str::from_utf8(&self.function_signature).map_err(|error| {
            IntentError::SignatureInvalid {
                signature: String::from_utf8_lossy(&self.function_signature).into_owned(),
                reason: error.to_string(),
            }
        })?;
        let function = Function::parse(text).map_err(|error| IntentError::SignatureInvalid {
            signature: text.to_owned(),
            reason: error.to_string(),
        })?;
        let expected = function.selector();
        let got = self.data.get(..4).unwrap_or(&self.data);
        if got != expected.as_slice() {
            return Err(IntentError::SelectorMismatch {
                expected: hex_lower(expected.as_slice()),
                got: hex_lower(got),
            });
        }
        let arguments = function
            .abi_decode_input(&self.data[4..])
            .map_err(|error| IntentError::CalldataUndecodable {
                signature: function.signature(),
                reason: error.to_string(),
            })?;
        let arguments = arguments.iter().map(argument).collect();
        Ok(Some((function, arguments)))
    }
}

/// The function as JSON ABI has it, and the arguments beside.
fn description(function: Function, arguments: Json) -> Json {
    let parameters = |parameters: &[Param]| parameters.iter().map(parameter).collect();
    Json::Object(BTreeMap::from([
        ("type".to_owned(), Json::string("function")),
        (
            "inputs".to_owned(),
            Json::Array(parameters(&function.inputs)),
        ),
        (
            "outputs".to_owned(),
            Json::Array(parameters(&function.outputs)),
        ),
        (
            "stateMutability".to_owned(),
            Json::string(match function.state_mutability {
                StateMutability::Pure => "pure",
                StateMutability::View => "view",
                StateMutability::NonPayable => "nonpayable",
                StateMutability::Payable => "payable",
            }),
        ),
        ("name".to_owned(), Json::string(function.name)),
        ("arguments".to_owned(), arguments),
    ]))
}

fn parameter(parameter: &Param) -> Json {
    let mut members = BTreeMap::from([
        ("name".to_owned(), Json::string(parameter.name.clone())),
        ("type".to_owned(), Json::string(parameter.ty.clone())),
    ]);
    if !parameter.components.is_empty() {
        let components = parameter.components.iter().map(self::parameter).collect();
        members.insert("components".to_owned(), Json::Array(components));
    }
    Json::Object(members)
}

fn argument(value: &DynSolValue) -> Json {
    match value {
        DynSolValue::Bool(value) => Json::Bool(*value),
        DynSolValue::Int(value, _) => Json::string(value.to_string()),
        DynSolValue::Uint(value, _) => Json::string(value.to_string()),
        DynSolValue::FixedBytes(word, size) => Json::string(hex_lower(&word[..*size])),
        DynSolValue::Address(address) => Json::string(hex_lower(address.as_slice())),
        DynSolValue::Function(function) => Json::string(hex_lower(function.as_slice())),
        DynSolValue::Bytes(bytes) => Json::string(hex_lower(bytes)),
        DynSolValue::String(text) => Json::string(text.clone()),
        DynSolValue::Array(items) | DynSolValue::FixedArray(items) | DynSolValue::Tuple(items) => {
            Json::Array(items.iter().map(argument).collect())
        }
    }
}

fn uint(value: U256) -> Json {
    Json::Int(BigInt::from_bytes_be(
        Sign::Plus,
        &value.to_be_bytes::<32>(),
    ))
}

/// `0x` and lower-case digits.
fn hex_lower(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

fn limit(field: &str, got: usize, limit: usize) -> Result<(), IntentError> {
    if got > limit {
        return Err(IntentError::TooLong {
            field: field.to_owned(),
            got: got as u64,
            limit: limit as u64,
        });
    }
    Ok(())
}

fn field<'a>(members: &'a BTreeMap<String, Json>, name: &str) -> Result<&'a Json, IntentError> {
    members.get(name).ok_or_else(|| IntentError::MissingField {
        field: name.to_owned(),
    })
}

fn invalid(name: &str, expected: &str) -> IntentError {
    IntentError::InvalidField {
        field: name.to_owned(),
        expected: expected.to_owned(),
    }
}

fn address(members: &BTreeMap<String, Json>, name: &str) -> Result<Address, IntentError> {
    let expected = "an address: 0x and 40 hex digits";
    let Json::String(text) = field(members, name)? else {
        return Err(invalid(name, expected));
    };
    let digits = text
        .strip_prefix("0x")
        .ok_or_else(|| invalid(name, expected))?;
    let mut bytes = [0; 20];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| invalid(name, expected))?;
    Ok(Address::from(bytes))
}

fn quantity(members: &BTreeMap<String, Json>, name: &str) -> Result<U256, IntentError> {
    let expected = "a quantity: 0x and 1 to 64 hex digits";
    match field(members, name)? {
        Json::String(text) => {
            let digits = text
                .strip_prefix("0x")
                .filter(|digits| (1..=64).contains(&digits.len()));
            let digits = digits.ok_or_else(|| invalid(name, expected))?;
            // from_str_radix alone would also take underscores.
            if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(invalid(name, expected));
            }
            U256::from_str_radix(digits, 16).map_err(|_| invalid(name, expected))
        }
        Json::Int(value) => {
            let (sign, bytes) = value.to_bytes_be();
            if sign == Sign::Minus || bytes.len() > 32 {
                return Err(invalid(name, expected));
            }
            Ok(U256::from_be_slice(&bytes))
        }
        _ => Err(invalid(name, expected)),
    }
}

fn bytes(members: &BTreeMap<String, Json>, name: &str, max: usize) -> Result<Vec<u8>, IntentError> {
    let expected = "hex bytes: 0x and an even number of hex digits";
    let Json::String(text) = field(members, name)? else {
        return Err(invalid(name, expected));
    };
    let digits = text
        .strip_prefix("0x")
        .ok_or_else(|| invalid(name, expected))?;
    limit(name, digits.len() / 2, max)?;
    hex::decode(digits).map_err(|_| invalid(name, expected))
}
