//! Rows of the registries, derived from events alone (design 3.1).
//!
//! One function applies an event, whether to the database (finalized blocks) or to a layer in memory over it (pending
//! blocks), so both heads answer alike. Rows are keyed by one byte for their kind and their id.

mod apply;
mod rows;

use std::collections::BTreeMap;

use newton_types::{Address, B256, QueueKey};
use redb::ReadableTable;
use serde::{Serialize, de::DeserializeOwned};

pub(crate) use apply::apply;
pub use rows::*;

use crate::StateError;
use crate::tables::{decode, encode};

/// Reads rows by their raw key.
pub(crate) trait Rows {
    fn raw(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError>;
}

/// Writes rows too.
pub(crate) trait RowsMut: Rows {
    fn put_raw(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), StateError>;
}

/// Rows in a table of a transaction.
pub(crate) struct Stored<T>(pub T);

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows for Stored<T> {
    fn raw(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.0.get(key)?.map(|v| v.value().to_vec()))
    }
}

impl RowsMut for Stored<redb::Table<'_, &'static [u8], &'static [u8]>> {
    fn put_raw(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), StateError> {
        self.0.insert(key.as_slice(), value.as_slice())?;
        Ok(())
    }
}

/// Rows that differ from those below.
pub(crate) type Changes = BTreeMap<Vec<u8>, Vec<u8>>;

/// Changed rows over others.
pub(crate) struct Layered<'a, R> {
    pub base: &'a R,
    pub changes: &'a mut Changes,
}

impl<R: Rows> Rows for Layered<'_, R> {
    fn raw(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        match self.changes.get(key) {
            Some(value) => Ok(Some(value.clone())),
            None => self.base.raw(key),
        }
    }
}

impl<R: Rows> RowsMut for Layered<'_, R> {
    fn put_raw(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), StateError> {
        self.changes.insert(key, value);
        Ok(())
    }
}

/// Typed access to rows.
pub struct Registry<'a> {
    rows: &'a dyn Rows,
}

impl<'a> Registry<'a> {
    pub(crate) fn new(rows: &'a dyn Rows) -> Self {
        Self { rows }
    }

    /// Row of a policy template.
    pub fn policy_template(&self, id: B256) -> Result<Option<PolicyTemplateRow>, StateError> {
        self.read(&key(Kind::PolicyTemplate, id))
    }

    /// Row of a policy-data template.
    pub fn data_template(&self, id: B256) -> Result<Option<DataTemplateRow>, StateError> {
        self.read(&key(Kind::DataTemplate, id))
    }

    /// Row of a policy instance.
    pub fn policy_instance(&self, id: B256) -> Result<Option<InstanceRow>, StateError> {
        self.read(&key(Kind::PolicyInstance, id))
    }

    /// Row of a policy-data instance.
    pub fn data_instance(&self, id: B256) -> Result<Option<InstanceRow>, StateError> {
        self.read(&key(Kind::DataInstance, id))
    }

    /// The client's current policy instance. Tasks carry their own snapshot; this is for queries.
    pub fn current_policy_instance(&self, client: Address) -> Result<Option<Pointer>, StateError> {
        self.read(&key(Kind::CurrentPolicyInstance, client))
    }

    /// The instance in the client's slot of a data template.
    pub fn current_data_instance(
        &self,
        client: Address,
        template_id: B256,
    ) -> Result<Option<Pointer>, StateError> {
        self.read(&key(
            Kind::CurrentDataInstance,
            [client.as_slice(), template_id.as_slice()].concat(),
        ))
    }

    /// The owner of a client, `None` if nobody has claimed it.
    pub fn client_owner(&self, client: Address) -> Result<Option<Address>, StateError> {
        self.read(&key(Kind::ClientOwner, client))
    }

    /// The envelope last posted for a data instance. Which one a task uses is said by the tree, not by this.
    pub fn secrets(&self, data_instance_id: B256) -> Result<Option<SecretsRow>, StateError> {
        self.read(&key(Kind::Secrets, data_instance_id))
    }

    /// A task, until it is pruned.
    pub fn task(&self, task_id: B256) -> Result<Option<TaskRow>, StateError> {
        self.read(&key(Kind::Task, task_id))
    }

    /// What is known of an operator.
    pub fn operator(&self, operator: Address) -> Result<Option<OperatorRow>, StateError> {
        self.read(&key(Kind::Operator, operator))
    }

    /// An operator set.
    pub fn operator_set(&self, set_id: u64) -> Result<Option<OperatorSetRow>, StateError> {
        self.read(&key(Kind::OperatorSet, set_id.to_be_bytes()))
    }

    /// Id of the newest operator set, `None` before the first.
    pub fn latest_set_id(&self) -> Result<Option<u64>, StateError> {
        self.read(&key(Kind::LatestSet, []))
    }

    /// Sets below this id certify nothing any more.
    pub fn first_clean_set_id(&self) -> Result<u64, StateError> {
        Ok(self.read(&key(Kind::FirstCleanSet, []))?.unwrap_or(0))
    }

    /// A whitelisted image.
    pub fn version(&self, pcr0_hash: B256) -> Result<Option<VersionRow>, StateError> {
        self.read(&key(Kind::Version, pcr0_hash))
    }

    /// Whether an image counts as active in `block`, as `IEnclaveVersionRegistry.wasActiveAt`.
    pub fn version_active_at(&self, pcr0_hash: B256, block: u64) -> Result<bool, StateError> {
        let Some(v) = self.version(pcr0_hash)? else {
            return Ok(false);
        };
        let ended = |at: Option<u64>| at.is_some_and(|at| at <= block);
        Ok(v.active_from <= block && !ended(v.deprecated_from) && !ended(v.revoked_at))
    }

    /// Whether a configuration counts as approved in `block`.
    pub fn config_approved_at(&self, config_hash: B256, block: u64) -> Result<bool, StateError> {
        let history: Vec<ConfigApproval> = self
            .read(&key(Kind::Config, config_hash))?
            .unwrap_or_default();
        // Approved or withdrawn in a block counts from the next on.
        Ok(history
            .iter()
            .rev()
            .find(|c| c.block < block)
            .is_some_and(|c| c.approved))
    }

    /// Rules versions in the order in which they were scheduled.
    pub fn rules_schedule(&self) -> Result<Vec<ScheduledRules>, StateError> {
        Ok(self.read(&key(Kind::Rules, []))?.unwrap_or_default())
    }

    /// Rules version in force in `block`, 0 before the first.
    pub fn rules_version_at(&self, block: u64) -> Result<u32, StateError> {
        Ok(self
            .rules_schedule()?
            .iter()
            .rev()
            .find(|r| r.active_from <= block)
            .map_or(0, |r| r.rules_version))
    }

    /// Consensus parameters in the order in which they were set.
    pub fn parameters(&self) -> Result<Vec<ScheduledParameters>, StateError> {
        Ok(self.read(&key(Kind::Parameters, []))?.unwrap_or_default())
    }

    /// Consensus parameters in force at a time.
    pub fn parameters_at(
        &self,
        timestamp: u64,
    ) -> Result<Option<newton_types::events::ConsensusParameters>, StateError> {
        Ok(self
            .parameters()?
            .iter()
            .rev()
            .find(|p| p.active_from <= timestamp)
            .map(|p| p.parameters))
    }

    /// Public keys of a key epoch.
    pub fn key_epoch(&self, epoch: u64) -> Result<Option<KeyEpochRow>, StateError> {
        self.read(&key(Kind::KeyEpoch, epoch.to_be_bytes()))
    }

    /// Newest key epoch, 0 if none is published.
    pub fn latest_key_epoch(&self) -> Result<u64, StateError> {
        Ok(self.read(&key(Kind::LatestKeyEpoch, []))?.unwrap_or(0))
    }

    /// Least key epoch that an envelope posted in `block` may have; 0 if never set.
    pub fn min_key_epoch_at(&self, block: u64) -> Result<u64, StateError> {
        let history: Vec<(u64, u64)> = self.read(&key(Kind::MinKeyEpoch, []))?.unwrap_or_default();
        Ok(history
            .iter()
            .rev()
            .find(|(set_in, _)| *set_in < block)
            .map_or(0, |(_, epoch)| *epoch))
    }

    /// Where a certificate dropped an entry, if one did.
    pub fn skipped(
        &self,
        entry: QueueKey,
    ) -> Result<Option<newton_types::events::EventPosition>, StateError> {
        self.read(&key(Kind::Skipped, entry.to_bytes()))
    }

    fn read<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StateError> {
        match self.rows.raw(key)? {
            Some(bytes) => decode("registry row", &bytes).map(Some),
            None => Ok(None),
        }
    }
}

/// First byte of a row's key.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Kind {
    PolicyTemplate = 1,
    DataTemplate = 2,
    PolicyInstance = 3,
    DataInstance = 4,
    CurrentPolicyInstance = 5,
    CurrentDataInstance = 6,
    Secrets = 7,
    Task = 8,
    Operator = 9,
    OperatorSet = 10,
    LatestSet = 11,
    FirstCleanSet = 12,
    Version = 13,
    Config = 14,
    Rules = 15,
    Parameters = 16,
    KeyEpoch = 17,
    LatestKeyEpoch = 18,
    MinKeyEpoch = 19,
    Skipped = 20,
    /// `block ‖ task id`, so that old tasks can be found.
    TaskByBlock = 21,
    ClientOwner = 22,
}

pub(crate) fn key(kind: Kind, id: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = vec![kind as u8];
    out.extend_from_slice(id.as_ref());
    out
}

pub(crate) fn put<T: Serialize>(
    rows: &mut dyn RowsMut,
    key: Vec<u8>,
    value: &T,
) -> Result<(), StateError> {
    let value = encode("registry row", value)?;
    rows.put_raw(key, value)
}
