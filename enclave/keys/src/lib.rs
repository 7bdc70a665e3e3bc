//! Keys of the enclave (design part 5): the master secret and what is derived from it, HPKE envelopes, the boot's BLS
//! and TLS keys, and the record that keeps one boot from signing two things in one place.

pub mod bls;
mod record;

pub use record::{Equivocation, SigningRecord, Slot};
