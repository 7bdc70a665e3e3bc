//! Three enclaves and a dishonest operator: prepare and commit, records, challenges.

use std::{path::Path, time::Duration};

use alloy::{
    primitives::{Bytes, keccak256},
    sol_types::SolValue,
};
use newton_contracts::abi::{IStateCommitRegistry, ITaskManager, PolicyAttestation, StateCommit};
use newton_e2e::{
    World, admission,
    chain::send,
    challenge::{self, Dishonest},
    enclave::Enclave,
    network::{self, Vote},
    run::{self, Summary},
    tasks::{self, WireIntent},
};
use newton_types::rpc::ErrorName;
use serde_json::{Value, json};

use super::{name, say};

const PATIENCE: Duration = Duration::from_secs(180);

/// Outputs are prepared by three, merged by each, and the sum of their signatures is taken by the contract; what a dishonest operator
/// signed costs it a tenth, and what the honest ones signed costs nobody anything.
pub async fn rounds_and_challenges(world: &World, project: &Path) {
    let example = project.join(super::SPEND_LIMIT);
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
    let dishonest = Dishonest::register(world, 10).await.unwrap();
    challenge::admit_second(&world.chain, &first).await.unwrap();
    publish_key_epoch(world, &first).await;
    say("an operator without an enclave, and the first enclave, admitted by the owner's word");
    let (second, enclave_2) = network::join(world, 1, &shares, &[&first], PATIENCE)
        .await
        .unwrap();
    let voters = [&first, &enclave_2];
    let (third, enclave_3) = network::join(world, 2, &shares, &voters, PATIENCE)
        .await
        .unwrap();
    let enclaves = [&first, &enclave_2, &enclave_3];
    for enclave in enclaves {
        network::wait_for(enclave, PATIENCE, "it may sign", |h| {
            h["chains"][0]["signing"] == true
        })
        .await
        .unwrap();
    }
    let mut summary = Summary::default();
    run::deploy_policy(world, &first, &example, &mut summary, &say)
        .await
        .unwrap();
    for enclave in enclaves {
        network::wait_for(enclave, PATIENCE, "the policy's commit", |h| {
            h["chains"][0]["sequence_no"].as_u64() >= Some(summary.sequence_no)
        })
        .await
        .unwrap();
    }

    prepare_and_commit(world, &enclaves, &example).await;
    wrong_result(world, &enclaves, &dishonest, &example).await;
    wrong_commit(world, &enclaves, &dishonest).await;
    third.shim.stop().await;
    second.shim.stop().await;
}

async fn prepare_and_commit(world: &World, enclaves: &[&Enclave; 3], example: &Path) {
    let intent = WireIntent::load(&example.join("intents/allow.json")).unwrap();
    let (task_id, task, _) = tasks::create(&world.chain, &intent, b"{}").await.unwrap();
    let mut prepared = Vec::new();
    for enclave in enclaves {
        prepared.push(
            patiently(
                enclave,
                "newt_fetchPolicyData",
                json!({ "task_id": task_id }),
            )
            .await,
        );
    }
    let again: Value = enclaves[0]
        .call("newt_fetchPolicyData", json!({ "task_id": task_id }))
        .await
        .unwrap();
    assert_eq!(again, prepared[0], "signed once");

    let commit = |outputs: &[Value]| json!({ "task_id": task_id, "outputs": outputs });
    let refused = |params: Value| async {
        name(
            enclaves[0]
                .try_call("newt_evaluateAndSign", params)
                .await
                .unwrap_err(),
        )
    };
    assert_eq!(
        refused(commit(&prepared[1..])).await,
        ErrorName::InvalidOutputs,
        "without its own"
    );
    assert_eq!(
        refused(commit(&prepared[..2])).await,
        ErrorName::QuorumNotReached
    );
    let twice = [&prepared[..], &prepared[..1]].concat();
    assert_eq!(refused(commit(&twice)).await, ErrorName::InvalidOutputs);
    let mut forged = prepared.clone();
    forged[1]["outputs"][0]["output"] = json!(Bytes::from_static(b"{}"));
    assert_eq!(refused(commit(&forged)).await, ErrorName::InvalidOutputs);
    let mut late = commit(&prepared);
    late["round"] = json!(1);
    assert_eq!(refused(late).await, ErrorName::InvalidOutputs);
    let next = json!({ "task_id": task_id, "round": 1, "previous": prepared });
    let error = enclaves[0]
        .try_call("newt_fetchPolicyData", next)
        .await
        .unwrap_err();
    assert_eq!(name(error), ErrorName::RoundNotOpen, "round 0 agrees");

    let mut votes = Vec::new();
    let mut attestation = Bytes::new();
    for (turn, enclave) in enclaves.iter().enumerate() {
        let mut order = prepared.clone();
        order.rotate_left(turn);
        let answer = patiently(enclave, "newt_evaluateAndSign", commit(&order)).await;
        assert_eq!(answer["result"], true, "{answer}");
        assert_eq!(answer["outliers"], json!([]));
        attestation = serde_json::from_value(answer["attestation"].clone()).unwrap();
        votes.push(serde_json::from_value::<Vote>(answer).unwrap());
    }
    assert!(
        votes.iter().all(|vote| vote.digest == votes[0].digest),
        "one digest from three orders"
    );
    say("three enclaves signed the same digest over permuted outputs");

    let certificate = network::certificate(&world.chain, &votes).await.unwrap();
    let attestation = PolicyAttestation::abi_decode(&attestation).unwrap();
    let manager = ITaskManager::new(world.chain.contracts.task_manager, &world.chain.provider);
    send(
        "respondToTask",
        world.chain.accounts.operator,
        manager.respondToTask(
            task_id,
            task.clone(),
            attestation.clone(),
            certificate.clone(),
        ),
    )
    .await
    .unwrap();
    assert!(manager.responses(task_id).call().await.unwrap().allowed);
    say("the contract took the answer under the sum of three signatures");

    // A second answer is not signed: the first one is given again.
    let kept: Vote = serde_json::from_value(
        patiently(
            enclaves[0],
            "newt_evaluateAndSign",
            json!({ "task_id": task_id }),
        )
        .await,
    )
    .unwrap();
    assert_eq!(kept.signature, votes[0].signature);

    let record = record(enclaves[0], task_id).await;
    let question =
        json!({ "attestation": Bytes::from(attestation.abi_encode()), "record": record });
    let verdict = challenge::verdict(world, enclaves, question).await.unwrap();
    assert!(verdict.correct);
    unharmed(world, async || {
        challenge::challenge_result(world, (task, attestation, certificate), verdict.proof)
            .await
            .unwrap();
    })
    .await;
    say("a challenge of the honest answer cost nobody anything");
}

async fn wrong_result(
    world: &World,
    enclaves: &[&Enclave; 3],
    dishonest: &Dishonest,
    example: &Path,
) {
    let intent = WireIntent::load(&example.join("intents/deny.json")).unwrap();
    let (task_id, task, _) = tasks::create(&world.chain, &intent, b"{}").await.unwrap();
    let honest = patiently(
        enclaves[0],
        "newt_evaluateAndSign",
        json!({ "task_id": task_id }),
    )
    .await;
    assert_eq!(honest["result"], false);
    let honest: Bytes = serde_json::from_value(honest["attestation"].clone()).unwrap();
    let mut wrong = PolicyAttestation::abi_decode(&honest).unwrap();
    wrong.evaluationResultHash = keccak256("true");
    let manager = ITaskManager::new(world.chain.contracts.task_manager, &world.chain.provider);
    let digest = manager
        .attestationDigest(wrong.clone())
        .call()
        .await
        .unwrap();
    let certificate = network::certificate(&world.chain, &[dishonest.sign(digest)])
        .await
        .unwrap();

    let question = json!({
        "attestation": Bytes::from(wrong.abi_encode()),
        "record": record(enclaves[0], task_id).await,
    });
    let verdict = challenge::verdict(world, enclaves, question).await.unwrap();
    assert!(!verdict.correct);
    let before = challenge::weight(&world.chain, dishonest.operator)
        .await
        .unwrap();
    challenge::challenge_result(world, (task, wrong, certificate), verdict.proof)
        .await
        .unwrap();
    let after = challenge::weight(&world.chain, dishonest.operator)
        .await
        .unwrap();
    assert_eq!(
        (before.to::<u64>(), after.to::<u64>()),
        (10, 9),
        "a tenth, rounded up"
    );
    newton_e2e::chain::wait_blocks(&world.chain.provider, 1)
        .await
        .unwrap();
    say("a wrong result cost its signer a tenth by the certificate of three enclaves");
}

async fn wrong_commit(world: &World, enclaves: &[&Enclave; 3], dishonest: &Dishonest) {
    let (sequence, _, _) = run::last_commit(world).await.unwrap();
    let mut votes = Vec::new();
    let mut honest = Bytes::new();
    for enclave in enclaves {
        // Confirmed everywhere, and its rows finalized.
        network::wait_for(enclave, PATIENCE, "the commit", |h| {
            h["chains"][0]["sequence_no"].as_u64() >= Some(sequence)
        })
        .await
        .unwrap();
        let answer = patiently(
            enclave,
            "newt_getCommitVote",
            json!({ "sequence_no": sequence }),
        )
        .await;
        honest = serde_json::from_value(answer["commit"].clone()).unwrap();
        votes.push(serde_json::from_value::<Vote>(answer).unwrap());
    }
    let honest = StateCommit::abi_decode(&honest).unwrap();
    let mut wrong = honest.clone();
    wrong.newStateRoot = keccak256("another root");
    let registry = IStateCommitRegistry::new(
        world.chain.contracts.state_commit_registry,
        &world.chain.provider,
    );
    let digest = registry.commitDigest(wrong.clone()).call().await.unwrap();
    let certificate = network::certificate(&world.chain, &[dishonest.sign(digest)])
        .await
        .unwrap();
    let question = json!({ "commit": Bytes::from(wrong.abi_encode()) });
    let verdict = challenge::verdict(world, enclaves, question).await.unwrap();
    assert!(!verdict.correct);
    challenge::challenge_commit(world, wrong, certificate, verdict.proof)
        .await
        .unwrap();
    let left = challenge::weight(&world.chain, dishonest.operator)
        .await
        .unwrap();
    assert_eq!(left.to::<u64>(), 8);
    newton_e2e::chain::wait_blocks(&world.chain.provider, 1)
        .await
        .unwrap();
    say("a wrong state commit cost its signer a tenth");

    let question = json!({ "commit": Bytes::from(honest.abi_encode()) });
    let verdict = challenge::verdict(world, enclaves, question).await.unwrap();
    assert!(verdict.correct);
    let certificate = network::certificate(&world.chain, &votes).await.unwrap();
    unharmed(world, async || {
        challenge::challenge_commit(world, honest, certificate, verdict.proof)
            .await
            .unwrap();
    })
    .await;
    say("a challenge of the honest commit cost nobody anything");
}

/// Weights of the honest operators before and after.
async fn unharmed(world: &World, challenge: impl AsyncFnOnce()) {
    let weights = async || {
        let mut weights = Vec::new();
        for owner in &world.chain.accounts.operators {
            weights.push(
                challenge::weight(&world.chain, owner.address())
                    .await
                    .unwrap(),
            );
        }
        weights
    };
    let before = weights().await;
    challenge().await;
    assert_eq!(before, weights().await);
}

async fn record(enclave: &Enclave, task_id: alloy::primitives::B256) -> Value {
    let answer: Value = enclave
        .call("newt_getEvaluationRecord", json!({ "task_id": task_id }))
        .await
        .unwrap();
    answer["record"].clone()
}

/// Publishes the key epoch with the first enclave's signature: ten elevenths of the weight.
pub async fn publish_key_epoch(world: &World, enclave: &Enclave) {
    use newton_contracts::abi::{IKeyRegistry, KeyEpoch};
    let answer: Value = enclave
        .call("newt_getKeyEpochVote", json!({}))
        .await
        .unwrap();
    let epoch: Bytes = serde_json::from_value(answer["key_epoch"].clone()).unwrap();
    let vote = Vote {
        digest: serde_json::from_value(answer["digest"].clone()).unwrap(),
        signature: serde_json::from_value(answer["signature"].clone()).unwrap(),
        bls_public_key: admission::request(&world.chain, enclave)
            .await
            .unwrap()
            .bls_public_key,
    };
    let certificate = network::certificate(&world.chain, &[vote]).await.unwrap();
    let registry = IKeyRegistry::new(world.chain.contracts.key_registry, &world.chain.provider);
    send(
        "publishKeyEpoch",
        world.chain.accounts.operator,
        registry.publishKeyEpoch(KeyEpoch::abi_decode(&epoch).unwrap(), certificate),
    )
    .await
    .unwrap();
}

/// Asks again while the enclave says that a retry can help.
async fn patiently(enclave: &Enclave, method: &str, params: Value) -> Value {
    network::patiently(enclave, method, &params, PATIENCE)
        .await
        .unwrap()
}
