//! cpio archives in the `newc` format, as the kernel unpacks them into its first file system.
//!
//! [`Archive`] writes deterministically: entries sorted by path, owner root, time 0, inode numbers counted. [`read`]
//! takes such an archive apart again, so that two images can be compared file by file.

use std::collections::BTreeMap;

use thiserror::Error;

const MAGIC: &[u8; 6] = b"070701";
const HEADER_LEN: usize = 110;
const TRAILER: &str = "TRAILER!!!";
/// Archives are padded to this, as other tools do; the kernel wants a multiple of four between two archives.
const BLOCK: usize = 512;

const TYPE_MASK: u32 = 0o170_000;
const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_CHARACTER_DEVICE: u32 = 0o020_000;

/// Why an archive cannot be written or is refused.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CpioError {
    /// Paths are relative, without empty, `.` or `..` components, in printable ASCII.
    #[error("{path:?} is not a plain relative path")]
    Path {
        /// The path asked for or found.
        path: String,
    },
    /// Two entries have the same path.
    #[error("{path:?} is there twice")]
    Duplicate {
        /// The path.
        path: String,
    },
    /// Permission bits outside 0o7777.
    #[error("{path:?} has permissions {mode:o}, expected at most 7777")]
    Mode {
        /// The path.
        path: String,
        /// The bits asked for.
        mode: u32,
    },
    /// The format's size field has 32 bits.
    #[error("{path:?} has {got} bytes, more than the format can hold")]
    Size {
        /// The path.
        path: String,
        /// Its length.
        got: usize,
    },
    /// The archive is cut short or a header is not as it must be.
    #[error("the archive is malformed at byte {at}: {reason}")]
    Malformed {
        /// Where.
        at: usize,
        /// What was expected.
        reason: &'static str,
    },
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory,
    /// A file and its contents.
    File(Vec<u8>),
    /// A character device's major and minor number.
    CharacterDevice(u32, u32),
}

/// A path's permission bits and contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Permission bits, at most 0o7777.
    pub mode: u32,
    /// What it is.
    pub node: Node,
}

/// An archive in the making. Parent directories that were not named are added with mode 755.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory.
    ///
    /// # Errors
    /// [`CpioError::Path`], [`CpioError::Duplicate`] or [`CpioError::Mode`].
    pub fn directory(self, path: &str, mode: u32) -> Result<Self, CpioError> {
        self.with(
            path,
            Entry {
                mode,
                node: Node::Directory,
            },
        )
    }

    /// Adds a file.
    ///
    /// # Errors
    /// [`CpioError::Path`], [`CpioError::Duplicate`], [`CpioError::Mode`] or [`CpioError::Size`].
    pub fn file(self, path: &str, mode: u32, contents: Vec<u8>) -> Result<Self, CpioError> {
        if u32::try_from(contents.len()).is_err() {
            return Err(CpioError::Size {
                path: path.to_owned(),
                got: contents.len(),
            });
        }
        self.with(
            path,
            Entry {
                mode,
                node: Node::File(contents),
            },
        )
    }

    /// Adds a character device.
    ///
    /// # Errors
    /// [`CpioError::Path`], [`CpioError::Duplicate`] or [`CpioError::Mode`].
    pub fn character_device(
        self,
        path: &str,
        mode: u32,
        major: u32,
        minor: u32,
    ) -> Result<Self, CpioError> {
        self.with(
            path,
            Entry {
                mode,
                node: Node::CharacterDevice(major, minor),
            },
        )
    }

    /// The archive's bytes. Equal entries, added in whatever order, give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, (path, entry)) in self.entries.iter().enumerate() {
            put_entry(&mut out, index as u32 + 1, path, entry);
        }
        put_header(&mut out, 0, 0, 1, 0, (0, 0), TRAILER);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        out
    }

    fn with(mut self, path: &str, entry: Entry) -> Result<Self, CpioError> {
        check_path(path)?;
        if entry.mode > 0o7777 {
            return Err(CpioError::Mode {
                path: path.to_owned(),
                mode: entry.mode,
            });
        }
        for (at, _) in path.match_indices('/') {
            let parent = Entry {
                mode: 0o755,
                node: Node::Directory,
            };
            self.entries.entry(path[..at].to_owned()).or_insert(parent);
        }
        if self.entries.insert(path.to_owned(), entry).is_some() {
            return Err(CpioError::Duplicate {
                path: path.to_owned(),
            });
        }
        Ok(self)
    }
}

/// The entries of one archive by path.
///
/// # Errors
/// [`CpioError`] when it is not an archive as [`Archive::to_bytes`] writes it, but for entry order, owners, times and
/// inode numbers, which are not looked at.
pub fn read(archive: &[u8]) -> Result<BTreeMap<String, Entry>, CpioError> {
    let mut entries = BTreeMap::new();
    let mut at = 0;
    loop {
        let header = Header::parse(archive, at)?;
        let name_at = at + HEADER_LEN;
        let name = slice(archive, name_at, header.name_len)?;
        let name = name
            .strip_suffix(b"\0")
            .and_then(|name| std::str::from_utf8(name).ok())
            .ok_or(CpioError::Malformed {
                at: name_at,
                reason: "a terminated name",
            })?;
        let data_at = (name_at + header.name_len).next_multiple_of(4);
        let data = slice(archive, data_at, header.size)?;
        at = (data_at + header.size).next_multiple_of(4);
        if name == TRAILER {
            let padding = archive.get(at..).unwrap_or_default();
            return if padding.iter().all(|byte| *byte == 0) {
                Ok(entries)
            } else {
                Err(CpioError::Malformed {
                    at,
                    reason: "nothing but zeros after the trailer",
                })
            };
        }
        check_path(name)?;
        let node = match header.mode & TYPE_MASK {
            TYPE_DIRECTORY => Node::Directory,
            TYPE_FILE => Node::File(data.to_vec()),
            TYPE_CHARACTER_DEVICE => Node::CharacterDevice(header.device.0, header.device.1),
            _ => {
                return Err(CpioError::Malformed {
                    at: name_at,
                    reason: "a directory, file or character device",
                });
            }
        };
        let entry = Entry {
            mode: header.mode & !TYPE_MASK,
            node,
        };
        if entries.insert(name.to_owned(), entry).is_some() {
            return Err(CpioError::Duplicate {
                path: name.to_owned(),
            });
        }
    }
}

struct Header {
    mode: u32,
    size: usize,
    device: (u32, u32),
    name_len: usize,
}

impl Header {
    fn parse(archive: &[u8], at: usize) -> Result<Self, CpioError> {
        let header = slice(archive, at, HEADER_LEN)?;
        if &header[..6] != MAGIC {
            return Err(CpioError::Malformed {
                at,
                reason: "the magic number 070701",
            });
        }
        let field = |index: usize| {
            let start = 6 + 8 * index;
            std::str::from_utf8(&header[start..start + 8])
                .ok()
                .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .and_then(|text| u32::from_str_radix(text, 16).ok())
                .ok_or(CpioError::Malformed {
                    at: at + start,
                    reason: "eight hexadecimal digits",
                })
        };
        Ok(Self {
            mode: field(1)?,
            size: field(6)? as usize,
            device: (field(9)?, field(10)?),
            name_len: field(11)? as usize,
        })
    }
}

fn put_entry(out: &mut Vec<u8>, inode: u32, path: &str, entry: &Entry) {
    let none: &[u8] = &[];
    let (kind, links, data, device) = match &entry.node {
        Node::Directory => (TYPE_DIRECTORY, 2, none, (0, 0)),
        Node::File(contents) => (TYPE_FILE, 1, contents.as_slice(), (0, 0)),
        Node::CharacterDevice(major, minor) => (TYPE_CHARACTER_DEVICE, 1, none, (*major, *minor)),
    };
    put_header(
        out,
        inode,
        kind | entry.mode,
        links,
        data.len() as u32,
        device,
        path,
    );
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn put_header(
    out: &mut Vec<u8>,
    inode: u32,
    mode: u32,
    links: u32,
    size: u32,
    device: (u32, u32),
    path: &str,
) {
    let name_len = path.len() as u32 + 1;
    // inode, mode, uid, gid, links, mtime, size, device (2), the device it is (2), name length, checksum
    let fields = [
        inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_len, 0,
    ];
    out.extend_from_slice(MAGIC);
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn check_path(path: &str) -> Result<(), CpioError> {
    let plain = path.len() < 4096
        && path.bytes().all(|byte| byte.is_ascii_graphic())
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && path != TRAILER;
    if plain {
        Ok(())
    } else {
        Err(CpioError::Path {
            path: path.to_owned(),
        })
    }
}

fn slice(archive: &[u8], at: usize, len: usize) -> Result<&[u8], CpioError> {
    at.checked_add(len)
        .and_then(|end| archive.get(at..end))
        .ok_or(CpioError::Malformed {
            at,
            reason: "more bytes than there are",
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample() -> Archive {
        Archive::new()
            .file("app/appliance", 0o755, b"binary".to_vec())
            .unwrap()
            .character_device("dev/console", 0o600, 5, 1)
            .unwrap()
            .directory("tmp", 0o1777)
            .unwrap()
    }

    #[test]
    fn order_of_addition_does_not_matter() {
        let other = Archive::new()
            .directory("tmp", 0o1777)
            .unwrap()
            .character_device("dev/console", 0o600, 5, 1)
            .unwrap()
            .file("app/appliance", 0o755, b"binary".to_vec())
            .unwrap();
        assert_eq!(sample().to_bytes(), other.to_bytes());
    }

    #[test]
    fn reads_what_it_wrote() {
        let entries = read(&sample().to_bytes()).unwrap();
        let paths: Vec<_> = entries.keys().map(String::as_str).collect();
        assert_eq!(paths, ["app", "app/appliance", "dev", "dev/console", "tmp"]);
        assert_eq!(
            entries["app/appliance"].node,
            Node::File(b"binary".to_vec())
        );
        assert_eq!(entries["dev/console"].node, Node::CharacterDevice(5, 1));
        assert_eq!(entries["tmp"].mode, 0o1777);
    }

    /// The bytes of a one-file archive as the format's description has them, not as the writer makes them.
    #[test]
    fn bytes_are_those_of_the_format() {
        let archive = Archive::new()
            .file("init", 0o755, b"hello".to_vec())
            .unwrap()
            .to_bytes();
        let mut expected = b"070701\
            00000001000081ed000000000000000000000001000000000000000500000000000000000000000000000000\
            0000000500000000init\0\0hello\0\0\0\
            0707010000000000000000000000000000000000000001000000000000000000000000000000000000000000000000\
            0000000b00000000TRAILER!!!\0\0\0\0"
            .to_vec();
        expected.resize(512, 0);
        assert_eq!(String::from_utf8(archive), String::from_utf8(expected));
    }

    #[test]
    fn refuses_paths_that_could_surprise() {
        for path in ["", "/init", "a//b", "a/../b", "./a", "a b", "ünit", TRAILER] {
            let refused = Archive::new().file(path, 0o644, Vec::new()).unwrap_err();
            assert_eq!(
                refused,
                CpioError::Path {
                    path: path.to_owned()
                }
            );
        }
        assert!(matches!(
            Archive::new().directory("a", 0o10000),
            Err(CpioError::Mode { .. })
        ));
        assert!(matches!(
            sample().directory("tmp", 0o755),
            Err(CpioError::Duplicate { .. })
        ));
    }

    #[test]
    fn refuses_damaged_archives() {
        let good = sample().to_bytes();
        let end = good.len();
        assert!(matches!(
            read(&good[..100]),
            Err(CpioError::Malformed { at: 0, .. })
        ));
        assert!(read(&good[..end - 500]).is_err());
        let mut magic = good.clone();
        magic[5] = b'2';
        assert!(matches!(
            read(&magic),
            Err(CpioError::Malformed { at: 0, .. })
        ));
        let mut size = good.clone();
        size[6 + 8 * 6..6 + 8 * 7].copy_from_slice(b"ffffffff");
        assert!(read(&size).is_err());
        let mut trailing = good;
        trailing[end - 1] = 1;
        assert!(matches!(read(&trailing), Err(CpioError::Malformed { .. })));
    }
}
