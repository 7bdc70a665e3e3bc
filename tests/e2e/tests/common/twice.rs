//! One page file, several boots: keys are new at each, so no page file can make one key sign twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use alloy::primitives::B256;
use newton_contracts::abi::IOperatorRegistry;
use newton_e2e::{
    Member, World,
    admission::KeptShares,
    enclave::Enclave,
    network::{self, Vote},
};
use newton_types::{keccak256, rpc::ErrorName};
use serde_json::json;

use super::{
    name,
    operators::{at, commit, signing},
    say,
};

const PATIENCE: Duration = Duration::from_secs(180);

/// The same page file in two enclaves at once: the second boot takes the first one's place, by keys of its own. No key ever signs two
/// commits of one number, and the boot that was retired says so and signs no more. Gives back the second host.
pub async fn twice(
    world: &World,
    second: &Member,
    shares: &KeptShares,
    enclaves: &[&Enclave; 3],
) -> Member {
    signed(world, enclaves[0], enclaves[1], "once").await;
    let twin = world.run_twice(second).await.unwrap();
    network::recover(world, &twin, shares, PATIENCE)
        .await
        .unwrap();
    let enclave_b = network::connect_stage(world, &twin, 2, PATIENCE)
        .await
        .unwrap();
    let old = enclaves[1];
    assert_ne!(enclave_b.attested.boot_id, old.attested.boot_id);
    signing(&twin, &enclave_b).await;
    network::wait_for(old, PATIENCE, "the first boot signs no more", |h| {
        h["chains"][0]["signing"] == false
    })
    .await
    .unwrap();
    let (sequence, root) = signed(world, enclaves[0], &enclave_b, "twice").await;
    for enclave in [enclaves[0], old, enclaves[2], &enclave_b] {
        at(enclave, sequence, root).await;
    }
    network::wait_for(old, PATIENCE, "it says why", |h| {
        let why = h["chains"][0]["not_signing"].as_str().unwrap_or_default();
        why.contains("was admitted after this one")
            && why.contains(&enclave_b.attested.boot_id.to_string())
    })
    .await
    .unwrap();

    let mut signed: BTreeMap<(B256, u64), BTreeSet<B256>> = BTreeMap::new();
    let mut keys: [BTreeSet<B256>; 2] = Default::default();
    for (boot, enclave) in [
        (0, old),
        (1, &enclave_b),
        (2, enclaves[0]),
        (2, enclaves[2]),
    ] {
        for number in 1..=sequence {
            let Some(vote) = vote(enclave, number).await else {
                continue;
            };
            let key = keccak256(&vote.bls_public_key);
            signed.entry((key, number)).or_default().insert(vote.digest);
            if let Some(keys) = keys.get_mut(boot) {
                keys.insert(key);
            }
        }
    }
    for ((key, number), digests) in &signed {
        assert_eq!(digests.len(), 1, "key {key} and commit {number}");
    }
    assert!(
        !keys[0].is_empty() && !keys[1].is_empty() && keys[0].is_disjoint(&keys[1]),
        "two boots, two keys: {keys:?}"
    );
    assert!(vote(old, sequence).await.is_none(), "retired, and signed");
    // The chain knows one key of the operator at a time: that of the boot that was admitted last.
    let registry = IOperatorRegistry::new(
        world.chain.contracts.operator_registry,
        &world.chain.provider,
    );
    let set = registry.latestSetId().call().await.unwrap();
    let members = registry.operatorSet(set).call().await.unwrap().members;
    let of_operator: Vec<B256> = members
        .iter()
        .filter(|m| m.operator == second.operator)
        .map(|m| m.blsKeyHash)
        .collect();
    assert_eq!(of_operator, keys[1].iter().copied().collect::<Vec<_>>());
    say(
        "one page file run twice: two keys, one commit each; the first boot was retired and says so",
    );
    twin
}

/// Commits until one has the vote of `signer`: the others may be a quorum before it has derived the same.
async fn signed(world: &World, any: &Enclave, signer: &Enclave, package: &str) -> (u64, B256) {
    let deadline = Instant::now() + PATIENCE;
    for n in 0.. {
        let (sequence, root) = commit(world, any, &format!("{package}{n}")).await;
        at(signer, sequence, root).await;
        if vote(signer, sequence).await.is_some() {
            return (sequence, root);
        }
        assert!(Instant::now() < deadline, "it signs nothing");
    }
    unreachable!("the loop has no end of its own")
}

/// A boot's vote for a commit, if it gave one.
pub async fn vote(enclave: &Enclave, sequence: u64) -> Option<Vote> {
    let asked = json!({ "sequence_no": sequence });
    match enclave.try_call("newt_getCommitVote", asked).await {
        Ok(vote) => Some(serde_json::from_value(vote).unwrap()),
        Err(e) => {
            assert_eq!(name(e), ErrorName::NotFound);
            None
        }
    }
}
