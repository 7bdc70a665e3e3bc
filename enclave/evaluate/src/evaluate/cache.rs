//! A cache bounded by bytes: the least recently used entries go first.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

pub(super) struct Cache<K, V> {
    budget: u64,
    inner: Mutex<Inner<K, V>>,
}

struct Inner<K, V> {
    entries: HashMap<K, Entry<V>>,
    bytes: u64,
    clock: u64,
}

struct Entry<V> {
    value: Arc<V>,
    bytes: u64,
    used: u64,
}

impl<K: Clone + Eq + Hash, V> Cache<K, V> {
    pub(super) fn new(budget: u64) -> Self {
        Self {
            budget,
            inner: Mutex::new(Inner {
                entries: HashMap::new(),
                bytes: 0,
                clock: 0,
            }),
        }
    }

    /// The cached value, or what `make` gives with its size, which is then kept. Errors are not kept.
    pub(super) fn fetch<E>(
        &self,
        key: &K,
        make: impl FnOnce() -> Result<(V, u64), E>,
    ) -> Result<Arc<V>, E> {
        if let Some(value) = self.touch(key) {
            return Ok(value);
        }
        // Made without the lock: slow, and other keys go on. Callers that must not make twice go through one worker.
        let (value, bytes) = make()?;
        let value = Arc::new(value);
        self.insert(key.clone(), Arc::clone(&value), bytes);
        Ok(value)
    }

    fn touch(&self, key: &K) -> Option<Arc<V>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.clock += 1;
        let clock = inner.clock;
        let entry = inner.entries.get_mut(key)?;
        entry.used = clock;
        Some(Arc::clone(&entry.value))
    }

    fn insert(&self, key: K, value: Arc<V>, bytes: u64) {
        if bytes > self.budget {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        while inner.bytes + bytes > self.budget {
            let oldest = inner
                .entries
                .iter()
                .min_by_key(|(_, entry)| entry.used)
                .map(|(key, _)| key.clone());
            let Some(gone) = oldest.and_then(|key| inner.entries.remove(&key)) else {
                break;
            };
            inner.bytes -= gone.bytes;
        }
        inner.clock += 1;
        let used = inner.clock;
        if let Some(replaced) = inner.entries.insert(key, Entry { value, bytes, used }) {
            inner.bytes -= replaced.bytes;
        }
        inner.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_least_recently_used_entry_goes_first() {
        let cache = Cache::new(10);
        let put = |key: u8| cache.fetch::<()>(&key, || Ok((key, 5))).unwrap();
        put(1);
        put(2);
        put(1);
        put(3);
        let hit = |key: u8| cache.fetch(&key, || Err(())).is_ok();
        assert!(hit(1));
        assert!(!hit(2));
        assert!(hit(3));
    }

    #[test]
    fn what_exceeds_the_budget_is_not_kept() {
        let cache = Cache::new(10);
        cache.fetch::<()>(&1, || Ok((1, 11))).unwrap();
        assert_eq!(cache.fetch(&1, || Err("made again")), Err("made again"));
    }
}
