use crate::error::Error;
use crate::layout::{
    COUNT_AT, CPUS_AT, CRC_AT, FLAGS_AT, HEADER_LEN, MAGIC, MAX_METADATA, MAX_SECTIONS, MEMORY_AT,
    OFFSETS_AT, RESERVED_AT, SECTION_HEADER_LEN, SIZES_AT, SectionKind, UNUSED_AT, VERSION,
    VERSION_AT,
};
use crate::measure::Measurements;
use crate::metadata::Metadata;
use crate::write::{check_command_line, check_filled, checksum};

/// A section of an image: its kind and its bytes without the section header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// What it holds.
    pub kind: SectionKind,
    /// Its contents.
    pub bytes: &'a [u8],
}

/// An image that was read completely and checked. It borrows the file's bytes.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    default_memory_bytes: u64,
    default_cpus: u64,
    kernel: &'a [u8],
    command_line: &'a str,
    ramdisks: Vec<&'a [u8]>,
    metadata_json: &'a [u8],
}

impl<'a> Image<'a> {
    /// Reads an image and refuses whatever [`crate::write()`] would not have written, but for the contents of the
    /// metadata: every field has the one value it may have, sections stand one behind the other in their order, nothing
    /// follows them and the checksum holds.
    ///
    /// # Errors
    /// The first thing found wrong, see [`Error`].
    pub fn parse(file: &'a [u8]) -> Result<Self, Error> {
        need("the header", HEADER_LEN as u64, file.len())?;
        if file[..4] != MAGIC {
            return Err(Error::Magic {
                got: array(file, 0),
            });
        }
        expect(
            "the version",
            u64::from(VERSION),
            u64::from(u16_at(file, VERSION_AT)),
        )?;
        expect("the flags field", 0, u64::from(u16_at(file, FLAGS_AT)))?;
        expect(
            "the reserved field",
            0,
            u64::from(u16_at(file, RESERVED_AT)),
        )?;
        expect("the unused field", 0, u64::from(u32_at(file, UNUSED_AT)))?;

        let sections = sections(file)?;
        let (expected, got) = (checksum(file), u32_at(file, CRC_AT));
        if expected != got {
            return Err(Error::Checksum { expected, got });
        }
        let mut image = Self::in_order(&sections)?;
        image.default_memory_bytes = u64_at(file, MEMORY_AT);
        image.default_cpus = u64_at(file, CPUS_AT);
        Ok(image)
    }

    /// The kernel.
    pub fn kernel(&self) -> &'a [u8] {
        self.kernel
    }

    /// The kernel's command line.
    pub fn command_line(&self) -> &'a str {
        self.command_line
    }

    /// The ramdisks in their order; the first is init's. There is at least one.
    pub fn ramdisks(&self) -> &[&'a [u8]] {
        &self.ramdisks
    }

    /// The metadata section's bytes.
    pub fn metadata_json(&self) -> &'a [u8] {
        self.metadata_json
    }

    /// The metadata.
    ///
    /// # Errors
    /// [`Error::Metadata`] if it is not what this crate writes. Images made by other tools carry other fields.
    pub fn metadata(&self) -> Result<Metadata, Error> {
        Ok(serde_json::from_slice(self.metadata_json)?)
    }

    /// Memory a host gives the enclave if it is not told otherwise.
    pub fn default_memory_bytes(&self) -> u64 {
        self.default_memory_bytes
    }

    /// CPUs a host gives the enclave if it is not told otherwise.
    pub fn default_cpus(&self) -> u64 {
        self.default_cpus
    }

    /// PCR0, PCR1 and PCR2 of this image.
    pub fn measurements(&self) -> Measurements {
        Measurements::of(
            self.kernel,
            self.command_line.as_bytes(),
            self.ramdisks.iter().copied(),
        )
    }

    fn in_order(sections: &[Section<'a>]) -> Result<Self, Error> {
        let mut rest = sections.iter().enumerate().peekable();
        let mut next = |kind, expected| match rest.next() {
            Some((_, section)) if section.kind == kind => Ok(section.bytes),
            other => Err(Error::SectionOrder {
                index: other.map_or(sections.len(), |(index, _)| index),
                expected,
                got: other.map(|(_, section)| section.kind),
            }),
        };
        let kernel = next(SectionKind::Kernel, "the kernel")?;
        check_filled("the kernel", kernel)?;
        let command_line = std::str::from_utf8(next(SectionKind::CommandLine, "the command line")?)
            .map_err(|error| Error::CommandLine {
                reason: error.to_string(),
            })?;
        check_command_line(command_line)?;
        let metadata_json = next(SectionKind::Metadata, "the metadata")?;
        if metadata_json.len() > MAX_METADATA {
            return Err(Error::MetadataSize {
                got: metadata_json.len(),
            });
        }
        let mut ramdisks = vec![next(SectionKind::Ramdisk, "a ramdisk")?];
        for (index, section) in rest {
            match section.kind {
                SectionKind::Ramdisk => ramdisks.push(section.bytes),
                SectionKind::Signature => return Err(Error::SignatureUnsupported { index }),
                kind => {
                    let expected = "a ramdisk or the end of the file";
                    return Err(Error::SectionOrder {
                        index,
                        expected,
                        got: Some(kind),
                    });
                }
            }
        }
        for ramdisk in &ramdisks {
            check_filled("a ramdisk", ramdisk)?;
        }
        Ok(Self {
            default_memory_bytes: 0,
            default_cpus: 0,
            kernel,
            command_line,
            ramdisks,
            metadata_json,
        })
    }
}

/// Cuts the file into its sections; every byte after the header belongs to exactly one.
fn sections(file: &[u8]) -> Result<Vec<Section<'_>>, Error> {
    let count = usize::from(u16_at(file, COUNT_AT));
    if count == 0 || count > MAX_SECTIONS {
        return Err(Error::SectionCount { got: count });
    }
    let mut sections = Vec::with_capacity(count);
    let mut at = HEADER_LEN;
    for index in 0..MAX_SECTIONS {
        let (offset, size) = (
            u64_at(file, OFFSETS_AT + 8 * index),
            u64_at(file, SIZES_AT + 8 * index),
        );
        if index >= count {
            expect("the offset in an unused section slot", 0, offset)?;
            expect("the size in an unused section slot", 0, size)?;
            continue;
        }
        if offset != at as u64 {
            return Err(Error::SectionOffset {
                index,
                expected: at as u64,
                got: offset,
            });
        }
        // `at` is within the file, so neither sum below can overflow but the one with the untrusted size.
        let body = at + SECTION_HEADER_LEN;
        need("a section's header", body as u64, file.len())?;
        let in_section = u64_at(file, at + 4);
        if in_section != size {
            return Err(Error::SectionSize {
                index,
                expected: size,
                got: in_section,
            });
        }
        need("a section", (body as u64).saturating_add(size), file.len())?;
        let end = body + size as usize;
        let number = u16_at(file, at);
        let kind =
            SectionKind::from_number(number).ok_or(Error::SectionUnknown { index, got: number })?;
        expect(
            "a section's flags field",
            0,
            u64::from(u16_at(file, at + 2)),
        )?;
        sections.push(Section {
            kind,
            bytes: &file[body..end],
        });
        at = end;
    }
    if at == file.len() {
        Ok(sections)
    } else {
        Err(Error::TrailingBytes {
            got: (file.len() - at) as u64,
        })
    }
}

fn need(what: &'static str, needed: u64, got: usize) -> Result<(), Error> {
    let got = got as u64;
    if got < needed {
        Err(Error::Truncated { what, needed, got })
    } else {
        Ok(())
    }
}

fn expect(field: &'static str, expected: u64, got: u64) -> Result<(), Error> {
    if got == expected {
        Ok(())
    } else {
        Err(Error::Field {
            field,
            expected,
            got,
        })
    }
}

/// `N` bytes at a place the caller has checked to be inside the file.
fn array<const N: usize>(file: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&file[at..at + N]);
    bytes
}

fn u16_at(file: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(file, at))
}

fn u32_at(file: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(file, at))
}

fn u64_at(file: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array(file, at))
}
