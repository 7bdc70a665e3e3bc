//! What both backends go through.
#![allow(dead_code)]

pub mod bootstrap;
pub mod components;
pub mod impostor;
pub mod load;
pub mod mixed;
pub mod operators;
pub mod recorder;
pub mod rounds;
pub mod simulations;
pub mod twice;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use newton_api::client::ClientError;
use newton_e2e::{
    Backend, HttpsServer, Paths, World, WorldOptions, admission, compile,
    enclave::Enclave,
    leaves,
    policy::{self, Example},
    run::{self, Ready, Summary},
    tasks::{self, WireIntent},
};
use newton_types::{Namespace, rpc::ErrorName};
use newton_xtask::{image, setup::Setup};
use serde_json::{Value, json};

/// The example of the main job.
const SPEND_LIMIT: &str = "tests/examples/spend-limit";

/// Which backend.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    Image,
    Process,
    /// The process backend's second image: it has the next rules version, too.
    NextProcess,
}

/// The appliance as a process that stands for one of its two images.
pub fn process(setup: &Setup, image: u8) -> Backend {
    Backend::Process {
        appliance: compile::process_appliance(setup).unwrap(),
        image,
    }
}

/// The built image under QEMU.
pub fn qemu(setup: &Setup) -> Backend {
    Backend::Qemu {
        image: Box::new(image::build(setup).unwrap()),
        qemu: setup.qemu().unwrap(),
        vhost_device_vsock: setup.vhost_device_vsock().unwrap(),
    }
}

/// Makes a world, tells a story in it with the project's folder, ends it.
pub fn run(setting: Setting, story: impl AsyncFnOnce(&World, &Path)) {
    run_with(setting, Network::default(), story);
}

/// What there is room for.
#[derive(Clone, Copy)]
pub struct Network {
    /// Operators that may join.
    pub operators: usize,
    /// Greatest life of an attestation in blocks, if it is not the development chain's: old versions are kept for it.
    pub max_expire_after: Option<u64>,
}

impl Network {
    /// Of several operators.
    pub fn of(operators: usize) -> Self {
        Self {
            operators,
            max_expire_after: None,
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::of(1)
    }
}

/// The same with room for several operators.
pub fn run_with(setting: Setting, network: Network, story: impl AsyncFnOnce(&World, &Path)) {
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(tell(setting, Vec::new(), network, story));
}

/// The same where components reach `servers`.
pub async fn tell(
    setting: Setting,
    servers: Vec<HttpsServer>,
    network: Network,
    story: impl AsyncFnOnce(&World, &Path),
) {
    let setup = Setup::new().unwrap();
    let tools = setup.contract_tools().unwrap();
    let backend = match setting {
        Setting::Image => qemu(&setup),
        Setting::Process => process(&setup, 1),
        Setting::NextProcess => process(&setup, 2),
    };
    let folder = tempfile::Builder::new()
        .prefix("ne2e")
        .tempdir_in("/tmp")
        .unwrap();
    let options = WorldOptions {
        paths: Paths {
            anvil: tools.anvil.clone(),
            contracts_out: compile::contracts(&setup, &tools).unwrap(),
            contracts_config: setup.project().path("contracts/config"),
        },
        backend,
        folder: folder.path().to_owned(),
        da_url: None,
        listen: "127.0.0.1:0".parse().unwrap(),
        cadence: 2,
        memory_mib: match setting {
            Setting::Image => 1024,
            // Large components are compiled there.
            Setting::Process | Setting::NextProcess => 2048,
        },
        servers,
        operators: network.operators,
        max_expire_after: network.max_expire_after,
    };
    let world = World::start(&options, &|step| eprintln!("  {step}"))
        .await
        .unwrap();
    story(&world, setup.project().root()).await;
    world.shim.stop().await;
}

fn say(step: &str) {
    eprintln!("  {step}");
}

/// The main job; kill -9; the same page file in a new boot; then a page file with flipped bytes.
pub async fn main_job_and_power_cut(world: &World, project: &Path) {
    let example = project.join(SPEND_LIMIT);
    let mut summary = Summary::default();
    let mut ready = run::main_job(world, &example, &mut summary, &say)
        .await
        .unwrap();
    let first_boot = ready.enclave.attested.boot_id;
    metric(world, "wasm_module_compilations_total", 1).await;
    metric(
        world,
        "wasm_module_prewarm_attempts_total{result=\"ok\"}",
        1,
    )
    .await;

    power_cut(world, &mut ready).await;
    assert_ne!(
        ready.enclave.attested.boot_id, first_boot,
        "a boot has its own keys"
    );
    let health = health(&ready.enclave).await;
    assert_eq!(health["chains"][0]["state_root"], json!(summary.state_root));
    assert_eq!(
        health["chains"][0]["signing"], false,
        "the new keys are not admitted yet"
    );
    let intent = WireIntent::load(&example.join("intents/allow.json")).unwrap();
    let (early, _, _) = tasks::create(&world.chain, &intent, b"{}").await.unwrap();
    say("the same root after the restart; re-admitting the new boot's keys");

    admission::retire(&world.chain).await.unwrap();
    newton_e2e::chain::wait_blocks(&world.chain.provider, 1)
        .await
        .unwrap();
    admission::admit(&world.chain, &ready.enclave)
        .await
        .unwrap();
    wait(world, &ready.enclave, "the new keys sign", |h| {
        h["chains"][0]["signing"] == true
    })
    .await;
    let refused = ready
        .enclave
        .try_call("newt_evaluateAndSign", json!({ "task_id": early }))
        .await
        .unwrap_err();
    assert_eq!(
        name(refused),
        ErrorName::NotAdmittedYet,
        "a task from before the admission"
    );

    let sequence = run::last_commit(world).await.unwrap().0;
    let rego = next_policy(world).await;
    wait(world, &ready.enclave, "the next commit", |h| {
        h["chains"][0]["sequence_no"].as_u64() > Some(sequence)
    })
    .await;
    leaves::fetch(&world.chain, &ready.enclave, Namespace::PolicyRego, rego)
        .await
        .unwrap();
    let answered = tasks::run(&world.chain, &ready.enclave, &intent, b"{}")
        .await
        .unwrap();
    assert!(answered.allowed);
    // The task's component was compiled in the boot before; this one took it from the pages.
    metric(world, "artifact_cache_hits_total{tier=\"pages\"}", 1).await;
    metric(world, "wasm_module_compilations_total", 0).await;
    metric(world, "worker_deaths_total{pool=\"tasks\"}", 0).await;
    let text = world.shim.metrics();
    for name in [
        "policy_commit_defer_queue_depth{chain_id=",
        "state_commit_sequence{chain_id=",
        "evaluation_duration_seconds_count ",
        "page_store_reads_total ",
        "rpc_calls_total ",
    ] {
        assert!(text.contains(name), "{name}: {text}");
    }
    say("the next commit landed, and a task was answered with the new keys");

    flipped_bytes(world, &ready).await;
}

/// kill -9, boot again over the same page file, recover the secret.
async fn power_cut(world: &World, ready: &mut Ready) {
    world.shim.kill_enclave().await;
    world.shim.restart_enclave().await.unwrap();
    say("killed and booted again; the share holders give the secret back");
    recover(world, ready).await;
    ready.enclave = run::connect_stage(world, 2).await.unwrap();
}

async fn recover(world: &World, ready: &Ready) {
    let waiting = run::connect_stage(world, 1).await.unwrap();
    wait(world, &waiting, "it waits for shares", |h| {
        h["status"] == "awaiting_secret"
    })
    .await;
    let waiting = run::connect_stage(world, 1).await.unwrap();
    world
        .holders
        .recover(&ready.shares, &waiting)
        .await
        .unwrap();
}

/// A host that changes the page file is told apart: the enclave names a page and signs nothing.
async fn flipped_bytes(world: &World, ready: &Ready) {
    world.shim.kill_enclave().await;
    let path = world.page_file();
    let mut bytes = std::fs::read(&path).unwrap();
    // One bit in each slot behind the superblocks: some slots are free, and which ones the host cannot know either.
    for slot in bytes.chunks_mut(4096).skip(4) {
        if let Some(byte) = slot.get_mut(100) {
            *byte ^= 1;
        }
    }
    std::fs::write(&path, &bytes).unwrap();
    world.shim.restart_enclave().await.unwrap();
    recover(world, ready).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    let fault = loop {
        let enclave = world.connect(Duration::from_secs(60)).await.unwrap();
        let health = health(&enclave).await;
        assert_ne!(health["status"], "ready", "a changed page file was taken");
        if health["status"] == "halted" {
            break health["fault"].as_str().unwrap().to_owned();
        }
        assert!(
            Instant::now() < deadline,
            "neither refused nor ready: {health}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(fault.contains("page") || fault.contains("slot"), "{fault}");
    assert!(
        fault.chars().any(|c| c.is_ascii_digit()),
        "the fault names no page: {fault}"
    );
    say(&format!("flipped bytes are refused: {fault}"));
}

/// Another policy template, so that there is something to commit.
async fn next_policy(world: &World) -> alloy::primitives::B256 {
    let source = b"package other\n\nimport rego.v1\n\ndefault allow := false\n";
    policy::register_rego(&world.chain, &world.da, source, "other.allow")
        .await
        .unwrap()
}

/// Errors that callers of the JSON-RPC meet.
pub async fn mistakes(world: &World, project: &Path) {
    let example = project.join(SPEND_LIMIT);
    let mut summary = Summary::default();
    let (enclave, _) = run::admit(world, &mut summary, &say).await.unwrap();
    let zero = format!("0x{}", "00".repeat(32));
    for (method, params, expected) in [
        ("newt_nothing", json!({}), ErrorName::MethodNotFound),
        ("newt_sendTask", json!({}), ErrorName::InvalidParams),
        ("newt_simulatePolicy", json!({}), ErrorName::InvalidParams),
        ("newt_health", json!({ "x": 1 }), ErrorName::InvalidParams),
        ("newt_getAttestation", json!({}), ErrorName::InvalidParams),
        (
            "newt_getAttestation",
            json!({ "nonce": "0x" }),
            ErrorName::InvalidParams,
        ),
        (
            "newt_evaluateAndSign",
            json!({ "task_id": zero }),
            ErrorName::TaskNotFound,
        ),
        (
            "newt_evaluateAndSign",
            json!({ "task_id": "zz" }),
            ErrorName::InvalidParams,
        ),
        (
            "newt_getArtifact",
            json!({ "namespace": 4, "hash": zero }),
            ErrorName::NotFound,
        ),
        (
            "newt_getArtifact",
            json!({ "namespace": 3, "hash": zero }),
            ErrorName::InvalidParams,
        ),
        (
            "newt_getArtifact",
            json!({ "namespace": 9, "hash": zero }),
            ErrorName::InvalidParams,
        ),
        (
            "newt_getStateCommit",
            json!({ "sequence_no": 99 }),
            ErrorName::NotFound,
        ),
        (
            "newt_getStateCommit",
            json!({ "chain_id": 5 }),
            ErrorName::InvalidParams,
        ),
        (
            "newt_getCommitVote",
            json!({ "sequence_no": 99 }),
            ErrorName::NotFound,
        ),
        (
            "newt_getPolicyStatus",
            json!({ "policy_client": world.chain.accounts.author }),
            ErrorName::PolicyNotDeployedOnChain,
        ),
        (
            "newt_submitShare",
            json!({ "index": 1, "enc": zero, "ciphertext": "0x00" }),
            ErrorName::InvalidRequest,
        ),
    ] {
        let error = enclave.try_call(method, params.clone()).await.unwrap_err();
        assert_eq!(name(error), expected, "{method} {params}");
    }
    let stranger = world
        .connect(Duration::from_secs(10))
        .await
        .unwrap()
        .with_bearer("wrong");
    let error = stranger
        .try_call("newt_evaluateAndSign", json!({ "task_id": zero }))
        .await
        .unwrap_err();
    assert_eq!(name(error), ErrorName::Unauthorized);
    rejected_content(world, &enclave, &example).await;
}

/// Content that does not hold is rejected with its reason, and what comes behind it is still committed.
async fn rejected_content(world: &World, enclave: &Enclave, example: &std::path::Path) {
    let bad = b"package bad\n\nallow := http.send({\"url\": \"https://example.org\"})\n";
    let hash = policy::register_rego(&world.chain, &world.da, bad, "bad.allow")
        .await
        .unwrap();
    let example = Example::spend_limit(example).unwrap();
    let secrets_key = enclave.attested.hpke_public_key;
    let deployed = policy::deploy(&world.chain, &world.da, &example, secrets_key)
        .await
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status = enclave
            .try_call(
                "newt_getPolicyStatus",
                json!({ "policy_client": deployed.client }),
            )
            .await;
        if status.as_ref().is_ok_and(|s| s["ready"] == true) {
            break;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let error = enclave
        .try_call("newt_getArtifact", json!({ "namespace": 4, "hash": hash }))
        .await
        .unwrap_err();
    assert_eq!(
        name(error),
        ErrorName::NotFound,
        "the rejected source is not in the tree"
    );
}

/// Waits until the host has been told this value.
async fn metric(world: &World, name: &str, value: u64) {
    metric_of(world, name, |told| told == value).await;
}

/// Waits until the host has been told a value as it should be.
async fn metric_of(world: &World, name: &str, fits: impl Fn(u64) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let text = world.shim.metrics();
        let told = text.lines().find_map(|line| {
            let (of, value) = line.rsplit_once(' ')?;
            (of == name).then(|| value.parse().ok()).flatten()
        });
        if told.is_some_and(&fits) {
            return;
        }
        assert!(Instant::now() < deadline, "{name} is {told:?}: {text}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn health(enclave: &Enclave) -> Value {
    enclave.call("newt_health", json!({})).await.unwrap()
}

async fn wait(world: &World, enclave: &Enclave, what: &str, done: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let health = health(enclave).await;
        if done(&health) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{what}: not in time: {health}\n{}",
            world.console_tail()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn name(error: ClientError) -> ErrorName {
    match error {
        ClientError::Rpc(e) => e.name,
        other => panic!("{other}"),
    }
}
