use thiserror::Error;

use crate::layout::{MAX_COMMAND_LINE, MAX_METADATA, MAX_SECTIONS, SectionKind};

/// Why an image cannot be written or is refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The file ends before something that must be there.
    #[error("the file is too short for {what}: {needed} bytes needed, {got} there")]
    Truncated {
        /// What was to be read.
        what: &'static str,
        /// Length the file must have at least.
        needed: u64,
        /// Length it has.
        got: u64,
    },
    /// The first four bytes are not `.eif`.
    #[error("not an EIF: it starts with {got:02x?}, expected \".eif\"")]
    Magic {
        /// The bytes found.
        got: [u8; 4],
    },
    /// A field has a value other than the only one allowed.
    #[error("{field} is {got}, expected {expected}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What it must be.
        expected: u64,
        /// What it is.
        got: u64,
    },
    /// More sections than the header has room for, or none.
    #[error("{got} sections, expected 1 to {max}", max = MAX_SECTIONS)]
    SectionCount {
        /// The number found or asked for.
        got: usize,
    },
    /// The header's table and the section disagree about the section's size.
    #[error("section {index} has {got} bytes by its own header, {expected} by the table")]
    SectionSize {
        /// Which section, from 0.
        index: usize,
        /// Size in the file header's table.
        expected: u64,
        /// Size in the section's header.
        got: u64,
    },
    /// A section does not start where the one before it ends.
    #[error("section {index} starts at byte {got}, expected {expected}")]
    SectionOffset {
        /// Which section, from 0.
        index: usize,
        /// End of what stands before it.
        expected: u64,
        /// Offset in the table.
        got: u64,
    },
    /// A section kind nobody knows.
    #[error("section {index} has the unknown kind {got}")]
    SectionUnknown {
        /// Which section, from 0.
        index: usize,
        /// Its number.
        got: u16,
    },
    /// Sections must be: kernel, command line, metadata, one or more ramdisks.
    #[error("section {index} is {got:?}, expected {expected}")]
    SectionOrder {
        /// Which section, from 0.
        index: usize,
        /// What may stand there.
        expected: &'static str,
        /// What does, or nothing at the end of the file.
        got: Option<SectionKind>,
    },
    /// Bytes after the last section.
    #[error("{got} bytes follow the last section")]
    TrailingBytes {
        /// How many.
        got: u64,
    },
    /// The file was damaged.
    #[error("the checksum is {got:08x}, computed {expected:08x}")]
    Checksum {
        /// CRC-32 of the bytes.
        expected: u32,
        /// CRC-32 in the header.
        got: u32,
    },
    /// The command line is not one line of printable ASCII of an acceptable length.
    #[error(
        "the command line must be 1 to {MAX_COMMAND_LINE} printable ASCII characters: {reason}"
    )]
    CommandLine {
        /// What is wrong with it.
        reason: String,
    },
    /// A part that must not be empty is.
    #[error("{what} is empty")]
    Empty {
        /// Which part.
        what: &'static str,
    },
    /// More metadata than accepted.
    #[error("{got} bytes of metadata, at most {MAX_METADATA} are accepted")]
    MetadataSize {
        /// How many there are.
        got: usize,
    },
    /// The metadata is not the JSON it should be.
    #[error("the metadata section: {0}")]
    Metadata(#[from] serde_json::Error),
    /// Signed images (PCR8) are neither written nor read yet.
    #[error("the image is signed (section {index}); signature sections are not supported yet")]
    SignatureUnsupported {
        /// Which section, from 0.
        index: usize,
    },
}
