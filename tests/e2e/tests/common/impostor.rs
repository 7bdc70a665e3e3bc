//! Three enclaves and an operator that is none: what it says stops and changes nothing.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use alloy::{
    primitives::{B256, U64},
    providers::Provider,
};
use newton_api::client::ClientError;
use newton_contracts::abi::IStateCommitRegistry;
use newton_e2e::{
    Host, World, admission,
    challenge::{self, Dishonest},
    enclave::Enclave,
    impostor::{Behaviour, Impostor},
    leaves, network,
    relay::{Relay, Shown},
    run,
};
use newton_types::{LeafKey, Namespace, rpc::ErrorName};
use serde_json::json;

use super::{
    metric_of, name,
    operators::{at, chain_tip, commit, signing},
    rounds::publish_key_epoch,
    say,
};

const PATIENCE: Duration = Duration::from_secs(180);
/// Its place among the operators.
const IMPOSTOR: usize = 3;

/// A registered operator signs another root, forges, withholds and talks nonsense, while the third enclave's host shows the chain
/// late, block by block and out of order. Then
/// every version is proved.
pub async fn hostile(world: &World, _project: &Path) {
    let first = run::connect_stage(world, 2).await.unwrap();
    admission::whitelist(
        &world.chain,
        &world.pcrs,
        world.config_hash(),
        "development",
        Default::default(),
    )
    .await
    .unwrap();
    newton_e2e::chain::wait_blocks(&world.chain.provider, 2)
        .await
        .unwrap();
    let shares = world.holders.collect(&first).await.unwrap();
    // As much weight as it may have while the first enclave alone is a quorum beside it.
    let dishonest = Dishonest::register(world, 49).await.unwrap();
    challenge::admit_second(&world.chain, &first).await.unwrap();
    publish_key_epoch(world, &first).await;
    let impostor = Impostor::start(world, IMPOSTOR, dishonest).await.unwrap();
    let (second, enclave_2) = network::join(world, 1, &shares, &[&first], PATIENCE)
        .await
        .unwrap();
    let late = Shown {
        finality_lag: 2,
        block_by_block: true,
        ..Shown::default()
    };
    let relay = Relay::start(world.rpc_url(), late).await.unwrap();
    let host = Host {
        rpc: Some(relay.url()),
        ..Host::default()
    };
    let voters = [&first, &enclave_2];
    let (third, enclave_3) = network::join_as(world, 2, &host, &shares, &voters, PATIENCE)
        .await
        .unwrap();
    for (member, enclave) in [(&second, &enclave_2), (&third, &enclave_3)] {
        signing(member, enclave).await;
    }
    say(
        "an operator without an enclave, and three enclaves; the third one sees the chain late and block by block",
    );
    let enclaves = [&first, &enclave_2, &enclave_3];

    let committed = lies(world, &impostor, &enclaves).await;
    wrong_commit_costs(world, &impostor, &enclaves).await;
    disorder(world, &relay, late, &enclaves).await;
    every_version(world, &enclaves, &committed).await;
    pruned(world, &first, committed[0]).await;
    silence(world, &enclaves).await;
    third.shim.stop().await;
    second.shim.stop().await;
}

/// Each way to be no honest peer, one commit each: it lands with the three others' votes, and each of them says what it met.
async fn lies(world: &World, impostor: &Impostor, enclaves: &[&Enclave; 3]) -> Vec<(B256, u64)> {
    let operator = impostor.dishonest.operator;
    let signed = format!("operator {operator} has signed another commit");
    let mut committed = Vec::new();
    for (behaviour, said) in [
        (Behaviour::OtherRoot, signed.as_str()),
        (Behaviour::Forged, "does not hold: vote of key"),
        (Behaviour::Impersonating, "does not hold: vote of key"),
        (Behaviour::Misshapen, "does not hold:"),
        (Behaviour::Noise, "cannot reach"),
    ] {
        impostor.behave(behaviour);
        let package = format!("{behaviour:?}").to_lowercase();
        let (sequence, root) = commit(world, enclaves[0], &package).await;
        committed.push((super::operators::source_hash(&package), sequence));
        for enclave in enclaves {
            at(enclave, sequence, root).await;
            let note = format!("commit {sequence}: ");
            noted(world, enclave, |text| {
                text.starts_with(&note) && text.contains(said)
            })
            .await;
        }
        let (_, absent) = network::absent(&world.chain, sequence).await.unwrap();
        assert_eq!(absent, [operator], "{behaviour:?}");
        say(&format!(
            "{behaviour:?}: commit {sequence} landed without it, and three enclaves say what it did"
        ));
    }
    // From here on it is silent, which is noted after the time that a peer gets.
    impostor.behave(Behaviour::Withholding);
    committed
}

/// The commits since then landed, and each enclave says that the impostor does not answer.
async fn silence(world: &World, enclaves: &[&Enclave; 3]) {
    for enclave in enclaves {
        noted(world, enclave, |text| {
            text.contains("does not answer newt_getCommitVote")
        })
        .await;
    }
    for (result, least) in [("other_commit", 1), ("invalid", 3), ("silent", 2)] {
        let name = format!("peer_votes_total{{result=\"{result}\"}}");
        metric_of(world, &name, |value| value >= least).await;
    }
    say("Withholding: the others went on, and say that it does not answer");
}

/// Waits until an enclave's note about the impostor is as it should be.
async fn noted(world: &World, enclave: &Enclave, fits: impl Fn(&str) -> bool) {
    let address = world.address(IMPOSTOR).to_string();
    network::wait_for(enclave, PATIENCE, "what the impostor did", |h| {
        h["chains"][0]["peers"].as_array().is_some_and(|peers| {
            peers.iter().any(|peer| {
                peer["address"] == address.as_str() && peer["note"].as_str().is_some_and(&fits)
            })
        })
    })
    .await
    .unwrap();
}

/// The other root that its key signed is evidence: the enclaves find it wrong, and it costs a tenth.
async fn wrong_commit_costs(world: &World, impostor: &Impostor, enclaves: &[&Enclave; 3]) {
    use alloy::{primitives::Bytes, sol_types::SolValue};
    let (wrong, vote) = impostor.wrong_commit().unwrap();
    let certificate = network::certificate(&world.chain, &[vote]).await.unwrap();
    let question = json!({ "commit": Bytes::from(wrong.abi_encode()) });
    let verdict = challenge::verdict(world, enclaves, question).await.unwrap();
    assert!(!verdict.correct);
    challenge::challenge_commit(world, wrong, certificate, verdict.proof)
        .await
        .unwrap();
    let left = challenge::weight(&world.chain, impostor.dishonest.operator)
        .await
        .unwrap();
    assert_eq!(left.to::<u64>(), 44, "a tenth of 49, rounded up");
    say("the other root that it signed cost it a tenth");
}

/// Logs out of order are refused by name and nothing is derived from them; shown in order again, the enclave arrives where the others
/// are. Meanwhile nothing lands: the two others are no quorum.
async fn disorder(world: &World, relay: &Relay, late: Shown, enclaves: &[&Enclave; 3]) {
    relay.show(Shown { down: true, ..late });
    let before = chain_tip(world).await.0;
    let mut leaves = Vec::new();
    for package in ["left", "right"] {
        leaves.push(super::operators::register(world, package).await);
        newton_e2e::chain::wait_blocks(&world.chain.provider, 1)
            .await
            .unwrap();
    }
    let head = world.chain.provider.get_block_number().await.unwrap();
    network::wait_for(enclaves[0], PATIENCE, "both are final", |h| {
        h["chains"][0]["finalized_block"].as_u64() >= Some(head)
    })
    .await
    .unwrap();
    // Both are in the next answer that the third one gets.
    relay.show(Shown {
        reversed: true,
        ..Shown::default()
    });
    let health = network::wait_for(enclaves[2], PATIENCE, "the order is refused", |h| {
        let fault = h["chains"][0]["unreachable"].as_str().unwrap_or_default();
        fault.contains("log ") && fault.contains(" after ")
    })
    .await
    .unwrap();
    assert_eq!(health["chains"][0]["sequence_no"].as_u64(), Some(before));
    relay.show(late);
    super::operators::next_commit(world, enclaves[0], before).await;
    for hash in leaves {
        for enclave in enclaves {
            super::operators::wait_leaf(world, enclave, hash).await;
        }
    }
    let (sequence, root) = chain_tip(world).await;
    for enclave in enclaves {
        at(enclave, sequence, root).await;
    }
    say("logs out of order were refused by name; in order again, the roots are the same");
}

/// At every commit since genesis each leaf is proved present or absent, and the contract takes neither proof for the opposite.
async fn every_version(world: &World, enclaves: &[&Enclave; 3], committed: &[(B256, u64)]) {
    let (tip, _) = chain_tip(world).await;
    let mut proofs = 0;
    for (hash, since) in committed {
        let key = LeafKey::artifact(Namespace::PolicyRego, *hash);
        for sequence in 0..=tip {
            let enclave = enclaves[(sequence % 3) as usize];
            let leaf = leaves::fetch_at(&world.chain, enclave, key, sequence)
                .await
                .unwrap();
            let there = sequence >= *since;
            let expected = if there { *hash } else { B256::ZERO };
            assert_eq!(leaf.value_hash, expected, "commit {sequence}");
            let opposite = if there { B256::ZERO } else { *hash };
            assert!(
                !leaves::holds(&world.chain, &leaf, sequence, opposite)
                    .await
                    .unwrap(),
                "commit {sequence}: the contract takes the opposite"
            );
            proofs += 1;
        }
    }
    let unknown = LeafKey::artifact(Namespace::PolicyRego, committed[0].0);
    let error = enclaves[0]
        .try_call(
            "newt_getStateProof",
            json!({ "leaf_key": unknown.0, "sequence_no": tip + 1 }),
        )
        .await
        .unwrap_err();
    assert_eq!(name(error), ErrorName::NotFound, "a commit to come");
    say(&format!(
        "{proofs} proofs at commits 0 to {tip}: the contract takes each, and none for the opposite"
    ));
}

/// After the time that a version is kept for, it is refused by name; the newest one stays.
async fn pruned(world: &World, enclave: &Enclave, (hash, since): (B256, u64)) {
    let registry = IStateCommitRegistry::new(
        world.chain.contracts.state_commit_registry,
        &world.chain.provider,
    );
    let parameters = registry.parameters().call().await.unwrap();
    let blocks = parameters.maxExpireAfter + parameters.challengeWindow + 1;
    let _: () = world
        .chain
        .provider
        .client()
        .request("anvil_mine", (U64::from(blocks),))
        .await
        .unwrap();
    let key = LeafKey::artifact(Namespace::PolicyRego, hash);
    let asked = json!({ "leaf_key": key.0, "sequence_no": since });
    let deadline = Instant::now() + PATIENCE;
    let (tip, _) = chain_tip(world).await;
    loop {
        match enclave.try_call("newt_getStateProof", asked.clone()).await {
            Err(ClientError::Rpc(refused)) => {
                assert_eq!(refused.name, ErrorName::NotFound);
                assert!(refused.message.contains("not kept any more"), "{refused}");
                // It rises while the enclave sees the blocks one after another.
                let oldest = refused.data["retained_from"].as_u64().unwrap();
                assert!(since < oldest && oldest <= tip, "{oldest} of {tip}");
                if oldest == tip {
                    break;
                }
            }
            Err(other) => panic!("{other}"),
            Ok(_) => {}
        }
        assert!(Instant::now() < deadline, "commit {since} is still here");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    leaves::fetch_at(&world.chain, enclave, key, tip)
        .await
        .unwrap();
    say(&format!(
        "{blocks} blocks later commit {since} is refused by name, and commit {tip} still proved"
    ));
}
