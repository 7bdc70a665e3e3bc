//! A Python wheel, fetched by pip into a folder and checked against its pinned hash.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, make_folder, sha256_of};
use crate::command::run_logged;
use crate::lock::Pinned;
use crate::progress::Step;

/// Downloads a wheel; `work` is a folder to work in. The file keeps its name, which says what it is for.
pub fn fetch(cache: &Cache, wheel: &Pinned, work: &Path) -> Result<PathBuf> {
    let Pinned {
        package,
        version,
        sha256,
    } = wheel;
    let mut step = Step::begin(&format!(
        "Downloading the Python package {package} {version}"
    ));
    let log = cache.log(package);
    let (environment, files, list) = (
        work.join("python"),
        work.join("wheels"),
        work.join("requirements.txt"),
    );
    make_folder(&files)?;
    fs::write(
        &list,
        format!("{package}=={version} --hash=sha256:{sha256}\n"),
    )
    .context("pip's list cannot be written")?;
    run_logged(
        Command::new("/usr/bin/python3")
            .args(["-m", "venv"])
            .arg(&environment),
        &log,
        &mut step,
    )?;
    let mut download = Command::new(environment.join("bin/pip"));
    download
        .args([
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--require-hashes",
            "--requirement",
        ])
        .arg(&list)
        .arg("--dest")
        .arg(&files);
    run_logged(&mut download, &log, &mut step)?;
    let mut found =
        fs::read_dir(&files).with_context(|| format!("{} cannot be read", files.display()))?;
    let Some(file) = found.next().transpose()?.map(|entry| entry.path()) else {
        bail!("pip downloaded nothing for {package} {version}");
    };
    let got = sha256_of(&file)?;
    if got != *sha256 {
        bail!(
            "{} has SHA-256 {got}, inputs.lock says {sha256}",
            file.display()
        );
    }
    step.done();
    Ok(file)
}
