//! A new boot of a registered operator asks the admitted enclaves for its admission, and submits it (design 5.4).
//!
//! Keys are new at every boot, so this follows every restart. It needs nobody: anyone may send `readmit`, the certificate
//! decides. The first admission of an operator is its owner's transaction.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use alloy_sol_types::{SolCall, SolValue};
use anyhow::{Context, Result};
use newton_keys::bls::PublicKey;
use newton_peers::Ballot;
use newton_relay::control::Transaction;
use newton_state::registry::OperatorSetRow;
use newton_types::{
    B256, Bytes, abi, abi::IOperatorRegistry, events::ConsensusParameters, keccak256, signing,
};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    admission::Candidate,
    appliance::Appliance,
    engine::{Engine, latest_set},
    peers::Peer,
    running::Running,
    vote::NotSigning,
};

/// How long an admission is asked for, seconds; the registry may allow less and says so.
const VALID_SECONDS: u64 = 7 * 24 * 3600;
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(3);
/// Until a submitted admission must be final, before another attempt.
const LANDING: Duration = Duration::from_secs(30);
/// Gas of a readmission; the goal is below 330,000 (design 3.7) without absent members.
const READMIT_GAS: u64 = 2_000_000;

#[derive(Deserialize)]
struct Vote {
    digest: B256,
    signature: Bytes,
    bls_public_key: Bytes,
}

/// Gets this boot admitted whenever it is not, until the appliance ends.
pub async fn readmit(
    app: Arc<Appliance>,
    running: Arc<Running>,
    engine: Arc<Engine>,
    peers: Vec<Peer>,
) {
    if peers.is_empty() {
        return;
    }
    loop {
        tokio::time::sleep(PAUSE).await;
        match attempt(&app, &running, &engine, &peers).await {
            Ok(true) => tokio::time::sleep(LANDING).await,
            Ok(false) => {}
            Err(e) => {
                let reason = format!("{e:#}");
                tracing::warn!(reason, "not admitted yet");
                engine
                    .peers
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .note("admission", reason);
            }
        }
    }
}

/// One round; true if a transaction went out.
async fn attempt(
    app: &Arc<Appliance>,
    running: &Arc<Running>,
    engine: &Arc<Engine>,
    peers: &[Peer],
) -> Result<bool> {
    let (a, r, e) = (app.clone(), running.clone(), engine.clone());
    let Some(asked) = tokio::task::spawn_blocking(move || ask(&a, &r, &e)).await?? else {
        return Ok(false);
    };
    let candidate = &asked.candidate;
    let params = json!({
        "admission": Bytes::from(candidate.admission.abi_encode()),
        "document": candidate.document,
        "bls_public_key": candidate.bls_public_key,
        "proof_of_possession": candidate.possession,
    });
    // All at once: one that is silent costs the others nothing.
    let mut asking = JoinSet::new();
    for peer in peers.iter().cloned() {
        let params = params.clone();
        asking.spawn(async move {
            let answer: Result<Vote> = peer.ask("newt_getAdmissionVote", params).await;
            (peer, answer)
        });
    }
    let mut ballot = Ballot::new(asked.digest);
    let mut last = None;
    while let Some(answered) = asking.join_next().await {
        let (peer, answer) = answered.context("asking a peer")?;
        let counted = answer.and_then(|vote| {
            anyhow::ensure!(vote.digest == asked.digest, "a vote on another digest");
            let key = keccak256(&vote.bls_public_key);
            ballot
                .add(&asked.set, key, &vote.signature)
                .map(drop)
                .with_context(|| peer.address.clone())
        });
        if let Err(e) = counted {
            last = Some(e);
        }
        if let Some(certificate) = ballot.certificate(&asked.set, &asked.rules) {
            return submit(app, engine, asked, certificate).await;
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("the peers are no quorum")))
}

struct Asked {
    candidate: Candidate,
    digest: B256,
    set: OperatorSetRow,
    rules: ConsensusParameters,
}

/// What to ask for, if this operator is registered and this boot is not admitted.
fn ask(app: &Appliance, running: &Running, engine: &Engine) -> Result<Option<Asked>> {
    let snapshot = engine.snapshot()?;
    if !matches!(engine.standing(&snapshot), Err(NotSigning::NotAdmitted)) {
        return Ok(None);
    }
    let registry = snapshot.registry();
    let known = registry.operator(app.operator())?;
    let Some(former) = known.and_then(|row| row.latest_admission) else {
        return Ok(None);
    };
    // Admitted at the head already, not yet in the finalized chain.
    if former.boot_id == app.identity.boot_id {
        return Ok(None);
    }
    let Some(set) = latest_set(&snapshot)? else {
        return Ok(None);
    };
    let now = engine.fresh(&snapshot)?.timestamp;
    let rules = registry.parameters_at(now)?.context("no parameters")?;
    let (candidate, digest) = candidate(app, running, now + VALID_SECONDS)?;
    Ok(Some(Asked {
        candidate,
        digest,
        set,
        rules,
    }))
}

/// What this boot shows, with the digest to be signed.
pub fn candidate(
    app: &Appliance,
    running: &Running,
    valid_until: u64,
) -> Result<(Candidate, B256)> {
    let scope = signing::Scope {
        chain_id: app.authority().chain_id,
        contract: app.authority().contracts.operator_registry,
    };
    let secrets_key = running.epoch().secretsPublicKey.0;
    let document = app.identity.stage_2(app.nsm.as_ref(), secrets_key, None)?;
    let pcr0 = app.nsm.describe_pcr(0).context("PCR0")?.value.0;
    let admission = abi::EnclaveAdmission {
        operator: app.operator(),
        blsKeyHash: B256::from(app.identity.bls_public().hash()),
        tlsKeyHash: B256::from(app.identity.tls.spki_hash()),
        bootId: app.identity.boot_id,
        pcr0Hash: keccak256(pcr0),
        configHash: app.config_hash,
        docHash: keccak256(&document),
        validUntil: valid_until,
    };
    let digest = signing::enclave_admission_digest(scope, &admission);
    let possession = app.identity.prove_possession(scope).to_eip2537().to_vec();
    let candidate = Candidate {
        admission,
        document: document.into(),
        bls_public_key: app.identity.bls_public().to_eip2537().to_vec().into(),
        possession: possession.into(),
    };
    Ok((candidate, digest))
}

async fn submit(
    app: &Arc<Appliance>,
    engine: &Arc<Engine>,
    asked: Asked,
    certificate: abi::Certificate,
) -> Result<bool> {
    let former = asked
        .set
        .members
        .iter()
        .find(|m| m.operator == app.operator());
    let aggregate = if asked.set.members.is_empty() {
        vec![0; newton_keys::bls::PUBLIC_KEY_EIP2537].into()
    } else {
        // Parsed, so that a row of another form is named here and not by a revert.
        PublicKey::from_eip2537(&asked.set.aggregate_key).context("the set's aggregate key")?;
        asked.set.aggregate_key.clone()
    };
    let call = IOperatorRegistry::readmitCall {
        blsPublicKey: asked.candidate.bls_public_key,
        proofOfPossession: asked.candidate.possession,
        admission: asked.candidate.admission,
        document: asked.candidate.document,
        currentAggregateKey: aggregate,
        formerKey: former.map_or_else(Bytes::new, |m| m.bls_public_key.clone()),
        certificate,
    };
    let transaction = Transaction {
        chain_id: engine.chain.chain_id,
        to: engine.chain.contracts.operator_registry.into(),
        calldata: call.abi_encode(),
        gas_limit: READMIT_GAS,
    };
    let (engine, digest) = (engine.clone(), asked.digest);
    tokio::task::spawn_blocking(move || engine.submit(digest, "readmission", transaction)).await?;
    Ok(true)
}
