//! What `docs/protocol.md` sections 2 and 3 say, as plainly as it can be written, over a whole chain at a time.

use std::collections::BTreeMap;

use newton_types::events::{Block, ConsensusParameters, EventPosition, RegistryEvent};
use newton_types::leaf::{EMPTY_ROOT, leaf_hash, node_hash};
use newton_types::queue::delta_hash;
use newton_types::{ABSENT, B256, DeltaEntry, LeafKey, Namespace, QueueKey, abi};

use crate::world::World;

/// The leaves of a tree.
pub type Leaves = BTreeMap<LeafKey, B256>;

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

struct Entry {
    key: QueueKey,
    leaf: LeafKey,
    hash: B256,
    length: u32,
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

/// All commits that follow from the blocks up to `head`.
#[must_use]
pub fn commits(world: &World, head: usize) -> Vec<abi::StateCommit> {
    derive(world, head).commits
}

/// The leaves after the last of these commits.
#[must_use]
pub fn leaves(world: &World, head: usize) -> Leaves {
    derive(world, head).leaves
}

/// Entries that none of these commits drains.
#[must_use]
pub fn undrained(world: &World, head: usize) -> usize {
    let cursor = derive(world, head).cursor;
    entries(&world.blocks[..=head])
        .iter()
        .filter(|e| e.key > cursor)
        .count()
}

struct Derived {
    commits: Vec<abi::StateCommit>,
    leaves: Leaves,
    cursor: QueueKey,
}

fn derive(world: &World, head: usize) -> Derived {
    let blocks = &world.blocks[..=head];
    let all = entries(blocks);
    let landed = chain_commits(blocks);
    let skips = skips(blocks);
    let newest = blocks[head].header.timestamp;
    let mut out = Derived {
        commits: Vec::new(),
        leaves: Leaves::new(),
        cursor: QueueKey::default(),
    };
    let mut last_boundary = 1;
    for (end, p) in window_ends(blocks, newest) {
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
        let sequence = out.commits.len() as u64 + 1;
        let there = landed.get(sequence as usize - 1);
        let at = there.map(|(at, _)| at);
        let (mut used, mut settled, mut drained) = (0u64, 0u64, 0);
        let mut delta = Vec::new();
        let mut now = out.leaves.clone();
        let mut cursor = out.cursor;
        for e in &all {
            if e.key.block > boundary.number {
                break;
            }
            if e.key <= out.cursor {
                continue;
            }
            let skipped = skips
                .get(&e.key)
                .is_some_and(|s| at.is_none_or(|at| s < at));
            let present = now.get(&e.leaf) == Some(&e.hash);
            if !skipped && !present && world.good.get(&e.key) == Some(&true) {
                if used + u64::from(e.length) > p.max_commit_bytes {
                    break;
                }
                used += u64::from(e.length);
                now.insert(e.leaf, e.hash);
                delta.push(DeltaEntry {
                    leaf_key: e.leaf.0,
                    value_hash: e.hash,
                    length: e.length,
                    key: e.key,
                });
            }
            settled += u64::from(e.length);
            drained += 1;
            cursor = e.key;
        }
        last_boundary = boundary.number;
        if drained == 0 && p.skip_empty {
            continue;
        }
        let previous = out.commits.last().map_or(EMPTY_ROOT, |c| c.newStateRoot);
        out.leaves = now;
        out.cursor = cursor;
        if let Some((_, commit)) = there {
            // Derived when it landed; roots are what takes time here.
            out.commits.push(commit.clone());
            continue;
        }
        out.commits.push(abi::StateCommit {
            sequenceNo: sequence,
            prevStateRoot: previous,
            newStateRoot: root(&out.leaves),
            boundaryBlock: boundary.number,
            boundaryTimestamp: boundary.timestamp,
            deltaHash: delta_hash(&delta),
            rulesVersion: 1,
            drainedBlock: cursor.block,
            drainedTx: cursor.tx,
            drainedLog: cursor.log,
            drainedItem: cursor.item,
            settledBytes: settled,
        });
    }
    out
}

fn entries(blocks: &[Block]) -> Vec<Entry> {
    let mut out = Vec::new();
    for event in blocks.iter().flat_map(|b| &b.events) {
        let mut add = |item: u32, namespace, a: &newton_types::events::Artifact| {
            if a.hash != ABSENT {
                out.push(Entry {
                    key: event.position.item(item),
                    leaf: LeafKey::artifact(namespace, a.hash),
                    hash: a.hash,
                    length: a.length,
                });
            }
        };
        match &event.event {
            RegistryEvent::PolicyTemplateRegistered {
                rego,
                params_schema,
                ..
            } => {
                add(0, Namespace::PolicyRego, rego);
                add(1, Namespace::PolicyParamsSchema, params_schema);
            }
            RegistryEvent::ArtifactSupplied {
                namespace,
                artifact,
                ..
            } => add(0, *namespace, artifact),
            _ => {}
        }
    }
    out
}

fn skips(blocks: &[Block]) -> BTreeMap<QueueKey, EventPosition> {
    let mut out = BTreeMap::new();
    for event in blocks.iter().flat_map(|b| &b.events) {
        if let RegistryEvent::EntrySkipped { entry } = &event.event {
            // The first certificate decides; another one changes nothing.
            out.entry(*entry).or_insert(event.position);
        }
    }
    out
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
        sets.iter()
            .rev()
            .find(|s| s.0 <= time)
            .unwrap_or(&sets[0])
            .1
    };
    let mut out = Vec::new();
    let mut end = sets[0].1.genesis_time + sets[0].1.cadence;
    while end <= until {
        let p = at(end);
        out.push((end, p));
        end += p.cadence;
    }
    out
}
