//! What `docs/protocol.md` §2 and §3 say, as plainly as it can be written.

use std::collections::BTreeMap;

use newton_types::events::{Block, ConsensusParameters, EventPosition, RegistryEvent};
use newton_types::leaf::{EMPTY_ROOT, leaf_hash, node_hash};
use newton_types::queue::delta_hash;
use newton_types::{ABSENT, B256, DeltaEntry, LeafKey, Namespace, QueueKey, abi};

use super::CHAIN_ID;

/// Root of a tree by its definition.
pub fn root(leaves: &BTreeMap<LeafKey, B256>) -> B256 {
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

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: QueueKey,
    pub leaf: LeafKey,
    pub hash: B256,
    pub length: u32,
}

/// All entries that the blocks order.
pub fn entries(blocks: &[Block]) -> Vec<Entry> {
    let mut out = Vec::new();
    for block in blocks {
        for event in &block.events {
            let mut add = |item: u32, leaf: LeafKey, a: &newton_types::events::Artifact| {
                if a.hash != ABSENT {
                    out.push(Entry {
                        key: event.position.item(item),
                        leaf,
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
                    add(0, LeafKey::artifact(Namespace::PolicyRego, rego.hash), rego);
                    let schema =
                        LeafKey::artifact(Namespace::PolicyParamsSchema, params_schema.hash);
                    add(1, schema, params_schema);
                }
                RegistryEvent::ArtifactSupplied {
                    namespace,
                    artifact,
                    ..
                } => add(0, LeafKey::artifact(*namespace, artifact.hash), artifact),
                RegistryEvent::SecretsSet {
                    instance_id,
                    client,
                    envelope,
                    ..
                } => add(
                    0,
                    LeafKey::secrets(CHAIN_ID, *client, *instance_id),
                    envelope,
                ),
                _ => {}
            }
        }
    }
    out
}

/// Sequence numbers, and where the chain confirmed them.
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

/// All commits that follow from the blocks, given which contents are good. `committed_at(sequence)` says where the chain
/// confirmed a commit; certificates that drop entries count if they came before.
pub fn commits(
    blocks: &[Block],
    is_good: impl Fn(B256) -> bool,
    committed_at: impl Fn(u64) -> Option<EventPosition>,
) -> Vec<abi::StateCommit> {
    let all = entries(blocks);
    let skips: BTreeMap<QueueKey, EventPosition> = blocks
        .iter()
        .flat_map(|b| &b.events)
        .filter_map(|e| match &e.event {
            RegistryEvent::EntrySkipped { entry } => Some((*entry, e.position)),
            _ => None,
        })
        .collect();
    let newest = blocks.last().unwrap().header.timestamp;
    let mut leaves: BTreeMap<LeafKey, B256> = BTreeMap::new();
    let mut out: Vec<abi::StateCommit> = Vec::new();
    let mut cursor = QueueKey::default();
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
        let sequence = out.len() as u64 + 1;
        let at = committed_at(sequence);
        let (mut used, mut settled, mut drained) = (0u64, 0u64, 0);
        let mut delta = Vec::new();
        let mut now = leaves.clone();
        let mut now_cursor = cursor;
        for e in &all {
            if e.key.block > boundary.number {
                break;
            }
            if e.key <= cursor {
                continue;
            }
            let skipped = skips
                .get(&e.key)
                .is_some_and(|s| at.is_none_or(|at| *s < at));
            let present = now.get(&e.leaf) == Some(&e.hash);
            if !skipped && !present && is_good(e.hash) {
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
            now_cursor = e.key;
        }
        if drained == 0 && p.skip_empty {
            last_boundary = boundary.number;
            continue;
        }
        let previous = root(&leaves);
        leaves = now;
        cursor = now_cursor;
        last_boundary = boundary.number;
        out.push(abi::StateCommit {
            sequenceNo: sequence,
            prevStateRoot: previous,
            newStateRoot: root(&leaves),
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
