//! Calls that a client's owner vouches for by an EIP-712 signature (design 4.8, `docs/protocol.md` section 11).

use alloy_primitives::Address;
use newton_api::{Params, RpcError};
use newton_keys::ecdsa;
use newton_state::{Registry, Snapshot};
use newton_types::{
    B256, Bytes,
    rpc::ErrorName,
    signing::{self, OwnerCall, Scope},
};
use serde::{Deserialize, de::DeserializeOwned};

use super::reads::state;
use crate::engine::Engine;

/// The parameter that carries the signature. It is not part of what is signed.
pub(super) const PARAMETER: &str = "owner_signature";

/// Seconds that a deadline may lie ahead of the chain's time: what bounds the replay of a captured call.
const MAX_AHEAD: u64 = 600;

/// The wire form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OwnerSignature {
    deadline: u64,
    signature: Bytes,
}

/// A call's parameters, and what is signed of them if they carry a signature.
pub(super) struct Signed<T> {
    pub(super) query: T,
    claim: Option<Claim>,
}

struct Claim {
    params_hash: B256,
    given: OwnerSignature,
}

impl<T: DeserializeOwned> Signed<T> {
    /// Takes the signature off the parameters and reads the others.
    pub(super) fn parse(mut params: Params) -> Result<Self, RpcError> {
        let claim = match params.take(PARAMETER) {
            None => None,
            Some(given) => Some(Claim {
                params_hash: signing::params_hash(params.members()),
                given: serde_json::from_value(given).map_err(|e| bad(&e))?,
            }),
        };
        Ok(Self {
            query: params.parse()?,
            claim,
        })
    }
}

impl<T> Signed<T> {
    /// Whether there is a signature, right or wrong.
    pub(super) const fn is_signed(&self) -> bool {
        self.claim.is_some()
    }

    /// Whether the client's owner signed this call. An error if somebody else did, or nobody.
    pub(super) fn check(
        &self,
        engine: &Engine,
        snapshot: &Snapshot,
        method: &str,
        client: Address,
    ) -> Result<(), RpcError> {
        let claim = self.claim.as_ref().ok_or_else(|| {
            refuse(format!(
                "{method} needs {PARAMETER} of the owner of {client}"
            ))
        })?;
        engine
            .fresh(snapshot)
            .map_err(|e| RpcError::new(ErrorName::ChainViewStale, e.to_string()))?;
        claim.check_deadline(head_time(snapshot))?;
        let call = OwnerCall {
            client,
            method: method.to_owned(),
            paramsHash: claim.params_hash,
            deadline: claim.given.deadline,
        };
        let scope = Scope {
            chain_id: engine.chain.chain_id,
            contract: engine.chain.contracts.policy_client_registry,
        };
        let digest = signing::owner_call_digest(scope, &call);
        let signer = ecdsa::recover(&digest.0, &claim.given.signature).map_err(|e| bad(&e))?;
        // Ownership counts once it is final, and no longer than at the head.
        let finalized = engine.state.snapshot(None).map_err(|e| state(&e))?;
        for registry in [finalized.registry(), snapshot.registry()] {
            check_owner(&registry, client, signer.into())?;
        }
        Ok(())
    }
}

impl Claim {
    fn check_deadline(&self, now: u64) -> Result<(), RpcError> {
        let deadline = self.given.deadline;
        if deadline < now {
            return Err(refuse(format!(
                "the signature's deadline {deadline} has passed, the chain's time is {now}"
            )));
        }
        if deadline - now > MAX_AHEAD {
            return Err(bad(&format!(
                "deadline {deadline} is more than {MAX_AHEAD} seconds after the chain's time {now}"
            )));
        }
        Ok(())
    }
}

fn check_owner(registry: &Registry<'_>, client: Address, signer: Address) -> Result<(), RpcError> {
    match registry.client_owner(client).map_err(|e| state(&e))? {
        Some(owner) if owner == signer => Ok(()),
        Some(owner) => Err(refuse(format!(
            "signed by {signer}, the owner of {client} is {owner}"
        ))),
        None => Err(refuse(format!("client {client} is not registered"))),
    }
}

/// Timestamp of the newest block that rows are read from.
pub(super) fn head_time(snapshot: &Snapshot) -> u64 {
    let finalized = snapshot.finalized().map_or(0, |head| head.timestamp);
    snapshot
        .pending()
        .map_or(finalized, |pending| pending.head().timestamp)
}

/// Number of that block.
pub(super) fn head_block(snapshot: &Snapshot) -> u64 {
    let finalized = snapshot.finalized().map_or(0, |head| head.number);
    snapshot
        .pending()
        .map_or(finalized, |pending| pending.head().number)
}

fn refuse(why: String) -> RpcError {
    RpcError::new(ErrorName::Unauthorized, why).with("field", PARAMETER)
}

fn bad(why: &dyn std::fmt::Display) -> RpcError {
    RpcError::invalid_param(PARAMETER, why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn claim(deadline: u64) -> Claim {
        Claim {
            params_hash: B256::ZERO,
            given: OwnerSignature {
                deadline,
                signature: Bytes::new(),
            },
        }
    }

    #[test]
    fn a_deadline_is_ahead_and_not_far_ahead() {
        let now = 1_000;
        claim(now).check_deadline(now).unwrap();
        claim(now + MAX_AHEAD).check_deadline(now).unwrap();
        let past = claim(now - 1).check_deadline(now).unwrap_err();
        assert_eq!(past.name, ErrorName::Unauthorized);
        let far = claim(now + MAX_AHEAD + 1).check_deadline(now).unwrap_err();
        assert_eq!(far.name, ErrorName::InvalidParams);
        assert_eq!(far.data["field"], PARAMETER);
    }
}
