//! `reproducible/inputs.lock`: every pinned input, read strictly.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The only format version there is.
const VERSION: u32 = 1;

/// The pinned inputs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Inputs {
    version: u32,
    /// The Rust compiler.
    pub rust: Rust,
    /// Debian packages of the build machine that shape the image, with their versions.
    pub host: BTreeMap<String, String>,
    /// The kernel's source, a Debian package.
    pub kernel: DebianPackage,
    /// QEMU's source, a Debian source package.
    pub qemu: DebianSource,
    /// QEMU's firmware, a Debian package.
    pub firmware: DebianPackage,
    /// QEMU's build system, a Python wheel.
    pub meson: Pinned,
    /// The compiler of components in Python, a Python wheel.
    pub componentize_py: Pinned,
    /// The vsock daemon, a crate.
    pub vhost_device_vsock: Pinned,
}

/// The Rust compiler: its version and the commit it was built from, as `rustc -vV` prints them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rust {
    /// Release, as in `1.95.0`.
    pub version: String,
    /// Commit hash.
    pub commit: String,
}

/// One file of a Debian binary package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebianPackage {
    /// Name of the package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The suite that carries it, as in `trixie-security`.
    pub suite: String,
    /// SHA-256 of the `.deb` file.
    pub sha256: String,
}

/// The files of a Debian source package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebianSource {
    /// Name of the package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The suite that carries it.
    pub suite: String,
    /// SHA-256 of each file by its name.
    pub files: BTreeMap<String, String>,
}

/// A file of a language's registry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pinned {
    /// Name of the package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the file.
    pub sha256: String,
}

impl Inputs {
    /// Reads the lock file.
    ///
    /// # Errors
    /// If it cannot be read, is not TOML, lacks a field, has one too many, or a hash is not 64 lower-case hex digits.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not valid", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let inputs: Self = toml::from_str(text)?;
        if inputs.version != VERSION {
            bail!("version is {}, expected {VERSION}", inputs.version);
        }
        let single = [
            (&inputs.kernel.package, &inputs.kernel.sha256),
            (&inputs.firmware.package, &inputs.firmware.sha256),
            (&inputs.meson.package, &inputs.meson.sha256),
            (
                &inputs.componentize_py.package,
                &inputs.componentize_py.sha256,
            ),
            (
                &inputs.vhost_device_vsock.package,
                &inputs.vhost_device_vsock.sha256,
            ),
        ];
        for (name, hash) in single.into_iter().chain(&inputs.qemu.files) {
            if hash.len() != 64
                || !hash
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            {
                bail!("sha256 of {name} is {hash:?}, expected 64 lower-case hexadecimal digits");
            }
        }
        Ok(inputs)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEXT: &str = include_str!("../../inputs.lock");

    #[test]
    fn reads_the_lock_file_of_this_tree() {
        let inputs = Inputs::parse(TEXT).unwrap();
        assert_eq!(inputs.kernel.package, "linux-source-6.12");
        assert_eq!(inputs.qemu.files.len(), 3);
    }

    #[test]
    fn names_what_is_wrong() {
        let refused = |from: &str, to: &str| {
            format!(
                "{:#}",
                Inputs::parse(&TEXT.replacen(from, to, 1)).unwrap_err()
            )
        };
        assert!(refused("version = 1\n", "version = 2\n").contains("expected 1"));
        assert!(refused("[rust]", "[rust]\nother = 1").contains("other"));
        assert!(refused("sha256 = \"9", "sha256 = \"").contains("linux-source-6.12"));
        assert!(refused("suite = \"trixie-security\"", "").contains("suite"));
    }

    /// The file may name a channel; a version in it must be the pinned one.
    #[test]
    fn the_toolchain_file_names_no_other_compiler() {
        let file: toml::Table =
            toml::from_str(include_str!("../../../rust-toolchain.toml")).unwrap();
        let channel = file["toolchain"]["channel"].as_str().unwrap();
        let pinned = Inputs::parse(TEXT).unwrap().rust.version;
        assert!(
            channel == pinned || channel == "stable",
            "{channel}, {pinned}"
        );
    }
}
