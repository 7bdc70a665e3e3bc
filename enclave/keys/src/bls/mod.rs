//! BLS12-381 signatures with keys in G2 and signatures in G1 ("minimal-signature-size").
//!
//! Suite (docs/protocol.md section 7): the proof-of-possession scheme of draft-irtf-cfrg-bls-signature with
//! hash-to-curve of RFC 9380. Operators all sign the same digest, so signatures and keys add up; that is only safe
//! because every registered key carries a proof of possession, which the registry checks before the key counts.
//!
//! Every [`PublicKey`] and [`Signature`] value in this crate is a point on the curve, in the prime-order subgroup, and
//! not infinity: all constructors check, so verification need not.

mod encoding;
mod error;

use core::fmt;

use blst::min_sig;
use sha3::{Digest as _, Keccak256};

pub use error::{BlsError, Point};

/// Domain separation tag of signatures over digests.
pub const DST_SIGNATURE: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";

/// Domain separation tag of proofs of possession.
pub const DST_POSSESSION: &[u8] = b"BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";

/// Length of a compressed public key (G2).
pub const PUBLIC_KEY_COMPRESSED: usize = 96;
/// Length of an uncompressed public key (G2), in the order x.c1, x.c0, y.c1, y.c0.
pub const PUBLIC_KEY_UNCOMPRESSED: usize = 192;
/// Length of a public key in EIP-2537 form, in the order x.c0, x.c1, y.c0, y.c1.
pub const PUBLIC_KEY_EIP2537: usize = 256;
/// Length of a compressed signature (G1).
pub const SIGNATURE_COMPRESSED: usize = 48;
/// Length of an uncompressed signature (G1).
pub const SIGNATURE_UNCOMPRESSED: usize = 96;
/// Length of a signature in EIP-2537 form.
pub const SIGNATURE_EIP2537: usize = 128;

/// Key info mixed into key generation, so that the same input would give another key elsewhere.
const KEY_INFO: &[u8] = b"newton-bls-boot-key-v1";

/// A secret signing key. Lives in memory only, for one boot (design 5.4); wiped on drop.
///
/// Neither `Debug` nor `Clone`: a copy of it is a second signer.
pub struct BlsKey {
    secret: min_sig::SecretKey,
    public: PublicKey,
}

impl BlsKey {
    /// Makes the boot's key from input key material (HKDF-based KeyGen of the BLS draft).
    ///
    /// `ikm` must be fresh randomness of at least 32 bytes from the security module; the caller wipes it.
    ///
    /// # Errors
    /// [`BlsError::KeyMaterialTooShort`] if `ikm` has fewer than 32 bytes.
    pub fn generate(ikm: &[u8]) -> Result<Self, BlsError> {
        if ikm.len() < 32 {
            return Err(BlsError::KeyMaterialTooShort {
                expected: 32,
                got: ikm.len(),
            });
        }
        // Only the length can make it fail, and that was checked.
        let secret = min_sig::SecretKey::key_gen(ikm, KEY_INFO).map_err(|_| {
            BlsError::KeyMaterialTooShort {
                expected: 32,
                got: ikm.len(),
            }
        })?;
        Ok(Self::from_secret(secret))
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    /// Signs a 32-byte digest under [`DST_SIGNATURE`].
    ///
    /// This does not know what was signed before: callers go through
    /// [`SigningRecord::authorize`](crate::SigningRecord::authorize) first.
    #[must_use]
    pub fn sign(&self, digest: &[u8; 32]) -> Signature {
        Signature(self.secret.sign(digest, DST_SIGNATURE, &[]))
    }

    /// Proves possession of this key to one registry on one chain, on behalf of one owner.
    #[must_use]
    pub fn prove_possession(&self, statement: &Possession) -> Signature {
        Signature(
            self.secret
                .sign(&statement.message(&self.public), DST_POSSESSION, &[]),
        )
    }

    fn from_secret(secret: min_sig::SecretKey) -> Self {
        let public = PublicKey(secret.sk_to_pk());
        Self { secret, public }
    }
}

/// For whom and where a proof of possession counts. It binds all of it, so that a proof cannot be replayed for another
/// owner, chain or registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Possession {
    /// On-chain owner of the operator.
    pub owner: [u8; 20],
    /// Chain on which the registry stands.
    pub chain_id: u64,
    /// Address of the operator registry.
    pub registry: [u8; 20],
}

impl Possession {
    /// `keccak256(abi.encode(address owner, uint256 chainId, address registry, bytes32 blsKeyHash))`.
    #[must_use]
    pub fn message(&self, key: &PublicKey) -> [u8; 32] {
        let mut encoded = [0u8; 128];
        encoded[12..32].copy_from_slice(&self.owner);
        encoded[56..64].copy_from_slice(&self.chain_id.to_be_bytes());
        encoded[76..96].copy_from_slice(&self.registry);
        encoded[96..128].copy_from_slice(&key.hash());
        Keccak256::digest(encoded).into()
    }
}

/// A valid public key: a point of G2, in the subgroup, not infinity.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(min_sig::PublicKey);

impl PublicKey {
    /// `keccak256` of the EIP-2537 form: the name of the key on chain.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Keccak256::digest(self.to_eip2537()).into()
    }

    /// Checks a signature over a digest.
    ///
    /// # Errors
    /// [`BlsError::SignatureInvalid`] if it does not verify.
    pub fn verify(&self, digest: &[u8; 32], signature: &Signature) -> Result<(), BlsError> {
        // Group checks are off because both values were checked when they were made.
        match signature
            .0
            .verify(false, digest, DST_SIGNATURE, &[], &self.0, false)
        {
            blst::BLST_ERROR::BLST_SUCCESS => Ok(()),
            _ => Err(BlsError::SignatureInvalid),
        }
    }

    /// Checks a proof of possession of this key.
    ///
    /// # Errors
    /// [`BlsError::PossessionInvalid`] if it was not made with this key for this statement.
    pub fn verify_possession(
        &self,
        statement: &Possession,
        proof: &Signature,
    ) -> Result<(), BlsError> {
        match proof.0.verify(
            false,
            &statement.message(self),
            DST_POSSESSION,
            &[],
            &self.0,
            false,
        ) {
            blst::BLST_ERROR::BLST_SUCCESS => Ok(()),
            _ => Err(BlsError::PossessionInvalid),
        }
    }

    /// Adds keys up. Checking one signature against the sum checks that all of them signed, provided that possession of
    /// each key was proved.
    ///
    /// # Errors
    /// [`BlsError::Empty`] without keys, [`BlsError::Infinity`] if they cancel out.
    pub fn aggregate<'a>(keys: impl IntoIterator<Item = &'a Self>) -> Result<Self, BlsError> {
        let sum = sum_of_keys(keys).ok_or(BlsError::Empty {
            what: Point::PublicKey,
        })?;
        Self::from_sum(&sum)
    }

    /// This (aggregate) key less those of the members that did not sign.
    ///
    /// # Errors
    /// [`BlsError::Infinity`] if nothing is left.
    pub fn without<'a>(
        &self,
        absent: impl IntoIterator<Item = &'a Self>,
    ) -> Result<Self, BlsError> {
        let Some(absent) = sum_of_keys(absent) else {
            return Ok(*self);
        };
        let mut sum = min_sig::AggregatePublicKey::from_public_key(&self.0);
        sum.sub_aggregate(&absent);
        Self::from_sum(&sum)
    }

    fn from_sum(sum: &min_sig::AggregatePublicKey) -> Result<Self, BlsError> {
        let key = sum.to_public_key();
        // The subgroup is closed under addition: only infinity can be new.
        key.validate().map_err(|_| BlsError::Infinity {
            what: Point::PublicKey,
        })?;
        Ok(Self(key))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", hex::encode(self.to_compressed()))
    }
}

/// A valid signature or proof: a point of G1, in the subgroup, not infinity.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(min_sig::Signature);

impl Signature {
    /// Adds signatures over one digest up.
    ///
    /// # Errors
    /// [`BlsError::Empty`] without signatures, [`BlsError::Infinity`] if they cancel out.
    pub fn aggregate<'a>(signatures: impl IntoIterator<Item = &'a Self>) -> Result<Self, BlsError> {
        let mut signatures = signatures.into_iter();
        let first = signatures.next().ok_or(BlsError::Empty {
            what: Point::Signature,
        })?;
        let mut sum = min_sig::AggregateSignature::from_signature(&first.0);
        for next in signatures {
            sum.add_aggregate(&min_sig::AggregateSignature::from_signature(&next.0));
        }
        let signature = sum.to_signature();
        signature.validate(true).map_err(|_| BlsError::Infinity {
            what: Point::Signature,
        })?;
        Ok(Self(signature))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", hex::encode(self.to_compressed()))
    }
}

fn sum_of_keys<'a>(
    keys: impl IntoIterator<Item = &'a PublicKey>,
) -> Option<min_sig::AggregatePublicKey> {
    let mut keys = keys.into_iter();
    let mut sum = min_sig::AggregatePublicKey::from_public_key(&keys.next()?.0);
    for key in keys {
        sum.add_aggregate(&min_sig::AggregatePublicKey::from_public_key(&key.0));
    }
    Some(sum)
}

#[cfg(test)]
mod tests;
