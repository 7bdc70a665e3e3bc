//! PID 1 of the enclave.

fn main() {
    std::process::exit(2);
}
