//! What several operators go through together.

use std::{path::Path, time::Duration};

use alloy::primitives::B256;
use newton_contracts::abi::IStateCommitRegistry;
use newton_e2e::{
    Member, World,
    enclave::Enclave,
    network, policy,
    run::{self, Summary},
};
use serde_json::Value;

use super::say;

const PATIENCE: Duration = Duration::from_secs(180);

/// Three operators: identical roots, one down, one hostile, one restarted and admitted again by the others.
pub async fn three(world: &World, _project: &Path) {
    let mut summary = Summary::default();
    let (first, shares) = run::admit(world, &mut summary, &say).await.unwrap();
    let (second, enclave_2) = network::join(world, 1, &shares, &[&first], PATIENCE)
        .await
        .unwrap();
    say("second operator admitted by the first one's certificate");
    let voters = [&first, &enclave_2];
    let (third, enclave_3) = network::join(world, 2, &shares, &voters, PATIENCE)
        .await
        .unwrap();
    say("third operator admitted by a certificate of two");
    for (member, enclave) in [(&second, &enclave_2), (&third, &enclave_3)] {
        signing(member, enclave).await;
    }

    let (sequence, root) = commit(world, &first, "one").await;
    for enclave in [&first, &enclave_2, &enclave_3] {
        at(enclave, sequence, root).await;
    }
    say(&format!(
        "commit {sequence}: three enclaves have root {root}"
    ));

    third.shim.kill_enclave().await;
    let (sequence, root) = commit(world, &first, "two").await;
    at(&enclave_2, sequence, root).await;
    say(&format!("commit {sequence} landed with the third one down"));

    third.shim.restart_enclave().await.unwrap();
    network::recover(world, &third, &shares, PATIENCE)
        .await
        .unwrap();
    let enclave_3 = network::connect_stage(world, &third, 2, PATIENCE)
        .await
        .unwrap();
    at(&enclave_3, sequence, root).await;
    signing(&third, &enclave_3).await;
    say("the third one caught up and had its new keys admitted by the others on its own");

    second.shim.kill_enclave().await;
    let (sequence, root) = commit(world, &first, "three").await;
    at(&enclave_3, sequence, root).await;
    say(&format!(
        "commit {sequence} landed with the second one down and the third one's new keys"
    ));
    third.shim.stop().await;
    second.shim.stop().await;
}

async fn signing(member: &Member, enclave: &Enclave) {
    network::wait(member, enclave, PATIENCE, "it may sign", |h| {
        h["chains"][0]["signing"] == true
    })
    .await
    .unwrap();
}

/// Registers a template and waits until the chain has committed it; gives back sequence number and root.
pub async fn commit(world: &World, enclave: &Enclave, name: &str) -> (u64, B256) {
    let before = chain_tip(world).await.0;
    let source = format!("package {name}\n\nimport rego.v1\n\ndefault allow := false\n");
    let entrypoint = format!("{name}.allow");
    policy::register_rego(&world.chain, &world.da, source.as_bytes(), &entrypoint)
        .await
        .unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let (sequence, root) = chain_tip(world).await;
        if sequence > before {
            return (sequence, root);
        }
        if std::time::Instant::now() > deadline {
            let health: Value = enclave
                .call("newt_health", serde_json::json!({}))
                .await
                .unwrap();
            panic!("no commit: {health}\n{}", world.console_tail());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What the contract has.
pub async fn chain_tip(world: &World) -> (u64, B256) {
    let registry = IStateCommitRegistry::new(
        world.chain.contracts.state_commit_registry,
        &world.chain.provider,
    );
    let sequence = registry.getSequenceNo().call().await.unwrap();
    (sequence, registry.getStateRoot().call().await.unwrap())
}

/// Waits until an enclave is at this commit; its root must be this one.
pub async fn at(enclave: &Enclave, sequence: u64, root: B256) {
    network::wait_for(enclave, PATIENCE, "the commit", |h| {
        h["chains"][0]["sequence_no"].as_u64() >= Some(sequence)
    })
    .await
    .unwrap();
    let answer: Value = enclave
        .call(
            "newt_getStateCommit",
            serde_json::json!({ "sequence_no": sequence }),
        )
        .await
        .unwrap();
    assert_eq!(answer["state_root"], serde_json::json!(root));
}
