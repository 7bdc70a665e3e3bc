//! Evaluation records of tasks that this enclave signed, kept for the time in which they can be challenged, within a budget.
//!
//! They are this enclave's own memory, not derived from the chain: a state that is derived again starts without any.

use newton_types::B256;
use redb::{ReadableDatabase, ReadableTable, TableError, WriteTransaction};

use crate::tables::{META, RECORDS, RECORDS_BY_END};
use crate::{StateError, StateStore, content::CHUNK_BYTES};

/// Total length of all records.
const RECORD_BYTES: &[u8] = b"record bytes";

/// One record to keep.
pub struct KeptRecord {
    /// The task.
    pub task_id: B256,
    /// Last block in which the attestation can be challenged.
    pub until: u64,
    /// The record.
    pub bytes: Vec<u8>,
}

impl StateStore {
    /// Keeps records in one transaction; drops those that no challenge can ask for at `head`, and, above `budget` bytes, those whose
    /// time ends first. A record of the same task is replaced.
    ///
    /// # Errors
    /// [`StateError`] of the database.
    pub fn keep_records(
        &self,
        records: &[KeptRecord],
        head: u64,
        budget: u64,
    ) -> Result<(), StateError> {
        let txn = self.write()?;
        for record in records {
            put(&txn, record)?;
        }
        drop_ended(&txn, head, budget)?;
        txn.commit()?;
        Ok(())
    }

    /// The record of a task, if it is still kept.
    ///
    /// # Errors
    /// [`StateError`] of the database.
    pub fn record(&self, task_id: B256) -> Result<Option<Vec<u8>>, StateError> {
        let txn = self.db.begin_read()?;
        let table = match txn.open_table(RECORDS) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let mut bytes = None;
        for chunk in
            table.range::<&[u8]>(range(task_id).0.as_slice()..=range(task_id).1.as_slice())?
        {
            bytes
                .get_or_insert_with(Vec::new)
                .extend_from_slice(chunk?.1.value());
        }
        Ok(bytes)
    }

    /// Bytes of all kept records.
    ///
    /// # Errors
    /// [`StateError`] of the database.
    pub fn record_bytes(&self) -> Result<u64, StateError> {
        let meta = self.db.begin_read()?;
        total(&meta.open_table(META)?)
    }
}

fn put(txn: &WriteTransaction, record: &KeptRecord) -> Result<(), StateError> {
    remove(txn, record.task_id, None)?;
    let mut table = txn.open_table(RECORDS)?;
    for (number, chunk) in record.bytes.chunks(CHUNK_BYTES).enumerate() {
        table.insert(chunk_key(record.task_id, number as u32).as_slice(), chunk)?;
    }
    let mut ends = txn.open_table(RECORDS_BY_END)?;
    let length = record.bytes.len() as u64;
    ends.insert(
        end_key(record.until, record.task_id).as_slice(),
        length.to_be_bytes().as_slice(),
    )?;
    add(txn, i128::from(length))
}

fn drop_ended(txn: &WriteTransaction, head: u64, budget: u64) -> Result<(), StateError> {
    loop {
        let first = {
            let ends = txn.open_table(RECORDS_BY_END)?;
            let first = ends.first()?;
            first.map(|(key, _)| key.value().to_vec())
        };
        let Some(key) = first else { return Ok(()) };
        let until = u64::from_be_bytes(key[..8].try_into().unwrap_or_default());
        if until >= head && total(&txn.open_table(META)?)? <= budget {
            return Ok(());
        }
        remove(txn, B256::from_slice(&key[8..]), Some(&key))?;
    }
}

/// Removes a task's record, if there is one. `end` is its key by end, where the caller knows it.
fn remove(txn: &WriteTransaction, task_id: B256, end: Option<&[u8]>) -> Result<(), StateError> {
    let (first, last) = range(task_id);
    let mut table = txn.open_table(RECORDS)?;
    if end.is_none() && table.get(first.as_slice())?.is_none() {
        return Ok(());
    }
    table.retain_in::<&[u8], _>(first.as_slice()..=last.as_slice(), |_, _| false)?;
    let mut ends = txn.open_table(RECORDS_BY_END)?;
    let mut removed = 0u64;
    let mut note = |value: &[u8]| {
        removed += u64::from_be_bytes(value.try_into().unwrap_or_default());
    };
    match end {
        Some(key) => {
            if let Some(value) = ends.remove(key)? {
                note(value.value());
            }
        }
        // Only a record that is replaced: rare, and there are not many.
        None => ends.retain(|key, value| {
            let keep = key[8..] != task_id[..];
            if !keep {
                note(value);
            }
            keep
        })?,
    }
    drop((table, ends));
    add(txn, -i128::from(removed))
}

fn add(txn: &WriteTransaction, difference: i128) -> Result<(), StateError> {
    let mut meta = txn.open_table(META)?;
    let sum = i128::from(total(&meta)?) + difference;
    let sum = u64::try_from(sum.max(0)).unwrap_or(u64::MAX);
    meta.insert(RECORD_BYTES, sum.to_be_bytes().as_slice())?;
    Ok(())
}

fn total(meta: &impl ReadableTable<&'static [u8], &'static [u8]>) -> Result<u64, StateError> {
    Ok(meta.get(RECORD_BYTES)?.map_or(0, |value| {
        u64::from_be_bytes(value.value().try_into().unwrap_or_default())
    }))
}

fn range(task_id: B256) -> ([u8; 36], [u8; 36]) {
    (chunk_key(task_id, 0), chunk_key(task_id, u32::MAX))
}

fn chunk_key(task_id: B256, number: u32) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(task_id.as_slice());
    key[32..].copy_from_slice(&number.to_be_bytes());
    key
}

fn end_key(until: u64, task_id: B256) -> [u8; 40] {
    let mut key = [0; 40];
    key[..8].copy_from_slice(&until.to_be_bytes());
    key[8..].copy_from_slice(task_id.as_slice());
    key
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::ChainConfig;
    use newton_types::Address;

    fn store() -> StateStore {
        let db = redb::Database::builder()
            .create_with_backend(redb::backends::InMemoryBackend::new())
            .unwrap();
        let config = ChainConfig {
            chain_id: 31_337,
            state_commit_registry: Address::repeat_byte(1),
            first_block: 1,
            deployment_block: 1,
            deployment_block_hash: None,
        };
        StateStore::open(Arc::new(db), config).unwrap()
    }

    fn record(n: u8, until: u64, length: usize) -> KeptRecord {
        KeptRecord {
            task_id: B256::repeat_byte(n),
            until,
            bytes: vec![n; length],
        }
    }

    fn kept(store: &StateStore, n: u8) -> Option<usize> {
        let bytes = store.record(B256::repeat_byte(n)).unwrap()?;
        assert!(bytes.iter().all(|b| *b == n));
        Some(bytes.len())
    }

    #[test]
    fn records_are_kept_until_their_time_ends_and_within_the_budget() {
        let store = store();
        assert_eq!(kept(&store, 1), None);
        let long = CHUNK_BYTES * 2 + 1;
        store
            .keep_records(
                &[record(1, 10, 100), record(2, 30, long), record(3, 20, 50)],
                5,
                u64::MAX,
            )
            .unwrap();
        assert_eq!(
            (kept(&store, 1), kept(&store, 2), kept(&store, 3)),
            (Some(100), Some(long), Some(50))
        );
        assert_eq!(store.record_bytes().unwrap(), long as u64 + 150);
        // To the block: the last block of the window still counts.
        store.keep_records(&[], 10, u64::MAX).unwrap();
        assert_eq!(kept(&store, 1), Some(100));
        store.keep_records(&[], 11, u64::MAX).unwrap();
        assert_eq!((kept(&store, 1), kept(&store, 3)), (None, Some(50)));
        // Above the budget goes first what ends first.
        store
            .keep_records(&[record(4, 40, 10)], 11, long as u64 + 20)
            .unwrap();
        assert_eq!(
            (kept(&store, 3), kept(&store, 2), kept(&store, 4)),
            (None, Some(long), Some(10))
        );
        // Replaced, not added.
        store
            .keep_records(&[record(2, 50, 7)], 11, u64::MAX)
            .unwrap();
        assert_eq!(
            (kept(&store, 2), store.record_bytes().unwrap()),
            (Some(7), 17)
        );
        store.keep_records(&[], 60, 0).unwrap();
        assert_eq!(
            (
                kept(&store, 2),
                kept(&store, 4),
                store.record_bytes().unwrap()
            ),
            (None, None, 0)
        );
    }
}
