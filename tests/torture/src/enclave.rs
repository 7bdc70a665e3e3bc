//! The enclave of a run: the loop of `newton-appliance` (`boot.rs`, `engine.rs`, `ingest.rs`) over the same crates, without
//! threads and without keys. What it would sign goes to the caller.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use newton_artifacts::{
    ArtifactError, DaChecks, DaRules, Unavailable, check_reference, fetch_artifact,
};
use newton_chain::{ChainError, ChainView, Follower, RpcChainView, UnverifiedRpc};
use newton_pages::{
    DeviceError, Options, PAGE_BYTES, PageError, PageKey, PageStore, RedbBackend, StoreId,
};
use newton_relay::disk::{DiskClient, DiskOptions};
use newton_state::{
    CatchUp, ChainConfig, Next, QueueEntry, StateError, StateStore, Verdict, open_database,
};
use newton_types::manifest::{Consensus, ConsensusManifest, Development, ShareHolders};
use newton_types::signing::{Scope, state_commit_digest};
use newton_types::{B256, abi};
use zeroize::Zeroizing;

use crate::da::Store;
use crate::disk::Host;
use crate::random::Random;
use crate::rpc::{Node, contracts};
use crate::world::{CHAIN_ID, Content};

/// The key of all page files here; no byte of it may reach the host.
pub const PAGE_KEY: [u8; 32] = *b"torture: the page key is secret!";

/// Entries looked at in one round of ingestion.
const PER_ROUND: usize = 4;

/// Why the enclave refuses.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The disk service.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The page file.
    #[error(transparent)]
    Pages(#[from] PageError),
    /// The state; with what the page store saw.
    #[error("{error}{}", .fault.as_ref().map(|f| format!(": {f}")).unwrap_or_default())]
    State {
        /// The error.
        error: StateError,
        /// What the page store saw.
        fault: Option<Arc<PageError>>,
    },
    /// The chain's view.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl Refusal {
    /// Whether the file's content is at fault: not a device that fails a request, nor the chain's view.
    #[must_use]
    pub fn is_of_the_file(&self) -> bool {
        match self {
            Self::Device(_) | Self::Chain(_) => false,
            Self::Pages(error) => !matches!(error, PageError::Device(_)),
            Self::State { fault, .. } => !fault
                .as_deref()
                .is_some_and(|fault| matches!(fault, PageError::Device(_))),
        }
    }

    /// A short name for the report.
    #[must_use]
    pub fn name(&self) -> String {
        let variant = |debug: String| {
            debug
                .split(|c: char| !c.is_alphanumeric())
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        match self {
            Self::Device(e) => format!("device.{}", variant(format!("{e:?}"))),
            Self::Pages(e) => format!("pages.{}", variant(format!("{e:?}"))),
            Self::State {
                error: StateError::Storage(_),
                fault: Some(fault),
            } => format!("running.{}", variant(format!("{fault:?}"))),
            Self::State { error, .. } => format!("state.{}", variant(format!("{error:?}"))),
            Self::Chain(e) => format!("chain.{}", variant(format!("{e:?}"))),
        }
    }
}

/// What one poll brought.
#[derive(Debug, Default)]
pub struct Polled {
    /// A commit that this boot signs, its digest, and the finalized height it was derived at.
    pub signed: Option<(abi::StateCommit, u64)>,
}

/// A booted enclave.
pub struct Enclave {
    /// Its state.
    pub state: StateStore,
    pages: PageStore,
    follower: Follower,
    da: Store,
    record: BTreeMap<u64, B256>,
}

impl Enclave {
    /// Boots: page file, database, state, view. `seed` chooses how small its caches are.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn boot(host: &Host, node: &Node, da: &Store, seed: u64) -> Result<Self, Refusal> {
        let dialled = host.clone();
        let options = DiskOptions {
            io_timeout: Duration::from_secs(1),
            // Hang-ups are planned and few; what the host damages is given up after three times.
            patience: Duration::from_secs(3_600),
            first_pause: Duration::ZERO,
        };
        let dial = Box::new(move || Ok(dialled.connect()));
        let device = DiskClient::over(dial, PAGE_BYTES as u32, options)?;
        let key = PageKey::new(Zeroizing::new(PAGE_KEY));
        let id = StoreId {
            operator: [1; 32],
            config: [2; 32],
        };
        let mut random = Random::of(seed, 20);
        let tiny = random.one_in(2);
        let options = Options {
            page_cache_bytes: if tiny { 0 } else { 1 << 20 },
            node_cache_bytes: if tiny { 0 } else { 1 << 20 },
            ..Options::default()
        };
        let pages = PageStore::open(Arc::new(device), &key, id, options)?;
        let fault = pages.clone();
        let cache = if tiny { 1 << 16 } else { 1 << 20 };
        let state = RedbBackend::new(pages.clone())
            .map_err(|e| StateError::Storage(Box::new(redb::Error::Io(e))))
            .and_then(|backend| open_database(backend, cache))
            .and_then(|db| StateStore::open(Arc::new(db), config()))
            .map_err(|error| Refusal::State {
                error,
                fault: fault.last_fault(),
            })?;
        let declared = UnverifiedRpc::declared_by(&manifest())?;
        let view = now(RpcChainView::connect(node.clone(), CHAIN_ID, declared))?;
        let view: Arc<dyn ChainView> = Arc::new(view);
        let mut enclave = Self {
            state,
            pages,
            follower: Follower::new(view.clone(), contracts(), 0, None),
            da: da.clone(),
            record: BTreeMap::new(),
        };
        let next = enclave.checked(|state| state.next_block())?;
        let parent = enclave.checked(|state| state.finalized())?;
        enclave.follower = Follower::new(view, contracts(), next, parent.map(|head| head.hash));
        Ok(enclave)
    }

    /// Follows the chain one step and goes for the next commit.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn poll(&mut self) -> Result<Polled, Refusal> {
        loop {
            let step = now(self.follower.finalized())?;
            if !step.blocks.is_empty() {
                self.checked(|state| state.apply_finalized(&step.blocks))?;
                self.checked(StateStore::catch_up)?;
                self.follower.delivered(&step);
            }
            if step.is_complete() {
                break;
            }
        }
        let pending = now(self.follower.pending())?.to_vec();
        let caught_up = self.checked(StateStore::catch_up)?;
        if let Some(pending) = self.checked(|state| state.pending(&pending))? {
            for commit in pending.commits() {
                self.checked(|state| state.apply_at_head(commit))?;
            }
        }
        if !matches!(caught_up, CatchUp::UpToDate(_)) {
            return Ok(Polled::default());
        }
        let Next::Ready(selection) = self.checked(StateStore::select)? else {
            return Ok(Polled::default());
        };
        let prepared = self.checked(|state| state.prepare(*selection))?;
        let finalized = self.checked(StateStore::finalized)?.map_or(0, |h| h.number);
        Ok(Polled {
            signed: self.sign(prepared.commit().clone(), finalized),
        })
    }

    /// One digest for one sequence number and boot, as `newton_keys::SigningRecord` has it.
    fn sign(&mut self, commit: abi::StateCommit, at: u64) -> Option<(abi::StateCommit, u64)> {
        let scope = Scope {
            chain_id: CHAIN_ID,
            contract: contracts().state_commit_registry,
        };
        let digest = state_commit_digest(scope, &commit);
        let signed = *self.record.entry(commit.sequenceNo).or_insert(digest);
        (signed == digest).then_some((commit, at))
    }

    /// Fetches and judges some entries from the front of the queue; returns how many got a verdict.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn ingest(&mut self) -> Result<usize, Refusal> {
        let entries = self.checked(|state| state.undecided(None, PER_ROUND))?;
        let mut decided = 0;
        for entry in entries {
            match self.verdict(&entry)? {
                Ok(Ok(bytes)) => {
                    self.checked(|state| {
                        state.record_verdict(entry.key, Verdict::Accepted { bytes: &bytes })
                    })?;
                    decided += 1;
                }
                Ok(Err(reason)) => {
                    self.checked(|state| {
                        state.record_verdict(entry.key, Verdict::Rejected { reason })
                    })?;
                    decided += 1;
                }
                Err(why) => {
                    let reason = why.to_string();
                    self.checked(|state| {
                        state.record_verdict(entry.key, Verdict::Unavailable { reason, now: 7 })
                    })?;
                }
            }
        }
        Ok(decided)
    }

    /// The bytes, or why everybody rejects them, or why this enclave abstains. Reference and certificate are judged first,
    /// whether the bytes are here or not: else the verdict would depend on what else this enclave has seen.
    #[allow(clippy::type_complexity)] // three outcomes, named above
    fn verdict(
        &self,
        entry: &QueueEntry,
    ) -> Result<Result<Result<Vec<u8>, String>, Unavailable>, Refusal> {
        let rules = DaRules::default();
        let da_ref =
            match check_reference(&rules, DaChecks::Incomplete, &entry.da_ref, entry.length) {
                Ok(da_ref) => da_ref,
                Err(ArtifactError::Invalid(reason)) => return Ok(Ok(Err(reason.to_string()))),
                Err(ArtifactError::Unavailable(why)) => return Ok(Err(why)),
                Err(_) => unreachable!("there are two kinds"),
            };
        let bytes = match self.checked(|state| state.content(entry.hash))? {
            Some(bytes) => bytes,
            None => match now(fetch_artifact(&self.da, &da_ref, entry.hash)) {
                Ok(bytes) => bytes,
                Err(why) => return Ok(Err(why)),
            },
        };
        if bytes.len() as u64 != u64::from(entry.length) {
            return Ok(Ok(Err("another length than was declared".to_owned())));
        }
        Ok(Ok(Content::judge(&bytes).map(|()| bytes)))
    }

    /// A step of the state, with what the page store saw if it fails.
    ///
    /// # Errors
    /// [`Refusal::State`].
    pub fn checked<T>(
        &self,
        step: impl FnOnce(&StateStore) -> Result<T, StateError>,
    ) -> Result<T, Refusal> {
        step(&self.state).map_err(|error| Refusal::State {
            error,
            fault: self.pages.last_fault(),
        })
    }
}

fn config() -> ChainConfig {
    ChainConfig {
        chain_id: CHAIN_ID,
        state_commit_registry: contracts().state_commit_registry,
        first_block: 0,
        deployment_block: 1,
        deployment_block_hash: None,
    }
}

fn manifest() -> ConsensusManifest {
    ConsensusManifest {
        consensus: Consensus {
            network: "torture".into(),
            authority_chain: CHAIN_ID,
            chains: vec![],
            share_holders: ShareHolders {
                threshold: 1,
                public_keys: vec![],
            },
        },
        development: Some(Development {
            unverified_chain_view: true,
            ..Development::default()
        }),
    }
}

/// Everything here answers at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("nothing here waits"),
    }
}
