use crate::error::Error;
use crate::layout::{
    COUNT_AT, CPUS_AT, CRC_AT, HEADER_LEN, MAGIC, MAX_COMMAND_LINE, MAX_METADATA, MAX_SECTIONS,
    MEMORY_AT, OFFSETS_AT, SECTION_HEADER_LEN, SIZES_AT, SectionKind, VERSION, VERSION_AT,
};
use crate::metadata::Metadata;

/// What an image is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The kernel, a bzImage.
    pub kernel: &'a [u8],
    /// Its command line: one line of printable ASCII.
    pub command_line: &'a str,
    /// cpio archives: init's first, then the application's. The kernel unpacks them one over the other.
    pub ramdisks: &'a [&'a [u8]],
    /// Unmeasured facts about the build.
    pub metadata: &'a Metadata,
    /// Memory a host gives the enclave if it is not told otherwise. Unmeasured.
    pub default_memory_bytes: u64,
    /// CPUs a host gives the enclave if it is not told otherwise. Unmeasured.
    pub default_cpus: u64,
}

/// The bytes of an image. Equal parts give equal bytes.
///
/// # Errors
/// [`Error::Empty`], [`Error::CommandLine`], [`Error::SectionCount`] or [`Error::MetadataSize`] when the parts cannot
/// make an image that [`crate::Image::parse`] accepts.
pub fn write(parts: &Parts<'_>) -> Result<Vec<u8>, Error> {
    check_command_line(parts.command_line)?;
    check_filled("the kernel", parts.kernel)?;
    if parts.ramdisks.is_empty() {
        return Err(Error::Empty {
            what: "the list of ramdisks",
        });
    }
    let metadata = serde_json::to_vec(parts.metadata)?;
    if metadata.len() > MAX_METADATA {
        return Err(Error::MetadataSize {
            got: metadata.len(),
        });
    }

    let mut sections = vec![
        (SectionKind::Kernel, parts.kernel),
        (SectionKind::CommandLine, parts.command_line.as_bytes()),
        (SectionKind::Metadata, &metadata),
    ];
    for ramdisk in parts.ramdisks {
        check_filled("a ramdisk", ramdisk)?;
        sections.push((SectionKind::Ramdisk, ramdisk));
    }
    if sections.len() > MAX_SECTIONS {
        return Err(Error::SectionCount {
            got: sections.len(),
        });
    }

    let total = sections
        .iter()
        .map(|(_, bytes)| SECTION_HEADER_LEN + bytes.len())
        .sum::<usize>();
    let mut file = Vec::with_capacity(HEADER_LEN + total);
    file.resize(HEADER_LEN, 0);
    put(&mut file, 0, &MAGIC);
    put(&mut file, VERSION_AT, &VERSION.to_be_bytes());
    put(
        &mut file,
        MEMORY_AT,
        &parts.default_memory_bytes.to_be_bytes(),
    );
    put(&mut file, CPUS_AT, &parts.default_cpus.to_be_bytes());
    put(&mut file, COUNT_AT, &(sections.len() as u16).to_be_bytes());
    for (index, (kind, bytes)) in sections.iter().enumerate() {
        let (offset, size) = (file.len() as u64, bytes.len() as u64);
        put(&mut file, OFFSETS_AT + 8 * index, &offset.to_be_bytes());
        put(&mut file, SIZES_AT + 8 * index, &size.to_be_bytes());
        file.extend_from_slice(&(*kind as u16).to_be_bytes());
        file.extend_from_slice(&0_u16.to_be_bytes());
        file.extend_from_slice(&size.to_be_bytes());
        file.extend_from_slice(bytes);
    }
    let crc = checksum(&file);
    put(&mut file, CRC_AT, &crc.to_be_bytes());
    Ok(file)
}

/// CRC-32 over a whole file but for the checksum itself. `file` must hold a header at least.
pub(crate) fn checksum(file: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&file[..CRC_AT]);
    crc.update(&file[HEADER_LEN..]);
    crc.finalize()
}

/// Printable ASCII only: no terminator or line end may hide something from a reader of the file.
pub(crate) fn check_command_line(line: &str) -> Result<(), Error> {
    let reason = if line.is_empty() {
        "it is empty".to_owned()
    } else if line.len() > MAX_COMMAND_LINE {
        format!("it has {}", line.len())
    } else if let Some(at) = line.bytes().position(|byte| !(b' '..=b'~').contains(&byte)) {
        format!("byte {at} is {:#04x}", line.as_bytes()[at])
    } else {
        return Ok(());
    };
    Err(Error::CommandLine { reason })
}

pub(crate) fn check_filled(what: &'static str, bytes: &[u8]) -> Result<(), Error> {
    if bytes.is_empty() {
        Err(Error::Empty { what })
    } else {
        Ok(())
    }
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}
