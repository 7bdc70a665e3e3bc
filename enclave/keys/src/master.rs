//! The master secret and what is derived from it (design 5.1).

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::HpkeKey;

/// Prefix of every HKDF salt; the rest is the label, so that no two purposes share a salt either.
const SALT_PREFIX: &[u8] = b"newton-msk-salt-v1:";

/// The 32-byte secret all operators of one authority chain share.
///
/// Made once from the security module's randomness, handed from enclave to enclave, never stored. Neither `Debug` nor
/// `Clone`, wiped on drop.
pub struct MasterSecret(Zeroizing<[u8; 32]>);

/// The input is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MasterSecretError {
    /// All bytes are the same: the randomness source did not run, or a placeholder was supplied.
    #[error("the master secret's 32 bytes are all {byte:#04x}: this is not randomness")]
    NotRandom {
        /// The repeated byte.
        byte: u8,
    },
    /// The secret does not reproduce the published commitment (design 5.1): a host tried to supply its own.
    #[error("the secret has commitment {}, expected {}", hex::encode(.got), hex::encode(.expected))]
    Commitment {
        /// Commitment in the key registry.
        expected: [u8; 32],
        /// Commitment of the secret given.
        got: [u8; 32],
    },
}

impl MasterSecret {
    /// Takes 32 bytes of the security module's randomness, or of a verified handoff, and wipes the source.
    ///
    /// # Errors
    /// [`MasterSecretError::NotRandom`] if all bytes are equal (chance 2⁻²⁴⁸ for real randomness).
    pub fn take(source: &mut [u8; 32]) -> Result<Self, MasterSecretError> {
        let secret = Zeroizing::new(*source);
        zeroize::Zeroize::zeroize(source);
        if secret.iter().all(|b| *b == secret[0]) {
            return Err(MasterSecretError::NotRandom { byte: secret[0] });
        }
        Ok(Self(secret))
    }

    /// Like [`Self::take`], and refuses a secret that does not reproduce the published commitment.
    ///
    /// # Errors
    /// As [`Self::take`], and [`MasterSecretError::Commitment`].
    pub fn take_committed(
        source: &mut [u8; 32],
        expected: [u8; 32],
    ) -> Result<Self, MasterSecretError> {
        let secret = Self::take(source)?;
        let got = secret.commitment();
        if got == expected {
            Ok(secret)
        } else {
            Err(MasterSecretError::Commitment { expected, got })
        }
    }

    /// The value published in `KeyRegistry`, by which anyone can tell this secret from another without learning it.
    #[must_use]
    pub fn commitment(&self) -> [u8; 32] {
        // Published on purpose, unlike every other derivation.
        *self.derive(&Purpose::Commitment).as_bytes()
    }

    /// The bytes, for splitting them into shares.
    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key for one purpose. Derived anew at each call; the result wipes itself.
    #[must_use]
    pub fn derive(&self, purpose: &Purpose) -> DerivedKey {
        let hkdf = Hkdf::<Sha256>::new(Some(&purpose.salt()), self.0.as_slice());
        let mut out = Zeroizing::new([0u8; 32]);
        // HKDF-SHA-256 can only fail beyond 255 × 32 bytes.
        hkdf.expand(&purpose.info(), out.as_mut_slice())
            .expect("32 bytes are within HKDF's limit");
        DerivedKey(out)
    }

    /// The key that clients seal secrets to in this key epoch; the same for all operators.
    #[must_use]
    pub fn secrets_key(&self, epoch: u64) -> HpkeKey {
        HpkeKey::from_ikm(self.derive(&Purpose::SecretsHpke { epoch }).as_bytes())
    }

    /// The key that clients seal confidential data to in this key epoch.
    #[must_use]
    pub fn privacy_key(&self, epoch: u64) -> HpkeKey {
        HpkeKey::from_ikm(self.derive(&Purpose::PrivacyHpke { epoch }).as_bytes())
    }
}

/// 32 bytes of a derived key. Neither `Debug` nor `Clone`, wiped on drop.
pub struct DerivedKey(Zeroizing<[u8; 32]>);

impl DerivedKey {
    /// The key. Do not copy it into anything that outlives its use.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// What a derived key is for: the table of design 5.1.
///
/// HKDF info is the purpose's label followed by its context. No label is a prefix of another and a label's context has
/// one fixed length, so no two (purpose, context) pairs share an info string; salts are distinct as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// Root of the per-boot page keys (design 2.6).
    Pages {
        /// The operator's address, left-padded to 32 bytes.
        operator_id: [u8; 32],
    },
    /// Key pair clients seal secrets to.
    SecretsHpke {
        /// Key epoch.
        epoch: u64,
    },
    /// Key pair clients seal confidential data to.
    PrivacyHpke {
        /// Key epoch.
        epoch: u64,
    },
    /// Wallet of an identity (design part 9).
    Wallet {
        /// keccak256 of the identity.
        identity_hash: [u8; 32],
        /// Generation; a number is never reused.
        generation: u64,
    },
    /// Wrapping of an identity's credentials (design part 9).
    Vault {
        /// The identity's omni hash.
        omni: [u8; 32],
        /// Key epoch.
        epoch: u64,
    },
    /// The published commitment.
    Commitment,
}

impl Purpose {
    /// The versioned label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Pages { .. } => "newton-pages-v1",
            Self::SecretsHpke { .. } => "newton-secrets-shared-v1",
            Self::PrivacyHpke { .. } => "newton-privacy-v1",
            Self::Wallet { .. } => "newton-wallet-v1",
            Self::Vault { .. } => "newton-vault-v1",
            Self::Commitment => "newton-msk-commitment-v1",
        }
    }

    /// HKDF salt: a fixed prefix and the label.
    #[must_use]
    pub fn salt(&self) -> Vec<u8> {
        [SALT_PREFIX, self.label().as_bytes()].concat()
    }

    /// HKDF info: the label and the context, integers as 8 bytes big-endian.
    #[must_use]
    pub fn info(&self) -> Vec<u8> {
        let label = self.label().as_bytes();
        match self {
            Self::Pages { operator_id } => [label, operator_id].concat(),
            Self::SecretsHpke { epoch } | Self::PrivacyHpke { epoch } => {
                [label, &epoch.to_be_bytes()[..]].concat()
            }
            Self::Wallet {
                identity_hash,
                generation,
            } => [label, identity_hash, &generation.to_be_bytes()[..]].concat(),
            Self::Vault { omni, epoch } => [label, omni, &epoch.to_be_bytes()[..]].concat(),
            Self::Commitment => label.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    fn secret() -> MasterSecret {
        let mut bytes: [u8; 32] = core::array::from_fn(|i| i as u8);
        MasterSecret::take(&mut bytes).unwrap()
    }

    /// One of each purpose; the match makes a new purpose fail to compile until it is listed here.
    fn table() -> Vec<Purpose> {
        let all = vec![
            Purpose::Pages {
                operator_id: [1; 32],
            },
            Purpose::SecretsHpke { epoch: 1 },
            Purpose::PrivacyHpke { epoch: 1 },
            Purpose::Wallet {
                identity_hash: [1; 32],
                generation: 1,
            },
            Purpose::Vault {
                omni: [1; 32],
                epoch: 1,
            },
            Purpose::Commitment,
        ];
        for purpose in &all {
            match purpose {
                Purpose::Pages { .. }
                | Purpose::SecretsHpke { .. }
                | Purpose::PrivacyHpke { .. }
                | Purpose::Wallet { .. }
                | Purpose::Vault { .. }
                | Purpose::Commitment => {}
            }
        }
        all
    }

    #[test]
    fn labels_are_versioned_and_prefix_free() {
        let table = table();
        for (i, a) in table.iter().enumerate() {
            assert!(
                a.label().starts_with("newton-") && a.label().ends_with("-v1"),
                "{}",
                a.label()
            );
            assert!(a.info().starts_with(a.label().as_bytes()));
            for (j, b) in table.iter().enumerate() {
                if i != j {
                    assert!(
                        !b.label().starts_with(a.label()),
                        "{} is a prefix of {}",
                        a.label(),
                        b.label()
                    );
                    assert!(
                        !b.salt().starts_with(&a.salt()),
                        "salt of {} is a prefix of {}'s",
                        a.label(),
                        b.label()
                    );
                    assert!(
                        !b.info().starts_with(&a.info()),
                        "info of {} is a prefix of {}'s",
                        a.label(),
                        b.label()
                    );
                }
            }
        }
    }

    #[test]
    fn a_purposes_context_has_one_length() {
        // Together with prefix-free labels this makes info injective.
        let pairs = [
            (
                Purpose::Pages {
                    operator_id: [0; 32],
                },
                Purpose::Pages {
                    operator_id: [0xff; 32],
                },
            ),
            (
                Purpose::SecretsHpke { epoch: 0 },
                Purpose::SecretsHpke { epoch: u64::MAX },
            ),
            (
                Purpose::PrivacyHpke { epoch: 0 },
                Purpose::PrivacyHpke { epoch: u64::MAX },
            ),
            (
                Purpose::Wallet {
                    identity_hash: [0; 32],
                    generation: 0,
                },
                Purpose::Wallet {
                    identity_hash: [0xff; 32],
                    generation: u64::MAX,
                },
            ),
            (
                Purpose::Vault {
                    omni: [0; 32],
                    epoch: 0,
                },
                Purpose::Vault {
                    omni: [0xff; 32],
                    epoch: u64::MAX,
                },
            ),
        ];
        for (a, b) in pairs {
            assert_eq!(a.info().len(), b.info().len());
            assert_ne!(a.info(), b.info());
        }
    }

    #[test]
    fn every_context_gives_its_own_key() {
        let mut purposes = table();
        for n in 2..20u8 {
            purposes.push(Purpose::Pages {
                operator_id: [n; 32],
            });
            purposes.push(Purpose::SecretsHpke { epoch: n.into() });
            purposes.push(Purpose::PrivacyHpke { epoch: n.into() });
            purposes.push(Purpose::Wallet {
                identity_hash: [n; 32],
                generation: 1,
            });
            purposes.push(Purpose::Wallet {
                identity_hash: [1; 32],
                generation: n.into(),
            });
            purposes.push(Purpose::Vault {
                omni: [n; 32],
                epoch: 1,
            });
            purposes.push(Purpose::Vault {
                omni: [1; 32],
                epoch: n.into(),
            });
        }
        let secret = secret();
        let keys: BTreeSet<[u8; 32]> = purposes
            .iter()
            .map(|p| *secret.derive(p).as_bytes())
            .collect();
        assert_eq!(keys.len(), purposes.len());
    }

    #[test]
    fn derivation_is_hkdf_sha256_written_out() {
        // RFC 5869 by hand over HMAC, so that the library's use (salt, info, order) is checked too.
        use sha2::Digest as _;
        let hmac = |key: &[u8], parts: &[&[u8]]| -> [u8; 32] {
            let mut block = [0u8; 64];
            block[..key.len()].copy_from_slice(key);
            let inner = parts
                .iter()
                .fold(Sha256::new_with_prefix(block.map(|b| b ^ 0x36)), |h, p| {
                    h.chain_update(p)
                });
            Sha256::new_with_prefix(block.map(|b| b ^ 0x5c))
                .chain_update(inner.finalize())
                .finalize()
                .into()
        };
        let ikm: [u8; 32] = core::array::from_fn(|i| i as u8);
        for purpose in table() {
            let prk = hmac(&purpose.salt(), &[&ikm]);
            let okm = hmac(&prk, &[&purpose.info(), &[1]]);
            assert_eq!(
                *secret().derive(&purpose).as_bytes(),
                okm,
                "{}",
                purpose.label()
            );
        }
    }

    #[test]
    fn golden_values() {
        // A change here changes every stored page and every published key.
        assert_eq!(
            hex::encode(secret().commitment()),
            include_str!("../tests/golden/msk_commitment.hex").trim()
        );
        assert_eq!(
            hex::encode(secret().secrets_key(1).public_key()),
            include_str!("../tests/golden/secrets_key_epoch_1.hex").trim()
        );
    }

    #[test]
    fn the_source_is_wiped_and_junk_is_refused() {
        let mut bytes = [7u8; 32];
        bytes[0] = 8;
        MasterSecret::take(&mut bytes).unwrap();
        assert_eq!(bytes, [0; 32]);
        for byte in [0, 7, 0xff] {
            let mut bytes = [byte; 32];
            assert_eq!(
                MasterSecret::take(&mut bytes).err().unwrap(),
                MasterSecretError::NotRandom { byte }
            );
            assert_eq!(bytes, [0; 32]);
        }
    }

    #[test]
    fn a_secret_without_the_published_commitment_is_refused() {
        let mut bytes: [u8; 32] = core::array::from_fn(|i| i as u8);
        let expected = secret().commitment();
        MasterSecret::take_committed(&mut bytes, expected).unwrap();
        let mut other: [u8; 32] = core::array::from_fn(|i| i as u8 + 1);
        let error = MasterSecret::take_committed(&mut other, expected)
            .err()
            .unwrap();
        assert!(
            matches!(error, MasterSecretError::Commitment { expected: e, got } if e == expected && got != e)
        );
        assert_eq!(other, [0; 32]);
    }
}
