//! Compiled components beside the state (design 4.7): derived, droppable, in no commit. They lie in the same encrypted pages, so what is
//! read is what was written or an error.

use newton_types::{B256, keccak256};
use redb::{ReadableTable, Table};

use crate::tables::{COMPILED, COMPILED_CHUNKS};
use crate::{StateError, StateStore};

/// Bytes of all compiled components together; the ones stored first go first.
pub const MAX_COMPILED_BYTES: u64 = 2 << 30;

/// Bytes of one chunk: fills a run of pages, as in [`crate::content`].
const CHUNK_BYTES: usize = 252 * 1024;

type Bytes<'t> = Table<'t, &'static [u8], &'static [u8]>;

/// What is known of one module.
#[derive(Clone, Copy)]
struct Entry {
    /// Order of storing.
    number: u64,
    length: u64,
    hash: B256,
}

impl StateStore {
    /// The compiled form of a component under an engine's fingerprint.
    ///
    /// # Errors
    /// When the pages that hold it are not what was written, or the database fails.
    pub fn compiled(
        &self,
        component: B256,
        fingerprint: B256,
    ) -> Result<Option<Vec<u8>>, StateError> {
        let txn = self.read()?;
        let (entries, chunks) = (txn.open_table(COMPILED)?, txn.open_table(COMPILED_CHUNKS)?);
        let key = key(fingerprint, component);
        let Some(value) = entries.get(key.as_slice())? else {
            return Ok(None);
        };
        let entry = Entry::decode(value.value()).ok_or_else(|| damaged(component, "its entry"))?;
        let mut out = Vec::with_capacity(usize::try_from(entry.length).unwrap_or_default());
        for at in 0..chunks_of(entry.length) {
            let chunk = chunks
                .get(chunk_key(&key, at).as_slice())?
                .ok_or_else(|| damaged(component, "a chunk"))?;
            out.extend_from_slice(chunk.value());
        }
        // The pages are authentic; this finds a fault of ours before it becomes machine code.
        if out.len() as u64 != entry.length || keccak256(&out) != entry.hash {
            return Err(damaged(component, "its bytes"));
        }
        Ok(Some(out))
    }

    /// Keeps the compiled form of a component. Those of other engines go, and the oldest where there are too many bytes.
    ///
    /// # Errors
    /// When the database fails; nothing is kept then.
    pub fn put_compiled(
        &self,
        component: B256,
        fingerprint: B256,
        module: &[u8],
    ) -> Result<(), StateError> {
        self.put_compiled_within(component, fingerprint, module, MAX_COMPILED_BYTES)
    }

    /// How many there are, and their bytes.
    ///
    /// # Errors
    /// When the database fails.
    pub fn compiled_totals(&self) -> Result<(u64, u64), StateError> {
        let all = all(&self.read()?.open_table(COMPILED)?)?;
        Ok((
            all.len() as u64,
            all.iter().map(|(_, entry)| entry.length).sum(),
        ))
    }

    fn put_compiled_within(
        &self,
        component: B256,
        fingerprint: B256,
        module: &[u8],
        budget: u64,
    ) -> Result<(), StateError> {
        let length = module.len() as u64;
        if length > budget {
            return Ok(());
        }
        let txn = self.write()?;
        {
            let mut entries = txn.open_table(COMPILED)?;
            let mut chunks = txn.open_table(COMPILED_CHUNKS)?;
            let ours = key(fingerprint, component);
            let mut kept = Vec::new();
            for (key, entry) in all(&entries)? {
                if key == ours || key[..32] != ours[..32] {
                    remove(&mut entries, &mut chunks, &key, entry)?;
                } else {
                    kept.push((key, entry));
                }
            }
            kept.sort_unstable_by_key(|(_, entry)| entry.number);
            let number = kept.last().map_or(0, |(_, entry)| entry.number + 1);
            let mut bytes: u64 = kept.iter().map(|(_, entry)| entry.length).sum();
            for (key, entry) in kept {
                if bytes + length <= budget {
                    break;
                }
                remove(&mut entries, &mut chunks, &key, entry)?;
                bytes -= entry.length;
            }
            for (at, chunk) in (0..).zip(module.chunks(CHUNK_BYTES)) {
                chunks.insert(chunk_key(&ours, at).as_slice(), chunk)?;
            }
            let entry = Entry {
                number,
                length,
                hash: keccak256(module),
            };
            entries.insert(ours.as_slice(), entry.encode().as_slice())?;
        }
        txn.commit()?;
        Ok(())
    }
}

impl Entry {
    fn encode(self) -> [u8; 48] {
        let mut out = [0; 48];
        out[..8].copy_from_slice(&self.number.to_be_bytes());
        out[8..16].copy_from_slice(&self.length.to_be_bytes());
        out[16..].copy_from_slice(self.hash.as_slice());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 48] = bytes.try_into().ok()?;
        Some(Self {
            number: u64::from_be_bytes(bytes[..8].try_into().ok()?),
            length: u64::from_be_bytes(bytes[8..16].try_into().ok()?),
            hash: B256::from_slice(&bytes[16..]),
        })
    }
}

type Key = [u8; 64];

fn key(fingerprint: B256, component: B256) -> Key {
    let mut key = [0; 64];
    key[..32].copy_from_slice(fingerprint.as_slice());
    key[32..].copy_from_slice(component.as_slice());
    key
}

fn chunk_key(key: &Key, at: u32) -> [u8; 68] {
    let mut out = [0; 68];
    out[..64].copy_from_slice(key);
    out[64..].copy_from_slice(&at.to_be_bytes());
    out
}

fn chunks_of(length: u64) -> u32 {
    u32::try_from(length.div_ceil(CHUNK_BYTES as u64)).unwrap_or(u32::MAX)
}

fn all(
    entries: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<Vec<(Key, Entry)>, StateError> {
    let mut out = Vec::new();
    for entry in entries.iter()? {
        let (key, value) = entry?;
        let pair = <Key>::try_from(key.value())
            .ok()
            .zip(Entry::decode(value.value()));
        out.push(pair.ok_or_else(|| damaged(B256::ZERO, "an entry"))?);
    }
    Ok(out)
}

fn remove(
    entries: &mut Bytes<'_>,
    chunks: &mut Bytes<'_>,
    key: &Key,
    entry: Entry,
) -> Result<(), StateError> {
    entries.remove(key.as_slice())?;
    for at in 0..chunks_of(entry.length) {
        chunks.remove(chunk_key(key, at).as_slice())?;
    }
    Ok(())
}

fn damaged(component: B256, what: &str) -> StateError {
    StateError::Content {
        hash: component,
        reason: format!("compiled form: {what} is not what was stored"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use newton_types::Address;
    use redb::{Database, backends::InMemoryBackend};

    use super::*;
    use crate::ChainConfig;

    fn store() -> StateStore {
        let db = Database::builder()
            .create_with_backend(InMemoryBackend::new())
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

    fn name(byte: u8) -> B256 {
        B256::repeat_byte(byte)
    }

    #[test]
    fn a_module_comes_back_under_its_engine_only() {
        let store = store();
        let module: Vec<u8> = (0..600_000u32).map(|n| n as u8).collect();
        store.put_compiled(name(1), name(9), &module).unwrap();
        assert_eq!(store.compiled(name(1), name(9)).unwrap(), Some(module));
        assert_eq!(store.compiled(name(1), name(8)).unwrap(), None);
        assert_eq!(store.compiled(name(2), name(9)).unwrap(), None);
        // Another engine's modules are of no use any more.
        store.put_compiled(name(2), name(8), b"new").unwrap();
        assert_eq!(store.compiled(name(1), name(9)).unwrap(), None);
        assert_eq!(store.compiled_totals().unwrap(), (1, 3));
        let chunks = store.read().unwrap();
        let chunks = chunks.open_table(COMPILED_CHUNKS).unwrap();
        assert_eq!(chunks.iter().unwrap().count(), 1);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_bytes() {
        let store = store();
        let put = |byte: u8, bytes: usize| {
            store
                .put_compiled_within(name(byte), name(9), &vec![byte; bytes], 10)
                .unwrap();
        };
        let here = |byte: u8| store.compiled(name(byte), name(9)).unwrap().is_some();
        put(1, 4);
        put(2, 4);
        put(1, 4);
        put(3, 4);
        assert!(here(1) && !here(2) && here(3));
        put(4, 11);
        assert!(here(1) && here(3) && !here(4));
        put(5, 10);
        assert_eq!(store.compiled_totals().unwrap(), (1, 10));
    }
}
