//! Ramdisks and EIF from the parts.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use newton_eif::cpio::{self, Archive, Node};
use newton_eif::{Metadata, Parts};

use super::config::ImageConfig;
use super::parts::PartFiles;
use super::rust::{DEVELOPMENT_MARKER, contains};
use crate::lock::Inputs;

/// Where init lies in the first ramdisk; the kernel looks for it there.
pub const INIT_PATH: &str = "init";
/// Where the appliance lies in the second ramdisk; init looks for it there.
pub const APPLIANCE_PATH: &str = "app/appliance";

/// The bytes of an image of these parts.
///
/// # Errors
/// If a part cannot be read, the parts do not make an image, or the finished image holds something that must not be
/// there.
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
    check_contents(&image)?;
    Ok(image)
}

/// Takes the finished image apart again: two ramdisks with one program each, and no development backend in either.
fn check_contents(image: &[u8]) -> Result<()> {
    let image = newton_eif::Image::parse(image)?;
    let mut programs = Vec::new();
    for ramdisk in image.ramdisks() {
        let mut archive = Vec::new();
        GzDecoder::new(*ramdisk).read_to_end(&mut archive)?;
        for (path, entry) in cpio::read(&archive)? {
            let Node::File(contents) = entry.node else {
                continue;
            };
            if contains(&contents, DEVELOPMENT_MARKER.as_bytes()) {
                bail!(
                    "/{path} in the image carries the development backend ({DEVELOPMENT_MARKER})"
                );
            }
            programs.push(path);
        }
    }
    if programs != [INIT_PATH, APPLIANCE_PATH] {
        bail!("the image holds {programs:?}, expected /{INIT_PATH} and /{APPLIANCE_PATH} alone");
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::project::Project;

    fn assembled(appliance: &[u8]) -> Result<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let project = Project::at(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap();
        let put = |name: &str, contents: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, contents).unwrap();
            path
        };
        let parts = PartFiles {
            kernel: put("kernel", b"a kernel"),
            init: put("init", b"a program"),
            appliance: put("appliance", appliance),
        };
        assemble(&ImageConfig::read(&project)?, &project.inputs()?, &parts)
    }

    #[test]
    fn an_image_of_this_tree_is_as_the_design_says() {
        let bytes = assembled(b"another program").unwrap();
        let image = newton_eif::Image::parse(&bytes).unwrap();
        assert_eq!(image.ramdisks().len(), 2);
        assert_eq!(image.kernel(), b"a kernel");
        for word in ["console=ttyS0", "reboot=t", "panic=-1"] {
            assert!(
                image.command_line().split(' ').any(|it| it == word),
                "{word}"
            );
        }
        assert_eq!(bytes, assembled(b"another program").unwrap());
    }

    #[test]
    fn the_development_backend_cannot_be_packed() {
        let appliance = format!("some code {DEVELOPMENT_MARKER} more code");
        let error = assembled(appliance.as_bytes()).unwrap_err().to_string();
        assert!(
            error.contains("/app/appliance in the image carries the development backend"),
            "{error}"
        );
    }
}
