//! Warm evaluations through worker processes.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use newton_evaluate::{Evaluator, MachineLimits, worker::WorkerPool};
use serde::Serialize;

use crate::{
    artifacts::Example,
    config, cores,
    sample::{Ratio, percentile, timed},
};

/// How long each throughput is measured.
const SPAN: Duration = Duration::from_secs(3);

/// Of single evaluations, one after another.
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
}

/// Evaluations a second.
#[derive(Debug, Serialize)]
pub struct Throughput {
    /// By number of workers, as many callers.
    pub by_workers: Vec<Rate>,
    /// Rate with a worker for each core over rate with one.
    pub speed_up: f64,
    /// What `speed_up` would be if every core did as much as the first.
    pub goal: f64,
}

#[derive(Debug, Serialize)]
pub struct Rate {
    pub workers: usize,
    pub per_second: f64,
}

impl Throughput {
    /// The rate with a worker for each core.
    pub fn all_cores(&self) -> f64 {
        self.by_workers.last().map_or(0.0, |rate| rate.per_second)
    }
}

/// Where the time of a warm evaluation goes.
#[derive(Debug, Serialize)]
pub struct Overhead {
    /// Through a worker, against the same evaluation in this process.
    pub worker: Ratio,
}

pub fn overhead(example: &Example, samples: usize) -> Result<Overhead> {
    let pool = WorkerPool::spawn(config(1)?)?;
    let here = Evaluator::new(MachineLimits::default())?;
    let request = example.whole();
    pool.evaluate(&request, &example.artifacts, None)?;
    here.evaluate(&request, &example.artifacts, None)?;
    let worker = Ratio::measure(
        samples,
        None,
        || -> Result<()> {
            pool.evaluate(&request, &example.artifacts, None)?;
            Ok(())
        },
        || -> Result<()> {
            here.evaluate(&request, &example.artifacts, None)?;
            Ok(())
        },
    )?;
    Ok(Overhead { worker })
}

pub fn latency(example: &Example, samples: usize) -> Result<Latency> {
    let pool = WorkerPool::spawn(config(1)?)?;
    let request = example.whole();
    let mut once = || -> Result<()> {
        let evaluation = pool.evaluate(&request, &example.artifacts, None)?;
        ensure!(evaluation.allows(), "the example does not allow");
        Ok(())
    };
    for _ in 0..100 {
        once()?;
    }
    let mut taken = (0..samples)
        .map(|_| timed(&mut once))
        .collect::<Result<Vec<_>>>()?;
    Ok(Latency {
        p50: percentile(&mut taken, 50),
        p99: percentile(&mut taken, 99),
    })
}

#[allow(clippy::cast_precision_loss)]
pub fn throughput(example: &Example) -> Result<Throughput> {
    let mut by_workers = Vec::new();
    let mut workers = 1;
    while workers <= cores() {
        by_workers.push(Rate {
            workers,
            per_second: rate(example, workers)?,
        });
        workers *= 2;
    }
    let (first, last) = (&by_workers[0], &by_workers[by_workers.len() - 1]);
    Ok(Throughput {
        speed_up: last.per_second / first.per_second,
        goal: last.workers as f64,
        by_workers,
    })
}

#[allow(clippy::cast_precision_loss)]
fn rate(example: &Example, workers: usize) -> Result<f64> {
    let pool = WorkerPool::spawn(config(workers)?)?;
    let request = example.whole();
    // Every worker takes its artifacts before the clock starts.
    std::thread::scope(|scope| {
        for _ in 0..workers * 8 {
            scope.spawn(|| pool.evaluate(&request, &example.artifacts, None));
        }
    });
    let done = AtomicU64::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let callers: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while started.elapsed() < SPAN {
                        pool.evaluate(&request, &example.artifacts, None)?;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        for caller in callers {
            caller
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("a caller panicked")))?;
        }
        Ok(())
    })?;
    Ok(done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64())
}
