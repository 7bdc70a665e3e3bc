//! Logs of the contracts.

use newton_chain::{Log, addresses, decode};
use newton_types::events::EventPosition;
use newton_types::manifest::Contracts;
use newton_types::{Address, B256, Bytes};

/// The set of contracts that the targets use.
pub(crate) fn contracts() -> Contracts {
    let at = |i: u8| Address::repeat_byte(0xa0 + i);
    Contracts {
        enclave_version_registry: at(0),
        operator_registry: at(1),
        key_registry: at(2),
        state_commit_registry: at(3),
        policy_client_registry: at(4),
        policy_registry: at(5),
        policy_data_registry: at(6),
        task_manager: at(7),
    }
}

/// `u8 contract, u8 topics, topics, data` as a log: decoded, known and dropped, or refused. The data of a decoded event is at
/// most as long as the log's.
pub fn events(input: &[u8]) {
    let [contract, count, rest @ ..] = input else {
        return;
    };
    let contracts = contracts();
    let addresses = addresses(&contracts);
    let topics = usize::from(count % 5).min(rest.len() / 32);
    let (topics, data) = rest.split_at(topics * 32);
    let log = Log {
        address: addresses[usize::from(*contract) % addresses.len()],
        topics: topics.chunks(32).map(B256::from_slice).collect(),
        data: Bytes::copy_from_slice(data),
        block_hash: B256::ZERO,
        position: EventPosition::default(),
    };
    let first = decode(&contracts, &log).map_err(|e| e.to_string());
    assert_eq!(first, decode(&contracts, &log).map_err(|e| e.to_string()));
}
