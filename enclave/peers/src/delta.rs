//! Pages of a delta, as `newt_getDelta` answers them.

use newton_state::{StateError, check_delta};
use newton_types::{B256, DeltaEntry, QueueKey, abi};
use serde::{Deserialize, Serialize};

use crate::PageError;

/// An entry on the wire: leaf key, value hash, length in bytes, then block, transaction, log and item of its queue key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaRow(
    pub B256,
    pub B256,
    pub u32,
    pub u64,
    pub u32,
    pub u32,
    pub u32,
);

impl From<DeltaEntry> for DeltaRow {
    fn from(entry: DeltaEntry) -> Self {
        let QueueKey {
            block,
            tx,
            log,
            item,
        } = entry.key;
        Self(
            entry.leaf_key,
            entry.value_hash,
            entry.length,
            block,
            tx,
            log,
            item,
        )
    }
}

impl From<DeltaRow> for DeltaEntry {
    fn from(row: DeltaRow) -> Self {
        let DeltaRow(leaf_key, value_hash, length, block, tx, log, item) = row;
        Self {
            leaf_key,
            value_hash,
            length,
            key: QueueKey {
                block,
                tx,
                log,
                item,
            },
        }
    }
}

/// One page.
#[derive(Clone, Debug, Deserialize)]
pub struct DeltaPage {
    /// The commit that wrote them.
    pub sequence_no: u64,
    /// Entries in the queue's order.
    pub entries: Vec<DeltaRow>,
}

/// The delta of a commit on its way.
#[derive(Debug)]
pub struct DeltaPages<'a> {
    commit: &'a abi::StateCommit,
    most: usize,
    page: u32,
    entries: Vec<DeltaEntry>,
}

impl<'a> DeltaPages<'a> {
    /// Of a commit that the finalized chain has; it writes no more than the `most` entries that wait in the queue.
    pub fn of(commit: &'a abi::StateCommit, most: u64) -> Self {
        Self {
            commit,
            most: usize::try_from(most).unwrap_or(usize::MAX),
            page: 0,
            entries: Vec::new(),
        }
    }

    /// Number of the page to ask for, from 0.
    pub fn page(&self) -> u32 {
        self.page
    }

    /// Takes a page; whether it was the last one, which is empty.
    ///
    /// # Errors
    /// [`PageError`] if it is of another commit, does not lead on, or is more than waits in the queue.
    pub fn take(&mut self, page: DeltaPage) -> Result<bool, PageError> {
        let sequence = self.commit.sequenceNo;
        if page.sequence_no != sequence {
            return Err(PageError::OtherCommit {
                expected: sequence,
                got: page.sequence_no,
            });
        }
        let is_last = page.entries.is_empty();
        for row in page.entries {
            let entry = DeltaEntry::from(row);
            if self.entries.last().is_some_and(|l| entry.key <= l.key) {
                return Err(PageError::Order {
                    sequence,
                    at: self.entries.len(),
                });
            }
            if self.entries.len() >= self.most {
                return Err(PageError::TooMany {
                    sequence,
                    most: self.most,
                });
            }
            self.entries.push(entry);
        }
        // Every page before the last one has entries, and those are bounded.
        self.page = self.page.saturating_add(1);
        Ok(is_last)
    }

    /// The delta, if it is the chain's.
    ///
    /// # Errors
    /// [`StateError::DeltaHash`] if it is not.
    pub fn finish(self) -> Result<Vec<DeltaEntry>, StateError> {
        check_delta(self.commit, &self.entries)?;
        Ok(self.entries)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use newton_types::queue::delta_hash;

    use super::*;

    fn entry(block: u64) -> DeltaEntry {
        DeltaEntry {
            leaf_key: B256::repeat_byte(1),
            value_hash: B256::repeat_byte(2),
            length: 3,
            key: QueueKey {
                block,
                tx: 4,
                log: 5,
                item: 6,
            },
        }
    }

    fn page(sequence_no: u64, blocks: &[u64]) -> DeltaPage {
        DeltaPage {
            sequence_no,
            entries: blocks.iter().map(|b| entry(*b).into()).collect(),
        }
    }

    #[test]
    fn pages_lead_on_or_are_refused() {
        let commit = abi::StateCommit {
            sequenceNo: 7,
            deltaHash: delta_hash(&[entry(1), entry(2), entry(3)]),
            ..Default::default()
        };
        let mut pages = DeltaPages::of(&commit, 3);
        assert!(!pages.take(page(7, &[1, 2])).unwrap());
        assert!(matches!(
            pages.take(page(6, &[3])).unwrap_err(),
            PageError::OtherCommit {
                expected: 7,
                got: 6
            }
        ));
        assert!(matches!(
            pages.take(page(7, &[2])).unwrap_err(),
            PageError::Order { sequence: 7, at: 2 }
        ));
        assert_eq!(pages.page(), 1);
        assert!(!pages.take(page(7, &[3])).unwrap());
        assert!(matches!(
            pages.take(page(7, &[4])).unwrap_err(),
            PageError::TooMany { most: 3, .. }
        ));
        assert!(pages.take(page(7, &[])).unwrap());
        assert_eq!(pages.finish().unwrap(), [entry(1), entry(2), entry(3)]);

        let mut cut_short = DeltaPages::of(&commit, 3);
        cut_short.take(page(7, &[1, 2])).unwrap();
        cut_short.take(page(7, &[])).unwrap();
        assert!(matches!(
            cut_short.finish().unwrap_err(),
            StateError::DeltaHash { sequence: 7, .. }
        ));
    }

    #[test]
    fn a_row_is_a_list_of_seven() {
        let text = serde_json::to_string(&DeltaRow::from(entry(9))).unwrap();
        let hash = |byte: u8| B256::repeat_byte(byte).to_string();
        assert_eq!(text, format!("[\"{}\",\"{}\",3,9,4,5,6]", hash(1), hash(2)));
        let row: DeltaRow = serde_json::from_str(&text).unwrap();
        assert_eq!(DeltaEntry::from(row), entry(9));
        let short = text.replace(",6]", "]");
        assert!(serde_json::from_str::<DeltaRow>(&short).is_err());
    }
}
