//! The compiler of components in JavaScript, installed by npm from `reproducible/components`.

use std::path::PathBuf;

use anyhow::Result;

use super::{Setup, npm::NpmFolder};

const FOLDER: NpmFolder = NpmFolder {
    name: "component-tools",
    source: "reproducible/components",
    files: &["package.json", "package-lock.json", "componentize.mjs"],
    sentence: "Installing the compiler of JavaScript components",
};

pub fn install(setup: &Setup) -> Result<PathBuf> {
    FOLDER.install(setup, "", |_| Ok(()))
}
