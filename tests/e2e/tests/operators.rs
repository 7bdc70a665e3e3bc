//! Several operators' enclaves on one chain, each with its own shim, page file and keys.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{bootstrap, operators, run_with};

#[test]
fn three_operators_agree_without_a_coordinator() {
    run_with(3, operators::three);
}

#[test]
fn lost_bytes_old_page_files_and_late_enclaves() {
    run_with(3, operators::lost_and_late);
}

#[test]
fn latecomers_reach_the_root_from_da_or_peers_and_past_lies() {
    run_with(4, async |world, _| bootstrap::latecomers(world).await);
}
