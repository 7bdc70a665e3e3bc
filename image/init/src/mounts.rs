//! The file systems of the enclave. All are in memory; nothing on them can be executed but init and the appliance.

use std::ffi::CStr;

use rustix::mount::{MountFlags, mount, mount_remount};
use thiserror::Error;

/// A file system could not be mounted.
#[derive(Debug, Error)]
#[error("{path} could not be mounted: {cause}")]
pub struct MountError {
    path: &'static str,
    cause: rustix::io::Errno,
}

/// Mounts what the kernel and the appliance's runtime expect. The mount points are in init's ramdisk.
///
/// # Errors
/// The first mount that fails.
pub fn mount_all() -> Result<(), MountError> {
    let closed = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let devices = MountFlags::NOSUID | MountFlags::NOEXEC;
    for (kind, path, flags, options) in [
        ("devtmpfs", "/dev", devices, c"mode=0755"),
        ("proc", "/proc", closed, c""),
        ("sysfs", "/sys", closed, c""),
        ("tmpfs", "/run", closed, c"mode=0755"),
        ("tmpfs", "/tmp", closed, c"mode=1777"),
    ] {
        mount_one(kind, path, flags, options)?;
    }
    Ok(())
}

/// Takes away the right to write to the root file system, where init and the appliance lie.
///
/// # Errors
/// If the kernel refuses.
pub fn make_root_read_only() -> Result<(), MountError> {
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount("/", flags, c"").map_err(|cause| MountError { path: "/", cause })
}

fn mount_one(
    kind: &str,
    path: &'static str,
    flags: MountFlags,
    options: &CStr,
) -> Result<(), MountError> {
    mount(kind, path, kind, flags, options).map_err(|cause| MountError { path, cause })
}
