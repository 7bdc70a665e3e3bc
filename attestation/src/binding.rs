//! What the enclave's documents commit to in `user_data` (docs/protocol.md section 8).

use sha2::{Digest as _, Sha384};

/// Bytes of `user_data`: a SHA-384.
pub const BINDING_BYTES: usize = 48;

const DOMAIN_STAGE_1: &[u8] = b"newton-attest-stage-1-v1";
const DOMAIN_STAGE_2: &[u8] = b"newton-attest-stage-2-v1";

/// Keys of an enclave that has no master secret yet and asks for it (design 5.2, stage one).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage1 {
    /// SHA-256 of the TLS key's SubjectPublicKeyInfo.
    pub tls_spki_hash: [u8; 32],
    /// X25519 key of this boot, to which the secret is sealed.
    pub ephemeral_hpke_public_key: [u8; 32],
    /// 32 random bytes of this boot.
    pub boot_id: [u8; 32],
    /// The operator's address.
    pub operator: [u8; 20],
}

impl Stage1 {
    /// `user_data` of the document.
    #[must_use]
    pub fn user_data(&self) -> [u8; BINDING_BYTES] {
        Sha384::new()
            .chain_update(DOMAIN_STAGE_1)
            .chain_update(self.tls_spki_hash)
            .chain_update(self.ephemeral_hpke_public_key)
            .chain_update(self.boot_id)
            .chain_update(self.operator)
            .finalize()
            .into()
    }
}

/// Keys of an enclave that has the master secret and asks for admission (design 5.2, stage two).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage2 {
    /// SHA-256 of the TLS key's SubjectPublicKeyInfo.
    pub tls_spki_hash: [u8; 32],
    /// BLS public key of this boot, compressed.
    pub bls_public_key: [u8; 96],
    /// Secrets key of the current key epoch.
    pub hpke_public_key: [u8; 32],
    /// 32 random bytes of this boot.
    pub boot_id: [u8; 32],
    /// The operator's address.
    pub operator: [u8; 20],
}

impl Stage2 {
    /// `user_data` of the document.
    #[must_use]
    pub fn user_data(&self) -> [u8; BINDING_BYTES] {
        Sha384::new()
            .chain_update(DOMAIN_STAGE_2)
            .chain_update(self.tls_spki_hash)
            .chain_update(self.bls_public_key)
            .chain_update(self.hpke_public_key)
            .chain_update(self.boot_id)
            .chain_update(self.operator)
            .finalize()
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage_2() -> Stage2 {
        Stage2 {
            tls_spki_hash: [1; 32],
            bls_public_key: [2; 96],
            hpke_public_key: [3; 32],
            boot_id: [4; 32],
            operator: [5; 20],
        }
    }

    #[test]
    fn golden_values() {
        // Made by: printf the domain and the fields, then sha384sum.
        let stage_1 = Stage1 {
            tls_spki_hash: [1; 32],
            ephemeral_hpke_public_key: [2; 32],
            boot_id: [3; 32],
            operator: [4; 20],
        };
        assert_eq!(
            hex::encode(stage_1.user_data()),
            include_str!("../tests/golden/stage_1.hex").trim()
        );
        assert_eq!(
            hex::encode(stage_2().user_data()),
            include_str!("../tests/golden/stage_2.hex").trim()
        );
    }

    #[test]
    fn every_field_counts() {
        let base = stage_2();
        let changed = [
            Stage2 {
                tls_spki_hash: [9; 32],
                ..base
            },
            Stage2 {
                bls_public_key: [9; 96],
                ..base
            },
            Stage2 {
                hpke_public_key: [9; 32],
                ..base
            },
            Stage2 {
                boot_id: [9; 32],
                ..base
            },
            Stage2 {
                operator: [9; 20],
                ..base
            },
        ];
        for other in changed {
            assert_ne!(other.user_data(), base.user_data());
        }
    }
}
