//! Compiled components: once each, within a budget, across restarts.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alloy_primitives::B256;
use newton_evaluate::{
    ArtifactRef, ArtifactSource, EvaluateError, Finality,
    worker::{ModuleBudget, ModuleStore, Modules, WorkerPool},
};

use super::{
    common::{Artifacts, bare, spend_limit},
    components, config, limits,
};

pub const TESTS: &[(&str, fn())] = &[
    (
        "sixty_four_first_evaluations_compile_once",
        sixty_four_first_evaluations_compile_once,
    ),
    (
        "warm_evaluations_read_nothing",
        warm_evaluations_read_nothing,
    ),
    ("modules_are_evicted_by_bytes", modules_are_evicted_by_bytes),
    ("modules_are_evicted_by_count", modules_are_evicted_by_count),
    ("modules_survive_a_restart", modules_survive_a_restart),
    (
        "unfit_storage_means_compiling_again",
        unfit_storage_means_compiling_again,
    ),
    (
        "a_component_that_does_not_compile_rests",
        a_component_that_does_not_compile_rests,
    ),
    (
        "a_compilation_does_not_hold_a_worker",
        a_compilation_does_not_hold_a_worker,
    ),
    ("a_full_queue_refuses_at_once", a_full_queue_refuses_at_once),
];

fn modules(budget: ModuleBudget, store: Option<Box<dyn ModuleStore>>) -> Arc<Modules> {
    Arc::new(Modules::new(config(1, limits()), 1, budget, store).unwrap())
}

/// Counts what is asked of it.
struct Counting<'a>(&'a Artifacts, AtomicU64);

impl ArtifactSource for Counting<'_> {
    fn artifact(&self, artifact: &ArtifactRef) -> Option<Arc<[u8]>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.artifact(artifact)
    }
}

fn sixty_four_first_evaluations_compile_once() {
    let modules = modules(ModuleBudget::DEV, None);
    let pool = WorkerPool::sharing(config(2, limits()), Arc::clone(&modules)).unwrap();
    let (request, artifacts) = spend_limit();
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..64)
            .map(|_| scope.spawn(|| pool.evaluate(&request, &artifacts, None)))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let first = all[0].clone().unwrap();
    assert!(first.allows());
    assert!(all.iter().all(|one| one.as_ref() == Ok(&first)));
    let stats = modules.stats();
    assert_eq!((stats.compiled, stats.misses, stats.failed), (1, 1, 0));
    // Each of the two workers took the module once.
    assert!(pool.stats().modules_sent <= 2, "{:?}", pool.stats());
}

fn warm_evaluations_read_nothing() {
    let pool = WorkerPool::spawn(config(1, limits())).unwrap();
    let (request, artifacts) = spend_limit();
    let source = Counting(&artifacts, AtomicU64::new(0));
    pool.evaluate(&request, &source, None).unwrap();
    let (asked, before) = (source.1.load(Ordering::Relaxed), pool.stats());
    assert!(asked >= 4, "{asked}");
    for _ in 0..10 {
        pool.evaluate(&request, &source, None).unwrap();
    }
    let after = pool.stats();
    assert_eq!(source.1.load(Ordering::Relaxed), asked);
    assert_eq!(
        (after.artifacts_sent, after.modules_sent, after.requests),
        (
            before.artifacts_sent,
            before.modules_sent,
            before.requests + 10
        )
    );
}

/// Three small components of about one size, and the size of the first one compiled.
fn three() -> (Artifacts, Vec<B256>, u64) {
    let many: Vec<Vec<u8>> = (0..3)
        .map(|n| components::constant(&format!("{{\"n\":{n}}}")))
        .collect();
    let (request, artifacts) = bare("package show\nwasm := data.wasm", "show.wasm", &many);
    let hashes: Vec<B256> = request.data.iter().map(|data| data.wasm).collect();
    let all = modules(ModuleBudget::DEV, None);
    let size = all.fetch(hashes[0], &artifacts).unwrap().len() as u64;
    assert_eq!((all.stats().bytes, all.stats().entries), (size, 1));
    (artifacts, hashes, size)
}

fn modules_are_evicted_by_bytes() {
    let (artifacts, hashes, size) = three();
    // Room for two.
    let budget = ModuleBudget {
        count: 100,
        bytes: size * 5 / 2,
    };
    let modules = modules(budget, None);
    let fetch = |n: usize| modules.fetch(hashes[n], &artifacts).unwrap();
    fetch(0);
    fetch(1);
    fetch(0);
    fetch(2);
    let stats = modules.stats();
    assert_eq!((stats.entries, stats.evicted_size, stats.hits), (2, 1, 1));
    assert!(stats.bytes <= budget.bytes);
    // The one that was not used went.
    fetch(0);
    assert_eq!((modules.stats().hits, modules.stats().compiled), (2, 3));
    fetch(1);
    assert_eq!(modules.stats().compiled, 4);
}

fn modules_are_evicted_by_count() {
    let (artifacts, hashes, _) = three();
    let budget = ModuleBudget {
        count: 1,
        ..ModuleBudget::DEV
    };
    let modules = modules(budget, None);
    for hash in &hashes {
        modules.fetch(*hash, &artifacts).unwrap();
    }
    let stats = modules.stats();
    assert_eq!((stats.entries, stats.evicted_count), (1, 2));
}

/// Storage that outlives a [`Modules`].
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Stored>>);

/// By component and fingerprint.
type Stored = HashMap<(B256, B256), Vec<u8>>;

// SAFETY: gives back what it took.
#[allow(unsafe_code)]
unsafe impl ModuleStore for Kept {
    fn load(&self, component: B256, fingerprint: B256) -> Result<Option<Vec<u8>>, String> {
        Ok(self
            .0
            .lock()
            .unwrap()
            .get(&(component, fingerprint))
            .cloned())
    }

    fn store(&self, component: B256, fingerprint: B256, module: &[u8]) -> Result<(), String> {
        let mut kept = self.0.lock().unwrap();
        kept.insert((component, fingerprint), module.to_vec());
        Ok(())
    }
}

fn modules_survive_a_restart() {
    let kept = Kept::default();
    let (request, artifacts) = spend_limit();
    let run = || {
        let modules = modules(ModuleBudget::DEV, Some(Box::new(kept.clone())));
        let pool = WorkerPool::sharing(config(1, limits()), Arc::clone(&modules)).unwrap();
        let evaluation = pool.evaluate(&request, &artifacts, None).unwrap();
        (evaluation, modules.stats())
    };
    let (before, first) = run();
    let (after, second) = run();
    assert_eq!(before, after);
    assert_eq!((first.compiled, first.loaded), (1, 0));
    assert_eq!((second.compiled, second.loaded), (0, 1));
}

/// Storage whose authentication fails.
struct Unfit;

// SAFETY: gives nothing.
#[allow(unsafe_code)]
unsafe impl ModuleStore for Unfit {
    fn load(&self, _: B256, _: B256) -> Result<Option<Vec<u8>>, String> {
        Err("page 7 is altered".to_owned())
    }

    fn store(&self, _: B256, _: B256, _: &[u8]) -> Result<(), String> {
        Err("full".to_owned())
    }
}

fn unfit_storage_means_compiling_again() {
    let (request, artifacts) = spend_limit();
    let modules = modules(ModuleBudget::DEV, Some(Box::new(Unfit)));
    modules.fetch(request.data[0].wasm, &artifacts).unwrap();
    let stats = modules.stats();
    assert_eq!(
        (stats.compiled, stats.loaded, stats.store_faults),
        (1, 0, 2)
    );
}

fn a_component_that_does_not_compile_rests() {
    let (request, artifacts) = spend_limit();
    let mut limits = limits();
    limits.compile_wall = Duration::from_nanos(1);
    let modules = Modules::new(config(1, limits), 1, ModuleBudget::DEV, None).unwrap();
    for _ in 0..5 {
        let error = modules.fetch(request.data[0].wasm, &artifacts).unwrap_err();
        assert_eq!(error.name(), "WallClockExceeded");
        assert_eq!(error.finality(), Finality::Abstain);
    }
    assert_eq!(modules.stats().failed, 3);

    // What breaks a rule is final, and found again in the order of the evaluation: the params come first.
    let (mut request, mut artifacts) = spend_limit();
    request.data[0].wasm = super::common::add(&mut artifacts, &b"\0asm\x01\0\0\0"[..]);
    let pool = WorkerPool::spawn(config(1, super::limits())).unwrap();
    let error = pool.evaluate(&request, &artifacts, None).unwrap_err();
    assert_eq!(error.name(), "InvalidArtifact");
    request.policy.params = b"{}".to_vec();
    let error = pool.evaluate(&request, &artifacts, None).unwrap_err();
    assert_eq!(error.name(), "ParamsSchemaViolation");
    assert_eq!(pool.stats().deaths, 0);
}

fn a_compilation_does_not_hold_a_worker() {
    /// Takes its time until it is told.
    struct Slow<'a>(&'a Artifacts, std::sync::mpsc::Receiver<()>);
    // The receiver is used by one thread at a time: there is one compilation.
    struct Guarded<'a>(Mutex<Slow<'a>>);
    impl ArtifactSource for Guarded<'_> {
        fn artifact(&self, artifact: &ArtifactRef) -> Option<Arc<[u8]>> {
            let slow = self.0.lock().unwrap();
            let _ = slow.1.recv();
            slow.0.artifact(artifact)
        }
    }
    let pool = WorkerPool::spawn(config(1, limits())).unwrap();
    let (request, artifacts) = spend_limit();
    let (go, wait) = std::sync::mpsc::channel();
    let slow = Guarded(Mutex::new(Slow(&artifacts, wait)));
    let (other, others) = bare("package ok\nx := true", "ok.x", &[]);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| pool.evaluate(&request, &slow, None));
        while pool.modules().stats().misses == 0 {
            std::thread::yield_now();
        }
        assert!(pool.evaluate(&other, &others, None).unwrap().allows());
        drop(go);
        assert!(first.join().unwrap().unwrap().allows());
    });
}

fn a_full_queue_refuses_at_once() {
    let mut limits = limits();
    limits.queue_length = 0;
    let pool = WorkerPool::spawn(config(1, limits)).unwrap();
    let (request, artifacts) = bare(
        "package show\nwasm := data.wasm",
        "show.wasm",
        &[components::endless()],
    );
    std::thread::scope(|scope| {
        let first = scope.spawn(|| pool.evaluate(&request, &artifacts, None));
        while !pool.idle_process_ids().is_empty() {
            std::thread::yield_now();
        }
        let refused = pool.evaluate(&request, &artifacts, None).unwrap_err();
        assert_eq!(refused, EvaluateError::WorkersBusy { waited_ms: 0 });
        assert_eq!(pool.stats().refused, 1);
        let first = first.join().unwrap().unwrap_err();
        assert_eq!(first.name(), "ComponentLimitExceeded");
    });
}
