//! Several operators' enclaves on one chain, each with its own shim, page file and keys.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{Network, Setting, bootstrap, impostor, operators, run_with};

#[test]
fn three_operators_agree_without_a_coordinator() {
    run_with(Setting::NextProcess, Network::of(3), operators::three);
}

#[test]
fn lost_bytes_old_page_files_and_late_enclaves() {
    run_with(Setting::Process, Network::of(3), operators::lost_and_late);
}

#[test]
fn an_operator_that_lies_or_is_silent_stops_nobody() {
    let network = Network {
        operators: 4,
        max_expire_after: Some(2_000),
    };
    run_with(Setting::Process, network, impostor::hostile);
}

#[test]
fn latecomers_reach_the_root_from_da_or_peers_and_past_lies() {
    run_with(Setting::Process, Network::of(4), async |world, _| {
        bootstrap::latecomers(world).await;
    });
}
