//! The real image under QEMU: the main job, a power cut, and a host that changes the page file.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{Network, Setting, mixed, run, run_with};

#[test]
fn the_image_does_the_main_job_and_survives_a_power_cut() {
    run(Setting::Image, common::main_job_and_power_cut);
}

#[test]
fn the_image_and_processes_are_one_network() {
    run_with(
        Setting::Process,
        Network::of(3),
        mixed::image_among_processes,
    );
}
