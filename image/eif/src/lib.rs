//! Enclave Image Format (EIF) version 4: write, read strictly, measure.
//!
//! An EIF is what a Nitro host, or QEMU's `nitro-enclave` machine, boots: a kernel, its command line and ramdisks. The
//! hypervisor measures those into PCR0, PCR1 and PCR2 (see [`Measurements`]); everything else in the file, the metadata
//! and the default sizes included, is unmeasured.
//!
//! ```
//! let ramdisk = newton_eif::cpio::Archive::new()
//!     .file("init", 0o755, b"#!init".to_vec())?
//!     .to_bytes();
//! let metadata = newton_eif::Metadata::new("example", "0.1.0", "6.12.0");
//! let bytes = newton_eif::write(&newton_eif::Parts {
//!     kernel: b"kernel",
//!     command_line: "console=ttyS0",
//!     ramdisks: &[&ramdisk],
//!     metadata: &metadata,
//!     default_memory_bytes: 1 << 30,
//!     default_cpus: 2,
//! })?;
//! let image = newton_eif::Image::parse(&bytes)?;
//! assert_eq!(image.command_line(), "console=ttyS0");
//! println!("{}", image.measurements().pcr0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The layout is stated in [`layout`]; it follows the public format description in the AWS Nitro Enclaves image format
//! project and QEMU's reader. `tests/vectors/eif` holds files made by AWS's own writer to compare with.

mod error;
mod measure;
mod metadata;
mod read;
mod write;

pub mod cpio;
pub mod layout;

pub use error::Error;
pub use measure::{Measurements, Pcr};
pub use metadata::{BuildMetadata, Metadata};
pub use read::{Image, Section};
pub use write::{Parts, write};
