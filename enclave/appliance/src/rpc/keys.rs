//! Methods about the enclave's own keys and secrets.

use alloy_sol_types::SolValue;
use newton_api::RpcError;
use newton_keys::hpke::{SUITE, Sealed};
use newton_types::{
    B256, Bytes,
    rpc::ErrorName,
    signing::{self, Scope},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{internal, running};
use crate::{
    appliance::{AddShareError, Appliance},
    readmit,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AttestationQuery {
    nonce: Bytes,
}

/// A document over the caller's nonce, and the keys that it binds.
pub(super) fn attestation(app: &Appliance, query: &AttestationQuery) -> Result<Value, RpcError> {
    if query.nonce.is_empty() || query.nonce.len() > 64 {
        return Err(RpcError::invalid_param("nonce", "1 to 64 bytes"));
    }
    let (stage, hpke, document) = document(app, Some(&query.nonce))?;
    Ok(json!({
        "document": Bytes::from(document),
        "stage": stage,
        "boot_id": app.identity.boot_id,
        "operator": app.operator(),
        "tls_spki_hash": B256::from(app.identity.tls.spki_hash()),
        "hpke_public_key": B256::from(hpke),
        "bls_public_key": Bytes::from(app.identity.bls_public().to_compressed().to_vec()),
        "config_hash": app.config_hash,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdmissionQuery {
    valid_until: u64,
}

/// Everything the operator registry wants to see of this boot: keys, proof of possession, document.
pub(super) fn admission_request(
    app: &Appliance,
    query: &AdmissionQuery,
) -> Result<Value, RpcError> {
    let running = running(app)?;
    let (candidate, digest) = readmit::candidate(app, &running, query.valid_until)
        .map_err(|e| internal(&format!("{e:#}")))?;
    Ok(json!({
        "admission": Bytes::from(candidate.admission.abi_encode()),
        "digest": digest,
        "document": candidate.document,
        "bls_public_key": candidate.bls_public_key,
        "proof_of_possession": candidate.possession,
    }))
}

/// The shares of a secret that was made in this boot, each sealed to its holder: public, but of use to holders only.
pub(super) fn shares(app: &Appliance) -> Result<Value, RpcError> {
    let running = running(app)?;
    let Some(sealed) = &running.shares else {
        return Err(RpcError::new(
            ErrorName::NotFound,
            "the master secret was not made in this boot; its holders have had their shares",
        ));
    };
    let shares: Vec<Value> = sealed
        .shares
        .iter()
        .enumerate()
        .map(|(i, share)| {
            json!({
                "index": i + 1,
                "enc": Bytes::from(share.enc.to_vec()),
                "ciphertext": Bytes::from(share.ciphertext.clone()),
            })
        })
        .collect();
    Ok(json!({
        "commitment": B256::from(sealed.commitment),
        "threshold": sealed.threshold,
        "shares": shares,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShareSubmission {
    index: u8,
    enc: B256,
    ciphertext: Bytes,
}

/// Takes a share that its holder sealed to this boot's ephemeral key.
pub(super) fn submit_share(app: &Appliance, share: &ShareSubmission) -> Result<Value, RpcError> {
    if share.ciphertext.len() > 256 {
        return Err(RpcError::invalid_param(
            "ciphertext",
            "a sealed share is shorter",
        ));
    }
    let sealed = Sealed {
        enc: share.enc.0,
        ciphertext: share.ciphertext.to_vec(),
    };
    match app.add_share(share.index, &sealed) {
        Ok(missing) => Ok(json!({ "missing": missing })),
        Err(AddShareError::NotAwaited) => Err(RpcError::new(
            ErrorName::InvalidRequest,
            "this boot does not wait for shares",
        )),
        Err(AddShareError::Refused(e)) => {
            Err(RpcError::new(ErrorName::SecretMismatch, e.to_string()))
        }
    }
}

/// This enclave's signature over the public face of key epoch 1, for the key registry.
pub(super) fn epoch_vote(app: &Appliance) -> Result<Value, RpcError> {
    let running = running(app)?;
    let authority = app.authority();
    let epoch = running.epoch();
    let scope = Scope {
        chain_id: authority.chain_id,
        contract: authority.contracts.key_registry,
    };
    let digest = signing::key_epoch_digest(scope, &epoch);
    let signature = app.identity.sign_statement(digest);
    Ok(json!({
        "key_epoch": Bytes::from(epoch.abi_encode()),
        "digest": digest,
        "signature": Bytes::from(signature.to_eip2537().to_vec()),
    }))
}

#[derive(Clone, Copy)]
pub(super) enum Domain {
    Secrets,
    Privacy,
}

/// The shared key that clients seal to. They check it against the key registry before they do.
pub(super) fn public_key(app: &Appliance, domain: Domain) -> Result<Value, RpcError> {
    let running = running(app)?;
    let epoch = running.epoch();
    let key = match domain {
        Domain::Secrets => epoch.secretsPublicKey,
        Domain::Privacy => epoch.privacyPublicKey,
    };
    let (_, _, document) = document(app, None)?;
    Ok(json!({
        "public_key": key,
        "key_type": "x25519",
        "encryption_suite": SUITE,
        "epoch": epoch.keyEpoch,
        "attestation": Bytes::from(document),
    }))
}

/// The document of the stage this boot is in, with the HPKE key that it binds.
fn document(app: &Appliance, nonce: Option<&[u8]>) -> Result<(u8, [u8; 32], Vec<u8>), RpcError> {
    let nsm = app.nsm.as_ref();
    let made = match app.running() {
        Ok(running) => {
            let key = running.epoch().secretsPublicKey.0;
            (2, key, app.identity.stage_2(nsm, key, nonce))
        }
        Err(_) => (
            1,
            app.ephemeral,
            app.identity.stage_1(nsm, app.ephemeral, nonce),
        ),
    };
    let (stage, key, document) = made;
    document
        .map(|bytes| (stage, key, bytes))
        .map_err(|e| internal(&format!("{e:#}")))
}
