//! The same bytes everywhere: generated policies, components and inputs, evaluated in this process and in workers, cold and warm, on one core
//! and on all, one at a time and at once, before and after a restart.
//!
//! Fuel counts as well: it decides whether a limit is exceeded. What a machine's own limits end is never signed.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/components.rs"]
mod components;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Duration,
};

use alloy_primitives::{Address, B256, U256};
use common::{Artifacts, bare};
use components::Text;
use newton_evaluate::{
    EvaluateError, EvaluateRequest, Evaluation, Evaluator, Finality, MachineLimits,
    worker::{WorkerConfig, WorkerLimits, WorkerPool, worker_main},
};
use proptest::{prelude::*, test_runner::TestRunner};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Generated cases. Workers are started anew every few of them.
const CASES: u32 = 24;
const RESTART_EVERY: u32 = 8;

type Outcome = Result<Evaluation, EvaluateError>;

const TESTS: &[(&str, fn())] = &[
    (
        "generated_cases_give_the_same_bytes_everywhere",
        generated_cases_give_the_same_bytes_everywhere,
    ),
    (
        "machine_limits_abstain_everywhere",
        machine_limits_abstain_everywhere,
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments
        .first()
        .is_some_and(|argument| argument == "worker")
    {
        worker_main();
    }
    if arguments.iter().any(|argument| argument == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in TESTS {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let ok = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        *(if ok { &mut passed } else { &mut failed }) += 1;
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n"
    );
    ExitCode::from(u8::from(failed > 0))
}

// What is generated

/// One step of a component over an integer `$n` and a float `$f`.
#[derive(Clone, Debug)]
enum Step {
    Multiply(i64),
    Turn(u8),
    Float(f64),
    NotANumber,
    FusedVectors,
    Random,
    Clock,
    Input(u8),
    Loop(u16),
    Grow(u8),
}

impl Step {
    fn text(&self) -> String {
        let set = |expression: String| format!("(local.set $n {expression})\n");
        let mix = |bits: &str| {
            format!("(local.set $n (i64.xor (i64.rotl (local.get $n) (i64.const 9)) {bits}))\n")
        };
        match self {
            Self::Multiply(by) => set(format!(
                "(i64.add (i64.mul (local.get $n) (i64.const {by})) (i64.const 1))"
            )),
            Self::Turn(by) => set(format!("(i64.rotl (local.get $n) (i64.const {by}))")),
            Self::Float(by) => format!(
                "(local.set $f (f64.div (f64.mul (local.get $f) (f64.const {by:?})) (f64.sqrt (f64.convert_i64_s (local.get $n)))))\n{}",
                mix("(i64.reinterpret_f64 (local.get $f))")
            ),
            // Which bits a machine's NaN has is left open; canonicalisation closes it.
            Self::NotANumber => mix(
                "(i64.reinterpret_f64 (f64.add (f64.div (f64.const 0) (f64.const 0)) (f64.mul (f64.const -nan:0x123) (local.get $f))))",
            ),
            // So is whether a relaxed product is rounded once or twice.
            Self::FusedVectors => mix(
                "(i64x2.extract_lane 0 (f64x2.relaxed_madd (f64x2.splat (f64.const 1.1)) (f64x2.splat (f64.convert_i64_s (local.get $n))) (f64x2.splat (f64.const 0.3))))",
            ),
            Self::Random => mix("(call $random)"),
            Self::Clock => mix("(call $clock)"),
            Self::Input(at) => format!(
                "(if (i32.gt_u (local.get $len) (i32.const {at})) (then {}))\n",
                mix(&format!(
                    "(i64.load8_u (i32.add (local.get $ptr) (i32.const {at})))"
                ))
            ),
            Self::Loop(times) => format!(
                "(local.set $at (i32.const {times})) (loop $l{times} (local.set $n (i64.add (i64.mul (local.get $n) (i64.const 6364136223846793005)) (i64.const 1))) (local.set $at (i32.sub (local.get $at) (i32.const 1))) (br_if $l{times} (i32.gt_s (local.get $at) (i32.const 0))))\n"
            ),
            Self::Grow(pages) => mix(&format!(
                "(i64.extend_i32_s (memory.grow (i32.const {pages})))"
            )),
        }
    }
}

/// How a component ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Answer,
    Refuse,
    Trap,
    TooMuchMemory,
    TooDeep,
    /// Answers half of its JSON.
    NoJson,
}

fn component(key: char, steps: &[Step], end: End) -> Vec<u8> {
    let mut body: String = steps.iter().map(Step::text).collect();
    // The digits of `$n` into the output.
    body.push_str(
        r"(local.set $at (i32.const 1045))
      (loop $again
        (local.set $digit (i32.and (i32.wrap_i64 (local.get $n)) (i32.const 15)))
        (i32.store8 (local.get $at) (i32.add (local.get $digit)
          (select (i32.const 48) (i32.const 87) (i32.lt_u (local.get $digit) (i32.const 10)))))
        (local.set $n (i64.shr_u (local.get $n) (i64.const 4)))
        (local.set $at (i32.sub (local.get $at) (i32.const 1)))
        (br_if $again (i32.ge_u (local.get $at) (i32.const 1030))))",
    );
    body.push_str(match end {
        End::Answer => "",
        End::Refuse => "(i32.store8 (i32.const 0) (i32.const 1))",
        End::Trap => "(unreachable)",
        End::TooMuchMemory => {
            "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 64)) (i32.const -1))))"
        }
        End::TooDeep => "(drop (call $recurse (i32.const 0)))",
        End::NoJson => "(i32.store (i32.const 8) (i32.const 9))",
    });
    Text {
        imports: r#"(import "wasi:random/random@0.2.3" (instance $r (export "get-random-u64" (func (result u64)))))
  (import "wasi:clocks/monotonic-clock@0.2.9" (instance $c (export "now" (func (result u64)))))"#,
        lowered: &[
            ("random", "(result i64)", "$r \"get-random-u64\""),
            ("clock", "(result i64)", "$c \"now\""),
        ],
        locals: "(local $n i64) (local $f f64) (local $at i32) (local $digit i32)",
        body: &format!("(local.set $n (i64.const 1)) (local.set $f (f64.const 1.5))\n{body}"),
        output: &format!("{{\"{key}\":\"----------------\"}}"),
    }
    .build()
}

/// What policies compute: order, digits, and floats in results are where machines could differ.
const EXPRESSIONS: &[&str] = &[
    "{x | some x in data.params.items}",
    "sort(data.params.items)",
    "{sprintf(\"%v\", [v]): k | some k, v in data.wasm}",
    "[path | walk(data.params, [path, _])]",
    "sum([x | some x in data.params.items; is_number(x)]) / 3",
    "sprintf(\"%v %d %s\", [data.params, input.value, data.wasm])",
    "object.union(data.wasm, data.params)",
    "json.marshal([data.params, data.wasm])",
    "input.value * data.params.n + time.now_ns()",
    "input.value / 7",
    "data.params.n / 3 * 1.1",
    "{input.value, data.params.n, 1.50, 1.5}",
    "base64.encode(json.marshal(data.wasm))",
    "regex.replace(sprintf(\"%v\", [data.params]), \"[0-9]\", \"#\")",
    "bits.xor(input.value, 255)",
    "concat(\",\", sort([k | some k, _ in data.wasm]))",
    "numbers.range(1, count(data.params.items))",
    "data.wasm.a",
    "[input, data.params]",
    "time.date(time.now_ns())",
    // Errors and undefined values are results as well.
    "lower(data.params.n)",
    "to_number(data.wasm.a)",
    "data.wasm.missing",
    "max(data.params.items)",
];

const ENDINGS: &[&str] = &[
    "",
    "allow := 1\nallow := 2 if input.value >= 0\n",
    "default allow := {\"none\": 1e-7}\n",
];

fn policy(chosen: &[usize], ending: usize) -> String {
    let members: Vec<String> = chosen
        .iter()
        .map(|index| format!("\t\"e{index}\": {}", EXPRESSIONS[*index]))
        .collect();
    format!(
        "package generated\n\nimport rego.v1\n\n{}\nallow := {{\n{},\n}} if input.value >= 0\n",
        ENDINGS[ending],
        members.join(",\n")
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        any::<i64>().prop_map(Step::Multiply),
        (0u8..64).prop_map(Step::Turn),
        (-1e9..1e9f64).prop_map(Step::Float),
        Just(Step::NotANumber),
        Just(Step::FusedVectors),
        Just(Step::Random),
        Just(Step::Clock),
        any::<u8>().prop_map(Step::Input),
        (1u16..2_000).prop_map(Step::Loop),
        (0u8..40).prop_map(Step::Grow),
    ];
    prop::collection::vec(step, 1..16)
}

fn ending() -> impl Strategy<Value = End> {
    prop_oneof![
        12 => Just(End::Answer),
        1 => Just(End::Refuse),
        1 => Just(End::Trap),
        1 => Just(End::TooMuchMemory),
        1 => Just(End::TooDeep),
        1 => Just(End::NoJson),
    ]
}

fn params() -> impl Strategy<Value = String> {
    let item = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<u128>().prop_map(|n| n.to_string()),
        (-1e12..1e12f64).prop_map(|n| format!("{n:?}")),
        "[a-z0-9 é😀]{0,8}".prop_map(|text| format!("\"{text}\"")),
        Just("null".to_owned()),
        Just("[true,{\"z\":1,\"a\":[]}]".to_owned()),
    ];
    (any::<u128>(), prop::collection::vec(item, 0..6))
        .prop_map(|(n, items)| format!(r#"{{"n":{n},"items":[{}]}}"#, items.join(",")))
}

/// What a request is made of.
#[derive(Clone, Debug)]
struct Case {
    expressions: Vec<usize>,
    ending: usize,
    components: Vec<(Vec<Step>, End)>,
    params: String,
    value: [u8; 32],
    from: [u8; 20],
    now: u32,
    word: String,
}

impl Case {
    fn request(&self) -> (EvaluateRequest, Artifacts) {
        let components: Vec<_> = self
            .components
            .iter()
            .zip(['a', 'b'])
            .map(|((steps, end), key)| component(key, steps, *end))
            .collect();
        let rego = policy(&self.expressions, self.ending);
        let (mut request, artifacts) = bare(&rego, "generated.allow", &components);
        request.policy.params = self.params.clone().into_bytes();
        request.intent.value = U256::from_be_bytes(self.value);
        request.intent.from = Address::from(self.from);
        request.task.reference_timestamp = u64::from(self.now);
        request.task.task_id = B256::from(self.value);
        request.wasm_args = format!(r#"{{"word":"{}"}}"#, self.word).into_bytes();
        (request, artifacts)
    }
}

fn case() -> impl Strategy<Value = Case> {
    let chosen = prop::collection::btree_set(0..EXPRESSIONS.len(), 1..5);
    let ending = prop_oneof![8 => Just(0usize), 1 => Just(1), 1 => Just(2)];
    let components = prop::collection::vec((steps(), self::ending()), 0..3);
    let rest = (
        params(),
        any::<[u8; 32]>(),
        any::<[u8; 20]>(),
        any::<u32>(),
        "[a-z]{0,40}",
    );
    (chosen, ending, components, rest).prop_map(
        |(chosen, ending, components, (params, value, from, now, word))| Case {
            expressions: chosen.into_iter().collect(),
            ending,
            components,
            params,
            value,
            from,
            now,
            word,
        },
    )
}

// Where it is evaluated

/// Limits that a machine at work with other things does not reach.
fn patient() -> WorkerLimits {
    WorkerLimits::default().slowed(12)
}

fn pool(workers: usize, limits: WorkerLimits) -> WorkerPool {
    WorkerPool::spawn(WorkerConfig {
        exe: std::env::current_exe().unwrap(),
        arg: "worker".into(),
        workers,
        limits,
    })
    .unwrap()
}

/// A pool whose workers have one core.
fn pool_on_one_core(limits: WorkerLimits) -> WorkerPool {
    let all = sched_getaffinity(None).unwrap();
    let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap();
    let mut one = CpuSet::new();
    one.set(first);
    // Children have what the thread has that starts them.
    sched_setaffinity(None, &one).unwrap();
    let pool = pool(1, limits);
    sched_setaffinity(None, &all).unwrap();
    pool
}

fn evaluator() -> Evaluator {
    Evaluator::new(patient().machine).unwrap()
}

fn agree(reference: &Outcome, others: impl IntoIterator<Item = (&'static str, Outcome)>) {
    for (place, outcome) in others {
        assert_eq!(&outcome, reference, "{place}");
    }
}

fn generated_cases_give_the_same_bytes_everywhere() {
    let mut seen = [0u32; 3];
    let warm = evaluator();
    let mut pools = None;
    let mut number = 0;
    let mut runner = TestRunner::new(ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 64,
        ..ProptestConfig::default()
    });
    let runs = std::cell::RefCell::new((&mut pools, &mut number, &mut seen));
    runner
        .run(&case(), |case| {
            let (request, artifacts) = case.request();
            let mut runs = runs.borrow_mut();
            let (pools, number, seen) = &mut *runs;
            if **number % RESTART_EVERY == 0 {
                // Dropped first: what the old ones had in memory is gone.
                **pools = None;
                **pools = Some((pool_on_one_core(patient()), pool(2, patient())));
            }
            **number += 1;
            let (one_core, all_cores) = pools.as_ref().unwrap();
            let reference = evaluator().evaluate(&request, &artifacts, None);
            let here = || warm.evaluate(&request, &artifacts, None);
            agree(&reference, [("filled", here()), ("warm", here())]);
            let worker = || one_core.evaluate(&request, &artifacts, None);
            agree(
                &reference,
                [("one core", worker()), ("one core, warm", worker())],
            );
            let at_once: Vec<Outcome> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| all_cores.evaluate(&request, &artifacts, None)))
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect()
            });
            agree(
                &reference,
                at_once.into_iter().map(|outcome| ("at once", outcome)),
            );
            seen[match &reference {
                Ok(_) => 0,
                Err(error) if error.finality() == Finality::Final => 1,
                Err(error) => {
                    assert_eq!(error.signed_result(), None);
                    assert!(
                        matches!(error, EvaluateError::StackExhausted { .. }),
                        "{error}"
                    );
                    2
                }
            }] += 1;
            Ok(())
        })
        .unwrap();
    println!(
        "{} results, {} signed errors, {} abstentions",
        seen[0], seen[1], seen[2]
    );
    assert!(seen[0] > 0, "no case had a result");
    let (one_core, all_cores) = pools.unwrap();
    assert_eq!((one_core.stats().deaths, all_cores.stats().deaths), (0, 0));
}

/// Time, memory and stack are the machine's: whoever runs out of them signs nothing, and says so with an error that is retried.
fn machine_limits_abstain_everywhere() {
    let show = "package p\nallow := data.wasm";
    let slow = "package p\nimport rego.v1\nallow := count([1 | some a in numbers.range(1, 4000); some b in numbers.range(1, 4000); some c in numbers.range(1, 4000); a + b == c])";
    let hoard = "package p\nimport rego.v1\nallow := [s | some a in numbers.range(1, 4000); some b in numbers.range(1, 4000); s := sprintf(\"%d-%d-%d\", [a, b, input.value])]";
    let impatient = |mut limits: WorkerLimits| {
        limits.machine.component_wall = Duration::from_millis(50);
        limits.machine.rego_wall = Duration::from_millis(300);
        limits
    };
    let mut tight = patient();
    tight.memory_bytes = 300 << 20;
    let cases: [(&str, &str, Vec<Vec<u8>>, WorkerLimits); 4] = [
        (
            "a component without end",
            show,
            vec![components::endless()],
            impatient(patient()),
        ),
        (
            "a component without bottom",
            show,
            vec![components::deep_recursion()],
            patient(),
        ),
        ("Rego without end", slow, Vec::new(), impatient(patient())),
        ("Rego that hoards", hoard, Vec::new(), tight),
    ];
    for (what, rego, components, limits) in cases {
        let (request, artifacts) = bare(rego, "p.allow", &components);
        for pool in [pool(1, limits), pool_on_one_core(limits)] {
            let error = pool.evaluate(&request, &artifacts, None).unwrap_err();
            assert_eq!(error.finality(), Finality::Abstain, "{what}: {error}");
            assert_eq!(error.signed_result(), None, "{what}");
            // The next request is served.
            let (request, artifacts) = bare("package p\nallow := true", "p.allow", &[]);
            assert!(
                pool.evaluate(&request, &artifacts, None).unwrap().allows(),
                "{what}"
            );
        }
    }
    // In process too, where a worker's memory limit does not exist.
    let (request, artifacts) = bare(slow, "p.allow", &[]);
    let limits = MachineLimits {
        rego_wall: Duration::from_millis(300),
        ..MachineLimits::default()
    };
    let error = Evaluator::new(limits)
        .unwrap()
        .evaluate(&request, &artifacts, None)
        .unwrap_err();
    assert_eq!(error.signed_result(), None);
}
