//! What one evaluation takes and gives.

use std::sync::Arc;

use alloy_primitives::{Address, B256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroize;

use crate::{component::TrustedModule, error::EvaluateError, intent::Intent, transcript::Exchange};

/// The namespaces of artifacts (design 2.1), as far as evaluation uses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum ArtifactKind {
    /// 0x04: Rego source.
    PolicyRego = 0x04,
    /// 0x05: JSON Schema of a policy's params.
    PolicyParamsSchema = 0x05,
    /// 0x06: WASM component.
    PolicyDataWasm = 0x06,
    /// 0x07: JSON Schema of a data instance's params.
    PolicyDataParamsSchema = 0x07,
    /// 0x08: JSON Schema of a data instance's secrets.
    PolicyDataSecretsSchema = 0x08,
}

impl ArtifactKind {
    /// The kind of a namespace byte, `None` for namespaces that hold no artifact.
    #[must_use]
    pub const fn from_namespace(namespace: u8) -> Option<Self> {
        match namespace {
            0x04 => Some(Self::PolicyRego),
            0x05 => Some(Self::PolicyParamsSchema),
            0x06 => Some(Self::PolicyDataWasm),
            0x07 => Some(Self::PolicyDataParamsSchema),
            0x08 => Some(Self::PolicyDataSecretsSchema),
            _ => None,
        }
    }

    /// The namespace byte.
    #[must_use]
    pub const fn namespace(self) -> u8 {
        self as u8
    }
}

/// keccak-256 of an artifact's bytes.
pub type ArtifactRef = B256;

/// Where artifact bytes come from when a cache does not hold them.
///
/// Implementations return bytes that hash to the reference; the receiver checks it again. `None` means that the bytes are
/// out of reach now, which abstains.
pub trait ArtifactSource: Send + Sync {
    /// The bytes whose keccak-256 is `artifact`.
    fn artifact(&self, artifact: &ArtifactRef) -> Option<Arc<[u8]>>;

    /// The component with this hash, compiled; most sources leave that to who asks.
    fn module(&self, _: &ArtifactRef) -> Supply {
        Supply::CompileYourself
    }
}

/// What a source has of a compiled component.
pub enum Supply {
    /// Nothing: compile the bytes.
    CompileYourself,
    /// The component.
    Module(TrustedModule),
    /// None, and compiling is not for the one who asks.
    None(EvaluateError),
}

impl ArtifactSource for std::collections::HashMap<ArtifactRef, Arc<[u8]>> {
    fn artifact(&self, artifact: &ArtifactRef) -> Option<Arc<[u8]>> {
        self.get(artifact).cloned()
    }
}

/// What of a task an evaluation depends on beside its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskContext {
    /// The task's id; seeds the components' random source.
    pub task_id: B256,
    /// Rules version named by the task.
    pub rules_version: u32,
    /// Reference block number.
    pub reference_block: u64,
    /// Timestamp of the reference block, seconds: the only clock that Rego and components see.
    pub reference_timestamp: u64,
}

/// A policy instance with its template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyInput {
    /// The client that owns the policy instance.
    pub client: Address,
    /// Rego source, namespace 0x04.
    pub rego: ArtifactRef,
    /// `<package>.<rule>`, with or without a leading `data.`.
    pub entrypoint: String,
    /// Schema of `params`, namespace 0x05; `None` when the template's is ABSENT.
    pub params_schema: Option<ArtifactRef>,
    /// The instance's params, JSON; empty counts as `{}`.
    #[serde(with = "serde_bytes")]
    pub params: Vec<u8>,
    /// The data templates of the policy template, in its order.
    pub data_template_refs: Vec<B256>,
}

/// One data instance with its template. [`EvaluateRequest::data`] needs exactly one for each of the template's refs; the order
/// does not matter, outputs are always merged in the order of the refs.
#[derive(Serialize, Deserialize)]
pub struct DataInput {
    /// The client that owns the data instance; must be the policy's.
    pub client: Address,
    /// Id of the data instance.
    pub instance_id: B256,
    /// Id of its template.
    pub template_id: B256,
    /// Component, namespace 0x06.
    pub wasm: ArtifactRef,
    /// Schema of `params`, namespace 0x07; `None` when the template's is ABSENT.
    pub params_schema: Option<ArtifactRef>,
    /// Schema of `secrets`, namespace 0x08; `None` when the template's is ABSENT.
    pub secrets_schema: Option<ArtifactRef>,
    /// The instance's params, JSON; empty counts as `{}`.
    #[serde(with = "serde_bytes")]
    pub params: Vec<u8>,
    /// The opened secrets document, JSON; `None` when the client has stored none.
    pub secrets: Option<SecretBytes>,
}

/// Everything one evaluation depends on. Rows and leaves are already verified by the caller.
#[derive(Serialize, Deserialize)]
pub struct EvaluateRequest {
    /// The task.
    pub task: TaskContext,
    /// The client's intent.
    pub intent: Intent,
    /// EIP-712 signature over the intent when the client gave one; shown to Rego, not verified here.
    #[serde(with = "serde_bytes")]
    pub intent_signature: Option<Vec<u8>>,
    /// `wasm_args`, UTF-8 JSON object; empty counts as `{}`.
    #[serde(with = "serde_bytes")]
    pub wasm_args: Vec<u8>,
    /// The policy.
    pub policy: PolicyInput,
    /// Its data instances.
    pub data: Vec<DataInput>,
    /// Whether the caller wants to see what Rego saw; for simulations, it changes nothing else.
    pub explain: bool,
}

impl EvaluateRequest {
    /// Every artifact this evaluation needs, each once, with its kind.
    #[must_use]
    pub fn artifacts(&self) -> Vec<(ArtifactKind, ArtifactRef)> {
        let mut all = vec![(ArtifactKind::PolicyRego, self.policy.rego)];
        all.extend(
            self.policy
                .params_schema
                .map(|hash| (ArtifactKind::PolicyParamsSchema, hash)),
        );
        for data in &self.data {
            all.push((ArtifactKind::PolicyDataWasm, data.wasm));
            all.extend(
                data.params_schema
                    .map(|hash| (ArtifactKind::PolicyDataParamsSchema, hash)),
            );
            all.extend(
                data.secrets_schema
                    .map(|hash| (ArtifactKind::PolicyDataSecretsSchema, hash)),
            );
        }
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// What one data component produced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataResult {
    /// Id of the data instance.
    pub instance_id: B256,
    /// Id of its template.
    pub template_id: B256,
    /// Canonical JSON of the output object.
    #[serde(with = "serde_bytes")]
    pub output: Vec<u8>,
    /// keccak-256 of `output`.
    pub output_hash: B256,
    /// Hash of `exchanges` (protocol section 5).
    pub transcript_hash: B256,
    /// HTTP exchanges in the order they were made.
    pub exchanges: Vec<Exchange>,
    /// Fuel used; a figure, not signed.
    pub fuel_used: u64,
}

/// Something the author should know that does not change the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Diagnostic {
    /// Two components returned the same top-level key; the later one in template order won.
    DataKeyCollision {
        /// The key.
        key: String,
        /// The instance whose value was replaced.
        replaced: B256,
        /// The instance whose value is seen by Rego.
        by: B256,
    },
}

/// The outcome of one evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Canonical JSON of the entrypoint's value. `true` is allow and nothing else is.
    #[serde(with = "serde_bytes")]
    pub result: Vec<u8>,
    /// keccak-256 of `result`.
    pub result_hash: B256,
    /// One for each data template, in the order of the policy template's refs.
    pub data: Vec<DataResult>,
    /// Observations for the author.
    pub diagnostics: Vec<Diagnostic>,
    /// What Rego saw, when [`EvaluateRequest::explain`] asked for it.
    pub seen: Option<Seen>,
}

/// The documents of one Rego evaluation, each as canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// `input`: the parsed intent.
    #[serde(with = "serde_bytes")]
    pub input: Vec<u8>,
    /// `data.params`.
    #[serde(with = "serde_bytes")]
    pub params: Vec<u8>,
    /// `data.wasm`: the merged outputs.
    #[serde(with = "serde_bytes")]
    pub wasm: Vec<u8>,
}

impl Evaluation {
    /// Whether the result is the one value that allows.
    #[must_use]
    pub fn allows(&self) -> bool {
        self.result == b"true"
    }
}

/// Secret bytes: no `Debug`, wiped on drop, serialized only towards a worker.
#[derive(Clone)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Takes ownership of secret bytes.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes, for the one place that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Serialize for SecretBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::Bytes::new(&self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_bytes::ByteBuf::deserialize(deserializer).map(|bytes| Self(bytes.into_vec()))
    }
}
