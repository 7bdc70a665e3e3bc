//! Static programs of this workspace, compiled so that only their sources shape their bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::sources::Sources;
use super::toolchain::Toolchain;
use super::workshop::Workshop;
use crate::cache::{KeyBuilder, make_folder, remove_folder};
use crate::command::{output_of, run_logged};
use crate::progress::Step;
use crate::setup::Setup;

/// The appliance's development backend carries this text, so that a program can be searched for it.
pub const DEVELOPMENT_MARKER: &str = "NEWTON-DEVELOPMENT-PROCESS-BACKEND";

/// Static glibc, position independent: runs on a bare kernel, at a random address.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "enclave";

/// A program to compile.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// The workspace's package, whose program has the same name.
    pub package: &'a str,
    /// Its sources.
    pub sources: &'a Sources,
    /// Features of this project's crates that may be on.
    pub allowed_features: &'a [String],
}

/// The registry crates of a program, unpacked and with the hashes of their lock file checked by cargo, in a folder of
/// the cache.
pub fn vendored(setup: &Setup, program: Program<'_>) -> Result<PathBuf> {
    let key = KeyBuilder::new()
        .value("recipe", "cargo vendor --versioned-dirs")
        .value("crates", program.sources.external_key().to_string())
        .finish();
    let place = setup.cache().find_or_build("vendor", &key, |place| {
        let mut step = Step::begin(&format!(
            "Downloading the crates {} is made of",
            program.package
        ));
        let tree = place.join("tree");
        program.sources.write_to(&tree)?;
        let mut vendor = Command::new("cargo");
        vendor
            .args(["vendor", "--quiet", "--versioned-dirs", "--manifest-path"])
            .arg(tree.join("Cargo.toml"))
            .arg(place.join("crates"))
            // In the checkout, whose file says which cargo to use.
            .current_dir(setup.project().root());
        run_logged(&mut vendor, &setup.cache().log("vendor"), &mut step)?;
        make_folder(&place.join("crates"))?;
        program.sources.check_lock(&tree)?;
        remove_folder(&tree)?;
        step.done();
        Ok(())
    })?;
    Ok(place.join("crates"))
}

/// Compiles a program in a workshop and puts it at `result`. What the workshop has from an earlier build of the same
/// program is used again where cargo finds it unchanged.
pub fn build(
    setup: &Setup,
    toolchain: &Toolchain,
    workshop: &Workshop,
    program: Program<'_>,
    result: &Path,
    log: &Path,
) -> Result<()> {
    let vendored = vendored(setup, program)?;
    let mut step = Step::begin(&format!("Compiling {} for the enclave", program.package));
    let tree = workshop.folder.join("tree");
    program.sources.write_to(&tree)?;
    let crates = workshop.folder.join("crates");
    link(&vendored, &crates)?;
    let home = workshop.folder.join("cargo-home");
    make_folder(&home)?;
    let config = format!(
        "[source.crates-io]\nreplace-with = \"vendored\"\n[source.vendored]\ndirectory = {:?}\n[net]\noffline = true\n",
        crates.display().to_string()
    );
    fs::write(home.join("config.toml"), config)
        .context("cargo's configuration cannot be written")?;
    let target = workshop.folder.join("target");

    let cargo = || {
        let mut cargo = workshop.command("cargo", Some(&toolchain.sysroot.join("bin")));
        cargo
            .current_dir(&tree)
            .env("CARGO_HOME", &home)
            .env("CARGO_TARGET_DIR", &target)
            .env("CARGO_INCREMENTAL", "0")
            .env("CARGO_BUILD_JOBS", workshop.conditions.jobs.to_string())
            .env(
                "CARGO_ENCODED_RUSTFLAGS",
                rust_flags(toolchain, &tree, &crates, &target).join("\u{1f}"),
            )
            .env("CFLAGS", c_flags(&tree, &crates, &target).join(" "));
        cargo
    };
    let which = [
        "--offline",
        "--no-default-features",
        "--target",
        TARGET,
        "--package",
        program.package,
    ];
    let mut features = cargo();
    features.arg("tree").args(which).args([
        "--edges",
        "normal,build,features",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    check_features(&output_of(&mut features)?, program.allowed_features)?;
    let mut compile = cargo();
    compile
        .arg("build")
        .args(which)
        .args(["--profile", PROFILE, "--bin", program.package]);
    run_logged(&mut compile, log, &mut step)?;
    program.sources.check_lock(&tree)?;

    let binary = target.join(TARGET).join(PROFILE).join(program.package);
    let bytes = fs::read(&binary).with_context(|| format!("cargo left no {}", binary.display()))?;
    check_program(program.package, &bytes)?;
    check_paths(program.package, &bytes, &workshop.folder)?;
    fs::write(result, bytes).with_context(|| format!("{} cannot be written", result.display()))?;
    step.done();
    Ok(())
}

/// The same names for everything, wherever it lies.
fn rust_flags(toolchain: &Toolchain, tree: &Path, crates: &Path, target: &Path) -> Vec<String> {
    let library = toolchain.sysroot.join("lib/rustlib/src/rust");
    let published = PathBuf::from(format!("/rustc/{}", toolchain.rust_commit));
    let remap = |(from, to): (&Path, &Path)| {
        format!("--remap-path-prefix={}={}", from.display(), to.display())
    };
    let mut flags = vec![
        "-Ctarget-feature=+crt-static".to_owned(),
        // The system call itself: the default backend looks it up at run time, does not find it in a static binary, and
        // opens /dev/random, which the workers' filter refuses.
        "--cfg=getrandom_backend=\"linux_getrandom\"".to_owned(),
        "-Crelocation-model=pie".to_owned(),
    ];
    // The standard library's sources have their published name already, but for a toolchain that brings them along.
    flags.extend([(library.as_path(), published.as_path())].map(remap));
    flags.extend(names(tree, crates, target).map(|(from, to)| remap((from, Path::new(to)))));
    flags
}

fn c_flags(tree: &Path, crates: &Path, target: &Path) -> Vec<String> {
    let map = |(from, to): (&Path, &str)| format!("-ffile-prefix-map={}={to}", from.display());
    names(tree, crates, target).map(map).into()
}

fn names<'a>(tree: &'a Path, crates: &'a Path, target: &'a Path) -> [(&'a Path, &'static str); 3] {
    [(tree, "/newton"), (crates, "/crates"), (target, "/target")]
}

/// Makes `link` lead to `folder`.
fn link(folder: &Path, link: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|there| there == folder) {
        return Ok(());
    }
    if link.is_symlink() {
        fs::remove_file(link).with_context(|| format!("{} cannot be removed", link.display()))?;
    }
    std::os::unix::fs::symlink(folder, link)
        .with_context(|| format!("{} cannot be made", link.display()))
}

/// Refuses features of our own crates that are not named as allowed. `tree` is what `cargo tree --edges features` prints.
fn check_features(tree: &str, allowed: &[String]) -> Result<()> {
    for line in tree.lines() {
        let Some((name, rest)) = line.split_once(' ') else {
            continue;
        };
        // `newton-x feature "y"`; a crate's default feature stands for others, which have lines of their own.
        let Some(feature) = rest
            .strip_prefix("feature \"")
            .and_then(|rest| rest.split('"').next())
        else {
            continue;
        };
        let full = format!("{name}/{feature}");
        if name.starts_with("newton-") && feature != "default" && !allowed.contains(&full) {
            bail!(
                "the feature {full} would be compiled into the image; image/image.toml does not allow it"
            );
        }
    }
    Ok(())
}

/// Refuses a program that is not what the enclave runs.
fn check_program(name: &str, bytes: &[u8]) -> Result<()> {
    if contains(bytes, DEVELOPMENT_MARKER.as_bytes()) {
        bail!("{name} carries the development backend (it contains {DEVELOPMENT_MARKER})");
    }
    // Program headers of a 64-bit ELF: an interpreter would have to be in the image too.
    let headers = elf_program_headers(bytes)
        .with_context(|| format!("{name} is not a 64-bit ELF program"))?;
    const INTERPRETER: u32 = 3;
    if headers.contains(&INTERPRETER) {
        bail!("{name} is linked dynamically, expected a static program");
    }
    Ok(())
}

/// Refuses a program that knows where it was built.
fn check_paths(name: &str, bytes: &[u8], folder: &Path) -> Result<()> {
    let path = folder.as_os_str().as_encoded_bytes();
    let Some(at) = position(bytes, path) else {
        return Ok(());
    };
    let end = bytes.len().min(at + path.len() + 100);
    let text: String = bytes[at..end]
        .iter()
        .take_while(|byte| byte.is_ascii_graphic())
        .map(|byte| char::from(*byte))
        .collect();
    bail!("{name} contains a path of the machine it was built on: {text}");
}

fn elf_program_headers(bytes: &[u8]) -> Option<Vec<u32>> {
    if bytes.get(..5)? != b"\x7fELF\x02" {
        return None;
    }
    let number = |at: usize, len: usize| -> Option<u64> {
        let field = bytes.get(at..at + len)?;
        Some(
            field
                .iter()
                .rev()
                .fold(0, |all, byte| all << 8 | u64::from(*byte)),
        )
    };
    let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    (0..count)
        .map(|index| {
            let at = usize::try_from(start.checked_add(size * index)?).ok()?;
            u32::try_from(number(at, 4)?).ok()
        })
        .collect()
}

/// Whether `wanted` stands anywhere in `bytes`.
pub(super) fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    position(bytes, wanted).is_some()
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn this_program() -> Vec<u8> {
        fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn only_allowed_features_of_our_crates_pass() {
        let tree = "newton-appliance v0.1.0 (/x)\nnewton-types feature \"default\"\nserde feature \"process\"\n\
                    newton-keys feature \"seal\" (*)\n";
        check_features(tree, &["newton-keys/seal".to_owned()]).unwrap();
        let error = check_features(tree, &[]).unwrap_err().to_string();
        assert!(error.contains("newton-keys/seal"), "{error}");
        let process = format!("{tree}newton-appliance feature \"process\" (command-line)\n");
        let error = check_features(&process, &["newton-keys/seal".to_owned()])
            .unwrap_err()
            .to_string();
        assert!(error.contains("newton-appliance/process"), "{error}");
    }

    #[test]
    fn the_development_backend_is_found() {
        // This test program carries the marker itself: it names it.
        let error = check_program("test", &this_program())
            .unwrap_err()
            .to_string();
        assert!(error.contains("development backend"), "{error}");
    }

    #[test]
    fn dynamic_programs_are_refused() {
        let bytes = fs::read("/bin/sh").unwrap();
        let error = check_program("sh", &bytes).unwrap_err().to_string();
        assert!(error.contains("linked dynamically"), "{error}");
        assert!(
            check_program("text", b"#!/bin/sh")
                .unwrap_err()
                .to_string()
                .contains("not a 64-bit ELF")
        );
    }

    #[test]
    fn paths_of_the_machine_are_found() {
        let bytes = b"\0\0at /home/somebody/tree/src/lib.rs\0more";
        check_paths("program", bytes, Path::new("/home/nobody")).unwrap();
        let error = check_paths("program", bytes, Path::new("/home/somebody"))
            .unwrap_err()
            .to_string();
        assert!(error.ends_with("/home/somebody/tree/src/lib.rs"), "{error}");
    }
}
