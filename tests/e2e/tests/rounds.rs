//! Prepare and commit by several enclaves, and challenges with their certificates.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{Network, Setting, rounds, run_with};

#[test]
fn three_enclaves_answer_together_and_a_dishonest_operator_pays() {
    run_with(
        Setting::Process,
        Network::of(3),
        rounds::rounds_and_challenges,
    );
}
