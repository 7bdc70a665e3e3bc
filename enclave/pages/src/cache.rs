//! A bounded map that forgets what was not used for longest, approximately.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Mixes small integers: page numbers, which the enclave chooses, so that nobody can aim for collisions.
#[derive(Default)]
pub(crate) struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The table looks at the lowest and the highest bits.
        self.0 = mixed ^ mixed >> 32;
    }
}

type Map<K, V> = HashMap<K, V, BuildHasherDefault<Mix>>;

/// Two generations of entries: when the young one is full it becomes the old one, and what the old one held is forgotten
/// unless it was used meanwhile. Every operation takes constant time.
pub(crate) struct Cache<K, V> {
    young: Map<K, V>,
    old: Map<K, V>,
    half: usize,
}

impl<K: Eq + Hash + Copy, V: Clone> Cache<K, V> {
    /// Room for at most `entries`.
    pub(crate) fn new(entries: usize) -> Self {
        Self {
            young: Map::default(),
            old: Map::default(),
            half: (entries / 2).max(1),
        }
    }

    pub(crate) fn get(&mut self, key: K) -> Option<V> {
        if let Some(value) = self.young.get(&key) {
            return Some(value.clone());
        }
        let value = self.old.remove(&key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    pub(crate) fn contains(&self, key: K) -> bool {
        self.young.contains_key(&key) || self.old.contains_key(&key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let old = self.old.remove(&key);
        self.young.remove(&key).or(old)
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.young.retain(|key, _| keep(key));
        self.old.retain(|key, _| keep(key));
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_bounded_and_keeps_what_is_used() {
        let mut cache = Cache::new(8);
        for i in 0..1000 {
            cache.insert(i, i * 2);
            assert_eq!(cache.get(0), Some(0), "entry 0 is used all the time");
            assert!(cache.len() <= 8);
        }
        assert_eq!(cache.get(1), None);
        assert_eq!(cache.get(999), Some(1998));
        cache.insert(999, 5);
        assert_eq!(cache.remove(999), Some(5));
        assert!(!cache.contains(999));
    }
}
