//! The vsock relay protocol: frames, transports and the enclave's side of every service.
