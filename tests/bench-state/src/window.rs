//! A full window of 50 MiB through the state: many small artifacts, and few large ones.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use newton_pages::testing::FileDevice;
use newton_pages::{PageStore, RedbBackend};
use newton_state::{ChainConfig, Next, StateStore, Verdict, open_database};
use newton_types::events::{
    Artifact, Block, ChainEvent, ConsensusParameters, EventPosition, HeaderInfo, RegistryEvent,
};
use newton_types::{Address, B256, Bytes, Namespace, QueueKey, keccak256};
use serde::Serialize;

use crate::pages;

/// The cap of a window (design 2.4).
const WINDOW: usize = 52_428_800;
const SMALL: usize = 1_024;
/// A quarter of a window; three fit below the cap beside the chunks' own bytes, and four exactly.
const LARGE: usize = WINDOW / 4;
/// What the tree is made of before a window of small ones.
const TINY: usize = 64;
const TINY_PER_WINDOW: usize = 100_000;
/// Verdicts recorded together: as many as the appliance records in a round that nothing holds up.
const VERDICTS: usize = 1_024;
const CADENCE: u64 = 10;

/// All windows.
#[derive(Debug, Serialize)]
pub struct Report {
    /// One after the other into one state, small artifacts, and at last few large ones.
    pub each: Vec<Window>,
    /// The longest commit in seconds; the goal is 5.
    pub longest_seconds: f64,
    /// Commit of the last window of small artifacts to the first: flat in the size of the tree if about 1.
    pub last_to_first: f64,
}

/// One window.
#[derive(Debug, Serialize)]
pub struct Window {
    /// Leaves in the tree before.
    pub leaves_before: usize,
    /// Artifacts in it.
    pub artifacts: usize,
    /// Selection, root and commit.
    pub commit_seconds: f64,
    /// Of it selection.
    pub select_seconds: f64,
    /// Of it the root.
    pub prepare_seconds: f64,
    /// Slots of 4 KiB that the commit read.
    pub slots_read: u64,
    /// Slots that it wrote.
    pub slots_written: u64,
    /// Storing the bytes with their verdicts, which happens as they arrive, before the window ends.
    pub verdict_seconds: f64,
}

struct Chain {
    store: PageStore,
    state: StateStore,
    head: HeaderInfo,
    made: u64,
    leaves: usize,
}

/// Plays a window of small artifacts into a tree of each of `sizes`, which rise, and one of large ones into the last.
/// `cache` is the memory for pages in bytes, shared out as the appliance does.
pub fn measure(dir: &Path, sizes: &[usize], cache: usize) -> Result<Report> {
    let ahead = cache / pages::PAGES_SHARE;
    let store = pages::open(Arc::new(FileDevice::open(&dir.join("windows"))?), ahead)?;
    let db = open_database(RedbBackend::new(store.clone())?, cache - ahead)?;
    let mut chain = Chain::new(store, StateStore::open(Arc::new(db), config())?)?;
    let mut each = Vec::new();
    for size in sizes {
        while chain.leaves < *size {
            let count = TINY_PER_WINDOW.min(size - chain.leaves);
            chain.window(TINY, count)?;
        }
        each.push(chain.window(SMALL, WINDOW / SMALL)?);
    }
    let seconds: Vec<f64> = each.iter().map(|window| window.commit_seconds).collect();
    let last_to_first = match seconds[..] {
        [first, .., last] => last / first,
        _ => 1.0,
    };
    each.push(chain.window(LARGE, WINDOW / LARGE)?);
    Ok(Report {
        longest_seconds: each.iter().map(|w| w.commit_seconds).fold(0.0, f64::max),
        last_to_first,
        each,
    })
}

impl Chain {
    fn new(store: PageStore, state: StateStore) -> Result<Self> {
        let mut chain = Self {
            store,
            state,
            head: HeaderInfo {
                number: 0,
                hash: B256::ZERO,
                parent_hash: B256::ZERO,
                timestamp: 1_000,
            },
            made: 0,
            leaves: 0,
        };
        let events = vec![
            RegistryEvent::RulesVersionScheduled {
                rules_version: 1,
                active_from: 0,
            },
            RegistryEvent::ConsensusParametersSet {
                parameters: parameters(),
                active_from_timestamp: 1_000,
            },
        ];
        chain.push(0, events)?;
        chain.push(1, vec![])?;
        Ok(chain)
    }

    fn push(&mut self, seconds: u64, events: Vec<RegistryEvent>) -> Result<()> {
        let first = self.head.hash == B256::ZERO;
        let number = if first { 0 } else { self.head.number + 1 };
        let header = HeaderInfo {
            number,
            hash: keccak256(number.to_be_bytes()),
            parent_hash: self.head.hash,
            timestamp: self.head.timestamp + seconds,
        };
        let events = events
            .into_iter()
            .enumerate()
            .map(|(i, event)| ChainEvent {
                position: EventPosition {
                    block: number,
                    tx: i as u32,
                    log: i as u32,
                },
                event,
            })
            .collect();
        self.state.apply_finalized(&[Block { header, events }])?;
        self.head = header;
        Ok(())
    }

    fn window(&mut self, length: usize, count: usize) -> Result<Window> {
        let contents: Vec<Vec<u8>> = (0..count)
            .map(|_| {
                self.made += 1;
                let mut bytes = keccak256(self.made.to_be_bytes()).to_vec();
                bytes.resize(length, self.made as u8);
                bytes
            })
            .collect();
        let mut keys = Vec::new();
        for some in contents.chunks(4_096) {
            let events = some.iter().map(|bytes| supplied(bytes)).collect();
            self.push(0, events)?;
            let block = self.head.number;
            keys.extend((0..some.len() as u32).map(|i| QueueKey {
                block,
                tx: i,
                log: i,
                item: 0,
            }));
        }
        let begun = Instant::now();
        for (keys, contents) in keys.chunks(VERDICTS).zip(contents.chunks(VERDICTS)) {
            let verdicts: Vec<_> = keys
                .iter()
                .zip(contents)
                .map(|(key, bytes)| (*key, Verdict::Accepted { bytes }))
                .collect();
            self.state.record_verdicts(&verdicts)?;
        }
        let verdict_seconds = begun.elapsed().as_secs_f64();
        self.push(2 * CADENCE, vec![])?;
        let before = self.store.stats()?;
        let begun = Instant::now();
        let Next::Ready(selection) = self.state.select()? else {
            bail!("the window is over and nothing is missing");
        };
        let select_seconds = begun.elapsed().as_secs_f64();
        let prepared = self.state.prepare(*selection)?;
        let prepare_seconds = begun.elapsed().as_secs_f64() - select_seconds;
        let commit = prepared.commit().clone();
        self.state.apply(&prepared, &commit)?;
        let commit_seconds = begun.elapsed().as_secs_f64();
        let after = self.store.stats()?;
        let written = prepared.selection().delta.len();
        anyhow::ensure!(written == count, "{written} of {count} fitted");
        let window = Window {
            leaves_before: self.leaves,
            artifacts: count,
            commit_seconds,
            select_seconds,
            prepare_seconds,
            slots_read: after.slots_read - before.slots_read,
            slots_written: after.slots_written - before.slots_written,
            verdict_seconds,
        };
        self.leaves += count;
        Ok(window)
    }
}

fn supplied(bytes: &[u8]) -> RegistryEvent {
    RegistryEvent::ArtifactSupplied {
        namespace: Namespace::PolicyRego,
        artifact: Artifact {
            hash: keccak256(bytes),
            length: bytes.len() as u32,
        },
        supplier: Address::ZERO,
        da_ref: Bytes::from_static(b"ref"),
    }
}

fn config() -> ChainConfig {
    ChainConfig {
        chain_id: 31_337,
        state_commit_registry: Address::ZERO,
        first_block: 0,
        deployment_block: 1,
        deployment_block_hash: None,
    }
}

fn parameters() -> ConsensusParameters {
    ConsensusParameters {
        genesis_time: 1_000,
        cadence: CADENCE,
        max_commit_bytes: WINDOW as u64,
        max_artifact_bytes: 25_165_824,
        max_expire_after: 1_000,
        quorum_bps: 6_667,
        min_signers: 1,
        max_set_age: 100,
        max_defer_queue_bytes: 524_288_000,
        author_quota_bytes: 524_288_000,
        response_window: 30,
        challenge_window: 100,
        skip_empty: true,
    }
}
