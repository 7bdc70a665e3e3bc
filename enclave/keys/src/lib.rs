//! The master secret, derived keys, HPKE and BLS.
