//! Memory that requests and answers may hold at once.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one permit: semaphores count 32 bits.
const UNIT: usize = 1024;

/// Memory for requests and answers.
#[derive(Clone)]
pub(crate) struct Memory(Arc<Semaphore>);

impl Memory {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / UNIT)))
    }

    /// A part of it, or nothing when too much is held already.
    pub(crate) fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        self.0.clone().try_acquire_many_owned(units).ok()
    }
}

/// Bytes that keep what they were given until the last of them is sent or dropped.
///
/// A body would not do: the server lets go of it once it has taken its bytes, which may be long before the caller has.
struct Held {
    bytes: Vec<u8>,
    _permits: Vec<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// An answer that holds `permits` until it is sent.
pub(crate) fn held(bytes: Vec<u8>, permits: Vec<OwnedSemaphorePermit>) -> Full<Bytes> {
    Full::new(Bytes::from_owner(Held {
        bytes,
        _permits: permits,
    }))
}
