//! Shares of the master secret for its holders (design 5.2): birth splits it, recovery puts it together again.
//!
//! Shamir's scheme over GF(256). A share leaves the enclave only sealed to its holder's key; a holder opens it and seals
//! it anew to the ephemeral key of a freshly attested enclave. The commitment is associated data throughout, so that a
//! share of another secret does not open, and what comes out must reproduce it.

use blahaj::{Share, Sharks};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    HpkeKey, MasterSecret, MasterSecretError,
    hpke::{self, OpenError, Plaintext, SealError, Sealed},
};

const TO_HOLDER: &[u8] = b"newton-msk-share-to-holder-v1";
const TO_ENCLAVE: &[u8] = b"newton-msk-share-to-enclave-v1";
/// One byte of index and 32 of value.
const SHARE_BYTES: usize = 33;

/// Why a share is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The threshold does not fit the number of holders.
    #[error("threshold {threshold} does not fit {holders} holders (1 to 255)")]
    Threshold {
        /// Shares needed.
        threshold: u8,
        /// Holders given.
        holders: usize,
    },
    /// A holder's key cannot be sealed to.
    #[error("share holder {holder}: {source}")]
    Seal {
        /// Index of the holder, from 0.
        holder: usize,
        /// Why.
        source: SealError,
    },
    /// The sealed share does not open under this key, index and commitment.
    #[error("sealed share does not open: other key, index or commitment")]
    Open(#[from] OpenError),
    /// What was sealed is not a share.
    #[error("share has {got} bytes, expected {SHARE_BYTES}")]
    Length {
        /// Bytes found.
        got: usize,
    },
    /// The share says another index than its holder's.
    #[error("share carries index {got}, expected {expected}")]
    Index {
        /// Index of the holder, from 1.
        expected: u8,
        /// Index found.
        got: u8,
    },
    /// Randomness was not to be had.
    #[error("no randomness for the shares")]
    Randomness,
    /// The shares do not give the committed secret: at least one of them is of another secret.
    #[error("shares do not combine: {0}")]
    Combined(#[from] MasterSecretError),
}

/// Splits a secret and seals share i (from 1) to holder i. Any `threshold` of them give it back, fewer tell nothing.
///
/// # Errors
/// [`ShareError::Threshold`], [`ShareError::Seal`], [`ShareError::Randomness`].
pub fn split(
    secret: &MasterSecret,
    threshold: u8,
    holders: &[[u8; 32]],
) -> Result<Vec<Sealed>, ShareError> {
    if threshold == 0 || usize::from(threshold) > holders.len() || holders.len() > 255 {
        return Err(ShareError::Threshold {
            threshold,
            holders: holders.len(),
        });
    }
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|_| ShareError::Randomness)?;
    let commitment = secret.commitment();
    let mut random = hpke::entropy(&seed);
    let shares = Sharks(threshold).dealer_rng(secret.expose(), &mut random);
    shares
        .zip(holders)
        .enumerate()
        .map(|(i, (share, holder))| {
            let bytes = Zeroizing::new(Vec::from(&share));
            let aad = aad(&commitment, i as u8 + 1);
            hpke::seal(holder, TO_HOLDER, &aad, &bytes)
                .map_err(|source| ShareError::Seal { holder: i, source })
        })
        .collect()
}

/// A holder's work at recovery: opens share `index` (from 1) and seals it to an enclave's ephemeral key.
///
/// The caller must have verified the attestation document that binds `enclave`.
///
/// # Errors
/// [`ShareError::Open`], [`ShareError::Length`], [`ShareError::Index`], [`ShareError::Seal`].
pub fn reseal(
    holder: &HpkeKey,
    index: u8,
    commitment: &[u8; 32],
    sealed: &Sealed,
    enclave: &[u8; 32],
) -> Result<Sealed, ShareError> {
    let aad = aad(commitment, index);
    let share = holder.open(sealed, TO_HOLDER, &aad)?;
    check(&share, index)?;
    hpke::seal(enclave, TO_ENCLAVE, &aad, share.as_bytes()).map_err(|source| ShareError::Seal {
        holder: usize::from(index) - 1,
        source,
    })
}

/// The enclave's side of a recovery: collects shares until there are enough.
pub struct Recovery {
    threshold: u8,
    commitment: [u8; 32],
    key: HpkeKey,
    shares: Vec<(u8, Plaintext)>,
}

impl Recovery {
    /// Starts with the ephemeral key that this boot's stage-one document binds.
    #[must_use]
    pub fn new(threshold: u8, commitment: [u8; 32], key: HpkeKey) -> Self {
        Self {
            threshold,
            commitment,
            key,
            shares: Vec::new(),
        }
    }

    /// Public half of the ephemeral key.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.key.public_key()
    }

    /// Shares still needed.
    #[must_use]
    pub fn missing(&self) -> usize {
        usize::from(self.threshold).saturating_sub(self.shares.len())
    }

    /// Takes share `index` (from 1). Returns the secret once there are enough; a later share with the same index
    /// takes the place of the former.
    ///
    /// # Errors
    /// [`ShareError::Combined`] drops all shares, so that one bad share cannot block a recovery for good.
    pub fn add(&mut self, index: u8, sealed: &Sealed) -> Result<Option<MasterSecret>, ShareError> {
        let aad = aad(&self.commitment, index);
        let share = self.key.open(sealed, TO_ENCLAVE, &aad)?;
        check(&share, index)?;
        self.shares.retain(|(i, _)| *i != index);
        self.shares.push((index, share));
        if self.missing() > 0 {
            return Ok(None);
        }
        let shares = std::mem::take(&mut self.shares);
        let points: Vec<Share> = shares
            .iter()
            .filter_map(|(_, share)| Share::try_from(share.as_bytes()).ok())
            .collect();
        let mut combined = Sharks(self.threshold).recover(&points).unwrap_or_default();
        let mut bytes = Zeroizing::new([0; 32]);
        if combined.len() == bytes.len() {
            bytes.copy_from_slice(&combined);
        }
        combined.zeroize();
        Ok(Some(MasterSecret::take_committed(
            &mut bytes,
            self.commitment,
        )?))
    }
}

fn check(share: &Plaintext, index: u8) -> Result<(), ShareError> {
    let bytes = share.as_bytes();
    if bytes.len() != SHARE_BYTES {
        return Err(ShareError::Length { got: bytes.len() });
    }
    if index == 0 || bytes[0] != index {
        return Err(ShareError::Index {
            expected: index,
            got: bytes[0],
        });
    }
    Ok(())
}

fn aad(commitment: &[u8; 32], index: u8) -> [u8; 33] {
    let mut out = [index; 33];
    out[..32].copy_from_slice(commitment);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn secret() -> MasterSecret {
        MasterSecret::take(&mut core::array::from_fn(|i| i as u8 * 7 + 1)).unwrap()
    }

    fn keys(n: u8) -> Vec<HpkeKey> {
        (1..=n).map(|i| HpkeKey::from_ikm(&[i; 32])).collect()
    }

    fn recovery(threshold: u8) -> Recovery {
        Recovery::new(
            threshold,
            secret().commitment(),
            HpkeKey::from_ikm(&[99; 32]),
        )
    }

    #[test]
    fn any_two_of_three_give_the_secret_back() {
        let holders = keys(3);
        let public: Vec<_> = holders.iter().map(HpkeKey::public_key).collect();
        let commitment = secret().commitment();
        let sealed = split(&secret(), 2, &public).unwrap();
        for (a, b) in [(0, 1), (0, 2), (2, 1)] {
            let mut recovery = recovery(2);
            let to = recovery.public_key();
            let give =
                |i: usize| reseal(&holders[i], i as u8 + 1, &commitment, &sealed[i], &to).unwrap();
            assert!(recovery.add(a as u8 + 1, &give(a)).unwrap().is_none());
            // The same share twice is still one share.
            assert!(recovery.add(a as u8 + 1, &give(a)).unwrap().is_none());
            let found = recovery.add(b as u8 + 1, &give(b)).unwrap().unwrap();
            assert_eq!(found.commitment(), commitment);
        }
    }

    #[test]
    fn a_share_of_another_secret_or_holder_is_refused() {
        let holders = keys(2);
        let public: Vec<_> = holders.iter().map(HpkeKey::public_key).collect();
        let commitment = secret().commitment();
        let sealed = split(&secret(), 1, &public).unwrap();
        let to = recovery(1).public_key();
        let wrong_holder = reseal(&holders[1], 1, &commitment, &sealed[0], &to);
        assert!(matches!(wrong_holder, Err(ShareError::Open(_))));
        let wrong_index = reseal(&holders[0], 2, &commitment, &sealed[0], &to);
        assert!(matches!(wrong_index, Err(ShareError::Open(_))));
        let wrong_secret = reseal(&holders[0], 1, &[0; 32], &sealed[0], &to);
        assert!(matches!(wrong_secret, Err(ShareError::Open(_))));
    }

    #[test]
    fn a_forged_share_gives_no_secret_and_does_not_block_the_next_try() {
        let holders = keys(1);
        let commitment = secret().commitment();
        let sealed = split(&secret(), 1, &[holders[0].public_key()]).unwrap();
        let mut recovery = recovery(1);
        let to = recovery.public_key();
        let forged = hpke::seal(&to, TO_ENCLAVE, &aad(&commitment, 1), &[1; 33]).unwrap();
        assert!(matches!(
            recovery.add(1, &forged),
            Err(ShareError::Combined(_))
        ));
        let honest = reseal(&holders[0], 1, &commitment, &sealed[0], &to).unwrap();
        assert!(recovery.add(1, &honest).unwrap().is_some());
    }

    #[test]
    fn impossible_thresholds_are_refused() {
        for (threshold, holders) in [(0, 1), (2, 1), (1, 0)] {
            let public = vec![keys(1)[0].public_key(); holders];
            assert!(matches!(
                split(&secret(), threshold, &public),
                Err(ShareError::Threshold { .. })
            ));
        }
    }
}
