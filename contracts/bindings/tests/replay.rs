//! The logs say everything: every state-changing function of the followed contracts is called by real transactions, and
//! what the enclave's own decoder and registry make of the logs is compared with every row on the chain.
#![allow(clippy::unwrap_used, missing_docs)]

mod actions;
mod rows;
mod support;

use std::collections::BTreeSet;

use actions::World;
use serde_json::{Value, json};

/// Functions that no transaction calls: constructors' and contracts' own.
const NOT_BY_TRANSACTION: [&str; 4] = [
    // The proxy's constructor did.
    "initialize",
    // The policy registries do, with every registration.
    "recordRegistered",
    // The version registry does, when it revokes.
    "onVersionRevoked",
    // The challenge verifier does, for what was proved.
    "slashOperator",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_row_on_the_chain_follows_from_the_logs() {
    let mut world = World::start().await;
    let mut replay = rows::Replay::new(&world).await;
    replay.compare(&world).await;

    world.images_and_configurations().await;
    replay.compare(&world).await;
    world.operators_join().await;
    replay.compare(&world).await;
    world.key_epochs().await;
    world.clients_and_lists().await;
    replay.compare(&world).await;
    world.templates_and_instances().await;
    replay.compare(&world).await;
    world.tasks().await;
    replay.compare(&world).await;
    world.commits().await;
    replay.compare(&world).await;
    world.new_parameters().await;
    replay.compare(&world).await;
    world.pass(1_000).await;
    replay.compare(&world).await;
    world.punishment().await;
    replay.compare(&world).await;
    world.revocation().await;
    replay.compare(&world).await;
    world.recovery().await;
    replay.compare(&world).await;
    world.operators_leave().await;
    replay.compare(&world).await;
    world.pauses().await;
    replay.compare(&world).await;
    world.owners_and_upgrades().await;
    replay.compare(&world).await;
    world.nobody_owns().await;
    replay.compare(&world).await;

    let called = called(&world).await;
    for (name, address) in world.followed() {
        for (function, selector) in state_changing(name) {
            assert_eq!(
                called.contains(&(address.to_string(), selector)),
                !NOT_BY_TRANSACTION.contains(&function.as_str()),
                "{name}.{function}"
            );
        }
    }
}

/// Contract and selector of every transaction that succeeded.
async fn called(world: &World) -> BTreeSet<(String, String)> {
    let mut out = BTreeSet::new();
    for number in 0..=world.chain.number().await {
        let block = world
            .chain
            .rpc(
                "eth_getBlockByNumber",
                json!([format!("{number:#x}"), true]),
            )
            .await;
        for transaction in block["transactions"].as_array().unwrap() {
            let hash = json!([transaction["hash"]]);
            let receipt = world.chain.rpc("eth_getTransactionReceipt", hash).await;
            let input = transaction["input"].as_str().unwrap();
            if let (Some(to), Some(selector), "0x1") = (
                transaction["to"].as_str(),
                input.get(2..10),
                receipt["status"].as_str().unwrap(),
            ) {
                let to: alloy_primitives::Address = to.parse().unwrap();
                out.insert((to.to_string(), selector.to_owned()));
            }
        }
    }
    out
}

/// Name and selector of every function of a compiled contract that is not a view.
fn state_changing(contract: &str) -> Vec<(String, String)> {
    let path = support::out_dir().join(format!("{contract}.sol/{contract}.json"));
    let artifact: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let changing: BTreeSet<&str> = artifact["abi"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|f| {
            f["type"] == "function"
                && (f["stateMutability"] == "nonpayable" || f["stateMutability"] == "payable")
        })
        .map(|f| f["name"].as_str().unwrap())
        .collect();
    assert!(!changing.is_empty(), "{contract}");
    artifact["methodIdentifiers"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(signature, selector)| (signature.split('(').next().unwrap(), selector))
        .filter(|(name, _)| changing.contains(name))
        .map(|(name, selector)| (name.to_owned(), selector.as_str().unwrap().to_owned()))
        .collect()
}
