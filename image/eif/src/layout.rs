//! Where every byte of an EIF v4 stands. All integers are big-endian.
//!
//! ```text
//! offset size  field
//!      0    4  magic ".eif"
//!      4    2  version = 4
//!      6    2  flags = 0 (x86-64)
//!      8    8  default memory in bytes
//!     16    8  default number of CPUs
//!     24    2  reserved = 0
//!     26    2  number of sections
//!     28  256  offset of each section from the start of the file, 32 x u64
//!    284  256  size of each section without its header, 32 x u64
//!    540    4  unused = 0
//!    544    4  CRC-32 (IEEE) of bytes 0..544 and of all that follows byte 548
//!    548       sections, one behind the other:
//!              u16 kind, u16 flags = 0, u64 size, then `size` bytes
//! ```
//! Sections stand in the order of AWS's writer: kernel, command line, metadata, ramdisks.

/// The first four bytes of every EIF.
pub const MAGIC: [u8; 4] = *b".eif";
/// The only version written and read.
pub const VERSION: u16 = 4;
/// Number of slots in the header's two section tables.
pub const MAX_SECTIONS: usize = 32;
/// Bytes of the file's header.
pub const HEADER_LEN: usize = CRC_AT + 4;
/// Bytes of the header before each section.
pub const SECTION_HEADER_LEN: usize = 12;
/// Most bytes a command line may have: x86 Linux keeps 2048 with the terminator, and the hypervisor appends its devices.
pub const MAX_COMMAND_LINE: usize = 1024;
/// Most bytes of metadata accepted.
pub const MAX_METADATA: usize = 64 * 1024;

pub(crate) const VERSION_AT: usize = 4;
pub(crate) const FLAGS_AT: usize = 6;
pub(crate) const MEMORY_AT: usize = 8;
pub(crate) const CPUS_AT: usize = 16;
pub(crate) const RESERVED_AT: usize = 24;
pub(crate) const COUNT_AT: usize = 26;
pub(crate) const OFFSETS_AT: usize = 28;
pub(crate) const SIZES_AT: usize = OFFSETS_AT + 8 * MAX_SECTIONS;
pub(crate) const UNUSED_AT: usize = SIZES_AT + 8 * MAX_SECTIONS;
pub(crate) const CRC_AT: usize = UNUSED_AT + 4;

/// What a section holds, as numbered in its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum SectionKind {
    /// The kernel, a bzImage.
    Kernel = 1,
    /// The kernel's command line, without a terminator.
    CommandLine = 2,
    /// A cpio archive. The first is init's, the others the application's.
    Ramdisk = 3,
    /// A signature over PCR0, whose certificate is measured into PCR8.
    Signature = 4,
    /// JSON about the build, unmeasured.
    Metadata = 5,
}

impl SectionKind {
    /// The kind with this number, if there is one.
    pub fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Kernel,
            2 => Self::CommandLine,
            3 => Self::Ramdisk,
            4 => Self::Signature,
            5 => Self::Metadata,
            _ => return None,
        })
    }
}
