//! A small chain, an honest peer that has all of its commits, and newcomers that have its blocks only.

use std::collections::BTreeMap;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use newton_state::{CatchUp, ChainConfig, Next, SnapshotLeaf, StateStore, Verdict};
use newton_types::events::{
    Artifact, Block, ChainEvent, ConsensusParameters, EventPosition, HeaderInfo, RegistryEvent,
};
use newton_types::{ABSENT, Address, B256, Bytes, DeltaEntry, abi, ids, keccak256};
use redb::backends::InMemoryBackend;
use redb::{Database, StorageBackend};
use serde_json::Value;

/// Commits of the chain.
pub(crate) const COMMITS: u64 = 4;
const GENESIS_TIME: u64 = 1_000;
const CADENCE: u64 = 10;

/// What the chain and its honest followers have.
pub(crate) struct Peer {
    pub(crate) blocks: Vec<Block>,
    pub(crate) store: StateStore,
    /// All bytes that were ever accepted, by hash.
    pub(crate) contents: BTreeMap<B256, Vec<u8>>,
}

/// A store that counts how often its file was written to.
pub(crate) struct Newcomer {
    pub(crate) store: StateStore,
    writes: Arc<AtomicU64>,
}

impl Newcomer {
    /// A new store that has seen these blocks and judged nothing.
    pub(crate) fn of(blocks: &[Block]) -> Self {
        let writes = Arc::new(AtomicU64::new(0));
        let file = Counting(InMemoryBackend::new(), writes.clone());
        let store = open(file);
        store.apply_finalized(blocks).unwrap();
        Self { store, writes }
    }

    /// Writes to the file so far.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }
}

impl Peer {
    /// Four commits: two sources; a source beside a rejected one; an envelope; another envelope for the same leaf and a source.
    pub(crate) fn new() -> Self {
        let mut peer = Self {
            blocks: Vec::new(),
            store: open(InMemoryBackend::new()),
            contents: BTreeMap::new(),
        };
        let rules = RegistryEvent::RulesVersionScheduled {
            rules_version: 1,
            active_from: 0,
        };
        let set = RegistryEvent::ConsensusParametersSet {
            parameters: parameters(),
            active_from_timestamp: GENESIS_TIME,
        };
        peer.push(0, vec![rules, set]);
        peer.push(1, vec![]);
        let windows: [&[(&str, bool)]; COMMITS as usize] = [
            &[("a", true), ("b", true)],
            &[("c", true), ("bad", false)],
            &[("envelope 1", true)],
            &[("envelope 2", true), ("d", true)],
        ];
        for (window, items) in (1..).zip(windows) {
            let events = items.iter().map(|(text, _)| event(text)).collect();
            peer.push(window * CADENCE - 1, events);
            for (text, good) in items {
                peer.judge(text, *good);
            }
            peer.push(window * CADENCE + 1, vec![]);
            let Next::Ready(selection) = peer.store.select().unwrap() else {
                unreachable!("the window is over");
            };
            let prepared = peer.store.prepare(*selection).unwrap();
            let landed = RegistryEvent::StateCommitted {
                commit: prepared.commit().clone(),
                digest: B256::ZERO,
                delta_da_refs: vec![],
            };
            peer.push(window * CADENCE + 2, vec![landed]);
            let caught_up = peer.store.catch_up().unwrap();
            assert!(matches!(caught_up, CatchUp::UpToDate(tip) if tip.sequence == window));
        }
        peer
    }

    /// A commit of the chain.
    pub(crate) fn commit(&self, sequence: u64) -> Option<abi::StateCommit> {
        self.store.commit(sequence).unwrap()
    }

    /// Leaves of a commit.
    pub(crate) fn leaves(&self, sequence: u64) -> Vec<SnapshotLeaf> {
        self.store.leaves(sequence, None, 1_000).unwrap()
    }

    /// What a commit wrote.
    pub(crate) fn delta(&self, sequence: u64) -> Vec<DeltaEntry> {
        self.store.delta(sequence, 0).unwrap()
    }

    /// Gives a newcomer the bytes with this hash, if there are any.
    pub(crate) fn bring(&self, to: &StateStore, hash: B256) {
        if let Some(bytes) = self.contents.get(&hash) {
            to.import_content(hash, bytes).unwrap();
        }
    }

    /// The blocks as they would be if the quorum of commit `sequence`, the last one in them, had signed what `change` makes of it.
    pub(crate) fn blocks_with(
        &self,
        sequence: u64,
        change: impl Fn(&mut abi::StateCommit),
    ) -> Vec<Block> {
        let mut blocks = Vec::new();
        for block in &self.blocks {
            let mut block = block.clone();
            let mut is_last = false;
            for event in &mut block.events {
                if let RegistryEvent::StateCommitted { commit, .. } = &mut event.event
                    && commit.sequenceNo == sequence
                {
                    change(commit);
                    is_last = true;
                }
            }
            blocks.push(block);
            if is_last {
                break;
            }
        }
        blocks
    }

    fn push(&mut self, time: u64, events: Vec<RegistryEvent>) {
        let number = self.blocks.len() as u64;
        let position = |log: u32| EventPosition {
            block: number,
            tx: 0,
            log,
        };
        let block = Block {
            header: HeaderInfo {
                number,
                hash: keccak256(number.to_be_bytes()),
                parent_hash: number
                    .checked_sub(1)
                    .map_or(B256::ZERO, |n| keccak256(n.to_be_bytes())),
                timestamp: GENESIS_TIME + time,
            },
            events: (0..)
                .zip(events)
                .map(|(log, event)| ChainEvent {
                    position: position(log),
                    event,
                })
                .collect(),
        };
        self.store
            .apply_finalized(std::slice::from_ref(&block))
            .unwrap();
        self.blocks.push(block);
    }

    fn judge(&mut self, text: &str, good: bool) {
        let bytes = text.as_bytes();
        let hash = keccak256(bytes);
        let waiting = self.store.undecided(None, 9).unwrap();
        let entry = waiting.iter().find(|e| e.hash == hash).unwrap();
        let verdict = if good {
            self.contents.insert(hash, bytes.to_vec());
            Verdict::Accepted { bytes }
        } else {
            Verdict::Rejected {
                reason: "it is not good".into(),
            }
        };
        self.store.record_verdict(entry.key, verdict).unwrap();
    }
}

/// The result that a body of an answer has, as an enclave's client reads it.
pub(crate) fn result<T: serde::de::DeserializeOwned>(body: &[u8]) -> Option<T> {
    let answer: Value = newton_api::client::read_answer(body).ok()?;
    serde_json::from_value(answer).ok()
}

/// The body of an answer with this result.
pub(crate) fn body(result: &Value) -> Vec<u8> {
    serde_json::json!({ "jsonrpc": "2.0", "id": 1, "result": result })
        .to_string()
        .into_bytes()
}

fn event(text: &str) -> RegistryEvent {
    let artifact = Artifact {
        hash: keccak256(text),
        length: text.len() as u32,
    };
    let da_ref = Bytes::from_static(b"ref");
    if text.starts_with("envelope") {
        return RegistryEvent::SecretsSet {
            instance_id: B256::repeat_byte(1),
            client: Address::repeat_byte(9),
            poster: Address::repeat_byte(9),
            by_owner: true,
            envelope: artifact,
            da_ref,
            count: 1,
        };
    }
    RegistryEvent::PolicyTemplateRegistered {
        id: ids::policy_template_id(artifact.hash, text, ABSENT, &[]),
        author: Address::repeat_byte(1),
        rego: artifact,
        params_schema: Artifact::NONE,
        entrypoint: text.into(),
        data_template_refs: vec![],
        da_refs: vec![da_ref],
    }
}

fn parameters() -> ConsensusParameters {
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

fn open(file: impl StorageBackend) -> StateStore {
    let db = Database::builder()
        .set_cache_size(1 << 20)
        .create_with_backend(file)
        .unwrap();
    let config = ChainConfig {
        chain_id: 31_337,
        state_commit_registry: Address::repeat_byte(0xcc),
        first_block: 0,
        deployment_block: 1,
        deployment_block_hash: None,
    };
    StateStore::open(Arc::new(db), config).unwrap()
}

#[derive(Debug)]
struct Counting(InMemoryBackend, Arc<AtomicU64>);

impl StorageBackend for Counting {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.write(offset, data)
    }
}
