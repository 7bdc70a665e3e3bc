//! The kernel: Debian's source, `make tinyconfig`, and the options of `image/kernel/config`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::workshop::Workshop;
use crate::cache::{make_folder, remove_folder};
use crate::command::run_logged;
use crate::progress::Step;
use crate::setup::Setup;

/// What would otherwise be the time, the user, the machine and a counter.
const FIXED: &[(&str, &str)] = &[
    ("KBUILD_BUILD_TIMESTAMP", "@0"),
    ("KBUILD_BUILD_USER", "newton"),
    ("KBUILD_BUILD_HOST", "newton"),
    ("KBUILD_BUILD_VERSION", "1"),
];

/// Compiles the kernel in a workshop and puts it at `result`.
pub fn build(setup: &Setup, workshop: &Workshop, result: &Path, log: &Path) -> Result<()> {
    let package = setup.kernel_source()?;
    let options = fs::read_to_string(setup.project().path("image/kernel/config"))
        .context("image/kernel/config cannot be read")?;
    let version = &setup.inputs().kernel.version;
    let mut step = Step::begin(&format!(
        "Building the enclave's kernel, Linux {version} (some minutes)"
    ));
    let (source, out) = (workshop.folder.join("linux"), workshop.folder.join("out"));
    for folder in [&source, &out] {
        remove_folder(folder)?;
        make_folder(folder)?;
    }
    let unpacked = workshop.folder.join("package");
    let mut unpack = Command::new("dpkg-deb");
    run_logged(
        unpack.arg("--extract").arg(&package).arg(&unpacked),
        log,
        &mut step,
    )?;
    let archive = unpacked
        .join("usr/src")
        .join(format!("{}.tar.xz", setup.inputs().kernel.package));
    let mut tar = workshop.command("tar", None);
    tar.args([
        "--extract",
        "--strip-components=1",
        "--no-same-owner",
        "--file",
    ])
    .arg(&archive)
    .arg("--directory")
    .arg(&source);
    run_logged(&mut tar, log, &mut step)?;

    let make = |target: &str| {
        let mut make = workshop.command("make", None);
        make.arg("--silent")
            .arg(format!("--jobs={}", workshop.conditions.jobs))
            .arg("-C")
            .arg(&source)
            .arg(format!("O={}", out.display()))
            .arg("ARCH=x86_64")
            .arg(target)
            .envs(FIXED.iter().copied());
        make
    };
    run_logged(&mut make("tinyconfig"), log, &mut step)?;
    let config = out.join(".config");
    let tiny = fs::read_to_string(&config).context("the kernel's configuration cannot be read")?;
    fs::write(&config, merged(&tiny, &options))
        .context("the kernel's configuration cannot be written")?;
    run_logged(&mut make("olddefconfig"), log, &mut step)?;
    let resulting =
        fs::read_to_string(&config).context("the kernel's configuration cannot be read")?;
    check(&options, &resulting)?;
    run_logged(&mut make("bzImage"), log, &mut step)?;
    fs::copy(out.join("arch/x86/boot/bzImage"), result).context("make left no kernel")?;
    for folder in [&source, &out, &unpacked] {
        remove_folder(folder)?;
    }
    step.done();
    Ok(())
}

/// A configuration with the lines of `options` in place of those about the same options.
fn merged(config: &str, options: &str) -> String {
    let names: Vec<_> = options.lines().filter_map(option_of).collect();
    let kept = config
        .lines()
        .filter(|line| option_of(line).is_none_or(|name| !names.contains(&name)));
    kept.chain(options.lines())
        .fold(String::new(), |all, line| all + line + "\n")
}

/// Refuses a configuration that does not have every wanted option, or has modules: a dependency may have undone one.
fn check(options: &str, config: &str) -> Result<()> {
    let mut wrong = Vec::new();
    for wanted in options.lines() {
        let Some(name) = option_of(wanted) else {
            continue;
        };
        let got = config.lines().find(|line| option_of(line) == Some(name));
        let is_as_wanted = match got {
            Some(line) => line == wanted,
            // An option whose dependencies are off is not listed, which is as good as off.
            None => wanted.ends_with("is not set"),
        };
        if !is_as_wanted {
            wrong.push(format!("{wanted:?} became {:?}", got.unwrap_or("nothing")));
        }
    }
    if config.lines().any(|line| line == "CONFIG_MODULES=y") {
        wrong.push("CONFIG_MODULES is on".to_owned());
    }
    if !wrong.is_empty() {
        bail!(
            "the kernel's configuration is not as image/kernel/config wants it: {}",
            wrong.join("; ")
        );
    }
    Ok(())
}

/// The option a line of a configuration is about: `CONFIG_X=…` or `# CONFIG_X is not set`.
fn option_of(line: &str) -> Option<&str> {
    match line.strip_prefix("# ") {
        Some(rest) => rest
            .strip_suffix(" is not set")
            .filter(|name| name.starts_with("CONFIG_")),
        None => line
            .split_once('=')
            .map(|(name, _)| name)
            .filter(|name| name.starts_with("CONFIG_")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OPTIONS: &str = include_str!("../../../../image/kernel/config");

    #[test]
    fn lines_are_told_apart() {
        assert_eq!(option_of("CONFIG_NET=y"), Some("CONFIG_NET"));
        assert_eq!(
            option_of("# CONFIG_MODULES is not set"),
            Some("CONFIG_MODULES")
        );
        assert_eq!(option_of("# CONFIG_ words about an option"), None);
        assert_eq!(option_of("# a comment"), None);
        assert_eq!(option_of(""), None);
    }

    /// What the enclave cannot do without, and what it must not have, whatever else the file says.
    #[test]
    fn the_options_of_this_tree_are_the_right_ones() {
        let lines: Vec<_> = OPTIONS.lines().collect();
        for on in [
            "NSM",
            "VIRTIO_VSOCKETS",
            "VIRTIO_MMIO",
            "SECCOMP",
            "SECCOMP_FILTER",
            "PVH",
            "DEVTMPFS",
            "SMP",
            "FUTEX",
        ] {
            assert!(lines.contains(&format!("CONFIG_{on}=y").as_str()), "{on}");
        }
        for off in [
            "MODULES",
            "PCI",
            "ACPI",
            "KEXEC",
            "USER_NS",
            "BPF_SYSCALL",
            "IO_URING",
            "NETDEVICES",
        ] {
            assert!(
                lines.contains(&format!("# CONFIG_{off} is not set").as_str()),
                "{off}"
            );
        }
        let mut names: Vec<_> = OPTIONS.lines().filter_map(option_of).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "an option is named twice");
        let unclear = OPTIONS
            .lines()
            .filter(|line| line.starts_with("CONFIG_") && option_of(line).is_none());
        assert_eq!(unclear.count(), 0);
    }

    #[test]
    fn options_replace_what_was_there() {
        let config = merged(
            "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=3\n# words\n",
            "# CONFIG_A is not set\nCONFIG_B=y\n",
        );
        assert_eq!(
            config,
            "CONFIG_C=3\n# words\n# CONFIG_A is not set\nCONFIG_B=y\n"
        );
    }

    #[test]
    fn an_option_that_was_undone_is_named() {
        let options = "CONFIG_A=y\n# CONFIG_B is not set\n# CONFIG_C is not set\n";
        check(options, "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_D=y\n").unwrap();
        let error = check(options, "# CONFIG_A is not set\nCONFIG_C=y\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("CONFIG_A") && error.contains("CONFIG_C") && !error.contains("CONFIG_B"),
            "{error}"
        );
        assert!(
            check(options, "CONFIG_B=y\n")
                .unwrap_err()
                .to_string()
                .contains("\"CONFIG_A=y\" became \"nothing\"")
        );
        assert!(
            check("", "CONFIG_MODULES=y\n")
                .unwrap_err()
                .to_string()
                .contains("CONFIG_MODULES is on")
        );
    }
}
