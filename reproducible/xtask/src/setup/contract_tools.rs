//! The contract tool chain, installed by npm from `reproducible/npm`, whose lock file holds every archive's SHA-512.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Setup, npm::NpmFolder};
use crate::cache::make_folder;

/// Programs and libraries for the contracts. All run without a network.
#[derive(Clone, Debug)]
pub struct ContractTools {
    /// `forge`; give it `--use` with [`Self::solc`].
    pub forge: PathBuf,
    /// `anvil`.
    pub anvil: PathBuf,
    /// `cast`.
    pub cast: PathBuf,
    /// The compiler as forge expects it; runs under Node.
    pub solc: PathBuf,
    /// The folder with `@openzeppelin/contracts` and `@openzeppelin/contracts-upgradeable`.
    pub node_modules: PathBuf,
    /// The folder with all four programs, for a `PATH`.
    pub bin: PathBuf,
}

const FOLDER: NpmFolder = NpmFolder {
    name: "contract-tools",
    source: "reproducible/npm",
    files: &["package.json", "package-lock.json", "solc"],
    sentence: "Installing forge, anvil, cast, solc and the contract libraries",
};
const FOUNDRY: &[&str] = &["anvil", "cast", "forge"];

pub fn install(setup: &Setup) -> Result<ContractTools> {
    let place = FOLDER.install(setup, include_str!("contract_tools.rs"), link)?;
    let bin = place.join("bin");
    Ok(ContractTools {
        forge: bin.join("forge"),
        anvil: bin.join("anvil"),
        cast: bin.join("cast"),
        solc: bin.join("solc"),
        node_modules: place.join("node_modules"),
        bin,
    })
}

/// Links the programs into one folder.
fn link(place: &Path) -> Result<()> {
    let bin = place.join("bin");
    make_folder(&bin)?;
    let links = FOUNDRY
        .iter()
        .map(|name| {
            (
                *name,
                format!("../node_modules/@foundry-rs/{name}-linux-amd64/bin/{name}"),
            )
        })
        .chain([("solc", "../solc".to_owned())]);
    for (name, target) in links {
        symlink(&target, bin.join(name))
            .with_context(|| format!("the link to {name} cannot be made"))?;
    }
    Ok(())
}
