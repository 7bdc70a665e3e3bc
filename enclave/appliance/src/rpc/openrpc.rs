//! The descriptions as an OpenRPC document (<https://spec.open-rpc.org>): answered by `rpc.discover`, kept in `docs/openrpc.json`.

use newton_types::rpc::ErrorName;
use serde_json::{Value, json};

use super::{
    describe::{Kind, Need, Param},
    methods::{self, Access, Method, Owner},
    owner,
};

/// Errors that any call may meet.
const EVERY_CALL: &[ErrorName] = &[
    ErrorName::ParseError,
    ErrorName::InvalidRequest,
    ErrorName::InvalidParams,
    ErrorName::InternalError,
    ErrorName::Overloaded,
    ErrorName::RateLimited,
    ErrorName::RequestTooLarge,
];

/// The whole document.
pub(super) fn document() -> Value {
    json!({
        "openrpc": "1.3.2",
        "info": {
            "title": "Newton policy enclave",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "JSON-RPC 2.0 over TLS that ends in the enclave: POST /rpc, named parameters, one request a body. \
                The conventions stand in docs/protocol.md, section 11.",
            "license": { "name": "Apache-2.0" },
        },
        "methods": methods::all().map(method).collect::<Value>(),
        "components": { "schemas": schemas(), "errors": errors() },
    })
}

fn method(method: &Method) -> Value {
    let mut params: Vec<Value> = method.params.iter().map(param).collect();
    if method.owner != Owner::No {
        params.push(json!({
            "name": owner::PARAMETER,
            "required": method.owner == Owner::Required,
            "description": "the client's owner vouches for this call",
            "schema": reference("OwnerSignature"),
        }));
    }
    let members: serde_json::Map<String, Value> = method
        .result
        .iter()
        .map(|(name, kind, about)| ((*name).to_owned(), described(*kind, about)))
        .collect();
    json!({
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "by-name",
        "params": params,
        "result": {
            "name": "result",
            "schema": { "type": "object", "properties": members },
        },
        "errors": names(method)
            .into_iter()
            .map(|name| json!({ "$ref": format!("#/components/errors/{}", name.as_str()) }))
            .collect::<Value>(),
        "x-permission": match method.access {
            Access::Open => Value::Null,
            Access::Read => json!("RpcRead"),
            Access::Write => json!("RpcWrite"),
        },
        "x-owner-signature": match method.owner {
            Owner::No => "none",
            Owner::Optional => "optional",
            Owner::Required => "required",
        },
    })
}

/// Every error of a method, in the table's order.
fn names(method: &Method) -> Vec<ErrorName> {
    let may = |name: &ErrorName| {
        EVERY_CALL.contains(name)
            || method.errors.contains(name)
            || match name {
                ErrorName::Unauthorized => {
                    method.access != Access::Open || method.owner != Owner::No
                }
                _ => false,
            }
    };
    ErrorName::ALL.iter().copied().filter(may).collect()
}

fn param(param: &Param) -> Value {
    let schema = match param.need {
        Need::List => json!({ "type": "array", "items": schema(param.kind) }),
        _ => schema(param.kind),
    };
    let mut described = json!({
        "name": param.name,
        "required": param.need == Need::Required,
        "description": param.about,
        "schema": schema,
    });
    if param.need == Need::Renamed {
        described["deprecated"] = json!(true);
        described["description"] = json!(format!("refused: now {}", param.about));
    }
    described
}

fn described(kind: Kind, about: &str) -> Value {
    let mut schema = schema(kind);
    schema["description"] = json!(about);
    schema
}

fn schema(kind: Kind) -> Value {
    match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Integer => json!({ "type": "integer", "minimum": 0 }),
        Kind::Text => json!({ "type": "string" }),
        Kind::Address => json!({ "type": "string", "pattern": "^0x[0-9a-fA-F]{40}$" }),
        Kind::Hash => json!({ "type": "string", "pattern": "^0x[0-9a-fA-F]{64}$" }),
        Kind::Bytes => json!({ "type": "string", "pattern": "^0x([0-9a-fA-F]{2})*$" }),
        Kind::Json => json!({}),
        Kind::Object => json!({ "type": "object" }),
        Kind::List => json!({ "type": "array" }),
        Kind::Document => reference("Document"),
        Kind::Intent => reference("Intent"),
        Kind::DataEntry => reference("DataEntry"),
        Kind::OperatorOutputs => reference("OperatorOutputs"),
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn schemas() -> Value {
    let quantity = json!({ "type": "string", "pattern": "^0x[0-9a-fA-F]{1,64}$" });
    json!({
        "Document": {
            "oneOf": [{ "type": "object" }, { "type": "string" }],
            "description": "A JSON object, or a string with its text where integers above 64 bits must keep every digit.",
        },
        "Intent": {
            "type": "object",
            "additionalProperties": false,
            "required": ["from", "to", "value", "data", "chain_id", "function_signature"],
            "properties": {
                "from": schema(Kind::Address),
                "to": schema(Kind::Address),
                "value": quantity,
                "data": schema(Kind::Bytes),
                "chain_id": quantity,
                "function_signature": described(Kind::Bytes, "hex of the ABI signature, or 0x with data 0x"),
                "intent_signature": schema(Kind::Bytes),
            },
        },
        "DataEntry": {
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "policy_data_instance_id": described(Kind::Hash, "a deployed instance; this or policy_data_template_id"),
                "policy_data_template_id": described(Kind::Hash, "a registered template, as if deployed with params"),
                "params": reference("Document"),
                "secrets": reference("Document"),
                "wasm_args": described(Kind::Bytes, "UTF-8 JSON in hex; the same in every entry that gives it"),
            },
        },
        "OperatorOutputs": {
            "type": "object",
            "description": "An answer of newt_fetchPolicyData; other members of it are not read.",
            "required": ["round", "bls_public_key", "outputs"],
            "properties": {
                "round": schema(Kind::Integer),
                "bls_public_key": described(Kind::Bytes, "EIP-2537 form"),
                "outputs": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["policy_data_instance_id", "output", "transcript_hash", "signature"],
                        "properties": {
                            "policy_data_instance_id": schema(Kind::Hash),
                            "output": schema(Kind::Bytes),
                            "transcript_hash": schema(Kind::Hash),
                            "signature": described(Kind::Bytes, "EIP-2537 form"),
                        },
                    },
                },
            },
        },
        "OwnerSignature": {
            "type": "object",
            "additionalProperties": false,
            "required": ["deadline", "signature"],
            "properties": {
                "deadline": described(Kind::Integer, "seconds; at most 600 after the chain's time"),
                "signature": described(Kind::Bytes, "65 bytes over OwnerCall, low s (docs/protocol.md, section 11)"),
            },
        },
    })
}

fn errors() -> Value {
    ErrorName::ALL
        .iter()
        .map(|name| {
            let error = json!({
                "code": name.code(),
                "message": name.as_str(),
                "data": { "name": name.as_str(), "disposition": name.disposition() },
            });
            (name.as_str().to_owned(), error)
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{collections::BTreeSet, path::Path};

    use super::*;

    fn docs() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
    }

    #[test]
    fn the_document_in_docs_is_this_one() {
        let path = docs().join("openrpc.json");
        let document = document();
        if std::env::var_os("NEWTON_BLESS").is_some() {
            let text = serde_json::to_string_pretty(&document).unwrap();
            std::fs::write(&path, text + "\n").unwrap();
        }
        let kept: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert!(
            kept == document,
            "docs/openrpc.json is stale: run this test with NEWTON_BLESS=1"
        );
    }

    #[test]
    fn descriptions_name_the_parameters_that_the_code_reads() {
        for method in methods::all() {
            let read: BTreeSet<&str> = (method.serve.fields)().into_iter().collect();
            let described: BTreeSet<&str> = method.params.iter().map(|p| p.name).collect();
            assert_eq!(described, read, "{}", method.name);
        }
        // Not vacuous: a method with parameters is read as having them.
        let method = super::super::methods::find("newt_getAttestation").unwrap();
        assert_eq!((method.serve.fields)(), ["nonce"]);
    }

    #[test]
    fn a_data_entry_is_described_as_it_is_read() {
        let read: BTreeSet<&str> =
            super::super::describe::fields_of::<super::super::simulate::DataEntry>()
                .into_iter()
                .filter(|name| *name != "policy_data_address")
                .collect();
        let schemas = schemas();
        let described = schemas["DataEntry"]["properties"].as_object().unwrap();
        assert_eq!(
            described
                .keys()
                .map(String::as_str)
                .collect::<BTreeSet<_>>(),
            read
        );
    }

    #[test]
    fn names_are_unique_and_stand_in_the_protocol() {
        let protocol = std::fs::read_to_string(docs().join("protocol.md")).unwrap();
        let mut seen = BTreeSet::new();
        for method in methods::all() {
            assert!(seen.insert(method.name), "{} is there twice", method.name);
            assert!(
                protocol.contains(&format!("`{}`", method.name)),
                "{} is not in docs/protocol.md",
                method.name
            );
        }
    }

    #[test]
    fn the_table_of_errors_stands_in_the_protocol() {
        let protocol = std::fs::read_to_string(docs().join("protocol.md")).unwrap();
        for name in ErrorName::ALL {
            let disposition = json!(name.disposition());
            let row = format!(
                "| {} | `{}` | {} |",
                name.code(),
                name.as_str(),
                disposition.as_str().unwrap()
            );
            assert!(protocol.contains(&row), "{row} is not in docs/protocol.md");
        }
    }

    #[test]
    fn required_owners_are_signed_under_the_methods_own_name() {
        let owned: BTreeSet<&str> = methods::all()
            .filter(|method| method.owner != Owner::No)
            .map(|method| method.name)
            .collect();
        let signed = BTreeSet::from([
            super::super::secrets::STORE,
            super::super::simulate::POLICY,
            super::super::simulate::DATA_WITH_CLIENT,
            super::super::simulate::TASK,
        ]);
        assert_eq!(owned, signed);
    }
}
