//! What several operators go through together.

use std::{path::Path, time::Duration};

use alloy::primitives::B256;
use newton_contracts::abi::IStateCommitRegistry;
use newton_da_store::Faults;
use newton_e2e::{
    Member, World,
    enclave::Enclave,
    leaves, network, policy,
    run::{self, Summary},
};
use newton_types::{LeafKey, Namespace};
use serde_json::Value;

use super::say;

pub const PATIENCE: Duration = Duration::from_secs(180);

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

/// Bytes that nobody has are dropped by certificate and supplied again; a late enclave takes a peer's snapshot while DA gives nothing;
/// an old page file is brought up to the chain's root, another operator's is refused.
pub async fn lost_and_late(world: &World, _project: &Path) {
    let da_store = world.da_store.as_ref().unwrap();
    let nothing = Faults {
        get_status: Some(500),
        ..Faults::default()
    };
    let (first, shares) = run::admit(world, &mut Summary::default(), &say)
        .await
        .unwrap();
    let (second, enclave_2) = network::join(world, 1, &shares, &[&first], PATIENCE)
        .await
        .unwrap();
    signing(&second, &enclave_2).await;
    commit(world, &first, "one").await;
    let old = std::fs::read(second.page_file()).unwrap();

    let before = chain_tip(world).await.0;
    da_store.set_faults(nothing.clone());
    let lost = b"package lost\n\nimport rego.v1\n\ndefault allow := false\n";
    let hash = policy::register_rego(&world.chain, &world.da, lost, "lost.allow")
        .await
        .unwrap();
    for enclave in [&first, &enclave_2] {
        network::wait_for(enclave, PATIENCE, "it says what blocks it", |h| {
            !h["chains"][0]["blocked"]["why"]["reason"].is_null()
        })
        .await
        .unwrap();
    }
    say("bytes that cannot be had: both enclaves abstain and say so");
    let (sequence, root) = next_commit(world, &first, before).await;
    for enclave in [&first, &enclave_2] {
        at(enclave, sequence, root).await;
    }
    let leaf = LeafKey::artifact(Namespace::PolicyRego, hash);
    leaves::fetch_absent(&world.chain, &first, leaf)
        .await
        .unwrap();
    say("dropped by a certificate of both; the queue goes on, the leaf is absent");
    da_store.set_faults(Faults::default());
    policy::supply_rego(&world.chain, &world.da, lost)
        .await
        .unwrap();
    next_commit(world, &first, sequence).await;
    wait_leaf(world, &enclave_2, hash).await;
    say("supplied again, by another account, and committed");
    let (sequence, root) = commit(world, &first, "two").await;
    for enclave in [&first, &enclave_2] {
        at(enclave, sequence, root).await;
    }

    da_store.set_faults(Faults {
        after: 1,
        ..nothing.clone()
    });
    let half = b"package half\n\nimport rego.v1\n\ndefault allow := false\n";
    let hash = policy::register_rego(&world.chain, &world.da, half, "half.allow")
        .await
        .unwrap();
    let (sequence, root) = next_commit(world, &first, sequence).await;
    for enclave in [&first, &enclave_2] {
        at(enclave, sequence, root).await;
        wait_leaf(world, enclave, hash).await;
    }
    say(
        "bytes that DA gave to one enclave and to no other were had from that one while they waited",
    );

    da_store.set_faults(nothing);
    let voters = [&first, &enclave_2];
    let (third, enclave_3) = network::join(world, 2, &shares, &voters, PATIENCE)
        .await
        .unwrap();
    at(&enclave_3, sequence, root).await;
    signing(&third, &enclave_3).await;
    wait_leaf(world, &enclave_3, hash).await;
    say("a late enclave has the root and serves the bytes, from its peers, while DA gives nothing");
    da_store.set_faults(Faults::default());

    second.shim.kill_enclave().await;
    std::fs::write(second.page_file(), &old).unwrap();
    let (sequence, root) = commit(world, &first, "three").await;
    second.shim.restart_enclave().await.unwrap();
    network::recover(world, &second, &shares, PATIENCE)
        .await
        .unwrap();
    let enclave_2 = network::connect_stage(world, &second, 2, PATIENCE)
        .await
        .unwrap();
    at(&enclave_2, sequence, root).await;
    signing(&second, &enclave_2).await;
    say("an old page file was brought up to the chain's root before its new keys were admitted");

    third.shim.kill_enclave().await;
    std::fs::copy(second.page_file(), third.page_file()).unwrap();
    let (sequence, root) = commit(world, &first, "four").await;
    at(&enclave_2, sequence, root).await;
    third.shim.restart_enclave().await.unwrap();
    network::recover(world, &third, &shares, PATIENCE)
        .await
        .unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    let fault = loop {
        let enclave = world.connect_to(&third, PATIENCE).await.unwrap();
        let health: Value = enclave
            .call("newt_health", serde_json::json!({}))
            .await
            .unwrap();
        assert_ne!(health["status"], "ready", "another operator's page file");
        if health["status"] == "halted" {
            break health["fault"].as_str().unwrap().to_owned();
        }
        assert!(std::time::Instant::now() < deadline, "{health}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(
        fault.contains("page file") && (fault.contains("another") || fault.contains("belongs")),
        "{fault}"
    );
    say(&format!("another operator's page file is refused: {fault}"));
    third.shim.stop().await;
    second.shim.stop().await;
}

/// Waits until an enclave serves a committed source, proved by the contract.
pub async fn wait_leaf(world: &World, enclave: &Enclave, hash: B256) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while let Err(e) = leaves::fetch(&world.chain, enclave, Namespace::PolicyRego, hash).await {
        assert!(std::time::Instant::now() < deadline, "{e:#}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
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
    let entrypoint = format!("{name}.allow");
    policy::register_rego(
        &world.chain,
        &world.da,
        source(name).as_bytes(),
        &entrypoint,
    )
    .await
    .unwrap();
    next_commit(world, enclave, before).await
}

/// What [`commit`] registers.
pub fn source(name: &str) -> String {
    format!("package {name}\n\nimport rego.v1\n\ndefault allow := false\n")
}

/// Waits for a commit after `before`.
pub async fn next_commit(world: &World, enclave: &Enclave, before: u64) -> (u64, B256) {
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
