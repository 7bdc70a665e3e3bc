//! The real image under QEMU: the main job, a power cut, and a host that changes the page file.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{Setting, run};

#[test]
fn the_image_does_the_main_job_and_survives_a_power_cut() {
    run(Setting::Image, common::main_job_and_power_cut);
}
