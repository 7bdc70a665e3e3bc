//! The defer queue (design 2.3, 2.4): entries in chain order, each with its verdict.
//!
//! A verdict is final and a pure function of chain data and bytes; only "unavailable" may still change. Accepted bytes
//! enter the content table in the transaction of the verdict.

use newton_types::events::{Artifact, ChainEvent, RegistryEvent};
use newton_types::{Address, B256, Bytes, LeafKey, Namespace, QueueKey, keccak256};
use redb::{ReadableTable, Table, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::registry::Registry;
use crate::store::{self, QueueTotals};
use crate::tables::{
    CHUNKS, CONTENT, ENTRIES_OF_LEAF, META, QUEUE, SETTLED, UNDECIDED, decode, encode,
};
use crate::{StateError, StateStore, content};

/// One write that the chain ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// Its place; part of the table's key.
    #[serde(skip)]
    pub key: QueueKey,
    /// Key of the leaf it writes.
    pub leaf_key: LeafKey,
    /// keccak-256 of its bytes, the leaf's value hash.
    pub hash: B256,
    /// Declared length in bytes.
    pub length: u32,
    /// DA reference (`docs/protocol.md` §4), as it was posted.
    pub da_ref: Bytes,
    /// What its verdict depends on beside the bytes.
    pub context: EntryContext,
    /// How far it is.
    pub state: EntryState,
}

impl QueueEntry {
    /// The leaf's namespace.
    pub fn namespace(&self) -> Namespace {
        match &self.context.role {
            Role::Secrets { .. } => Namespace::Secrets,
            Role::Artifact { namespace } | Role::Supplied { namespace } => *namespace,
            Role::Rego { .. } => Namespace::PolicyRego,
        }
    }
}

/// Public facts, fixed by the chain at the entry's block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryContext {
    /// Rules version in force in the entry's block.
    pub rules_version: u32,
    /// What the bytes are for.
    pub role: Role,
}

/// What an entry's bytes are for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Rego of a registered template.
    Rego {
        /// Must exist in the source.
        entrypoint: String,
    },
    /// Another artifact of a registered template.
    Artifact {
        /// Its namespace.
        namespace: Namespace,
    },
    /// Supplied on its own: of no particular template, so Rego is checked without an entrypoint.
    Supplied {
        /// Its namespace.
        namespace: Namespace,
    },
    /// Envelope of a data instance's secrets.
    Secrets {
        /// The data instance.
        instance_id: B256,
        /// Its client.
        client: Address,
        /// Least key epoch that the envelope may have.
        min_key_epoch: u64,
    },
}

/// How far an undrained entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryState {
    /// Nobody has looked yet.
    Pending,
    /// Its bytes could not be had; try again.
    Unavailable(Unavailable),
    /// Its bytes are here and hold.
    Accepted,
    /// Its bytes do not hold, for a reason that every enclave arrives at.
    Rejected {
        /// The reason.
        reason: String,
    },
}

impl EntryState {
    fn is_final(&self) -> bool {
        matches!(self, Self::Accepted | Self::Rejected { .. })
    }
}

/// Why bytes could not be had, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unavailable {
    /// Attempts so far.
    pub attempts: u32,
    /// Seconds since 1970 of the last one, by the caller's clock. Decides nothing that is signed.
    pub last_attempt: u64,
    /// What the last one said.
    pub reason: String,
}

/// What ingestion found.
#[derive(Clone)]
pub enum Verdict<'a> {
    /// The bytes hold. They are compared with the declared hash and length again.
    Accepted {
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The bytes do not hold.
    Rejected {
        /// A reason that every enclave arrives at: no path, no host, no time in it.
        reason: String,
    },
    /// The bytes could not be had.
    Unavailable {
        /// What the sources said.
        reason: String,
        /// Seconds since 1970.
        now: u64,
    },
}

/// What became of a drained entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Commit that drained it.
    pub sequence: u64,
    /// How.
    pub outcome: Outcome,
}

/// How an entry was drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It wrote its leaf.
    Written,
    /// The leaf had this value already.
    AlreadyPresent,
    /// It was rejected.
    Rejected {
        /// The reason.
        reason: String,
    },
    /// A certificate dropped it.
    Skipped,
}

impl StateStore {
    /// Entries without a final verdict, in order, from behind `after`.
    pub fn undecided(
        &self,
        after: Option<QueueKey>,
        limit: usize,
    ) -> Result<Vec<QueueEntry>, StateError> {
        let txn = self.read()?;
        let undecided = txn.open_table(UNDECIDED)?;
        let queue = txn.open_table(QUEUE)?;
        let from = after.map(QueueKey::to_bytes).unwrap_or_default();
        let mut out = Vec::new();
        for item in undecided.range::<&[u8]>(from.as_slice()..)? {
            if out.len() >= limit {
                break;
            }
            let (key, _) = item?;
            let key = queue_key(key.value())?;
            if after.is_some_and(|after| key <= after) {
                continue;
            }
            out.push(entry(&queue, key)?.ok_or(StateError::UnknownEntry(key))?);
        }
        Ok(out)
    }

    /// An undrained entry.
    pub fn entry(&self, key: QueueKey) -> Result<Option<QueueEntry>, StateError> {
        entry(&self.read()?.open_table(QUEUE)?, key)
    }

    /// Undrained entries that ask for a leaf, in order.
    pub fn waiting_for(&self, leaf: LeafKey) -> Result<Vec<QueueEntry>, StateError> {
        let txn = self.read()?;
        let queue = txn.open_table(QUEUE)?;
        let (first, last) = ([0; 20], [0xff; 20]);
        let bound = |key| leaf_index(leaf, QueueKey::from_bytes(key));
        let mut out = Vec::new();
        for item in txn
            .open_table(ENTRIES_OF_LEAF)?
            .range::<&[u8]>(bound(first).as_slice()..=bound(last).as_slice())?
        {
            let key = queue_key(&item?.0.value()[32..])?;
            out.extend(entry(&queue, key)?);
        }
        Ok(out)
    }

    /// Bytes that are here already, whoever brought them: an entry with this hash needs no fetching.
    pub fn content(&self, hash: B256) -> Result<Option<Vec<u8>>, StateError> {
        let txn = self.read()?;
        content::get(&txn.open_table(CONTENT)?, &txn.open_table(CHUNKS)?, hash)
    }

    /// Records one verdict; see [`Self::record_verdicts`].
    pub fn record_verdict(&self, key: QueueKey, verdict: Verdict<'_>) -> Result<(), StateError> {
        self.record_verdicts(&[(key, verdict)])
    }

    /// Records verdicts and stores accepted bytes, all or nothing. Repeating a verdict changes nothing; a final one
    /// does not change, except that "unavailable" leaves it alone.
    pub fn record_verdicts(&self, verdicts: &[(QueueKey, Verdict<'_>)]) -> Result<(), StateError> {
        let txn = self.write()?;
        {
            let mut tables = Tables {
                queue: txn.open_table(QUEUE)?,
                undecided: txn.open_table(UNDECIDED)?,
                content: txn.open_table(CONTENT)?,
                chunks: txn.open_table(CHUNKS)?,
            };
            for (key, verdict) in verdicts {
                record(&mut tables, *key, verdict)?;
            }
        }
        txn.commit()?;
        Ok(())
    }
}

type BytesTable<'t> = Table<'t, &'static [u8], &'static [u8]>;

/// What a verdict touches. Opening a table costs more than a row.
struct Tables<'t> {
    queue: BytesTable<'t>,
    undecided: Table<'t, &'static [u8], ()>,
    content: BytesTable<'t>,
    chunks: BytesTable<'t>,
}

fn record(tables: &mut Tables<'_>, key: QueueKey, verdict: &Verdict<'_>) -> Result<(), StateError> {
    let mut entry = entry(&tables.queue, key)?.ok_or(StateError::UnknownEntry(key))?;
    let state = match verdict {
        Verdict::Accepted { bytes } => {
            check_bytes(&entry, bytes)?;
            EntryState::Accepted
        }
        Verdict::Rejected { reason } => EntryState::Rejected {
            reason: reason.clone(),
        },
        Verdict::Unavailable { reason, now } => {
            let attempts = match &entry.state {
                EntryState::Unavailable(u) => u.attempts,
                _ => 0,
            };
            EntryState::Unavailable(Unavailable {
                attempts: attempts.saturating_add(1),
                last_attempt: *now,
                reason: reason.clone(),
            })
        }
    };
    if entry.state.is_final() {
        if state == entry.state || !state.is_final() {
            return Ok(());
        }
        return Err(StateError::VerdictIsFinal {
            entry: key,
            stored: format!("{:?}", entry.state),
            got: format!("{state:?}"),
        });
    }
    if let Verdict::Accepted { bytes } = verdict {
        content::put(&mut tables.content, &mut tables.chunks, entry.hash, bytes)?;
    }
    if state.is_final() {
        tables.undecided.remove(key.to_bytes().as_slice())?;
    }
    entry.state = state;
    let bytes = encode("queue entry", &entry)?;
    tables
        .queue
        .insert(key.to_bytes().as_slice(), bytes.as_slice())?;
    Ok(())
}

fn check_bytes(entry: &QueueEntry, bytes: &[u8]) -> Result<(), StateError> {
    if bytes.len() as u64 != u64::from(entry.length) {
        return Err(StateError::WrongLength {
            entry: entry.key,
            expected: entry.length.into(),
            got: bytes.len() as u64,
        });
    }
    let got = keccak256(bytes);
    if got != entry.hash {
        return Err(StateError::WrongBytes {
            entry: entry.key,
            expected: entry.hash,
            got,
        });
    }
    Ok(())
}

pub(crate) fn queue_key(bytes: &[u8]) -> Result<QueueKey, StateError> {
    let bytes = <[u8; 20]>::try_from(bytes).map_err(|_| StateError::Codec {
        what: "queue key",
        reason: format!("{} bytes, expected 20", bytes.len()),
    })?;
    Ok(QueueKey::from_bytes(bytes))
}

pub(crate) fn entry(
    queue: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: QueueKey,
) -> Result<Option<QueueEntry>, StateError> {
    match queue.get(key.to_bytes().as_slice())? {
        Some(bytes) => decode_entry(key, bytes.value()).map(Some),
        None => Ok(None),
    }
}

pub(crate) fn decode_entry(key: QueueKey, bytes: &[u8]) -> Result<QueueEntry, StateError> {
    let mut entry: QueueEntry = decode("queue entry", bytes)?;
    entry.key = key;
    Ok(entry)
}

/// Puts an event's artifacts into the queue; returns how many entries came.
pub(crate) fn enqueue(
    txn: &WriteTransaction,
    chain_id: u64,
    registry: &Registry<'_>,
    event: &ChainEvent,
) -> Result<usize, StateError> {
    let entries = entries_of(chain_id, registry, event)?;
    if entries.is_empty() {
        return Ok(0);
    }
    let mut queue = txn.open_table(QUEUE)?;
    let mut undecided = txn.open_table(UNDECIDED)?;
    let mut of_leaf = txn.open_table(ENTRIES_OF_LEAF)?;
    let mut meta = txn.open_table(META)?;
    let mut totals = store::totals(&meta)?;
    for entry in &entries {
        let key = entry.key.to_bytes();
        let bytes = encode("queue entry", entry)?;
        queue.insert(key.as_slice(), bytes.as_slice())?;
        undecided.insert(key.as_slice(), ())?;
        of_leaf.insert(leaf_index(entry.leaf_key, entry.key).as_slice(), ())?;
        totals.entries += 1;
        totals.bytes += u64::from(entry.length);
    }
    store::put_totals(&mut meta, &totals)?;
    Ok(entries.len())
}

/// Takes drained entries out and remembers what became of them: key, declared length, outcome, in the order of their keys.
pub(crate) fn settle(
    txn: &WriteTransaction,
    totals: &mut QueueTotals,
    sequence: u64,
    drained: &[(QueueKey, u32, Outcome)],
) -> Result<(), StateError> {
    let mut queue = txn.open_table(QUEUE)?;
    let mut undecided = txn.open_table(UNDECIDED)?;
    let mut settled = txn.open_table(SETTLED)?;
    for (key, length, outcome) in drained {
        let bytes = key.to_bytes();
        queue.remove(bytes.as_slice())?;
        undecided.remove(bytes.as_slice())?;
        let row = Settled {
            sequence,
            outcome: outcome.clone(),
        };
        settled.insert(bytes.as_slice(), encode("settled entry", &row)?.as_slice())?;
        totals.entries = totals.entries.saturating_sub(1);
        totals.bytes = totals.bytes.saturating_sub(u64::from(*length));
    }
    Ok(())
}

pub(crate) fn leaf_index(leaf: LeafKey, key: QueueKey) -> [u8; 52] {
    let mut out = [0; 52];
    out[..32].copy_from_slice(leaf.0.as_slice());
    out[32..].copy_from_slice(&key.to_bytes());
    out
}

fn entries_of(
    chain_id: u64,
    registry: &Registry<'_>,
    event: &ChainEvent,
) -> Result<Vec<QueueEntry>, StateError> {
    use Namespace::{
        PolicyDataParamsSchema, PolicyDataSecretsSchema, PolicyDataWasm, PolicyParamsSchema,
    };
    let block = event.position.block;
    let artifact = |namespace| Role::Artifact { namespace };
    let (items, da_refs): (Vec<(Artifact, Role)>, Vec<Bytes>) = match &event.event {
        RegistryEvent::PolicyTemplateRegistered {
            rego,
            params_schema,
            entrypoint,
            da_refs,
            ..
        } => {
            let entrypoint = entrypoint.clone();
            let items = vec![
                (*rego, Role::Rego { entrypoint }),
                (*params_schema, artifact(PolicyParamsSchema)),
            ];
            (items, da_refs.clone())
        }
        RegistryEvent::PolicyDataTemplateRegistered {
            wasm,
            params_schema,
            secrets_schema,
            da_refs,
            ..
        } => {
            let items = vec![
                (*wasm, artifact(PolicyDataWasm)),
                (*params_schema, artifact(PolicyDataParamsSchema)),
                (*secrets_schema, artifact(PolicyDataSecretsSchema)),
            ];
            (items, da_refs.clone())
        }
        RegistryEvent::ArtifactSupplied {
            namespace,
            artifact,
            da_ref,
            ..
        } => {
            let role = Role::Supplied {
                namespace: *namespace,
            };
            (vec![(*artifact, role)], vec![da_ref.clone()])
        }
        RegistryEvent::SecretsSet {
            instance_id,
            client,
            envelope,
            da_ref,
            ..
        } => {
            let role = Role::Secrets {
                instance_id: *instance_id,
                client: *client,
                min_key_epoch: registry.min_key_epoch_at(block)?,
            };
            (vec![(*envelope, role)], vec![da_ref.clone()])
        }
        _ => return Ok(Vec::new()),
    };

    let malformed = |reason: String| StateError::MalformedEvent {
        position: event.position,
        reason,
    };
    let rules_version = registry.rules_version_at(block)?;
    let mut refs = da_refs.into_iter();
    let mut out = Vec::new();
    for (item, (artifact, role)) in items.into_iter().enumerate() {
        if artifact.is_absent() && artifact.length == 0 {
            continue;
        }
        if artifact.is_absent() || artifact.hash == B256::ZERO || artifact.length == 0 {
            return Err(malformed(format!("artifact {item} is {artifact:?}")));
        }
        let da_ref = refs
            .next()
            .ok_or_else(|| malformed(format!("artifact {item} has no DA reference")))?;
        let mut entry = QueueEntry {
            key: event.position.item(item as u32),
            leaf_key: LeafKey(B256::ZERO),
            hash: artifact.hash,
            length: artifact.length,
            da_ref,
            context: EntryContext {
                rules_version,
                role,
            },
            state: EntryState::Pending,
        };
        entry.leaf_key = match &entry.context.role {
            Role::Secrets {
                instance_id,
                client,
                ..
            } => LeafKey::secrets(chain_id, *client, *instance_id),
            _ => LeafKey::artifact(entry.namespace(), entry.hash),
        };
        out.push(entry);
    }
    if refs.next().is_some() {
        return Err(malformed("more DA references than artifacts".into()));
    }
    Ok(out)
}
