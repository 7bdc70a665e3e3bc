//! Keys of the enclave (design part 5): the master secret and what is derived from it, HPKE envelopes, the boot's BLS
//! and TLS keys, whose key made an account's signature, and the record that keeps one boot from signing two things in one place.
//!
//! Types that hold a secret have neither `Debug` nor `Clone` and are wiped on drop.

pub mod bls;
pub mod ecdsa;
pub mod hpke;
mod master;
mod record;
pub mod shares;
mod tls;

pub use hpke::HpkeKey;
pub use master::{DerivedKey, MasterSecret, MasterSecretError, Purpose};
pub use record::{Equivocation, SigningRecord, Slot};
pub use tls::{TlsError, TlsIdentity};
