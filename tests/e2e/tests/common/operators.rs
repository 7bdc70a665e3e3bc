//! What several operators go through together.

use std::{path::Path, time::Duration};

use alloy::{
    primitives::{B256, U64, keccak256},
    providers::Provider,
};
use newton_contracts::abi::{IEnclaveVersionRegistry, IOperatorRegistry, IStateCommitRegistry};
use newton_da_store::Faults;
use newton_e2e::{
    Backend, Host, Member, World,
    admission::{self, KeptShares},
    chain::send,
    enclave::Enclave,
    leaves, network, policy,
    run::{self, Summary},
};
use newton_types::{LeafKey, Namespace};
use newton_xtask::setup::Setup;
use serde_json::{Value, json};

use super::say;

pub const PATIENCE: Duration = Duration::from_secs(180);

/// Three operators: identical roots, one down, one restarted and admitted again by the others. Their images differ: the second one's
/// is older, which shows when a rules version is activated that it does not have.
pub async fn three(world: &World, _project: &Path) {
    let mut summary = Summary::default();
    let (first, shares) = run::admit(world, &mut summary, &say).await.unwrap();
    let older = Host {
        backend: Some(super::process(&Setup::new().unwrap(), 1)),
        ..Host::default()
    };
    whitelist(world, older.backend.as_ref().unwrap()).await;
    let (second, enclave_2) = network::join_as(world, 1, &older, &shares, &[&first], PATIENCE)
        .await
        .unwrap();
    say("second operator, with another image, admitted by the first one's certificate");
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

    second.shim.restart_enclave().await.unwrap();
    let enclave_2 = back(world, &second, &shares).await;
    at(&enclave_2, sequence, root).await;
    let second = next_rules(world, second, &[&first, &enclave_2, &enclave_3], &shares).await;
    third.shim.stop().await;
    second.shim.stop().await;
}

/// A rules version is scheduled and activated at a boundary. Commits before it carry the old one, from it on the new one, by the
/// enclaves whose images have it; the second one's has not, so it halts and says so, and goes on as another image from the same page
/// file.
async fn next_rules(
    world: &World,
    second: Member,
    [first, enclave_2, enclave_3]: &[&Enclave; 3],
    shares: &KeptShares,
) -> Member {
    let versions = IEnclaveVersionRegistry::new(
        world.chain.contracts.enclave_version_registry,
        &world.chain.provider,
    );
    let head = world.chain.provider.get_block_number().await.unwrap();
    let from = head + BEFORE_ACTIVATION;
    send(
        "scheduleRulesVersion",
        world.chain.accounts.governance,
        versions.scheduleRulesVersion(2, from),
    )
    .await
    .unwrap();
    let (sequence, root) = commit(world, first, "before").await;
    for enclave in [first, enclave_2, enclave_3] {
        at(enclave, sequence, root).await;
    }
    let (before, _) = network::absent(&world.chain, sequence).await.unwrap();
    assert!(before.boundaryBlock < from, "{before:?}");
    assert_eq!(before.rulesVersion, 1);
    for (enclave, implemented) in [(first, true), (enclave_2, false), (enclave_3, true)] {
        network::wait_for(enclave, PATIENCE, "what comes is announced", |h| {
            let rules = &h["chains"][0]["rules"];
            rules["in_force"] == 1
                && rules["scheduled"]
                    == json!([{ "version": 2, "active_from": from, "implemented": implemented }])
        })
        .await
        .unwrap();
    }
    say(&format!(
        "rules version 2 from block {from} on; commit {sequence} before it carries version 1"
    ));

    let _: () = world
        .chain
        .provider
        .client()
        .request("anvil_mine", (U64::from(BEFORE_ACTIVATION),))
        .await
        .unwrap();
    let (sequence, root) = commit(world, first, "after").await;
    for enclave in [first, enclave_3] {
        at(enclave, sequence, root).await;
    }
    let (after, absent) = network::absent(&world.chain, sequence).await.unwrap();
    assert!(after.boundaryBlock >= from, "{after:?}");
    assert_eq!(after.rulesVersion, 2);
    assert_eq!(absent, [second.operator]);
    let halted = network::wait_for(enclave_2, PATIENCE, "the older image halts", |h| {
        h["status"] == "halted"
    })
    .await
    .unwrap();
    let fault = halted["fault"].as_str().unwrap();
    assert!(
        fault.contains("rules version 2 is in force") && fault.contains("versions up to 1"),
        "{fault}"
    );
    say(&format!(
        "commit {sequence} carries version 2 without the older image, which halted: {fault}"
    ));

    let index = second.index;
    second.shim.stop().await;
    let second = world.join(index).await.unwrap();
    let enclave_2 = back(world, &second, shares).await;
    at(&enclave_2, sequence, root).await;
    let (sequence, root) = commit(world, first, "together").await;
    for enclave in [*first, &enclave_2, *enclave_3] {
        at(enclave, sequence, root).await;
    }
    let (together, _) = network::absent(&world.chain, sequence).await.unwrap();
    assert_eq!(together.rulesVersion, 2);
    say(
        "the newer image went on from the older one's page file, and its keys were admitted by the others",
    );
    second
}

/// Blocks between scheduling a rules version and its activation: more than a commit takes on a slow machine; who waits for them mines
/// them.
const BEFORE_ACTIVATION: u64 = 600;

/// Governance takes another image.
pub async fn whitelist(world: &World, backend: &Backend) {
    admission::whitelist(
        &world.chain,
        &newton_e2e::pcrs(backend).unwrap(),
        world.config_hash(),
        "another",
        Default::default(),
    )
    .await
    .unwrap();
}

/// A boot after the first one: it gets the secret, and signs once the others have admitted it.
async fn back(world: &World, member: &Member, shares: &KeptShares) -> Enclave {
    network::recover(world, member, shares, PATIENCE)
        .await
        .unwrap();
    let enclave = network::connect_stage(world, member, 2, PATIENCE)
        .await
        .unwrap();
    signing(member, &enclave).await;
    enclave
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
    // Its page file does not know what it signs from here on.
    let (unknown, root) = commit(world, &first, "signed").await;
    at(&enclave_2, unknown, root).await;
    let vote = super::twice::vote(&enclave_2, unknown).await.unwrap();

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
    // What it signed before is signed by nobody again: not by the new key, and the old one went with its boot.
    for number in 0..=sequence {
        assert!(super::twice::vote(&enclave_2, number).await.is_none());
    }
    assert!(!is_member(world, keccak256(&vote.bls_public_key)).await);
    say("rolled back, it has signed no commit a second time, and its old key is in no set");
    let twin =
        super::twice::twice(world, &second, &shares, &[&first, &enclave_2, &enclave_3]).await;

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
    twin.shim.stop().await;
    third.shim.stop().await;
    second.shim.stop().await;
}

/// Whether a key is in the newest operator set.
async fn is_member(world: &World, key: B256) -> bool {
    let registry = IOperatorRegistry::new(
        world.chain.contracts.operator_registry,
        &world.chain.provider,
    );
    let set = registry.latestSetId().call().await.unwrap();
    let members = registry.operatorSet(set).call().await.unwrap().members;
    members.iter().any(|m| m.blsKeyHash == key)
}

/// Waits until an enclave serves a committed source, proved by the contract.
pub async fn wait_leaf(world: &World, enclave: &Enclave, hash: B256) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while let Err(e) = leaves::fetch(&world.chain, enclave, Namespace::PolicyRego, hash).await {
        assert!(std::time::Instant::now() < deadline, "{e:#}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

pub async fn signing(member: &Member, enclave: &Enclave) {
    network::wait(member, enclave, PATIENCE, "it may sign", |h| {
        h["chains"][0]["signing"] == true
    })
    .await
    .unwrap();
}

/// Registers a template and waits until the chain has committed it; gives back sequence number and root.
pub async fn commit(world: &World, enclave: &Enclave, name: &str) -> (u64, B256) {
    let before = chain_tip(world).await.0;
    register(world, name).await;
    next_commit(world, enclave, before).await
}

/// Registers a template; gives back its source's hash.
pub async fn register(world: &World, name: &str) -> B256 {
    let source = source(name);
    let entrypoint = format!("{name}.allow");
    policy::register_rego(&world.chain, &world.da, source.as_bytes(), &entrypoint)
        .await
        .unwrap()
}

/// Hash of the source that [`commit`] registers under a name.
pub fn source_hash(name: &str) -> B256 {
    keccak256(source(name))
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
