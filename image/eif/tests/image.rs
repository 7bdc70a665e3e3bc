//! Writing and reading whole images: what was written is read again, and every kind of damage is named.
#![allow(clippy::unwrap_used)]

use newton_eif::{Error, Image, Metadata, Parts, layout, write};
use proptest::prelude::*;

const KERNEL: &[u8] = b"a kernel";
const LINE: &str = "console=ttyS0 reboot=k";
const RAMDISKS: [&[u8]; 2] = [b"init's ramdisk", b"the application's ramdisk"];

fn sample() -> Vec<u8> {
    write(&Parts {
        kernel: KERNEL,
        command_line: LINE,
        ramdisks: &RAMDISKS,
        metadata: &Metadata::new("sample", "1.2.3", "6.12.0"),
        default_memory_bytes: 512 << 20,
        default_cpus: 3,
    })
    .unwrap()
}

/// Puts bytes at a place and mends the checksum, so that the check behind it is reached.
fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = sample();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    mend(file)
}

fn mend(mut file: Vec<u8>) -> Vec<u8> {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&file[..544]);
    crc.update(&file[548..]);
    file[544..548].copy_from_slice(&crc.finalize().to_be_bytes());
    file
}

fn refusal(file: &[u8]) -> Error {
    Image::parse(file).unwrap_err()
}

fn metadata_len() -> usize {
    serde_json::to_vec(&Metadata::new("sample", "1.2.3", "6.12.0"))
        .unwrap()
        .len()
}

#[test]
fn reads_what_it_wrote() {
    let file = sample();
    let image = Image::parse(&file).unwrap();
    assert_eq!(image.kernel(), KERNEL);
    assert_eq!(image.command_line(), LINE);
    assert_eq!(image.ramdisks(), RAMDISKS);
    assert_eq!(
        image.metadata().unwrap(),
        Metadata::new("sample", "1.2.3", "6.12.0")
    );
    assert_eq!(image.default_memory_bytes(), 512 << 20);
    assert_eq!(image.default_cpus(), 3);
    assert_eq!(file, sample());
}

#[test]
fn metadata_is_not_measured_and_everything_else_is() {
    let base = Image::parse(&sample()).unwrap().measurements();
    let measure = |kernel, command_line, first, second, name| {
        let file = write(&Parts {
            kernel,
            command_line,
            ramdisks: &[first, second],
            metadata: &Metadata::new(name, "1.2.3", "6.12.0"),
            default_memory_bytes: 1,
            default_cpus: 1,
        })
        .unwrap();
        Image::parse(&file).unwrap().measurements()
    };
    let [first, second] = RAMDISKS;
    assert_eq!(measure(KERNEL, LINE, first, second, "other"), base);
    let kernel = measure(b"b kernel", LINE, first, second, "sample");
    assert!(kernel.pcr0 != base.pcr0 && kernel.pcr1 != base.pcr1 && kernel.pcr2 == base.pcr2);
    let line = measure(KERNEL, "console=ttyS1 reboot=k", first, second, "sample");
    assert!(line.pcr0 != base.pcr0 && line.pcr1 != base.pcr1 && line.pcr2 == base.pcr2);
    let init = measure(KERNEL, LINE, b"other", second, "sample");
    assert!(init.pcr0 != base.pcr0 && init.pcr1 != base.pcr1 && init.pcr2 == base.pcr2);
    let application = measure(KERNEL, LINE, first, b"other", "sample");
    assert!(
        application.pcr0 != base.pcr0
            && application.pcr1 == base.pcr1
            && application.pcr2 != base.pcr2
    );
}

#[test]
fn every_flipped_byte_is_noticed() {
    let good = sample();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(Image::parse(&bad).is_err(), "byte {at}");
    }
}

#[test]
fn every_truncation_is_noticed() {
    let good = sample();
    for len in 0..good.len() {
        let error = refusal(&good[..len]);
        assert!(matches!(error, Error::Truncated { .. }), "{len}: {error}");
    }
}

#[test]
fn names_what_is_wrong_in_the_header() {
    assert!(matches!(
        refusal(&with(0, b".elf")),
        Error::Magic {
            got: [b'.', b'e', b'l', b'f']
        }
    ));
    for (at, value, name) in [
        (4, 3, "the version"),
        (6, 1, "the flags field"),
        (24, 1, "the reserved field"),
    ] {
        let error = refusal(&with(at, &u16::to_be_bytes(value)));
        assert!(
            matches!(error, Error::Field { field, .. } if field == name),
            "{error}"
        );
    }
    assert!(matches!(
        refusal(&with(540, &[1])),
        Error::Field {
            field: "the unused field",
            ..
        }
    ));
    assert!(matches!(
        refusal(&with(26, &[0, 0])),
        Error::SectionCount { got: 0 }
    ));
    assert!(matches!(
        refusal(&with(26, &[0, 33])),
        Error::SectionCount { got: 33 }
    ));
    let mut damaged = sample();
    damaged[layout::HEADER_LEN + 15] ^= 1;
    assert!(matches!(refusal(&damaged), Error::Checksum { .. }));
}

#[test]
fn names_what_is_wrong_in_the_sections() {
    let second_offset = 28 + 8;
    assert!(matches!(
        refusal(&with(second_offset, &0_u64.to_be_bytes())),
        Error::SectionOffset {
            index: 1,
            got: 0,
            ..
        }
    ));
    let kernel_size = 284;
    assert!(matches!(
        refusal(&with(kernel_size, &9_u64.to_be_bytes())),
        Error::SectionSize {
            index: 0,
            expected: 9,
            got: 8
        }
    ));
    assert!(matches!(
        refusal(&with(548, &[0, 9])),
        Error::SectionUnknown { index: 0, got: 9 }
    ));
    assert!(matches!(
        refusal(&with(550, &[0, 1])),
        Error::Field {
            field: "a section's flags field",
            ..
        }
    ));
    assert!(matches!(
        refusal(&with(548, &[0, 3])),
        Error::SectionOrder { index: 0, .. }
    ));
    let unused_slot = 28 + 8 * 20;
    assert!(matches!(
        refusal(&with(unused_slot, &[1])),
        Error::Field { .. }
    ));

    let mut trailing = sample();
    trailing.push(0);
    assert!(matches!(
        refusal(&mend(trailing)),
        Error::TrailingBytes { got: 1 }
    ));

    // A size near the largest number must not wrap around.
    let mut huge = sample();
    huge[kernel_size..kernel_size + 8].fill(0xff);
    huge[552..560].fill(0xff);
    assert!(matches!(
        refusal(&mend(huge)),
        Error::Truncated {
            what: "a section",
            ..
        }
    ));

    let last_ramdisk = sample().len() - RAMDISKS[1].len() - 12;
    assert!(matches!(
        refusal(&with(last_ramdisk, &[0, 4])),
        Error::SignatureUnsupported { index: 4 }
    ));
    assert!(matches!(
        refusal(&with(last_ramdisk, &[0, 1])),
        Error::SectionOrder { index: 4, .. }
    ));
}

#[test]
fn a_missing_section_is_named() {
    // Two sections only: kernel and command line.
    let end = 548 + 12 + KERNEL.len() + 12 + LINE.len();
    let mut file = sample();
    file.truncate(end);
    file[26..28].copy_from_slice(&2_u16.to_be_bytes());
    for slot in 2..32 {
        file[28 + 8 * slot..36 + 8 * slot].fill(0);
        file[284 + 8 * slot..292 + 8 * slot].fill(0);
    }
    assert!(matches!(
        refusal(&mend(file)),
        Error::SectionOrder {
            index: 2,
            expected: "the metadata",
            got: None
        }
    ));
}

#[test]
fn odd_command_lines_are_refused_on_both_sides() {
    let write_with = |command_line: &str| {
        write(&Parts {
            kernel: KERNEL,
            command_line,
            ramdisks: &RAMDISKS,
            metadata: &Metadata::new("sample", "1.2.3", "6.12.0"),
            default_memory_bytes: 1,
            default_cpus: 1,
        })
    };
    for line in [
        "",
        "a\nb",
        "a\0",
        "ä",
        &"x".repeat(layout::MAX_COMMAND_LINE + 1),
    ] {
        assert!(
            matches!(write_with(line), Err(Error::CommandLine { .. })),
            "{line:?}"
        );
    }
    let line_at = 548 + 12 + KERNEL.len() + 12;
    assert!(matches!(
        refusal(&with(line_at, b"\n")),
        Error::CommandLine { .. }
    ));
    assert!(matches!(
        refusal(&with(line_at, &[0xff])),
        Error::CommandLine { .. }
    ));
}

#[test]
fn empty_parts_are_refused() {
    let metadata = Metadata::new("sample", "1.2.3", "6.12.0");
    let parts = Parts {
        kernel: KERNEL,
        command_line: LINE,
        ramdisks: &RAMDISKS,
        metadata: &metadata,
        default_memory_bytes: 1,
        default_cpus: 1,
    };
    assert!(matches!(
        write(&Parts {
            kernel: b"",
            ..parts
        }),
        Err(Error::Empty { .. })
    ));
    assert!(matches!(
        write(&Parts {
            ramdisks: &[],
            ..parts
        }),
        Err(Error::Empty { .. })
    ));
    assert!(matches!(
        write(&Parts {
            ramdisks: &[b""],
            ..parts
        }),
        Err(Error::Empty { .. })
    ));
    let many = vec![RAMDISKS[0]; 30];
    assert!(matches!(
        write(&Parts {
            ramdisks: &many,
            ..parts
        }),
        Err(Error::SectionCount { got: 33 })
    ));
    assert!(metadata_len() < layout::MAX_METADATA);
}

proptest! {
    /// Whatever bytes come, reading ends with an image or an error.
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = Image::parse(&bytes);
        let _ = newton_eif::cpio::read(&bytes);
    }

    /// The same behind a header that is valid but for one damaged field.
    #[test]
    fn damaged_headers_do_not_panic(at in 4_usize..540, value in any::<u64>()) {
        let bytes = value.to_be_bytes();
        let len = bytes.len().min(540 - at);
        let _ = Image::parse(&with(at, &bytes[..len]));
    }
}
