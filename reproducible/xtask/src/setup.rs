//! What a fresh Debian machine lacks to build, run and test the project. Each step keeps its result in the cache.

mod component_tools;
mod contract_tools;
mod debian;
mod npm;
mod packages;
mod qemu;
mod vsock;
mod wheel;

use std::path::PathBuf;

use anyhow::Result;

use crate::cache::Cache;
use crate::lock::Inputs;
use crate::project::Project;

pub use component_tools::ComponentTools;
pub use contract_tools::ContractTools;
pub use qemu::Qemu;

/// The steps, and what they share.
#[derive(Clone, Debug)]
pub struct Setup {
    project: Project,
    cache: Cache,
    inputs: Inputs,
}

impl Setup {
    /// The steps of the checkout this process was started for, with the user's cache.
    ///
    /// # Errors
    /// If there is no checkout, its lock file is not valid, or there is no place for the cache.
    pub fn new() -> Result<Self> {
        Self::of(Project::find()?, Cache::open()?)
    }

    /// The steps of a checkout.
    ///
    /// # Errors
    /// If its lock file is not valid.
    pub fn of(project: Project, cache: Cache) -> Result<Self> {
        let inputs = project.inputs()?;
        Ok(Self {
            project,
            cache,
            inputs,
        })
    }

    /// Does every step.
    ///
    /// # Errors
    /// The first that fails.
    pub fn all(&self) -> Result<()> {
        self.packages()?;
        self.contract_tools()?;
        self.component_tools()?;
        self.qemu()?;
        self.vhost_device_vsock()?;
        self.kernel_source()?;
        Ok(())
    }

    /// Installs the Debian packages that are missing. Needs root only if one is.
    ///
    /// # Errors
    /// If this is no Debian, or the installation fails.
    pub fn packages(&self) -> Result<()> {
        packages::install_missing(&self.cache)
    }

    /// forge, anvil, cast, solc and the contract libraries.
    ///
    /// # Errors
    /// If they cannot be downloaded or do not have the pinned hashes.
    pub fn contract_tools(&self) -> Result<ContractTools> {
        contract_tools::install(self)
    }

    /// The compilers of data components in JavaScript and Python.
    ///
    /// # Errors
    /// If their packages cannot be downloaded or do not have the pinned hashes.
    pub fn component_tools(&self) -> Result<ComponentTools> {
        component_tools::install(self)
    }

    /// QEMU with the `nitro-enclave` machine.
    ///
    /// # Errors
    /// If its source cannot be downloaded, does not have the pinned hashes, or does not build.
    pub fn qemu(&self) -> Result<Qemu> {
        qemu::build(self)
    }

    /// The program `vhost-device-vsock`, the host's end of QEMU's vsock device.
    ///
    /// # Errors
    /// If it cannot be downloaded, does not have the pinned hash, or does not build.
    pub fn vhost_device_vsock(&self) -> Result<PathBuf> {
        vsock::build(self)
    }

    /// The Debian package that holds the kernel's source.
    ///
    /// # Errors
    /// If it cannot be downloaded or does not have the pinned hash.
    pub fn kernel_source(&self) -> Result<PathBuf> {
        debian::fetch_package(&self.cache, &self.inputs.kernel)
    }

    /// The checkout.
    pub fn project(&self) -> &Project {
        &self.project
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The pinned inputs.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }
}
