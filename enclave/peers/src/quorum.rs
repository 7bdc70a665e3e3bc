//! Votes of several enclaves over one digest, and the certificate that they make (design 3.3).
//!
//! Nobody coordinates: whoever has collected enough votes can submit. A vote counts once it was verified against the key
//! that the chain names for its signer, so what peers send can be withheld, and cannot be forged.

use std::collections::BTreeMap;

use alloy_primitives::{Bytes, U256};
use newton_keys::bls::{BlsError, PublicKey, Signature};
use newton_state::registry::OperatorSetRow;
use newton_types::{Address, B256, abi, events::ConsensusParameters};

/// Verified votes over one digest, by the hash of the signer's key.
#[derive(Clone, Debug)]
pub struct Ballot {
    digest: B256,
    votes: BTreeMap<B256, Signature>,
}

/// Why a vote does not count.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VoteError {
    /// The signer is in no set that counts.
    #[error("key {0} is not a member of the operator set")]
    NotAMember(B256),
    /// Key or signature is no point, or the signature is of something else.
    #[error("vote of key {key}: {source}")]
    Bls {
        /// Hash of the key.
        key: B256,
        /// What is wrong.
        source: BlsError,
    },
}

impl Ballot {
    /// No votes yet.
    pub fn new(digest: B256) -> Self {
        Self {
            digest,
            votes: BTreeMap::new(),
        }
    }

    /// What is voted on.
    pub fn digest(&self) -> B256 {
        self.digest
    }

    /// Verifies a vote against the member's key and counts it; gives back whose it is. A member's vote counts once.
    pub fn add(
        &mut self,
        set: &OperatorSetRow,
        key: B256,
        signature: &[u8],
    ) -> Result<Address, VoteError> {
        let member = set
            .members
            .iter()
            .find(|m| m.bls_key_hash == key)
            .ok_or(VoteError::NotAMember(key))?;
        let bls = |source| VoteError::Bls { key, source };
        let public = PublicKey::from_eip2537(&member.bls_public_key).map_err(bls)?;
        let signature = Signature::from_eip2537(signature).map_err(bls)?;
        if self.votes.get(&key) == Some(&signature) {
            return Ok(member.operator);
        }
        public.verify(&self.digest.0, &signature).map_err(bls)?;
        self.votes.insert(key, signature);
        Ok(member.operator)
    }

    /// The certificate for `set`, if the votes of its members are a quorum.
    pub fn certificate(
        &self,
        set: &OperatorSetRow,
        rules: &ConsensusParameters,
    ) -> Option<abi::Certificate> {
        let mut signatures = Vec::new();
        let mut weight = 0u128;
        let mut bitmap = U256::ZERO;
        let mut absent = Vec::new();
        for member in &set.members {
            match self.votes.get(&member.bls_key_hash) {
                Some(signature) => {
                    signatures.push(signature);
                    weight = weight.saturating_add(member.weight);
                }
                None => {
                    bitmap.set_bit(usize::from(member.index), true);
                    absent.extend_from_slice(&member.bls_public_key);
                }
            }
        }
        if signatures.len() < usize::from(rules.min_signers.max(1))
            || !is_quorum(weight, set.total_weight, rules.quorum_bps)
        {
            return None;
        }
        let signature = Signature::aggregate(signatures).ok()?;
        Some(abi::Certificate {
            signature: Bytes::from(signature.to_eip2537().to_vec()),
            setId: set.set_id,
            nonSignerBitmap: bitmap,
            nonSignerKeys: absent.into(),
            aggregateKey: set.aggregate_key.clone(),
        })
    }
}

/// The contract's rule: two thirds exactly, or more if `bps` says more than 6667, which stands for two thirds.
pub fn is_quorum(signed: u128, total: u128, bps: u16) -> bool {
    let (signed, total) = (U256::from(signed), U256::from(total));
    signed > U256::ZERO
        && signed * U256::from(3) >= total * U256::from(2)
        && (bps <= 6667 || signed * U256::from(10_000) >= total * U256::from(bps))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use newton_keys::bls::BlsKey;
    use newton_state::registry::MemberRow;

    const DIGEST: B256 = B256::repeat_byte(7);

    fn rules(quorum_bps: u16, min_signers: u16) -> ConsensusParameters {
        ConsensusParameters {
            genesis_time: 0,
            cadence: 1,
            max_commit_bytes: 1,
            max_artifact_bytes: 1,
            max_expire_after: 1,
            quorum_bps,
            min_signers,
            max_set_age: 1,
            max_defer_queue_bytes: 1,
            author_quota_bytes: 1,
            response_window: 1,
            challenge_window: 1,
            skip_empty: true,
        }
    }

    /// Members at indices 0, 2, 4 …, as after some have left.
    fn world(weights: &[u128]) -> (Vec<BlsKey>, OperatorSetRow) {
        let keys: Vec<BlsKey> = (0..weights.len())
            .map(|i| BlsKey::generate(&[i as u8 + 1; 32]).unwrap())
            .collect();
        let publics: Vec<PublicKey> = keys.iter().map(BlsKey::public_key).collect();
        let members = publics
            .iter()
            .zip(weights)
            .enumerate()
            .map(|(i, (key, weight))| MemberRow {
                index: i as u8 * 2,
                operator: Address::repeat_byte(i as u8 + 1),
                bls_key_hash: key.hash().into(),
                bls_public_key: key.to_eip2537().to_vec().into(),
                weight: *weight,
                tls_key_hash: B256::ZERO,
                valid_until: 1,
            })
            .collect();
        let aggregate = PublicKey::aggregate(&publics).unwrap();
        let set = OperatorSetRow {
            set_id: 9,
            members,
            aggregate_key_hash: B256::from(aggregate.hash()),
            aggregate_key: aggregate.to_eip2537().to_vec().into(),
            total_weight: weights.iter().sum(),
            earliest_valid_until: 1,
            created_at: 1,
        };
        (keys, set)
    }

    fn sign(key: &BlsKey, digest: B256) -> (B256, Vec<u8>) {
        (
            key.public_key().hash().into(),
            key.sign(&digest.0).to_eip2537().to_vec(),
        )
    }

    #[test]
    fn a_quorum_without_the_absent_member_verifies() {
        let (keys, set) = world(&[100, 100, 100]);
        let mut ballot = Ballot::new(DIGEST);
        for key in [&keys[0], &keys[2]] {
            assert!(ballot.certificate(&set, &rules(6667, 1)).is_none());
            let (hash, signature) = sign(key, DIGEST);
            ballot.add(&set, hash, &signature).unwrap();
        }
        let certificate = ballot.certificate(&set, &rules(6667, 1)).unwrap();
        // The bit is the member's index, not its position.
        assert_eq!(certificate.nonSignerBitmap, U256::from(1 << 2));
        let absent = PublicKey::from_eip2537(&certificate.nonSignerKeys).unwrap();
        let signers = PublicKey::from_eip2537(&certificate.aggregateKey)
            .unwrap()
            .without([&absent])
            .unwrap();
        let signature = Signature::from_eip2537(&certificate.signature).unwrap();
        signers.verify(&DIGEST.0, &signature).unwrap();
        assert!(ballot.certificate(&set, &rules(6667, 3)).is_none());
        assert!(ballot.certificate(&set, &rules(7000, 1)).is_none());
    }

    #[test]
    fn what_is_no_vote_of_a_member_does_not_count() {
        let (keys, set) = world(&[100, 100, 100]);
        let mut ballot = Ballot::new(DIGEST);
        let (hash, good) = sign(&keys[0], DIGEST);
        let (_, other_root) = sign(&keys[1], B256::repeat_byte(8));
        let key_1 = B256::from(keys[1].public_key().hash());
        let stranger = BlsKey::generate(&[99; 32]).unwrap();
        let (unknown, strange) = sign(&stranger, DIGEST);
        let mut garbage = good.clone();
        garbage[127] ^= 1;
        for (key, signature) in [
            (key_1, other_root.as_slice()),
            (key_1, good.as_slice()),
            (key_1, garbage.as_slice()),
            (key_1, &[0; 128]),
            (key_1, &[1, 2, 3]),
            (key_1, &[]),
        ] {
            let error = ballot.add(&set, key, signature).unwrap_err();
            assert!(matches!(error, VoteError::Bls { .. }), "{error}");
        }
        assert!(matches!(
            ballot.add(&set, unknown, &strange).unwrap_err(),
            VoteError::NotAMember(key) if key == unknown
        ));
        // One vote is one vote, however often it comes.
        for _ in 0..3 {
            ballot.add(&set, hash, &good).unwrap();
        }
        assert!(ballot.certificate(&set, &rules(6667, 1)).is_none());
    }

    #[test]
    fn two_thirds_are_exact() {
        assert!(is_quorum(2, 3, 6667) && !is_quorum(199, 300, 6667));
        assert!(is_quorum(200, 300, 6667) && !is_quorum(200, 301, 6667));
        assert!(!is_quorum(200, 300, 6668) && is_quorum(7000, 10_000, 7000));
        assert!(!is_quorum(0, 0, 6667));
        assert!(is_quorum(u128::MAX, u128::MAX, 10_000));
    }
}
