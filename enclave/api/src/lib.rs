//! JSON-RPC over TLS that ends in the enclave.
