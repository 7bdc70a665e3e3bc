//! Results of steps, kept by the hash of their inputs.
//!
//! `<cache>/<step>/<key>` is a folder that exists only when the step was done to its end: it is built beside it and moved
//! into place in one operation. Two processes that want the same result build it once: the second waits on a file lock.

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use sha2::{Digest, Sha256};

use crate::progress;

/// SHA-256 of all inputs of a step, as lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Gathers the inputs of a step. Every name and value goes in with its length, so no two lists look the same.
#[derive(Clone, Debug, Default)]
pub struct KeyBuilder(Sha256);

impl KeyBuilder {
    /// No input yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A value.
    #[must_use]
    pub fn value(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        for part in [name.as_bytes(), value.as_ref()] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// A file's contents.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn file(self, name: &str, path: &Path) -> Result<Self> {
        let contents =
            fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        Ok(self.value(name, contents))
    }

    /// The key.
    pub fn finish(self) -> Key {
        Key(hex(&self.0.finalize()))
    }
}

/// The folder where results are kept.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `$XDG_CACHE_HOME/newton`, or `~/.cache/newton`.
    ///
    /// # Errors
    /// If neither variable is set, or the folder cannot be made.
    pub fn open() -> Result<Self> {
        let base = env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
            .ok_or_else(|| {
                anyhow!(
                    "neither XDG_CACHE_HOME nor HOME is set, so there is no place for the cache"
                )
            })?;
        Self::at(&base.join("newton"))
    }

    /// A cache in a folder of its own.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn at(root: &Path) -> Result<Self> {
        for folder in ["", "tmp", "locks", "logs", "downloads"] {
            make_folder(&root.join(folder))?;
        }
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where downloaded files lie, each named by its hash.
    pub fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }

    /// Where a command's output goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    /// The result of a step, if it is there.
    pub fn find(&self, step: &str, key: &Key) -> Option<PathBuf> {
        Some(self.place(step, key)).filter(|place| place.is_dir())
    }

    /// The result of a step. If it is not there, `build` fills an empty folder with it, which must not be referred to by
    /// its own path in what is put inside.
    ///
    /// # Errors
    /// What `build` says; or that the cache cannot be written.
    pub fn find_or_build(
        &self,
        step: &str,
        key: &Key,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        if let Some(found) = self.find(step, key) {
            return Ok(found);
        }
        let name = format!("{step}-{}", &key.0[..16]);
        let _lock = self.lock(&name)?;
        // Somebody else may have built it while this process waited.
        if let Some(found) = self.find(step, key) {
            return Ok(found);
        }
        let tmp = self.root.join("tmp").join(&name);
        // Under the lock, what lies there was left by a build that died.
        remove_folder(&tmp)?;
        make_folder(&tmp)?;
        build(&tmp)?;
        let place = self.place(step, key);
        make_folder(&self.root.join(step))?;
        fs::rename(&tmp, &place)
            .with_context(|| format!("{} cannot be moved into place", tmp.display()))?;
        Ok(place)
    }

    /// Waits until no other process holds the lock of this name, then holds it until the result is dropped.
    ///
    /// # Errors
    /// If the lock file cannot be made or locked.
    pub fn lock(&self, name: &str) -> Result<File> {
        let path = self.root.join("locks").join(name);
        let file =
            File::create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        if file.try_lock().is_err() {
            progress::say(&format!("Another process is at {name}; waiting for it."));
            file.lock()
                .with_context(|| format!("{} cannot be locked", path.display()))?;
        }
        Ok(file)
    }

    fn place(&self, step: &str, key: &Key) -> PathBuf {
        self.root.join(step).join(&key.0[..32])
    }
}

/// SHA-256 of a file, as lower-case hex.
///
/// # Errors
/// If it cannot be read.
pub fn sha256_of(path: &Path) -> Result<String> {
    let failed = || format!("{} cannot be read", path.display());
    let mut file = File::open(path).with_context(failed)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).with_context(failed)? {
            0 => return Ok(hex(&hash.finalize())),
            len => hash.update(&buffer[..len]),
        }
    }
}

/// Makes a folder and those above it.
///
/// # Errors
/// If it cannot be made.
pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("{} cannot be made", path.display()))
}

/// Removes a folder and all in it, if it is there.
///
/// # Errors
/// If it cannot be removed.
pub fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", path.display()))
        }
        _ => Ok(()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use anyhow::bail;

    use super::*;

    fn key(text: &str) -> Key {
        KeyBuilder::new().value("input", text).finish()
    }

    #[test]
    fn keys_tell_names_from_values() {
        let key = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .fold(KeyBuilder::new(), |all, (name, value)| {
                    all.value(name, value)
                })
                .finish()
        };
        assert_eq!(key(&[("a", "b")]), key(&[("a", "b")]));
        assert_ne!(key(&[("a", "b")]), key(&[("ab", "")]));
        assert_ne!(key(&[("a", "b"), ("c", "d")]), key(&[("a", "bcd")]));
        assert_ne!(key(&[("a", "b")]), key(&[]));
    }

    #[test]
    fn builds_once_and_finds_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        assert_eq!(cache.find("step", &key("a")), None);
        let build = |place: &Path| Ok(fs::write(place.join("result"), "made")?);
        let first = cache.find_or_build("step", &key("a"), build).unwrap();
        assert_eq!(fs::read_to_string(first.join("result")).unwrap(), "made");
        let second = cache
            .find_or_build("step", &key("a"), |_| bail!("not again"))
            .unwrap();
        assert_eq!(first, second);
        assert_eq!(cache.find("step", &key("b")), None);
    }

    #[test]
    fn a_failed_build_leaves_nothing_to_find() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let failed = cache.find_or_build("step", &key("a"), |place| {
            fs::write(place.join("half"), "")?;
            bail!("no")
        });
        assert!(failed.is_err());
        assert_eq!(cache.find("step", &key("a")), None);
        let built = cache.find_or_build("step", &key("a"), |place| {
            assert_eq!(fs::read_dir(place)?.count(), 0);
            Ok(())
        });
        assert!(built.is_ok());
    }

    #[test]
    fn two_at_once_build_once() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let builds = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    cache
                        .find_or_build("step", &key("a"), |_| {
                            builds.fetch_add(1, Ordering::SeqCst);
                            thread::sleep(Duration::from_millis(50));
                            Ok(())
                        })
                        .unwrap();
                });
            }
        });
        assert_eq!(builds.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn hashes_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, "abc").unwrap();
        // FIPS 180-4, example B.1
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_of(&path).unwrap(), expected);
    }
}
