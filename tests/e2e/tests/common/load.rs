//! More callers than the enclave serves, through the shim.

use std::{path::Path, sync::Arc, time::Duration};

use newton_da_store::Faults;
use newton_e2e::{
    World, load,
    run::{self, Summary},
    tasks::{self, WireIntent},
};
use serde_json::json;

use super::{SPEND_LIMIT, say};

/// One worker and 32 who wait for it are served at once, and 128 connections.
const CALLERS: usize = 160;
const DURATION: Duration = Duration::from_secs(5);
/// What requests and answers may hold in all is 256 MiB; the rest is room for the allocator.
const GROWTH_KIB: u64 = 512 << 10;

/// Every call is answered: with the policy's approval, or with a typed refusal to retry. Memory stays within its bounds, and the enclave
/// serves afterwards.
pub async fn overload(world: &World, project: &Path) {
    let example = project.join(SPEND_LIMIT);
    let ready = run::main_job(world, &example, &mut Summary::default(), &say)
        .await
        .unwrap();
    let intent = WireIntent::load(&example.join("intents/allow.json")).unwrap();
    let (task, _, _) = tasks::create(&world.chain, &intent, b"{}").await.unwrap();
    let enclave = Arc::new(ready.enclave);
    let patience = Duration::from_secs(120);
    tasks::evaluate(&enclave, task, patience).await.unwrap();
    let before = resident_kib();

    let params = load::simulation(world, &example).unwrap();
    let report = load::simulate(&enclave, &params, CALLERS, DURATION)
        .await
        .unwrap();
    say(&format!("{report:?}"));
    // How many are refused is the machine's affair: handshakes may be slower than evaluations.
    assert!(report.served > 0);
    let after = resident_kib();
    assert!(
        after < before + GROWTH_KIB,
        "{before} KiB before, {after} KiB after"
    );
    tasks::evaluate(&enclave, task, patience).await.unwrap();
}

/// What is warm is evaluated without a word to the chain or to DA: both stand still meanwhile.
pub async fn warm_evaluations_ask_nobody(world: &World, project: &Path) {
    let example = project.join(SPEND_LIMIT);
    let ready = run::main_job(world, &example, &mut Summary::default(), &say)
        .await
        .unwrap();
    let intent = WireIntent::load(&example.join("intents/allow.json")).unwrap();
    let (unasked, _, _) = tasks::create(&world.chain, &intent, b"{}").await.unwrap();
    let (warming, _, _) = tasks::create(&world.chain, &intent, b"{}").await.unwrap();
    // The later one was seen, so the earlier one was.
    tasks::evaluate(&ready.enclave, warming, Duration::from_secs(120))
        .await
        .unwrap();
    world.pause_chain(true).unwrap();
    let da = world.da_store.as_ref().unwrap();
    da.set_faults(Faults {
        get_status: Some(500),
        ..Faults::default()
    });
    let answer = ready
        .enclave
        .try_call("newt_evaluateAndSign", json!({ "task_id": unasked }))
        .await;
    // Before anything can fail: the world ends in order only with a chain that goes on.
    world.pause_chain(false).unwrap();
    da.set_faults(Faults::default());
    assert_eq!(answer.unwrap()["result"], json!(true));
}

/// Memory of the appliance's process, without its workers.
fn resident_kib() -> u64 {
    let read = |id: &str, file: &str| {
        std::fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default()
    };
    let own = std::process::id().to_string();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str() else { continue };
        let status = read(id, "status");
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let mine = field("PPid:").is_some_and(|parent| parent.trim() == own);
        if mine && read(id, "cmdline").contains("newton-appliance") {
            let resident = field("VmRSS:").unwrap().trim();
            return resident.split(' ').next().unwrap().parse().unwrap();
        }
    }
    panic!("no appliance among this process' children");
}
