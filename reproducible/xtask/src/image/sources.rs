//! What one program of the workspace is made of: the crates it depends on, with nothing of the others.
//!
//! A program is built in a copy of the tree that has only those crates, without their tests and development
//! dependencies. So what does not enter the image cannot change it, and what does is exactly what the key covers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

use crate::cache::{Key, KeyBuilder, make_folder, remove_folder};
use crate::project::Project;

/// Paths from the tree's root by the crate that includes them.
pub type Inputs = BTreeMap<String, Vec<String>>;

/// A crate of a registry, as the lock file has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Locked {
    name: String,
    version: String,
    checksum: String,
}

/// The sources of one program.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Every file by its path in the tree; manifests are cut to what matters.
    files: BTreeMap<String, Vec<u8>>,
    /// Crates of registries.
    external: BTreeSet<Locked>,
    /// The whole lock file.
    lock: String,
}

/// Folders of a crate that are not compiled into another.
const LEFT_OUT: &[&str] = &[
    "tests",
    "benches",
    "examples",
    "fuzz",
    "target",
    "node_modules",
    "out",
];
/// Tables of a manifest that do not matter for a dependency.
const LEFT_OUT_TABLES: &[&str] = &["dev-dependencies", "test", "bench", "example", "lints"];
const LOCK: &str = "Cargo.lock";

impl Sources {
    /// The sources of the workspace's package `package`. Beside what is in their folders, crates may include the files that
    /// `inputs` names for them.
    ///
    /// # Errors
    /// If a manifest or the lock file cannot be read, or a dependency is neither in the workspace nor in a registry.
    pub fn of(project: &Project, package: &str, inputs: &Inputs) -> Result<Self> {
        let root = project.root();
        let mut manifest = read_table(&root.join("Cargo.toml"))?;
        let members = members(root, &manifest)?;
        let crates = local_crates(package, &members, &manifest)?;

        let used: BTreeSet<&str> = crates
            .values()
            .flat_map(|it| it.dependencies.iter().map(|it| it.key.as_str()))
            .collect();
        cut_workspace(&mut manifest, &crates, &used)?;
        let mut files = BTreeMap::from([(
            "Cargo.toml".to_owned(),
            toml::to_string(&manifest)?.into_bytes(),
        )]);
        for it in crates.values() {
            let mut own = it.manifest.clone();
            cut_manifest(&mut own);
            files.insert(
                format!("{}/Cargo.toml", it.folder),
                toml::to_string(&own)?.into_bytes(),
            );
            add_files(root, &it.folder, true, &mut files)?;
            for input in inputs.get(it.name()?).into_iter().flatten() {
                add_files(root, input, false, &mut files)?;
            }
        }
        let lock = fs::read_to_string(root.join(LOCK)).context("Cargo.lock cannot be read")?;
        let external = external_crates(&lock, &crates)?;
        Ok(Self {
            files,
            external,
            lock,
        })
    }

    /// Adds everything to a key.
    pub fn add_to(&self, key: KeyBuilder) -> KeyBuilder {
        let key = self
            .files
            .iter()
            .fold(key, |key, (path, contents)| key.value(path, contents));
        self.add_external(key)
    }

    /// The key of the crates of registries alone.
    pub fn external_key(&self) -> Key {
        self.add_external(KeyBuilder::new()).finish()
    }

    fn add_external(&self, key: KeyBuilder) -> KeyBuilder {
        self.external.iter().fold(
            key,
            |key,
             Locked {
                 name,
                 version,
                 checksum,
             }| {
                key.value("crate", name)
                    .value("version", version)
                    .value("checksum", checksum)
            },
        )
    }

    /// Makes `folder` a copy of these sources. Files that are there with the same contents are left alone, so that cargo
    /// does not take them for changed; others are removed.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn write_to(&self, folder: &Path) -> Result<()> {
        make_folder(folder)?;
        remove_others(folder, folder, &self.files)?;
        for (path, contents) in &self.files {
            let place = folder.join(path);
            if fs::read(&place).is_ok_and(|there| there == *contents) {
                continue;
            }
            if let Some(above) = place.parent() {
                make_folder(above)?;
            }
            fs::write(&place, contents)
                .with_context(|| format!("{} cannot be written", place.display()))?;
        }
        // cargo cuts its own copy down to what is there.
        fs::write(folder.join(LOCK), &self.lock).context("Cargo.lock cannot be written")
    }

    /// Checks that the lock file cargo left in `folder` only leaves packages out.
    ///
    /// # Errors
    /// If it has a package, version or checksum the tree's own lock file does not have.
    pub fn check_lock(&self, folder: &Path) -> Result<()> {
        let left = fs::read_to_string(folder.join(LOCK)).context("Cargo.lock cannot be read")?;
        let known = registry_packages(&self.lock)?;
        if let Some(new) = registry_packages(&left)?
            .iter()
            .find(|it| !known.contains(it))
        {
            bail!(
                "Cargo.lock is not up to date: the build needs {} {}. Run `cargo check` and try again",
                new.name,
                new.version
            );
        }
        Ok(())
    }

    /// Paths of all files.
    #[cfg(test)]
    fn paths(&self) -> Vec<&str> {
        self.files.keys().map(String::as_str).collect()
    }
}

/// A crate of the workspace.
#[derive(Debug)]
struct LocalCrate {
    folder: String,
    manifest: Table,
    dependencies: Vec<Dependency>,
}

impl LocalCrate {
    fn name(&self) -> Result<&str> {
        let name = self
            .manifest
            .get("package")
            .and_then(|package| package.get("name")?.as_str());
        name.with_context(|| format!("{}/Cargo.toml has no package.name", self.folder))
    }
}

#[derive(Debug)]
struct Dependency {
    /// Its name in the manifest.
    key: String,
    /// The package's name.
    package: String,
    is_local: bool,
}

/// Folder and manifest of every member by its name.
fn members(root: &Path, manifest: &Table) -> Result<BTreeMap<String, (String, Table)>> {
    let list = table(manifest, "workspace")?
        .get("members")
        .and_then(Value::as_array)
        .context("Cargo.toml has no workspace.members")?;
    let mut members = BTreeMap::new();
    for member in list {
        let folder = member
            .as_str()
            .filter(|it| !it.contains('*'))
            .context("a workspace member is not a plain path")?;
        let manifest = read_table(&root.join(folder).join("Cargo.toml"))?;
        let name = manifest
            .get("package")
            .and_then(|package| package.get("name")?.as_str())
            .with_context(|| format!("{folder}/Cargo.toml has no package.name"))?;
        members.insert(name.to_owned(), (folder.to_owned(), manifest.clone()));
    }
    Ok(members)
}

/// `package` and all members it depends on, by folder.
fn local_crates(
    package: &str,
    members: &BTreeMap<String, (String, Table)>,
    workspace: &Table,
) -> Result<BTreeMap<String, LocalCrate>> {
    let mut found = BTreeMap::new();
    let mut open = vec![package.to_owned()];
    while let Some(name) = open.pop() {
        let (folder, manifest) = members
            .get(&name)
            .with_context(|| format!("{name} is not a member of the workspace"))?;
        if found.contains_key(folder) {
            continue;
        }
        let dependencies =
            dependencies(manifest, workspace).with_context(|| format!("{folder}/Cargo.toml"))?;
        open.extend(
            dependencies
                .iter()
                .filter(|it| it.is_local)
                .map(|it| it.package.clone()),
        );
        let it = LocalCrate {
            folder: folder.clone(),
            manifest: manifest.clone(),
            dependencies,
        };
        found.insert(folder.clone(), it);
    }
    Ok(found)
}

/// Dependencies of a crate but for those of its tests.
fn dependencies(manifest: &Table, workspace: &Table) -> Result<Vec<Dependency>> {
    let targets = manifest
        .get("target")
        .and_then(Value::as_table)
        .into_iter()
        .flat_map(Table::values);
    let places = std::iter::once(manifest).chain(targets.filter_map(Value::as_table));
    let lists =
        places.flat_map(|place| ["dependencies", "build-dependencies"].map(|name| place.get(name)));
    let mut dependencies = Vec::new();
    for (key, value) in lists.flatten().filter_map(Value::as_table).flatten() {
        let mut value = value;
        if value.get("workspace").and_then(Value::as_bool) == Some(true) {
            value = table(workspace, "workspace")?
                .get("dependencies")
                .and_then(|all| all.get(key))
                .with_context(|| format!("workspace.dependencies has no {key}"))?;
        }
        if value.get("git").is_some() {
            bail!(
                "{key} comes from git; what enters the image comes from the workspace or a registry"
            );
        }
        dependencies.push(Dependency {
            key: key.clone(),
            package: value
                .get("package")
                .and_then(Value::as_str)
                .unwrap_or(key)
                .to_owned(),
            is_local: value.get("path").is_some(),
        });
    }
    Ok(dependencies)
}

/// Leaves the crates and dependencies of one program in the workspace's manifest.
fn cut_workspace(
    manifest: &mut Table,
    crates: &BTreeMap<String, LocalCrate>,
    used: &BTreeSet<&str>,
) -> Result<()> {
    let workspace = manifest
        .get_mut("workspace")
        .and_then(Value::as_table_mut)
        .context("Cargo.toml has no workspace")?;
    let folders = crates
        .keys()
        .map(|folder| Value::from(folder.as_str()))
        .collect();
    workspace.insert("members".to_owned(), Value::Array(folders));
    for name in ["lints", "metadata", "default-members", "exclude"] {
        workspace.remove(name);
    }
    if let Some(dependencies) = workspace
        .get_mut("dependencies")
        .and_then(Value::as_table_mut)
    {
        dependencies.retain(|name, _| used.contains(name));
    }
    Ok(())
}

fn cut_manifest(manifest: &mut Table) {
    for name in LEFT_OUT_TABLES {
        manifest.remove(*name);
    }
    let targets = manifest.get_mut("target").and_then(Value::as_table_mut);
    for target in targets
        .into_iter()
        .flat_map(|it| it.iter_mut())
        .filter_map(|(_, it)| it.as_table_mut())
    {
        target.remove("dev-dependencies");
    }
}

/// Adds a file, or all files below a folder.
fn add_files(
    root: &Path,
    path: &str,
    is_crate: bool,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Result<()> {
    let place = root.join(path);
    if place.is_file() {
        let contents = fs::read(&place).with_context(|| format!("{path} cannot be read"))?;
        // A crate's manifest is there already, cut.
        files.entry(path.to_owned()).or_insert(contents);
        return Ok(());
    }
    let entries = fs::read_dir(&place).with_context(|| format!("{path} cannot be read"))?;
    for entry in entries {
        let name = entry
            .with_context(|| format!("{path} cannot be read"))?
            .file_name();
        let name = name
            .to_str()
            .with_context(|| format!("{path} has a file whose name is not text"))?;
        let below = format!("{path}/{name}");
        let is_other_crate = root.join(&below).join("Cargo.toml").is_file();
        if is_other_crate || (is_crate && LEFT_OUT.contains(&name)) {
            continue;
        }
        add_files(root, &below, false, files)?;
    }
    Ok(())
}

/// The registry crates those local ones need, found through the lock file.
fn external_crates(lock: &str, crates: &BTreeMap<String, LocalCrate>) -> Result<BTreeSet<Locked>> {
    let lock: Table = toml::from_str(lock).context("Cargo.lock is not valid")?;
    let packages = lock
        .get("package")
        .and_then(Value::as_array)
        .context("Cargo.lock has no packages")?;
    let text = |package: &Value, name: &str| {
        package
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let needs = |package: &Value| -> Vec<String> {
        let list = package
            .get("dependencies")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };

    let mut open = Vec::new();
    for it in crates.values() {
        let name = it.name()?;
        let locked = packages
            .iter()
            .find(|package| text(package, "name") == name && package.get("source").is_none());
        let locked = locked
            .with_context(|| format!("Cargo.lock does not have {name}: run `cargo check`"))?;
        // The lock file does not tell a crate's dependencies from those of its tests.
        let wanted = |need: &String| {
            let name = need.split(' ').next().unwrap_or_default();
            it.dependencies
                .iter()
                .any(|dependency| dependency.package == name && !dependency.is_local)
        };
        open.extend(needs(locked).into_iter().filter(wanted));
    }
    let mut found = BTreeSet::new();
    while let Some(need) = open.pop() {
        // `name`, `name version` or `name version (source)`, as short as it is without doubt.
        let mut words = need.split(' ');
        let (name, version) = (words.next().unwrap_or_default(), words.next());
        let package = packages
            .iter()
            .find(|package| {
                text(package, "name") == name
                    && version.is_none_or(|version| text(package, "version") == version)
            })
            .with_context(|| format!("Cargo.lock does not have {need}: run `cargo check`"))?;
        let checksum = text(package, "checksum");
        if checksum.is_empty() {
            bail!(
                "{need} has no checksum in Cargo.lock; what enters the image comes from the workspace or a registry"
            );
        }
        if found.insert(Locked {
            name: name.to_owned(),
            version: text(package, "version"),
            checksum,
        }) {
            open.extend(needs(package));
        }
    }
    Ok(found)
}

fn registry_packages(lock: &str) -> Result<BTreeSet<Locked>> {
    let lock: Table = toml::from_str(lock).context("Cargo.lock is not valid")?;
    let packages = lock
        .get("package")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let text = |package: &Value, name: &str| {
        package
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Ok(packages
        .filter(|package| package.get("source").is_some())
        .map(|package| Locked {
            name: text(package, "name"),
            version: text(package, "version"),
            checksum: text(package, "checksum"),
        })
        .collect())
}

fn remove_others(root: &Path, folder: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    for entry in entries {
        let path: PathBuf = entry
            .with_context(|| format!("{} cannot be read", folder.display()))?
            .path();
        let relative = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && !path.is_symlink() {
            if files
                .keys()
                .any(|file| file.starts_with(&format!("{relative}/")))
            {
                remove_others(root, &path, files)?;
            } else {
                remove_folder(&path)?;
            }
        } else if !files.contains_key(&relative) {
            fs::remove_file(&path)
                .with_context(|| format!("{} cannot be removed", path.display()))?;
        }
    }
    Ok(())
}

fn table<'a>(table: &'a Table, name: &str) -> Result<&'a Table> {
    table
        .get(name)
        .and_then(Value::as_table)
        .with_context(|| format!("Cargo.toml has no table {name}"))
}

fn read_table(path: &Path) -> Result<Table> {
    let text =
        fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))
}

#[cfg(test)]
mod tests;
