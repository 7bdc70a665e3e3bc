//! One task: from the chain's snapshot to a signed attestation (design 4.2).

use std::{sync::Arc, time::Instant};

use alloy_sol_types::SolValue;
use newton_api::RpcError;
use newton_evaluate::{
    ArtifactSource, DataInput, EvaluateError, EvaluateRequest, Finality, Intent, PolicyInput,
    RULES_VERSION_1, SecretBytes, TaskContext,
};
use newton_keys::{
    Slot,
    hpke::{Envelope, EnvelopeContext},
};
use newton_state::{Registry, Snapshot};
use newton_types::{
    ABSENT, Address, B256, Bytes, LeafKey, Namespace, abi,
    events::Artifact,
    keccak256,
    rpc::{Disposition, ErrorName},
    signing::{self, Scope},
};
use serde_json::{Value, json};

use crate::{
    appliance::Appliance,
    engine::Engine,
    rpc::{EvaluateQuery, blocking, engine, internal, reads::state, running},
    running::{KEY_EPOCH, Running},
};

/// Evaluates a task of the chain and signs the outcome, once.
pub async fn evaluate_and_sign(
    app: &Arc<Appliance>,
    query: EvaluateQuery,
) -> Result<Value, RpcError> {
    let running = running(app)?;
    let engine = engine(&running, query.chain_id)?;
    let app = app.clone();
    blocking(move || {
        let started = Instant::now();
        let mut answer = Evaluation::new(&app, &running, &engine, &query)?.run()?;
        // For the caller's figures only; nothing signed depends on it.
        answer["evaluation_us"] = json!(started.elapsed().as_micros() as u64);
        Ok(answer)
    })
    .await
}

struct Evaluation<'a> {
    app: &'a Appliance,
    running: &'a Running,
    engine: &'a Engine,
    query: &'a EvaluateQuery,
    snapshot: Snapshot,
    task: abi::Task,
    intent: abi::Intent,
    wasm_args: Bytes,
}

/// A data instance with what its binding needs.
struct Data {
    input: DataInput,
    expire_after: u64,
    params_hash: B256,
    wasm: B256,
    params_schema: B256,
    secrets_schema: B256,
    secrets_leaf: B256,
}

impl<'a> Evaluation<'a> {
    fn new(
        app: &'a Appliance,
        running: &'a Running,
        engine: &'a Engine,
        query: &'a EvaluateQuery,
    ) -> Result<Self, RpcError> {
        let snapshot = engine.snapshot().map_err(|e| state(&e))?;
        let id = query.task_id;
        let row = snapshot
            .registry()
            .task(id)
            .map_err(|e| state(&e))?
            .ok_or_else(|| {
                RpcError::new(
                    ErrorName::TaskNotFound,
                    format!("no task {id} in the blocks seen so far"),
                )
            })?;
        Ok(Self {
            app,
            running,
            engine,
            query,
            task: row.task().map_err(|e| state(&e))?,
            intent: row.intent().map_err(|e| state(&e))?,
            wasm_args: row.wasm_args,
            snapshot,
        })
    }

    fn run(&self) -> Result<Value, RpcError> {
        self.check_may_sign()?;
        self.check_root()?;
        let registry = self.snapshot.registry();
        let instance = registry
            .policy_instance(self.task.policyInstanceId)
            .map_err(|e| state(&e))?
            .filter(|row| row.registered_at < self.task.referenceBlock)
            .ok_or_else(|| not_deployed("policy instance", self.task.policyInstanceId))?;
        let template = registry
            .policy_template(instance.template_id)
            .map_err(|e| state(&e))?
            .filter(|row| row.registered_at < self.task.referenceBlock)
            .ok_or_else(|| not_deployed("policy template", instance.template_id))?;
        self.check_committed("rego", Namespace::PolicyRego, template.rego)?;
        self.check_committed(
            "params schema",
            Namespace::PolicyParamsSchema,
            template.params_schema,
        )?;
        let mut data = self
            .task
            .dataInstanceIds
            .iter()
            .map(|id| self.data(&registry, *id))
            .collect::<Result<Vec<_>, _>>()?;
        let expire_after = data
            .iter()
            .map(|d| d.expire_after)
            .fold(instance.expire_after, u64::min);
        let intent = self.wire_intent()?;
        let policy = PolicyInput {
            client: instance.client,
            rego: template.rego.hash,
            entrypoint: template.entrypoint.clone(),
            params_schema: present(template.params_schema),
            params: instance.params.to_vec(),
            data_template_refs: template.data_template_refs.clone(),
        };
        let bindings: Vec<abi::PolicyDataBinding> = data.iter().map(Data::binding).collect();
        let request = EvaluateRequest {
            task: TaskContext {
                task_id: self.query.task_id,
                rules_version: self.task.rulesVersion,
                reference_block: self.task.referenceBlock,
                reference_timestamp: self.task.referenceTimestamp,
            },
            intent,
            intent_signature: self.query.intent_signature.as_ref().map(|s| s.to_vec()),
            wasm_args: self.wasm_args.to_vec(),
            policy,
            data: data.drain(..).map(|d| d.input).collect(),
        };
        let http = self.running.http.fetcher();
        let outcome =
            self.running
                .workers
                .evaluate(&request, &SnapshotBytes(&self.snapshot), Some(&http));
        let (result, bindings, error) = match outcome {
            Ok(evaluation) => {
                let bindings = fill(bindings, &evaluation.data)?;
                (evaluation.result, bindings, None)
            }
            // What every honest enclave arrives at is signed; what only this machine met is not.
            Err(e) => match e.signed_result() {
                Some(result) => (result, bindings, Some(e)),
                None => return Err(abstain(&e)),
            },
        };
        let attestation = abi::PolicyAttestation {
            taskId: self.query.task_id,
            policyInstanceId: self.task.policyInstanceId,
            policyTemplateId: instance.template_id,
            regoHash: template.rego.hash,
            paramsSchemaHash: template.params_schema.hash,
            paramsHash: instance.params_hash,
            referenceBlock: self.task.referenceBlock,
            expirationBlock: self.task.referenceBlock.saturating_add(expire_after),
            stateSequenceNo: self.task.stateSequenceNo,
            stateRoot: self.task.stateRoot,
            rulesVersion: self.task.rulesVersion,
            intentHash: signing::intent_hash(&self.intent),
            wasmArgsHash: keccak256(&self.wasm_args),
            evaluationResultHash: keccak256(&result),
            data: bindings,
        };
        self.sign(&attestation, &result, error.as_ref())
    }

    /// Signed are tasks later than this boot's admission only, under rules that this image has.
    fn check_may_sign(&self) -> Result<(), RpcError> {
        if self.task.rulesVersion != RULES_VERSION_1 {
            return Err(RpcError::new(
                ErrorName::IncompatibleRulesVersion,
                format!(
                    "the task asks for rules version {}, this image has {RULES_VERSION_1}",
                    self.task.rulesVersion
                ),
            ));
        }
        let standing = self
            .engine
            .standing(&self.snapshot)
            .map_err(|e| RpcError::new(ErrorName::NotAdmittedYet, e.to_string()))?;
        if self.task.referenceBlock <= standing.admitted_at {
            return Err(RpcError::new(
                ErrorName::NotAdmittedYet,
                format!(
                    "the task is of block {}, this boot's keys were admitted in block {}",
                    self.task.referenceBlock, standing.admitted_at
                ),
            ));
        }
        Ok(())
    }

    /// The task's root must be the one this enclave computed under that number.
    fn check_root(&self) -> Result<(), RpcError> {
        let sequence = self.task.stateSequenceNo;
        match self.snapshot.root(sequence).map_err(|e| state(&e))? {
            Some(root) if root == self.task.stateRoot => Ok(()),
            Some(root) => Err(RpcError::new(
                ErrorName::InternalError,
                format!(
                    "root {sequence} is {} in the task and {root} here",
                    self.task.stateRoot
                ),
            )),
            None => Err(RpcError::new(
                ErrorName::PolicyDataUnresolvable,
                format!("this enclave has not arrived at commit {sequence} yet"),
            )),
        }
    }

    fn check_committed(
        &self,
        what: &str,
        namespace: Namespace,
        artifact: Artifact,
    ) -> Result<(), RpcError> {
        if artifact.is_absent() {
            return Ok(());
        }
        let key = LeafKey::artifact(namespace, artifact.hash);
        match self.leaf(key)? {
            Some(_) => Ok(()),
            None => Err(RpcError::new(
                ErrorName::PolicyNotYetCommitted,
                format!(
                    "{what} {} is not in root {}",
                    artifact.hash, self.task.stateSequenceNo
                ),
            )
            .with("leaf_key", key.0.to_string())),
        }
    }

    fn leaf(&self, key: LeafKey) -> Result<Option<B256>, RpcError> {
        self.snapshot
            .leaf(self.task.stateSequenceNo, key)
            .map_err(|e| state(&e))
    }

    fn data(&self, registry: &Registry<'_>, id: B256) -> Result<Data, RpcError> {
        let row = registry
            .data_instance(id)
            .map_err(|e| state(&e))?
            .filter(|row| row.registered_at < self.task.referenceBlock)
            .ok_or_else(|| not_deployed("policy data instance", id))?;
        let template = registry
            .data_template(row.template_id)
            .map_err(|e| state(&e))?
            .filter(|t| t.registered_at < self.task.referenceBlock)
            .ok_or_else(|| not_deployed("policy data template", row.template_id))?;
        self.check_committed("component", Namespace::PolicyDataWasm, template.wasm)?;
        self.check_committed(
            "data params schema",
            Namespace::PolicyDataParamsSchema,
            template.params_schema,
        )?;
        self.check_committed(
            "secrets schema",
            Namespace::PolicyDataSecretsSchema,
            template.secrets_schema,
        )?;
        let leaf = self.leaf(LeafKey::secrets(self.engine.chain.chain_id, row.client, id))?;
        let secrets = leaf
            .map(|hash| self.open_secrets(row.client, hash))
            .transpose()?;
        Ok(Data {
            expire_after: row.expire_after,
            params_hash: row.params_hash,
            wasm: template.wasm.hash,
            params_schema: template.params_schema.hash,
            secrets_schema: template.secrets_schema.hash,
            secrets_leaf: leaf.unwrap_or(ABSENT),
            input: DataInput {
                client: row.client,
                instance_id: id,
                template_id: row.template_id,
                wasm: template.wasm.hash,
                params_schema: present(template.params_schema),
                secrets_schema: present(template.secrets_schema),
                params: row.params.to_vec(),
                secrets,
            },
        })
    }

    /// Opens the envelope that the task's root commits to.
    fn open_secrets(&self, client: Address, hash: B256) -> Result<SecretBytes, RpcError> {
        let bytes = self
            .snapshot
            .bytes(hash)
            .map_err(|e| state(&e))?
            .ok_or_else(|| {
                RpcError::new(
                    ErrorName::PolicyDataUnresolvable,
                    "the envelope is not here",
                )
            })?;
        let unreadable = |e: newton_keys::hpke::EnvelopeError| {
            RpcError::new(ErrorName::SecretsUnreadable, e.to_string())
        };
        let envelope = Envelope::parse(&bytes).map_err(unreadable)?;
        let expected = EnvelopeContext {
            policy_client: client.into(),
            chain_id: self.engine.chain.chain_id,
        };
        let plaintext = self
            .running
            .master
            .secrets_key(KEY_EPOCH)
            .open_envelope(&envelope, &expected)
            .map_err(unreadable)?;
        Ok(SecretBytes::new(plaintext.as_bytes().to_vec()))
    }

    fn wire_intent(&self) -> Result<Intent, RpcError> {
        let i = &self.intent;
        Ok(Intent {
            from: i.from,
            to: i.to,
            value: i.value,
            data: i.data.to_vec(),
            chain_id: i.chainId,
            function_signature: i.functionSignature.to_vec(),
        })
    }

    fn sign(
        &self,
        attestation: &abi::PolicyAttestation,
        result: &[u8],
        error: Option<&EvaluateError>,
    ) -> Result<Value, RpcError> {
        let scope = Scope {
            chain_id: self.engine.chain.chain_id,
            contract: self.engine.chain.contracts.task_manager,
        };
        let digest = signing::policy_attestation_digest(scope, attestation);
        let slot = Slot::Task {
            task_id: self.query.task_id.0,
            round: 0,
        };
        let signature = self
            .app
            .identity
            .sign(slot, digest)
            .map_err(|e| RpcError::new(ErrorName::Equivocation, e.to_string()))?;
        let value: Value = serde_json::from_slice(result).map_err(|e| internal(&e))?;
        Ok(json!({
            "task_id": self.query.task_id,
            "attestation": Bytes::from(attestation.abi_encode()),
            "digest": digest,
            "signature": Bytes::from(signature.to_eip2537().to_vec()),
            "bls_public_key": Bytes::from(self.app.identity.bls_public().to_eip2537().to_vec()),
            "operator_set_id": self.task.operatorSetId,
            "result": value,
            // The exact bytes that were hashed: JSON numbers above 2^53 do not survive every client's parser.
            "result_json": String::from_utf8_lossy(result),
            "error": error.map(|e| e.to_string()),
        }))
    }
}

impl Data {
    /// The binding as it stands when the component has not run: ABSENT output and transcript.
    fn binding(&self) -> abi::PolicyDataBinding {
        abi::PolicyDataBinding {
            dataInstanceId: self.input.instance_id,
            dataTemplateId: self.input.template_id,
            wasmHash: self.wasm,
            paramsSchemaHash: self.params_schema,
            secretsSchemaHash: self.secrets_schema,
            paramsHash: self.params_hash,
            secretsLeafHash: self.secrets_leaf,
            outputHash: ABSENT,
            transcriptHash: ABSENT,
        }
    }
}

/// Puts the outputs' hashes into the bindings; they are hashed here again, not taken from the worker.
fn fill(
    mut bindings: Vec<abi::PolicyDataBinding>,
    data: &[newton_evaluate::DataResult],
) -> Result<Vec<abi::PolicyDataBinding>, RpcError> {
    for binding in &mut bindings {
        let result = data
            .iter()
            .find(|d| d.instance_id == binding.dataInstanceId)
            .ok_or_else(|| {
                internal(&"an evaluation without the output of one of its components")
            })?;
        binding.outputHash = keccak256(&result.output);
        binding.transcriptHash = newton_evaluate::transcript::transcript_hash(&result.exchanges);
    }
    Ok(bindings)
}

/// Artifacts of one evaluation, from its one snapshot.
struct SnapshotBytes<'a>(&'a Snapshot);

impl ArtifactSource for SnapshotBytes<'_> {
    fn artifact(&self, artifact: &B256) -> Option<Arc<[u8]>> {
        self.0.bytes(*artifact).ok().flatten().map(Arc::from)
    }
}

fn present(artifact: Artifact) -> Option<B256> {
    (!artifact.is_absent()).then_some(artifact.hash)
}

fn not_deployed(what: &str, id: B256) -> RpcError {
    RpcError::new(
        ErrorName::PolicyNotDeployedOnChain,
        format!("{what} {id} has no row before the task's reference block"),
    )
}

/// What only this machine met: nothing is signed, the caller may try again.
fn abstain(e: &EvaluateError) -> RpcError {
    debug_assert_eq!(e.finality(), Finality::Abstain);
    let name = match e {
        EvaluateError::UnsupportedRulesVersion { .. } => ErrorName::IncompatibleRulesVersion,
        EvaluateError::ArtifactUnavailable { .. } => ErrorName::PolicyDataUnresolvable,
        EvaluateError::WorkersBusy { .. } => ErrorName::Overloaded,
        _ => ErrorName::Abstained,
    };
    debug_assert!(
        name.disposition() == Disposition::Retryable || name == ErrorName::IncompatibleRulesVersion
    );
    RpcError::new(name, e.to_string()).with("reason", e.name())
}
