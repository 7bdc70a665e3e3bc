//! Rust bindings and deployment of the contracts.
