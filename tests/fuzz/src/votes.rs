//! Votes of peers.

use std::sync::OnceLock;

use alloy_primitives::U256;
use newton_keys::bls::{BlsKey, PublicKey, Signature};
use newton_peers::{Ballot, CommitVote, StatementVote};
use newton_state::registry::{MemberRow, OperatorSetRow};
use newton_types::{Address, B256, Bytes, events::ConsensusParameters};
use serde_json::json;

use crate::peer::{body, result};

const DIGEST: B256 = B256::repeat_byte(7);
const OTHER: B256 = B256::repeat_byte(8);
const WEIGHTS: [u128; 3] = [100, 60, 140];

struct World {
    set: OperatorSetRow,
    rules: ConsensusParameters,
    /// Keys in EIP-2537 form, of the members and of a stranger.
    keys: Vec<Vec<u8>>,
    /// Their signatures over [`DIGEST`] and over [`OTHER`].
    signatures: [Vec<Vec<u8>>; 2],
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let keys: Vec<BlsKey> = (1..=4u8)
            .map(|seed| BlsKey::generate(&[seed; 32]).unwrap())
            .collect();
        let publics: Vec<PublicKey> = keys.iter().map(BlsKey::public_key).collect();
        let members = publics
            .iter()
            .zip(WEIGHTS)
            .zip(0u8..)
            .map(|((key, weight), n)| MemberRow {
                index: n * 2,
                operator: Address::repeat_byte(n + 1),
                bls_key_hash: key.hash().into(),
                bls_public_key: key.to_eip2537().to_vec().into(),
                weight,
                tls_key_hash: B256::ZERO,
                valid_until: 1,
            })
            .collect();
        let aggregate = PublicKey::aggregate(&publics[..3]).unwrap();
        let sign = |digest: B256| {
            keys.iter()
                .map(|key| key.sign(&digest.0).to_eip2537().to_vec())
                .collect()
        };
        World {
            set: OperatorSetRow {
                set_id: 9,
                members,
                aggregate_key_hash: B256::from(aggregate.hash()),
                aggregate_key: aggregate.to_eip2537().to_vec().into(),
                total_weight: WEIGHTS.iter().sum(),
                earliest_valid_until: 1,
                created_at: 1,
            },
            rules: ConsensusParameters {
                genesis_time: 0,
                cadence: 1,
                max_commit_bytes: 1,
                max_artifact_bytes: 1,
                max_expire_after: 1,
                quorum_bps: 6667,
                min_signers: 2,
                max_set_age: 1,
                max_defer_queue_bytes: 1,
                author_quota_bytes: 1,
                response_window: 1,
                challenge_window: 1,
                skip_empty: true,
            },
            keys: publics.iter().map(|k| k.to_eip2537().to_vec()).collect(),
            signatures: [sign(DIGEST), sign(OTHER)],
        }
    })
}

/// A body that begins with `{`: bodies of peers' answers, with zero bytes between them. Anything else: votes of six bytes each,
/// made of honest parts and changed. A vote counts only if it is a member's own signature over what is voted on, and what they
/// make is a certificate only if the contract would take it.
pub fn votes(input: &[u8]) {
    let bodies: Vec<Vec<u8>> = match input {
        [b'{', ..] => input.split(|b| *b == 0).map(<[u8]>::to_vec).collect(),
        _ => input.chunks_exact(6).map(changed).collect(),
    };
    let world = world();
    let mut ballot = Ballot::new(DIGEST);
    let mut voted = [false; WEIGHTS.len()];
    for body in bodies.iter().take(8) {
        // Both forms are read, as the matter would have it.
        let as_commit = result::<CommitVote>(body).and_then(|vote| vote.on(DIGEST).ok());
        let as_statement = result::<StatementVote>(body).and_then(|vote| vote.on(DIGEST).ok());
        for vote in [as_commit, as_statement].into_iter().flatten() {
            let known = ballot.clone();
            if ballot.add(&world.set, vote.key(), &vote.signature).is_err() {
                continue;
            }
            let member = world.keys.iter().position(|k| *k == vote.bls_public_key);
            let member = member.filter(|n| *n < WEIGHTS.len()).unwrap();
            // A member that has voted is not looked at again.
            if !voted[member] {
                assert_eq!(
                    vote.signature, world.signatures[0][member],
                    "a vote that nobody cast; before: {known:?}"
                );
            }
            voted[member] = true;
        }
    }
    let weight: u128 = WEIGHTS
        .iter()
        .zip(voted)
        .filter(|(_, v)| *v)
        .map(|(w, _)| w)
        .sum();
    let signers = voted.iter().filter(|v| **v).count();
    let certificate = ballot.certificate(&world.set, &world.rules);
    assert_eq!(certificate.is_some(), weight * 3 >= 300 * 2 && signers >= 2);
    let Some(certificate) = certificate else {
        return;
    };
    let absent: Vec<PublicKey> = certificate
        .nonSignerKeys
        .chunks(256)
        .map(|key| PublicKey::from_eip2537(key).unwrap())
        .collect();
    let bits = (0..3)
        .filter(|n| !voted[*n])
        .map(|n| U256::from(1) << (2 * n));
    assert_eq!(
        certificate.nonSignerBitmap,
        bits.fold(U256::ZERO, |all, bit| all | bit)
    );
    PublicKey::from_eip2537(&certificate.aggregateKey)
        .unwrap()
        .without(&absent)
        .unwrap()
        .verify(
            &DIGEST.0,
            &Signature::from_eip2537(&certificate.signature).unwrap(),
        )
        .unwrap();
}

/// The honest answers of two members.
pub fn honest_votes() -> Vec<u8> {
    [0, 2].map(|n| changed(&[n, n, 0, 7, 0, 0])).join(&0)
}

/// `u8 whose key, u8 whose signature, u8 over what and said to be over what, u8 what is changed, u8 where, u8 how`.
fn changed(vote: &[u8]) -> Vec<u8> {
    let world = world();
    let mut key = world.keys[usize::from(vote[0] % 4)].clone();
    let mut signature =
        world.signatures[usize::from(vote[2] & 1)][usize::from(vote[1] % 4)].clone();
    let mut digest = if vote[2] & 2 == 0 { DIGEST } else { OTHER };
    let (at, value) = (usize::from(vote[4]), vote[5]);
    match vote[3] % 8 {
        0 => signature[at % 128] ^= value,
        1 => key[at] ^= value,
        2 => signature.truncate(at),
        3 => key.truncate(at),
        4 => signature.extend(vec![value; at]),
        5 => digest.0[at % 32] ^= value,
        6 => signature.fill(value),
        _ => {}
    }
    body(&json!({
        "commit": Bytes::from(vec![value; at]),
        "digest": digest,
        "signature": Bytes::from(signature),
        "bls_public_key": Bytes::from(key),
    }))
}
