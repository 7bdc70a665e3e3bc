//! Signing commits: what this boot may sign, its votes, and the transaction for a quorum of them.

use alloy_primitives::Bytes;
use alloy_sol_types::SolCall;
use newton_keys::Slot;
use newton_relay::control::Transaction;
use newton_state::{Registry, StateError};
use newton_types::{
    B256,
    abi::{self, IStateCommitRegistry},
    signing::{self, Scope},
};

use crate::{engine::Engine, identity::Identity};

/// Gas for one commit; the goal is below 270,000 (design 3.7), and every member that did not sign costs about 10,000 more.
const COMMIT_GAS: u64 = 1_500_000;

/// This boot's signature over a commit.
#[derive(Clone)]
pub struct Vote {
    /// The commit.
    pub commit: abi::StateCommit,
    /// Its EIP-712 digest.
    pub digest: B256,
    /// Signature in EIP-2537 form.
    pub signature: Bytes,
}

/// Why this boot does not sign now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotSigning {
    /// No admission of this boot's keys in the finalized chain.
    #[error("this boot's keys are not admitted in the finalized chain")]
    NotAdmitted,
    /// Another boot of the operator took this one's place. A key is admitted once, so this boot never signs again.
    #[error(
        "boot {boot_id} of this operator was admitted after this one, whose keys never count again: boot anew"
    )]
    Superseded {
        /// The boot that is admitted now.
        boot_id: B256,
    },
    /// The admission ran out.
    #[error("the admission ended at {valid_until}, the finalized head is at {now}")]
    AdmissionExpired {
        /// End of the admission, seconds.
        valid_until: u64,
        /// Time of the finalized head, seconds.
        now: u64,
    },
    /// Governance took the image or its configuration off the list.
    #[error("image or configuration of this boot is not active")]
    NotWhitelisted,
    /// The operator asked to leave.
    #[error("the operator has asked to exit")]
    Exiting,
    /// The finalized head is too old.
    #[error("the finalized head is {lag} s old, at most {limit} s are allowed")]
    Stale {
        /// Age in seconds.
        lag: u64,
        /// Limit in seconds.
        limit: u64,
    },
    /// The database failed.
    #[error("state: {0}")]
    State(#[from] StateError),
}

/// The admission under which this boot signs.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Block of the admission.
    pub admitted_at: u64,
}

/// Whether this boot is admitted, by the rows of `registry` at `block` and `timestamp`.
pub fn standing(
    registry: &Registry<'_>,
    identity: &Identity,
    block: u64,
    timestamp: u64,
) -> Result<Standing, NotSigning> {
    let operator = registry
        .operator(identity.operator)?
        .ok_or(NotSigning::NotAdmitted)?;
    if operator.exited || operator.exit_requested_at.is_some() {
        return Err(NotSigning::Exiting);
    }
    let admission = operator.latest_admission.ok_or(NotSigning::NotAdmitted)?;
    let key = B256::from(identity.bls_public().hash());
    let ours = admission.boot_id == identity.boot_id && admission.bls_key_hash == key;
    if !ours && was_member_before(registry, admission.set_id, key)? {
        return Err(NotSigning::Superseded {
            boot_id: admission.boot_id,
        });
    }
    // Admitted in a block counts from the next one on.
    if !ours || admission.admitted_at >= block {
        return Err(NotSigning::NotAdmitted);
    }
    if timestamp > admission.valid_until {
        return Err(NotSigning::AdmissionExpired {
            valid_until: admission.valid_until,
            now: timestamp,
        });
    }
    if !registry.version_active_at(admission.pcr0_hash, block)?
        || !registry.config_approved_at(admission.config_hash, block)?
    {
        return Err(NotSigning::NotWhitelisted);
    }
    Ok(Standing {
        admitted_at: admission.admitted_at,
    })
}

/// Whether a key was in the set that the admission which made `set_id` changed.
fn was_member_before(registry: &Registry<'_>, set_id: u64, key: B256) -> Result<bool, StateError> {
    let Some(before) = set_id.checked_sub(1) else {
        return Ok(false);
    };
    Ok(registry
        .operator_set(before)?
        .is_some_and(|set| set.members.iter().any(|m| m.bls_key_hash == key)))
}

/// Signs a commit once; the same commit again gives the same vote.
pub fn sign(
    engine: &Engine,
    identity: &Identity,
    commit: abi::StateCommit,
) -> Result<Vote, newton_keys::Equivocation> {
    let scope = Scope {
        chain_id: engine.chain.chain_id,
        contract: engine.chain.contracts.state_commit_registry,
    };
    let digest = signing::state_commit_digest(scope, &commit);
    let slot = Slot::Commit {
        chain_id: scope.chain_id,
        sequence: commit.sequenceNo,
    };
    let signature = identity.sign(slot, digest)?;
    Ok(Vote {
        commit,
        digest,
        signature: Bytes::from(signature.to_eip2537().to_vec()),
    })
}

/// The transaction that commits with a quorum's certificate.
pub fn submission(engine: &Engine, vote: &Vote, certificate: abi::Certificate) -> Transaction {
    let call = IStateCommitRegistry::commitStateRootCall {
        commit: vote.commit.clone(),
        certificate,
        deltaDaRefs: Vec::new(),
    };
    Transaction {
        chain_id: engine.chain.chain_id,
        to: engine.chain.contracts.state_commit_registry.into(),
        calldata: call.abi_encode(),
        gas_limit: COMMIT_GAS,
    }
}
