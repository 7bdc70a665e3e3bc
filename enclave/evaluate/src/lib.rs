//! Schema checks, WASM data components and Rego in keyless worker processes.
