//! The two phases of an evaluation by several operators (design 4.5): components run in the first, Rego in the second.

use std::{collections::BTreeMap, sync::Arc};

use alloy_primitives::{B256, keccak256};
use serde::{Deserialize, Serialize};

use super::{Evaluator, WasmArguments, fetch, in_template_order, rules_of};
use crate::{
    error::{EvaluateError, Finality},
    json::Json,
    merge::{self, Agreed, Consensus, DataError, Outlier, Outputs, Quorum},
    request::{ArtifactSource, DataInput, DataResult, Diagnostic, EvaluateRequest},
    transcript::HttpFetcher,
};

/// What this machine's run of one component came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Id of the data instance.
    pub instance_id: B256,
    /// Its output, or the final error in which the run ended.
    pub outcome: Result<DataResult, EvaluateError>,
}

/// The outcome of the second phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concluded {
    /// Canonical JSON of the entrypoint's value.
    #[serde(with = "serde_bytes")]
    pub result: Vec<u8>,
    /// One for each data template, in the order of the policy template's refs.
    pub data: Vec<MergedData>,
    /// Observations for the author.
    pub diagnostics: Vec<Diagnostic>,
}

/// What the operators' outputs of one data instance were merged to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedData {
    /// Id of the data instance.
    pub instance_id: B256,
    /// Canonical JSON of the merged object.
    #[serde(with = "serde_bytes")]
    pub output: Vec<u8>,
    /// Operators that were left out.
    pub outliers: Vec<Outlier>,
}

impl Evaluator {
    /// Runs every data component of a task and says what each came to, in the order of `request.data`.
    ///
    /// # Errors
    /// Only what keeps this machine from answering: abstentions, and data instances that are not the policy's.
    pub fn prepare(
        &self,
        request: &EvaluateRequest,
        source: &dyn ArtifactSource,
        http: Option<&Arc<dyn HttpFetcher>>,
    ) -> Result<Vec<Prepared>, EvaluateError> {
        rules_of(request)?;
        in_template_order(request)?;
        request
            .data
            .iter()
            .map(|input| {
                let outcome = self.prepare_one(request, input, source, http);
                match outcome {
                    Err(error) if error.finality() == Finality::Abstain => Err(error),
                    outcome => Ok(Prepared {
                        instance_id: input.instance_id,
                        outcome,
                    }),
                }
            })
            .collect()
    }

    fn prepare_one(
        &self,
        request: &EvaluateRequest,
        input: &DataInput,
        source: &dyn ArtifactSource,
        http: Option<&Arc<dyn HttpFetcher>>,
    ) -> Result<DataResult, EvaluateError> {
        let rules = rules_of(request)?;
        let params = self.data_params(input, rules, source)?;
        self.validate_secrets(input, rules.document_bytes, source)?;
        let arguments = WasmArguments::parse(&request.wasm_args, rules.wasm_args_bytes)?;
        self.run(request, input, params, &arguments, rules, source, http)
            .map(|(result, _)| result)
    }

    /// Merges what operators signed, by data instance, and decides. No component runs and no secret is needed.
    ///
    /// # Errors
    /// Any [`EvaluateError`]; [`EvaluateError::NoConsensus`] where the outputs do not agree.
    pub fn conclude(
        &self,
        request: &EvaluateRequest,
        quorum: Quorum,
        outputs: &BTreeMap<B256, Outputs>,
        source: &dyn ArtifactSource,
    ) -> Result<Concluded, EvaluateError> {
        let ground = self.ground(request, source)?;
        let none = Outputs::new();
        let mut data = Vec::with_capacity(ground.data.len());
        let mut merged = Vec::with_capacity(ground.data.len());
        for input in &ground.data {
            let instance = input.instance_id;
            let consensus = match &input.params_schema {
                Some(schema) => Consensus::of_schema_bytes(&fetch(schema, source)?)
                    .map_err(|error| super::refused(schema, error))?,
                None => Consensus::default(),
            };
            let signed = outputs.get(&instance).unwrap_or(&none);
            let outcome = merge::merge(&consensus, quorum, signed)
                .map_err(|source| EvaluateError::NoConsensus { instance, source })?;
            let members = match outcome.agreed {
                Agreed::Output(members) => members,
                Agreed::Error(error) => {
                    return Err(EvaluateError::OperatorsReport { instance, error });
                }
            };
            data.push(MergedData {
                instance_id: instance,
                output: Json::Object(members.clone()).canonical(),
                outliers: outcome.outliers,
            });
            merged.push((instance, members));
        }
        let decision = self.decide(request, &ground, merged)?;
        Ok(Concluded {
            result: decision.result,
            data,
            diagnostics: decision.diagnostics,
        })
    }
}

impl Prepared {
    /// The bytes that are signed for it: the output, or the error's name as a JSON string.
    #[must_use]
    pub fn output(&self) -> Vec<u8> {
        match &self.outcome {
            Ok(result) => result.output.clone(),
            Err(error) => DataError::from_name(error.name())
                .unwrap_or(DataError::DataProviderError)
                .output(),
        }
    }

    /// Hash of the exchanges; of none where the run ended in an error.
    #[must_use]
    pub fn transcript_hash(&self) -> B256 {
        match &self.outcome {
            Ok(result) => result.transcript_hash,
            Err(_) => crate::transcript::transcript_hash(&[]),
        }
    }
}

impl MergedData {
    /// keccak-256 of the merged output.
    #[must_use]
    pub fn output_hash(&self) -> B256 {
        keccak256(&self.output)
    }
}
