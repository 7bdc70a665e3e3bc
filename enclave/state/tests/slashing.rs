//! What enclaves make of slashes, which sets follow when anyone has one made, and of a recovery.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Chain, Disk, GENESIS_TIME, open, parameters};
use newton_state::{CatchUp, Next, SnapshotLeaf, StateError};
use newton_types::events::RegistryEvent;
use newton_types::{Address, B256, LeafKey, abi, keccak256};

const FIRST: Address = Address::repeat_byte(1);
const SECOND: Address = Address::repeat_byte(2);

fn admitted(operator: Address, set_id: u64, index: u8) -> RegistryEvent {
    RegistryEvent::OperatorAdmitted {
        operator,
        set_id,
        index,
        weight: 100,
        via_certificate: false,
        bls_public_key: vec![index; 256].into(),
        admission: abi::EnclaveAdmission {
            operator,
            ..Default::default()
        },
    }
}

fn changed(set_id: u64, total_weight: u128) -> RegistryEvent {
    RegistryEvent::OperatorSetChanged {
        set_id,
        aggregate_key_hash: B256::repeat_byte(set_id as u8),
        total_weight,
        earliest_valid_until: 77,
        aggregate_key: vec![set_id as u8; 256].into(),
    }
}

fn slashed(operator: Address, weight: u128) -> RegistryEvent {
    RegistryEvent::OperatorSlashed { operator, weight }
}

fn reweighed(operator: Address, set_id: u64, index: u8, weight: u128) -> RegistryEvent {
    RegistryEvent::OperatorReweighed {
        operator,
        set_id,
        index,
        weight,
    }
}

#[test]
fn sets_follow_when_they_are_reweighed() {
    let mut chain = Chain::new(parameters());
    chain.push(
        GENESIS_TIME + 1,
        vec![admitted(FIRST, 1, 0), changed(1, 100)],
    );
    chain.push(
        GENESIS_TIME + 2,
        vec![admitted(SECOND, 2, 1), changed(2, 200)],
    );
    // Slashing alone makes no set.
    let events = vec![
        slashed(FIRST, 90),
        slashed(SECOND, 90),
        slashed(SECOND, 81),
        slashed(Address::repeat_byte(3), 5),
    ];
    chain.push(GENESIS_TIME + 3, events);
    let disk = Disk::new();
    let store = open(&disk);
    store.apply_finalized(&chain.blocks).unwrap();
    {
        let snapshot = store.snapshot(None).unwrap();
        let registry = snapshot.registry();
        assert_eq!(registry.latest_set_id().unwrap(), Some(2));
        let set = registry.operator_set(2).unwrap().unwrap();
        assert!(set.members.iter().all(|m| m.weight == 100));
    }
    let events = vec![
        reweighed(FIRST, 3, 0, 90),
        reweighed(SECOND, 3, 1, 81),
        changed(3, 171),
    ];
    chain.push(GENESIS_TIME + 4, events);
    store.apply_finalized(&chain.blocks).unwrap();

    let snapshot = store.snapshot(None).unwrap();
    let registry = snapshot.registry();
    assert_eq!(registry.latest_set_id().unwrap(), Some(3));
    let former = registry.operator_set(2).unwrap().unwrap();
    assert_eq!(former.total_weight, 200);
    assert!(former.members.iter().all(|m| m.weight == 100));
    let set = registry.operator_set(3).unwrap().unwrap();
    assert_eq!(set.total_weight, 171);
    let weights: Vec<_> = set.members.iter().map(|m| (m.operator, m.weight)).collect();
    assert_eq!(weights, [(FIRST, 90), (SECOND, 81)]);
    assert_eq!(set.earliest_valid_until, 77);
    assert!(set.created_at > former.created_at);
}

#[test]
fn an_adopted_snapshot_stops_replay_until_its_leaves_are_imported() {
    let mut chain = Chain::new(parameters());
    chain.push(
        GENESIS_TIME + 1,
        vec![admitted(FIRST, 1, 0), changed(1, 100)],
    );
    let store = open(&Disk::new());
    store.apply_finalized(&chain.blocks).unwrap();

    let content = b"what the snapshot restores";
    let leaf = SnapshotLeaf {
        key: LeafKey(B256::repeat_byte(4)),
        value_hash: keccak256(content),
    };
    let root = keccak256(
        [
            b"JMT::LeafNode",
            leaf.key.0.as_slice(),
            leaf.value_hash.as_slice(),
        ]
        .concat(),
    );
    let snapshot = abi::SealedSnapshot {
        commit: abi::StateCommit {
            sequenceNo: 1,
            newStateRoot: root,
            boundaryBlock: chain.blocks.last().unwrap().header.number,
            ..Default::default()
        },
        snapshotHash: B256::repeat_byte(8),
        snapshotLength: 9,
        daRefHash: B256::repeat_byte(10),
    };
    let adopted = RegistryEvent::SnapshotAdopted {
        snapshot: snapshot.clone(),
        digest: B256::repeat_byte(11),
        da_ref: vec![12].into(),
    };
    chain.push(GENESIS_TIME + 2, vec![adopted]);
    // Not finalized it changes nothing yet: tasks upon it name a state that this enclave does not have.
    let pending = store
        .pending(&chain.blocks[chain.blocks.len() - 1..])
        .unwrap();
    assert!(pending.is_some_and(|p| p.commits().is_empty()));
    store.apply_finalized(&chain.blocks).unwrap();
    // Nothing new is derived, and trying again does not help.
    assert!(matches!(store.select().unwrap(), Next::Behind { .. }));
    for _ in 0..2 {
        let error = store.catch_up().unwrap_err();
        assert!(error.is_fatal());
        let StateError::SnapshotAdopted {
            snapshot, da_ref, ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!(snapshot.snapshotHash, B256::repeat_byte(8));
        assert_eq!(da_ref, vec![12]);
    }
    // Other leaves are not what was adopted.
    store.import_content(leaf.value_hash, content).unwrap();
    let other = SnapshotLeaf {
        key: LeafKey(B256::repeat_byte(5)),
        ..leaf
    };
    let error = store.import(1, &[other]).unwrap_err();
    assert!(matches!(error, StateError::SnapshotRoot { .. }), "{error}");
    assert!(store.catch_up().is_err());
    // No delta leads there.
    assert!(matches!(
        store.apply_delta(1, &[]).unwrap_err(),
        StateError::SnapshotAdopted { .. }
    ));

    let tip = store.import(1, &[leaf]).unwrap();
    assert_eq!((tip.sequence, tip.root), (1, root));
    assert!(matches!(store.catch_up(), Ok(CatchUp::UpToDate(at)) if at == tip));
    assert_eq!(store.commit(1).unwrap(), Some(snapshot.commit));
}
