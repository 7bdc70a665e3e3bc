//! The evaluation record: all that an attestation follows from, beside the artifacts, which are named by their hashes.

use std::collections::BTreeMap;

use alloy_sol_types::SolValue;
use newton_evaluate::{
    DataInput, EvaluateRequest, Intent, PolicyInput, SecretBytes, TaskContext,
    merge::Quorum,
    transcript::{Exchange, HttpOutcome, HttpRequest, transcript_hash},
};
use newton_keys::{
    HpkeKey,
    hpke::{Sealed, seal},
};
use newton_types::{
    ABSENT, Address, B256, Bytes, abi, ids, keccak256,
    signing::{self, Scope},
};
use serde::{Deserialize, Serialize};

use crate::outputs::{Expected, Member, OperatorOutputs};

/// The form of a record.
pub const RECORD_VERSION: u32 = 1;

const TRANSCRIPT_INFO: &[u8] = b"newton-evaluation-record-v1";

/// A record. Everything in it is either bound by the attestation's digest or says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// The chain.
    pub chain_id: u64,
    /// The task manager, under whose domain the attestation is signed.
    pub task_manager: Address,
    /// The task.
    pub task_id: B256,
    /// Its snapshot, ABI encoding.
    pub task: Bytes,
    /// The intent, ABI encoding.
    pub intent: Bytes,
    /// The arguments.
    pub wasm_args: Bytes,
    /// What Rego saw as `input.intent_signature`. Not bound by the digest.
    pub intent_signature: Option<Bytes>,
    /// The policy.
    pub policy: PolicyPart,
    /// Its data instances, in the task's order.
    pub data: Vec<DataPart>,
    /// The outputs that were merged; `None` for an evaluation in one call.
    pub outputs: Option<Vec<OperatorOutputs>>,
    /// Weight and quorum of the task's set, with its members, as `outputs` were verified.
    pub operator_set: Option<OperatorSet>,
    /// What was signed, ABI encoding.
    pub attestation: Bytes,
}

/// A policy instance with its template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct PolicyPart {
    pub client: Address,
    pub template_id: B256,
    pub rego_hash: B256,
    /// ABSENT if there is none.
    pub params_schema_hash: B256,
    pub entrypoint: String,
    pub data_template_refs: Vec<B256>,
    pub params: Bytes,
    pub expire_after: u64,
}

/// A data instance with its template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct DataPart {
    pub client: Address,
    pub instance_id: B256,
    pub template_id: B256,
    pub wasm_hash: B256,
    pub params_schema_hash: B256,
    pub secrets_schema_hash: B256,
    pub params: Bytes,
    pub expire_after: u64,
    /// Value hash of the 0x03 leaf, ABSENT if there is none.
    pub secrets_leaf_hash: B256,
    /// The HTTP exchanges of this operator's own run, sealed to the secrets key.
    pub transcript: Option<Transcript>,
}

/// The operator set as far as a set of outputs needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct OperatorSet {
    /// `blsKeyHash` to weight, in decimal.
    pub members: BTreeMap<B256, String>,
    pub total_weight: String,
}

/// Sealed exchanges. Requests carry secrets in their headers, responses what was bought with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transcript {
    /// HPKE encapsulated key.
    pub enc: B256,
    /// Ciphertext.
    pub ciphertext: Bytes,
}

/// One request and what came of it.
pub type FullExchange = (HttpRequest, HttpOutcome);

/// Why a transcript cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TranscriptError {
    /// There is no randomness, or the key is no good.
    #[error("sealing a transcript: {0}")]
    Seal(String),
    /// It does not open under this key for this task and data instance.
    #[error("a transcript does not open")]
    Open,
    /// It opens and is something else.
    #[error("a transcript cannot be read")]
    Read,
}

impl Transcript {
    /// Seals the exchanges of one data instance.
    ///
    /// # Errors
    /// [`TranscriptError::Seal`].
    pub fn seal(
        public_key: &[u8; 32],
        task_id: B256,
        instance: B256,
        exchanges: &[FullExchange],
    ) -> Result<Self, TranscriptError> {
        let mut plain = Vec::new();
        ciborium::into_writer(exchanges, &mut plain)
            .map_err(|e| TranscriptError::Seal(e.to_string()))?;
        let sealed = seal(public_key, TRANSCRIPT_INFO, &aad(task_id, instance), &plain)
            .map_err(|e| TranscriptError::Seal(e.to_string()))?;
        Ok(Self {
            enc: B256::from(sealed.enc),
            ciphertext: sealed.ciphertext.into(),
        })
    }

    /// Opens them again.
    ///
    /// # Errors
    /// [`TranscriptError::Open`] or [`TranscriptError::Read`].
    pub fn open(
        &self,
        key: &HpkeKey,
        task_id: B256,
        instance: B256,
    ) -> Result<Vec<FullExchange>, TranscriptError> {
        let sealed = Sealed {
            enc: self.enc.0,
            ciphertext: self.ciphertext.to_vec(),
        };
        let plain = key
            .open(&sealed, TRANSCRIPT_INFO, &aad(task_id, instance))
            .map_err(|_| TranscriptError::Open)?;
        ciborium::from_reader(plain.as_bytes()).map_err(|_| TranscriptError::Read)
    }
}

fn aad(task_id: B256, instance: B256) -> [u8; 64] {
    let mut aad = [0; 64];
    aad[..32].copy_from_slice(task_id.as_slice());
    aad[32..].copy_from_slice(instance.as_slice());
    aad
}

/// Hash of full exchanges, as a binding's `transcriptHash` has it.
#[must_use]
pub fn exchanges_hash(exchanges: &[FullExchange]) -> B256 {
    let hashed: Vec<Exchange> = exchanges
        .iter()
        .map(|(request, outcome)| Exchange::new(request, outcome))
        .collect();
    transcript_hash(&hashed)
}

/// A record that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record's {what} cannot be read: {reason}")]
pub struct Unreadable {
    /// Which part.
    pub what: &'static str,
    /// Why.
    pub reason: String,
}

impl Record {
    /// Chain and task manager.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope {
            chain_id: self.chain_id,
            contract: self.task_manager,
        }
    }

    /// The task's snapshot.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn task(&self) -> Result<abi::Task, Unreadable> {
        abi::Task::abi_decode(&self.task).map_err(|e| unreadable("task", &e))
    }

    /// The intent.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn intent(&self) -> Result<abi::Intent, Unreadable> {
        abi::Intent::abi_decode(&self.intent).map_err(|e| unreadable("intent", &e))
    }

    /// What was signed.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn attestation(&self) -> Result<abi::PolicyAttestation, Unreadable> {
        abi::PolicyAttestation::abi_decode(&self.attestation)
            .map_err(|e| unreadable("attestation", &e))
    }

    /// The attestation as it stands before anything has run: result zero, outputs and transcripts ABSENT.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn bare(&self) -> Result<abi::PolicyAttestation, Unreadable> {
        let (task, intent) = (self.task()?, self.intent()?);
        let expire_after = self
            .data
            .iter()
            .map(|data| data.expire_after)
            .fold(self.policy.expire_after, u64::min);
        Ok(abi::PolicyAttestation {
            taskId: self.task_id,
            policyInstanceId: task.policyInstanceId,
            policyTemplateId: self.policy.template_id,
            regoHash: self.policy.rego_hash,
            paramsSchemaHash: self.policy.params_schema_hash,
            paramsHash: ids::params_hash(self.policy.expire_after, &self.policy.params),
            referenceBlock: task.referenceBlock,
            expirationBlock: task.referenceBlock.saturating_add(expire_after),
            stateSequenceNo: task.stateSequenceNo,
            stateRoot: task.stateRoot,
            rulesVersion: task.rulesVersion,
            intentHash: signing::intent_hash(&intent),
            wasmArgsHash: keccak256(&self.wasm_args),
            evaluationResultHash: B256::ZERO,
            data: self.data.iter().map(DataPart::binding).collect(),
        })
    }

    /// The evaluation; `secrets` by data instance.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn request(
        &self,
        secrets: &BTreeMap<B256, SecretBytes>,
    ) -> Result<EvaluateRequest, Unreadable> {
        let (task, intent) = (self.task()?, self.intent()?);
        Ok(EvaluateRequest {
            task: TaskContext {
                task_id: self.task_id,
                rules_version: task.rulesVersion,
                reference_block: task.referenceBlock,
                reference_timestamp: task.referenceTimestamp,
            },
            intent: Intent {
                from: intent.from,
                to: intent.to,
                value: intent.value,
                data: intent.data.to_vec(),
                chain_id: intent.chainId,
                function_signature: intent.functionSignature.to_vec(),
            },
            intent_signature: self.intent_signature.as_ref().map(|s| s.to_vec()),
            wasm_args: self.wasm_args.to_vec(),
            policy: PolicyInput {
                client: self.policy.client,
                rego: self.policy.rego_hash,
                entrypoint: self.policy.entrypoint.clone(),
                params_schema: present(self.policy.params_schema_hash),
                params: self.policy.params.to_vec(),
                data_template_refs: self.policy.data_template_refs.clone(),
            },
            data: self
                .data
                .iter()
                .map(|data| DataInput {
                    client: data.client,
                    instance_id: data.instance_id,
                    template_id: data.template_id,
                    wasm: data.wasm_hash,
                    params_schema: present(data.params_schema_hash),
                    secrets_schema: present(data.secrets_schema_hash),
                    params: data.params.to_vec(),
                    secrets: secrets.get(&data.instance_id).cloned(),
                })
                .collect(),
            explain: false,
        })
    }

    /// What the task's set of outputs must be about in one round; `None` without the operator set.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn expected(&self, round: u32) -> Result<Option<Expected>, Unreadable> {
        let Some(set) = &self.operator_set else {
            return Ok(None);
        };
        let number = |text: &str| {
            text.parse::<u128>()
                .map_err(|e| unreadable("operator_set", &e))
        };
        let members = set
            .members
            .iter()
            .map(|(key_hash, weight)| {
                Ok(Member {
                    key_hash: *key_hash,
                    weight: number(weight)?,
                })
            })
            .collect::<Result<_, Unreadable>>()?;
        Ok(Some(Expected {
            scope: self.scope(),
            task_id: self.task_id,
            round,
            wasm_args_hash: keccak256(&self.wasm_args),
            instances: self
                .data
                .iter()
                .map(|data| (data.instance_id, data.secrets_leaf_hash))
                .collect(),
            members,
            quorum: Quorum {
                total_weight: number(&set.total_weight)?,
                bps: self.task()?.quorumBps,
            },
        }))
    }
}

impl DataPart {
    fn binding(&self) -> abi::PolicyDataBinding {
        abi::PolicyDataBinding {
            dataInstanceId: self.instance_id,
            dataTemplateId: self.template_id,
            wasmHash: self.wasm_hash,
            paramsSchemaHash: self.params_schema_hash,
            secretsSchemaHash: self.secrets_schema_hash,
            paramsHash: ids::params_hash(self.expire_after, &self.params),
            secretsLeafHash: self.secrets_leaf_hash,
            outputHash: ABSENT,
            transcriptHash: ABSENT,
        }
    }
}

fn present(hash: B256) -> Option<B256> {
    (hash != ABSENT).then_some(hash)
}

fn unreadable(what: &'static str, error: &dyn std::fmt::Display) -> Unreadable {
    Unreadable {
        what,
        reason: error.to_string(),
    }
}
