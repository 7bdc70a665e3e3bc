//! Ramdisks and EIF from the parts.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use newton_eif::cpio::Archive;
use newton_eif::{Metadata, Parts};

use super::config::ImageConfig;
use super::parts::PartFiles;
use crate::lock::Inputs;

/// Where init lies in the first ramdisk; the kernel looks for it there.
pub const INIT_PATH: &str = "init";
/// Where the appliance lies in the second ramdisk; init looks for it there.
pub const APPLIANCE_PATH: &str = "app/appliance";

/// The bytes of an image of these parts.
///
/// # Errors
/// If a part cannot be read, or the parts do not make an image.
pub fn assemble(config: &ImageConfig, inputs: &Inputs, parts: &PartFiles) -> Result<Vec<u8>> {
    let init = init_ramdisk(read(&parts.init)?)?;
    let application = application_ramdisk(read(&parts.appliance)?)?;
    let image = newton_eif::write(&Parts {
        kernel: &read(&parts.kernel)?,
        command_line: &config.command_line,
        ramdisks: &[&compressed(&init)?, &compressed(&application)?],
        metadata: &Metadata::new(&config.name, &config.version, &inputs.kernel.version),
        default_memory_bytes: config.default_memory_mib << 20,
        default_cpus: config.default_cpus,
    })?;
    Ok(image)
}

/// PID 1, the places it mounts file systems on, and the console it starts with.
fn init_ramdisk(init: Vec<u8>) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    for mount_point in ["dev", "proc", "run", "sys", "tmp"] {
        archive = archive.directory(mount_point, 0o755)?;
    }
    let archive = archive
        .character_device("dev/console", 0o600, 5, 1)?
        .file(INIT_PATH, 0o755, init)?;
    Ok(archive.to_bytes())
}

/// The appliance alone: it is static, and the certificate authorities it trusts are compiled in.
fn application_ramdisk(appliance: Vec<u8>) -> Result<Vec<u8>> {
    Ok(Archive::new()
        .file(APPLIANCE_PATH, 0o755, appliance)?
        .to_bytes())
}

/// gzip without a time or a name. The image is half as large, and boots no slower.
fn compressed(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::best());
    gzip.write_all(bytes)?;
    Ok(gzip.finish()?)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}
