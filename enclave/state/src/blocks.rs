//! Blocks in: finalized ones into the database, pending ones into a layer over it (design 7, two heads).

use alloy_sol_types::SolValue;
use newton_types::events::{Block, ChainEvent, EventPosition, HeaderInfo, RegistryEvent};
use newton_types::{B256, Bytes, abi};
use redb::{ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::registry::{self, Changes, Layered, Registry, Stored};
use crate::store::{self, ChainConfig, FinalizedHead};
use crate::tables::{ADOPTED, CHAIN_COMMITS, COMMITS, HEADERS, META, ROWS, decode, encode};
use crate::{StateError, StateStore, queue};

/// What applying finalized blocks brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Blocks that were new.
    pub blocks: usize,
    /// Queue entries that came.
    pub entries: usize,
    /// Commits seen on chain that are not replayed yet.
    pub commits: usize,
}

/// Blocks above the finalized head: rows as they would be, and what happened. Forgotten at the next poll.
#[derive(Clone, Debug)]
pub struct Pending {
    pub(crate) base: FinalizedHead,
    pub(crate) changes: Changes,
    head: HeaderInfo,
    commits: Vec<abi::StateCommit>,
    tasks: Vec<B256>,
}

impl Pending {
    /// The newest block.
    pub fn head(&self) -> &HeaderInfo {
        &self.head
    }

    /// Commits in pending blocks, in order.
    pub fn commits(&self) -> &[abi::StateCommit] {
        &self.commits
    }

    /// Tasks created in pending blocks, in order.
    pub fn tasks(&self) -> &[B256] {
        &self.tasks
    }
}

/// A commit as a table keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CommitRow {
    commit: Bytes,
    /// Where the chain confirmed it, once that is finalized.
    pub at: Option<EventPosition>,
}

impl CommitRow {
    pub(crate) fn new(commit: &abi::StateCommit, at: Option<EventPosition>) -> Self {
        Self {
            commit: commit.abi_encode().into(),
            at,
        }
    }

    pub(crate) fn commit(&self) -> Result<abi::StateCommit, StateError> {
        abi::StateCommit::abi_decode(&self.commit).map_err(|e| StateError::Codec {
            what: "commit",
            reason: e.to_string(),
        })
    }

    pub(crate) fn read(
        table: &impl ReadableTable<u64, &'static [u8]>,
        sequence: u64,
    ) -> Result<Option<Self>, StateError> {
        match table.get(sequence)? {
            Some(bytes) => decode("commit", bytes.value()).map(Some),
            None => Ok(None),
        }
    }

    pub(crate) fn write(
        &self,
        table: &mut redb::Table<'_, u64, &'static [u8]>,
        sequence: u64,
    ) -> Result<(), StateError> {
        table.insert(sequence, encode("commit", self)?.as_slice())?;
        Ok(())
    }
}

/// A commit that came from a sealed snapshot.
#[derive(Serialize, Deserialize)]
struct AdoptedRow {
    at: EventPosition,
    snapshot: Bytes,
    da_ref: Bytes,
}

/// Why commit `sequence` cannot be derived, if it came from a sealed snapshot.
pub(crate) fn adopted(
    table: &impl ReadableTable<u64, &'static [u8]>,
    sequence: u64,
) -> Result<Option<StateError>, StateError> {
    let Some(bytes) = table.get(sequence)? else {
        return Ok(None);
    };
    let row: AdoptedRow = decode("adopted snapshot", bytes.value())?;
    let snapshot =
        abi::SealedSnapshot::abi_decode(&row.snapshot).map_err(|e| StateError::Codec {
            what: "adopted snapshot",
            reason: e.to_string(),
        })?;
    Ok(Some(StateError::SnapshotAdopted {
        position: row.at,
        snapshot: Box::new(snapshot),
        da_ref: row.da_ref,
    }))
}

impl StateStore {
    /// Applies finalized blocks in order, all or nothing. Blocks that are known already are compared by hash and
    /// otherwise ignored, so a caller may repeat itself after a crash.
    pub fn apply_finalized(&self, blocks: &[Block]) -> Result<Applied, StateError> {
        let txn = self.write()?;
        let mut applied = Applied::default();
        let mut head = store::finalized(&txn.open_table(META)?)?;
        for block in blocks {
            if let Some(head) = &head
                && block.header.number <= head.number
            {
                check_known(&txn, &block.header)?;
                continue;
            }
            check_follows(&self.config, head.as_ref(), &block.header)?;
            apply_block(&txn, &self.config, block, &mut applied)?;
            head = Some(FinalizedHead {
                number: block.header.number,
                hash: block.header.hash,
                timestamp: block.header.timestamp,
            });
            applied.blocks += 1;
        }
        if let Some(head) = &head {
            prune_tasks(&txn, head)?;
            store::put_finalized(&mut txn.open_table(META)?, head)?;
        }
        txn.commit()?;
        Ok(applied)
    }

    /// Layers pending blocks over the finalized head. They must follow it without a gap; `None` without blocks.
    pub fn pending(&self, blocks: &[Block]) -> Result<Option<Pending>, StateError> {
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else {
            return Ok(None);
        };
        let txn = self.read()?;
        let stale = |finalized| StateError::StalePending {
            finalized,
            got: first.header.number,
        };
        let base = store::finalized(&txn.open_table(META)?)?.ok_or_else(|| stale(0))?;
        if first.header.number != base.number + 1 || first.header.parent_hash != base.hash {
            return Err(stale(base.number));
        }
        let rows = Stored(txn.open_table(ROWS)?);
        let mut pending = Pending {
            base,
            changes: Changes::new(),
            head: last.header,
            commits: Vec::new(),
            tasks: Vec::new(),
        };
        let mut parent = base;
        for block in blocks {
            check_follows(&self.config, Some(&parent), &block.header)?;
            parent = FinalizedHead {
                number: block.header.number,
                hash: block.header.hash,
                timestamp: block.header.timestamp,
            };
            check_order(block)?;
            for event in &block.events {
                let mut layered = Layered {
                    base: &rows,
                    changes: &mut pending.changes,
                };
                registry::apply(&mut layered, event)?;
                match &event.event {
                    RegistryEvent::StateCommitted { commit, .. } => {
                        pending.commits.push(commit.clone());
                    }
                    RegistryEvent::TaskCreated { task_id, .. } => pending.tasks.push(*task_id),
                    _ => {}
                }
            }
        }
        Ok(Some(pending))
    }
}

pub(crate) fn header(
    headers: &impl ReadableTable<u64, &'static [u8]>,
    number: u64,
) -> Result<Option<(B256, u64)>, StateError> {
    let Some(bytes) = headers.get(number)? else {
        return Ok(None);
    };
    let bytes = <[u8; 40]>::try_from(bytes.value()).map_err(|_| StateError::Codec {
        what: "header",
        reason: "it is not 40 bytes".into(),
    })?;
    let (hash, time) = bytes.split_at(32);
    let time = time.iter().fold(0, |t, b| t << 8 | u64::from(*b));
    Ok(Some((B256::from_slice(hash), time)))
}

fn check_known(txn: &WriteTransaction, block: &HeaderInfo) -> Result<(), StateError> {
    match header(&txn.open_table(HEADERS)?, block.number)? {
        Some((stored, _)) if stored != block.hash => Err(StateError::Fork {
            number: block.number,
            stored,
            got: block.hash,
        }),
        // Pruned heights cannot be compared; their effects are committed.
        _ => Ok(()),
    }
}

fn check_follows(
    config: &ChainConfig,
    parent: Option<&FinalizedHead>,
    block: &HeaderInfo,
) -> Result<(), StateError> {
    let expected = parent.map_or(config.first_block, |p| p.number + 1);
    if block.number != expected {
        return Err(StateError::Gap {
            expected,
            got: block.number,
        });
    }
    if let Some(parent) = parent {
        if block.parent_hash != parent.hash {
            return Err(StateError::ParentMismatch {
                number: block.number,
                expected: parent.hash,
                got: block.parent_hash,
            });
        }
        if block.timestamp < parent.timestamp {
            return Err(StateError::TimeFell {
                number: block.number,
                parent: parent.timestamp,
                got: block.timestamp,
            });
        }
    }
    match config.deployment_block_hash {
        Some(expected) if block.number == config.deployment_block && block.hash != expected => {
            Err(StateError::Checkpoint {
                number: block.number,
                expected,
                got: block.hash,
            })
        }
        _ => Ok(()),
    }
}

fn check_order(block: &Block) -> Result<(), StateError> {
    let mut last: Option<EventPosition> = None;
    for event in &block.events {
        let at = event.position;
        if at.block != block.header.number
            || last.is_some_and(|last| at.log <= last.log || at.tx < last.tx)
        {
            return Err(StateError::MalformedEvent {
                position: at,
                reason: format!("out of order in block {}", block.header.number),
            });
        }
        last = Some(at);
    }
    Ok(())
}

fn apply_block(
    txn: &WriteTransaction,
    config: &ChainConfig,
    block: &Block,
    applied: &mut Applied,
) -> Result<(), StateError> {
    check_order(block)?;
    let mut value = block.header.hash.to_vec();
    value.extend_from_slice(&block.header.timestamp.to_be_bytes());
    txn.open_table(HEADERS)?
        .insert(block.header.number, value.as_slice())?;
    for event in &block.events {
        let mut rows = Stored(txn.open_table(ROWS)?);
        registry::apply(&mut rows, event)?;
        applied.entries += queue::enqueue(txn, config.chain_id, &Registry::new(&rows), event)?;
        if let RegistryEvent::StateCommitted { commit, .. } = &event.event {
            see_commit(txn, event, commit)?;
            applied.commits += 1;
        }
        if let RegistryEvent::SnapshotAdopted {
            snapshot, da_ref, ..
        } = &event.event
        {
            // A commit in all but its derivation: replay stops there.
            see_commit(txn, event, &snapshot.commit)?;
            applied.commits += 1;
            let row = AdoptedRow {
                at: event.position,
                snapshot: snapshot.abi_encode().into(),
                da_ref: da_ref.clone(),
            };
            txn.open_table(ADOPTED)?.insert(
                snapshot.commit.sequenceNo,
                encode("adopted snapshot", &row)?.as_slice(),
            )?;
        }
    }
    Ok(())
}

/// Notes a finalized commit for replay, or holds it against the one derived already.
fn see_commit(
    txn: &WriteTransaction,
    event: &ChainEvent,
    commit: &abi::StateCommit,
) -> Result<(), StateError> {
    let sequence = commit.sequenceNo;
    let mut applied = txn.open_table(COMMITS)?;
    if let Some(mut row) = CommitRow::read(&applied, sequence)? {
        let ours = row.commit()?;
        if ours != *commit {
            return Err(StateError::Divergence {
                ours: Box::new(ours),
                chain: Box::new(commit.clone()),
            });
        }
        row.at = Some(event.position);
        return row.write(&mut applied, sequence);
    }
    let tip = store::tip(&txn.open_table(META)?)?;
    let mut chain = txn.open_table(CHAIN_COMMITS)?;
    let expected = chain.last()?.map_or(tip.sequence, |(s, _)| s.value()) + 1;
    if sequence != expected {
        return Err(StateError::MalformedEvent {
            position: event.position,
            reason: format!("commits sequence {sequence}, expected {expected}"),
        });
    }
    CommitRow::new(commit, Some(event.position)).write(&mut chain, sequence)
}

/// Finalized tasks stay for as long as anyone may answer or challenge them, and a day of Ethereum blocks at least.
fn prune_tasks(txn: &WriteTransaction, head: &FinalizedHead) -> Result<(), StateError> {
    const LEAST_BLOCKS: u64 = 7_200;
    const PER_CALL: usize = 256;
    let mut rows = Stored(txn.open_table(ROWS)?);
    let windows = Registry::new(&rows)
        .parameters_at(head.timestamp)?
        .map_or(0, |p| p.response_window.saturating_add(p.challenge_window));
    let Some(before) = head.number.checked_sub(windows.max(LEAST_BLOCKS)) else {
        return Ok(());
    };
    let index = registry::Kind::TaskByBlock;
    let from = registry::key(index, 0u64.to_be_bytes());
    let to = registry::key(index, before.to_be_bytes());
    let old: Vec<Vec<u8>> = rows
        .0
        .range::<&[u8]>(from.as_slice()..to.as_slice())?
        .take(PER_CALL)
        .map(|row| row.map(|(key, _)| key.value().to_vec()))
        .collect::<Result<_, _>>()?;
    for key in old {
        // kind (1) ‖ block (8) ‖ task id (32)
        rows.0
            .remove(registry::key(registry::Kind::Task, &key[9..]).as_slice())?;
        rows.0.remove(key.as_slice())?;
    }
    Ok(())
}
