//! Identifiers, digests, wire forms: no I/O, no async.
