//! The chain of a run: blocks with events, and blobs for what they name.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use newton_artifacts::{Certificate, DaBlob, DaRef, VERSION_BYTE_V4};
use newton_model::Derived;
use newton_types::events::{
    Artifact, Block, ChainEvent, ConsensusParameters, EventPosition, HeaderInfo, RegistryEvent,
};
use newton_types::{ABSENT, Address, B256, Bytes, Namespace, QueueKey, abi, ids, keccak256};

use crate::random::Random;

/// EIP-155 chain id of all runs.
pub const CHAIN_ID: u64 = 31_337;
/// Stands in every artifact, and nowhere the host may look once the enclave has it.
pub const MARKER: &str = "torture: this is plaintext";
const GENESIS_TIME: u64 = 1_000;
const CADENCE: u64 = 10;

/// Bytes that a blob holds.
pub struct Content {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Their hash.
    pub hash: B256,
    /// The certificate under which they are had.
    pub certificate: Bytes,
}

impl Content {
    /// The content check of these runs; a pure function of the bytes, as the real ones are. (Parsing Rego and WASM is tested
    /// where it is done.)
    ///
    /// # Errors
    /// The reason for which everybody rejects it.
    pub fn judge(bytes: &[u8]) -> Result<(), String> {
        match bytes.first() {
            Some(b'!') => Err("it begins with an exclamation mark".into()),
            _ => Ok(()),
        }
    }

    fn make(i: u64) -> Self {
        let mut bytes = match i % 5 {
            0 => b"!".to_vec(),
            _ => b"?".to_vec(),
        };
        bytes.extend_from_slice(MARKER.as_bytes());
        bytes.extend_from_slice(&i.to_be_bytes());
        // One of several chunks.
        let length = if i == 6 {
            300_000
        } else {
            40 + 11 * i as usize
        };
        bytes.resize(length, b'.');
        let hash = keccak256(&bytes);
        Self {
            certificate: certificate(hash),
            hash,
            bytes,
        }
    }
}

/// All contents, with their certificates.
#[must_use]
pub fn contents() -> &'static [Content] {
    static CONTENTS: OnceLock<Vec<Content>> = OnceLock::new();
    CONTENTS.get_or_init(|| (0..14).map(Content::make).collect())
}

/// A certificate of EigenDA's test network, made to name other content: a new leaf, and the root that follows from it. The
/// operators' signature is not checked yet (`newton_artifacts::NOT_YET_CHECKED`).
fn certificate(content: B256) -> Bytes {
    const REAL: &str = include_str!("../testdata/eigenda-v3-certificate.hex");
    let v3 = hex::decode(REAL.trim()).unwrap_or_default();
    // A list with a two-byte length: version 4 has one field more, here zero.
    let length = u16::from_be_bytes([v3[2], v3[3]]) + 1;
    let mut v4 = vec![VERSION_BYTE_V4, v3[1]];
    v4.extend_from_slice(&length.to_be_bytes());
    v4.extend_from_slice(&v3[4..]);
    v4.push(0x80);
    let Ok(mut certificate) = Certificate::parse(&v4) else {
        unreachable!("a real certificate")
    };
    let header = &mut certificate.blob_inclusion_info.blob_certificate.blob_header;
    header.payment_header_hash = content;
    // Longer than any content here.
    header.commitment.length = 1 << 15;
    certificate.batch_header.batch_root = certificate
        .blob_inclusion_info
        .computed_root()
        .unwrap_or_default();
    certificate.to_bytes().into()
}

/// The blocks of a run, and what is good.
pub struct World {
    /// Block n at position n.
    pub blocks: Vec<Block>,
    /// Entries whose bytes hold.
    pub good: BTreeMap<QueueKey, bool>,
    /// What follows from the first n + 1 blocks, with the commits that are among them.
    derived: Vec<OnceLock<Derived>>,
}

impl World {
    /// The world of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = Random::of(seed, 10);
        let mut world = Self {
            blocks: Vec::new(),
            good: BTreeMap::new(),
            derived: Vec::new(),
        };
        let mut parameters = parameters(&mut random);
        world.push(
            GENESIS_TIME,
            vec![
                RegistryEvent::RulesVersionScheduled {
                    rules_version: 1,
                    active_from: 0,
                },
                RegistryEvent::ConsensusParametersSet {
                    parameters,
                    active_from_timestamp: GENESIS_TIME,
                },
            ],
        );
        world.push(GENESIS_TIME + 1, vec![]);
        let count = 10 + random.below(14);
        let mut time = GENESIS_TIME + 1;
        for _ in 0..count {
            // Now and then the clock jumps.
            time += match random.below(20) {
                0 => 3_600,
                1 | 2 => 0,
                _ => 1 + random.below(CADENCE),
            };
            let mut events = Vec::new();
            if random.one_in(9) {
                parameters.max_commit_bytes = cap(&mut random);
                // As the contract has it: the first window end that is a whole window away.
                let windows = (time - GENESIS_TIME).div_ceil(CADENCE) + 1;
                events.push(RegistryEvent::ConsensusParametersSet {
                    parameters,
                    active_from_timestamp: GENESIS_TIME + windows * CADENCE,
                });
            }
            for _ in 0..random.below(4) {
                events.push(write(&mut random, world.blocks.len()));
            }
            if random.one_in(12)
                && let Some(entry) = some_entry(&world, &mut random)
            {
                events.push(RegistryEvent::EntrySkipped { entry });
            }
            // A certificate that lands between a commit's signatures and the commit itself would change what the commit has
            // to be; in these runs it does not.
            let skips = events
                .iter()
                .any(|e| matches!(e, RegistryEvent::EntrySkipped { .. }));
            if random.below(3) > 0
                && !skips
                && let Some(commit) = world.next_commit()
            {
                events.push(committed(&commit));
            }
            world.push(time, events);
        }
        // Let everything that waits be committed.
        for _ in 0..60 {
            time += CADENCE;
            let Some(commit) = world.next_commit() else {
                world.push(time, vec![]);
                let cursor = world.derived(world.blocks.len() - 1).cursor;
                if world.good.keys().all(|entry| *entry <= cursor) {
                    break;
                }
                continue;
            };
            world.push(time, vec![committed(&commit)]);
        }
        world.push(time + CADENCE, vec![]);
        world.push(time + CADENCE + 1, vec![]);
        world
    }

    /// What follows from the blocks up to `head`.
    pub fn derived(&self, head: usize) -> &Derived {
        self.derived[head].get_or_init(|| {
            newton_model::derive(CHAIN_ID, &self.blocks[..=head], |entry| {
                self.good.get(&entry.key) == Some(&true)
            })
        })
    }

    /// The commit that could land now.
    fn next_commit(&self) -> Option<abi::StateCommit> {
        let head = self.blocks.len() - 1;
        let landed = newton_model::chain_commits(&self.blocks[..=head]).len();
        self.derived(head).commits.get(landed).cloned()
    }

    fn push(&mut self, timestamp: u64, events: Vec<RegistryEvent>) {
        let parent = self.blocks.last().map_or(B256::ZERO, |b| b.header.hash);
        let block = block(self.blocks.len() as u64, parent, timestamp, events);
        for event in &block.events {
            for (key, good) in judged(event) {
                self.good.insert(key, good);
            }
        }
        self.blocks.push(block);
        self.derived.push(OnceLock::new());
    }
}

/// A block whose hash follows from what is in it.
#[must_use]
pub fn block(number: u64, parent_hash: B256, timestamp: u64, events: Vec<RegistryEvent>) -> Block {
    let events: Vec<ChainEvent> = events
        .into_iter()
        .enumerate()
        .map(|(i, event)| ChainEvent {
            position: EventPosition {
                block: number,
                tx: i as u32 / 2,
                log: 3 * i as u32,
            },
            event,
        })
        .collect();
    let preimage = format!("{parent_hash} {number} {timestamp} {events:?}");
    Block {
        header: HeaderInfo {
            number,
            hash: keccak256(preimage),
            parent_hash,
            timestamp,
        },
        events,
    }
}

/// The event of a commit that landed.
#[must_use]
pub fn committed(commit: &abi::StateCommit) -> RegistryEvent {
    RegistryEvent::StateCommitted {
        commit: commit.clone(),
        digest: B256::ZERO,
        delta_da_refs: vec![],
    }
}

fn parameters(random: &mut Random) -> ConsensusParameters {
    ConsensusParameters {
        genesis_time: GENESIS_TIME,
        cadence: CADENCE,
        max_commit_bytes: cap(random),
        max_artifact_bytes: 1_000_000,
        max_expire_after: 1_000,
        quorum_bps: 6_667,
        min_signers: 1,
        max_set_age: 100,
        max_defer_queue_bytes: 10_000_000,
        author_quota_bytes: 10_000_000,
        response_window: 30,
        challenge_window: 100,
        skip_empty: random.one_in(3),
    }
}

/// Bytes of a window: so few that entries wait; often just what some of them have together, so that "equal to the cap" comes about.
fn cap(random: &mut Random) -> u64 {
    if random.one_in(4) {
        return 300_400;
    }
    let contents = contents();
    (0..=random.below(3))
        .map(|_| {
            contents[random.below(contents.len() as u64) as usize]
                .bytes
                .len() as u64
        })
        .sum::<u64>()
        // All but the largest content fit.
        .max(190)
}

/// A template, a supplied artifact or an envelope; sometimes with a wrong length on chain or a reference that is none.
fn write(random: &mut Random, block: usize) -> RegistryEvent {
    let (artifact, da_ref) = artifact(random);
    if random.one_in(4) {
        let namespace = random.pick(&[Namespace::PolicyParamsSchema, Namespace::PolicyRego]);
        return RegistryEvent::ArtifactSupplied {
            namespace,
            artifact,
            supplier: Address::repeat_byte(3),
            da_ref,
        };
    }
    if random.one_in(4) {
        // Of few instances, so that leaves are written again.
        let instance = 1 + random.below(3) as u8;
        return RegistryEvent::SecretsSet {
            instance_id: B256::repeat_byte(instance),
            client: Address::repeat_byte(9),
            poster: Address::repeat_byte(9),
            by_owner: true,
            envelope: artifact,
            da_ref,
            count: block as u64,
        };
    }
    let (schema, mut da_refs) = if random.one_in(3) {
        let (schema, second) = self::artifact(random);
        (schema, vec![second])
    } else {
        (Artifact::NONE, vec![])
    };
    da_refs.insert(0, da_ref);
    // Drawn from so many that no template is registered twice.
    let entrypoint = format!("p{block}.{:016x}", random.below(u64::MAX));
    RegistryEvent::PolicyTemplateRegistered {
        id: ids::policy_template_id(artifact.hash, &entrypoint, schema.hash, &[]),
        author: Address::repeat_byte(1),
        rego: artifact,
        params_schema: schema,
        entrypoint,
        data_template_refs: vec![],
        da_refs,
    }
}

fn artifact(random: &mut Random) -> (Artifact, Bytes) {
    let contents = contents();
    let content = &contents[random.below(contents.len() as u64) as usize];
    let mut length = content.bytes.len() as u32;
    let declared = match random.below(14) {
        // One byte more or less on chain, with a reference that says the same or the truth.
        0 => {
            length += 1;
            length
        }
        1 => {
            length += 1;
            length - 1
        }
        2 => {
            length -= 1;
            length
        }
        _ => length,
    };
    let da_ref = if random.one_in(15) {
        Bytes::from_static(b"nowhere")
    } else {
        reference(content, declared)
    };
    let artifact = Artifact {
        hash: content.hash,
        length,
    };
    (artifact, da_ref)
}

fn reference(content: &Content, length: u32) -> Bytes {
    let blob = DaBlob {
        certificate: content.certificate.clone().into(),
        length,
    };
    DaRef::new(vec![blob]).map_or_else(|_| Bytes::new(), |r| r.encode().into())
}

/// The entries of an event and whether their bytes hold: the length on chain, in the reference and of the content are one,
/// and the content is good.
fn judged(event: &ChainEvent) -> Vec<(QueueKey, bool)> {
    let good = |artifact: &Artifact, da_ref: &Bytes| {
        contents().iter().any(|content| {
            content.hash == artifact.hash
                && content.bytes.len() as u32 == artifact.length
                && *da_ref == reference(content, artifact.length)
                && Content::judge(&content.bytes).is_ok()
        })
    };
    match &event.event {
        RegistryEvent::PolicyTemplateRegistered {
            rego,
            params_schema,
            da_refs,
            ..
        } => [rego, params_schema]
            .into_iter()
            .enumerate()
            .filter(|(_, artifact)| artifact.hash != ABSENT)
            .zip(da_refs)
            .map(|((i, artifact), da_ref)| (event.position.item(i as u32), good(artifact, da_ref)))
            .collect(),
        RegistryEvent::ArtifactSupplied {
            artifact, da_ref, ..
        }
        | RegistryEvent::SecretsSet {
            envelope: artifact,
            da_ref,
            ..
        } => vec![(event.position.item(0), good(artifact, da_ref))],
        _ => vec![],
    }
}

fn some_entry(world: &World, random: &mut Random) -> Option<QueueKey> {
    // The contract takes one certificate an entry.
    let skipped = |key: &QueueKey| {
        world
            .blocks
            .iter()
            .flat_map(|b| &b.events)
            .any(|e| matches!(&e.event, RegistryEvent::EntrySkipped { entry } if entry == key))
    };
    let keys: Vec<QueueKey> = world.good.keys().copied().filter(|k| !skipped(k)).collect();
    (!keys.is_empty()).then(|| keys[random.below(keys.len() as u64) as usize])
}
