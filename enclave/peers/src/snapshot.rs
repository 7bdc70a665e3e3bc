//! Pages of a snapshot, as `newt_getSnapshot` answers them.

use newton_state::SnapshotLeaf;
use newton_types::{B256, LeafKey};
use serde::Deserialize;

use crate::PageError;

/// Leaves that a snapshot may have, so that a peer cannot fill this enclave's memory.
pub const MAX_LEAVES: usize = 4_000_000;

/// One page.
#[derive(Clone, Debug, Deserialize)]
pub struct SnapshotPage {
    /// The commit whose leaves they are.
    pub sequence_no: u64,
    /// Key and value hash, by rising key.
    pub leaves: Vec<(B256, B256)>,
}

/// A snapshot on its way.
#[derive(Debug, Default)]
pub struct SnapshotPages {
    sequence: Option<u64>,
    leaves: Vec<SnapshotLeaf>,
}

impl SnapshotPages {
    /// The commit, once a page was taken.
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// Key of the last leaf that came: the next page begins behind it.
    pub fn after(&self) -> Option<LeafKey> {
        self.leaves.last().map(|leaf| leaf.key)
    }

    /// Takes a page; whether it was the last one, which is empty.
    ///
    /// # Errors
    /// [`PageError`] if it is of another commit than the first one, does not lead on, or is too much.
    pub fn take(&mut self, page: SnapshotPage) -> Result<bool, PageError> {
        let sequence = *self.sequence.get_or_insert(page.sequence_no);
        if page.sequence_no != sequence {
            return Err(PageError::OtherCommit {
                expected: sequence,
                got: page.sequence_no,
            });
        }
        let is_last = page.leaves.is_empty();
        for (key, value_hash) in page.leaves {
            if self.after().is_some_and(|after| key <= after.0) {
                return Err(PageError::Order {
                    sequence,
                    at: self.leaves.len(),
                });
            }
            if self.leaves.len() == MAX_LEAVES {
                return Err(PageError::TooMany {
                    sequence,
                    most: MAX_LEAVES,
                });
            }
            self.leaves.push(SnapshotLeaf {
                key: LeafKey(key),
                value_hash,
            });
        }
        Ok(is_last)
    }

    /// What came, to be held against the chain's root.
    pub fn into_leaves(self) -> Vec<SnapshotLeaf> {
        self.leaves
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn page(sequence_no: u64, keys: &[u8]) -> SnapshotPage {
        SnapshotPage {
            sequence_no,
            leaves: keys
                .iter()
                .map(|k| (B256::repeat_byte(*k), B256::ZERO))
                .collect(),
        }
    }

    #[test]
    fn pages_lead_on_or_are_refused() {
        let mut pages = SnapshotPages::default();
        assert_eq!((pages.sequence(), pages.after()), (None, None));
        assert!(!pages.take(page(7, &[1, 2])).unwrap());
        assert_eq!(pages.sequence(), Some(7));
        assert_eq!(pages.after(), Some(LeafKey(B256::repeat_byte(2))));
        assert!(!pages.take(page(7, &[3])).unwrap());
        assert!(matches!(
            pages.take(page(8, &[4])).unwrap_err(),
            PageError::OtherCommit {
                expected: 7,
                got: 8
            }
        ));
        for keys in [[3, 4], [1, 9], [5, 5], [6, 4]] {
            let error = pages.take(page(7, &keys)).unwrap_err();
            assert!(
                matches!(error, PageError::Order { sequence: 7, .. }),
                "{keys:?}: {error}"
            );
        }
        assert!(pages.take(page(7, &[])).unwrap());
    }
}
