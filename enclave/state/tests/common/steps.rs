//! Steps that many tests take.

use newton_state::{CatchUp, Next, PreparedCommit, Selection, StateStore, Waiting};
use newton_types::events::{Block, RegistryEvent};
use newton_types::{B256, LeafKey, Namespace, abi, keccak256};

use super::{Chain, Disk, GENESIS_TIME, open};

pub fn started(chain: &Chain) -> (Disk, StateStore) {
    let disk = Disk::new();
    let store = open(&disk);
    store.apply_finalized(&chain.blocks).unwrap();
    (disk, store)
}

pub fn push(chain: &mut Chain, store: &StateStore, time: u64, events: Vec<RegistryEvent>) -> Block {
    let block = chain.push(GENESIS_TIME + time, events).clone();
    store.apply_finalized(std::slice::from_ref(&block)).unwrap();
    block
}

pub fn ready(store: &StateStore) -> Selection {
    match store.select().unwrap() {
        Next::Ready(selection) => *selection,
        other => panic!("not ready: {other:?}"),
    }
}

pub fn waiting(store: &StateStore) -> Waiting {
    match store.select().unwrap() {
        Next::Waiting(waiting) => waiting,
        other => panic!("not waiting: {other:?}"),
    }
}

pub fn prepared(store: &StateStore) -> PreparedCommit {
    store.prepare(ready(store)).unwrap()
}

pub fn committed(commit: &abi::StateCommit) -> RegistryEvent {
    RegistryEvent::StateCommitted {
        commit: commit.clone(),
        digest: B256::ZERO,
        delta_da_refs: vec![],
    }
}

/// Lets the chain confirm what the store derives.
pub fn land(chain: &mut Chain, store: &StateStore, time: u64) -> abi::StateCommit {
    let commit = prepared(store).commit().clone();
    push(chain, store, time, vec![committed(&commit)]);
    assert!(matches!(store.catch_up().unwrap(), CatchUp::UpToDate(_)));
    commit
}

pub fn rego_leaf(bytes: &[u8]) -> LeafKey {
    LeafKey::artifact(Namespace::PolicyRego, keccak256(bytes))
}
