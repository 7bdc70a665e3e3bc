//! Certificates of the development store (design 11.4).
//!
//! # What is real and what is not
//! Real: the V4 structure; the payload's KZG commitment, its G2 twin and length proof (over a publicly known τ); the tree of
//! the batch and the inclusion proof; the batch header and the BN254 aggregate signature of four development operators, all
//! of whom are in quorums 0 and 1 and sign. Their secrets are public too.
//!
//! Not there yet: a storage trie and header that prove the operators' registration, so indices into the registries' histories
//! are all zero and point nowhere; the payer's signature is 65 zero bytes, which EigenDA's contract never looks at; the
//! reference block is whatever the store was started with.
//!
//! The certificate of a payload depends on nothing but the payload and the reference block.

use crate::bn254;
use alloy_primitives::{B256, Bytes, keccak256};
use ark_bn254::Fr;
use newton_artifacts::{
    BatchHeader, BlobCertificate, BlobHeader, BlobInclusionInfo, Certificate, List,
    NonSignerStakesAndSignature, PayloadError, encode_payload,
};

/// Quorums every development blob is in; each holds all operators.
const QUORUMS: [u8; 2] = [0, 1];
const OPERATORS: usize = 4;
/// Leaves of a batch: the blob and others that exist as hashes only.
const LEAVES: usize = 8;

/// Makes the certificate of a payload.
///
/// # Errors
/// [`PayloadError::TooLong`].
pub fn certify(payload: &[u8], reference_block: u32) -> Result<Certificate, PayloadError> {
    let encoded = encode_payload(payload)?;
    let payload_hash = keccak256(payload);
    let blob_certificate = BlobCertificate {
        blob_header: BlobHeader {
            version: 0,
            quorum_numbers: Bytes::from_static(&QUORUMS),
            commitment: bn254::commit(&encoded),
            payment_header_hash: tagged("newton development payment", payload_hash),
        },
        signature: Bytes::from_static(&[0; 65]),
        relay_keys: List(vec![0]),
    };
    let leaf = blob_certificate.leaf();
    // The place in the batch varies with the content, so that both sides of every branch occur.
    let index = usize::from(leaf[31]) % LEAVES;
    let leaves: Vec<B256> = (0..LEAVES)
        .map(|i| {
            if i == index {
                leaf
            } else {
                tagged(&format!("newton development leaf {i}"), leaf)
            }
        })
        .collect();
    let (batch_root, proof) = prove(leaves, index);
    let batch_header = BatchHeader {
        batch_root,
        reference_block_number: reference_block,
    };
    Ok(Certificate {
        non_signer_stakes_and_signature: attest(batch_header.hash()),
        batch_header,
        blob_inclusion_info: BlobInclusionInfo {
            blob_certificate,
            blob_index: index as u32,
            inclusion_proof: proof.into(),
        },
        signed_quorum_numbers: Bytes::from_static(&QUORUMS),
        offchain_derivation_version: 0,
    })
}

/// Whether a certificate is this store's for `payload`.
pub(crate) fn names(certificate: &Certificate, payload: &[u8]) -> bool {
    certificate
        .blob_inclusion_info
        .blob_certificate
        .blob_header
        .payment_header_hash
        == tagged("newton development payment", keccak256(payload))
}

/// All operators sign the batch.
fn attest(message: B256) -> NonSignerStakesAndSignature {
    let of_a_quorum: Fr = (0..OPERATORS).map(operator_secret).sum();
    // An operator signs once, and counts once in every quorum it is in.
    let of_all = of_a_quorum * Fr::from(QUORUMS.len() as u64);
    NonSignerStakesAndSignature {
        non_signer_quorum_bitmap_indices: List::default(),
        non_signer_pubkeys: List::default(),
        quorum_apks: List(vec![bn254::g1_key(of_a_quorum); QUORUMS.len()]),
        apk_g2: bn254::g2_key(of_all),
        sigma: bn254::sign(of_all, message),
        quorum_apk_indices: List(vec![0; QUORUMS.len()]),
        total_stake_indices: List(vec![0; QUORUMS.len()]),
        non_signer_stake_indices: List(vec![List::default(); QUORUMS.len()]),
    }
}

fn operator_secret(i: usize) -> Fr {
    bn254::known_scalar(&format!("newton development da operator {i}"))
}

/// Root of a tree over a power of two of leaves, and the siblings of leaf `index`, bottom-up.
fn prove(mut nodes: Vec<B256>, mut index: usize) -> (B256, Vec<u8>) {
    let mut proof = Vec::new();
    while nodes.len() > 1 {
        proof.extend_from_slice(nodes[index ^ 1].as_slice());
        nodes = nodes
            .chunks_exact(2)
            .map(|pair| keccak256([pair[0].0, pair[1].0].concat()))
            .collect();
        index /= 2;
    }
    (nodes[0], proof)
}

fn tagged(tag: &str, hash: B256) -> B256 {
    keccak256([tag.as_bytes(), hash.as_slice()].concat())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use newton_artifacts::DaRules;

    #[test]
    fn certificates_pass_the_enclave_s_checks() {
        let mut indices = std::collections::BTreeSet::new();
        for n in 0..12u8 {
            let payload = vec![n; 1 + usize::from(n) * 40];
            let certificate = certify(&payload, 77).unwrap();
            certificate
                .check(&DaRules::default(), payload.len() as u32)
                .unwrap();
            assert_eq!(
                Certificate::parse(&certificate.to_bytes()).unwrap(),
                certificate
            );
            assert!(names(&certificate, &payload) && !names(&certificate, b"other"));
            assert_eq!(certificate, certify(&payload, 77).unwrap());
            assert_ne!(
                certificate.batch_header,
                certify(&payload, 78).unwrap().batch_header
            );
            indices.insert(certificate.blob_inclusion_info.blob_index);
        }
        assert!(indices.len() > 2, "{indices:?}");
    }
}
