//! From a record to the attestation: the same code evaluates a task for the first time and for the last.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use newton_evaluate::{
    ArtifactSource, Concluded, EvaluateError, EvaluateRequest, Evaluation, Evaluator, SecretBytes,
    merge::{Outlier, Outputs, Quorum},
    transcript::{Exchange, FetchError, HttpFetcher, HttpOutcome, HttpRequest, transcript_hash},
    worker::WorkerPool,
};
use newton_types::{ABSENT, B256, abi, keccak256, signing};

use crate::{
    outputs::OutputsError,
    record::{FullExchange, Record, Unreadable},
};

/// What an evaluation runs in: workers, or this process for programs without keys.
pub trait Evaluate {
    /// One whole evaluation.
    ///
    /// # Errors
    /// As [`Evaluator::evaluate`].
    fn evaluate(
        &self,
        request: &EvaluateRequest,
        source: &dyn ArtifactSource,
        http: &Arc<dyn HttpFetcher>,
    ) -> Result<Evaluation, EvaluateError>;

    /// The second phase.
    ///
    /// # Errors
    /// As [`Evaluator::conclude`].
    fn conclude(
        &self,
        request: &EvaluateRequest,
        quorum: Quorum,
        outputs: &BTreeMap<B256, Outputs>,
        source: &dyn ArtifactSource,
    ) -> Result<Concluded, EvaluateError>;
}

impl Evaluate for Evaluator {
    fn evaluate(
        &self,
        request: &EvaluateRequest,
        source: &dyn ArtifactSource,
        http: &Arc<dyn HttpFetcher>,
    ) -> Result<Evaluation, EvaluateError> {
        Self::evaluate(self, request, source, Some(http))
    }

    fn conclude(
        &self,
        request: &EvaluateRequest,
        quorum: Quorum,
        outputs: &BTreeMap<B256, Outputs>,
        source: &dyn ArtifactSource,
    ) -> Result<Concluded, EvaluateError> {
        Self::conclude(self, request, quorum, outputs, source)
    }
}

impl Evaluate for WorkerPool {
    fn evaluate(
        &self,
        request: &EvaluateRequest,
        source: &dyn ArtifactSource,
        http: &Arc<dyn HttpFetcher>,
    ) -> Result<Evaluation, EvaluateError> {
        Self::evaluate(self, request, source, Some(http.as_ref()))
    }

    fn conclude(
        &self,
        request: &EvaluateRequest,
        quorum: Quorum,
        outputs: &BTreeMap<B256, Outputs>,
        source: &dyn ArtifactSource,
    ) -> Result<Concluded, EvaluateError> {
        Self::conclude(self, request, quorum, outputs, source)
    }
}

/// What a record holds only sealed, or not at all.
#[derive(Default)]
pub struct Private {
    /// Opened secrets by data instance.
    pub secrets: BTreeMap<B256, SecretBytes>,
    /// Exchanges by data instance.
    pub exchanges: BTreeMap<B256, Vec<FullExchange>>,
}

/// Hashes of the exchanges that components made, by data instance.
pub type Exchanges = BTreeMap<B256, Vec<Exchange>>;

/// What came of an evaluation.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What an honest enclave signs.
    pub attestation: abi::PolicyAttestation,
    /// Its digest.
    pub digest: B256,
    /// The exact bytes of the result.
    pub result: Vec<u8>,
    /// The final error that stands as result, if one does.
    pub error: Option<EvaluateError>,
    /// Who was left out of the merge, by data instance.
    pub outliers: BTreeMap<B256, Vec<Outlier>>,
}

/// Why there is no attestation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReexecuteError {
    /// This machine could not finish; nothing follows from it.
    #[error(transparent)]
    Abstained(#[from] EvaluateError),
    /// The set of outputs does not hold.
    #[error("outputs: {0}")]
    Outputs(#[from] OutputsError),
    /// The record cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

impl Record {
    /// Evaluates in one call: components run here. Gives the hashes of their exchanges too; none of a run that ended in an error.
    ///
    /// # Errors
    /// [`ReexecuteError::Abstained`], or an unreadable record.
    pub fn evaluate(
        &self,
        secrets: &BTreeMap<B256, SecretBytes>,
        engine: &impl Evaluate,
        source: &dyn ArtifactSource,
        http: &Arc<dyn HttpFetcher>,
    ) -> Result<(Outcome, Exchanges), ReexecuteError> {
        let mut attestation = self.bare()?;
        let request = self.request(secrets)?;
        let mut exchanges = Exchanges::new();
        match engine.evaluate(&request, source, http) {
            Ok(evaluation) => {
                for binding in &mut attestation.data {
                    let result = evaluation
                        .data
                        .iter()
                        .find(|data| data.instance_id == binding.dataInstanceId)
                        .ok_or_else(|| lost("output"))?;
                    // Hashed here, not taken from the worker.
                    binding.outputHash = keccak256(&result.output);
                    binding.transcriptHash = transcript_hash(&result.exchanges);
                    exchanges.insert(result.instance_id, result.exchanges.clone());
                }
                let outcome = self.finish(attestation, evaluation.result, None, BTreeMap::new());
                Ok((outcome, exchanges))
            }
            Err(error) => Ok((self.failed(attestation, error)?, exchanges)),
        }
    }

    /// Verifies and merges the record's outputs, and decides: no component runs.
    ///
    /// # Errors
    /// Any [`ReexecuteError`].
    pub fn conclude(
        &self,
        engine: &impl Evaluate,
        source: &dyn ArtifactSource,
    ) -> Result<Outcome, ReexecuteError> {
        let set = self.outputs.as_deref().unwrap_or_default();
        let round = set.first().map_or(0, |entry| entry.round);
        let expected = self.expected(round)?.ok_or_else(|| Unreadable {
            what: "operator_set",
            reason: "missing".to_owned(),
        })?;
        let verified = expected.verify(set)?;
        let mut attestation = self.bare()?;
        for binding in &mut attestation.data {
            binding.transcriptHash = *verified
                .transcripts
                .get(&binding.dataInstanceId)
                .ok_or_else(|| lost("transcript"))?;
        }
        let request = self.request(&BTreeMap::new())?;
        match engine.conclude(&request, expected.quorum, &verified.outputs, source) {
            Ok(concluded) => {
                let mut outliers = BTreeMap::new();
                for binding in &mut attestation.data {
                    let merged = concluded
                        .data
                        .iter()
                        .find(|data| data.instance_id == binding.dataInstanceId)
                        .ok_or_else(|| lost("merged output"))?;
                    binding.outputHash = merged.output_hash();
                    outliers.insert(merged.instance_id, merged.outliers.clone());
                }
                Ok(self.finish(attestation, concluded.result, None, outliers))
            }
            Err(error) => self.failed(attestation, error),
        }
    }

    /// What every honest enclave arrives at is signed; what only this machine met is not.
    fn failed(
        &self,
        attestation: abi::PolicyAttestation,
        error: EvaluateError,
    ) -> Result<Outcome, ReexecuteError> {
        match error.signed_result() {
            Some(result) => Ok(self.finish(attestation, result, Some(error), BTreeMap::new())),
            None => Err(error.into()),
        }
    }

    fn finish(
        &self,
        mut attestation: abi::PolicyAttestation,
        result: Vec<u8>,
        error: Option<EvaluateError>,
        outliers: BTreeMap<B256, Vec<Outlier>>,
    ) -> Outcome {
        attestation.evaluationResultHash = keccak256(&result);
        debug_assert!(error.is_none() || attestation.data.iter().all(|b| b.outputHash == ABSENT));
        Outcome {
            digest: signing::policy_attestation_digest(self.scope(), &attestation),
            attestation,
            result,
            error,
            outliers,
        }
    }
}

/// Does a record again: merges its outputs if it has some, else runs the components over the exchanges in `private`.
///
/// # Errors
/// Any [`ReexecuteError`].
pub fn reexecute(
    record: &Record,
    private: &Private,
    engine: &impl Evaluate,
    source: &dyn ArtifactSource,
) -> Result<Outcome, ReexecuteError> {
    if record.outputs.is_some() {
        return record.conclude(engine, source);
    }
    let http: Arc<dyn HttpFetcher> = Arc::new(Replay::of(record, private));
    let (outcome, _) = record.evaluate(&private.secrets, engine, source, &http)?;
    Ok(outcome)
}

/// Answers requests from a record and nothing else, each exchange once. Components may run at once, so only the order of equal requests
/// counts; whether each of them went through its exchanges in order is said by its transcript's hash.
pub struct Replay {
    left: Mutex<Vec<FullExchange>>,
    missed: AtomicBool,
    ambiguous: bool,
}

impl Replay {
    /// The exchanges of every data instance.
    #[must_use]
    pub fn of(record: &Record, private: &Private) -> Self {
        let lists: Vec<&Vec<FullExchange>> = record
            .data
            .iter()
            .filter_map(|data| private.exchanges.get(&data.instance_id))
            .collect();
        let differs = |(request, outcome): &FullExchange, others: &[FullExchange]| {
            others.iter().any(|(r, o)| r == request && o != outcome)
        };
        let ambiguous = lists.iter().enumerate().any(|(at, list)| {
            let later = &lists[at + 1..];
            list.iter()
                .any(|exchange| later.iter().any(|others| differs(exchange, others)))
        });
        Self {
            left: Mutex::new(lists.into_iter().flatten().cloned().collect()),
            missed: AtomicBool::new(false),
            ambiguous,
        }
    }

    /// Whether something was asked that the record does not have.
    #[must_use]
    pub fn missed(&self) -> bool {
        self.missed.load(Ordering::Relaxed)
    }

    /// Whether two data instances made the same request and got different answers: which of them is whose cannot be told here.
    #[must_use]
    pub const fn ambiguous(&self) -> bool {
        self.ambiguous
    }
}

impl HttpFetcher for Replay {
    fn fetch(&self, request: &HttpRequest, max_body: u64) -> Result<HttpOutcome, FetchError> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = left.iter().position(|(recorded, _)| recorded == request) else {
            self.missed.store(true, Ordering::Relaxed);
            return Err(FetchError::Unavailable {
                reason: "this request is not in the record".to_owned(),
            });
        };
        match left.remove(at).1 {
            Ok(response) if response.body.len() as u64 > max_body => Err(FetchError::TooLarge),
            outcome => Ok(outcome),
        }
    }
}

fn lost(what: &str) -> ReexecuteError {
    EvaluateError::Internal {
        reason: format!("an evaluation without the {what} of one of its components"),
    }
    .into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use newton_types::{Address, Bytes};

    use crate::record::{DataPart, PolicyPart, RECORD_VERSION};

    fn record(instances: &[u8]) -> Record {
        let part = |n: &u8| DataPart {
            client: Address::ZERO,
            instance_id: B256::repeat_byte(*n),
            template_id: B256::ZERO,
            wasm_hash: B256::ZERO,
            params_schema_hash: ABSENT,
            secrets_schema_hash: ABSENT,
            params: Bytes::new(),
            expire_after: 1,
            secrets_leaf_hash: ABSENT,
            transcript: None,
        };
        Record {
            version: RECORD_VERSION,
            chain_id: 1,
            task_manager: Address::ZERO,
            task_id: B256::ZERO,
            task: Bytes::new(),
            intent: Bytes::new(),
            wasm_args: Bytes::new(),
            intent_signature: None,
            policy: PolicyPart {
                client: Address::ZERO,
                template_id: B256::ZERO,
                rego_hash: B256::ZERO,
                params_schema_hash: ABSENT,
                entrypoint: "p.allow".to_owned(),
                data_template_refs: Vec::new(),
                params: Bytes::new(),
                expire_after: 1,
            },
            data: instances.iter().map(part).collect(),
            outputs: None,
            operator_set: None,
            attestation: Bytes::new(),
        }
    }

    fn exchange(path: &str, answer: &str) -> FullExchange {
        let request = HttpRequest {
            url: format!("https://a.example/{path}"),
            method: "GET".to_owned(),
            headers: Vec::new(),
            body: None,
        };
        (request, Err(answer.to_owned()))
    }

    fn replay(lists: &[(u8, Vec<FullExchange>)]) -> Replay {
        let instances: Vec<u8> = lists.iter().map(|(n, _)| *n).collect();
        let private = Private {
            exchanges: lists
                .iter()
                .map(|(n, list)| (B256::repeat_byte(*n), list.clone()))
                .collect(),
            ..Private::default()
        };
        Replay::of(&record(&instances), &private)
    }

    #[test]
    fn components_that_run_at_once_find_their_exchanges() {
        let replay = replay(&[
            (1, vec![exchange("a", "1"), exchange("a", "2")]),
            (2, vec![exchange("b", "3")]),
        ]);
        assert!(!replay.ambiguous());
        let ask = |path| replay.fetch(&exchange(path, "").0, 100);
        assert_eq!(ask("b"), Ok(Err("3".to_owned())));
        assert_eq!(ask("a"), Ok(Err("1".to_owned())));
        assert_eq!(ask("a"), Ok(Err("2".to_owned())));
        assert!(!replay.missed());
        assert!(ask("a").is_err() && replay.missed());
    }

    #[test]
    fn equal_requests_of_two_instances_with_different_answers_are_told() {
        let same = replay(&[(1, vec![exchange("a", "1")]), (2, vec![exchange("a", "1")])]);
        assert!(!same.ambiguous());
        let other = replay(&[(1, vec![exchange("a", "1")]), (2, vec![exchange("a", "2")])]);
        assert!(other.ambiguous());
    }
}
