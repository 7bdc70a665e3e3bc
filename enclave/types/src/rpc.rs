//! One table of every error a caller of the JSON-RPC can meet: name, code, retryable or final (design 4.8).

use serde::{Deserialize, Serialize};

/// What a caller should do with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disposition {
    /// The same request may succeed later.
    Retryable,
    /// The same request will fail again.
    Final,
}

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $disposition:ident;)*) => {
        /// Names of the errors, each with its code and disposition.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorName { $($(#[$doc])* $name,)* }

        impl ErrorName {
            /// The whole table.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// JSON-RPC error code.
            pub fn code(self) -> i32 {
                match self { $(Self::$name => $code,)* }
            }

            /// Whether a retry can help.
            pub fn disposition(self) -> Disposition {
                match self { $(Self::$name => Disposition::$disposition,)* }
            }

            /// The name as it stands in the error's `data.name`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// The error with this name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|e| e.as_str() == name)
            }
        }
    };
}

errors! {
    /// The request is not JSON.
    ParseError = -32700, Final;
    /// The request is not a JSON-RPC 2.0 request.
    InvalidRequest = -32600, Final;
    /// No such method.
    MethodNotFound = -32601, Final;
    /// A parameter is missing, unknown or malformed; `data.field` names it.
    InvalidParams = -32602, Final;
    /// A fault of the appliance itself.
    InternalError = -32603, Retryable;
    /// The policy could not be evaluated.
    PolicyEvaluationError = -32615, Final;
    /// A contract refused.
    ContractError = -32616, Final;
    /// This enclave's operator is not in the operator set.
    OperatorNotRegistered = -32617, Retryable;
    /// The task asks for rules that this image does not implement.
    IncompatibleRulesVersion = -32618, Final;
    /// The caller's protocol version is not served.
    IncompatibleVersion = -32619, Final;
    /// A data component failed.
    DataProviderError = -32620, Final;
    /// No such task on the chain, as far as this enclave has seen.
    TaskNotFound = -32630, Retryable;
    /// The chain has no row for the policy instance or template.
    PolicyNotDeployedOnChain = -32631, Final;
    /// An artifact is not in the task's state root.
    PolicyNotYetCommitted = -32632, Final;
    /// A data instance's template is not the one that the policy template asks for.
    PolicyDataKindMismatch = -32633, Final;
    /// A data slot is empty.
    MissingPolicyDataInstance = -32634, Final;
    /// Parameters break their schema; `data.violations` holds JSON pointers.
    ParamsSchemaViolation = -32635, Final;
    /// Secrets break their schema; `data.violations` holds JSON pointers, never values.
    SecretsSchemaViolation = -32636, Final;
    /// Bytes could not be had from any source.
    PolicyDataUnresolvable = -32637, Retryable;
    /// The intent is malformed or does not hash to the task's intent hash.
    InvalidIntent = -32638, Final;
    /// The component's arguments do not hash to the task's hash or are not a JSON object.
    InvalidWasmArgs = -32639, Final;
    /// A declared limit (fuel, memory, output size) was exceeded; `data.limit` names it.
    LimitExceeded = -32640, Final;
    /// The machine, not the content, was in the way: time, memory, a worker's death.
    Abstained = -32641, Retryable;
    /// This enclave must not sign for a task that is not later than its own admission.
    NotAdmittedYet = -32642, Retryable;
    /// Another digest was signed for the same slot in this boot.
    Equivocation = -32643, Final;
    /// The finalized view is too old to sign anything.
    ChainViewStale = -32644, Retryable;
    /// The enclave has no master secret yet.
    AwaitingSecret = -32645, Retryable;
    /// The bearer key is missing or unknown, or lacks the permission.
    Unauthorized = -32646, Final;
    /// The request body is larger than the limit.
    RequestTooLarge = -32647, Final;
    /// Nothing under that key, at that version.
    NotFound = -32648, Final;
    /// The method is part of the interface and not served by this version.
    NotImplemented = -32649, Final;
    /// Too many requests at once; try again.
    Overloaded = -32650, Retryable;
    /// A secret share or a recovered secret does not fit the published commitment.
    SecretMismatch = -32651, Final;
    /// The appliance stopped signing after a fault that needs an operator; `data.fault` says which.
    Halted = -32652, Final;
    /// An envelope does not open, or is not for this client.
    SecretsUnreadable = -32653, Final;
    /// The caller's key, or everyone without one, made too many calls; `data.retry_after_ms` says when the next one is taken.
    RateLimited = -32654, Retryable;
    /// An output in a set of prepared outputs is forged, foreign, of another task or round, or there twice; `data.reason` says which.
    InvalidOutputs = -32660, Final;
    /// The prepared outputs do not carry a quorum's weight.
    QuorumNotReached = -32661, Retryable;
    /// No quorum of the prepared outputs agrees; another round may.
    NoConsensus = -32662, Retryable;
    /// A round that may not be prepared (any more); `data.reason` says why.
    RoundNotOpen = -32663, Final;
    /// A record or attestation is not of that task or does not belong to the other.
    RecordMismatch = -32664, Final;
    /// What was recorded does not decide whether the result is right.
    Undecidable = -32665, Final;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_and_names_are_unique() {
        let codes: BTreeSet<_> = ErrorName::ALL.iter().map(|e| e.code()).collect();
        assert_eq!(codes.len(), ErrorName::ALL.len());
        for e in ErrorName::ALL {
            assert_eq!(ErrorName::from_name(e.as_str()), Some(*e));
        }
    }
}
