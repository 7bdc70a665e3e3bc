//! View and follower against a real node: finality, pending blocks, reorgs, and the state built from them.
//!
//! Needs anvil: `NEWTON_ANVIL`, else `contracts/node_modules/.bin/anvil`, else the one in `PATH`.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use newton_chain::{ChainError, ChainView, Follower, RpcChainView, UnverifiedRpc};
use newton_state::{CatchUp, ChainConfig, Next, StateStore, Verdict};
use newton_types::events::RegistryEvent;
use newton_types::manifest::Contracts;
use newton_types::{ABSENT, Address, B256, Bytes, LeafKey, Namespace, U256, abi, ids, keccak256};
use redb::{Database, backends::InMemoryBackend};
use serde_json::json;
use support::{CHAIN_ID, Node, manifest};

fn store(contracts: &Contracts) -> StateStore {
    let db = Database::builder()
        .create_with_backend(InMemoryBackend::new())
        .unwrap();
    let config = ChainConfig {
        chain_id: CHAIN_ID,
        state_commit_registry: contracts.state_commit_registry,
        first_block: 0,
        deployment_block: 8,
        deployment_block_hash: None,
    };
    StateStore::open(Arc::new(db), config).unwrap()
}

fn parameters(genesis_time: u64) -> abi::IStateCommitRegistry::ConsensusParametersSet {
    abi::IStateCommitRegistry::ConsensusParametersSet {
        parameters: abi::ConsensusParameters {
            genesisTime: genesis_time,
            cadence: 5,
            maxCommitBytes: 1_000_000,
            maxArtifactBytes: 1_000_000,
            skipEmpty: true,
            ..Default::default()
        },
        activeFromTimestamp: genesis_time,
    }
}

fn template(name: &str, rego: &[u8]) -> abi::IPolicyRegistry::PolicyTemplateRegistered {
    let hash = keccak256(rego);
    abi::IPolicyRegistry::PolicyTemplateRegistered {
        policyTemplateId: ids::policy_template_id(hash, name, ABSENT, &[]),
        author: Address::repeat_byte(1),
        rego: abi::ArtifactRef {
            artifactHash: hash,
            byteLength: rego.len() as u32,
        },
        paramsSchema: abi::ArtifactRef {
            artifactHash: ABSENT,
            byteLength: 0,
        },
        entrypoint: name.into(),
        dataTemplateRefs: vec![],
        daRefs: vec![Bytes::from_static(b"where")],
    }
}

fn task(id: u8) -> abi::ITaskManager::TaskCreated {
    abi::ITaskManager::TaskCreated {
        taskId: B256::repeat_byte(id),
        client: Address::repeat_byte(7),
        task: abi::Task {
            client: Address::repeat_byte(7),
            nonce: id.into(),
            ..Default::default()
        },
        intent: abi::Intent {
            value: U256::from(5),
            ..Default::default()
        },
        wasmArgs: Bytes::from_static(b"{}"),
    }
}

/// Delivers everything that is finalized; returns how many blocks came.
async fn sync(follower: &mut Follower, store: &StateStore) -> Result<usize, ChainError> {
    let mut count = 0;
    loop {
        let step = follower.finalized().await?;
        store.apply_finalized(&step.blocks).unwrap();
        follower.delivered(&step);
        count += step.blocks.len();
        if step.is_complete() {
            return Ok(count);
        }
    }
}

#[tokio::test]
async fn from_events_to_a_committed_root() {
    let node = Node::start().await;
    let contracts = node.deploy().await;
    let view = node.view().await;
    let store = store(&contracts);
    let mut follower = Follower::new(view.clone(), contracts, store.next_block().unwrap(), None);

    let now = view.head().await.unwrap().timestamp;
    let rego = b"package newton\nallow := true\n";
    node.emit(contracts.state_commit_registry, &parameters(now))
        .await;
    node.mine(1).await;
    node.emit(contracts.policy_registry, &template("newton.allow", rego))
        .await;
    node.emit_raw(
        contracts.policy_registry,
        &[keccak256("Initialized(uint64)")],
        &U256::from(1).to_be_bytes::<32>(),
    )
    .await;
    node.rpc("evm_setNextBlockTimestamp", json!([now + 4]))
        .await;
    node.mine(1).await;
    node.rpc("evm_setNextBlockTimestamp", json!([now + 30]))
        .await;
    node.mine(3).await;

    sync(&mut follower, &store).await.unwrap();
    let finalized = view.finalized().await.unwrap();
    assert_eq!(store.finalized().unwrap().unwrap().hash, finalized.hash);
    let entries = store.undecided(None, 10).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].hash, keccak256(rego));
    let verdict = Verdict::Accepted { bytes: rego };
    store.record_verdict(entries[0].key, verdict).unwrap();
    let Next::Ready(selection) = store.select().unwrap() else {
        panic!("the window is over");
    };
    let prepared = store.prepare(*selection).unwrap();

    let event = abi::IStateCommitRegistry::StateCommitted {
        sequenceNo: 1,
        newStateRoot: prepared.commit().newStateRoot,
        commit: prepared.commit().clone(),
        digest: B256::ZERO,
        deltaDaRefs: vec![],
    };
    node.emit(contracts.state_commit_registry, &event).await;
    node.mine(3).await;
    assert_eq!(sync(&mut follower, &store).await.unwrap(), 3);
    let CatchUp::UpToDate(tip) = store.catch_up().unwrap() else {
        panic!("caught up");
    };
    assert_eq!(
        (tip.sequence, tip.root),
        (1, prepared.commit().newStateRoot)
    );
    let snapshot = store.snapshot(None).unwrap();
    let leaf = LeafKey::artifact(Namespace::PolicyRego, keccak256(rego));
    let (value, proof) = snapshot.prove(1, leaf).unwrap();
    proof.verify(tip.root, leaf, value.unwrap()).unwrap();
    let id = ids::policy_template_id(keccak256(rego), "newton.allow", ABSENT, &[]);
    let row = snapshot.registry().policy_template(id).unwrap().unwrap();
    assert_eq!(row.registered_at, entries[0].key.block);

    // Another enclave that starts now arrives at the same tip.
    let late = self::store(&contracts);
    let mut follower = Follower::new(view, contracts, late.next_block().unwrap(), None);
    sync(&mut follower, &late).await.unwrap();
    assert!(matches!(late.catch_up().unwrap(), CatchUp::Stopped { .. }));
    let key = late.undecided(None, 1).unwrap()[0].key;
    late.record_verdict(key, Verdict::Accepted { bytes: rego })
        .unwrap();
    assert!(matches!(late.catch_up().unwrap(), CatchUp::UpToDate(t) if t == tip));
}

#[tokio::test]
async fn pending_blocks_follow_reorgs_and_finality_does_not() {
    let node = Node::start().await;
    let contracts = node.deploy().await;
    let view = node.view().await;
    let store = store(&contracts);
    let mut follower = Follower::new(view.clone(), contracts, store.next_block().unwrap(), None);
    node.mine(4).await;
    sync(&mut follower, &store).await.unwrap();

    let tasks = |store: &StateStore, blocks: &[newton_types::events::Block]| {
        let pending = store.pending(blocks).unwrap();
        pending.map_or(vec![], |p| p.tasks().to_vec())
    };
    // Two unfinalized blocks with a task in each.
    node.emit(contracts.task_manager, &task(1)).await;
    node.mine(1).await;
    sync(&mut follower, &store).await.unwrap();
    let snapshot_before_two = node.rpc("evm_snapshot", json!([])).await;
    node.emit(contracts.task_manager, &task(2)).await;
    node.mine(1).await;
    sync(&mut follower, &store).await.unwrap();
    let head = view.head().await.unwrap();
    let pending = follower.pending().await.unwrap().to_vec();
    assert_eq!(pending.len(), 2);
    assert_eq!(pending.last().unwrap().header, head);
    let (one, two, three) = (
        B256::repeat_byte(1),
        B256::repeat_byte(2),
        B256::repeat_byte(3),
    );
    assert_eq!(tasks(&store, &pending), [one, two]);
    assert_eq!(follower.pending().await.unwrap(), pending);

    // The second block is replaced by one with another task, same height.
    let reverted = node.rpc("evm_revert", json!([snapshot_before_two])).await;
    assert_eq!(reverted, json!(true));
    node.emit(contracts.task_manager, &task(3)).await;
    node.mine(1).await;
    let replaced = follower.pending().await.unwrap().to_vec();
    assert_eq!(replaced.last().unwrap().header.number, head.number);
    assert_ne!(replaced.last().unwrap().header.hash, head.hash);
    assert_eq!(tasks(&store, &replaced), [one, three]);

    // anvil's own reorg of one block, then growth: still one linked chain.
    node.rpc("anvil_reorg", json!([1, []])).await;
    node.mine(1).await;
    sync(&mut follower, &store).await.unwrap();
    let after = follower.pending().await.unwrap().to_vec();
    let finalized = store.finalized().unwrap().unwrap();
    assert_eq!(after[0].header.parent_hash, finalized.hash);
    assert_eq!(after.last().unwrap().header, view.head().await.unwrap());
    assert!(!tasks(&store, &after).contains(&three), "reorged away");
    store.pending(&after).unwrap().unwrap();

    // What was pending becomes finalized without being asked for again, and is the same.
    node.emit(contracts.task_manager, &task(4)).await;
    node.mine(1).await;
    let known = follower.pending().await.unwrap().to_vec();
    node.mine(2).await;
    let step = follower.finalized().await.unwrap();
    for block in &step.blocks {
        if let Some(k) = known
            .iter()
            .find(|k| k.header.number == block.header.number)
        {
            assert_eq!(k, block);
        }
    }
    assert!(step.blocks.iter().any(|b| b.events.iter().any(
        |e| matches!(&e.event, RegistryEvent::TaskCreated { task_id, .. } if *task_id == B256::repeat_byte(4))
    )));
    store.apply_finalized(&step.blocks).unwrap();
    follower.delivered(&step);
    let snapshot = store.snapshot(None).unwrap();
    let row = snapshot
        .registry()
        .task(B256::repeat_byte(4))
        .unwrap()
        .unwrap();
    assert_eq!(row.task().unwrap().nonce, 4);
    assert_eq!(row.intent().unwrap().value, U256::from(5));
    assert_eq!(row.wasm_args, Bytes::from_static(b"{}"));
    let ids = snapshot.finalized_tasks(0, 10).unwrap();
    assert_eq!(ids, [one, B256::repeat_byte(4)]);
    let later = snapshot.finalized_tasks(row.created_at.block + 1, 10);
    assert!(later.unwrap().is_empty());
}

#[tokio::test]
async fn a_fork_of_finalized_history_is_a_contradiction() {
    let node = Node::start().await;
    let contracts = node.deploy().await;
    let view = node.view().await;
    let store = store(&contracts);
    let mut follower = Follower::new(view.clone(), contracts, 0, None);
    let snapshot = node.rpc("evm_snapshot", json!([])).await;
    node.mine(5).await;
    sync(&mut follower, &store).await.unwrap();
    node.rpc("evm_revert", json!([snapshot])).await;
    node.rpc("evm_increaseTime", json!([77])).await;
    node.mine(5).await;
    // Same height.
    let error = follower.finalized().await.unwrap_err();
    assert!(error.is_contradiction(), "{error}");
    // And further on.
    node.mine(3).await;
    let error = follower.finalized().await.unwrap_err();
    assert!(error.is_contradiction(), "{error}");
    // Also after a restart, which only knows the last hash.
    let last = store.finalized().unwrap().unwrap();
    let mut restarted = Follower::new(view, contracts, last.number + 1, Some(last.hash));
    let error = restarted.finalized().await.unwrap_err();
    assert!(error.is_contradiction() && !error.is_retryable(), "{error}");
}

#[tokio::test]
async fn events_that_the_image_does_not_know_stop_it() {
    let node = Node::start().await;
    let contracts = node.deploy().await;
    let mut follower = Follower::new(node.view().await, contracts, 0, None);
    node.emit_raw(
        contracts.key_registry,
        &[keccak256("Surprise(uint256)")],
        &[0; 32],
    )
    .await;
    node.mine(3).await;
    let error = follower.finalized().await.unwrap_err();
    assert!(
        matches!(error, ChainError::UnknownEvent { address, .. } if address == contracts.key_registry),
        "{error}"
    );
    assert!(!error.is_retryable());

    // Another contract's event at this address is unknown too.
    let node = Node::start().await;
    let contracts = node.deploy().await;
    let mut follower = Follower::new(node.view().await, contracts, 0, None);
    node.emit(contracts.key_registry, &task(1)).await;
    node.mine(3).await;
    let error = follower.finalized().await.unwrap_err();
    assert!(matches!(error, ChainError::UnknownEvent { .. }), "{error}");

    // Data that is cut short is malformed, not unknown.
    let node = Node::start().await;
    let contracts = node.deploy().await;
    let mut follower = Follower::new(node.view().await, contracts, 0, None);
    let topic = keccak256("MinKeyEpochSet(uint64)");
    node.emit_raw(contracts.key_registry, &[topic], &[0; 31])
        .await;
    node.mine(3).await;
    let error = follower.finalized().await.unwrap_err();
    assert!(
        matches!(error, ChainError::MalformedEvent { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn long_histories_come_in_steps_and_storage_is_read_at_a_block() {
    let node = Node::start().await;
    let contracts = node.deploy().await;
    node.mine(1_100).await;
    let view = node.view().await;
    let store = store(&contracts);
    let mut follower = Follower::new(view.clone(), contracts, 0, None);
    let step = follower.finalized().await.unwrap();
    assert_eq!(step.blocks.len() as u64, newton_chain::MAX_RANGE);
    assert!(!step.is_complete());
    // Not delivered, so it comes again.
    assert_eq!(follower.finalized().await.unwrap().blocks, step.blocks);
    let total = sync(&mut follower, &store).await.unwrap() as u64;
    let finalized = view.finalized().await.unwrap();
    assert_eq!(total, finalized.number + 1);

    let slot = B256::with_last_byte(3);
    let before = view.head().await.unwrap();
    let value = B256::repeat_byte(9);
    let set = json!([contracts.key_registry, slot, value]);
    node.rpc("anvil_setStorageAt", set).await;
    node.mine(1).await;
    let after = view.head().await.unwrap();
    let read = |block| view.storage(contracts.key_registry, slot, block);
    assert_eq!(read(after).await.unwrap(), value);
    let mut nowhere = before;
    nowhere.hash = B256::repeat_byte(1);
    assert!(read(nowhere).await.is_err());
}

#[tokio::test]
async fn the_view_is_for_declared_development_and_one_chain() {
    assert!(matches!(
        UnverifiedRpc::declared_by(&manifest(false)),
        Err(ChainError::NotDeclared)
    ));
    let mut silent = manifest(true);
    silent.development = None;
    assert!(UnverifiedRpc::declared_by(&silent).is_err());
    let node = Node::start().await;
    let declared = UnverifiedRpc::declared_by(&manifest(true)).unwrap();
    let error = RpcChainView::connect(node.transport(), 1, declared)
        .await
        .err()
        .unwrap();
    assert!(
        matches!(
            error,
            ChainError::WrongChain {
                expected: 1,
                got: CHAIN_ID
            }
        ),
        "{error}"
    );
}
