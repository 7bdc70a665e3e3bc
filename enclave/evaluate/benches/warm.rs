//! Warm evaluations of the spend-limit example: Rego alone against the engine called directly, with its component in process, and
//! through a worker process.
//!
//! `cargo bench -p newton-evaluate --bench warm`

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;

use criterion::Criterion;
use newton_evaluate::{
    Evaluator, MachineLimits,
    worker::{WorkerConfig, WorkerLimits, WorkerPool, worker_main},
};

fn main() {
    if std::env::args()
        .nth(1)
        .is_some_and(|argument| argument == "worker")
    {
        worker_main();
    }
    let mut criterion = Criterion::default().configure_from_args();
    rego(&mut criterion);
    evaluation(&mut criterion);
    criterion.final_summary();
}

fn rego(criterion: &mut Criterion) {
    let source = std::str::from_utf8(include_bytes!(
        "../../../tests/examples/spend-limit/policy.rego"
    ))
    .unwrap();
    let mut group = criterion.benchmark_group("rego_only");
    let (mut request, artifacts) = common::bare(source, common::ENTRYPOINT, &[]);
    request.policy.params = common::example("params.json");
    let evaluator = Evaluator::new(MachineLimits::default()).unwrap();
    assert!(
        evaluator
            .evaluate(&request, &artifacts, None)
            .unwrap()
            .allows()
    );
    group.bench_function("newton", |bench| {
        bench.iter(|| {
            evaluator
                .evaluate(black_box(&request), &artifacts, None)
                .unwrap()
        });
    });

    let mut engine = regorus::Engine::new();
    engine
        .add_policy("policy.rego".to_owned(), source.to_owned())
        .unwrap();
    let input = String::from_utf8(request.intent.rego_input(None).unwrap().canonical()).unwrap();
    let data = format!(
        r#"{{"params":{},"wasm":{{}}}}"#,
        String::from_utf8(request.policy.params).unwrap()
    );
    group.bench_function("regorus", |bench| {
        bench.iter(|| {
            let mut engine = engine.clone();
            engine.add_data_json(black_box(&data)).unwrap();
            engine.set_input_json(black_box(&input)).unwrap();
            engine
                .eval_rule(format!("data.{}", common::ENTRYPOINT))
                .unwrap()
        });
    });
    group.finish();
}

fn evaluation(criterion: &mut Criterion) {
    let (request, artifacts) = common::spend_limit();
    let mut group = criterion.benchmark_group("one_component");
    let evaluator = Evaluator::new(MachineLimits::default()).unwrap();
    group.bench_function("in_process", |bench| {
        bench.iter(|| {
            evaluator
                .evaluate(black_box(&request), &artifacts, None)
                .unwrap()
        });
    });
    let exe = std::env::current_exe().unwrap();
    let limits = WorkerLimits::default();
    let pool = WorkerPool::spawn(WorkerConfig {
        exe,
        arg: "worker".into(),
        workers: 1,
        limits,
    })
    .unwrap();
    group.bench_function("worker", |bench| {
        bench.iter(|| {
            pool.evaluate(black_box(&request), &artifacts, None)
                .unwrap()
        });
    });
    group.finish();
}
