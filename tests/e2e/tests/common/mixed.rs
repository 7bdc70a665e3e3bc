//! The real image as one operator's enclave, between two that run as processes.

use std::{path::Path, time::Duration};

use alloy::{primitives::U64, providers::Provider};
use newton_contracts::abi::IEnclaveVersionRegistry;
use newton_e2e::{
    Host, World,
    chain::send,
    network,
    run::{self, Summary},
};
use newton_xtask::setup::Setup;

use super::{
    operators::{at, chain_tip, commit, register, signing, whitelist},
    say,
};

/// Emulation takes its time, and more where other work runs.
const PATIENCE: Duration = Duration::from_secs(300);

/// Two images are on the list. The real one's enclave is admitted by the two processes, derives the same roots, and its vote makes a
/// quorum where one of them is down. At rules that it does not have it halts by name.
pub async fn image_among_processes(world: &World, _project: &Path) {
    let (first, shares) = run::admit(world, &mut Summary::default(), &say)
        .await
        .unwrap();
    let (second, enclave_2) = network::join(world, 1, &shares, &[&first], PATIENCE)
        .await
        .unwrap();
    signing(&second, &enclave_2).await;
    let image = super::qemu(&Setup::new().unwrap());
    whitelist(world, &image).await;
    let host = Host {
        backend: Some(image),
        ..Host::default()
    };
    let voters = [&first, &enclave_2];
    let (third, enclave_3) = network::join_as(world, 2, &host, &shares, &voters, PATIENCE)
        .await
        .unwrap();
    assert!(first.attested.signed && !enclave_3.attested.signed);
    assert_ne!(first.attested.pcrs, enclave_3.attested.pcrs);
    signing(&third, &enclave_3).await;
    say("the image was admitted under QEMU by two enclaves that run as processes");

    let (sequence, root) = commit(world, &first, "one").await;
    for enclave in [&first, &enclave_2, &enclave_3] {
        at(enclave, sequence, root).await;
    }
    second.shim.kill_enclave().await;
    let (sequence, root) = commit(world, &first, "two").await;
    for enclave in [&first, &enclave_3] {
        at(enclave, sequence, root).await;
    }
    let (_, absent) = network::absent(&world.chain, sequence).await.unwrap();
    assert_eq!(absent, [second.operator]);
    say(&format!(
        "commit {sequence}: the image's vote and a process' are the quorum, root {root}"
    ));

    let versions = IEnclaveVersionRegistry::new(
        world.chain.contracts.enclave_version_registry,
        &world.chain.provider,
    );
    let provider = &world.chain.provider;
    let from = provider.get_block_number().await.unwrap() + 5;
    send(
        "scheduleRulesVersion",
        world.chain.accounts.governance,
        versions.scheduleRulesVersion(2, from),
    )
    .await
    .unwrap();
    let _: () = provider
        .client()
        .request("anvil_mine", (U64::from(5),))
        .await
        .unwrap();
    register(world, "three").await;
    for enclave in [&first, &enclave_3] {
        let halted = network::wait_for(enclave, PATIENCE, "it halts", |h| h["status"] == "halted")
            .await
            .unwrap();
        let fault = halted["fault"].as_str().unwrap();
        assert!(fault.contains("rules version 2 is in force"), "{fault}");
    }
    assert_eq!(chain_tip(world).await, (sequence, root));
    say("at a rules version that neither image has, both halt by name and nothing is committed");
    third.shim.stop().await;
    second.shim.stop().await;
}
