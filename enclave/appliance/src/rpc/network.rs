//! Methods between enclaves of several operators (design 4.8): votes that anybody may pull.

use std::sync::Arc;

use alloy_sol_types::SolValue;
use newton_api::RpcError;
use newton_peers::DeltaRow;
use newton_state::{EntryState, StateError};
use newton_types::{self as types, B256, QueueKey, abi, rpc::ErrorName::*};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    blocking,
    describe::{Kind::*, optional, required},
    engine,
    methods::{Access, CHAIN, Method, Owner, Serve, serve},
    reads::state,
    running,
};
use crate::{
    admission::{self, Candidate},
    appliance::Appliance,
};

const VOTE_RESULT: &[super::describe::Field] = &[
    ("digest", Hash, "EIP-712 digest"),
    ("signature", Bytes, "EIP-2537 form"),
    ("bls_public_key", Bytes, "EIP-2537 form"),
];

/// A queue entry's place.
const ENTRY: &[super::describe::Param] = &[
    CHAIN,
    required("block_number", Integer, "the entry's block"),
    required("tx_index", Integer, "its transaction"),
    required("log_index", Integer, "its log in the block"),
    required("item", Integer, "its artifact in the event"),
];

/// The methods, described as those of `methods`.
pub(super) static METHODS: &[Method] = &[
    Method {
        name: "newt_getAdmissionVote",
        summary: "This enclave's signature over the admission of another boot whose evidence it has verified.",
        access: Access::Open,
        owner: Owner::No,
        params: &[
            required(
                "admission",
                Bytes,
                "ABI encoding, as newt_getAdmissionRequest gave it",
            ),
            required("document", Bytes, "NSM document of stage 2"),
            required("bls_public_key", Bytes, "EIP-2537 form"),
            required("proof_of_possession", Bytes, "EIP-2537 form"),
        ],
        result: VOTE_RESULT,
        errors: &[
            AwaitingSecret,
            Halted,
            NotAdmittedYet,
            OperatorNotRegistered,
        ],
        serve: serve!(|app, query: AdmissionVote| admission_vote(&app, query).await),
    },
    Method {
        name: "newt_getSkipVote",
        summary: "This enclave's signature for dropping a queue entry whose bytes it cannot get.",
        access: Access::Open,
        owner: Owner::No,
        params: ENTRY,
        result: VOTE_RESULT,
        errors: &[AwaitingSecret, Halted, NotAdmittedYet, NotFound, Abstained],
        serve: serve!(|app, query: EntryQuery| skip_vote(&app, query).await),
    },
    Method {
        name: "newt_getEntryBytes",
        summary: "The bytes of a queue entry that this enclave has accepted and no commit has drained yet.",
        access: Access::Open,
        owner: Owner::No,
        params: ENTRY,
        result: &[("bytes", Bytes, "what the entry's hash is of")],
        errors: &[AwaitingSecret, Halted, NotFound],
        serve: serve!(|app, query: EntryQuery| entry_bytes(&app, query).await),
    },
    Method {
        name: "newt_getSnapshot",
        summary: "A page of a commit's leaves, which an enclave that is behind checks against the root on chain.",
        access: Access::Open,
        owner: Owner::No,
        params: &[
            CHAIN,
            optional(
                "sequence_no",
                Integer,
                "a commit whose version is kept; the newest",
            ),
            optional("after", Hash, "the last leaf of the page before"),
        ],
        result: &[
            ("sequence_no", Integer, "the commit"),
            (
                "leaves",
                List,
                "pairs of leaf key and value hash, by rising key; empty at the end",
            ),
        ],
        errors: &[AwaitingSecret, Halted, NotFound],
        serve: serve!(|app, query: SnapshotQuery| snapshot(&app, query).await),
    },
    Method {
        name: "newt_getDelta",
        summary: "A page of what a commit wrote, which an enclave that is behind checks against the hash on chain.",
        access: Access::Open,
        owner: Owner::No,
        params: &[
            CHAIN,
            required("sequence_no", Integer, "a commit whose version is kept"),
            optional("page", Integer, "number of the page; 0"),
        ],
        result: &[
            ("sequence_no", Integer, "the commit"),
            (
                "entries",
                List,
                "leaf key, value hash, length in bytes, and block, transaction, log and item of each, in the queue's order; \
                 empty at the end",
            ),
        ],
        errors: &[AwaitingSecret, Halted, NotFound],
        serve: serve!(|app, query: DeltaQuery| delta(&app, query).await),
    },
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdmissionVote {
    admission: types::Bytes,
    document: types::Bytes,
    bls_public_key: types::Bytes,
    proof_of_possession: types::Bytes,
}

async fn admission_vote(app: &Arc<Appliance>, query: AdmissionVote) -> Result<Value, RpcError> {
    let running = running(app)?;
    let engine = engine(&running, Some(app.authority().chain_id))?;
    let admission = abi::EnclaveAdmission::abi_decode(&query.admission)
        .map_err(|e| RpcError::invalid_param("admission", e))?;
    let candidate = Candidate {
        admission,
        document: query.document,
        bls_public_key: query.bls_public_key,
        possession: query.proof_of_possession,
    };
    let app = app.clone();
    blocking(move || {
        let (digest, signature) = admission::vouch(&app, &running, &engine, &candidate)
            .map_err(|e| RpcError::new(e.name(), e.to_string()))?;
        tracing::info!(
            operator = %candidate.admission.operator,
            boot_id = %candidate.admission.bootId,
            "vouched for an admission"
        );
        Ok(vote(&app, digest, signature.to_eip2537().to_vec()))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryQuery {
    chain_id: Option<u64>,
    block_number: u64,
    tx_index: u32,
    log_index: u32,
    item: u32,
}

impl EntryQuery {
    const fn key(&self) -> QueueKey {
        QueueKey {
            block: self.block_number,
            tx: self.tx_index,
            log: self.log_index,
            item: self.item,
        }
    }
}

async fn skip_vote(app: &Arc<Appliance>, query: EntryQuery) -> Result<Value, RpcError> {
    let engine = engine(&*running(app)?, query.chain_id)?;
    let entry = query.key();
    let app = app.clone();
    blocking(move || {
        let signed = engine
            .skip_vote(entry)
            .map_err(|e| RpcError::new(e.name(), e.to_string()))?;
        Ok(vote(&app, signed.digest, signed.signature.to_vec()))
    })
    .await
}

/// Before a commit has written them, `newt_getArtifact` has nothing to prove them in. By then a peer that could not get them must have them
/// from somewhere: see `skip`.
async fn entry_bytes(app: &Arc<Appliance>, query: EntryQuery) -> Result<Value, RpcError> {
    let engine = engine(&*running(app)?, query.chain_id)?;
    let key = query.key();
    blocking(move || {
        let entry = engine.state.entry(key).map_err(|e| state(&e))?;
        let entry = entry
            .filter(|entry| entry.namespace().is_public() && entry.state == EntryState::Accepted);
        let bytes = match entry {
            Some(entry) => engine.state.content(entry.hash).map_err(|e| state(&e))?,
            None => None,
        };
        let bytes = bytes.ok_or_else(|| {
            let what = format!("no public entry {key} waits here with its bytes");
            RpcError::new(NotFound, what)
        })?;
        Ok(json!({ "bytes": types::Bytes::from(bytes) }))
    })
    .await
}

/// Leaves of one page.
const PAGE: usize = 4_096;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotQuery {
    chain_id: Option<u64>,
    sequence_no: Option<u64>,
    after: Option<B256>,
}

async fn snapshot(app: &Arc<Appliance>, query: SnapshotQuery) -> Result<Value, RpcError> {
    let engine = engine(&*running(app)?, query.chain_id)?;
    blocking(move || {
        let sequence = match query.sequence_no {
            Some(sequence) => sequence,
            None => engine.state.tip().map_err(|e| state(&e))?.sequence,
        };
        let leaves = engine
            .state
            .leaves(sequence, query.after.map(types::LeafKey), PAGE)
            .map_err(|e| match e {
                StateError::NoSnapshot { .. } => RpcError::new(NotFound, e.to_string()),
                other => state(&other),
            })?;
        let leaves: Vec<(B256, B256)> = leaves
            .iter()
            .map(|leaf| (leaf.key.0, leaf.value_hash))
            .collect();
        Ok(json!({ "sequence_no": sequence, "leaves": leaves }))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeltaQuery {
    chain_id: Option<u64>,
    sequence_no: u64,
    page: Option<u32>,
}

async fn delta(app: &Arc<Appliance>, query: DeltaQuery) -> Result<Value, RpcError> {
    let engine = engine(&*running(app)?, query.chain_id)?;
    blocking(move || {
        let entries = engine
            .state
            .delta(query.sequence_no, query.page.unwrap_or_default())
            .map_err(|e| match e {
                StateError::NoDelta { .. } => RpcError::new(NotFound, e.to_string()),
                other => state(&other),
            })?;
        let entries: Vec<DeltaRow> = entries.into_iter().map(DeltaRow::from).collect();
        Ok(json!({ "sequence_no": query.sequence_no, "entries": entries }))
    })
    .await
}

fn vote(app: &Appliance, digest: B256, signature: Vec<u8>) -> Value {
    json!({
        "digest": digest,
        "signature": types::Bytes::from(signature),
        "bls_public_key": types::Bytes::from(app.identity.bls_public().to_eip2537().to_vec()),
    })
}
