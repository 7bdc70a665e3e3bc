//! What enclaves make of a slash: the set follows, and keeps what slashing does not touch.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Chain, Disk, GENESIS_TIME, open, parameters};
use newton_types::events::RegistryEvent;
use newton_types::{Address, B256, abi};

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

fn slashed(operator: Address, set_id: u64, weight: u128, total_weight: u128) -> RegistryEvent {
    RegistryEvent::OperatorSlashed {
        operator,
        set_id,
        weight,
        total_weight,
    }
}

#[test]
fn sets_follow_slashes() {
    let mut chain = Chain::new(parameters());
    chain.push(
        GENESIS_TIME + 1,
        vec![admitted(FIRST, 1, 0), changed(1, 100)],
    );
    chain.push(
        GENESIS_TIME + 2,
        vec![admitted(SECOND, 2, 1), changed(2, 200)],
    );
    // Two slashes in one block make one set; one of somebody in no set makes none.
    let events = vec![
        slashed(FIRST, 3, 90, 190),
        slashed(SECOND, 3, 90, 180),
        slashed(Address::repeat_byte(3), 0, 5, 0),
    ];
    chain.push(GENESIS_TIME + 3, events);
    let store = open(&Disk::new());
    store.apply_finalized(&chain.blocks).unwrap();

    let snapshot = store.snapshot(None).unwrap();
    let registry = snapshot.registry();
    assert_eq!(registry.latest_set_id().unwrap(), Some(3));
    let former = registry.operator_set(2).unwrap().unwrap();
    assert_eq!(former.total_weight, 200);
    assert!(former.members.iter().all(|m| m.weight == 100));
    let set = registry.operator_set(3).unwrap().unwrap();
    assert_eq!(set.total_weight, 180);
    assert!(set.members.len() == 2 && set.members.iter().all(|m| m.weight == 90));
    assert_eq!(set.aggregate_key_hash, former.aggregate_key_hash);
    assert_eq!(set.aggregate_key, former.aggregate_key);
    assert_eq!(set.earliest_valid_until, 77);
    assert!(set.created_at > former.created_at);
}
