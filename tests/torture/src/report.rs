//! Many runs, and the shortest list of faults that still fails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use serde::Serialize;

use crate::plan::{Fault, plan};
use crate::run::{Outcome, STEPS, run};

/// What many runs were.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Runs played.
    pub runs: u64,
    /// First seed.
    pub seed: u64,
    /// Faults that took place.
    pub faults_injected: u64,
    /// The same by kind.
    pub faults: BTreeMap<String, u64>,
    /// Times that the enclave refused.
    pub refusals_total: u64,
    /// The same by name.
    pub refusals: BTreeMap<String, u64>,
    /// Boots that reached a state.
    pub boots: u64,
    /// Commits that would have been signed.
    pub commits_signed: u64,
    /// Runs that ended as none may.
    pub wrong_outcomes: u64,
    /// One for each, shortened.
    pub failures: Vec<Failure>,
    /// Time it took.
    pub seconds: f64,
}

/// A run that ended as none may.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// Faults that it takes, by their position in the seed's plan.
    pub only: Vec<usize>,
    /// The same by name.
    pub faults: Vec<String>,
    /// Steps that it takes.
    pub steps: u64,
    /// What happened.
    pub wrong: Vec<String>,
    /// Repeats it.
    pub command: String,
}

/// Failures that are shortened and shown; the rest is counted.
const SHOWN: usize = 5;

/// Plays `runs` seeds from `seed` on.
#[must_use]
pub fn torture(seed: u64, runs: u64, progress: impl Fn(u64) + Sync) -> Report {
    let begun = Instant::now();
    let mut report = Report {
        seed,
        ..Report::default()
    };
    let next = AtomicU64::new(seed);
    let shared = Mutex::new((&mut report, Vec::new()));
    // A run is one thread's; which thread has which seed changes nothing.
    let worker = || {
        loop {
            let mine = next.fetch_add(1, Ordering::Relaxed);
            if mine >= seed + runs {
                return;
            }
            let outcome = run(mine, STEPS, &plan(mine, STEPS));
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.0.add(&outcome);
            if !outcome.wrong.is_empty() {
                shared.1.push(mine);
            }
            progress(shared.0.runs);
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| drop(scope.spawn(worker)));
    });
    let mut failed = shared
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .1;
    failed.sort_unstable();
    report.failures = failed
        .into_iter()
        .take(SHOWN)
        .map(|seed| shrink(seed, &plan(seed, STEPS)))
        .collect();
    report.seconds = begun.elapsed().as_secs_f64();
    report
}

/// Plays one seed with some faults of its plan.
#[must_use]
pub fn repeat(seed: u64, steps: u64, only: &[usize]) -> Outcome {
    let faults = plan(seed, STEPS);
    let some: Vec<Fault> = only
        .iter()
        .filter_map(|i| faults.get(*i))
        .copied()
        .collect();
    run(seed, steps, &some)
}

impl Report {
    fn add(&mut self, outcome: &Outcome) {
        self.runs += 1;
        self.boots += outcome.boots;
        self.commits_signed += outcome.signed;
        self.faults_injected += outcome.injected.len() as u64;
        for kind in &outcome.injected {
            *self.faults.entry(kind.clone()).or_default() += 1;
        }
        for (name, count) in &outcome.refusals {
            self.refusals_total += count;
            *self.refusals.entry(name.clone()).or_default() += count;
        }
        self.wrong_outcomes += u64::from(!outcome.wrong.is_empty());
    }
}

/// Leaves out every fault without which the run still fails, then steps.
fn shrink(seed: u64, faults: &[Fault]) -> Failure {
    let mut only: Vec<usize> = (0..faults.len()).collect();
    let mut at = 0;
    while at < only.len() {
        let mut fewer = only.clone();
        fewer.remove(at);
        if repeat(seed, STEPS, &fewer).wrong.is_empty() {
            at += 1;
        } else {
            only = fewer;
        }
    }
    let (mut good, mut steps) = (0, STEPS);
    while steps - good > 1 {
        let middle = good + (steps - good) / 2;
        if repeat(seed, middle, &only).wrong.is_empty() {
            good = middle;
        } else {
            steps = middle;
        }
    }
    let list: Vec<String> = only.iter().map(ToString::to_string).collect();
    // An empty list is one too: `--only ""`.
    let command = format!(
        "cargo xtask torture --seed {seed} --runs 1 --steps {steps} --only '{}'",
        list.join(",")
    );
    Failure {
        seed,
        faults: only
            .iter()
            .map(|i| format!("{}@{}", faults[*i].kind.name(), faults[*i].at))
            .collect(),
        wrong: repeat(seed, steps, &only).wrong,
        only,
        steps,
        command,
    }
}
