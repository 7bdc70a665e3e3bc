//! How EigenDA turns a payload into field elements (design 11.3, EigenDA "encoded payload" version 0).
//!
//! Symbols are 32 bytes, big-endian, below the BN254 scalar field because their first byte is zero. The first symbol is
//! the header `[0, version 0, u32 big-endian payload length, 26 zeros]`; each further symbol carries 31 bytes. The last is
//! padded with zeros, and zero symbols follow up to a power of two.

/// Bytes of one symbol.
pub const SYMBOL_BYTES: usize = 32;
/// Payload bytes in one symbol.
const CHUNK: usize = SYMBOL_BYTES - 1;
/// Largest encoded payload: 16 MiB.
pub const MAX_BLOB_BYTES: usize = 16 * 1024 * 1024;
/// Largest payload of one blob: 16,252,897 bytes.
pub const MAX_PAYLOAD_BYTES: usize = (MAX_BLOB_BYTES / SYMBOL_BYTES - 1) * CHUNK;

/// Why bytes are not an encoded payload, or a payload cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The payload does not fit into one blob.
    #[error("payload of {got} bytes, at most {MAX_PAYLOAD_BYTES} fit into a blob")]
    TooLong {
        /// Bytes given.
        got: usize,
    },
    /// The encoded form is not 32 bytes times a power of two, or above 16 MiB.
    #[error(
        "encoded payload of {got} bytes, expected 32 times a power of two, at most {MAX_BLOB_BYTES}"
    )]
    EncodedLength {
        /// Bytes given.
        got: usize,
    },
    /// The header symbol is not `[0, 0, length, zeros]`.
    #[error("encoded payload's header is not that of version 0")]
    Header,
    /// The header promises more bytes than the symbols hold.
    #[error("encoded payload's header names {claimed} bytes, {capacity} fit")]
    Truncated {
        /// Length in the header.
        claimed: u32,
        /// Payload bytes the symbols can hold.
        capacity: usize,
    },
    /// A symbol does not start with zero, or the padding is not zero.
    #[error("encoded payload's byte {at} must be zero")]
    NotZero {
        /// Offset of the byte.
        at: usize,
    },
}

/// Symbols of the encoded form of `payload_bytes` bytes: a power of two.
pub fn encoded_symbols(payload_bytes: usize) -> usize {
    (1 + payload_bytes.div_ceil(CHUNK)).next_power_of_two()
}

/// Encodes a payload.
///
/// # Errors
/// [`PayloadError::TooLong`].
pub fn encode_payload(payload: &[u8]) -> Result<Vec<u8>, PayloadError> {
    let length = match u32::try_from(payload.len()) {
        Ok(length) if payload.len() <= MAX_PAYLOAD_BYTES => length,
        _ => return Err(PayloadError::TooLong { got: payload.len() }),
    };
    let mut encoded = vec![0; encoded_symbols(payload.len()) * SYMBOL_BYTES];
    encoded[2..6].copy_from_slice(&length.to_be_bytes());
    for (symbol, chunk) in encoded[SYMBOL_BYTES..]
        .chunks_exact_mut(SYMBOL_BYTES)
        .zip(payload.chunks(CHUNK))
    {
        symbol[1..=chunk.len()].copy_from_slice(chunk);
    }
    Ok(encoded)
}

/// Decodes an encoded payload. More zero symbols than needed are allowed, as EigenDA allows them.
///
/// # Errors
/// [`PayloadError`], the first deviation found.
pub fn decode_payload(encoded: &[u8]) -> Result<Vec<u8>, PayloadError> {
    let got = encoded.len();
    if !got.is_multiple_of(SYMBOL_BYTES)
        || !(got / SYMBOL_BYTES).is_power_of_two()
        || got > MAX_BLOB_BYTES
    {
        return Err(PayloadError::EncodedLength { got });
    }
    let (header, symbols) = encoded.split_at(SYMBOL_BYTES);
    if header[..2] != [0, 0] || header[6..].iter().any(|b| *b != 0) {
        return Err(PayloadError::Header);
    }
    let claimed = u32::from_be_bytes([header[2], header[3], header[4], header[5]]);
    let capacity = symbols.len() / SYMBOL_BYTES * CHUNK;
    let length = match usize::try_from(claimed) {
        Ok(length) if length <= capacity => length,
        _ => return Err(PayloadError::Truncated { claimed, capacity }),
    };
    let mut payload = Vec::with_capacity(length);
    for (i, symbol) in symbols.chunks_exact(SYMBOL_BYTES).enumerate() {
        let take = (length - payload.len()).min(CHUNK);
        payload.extend_from_slice(&symbol[1..=take]);
        let stray = symbol
            .iter()
            .enumerate()
            .find(|(at, byte)| (*at == 0 || *at > take) && **byte != 0);
        if let Some((at, _)) = stray {
            return Err(PayloadError::NotZero {
                at: (i + 1) * SYMBOL_BYTES + at,
            });
        }
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_those_of_the_design() {
        assert_eq!(MAX_PAYLOAD_BYTES, 16_252_897);
        assert_eq!(
            encoded_symbols(MAX_PAYLOAD_BYTES) * SYMBOL_BYTES,
            MAX_BLOB_BYTES
        );
        assert_eq!(encoded_symbols(0), 1);
        assert_eq!(encoded_symbols(31), 2);
        assert_eq!(encoded_symbols(32), 4);
        let too_long = vec![0; MAX_PAYLOAD_BYTES + 1];
        assert_eq!(
            encode_payload(&too_long),
            Err(PayloadError::TooLong {
                got: too_long.len()
            })
        );
    }

    #[test]
    fn layout() {
        let encoded = encode_payload(&[0xAA; 33]).unwrap();
        assert_eq!(encoded.len(), 128);
        assert_eq!(encoded[..6], [0, 0, 0, 0, 0, 33]);
        assert_eq!(
            (encoded[32], encoded[33], encoded[63], encoded[64]),
            (0, 0xAA, 0xAA, 0)
        );
        assert_eq!(encoded[65..68], [0xAA, 0xAA, 0]);
    }

    #[test]
    fn deviations_are_named() {
        let good = encode_payload(&[7; 40]).unwrap();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            decode_payload(&bytes)
        };
        assert_eq!(
            decode_payload(&good[..96]),
            Err(PayloadError::EncodedLength { got: 96 })
        );
        assert_eq!(
            decode_payload(&[]),
            Err(PayloadError::EncodedLength { got: 0 })
        );
        assert_eq!(with(1, 1), Err(PayloadError::Header));
        assert_eq!(with(31, 1), Err(PayloadError::Header));
        assert_eq!(
            with(5, 94),
            Err(PayloadError::Truncated {
                claimed: 94,
                capacity: 93
            })
        );
        assert_eq!(with(64, 1), Err(PayloadError::NotZero { at: 64 }));
        assert_eq!(with(127, 1), Err(PayloadError::NotZero { at: 127 }));
        assert_eq!(with(5, 39), Err(PayloadError::NotZero { at: 73 }));
        let mut longer = good.clone();
        longer.resize(256, 0);
        assert_eq!(decode_payload(&longer).unwrap(), [7; 40]);
    }

    proptest! {
        #[test]
        fn round_trip(payload in proptest::collection::vec(any::<u8>(), 0..500)) {
            prop_assert_eq!(decode_payload(&encode_payload(&payload).unwrap()).unwrap(), payload);
        }

        #[test]
        fn no_panic(bytes in proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..130)) {
            let _ = decode_payload(&bytes);
        }
    }
}
