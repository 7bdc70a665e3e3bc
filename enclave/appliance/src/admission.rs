//! Admission by quorum (design 3.1): what an admitted enclave checks before it vouches for another boot, and how a new boot of
//! a registered operator asks for it.

use alloy_primitives::{Bytes, keccak256};
use newton_attestation::{
    PcrValue,
    binding::Stage2,
    verify::{Expect, PcrPolicy, Unsigned, Verifier, VerifyError},
};
use newton_keys::bls::{BlsError, Possession, PublicKey, Signature};
use newton_state::{Registry, StateError, registry::VersionRow};
use newton_types::{
    Address, B256, abi,
    rpc::ErrorName,
    signing::{self, Scope},
};

use crate::{appliance::Appliance, engine::Engine, running::Running, vote::NotSigning};

/// Greatest age of a candidate's document, milliseconds: it may have been shown to others first.
const MAX_DOCUMENT_AGE_MS: u64 = 300_000;

/// What a boot shows to be admitted.
#[derive(Clone)]
pub struct Candidate {
    /// What is signed.
    pub admission: abi::EnclaveAdmission,
    /// NSM document of stage two.
    pub document: Bytes,
    /// BLS key, EIP-2537 form.
    pub bls_public_key: Bytes,
    /// Proof of possession, EIP-2537 form.
    pub possession: Bytes,
}

/// Why this enclave does not vouch for a candidate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// This enclave may not sign anything itself.
    #[error("this enclave does not sign: {0}")]
    NotSigning(#[from] NotSigning),
    /// Not on the allow-list, or leaving.
    #[error("operator {0} is not allowed in the finalized chain, or is leaving")]
    Operator(Address),
    /// The document does not hold.
    #[error("document: {0}")]
    Document(#[from] VerifyError),
    /// The document is of another image than the admission says, or the registry has other measurements for it.
    #[error("PCR{index} of the document hashes to {got}, expected {expected}")]
    Pcr {
        /// The register.
        index: u8,
        /// Hash that the admission or the registry names.
        expected: B256,
        /// Hash of what the document says.
        got: B256,
    },
    /// Image or configuration is not active in the finalized chain.
    #[error("image {pcr0_hash} or configuration {config_hash} is not active in block {block}")]
    NotWhitelisted {
        /// Hash of PCR0.
        pcr0_hash: B256,
        /// Hash of the configuration.
        config_hash: B256,
        /// The finalized block.
        block: u64,
    },
    /// A field of the admission is not what the evidence gives.
    #[error("admission field {field}: {got}, the evidence gives {expected}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What the evidence gives.
        expected: B256,
        /// What the admission says.
        got: B256,
    },
    /// It would end before it begins.
    #[error("admission ends at {valid_until}, the finalized head is at {now}")]
    Expired {
        /// Its end, seconds.
        valid_until: u64,
        /// The finalized head's time.
        now: u64,
    },
    /// Key or proof of possession.
    #[error("BLS key: {0}")]
    Bls(#[from] BlsError),
    /// The database failed.
    #[error("state: {0}")]
    State(#[from] StateError),
}

impl Refused {
    /// Its name in the API.
    pub fn name(&self) -> ErrorName {
        match self {
            Self::NotSigning(_) => ErrorName::NotAdmittedYet,
            // Both may be on their way to finality.
            Self::Operator(_) | Self::NotWhitelisted { .. } => ErrorName::OperatorNotRegistered,
            Self::State(_) => ErrorName::InternalError,
            _ => ErrorName::InvalidParams,
        }
    }
}

/// Signs a candidate's admission after having verified all of it, by the finalized state of the authority chain.
///
/// That the document binds this enclave's own secrets key shows that the candidate has the same master secret.
pub fn vouch(
    app: &Appliance,
    running: &Running,
    engine: &Engine,
    candidate: &Candidate,
) -> Result<(B256, Signature), Refused> {
    let snapshot = engine.state.snapshot(None)?;
    engine.standing(&snapshot)?;
    let head = *engine.fresh(&snapshot)?;
    let admission = &candidate.admission;
    let scope = Scope {
        chain_id: engine.chain.chain_id,
        contract: engine.chain.contracts.operator_registry,
    };
    if admission.validUntil <= head.timestamp {
        return Err(Refused::Expired {
            valid_until: admission.validUntil,
            now: head.timestamp,
        });
    }
    let registry = snapshot.registry();
    allowed(&registry, admission.operator)?;

    let key = PublicKey::from_eip2537(&candidate.bls_public_key)?;
    equal("blsKeyHash", key.hash().into(), admission.blsKeyHash)?;
    equal("docHash", keccak256(&candidate.document), admission.docHash)?;
    let possession = Signature::from_eip2537(&candidate.possession)?;
    let statement = Possession {
        owner: admission.operator.into(),
        chain_id: scope.chain_id,
        registry: scope.contract.into(),
    };
    key.verify_possession(&statement, &possession)?;

    let binding = Stage2 {
        tls_spki_hash: admission.tlsKeyHash.0,
        bls_public_key: key.to_compressed(),
        hpke_public_key: running.epoch().secretsPublicKey.0,
        boot_id: admission.bootId.0,
        operator: admission.operator.into(),
    };
    let image = measured(
        app,
        engine,
        &candidate.document,
        Expect::Any,
        &binding.user_data(),
    )?;
    whitelisted(&registry, &image, head.number)?;
    equal("pcr0Hash", image.pcr0_hash(), admission.pcr0Hash)?;
    equal("configHash", image.config_hash(), admission.configHash)?;

    let digest = signing::enclave_admission_digest(scope, admission);
    Ok((digest, app.identity.sign_statement(digest)))
}

/// Measurements of a verified document.
pub struct Measured {
    pcrs: [PcrValue; 3],
    config: PcrValue,
}

impl Measured {
    /// `keccak256(PCR0)`.
    pub fn pcr0_hash(&self) -> B256 {
        keccak256(self.pcrs[0].0)
    }

    /// `keccak256(PCR16)`.
    pub fn config_hash(&self) -> B256 {
        keccak256(self.config.0)
    }
}

/// Verifies another enclave's document and gives back what it measured.
pub fn measured(
    app: &Appliance,
    engine: &Engine,
    document: &[u8],
    nonce: Expect<'_>,
    user_data: &[u8],
) -> Result<Measured, Refused> {
    let verifier = Verifier {
        root: app.root,
        // Which image is right is the registry's word, not ours.
        policy: PcrPolicy::none(),
        max_age_ms: Some(MAX_DOCUMENT_AGE_MS),
        unsigned: if app.consensus.development().accept_unsigned_documents {
            Unsigned::AcceptEmulated
        } else {
            Unsigned::Refuse
        },
    };
    let now = engine.time_seconds().saturating_mul(1000);
    let verified = verifier.verify(document, now, nonce, Expect::Exactly(user_data))?;
    let pcr = |index: u8| {
        verified
            .pcr(index)
            .ok_or(Refused::Document(VerifyError::PcrMissing { index }))
    };
    Ok(Measured {
        pcrs: [pcr(0)?, pcr(1)?, pcr(2)?],
        config: pcr(16)?,
    })
}

/// Whether an image and its configuration are active in `block`, with the measurements that the registry has of it.
pub fn whitelisted(registry: &Registry<'_>, image: &Measured, block: u64) -> Result<(), Refused> {
    let (pcr0_hash, config_hash) = (image.pcr0_hash(), image.config_hash());
    let missing = || Refused::NotWhitelisted {
        pcr0_hash,
        config_hash,
        block,
    };
    if !registry.version_active_at(pcr0_hash, block)?
        || !registry.config_approved_at(config_hash, block)?
    {
        return Err(missing());
    }
    let version: VersionRow = registry.version(pcr0_hash)?.ok_or_else(missing)?;
    for (index, expected) in [(1, &version.pcr1), (2, &version.pcr2)] {
        let got = image.pcrs[usize::from(index)].0;
        if got.as_slice() != expected.as_ref() {
            return Err(Refused::Pcr {
                index,
                expected: keccak256(expected),
                got: keccak256(got),
            });
        }
    }
    Ok(())
}

/// Whether an operator is on the allow-list and not leaving.
pub fn allowed(registry: &Registry<'_>, operator: Address) -> Result<(), Refused> {
    match registry.operator(operator)? {
        Some(row) if row.allowed_weight > 0 && row.exit_requested_at.is_none() => Ok(()),
        _ => Err(Refused::Operator(operator)),
    }
}

fn equal(field: &'static str, expected: B256, got: B256) -> Result<(), Refused> {
    if expected == got {
        return Ok(());
    }
    Err(Refused::Field {
        field,
        expected,
        got,
    })
}
