//! First evaluations.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use alloy_primitives::B256;
use anyhow::{Result, ensure};
use newton_evaluate::worker::{ModuleBudget, ModuleStore, Modules, WorkerPool};
use serde::Serialize;

use crate::{artifacts::Example, config};

/// Milliseconds of the first evaluation of the spend-limit example, medians of several.
#[derive(Debug, Serialize)]
pub struct Cold {
    /// Nothing known of it.
    pub first_ms: f64,
    /// Of that, the process that compiles.
    pub compile_ms: f64,
    /// After a restart: the compiled component comes from storage.
    pub restarted_ms: f64,
}

/// Storage in memory: what pages add is measured by their own bench.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Stored>>);

/// By component and fingerprint.
type Stored = HashMap<(B256, B256), Vec<u8>>;

// SAFETY: gives back what it took.
#[allow(unsafe_code)]
unsafe impl ModuleStore for Kept {
    fn load(&self, component: B256, fingerprint: B256) -> Result<Option<Vec<u8>>, String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(kept.get(&(component, fingerprint)).cloned())
    }

    fn store(&self, component: B256, fingerprint: B256, module: &[u8]) -> Result<(), String> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert((component, fingerprint), module.to_vec());
        Ok(())
    }
}

pub fn measure(example: &Example) -> Result<Cold> {
    let (mut first, mut compile, mut restarted) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..7 {
        let kept = Kept::default();
        let (took, compiled) = once(example, &kept)?;
        ensure!(compiled > 0.0, "nothing was compiled");
        first.push(took);
        compile.push(compiled);
        let (took, compiled) = once(example, &kept)?;
        ensure!(compiled == 0.0, "compiled again");
        restarted.push(took);
    }
    Ok(Cold {
        first_ms: median(first),
        compile_ms: median(compile),
        restarted_ms: median(restarted),
    })
}

#[allow(clippy::cast_precision_loss)]
fn once(example: &Example, kept: &Kept) -> Result<(f64, f64)> {
    let store: Box<dyn ModuleStore> = Box::new(kept.clone());
    let modules = Arc::new(Modules::new(
        config(1)?,
        1,
        ModuleBudget::default(),
        Some(store),
    )?);
    let pool = WorkerPool::sharing(config(1)?, Arc::clone(&modules))?;
    let request = example.whole();
    let started = Instant::now();
    ensure!(pool.evaluate(&request, &example.artifacts, None)?.allows());
    let took = started.elapsed().as_secs_f64() * 1_000.0;
    Ok((took, modules.stats().compile_us as f64 / 1_000.0))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
