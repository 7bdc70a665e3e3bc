//! Compiled components: each compiled once, kept in memory up to a budget, and in storage across restarts (design 2.7, 4.7).
//!
//! A component is compiled in a process of its own that has seen nothing else ([`super::compile`]); what comes out is handed to the
//! workers, which load it without looking. So the bytes come from that process or from a [`ModuleStore`], never from the host.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use alloy_primitives::{B256, keccak256};

use super::{WorkerConfig, compile::Compilers};
use crate::{component, error::EvaluateError, request::ArtifactSource};

/// Failures of the compiler on one component after which it is left alone for [`POISON_REST`].
const POISON_AFTER: u32 = 3;
/// How long such a component rests.
const POISON_REST: Duration = Duration::from_secs(600);
/// Components whose failures are remembered.
const POISON_KEPT: usize = 1_024;

/// Where compiled components survive a restart.
///
/// # Safety
/// [`Self::load`] gives either nothing or exactly the bytes that [`Self::store`] took under the same component and fingerprint: they are
/// machine code, and run as they are. An implementation must authenticate what it reads with a key that the host does not have.
#[allow(unsafe_code)]
pub unsafe trait ModuleStore: Send + Sync {
    /// The stored bytes.
    ///
    /// # Errors
    /// Why they cannot be read; they are then made anew.
    fn load(&self, component: B256, fingerprint: B256) -> Result<Option<Vec<u8>>, String>;

    /// Keeps bytes.
    ///
    /// # Errors
    /// Why they cannot be kept; the component is then compiled again after the next restart.
    fn store(&self, component: B256, fingerprint: B256, module: &[u8]) -> Result<(), String>;
}

/// How much is kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModuleBudget {
    /// Modules.
    pub count: usize,
    /// Bytes of all modules.
    pub bytes: u64,
}

impl ModuleBudget {
    /// For a developer's machine (design 2.8).
    pub const DEV: Self = Self {
        count: 8,
        bytes: 256 << 20,
    };
    /// The default.
    pub const SMALL: Self = Self {
        count: 32,
        bytes: 1 << 30,
    };
    /// For machines with memory to spare.
    pub const LARGE: Self = Self {
        count: 256,
        bytes: 8 << 30,
    };
}

impl Default for ModuleBudget {
    fn default() -> Self {
        Self::SMALL
    }
}

/// What happened since the start, and what is kept now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModuleStats {
    /// Found in memory.
    pub hits: u64,
    /// Not found there.
    pub misses: u64,
    /// Of the misses: found in storage.
    pub loaded: u64,
    /// Of the misses: compiled.
    pub compiled: u64,
    /// Of the misses: the compiler refused or failed.
    pub failed: u64,
    /// Waited for another's compilation of the same component.
    pub joined: u64,
    /// Storage that could not be read or written.
    pub store_faults: u64,
    /// Dropped from memory because of the bytes.
    pub evicted_size: u64,
    /// Dropped from memory because of the count.
    pub evicted_count: u64,
    /// Modules in memory.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Microseconds that all compilations took.
    pub compile_us: u64,
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    loaded: AtomicU64,
    compiled: AtomicU64,
    failed: AtomicU64,
    joined: AtomicU64,
    store_faults: AtomicU64,
    evicted_size: AtomicU64,
    evicted_count: AtomicU64,
    compile_us: AtomicU64,
}

/// The cache. Shared by the pools that run components.
pub struct Modules {
    fingerprint: B256,
    budget: ModuleBudget,
    compilers: Compilers,
    store: Option<Box<dyn ModuleStore>>,
    /// How long anyone waits for another's compilation.
    patience: Duration,
    inner: Mutex<Inner>,
    stats: Counters,
}

#[derive(Default)]
struct Inner {
    ready: HashMap<B256, Ready>,
    bytes: u64,
    clock: u64,
    flights: HashMap<B256, Arc<Flight>>,
    /// Made in this boot, so that a load is all a miss costs.
    known: HashSet<B256>,
    poisoned: HashMap<B256, Poison>,
}

struct Ready {
    module: Module,
    used: u64,
}

struct Poison {
    failures: u32,
    last: Instant,
    error: EvaluateError,
}

/// One compilation that others wait for.
#[derive(Default)]
struct Flight {
    outcome: Mutex<Option<Result<Module, EvaluateError>>>,
    landed: Condvar,
}

/// A compiled component as the engine serialized it.
pub type Module = Arc<[u8]>;

impl Modules {
    /// An empty cache. Compilations run in processes started as `config` says, at most `compilers` at once.
    ///
    /// # Errors
    /// [`EvaluateError::Internal`] when this machine cannot run the engine.
    pub fn new(
        config: WorkerConfig,
        compilers: usize,
        budget: ModuleBudget,
        store: Option<Box<dyn ModuleStore>>,
    ) -> Result<Self, EvaluateError> {
        let limits = &config.limits;
        let patience = limits.compile_wall + limits.request_wall + limits.queue_wall;
        Ok(Self {
            fingerprint: component::fingerprint()?,
            budget,
            compilers: Compilers::new(config, compilers),
            store,
            patience,
            inner: Mutex::default(),
            stats: Counters::default(),
        })
    }

    /// The compiled component; compiles it if neither memory nor storage has it. Whoever asks meanwhile waits and gets the same.
    ///
    /// # Errors
    /// [`EvaluateError::InvalidArtifact`] when the bytes are at fault; everything else abstains.
    pub fn fetch(
        &self,
        component: B256,
        source: &dyn ArtifactSource,
    ) -> Result<Module, EvaluateError> {
        let flight = {
            let mut inner = self.inner();
            if let Some(module) = inner.touch(component) {
                self.stats.hits.fetch_add(1, Ordering::Relaxed);
                return Ok(module);
            }
            match inner.flights.get(&component) {
                Some(flight) => Err(Arc::clone(flight)),
                None => {
                    inner.check_poison(component)?;
                    let flight = Arc::new(Flight::default());
                    inner.flights.insert(component, Arc::clone(&flight));
                    Ok(flight)
                }
            }
        };
        match flight {
            Err(other) => {
                self.stats.joined.fetch_add(1, Ordering::Relaxed);
                other.wait(self.patience)
            }
            Ok(flight) => {
                self.stats.misses.fetch_add(1, Ordering::Relaxed);
                let mut landing = Landing {
                    modules: self,
                    component,
                    flight: &flight,
                    outcome: None,
                };
                let outcome = self.make(component, source);
                landing.outcome = Some(outcome.clone());
                drop(landing);
                outcome
            }
        }
    }

    /// Sees to it that [`Self::fetch`] will not compile. Unlike that it loads nothing which storage is known to have.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub fn ensure(
        &self,
        component: B256,
        source: &dyn ArtifactSource,
    ) -> Result<(), EvaluateError> {
        {
            let mut inner = self.inner();
            if inner.touch(component).is_some() {
                self.stats.hits.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            // Workers may still have it, and storage has.
            if inner.known.contains(&component) {
                return Ok(());
            }
        }
        self.fetch(component, source).map(drop)
    }

    /// What happened since the start, and what is kept now.
    #[must_use]
    pub fn stats(&self) -> ModuleStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (entries, bytes) = {
            let inner = self.inner();
            (inner.ready.len() as u64, inner.bytes)
        };
        ModuleStats {
            hits: load(&self.stats.hits),
            misses: load(&self.stats.misses),
            loaded: load(&self.stats.loaded),
            compiled: load(&self.stats.compiled),
            failed: load(&self.stats.failed),
            joined: load(&self.stats.joined),
            store_faults: load(&self.stats.store_faults),
            evicted_size: load(&self.stats.evicted_size),
            evicted_count: load(&self.stats.evicted_count),
            compile_us: load(&self.stats.compile_us),
            entries,
            bytes,
        }
    }

    fn make(&self, component: B256, source: &dyn ArtifactSource) -> Result<Module, EvaluateError> {
        if let Some(module) = self.stored(component) {
            self.stats.loaded.fetch_add(1, Ordering::Relaxed);
            return Ok(module);
        }
        let bytes = source
            .artifact(&component)
            .ok_or(EvaluateError::ArtifactUnavailable {
                artifact: component,
            })?;
        let got = keccak256(&bytes);
        if got != component {
            return Err(EvaluateError::ArtifactMismatch {
                expected: component,
                got,
            });
        }
        let started = Instant::now();
        let outcome = self.compilers.compile(component, &bytes);
        let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.stats.compile_us.fetch_add(took, Ordering::Relaxed);
        let module: Module = match outcome {
            Ok(module) => module.into(),
            Err(error) => {
                self.stats.failed.fetch_add(1, Ordering::Relaxed);
                return Err(error);
            }
        };
        self.stats.compiled.fetch_add(1, Ordering::Relaxed);
        if let Some(store) = &self.store
            && let Err(reason) = store.store(component, self.fingerprint, &module)
        {
            self.stats.store_faults.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%component, reason, "a compiled component could not be stored");
        }
        Ok(module)
    }

    fn stored(&self, component: B256) -> Option<Module> {
        match self.store.as_ref()?.load(component, self.fingerprint) {
            Ok(module) => module.map(Into::into),
            Err(reason) => {
                self.stats.store_faults.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%component, reason, "a stored compiled component is unfit; it is compiled again");
                None
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // No section calls anything of a caller's, so none ends half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn touch(&mut self, component: B256) -> Option<Module> {
        self.clock += 1;
        let ready = self.ready.get_mut(&component)?;
        ready.used = self.clock;
        Some(Arc::clone(&ready.module))
    }

    fn keep(&mut self, component: B256, module: &Module, budget: ModuleBudget, stats: &Counters) {
        self.known.insert(component);
        self.poisoned.remove(&component);
        let size = module.len() as u64;
        if size > budget.bytes || budget.count == 0 {
            return;
        }
        while self.bytes + size > budget.bytes || self.ready.len() >= budget.count {
            let reason = if self.bytes + size > budget.bytes {
                &stats.evicted_size
            } else {
                &stats.evicted_count
            };
            let oldest = self.ready.iter().min_by_key(|(_, ready)| ready.used);
            let Some((oldest, _)) = oldest else { break };
            let oldest = *oldest;
            if let Some(gone) = self.ready.remove(&oldest) {
                self.bytes -= gone.module.len() as u64;
            }
            reason.fetch_add(1, Ordering::Relaxed);
        }
        self.clock += 1;
        let ready = Ready {
            module: Arc::clone(module),
            used: self.clock,
        };
        // A flight is the only one that inserts, and there is one for each component.
        if self.ready.insert(component, ready).is_none() {
            self.bytes += size;
        }
    }

    /// A component on which the compiler dies must not take a process and a minute for every task.
    fn check_poison(&mut self, component: B256) -> Result<(), EvaluateError> {
        match self.poisoned.get(&component) {
            Some(poison)
                if poison.failures >= POISON_AFTER && poison.last.elapsed() < POISON_REST =>
            {
                Err(poison.error.clone())
            }
            _ => Ok(()),
        }
    }

    fn note_failure(&mut self, component: B256, error: &EvaluateError) {
        let content = matches!(
            error,
            EvaluateError::WorkerDied { .. }
                | EvaluateError::WallClockExceeded { .. }
                | EvaluateError::OutOfMemory { .. }
                | EvaluateError::InvalidArtifact { .. }
        );
        if !content
            || (self.poisoned.len() >= POISON_KEPT && !self.poisoned.contains_key(&component))
        {
            return;
        }
        let poison = self.poisoned.entry(component).or_insert_with(|| Poison {
            failures: 0,
            last: Instant::now(),
            error: error.clone(),
        });
        poison.failures += 1;
        poison.last = Instant::now();
        poison.error = error.clone();
    }
}

impl Flight {
    fn wait(&self, patience: Duration) -> Result<Module, EvaluateError> {
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let (outcome, _) = self
            .landed
            .wait_timeout_while(outcome, patience, |outcome| outcome.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        outcome.clone().unwrap_or_else(|| {
            Err(EvaluateError::WorkersBusy {
                waited_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
            })
        })
    }
}

/// Ends a flight, also when the maker panics: nobody waits for what does not come.
struct Landing<'a> {
    modules: &'a Modules,
    component: B256,
    flight: &'a Flight,
    outcome: Option<Result<Module, EvaluateError>>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(|| {
            Err(EvaluateError::Internal {
                reason: "a compilation was broken off".to_owned(),
            })
        });
        {
            let mut inner = self.modules.inner();
            match &outcome {
                Ok(module) => inner.keep(
                    self.component,
                    module,
                    self.modules.budget,
                    &self.modules.stats,
                ),
                Err(error) => inner.note_failure(self.component, error),
            }
            inner.flights.remove(&self.component);
        }
        *self
            .flight
            .outcome
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.flight.landed.notify_all();
    }
}
