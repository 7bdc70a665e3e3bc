//! The compilers of this machine, against those in the lock file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::KeyBuilder;
use crate::command::output_of;
use crate::lock::Inputs;
use crate::setup::Setup;

/// Compilers and what they link, as found on this machine.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// Folder of the Rust toolchain.
    pub sysroot: PathBuf,
    rust_version: String,
    /// Commit the Rust compiler was built from.
    pub rust_commit: String,
    /// First lines of `gcc --version` and `ld --version`: a machine without the pinned packages has other ones.
    c_compiler: String,
    linker: String,
    packages: BTreeMap<String, String>,
}

impl Toolchain {
    /// Asks the compilers. Installs what is missing first.
    ///
    /// # Errors
    /// If there is no Rust compiler, or no C compiler after the installation.
    pub fn of_this_machine(setup: &Setup) -> Result<Self> {
        if !PathBuf::from("/usr/bin/gcc").exists() {
            setup.packages()?;
        }
        let inputs = setup.inputs();
        // In the checkout, whose file says which compiler to use.
        let rustc = |words: &[&str]| {
            output_of(
                Command::new("rustc")
                    .args(words)
                    .current_dir(setup.project().root()),
            )
        };
        let about = rustc(&["-vV"])?;
        let field = |name: &str| {
            let value = about
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value
                .map(str::to_owned)
                .with_context(|| format!("rustc -vV prints no {name}"))
        };
        let first_line = |program: &str| -> Result<String> {
            let text = output_of(Command::new(program).arg("--version").env("LC_ALL", "C"))?;
            Ok(text.lines().next().unwrap_or_default().to_owned())
        };
        Ok(Self {
            sysroot: PathBuf::from(rustc(&["--print", "sysroot"])?.trim_end()),
            rust_version: field("release")?,
            rust_commit: field("commit-hash")?,
            c_compiler: first_line("/usr/bin/gcc")?,
            linker: first_line("/usr/bin/ld")?,
            packages: installed(inputs.host.keys().map(String::as_str))?,
        })
    }

    /// What differs from the pinned versions, one sentence without a full stop each.
    pub fn differences(&self, inputs: &Inputs) -> Vec<String> {
        let mut differences = Vec::new();
        let (got, expected) = (&self.rust_version, &inputs.rust.version);
        if got != expected || self.rust_commit != inputs.rust.commit {
            let (commit, pinned) = (&self.rust_commit, &inputs.rust.commit);
            differences.push(format!(
                "rustc is {got} ({commit}), pinned is {expected} ({pinned})"
            ));
        }
        for (package, expected) in &inputs.host {
            match self.packages.get(package) {
                Some(got) if got == expected => {}
                Some(got) => differences.push(format!(
                    "the package {package} is {got}, pinned is {expected}"
                )),
                None => differences.push(format!(
                    "the package {package} is not there, pinned is {expected}"
                )),
            }
        }
        differences
    }

    /// Everything that may shape the image's bytes.
    pub(super) fn add_to(&self, key: KeyBuilder) -> KeyBuilder {
        let key = key
            .value(
                "rustc",
                format!("{} {}", self.rust_version, self.rust_commit),
            )
            .value("gcc", &self.c_compiler)
            .value("ld", &self.linker);
        self.packages
            .iter()
            .fold(key, |key, (name, version)| key.value(name, version))
    }
}

/// Versions of those packages that are installed.
fn installed<'a>(names: impl Iterator<Item = &'a str>) -> Result<BTreeMap<String, String>> {
    let output = Command::new("/usr/bin/dpkg-query")
        .args([
            "--show",
            "--showformat",
            "${Package} ${Version} ${db:Status-Status}\n",
        ])
        .args(names)
        .output()
        .context("dpkg-query could not be started")?;
    // It fails if it does not know one of them, and prints the others.
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

fn parse(printed: &str) -> BTreeMap<String, String> {
    let words = printed
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    words
        .filter_map(|words| match words.as_slice() {
            [name, version, "installed"] => Some(((*name).to_owned(), (*version).to_owned())),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn machine(printed: &str) -> (Toolchain, Inputs) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../inputs.lock");
        let inputs = Inputs::read(&path).unwrap();
        let toolchain = Toolchain {
            sysroot: PathBuf::new(),
            rust_version: inputs.rust.version.clone(),
            rust_commit: inputs.rust.commit.clone(),
            c_compiler: String::new(),
            linker: String::new(),
            packages: parse(printed),
        };
        (toolchain, inputs)
    }

    fn pinned() -> String {
        let (_, inputs) = machine("");
        inputs
            .host
            .iter()
            .map(|(name, version)| format!("{name} {version} installed\n"))
            .collect()
    }

    #[test]
    fn the_pinned_machine_has_no_differences() {
        let (toolchain, inputs) = machine(&pinned());
        assert_eq!(toolchain.differences(&inputs), Vec::<String>::new());
    }

    #[test]
    fn names_each_difference() {
        let text = pinned()
            .replace("binutils 2.40-2", "binutils 2.44-3")
            .replace("flex 2.6.4-8.2 installed", "flex  not-installed");
        let (mut toolchain, inputs) = machine(&text);
        toolchain.rust_version = "1.96.0".to_owned();
        let differences = toolchain.differences(&inputs).join("\n");
        assert!(differences.contains("rustc is 1.96.0"), "{differences}");
        assert!(
            differences.contains("binutils is 2.44-3, pinned is 2.40-2"),
            "{differences}"
        );
        assert!(differences.contains("flex is not there"), "{differences}");
        assert_eq!(differences.lines().count(), 3);
    }
}
