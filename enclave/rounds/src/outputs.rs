//! Sets of signed outputs: verified against the enclave's own view of the task's operator set, never the gateway's.

use std::collections::{BTreeMap, BTreeSet};

use newton_evaluate::merge::{Outputs, Quorum, WeightedOutput};
use newton_keys::bls::{PublicKey, Signature};
use newton_types::{
    B256, Bytes, keccak256,
    outputs::{Contribution, PolicyDataOutput, contributions_hash, policy_data_output_digest},
    signing::Scope,
};
use serde::{Deserialize, Serialize};

/// One signed output as it travels. Task, arguments and secrets' version are the verifier's own: another's do not verify.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedOutput {
    /// The data instance.
    pub policy_data_instance_id: B256,
    /// Canonical JSON of the component's object, or of an error's name.
    pub output: Bytes,
    /// Hash of the exchanges that the component made.
    pub transcript_hash: B256,
    /// BLS signature in EIP-2537 form.
    pub signature: Bytes,
}

/// All outputs of one operator for one task and round: what `newt_fetchPolicyData` answers, as far as it counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorOutputs {
    /// The round.
    pub round: u32,
    /// The operator's key in EIP-2537 form.
    pub bls_public_key: Bytes,
    /// One for each data instance of the task.
    pub outputs: Vec<SignedOutput>,
}

/// A member of the task's operator set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// `blsKeyHash`.
    pub key_hash: B256,
    /// Weight in the set.
    pub weight: u128,
}

/// What a set of outputs must be about.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Chain and task manager.
    pub scope: Scope,
    /// The task.
    pub task_id: B256,
    /// The round.
    pub round: u32,
    /// keccak-256 of the task's arguments.
    pub wasm_args_hash: B256,
    /// The task's data instances, each with its `secretsLeafHash`.
    pub instances: BTreeMap<B256, B256>,
    /// The task's operator set.
    pub members: Vec<Member>,
    /// What the task asks for.
    pub quorum: Quorum,
}

/// A set that holds.
#[derive(Clone, Debug)]
pub struct Verified {
    /// By data instance and signer.
    pub outputs: BTreeMap<B256, Outputs>,
    /// `transcriptHash` of each data instance's binding.
    pub transcripts: BTreeMap<B256, B256>,
}

/// Why a set of outputs is refused, as a whole: a gateway that mixes in what does not belong has made a mistake or worse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputsError {
    /// Not a point of G2 in EIP-2537 form.
    #[error("entry {index}: bls_public_key is no valid key")]
    Key {
        /// Position in the set.
        index: usize,
    },
    /// A key outside of the task's set.
    #[error("entry {index}: key {key} is not in the task's operator set")]
    Foreign {
        /// Position in the set.
        index: usize,
        /// Its hash.
        key: B256,
    },
    /// A key that is there twice.
    #[error("entry {index}: key {key} is there twice")]
    Twice {
        /// Position in the set.
        index: usize,
        /// Its hash.
        key: B256,
    },
    /// Outputs of another round.
    #[error("entry {index}: outputs of round {got}, expected round {expected}")]
    Round {
        /// Position in the set.
        index: usize,
        /// Round found.
        got: u32,
        /// Round expected.
        expected: u32,
    },
    /// Not exactly one output for each data instance.
    #[error("entry {index}: data instance {instance} {problem}")]
    Instance {
        /// Position in the set.
        index: usize,
        /// The data instance.
        instance: B256,
        /// "is not the task's", "is there twice" or "is missing".
        problem: &'static str,
    },
    /// The signature is not this key's over this output of this task.
    #[error(
        "entry {index}: the signature for data instance {instance} is not by key {key} over this output in this task and round"
    )]
    Signature {
        /// Position in the set.
        index: usize,
        /// The data instance.
        instance: B256,
        /// The key's hash.
        key: B256,
    },
    /// Not enough weight.
    #[error("outputs of weight {weight} of {total}, {bps} basis points are needed")]
    Quorum {
        /// Weight of the signers.
        weight: u128,
        /// Weight of the set.
        total: u128,
        /// Asked for.
        bps: u16,
    },
}

impl Expected {
    /// The digest that an operator signs for one output; `None` for an instance that is not the task's.
    #[must_use]
    pub fn digest(&self, instance: B256, output: &Bytes, transcript_hash: B256) -> Option<B256> {
        let message = PolicyDataOutput {
            taskId: self.task_id,
            round: self.round,
            dataInstanceId: instance,
            wasmArgsHash: self.wasm_args_hash,
            secretsLeafHash: *self.instances.get(&instance)?,
            output: output.clone(),
            transcriptHash: transcript_hash,
        };
        Some(policy_data_output_digest(self.scope, &message))
    }

    /// Verifies a set.
    ///
    /// # Errors
    /// The first [`OutputsError`] in the order of the set.
    pub fn verify(&self, set: &[OperatorOutputs]) -> Result<Verified, OutputsError> {
        let members: BTreeMap<B256, u128> = self
            .members
            .iter()
            .map(|m| (m.key_hash, m.weight))
            .collect();
        let mut seen = BTreeSet::new();
        let mut outputs: BTreeMap<B256, Outputs> = BTreeMap::new();
        let mut weight = 0u128;
        for (index, entry) in set.iter().enumerate() {
            let public = PublicKey::from_eip2537(&entry.bls_public_key)
                .map_err(|_| OutputsError::Key { index })?;
            let key = B256::from(public.hash());
            let share = *members
                .get(&key)
                .ok_or(OutputsError::Foreign { index, key })?;
            if !seen.insert(key) {
                return Err(OutputsError::Twice { index, key });
            }
            self.verify_entry(index, key, &public, entry)?;
            weight = weight.saturating_add(share);
            for signed in &entry.outputs {
                let output = WeightedOutput {
                    weight: share,
                    output: signed.output.to_vec(),
                };
                outputs
                    .entry(signed.policy_data_instance_id)
                    .or_default()
                    .insert(key, output);
            }
        }
        if !self.quorum.reached(weight) {
            return Err(OutputsError::Quorum {
                weight,
                total: self.quorum.total_weight,
                bps: self.quorum.bps,
            });
        }
        Ok(Verified {
            outputs,
            transcripts: self.transcripts(set),
        })
    }

    fn verify_entry(
        &self,
        index: usize,
        key: B256,
        public: &PublicKey,
        entry: &OperatorOutputs,
    ) -> Result<(), OutputsError> {
        if entry.round != self.round {
            return Err(OutputsError::Round {
                index,
                got: entry.round,
                expected: self.round,
            });
        }
        let mut missing: BTreeSet<B256> = self.instances.keys().copied().collect();
        for signed in &entry.outputs {
            let instance = signed.policy_data_instance_id;
            let wrong = |problem| OutputsError::Instance {
                index,
                instance,
                problem,
            };
            let digest = self
                .digest(instance, &signed.output, signed.transcript_hash)
                .ok_or_else(|| wrong("is not the task's"))?;
            if !missing.remove(&instance) {
                return Err(wrong("is there twice"));
            }
            Signature::from_eip2537(&signed.signature)
                .and_then(|signature| public.verify(&digest.0, &signature))
                .map_err(|_| OutputsError::Signature {
                    index,
                    instance,
                    key,
                })?;
        }
        match missing.first() {
            None => Ok(()),
            Some(instance) => Err(OutputsError::Instance {
                index,
                instance: *instance,
                problem: "is missing",
            }),
        }
    }

    /// What a set binds as `transcriptHash` of each data instance, whether it holds or not.
    #[must_use]
    pub fn transcripts(&self, set: &[OperatorOutputs]) -> BTreeMap<B256, B256> {
        let mut contributions: BTreeMap<B256, Vec<Contribution>> = BTreeMap::new();
        for entry in set {
            for signed in &entry.outputs {
                let instance = signed.policy_data_instance_id;
                let digest = self.digest(instance, &signed.output, signed.transcript_hash);
                contributions
                    .entry(instance)
                    .or_default()
                    .push(Contribution {
                        blsKeyHash: keccak256(&entry.bls_public_key),
                        digest: digest.unwrap_or_default(),
                        signatureHash: keccak256(&signed.signature),
                    });
            }
        }
        contributions
            .into_iter()
            .map(|(instance, set)| (instance, contributions_hash(set)))
            .collect()
    }
}
