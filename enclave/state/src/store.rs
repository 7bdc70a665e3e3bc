//! The database of one chain: what it belongs to and how far it has come.

use std::ops::RangeInclusive;
use std::sync::Arc;

use newton_types::leaf::EMPTY_ROOT;
use newton_types::{Address, B256, QueueKey};
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend, WriteTransaction,
};
use serde::{Deserialize, Serialize};

use crate::tables::{self, META, decode, encode};
use crate::{StateError, tree};

/// What a database belongs to; another one's is refused by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainConfig {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The contract whose commits these are.
    pub state_commit_registry: Address,
    /// First block that is applied: no contract of the set has emitted an event before it.
    pub first_block: u64,
    /// The genesis commit's boundary: commit 1 uses the first window that ends behind this block.
    pub deployment_block: u64,
    /// Hash of that block, if the manifest names it.
    pub deployment_block_hash: Option<B256>,
}

/// The newest commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tip {
    /// Its sequence number; 0 is genesis.
    pub sequence: u64,
    /// Its state root.
    pub root: B256,
    /// Last queue entry drained.
    pub cursor: QueueKey,
    /// Its boundary block.
    pub boundary_block: u64,
}

/// Height, hash and time of the finalized head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalizedHead {
    /// Height.
    pub number: u64,
    /// Block hash.
    pub hash: B256,
    /// Seconds since 1970.
    pub timestamp: u64,
}

/// Undrained entries, and their declared bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueTotals {
    /// Number of entries.
    pub entries: u64,
    /// Sum of their declared lengths.
    pub bytes: u64,
}

/// Opens a redb database on `backend`, with `cache_bytes` of page cache (redb's own default is 1 GiB), creating it if the
/// backend is empty.
///
/// redb writes its magic number in the last flush of a creation, and refuses a file without it. So a kill between the
/// flushes of the very first start would leave a file that never opens; such a file holds nothing and is created anew.
pub fn open_database(
    backend: impl StorageBackend,
    cache_bytes: usize,
) -> Result<Database, StateError> {
    let io = |e: std::io::Error| StateError::Storage(Box::new(redb::Error::Io(e)));
    let length = backend.len().map_err(io)?;
    if length > 0 {
        let mut magic = [0; 9];
        let shown = magic
            .len()
            .min(usize::try_from(length).unwrap_or(usize::MAX));
        backend.read(0, &mut magic[..shown]).map_err(io)?;
        if magic == [0; 9] {
            tracing::warn!(
                length,
                "creation of the database was cut off; creating it anew"
            );
            backend.set_len(0).map_err(io)?;
        }
    }
    Ok(Database::builder()
        .set_cache_size(cache_bytes)
        .create_with_backend(backend)?)
}

/// The state of one chain over a redb database. Cheap to clone; blocking, so call it off the async threads.
#[derive(Clone)]
pub struct StateStore {
    pub(crate) db: Arc<Database>,
    pub(crate) config: Arc<ChainConfig>,
    pub(crate) rules: RangeInclusive<u32>,
}

/// Which rows are kept, and how they are encoded. A state that was derived by other code lacks what this code asks for, so
/// a change here means to derive the state from the chain again, over an empty page file.
const FORMAT: u32 = 1;

const FORMAT_KEY: &[u8] = b"format";
const IDENTITY: &[u8] = b"identity";
const TIP: &[u8] = b"tip";
const FINALIZED: &[u8] = b"finalized";
const TOTALS: &[u8] = b"queue totals";

impl StateStore {
    /// Opens the state, creating genesis in an empty database.
    pub fn open(db: Arc<Database>, config: ChainConfig) -> Result<Self, StateError> {
        let txn = begin_write(&db)?;
        {
            // Every table exists from the start, so that readers never meet a missing one.
            txn.open_table(tables::HEADERS)?;
            txn.open_table(tables::ROWS)?;
            txn.open_table(tables::QUEUE)?;
            txn.open_table(tables::UNDECIDED)?;
            txn.open_table(tables::SETTLED)?;
            txn.open_table(tables::ENTRIES_OF_LEAF)?;
            txn.open_table(tables::LEAVES)?;
            txn.open_table(tables::CONTENT)?;
            txn.open_table(tables::CHUNKS)?;
            txn.open_table(tables::COMPILED)?;
            txn.open_table(tables::COMPILED_CHUNKS)?;
            txn.open_table(tables::COMMITS)?;
            txn.open_table(tables::CHAIN_COMMITS)?;
            txn.open_table(tables::ADOPTED)?;
            txn.open_table(tables::DELTAS)?;
            let mut nodes = txn.open_table(tree::NODES)?;
            let mut stale = txn.open_table(tree::STALE_NODES)?;
            let mut meta = txn.open_table(META)?;
            let stored: Option<ChainConfig> = read(&meta, IDENTITY)?;
            match stored {
                Some(stored) => {
                    check_format(read(&meta, FORMAT_KEY)?)?;
                    check_identity(&config, &stored)?;
                }
                None => {
                    put(&mut meta, FORMAT_KEY, &FORMAT)?;
                    put(&mut meta, IDENTITY, &config)?;
                    let tip = Tip {
                        sequence: 0,
                        root: EMPTY_ROOT,
                        cursor: QueueKey::default(),
                        boundary_block: config.deployment_block,
                    };
                    put(&mut meta, TIP, &tip)?;
                    put(&mut meta, TOTALS, &QueueTotals::default())?;
                    let genesis = tree::stage_genesis(&nodes)?;
                    tree::write(&mut nodes, &mut stale, &genesis)?;
                }
            }
            let tip = tip(&meta)?;
            check_root(&nodes, &tip)?;
        }
        txn.commit()?;
        Ok(Self {
            db,
            config: Arc::new(config),
            rules: 0..=u32::MAX,
        })
    }

    /// The rules versions that the caller implements. The first commit under another one is refused with
    /// [`StateError::Rules`], whether it is to be made or replayed.
    #[must_use]
    pub fn implementing(mut self, rules: RangeInclusive<u32>) -> Self {
        self.rules = rules;
        self
    }

    /// What this state belongs to.
    pub fn config(&self) -> &ChainConfig {
        &self.config
    }

    /// The newest commit.
    pub fn tip(&self) -> Result<Tip, StateError> {
        tip(&self.read()?.open_table(META)?)
    }

    /// The finalized head, `None` before the first block.
    pub fn finalized(&self) -> Result<Option<FinalizedHead>, StateError> {
        finalized(&self.read()?.open_table(META)?)
    }

    /// Height of the block to apply next.
    pub fn next_block(&self) -> Result<u64, StateError> {
        Ok(self
            .finalized()?
            .map_or(self.config.first_block, |head| head.number + 1))
    }

    /// Depth of the defer queue.
    pub fn queue_totals(&self) -> Result<QueueTotals, StateError> {
        totals(&self.read()?.open_table(META)?)
    }

    pub(crate) fn read(&self) -> Result<ReadTransaction, StateError> {
        Ok(self.db.begin_read()?)
    }

    pub(crate) fn write(&self) -> Result<WriteTransaction, StateError> {
        begin_write(&self.db)
    }
}

/// A write transaction that saves redb's allocator state with its commit: opening after a kill then walks nothing.
fn begin_write(db: &Database) -> Result<WriteTransaction, StateError> {
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    Ok(txn)
}

type Meta<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

pub(crate) fn tip(
    meta: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<Tip, StateError> {
    read(meta, TIP)?.ok_or_else(|| missing("tip"))
}

pub(crate) fn put_tip(meta: &mut Meta<'_>, tip: &Tip) -> Result<(), StateError> {
    put(meta, TIP, tip)
}

pub(crate) fn finalized(
    meta: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<Option<FinalizedHead>, StateError> {
    read(meta, FINALIZED)
}

pub(crate) fn put_finalized(meta: &mut Meta<'_>, head: &FinalizedHead) -> Result<(), StateError> {
    put(meta, FINALIZED, head)
}

pub(crate) fn totals(
    meta: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<QueueTotals, StateError> {
    read(meta, TOTALS)?.ok_or_else(|| missing("queue totals"))
}

pub(crate) fn put_totals(meta: &mut Meta<'_>, totals: &QueueTotals) -> Result<(), StateError> {
    put(meta, TOTALS, totals)
}

fn read<T: serde::de::DeserializeOwned>(
    meta: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<T>, StateError> {
    match meta.get(key)? {
        Some(bytes) => decode("meta", bytes.value()).map(Some),
        None => Ok(None),
    }
}

fn put<T: Serialize>(meta: &mut Meta<'_>, key: &[u8], value: &T) -> Result<(), StateError> {
    let bytes = encode("meta", value)?;
    meta.insert(key, bytes.as_slice())?;
    Ok(())
}

fn missing(what: &'static str) -> StateError {
    StateError::Codec {
        what,
        reason: "it is not there".into(),
    }
}

fn check_format(stored: Option<u32>) -> Result<(), StateError> {
    match stored {
        Some(FORMAT) => Ok(()),
        other => Err(StateError::WrongIdentity {
            field: "state format",
            expected: FORMAT.to_string(),
            got: other.map_or_else(|| "none".to_owned(), |format| format.to_string()),
        }),
    }
}

fn check_identity(ours: &ChainConfig, stored: &ChainConfig) -> Result<(), StateError> {
    let fields = [
        (
            "chain id",
            ours.chain_id.to_string(),
            stored.chain_id.to_string(),
        ),
        (
            "state commit registry",
            ours.state_commit_registry.to_string(),
            stored.state_commit_registry.to_string(),
        ),
        (
            "first block",
            ours.first_block.to_string(),
            stored.first_block.to_string(),
        ),
        (
            "deployment block",
            ours.deployment_block.to_string(),
            stored.deployment_block.to_string(),
        ),
        (
            "deployment block hash",
            format!("{:?}", ours.deployment_block_hash),
            format!("{:?}", stored.deployment_block_hash),
        ),
    ];
    for (field, expected, got) in fields {
        if expected != got {
            return Err(StateError::WrongIdentity {
                field,
                expected,
                got,
            });
        }
    }
    Ok(())
}

fn check_root(
    nodes: &impl ReadableTable<&'static [u8], &'static [u8]>,
    tip: &Tip,
) -> Result<(), StateError> {
    let version = tip.sequence;
    let got = tree::root(nodes, version)?.ok_or(tree::TreeError::MissingRoot { version })?;
    if got == tip.root {
        return Ok(());
    }
    Err(tree::TreeError::WrongParent {
        version,
        expected: tip.root,
        got,
    }
    .into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use newton_types::Address;
    use redb::backends::InMemoryBackend;

    #[test]
    fn another_format_is_refused_by_name() {
        let db = Database::builder()
            .create_with_backend(InMemoryBackend::new())
            .unwrap();
        let db = Arc::new(db);
        let config = ChainConfig {
            chain_id: 31_337,
            state_commit_registry: Address::repeat_byte(1),
            first_block: 1,
            deployment_block: 1,
            deployment_block_hash: None,
        };
        drop(StateStore::open(db.clone(), config.clone()).unwrap());
        let refused = || {
            let error = StateStore::open(db.clone(), config.clone()).err().unwrap();
            error.to_string()
        };
        let change = |format: Option<u32>| {
            let txn = db.begin_write().unwrap();
            {
                let mut meta = txn.open_table(META).unwrap();
                match format {
                    Some(format) => put(&mut meta, FORMAT_KEY, &format).unwrap(),
                    None => drop(meta.remove(FORMAT_KEY).unwrap()),
                }
            }
            txn.commit().unwrap();
        };
        change(Some(FORMAT + 1));
        assert_eq!(
            refused(),
            "state database: state format is 2, this appliance runs with 1"
        );
        change(None);
        assert!(refused().contains("state format is none"));
        change(Some(FORMAT));
        StateStore::open(db.clone(), config.clone()).unwrap();
    }
}
