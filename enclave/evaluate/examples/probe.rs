//! probe
fn main() {
    use newton_evaluate::worker::*;
    let exe = std::env::args().nth(1).unwrap();
    let pool = WorkerPool::spawn(WorkerConfig {
        exe: exe.into(),
        arg: "worker".into(),
        workers: 1,
        limits: WorkerLimits {
            memory_bytes: std::env::args().nth(2).unwrap().parse::<u64>().unwrap() << 20,
            ..WorkerLimits::default()
        },
    })
    .unwrap();
    let b = std::fs::read("tests/examples/spend-limit/params.schema.json").unwrap();
    println!(
        "{:?}",
        pool.check_artifact(newton_evaluate::ArtifactKind::PolicyParamsSchema, &b, None)
    );
    println!(
        "{:?}",
        pool.check_artifact(
            newton_evaluate::ArtifactKind::PolicyParamsSchema,
            b"{}",
            None
        )
    );
}
