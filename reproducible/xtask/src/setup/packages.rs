//! Debian packages of the machine itself.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::command::{output_of, run_logged, succeeds};
use crate::progress::{Step, say};

/// What the steps run or link. Installed without recommendations.
const PACKAGES: &[&str] = &[
    // C compiler and static C library: kernel, QEMU, and the C parts and the linking of Rust programs
    "gcc",
    "libc6-dev",
    "make",
    // kernel
    "bc",
    "bison",
    "flex",
    "gzip",
    "libelf-dev",
    "xz-utils",
    // QEMU
    "bzip2",
    "dpkg-dev",
    "libcbor-dev",
    "libfdt-dev",
    "libglib2.0-dev",
    "libgnutls28-dev",
    "ninja-build",
    "patch",
    "pkg-config",
    "python3",
    "python3-venv",
    "zlib1g-dev",
    // reproduction
    "git",
    "util-linux",
];
/// Installed if the commands are not there: many machines have them from elsewhere.
const NODE_PACKAGES: &[&str] = &["nodejs", "npm"];

/// Installs what is missing.
pub fn install_missing(cache: &Cache) -> Result<()> {
    if !Path::new("/usr/bin/dpkg-query").exists() {
        bail!(
            "this machine has no dpkg: the set-up knows Debian only. Elsewhere, use a container or virtual machine with \
             Debian 12"
        );
    }
    let mut missing = missing_packages()?;
    if !node_is_there() {
        missing.extend(NODE_PACKAGES);
    }
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    say(&format!(
        "Installing Debian packages the build needs: {list}. This needs root."
    ));
    let mut step = Step::begin("Installing packages");
    let log = cache.log("packages");
    let mut install = vec!["apt-get", "install", "--yes", "--no-install-recommends"];
    install.extend(&missing);
    // The package lists of a fresh machine are empty or old; those of another may be good enough.
    run_logged(
        as_root(&["apt-get", "update"])?.env("LC_ALL", "C"),
        &log,
        &mut step,
    )?;
    run_logged(
        as_root(&install)?.env("DEBIAN_FRONTEND", "noninteractive"),
        &log,
        &mut step,
    )?;
    step.done();
    Ok(())
}

fn missing_packages() -> Result<Vec<&'static str>> {
    // dpkg-query fails when it knows nothing at all of a package, but prints the others.
    let output = Command::new("/usr/bin/dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(PACKAGES)
        .output()
        .context("dpkg-query could not be started")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    Ok(not_installed(&printed))
}

fn not_installed(printed: &str) -> Vec<&'static str> {
    let is_there = |package: &&&str| {
        printed
            .lines()
            .any(|line| line == format!("{package} installed"))
    };
    PACKAGES
        .iter()
        .filter(|package| !is_there(package))
        .copied()
        .collect()
}

/// Node 18 or newer, and npm.
fn node_is_there() -> bool {
    let version = output_of(Command::new("node").arg("--version")).unwrap_or_default();
    let major = version
        .trim()
        .trim_start_matches('v')
        .split('.')
        .next()
        .unwrap_or_default();
    major.parse::<u32>().is_ok_and(|major| major >= 18)
        && succeeds(Command::new("npm").arg("--version"))
}

/// A command run as root: as it is for root, through sudo for others.
fn as_root(words: &[&str]) -> Result<Command> {
    let is_root = output_of(Command::new("id").arg("-u"))?.trim() == "0";
    if is_root {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        return Ok(command);
    }
    // Ask for the password now, on the terminal: later, output goes to a log.
    let asked = Command::new("sudo").arg("--validate").status();
    if !asked.is_ok_and(|status| status.success()) {
        bail!(
            "root is needed and sudo did not give it. As root, run: {}",
            words.join(" ")
        );
    }
    let mut command = Command::new("sudo");
    command.args(words);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_is_missing() {
        assert_eq!(not_installed(""), PACKAGES);
        let all = PACKAGES
            .iter()
            .map(|package| format!("{package} installed\n"))
            .collect::<String>();
        assert!(not_installed(&all).is_empty());
        assert_eq!(
            not_installed(&all.replace("flex installed", "flex config-files")),
            ["flex"]
        );
        assert_eq!(
            not_installed(&all.replace("python3 installed\n", "")),
            ["python3"]
        );
    }
}
