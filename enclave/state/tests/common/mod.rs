//! A chain in memory, a database that survives its handle, and peers.
#![allow(dead_code, clippy::unwrap_used)]

pub mod peer;
pub mod steps;

use std::sync::Arc;

use newton_state::{ChainConfig, StateStore, Verdict};
use newton_types::events::{
    Artifact, Block, ChainEvent, ConsensusParameters, EventPosition, HeaderInfo, RegistryEvent,
};
use newton_types::{Address, B256, Bytes, QueueKey, ids, keccak256};
use redb::backends::InMemoryBackend;
use redb::{Database, StorageBackend};

pub const CHAIN_ID: u64 = 31_337;
pub const GENESIS_TIME: u64 = 1_000;
pub const CADENCE: u64 = 10;

/// An in-memory file that outlives the databases opened on it.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<InMemoryBackend>);

impl Disk {
    pub fn new() -> Self {
        Self(Arc::new(InMemoryBackend::new()))
    }

    /// Every byte of the file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.0.len().unwrap() as usize];
        self.0.read(0, &mut bytes).unwrap();
        bytes
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.write(offset, data)
    }
}

pub fn config() -> ChainConfig {
    ChainConfig {
        chain_id: CHAIN_ID,
        state_commit_registry: Address::repeat_byte(0xcc),
        first_block: 0,
        deployment_block: 1,
        deployment_block_hash: None,
    }
}

pub fn open(disk: &Disk) -> StateStore {
    let db = Database::builder()
        .create_with_backend(disk.clone())
        .unwrap();
    StateStore::open(Arc::new(db), config()).unwrap()
}

pub fn parameters() -> ConsensusParameters {
    ConsensusParameters {
        genesis_time: GENESIS_TIME,
        cadence: CADENCE,
        max_commit_bytes: 100,
        max_artifact_bytes: 100,
        max_expire_after: 1_000,
        quorum_bps: 6_667,
        min_signers: 1,
        max_set_age: 100,
        max_defer_queue_bytes: 100_000,
        author_quota_bytes: 100_000,
        response_window: 30,
        challenge_window: 100,
        skip_empty: false,
    }
}

/// Bytes of a given length that differ by `seed`.
pub fn content(seed: u64, length: usize) -> Vec<u8> {
    let block = keccak256(seed.to_be_bytes());
    block.iter().copied().cycle().take(length).collect()
}

pub fn artifact(bytes: &[u8]) -> Artifact {
    Artifact {
        hash: keccak256(bytes),
        length: bytes.len() as u32,
    }
}

/// A growing chain.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    pub blocks: Vec<Block>,
}

impl Chain {
    /// Block 0 sets parameters, block 1 is the deployment block.
    pub fn new(parameters: ConsensusParameters) -> Self {
        let mut chain = Self::default();
        let rules = RegistryEvent::RulesVersionScheduled {
            rules_version: 1,
            active_from: 0,
        };
        let set = RegistryEvent::ConsensusParametersSet {
            parameters,
            active_from_timestamp: parameters.genesis_time,
        };
        chain.push(GENESIS_TIME, vec![rules, set]);
        chain.push(GENESIS_TIME + 1, vec![]);
        chain
    }

    pub fn push(&mut self, timestamp: u64, events: Vec<RegistryEvent>) -> &Block {
        let number = self.blocks.len() as u64;
        let parent_hash = self.blocks.last().map_or(B256::ZERO, |b| b.header.hash);
        let events = events
            .into_iter()
            .enumerate()
            .map(|(i, event)| ChainEvent {
                position: EventPosition {
                    block: number,
                    tx: i as u32 / 2,
                    log: 3 * i as u32,
                },
                event,
            })
            .collect();
        let preimage = format!("{parent_hash} {number} {timestamp} {events:?}");
        self.blocks.push(Block {
            header: HeaderInfo {
                number,
                hash: keccak256(preimage),
                parent_hash,
                timestamp,
            },
            events,
        });
        self.blocks.last().unwrap()
    }

    pub fn last(&self) -> &Block {
        self.blocks.last().unwrap()
    }
}

/// A policy template of one Rego source, without a schema; `name` makes its id unique.
pub fn template(name: &str, rego: &[u8]) -> RegistryEvent {
    let rego = artifact(rego);
    RegistryEvent::PolicyTemplateRegistered {
        id: ids::policy_template_id(rego.hash, name, newton_types::ABSENT, &[]),
        author: Address::repeat_byte(1),
        rego,
        params_schema: Artifact::NONE,
        entrypoint: name.into(),
        data_template_refs: vec![],
        da_refs: vec![Bytes::from_static(b"ref")],
    }
}

pub fn secrets(instance: u8, envelope: &[u8]) -> RegistryEvent {
    RegistryEvent::SecretsSet {
        instance_id: B256::repeat_byte(instance),
        client: Address::repeat_byte(9),
        poster: Address::repeat_byte(9),
        by_owner: true,
        envelope: artifact(envelope),
        da_ref: Bytes::from_static(b"ref"),
        count: 1,
    }
}

/// Key of the event's artifact at `item`.
pub fn key(block: &Block, event: usize, item: u32) -> QueueKey {
    block.events[event].position.item(item)
}

pub fn accept(store: &StateStore, key: QueueKey, bytes: &[u8]) {
    store
        .record_verdict(key, Verdict::Accepted { bytes })
        .unwrap();
}

pub fn reject(store: &StateStore, key: QueueKey) {
    store
        .record_verdict(
            key,
            Verdict::Rejected {
                reason: "it is not good".into(),
            },
        )
        .unwrap();
}
