//! The enclave appliance: wires every part and owns the commit loop.

fn main() {
    std::process::exit(2);
}
