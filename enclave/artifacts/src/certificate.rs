//! EigenDA certificates, version 4 (design 11.2): structure, strict RLP, hashes.
//!
//! Field order and hashing follow EigenDA's `EigenDACertTypes.sol` and `EigenDACertVerificationLib.sol`; the test vector
//! is a certificate of a public test network.

use alloy_primitives::{B256, Bytes, U256, keccak256};
use alloy_rlp::{BufMut, Decodable, Encodable, Header, RlpDecodable, RlpEncodable};
use alloy_sol_types::{SolValue, sol};

/// First byte of a serialised certificate: certificate version − 1.
pub const VERSION_BYTE_V4: u8 = 0x03;
/// Longest certificate taken in: 415 non-signers need about 41 KiB.
pub const MAX_CERTIFICATE_BYTES: usize = 64 * 1024;

/// Most entries of any list in a certificate, generous against what the checks allow.
const MAX_NON_SIGNERS: usize = 415;
const MAX_QUORUMS: usize = 192;
const MAX_RELAYS: usize = 256;

/// A version 4 certificate.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct Certificate {
    /// The batch that was signed.
    pub batch_header: BatchHeader,
    /// The blob and its place in the batch.
    pub blob_inclusion_info: BlobInclusionInfo,
    /// Who did not sign, and the aggregate of those who did.
    pub non_signer_stakes_and_signature: NonSignerStakesAndSignature,
    /// Quorums that signed, one byte each.
    pub signed_quorum_numbers: Bytes,
    /// Version of the rules for everything outside the contracts (payload encoding, recency).
    pub offchain_derivation_version: u16,
}

/// What the operators sign: `keccak256(abi.encode(batchRoot, referenceBlockNumber))`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct BatchHeader {
    /// Root of the tree of blob certificates.
    pub batch_root: B256,
    /// Block whose operator state counts.
    pub reference_block_number: u32,
}

/// A blob certificate and its Merkle proof.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct BlobInclusionInfo {
    /// The leaf.
    pub blob_certificate: BlobCertificate,
    /// The leaf's position.
    pub blob_index: u32,
    /// Siblings bottom-up, 32 bytes each.
    pub inclusion_proof: Bytes,
}

/// A blob header with the disperser's additions.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct BlobCertificate {
    /// The blob.
    pub blob_header: BlobHeader,
    /// The payer's signature over the header.
    pub signature: Bytes,
    /// Relays that serve the blob.
    pub relay_keys: List<u32, MAX_RELAYS>,
}

/// A blob.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct BlobHeader {
    /// Names the blob parameters in the threshold registry.
    pub version: u16,
    /// Quorums that hold the blob, one byte each.
    pub quorum_numbers: Bytes,
    /// Commitment to the bytes.
    pub commitment: BlobCommitment,
    /// Hash of the payment.
    pub payment_header_hash: B256,
}

/// KZG commitment to a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct BlobCommitment {
    /// Commitment to the polynomial.
    pub commitment: G1Point,
    /// The same in G2.
    pub length_commitment: G2Point,
    /// Shifted to the end of the reference string: bounds the degree.
    pub length_proof: G2Point,
    /// Length in symbols of 32 bytes, a power of two.
    pub length: u32,
}

/// A point of BN254's G1 in affine coordinates; (0, 0) is the point at infinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, RlpEncodable, RlpDecodable)]
#[allow(missing_docs)]
pub struct G1Point {
    pub x: U256,
    pub y: U256,
}

/// A point of BN254's G2 in affine coordinates. A coordinate c0 + c1·i is written `[c1, c0]`, as the pairing precompile
/// wants it (EIP-197).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, RlpEncodable, RlpDecodable)]
#[allow(missing_docs)]
pub struct G2Point {
    pub x: Pair,
    pub y: Pair,
}

/// Signature state, by index into the registries' histories.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct NonSignerStakesAndSignature {
    /// Per non-signer: index into the history of its quorum bitmap.
    pub non_signer_quorum_bitmap_indices: List<u32, MAX_NON_SIGNERS>,
    /// Public keys of the non-signers, hashes strictly increasing.
    pub non_signer_pubkeys: List<G1Point, MAX_NON_SIGNERS>,
    /// Per signed quorum: aggregate key of all its operators.
    pub quorum_apks: List<G1Point, MAX_QUORUMS>,
    /// Aggregate key of the signers in G2.
    pub apk_g2: G2Point,
    /// Aggregate signature.
    pub sigma: G1Point,
    /// Per signed quorum: index into the history of aggregate keys.
    pub quorum_apk_indices: List<u32, MAX_QUORUMS>,
    /// Per signed quorum: index into the history of total stakes.
    pub total_stake_indices: List<u32, MAX_QUORUMS>,
    /// Per signed quorum and non-signer in it: index into the history of its stake.
    pub non_signer_stake_indices: List<List<u32, MAX_NON_SIGNERS>, MAX_QUORUMS>,
}

/// Why bytes are not a version 4 certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// No bytes, or too many.
    #[error("certificate of {got} bytes, expected 2 to {MAX_CERTIFICATE_BYTES}")]
    Length {
        /// Bytes given.
        got: usize,
    },
    /// Another version.
    #[error("certificate version byte {got:#04x}, expected {VERSION_BYTE_V4:#04x} (version 4)")]
    Version {
        /// The first byte.
        got: u8,
    },
    /// Not the RLP of the structure.
    #[error("certificate is not RLP of version 4: {0}")]
    Rlp(alloy_rlp::Error),
    /// Bytes after the structure.
    #[error("{got} bytes after the certificate")]
    Trailing {
        /// How many.
        got: usize,
    },
    /// Another encoding of the same value.
    #[error("certificate is not canonical: encoding it again gives other bytes")]
    NotCanonical,
}

impl Certificate {
    /// Parses `0x03 ‖ RLP`, strictly: nothing follows, and encoding again gives the same bytes.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CertificateError> {
        if bytes.len() < 2 || bytes.len() > MAX_CERTIFICATE_BYTES {
            return Err(CertificateError::Length { got: bytes.len() });
        }
        let (version, mut rlp) = (bytes[0], &bytes[1..]);
        if version != VERSION_BYTE_V4 {
            return Err(CertificateError::Version { got: version });
        }
        let certificate = Self::decode(&mut rlp).map_err(CertificateError::Rlp)?;
        if !rlp.is_empty() {
            return Err(CertificateError::Trailing { got: rlp.len() });
        }
        if certificate.to_bytes() != bytes {
            return Err(CertificateError::NotCanonical);
        }
        Ok(certificate)
    }

    /// `0x03 ‖ RLP`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION_BYTE_V4];
        self.encode(&mut bytes);
        bytes
    }
}

sol! {
    struct SolG1 { uint256 x; uint256 y; }
    struct SolG2 { uint256[2] x; uint256[2] y; }
    struct SolCommitment { SolG1 commitment; SolG2 lengthCommitment; SolG2 lengthProof; uint32 length; }
}

impl BatchHeader {
    /// `keccak256(abi.encode(batchRoot, referenceBlockNumber))`, the message operators sign.
    pub fn hash(&self) -> B256 {
        keccak256((self.batch_root, self.reference_block_number).abi_encode_params())
    }
}

impl BlobHeader {
    /// `keccak256(abi.encode(keccak256(abi.encode(version, quorumNumbers, commitment)), paymentHeaderHash))`.
    pub fn hash(&self) -> B256 {
        let commitment = SolCommitment {
            commitment: self.commitment.commitment.sol(),
            lengthCommitment: self.commitment.length_commitment.sol(),
            lengthProof: self.commitment.length_proof.sol(),
            length: self.commitment.length,
        };
        let inner =
            keccak256((self.version, self.quorum_numbers.clone(), commitment).abi_encode_params());
        keccak256((inner, self.payment_header_hash).abi_encode_params())
    }
}

impl BlobCertificate {
    /// `keccak256(abi.encode(blobHeaderHash, signature, relayKeys))`.
    pub fn hash(&self) -> B256 {
        let relays = self.relay_keys.0.clone();
        keccak256((self.blob_header.hash(), self.signature.clone(), relays).abi_encode_params())
    }

    /// The leaf of the batch's tree: the hash of the hash.
    pub fn leaf(&self) -> B256 {
        keccak256(self.hash())
    }
}

impl BlobInclusionInfo {
    /// The root this proof leads to: bit i of the index set means that sibling i is on the left. `None` if the proof's
    /// length is not a multiple of 32. Bits of the index beyond the proof are not looked at, as in EigenDA's contract.
    pub fn computed_root(&self) -> Option<B256> {
        let siblings = self.inclusion_proof.chunks_exact(32);
        if !siblings.remainder().is_empty() {
            return None;
        }
        let mut index = self.blob_index;
        Some(
            siblings.fold(self.blob_certificate.leaf(), |node, sibling| {
                let left = index & 1 == 1;
                index >>= 1;
                let mut pair = [0; 64];
                pair[..32].copy_from_slice(if left { sibling } else { node.as_slice() });
                pair[32..].copy_from_slice(if left { node.as_slice() } else { sibling });
                keccak256(pair)
            }),
        )
    }
}

impl G1Point {
    fn sol(self) -> SolG1 {
        SolG1 {
            x: self.x,
            y: self.y,
        }
    }
}

impl G2Point {
    fn sol(self) -> SolG2 {
        SolG2 {
            x: self.x.0,
            y: self.y.0,
        }
    }
}

/// Exactly two numbers, an RLP list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pair(pub [U256; 2]);

impl Encodable for Pair {
    fn encode(&self, out: &mut dyn BufMut) {
        alloy_rlp::encode_list::<U256, U256>(&self.0, out);
    }

    fn length(&self) -> usize {
        alloy_rlp::list_length::<U256, U256>(&self.0)
    }
}

impl Decodable for Pair {
    fn decode(buf: &mut &[u8]) -> alloy_rlp::Result<Self> {
        let numbers = List::<U256, 2>::decode(buf)?;
        <[U256; 2]>::try_from(numbers.0)
            .map(Self)
            .map_err(|_| alloy_rlp::Error::Custom("a pair needs two numbers"))
    }
}

/// An RLP list of at most `MAX` elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T, const MAX: usize>(pub Vec<T>);

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Encodable, const MAX: usize> Encodable for List<T, MAX> {
    fn encode(&self, out: &mut dyn BufMut) {
        alloy_rlp::encode_list::<T, T>(&self.0, out);
    }

    fn length(&self) -> usize {
        alloy_rlp::list_length::<T, T>(&self.0)
    }
}

impl<T: Decodable, const MAX: usize> Decodable for List<T, MAX> {
    fn decode(buf: &mut &[u8]) -> alloy_rlp::Result<Self> {
        let mut payload = Header::decode_bytes(buf, true)?;
        let mut items = Vec::new();
        while !payload.is_empty() {
            if items.len() == MAX {
                return Err(alloy_rlp::Error::Custom("a list has too many elements"));
            }
            items.push(T::decode(&mut payload)?);
        }
        Ok(Self(items))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use alloy_primitives::{b256, bytes};
    use proptest::prelude::*;

    /// A certificate of EigenDA's test network as its proxy serialised it: version 3, which is version 4 without its last
    /// field (published in EigenDA's own test suite).
    const REAL_V3: &str = include_str!("../testdata/eigenda-v3-certificate.hex");

    /// The real certificate with the field that version 4 appends, derivation version 0.
    pub(crate) fn real_v4() -> Vec<u8> {
        let v3 = hex::decode(REAL_V3.trim()).unwrap();
        assert_eq!(v3[0], 0x02);
        let payload = Header::decode_bytes(&mut &v3[1..], true).unwrap();
        let mut v4 = vec![VERSION_BYTE_V4];
        Header {
            list: true,
            payload_length: payload.len() + 1,
        }
        .encode(&mut v4);
        v4.extend_from_slice(payload);
        v4.push(0x80);
        v4
    }

    fn header(version: u16, quorums: &[u8], payment: [u8; 32]) -> BlobHeader {
        let zero = BlobCommitment {
            commitment: G1Point::default(),
            length_commitment: G2Point::default(),
            length_proof: G2Point::default(),
            length: 0,
        };
        BlobHeader {
            version,
            quorum_numbers: Bytes::copy_from_slice(quorums),
            commitment: zero,
            payment_header_hash: payment.into(),
        }
    }

    #[test]
    fn a_real_certificate_parses_and_its_proof_holds() {
        let bytes = real_v4();
        let certificate = Certificate::parse(&bytes).unwrap();
        assert_eq!(certificate.to_bytes(), bytes);
        assert_eq!(certificate.batch_header.reference_block_number, 0x003f_44fc);
        let info = &certificate.blob_inclusion_info;
        // The root was signed by real operators over their tree: our leaf and node hashes lead to it.
        assert_eq!(
            info.computed_root().unwrap(),
            certificate.batch_header.batch_root
        );
        let mut other = info.clone();
        other.blob_index ^= 1;
        assert_ne!(
            other.computed_root().unwrap(),
            certificate.batch_header.batch_root
        );
        other.inclusion_proof = bytes!("00");
        assert_eq!(other.computed_root(), None);
    }

    #[test]
    fn hashes_agree_with_eigenda() {
        // Values published in EigenDA's own tests.
        let certificate = BlobCertificate {
            blob_header: header(1, &[0, 1], [0; 32]),
            signature: bytes!("010203"),
            relay_keys: List::default(),
        };
        assert_eq!(
            certificate.hash(),
            b256!("7f8946919c6354b9dd8488a279fd919798adafc7a2023a308f766e157919c124")
        );
        assert_eq!(
            header(2, &[0], [1; 32]).hash(),
            // Their test hashes the pair as one static tuple, which is the same bytes.
            b256!("49508c922e2a74bfa0ae0e942aac3aacc28ababb4d4ffc823bb9fc5d3a858cca")
        );
        let batch = BatchHeader {
            batch_root: B256::repeat_byte(2),
            reference_block_number: 12345,
        };
        assert_eq!(
            batch.hash(),
            b256!("e231c6b7b4ff73c5300b4f46c8d880301e4f08356f9f7f307937a8b8ca397339")
        );
    }

    #[test]
    fn refusals_are_named() {
        let good = real_v4();
        let mut other = good.clone();
        other[0] = 2;
        assert_eq!(
            Certificate::parse(&other),
            Err(CertificateError::Version { got: 2 })
        );
        let mut trailing = good.clone();
        trailing.push(0);
        assert_eq!(
            Certificate::parse(&trailing),
            Err(CertificateError::Trailing { got: 1 })
        );
        assert_eq!(
            Certificate::parse(&[]),
            Err(CertificateError::Length { got: 0 })
        );
        let long = vec![3; MAX_CERTIFICATE_BYTES + 1];
        assert_eq!(
            Certificate::parse(&long),
            Err(CertificateError::Length { got: long.len() })
        );
        // The real version 3 bytes under the version 4 byte lack a field.
        let mut short = hex::decode(REAL_V3.trim()).unwrap();
        short[0] = 3;
        assert!(matches!(
            Certificate::parse(&short),
            Err(CertificateError::Rlp(_))
        ));
        for cut in 1..good.len() {
            assert!(Certificate::parse(&good[..cut]).is_err());
        }
    }

    #[test]
    fn lists_are_capped() {
        let mut certificate = Certificate::parse(&real_v4()).unwrap();
        let keys = &mut certificate
            .non_signer_stakes_and_signature
            .non_signer_pubkeys;
        keys.0 = vec![G1Point::default(); MAX_NON_SIGNERS];
        assert!(Certificate::parse(&certificate.to_bytes()).is_ok());
        certificate
            .non_signer_stakes_and_signature
            .non_signer_pubkeys
            .0
            .push(G1Point::default());
        assert_eq!(
            Certificate::parse(&certificate.to_bytes()),
            Err(CertificateError::Rlp(alloy_rlp::Error::Custom(
                "a list has too many elements"
            )))
        );
    }

    proptest! {
        #[test]
        fn no_panic_on_any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(first) = bytes.first_mut() { *first = VERSION_BYTE_V4; }
            let _ = Certificate::parse(&bytes);
        }

        #[test]
        fn a_changed_byte_is_refused_or_canonical(at in 1usize..900, byte: u8) {
            let mut bytes = real_v4();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(certificate) = Certificate::parse(&bytes) {
                prop_assert_eq!(certificate.to_bytes(), bytes);
                let _ = certificate.blob_inclusion_info.computed_root();
            }
        }
    }
}
