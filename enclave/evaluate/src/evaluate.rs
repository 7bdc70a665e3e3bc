//! One evaluation, in the order of design 4.2.

mod cache;
mod phases;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use alloy_primitives::{B256, keccak256};
use serde::{Deserialize, Serialize};

use crate::{
    component::{CompileError, Compiled, Components, Run},
    error::{ArtifactError, EvaluateError, Subject},
    json::Json,
    merge::Consensus,
    rego::{Policy, RegoInput},
    request::{
        ArtifactKind, ArtifactRef, ArtifactSource, DataInput, DataResult, Diagnostic,
        EvaluateRequest, Evaluation, SecretBytes, Seen, Supply,
    },
    rules::{RULES_VERSION_1, RuleLimits},
    schema::{self, Schema},
    transcript::{HttpFetcher, transcript_hash},
};

use cache::Cache;

pub use phases::{Concluded, MergedData, Prepared};

/// The reserved key under which a component finds its instance's params (design 4b).
pub const PARAMS_KEY: &str = "_params";

/// Limits that protect this machine. Reaching one abstains, so operators may choose them; under emulation everything is an order of
/// magnitude slower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineLimits {
    /// Wall clock of one component run.
    pub component_wall: Duration,
    /// Wall clock of one Rego evaluation.
    pub rego_wall: Duration,
    /// Bytes of machine code kept of compiled components.
    pub compiled_cache_bytes: u64,
    /// Bytes of source of the parsed policies and schemas kept.
    pub parsed_cache_bytes: u64,
}

impl Default for MachineLimits {
    fn default() -> Self {
        Self {
            component_wall: Duration::from_secs(10),
            rego_wall: Duration::from_secs(5),
            compiled_cache_bytes: 128 << 20,
            parsed_cache_bytes: 8 << 20,
        }
    }
}

/// Evaluates in this process, with caches of what was compiled and parsed.
///
/// Workers hold one each. Programs that have no keys to lose may use it directly.
pub struct Evaluator {
    limits: MachineLimits,
    components: Components,
    compiled: Cache<B256, Compiled>,
    policies: Cache<(B256, String), Policy>,
    schemas: Cache<B256, Schema>,
}

impl Evaluator {
    /// Starts an engine with empty caches.
    ///
    /// # Errors
    /// [`EvaluateError::Internal`] when this machine cannot run the engine.
    pub fn new(limits: MachineLimits) -> Result<Self, EvaluateError> {
        Ok(Self {
            limits,
            components: Components::new()?,
            compiled: Cache::new(limits.compiled_cache_bytes),
            policies: Cache::new(limits.parsed_cache_bytes),
            schemas: Cache::new(limits.parsed_cache_bytes),
        })
    }

    /// The component engine.
    #[must_use]
    pub const fn components(&self) -> &Components {
        &self.components
    }

    /// Compiles a component into the cache unless it is there.
    ///
    /// # Errors
    /// [`EvaluateError::InvalidArtifact`], or an abstention.
    pub fn prewarm(
        &self,
        wasm: &ArtifactRef,
        source: &dyn ArtifactSource,
    ) -> Result<(), EvaluateError> {
        self.component(wasm, source).map(drop)
    }

    /// Evaluates one request.
    ///
    /// # Errors
    /// Any [`EvaluateError`]; its finality says whether it may be signed.
    pub fn evaluate(
        &self,
        request: &EvaluateRequest,
        source: &dyn ArtifactSource,
        http: Option<&Arc<dyn HttpFetcher>>,
    ) -> Result<Evaluation, EvaluateError> {
        let ground = self.ground(request, source)?;
        let mut outputs = Vec::with_capacity(ground.data.len());
        let mut results = Vec::with_capacity(ground.data.len());
        for (data, params) in ground.data.iter().zip(&ground.data_params) {
            let (result, members) = self.run(
                request,
                data,
                params.clone(),
                &ground.arguments,
                ground.rules,
                source,
                http,
            )?;
            outputs.push((data.instance_id, members));
            results.push(result);
        }
        let decision = self.decide(request, &ground, outputs)?;
        Ok(Evaluation {
            result_hash: keccak256(&decision.result),
            result: decision.result,
            data: results,
            diagnostics: decision.diagnostics,
            seen: decision.seen,
        })
    }

    /// Everything that is checked before a component runs, in the order that decides which error is signed.
    fn ground<'r>(
        &self,
        request: &'r EvaluateRequest,
        source: &dyn ArtifactSource,
    ) -> Result<Ground<'r>, EvaluateError> {
        let rules = rules_of(request)?;
        let data = in_template_order(request)?;
        let policy = self.policy(&request.policy.rego, &request.policy.entrypoint, source)?;
        let params = document(
            &request.policy.params,
            Subject::PolicyParams,
            rules.document_bytes,
        )?;
        self.validate(
            request.policy.params_schema.as_ref(),
            &params,
            Subject::PolicyParams,
            source,
        )?;
        let data_params = data
            .iter()
            .map(|input| self.data_params(input, rules, source))
            .collect::<Result<_, _>>()?;
        for input in &data {
            self.validate_secrets(input, rules.document_bytes, source)?;
        }
        let input = request
            .intent
            .rego_input(request.intent_signature.as_deref())?;
        let arguments = WasmArguments::parse(&request.wasm_args, rules.wasm_args_bytes)?;
        Ok(Ground {
            rules,
            data,
            policy,
            params,
            data_params,
            input,
            arguments,
        })
    }

    fn data_params(
        &self,
        input: &DataInput,
        rules: RuleLimits,
        source: &dyn ArtifactSource,
    ) -> Result<Json, EvaluateError> {
        let subject = Subject::DataParams(input.instance_id);
        let params = document(&input.params, subject, rules.document_bytes)?;
        self.validate(input.params_schema.as_ref(), &params, subject, source)?;
        Ok(params)
    }

    /// Rego over the outputs, which come in template order.
    fn decide(
        &self,
        request: &EvaluateRequest,
        ground: &Ground<'_>,
        outputs: Vec<(B256, BTreeMap<String, Json>)>,
    ) -> Result<Decision, EvaluateError> {
        let mut wasm = BTreeMap::new();
        let mut owners: BTreeMap<String, B256> = BTreeMap::new();
        let mut diagnostics = Vec::new();
        for (instance, members) in outputs {
            for (key, value) in members {
                if let Some(replaced) = owners.insert(key.clone(), instance) {
                    diagnostics.push(Diagnostic::DataKeyCollision {
                        key: key.clone(),
                        replaced,
                        by: instance,
                    });
                }
                wasm.insert(key, value);
            }
        }
        let wasm = Json::Object(wasm);
        let value = ground.policy.evaluate(&RegoInput {
            input: &ground.input,
            params: &ground.params,
            wasm: &wasm,
            now_seconds: request.task.reference_timestamp,
            wall: self.limits.rego_wall,
        })?;
        let result = value.canonical();
        let limit = ground.rules.result_bytes;
        if result.len() as u64 > limit {
            return Err(EvaluateError::ResultNotRepresentable {
                reason: format!("{} bytes, at most {limit} are allowed", result.len()),
            });
        }
        Ok(Decision {
            result,
            diagnostics,
            seen: request.explain.then(|| Seen {
                input: ground.input.canonical(),
                params: ground.params.canonical(),
                wasm: wasm.canonical(),
            }),
        })
    }

    /// Whether a secrets document is what its template's schema asks for, without running anything.
    ///
    /// # Errors
    /// [`EvaluateError::SecretsSchemaViolation`] with JSON pointers and no values, or what else is wrong with the document.
    pub fn check_secrets(
        &self,
        instance_id: B256,
        schema: Option<&ArtifactRef>,
        secrets: &SecretBytes,
        source: &dyn ArtifactSource,
    ) -> Result<(), EvaluateError> {
        let rules =
            RuleLimits::of(RULES_VERSION_1).ok_or(EvaluateError::UnsupportedRulesVersion {
                got: RULES_VERSION_1,
                known: RULES_VERSION_1,
            })?;
        self.validate_secret(instance_id, schema, secrets, rules.document_bytes, source)
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one step of one function, split for reading"
    )]
    fn run(
        &self,
        request: &EvaluateRequest,
        data: &DataInput,
        params: Json,
        arguments: &WasmArguments,
        rules: RuleLimits,
        source: &dyn ArtifactSource,
        http: Option<&Arc<dyn HttpFetcher>>,
    ) -> Result<(DataResult, BTreeMap<String, Json>), EvaluateError> {
        let component = self.component(&data.wasm, source)?;
        let input = match data.params_schema {
            Some(_) => arguments.with_params(params)?,
            None => arguments.text.clone(),
        };
        let run = self.components.run(
            &component,
            Run {
                instance_id: data.instance_id,
                task_id: request.task.task_id,
                now_seconds: request.task.reference_timestamp,
                input: &input,
                secrets: data.secrets.clone(),
                http: http.cloned(),
                limits: rules,
                wall: self.limits.component_wall,
            },
        )?;
        let subject = Subject::Output(data.instance_id);
        let output = Json::parse(run.output.as_bytes())
            .map_err(|source| EvaluateError::InvalidJson { subject, source })?;
        let canonical = output.canonical();
        let Json::Object(members) = output else {
            return Err(EvaluateError::NotAnObject {
                subject,
                got: output.type_name().to_owned(),
            });
        };
        let result = DataResult {
            instance_id: data.instance_id,
            template_id: data.template_id,
            output_hash: keccak256(&canonical),
            output: canonical,
            transcript_hash: transcript_hash(&run.exchanges),
            exchanges: run.exchanges,
            fuel_used: run.fuel_used,
        };
        Ok((result, members))
    }

    fn validate(
        &self,
        schema: Option<&ArtifactRef>,
        document: &Json,
        subject: Subject,
        source: &dyn ArtifactSource,
    ) -> Result<(), EvaluateError> {
        let Some(schema) = schema else { return Ok(()) };
        self.schema(schema, source)?
            .validate(document)
            .map_err(|violations| EvaluateError::ParamsSchemaViolation {
                subject,
                violations,
            })
    }

    fn validate_secrets(
        &self,
        data: &DataInput,
        limit: u64,
        source: &dyn ArtifactSource,
    ) -> Result<(), EvaluateError> {
        match &data.secrets {
            None => Ok(()),
            Some(secrets) => self.validate_secret(
                data.instance_id,
                data.secrets_schema.as_ref(),
                secrets,
                limit,
                source,
            ),
        }
    }

    fn validate_secret(
        &self,
        instance_id: B256,
        schema: Option<&ArtifactRef>,
        secrets: &SecretBytes,
        limit: u64,
        source: &dyn ArtifactSource,
    ) -> Result<(), EvaluateError> {
        let subject = Subject::Secrets(instance_id);
        let mut parsed = document(secrets.expose(), subject, limit)?;
        let verdict = match schema {
            None => Ok(()),
            Some(schema) => self.schema(schema, source).and_then(|schema| {
                schema.validate_secret(&parsed).map_err(|violations| {
                    EvaluateError::SecretsSchemaViolation {
                        subject,
                        violations,
                    }
                })
            }),
        };
        parsed.wipe();
        verdict
    }

    fn policy(
        &self,
        rego: &ArtifactRef,
        entrypoint: &str,
        source: &dyn ArtifactSource,
    ) -> Result<Arc<Policy>, EvaluateError> {
        let key = (*rego, entrypoint.to_owned());
        self.policies.fetch(&key, || {
            let bytes = fetch(rego, source)?;
            let policy =
                Policy::prepare(&bytes, entrypoint).map_err(|error| refused(rego, error))?;
            Ok((policy, bytes.len() as u64))
        })
    }

    fn schema(
        &self,
        schema: &ArtifactRef,
        source: &dyn ArtifactSource,
    ) -> Result<Arc<Schema>, EvaluateError> {
        self.schemas.fetch(schema, || {
            let bytes = fetch(schema, source)?;
            let compiled = Schema::compile(&bytes).map_err(|error| refused(schema, error))?;
            Ok((compiled, bytes.len() as u64))
        })
    }

    fn component(
        &self,
        wasm: &ArtifactRef,
        source: &dyn ArtifactSource,
    ) -> Result<Arc<Compiled>, EvaluateError> {
        self.compiled.fetch(wasm, || {
            let compiled = match source.module(wasm) {
                Supply::Module(module) => self.components.adopt(&module),
                Supply::CompileYourself => self.components.compile(&fetch(wasm, source)?),
                Supply::None(error) => return Err(error),
            };
            let compiled = compiled.map_err(|error| match error {
                CompileError::Refused(error) => refused(wasm, error),
                CompileError::Failed(error) => error,
            })?;
            let size = compiled.size() as u64;
            Ok((compiled, size))
        })
    }
}

/// What an evaluation stands on before a component runs.
struct Ground<'r> {
    rules: RuleLimits,
    /// In template order, as the params beside them.
    data: Vec<&'r DataInput>,
    policy: Arc<Policy>,
    params: Json,
    data_params: Vec<Json>,
    input: Json,
    arguments: WasmArguments,
}

struct Decision {
    result: Vec<u8>,
    diagnostics: Vec<Diagnostic>,
    seen: Option<Seen>,
}

fn rules_of(request: &EvaluateRequest) -> Result<RuleLimits, EvaluateError> {
    let got = request.task.rules_version;
    RuleLimits::of(got).ok_or(EvaluateError::UnsupportedRulesVersion {
        got,
        known: RULES_VERSION_1,
    })
}

/// The ingest check of any artifact. `entrypoint` goes with Rego of a template and with nothing else.
///
/// # Errors
/// [`ArtifactError`]; every reason follows from the arguments alone.
pub fn check_artifact(
    kind: ArtifactKind,
    bytes: &[u8],
    entrypoint: Option<&str>,
) -> Result<(), ArtifactError> {
    match (kind, entrypoint) {
        (ArtifactKind::PolicyRego, Some(entrypoint)) => crate::rego::check_rego(bytes, entrypoint),
        (ArtifactKind::PolicyRego, None) => crate::rego::check_supplied_rego(bytes),
        (_, Some(_)) => Err(ArtifactError::EntrypointUse { kind }),
        (ArtifactKind::PolicyDataWasm, None) => crate::component::check_component(bytes),
        (ArtifactKind::PolicyDataParamsSchema, None) => {
            schema::check_schema(bytes)?;
            Consensus::of_schema_bytes(bytes).map(drop)
        }
        (ArtifactKind::PolicyParamsSchema | ArtifactKind::PolicyDataSecretsSchema, None) => {
            schema::check_schema(bytes)
        }
    }
}

/// The data instances in the order of the policy template's refs.
fn in_template_order(request: &EvaluateRequest) -> Result<Vec<&DataInput>, EvaluateError> {
    let mismatch = |data: &DataInput, reason: &str| EvaluateError::PolicyDataKindMismatch {
        instance: data.instance_id,
        template: data.template_id,
        reason: reason.to_owned(),
    };
    let mut by_template: BTreeMap<B256, &DataInput> = BTreeMap::new();
    for data in &request.data {
        if !request
            .policy
            .data_template_refs
            .contains(&data.template_id)
        {
            return Err(mismatch(
                data,
                "its template is not among the policy template's data templates",
            ));
        }
        if data.client != request.policy.client {
            return Err(mismatch(
                data,
                "it belongs to another client than the policy",
            ));
        }
        if by_template.insert(data.template_id, data).is_some() {
            return Err(mismatch(
                data,
                "its template has two instances in this task",
            ));
        }
    }
    request
        .policy
        .data_template_refs
        .iter()
        .map(|template| {
            by_template
                .get(template)
                .copied()
                .ok_or(EvaluateError::MissingPolicyDataInstance {
                    template: *template,
                })
        })
        .collect()
}

/// A params or secrets document: empty bytes count as `{}`.
fn document(bytes: &[u8], subject: Subject, limit: u64) -> Result<Json, EvaluateError> {
    if bytes.len() as u64 > limit {
        return Err(EvaluateError::DocumentTooLarge {
            subject,
            got: bytes.len() as u64,
            limit,
        });
    }
    if bytes.is_empty() {
        return Ok(Json::Object(BTreeMap::new()));
    }
    Json::parse(bytes).map_err(|source| EvaluateError::InvalidJson { subject, source })
}

/// `wasm_args` as text, exactly as given, and parsed.
struct WasmArguments {
    text: String,
    parsed: Json,
}

impl WasmArguments {
    fn parse(bytes: &[u8], limit: u64) -> Result<Self, EvaluateError> {
        let parsed = document(bytes, Subject::WasmArgs, limit)?;
        let text = if bytes.is_empty() {
            "{}".to_owned()
        } else {
            String::from_utf8_lossy(bytes).into_owned()
        };
        Ok(Self { text, parsed })
    }

    /// Canonical JSON of the arguments with the instance's params under the reserved key.
    fn with_params(&self, params: Json) -> Result<String, EvaluateError> {
        let Json::Object(members) = &self.parsed else {
            return Err(EvaluateError::NotAnObject {
                subject: Subject::WasmArgs,
                got: self.parsed.type_name().to_owned(),
            });
        };
        let mut members = members.clone();
        members.insert(PARAMS_KEY.to_owned(), params);
        // Canonical JSON is ASCII punctuation around parts of valid strings.
        Ok(String::from_utf8_lossy(&Json::Object(members).canonical()).into_owned())
    }
}

/// Bytes that are what their reference says.
fn fetch(artifact: &ArtifactRef, source: &dyn ArtifactSource) -> Result<Arc<[u8]>, EvaluateError> {
    let bytes = source
        .artifact(artifact)
        .ok_or(EvaluateError::ArtifactUnavailable {
            artifact: *artifact,
        })?;
    let got = keccak256(&bytes);
    if got != *artifact {
        return Err(EvaluateError::ArtifactMismatch {
            expected: *artifact,
            got,
        });
    }
    Ok(bytes)
}

const fn refused(artifact: &ArtifactRef, source: ArtifactError) -> EvaluateError {
    EvaluateError::InvalidArtifact {
        artifact: *artifact,
        source,
    }
}
