//! The methods: one description each, from which calls are dispatched and `docs/openrpc.json` is written.

use std::{future::Future, pin::Pin, sync::Arc};

use newton_api::{Params, RpcError};
use newton_types::rpc::ErrorName::{self, *};
use serde_json::Value;

use super::{
    describe::{Field, Kind::*, Param, list, optional, renamed, required},
    keys, openrpc, owner, reads, secrets, simulate,
};
use crate::{
    appliance::Appliance,
    rounds::{judge, prepare},
    task,
};

/// One method of the public interface.
pub(super) struct Method {
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    /// What the bearer key must open.
    pub(super) access: Access,
    /// Whether a client's owner signs the call.
    pub(super) owner: Owner,
    pub(super) params: &'static [Param],
    pub(super) result: &'static [Field],
    /// Errors of its own; those of its access and of every call come on top.
    pub(super) errors: &'static [ErrorName],
    pub(super) serve: Serve,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Anyone.
    Open,
    /// A key with `RpcRead`.
    Read,
    /// A key with `RpcWrite`.
    Write,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    No,
    Optional,
    Required,
}

type Answer = Pin<Box<dyn Future<Output = Result<Value, RpcError>> + Send>>;

pub(super) struct Serve {
    pub(super) run: fn(Arc<Appliance>, Params) -> Answer,
    /// The parameters as the code reads them; a test compares them with the description.
    #[cfg(test)]
    pub(super) fields: fn() -> Vec<&'static str>,
}

/// From a typed query and an expression over it to a function of raw parameters.
macro_rules! serve {
    (|$app:ident, signed $query:ident: $type:ty| $answer:expr) => {
        Serve {
            run: |$app, params| {
                Box::pin(async move {
                    let $query = owner::Signed::<$type>::parse(params)?;
                    $answer
                })
            },
            #[cfg(test)]
            fields: super::describe::fields_of::<$type>,
        }
    };
    (|$app:ident| $answer:expr) => {
        Serve {
            run: |$app, params| {
                Box::pin(async move {
                    let super::None {} = params.parse()?;
                    $answer
                })
            },
            #[cfg(test)]
            fields: super::describe::fields_of::<super::None>,
        }
    };
    (|$app:ident, $query:ident: $type:ty| $answer:expr) => {
        Serve {
            run: |$app, params| {
                Box::pin(async move {
                    let $query: $type = params.parse()?;
                    $answer
                })
            },
            #[cfg(test)]
            fields: super::describe::fields_of::<$type>,
        }
    };
}

/// The method with this name.
pub(super) fn find(name: &str) -> Option<&'static Method> {
    all().find(|method| method.name == name)
}

/// Every method, in the order of `docs/openrpc.json`.
pub(super) fn all() -> impl Iterator<Item = &'static Method> {
    METHODS
        .iter()
        .chain(super::tasks::METHODS)
        .chain(super::network::METHODS)
}

pub(super) const CHAIN: Param =
    optional("chain_id", Integer, "the chain, where several are followed");
pub(super) const CLIENT: Param = required("policy_client", Address, "the policy client");
const INSTANCE: Param = required(
    "policy_data_instance_id",
    Hash,
    "id of a deployed policy-data instance",
);
const FORMER: Param = renamed("policy_data_address", "policy_data_instance_id");
const SEQUENCE: Param = optional("sequence_no", Integer, "number of a commit; the newest");
pub(super) const ARGUMENTS: Param = optional(
    "wasm_args",
    Bytes,
    "UTF-8 JSON in hex, the same for every component; {}",
);
pub(super) const INTENT: Param = required("intent", Intent, "the intent");
pub(super) const SIGNATURE: Param = optional(
    "intent_signature",
    Bytes,
    "shown to Rego as input.intent_signature, not verified here",
);
const KEY_RESULT: &[Field] = &[
    ("public_key", Hash, "X25519 key"),
    ("key_type", Text, "x25519"),
    ("encryption_suite", Text, "HPKE suite"),
    ("epoch", Integer, "key epoch"),
    ("attestation", Bytes, "document that binds the secrets key"),
];
const POLICY_RESULT: &[Field] = &[
    ("success", Bool, "whether the entrypoint has a value"),
    (
        "evaluation_result",
        Object,
        "parsed_intent, policy_params_and_data { params, wasm }, entrypoint, result, expire_after (blocks); null without success",
    ),
    (
        "evaluation_result_json",
        Object,
        "the same documents as canonical JSON texts, every digit kept",
    ),
    ("diagnostics", List, "what the author should know"),
    ("error", Text, "why there is no value; null with success"),
    ("error_details", Object, DETAILS),
];
const DATA_RESULT: &[Field] = &[
    ("success", Bool, "whether the component returned an object"),
    (
        "data_result",
        Object,
        "policy_data_instance_id, policy_data_template_id, output, output_json, output_hash, transcript_hash, http_requests, \
         fuel_used, expire_after; null without success",
    ),
    (
        "policy_data",
        Object,
        "the same as public clients read it: specifier (the instance), data (the output), timestamp (the reference block's); \
         null without success",
    ),
    ("error", Text, "why there is no output; null with success"),
    ("error_details", Object, DETAILS),
];
const DETAILS: &str = "missing_secrets (ids of data instances), suggested_actions; with an error name and violations (JSON pointers) too; \
     null where there is nothing to say";
const SIMULATION_ERRORS: &[ErrorName] = &[
    PolicyNotDeployedOnChain,
    PolicyNotYetCommitted,
    PolicyDataUnresolvable,
    IncompatibleRulesVersion,
    SecretsUnreadable,
    Abstained,
    ChainViewStale,
];

pub(super) use serve;

/// Methods for callers; those between enclaves stand in `network`.
static METHODS: &[Method] = &[
    Method {
        name: "rpc.discover",
        summary: "This description, as an OpenRPC document.",
        access: Access::Open,
        owner: Owner::No,
        params: &[],
        result: &[
            ("openrpc", Text, "version of the OpenRPC specification"),
            ("info", Object, "title and version"),
            ("methods", List, "every method"),
            ("components", Object, "schemas and errors"),
        ],
        errors: &[],
        serve: serve!(|_app| Ok(openrpc::document())),
    },
    Method {
        name: "newt_health",
        summary: "How far this boot has come, and where each chain stands.",
        access: Access::Open,
        owner: Owner::No,
        params: &[],
        result: &[
            (
                "status",
                Text,
                "starting, awaiting_secret, opening, ready or halted",
            ),
            ("fault", Text, "why it halted, or null"),
            ("version", Text, "version of the code"),
            ("platform", Text, "what it runs on"),
            ("network", Text, "the manifest's network"),
            ("operator", Address, "the operator"),
            ("boot_id", Hash, "id of this boot"),
            ("config_hash", Hash, "keccak256(PCR16)"),
            ("development", Object, "development switches"),
            ("chains", List, "sequence, root, heads, queue, signing"),
        ],
        errors: &[],
        serve: serve!(|app| super::health(&app)),
    },
    Method {
        name: "newt_getAttestation",
        summary: "A document over the caller's nonce, and the keys that it binds.",
        access: Access::Open,
        owner: Owner::No,
        params: &[required("nonce", Bytes, "1 to 64 bytes")],
        result: &[
            ("document", Bytes, "NSM document"),
            ("stage", Integer, "1 without the master secret, 2 with it"),
            ("boot_id", Hash, "id of this boot"),
            ("operator", Address, "the operator"),
            ("tls_spki_hash", Hash, "SHA-256 of the TLS key"),
            ("hpke_public_key", Hash, "HPKE key of the stage"),
            ("bls_public_key", Bytes, "compressed"),
            ("config_hash", Hash, "keccak256(PCR16)"),
        ],
        errors: &[],
        serve: serve!(|app, query: keys::AttestationQuery| keys::attestation(&app, &query)),
    },
    Method {
        name: "newt_getAdmissionRequest",
        summary: "Everything the operator registry wants to see of this boot.",
        access: Access::Open,
        owner: Owner::No,
        params: &[required("valid_until", Integer, "block timestamp, seconds")],
        result: &[
            ("admission", Bytes, "ABI encoding"),
            ("digest", Hash, "EIP-712 digest"),
            ("document", Bytes, "NSM document"),
            ("bls_public_key", Bytes, "EIP-2537 form"),
            ("proof_of_possession", Bytes, "EIP-2537 form"),
        ],
        errors: &[AwaitingSecret, Halted],
        serve: serve!(|app, query: keys::AdmissionQuery| keys::admission_request(&app, &query)),
    },
    Method {
        name: "newt_getSecretShares",
        summary: "Sealed shares of the master secret; only in the boot that made it.",
        access: Access::Open,
        owner: Owner::No,
        params: &[],
        result: &[
            ("commitment", Hash, "commitment of the secret"),
            ("threshold", Integer, "shares needed"),
            ("shares", List, "index, enc, ciphertext"),
        ],
        errors: &[AwaitingSecret, Halted, NotFound],
        serve: serve!(|app| keys::shares(&app)),
    },
    Method {
        name: "newt_submitShare",
        summary: "Takes a share that its holder sealed to this boot's ephemeral key.",
        access: Access::Open,
        owner: Owner::No,
        params: &[
            required("index", Integer, "the holder's number, from 1"),
            required("enc", Hash, "encapsulated key"),
            required("ciphertext", Bytes, "the sealed share"),
        ],
        result: &[("missing", Integer, "shares still needed")],
        errors: &[InvalidRequest, SecretMismatch],
        serve: serve!(|app, share: keys::ShareSubmission| keys::submit_share(&app, &share)),
    },
    Method {
        name: "newt_getKeyEpochVote",
        summary: "This enclave's signature over the key epoch's public face.",
        access: Access::Open,
        owner: Owner::No,
        params: &[],
        result: &[
            ("key_epoch", Bytes, "ABI encoding"),
            ("digest", Hash, "EIP-712 digest"),
            ("signature", Bytes, "EIP-2537 form"),
        ],
        errors: &[AwaitingSecret, Halted],
        serve: serve!(|app| keys::epoch_vote(&app)),
    },
    Method {
        name: "newt_getSecretsPublicKey",
        summary: "The shared key that clients seal secrets to.",
        access: Access::Open,
        owner: Owner::No,
        params: &[],
        result: KEY_RESULT,
        errors: &[AwaitingSecret, Halted],
        serve: serve!(|app| keys::public_key(&app, keys::Domain::Secrets)),
    },
    Method {
        name: "newt_getPrivacyPublicKey",
        summary: "The shared key that clients seal confidential data to.",
        access: Access::Open,
        owner: Owner::No,
        params: &[],
        result: KEY_RESULT,
        errors: &[AwaitingSecret, Halted],
        serve: serve!(|app| keys::public_key(&app, keys::Domain::Privacy)),
    },
    Method {
        name: "newt_getArtifact",
        summary: "Bytes of a public artifact with the proof that they are in the root.",
        access: Access::Open,
        owner: Owner::No,
        params: &[
            CHAIN,
            required("namespace", Integer, "4 to 8"),
            required("hash", Hash, "keccak-256 of the bytes"),
            SEQUENCE,
        ],
        result: &[
            ("bytes", Bytes, "the artifact"),
            ("leaf_key", Hash, "its leaf"),
            ("value_hash", Hash, "the leaf's value hash"),
            ("sequence_no", Integer, "the commit"),
            ("state_root", Hash, "its root"),
            ("proof", Object, "inclusion"),
        ],
        errors: &[AwaitingSecret, Halted, NotFound, PolicyDataUnresolvable],
        serve: serve!(|app, query: super::ArtifactQuery| reads::artifact(&app, query).await),
    },
    Method {
        name: "newt_getStateProof",
        summary: "A leaf's value hash and its proof; zero and a proof of absence where there is none.",
        access: Access::Open,
        owner: Owner::No,
        params: &[CHAIN, required("leaf_key", Hash, "the leaf"), SEQUENCE],
        result: &[
            ("leaf_key", Hash, "the leaf"),
            ("value_hash", Hash, "zero if absent"),
            ("sequence_no", Integer, "the commit"),
            ("state_root", Hash, "its root"),
            ("proof", Object, "inclusion or absence"),
        ],
        errors: &[AwaitingSecret, Halted, NotFound],
        serve: serve!(|app, query: super::LeafQuery| reads::state_proof(&app, query).await),
    },
    Method {
        name: "newt_getStateCommit",
        summary: "A commit as it was signed.",
        access: Access::Open,
        owner: Owner::No,
        params: &[CHAIN, SEQUENCE],
        result: &[
            ("sequence_no", Integer, "its number"),
            ("state_root", Hash, "its root"),
            ("boundary_block", Integer, "the window's last block"),
            ("settled_bytes", Integer, "bytes drained"),
            ("commit", Bytes, "ABI encoding"),
        ],
        errors: &[AwaitingSecret, Halted, NotFound],
        serve: serve!(|app, query: super::CommitQuery| reads::state_commit(&app, query).await),
    },
    Method {
        name: "newt_getCommitVote",
        summary: "This boot's signature over a commit, for whoever collects a quorum.",
        access: Access::Open,
        owner: Owner::No,
        params: &[CHAIN, SEQUENCE],
        result: &[
            ("sequence_no", Integer, "its number"),
            ("commit", Bytes, "ABI encoding"),
            ("digest", Hash, "EIP-712 digest"),
            ("signature", Bytes, "EIP-2537 form"),
            ("bls_public_key", Bytes, "EIP-2537 form"),
        ],
        errors: &[AwaitingSecret, Halted, NotFound],
        serve: serve!(|app, query: super::CommitQuery| reads::commit_vote(&app, query).await),
    },
    Method {
        name: "newt_getPolicyStatus",
        summary: "Where everything stands that a client's current policy depends on.",
        access: Access::Open,
        owner: Owner::No,
        params: &[CHAIN, CLIENT],
        result: &[
            ("policy_client", Address, "the client"),
            ("policy_instance_id", Hash, "its current instance"),
            ("policy_template_id", Hash, "that instance's template"),
            ("ready", Bool, "whether a task would find everything"),
            ("artifacts", List, "state of every artifact"),
            ("data", List, "the client's slots"),
            ("sequence_no", Integer, "the newest commit"),
        ],
        errors: &[AwaitingSecret, Halted, PolicyNotDeployedOnChain],
        serve: serve!(|app, query: super::PolicyQuery| reads::policy_status(&app, query).await),
    },
    Method {
        name: "newt_getSecretsMetadata",
        summary: "What is known of a data instance's secrets; never the envelope.",
        access: Access::Open,
        owner: Owner::No,
        params: &[CHAIN, INSTANCE],
        result: &[
            ("policy_data_instance_id", Hash, "the instance"),
            ("policy_client", Address, "its client"),
            ("envelope_hash", Hash, "keccak-256 of the envelope"),
            ("envelope_bytes", Integer, "its length"),
            ("count", Integer, "envelopes posted so far"),
            ("posted_by", Address, "who posted it"),
            ("posted_in_block", Integer, "and when"),
            ("leaf", Object, "state of the leaf"),
        ],
        errors: &[AwaitingSecret, Halted, NotFound],
        serve: serve!(|app, query: super::SecretsQuery| reads::secrets_metadata(&app, query).await),
    },
    Method {
        name: secrets::STORE,
        summary: "Looks at an envelope inside the enclave and disperses it; setSecrets on chain makes it count.",
        access: Access::Write,
        owner: Owner::Required,
        params: &[
            CHAIN,
            CLIENT,
            INSTANCE,
            FORMER,
            required("envelope", Text, "the envelope's JSON"),
        ],
        result: &[
            (
                "success",
                Bool,
                "whether it opens, fits the schema and was dispersed",
            ),
            ("schema", Object, "the template's secrets schema"),
            (
                "error",
                Text,
                "what is wrong, with JSON pointers and no value",
            ),
            ("violations", List, "instance_path and schema_path of each"),
            ("data_ref_id", Hash, "keccak-256 of the envelope"),
            (
                "set_secrets",
                Object,
                "what the owner sends to the chain: contract, policy_data_instance_id, artifact_hash, byte_length, da_ref",
            ),
        ],
        errors: &[
            AwaitingSecret,
            Halted,
            PolicyNotDeployedOnChain,
            PolicyNotYetCommitted,
            PolicyDataUnresolvable,
            Abstained,
            ChainViewStale,
        ],
        serve: serve!(|app, signed call: secrets::StoreQuery| secrets::store(&app, call).await),
    },
    Method {
        name: simulate::POLICY,
        summary: "Evaluates a policy's source that stands on no chain. Nothing is stored or signed.",
        access: Access::Read,
        owner: Owner::Optional,
        params: &[
            CHAIN,
            CLIENT,
            required("policy", Text, "Rego source, at most 1 MiB"),
            INTENT,
            optional("entrypoint", Text, "<package>.<rule>; the package's allow"),
            list(
                "policy_data",
                DataEntry,
                "data components, at most 16; none",
            ),
            optional("policy_params", Document, "data.params; {}"),
            SIGNATURE,
        ],
        result: POLICY_RESULT,
        errors: SIMULATION_ERRORS,
        serve: serve!(
            |app, signed call: simulate::PolicyQuery| simulate::policy(&app, call).await
        ),
    },
    Method {
        name: "newt_simulatePolicyData",
        summary: "Runs one data component with secrets that come with the call, or none.",
        access: Access::Read,
        owner: Owner::No,
        params: &[
            CHAIN,
            optional(
                "policy_client",
                Address,
                "the client; that of policy_data_instance_id",
            ),
            optional(
                "policy_data_instance_id",
                Hash,
                "a deployed instance; this or policy_data_template_id",
            ),
            FORMER,
            optional(
                "policy_data_template_id",
                Hash,
                "a registered template, as if deployed with params",
            ),
            optional("params", Document, "with policy_data_template_id; {}"),
            optional("secrets", Document, "what secrets.get answers; none"),
            ARGUMENTS,
        ],
        result: DATA_RESULT,
        errors: SIMULATION_ERRORS,
        serve: serve!(|app, query: simulate::DataQuery| simulate::data(&app, query).await),
    },
    Method {
        name: simulate::DATA_WITH_CLIENT,
        summary: "Runs one data component with the secrets stored for it.",
        access: Access::Read,
        owner: Owner::Required,
        params: &[CHAIN, CLIENT, INSTANCE, FORMER, ARGUMENTS],
        result: DATA_RESULT,
        errors: SIMULATION_ERRORS,
        serve: serve!(
            |app, signed call: simulate::ClientDataQuery| simulate::data_with_client(&app, call).await
        ),
    },
    Method {
        name: simulate::TASK,
        summary: "Evaluates a task of the chain, or the one that createTask would make now, without signing.",
        access: Access::Read,
        owner: Owner::Optional,
        params: &[
            CHAIN,
            optional(
                "task_id",
                Hash,
                "a task; without it policy_client and intent",
            ),
            optional(
                "policy_client",
                Address,
                "whose current policy; without task_id",
            ),
            optional("intent", Intent, "without task_id"),
            SIGNATURE,
            optional("wasm_args", Bytes, "without task_id; UTF-8 JSON in hex; {}"),
        ],
        result: &[
            POLICY_RESULT[0],
            POLICY_RESULT[1],
            POLICY_RESULT[2],
            POLICY_RESULT[3],
            POLICY_RESULT[4],
            POLICY_RESULT[5],
            ("policy_instance_id", Hash, "the policy instance"),
            ("state_sequence_no", Integer, "the commit it was read from"),
        ],
        errors: &[
            TaskNotFound,
            PolicyNotDeployedOnChain,
            PolicyNotYetCommitted,
            PolicyDataUnresolvable,
            IncompatibleRulesVersion,
            SecretsUnreadable,
            Abstained,
            ChainViewStale,
        ],
        serve: serve!(|app, signed call: simulate::TaskQuery| simulate::task(&app, call).await),
    },
    Method {
        name: "newt_fetchPolicyData",
        summary: "Prepare phase of several operators: runs the data components and signs their outputs, once a round.",
        access: Access::Write,
        owner: Owner::No,
        params: &[
            CHAIN,
            required("task_id", Hash, "the task"),
            optional("round", Integer, "0 to 3; 0"),
            list(
                "previous",
                OperatorOutputs,
                "the outputs of the round before, which do not agree; needed above round 0",
            ),
        ],
        result: &[
            ("task_id", Hash, "the task"),
            ("round", Integer, "the round"),
            ("wasm_args_hash", Hash, "of the task's arguments"),
            ("operator_set_id", Integer, "the task's operator set"),
            ("bls_public_key", Bytes, "EIP-2537 form"),
            (
                "outputs",
                List,
                "for each data instance: policy_data_instance_id, output, output_json, transcript_hash, secrets_leaf_hash, digest, \
                 signature",
            ),
        ],
        errors: &[
            AwaitingSecret,
            Halted,
            OperatorNotRegistered,
            TaskNotFound,
            PolicyNotDeployedOnChain,
            PolicyNotYetCommitted,
            PolicyDataUnresolvable,
            IncompatibleRulesVersion,
            SecretsUnreadable,
            NotAdmittedYet,
            Equivocation,
            Abstained,
            InvalidOutputs,
            QuorumNotReached,
            RoundNotOpen,
        ],
        serve: serve!(
            |app, query: prepare::PrepareQuery| task::fetch_policy_data(&app, query).await
        ),
    },
    Method {
        name: "newt_evaluateAndSign",
        summary: "Evaluates a task of the chain, alone or over what operators have prepared, and signs the outcome, once.",
        access: Access::Write,
        owner: Owner::No,
        params: &[
            CHAIN,
            required("task_id", Hash, "the task"),
            SIGNATURE,
            optional("round", Integer, "the round of outputs; 0"),
            list(
                "outputs",
                OperatorOutputs,
                "answers of newt_fetchPolicyData of a quorum, in any order; without it the components run here",
            ),
        ],
        result: &[
            ("task_id", Hash, "the task"),
            ("attestation", Bytes, "ABI encoding"),
            ("digest", Hash, "EIP-712 digest"),
            ("signature", Bytes, "EIP-2537 form"),
            ("bls_public_key", Bytes, "EIP-2537 form"),
            ("operator_set_id", Integer, "the set it counts in"),
            (
                "round",
                Integer,
                "the round of the outputs it stands on, or null",
            ),
            ("result", Json, "the entrypoint's value"),
            ("result_json", Text, "the exact bytes that were hashed"),
            ("error", Text, "the final error that was signed, or null"),
            (
                "outliers",
                List,
                "outputs that were left out: policy_data_instance_id, bls_key_hash, reason, field",
            ),
            ("evaluation_us", Integer, "microseconds inside the enclave"),
        ],
        errors: &[
            AwaitingSecret,
            Halted,
            TaskNotFound,
            PolicyNotDeployedOnChain,
            PolicyNotYetCommitted,
            PolicyDataUnresolvable,
            IncompatibleRulesVersion,
            SecretsUnreadable,
            NotAdmittedYet,
            Equivocation,
            Abstained,
            InvalidOutputs,
            QuorumNotReached,
            NoConsensus,
        ],
        serve: serve!(
            |app, query: super::EvaluateQuery| task::evaluate_and_sign(&app, query).await
        ),
    },
    Method {
        name: "newt_getEvaluationRecord",
        summary: "Everything that an attestation of this enclave follows from, while it can be challenged.",
        access: Access::Read,
        owner: Owner::No,
        params: &[CHAIN, required("task_id", Hash, "the task")],
        result: &[
            ("task_id", Hash, "the task"),
            ("record", Object, "docs/protocol.md, section 13"),
        ],
        errors: &[AwaitingSecret, Halted, NotFound],
        serve: serve!(|app, query: judge::RecordQuery| judge::record(&app, query).await),
    },
    Method {
        name: "newt_getResultOutcome",
        summary: "Does again what somebody signed, and signs whether it is right, as a result verifier on chain takes it.",
        access: Access::Read,
        owner: Owner::No,
        params: &[
            CHAIN,
            required(
                "verifier",
                Address,
                "the result verifier in whose domain the outcome is signed",
            ),
            optional(
                "attestation",
                Bytes,
                "ABI encoding of a PolicyAttestation; this or commit",
            ),
            optional(
                "record",
                Object,
                "its signer's record; this enclave's own record of the task",
            ),
            optional("commit", Bytes, "ABI encoding of a StateCommit"),
        ],
        result: &[
            ("subject", Integer, "1 evaluation, 2 state commit"),
            ("inputs_hash", Hash, "what the result follows from"),
            ("result_hash", Hash, "what was signed"),
            ("correct", Bool, "whether it is what follows"),
            ("rules_version", Integer, "the rules"),
            ("digest", Hash, "EIP-712 digest of the ResultOutcome"),
            ("signature", Bytes, "EIP-2537 form"),
            ("bls_public_key", Bytes, "EIP-2537 form"),
        ],
        errors: &[
            AwaitingSecret,
            Halted,
            TaskNotFound,
            PolicyNotDeployedOnChain,
            PolicyNotYetCommitted,
            PolicyDataUnresolvable,
            IncompatibleRulesVersion,
            SecretsUnreadable,
            NotAdmittedYet,
            NotFound,
            Equivocation,
            Abstained,
            RecordMismatch,
            Undecidable,
        ],
        serve: serve!(|app, query: judge::OutcomeQuery| judge::outcome(&app, query).await),
    },
];
