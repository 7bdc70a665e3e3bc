//! HPKE (RFC 9180) in base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20-Poly1305, and the envelope
//! that clients put their secrets in (design 4b).

mod entropy;
mod envelope;

use ::hpke as rfc9180;
use rfc9180::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

use entropy::OneShot;

pub use envelope::{Envelope, EnvelopeContext, EnvelopeError, MAX_ENVELOPE_BYTES};

/// The suite's name as `newt_getSecretsPublicKey` gives it.
pub const SUITE: &str = "HPKE-Base-X25519-HKDF-SHA256-ChaCha20Poly1305";

/// Bytes of a public key and of an encapsulated key.
pub const PUBLIC_KEY_BYTES: usize = 32;
/// Bytes of the authentication tag at the end of a ciphertext.
pub const TAG_BYTES: usize = 16;

type Suite = rfc9180::kem::X25519HkdfSha256;
type Kdf = rfc9180::kdf::HkdfSha256;
type Aead = rfc9180::aead::ChaCha20Poly1305;

/// An X25519 key pair that opens what was sealed to it. No `Debug`, wiped on drop.
pub struct HpkeKey {
    private: <Suite as Kem>::PrivateKey,
    public: [u8; PUBLIC_KEY_BYTES],
}

impl HpkeKey {
    /// DeriveKeyPair of RFC 9180 section 7.1.3, from 32 secret bytes: a derived key, or randomness for an ephemeral key.
    #[must_use]
    pub fn from_ikm(ikm: &[u8; 32]) -> Self {
        let (private, public) = Suite::derive_keypair(ikm);
        Self {
            private,
            public: public.to_bytes().into(),
        }
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> [u8; PUBLIC_KEY_BYTES] {
        self.public
    }

    /// Opens one message.
    ///
    /// # Errors
    /// [`OpenError`] if anything differs from what was sealed: key, encapsulated key, info, associated data, ciphertext.
    /// It does not say which, because the scheme cannot tell.
    pub fn open(&self, sealed: &Sealed, info: &[u8], aad: &[u8]) -> Result<Plaintext, OpenError> {
        let enc = <Suite as Kem>::EncappedKey::from_bytes(&sealed.enc).map_err(|_| OpenError)?;
        let plaintext = rfc9180::single_shot_open::<Aead, Kdf, Suite>(
            &OpModeR::Base,
            &self.private,
            &enc,
            info,
            &sealed.ciphertext,
            aad,
        );
        plaintext
            .map(|bytes| Plaintext(Zeroizing::new(bytes)))
            .map_err(|_| OpenError)
    }
}

/// An encapsulated key and the ciphertext with its tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Encapsulated key.
    pub enc: [u8; PUBLIC_KEY_BYTES],
    /// Ciphertext followed by the 16-byte tag.
    pub ciphertext: Vec<u8>,
}

/// Seals one message to a public key, with randomness of the operating system.
///
/// # Errors
/// [`SealError`] if there is no randomness or the key is of low order.
pub fn seal(
    recipient: &[u8; PUBLIC_KEY_BYTES],
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Sealed, SealError> {
    let mut ikm = Zeroizing::new([0u8; 32]);
    getrandom::fill(ikm.as_mut_slice()).map_err(|_| SealError::Randomness)?;
    seal_with(&ikm, recipient, info, aad, plaintext)
}

/// Randomness for other schemes of this crate, hashed out of a seed that is used once.
pub(crate) fn entropy(seed: &Zeroizing<[u8; 32]>) -> impl rfc9180::rand_core::CryptoRng + '_ {
    OneShot::new(seed)
}

/// Seals with given randomness. Two messages under one `ikm` would share key and nonce: private for that reason.
fn seal_with(
    ikm: &Zeroizing<[u8; 32]>,
    recipient: &[u8; PUBLIC_KEY_BYTES],
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Sealed, SealError> {
    let recipient =
        <Suite as Kem>::PublicKey::from_bytes(recipient).map_err(|_| SealError::Recipient)?;
    let (enc, ciphertext) = rfc9180::single_shot_seal_with_rng::<Aead, Kdf, Suite>(
        &OpModeS::Base,
        &recipient,
        info,
        plaintext,
        aad,
        &mut OneShot::new(ikm),
    )
    .map_err(|_| SealError::Recipient)?;
    Ok(Sealed {
        enc: enc.to_bytes().into(),
        ciphertext,
    })
}

/// An opened message. Neither `Debug` nor `Clone`, wiped on drop.
pub struct Plaintext(Zeroizing<Vec<u8>>);

impl Plaintext {
    /// The bytes. They must reach no log, no error and no disk.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A message did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ciphertext does not open with this key and context")]
pub struct OpenError;

/// A message could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    Randomness,
    /// The recipient's public key is of low order: anyone could open the result.
    #[error("the recipient's public key is unusable (a point of low order)")]
    Recipient,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        hex::decode(hex).unwrap()
    }

    fn array(hex: &str) -> [u8; 32] {
        bytes(hex).try_into().unwrap()
    }

    // RFC 9180 appendix A.2.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, base mode, sequence number 0.
    const IKM_E: &str = "909a9b35d3dc4713a5e72a4da274b55d3d3821a37e5d099e74a647db583a904b";
    const IKM_R: &str = "1ac01f181fdf9f352797655161c58b75c656a6cc2716dcb66372da835542e1df";
    const PK_R: &str = "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a";
    const ENC: &str = "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a";
    const INFO: &str = "4f6465206f6e2061204772656369616e2055726e";
    const AAD: &str = "436f756e742d30";
    const PT: &str = "4265617574792069732074727574682c20747275746820626561757479";
    const CT: &str = "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28";

    #[test]
    fn rfc_9180_a_2_1() {
        let key = HpkeKey::from_ikm(&array(IKM_R));
        assert_eq!(key.public_key(), array(PK_R));
        let sealed = Sealed {
            enc: array(ENC),
            ciphertext: bytes(CT),
        };
        assert_eq!(
            key.open(&sealed, &bytes(INFO), &bytes(AAD))
                .unwrap()
                .as_bytes(),
            bytes(PT)
        );
        let again = seal_with(
            &Zeroizing::new(array(IKM_E)),
            &array(PK_R),
            &bytes(INFO),
            &bytes(AAD),
            &bytes(PT),
        );
        assert_eq!(again.unwrap(), sealed);
    }

    #[test]
    fn anything_changed_does_not_open() {
        let key = HpkeKey::from_ikm(&[1; 32]);
        let sealed = seal(&key.public_key(), b"info", b"aad", b"a secret").unwrap();
        assert_eq!(
            key.open(&sealed, b"info", b"aad").unwrap().as_bytes(),
            b"a secret"
        );

        assert!(
            HpkeKey::from_ikm(&[2; 32])
                .open(&sealed, b"info", b"aad")
                .is_err()
        );
        assert!(key.open(&sealed, b"Info", b"aad").is_err());
        assert!(key.open(&sealed, b"info", b"aae").is_err());
        for bit in 0..sealed.ciphertext.len() * 8 {
            let mut changed = sealed.clone();
            changed.ciphertext[bit / 8] ^= 1 << (bit % 8);
            assert!(key.open(&changed, b"info", b"aad").is_err());
        }
        // The top bit of an X25519 key is ignored in the exchange (RFC 7748) but bound by the key schedule.
        for bit in 0..256 {
            let mut changed = sealed.clone();
            changed.enc[bit / 8] ^= 1 << (bit % 8);
            assert!(key.open(&changed, b"info", b"aad").is_err());
        }
        for len in 0..TAG_BYTES {
            let cut = Sealed {
                ciphertext: sealed.ciphertext[..len].to_vec(),
                ..sealed.clone()
            };
            assert!(key.open(&cut, b"info", b"aad").is_err());
        }
    }

    #[test]
    fn every_seal_uses_a_fresh_key() {
        let key = HpkeKey::from_ikm(&[1; 32]);
        let a = seal(&key.public_key(), b"", b"", b"same").unwrap();
        let b = seal(&key.public_key(), b"", b"", b"same").unwrap();
        assert_ne!(a.enc, b.enc);
        assert_ne!(a.ciphertext, b.ciphertext);
    }

    #[test]
    fn points_of_low_order_are_refused_on_both_sides() {
        let one = {
            let mut bytes = [0; 32];
            bytes[0] = 1;
            bytes
        };
        for point in [[0; 32], one] {
            assert_eq!(
                seal(&point, b"", b"", b"x").unwrap_err(),
                SealError::Recipient
            );
            let sealed = Sealed {
                enc: point,
                ciphertext: vec![0; 32],
            };
            assert!(HpkeKey::from_ikm(&[1; 32]).open(&sealed, b"", b"").is_err());
        }
    }
}
