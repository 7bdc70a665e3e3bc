//! What `cargo xtask` does: set up a machine, build the measured image, build it again and compare.
//!
//! Every step's result is kept in a [`cache`] under the hash of all its inputs, so a second run does nothing twice. Other
//! packages of the workspace (the end-to-end program) use the same steps through [`setup`] and [`image`].

pub mod bench;
pub mod cache;
pub mod command;
pub mod compare;
pub mod e2e;
pub mod examples;
pub mod gas;
pub mod image;
pub mod lock;
pub mod progress;
pub mod project;
pub mod reproduce;
pub mod setup;
pub mod suite;
