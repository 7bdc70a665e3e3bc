//! The runs that every test run has.

use newton_torture::plan::plan;
use newton_torture::report::torture;
use newton_torture::run::{STEPS, run};

#[test]
fn runs_end_as_they_may() {
    let report = torture(1, 500, |_| {});
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert_eq!(report.wrong_outcomes, 0);
    // That nothing went wrong must not be because nothing happened.
    assert!(report.faults.len() > 50, "{:?}", report.faults);
    assert!(report.refusals.len() > 10, "{:?}", report.refusals);
    assert!(report.commits_signed > 200, "{}", report.commits_signed);
}

#[test]
fn a_seed_is_one_run() {
    for seed in 0..4 {
        let faults = plan(seed, STEPS);
        assert_eq!(
            run(seed, STEPS, &faults),
            run(seed, STEPS, &faults),
            "seed {seed}"
        );
    }
}
