//! The appliance as a process: what takes many boots, and what callers may get wrong.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{Setting, components, run};

#[test]
fn the_process_backend_does_the_main_job_and_survives_a_power_cut() {
    run(Setting::Process, common::main_job_and_power_cut);
}

#[test]
fn callers_mistakes_get_their_own_errors() {
    run(Setting::Process, common::mistakes);
}

#[test]
fn simulations_answer_authors_and_owners() {
    run(Setting::Process, common::simulations::simulations);
}

#[test]
fn overload_is_answered_with_typed_refusals() {
    run(Setting::Process, common::load::overload);
}

#[test]
fn warm_evaluations_ask_neither_chain_nor_da() {
    run(Setting::Process, common::load::warm_evaluations_ask_nobody);
}

#[test]
fn javascript_components_reach_servers_and_the_host_sees_ciphertext() {
    ask(&components::PRICE_FEED);
}

#[test]
fn python_components_reach_servers_and_the_host_sees_ciphertext() {
    ask(&components::SANCTIONS_LIST);
}

fn ask(example: &components::Asking) {
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(components::over_https(Setting::Process, example));
}
