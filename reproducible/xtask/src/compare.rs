//! Two images, section by section and file by file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use newton_eif::cpio::{self, Entry, Node};
use newton_eif::{Image, Measurements};
use serde::Serialize;

use crate::cache::make_folder;

/// No ramdisk of ours is larger unpacked; a crafted one must not fill the memory.
const MAX_RAMDISK: u64 = 1 << 30;

/// How two images compare.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Registers of the first.
    pub first: Measurements,
    /// Registers of the second.
    pub second: Measurements,
    /// What differs; empty if they are equal byte by byte.
    pub differences: Vec<Difference>,
}

/// A part in which two images differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The part, as in `kernel` or `application file /app/appliance`.
    pub part: String,
    /// How it differs, in words.
    pub how: String,
    /// Whether the part enters PCR0.
    pub measured: bool,
    /// The part in the first image.
    #[serde(skip)]
    pub first: Vec<u8>,
    /// The part in the second image.
    #[serde(skip)]
    pub second: Vec<u8>,
}

impl Comparison {
    /// Whether the measured parts are equal.
    pub fn same_measurements(&self) -> bool {
        self.first == self.second
    }

    /// Writes both halves of each difference into a folder, for a closer look.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(&self, folder: &Path) -> Result<()> {
        make_folder(folder)?;
        for difference in &self.differences {
            let plain = |c: char| {
                if c.is_ascii_alphanumeric() || c == '.' {
                    c
                } else {
                    '-'
                }
            };
            let name: String = difference.part.chars().map(plain).collect();
            for (half, bytes) in [("first", &difference.first), ("second", &difference.second)] {
                let place = folder.join(format!("{name}.{half}"));
                fs::write(&place, bytes)
                    .with_context(|| format!("{} cannot be written", place.display()))?;
            }
        }
        Ok(())
    }
}

/// Compares two images.
///
/// # Errors
/// If one of them is not a valid image.
pub fn compare(first: &[u8], second: &[u8]) -> Result<Comparison> {
    let one = Image::parse(first).context("the first image is not valid")?;
    let other = Image::parse(second).context("the second image is not valid")?;
    let mut differences = Vec::new();
    let mut section = |part: &str, measured, first: &[u8], second: &[u8]| {
        if first != second {
            differences.push(difference(part, measured, first, second));
        }
    };
    section("kernel", true, one.kernel(), other.kernel());
    section(
        "command line",
        true,
        one.command_line().as_bytes(),
        other.command_line().as_bytes(),
    );
    let count = one.ramdisks().len().max(other.ramdisks().len());
    let ramdisk = |image: &Image<'_>, index: usize| {
        image
            .ramdisks()
            .get(index)
            .map_or(Vec::new(), |it| it.to_vec())
    };
    let mut ramdisks = Vec::new();
    for index in 0..count {
        ramdisks.extend(compare_ramdisks(
            index,
            &ramdisk(&one, index),
            &ramdisk(&other, index),
        ));
    }
    section(
        "metadata",
        false,
        one.metadata_json(),
        other.metadata_json(),
    );
    let sizes = |image: &Image<'_>| {
        format!(
            "{} bytes, {} CPUs",
            image.default_memory_bytes(),
            image.default_cpus()
        )
    };
    section(
        "default sizes",
        false,
        sizes(&one).as_bytes(),
        sizes(&other).as_bytes(),
    );
    differences.extend(ramdisks);
    if differences.is_empty() && first != second {
        differences.push(difference("file layout", false, first, second));
    }
    Ok(Comparison {
        first: one.measurements(),
        second: other.measurements(),
        differences,
    })
}

fn compare_ramdisks(index: usize, first: &[u8], second: &[u8]) -> Vec<Difference> {
    if first == second {
        return Vec::new();
    }
    let owner = if index == 0 { "init" } else { "application" };
    let whole = || {
        vec![difference(
            &format!("{owner} ramdisk {index}"),
            true,
            first,
            second,
        )]
    };
    let (Ok(one), Ok(other)) = (unpack(first), unpack(second)) else {
        return whole();
    };
    let paths: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let mut differences = Vec::new();
    for path in paths {
        let part = format!("{owner} file /{path}");
        let found = match (one.get(path), other.get(path)) {
            (Some(first), Some(second)) if first == second => continue,
            (Some(first), Some(second)) => compare_entries(&part, first, second),
            (Some(first), None) => only(&part, "is only in the first", first, true),
            (None, Some(second)) => only(&part, "is only in the second", second, false),
            (None, None) => continue,
        };
        differences.push(found);
    }
    // The same files, packed in another way.
    if differences.is_empty() {
        whole()
    } else {
        differences
    }
}

fn compare_entries(part: &str, first: &Entry, second: &Entry) -> Difference {
    if let (Node::File(one), Node::File(other)) = (&first.node, &second.node)
        && one != other
    {
        return difference(part, true, one, other);
    }
    let how = format!(
        "is {} in the first, {} in the second",
        describe(first),
        describe(second)
    );
    Difference {
        part: part.to_owned(),
        how,
        measured: true,
        first: contents(first),
        second: contents(second),
    }
}

fn only(part: &str, how: &str, entry: &Entry, is_first: bool) -> Difference {
    let (first, second) = if is_first {
        (contents(entry), Vec::new())
    } else {
        (Vec::new(), contents(entry))
    };
    Difference {
        part: part.to_owned(),
        how: how.to_owned(),
        measured: true,
        first,
        second,
    }
}

fn difference(part: &str, measured: bool, first: &[u8], second: &[u8]) -> Difference {
    let same = first
        .iter()
        .zip(second)
        .take_while(|(one, other)| one == other)
        .count();
    let count = first
        .iter()
        .zip(second)
        .filter(|(one, other)| one != other)
        .count();
    let how = if first.len() == second.len() {
        format!(
            "differs in {count} of {} bytes, first at byte {same}",
            first.len()
        )
    } else {
        format!(
            "has {} bytes in the first, {} in the second, and differs from byte {same} on",
            first.len(),
            second.len()
        )
    };
    Difference {
        part: part.to_owned(),
        how,
        measured,
        first: first.to_vec(),
        second: second.to_vec(),
    }
}

fn describe(entry: &Entry) -> String {
    let kind = match entry.node {
        Node::Directory => "a folder".to_owned(),
        Node::File(_) => "a file".to_owned(),
        Node::CharacterDevice(major, minor) => format!("the device {major}:{minor}"),
    };
    format!("{kind} with mode {:o}", entry.mode)
}

fn contents(entry: &Entry) -> Vec<u8> {
    match &entry.node {
        Node::File(contents) => contents.clone(),
        _ => describe(entry).into_bytes(),
    }
}

fn unpack(ramdisk: &[u8]) -> Result<BTreeMap<String, Entry>> {
    let mut archive = Vec::new();
    GzDecoder::new(ramdisk)
        .take(MAX_RAMDISK)
        .read_to_end(&mut archive)?;
    Ok(cpio::read(&archive)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use super::*;
    use crate::image::{ImageConfig, PartFiles, assemble};
    use crate::project::Project;

    /// An image put together by the same code as the real one, from parts that a closure may change.
    fn image(change: impl FnOnce(&Path, &mut ImageConfig)) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let project =
            Project::at(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap();
        let mut config = ImageConfig::read(&project).unwrap();
        let part = |name: &str| {
            let contents: Vec<_> = (0..100_000_u32)
                .flat_map(|i| (i.wrapping_mul(2_654_435_761) ^ name.len() as u32).to_le_bytes())
                .collect();
            let path = folder.path().join(name);
            fs::write(&path, contents).unwrap();
            path
        };
        let parts = PartFiles {
            kernel: part("kernel"),
            init: part("init"),
            appliance: part("appliance"),
        };
        change(folder.path(), &mut config);
        assemble(&config, &project.inputs().unwrap(), &parts).unwrap()
    }

    fn flip(folder: &Path, name: &str, at: usize) {
        let path = folder.join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    fn parts_of(comparison: &Comparison) -> Vec<&str> {
        comparison
            .differences
            .iter()
            .map(|it| it.part.as_str())
            .collect()
    }

    #[test]
    fn equal_images_have_no_differences() {
        let comparison = compare(&image(|_, _| {}), &image(|_, _| {})).unwrap();
        assert!(comparison.same_measurements());
        assert_eq!(comparison.differences, []);
    }

    #[test]
    fn one_changed_byte_is_named() {
        let good = image(|_, _| {});
        for (file, part) in [
            ("kernel", "kernel"),
            ("init", "init file /init"),
            ("appliance", "application file /app/appliance"),
        ] {
            let comparison =
                compare(&good, &image(|folder, _| flip(folder, file, 77_777))).unwrap();
            assert_eq!(parts_of(&comparison), [part]);
            assert_eq!(
                comparison.differences[0].how,
                "differs in 1 of 400000 bytes, first at byte 77777"
            );
            assert!(comparison.differences[0].measured && !comparison.same_measurements());
        }
    }

    #[test]
    fn changed_settings_are_named() {
        let good = image(|_, _| {});
        let line = compare(
            &good,
            &image(|_, config| config.command_line = config.command_line.replace("-1", "-2")),
        )
        .unwrap();
        assert_eq!(parts_of(&line), ["command line"]);
        assert!(!line.same_measurements());
        let metadata = compare(
            &good,
            &image(|_, config| config.version = "9.9.9".to_owned()),
        )
        .unwrap();
        assert_eq!(parts_of(&metadata), ["metadata"]);
        assert!(metadata.same_measurements() && !metadata.differences[0].measured);
        let sizes = compare(&good, &image(|_, config| config.default_cpus += 1)).unwrap();
        assert_eq!(parts_of(&sizes), ["default sizes"]);
        assert!(sizes.same_measurements());
    }

    #[test]
    fn several_differences_are_all_named() {
        let other = image(|folder, config| {
            flip(folder, "kernel", 1);
            flip(folder, "appliance", 2);
            config.name.push('x');
        });
        let comparison = compare(&image(|_, _| {}), &other).unwrap();
        assert_eq!(
            parts_of(&comparison),
            ["kernel", "metadata", "application file /app/appliance"]
        );
    }

    #[test]
    fn files_that_come_and_go_are_named() {
        let gzip = |archive: cpio::Archive| {
            let mut gzip = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut gzip, &archive.to_bytes()).unwrap();
            gzip.finish().unwrap()
        };
        let archive = cpio::Archive::new()
            .file("a", 0o644, b"1".to_vec())
            .unwrap();
        let more = archive.clone().file("b", 0o644, b"2".to_vec()).unwrap();
        let found = compare_ramdisks(1, &gzip(archive.clone()), &gzip(more.clone()));
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].part.as_str(), found[0].how.as_str()),
            ("application file /b", "is only in the second")
        );
        assert_eq!(
            compare_ramdisks(1, &gzip(more), &gzip(archive.clone()))[0].how,
            "is only in the first"
        );
        let mode = cpio::Archive::new()
            .file("a", 0o755, b"1".to_vec())
            .unwrap();
        let found = compare_ramdisks(0, &gzip(archive.clone()), &gzip(mode));
        assert_eq!(
            found[0].how,
            "is a file with mode 644 in the first, a file with mode 755 in the second"
        );
        let found = compare_ramdisks(0, &gzip(archive.clone()), &archive.to_bytes());
        assert_eq!(found[0].part, "init ramdisk 0");
    }

    #[test]
    fn both_halves_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let other = image(|folder, _| flip(folder, "appliance", 5));
        let comparison = compare(&image(|_, _| {}), &other).unwrap();
        comparison.keep(folder.path()).unwrap();
        let half = |name: &str| fs::read(folder.path().join(name)).unwrap();
        let (first, second) = (
            half("application-file--app-appliance.first"),
            half("application-file--app-appliance.second"),
        );
        assert_eq!(first[5] ^ 1, second[5]);
        assert_eq!(first.len(), 400_000);
    }

    #[test]
    fn damaged_files_are_refused() {
        let good = image(|_, _| {});
        let mut bad = good.clone();
        bad[5000] ^= 1;
        assert!(format!("{:#}", compare(&good, &bad).unwrap_err()).contains("second"));
        assert!(format!("{:#}", compare(&bad, &good).unwrap_err()).contains("first"));
    }
}
