//! Writes, reads and measures Enclave Image Format files.
