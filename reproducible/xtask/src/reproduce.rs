//! Building the image a second time, elsewhere and otherwise, and comparing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::cache::{make_folder, remove_folder};
use crate::command::output_of;
use crate::compare::{Comparison, compare};
use crate::image::{self, Conditions, ImageConfig, Part, PartFiles, Toolchain, assemble};
use crate::progress::{Step, say, seconds};
use crate::project::Project;
use crate::setup::Setup;

/// A change of one byte in one input of the second build, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mutation {
    /// In the kernel's options.
    Kernel,
    /// In the command line.
    CommandLine,
    /// In init's source.
    Init,
    /// In the optimisation level of the appliance.
    Appliance,
    /// In the image's name.
    Metadata,
}

/// What a reproduction found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether the measured parts are the same: PCR0, PCR1 and PCR2.
    pub reproduced: bool,
    /// Whether the unmeasured parts are the same too.
    pub identical: bool,
    /// Both measurements and what differs.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// Where both halves of each difference are kept, if there is one.
    pub kept_in: Option<PathBuf>,
    /// How this machine's compilers differ from the pinned ones.
    pub toolchain_differences: Vec<String>,
    /// Seconds each part took in the second build.
    pub build_seconds: Vec<(&'static str, u64)>,
}

/// Builds the image from a copy of the tree, without what the cache has of it, and compares it with the first build or,
/// if one is given, with the image file `against`. Only downloads, whose hashes are checked, are shared.
///
/// With a mutation, only the part whose input changes is built again; the others are the first build's.
///
/// # Errors
/// If a build fails or a file cannot be read. A difference is not an error.
pub fn reproduce(
    setup: &Setup,
    against: Option<&Path>,
    mutation: Option<Mutation>,
) -> Result<Report> {
    let toolchain = Toolchain::of_this_machine(setup)?;
    let first = match against {
        Some(path) => {
            fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?
        }
        None => {
            let image = image::build(setup)?;
            fs::read(&image.eif)
                .with_context(|| format!("{} cannot be read", image.eif.display()))?
        }
    };

    let cache = setup.cache();
    let _lock = cache.lock("reproduce")?;
    // A name of another length than the first build's folders: a path that leaks moves what stands behind it.
    let elsewhere = cache
        .root()
        .join("tmp/reproduce/a-clean-copy-in-another-place");
    remove_folder(&elsewhere)?;
    let copy = elsewhere.join("tree");
    copy_tree(setup.project(), &copy)?;
    if let Some(mutation) = mutation {
        mutate(&copy, mutation)?;
    }
    let second = Setup::of(Project::at(&copy)?, cache.clone())?;
    let results = elsewhere.join("results");
    make_folder(&results)?;
    let mut build_seconds = Vec::new();
    let mut part = |part: Part| -> Result<PathBuf> {
        if mutation.is_some_and(|mutation| changed_part(mutation) != Some(part)) {
            return Ok(image::build(setup)?.parts.of(part).to_owned());
        }
        let (begun, result) = (Instant::now(), results.join(part.name()));
        let folder = elsewhere.join("build").join(part.name());
        image::build_anew(
            &second,
            &toolchain,
            part,
            &folder,
            Conditions::unusual(),
            &result,
        )?;
        build_seconds.push((part.name(), begun.elapsed().as_secs()));
        Ok(result)
    };
    let parts = PartFiles {
        kernel: part(Part::Kernel)?,
        init: part(Part::Init)?,
        appliance: part(Part::Appliance)?,
    };
    let bytes = assemble(
        &ImageConfig::read(second.project())?,
        second.inputs(),
        &parts,
    )?;

    let comparison = compare(&first, &bytes)?;
    let kept_in = if comparison.differences.is_empty() {
        None
    } else {
        let folder = cache
            .root()
            .join(format!("differences/{}", std::process::id()));
        remove_folder(&folder)?;
        comparison.keep(&folder)?;
        Some(folder)
    };
    remove_folder(&elsewhere)?;
    Ok(Report {
        reproduced: comparison.same_measurements(),
        identical: comparison.differences.is_empty(),
        comparison,
        kept_in,
        toolchain_differences: toolchain.differences(setup.inputs()),
        build_seconds,
    })
}

impl Report {
    /// Says what was found.
    pub fn say(&self) {
        for (part, time) in &self.build_seconds {
            say(&format!(
                "The second build of {part} took {}.",
                seconds(std::time::Duration::from_secs(*time))
            ));
        }
        for difference in &self.comparison.differences {
            let weight = if difference.measured {
                ""
            } else {
                " (not measured)"
            };
            say(&format!(
                "Different: {} {}{weight}.",
                difference.part, difference.how
            ));
        }
        if let Some(folder) = &self.kept_in {
            say(&format!(
                "Both halves of what differs are in {}.",
                folder.display()
            ));
        }
        for difference in &self.toolchain_differences {
            say(&format!(
                "Note: {difference}. Images built here are not those of a machine with the pinned tools."
            ));
        }
    }
}

/// Files git tracks, and those it does not and is not told to ignore.
fn copy_tree(project: &Project, to: &Path) -> Result<()> {
    let step = Step::begin("Copying the sources to another folder");
    let root = project.root();
    let mut list = Command::new("git");
    list.args([
        "-c",
        &format!("safe.directory={}", root.display()),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let list =
        output_of(list.current_dir(root)).context("git must say which files belong to the tree")?;
    let mut copied = 0;
    for path in list.split('\0').filter(|path| !path.is_empty()) {
        let (from, place) = (root.join(path), to.join(path));
        // Deleted but still tracked, or a link to a folder.
        if !from.is_file() {
            continue;
        }
        if let Some(above) = place.parent() {
            make_folder(above)?;
        }
        fs::copy(&from, &place).with_context(|| format!("{path} cannot be copied"))?;
        copied += 1;
    }
    if copied == 0 {
        bail!("git lists no files in {}", root.display());
    }
    step.done();
    Ok(())
}

fn changed_part(mutation: Mutation) -> Option<Part> {
    match mutation {
        Mutation::Kernel => Some(Part::Kernel),
        Mutation::Init => Some(Part::Init),
        Mutation::Appliance => Some(Part::Appliance),
        Mutation::CommandLine | Mutation::Metadata => None,
    }
}

/// Changes one byte of one file.
fn mutate(tree: &Path, mutation: Mutation) -> Result<()> {
    let (file, from, to) = match mutation {
        Mutation::Kernel => (
            "image/kernel/config",
            "CONFIG_PANIC_TIMEOUT=-1",
            "CONFIG_PANIC_TIMEOUT=-2",
        ),
        Mutation::CommandLine => ("image/image.toml", "panic=-1", "panic=-2"),
        Mutation::Init => (
            "image/init/src/main.rs",
            "the enclave ends",
            "the enclave endz",
        ),
        Mutation::Appliance => ("Cargo.toml", "opt-level = 3", "opt-level = 2"),
        Mutation::Metadata => ("image/image.toml", "newton-enclave", "newton-enclavf"),
    };
    let path = tree.join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("{file} cannot be read"))?;
    if !text.contains(from) {
        bail!("{file} has no {from:?} to change");
    }
    say(&format!(
        "Changing one byte in the copy's {file}: {from} becomes {to}."
    ));
    fs::write(&path, text.replacen(from, to, 1))
        .with_context(|| format!("{file} cannot be written"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn this_tree() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn every_mutation_changes_one_byte() {
        for mutation in [
            Mutation::Kernel,
            Mutation::CommandLine,
            Mutation::Init,
            Mutation::Appliance,
            Mutation::Metadata,
        ] {
            let copy = tempfile::tempdir().unwrap();
            let files = [
                "image/kernel/config",
                "image/image.toml",
                "image/init/src/main.rs",
                "Cargo.toml",
            ];
            for file in files {
                make_folder(copy.path().join(file).parent().unwrap()).unwrap();
                fs::copy(this_tree().join(file), copy.path().join(file)).unwrap();
            }
            mutate(copy.path(), mutation).unwrap();
            let changed: usize = files
                .iter()
                .map(|file| {
                    let (before, after) = (
                        fs::read(this_tree().join(file)).unwrap(),
                        fs::read(copy.path().join(file)).unwrap(),
                    );
                    assert_eq!(before.len(), after.len());
                    before
                        .iter()
                        .zip(&after)
                        .filter(|(one, other)| one != other)
                        .count()
                })
                .sum();
            assert_eq!(changed, 1, "{mutation:?}");
        }
    }

    #[test]
    fn the_copy_has_the_sources_and_not_what_git_ignores() {
        let copy = tempfile::tempdir().unwrap();
        let project = Project::at(&this_tree().canonicalize().unwrap()).unwrap();
        copy_tree(&project, copy.path()).unwrap();
        assert!(copy.path().join("image/init/src/main.rs").is_file());
        assert!(copy.path().join("Cargo.lock").is_file());
        assert!(!copy.path().join("target").exists() && !copy.path().join(".git").exists());
    }
}
