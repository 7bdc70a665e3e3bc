//! The untrusted host relay.
