//! What this boot has signed.
//!
//! A page file can be rolled back or run twice, so the record lives in memory only and its key with it (design 5.4): a
//! new boot has a new key and signs only what is later than its own admission.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// A place in which at most one digest may ever be signed by one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Slot {
    /// The state commit with this sequence number on this chain.
    Commit {
        /// Chain of the commit registry.
        chain_id: u64,
        /// Commit sequence number.
        sequence: u64,
    },
    /// The answer to this task in this round.
    Task {
        /// Task id, which binds the chain and the task manager.
        task_id: [u8; 32],
        /// Round of signing. Contracts slash two digests for one task whatever the round, so answers are all signed in round 0.
        round: u32,
    },
    /// This enclave's own output of a data component, in one round of preparing a task.
    Output {
        /// Task id.
        task_id: [u8; 32],
        /// Round of preparing.
        round: u32,
        /// Data instance id.
        data_instance_id: [u8; 32],
    },
    /// Whether something that was signed is right.
    Outcome {
        /// Hash of the question: what was signed, and who wants to know.
        question: [u8; 32],
    },
}

/// A second, different digest was asked for in one slot. Never sign it: the two together are slashable evidence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{slot:?} was already signed with digest {}, refused to sign {}", hex::encode(.signed), hex::encode(.requested))]
pub struct Equivocation {
    /// Where.
    pub slot: Box<Slot>,
    /// Digest signed before.
    pub signed: [u8; 32],
    /// Digest refused.
    pub requested: [u8; 32],
}

/// One digest per slot, for the lifetime of one boot.
#[derive(Debug, Default)]
pub struct SigningRecord {
    signed: BTreeMap<Slot, [u8; 32]>,
}

impl SigningRecord {
    /// An empty record, for a fresh key.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Claims a slot for a digest. The same digest again is fine (a repeated request gets the same signature).
    ///
    /// Call it before signing, and sign only on `Ok`.
    ///
    /// # Errors
    /// [`Equivocation`] if the slot is taken by another digest; the record stays as it was.
    pub fn authorize(&mut self, slot: Slot, digest: [u8; 32]) -> Result<(), Equivocation> {
        match self.signed.entry(slot) {
            Entry::Vacant(entry) => {
                entry.insert(digest);
                Ok(())
            }
            Entry::Occupied(entry) if *entry.get() == digest => Ok(()),
            Entry::Occupied(entry) => Err(Equivocation {
                slot: Box::new(slot),
                signed: *entry.get(),
                requested: digest,
            }),
        }
    }

    /// The digest signed in a slot, if any.
    #[must_use]
    pub fn signed(&self, slot: &Slot) -> Option<[u8; 32]> {
        self.signed.get(slot).copied()
    }

    /// Number of slots taken. Each costs about 100 bytes; the appliance reports it and restarts long before it matters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.signed.len()
    }

    /// Whether nothing was signed yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.signed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const A: Slot = Slot::Commit {
        chain_id: 1,
        sequence: 7,
    };

    #[test]
    fn same_digest_again_is_fine_and_another_is_refused_for_good() {
        let mut record = SigningRecord::new();
        assert!(record.is_empty());
        record.authorize(A, [1; 32]).unwrap();
        record.authorize(A, [1; 32]).unwrap();
        let refused = record.authorize(A, [2; 32]).unwrap_err();
        assert_eq!(
            refused,
            Equivocation {
                slot: Box::new(A),
                signed: [1; 32],
                requested: [2; 32]
            }
        );
        // The refusal must not have replaced the first digest.
        record.authorize(A, [1; 32]).unwrap();
        assert_eq!(record.signed(&A), Some([1; 32]));
        assert_eq!(record.len(), 1);
    }

    #[test]
    fn slots_do_not_disturb_each_other() {
        let mut record = SigningRecord::new();
        let slots = [
            A,
            Slot::Commit {
                chain_id: 2,
                sequence: 7,
            },
            Slot::Commit {
                chain_id: 1,
                sequence: 8,
            },
            Slot::Task {
                task_id: [7; 32],
                round: 0,
            },
            Slot::Task {
                task_id: [7; 32],
                round: 1,
            },
            Slot::Task {
                task_id: [8; 32],
                round: 0,
            },
            Slot::Output {
                task_id: [8; 32],
                round: 0,
                data_instance_id: [8; 32],
            },
            Slot::Output {
                task_id: [8; 32],
                round: 0,
                data_instance_id: [9; 32],
            },
        ];
        for (i, slot) in slots.iter().enumerate() {
            record
                .authorize(*slot, [u8::try_from(i).unwrap(); 32])
                .unwrap();
        }
        assert_eq!(record.len(), slots.len());
        for slot in slots {
            assert!(record.authorize(slot, [0xff; 32]).is_err());
        }
    }

    #[test]
    fn the_error_names_slot_and_both_digests() {
        let mut record = SigningRecord::new();
        record.authorize(A, [0xaa; 32]).unwrap();
        let text = record.authorize(A, [0xbb; 32]).unwrap_err().to_string();
        assert!(
            text.contains("sequence: 7") && text.contains("aaaa") && text.contains("bbbb"),
            "{text}"
        );
    }
}
