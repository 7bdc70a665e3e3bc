//! The task runner: set-up, image, up, test, reproduce.

fn main() {
    std::process::exit(2);
}
