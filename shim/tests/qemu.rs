//! The QEMU backend against programs that behave like QEMU and its daemon as far as the shim can tell.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use newton_relay::Connector;
use newton_relay::control::{ControlOptions, find_parent};
use newton_shim::{Accelerator, BackendKind, QemuConfig, Shim, ShimConfig, ShimError};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn script(path: PathBuf, text: &str) -> PathBuf {
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The daemon makes its socket; QEMU notes its arguments, and fails with KVM.
fn config(dir: &Path) -> ShimConfig {
    let daemon =
        "socket=${2#*socket=}; socket=${socket%%,*}; sleep 0.1; : > \"$socket\"; exec sleep 1000";
    let qemu = format!(
        "echo \"$@\" >> {dir}/arguments; echo booting; case \"$*\" in *kvm*) echo 'MSR 0x10a' >&2; exit 1;; esac; exec sleep 1000",
        dir = dir.display()
    );
    std::fs::write(dir.join("enclave.eif"), "eif").unwrap();
    ShimConfig {
        backend: BackendKind::Qemu,
        qemu: Some(QemuConfig {
            eif: dir.join("enclave.eif"),
            qemu: script(dir.join("qemu"), &qemu),
            firmware: dir.to_owned(),
            vhost_device_vsock: script(dir.join("daemon"), daemon),
            memory_mib: 256,
            cpus: 1,
            accelerator: Accelerator::Auto,
        }),
        ..common::config(dir)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kvm_is_tried_once_and_software_is_the_fallback() {
    let dir = tempfile::tempdir().unwrap();
    let shim = Shim::start(config(dir.path())).await.unwrap();
    assert_eq!(shim.accelerator(), Some(Accelerator::Tcg));
    let arguments = || std::fs::read_to_string(dir.path().join("arguments")).unwrap_or_default();
    // Where there is no /dev/kvm there is nothing to try.
    let kvm = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    let runs = if kvm { 2 } else { 1 };
    common::eventually("QEMU ran", || arguments().contains("tcg")).await;
    assert_eq!(arguments().lines().count(), runs);
    let last = arguments().lines().last().unwrap().to_owned();
    for part in [
        "-M nitro-enclave,vsock=c",
        "-accel tcg -cpu max",
        "-m 256M",
        "-kernel",
        "-no-reboot",
        "path=",
        "vhost.sock",
    ] {
        assert!(last.contains(part), "{last}");
    }
    // The verdict is remembered; the guest reaches us where the daemon would connect to.
    shim.restart_enclave().await.unwrap();
    common::eventually("QEMU ran again", || arguments().lines().count() == runs + 1).await;
    assert_eq!(arguments().matches("kvm").count(), runs - 1);
    let sockets = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(
        dir.path().join("vm.vsock_7000"),
        sockets.path().join("host_7000"),
    )
    .unwrap();
    let guest = Connector::Unix {
        dir: sockets.path().to_owned(),
    };
    let parent = tokio::task::spawn_blocking(move || {
        find_parent(&[guest], &ControlOptions::default(), Duration::from_secs(5))
    });
    parent.await.unwrap().unwrap();
    shim.wait_ready(Duration::from_secs(5)).await.unwrap();
    shim.stop().await;
    let console = std::fs::read_to_string(dir.path().join("console.log")).unwrap();
    assert_eq!(console, "booting\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.qemu.as_mut().unwrap().accelerator = Accelerator::Tcg;
    let mut broken = config.clone();
    broken.qemu.as_mut().unwrap().eif = dir.path().join("other.eif");
    assert!(
        matches!(Shim::start(broken).await, Err(ShimError::File { path, .. }) if path.ends_with("other.eif"))
    );
    let mut broken = config.clone();
    broken.qemu.as_mut().unwrap().vhost_device_vsock =
        script(dir.path().join("daemon2"), "echo no socket; exit 4");
    match Shim::start(broken).await.err().unwrap() {
        ShimError::Start { program, source } => {
            assert!(program.ends_with("daemon2"));
            assert!(source.to_string().contains("no socket"), "{source}");
        }
        error => panic!("{error}"),
    }
    config.qemu.as_mut().unwrap().accelerator = Accelerator::Kvm;
    let shim = Shim::start(config).await.unwrap();
    match shim.wait_ready(Duration::from_secs(5)).await.unwrap_err() {
        ShimError::Ended { console, .. } => assert!(console.contains("MSR 0x10a")),
        error => panic!("{error}"),
    }
}
