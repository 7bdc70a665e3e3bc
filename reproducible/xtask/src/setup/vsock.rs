//! `vhost-device-vsock`, built from its crate.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Setup;
use crate::cache::{KeyBuilder, remove_folder, sha256_of};
use crate::command::run_logged;
use crate::progress::Step;

pub fn build(setup: &Setup) -> Result<PathBuf> {
    let (cache, pinned) = (setup.cache(), &setup.inputs().vhost_device_vsock);
    let key = KeyBuilder::new()
        .value("recipe", include_str!("vsock.rs"))
        .value("crate", &pinned.sha256)
        .value("compiler", &setup.inputs().rust.commit)
        .value(
            "system",
            fs::read_to_string("/etc/os-release").unwrap_or_default(),
        )
        .finish();
    let place = cache.find_or_build("vhost-device-vsock", &key, |place| {
        setup.packages()?;
        let (name, version) = (&pinned.package, &pinned.version);
        let mut step = Step::begin(&format!(
            "Building {name} {version}, which joins QEMU's vsock to the host"
        ));
        let target = place.join("target");
        let mut install = Command::new("cargo");
        install
            .args([
                "install",
                "--locked",
                "--quiet",
                "--version",
                &format!("={version}"),
                name,
                "--root",
            ])
            .arg(place)
            .env("CARGO_TARGET_DIR", &target)
            // In the checkout, whose file says which compiler to use.
            .current_dir(setup.project().root());
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
            install.env_remove(name);
        }
        run_logged(&mut install, &cache.log(name), &mut step)?;
        check_archive(&format!("{name}-{version}.crate"), &pinned.sha256)?;
        remove_folder(&target)?;
        step.done();
        Ok(())
    })?;
    Ok(place.join("bin").join(&pinned.package))
}

/// cargo has checked the archive against its registry's index; this checks it against ours.
fn check_archive(file: &str, sha256: &str) -> Result<()> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let folders = home.join("registry/cache");
    let entries =
        fs::read_dir(&folders).with_context(|| format!("{} cannot be read", folders.display()))?;
    let archives: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path().join(file)))
        .filter(|path| path.is_file())
        .collect();
    if archives.is_empty() {
        bail!("cargo left no {file} in {}", folders.display());
    }
    for archive in archives {
        let got = sha256_of(&archive)?;
        if got != sha256 {
            bail!(
                "{} has SHA-256 {got}, inputs.lock says {sha256}",
                archive.display()
            );
        }
    }
    Ok(())
}
