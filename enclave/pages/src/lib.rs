//! Encrypted, authenticated page store behind redb.
