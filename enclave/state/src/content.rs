//! Content by its keccak-256, each once, whatever leaves name it.

use newton_types::{B256, keccak256};
use redb::{ReadableTable, Table};

use crate::StateError;

/// Bytes of one chunk. redb gives a value a run of pages that is a power of two long, together with its key and a
/// short header; 252 KiB fill a run of 256 KiB, one byte above it would take 512.
pub(crate) const CHUNK_BYTES: usize = 252 * 1024;

type BytesTable<'t> = Table<'t, &'static [u8], &'static [u8]>;

/// Stores `bytes` under `hash`, which the caller has compared with their keccak-256.
pub(crate) fn put(
    content: &mut BytesTable<'_>,
    chunks: &mut BytesTable<'_>,
    hash: B256,
    bytes: &[u8],
) -> Result<(), StateError> {
    if content.get(hash.as_slice())?.is_some() {
        return Ok(());
    }
    for (i, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
        chunks.insert(chunk_key(hash, i as u32).as_slice(), chunk)?;
    }
    content.insert(
        hash.as_slice(),
        (bytes.len() as u64).to_be_bytes().as_slice(),
    )?;
    Ok(())
}

/// Length of the content, if it is here.
pub(crate) fn length(
    content: &impl ReadableTable<&'static [u8], &'static [u8]>,
    hash: B256,
) -> Result<Option<u64>, StateError> {
    let Some(value) = content.get(hash.as_slice())? else {
        return Ok(None);
    };
    let bytes = <[u8; 8]>::try_from(value.value()).map_err(|_| StateError::Content {
        hash,
        reason: "its length is not eight bytes".into(),
    })?;
    Ok(Some(u64::from_be_bytes(bytes)))
}

/// The content, checked against its hash again.
pub(crate) fn get(
    content: &impl ReadableTable<&'static [u8], &'static [u8]>,
    chunks: &impl ReadableTable<&'static [u8], &'static [u8]>,
    hash: B256,
) -> Result<Option<Vec<u8>>, StateError> {
    let Some(length) = length(content, hash)? else {
        return Ok(None);
    };
    let damaged = |reason: &str| StateError::Content {
        hash,
        reason: reason.into(),
    };
    let mut out = Vec::with_capacity(length as usize);
    for i in 0.. {
        if out.len() as u64 >= length {
            break;
        }
        let chunk = chunks
            .get(chunk_key(hash, i).as_slice())?
            .ok_or_else(|| damaged("a chunk is missing"))?;
        if chunk.value().is_empty() {
            return Err(damaged("a chunk is empty"));
        }
        out.extend_from_slice(chunk.value());
    }
    if keccak256(&out) != hash {
        return Err(damaged("bytes do not have this hash"));
    }
    Ok(Some(out))
}

fn chunk_key(hash: B256, chunk: u32) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(hash.as_slice());
    key[32..].copy_from_slice(&chunk.to_be_bytes());
    key
}
