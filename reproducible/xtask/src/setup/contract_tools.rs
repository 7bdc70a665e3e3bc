//! The contract tool chain, installed by npm from `reproducible/npm`, whose lock file holds every archive's SHA-512.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Setup;
use crate::cache::{KeyBuilder, make_folder};
use crate::command::run_logged;
use crate::progress::Step;

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

/// Files of `reproducible/npm` that the result is made of.
const FILES: &[&str] = &["package.json", "package-lock.json", "solc"];
const FOUNDRY: &[&str] = &["anvil", "cast", "forge"];

pub fn install(setup: &Setup) -> Result<ContractTools> {
    let source = setup.project().path("reproducible/npm");
    let mut key = KeyBuilder::new().value("recipe", include_str!("contract_tools.rs"));
    for name in FILES {
        key = key.file(name, &source.join(name))?;
    }
    let place = setup
        .cache()
        .find_or_build("contract-tools", &key.finish(), |place| {
            setup.packages()?;
            install_in(setup, &source, place)
        })?;
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

fn install_in(setup: &Setup, source: &Path, place: &Path) -> Result<()> {
    let mut step = Step::begin("Installing forge, anvil, cast, solc and the contract libraries");
    for name in FILES {
        // With its permissions: solc is a program.
        fs::copy(source.join(name), place.join(name))
            .with_context(|| format!("{name} cannot be copied"))?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(place);
    run_logged(&mut npm, &setup.cache().log("contract-tools"), &mut step)?;
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
    step.done();
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    /// A host's name in the lock file would bind everyone to that host.
    #[test]
    fn the_lock_file_has_hashes_and_no_addresses() {
        let lock: serde_json::Value =
            serde_json::from_str(include_str!("../../../npm/package-lock.json")).unwrap();
        let packages = lock["packages"].as_object().unwrap();
        assert!(packages.len() > 5);
        for (path, package) in packages.iter().filter(|(path, _)| !path.is_empty()) {
            assert!(
                package["integrity"]
                    .as_str()
                    .unwrap()
                    .starts_with("sha512-"),
                "{path}"
            );
            assert!(package.get("resolved").is_none(), "{path}");
        }
    }
}
