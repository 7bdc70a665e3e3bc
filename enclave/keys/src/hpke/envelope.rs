//! The JSON envelope that clients send their secrets in (design 4b), version 1.
//!
//! Existing clients pack the chain id of the associated data as a `uint64` (28 bytes before hashing); Solidity's
//! `abi.encodePacked(address, uint256)` has 52. Public documents only say `abi.encodePacked(policyClient, chainId)`, so
//! both open here, and ours seal in the existing form. The two can never be confused: an envelope sealed in one form
//! does not authenticate in the other.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha3::{Digest as _, Keccak256};

use super::{HpkeKey, OpenError, PUBLIC_KEY_BYTES, Plaintext, SealError, Sealed, TAG_BYTES};

/// Longest envelope that is looked at, in bytes of JSON.
pub const MAX_ENVELOPE_BYTES: usize = 1 << 20;

/// Clients use no HPKE info.
const INFO: &[u8] = b"";

/// A parsed envelope: every field has its right form and length. Nothing is decrypted yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Encapsulated key and ciphertext.
    pub sealed: Sealed,
    /// Whose secrets and on which chain.
    pub context: EnvelopeContext,
    /// Public key it was sealed to.
    pub recipient: [u8; PUBLIC_KEY_BYTES],
}

/// What an envelope is bound to by its associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvelopeContext {
    /// Policy client contract.
    pub policy_client: [u8; 20],
    /// Chain of the client.
    pub chain_id: u64,
}

impl Envelope {
    /// Parses the JSON strictly: exactly the five fields, once each, hex of the right length (with or without `0x`).
    /// `chain_id` may be a JSON number, as existing clients write it, or `0x` hex.
    ///
    /// # Errors
    /// Any [`EnvelopeError`] but those of opening.
    pub fn parse(json: &[u8]) -> Result<Self, EnvelopeError> {
        if json.len() > MAX_ENVELOPE_BYTES {
            return Err(EnvelopeError::TooLong {
                limit: MAX_ENVELOPE_BYTES,
                got: json.len(),
            });
        }
        let wire: Wire = serde_json::from_slice(json).map_err(|e| EnvelopeError::Json {
            reason: e.to_string(),
        })?;
        let ciphertext = decode("ciphertext", &wire.ciphertext)?;
        if ciphertext.len() < TAG_BYTES {
            return Err(EnvelopeError::Length {
                field: "ciphertext",
                expected: TAG_BYTES,
                got: ciphertext.len(),
            });
        }
        Ok(Self {
            sealed: Sealed {
                enc: decode_array("enc", &wire.enc)?,
                ciphertext,
            },
            context: EnvelopeContext {
                policy_client: decode_array("policy_client", &wire.policy_client)?,
                chain_id: chain_id(&wire.chain_id)?,
            },
            recipient: decode_array("recipient_pubkey", &wire.recipient_pubkey)?,
        })
    }

    /// Seals `plaintext` to `recipient`, as a client does.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(
        recipient: [u8; PUBLIC_KEY_BYTES],
        context: EnvelopeContext,
        plaintext: &[u8],
    ) -> Result<Self, SealError> {
        let sealed = super::seal(&recipient, INFO, &context.aad_uint64(), plaintext)?;
        Ok(Self {
            sealed,
            context,
            recipient,
        })
    }

    /// The JSON form existing clients write.
    #[must_use]
    pub fn to_json(&self) -> String {
        let wire = Wire {
            enc: hex::encode(self.sealed.enc),
            ciphertext: hex::encode(&self.sealed.ciphertext),
            policy_client: format!("0x{}", hex::encode(self.context.policy_client)),
            chain_id: Value::from(self.context.chain_id),
            recipient_pubkey: hex::encode(self.recipient),
        };
        // Strings and a number always serialize.
        serde_json::to_string(&wire).expect("an envelope has only strings and an integer")
    }
}

impl EnvelopeContext {
    /// `keccak256(abi.encodePacked(address, uint64))`.
    #[must_use]
    pub fn aad_uint64(&self) -> [u8; 32] {
        Keccak256::new()
            .chain_update(self.policy_client)
            .chain_update(self.chain_id.to_be_bytes())
            .finalize()
            .into()
    }

    /// `keccak256(abi.encodePacked(address, uint256))`.
    #[must_use]
    pub fn aad_uint256(&self) -> [u8; 32] {
        Keccak256::new()
            .chain_update(self.policy_client)
            .chain_update([0; 24])
            .chain_update(self.chain_id.to_be_bytes())
            .finalize()
            .into()
    }
}

impl HpkeKey {
    /// Opens an envelope that must be for this key, this client and this chain.
    ///
    /// # Errors
    /// [`EnvelopeError::Recipient`], [`EnvelopeError::Client`] or [`EnvelopeError::Chain`] if it says otherwise,
    /// [`EnvelopeError::Open`] if it was changed.
    pub fn open_envelope(
        &self,
        envelope: &Envelope,
        expected: &EnvelopeContext,
    ) -> Result<Plaintext, EnvelopeError> {
        if envelope.recipient != self.public_key() {
            return Err(EnvelopeError::Recipient {
                expected: self.public_key(),
                got: envelope.recipient,
            });
        }
        let got = &envelope.context;
        if got.policy_client != expected.policy_client {
            return Err(EnvelopeError::Client {
                expected: expected.policy_client,
                got: got.policy_client,
            });
        }
        if got.chain_id != expected.chain_id {
            return Err(EnvelopeError::Chain {
                expected: expected.chain_id,
                got: got.chain_id,
            });
        }
        self.open(&envelope.sealed, INFO, &got.aad_uint64())
            .or_else(|_| self.open(&envelope.sealed, INFO, &got.aad_uint256()))
            .map_err(EnvelopeError::Open)
    }
}

/// What is wrong with an envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Longer than [`MAX_ENVELOPE_BYTES`].
    #[error("envelope has {got} bytes, at most {limit} are accepted")]
    TooLong {
        /// Limit in bytes.
        limit: usize,
        /// Bytes given.
        got: usize,
    },
    /// Not JSON, or not exactly the five fields once each.
    #[error("envelope is not the expected JSON object: {reason}")]
    Json {
        /// The JSON parser's words.
        reason: String,
    },
    /// A field is not hex.
    #[error("envelope field `{field}` is not hex")]
    Hex {
        /// Name of the field.
        field: &'static str,
    },
    /// A field has the wrong number of bytes (for `ciphertext`: fewer than a tag).
    #[error("envelope field `{field}` has {got} bytes, expected {expected}")]
    Length {
        /// Name of the field.
        field: &'static str,
        /// Bytes expected; for `ciphertext` the least number.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// `chain_id` is neither a non-negative integer below 2⁶⁴ nor `0x` hex of one.
    #[error("envelope field `chain_id` must be an integer below 2^64 or 0x hex of one")]
    ChainId,
    /// Sealed to another key: that of a former key epoch, or of something else.
    #[error("envelope is sealed to key {}, expected {}", hex::encode(.got), hex::encode(.expected))]
    Recipient {
        /// The key in force.
        expected: [u8; 32],
        /// The key named.
        got: [u8; 32],
    },
    /// Made for another policy client.
    #[error("envelope is for client 0x{}, expected 0x{}", hex::encode(.got), hex::encode(.expected))]
    Client {
        /// The client it was posted for.
        expected: [u8; 20],
        /// The client named.
        got: [u8; 20],
    },
    /// Made for another chain.
    #[error("envelope is for chain {got}, expected {expected}")]
    Chain {
        /// The chain it was posted on.
        expected: u64,
        /// The chain named.
        got: u64,
    },
    /// The ciphertext does not authenticate.
    #[error(transparent)]
    Open(OpenError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    enc: String,
    ciphertext: String,
    policy_client: String,
    chain_id: Value,
    recipient_pubkey: String,
}

fn decode(field: &'static str, text: &str) -> Result<Vec<u8>, EnvelopeError> {
    hex::decode(text.strip_prefix("0x").unwrap_or(text)).map_err(|_| EnvelopeError::Hex { field })
}

fn decode_array<const N: usize>(field: &'static str, text: &str) -> Result<[u8; N], EnvelopeError> {
    let bytes = decode(field, text)?;
    let got = bytes.len();
    bytes.try_into().map_err(|_| EnvelopeError::Length {
        field,
        expected: N,
        got,
    })
}

fn chain_id(value: &Value) -> Result<u64, EnvelopeError> {
    match value {
        Value::Number(number) => number.as_u64().ok_or(EnvelopeError::ChainId),
        Value::String(text) => {
            // Only digits after 0x: from_str_radix alone would take a sign.
            let digits = text.strip_prefix("0x").ok_or(EnvelopeError::ChainId)?;
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(EnvelopeError::ChainId);
            }
            u64::from_str_radix(digits.trim_start_matches('0'), 16).or(
                if digits.bytes().all(|b| b == b'0') {
                    Ok(0)
                } else {
                    Err(EnvelopeError::ChainId)
                },
            )
        }
        _ => Err(EnvelopeError::ChainId),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const CONTEXT: EnvelopeContext = EnvelopeContext {
        policy_client: [0xab; 20],
        chain_id: 31_337,
    };

    fn key() -> HpkeKey {
        HpkeKey::from_ikm(&[3; 32])
    }

    fn sealed() -> Envelope {
        Envelope::seal(key().public_key(), CONTEXT, br#"{"api_key":"k"}"#).unwrap()
    }

    fn with(field: &str, value: Value) -> Vec<u8> {
        let mut object: Value = serde_json::from_str(&sealed().to_json()).unwrap();
        object[field] = value;
        object.to_string().into_bytes()
    }

    #[test]
    fn json_round_trip_and_open() {
        let envelope = sealed();
        let parsed = Envelope::parse(envelope.to_json().as_bytes()).unwrap();
        assert_eq!(parsed, envelope);
        assert_eq!(
            key().open_envelope(&parsed, &CONTEXT).unwrap().as_bytes(),
            br#"{"api_key":"k"}"#
        );
    }

    #[test]
    fn both_packings_of_the_chain_id_open() {
        for aad in [CONTEXT.aad_uint64(), CONTEXT.aad_uint256()] {
            let sealed = super::super::seal(&key().public_key(), b"", &aad, b"x").unwrap();
            let envelope = Envelope {
                sealed,
                context: CONTEXT,
                recipient: key().public_key(),
            };
            assert_eq!(
                key().open_envelope(&envelope, &CONTEXT).unwrap().as_bytes(),
                b"x"
            );
        }
        // Written out: 20 bytes of address, then 8 or 32 bytes of chain id.
        let packed = [&[0xab; 20][..], &31_337u64.to_be_bytes()].concat();
        assert_eq!(CONTEXT.aad_uint64()[..], Keccak256::digest(&packed)[..]);
        let packed = [&[0xab; 20][..], &[0; 24], &31_337u64.to_be_bytes()].concat();
        assert_eq!(CONTEXT.aad_uint256()[..], Keccak256::digest(&packed)[..]);
    }

    #[test]
    fn both_forms_of_fields_parse() {
        let envelope = sealed();
        let hex0x = |bytes: &[u8]| json!(format!("0x{}", hex::encode_upper(bytes)));
        for (field, value) in [
            ("chain_id", json!("0x7a69")),
            ("chain_id", json!("0x0000000000000000007a69")),
            ("chain_id", json!(31_337)),
            ("enc", hex0x(&envelope.sealed.enc)),
            ("recipient_pubkey", hex0x(&envelope.recipient)),
            ("policy_client", json!(hex::encode([0xab; 20]))),
        ] {
            let json = with(field, value.clone());
            let parsed =
                Envelope::parse(&json).unwrap_or_else(|e| panic!("{field} = {value}: {e}"));
            assert_eq!(parsed.context, CONTEXT);
        }
        assert_eq!(
            Envelope::parse(&with("chain_id", json!("0x0")))
                .unwrap()
                .context
                .chain_id,
            0
        );
        assert_eq!(
            Envelope::parse(&with("chain_id", json!("0xffffffffffffffff")))
                .unwrap()
                .context
                .chain_id,
            u64::MAX
        );
    }

    #[test]
    fn bad_fields_are_named() {
        for value in [
            json!(-1),
            json!(1.5),
            json!("31337"),
            json!("0x"),
            json!("0xg"),
            json!("0x+1"),
            json!("0x10000000000000000"),
            json!(null),
            json!([1]),
            json!({"$x": 1}),
            json!(true),
            json!(18_446_744_073_709_551_616_f64),
        ] {
            assert_eq!(
                Envelope::parse(&with("chain_id", value.clone())),
                Err(EnvelopeError::ChainId),
                "{value}"
            );
        }
        for field in ["enc", "ciphertext", "policy_client", "recipient_pubkey"] {
            assert_eq!(
                Envelope::parse(&with(field, json!("zz"))),
                Err(EnvelopeError::Hex { field })
            );
            assert_eq!(
                Envelope::parse(&with(field, json!("abc"))),
                Err(EnvelopeError::Hex { field })
            );
            assert_eq!(
                Envelope::parse(&with(field, json!("0x0x00"))),
                Err(EnvelopeError::Hex { field })
            );
            assert!(matches!(
                Envelope::parse(&with(field, json!(5))),
                Err(EnvelopeError::Json { .. })
            ));
            let expected = match field {
                "policy_client" => 20,
                "ciphertext" => 16,
                _ => 32,
            };
            assert_eq!(
                Envelope::parse(&with(field, json!("00".repeat(expected - 1)))),
                Err(EnvelopeError::Length {
                    field,
                    expected,
                    got: expected - 1
                })
            );
        }
        for field in ["enc", "policy_client", "recipient_pubkey"] {
            assert!(matches!(
                Envelope::parse(&with(field, json!("00".repeat(33)))),
                Err(EnvelopeError::Length { got: 33, .. })
            ));
        }
    }

    #[test]
    fn the_object_has_exactly_its_fields_once() {
        let refused = |json: &str, word: &str| match Envelope::parse(json.as_bytes()) {
            Err(EnvelopeError::Json { reason }) => assert!(reason.contains(word), "{reason}"),
            other => panic!("{other:?}"),
        };
        let json = sealed().to_json();
        refused(
            &json.replacen('{', r#"{"extra":1,"#, 1),
            "unknown field `extra`",
        );
        refused(
            &json.replacen('{', r#"{"enc":"00","#, 1),
            "duplicate field `enc`",
        );
        refused(&format!("{json} x"), "trailing characters");
        refused("", "EOF");
        refused("[]", "length 0");
        refused(&json[..json.len() - 1], "EOF");
        let mut object: Value = serde_json::from_str(&json).unwrap();
        object.as_object_mut().unwrap().remove("enc");
        refused(&object.to_string(), "missing field `enc`");
        let long = vec![b' '; MAX_ENVELOPE_BYTES + 1];
        assert_eq!(
            Envelope::parse(&long),
            Err(EnvelopeError::TooLong {
                limit: MAX_ENVELOPE_BYTES,
                got: MAX_ENVELOPE_BYTES + 1
            })
        );
    }

    #[test]
    fn an_envelope_for_something_else_is_refused_by_name() {
        let envelope = sealed();
        let other = HpkeKey::from_ikm(&[4; 32]);
        assert!(matches!(
            other.open_envelope(&envelope, &CONTEXT).err().unwrap(),
            EnvelopeError::Recipient { expected, got } if expected == other.public_key() && got == key().public_key()
        ));
        let client = EnvelopeContext {
            policy_client: [1; 20],
            ..CONTEXT
        };
        assert!(matches!(
            key().open_envelope(&envelope, &client),
            Err(EnvelopeError::Client { .. })
        ));
        let chain = EnvelopeContext {
            chain_id: 1,
            ..CONTEXT
        };
        assert!(matches!(
            key().open_envelope(&envelope, &chain),
            Err(EnvelopeError::Chain {
                expected: 1,
                got: 31_337
            })
        ));
    }

    #[test]
    fn a_relabelled_envelope_does_not_open() {
        // Someone else's envelope with the fields rewritten to fit: only the associated data can tell.
        let chain = EnvelopeContext {
            chain_id: 1,
            ..CONTEXT
        };
        let relabelled = Envelope {
            context: chain,
            ..sealed()
        };
        assert_eq!(
            key().open_envelope(&relabelled, &chain).err().unwrap(),
            EnvelopeError::Open(OpenError)
        );
        let other = HpkeKey::from_ikm(&[4; 32]);
        let relabelled = Envelope {
            recipient: other.public_key(),
            ..sealed()
        };
        assert_eq!(
            other.open_envelope(&relabelled, &CONTEXT).err().unwrap(),
            EnvelopeError::Open(OpenError)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Envelope::parse(&bytes);
        }

        #[test]
        fn any_plaintext_round_trips(plaintext in proptest::collection::vec(any::<u8>(), 0..400), chain_id: u64) {
            let context = EnvelopeContext { policy_client: [9; 20], chain_id };
            let envelope = Envelope::seal(key().public_key(), context, &plaintext).unwrap();
            let parsed = Envelope::parse(envelope.to_json().as_bytes()).unwrap();
            let opened = key().open_envelope(&parsed, &context).unwrap();
            prop_assert_eq!(opened.as_bytes(), plaintext);
        }
    }
}
