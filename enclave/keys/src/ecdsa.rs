//! Signatures of Ethereum accounts: whose key made one. Nothing here signs.

use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use sha3::{Digest as _, Keccak256};

/// Bytes of a signature: r, s and v.
pub const SIGNATURE_BYTES: usize = 65;

/// Why a signature has no signer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// Not 65 bytes.
    #[error("a signature has {SIGNATURE_BYTES} bytes (r, s, v), got {got}")]
    Length {
        /// Bytes given.
        got: usize,
    },
    /// v is none of the four.
    #[error("v must be 0, 1, 27 or 28, got {got}")]
    RecoveryId {
        /// The byte given.
        got: u8,
    },
    /// s is in the upper half of the order: a second form of another signature.
    #[error("s is in the upper half of the group order (EIP-2)")]
    HighS,
    /// r and s belong to no key.
    #[error("r and s are not a signature of anyone")]
    Invalid,
}

/// The address whose key signed `digest`.
///
/// # Errors
/// [`RecoverError`].
pub fn recover(digest: &[u8; 32], signature: &[u8]) -> Result<[u8; 20], RecoverError> {
    let (scalars, v) = match signature {
        [scalars @ .., v] if scalars.len() == SIGNATURE_BYTES - 1 => (scalars, *v),
        _ => {
            return Err(RecoverError::Length {
                got: signature.len(),
            });
        }
    };
    let parity = match v {
        0 | 27 => 0,
        1 | 28 => 1,
        got => return Err(RecoverError::RecoveryId { got }),
    };
    let scalars = Signature::from_slice(scalars).map_err(|_| RecoverError::Invalid)?;
    if scalars.normalize_s().is_some() {
        return Err(RecoverError::HighS);
    }
    let id = RecoveryId::from_byte(parity).ok_or(RecoverError::RecoveryId { got: v })?;
    let key = VerifyingKey::recover_from_prehash(digest, &scalars, id)
        .map_err(|_| RecoverError::Invalid)?;
    Ok(address(&key))
}

/// The last 20 bytes of the uncompressed point's hash.
fn address(key: &VerifyingKey) -> [u8; 20] {
    let point = key.to_encoded_point(false);
    let hash = Keccak256::digest(&point.as_bytes()[1..]);
    core::array::from_fn(|i| hash[12 + i])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use k256::ecdsa::SigningKey;

    use super::*;

    /// Key 0 of the development mnemonic "test test … junk", and its published address.
    const KEY: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
    const ADDRESS: &str = "f39fd6e51aad88f6f4ce6ab8827279cfffb92266";

    fn signed(digest: &[u8; 32]) -> Vec<u8> {
        let key = SigningKey::from_slice(&hex::decode(KEY).unwrap()).unwrap();
        let (signature, id) = key.sign_prehash_recoverable(digest).unwrap();
        [&signature.to_bytes()[..], &[27 + id.to_byte()]].concat()
    }

    #[test]
    fn a_signature_gives_its_signer() {
        let digest = [7; 32];
        let mut signature = signed(&digest);
        assert_eq!(hex::encode(recover(&digest, &signature).unwrap()), ADDRESS);
        signature[64] -= 27;
        assert_eq!(hex::encode(recover(&digest, &signature).unwrap()), ADDRESS);
        let other = recover(&[8; 32], &signature).map(hex::encode);
        assert_ne!(other, Ok(ADDRESS.to_owned()));
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        let digest = [7; 32];
        let good = signed(&digest);
        assert_eq!(
            recover(&digest, &good[..64]),
            Err(RecoverError::Length { got: 64 })
        );
        let mut v = good.clone();
        v[64] = 29;
        assert_eq!(
            recover(&digest, &v),
            Err(RecoverError::RecoveryId { got: 29 })
        );
        assert_eq!(recover(&digest, &[0; 65]), Err(RecoverError::Invalid));
        // The other form of the same signature: s negated, parity flipped. Without the rule it recovers to the same signer.
        let low = Signature::from_slice(&good[..64]).unwrap();
        let high = Signature::from_scalars(low.r(), -*low.s()).unwrap();
        let flipped = 27 + (1 - (good[64] - 27));
        let other = [&high.to_bytes()[..], &[flipped]].concat();
        assert_eq!(recover(&digest, &other), Err(RecoverError::HighS));
    }
}
