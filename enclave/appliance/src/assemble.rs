//! From the rows of one snapshot to the request of an evaluation: what is signed and what is only simulated are put together here.

use std::sync::Arc;

use newton_api::RpcError;
use newton_evaluate::{
    ArtifactSource, DataInput, EvaluateError, EvaluateRequest, Evaluation, Finality, Intent,
    PolicyInput, SecretBytes,
};
use newton_keys::hpke::{Envelope, EnvelopeContext, EnvelopeError};
use newton_rounds::{DataPart, PolicyPart};
use newton_state::{
    Registry, Snapshot,
    registry::{DataTemplateRow, InstanceRow, PolicyTemplateRow},
};
use newton_types::{
    ABSENT, Address, B256, LeafKey, Namespace, abi,
    events::Artifact,
    keccak256,
    rpc::{Disposition, ErrorName},
};

use crate::{
    engine::Engine,
    rpc::reads::state,
    running::{KEY_EPOCH, Running},
};

/// Reads rows and leaves as they stood before one block and in one commit.
pub struct Assembler<'a> {
    /// Keys, workers, the components' way out.
    pub running: &'a Running,
    /// The chain.
    pub engine: &'a Engine,
    /// The one view.
    pub snapshot: &'a Snapshot,
    /// Rows count that were registered in earlier blocks than this.
    pub before: u64,
    /// The commit whose leaves count.
    pub sequence: u64,
    /// What becomes of the envelopes that are stored for data instances.
    pub stored: Stored,
}

/// Whether stored envelopes are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// For a task of the chain, or for the client's owner.
    Open,
    /// For everyone else.
    LeaveShut,
}

/// A policy instance with its template.
pub struct Policy {
    /// Row of the instance.
    pub instance: InstanceRow,
    /// Row of its template.
    pub template: PolicyTemplateRow,
}

/// A data instance with what its binding needs.
pub struct Data {
    /// For the evaluation.
    pub input: DataInput,
    /// Blocks; `None` for an instance that is not deployed.
    pub expire_after: Option<u64>,
    template: DataTemplateRow,
    secrets_leaf: Option<B256>,
}

impl Assembler<'_> {
    /// A deployed policy instance.
    pub fn policy(&self, id: B256) -> Result<Policy, RpcError> {
        let registry = self.registry();
        let instance = registry
            .policy_instance(id)
            .map_err(|e| state(&e))?
            .filter(|row| row.registered_at < self.before)
            .ok_or_else(|| not_deployed("policy instance", id))?;
        let template = registry
            .policy_template(instance.template_id)
            .map_err(|e| state(&e))?
            .filter(|row| row.registered_at < self.before)
            .ok_or_else(|| not_deployed("policy template", instance.template_id))?;
        self.check_committed("rego", Namespace::PolicyRego, template.rego)?;
        self.check_committed(
            "params schema",
            Namespace::PolicyParamsSchema,
            template.params_schema,
        )?;
        Ok(Policy { instance, template })
    }

    /// A deployed data instance, with its stored secrets where those may be opened.
    pub fn data(&self, id: B256) -> Result<Data, RpcError> {
        let row = self.data_row(id)?;
        let template = self.data_template(row.template_id)?;
        let leaf = self.leaf(LeafKey::secrets(self.engine.chain.chain_id, row.client, id))?;
        let secrets = match self.stored {
            Stored::Open => leaf
                .map(|hash| self.open_secrets(row.client, hash))
                .transpose()?,
            Stored::LeaveShut => None,
        };
        Ok(Data {
            expire_after: Some(row.expire_after),
            secrets_leaf: leaf,
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
            template,
        })
    }

    /// What an instance of a registered template would be, were it deployed with these params. It has no stored secrets.
    pub fn undeployed_data(
        &self,
        client: Address,
        template_id: B256,
        params: Vec<u8>,
    ) -> Result<Data, RpcError> {
        let template = self.data_template(template_id)?;
        // Only a deployment gives an expiry, so this is the id of no instance on chain: those have one above zero.
        let params_hash = newton_types::ids::params_hash(0, &params);
        let chain_id = self.engine.chain.chain_id;
        Ok(Data {
            expire_after: None,
            secrets_leaf: None,
            input: DataInput {
                client,
                instance_id: newton_types::ids::policy_data_instance_id(
                    chain_id,
                    client,
                    template_id,
                    params_hash,
                ),
                template_id,
                wasm: template.wasm.hash,
                params_schema: present(template.params_schema),
                secrets_schema: present(template.secrets_schema),
                params,
                secrets: None,
            },
            template,
        })
    }

    /// Row of a data instance.
    pub fn data_row(&self, id: B256) -> Result<InstanceRow, RpcError> {
        self.registry()
            .data_instance(id)
            .map_err(|e| state(&e))?
            .filter(|row| row.registered_at < self.before)
            .ok_or_else(|| not_deployed("policy data instance", id))
    }

    /// Row of a data template whose content is committed.
    pub fn data_template(&self, id: B256) -> Result<DataTemplateRow, RpcError> {
        let template = self
            .registry()
            .data_template(id)
            .map_err(|e| state(&e))?
            .filter(|t| t.registered_at < self.before)
            .ok_or_else(|| not_deployed("policy data template", id))?;
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
        Ok(template)
    }

    /// Evaluates in a worker. `inline` is content that stands in no commit: a simulated policy.
    pub fn evaluate(
        &self,
        request: &EvaluateRequest,
        inline: Option<&[u8]>,
    ) -> Result<Evaluation, EvaluateError> {
        let source = SnapshotBytes::new(self.snapshot, inline);
        let http = self.running.http.fetcher();
        // Whoever wants to see everything simulates.
        let pool = if request.explain {
            &self.running.pools.simulations
        } else {
            &self.running.workers
        };
        let started = std::time::Instant::now();
        let outcome = pool.evaluate(request, &source, Some(&http));
        self.engine.metrics().evaluations.observe(started.elapsed());
        outcome
    }

    /// The rows.
    pub fn registry(&self) -> Registry<'_> {
        self.snapshot.registry()
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
                format!("{what} {} is not in root {}", artifact.hash, self.sequence),
            )
            .with("leaf_key", key.0.to_string())),
        }
    }

    fn leaf(&self, key: LeafKey) -> Result<Option<B256>, RpcError> {
        self.snapshot
            .leaf(self.sequence, key)
            .map_err(|e| state(&e))
    }

    /// Opens the envelope that the commit's root holds.
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
        Envelope::parse(&bytes)
            .and_then(|envelope| open(self.running, self.engine, client, &envelope))
            .map_err(|e| RpcError::new(ErrorName::SecretsUnreadable, e.to_string()))
    }
}

impl Policy {
    /// For a record.
    pub fn part(&self) -> PolicyPart {
        PolicyPart {
            client: self.instance.client,
            template_id: self.instance.template_id,
            rego_hash: self.template.rego.hash,
            params_schema_hash: self.template.params_schema.hash,
            entrypoint: self.template.entrypoint.clone(),
            data_template_refs: self.template.data_template_refs.clone(),
            params: self.instance.params.clone(),
            expire_after: self.instance.expire_after,
        }
    }

    /// For the evaluation.
    pub fn input(&self) -> PolicyInput {
        PolicyInput {
            client: self.instance.client,
            rego: self.template.rego.hash,
            entrypoint: self.template.entrypoint.clone(),
            params_schema: present(self.template.params_schema),
            params: self.instance.params.to_vec(),
            data_template_refs: self.template.data_template_refs.clone(),
        }
    }
}

impl Data {
    /// For a record.
    pub fn part(&self) -> DataPart {
        DataPart {
            client: self.input.client,
            instance_id: self.input.instance_id,
            template_id: self.input.template_id,
            wasm_hash: self.template.wasm.hash,
            params_schema_hash: self.template.params_schema.hash,
            secrets_schema_hash: self.template.secrets_schema.hash,
            params: self.input.params.clone().into(),
            expire_after: self.expire_after.unwrap_or_default(),
            secrets_leaf_hash: self.secrets_leaf.unwrap_or(ABSENT),
            transcript: None,
        }
    }

    /// Whether secrets are asked for by the template and none are there.
    pub fn lacks_secrets(&self) -> bool {
        self.input.secrets_schema.is_some() && self.input.secrets.is_none()
    }

    /// Whether an envelope is committed for this instance.
    pub fn has_stored_secrets(&self) -> bool {
        self.secrets_leaf.is_some()
    }
}

/// Opens an envelope that must be for `client` on this chain.
pub fn open(
    running: &Running,
    engine: &Engine,
    client: Address,
    envelope: &Envelope,
) -> Result<SecretBytes, EnvelopeError> {
    let expected = EnvelopeContext {
        policy_client: client.into(),
        chain_id: engine.chain.chain_id,
    };
    let plaintext = running
        .master
        .secrets_key(KEY_EPOCH)
        .open_envelope(envelope, &expected)?;
    Ok(SecretBytes::new(plaintext.as_bytes().to_vec()))
}

/// An intent as contracts hold it, for the evaluation.
pub fn evaluated(intent: &abi::Intent) -> Intent {
    Intent {
        from: intent.from,
        to: intent.to,
        value: intent.value,
        data: intent.data.to_vec(),
        chain_id: intent.chainId,
        function_signature: intent.functionSignature.to_vec(),
    }
}

/// What only this machine met: nothing is signed, the caller may try again.
pub fn abstain(e: &EvaluateError) -> RpcError {
    debug_assert_eq!(e.finality(), Finality::Abstain);
    let name = match e {
        EvaluateError::UnsupportedRulesVersion { .. } => ErrorName::IncompatibleRulesVersion,
        EvaluateError::ArtifactUnavailable { .. } => ErrorName::PolicyDataUnresolvable,
        EvaluateError::WorkersBusy { .. } => ErrorName::Overloaded,
        EvaluateError::NoConsensus { .. } => ErrorName::NoConsensus,
        _ => ErrorName::Abstained,
    };
    debug_assert!(
        name.disposition() == Disposition::Retryable || name == ErrorName::IncompatibleRulesVersion
    );
    RpcError::new(name, e.to_string()).with("reason", e.name())
}

/// Artifacts of one evaluation, from its one snapshot.
pub struct SnapshotBytes<'a> {
    snapshot: &'a Snapshot,
    inline: Option<(B256, Arc<[u8]>)>,
}

impl<'a> SnapshotBytes<'a> {
    /// What the snapshot holds, and `inline` beside it.
    pub fn new(snapshot: &'a Snapshot, inline: Option<&[u8]>) -> Self {
        Self {
            snapshot,
            inline: inline.map(|bytes| (keccak256(bytes), Arc::from(bytes))),
        }
    }
}

impl ArtifactSource for SnapshotBytes<'_> {
    fn artifact(&self, artifact: &B256) -> Option<Arc<[u8]>> {
        match &self.inline {
            Some((hash, bytes)) if hash == artifact => Some(bytes.clone()),
            _ => self.snapshot.bytes(*artifact).ok().flatten().map(Arc::from),
        }
    }
}

fn present(artifact: Artifact) -> Option<B256> {
    (!artifact.is_absent()).then_some(artifact.hash)
}

fn not_deployed(what: &str, id: B256) -> RpcError {
    RpcError::new(
        ErrorName::PolicyNotDeployedOnChain,
        format!("{what} {id} has no row before the block in question"),
    )
}
