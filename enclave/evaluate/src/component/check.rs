//! The ingest check of components, by validation alone: compiling is slow and no verdict.

use wasmparser::{
    Encoding, Parser, Payload, PrimitiveValType, Validator,
    component_types::{
        ComponentDefinedType, ComponentEntityType, ComponentFuncType, ComponentValType,
    },
    types::Types,
};

use super::{FEATURES, MAX_COMPONENT_BYTES};
use crate::error::ArtifactError;

/// Checks that bytes are a component that can run here: valid under the features of the rules, importing only what is provided, and
/// exporting `run: func(input: string) -> result<string, string>`.
///
/// # Errors
/// [`ArtifactError`]; every reason follows from the bytes.
pub fn check_component(bytes: &[u8]) -> Result<(), ArtifactError> {
    if bytes.len() > MAX_COMPONENT_BYTES {
        return Err(ArtifactError::TooLarge {
            got: bytes.len() as u64,
            limit: MAX_COMPONENT_BYTES as u64,
        });
    }
    let invalid = |error: wasmparser::BinaryReaderError| ArtifactError::InvalidComponent {
        reason: error.to_string(),
    };
    match Parser::new(0).parse_all(bytes).next() {
        Some(Ok(Payload::Version {
            encoding: Encoding::Module,
            ..
        })) => return Err(ArtifactError::CoreModule),
        Some(Ok(_)) => {}
        Some(Err(error)) => return Err(invalid(error)),
        None => {
            return Err(ArtifactError::InvalidComponent {
                reason: "empty".to_owned(),
            });
        }
    }
    // Imports before validation: a component for an unsupported host should hear of that first.
    imports(bytes)?;
    let types = Validator::new_with_features(FEATURES)
        .validate_all(bytes)
        .map_err(invalid)?;
    export(&types)
}

fn imports(bytes: &[u8]) -> Result<(), ArtifactError> {
    let invalid = |error: wasmparser::BinaryReaderError| ArtifactError::InvalidComponent {
        reason: error.to_string(),
    };
    let mut depth = 0usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(invalid)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(invalid)?;
                    let name = import.name.name;
                    let refuse = |reason: &str| {
                        Err(ArtifactError::ForbiddenImport {
                            import: name.chars().take(200).collect(),
                            reason: reason.to_owned(),
                        })
                    };
                    if let Err(reason) = allowed(name) {
                        return refuse(reason);
                    }
                    if !matches!(import.ty, wasmparser::ComponentTypeRef::Instance(_)) {
                        return refuse("it must be an interface");
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether an interface is provided, else why not.
fn allowed(name: &str) -> Result<(), &'static str> {
    let (path, version) = name.split_once('@').ok_or("it has no version")?;
    let (package, interface) = path
        .split_once('/')
        .ok_or("it is no interface of a package")?;
    match (package, interface, version) {
        ("newton:provider", "http", "0.1.0" | "0.2.0")
        | ("newton:provider", "secrets", "0.2.0") => Ok(()),
        ("newton:provider", "secrets", "0.1.0") => {
            Err("newton:provider 0.1.0 has the interface http alone")
        }
        ("newton:provider", "http" | "secrets", _) => {
            Err("versions 0.1.0 and 0.2.0 of newton:provider are provided")
        }
        ("newton:provider", "tlsn", _) => Err("TLS notary proofs (tlsn) are not supported yet"),
        ("newton:provider", ..) => Err("newton:provider has the interfaces http and secrets"),
        ("wasi:http", ..) => Err("wasi:http is not provided: use newton:provider/http"),
        (
            "wasi:io" | "wasi:cli" | "wasi:clocks" | "wasi:random" | "wasi:filesystem"
            | "wasi:sockets",
            _,
            version,
        ) => {
            let patch = version
                .strip_prefix("0.2.")
                .ok_or("WASI 0.2 is provided, no other version")?;
            let is_number = !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit());
            is_number
                .then_some(())
                .ok_or("WASI 0.2 is provided, no other version")
        }
        _ => Err("no such interface is provided"),
    }
}

fn export(types: &Types) -> Result<(), ArtifactError> {
    let types = types.as_ref();
    let function = match types.component_item_for_export("run").map(|item| item.ty) {
        Some(ComponentEntityType::Func(function)) => &types[function],
        Some(_) => {
            return Err(ArtifactError::RunType {
                got: "no function".to_owned(),
            });
        }
        None => return Err(ArtifactError::RunMissing),
    };
    let string = ComponentValType::Primitive(PrimitiveValType::String);
    let takes_string = function.params.len() == 1
        && function
            .params
            .iter()
            .all(|(_, param)| same(*param, string));
    let gives_result = match function.result {
        Some(ComponentValType::Type(id)) => matches!(
            &types[id],
            ComponentDefinedType::Result { ok: Some(ok), err: Some(err), .. }
                if same(*ok, string) && same(*err, string)
        ),
        _ => false,
    };
    if takes_string && gives_result && !function.async_ {
        return Ok(());
    }
    Err(ArtifactError::RunType {
        got: describe(function),
    })
}

const fn same(left: ComponentValType, right: ComponentValType) -> bool {
    matches!(
        (left, right),
        (
            ComponentValType::Primitive(PrimitiveValType::String),
            ComponentValType::Primitive(PrimitiveValType::String)
        )
    )
}

fn describe(function: &ComponentFuncType) -> String {
    let value = |ty: &ComponentValType| match ty {
        ComponentValType::Primitive(primitive) => format!("{primitive:?}").to_lowercase(),
        ComponentValType::Type(_) => "…".to_owned(),
    };
    let params: Vec<String> = function
        .params
        .iter()
        .map(|(name, ty)| format!("{name}: {}", value(ty)))
        .collect();
    let result = function
        .result
        .as_ref()
        .map(|ty| format!(" -> {}", value(ty)))
        .unwrap_or_default();
    let kind = if function.async_ {
        "async func"
    } else {
        "func"
    };
    format!("{kind}({}){result}", params.join(", "))
}
