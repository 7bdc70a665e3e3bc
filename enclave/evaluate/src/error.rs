//! The errors of an evaluation: each has a stable name, a JSON-RPC code and a finality.

use std::fmt;

use alloy_primitives::B256;
use serde::{Deserialize, Serialize};

use crate::{
    intent::IntentError,
    json::JsonError,
    merge::{DataError, NoConsensus},
    request::ArtifactKind,
};

/// Whether every honest enclave comes to the same error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finality {
    /// Follows from bytes, fuel and declared limits alone: trying again changes nothing, and it may be signed.
    Final,
    /// Depends on this machine or this moment: never signed, may be tried again (design 4.2).
    Abstain,
}

/// Which document an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Subject {
    /// The params of the policy instance.
    PolicyParams,
    /// The params of a data instance.
    DataParams(B256),
    /// The secrets stored for a data instance.
    Secrets(B256),
    /// The task's `wasm_args`.
    WasmArgs,
    /// The output of a data instance's component.
    Output(B256),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PolicyParams => f.write_str("policy params"),
            Self::DataParams(id) => write!(f, "params of data instance {id}"),
            Self::Secrets(id) => write!(f, "secrets of data instance {id}"),
            Self::WasmArgs => f.write_str("wasm_args"),
            Self::Output(id) => write!(f, "output of data instance {id}"),
        }
    }
}

/// One place where a document breaks its schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// JSON pointer into the document.
    pub instance_path: String,
    /// JSON pointer into the schema.
    pub schema_path: String,
    /// What is wrong; empty for secrets, because messages quote values.
    pub message: String,
}

/// Why an evaluation gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum EvaluateError {
    /// The task names rules this release does not have.
    #[error("rules version {got} is not known to this release (known: {known})")]
    UnsupportedRulesVersion {
        /// Version in the task.
        got: u32,
        /// Newest version known here.
        known: u32,
    },
    /// A data instance does not belong to the policy.
    #[error("data instance {instance} cannot serve this policy: {reason}")]
    PolicyDataKindMismatch {
        /// The data instance.
        instance: B256,
        /// Its template.
        template: B256,
        /// What does not fit.
        reason: String,
    },
    /// A data template of the policy has no instance.
    #[error("no data instance given for data template {template}")]
    MissingPolicyDataInstance {
        /// The template without an instance.
        template: B256,
    },
    /// The intent cannot be shown to Rego.
    #[error("invalid intent: {0}")]
    InvalidIntent(#[from] IntentError),
    /// A document is not strict JSON.
    #[error("{subject}: {source}")]
    InvalidJson {
        /// Which document.
        subject: Subject,
        /// What is wrong and where.
        source: JsonError,
    },
    /// A document must be a JSON object.
    #[error("{subject} must be a JSON object, got {got}")]
    NotAnObject {
        /// Which document.
        subject: Subject,
        /// The JSON type found.
        got: String,
    },
    /// A document is larger than the rules allow.
    #[error("{subject} has {got} bytes, at most {limit} are allowed")]
    DocumentTooLarge {
        /// Which document.
        subject: Subject,
        /// Bytes found.
        got: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Params do not fit their schema.
    #[error("{subject} violate their schema at {}", pointers(.violations))]
    ParamsSchemaViolation {
        /// Whose params.
        subject: Subject,
        /// Every violation, at most 32.
        violations: Vec<Violation>,
    },
    /// Secrets do not fit their schema. Never carries a value.
    #[error("{subject} violate their schema at {}", pointers(.violations))]
    SecretsSchemaViolation {
        /// Whose secrets.
        subject: Subject,
        /// Every violation, at most 32, without messages.
        violations: Vec<Violation>,
    },
    /// An artifact is not what its namespace requires.
    #[error("artifact {artifact} is invalid: {source}")]
    InvalidArtifact {
        /// keccak-256 of the bytes.
        artifact: B256,
        /// What is wrong.
        source: ArtifactError,
    },
    /// A component returned `Err` from `run`, or trapped.
    #[error("component of data instance {instance} failed: {reason}")]
    DataProviderFailed {
        /// The data instance.
        instance: B256,
        /// The component's own message or the trap.
        reason: String,
    },
    /// A component went over a limit of the rules.
    #[error("component of data instance {instance} exceeded its {limit} limit of {allowed}")]
    ComponentLimitExceeded {
        /// The data instance.
        instance: B256,
        /// Which limit.
        limit: ComponentLimit,
        /// The limit's value.
        allowed: u64,
    },
    /// Rego raised an error, in strict mode: a conflict, a built-in's type error, a bad call.
    #[error("Rego evaluation failed: {reason}")]
    RegoFailed {
        /// The interpreter's message.
        reason: String,
    },
    /// The entrypoint has no value for this input.
    #[error("entrypoint {entrypoint} is undefined for this input")]
    RegoUndefined {
        /// The entrypoint.
        entrypoint: String,
    },
    /// The entrypoint's value has no canonical JSON form.
    #[error("result has no canonical form: {reason}")]
    ResultNotRepresentable {
        /// Why.
        reason: String,
    },

    /// A quorum of the operators reports that a component's run ended in this final error.
    #[error("by a quorum's outputs the component of data instance {instance} failed: {}", .error.name())]
    OperatorsReport {
        /// The data instance.
        instance: B256,
        /// The error.
        error: DataError,
    },

    /// There is nothing about a data instance that a quorum of the operators agrees on.
    #[error("no consensus on data instance {instance}: {source}")]
    NoConsensus {
        /// The data instance.
        instance: B256,
        /// By how much.
        source: NoConsensus,
    },
    /// Bytes of an artifact are out of reach.
    #[error("artifact {artifact} is not available")]
    ArtifactUnavailable {
        /// Its hash.
        artifact: B256,
    },
    /// Bytes handed over under a hash are not those bytes.
    #[error("artifact bytes do not match: expected {expected}, got {got}")]
    ArtifactMismatch {
        /// Hash asked for.
        expected: B256,
        /// Hash of what came.
        got: B256,
    },
    /// A wall-clock bound was reached.
    #[error("{stage} took longer than {limit_ms} ms")]
    WallClockExceeded {
        /// What was running.
        stage: Stage,
        /// The bound.
        limit_ms: u64,
    },
    /// Memory ran out on this machine.
    #[error("out of memory during {stage}")]
    OutOfMemory {
        /// What was running.
        stage: Stage,
    },
    /// The native or WASM stack ran out.
    #[error("stack exhausted during {stage}")]
    StackExhausted {
        /// What was running.
        stage: Stage,
    },
    /// A component asked for HTTP and got no authenticated answer.
    #[error("HTTP request of data instance {instance}: {reason}")]
    HttpUnavailable {
        /// The data instance.
        instance: B256,
        /// What went wrong.
        reason: String,
    },
    /// The worker process ended while it held this request.
    #[error("the worker process died: {reason}")]
    WorkerDied {
        /// Exit status or signal.
        reason: String,
    },
    /// No worker became free in time.
    #[error("no worker became free within {waited_ms} ms")]
    WorkersBusy {
        /// How long was waited.
        waited_ms: u64,
    },
    /// Something inside went wrong that is no fault of the input.
    #[error("internal evaluation error: {reason}")]
    Internal {
        /// What.
        reason: String,
    },
}

/// A limit of [`crate::rules::RuleLimits`] on a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ComponentLimit {
    /// Fuel.
    Fuel,
    /// Bytes of linear memory.
    Memory,
    /// Table elements.
    TableElements,
    /// HTTP requests.
    HttpRequests,
    /// Bytes of one HTTP request: URL, headers and body.
    HttpRequest,
    /// Bytes of one HTTP response's body.
    HttpResponse,
    /// Bytes of the returned string.
    Output,
    /// Bytes of one random request.
    Random,
    /// Bytes that are copied out of a component in one call.
    Copied,
}

impl fmt::Display for ComponentLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fuel => "fuel",
            Self::Memory => "memory (bytes)",
            Self::TableElements => "table elements",
            Self::HttpRequests => "HTTP requests",
            Self::HttpRequest => "HTTP request (bytes)",
            Self::HttpResponse => "HTTP response (bytes)",
            Self::Output => "output (bytes)",
            Self::Random => "random request (bytes)",
            Self::Copied => "bytes copied in one call",
        })
    }
}

/// A step that machine limits can interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Stage {
    /// Compiling a component.
    Compile,
    /// Running a component.
    Component,
    /// Evaluating Rego.
    Rego,
    /// The request as a whole.
    Request,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compile => "compilation",
            Self::Component => "the component",
            Self::Rego => "Rego",
            Self::Request => "the request",
        })
    }
}

impl EvaluateError {
    /// The stable name, as RPC answers and signed error results carry it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::UnsupportedRulesVersion { .. } => "UnsupportedRulesVersion",
            Self::PolicyDataKindMismatch { .. } => "PolicyDataKindMismatch",
            Self::MissingPolicyDataInstance { .. } => "MissingPolicyDataInstance",
            Self::InvalidIntent(_) => "InvalidIntent",
            Self::InvalidJson { .. } => "InvalidJson",
            Self::NotAnObject { .. } => "NotAnObject",
            Self::DocumentTooLarge { .. } => "DocumentTooLarge",
            Self::ParamsSchemaViolation { .. } => "ParamsSchemaViolation",
            Self::SecretsSchemaViolation { .. } => "SecretsSchemaViolation",
            Self::InvalidArtifact { .. } => "InvalidArtifact",
            Self::DataProviderFailed { .. } => "DataProviderError",
            Self::ComponentLimitExceeded { .. } => "ComponentLimitExceeded",
            Self::RegoFailed { .. } => "PolicyEvaluationError",
            Self::RegoUndefined { .. } => "PolicyResultUndefined",
            Self::ResultNotRepresentable { .. } => "PolicyResultNotRepresentable",
            Self::OperatorsReport { error, .. } => error.name(),
            Self::NoConsensus { .. } => "NoConsensus",
            Self::ArtifactUnavailable { .. } => "ArtifactUnavailable",
            Self::ArtifactMismatch { .. } => "ArtifactMismatch",
            Self::WallClockExceeded { .. } => "WallClockExceeded",
            Self::OutOfMemory { .. } => "OutOfMemory",
            Self::StackExhausted { .. } => "StackExhausted",
            Self::HttpUnavailable { .. } => "HttpUnavailable",
            Self::WorkerDied { .. } => "WorkerDied",
            Self::WorkersBusy { .. } => "WorkersBusy",
            Self::Internal { .. } => "InternalEvaluationError",
        }
    }

    /// Whether the error may be signed.
    #[must_use]
    pub const fn finality(&self) -> Finality {
        match self {
            Self::PolicyDataKindMismatch { .. }
            | Self::MissingPolicyDataInstance { .. }
            | Self::InvalidIntent(_)
            | Self::InvalidJson { .. }
            | Self::NotAnObject { .. }
            | Self::DocumentTooLarge { .. }
            | Self::ParamsSchemaViolation { .. }
            | Self::SecretsSchemaViolation { .. }
            | Self::InvalidArtifact { .. }
            | Self::DataProviderFailed { .. }
            | Self::ComponentLimitExceeded { .. }
            | Self::RegoFailed { .. }
            | Self::RegoUndefined { .. }
            | Self::ResultNotRepresentable { .. }
            | Self::OperatorsReport { .. } => Finality::Final,
            // An image that does not know the rules must not speak for them; a newer one may.
            Self::UnsupportedRulesVersion { .. }
            // Another set of outputs may agree.
            | Self::NoConsensus { .. }
            | Self::ArtifactUnavailable { .. }
            | Self::ArtifactMismatch { .. }
            | Self::WallClockExceeded { .. }
            | Self::OutOfMemory { .. }
            | Self::StackExhausted { .. }
            | Self::HttpUnavailable { .. }
            | Self::WorkerDied { .. }
            | Self::WorkersBusy { .. }
            | Self::Internal { .. } => Finality::Abstain,
        }
    }

    /// The canonical result an enclave may sign in place of a value: `{"error":{"name":"…"}}`.
    ///
    /// Only for [`Finality::Final`] errors. The name alone is signed: messages come from engines and may change their wording.
    #[must_use]
    pub fn signed_result(&self) -> Option<Vec<u8>> {
        match self.finality() {
            Finality::Final => {
                Some(format!(r#"{{"error":{{"name":"{}"}}}}"#, self.name()).into_bytes())
            }
            Finality::Abstain => None,
        }
    }
}

/// Why an artifact is refused at ingestion. Every reason follows from the bytes alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ArtifactError {
    /// Larger than the rules allow.
    #[error("{got} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Bytes found.
        got: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Not UTF-8.
    #[error("not UTF-8 after {valid_up_to} bytes")]
    NotUtf8 {
        /// Bytes that were fine.
        valid_up_to: u64,
    },
    /// Not strict JSON.
    #[error("not JSON: {0}")]
    NotJson(#[from] JsonError),
    /// Not a usable JSON Schema.
    #[error("not a JSON Schema (draft 2020-12) at {pointer}: {reason}")]
    InvalidSchema {
        /// JSON pointer into the schema.
        pointer: String,
        /// What is wrong.
        reason: String,
    },
    /// A schema points outside itself.
    #[error(
        "remote reference {reference:?} at {pointer}: only references into the schema itself are allowed"
    )]
    RemoteReference {
        /// JSON pointer into the schema.
        pointer: String,
        /// The reference.
        reference: String,
    },
    /// Rego does not parse or analyse.
    #[error("Rego is invalid: {reason}")]
    InvalidRego {
        /// The parser's message with line and column.
        reason: String,
    },
    /// The entrypoint is not a rule of the module.
    #[error("entrypoint {entrypoint:?} is not a rule of package {package:?}")]
    EntrypointMissing {
        /// Entrypoint asked for.
        entrypoint: String,
        /// Package found.
        package: String,
    },
    /// Something else than Rego came with an entrypoint.
    #[error("{kind:?} takes no entrypoint")]
    EntrypointUse {
        /// The artifact's kind.
        kind: ArtifactKind,
    },
    /// Rego calls something that does not exist here.
    #[error("line {line}: unknown function {function}{}", domain_note(.domain.as_ref()))]
    UnknownFunction {
        /// Name as called.
        function: String,
        /// Line, from 1.
        line: u32,
        /// For `newton.*`: the domain that is not built yet.
        domain: Option<String>,
    },
    /// Rego calls a built-in whose answer is not a function of its arguments.
    #[error("line {line}: {function} is not allowed: its answer is not reproducible")]
    ImpureFunction {
        /// Name as called.
        function: String,
        /// Line, from 1.
        line: u32,
    },
    /// Bytes are a core module.
    #[error("a core WASM module, not a component")]
    CoreModule,
    /// Bytes are not a valid component.
    #[error("not a valid component: {reason}")]
    InvalidComponent {
        /// The validator's message with its offset.
        reason: String,
    },
    /// The component imports what is never provided.
    #[error("import {import} is not allowed: {reason}")]
    ForbiddenImport {
        /// Name of the import.
        import: String,
        /// Why.
        reason: String,
    },
    /// No `run` export.
    #[error("export run: func(input: string) -> result<string, string> is missing")]
    RunMissing,
    /// `run` has another type.
    #[error("export run must be func(input: string) -> result<string, string>, got {got}")]
    RunType {
        /// The type found.
        got: String,
    },
}

impl ArtifactError {
    /// The stable name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "ArtifactTooLarge",
            Self::NotUtf8 { .. } => "NotUtf8",
            Self::NotJson(_) => "NotJson",
            Self::InvalidSchema { .. } => "InvalidSchema",
            Self::RemoteReference { .. } => "RemoteReference",
            Self::InvalidRego { .. } => "InvalidRego",
            Self::EntrypointMissing { .. } => "EntrypointMissing",
            Self::EntrypointUse { .. } => "EntrypointUse",
            Self::UnknownFunction { .. } => "UnknownFunction",
            Self::ImpureFunction { .. } => "ImpureFunction",
            Self::CoreModule => "CoreModule",
            Self::InvalidComponent { .. } => "InvalidComponent",
            Self::ForbiddenImport { .. } => "ForbiddenImport",
            Self::RunMissing => "RunMissing",
            Self::RunType { .. } => "RunType",
        }
    }
}

fn pointers(violations: &[Violation]) -> String {
    let mut text = String::new();
    for violation in violations.iter().take(4) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        let path = if violation.instance_path.is_empty() {
            "/"
        } else {
            &violation.instance_path
        };
        text.push_str(path);
        if !violation.message.is_empty() {
            text.push_str(" (");
            text.push_str(&violation.message);
            text.push(')');
        }
    }
    if violations.len() > 4 {
        text.push_str(", …");
    }
    text
}

fn domain_note(domain: Option<&String>) -> String {
    domain
        .map(|name| format!(" (the domain {name} is not available in this release)"))
        .unwrap_or_default()
}
