//! PID 1 of the enclave: prepares the machine, starts the appliance, and ends the enclave when the appliance ends.
//!
//! It takes nothing from the host. The kernel hands words of its command line that it does not know to PID 1 as
//! arguments and environment, and a host can append such words without their being measured, so neither is read here,
//! and the appliance gets an empty environment. What the enclave needs to know comes in the manifest, over vsock.

mod heartbeat;
mod mounts;
mod nsm;
mod sys;

use std::convert::Infallible;
use std::io;
use std::os::unix::process::CommandExt;
use std::panic;
use std::process::{self, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, WaitOptions, WaitStatus};
use thiserror::Error;

const APPLIANCE: &str = "/app/appliance";
/// Open files of the appliance: its sockets, pipes to workers and vsock connections.
const OPEN_FILES: u64 = 65_536;

/// Why the enclave could not start.
#[derive(Debug, Error)]
enum Error {
    #[error(transparent)]
    Mount(#[from] mounts::MountError),
    #[error("the random number generator could not be seeded: {0}")]
    Seed(#[from] nsm::NsmError),
    #[error("resource limits could not be set: {0}")]
    Limits(rustix::io::Errno),
    #[error("the loopback interface could not be brought up: {0}")]
    Loopback(io::Error),
    #[error("{APPLIANCE} could not be started: {0}")]
    Start(io::Error),
    #[error("the appliance could not be waited for: {0}")]
    Wait(rustix::io::Errno),
    /// Not a failure of ours: what every run ends with.
    #[error("the appliance {0}, the enclave ends")]
    Ended(String),
}

fn main() {
    if process::id() != 1 {
        eprintln!(
            "newton-init: runs as PID 1 of the enclave only, this is {}",
            process::id()
        );
        process::exit(2);
    }
    panic::set_hook(Box::new(|panic| end(&format!("init panicked: {panic}"))));
    match run() {
        Ok(never) => match never {},
        Err(error) => end(&error.to_string()),
    }
}

/// Boots. Returns only with the reason for which the enclave must end.
fn run() -> Result<Infallible, Error> {
    mounts::mount_all()?;
    heartbeat::send_in_background();
    nsm::seed_kernel()?;
    set_limits().map_err(Error::Limits)?;
    sys::bring_loopback_up().map_err(Error::Loopback)?;
    // Everything that had to be created on the root file system is there.
    mounts::make_root_read_only()?;

    let appliance = Command::new(APPLIANCE)
        .arg0(APPLIANCE)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .spawn()
        .map_err(Error::Start)?;
    say(&format!(
        "{APPLIANCE} started {} s after the kernel",
        uptime()
    ));
    wait_for(appliance.id())
}

/// Reaps every process whose parent died, until the appliance itself dies.
fn wait_for(appliance: u32) -> Result<Infallible, Error> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if is(pid, appliance) => {
                return Err(Error::Ended(describe(status)));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::Wait(error)),
        }
    }
}

fn is(pid: Pid, id: u32) -> bool {
    u32::try_from(pid.as_raw_pid()) == Ok(id)
}

fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => format!("ended with {status:?}"),
    }
}

fn set_limits() -> rustix::io::Result<()> {
    let exactly = |value| Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    // A core dump would write secrets into memory that nobody zeroizes.
    rustix::process::setrlimit(Resource::Core, exactly(0))?;
    rustix::process::setrlimit(Resource::Nofile, exactly(OPEN_FILES))
}

/// Seconds since the kernel started, as it prints them; only for people.
fn uptime() -> String {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn say(message: &str) {
    eprintln!("init: {message}");
}

/// Ends the enclave: the hypervisor stops a machine that reboots.
fn end(message: &str) -> ! {
    say(message);
    sys::drain_console();
    // Nothing is kept on a file system, so there is nothing to write back.
    let error = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    // PID 1 ending panics the kernel, whose command line says that a panic reboots.
    say(&format!("the machine did not reboot: {error:?}"));
    process::exit(1);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // Waited for below, by the call under test's own means.
    #[allow(clippy::zombie_processes)]
    fn status_of(script: &str) -> String {
        let child = Command::new("/bin/sh")
            .args(["-c", script])
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id() as i32).unwrap();
        let (_, status) = rustix::process::waitpid(Some(pid), WaitOptions::empty())
            .unwrap()
            .unwrap();
        describe(status)
    }

    #[test]
    fn says_how_the_appliance_ended() {
        assert_eq!(status_of("exit 0"), "exited with status 0");
        assert_eq!(status_of("exit 7"), "exited with status 7");
        assert_eq!(status_of("kill -9 $$"), "was killed by signal 9");
    }
}
