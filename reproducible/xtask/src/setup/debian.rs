//! Files from Debian's archive, of a release that need not be the machine's own, checked against pinned hashes.
//!
//! apt runs with lists, cache and sources of its own, kept in our cache, so the system's are not touched and no root is
//! needed. The archive's address is the one this machine already uses; its signature is checked with Debian's keyring.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, make_folder, remove_folder, sha256_of};
use crate::command::run_logged;
use crate::lock::{DebianPackage, DebianSource};
use crate::progress::{Step, say};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Suites the pinned packages are in.
const SUITES: &[(&str, bool)] = &[("trixie", false), ("trixie-security", true)];

/// The `.deb` file of a package.
pub fn fetch_package(cache: &Cache, package: &DebianPackage) -> Result<PathBuf> {
    let DebianPackage {
        package: name,
        version,
        suite,
        sha256,
    } = package;
    let place = place(cache, sha256, &format!("{name}.deb"));
    if holds(&place, sha256)? {
        return Ok(place);
    }
    let _lock = cache.lock("debian")?;
    if holds(&place, sha256)? {
        return Ok(place);
    }
    let step = Step::begin(&format!("Downloading {name} {version} from Debian {suite}"));
    let files = download(cache, &["download"], name, version, suite, &place)?;
    let [file] = files.as_slice() else {
        bail!("apt left {} files for {name}, expected one", files.len())
    };
    accept(file, sha256, &place)?;
    step.done();
    Ok(place)
}

/// The files of a source package, by name, in the order of the lock file.
pub fn fetch_source(cache: &Cache, source: &DebianSource) -> Result<Vec<(String, PathBuf)>> {
    let DebianSource {
        package,
        version,
        suite,
        files,
    } = source;
    let places: Vec<_> = files
        .iter()
        .map(|(name, sha256)| (name.clone(), place(cache, sha256, name), sha256))
        .collect();
    let done = || {
        places
            .iter()
            .map(|(name, place, _)| (name.clone(), place.clone()))
            .collect()
    };
    let all_there = || {
        places.iter().try_fold(true, |all, (_, place, sha256)| {
            Ok::<_, anyhow::Error>(all && holds(place, sha256)?)
        })
    };
    if all_there()? {
        return Ok(done());
    }
    let _lock = cache.lock("debian")?;
    if all_there()? {
        return Ok(done());
    }
    let step = Step::begin(&format!(
        "Downloading the source of {package} {version} from Debian {suite}"
    ));
    let wanted_at = &places[0].1;
    let got = download(
        cache,
        &["source", "--download-only"],
        package,
        version,
        suite,
        wanted_at,
    )?;
    for (name, place, sha256) in &places {
        let file = got
            .iter()
            .find(|file| file.file_name().is_some_and(|it| it == name.as_str()));
        let Some(file) = file else {
            bail!("apt did not download {name}, which inputs.lock names")
        };
        accept(file, sha256, place)?;
    }
    step.done();
    Ok(done())
}

fn place(cache: &Cache, sha256: &str, name: &str) -> PathBuf {
    cache.downloads().join(format!("{}-{name}", &sha256[..16]))
}

/// Whether a file is there with this hash. A damaged one is removed.
fn holds(path: &Path, sha256: &str) -> Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    if sha256_of(path)? == sha256 {
        return Ok(true);
    }
    say(&format!(
        "{} does not have its hash and is removed.",
        path.display()
    ));
    fs::remove_file(path).with_context(|| format!("{} cannot be removed", path.display()))?;
    Ok(false)
}

fn accept(file: &Path, sha256: &str, place: &Path) -> Result<()> {
    let got = sha256_of(file)?;
    if got != sha256 {
        bail!(
            "{} has SHA-256 {got}, inputs.lock says {sha256}",
            file.display()
        );
    }
    fs::rename(file, place).with_context(|| format!("{} cannot be made", place.display()))
}

/// Runs apt to download one version of a package into an empty folder; returns the files there.
fn download(
    cache: &Cache,
    words: &[&str],
    package: &str,
    version: &str,
    suite: &str,
    place: &Path,
) -> Result<Vec<PathBuf>> {
    let apt = cache.root().join("apt");
    for folder in ["state/lists/partial", "cache/archives/partial"] {
        make_folder(&apt.join(folder))?;
    }
    let sources = sources_list(&Mirrors::of_this_machine()?, SUITES)?;
    fs::write(apt.join("sources.list"), sources)
        .context("apt's list of sources cannot be written")?;
    let files = apt.join("files");
    remove_folder(&files)?;
    make_folder(&files)?;

    let log = cache.log("debian");
    let mut step = Step::begin("Reading Debian's package lists");
    run_logged(apt_get(&apt).arg("update"), &log, &mut step)?;
    step.done();
    let mut step = Step::begin(&format!("Fetching {package}"));
    let wanted = format!("{package}={version}");
    run_logged(apt_get(&apt).args(words).arg(&wanted).current_dir(&files), &log, &mut step).with_context(|| {
        format!(
            "Debian {suite} did not give {package} {version}. If that version is no longer in the archive, either get the \
             file elsewhere and put it at {}, where its hash will be checked, or raise the version in \
             reproducible/inputs.lock",
            place.display()
        )
    })?;
    step.done();
    let entries =
        fs::read_dir(&files).with_context(|| format!("{} cannot be read", files.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn apt_get(apt: &Path) -> Command {
    let mut command = Command::new("apt-get");
    let option = |name: &str, value: &Path| format!("{name}={}", value.display());
    for option in [
        option("Dir::Etc::sourcelist", &apt.join("sources.list")),
        option("Dir::Etc::sourceparts", Path::new("/dev/null")),
        option("Dir::State", &apt.join("state")),
        option("Dir::State::lists", &apt.join("state/lists")),
        option("Dir::State::status", Path::new("/dev/null")),
        option("Dir::Cache", &apt.join("cache")),
        "APT::Sandbox::User=root".to_owned(),
        "APT::Get::AllowUnauthenticated=false".to_owned(),
    ] {
        command.args(["-o", &option]);
    }
    command.env("LC_ALL", "C");
    command
}

/// Addresses of Debian's archive and of its security archive.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    main: Option<String>,
    security: Option<String>,
}

impl Mirrors {
    fn of_this_machine() -> Result<Self> {
        let mut texts = Vec::new();
        let parts = fs::read_dir("/etc/apt/sources.list.d")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        let mut files: Vec<_> = parts
            .filter(|path| {
                path.extension()
                    .is_some_and(|it| it == "list" || it == "sources")
            })
            .collect();
        files.sort();
        files.insert(0, PathBuf::from("/etc/apt/sources.list"));
        for file in files {
            texts.push(fs::read_to_string(file).unwrap_or_default());
        }
        let mirrors = Self::parse(&texts.join("\n"));
        if mirrors.main.is_none() {
            bail!(
                "no address of Debian's archive in /etc/apt/sources.list or /etc/apt/sources.list.d"
            );
        }
        Ok(mirrors)
    }

    /// The first address of each kind, in either of apt's two formats.
    fn parse(text: &str) -> Self {
        let lines = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim());
        let mut mirrors = Self {
            main: None,
            security: None,
        };
        for line in lines {
            let is_address = line.starts_with("URIs:")
                || line.starts_with("deb ")
                || line.starts_with("deb-src ");
            let addresses = line
                .split_whitespace()
                .filter(|word| is_address && word.contains("://"));
            for address in addresses.map(|word| word.trim_end_matches('/')) {
                let slot = if address.ends_with("/debian-security") {
                    &mut mirrors.security
                } else if address.ends_with("/debian") {
                    &mut mirrors.main
                } else {
                    continue;
                };
                slot.get_or_insert_with(|| address.to_owned());
            }
        }
        mirrors
    }
}

fn sources_list(mirrors: &Mirrors, suites: &[(&str, bool)]) -> Result<String> {
    let mut list = String::new();
    for (suite, security) in suites {
        let address = if *security {
            &mirrors.security
        } else {
            &mirrors.main
        };
        let Some(address) = address else {
            bail!(
                "no address of Debian's archive for {suite} in /etc/apt/sources.list or /etc/apt/sources.list.d"
            );
        };
        for kind in ["deb", "deb-src"] {
            list += &format!("{kind} [signed-by={KEYRING}] {address} {suite} main\n");
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn finds_the_archive_in_both_formats() {
        let expected = Mirrors {
            main: Some("http://mirror.example/debian".to_owned()),
            security: Some("http://mirror.example/debian-security".to_owned()),
        };
        let new = "Types: deb\n# http://old.example/debian\nURIs: http://mirror.example/debian/\nSuites: x\n\n\
                   Types: deb\nURIs: http://mirror.example/debian-security\n";
        assert_eq!(Mirrors::parse(new), expected);
        let old = "deb [arch=amd64] http://mirror.example/debian x main\ndeb http://other.example/debian x main\n\
                   #deb http://old.example/debian-security x main\n\
                   deb-src http://mirror.example/debian-security/ x-security main\n\
                   deb https://packages.example/tool any main\n";
        assert_eq!(Mirrors::parse(old), expected);
        assert_eq!(
            Mirrors::parse("# nothing\n"),
            Mirrors {
                main: None,
                security: None
            }
        );
    }

    #[test]
    fn lists_every_suite_with_the_keyring() {
        let mirrors = Mirrors {
            main: Some("http://m/debian".to_owned()),
            security: None,
        };
        let list = sources_list(&mirrors, &[("trixie", false)]).unwrap();
        assert_eq!(list.lines().count(), 2);
        assert!(list.lines().all(|line| line.contains(KEYRING) && line.ends_with("http://m/debian trixie main")));
        let error = sources_list(&mirrors, SUITES).unwrap_err().to_string();
        assert!(error.contains("trixie-security"), "{error}");
    }

    #[test]
    fn a_file_with_another_hash_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (file, place) = (folder.path().join("got"), folder.path().join("place"));
        fs::write(&file, "abc").unwrap();
        let wrong = "0".repeat(64);
        let error = accept(&file, &wrong, &place).unwrap_err().to_string();
        assert!(
            error.contains("ba7816bf") && error.contains(&wrong),
            "{error}"
        );
        assert!(!place.exists());
        accept(
            &file,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            &place,
        )
        .unwrap();
        assert!(
            holds(
                &place,
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
            )
            .unwrap()
        );
        assert!(!holds(&place, &wrong).unwrap());
        assert!(!place.exists());
    }
}
