//! What is new at every boot: boot id, TLS key, BLS key, ephemeral HPKE key (design 5.1, 5.4).

use anyhow::{Context, Result};
use newton_attestation::{
    binding::{Stage1, Stage2},
    nsm::{AttestationRequest, Nsm},
};
use newton_keys::{
    SigningRecord, Slot, TlsIdentity,
    bls::{BlsKey, Possession, PublicKey, Signature},
};
use newton_types::{Address, B256, signing::Scope};
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroizing;

/// The boot's keys. None of them outlives it.
pub struct Identity {
    /// 32 bytes of the security module's randomness.
    pub boot_id: B256,
    /// Whose enclave this is.
    pub operator: Address,
    /// TLS key and certificate.
    pub tls: TlsIdentity,
    signer: Mutex<Signer>,
    bls_public: PublicKey,
}

struct Signer {
    key: BlsKey,
    record: SigningRecord,
}

impl Identity {
    /// Makes the boot's keys. The kernel's random source was seeded from the security module by init before this runs.
    pub fn new(nsm: &dyn Nsm, operator: Address) -> Result<Self> {
        let mut boot_id = B256::ZERO;
        nsm.random(boot_id.as_mut_slice()).context("boot id")?;
        let mut ikm = Zeroizing::new([0; 32]);
        nsm.random(ikm.as_mut_slice()).context("BLS key")?;
        let key = BlsKey::generate(ikm.as_slice()).context("BLS key")?;
        Ok(Self {
            boot_id,
            operator,
            tls: TlsIdentity::generate(&["enclave.newton"]).context("TLS key")?,
            bls_public: key.public_key(),
            signer: Mutex::new(Signer {
                key,
                record: SigningRecord::new(),
            }),
        })
    }

    /// The boot's BLS public key.
    pub fn bls_public(&self) -> &PublicKey {
        &self.bls_public
    }

    /// Signs a digest in its slot; another digest in the same slot is refused for the lifetime of this boot.
    pub fn sign(&self, slot: Slot, digest: B256) -> Result<Signature, newton_keys::Equivocation> {
        let mut signer = self.signer.lock().unwrap_or_else(PoisonError::into_inner);
        signer.record.authorize(slot, digest.0)?;
        Ok(signer.key.sign(&digest.0))
    }

    /// Signs what has no slot: a statement that cannot contradict another one. A key epoch's public face, an admission whose
    /// evidence was verified, an entry that this boot never writes.
    pub fn sign_statement(&self, digest: B256) -> Signature {
        let signer = self.signer.lock().unwrap_or_else(PoisonError::into_inner);
        signer.key.sign(&digest.0)
    }

    /// Proof of possession of the BLS key for this operator in this registry.
    pub fn prove_possession(&self, registry: Scope) -> Signature {
        let statement = Possession {
            owner: self.operator.into(),
            chain_id: registry.chain_id,
            registry: registry.contract.into(),
        };
        let signer = self.signer.lock().unwrap_or_else(PoisonError::into_inner);
        signer.key.prove_possession(&statement)
    }

    /// A document of an enclave without the master secret: binds TLS key and ephemeral HPKE key.
    pub fn stage_1(
        &self,
        nsm: &dyn Nsm,
        ephemeral: [u8; 32],
        nonce: Option<&[u8]>,
    ) -> Result<Vec<u8>> {
        let user_data = Stage1 {
            tls_spki_hash: self.tls.spki_hash(),
            ephemeral_hpke_public_key: ephemeral,
            boot_id: self.boot_id.0,
            operator: self.operator.into(),
        }
        .user_data();
        document(nsm, &user_data, nonce)
    }

    /// A document of an enclave that serves: binds TLS, BLS and the secrets key.
    pub fn stage_2(
        &self,
        nsm: &dyn Nsm,
        secrets_key: [u8; 32],
        nonce: Option<&[u8]>,
    ) -> Result<Vec<u8>> {
        let user_data = Stage2 {
            tls_spki_hash: self.tls.spki_hash(),
            bls_public_key: self.bls_public.to_compressed(),
            hpke_public_key: secrets_key,
            boot_id: self.boot_id.0,
            operator: self.operator.into(),
        }
        .user_data();
        document(nsm, &user_data, nonce)
    }
}

fn document(nsm: &dyn Nsm, user_data: &[u8], nonce: Option<&[u8]>) -> Result<Vec<u8>> {
    let request = AttestationRequest {
        user_data: Some(user_data),
        nonce,
        public_key: None,
    };
    nsm.attestation(&request).context("attestation document")
}
