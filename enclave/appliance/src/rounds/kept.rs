//! What a boot remembers of its answers, each within a bound.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use newton_rounds::{OperatorOutputs, Record, Transcript};
use newton_state::{KeptRecord, StateError};
use newton_types::B256;
use serde_json::Value;

use crate::engine::Engine;

/// Bytes of answers, and of prepared outputs, kept in memory. What falls out is evaluated again and signed only if nothing changed.
const ANSWER_BYTES: usize = 32 << 20;
/// Bytes of records that wait to be written.
const WAITING_BYTES: usize = 32 << 20;
/// Bytes of one record.
const RECORD_BYTES: usize = 16 << 20;
/// Bytes of all records in the page store.
const STORED_BYTES: u64 = 256 << 20;

/// The memory of one chain's rounds.
#[derive(Default)]
pub struct Rounds {
    answers: Mutex<Bounded<B256, Arc<Value>>>,
    prepared: Mutex<Bounded<(B256, u32), Arc<Own>>>,
    waiting: Mutex<Waiting>,
}

/// This boot's own outputs of one task and round.
pub struct Own {
    /// As they travel.
    pub outputs: OperatorOutputs,
    /// The answer of `newt_fetchPolicyData`.
    pub answer: Value,
    /// Sealed exchanges by data instance.
    pub transcripts: BTreeMap<B256, Transcript>,
}

#[derive(Default)]
struct Waiting {
    /// With the last block of its challenge window.
    records: VecDeque<(Record, u64)>,
    bytes: usize,
}

impl Rounds {
    /// The answer that this boot has signed for a task, while it is remembered.
    pub fn answer(&self, task_id: B256) -> Option<Arc<Value>> {
        lock(&self.answers)
            .entries
            .get(&task_id)
            .map(|(v, _)| v.clone())
    }

    /// The answer kept for a task, or the one that `sign` gives, which is kept with about how many bytes it has. Of two at once the
    /// first counts.
    pub fn answer_once<E>(
        &self,
        task_id: B256,
        sign: impl FnOnce() -> Result<(Value, usize), E>,
    ) -> Result<Arc<Value>, E> {
        let mut answers = lock(&self.answers);
        if let Some((kept, _)) = answers.entries.get(&task_id) {
            return Ok(kept.clone());
        }
        let (answer, bytes) = sign()?;
        let answer = Arc::new(answer);
        answers.insert(task_id, answer.clone(), bytes);
        Ok(answer)
    }

    /// This boot's own outputs, while they are remembered.
    pub fn own(&self, task_id: B256, round: u32) -> Option<Arc<Own>> {
        let prepared = lock(&self.prepared);
        prepared
            .entries
            .get(&(task_id, round))
            .map(|(v, _)| v.clone())
    }

    /// The same as [`Self::answer_once`] of prepared outputs.
    pub fn own_once<E>(
        &self,
        task_id: B256,
        round: u32,
        sign: impl FnOnce() -> Result<Own, E>,
    ) -> Result<Arc<Own>, E> {
        let mut prepared = lock(&self.prepared);
        if let Some((kept, _)) = prepared.entries.get(&(task_id, round)) {
            return Ok(kept.clone());
        }
        let own = Arc::new(sign()?);
        let sealed: usize = own.transcripts.values().map(|t| t.ciphertext.len()).sum();
        prepared.insert(
            (task_id, round),
            own.clone(),
            sealed + own.answer.to_string().len(),
        );
        Ok(own)
    }

    /// Keeps a record until `until`, encoded and written soon and not now: an evaluation does not wait for that.
    pub fn keep(&self, record: Record, until: u64) {
        let bytes = size(&record);
        let mut waiting = lock(&self.waiting);
        waiting.bytes += bytes;
        waiting.records.push_back((record, until));
        while waiting.bytes > WAITING_BYTES
            && let Some((lost, _)) = waiting.records.pop_front()
        {
            waiting.bytes -= size(&lost);
            tracing::warn!(task = %lost.task_id, "a record was dropped before it was written");
        }
    }

    /// A record that is still to be written.
    fn waiting(&self, task_id: B256) -> Option<Record> {
        let waiting = lock(&self.waiting);
        let mut newest = waiting.records.iter().rev();
        newest
            .find(|(r, _)| r.task_id == task_id)
            .map(|(r, _)| r.clone())
    }

    fn take_waiting(&self) -> Vec<KeptRecord> {
        let waiting = std::mem::take(&mut *lock(&self.waiting)).records;
        waiting.into_iter().filter_map(encoded).collect()
    }
}

fn encoded((record, until): (Record, u64)) -> Option<KeptRecord> {
    match serde_json::to_vec(&record) {
        Ok(bytes) if bytes.len() <= RECORD_BYTES => Some(KeptRecord {
            task_id: record.task_id,
            until,
            bytes,
        }),
        Ok(bytes) => {
            tracing::warn!(task = %record.task_id, bytes = bytes.len(), "a record is too large to be kept");
            None
        }
        Err(e) => {
            tracing::error!(task = %record.task_id, error = %e, "a record cannot be written");
            None
        }
    }
}

/// About what a record takes in memory.
fn size(record: &Record) -> usize {
    let outputs = record
        .outputs
        .iter()
        .flatten()
        .flat_map(|entry| &entry.outputs);
    let transcripts = record
        .data
        .iter()
        .filter_map(|data| data.transcript.as_ref());
    let params: usize = record.data.iter().map(|data| data.params.len()).sum();
    1_024
        + record.intent.len()
        + record.wasm_args.len()
        + record.policy.params.len()
        + record.attestation.len()
        + params
        + outputs.map(|o| o.output.len() + 512).sum::<usize>()
        + transcripts.map(|t| t.ciphertext.len()).sum::<usize>()
}

impl Engine {
    /// The record of a task that this enclave signed, if it is kept.
    pub fn evaluation_record(&self, task_id: B256) -> Result<Option<Vec<u8>>, StateError> {
        if let Some(record) = self.rounds.waiting(task_id)
            && let Some(kept) = encoded((record, 0))
        {
            return Ok(Some(kept.bytes));
        }
        self.state.record(task_id)
    }
}

/// Writes records until the appliance ends.
pub async fn keep_records(engine: Arc<Engine>, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        let engine = engine.clone();
        let written = tokio::task::spawn_blocking(move || {
            let records = engine.rounds.take_waiting();
            if records.is_empty() {
                return Ok(());
            }
            let head = engine.state.finalized()?.map_or(0, |head| head.number);
            engine.state.keep_records(&records, head, STORED_BYTES)
        })
        .await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!(error = %e, "records were not written"),
            Err(e) => tracing::error!(error = %e, "writing records"),
        }
    }
}

/// Entries in the order they came; the oldest go when they are too many bytes.
struct Bounded<K, V> {
    entries: BTreeMap<K, (V, usize)>,
    order: VecDeque<K>,
    bytes: usize,
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            order: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<K: Ord + Copy, V> Bounded<K, V> {
    fn insert(&mut self, key: K, value: V, bytes: usize) {
        // What the tables themselves cost.
        let bytes = bytes + 256;
        self.bytes += bytes;
        self.entries.insert(key, (value, bytes));
        self.order.push_back(key);
        while self.bytes > ANSWER_BYTES
            && let Some(oldest) = self.order.pop_front()
            && let Some((_, freed)) = self.entries.remove(&oldest)
        {
            self.bytes -= freed;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_answer_stays_and_a_failed_one_leaves_no_trace() {
        let rounds = Rounds::default();
        let task = B256::repeat_byte(1);
        assert!(rounds.answer_once(task, || Err("no")).is_err());
        assert!(rounds.answer(task).is_none());
        let first = rounds
            .answer_once(task, || Ok::<_, ()>((Value::from(1), 8)))
            .unwrap();
        let again = rounds
            .answer_once(task, || Ok::<_, ()>((Value::from(2), 8)))
            .unwrap();
        assert_eq!((*first).clone(), Value::from(1));
        assert_eq!(first, again);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let mut bounded = Bounded::<usize, ()>::default();
        for i in 0..100 {
            bounded.insert(i, (), 1 << 20);
        }
        assert!(bounded.bytes <= ANSWER_BYTES);
        assert_eq!(bounded.entries.len(), bounded.order.len());
        assert!(!bounded.entries.contains_key(&0) && bounded.entries.contains_key(&99));
    }
}
