//! A deployment that is repeated, interrupted, refused or only planned, on a real node; and the program over it.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use alloy::providers::Provider;
use alloy_primitives::Address;
use newton_contracts::abi;
use newton_contracts::deploy::{DeployConfig, DeployError, Deployment, Outcome, Plan};
use serde_json::json;
use support::{Chain, config_dir, out_dir};

/// Key of anvil's first account.
const KEY: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

fn config() -> DeployConfig {
    DeployConfig::for_chain(&config_dir(), 31337).unwrap()
}

async fn plan(chain: &Chain, config: &DeployConfig) -> Result<Plan, DeployError> {
    Plan::make(
        &chain.provider,
        chain.accounts()[0],
        config,
        &out_dir(),
        None,
    )
    .await
}

async fn execute(chain: &Chain) -> Outcome {
    let plan = plan(chain, &config()).await.unwrap();
    plan.execute(&chain.provider, None).await.unwrap()
}

async fn nonce(chain: &Chain) -> u64 {
    let deployer = chain.accounts()[0];
    chain
        .provider
        .get_transaction_count(deployer)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_sends_nothing_and_finds_the_same() {
    let chain = Chain::start().await;
    chain.mine(5).await;
    let first = execute(&chain).await;
    assert_eq!((first.sent, nonce(&chain).await), (20, 20));
    // Whatever else the account does afterwards.
    let call = abi::IEnclaveVersionRegistry::new(
        first.deployment.addresses.enclave_version_registry,
        &chain.provider,
    );
    let role = chain.accounts()[3];
    chain
        .send(
            "setEmergencyRole",
            call.setEmergencyRole(role).from(chain.accounts()[0]),
        )
        .await;
    chain.mine(40).await;

    let again = execute(&chain).await;
    assert_eq!((again.sent, nonce(&chain).await), (0, 21));
    let known = Deployment {
        steps: Vec::new(),
        ..first.deployment.clone()
    };
    assert_eq!(again.deployment, known, "read from the chain alone");
    let [change] = &again.changes[..] else {
        panic!("{:?}", again.changes);
    };
    assert_eq!(
        (change.what, change.got.as_str()),
        ("emergencyRole", role.to_string().as_str())
    );

    // What cannot change has to agree.
    let mut other = config();
    other.exit_delay_seconds += 1;
    let error = plan(&chain, &other)
        .await
        .unwrap()
        .execute(&chain.provider, None)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            DeployError::ReadBack {
                what: "exitDelay",
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_is_continued_wherever_it_stopped() {
    let chain = Chain::start().await;
    let mut done = 0;
    for stop in [1, 9, 4, 5] {
        let plan = plan(&chain, &config()).await.unwrap();
        assert_eq!(plan.found, done);
        let error = plan
            .execute_some(&chain.provider, None, stop)
            .await
            .unwrap_err();
        assert!(
            matches!(error, DeployError::Stopped { sent } if sent == stop),
            "{error}"
        );
        done += stop;
        assert_eq!(nonce(&chain).await, done as u64);
        chain.mine(3).await;
    }
    // The initializers that ran must have been given what is asked for now.
    let mut other = config();
    other.parameters.cadence += 1;
    let error = plan(&chain, &other)
        .await
        .unwrap()
        .execute(&chain.provider, None)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            DeployError::ReadBack {
                what: "cadence",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(nonce(&chain).await, 19);

    let outcome = execute(&chain).await;
    assert_eq!((outcome.sent, nonce(&chain).await), (1, 20));
    let deployment = outcome.deployment;
    assert_eq!(deployment.deployment_block, 1);
    let commits =
        abi::IStateCommitRegistry::new(deployment.addresses.state_commit_registry, &chain.provider);
    assert_eq!(
        commits.deploymentBlock().call().await.unwrap(),
        deployment.genesis_block
    );
    assert_eq!(
        execute(&chain).await.deployment.addresses,
        deployment.addresses
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unmined_creation_is_waited_for() {
    let chain = Chain::start().await;
    let plan = plan(&chain, &config()).await.unwrap();
    plan.execute_some(&chain.provider, None, 3)
        .await
        .unwrap_err();
    chain.rpc("evm_setAutomine", json!([false])).await;
    let step = &plan.steps[3];
    chain
        .rpc(
            "eth_sendTransaction",
            json!([{"from": plan.deployer, "data": step.init_code, "gas": "0x1000000"}]),
        )
        .await;
    let error = self::plan(&chain, &config()).await.unwrap_err();
    assert!(
        matches!(
            error,
            DeployError::Unmined {
                mined: 3,
                pending: 4,
                ..
            }
        ),
        "{error}"
    );
    chain.mine(1).await;
    chain.rpc("evm_setAutomine", json!([true])).await;
    assert_eq!(execute(&chain).await.sent, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonces_and_code_that_disagree_are_refused() {
    let chain = Chain::start().await;
    let deployer = chain.accounts()[0];
    let at = |nonce| deployer.create(nonce);
    let put = async |address: Address, code: &str| {
        chain.rpc("anvil_setCode", json!([address, code])).await;
    };
    // Code where nothing was created yet.
    put(at(14), "0x6001").await;
    let error = plan(&chain, &config()).await.unwrap_err();
    assert!(
        matches!(&error, DeployError::ForeignCode { name, address }
            if name == "EnclaveVersionRegistry proxy" && *address == at(14)),
        "{error}"
    );
    put(at(14), "0x").await;
    // Other code where something was created.
    let made = plan(&chain, &config()).await.unwrap();
    made.execute_some(&chain.provider, None, 12)
        .await
        .unwrap_err();
    let real = chain.provider.get_code_at(at(2)).await.unwrap();
    let mut other = real.to_vec();
    other[7] ^= 1;
    put(at(2), &alloy_primitives::hex::encode_prefixed(&other)).await;
    let error = plan(&chain, &config()).await.unwrap_err();
    assert!(
        matches!(&error, DeployError::ForeignCode { name, .. } if name == "PolicyRegistry"),
        "{error}"
    );
    // The right code, wired to another set.
    let mut other = real.to_vec();
    let wired = at(10);
    let place = real
        .windows(20)
        .position(|w| w == wired.as_slice())
        .unwrap();
    other[place] ^= 1;
    put(at(2), &alloy_primitives::hex::encode_prefixed(&other)).await;
    let error = plan(&chain, &config()).await.unwrap_err();
    assert!(
        matches!(&error, DeployError::ForeignCode { name, .. } if name == "PolicyRegistry"),
        "{error}"
    );
    put(at(2), &alloy_primitives::hex::encode_prefixed(&real)).await;
    assert_eq!(plan(&chain, &config()).await.unwrap().found, 12);
    // A nonce of the set that something else took.
    chain.pay(deployer, chain.accounts()[1]).await;
    let error = plan(&chain, &config()).await.unwrap_err();
    assert!(
        matches!(&error, DeployError::NonceSpent { nonce: 12, name, .. } if name == "PolicyRegistry proxy"),
        "{error}"
    );
    // Another set, later; and none where the account has not been.
    let from = async |nonce| {
        Plan::make(
            &chain.provider,
            deployer,
            &config(),
            &out_dir(),
            Some(nonce),
        )
        .await
    };
    let error = from(14).await.unwrap_err();
    assert!(
        matches!(
            error,
            DeployError::NonceBehind {
                first: 14,
                nonce: 13,
                ..
            }
        ),
        "{error}"
    );
    let other = from(13).await.unwrap();
    assert_eq!((other.found, other.first_nonce), (0, 13));
    other.execute(&chain.provider, None).await.unwrap();
    let newest = plan(&chain, &config()).await.unwrap();
    assert_eq!((newest.found, newest.first_nonce), (20, 13));
    // An account with a history of other things.
    let stranger = chain.accounts()[1];
    chain.pay(stranger, deployer).await;
    let error = Plan::make(&chain.provider, stranger, &config(), &out_dir(), None)
        .await
        .unwrap_err();
    assert!(
        matches!(error, DeployError::NothingFound { nonce: 1, .. }),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_main_network_needs_an_owner_that_is_a_contract() {
    let chain = Chain::start_with(&["--chain-id", "1"]).await;
    let mut config = DeployConfig::for_chain(&config_dir(), 1).unwrap();
    config.owner = None;
    let error = plan(&chain, &config).await.unwrap_err();
    assert!(
        matches!(error, DeployError::NoOwner { chain_id: 1, .. }),
        "{error}"
    );
    let safe = Address::repeat_byte(0x5a);
    config.owner = Some(safe);
    let error = plan(&chain, &config).await.unwrap_err();
    assert!(
        matches!(error, DeployError::OwnerWithoutCode { owner, .. } if owner == safe),
        "{error}"
    );
    assert_eq!(nonce(&chain).await, 0);
    chain.rpc("anvil_setCode", json!([safe, "0x00"])).await;
    let outcome = plan(&chain, &config)
        .await
        .unwrap()
        .execute(&chain.provider, None)
        .await
        .unwrap();
    assert_eq!((outcome.sent, outcome.deployment.owner), (20, safe));
    // The deployer can do nothing with what it made.
    let versions = abi::IEnclaveVersionRegistry::new(
        outcome.deployment.addresses.enclave_version_registry,
        &chain.provider,
    );
    let call = versions.approveConfig(Default::default(), true);
    assert!(call.from(chain.accounts()[0]).call().await.is_err());
    let call = versions.approveConfig(Default::default(), true);
    call.from(safe).call().await.unwrap();
}

fn program(chain: &Chain, folder: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_newton-deploy"))
        .args(["--rpc", &chain.url])
        .arg("--artifacts")
        .arg(out_dir())
        .arg("--out")
        .arg(folder.join("addresses.json"))
        .args(more)
        .env("NEWTON_TEST_DEPLOYER", KEY)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let all = text(&output.stdout) + &text(&output.stderr);
    assert!(!all.contains(KEY) && !all.contains(&KEY[..16]), "a secret");
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_plans_deploys_and_verifies() {
    let chain = Chain::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = (
        folder.path().join("addresses.json"),
        folder.path().join("key"),
    );
    std::fs::write(&key, format!("0x{KEY}\n")).unwrap();
    let configs = config_dir().to_str().unwrap().to_owned();
    let with_file = [
        "--config-dir",
        configs.as_str(),
        "--private-key-file",
        key.to_str().unwrap(),
    ];
    let with_variable = [
        "--config-dir",
        configs.as_str(),
        "--private-key-env",
        "NEWTON_TEST_DEPLOYER",
    ];

    // Readable by others.
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = program(&chain, folder.path(), &with_file);
    assert!(!refused.status.success());
    assert!(text(&refused).contains("can be read by others"));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();

    // A dry run, with the key or the address alone.
    let address = chain.accounts()[0].to_string();
    let alone = ["--config-dir", configs.as_str(), "--deployer", &address];
    for account in [&with_file, &with_variable, &alone] {
        let planned = program(
            &chain,
            folder.path(),
            &[&account[..], &["--dry-run"]].concat(),
        );
        let planned_text = text(&planned);
        assert!(planned.status.success(), "{planned_text}");
        assert!(planned_text.contains("nothing was sent"));
        for step in plan(&chain, &config()).await.unwrap().steps {
            let line = planned_text
                .lines()
                .find(|line| line.contains(&step.address.to_string()))
                .unwrap();
            assert!(
                line.contains(&step.name) && line.contains(&step.init_code.len().to_string()),
                "{line}"
            );
        }
        assert!(!file.exists());
        assert_eq!(nonce(&chain).await, 0);
        assert_eq!(chain.number().await, 0);
    }
    let without_key = program(&chain, folder.path(), &alone);
    assert!(!without_key.status.success(), "an address cannot sign");

    let deployed = program(&chain, folder.path(), &with_file);
    assert!(deployed.status.success(), "{}", text(&deployed));
    let written = std::fs::read_to_string(&file).unwrap();
    let deployment: Deployment = serde_json::from_str(&written).unwrap();
    assert_eq!((deployment.steps.len(), nonce(&chain).await), (20, 20));
    let commits =
        abi::IStateCommitRegistry::new(deployment.addresses.state_commit_registry, &chain.provider);
    assert_eq!(
        commits.deploymentBlock().call().await.unwrap(),
        deployment.genesis_block
    );

    let again = program(&chain, folder.path(), &with_variable);
    assert!(again.status.success(), "{}", text(&again));
    assert!(text(&again).contains("nothing was sent"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), written);
    assert_eq!(nonce(&chain).await, 20);

    // The file lost: the chain alone says the same.
    std::fs::remove_file(&file).unwrap();
    let found = program(&chain, folder.path(), &with_file);
    assert!(found.status.success(), "{}", text(&found));
    let rebuilt: Deployment =
        serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(rebuilt.addresses, deployment.addresses);
    assert_eq!(rebuilt.deployment_block, deployment.deployment_block);
    assert_eq!(rebuilt.genesis_hash, deployment.genesis_hash);
    assert_eq!(nonce(&chain).await, 20);

    // The file of another account.
    let other = Deployment {
        deployer: chain.accounts()[1],
        ..deployment
    };
    std::fs::write(&file, serde_json::to_string(&other).unwrap()).unwrap();
    let refused = program(&chain, folder.path(), &with_file);
    assert!(!refused.status.success());
    assert!(text(&refused).contains("is a deployment by"));
    assert_eq!(nonce(&chain).await, 20);
}
