//! Where the source tree is.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::lock::Inputs;

/// A checkout of this repository, or a copy of one.
#[derive(Clone, Debug)]
pub struct Project {
    root: PathBuf,
}

impl Project {
    /// The checkout this process was started for: cargo says where the task runner's sources are; a program started by
    /// hand must be started inside the checkout.
    ///
    /// # Errors
    /// If neither leads to a checkout.
    pub fn find() -> Result<Self> {
        let from_cargo = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let here = env::current_dir().context("the current folder cannot be read")?;
        for start in from_cargo.iter().chain([&here]) {
            if let Some(root) = start.ancestors().find(|folder| is_root(folder)) {
                return Ok(Self {
                    root: root.to_owned(),
                });
            }
        }
        bail!(
            "{} is not inside a checkout of this project",
            here.display()
        );
    }

    /// A tree known to be at `root`.
    ///
    /// # Errors
    /// If it is not one.
    pub fn at(root: &Path) -> Result<Self> {
        if !is_root(root) {
            bail!("{} is not a checkout of this project", root.display());
        }
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// The folder that holds the workspace's `Cargo.toml`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path in the tree.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// The pinned inputs.
    ///
    /// # Errors
    /// If `reproducible/inputs.lock` cannot be read or understood.
    pub fn inputs(&self) -> Result<Inputs> {
        Inputs::read(&self.path("reproducible/inputs.lock"))
    }
}

fn is_root(folder: &Path) -> bool {
    folder.join("reproducible/inputs.lock").is_file() && folder.join("Cargo.toml").is_file()
}
