//! The EIF under QEMU's `nitro-enclave` machine, with `vhost-device-vsock` in between.

use super::{Accelerator, Kind, Machine, console, gone};
use crate::ShimError;
use crate::config::{QemuConfig, ShimConfig};
use crate::spawn::Process;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};
use tokio::time::sleep;

/// The guest's CID; the daemon answers as CID 2.
const GUEST_CID: u32 = 4;
/// Longest wait for the daemon's socket.
const DAEMON_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn launch(config: &ShimConfig, kvm: bool) -> Result<Machine, ShimError> {
    let qemu = config.qemu()?;
    for path in [&qemu.eif, &qemu.firmware] {
        fs::metadata(path).map_err(ShimError::file("QEMU backend", path))?;
    }
    let accelerator = match (qemu.accelerator, kvm) {
        (Accelerator::Kvm, _) | (Accelerator::Auto, true) => Accelerator::Kvm,
        _ => Accelerator::Tcg,
    };
    let daemon = start_daemon(config, qemu).await?;
    let (stdout, stderr) = console(&config.console())?;
    let mut command = Command::new(&qemu.qemu);
    command
        .arg("-M")
        .arg("nitro-enclave,vsock=c,id=newton")
        .args(match accelerator {
            Accelerator::Kvm => ["-accel", "kvm", "-cpu", "host"],
            _ => ["-accel", "tcg", "-cpu", "max"],
        })
        .arg("-smp")
        .arg(qemu.cpus.to_string())
        .arg("-m")
        .arg(format!("{}M", qemu.memory_mib))
        .arg("-kernel")
        .arg(&qemu.eif)
        .arg("-L")
        .arg(&qemu.firmware)
        .args(["-nographic", "-no-reboot", "-chardev"])
        .arg(format!(
            "socket,id=c,path={}",
            escaped(&vhost_socket(config))
        ))
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr);
    let machine = Process::spawn(command).map_err(|source| ShimError::Start {
        program: qemu.qemu.clone(),
        source,
    })?;
    let exit = machine.exit();
    Ok(Machine {
        kind: Kind::Children(machine, Some(daemon)),
        exit,
        accelerator: Some(accelerator),
    })
}

/// Starts the daemon anew for every boot, so that no state of the last guest is left in it.
async fn start_daemon(config: &ShimConfig, qemu: &QemuConfig) -> Result<Process, ShimError> {
    let (socket, uds) = (vhost_socket(config), config.state_dir.join("vm.vsock"));
    for path in [&socket, &uds] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ShimError::file("socket", path)(error));
            }
            _ => {}
        }
    }
    let log = config.state_dir.join("vhost.log");
    let (stdout, stderr) = console(&log)?;
    let mut command = Command::new(&qemu.vhost_device_vsock);
    command
        .arg("--vm")
        .arg(format!(
            "guest-cid={GUEST_CID},socket={},uds-path={}",
            socket.display(),
            uds.display()
        ))
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr);
    let program = &qemu.vhost_device_vsock;
    let daemon = Process::spawn(command).map_err(|source| ShimError::Start {
        program: program.clone(),
        source,
    })?;
    let deadline = Instant::now() + DAEMON_TIMEOUT;
    while !socket.exists() {
        let source = match daemon.exit().borrow().clone() {
            Some(how) => io::Error::other(format!("it ended ({how}): {}", super::tail(&log))),
            None if Instant::now() > deadline => io::Error::from(io::ErrorKind::TimedOut),
            None => {
                sleep(Duration::from_millis(5)).await;
                continue;
            }
        };
        daemon.kill();
        gone(&daemon).await;
        return Err(ShimError::Start {
            program: program.clone(),
            source,
        });
    }
    Ok(daemon)
}

fn vhost_socket(config: &ShimConfig) -> PathBuf {
    config.state_dir.join("vhost.sock")
}

/// QEMU's options separate with commas and write a comma as two.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Whether KVM boots enclaves here, remembered for this QEMU and kernel. `/dev/kvm` alone says little: under nested
/// virtualisation in software it exists, and this machine type does not run.
pub(crate) struct KvmVerdict {
    file: PathBuf,
    about: String,
}

impl KvmVerdict {
    /// What is to be found out; `None` if KVM is out of the question or not asked for.
    pub(crate) fn pending(config: &ShimConfig) -> Option<Self> {
        let qemu = config
            .qemu
            .as_ref()
            .filter(|q| q.accelerator == Accelerator::Auto)?;
        if let Err(error) = fs::File::options().read(true).write(true).open("/dev/kvm") {
            tracing::info!(%error, "no KVM, using software emulation");
            return None;
        }
        let modified = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
        let stamp = |path| {
            modified(path)
                .and_then(|t| t.duration_since(UNIX_EPOCH).ok())
                .map(|d| d.as_nanos())
        };
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let about = format!(
            "{} {:?} {}",
            qemu.qemu.display(),
            stamp(&qemu.qemu),
            kernel.trim()
        );
        Some(Self {
            file: config.state_dir.join("kvm"),
            about,
        })
    }

    /// The verdict of an earlier run.
    pub(crate) fn known(&self) -> Option<bool> {
        let text = fs::read_to_string(&self.file).ok()?;
        let (works, about) = text.split_once(' ')?;
        (about == self.about).then_some(works == "works")
    }

    pub(crate) fn remember(&self, works: bool) {
        let word = if works { "works" } else { "fails" };
        if let Err(error) = fs::write(&self.file, format!("{word} {}", self.about)) {
            tracing::debug!(%error, "the verdict on KVM could not be kept");
        }
    }
}
