//! Whether a signed result is right, as `EnclaveReexecutionVerifier` wants to hear it (`docs/protocol.md` §12).
//!
//! The record of a judgement is put together by the enclave from its own rows. Of a challenger it takes only what the
//! attestation binds by hash (exchanges, outputs), so that nobody can make an honest signer look wrong by bringing other inputs.

use alloy_sol_types::SolValue;
use newton_evaluate::{ArtifactSource, EvaluateError, Finality};
use newton_types::{ABSENT, B256, abi, keccak256};
use std::sync::Arc;

use crate::{
    record::{Record, Unreadable, exchanges_hash},
    reexecute::{Evaluate, Outcome, Private, ReexecuteError, Replay},
};

/// `ResultOutcome.subject` of an evaluation.
pub const EVALUATION: u8 = 1;
/// `ResultOutcome.subject` of a state commit.
pub const STATE_COMMIT: u8 = 2;

/// A judgement.
#[derive(Debug)]
pub struct Judged {
    /// Whether the attestation is what its inputs lead to.
    pub correct: bool,
    /// What they lead to; `None` if to nothing that may be signed.
    pub ours: Option<Outcome>,
}

/// Why there is no judgement.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JudgeError {
    /// The attestation contradicts the task or the rows (another class of challenge), or the record is of another attestation.
    #[error("{field}: the attestation has {attested}, the record leads to {recorded}")]
    Mismatch {
        /// Which field.
        field: String,
        /// In the attestation.
        attested: String,
        /// By the record.
        recorded: String,
    },
    /// What was recorded does not decide it.
    #[error("not decided by what was recorded: {0}")]
    Undecidable(&'static str),
    /// This machine could not finish.
    #[error(transparent)]
    Abstained(EvaluateError),
    /// The record cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

/// Does `record` again and compares the outcome with `claimed`.
///
/// # Errors
/// [`JudgeError`]; none of them says anything about the signers.
pub fn judge(
    record: &Record,
    claimed: &abi::PolicyAttestation,
    private: &Private,
    engine: &impl Evaluate,
    source: &dyn ArtifactSource,
) -> Result<Judged, JudgeError> {
    same_question(claimed, &record.bare()?)?;
    let judged = if record.outputs.is_some() && !record.data.is_empty() {
        merged(record, claimed, engine, source)?
    } else {
        alone(record, claimed, private, engine, source)?
    };
    // The digest does not bind the intent's signature: who knows another one could make any result look wrong.
    if !judged.correct && may_read_signature(record.policy.rego_hash, source) {
        return Err(JudgeError::Undecidable(
            "the policy may read input.intent_signature, which the attestation does not bind",
        ));
    }
    Ok(judged)
}

fn merged(
    record: &Record,
    claimed: &abi::PolicyAttestation,
    engine: &impl Evaluate,
    source: &dyn ArtifactSource,
) -> Result<Judged, JudgeError> {
    let set = record.outputs.as_deref().unwrap_or_default();
    let round = set.first().map_or(0, |entry| entry.round);
    let bound = record
        .expected(round)?
        .map(|expected| expected.transcripts(set))
        .unwrap_or_default();
    for binding in &claimed.data {
        let recorded = bound
            .get(&binding.dataInstanceId)
            .copied()
            .unwrap_or_default();
        require("data.transcriptHash", binding.transcriptHash, recorded)?;
    }
    match record.conclude(engine, source) {
        Ok(ours) => Ok(Judged {
            correct: ours.attestation == *claimed,
            ours: Some(ours),
        }),
        // The attestation binds this very set, and no honest enclave signs anything over it.
        Err(
            ReexecuteError::Outputs(_)
            | ReexecuteError::Abstained(EvaluateError::NoConsensus { .. }),
        ) => Ok(Judged {
            correct: false,
            ours: None,
        }),
        Err(ReexecuteError::Abstained(e)) => Err(JudgeError::Abstained(e)),
        Err(ReexecuteError::Unreadable(e)) => Err(e.into()),
    }
}

fn alone(
    record: &Record,
    claimed: &abi::PolicyAttestation,
    private: &Private,
    engine: &impl Evaluate,
    source: &dyn ArtifactSource,
) -> Result<Judged, JudgeError> {
    let mut unbound = false;
    let mut bound = Private {
        secrets: private.secrets.clone(),
        ..Private::default()
    };
    for binding in &claimed.data {
        let instance = binding.dataInstanceId;
        let exchanges = private
            .exchanges
            .get(&instance)
            .cloned()
            .unwrap_or_default();
        if binding.transcriptHash == ABSENT {
            // An error stands as result; what the component saw is not bound, so nothing of it is used.
            unbound = true;
            continue;
        }
        require(
            "data.transcriptHash",
            binding.transcriptHash,
            exchanges_hash(&exchanges),
        )?;
        bound.exchanges.insert(instance, exchanges);
    }
    let replay = Arc::new(Replay::of(record, &bound));
    let http: Arc<dyn newton_evaluate::transcript::HttpFetcher> = replay.clone();
    let judged = match record.evaluate(&bound.secrets, engine, source, &http) {
        Ok((ours, _)) => Ok(Judged {
            correct: ours.attestation == *claimed,
            ours: Some(ours),
        }),
        Err(ReexecuteError::Abstained(e)) if replay.missed() => {
            debug_assert_eq!(e.finality(), Finality::Abstain);
            if unbound {
                return Err(JudgeError::Undecidable(
                    "a component asked for HTTP, and an error binds no transcript",
                ));
            }
            // With these very exchanges the component asks for something else.
            Ok(Judged {
                correct: false,
                ours: None,
            })
        }
        Err(ReexecuteError::Abstained(e)) => Err(JudgeError::Abstained(e)),
        Err(ReexecuteError::Unreadable(e)) => Err(e.into()),
        Err(ReexecuteError::Outputs(_)) => Err(JudgeError::Undecidable("outputs without a merge")),
    }?;
    if !judged.correct && replay.ambiguous() {
        return Err(JudgeError::Undecidable(
            "two components made the same request and got different answers",
        ));
    }
    Ok(judged)
}

/// Everything but results and transcripts follows from task and rows; where that differs, no re-execution is needed.
fn same_question(
    claimed: &abi::PolicyAttestation,
    ours: &abi::PolicyAttestation,
) -> Result<(), JudgeError> {
    macro_rules! fields {
        ($a:expr, $b:expr, $prefix:literal: $($field:ident)*) => {
            $(if $a.$field != $b.$field {
                return Err(mismatch(concat!($prefix, stringify!($field)), &$a.$field, &$b.$field));
            })*
        };
    }
    fields!(claimed, ours, "": taskId policyInstanceId policyTemplateId regoHash paramsSchemaHash paramsHash referenceBlock
        expirationBlock stateSequenceNo stateRoot rulesVersion intentHash wasmArgsHash);
    if claimed.data.len() != ours.data.len() {
        return Err(mismatch(
            "data.length",
            &claimed.data.len(),
            &ours.data.len(),
        ));
    }
    for (a, b) in claimed.data.iter().zip(&ours.data) {
        fields!(a, b, "data.": dataInstanceId dataTemplateId wasmHash paramsSchemaHash secretsSchemaHash paramsHash
            secretsLeafHash);
    }
    Ok(())
}

fn require(field: &str, attested: B256, recorded: B256) -> Result<(), JudgeError> {
    if attested == recorded {
        return Ok(());
    }
    Err(mismatch(field, &attested, &recorded))
}

fn mismatch(
    field: &str,
    attested: &dyn std::fmt::Display,
    recorded: &dyn std::fmt::Display,
) -> JudgeError {
    JudgeError::Mismatch {
        field: field.to_owned(),
        attested: attested.to_string(),
        recorded: recorded.to_string(),
    }
}

/// `inputsHash` of an evaluation: the attestation with its results left out.
#[must_use]
pub fn evaluation_inputs(attestation: &abi::PolicyAttestation) -> B256 {
    let mut inputs = attestation.clone();
    inputs.evaluationResultHash = B256::ZERO;
    for binding in &mut inputs.data {
        binding.outputHash = B256::ZERO;
    }
    keccak256(inputs.abi_encode())
}

/// `resultHash` of an evaluation.
#[must_use]
pub fn evaluation_result(attestation: &abi::PolicyAttestation) -> B256 {
    let outputs: Vec<B256> = attestation.data.iter().map(|b| b.outputHash).collect();
    keccak256((attestation.evaluationResultHash, outputs).abi_encode_params())
}

/// `inputsHash` of a state commit. Its `resultHash` is its digest.
#[must_use]
pub fn commit_inputs(commit: &abi::StateCommit) -> B256 {
    keccak256((commit.sequenceNo, commit.prevStateRoot).abi_encode_params())
}

/// Whether a policy's source can get at `input.intent_signature`. Errs on the side of yes: every `input` in the text must be
/// followed by another member's name.
fn may_read_signature(rego: B256, source: &dyn ArtifactSource) -> bool {
    let Some(bytes) = source.artifact(&rego) else {
        return true;
    };
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return true;
    };
    text.match_indices("input").any(|(at, word)| {
        let before = text[..at].chars().next_back();
        let longer = before.is_some_and(|c| is_name(c) || c == '.');
        !longer && !names_another(&text[at + word.len()..])
    })
}

/// Whether what follows `input` in a source goes on to a member that is not the signature, or is no `input` at all.
fn names_another(rest: &str) -> bool {
    const SIGNATURE: &str = "intent_signature";
    if rest.starts_with(is_name) {
        return true;
    }
    if let Some(member) = rest.strip_prefix('.') {
        let name = member.split(|c| !is_name(c)).next().unwrap_or_default();
        return !name.is_empty() && name != SIGNATURE;
    }
    rest.strip_prefix("[\"")
        .and_then(|rest| rest.split_once('"'))
        .is_some_and(|(name, after)| {
            after.starts_with(']') && !name.contains('\\') && name != SIGNATURE
        })
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn reads(source: &str) -> bool {
        let bytes: Arc<[u8]> = source.as_bytes().into();
        let hash = keccak256(&bytes);
        may_read_signature(hash, &HashMap::from([(hash, bytes)]))
    }

    #[test]
    fn a_policy_is_trusted_not_to_read_the_signature_only_when_it_cannot() {
        for harmless in [
            "allow if input.value < 5",
            "allow if input[\"to\"] == data.params.to\nx := my_input\ny := inputs\nz := data.input",
            "allow if input.intent_signature_kind",
        ] {
            assert!(!reads(harmless), "{harmless}");
        }
        for dangerous in [
            "allow if input.intent_signature",
            "allow if input[\"intent_signature\"]",
            "allow if input[\"intent\\u005fsignature\"]",
            "allow if input[x]",
            "import input as i",
            "import input.intent_signature as s",
            "allow if some k, v in input",
            "allow if walk(input, [p, v])",
            "allow if input\n.intent_signature",
            "allow if object.get(input, k, 1)",
        ] {
            assert!(reads(dangerous), "{dangerous}");
        }
        assert!(may_read_signature(B256::ZERO, &HashMap::new()));
    }
}
