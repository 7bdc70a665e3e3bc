//! What `docs/protocol.md` sections 2 and 3 say, as plainly as it can be written, over a whole chain at a time.
//!
//! It shares the hashes of nodes, leaves and deltas with the enclave (they have vectors of their own) and nothing else: no tree, no
//! queue, no cursor that is kept. Slow, and meant to be.

use std::collections::BTreeMap;

use newton_types::events::{Artifact, Block, ConsensusParameters, EventPosition, RegistryEvent};
use newton_types::leaf::{EMPTY_ROOT, leaf_hash, node_hash};
use newton_types::queue::delta_hash;
use newton_types::{ABSENT, B256, DeltaEntry, LeafKey, Namespace, QueueKey, abi};

/// The leaves of a tree.
pub type Leaves = BTreeMap<LeafKey, B256>;

/// A write that the chain orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the queue.
    pub key: QueueKey,
    /// What it writes.
    pub leaf: LeafKey,
    /// Keccak-256 of the bytes.
    pub hash: B256,
    /// Bytes it declares.
    pub length: u32,
}

/// What follows from a chain.
#[derive(Clone, Debug)]
pub struct Derived {
    /// All commits that could land, in order; those that did are the first.
    pub commits: Vec<abi::StateCommit>,
    /// The leaves after the last of them.
    pub leaves: Leaves,
    /// How far the last of them drains the queue.
    pub cursor: QueueKey,
}

/// Derives everything that follows from the blocks (genesis at position zero), given which entries' bytes hold.
///
/// A commit that landed is taken as it is, without making its root anew: it was judged when it was made, and roots are what takes time
/// here. To judge the chain itself there is [`follows_from`].
///
/// # Panics
/// Without blocks, or without consensus parameters.
#[must_use]
pub fn derive(chain_id: u64, blocks: &[Block], holds: impl Fn(&Entry) -> bool) -> Derived {
    follow(chain_id, blocks, holds, true)
}

/// The same, with every root made anew, so that commits that landed can be compared with what they had to be.
///
/// # Panics
/// As [`derive()`] does.
#[must_use]
pub fn follows_from(chain_id: u64, blocks: &[Block], holds: impl Fn(&Entry) -> bool) -> Derived {
    follow(chain_id, blocks, holds, false)
}

fn follow(
    chain_id: u64,
    blocks: &[Block],
    holds: impl Fn(&Entry) -> bool,
    trust_landed: bool,
) -> Derived {
    let all = entries(chain_id, blocks);
    let landed = chain_commits(blocks);
    let skips = skips(blocks);
    let newest = blocks.last().expect("a chain has blocks").header.timestamp;
    let mut out = Derived {
        commits: Vec::new(),
        leaves: Leaves::new(),
        cursor: QueueKey::default(),
    };
    let mut last_boundary = 1;
    for (end, parameters) in window_ends(blocks, newest) {
        // The boundary is known only once a block after it has been seen.
        if newest <= end {
            break;
        }
        let boundary = blocks.iter().rfind(|b| b.header.timestamp <= end);
        let Some(boundary) = boundary.map(|b| b.header) else {
            continue;
        };
        if boundary.number <= last_boundary {
            continue;
        }
        let there = landed.get(out.commits.len());
        let (mut used, mut settled, mut drained) = (0u64, 0u64, 0);
        let mut delta = Vec::new();
        let (mut leaves, mut cursor) = (out.leaves.clone(), out.cursor);
        for entry in &all {
            if entry.key.block > boundary.number {
                break;
            }
            if entry.key <= out.cursor {
                continue;
            }
            // A certificate counts if it precedes the commit's event.
            let skipped = skips
                .get(&entry.key)
                .is_some_and(|at| there.is_none_or(|(landed, _)| at < landed));
            let present = leaves.get(&entry.leaf) == Some(&entry.hash);
            if !skipped && !present && holds(entry) {
                // No skipping ahead.
                if used + u64::from(entry.length) > parameters.max_commit_bytes {
                    break;
                }
                used += u64::from(entry.length);
                leaves.insert(entry.leaf, entry.hash);
                delta.push(DeltaEntry {
                    leaf_key: entry.leaf.0,
                    value_hash: entry.hash,
                    length: entry.length,
                    key: entry.key,
                });
            }
            settled += u64::from(entry.length);
            drained += 1;
            cursor = entry.key;
        }
        last_boundary = boundary.number;
        if drained == 0 && parameters.skip_empty {
            continue;
        }
        let previous = out.commits.last().map_or(EMPTY_ROOT, |c| c.newStateRoot);
        out.leaves = leaves;
        out.cursor = cursor;
        if let Some((_, commit)) = there.filter(|_| trust_landed) {
            out.commits.push(commit.clone());
            continue;
        }
        out.commits.push(abi::StateCommit {
            sequenceNo: out.commits.len() as u64 + 1,
            prevStateRoot: previous,
            newStateRoot: root(&out.leaves),
            boundaryBlock: boundary.number,
            boundaryTimestamp: boundary.timestamp,
            deltaHash: delta_hash(&delta),
            rulesVersion: rules_version(blocks, boundary.number),
            drainedBlock: cursor.block,
            drainedTx: cursor.tx,
            drainedLog: cursor.log,
            drainedItem: cursor.item,
            settledBytes: settled,
        });
    }
    out
}

/// Commits that landed, in order, with where.
#[must_use]
pub fn chain_commits(blocks: &[Block]) -> Vec<(EventPosition, abi::StateCommit)> {
    blocks
        .iter()
        .flat_map(|b| &b.events)
        .filter_map(|e| match &e.event {
            RegistryEvent::StateCommitted { commit, .. } => Some((e.position, commit.clone())),
            _ => None,
        })
        .collect()
}

/// All entries that the blocks order.
#[must_use]
pub fn entries(chain_id: u64, blocks: &[Block]) -> Vec<Entry> {
    let mut out = Vec::new();
    for event in blocks.iter().flat_map(|b| &b.events) {
        let mut add = |item: u32, leaf: LeafKey, artifact: &Artifact| {
            if artifact.hash != ABSENT {
                out.push(Entry {
                    key: event.position.item(item),
                    leaf,
                    hash: artifact.hash,
                    length: artifact.length,
                });
            }
        };
        let of = |namespace, artifact: &Artifact| LeafKey::artifact(namespace, artifact.hash);
        match &event.event {
            RegistryEvent::PolicyTemplateRegistered {
                rego,
                params_schema,
                ..
            } => {
                add(0, of(Namespace::PolicyRego, rego), rego);
                let schema = of(Namespace::PolicyParamsSchema, params_schema);
                add(1, schema, params_schema);
            }
            RegistryEvent::ArtifactSupplied {
                namespace,
                artifact,
                ..
            } => add(0, of(*namespace, artifact), artifact),
            RegistryEvent::SecretsSet {
                instance_id,
                client,
                envelope,
                ..
            } => add(
                0,
                LeafKey::secrets(chain_id, *client, *instance_id),
                envelope,
            ),
            _ => {}
        }
    }
    out
}

/// Root of a tree by its definition.
#[must_use]
pub fn root(leaves: &Leaves) -> B256 {
    fn subtree(leaves: &[(LeafKey, B256)], depth: usize) -> B256 {
        match leaves {
            [] => EMPTY_ROOT,
            [(key, value)] => leaf_hash(*key, *value),
            _ => {
                let right = |k: &LeafKey| k.0[depth / 8] >> (7 - depth % 8) & 1 == 1;
                let split = leaves.partition_point(|(k, _)| !right(k));
                node_hash(
                    subtree(&leaves[..split], depth + 1),
                    subtree(&leaves[split..], depth + 1),
                )
            }
        }
    }
    let list: Vec<_> = leaves.iter().map(|(k, v)| (*k, *v)).collect();
    subtree(&list, 0)
}

/// Where entries were dropped by certificate. The first one decides; another one changes nothing.
fn skips(blocks: &[Block]) -> BTreeMap<QueueKey, EventPosition> {
    let mut out = BTreeMap::new();
    for event in blocks.iter().flat_map(|b| &b.events) {
        if let RegistryEvent::EntrySkipped { entry } = &event.event {
            out.entry(*entry).or_insert(event.position);
        }
    }
    out
}

/// The rules version in force at a block.
fn rules_version(blocks: &[Block], at: u64) -> u32 {
    blocks
        .iter()
        .flat_map(|b| &b.events)
        .filter_map(|e| match &e.event {
            RegistryEvent::RulesVersionScheduled {
                rules_version,
                active_from,
            } => Some((*active_from, *rules_version)),
            _ => None,
        })
        .filter(|(from, _)| *from <= at)
        .max_by_key(|(from, _)| *from)
        .map_or(0, |(_, version)| version)
}

/// Every window end up to `until`, with the parameters that hold there.
fn window_ends(blocks: &[Block], until: u64) -> Vec<(u64, ConsensusParameters)> {
    let sets: Vec<(u64, ConsensusParameters)> = blocks
        .iter()
        .flat_map(|b| &b.events)
        .filter_map(|e| match &e.event {
            RegistryEvent::ConsensusParametersSet {
                parameters,
                active_from_timestamp,
            } => Some((*active_from_timestamp, *parameters)),
            _ => None,
        })
        .collect();
    let at = |time: u64| {
        let set = sets.iter().rev().find(|(from, _)| *from <= time);
        set.unwrap_or(&sets[0]).1
    };
    let mut out = Vec::new();
    let mut end = sets[0].1.genesis_time + sets[0].1.cadence;
    while end <= until {
        let parameters = at(end);
        out.push((end, parameters));
        end += parameters.cadence;
    }
    out
}
