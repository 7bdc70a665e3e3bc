//! The worker processes, and what they share: compiled components, kept in the encrypted pages across restarts (design 4.3, 4.7).
//!
//! Three pools, so that nobody waits for another kind of work: tasks of the chain, simulations, checks at ingestion and of secrets. One
//! worker of tasks is enough for that; a simulation can never hold it.

#![allow(unsafe_code)]

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use newton_evaluate::{
    MachineLimits,
    worker::{ModuleBudget, ModuleStore, Modules, WorkerConfig, WorkerLimits, WorkerPool},
};
use newton_state::StateStore;
use newton_types::{
    B256,
    manifest::{Local, ModuleCache},
};

/// The pools.
pub struct Pools {
    /// Tasks of the chain.
    pub tasks: Arc<WorkerPool>,
    /// Simulations.
    pub simulations: Arc<WorkerPool>,
    /// Checks at ingestion, and of secrets.
    pub checks: Arc<WorkerPool>,
    /// The compiled components of all three.
    pub modules: Arc<Modules>,
}

impl Pools {
    /// Starts all workers: as many as the manifest says for tasks, half of that for simulations, one for checks.
    ///
    /// # Errors
    /// If one does not come up.
    pub fn start(local: &Local, state: StateStore) -> Result<Self> {
        let config = |workers| config(local, workers);
        let modules = Modules::new(
            config(1),
            cores() / 2,
            budget(local.module_cache),
            Some(Box::new(Pages(state))),
        )
        .context("the component engine")?;
        let modules = Arc::new(modules);
        let pool = |workers| {
            WorkerPool::sharing(config(workers), Arc::clone(&modules))
                .map(Arc::new)
                .context("starting the worker processes")
        };
        Ok(Self {
            tasks: pool(local.workers)?,
            simulations: pool((local.workers / 2).max(1))?,
            checks: pool(1)?,
            modules,
        })
    }
}

/// Compiled components in the state's pages.
struct Pages(StateStore);

// SAFETY: the state's database lies in pages that are encrypted and authenticated under a key of the enclave's secret, against a root
// in memory (docs/storage.md, P1): a page that the host changed is an error, and is never returned. Nothing else writes that table.
unsafe impl ModuleStore for Pages {
    fn load(&self, component: B256, fingerprint: B256) -> Result<Option<Vec<u8>>, String> {
        self.0
            .compiled(component, fingerprint)
            .map_err(|e| e.to_string())
    }

    fn store(&self, component: B256, fingerprint: B256, module: &[u8]) -> Result<(), String> {
        self.0
            .put_compiled(component, fingerprint, module)
            .map_err(|e| e.to_string())
    }
}

fn config(local: &Local, workers: usize) -> WorkerConfig {
    let wall = Duration::from_millis(local.evaluation_wall_ms);
    let memory_bytes = local.worker_mib << 20;
    let limits = WorkerLimits {
        machine: MachineLimits {
            component_wall: wall,
            rego_wall: wall,
            ..MachineLimits::default()
        },
        memory_bytes,
        compile_memory_bytes: memory_bytes,
        request_wall: wall,
        compile_wall: wall * 6,
        queue_wall: wall * 2,
        queue_length: workers * local.queue_per_worker,
        ..WorkerLimits::default()
    };
    WorkerConfig {
        exe: "/proc/self/exe".into(),
        arg: "worker".into(),
        workers,
        limits,
    }
}

/// The preset, and never more than a quarter of this machine's memory.
fn budget(preset: ModuleCache) -> ModuleBudget {
    let preset = match preset {
        ModuleCache::Dev => ModuleBudget::DEV,
        ModuleCache::Small => ModuleBudget::SMALL,
        ModuleCache::Large => ModuleBudget::LARGE,
    };
    ModuleBudget {
        bytes: memory().map_or(preset.bytes, |memory| preset.bytes.min(memory / 4)),
        ..preset
    }
}

/// Bytes of memory this machine has.
fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use newton_pages::testing::Operation;
    use newton_pages::{Options, PageKey, PageStore, StoreId, testing::MemoryDevice};
    use newton_state::{ChainConfig, open_database};
    use newton_types::Address;
    use zeroize::Zeroizing;

    use super::*;

    fn open(device: MemoryDevice) -> Result<Pages, String> {
        let key = PageKey::new(Zeroizing::new([7; 32]));
        let id = StoreId {
            operator: [1; 32],
            config: [2; 32],
        };
        let pages = PageStore::open(Arc::new(device), &key, id, Options::default())
            .map_err(|e| e.to_string())?;
        let config = ChainConfig {
            chain_id: 31_337,
            state_commit_registry: Address::repeat_byte(1),
            first_block: 1,
            deployment_block: 1,
            deployment_block_hash: None,
        };
        open_database(pages, 1 << 20)
            .and_then(|db| StateStore::open(Arc::new(db), config))
            .map(Pages)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn a_page_that_the_host_changed_never_becomes_a_module() {
        let (component, engine) = (B256::repeat_byte(3), B256::repeat_byte(4));
        let module: Vec<u8> = (0..300_000u32).map(|n| (n * 7) as u8).collect();
        let device = MemoryDevice::default();
        let pages = open(device.clone()).unwrap();
        device.record();
        pages.store(component, engine, &module).unwrap();
        drop(pages);
        let written: Vec<u64> = device
            .recorded()
            .into_iter()
            .filter_map(|operation| match operation {
                Operation::Write { slot, .. } => Some(slot),
                _ => None,
            })
            .collect();
        let whole = device.bytes();
        let size = newton_pages::SLOT_BYTES;
        let fresh = |bytes: Vec<u8>| open(MemoryDevice::new(bytes));
        assert_eq!(
            fresh(whole.clone()).unwrap().load(component, engine),
            Ok(Some(module.clone()))
        );
        let mut refused = 0;
        for slot in written {
            let mut bytes = whole.clone();
            bytes[slot as usize * size + 100] ^= 1;
            match fresh(bytes).and_then(|pages| pages.load(component, engine)) {
                // A superblock's second copy, or a page that this does not need.
                Ok(Some(read)) => assert_eq!(read, module),
                // The generation before.
                Ok(None) => {}
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 73, "{refused} pages hold 300,000 bytes");
    }

    #[test]
    fn modules_survive_a_reopening_and_another_engine_sees_none() {
        let device = MemoryDevice::default();
        let (component, engine) = (B256::repeat_byte(3), B256::repeat_byte(4));
        open(device.clone())
            .unwrap()
            .store(component, engine, b"code")
            .unwrap();
        let pages = open(device).unwrap();
        assert_eq!(pages.load(component, engine), Ok(Some(b"code".to_vec())));
        assert_eq!(pages.load(component, B256::ZERO), Ok(None));
    }
}
