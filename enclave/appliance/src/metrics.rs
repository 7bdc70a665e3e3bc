//! Figures for operators (design 2.8): Prometheus text over the control channel. Names and numbers only: no hash of content, no
//! parameter, nothing of a caller.

use std::{
    fmt::Write,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use newton_api::Server;
use newton_evaluate::worker::{ModuleStats, WorkerPool};
use newton_pages::PageStore;

use crate::{appliance::Appliance, engine::Engine, gather::VoteCounts, running::Running};

/// How often the text goes out.
const EVERY: Duration = Duration::from_secs(5);

/// What is counted where it happens. Everything else is asked of its owner when the text is made.
#[derive(Default)]
pub struct Metrics {
    /// Evaluations, whatever came of them.
    pub evaluations: Histogram,
    /// Preparing a commit: the tree's new version.
    pub commits: Histogram,
    /// Verdicts that rejected an entry.
    pub rejected_invalid: AtomicU64,
    /// Rounds in which an entry's bytes could not be had.
    pub unavailable: AtomicU64,
    /// Entries that are left alone because workers keep dying of them.
    pub quarantined: AtomicU64,
    /// Components compiled ahead.
    pub prewarmed: AtomicU64,
    /// Components that could not be.
    pub prewarm_failed: AtomicU64,
    /// What peers' votes were worth.
    pub votes: VoteCounts,
    /// The API, once it listens.
    pub server: OnceLock<Server>,
    /// The page store, once it is open.
    pub pages: OnceLock<PageStore>,
}

/// Adds one.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Upper ends of the buckets, microseconds.
const BUCKETS: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 2_500_000,
    10_000_000, 60_000_000,
];

/// How long something took.
#[derive(Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
}

impl Histogram {
    /// One more.
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        for (bucket, end) in self.buckets.iter().zip(BUCKETS) {
            if us <= end {
                count(bucket);
            }
        }
        count(&self.count);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

/// Sends the text until the appliance ends.
pub async fn export(app: Arc<Appliance>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let appliance = app.clone();
        // Asking the state blocks.
        if let Ok(text) = tokio::task::spawn_blocking(move || render(&appliance)).await {
            app.control.metrics(text);
        }
    }
}

/// The whole text.
pub fn render(app: &Appliance) -> String {
    let metrics = &app.metrics;
    let mut text = Text::default();
    if let Ok(running) = app.running() {
        for engine in running.chains.values() {
            chain(&mut text, engine);
        }
        modules(&mut text, &running.pools.modules.stats());
        workers(&mut text, &running);
    }
    text.counter(
        "policy_commit_deferrals_total",
        "Entries not taken, by reason.",
        &[
            (
                "reason=\"rejected_invalid\"",
                load(&metrics.rejected_invalid),
            ),
            ("reason=\"unavailable\"", load(&metrics.unavailable)),
            ("reason=\"quarantined\"", load(&metrics.quarantined)),
        ],
    );
    text.counter(
        "wasm_module_prewarm_attempts_total",
        "Components compiled ahead of their first task.",
        &[
            ("result=\"ok\"", load(&metrics.prewarmed)),
            ("result=\"failed\"", load(&metrics.prewarm_failed)),
        ],
    );
    let votes = &metrics.votes;
    text.counter(
        "peer_votes_total",
        "Answers of peers that were asked for a vote, by what they were worth.",
        &[
            ("result=\"counted\"", load(&votes.counted)),
            ("result=\"other_commit\"", load(&votes.other)),
            ("result=\"invalid\"", load(&votes.invalid)),
            ("result=\"silent\"", load(&votes.silent)),
        ],
    );
    text.histogram(
        "evaluation_duration_seconds",
        "Evaluations, worker included.",
        &metrics.evaluations,
    );
    text.histogram(
        "state_commit_duration_seconds",
        "Preparing a commit.",
        &metrics.commits,
    );
    if let Some(server) = metrics.server.get() {
        let stats = server.stats();
        let counters = [
            ("calls", stats.calls),
            ("rate_limited", stats.rate_limited),
            ("overloaded", stats.overloaded),
            ("connections_refused", stats.connections_refused),
        ];
        for (name, value) in counters {
            text.counter(&format!("rpc_{name}_total"), "JSON-RPC.", &[("", value)]);
        }
        text.gauge(
            "rpc_connections",
            "Open connections.",
            &[("", stats.connections)],
        );
    }
    // A store that has failed has no figures, and the appliance has halted.
    if let Some(stats) = metrics.pages.get().and_then(|pages| pages.stats().ok()) {
        text.counter(
            "page_store_reads_total",
            "Slots read.",
            &[("", stats.slots_read)],
        );
        text.counter(
            "page_store_writes_total",
            "Slots written.",
            &[("", stats.slots_written)],
        );
        text.gauge(
            "page_store_generation",
            "Published generation.",
            &[("", stats.generation)],
        );
        text.gauge(
            "page_store_used_slots",
            "Slots in use.",
            &[("", stats.used_slots)],
        );
    }
    let (phase, _) = app.phase();
    text.gauge(
        "enclave_ready",
        "Whether it serves everything.",
        &[("", u64::from(phase == "ready"))],
    );
    text.0
}

fn chain(text: &mut Text, engine: &Engine) {
    let Ok(snapshot) = engine.snapshot() else {
        return;
    };
    let label = format!("chain_id=\"{}\"", engine.chain.chain_id);
    let totals = snapshot.queue_totals();
    let mut gauge = |name: &str, help: &str, value: u64| {
        text.gauge(name, help, &[(&label, value)]);
    };
    gauge(
        "policy_commit_defer_queue_depth",
        "Entries that wait for a commit.",
        totals.entries,
    );
    gauge(
        "policy_commit_defer_queue_bytes",
        "Their declared bytes.",
        totals.bytes,
    );
    gauge(
        "state_commit_sequence",
        "The newest commit.",
        snapshot.tip().sequence,
    );
    if let Some(head) = snapshot.finalized() {
        gauge(
            "chain_finalized_block",
            "Height of the finalized head.",
            head.number,
        );
        gauge(
            "chain_finalized_timestamp_seconds",
            "Its time.",
            head.timestamp,
        );
    }
    gauge(
        "enclave_signing",
        "Whether this boot may sign.",
        u64::from(engine.standing(&snapshot).is_ok()),
    );
}

fn modules(text: &mut Text, stats: &ModuleStats) {
    let mut counter = |name: &str, help: &str, values: &[(&str, u64)]| {
        text.counter(&format!("wasm_module_{name}"), help, values);
    };
    counter("cache_hits_total", "Found in memory.", &[("", stats.hits)]);
    counter(
        "cache_misses_total",
        "Not found in memory.",
        &[("", stats.misses)],
    );
    counter(
        "cache_evictions_total",
        "Dropped from memory.",
        &[
            ("reason=\"size\"", stats.evicted_size),
            ("reason=\"count\"", stats.evicted_count),
        ],
    );
    counter("compilations_total", "Compiled.", &[("", stats.compiled)]);
    counter(
        "compilation_failures_total",
        "Not compiled.",
        &[("", stats.failed)],
    );
    counter(
        "store_faults_total",
        "Storage that failed.",
        &[("", stats.store_faults)],
    );
    text.gauge(
        "wasm_module_cache_entries",
        "In memory.",
        &[("", stats.entries)],
    );
    text.gauge(
        "wasm_module_cache_ram_bytes",
        "Their bytes.",
        &[("", stats.bytes)],
    );
    text.counter(
        "artifact_cache_hits_total",
        "Compiled components, by where they were found.",
        &[
            ("tier=\"ram\"", stats.hits),
            ("tier=\"pages\"", stats.loaded),
        ],
    );
    let name = "wasm_module_compile_duration_seconds";
    text.head(name, "Compilations.", "summary");
    text.line(&format!("{name}_sum"), "", &seconds(stats.compile_us));
    text.line(
        &format!("{name}_count"),
        "",
        &(stats.compiled + stats.failed).to_string(),
    );
}

fn workers(text: &mut Text, running: &Running) {
    let pools: [(&str, &WorkerPool); 3] = [
        ("tasks", &running.pools.tasks),
        ("simulations", &running.pools.simulations),
        ("checks", &running.pools.checks),
    ];
    let stats = pools.map(|(name, pool)| (format!("pool=\"{name}\""), pool.stats()));
    let mut each = |name: &str,
                    help: &str,
                    counts: bool,
                    value: fn(&newton_evaluate::worker::PoolStats) -> u64| {
        let values: Vec<(&str, u64)> = stats
            .iter()
            .map(|(label, stats)| (label.as_str(), value(stats)))
            .collect();
        if counts {
            text.counter(name, help, &values);
        } else {
            text.gauge(name, help, &values);
        }
    };
    each("worker_requests_total", "Requests.", true, |s| s.requests);
    each(
        "worker_deaths_total",
        "Workers lost; each is an alarm.",
        true,
        |s| s.deaths,
    );
    each(
        "worker_retired_total",
        "Workers replaced in order.",
        true,
        |s| s.retired,
    );
    each(
        "worker_refusals_total",
        "Requests refused while busy.",
        true,
        |s| s.refused,
    );
    each("worker_queue_depth", "Requests that wait.", false, |s| {
        s.waiting
    });
    each("workers_idle", "Workers without a request.", false, |s| {
        s.idle
    });
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Microseconds as decimal seconds, exactly.
fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

/// The exposition format. Each family once, in one piece.
#[derive(Default)]
struct Text(String);

impl Text {
    fn counter(&mut self, name: &str, help: &str, values: &[(&str, u64)]) {
        self.family(name, help, "counter", values);
    }

    fn gauge(&mut self, name: &str, help: &str, values: &[(&str, u64)]) {
        self.family(name, help, "gauge", values);
    }

    fn family(&mut self, name: &str, help: &str, kind: &str, values: &[(&str, u64)]) {
        self.head(name, help, kind);
        for (labels, value) in values {
            self.line(name, labels, &value.to_string());
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        // The count first: what is observed meanwhile may make a bucket larger than it, never the other way round.
        let count = load(&histogram.count);
        for (bucket, end) in histogram.buckets.iter().zip(BUCKETS) {
            let labels = format!("le=\"{}\"", seconds(end));
            let value = load(bucket).min(count);
            self.line(&format!("{name}_bucket"), &labels, &value.to_string());
        }
        self.line(&format!("{name}_bucket"), "le=\"+Inf\"", &count.to_string());
        self.line(
            &format!("{name}_sum"),
            "",
            &seconds(load(&histogram.sum_us)),
        );
        self.line(&format!("{name}_count"), "", &count.to_string());
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: &str) {
        let _ = if labels.is_empty() {
            writeln!(self.0, "{name} {value}")
        } else {
            writeln!(self.0, "{name}{{{labels}}} {value}")
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_cumulative() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(300));
        histogram.observe(Duration::from_millis(3));
        histogram.observe(Duration::from_secs(120));
        let mut text = Text::default();
        text.histogram("x_seconds", "X.", &histogram);
        for line in [
            "# TYPE x_seconds histogram",
            "x_seconds_bucket{le=\"0.000250\"} 0",
            "x_seconds_bucket{le=\"0.000500\"} 1",
            "x_seconds_bucket{le=\"0.005000\"} 2",
            "x_seconds_bucket{le=\"60.000000\"} 2",
            "x_seconds_bucket{le=\"+Inf\"} 3",
            "x_seconds_sum 120.003300",
            "x_seconds_count 3",
        ] {
            assert!(text.0.lines().any(|l| l == line), "{line}: {}", text.0);
        }
    }

    #[test]
    fn names_of_the_design_are_there() {
        let mut text = Text::default();
        modules(&mut text, &ModuleStats::default());
        for name in [
            "wasm_module_cache_hits_total 0",
            "wasm_module_cache_misses_total 0",
            "wasm_module_cache_entries 0",
            "wasm_module_cache_ram_bytes 0",
            "wasm_module_cache_evictions_total{reason=\"size\"} 0",
            "wasm_module_compile_duration_seconds_count 0",
            "artifact_cache_hits_total{tier=\"pages\"} 0",
        ] {
            assert!(text.0.lines().any(|l| l == name), "{name}");
        }
    }
}
