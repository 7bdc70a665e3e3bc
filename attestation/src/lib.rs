//! Nitro Security Module documents: produce, parse, verify.
