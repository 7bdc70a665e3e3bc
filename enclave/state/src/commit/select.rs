//! Which window is next and how much of the queue it drains.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use newton_types::events::EventPosition;
use newton_types::{B256, DeltaEntry, LeafKey, QueueKey};
use redb::{ReadTransaction, ReadableTable};

use super::{Blocked, Leaf, Next, Selection, Waiting};
use crate::StateError;
use crate::blocks::header;
use crate::queue::{EntryState, Outcome, decode_entry, queue_key};
use crate::registry::{Registry, Stored};
use crate::schedule::{Schedule, WindowEnd};
use crate::store::{self, Tip};
use crate::tables::{HEADERS, LEAVES, META, QUEUE, ROWS};

/// Whose verdict counts on an entry that has none here.
#[derive(Clone, Copy)]
pub(crate) enum Verdicts<'a> {
    /// Nobody's.
    Own,
    /// That of a commit with the right delta hash: it accepted what it wrote and rejected the rest of what it drained.
    Of {
        /// The commit.
        sequence: u64,
        /// What it wrote.
        written: &'a BTreeSet<QueueKey>,
        /// How far it drained.
        until: QueueKey,
    },
}

impl Verdicts<'_> {
    fn on(self, entry: QueueKey, own: EntryState) -> EntryState {
        match (own, self) {
            (
                EntryState::Pending | EntryState::Unavailable(_),
                Self::Of {
                    sequence,
                    written,
                    until,
                },
            ) => {
                // Only an accepted entry stops a commit before its boundary, by not fitting.
                if written.contains(&entry) || entry > until {
                    EntryState::Accepted
                } else {
                    EntryState::Rejected {
                        reason: format!(
                            "drained by commit {sequence}, whose delta does not have it"
                        ),
                    }
                }
            }
            (own, _) => own,
        }
    }
}

/// The next commit after `tip`. `committed_at`: where the chain confirmed it, if it did; a certificate that drops an
/// entry counts for this commit if it came before. `rules`: the rules versions that the caller implements.
pub(crate) fn select(
    txn: &ReadTransaction,
    tip: Tip,
    committed_at: Option<EventPosition>,
    rules: &RangeInclusive<u32>,
    verdicts: Verdicts<'_>,
) -> Result<Next, StateError> {
    let Some(finalized) = store::finalized(&txn.open_table(META)?)? else {
        return Ok(Next::Waiting(Waiting::NoBlock));
    };
    let rows = Stored(txn.open_table(ROWS)?);
    let registry = Registry::new(&rows);
    let schedule = Schedule::new(registry.parameters()?)?;
    let headers = txn.open_table(HEADERS)?;
    let queue = txn.open_table(QUEUE)?;

    let mut behind = tip.boundary_block;
    loop {
        let mut first = behind + 1;
        if first > finalized.number {
            return Ok(Next::Waiting(Waiting::NoBlock));
        }
        if schedule.skips_empty_from(time_of(&headers, first)?) {
            // Windows before the oldest undrained entry drain nothing.
            let Some((oldest, _)) = queue.first()? else {
                return Ok(Next::Waiting(Waiting::NothingToCommit));
            };
            first = first.max(queue_key(oldest.value())?.block);
        }
        if first > finalized.number {
            return Ok(Next::Waiting(Waiting::NoBlock));
        }
        let Some(end) = schedule.first_end_from(time_of(&headers, first)?) else {
            return Ok(Next::Waiting(Waiting::NoParameters));
        };
        if finalized.timestamp <= end.timestamp {
            return Ok(Next::Waiting(Waiting::Boundary {
                window_end: end.timestamp,
                finalized: finalized.timestamp,
            }));
        }
        let boundary = last_block_until(&headers, first, finalized.number, end.timestamp)?;
        let rules_version = registry.rules_version_at(boundary)?;
        // Before anything is drained by rules that this code does not have: no root is split, this enclave stops.
        if !rules.contains(&rules_version) {
            return Err(StateError::Rules {
                version: rules_version,
                boundary,
                known: *rules.end(),
            });
        }
        let mut selection = Selection {
            parent: tip,
            window_end: end.timestamp,
            boundary_block: boundary,
            boundary_timestamp: time_of(&headers, boundary)?,
            rules_version,
            drained: Vec::new(),
            delta: Vec::new(),
            settled_bytes: 0,
            deferred_from: None,
        };
        if let Some(blocked) = drain(
            &queue,
            &txn.open_table(LEAVES)?,
            &registry,
            verdicts,
            committed_at,
            &end,
            &mut selection,
        )? {
            return Ok(Next::Blocked(blocked));
        }
        if selection.drained.is_empty() && end.parameters.skip_empty {
            behind = boundary;
            continue;
        }
        return Ok(Next::Ready(Box::new(selection)));
    }
}

/// Drains the queue's prefix up to the boundary and the cap. Greedy, hard stop, no skip-ahead; equal to the cap fits.
fn drain(
    queue: &impl ReadableTable<&'static [u8], &'static [u8]>,
    leaves: &impl ReadableTable<&'static [u8], &'static [u8]>,
    registry: &Registry<'_>,
    verdicts: Verdicts<'_>,
    committed_at: Option<EventPosition>,
    end: &WindowEnd,
    selection: &mut Selection,
) -> Result<Option<Blocked>, StateError> {
    let cap = end.parameters.max_commit_bytes;
    let mut used = 0u64;
    let mut written: BTreeMap<LeafKey, B256> = BTreeMap::new();
    let until = QueueKey {
        block: selection.boundary_block,
        tx: u32::MAX,
        log: u32::MAX,
        item: u32::MAX,
    }
    .to_bytes();
    for item in queue.range::<&[u8]>(..=until.as_slice())? {
        let (key, value) = item?;
        let key = queue_key(key.value())?;
        let entry = decode_entry(key, value.value())?;
        let length = u64::from(entry.length);

        let value_here = match written.get(&entry.leaf_key) {
            Some(hash) => Some(*hash),
            None => Leaf::read(leaves, entry.leaf_key)?.map(|l| l.value_hash),
        };
        let dropped = registry
            .skipped(key)?
            .is_some_and(|at| committed_at.is_none_or(|committed| at < committed));
        let outcome = if dropped {
            Outcome::Skipped
        } else if value_here == Some(entry.hash) {
            Outcome::AlreadyPresent
        } else {
            match verdicts.on(key, entry.state) {
                EntryState::Accepted if used.saturating_add(length) > cap => {
                    selection.deferred_from = Some(key);
                    return Ok(None);
                }
                EntryState::Accepted => {
                    used += length;
                    written.insert(entry.leaf_key, entry.hash);
                    selection.delta.push(DeltaEntry {
                        leaf_key: entry.leaf_key.0,
                        value_hash: entry.hash,
                        length: entry.length,
                        key,
                    });
                    Outcome::Written
                }
                EntryState::Rejected { reason } => Outcome::Rejected { reason },
                state => {
                    return Ok(Some(Blocked {
                        sequence: selection.sequence(),
                        boundary_block: selection.boundary_block,
                        entry: key,
                        state,
                    }));
                }
            }
        };
        selection.settled_bytes = selection.settled_bytes.saturating_add(length);
        selection.drained.push((key, entry.length, outcome));
    }
    Ok(None)
}

/// The last block with a timestamp ≤ `time` among `first..=last`; `first` is one of them, and time never falls.
fn last_block_until(
    headers: &impl ReadableTable<u64, &'static [u8]>,
    first: u64,
    last: u64,
    time: u64,
) -> Result<u64, StateError> {
    let (mut yes, mut no) = (first, last + 1);
    while no - yes > 1 {
        let middle = yes + (no - yes) / 2;
        if time_of(headers, middle)? <= time {
            yes = middle;
        } else {
            no = middle;
        }
    }
    Ok(yes)
}

fn time_of(
    headers: &impl ReadableTable<u64, &'static [u8]>,
    number: u64,
) -> Result<u64, StateError> {
    header(headers, number)?
        .map(|(_, time)| time)
        .ok_or_else(|| StateError::Codec {
            what: "header",
            reason: format!("block {number} is not there"),
        })
}
