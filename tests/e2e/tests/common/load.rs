//! More callers than the enclave serves, through the shim.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use newton_api::client::ClientError;
use newton_e2e::{
    World,
    run::{self, Summary},
    tasks::{self, WireIntent},
};
use newton_types::rpc::{Disposition, ErrorName};
use serde_json::json;
use tokio::task::JoinSet;

use super::{SPEND_LIMIT, say};

/// One worker and 32 who wait for it are served at once, so this is about three times as many.
const CALLERS: usize = 96;
const CALLS: usize = 3;
/// What requests and answers may hold in all is 256 MiB; the rest is room for the allocator.
const GROWTH_KIB: u64 = 512 << 10;

/// Every call is answered: with the one digest, or with a typed refusal to retry. Memory stays within its bounds, and the enclave
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
    let first = tasks::evaluate(&enclave, task, patience).await.unwrap();
    let before = resident_kib();

    let started = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (enclave, digest) = (enclave.clone(), first.digest);
        callers.spawn(async move {
            let (mut served, mut refused) = (0, 0);
            for _ in 0..CALLS {
                let params = json!({ "task_id": task });
                match enclave.try_call("newt_evaluateAndSign", params).await {
                    Ok(answer) => {
                        assert_eq!(answer["digest"], json!(digest));
                        served += 1;
                    }
                    Err(ClientError::Rpc(e)) => {
                        assert_eq!(e.name, ErrorName::Overloaded, "{e}");
                        assert_eq!(e.name.disposition(), Disposition::Retryable);
                        refused += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            (served, refused)
        });
    }
    let (mut served, mut refused) = (0, 0);
    while let Some(outcome) = callers.join_next().await {
        let (s, r) = outcome.unwrap();
        served += s;
        refused += r;
    }
    let took = started.elapsed();
    say(&format!(
        "{served} answers and {refused} refusals in {took:.1?}"
    ));
    assert_eq!(served + refused, CALLERS * CALLS);
    // How many are refused is the machine's affair: handshakes may be slower than evaluations.
    assert!(served > 0);
    let after = resident_kib();
    assert!(
        after < before + GROWTH_KIB,
        "{before} KiB before, {after} KiB after"
    );
    tasks::evaluate(&enclave, task, patience).await.unwrap();
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
