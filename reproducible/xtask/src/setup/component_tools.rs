//! The compilers of data components: JavaScript by npm from `reproducible/components`, Python by a wheel. Rust needs none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Setup, npm::NpmFolder, wheel};
use crate::cache::KeyBuilder;
use crate::command::run_logged;
use crate::progress::Step;

/// Where the compilers are.
#[derive(Clone, Debug)]
pub struct ComponentTools {
    javascript: PathBuf,
    python: PathBuf,
}

const NPM: NpmFolder = NpmFolder {
    name: "component-tools",
    source: "reproducible/components",
    files: &["package.json", "package-lock.json", "componentize.mjs"],
    sentence: "Installing the compiler of JavaScript components",
};

const WORLD: &str = "newton-provider";

impl ComponentTools {
    /// The command that makes the component `out` of the world in `wit` from one JavaScript module.
    #[must_use]
    pub fn javascript(&self, module: &Path, wit: &Path, out: &Path) -> Command {
        let mut node = Command::new("node");
        node.arg(self.javascript.join("componentize.mjs"))
            .args([module, wit, out]);
        node
    }

    /// The same from the Python module `name` in `folder`.
    #[must_use]
    pub fn python(&self, folder: &Path, name: &str, wit: &Path, out: &Path) -> Command {
        let mut python = Command::new("/usr/bin/python3");
        python
            .args(["-c", "import componentize_py; componentize_py.script()"])
            .arg("-d")
            .arg(wit)
            .args(["-w", WORLD, "componentize", "-p"])
            .arg(folder)
            .arg(name)
            .arg("-o")
            .arg(out)
            .env("PYTHONPATH", &self.python)
            // The folder is the source's: nothing is written there.
            .env("PYTHONDONTWRITEBYTECODE", "1");
        python
    }
}

pub fn install(setup: &Setup) -> Result<ComponentTools> {
    Ok(ComponentTools {
        javascript: NPM.install(setup, "", |_| Ok(()))?,
        python: install_python(setup)?,
    })
}

fn install_python(setup: &Setup) -> Result<PathBuf> {
    let pinned = &setup.inputs().componentize_py;
    let key = KeyBuilder::new()
        .value("recipe", include_str!("component_tools.rs"))
        .value("wheel", &pinned.sha256)
        .finish();
    setup
        .cache()
        .find_or_build("componentize-py", &key, |place| {
            setup.packages()?;
            let work = place.join("work");
            fs::create_dir_all(&work).with_context(|| work.display().to_string())?;
            let wheel = wheel::fetch(setup.cache(), pinned, &work)?;
            let mut step = Step::begin("Unpacking the compiler of Python components");
            let mut unpack = Command::new("/usr/bin/python3");
            unpack.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(place);
            run_logged(
                &mut unpack,
                &setup.cache().log("componentize-py"),
                &mut step,
            )?;
            step.done();
            fs::remove_dir_all(&work).with_context(|| work.display().to_string())
        })
}
