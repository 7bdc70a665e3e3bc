//! Folders of npm packages, each pinned by a lock file with every archive's SHA-512.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Setup;
use crate::cache::KeyBuilder;
use crate::command::run_logged;
use crate::progress::Step;

/// One such folder.
pub struct NpmFolder {
    /// Name in the cache.
    pub name: &'static str,
    /// Where it lies in the project.
    pub source: &'static str,
    /// Its files: `package.json`, `package-lock.json`, and what is copied beside them.
    pub files: &'static [&'static str],
    /// What is being done, for progress.
    pub sentence: &'static str,
}

impl NpmFolder {
    /// Installs it, once per content; `finish` adds to the new folder. Nothing of the packages is run.
    ///
    /// # Errors
    /// If an archive cannot be downloaded or does not have its pinned hash.
    pub fn install(
        &self,
        setup: &Setup,
        recipe: &str,
        finish: impl Fn(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let source = setup.project().path(self.source);
        let mut key = KeyBuilder::new()
            .value("recipe", recipe)
            .value("npm", include_str!("npm.rs"));
        for name in self.files {
            key = key.file(name, &source.join(name))?;
        }
        setup
            .cache()
            .find_or_build(self.name, &key.finish(), |place| {
                setup.packages()?;
                let mut step = Step::begin(self.sentence);
                for name in self.files {
                    // With its permissions: some are programs.
                    fs::copy(source.join(name), place.join(name))
                        .with_context(|| format!("{name} cannot be copied"))?;
                }
                let mut npm = Command::new("npm");
                npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
                    .current_dir(place);
                run_logged(&mut npm, &setup.cache().log(self.name), &mut step)?;
                finish(place)?;
                step.done();
                Ok(())
            })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    /// A host's name in a lock file would bind everyone to that host.
    #[test]
    fn the_lock_files_have_hashes_and_no_addresses() {
        for lock in [
            include_str!("../../../npm/package-lock.json"),
            include_str!("../../../components/package-lock.json"),
        ] {
            let lock: serde_json::Value = serde_json::from_str(lock).unwrap();
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
}
