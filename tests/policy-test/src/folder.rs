//! What stands in a policy's folder.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::recorded::Answer;

/// `cases.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cases {
    /// `<package>.<rule>`.
    pub entrypoint: String,
    /// Seconds: the reference block's time.
    pub now: u64,
    /// The data components in the order of the template, by name.
    #[serde(default)]
    pub components: Vec<Component>,
    /// The table.
    pub cases: Vec<Case>,
}

/// A data component. Its documents are files of the folder, named after it: `<prefix>.params.json` and so on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// The key of recorded outputs.
    pub name: String,
    /// Where its documents are; `component` where nothing is said.
    #[serde(default = "component")]
    pub documents: String,
    /// Source in JavaScript, Python or Rust, relative to the folder.
    pub source: PathBuf,
    /// Built WASM that stands in the folder.
    pub wasm: Option<PathBuf>,
}

fn component() -> String {
    "component".to_owned()
}

/// One line of the table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// File in `intents/`, without `.json`.
    pub intent: String,
    /// Instead of `params.json`.
    pub params: Option<Value>,
    /// `wasm_args`; `{}` where nothing is said.
    pub wasm_args: Option<Value>,
    /// Recorded outputs by component.
    #[serde(default)]
    pub outputs: BTreeMap<String, Value>,
    /// Recorded answers of servers: then the components run themselves.
    pub run: Option<Vec<Answer>>,
    /// Whether the components find their secrets.
    #[serde(default = "yes")]
    pub secrets: bool,
    /// The decision; or `{"error": "<name>"}`.
    pub expect: Value,
}

const fn yes() -> bool {
    true
}

/// A file's text.
///
/// # Errors
/// With its path.
pub fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// A file's bytes, if it exists.
///
/// # Errors
/// If it exists and cannot be read.
pub fn optional(path: &Path) -> Result<Option<Vec<u8>>> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    Ok(Some(bytes))
}

impl Cases {
    /// Reads `cases.json`.
    ///
    /// # Errors
    /// With the path and what is wrong there.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("cases.json");
        let cases: Self =
            serde_json::from_str(&text(&path)?).with_context(|| path.display().to_string())?;
        for case in &cases.cases {
            for name in case.outputs.keys() {
                ensure!(
                    cases
                        .components
                        .iter()
                        .any(|component| component.name == *name),
                    "{}: {}: there is no component {name}",
                    path.display(),
                    case.name
                );
            }
        }
        Ok(cases)
    }
}
