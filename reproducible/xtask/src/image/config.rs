//! `image/image.toml`.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::project::Project;

/// What goes into an image beside its files.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// Name in the metadata.
    pub name: String,
    /// The kernel's command line, measured.
    pub command_line: String,
    /// Memory a host gives the enclave if it is not told otherwise.
    pub default_memory_mib: u64,
    /// CPUs a host gives the enclave if it is not told otherwise.
    pub default_cpus: u64,
    /// Features of this project's own crates that may be compiled into the image. A feature not named here stops the
    /// build.
    pub allowed_features: Vec<String>,
    /// Files outside of their folders that crates include at compile time, by crate, from the tree's root.
    pub inputs: BTreeMap<String, Vec<String>>,
    /// Version in the metadata: the workspace's.
    #[serde(skip)]
    pub version: String,
}

impl ImageConfig {
    /// Reads the file of a tree.
    ///
    /// # Errors
    /// If it cannot be read or understood.
    pub fn read(project: &Project) -> Result<Self> {
        let path = project.path("image/image.toml");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let mut config: Self =
            toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
        let manifest =
            fs::read_to_string(project.path("Cargo.toml")).context("Cargo.toml cannot be read")?;
        let manifest: toml::Table = toml::from_str(&manifest).context("Cargo.toml is not valid")?;
        config.version = manifest
            .get("workspace")
            .and_then(|workspace| workspace.get("package")?.get("version")?.as_str())
            .context("Cargo.toml has no workspace.package.version")?
            .to_owned();
        Ok(config)
    }

    /// What of it goes into the image when it is put together, as bytes for a key.
    pub(super) fn fingerprint(&self) -> String {
        let Self {
            name,
            command_line,
            default_memory_mib,
            default_cpus,
            version,
            ..
        } = self;
        format!("{name:?} {version:?} {command_line:?} {default_memory_mib} {default_cpus}")
    }
}
