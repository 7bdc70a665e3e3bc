//! The little CBOR (RFC 8949) that attestation documents need, read strictly.
//!
//! Only the preferred, definite-length encoding of integers, strings, arrays, maps and null is accepted, so that whatever
//! passes here has exactly one encoding. The one exception is [`Reader::open_map`].

use core::fmt;

/// CBOR that is malformed or not in the one accepted encoding. `at` is a byte offset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CborError {
    /// The input ends inside an item.
    #[error("input ends at byte {at} inside an item that needs {needed} more")]
    Truncated {
        /// Where.
        at: usize,
        /// Bytes missing.
        needed: u64,
    },
    /// A length or integer is longer than it needs to be.
    #[error("item at byte {at} is not in its shortest encoding")]
    NotShortest {
        /// Where.
        at: usize,
    },
    /// An indefinite length.
    #[error("item at byte {at} has an indefinite length")]
    Indefinite {
        /// Where.
        at: usize,
    },
    /// A reserved additional information value.
    #[error("item at byte {at} has a reserved length code")]
    Reserved {
        /// Where.
        at: usize,
    },
    /// Another type than expected.
    #[error("item at byte {at} is {got}, expected {expected}")]
    Type {
        /// Where.
        at: usize,
        /// Type expected.
        expected: Kind,
        /// Type found.
        got: Kind,
    },
    /// A text string is not UTF-8.
    #[error("text at byte {at} is not UTF-8")]
    Utf8 {
        /// Where.
        at: usize,
    },
    /// Bytes after the last item.
    #[error("{extra} bytes follow the last item at byte {at}")]
    Trailing {
        /// Where.
        at: usize,
        /// Number of bytes.
        extra: usize,
    },
}

/// A CBOR type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Major type 0.
    Unsigned,
    /// Major type 1.
    Negative,
    /// Major type 2.
    Bytes,
    /// Major type 3.
    Text,
    /// Major type 4.
    Array,
    /// Major type 5.
    Map,
    /// Major type 6.
    Tag,
    /// Major type 7: null, booleans, floats.
    Simple,
}

impl Kind {
    fn of(initial: u8) -> Self {
        match initial >> 5 {
            0 => Self::Unsigned,
            1 => Self::Negative,
            2 => Self::Bytes,
            3 => Self::Text,
            4 => Self::Array,
            5 => Self::Map,
            6 => Self::Tag,
            _ => Self::Simple,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsigned => "an unsigned integer",
            Self::Negative => "a negative integer",
            Self::Bytes => "a byte string",
            Self::Text => "a text string",
            Self::Array => "an array",
            Self::Map => "a map",
            Self::Tag => "a tag",
            Self::Simple => "a simple value",
        })
    }
}

const NULL: u8 = 0xf6;
const BREAK: u8 = 0xff;
const INDEFINITE_MAP: u8 = 0xbf;

/// What is left of a map opened by [`Reader::open_map`].
pub(crate) enum Entries {
    /// So many pairs.
    Left(u64),
    /// Pairs until a break.
    UntilBreak,
}

impl Entries {
    /// Whether another pair follows.
    pub(crate) fn next(&mut self, reader: &mut Reader<'_>) -> Result<bool, CborError> {
        match self {
            Self::Left(0) => Ok(false),
            Self::Left(count) => {
                *count -= 1;
                Ok(true)
            }
            Self::UntilBreak if reader.initial()? == BREAK => {
                reader.at += 1;
                // A second call must not read on.
                *self = Self::Left(0);
                Ok(false)
            }
            Self::UntilBreak => Ok(true),
        }
    }
}

/// Reads items one after another. Allocates nothing.
pub(crate) struct Reader<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0 }
    }

    /// Type of the next item, without reading it.
    pub(crate) fn peek(&self) -> Result<Kind, CborError> {
        Ok(Kind::of(self.initial()?))
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64, CborError> {
        self.head(Kind::Unsigned)
    }

    pub(crate) fn tag(&mut self) -> Result<u64, CborError> {
        self.head(Kind::Tag)
    }

    /// Number of items that follow.
    pub(crate) fn array(&mut self) -> Result<u64, CborError> {
        self.head(Kind::Array)
    }

    /// Number of pairs that follow.
    pub(crate) fn map(&mut self) -> Result<u64, CborError> {
        self.head(Kind::Map)
    }

    /// A map of definite or indefinite length, whose entries are counted by [`Entries::next`].
    ///
    /// AWS's security module wrote the payload as a map of definite length until 2025 and writes one of indefinite length
    /// since.
    pub(crate) fn open_map(&mut self) -> Result<Entries, CborError> {
        if self.initial()? == INDEFINITE_MAP {
            self.at += 1;
            return Ok(Entries::UntilBreak);
        }
        self.map().map(Entries::Left)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], CborError> {
        let length = self.head(Kind::Bytes)?;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, CborError> {
        let at = self.at;
        let length = self.head(Kind::Text)?;
        core::str::from_utf8(self.take(length)?).map_err(|_| CborError::Utf8 { at })
    }

    /// A byte string, or null.
    pub(crate) fn optional_bytes(&mut self) -> Result<Option<&'a [u8]>, CborError> {
        if self.initial()? == NULL {
            self.at += 1;
            return Ok(None);
        }
        self.bytes().map(Some)
    }

    /// Nothing may follow.
    pub(crate) fn end(self) -> Result<(), CborError> {
        match self.input.len() - self.at {
            0 => Ok(()),
            extra => Err(CborError::Trailing { at: self.at, extra }),
        }
    }

    fn initial(&self) -> Result<u8, CborError> {
        self.input
            .get(self.at)
            .copied()
            .ok_or(CborError::Truncated {
                at: self.at,
                needed: 1,
            })
    }

    fn head(&mut self, expected: Kind) -> Result<u64, CborError> {
        let at = self.at;
        let initial = self.initial()?;
        let got = Kind::of(initial);
        if got != expected {
            return Err(CborError::Type { at, expected, got });
        }
        self.at += 1;
        let (value, least) = match initial & 0x1f {
            small @ 0..=23 => return Ok(small.into()),
            24 => (self.number(1)?, 24),
            25 => (self.number(2)?, 1 << 8),
            26 => (self.number(4)?, 1 << 16),
            27 => (self.number(8)?, 1 << 32),
            31 => return Err(CborError::Indefinite { at }),
            _ => return Err(CborError::Reserved { at }),
        };
        if value < least {
            Err(CborError::NotShortest { at })
        } else {
            Ok(value)
        }
    }

    fn number(&mut self, width: u64) -> Result<u64, CborError> {
        Ok(self
            .take(width)?
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], CborError> {
        let rest = &self.input[self.at..];
        let Some(taken) = usize::try_from(length)
            .ok()
            .and_then(|length| rest.get(..length))
        else {
            return Err(CborError::Truncated {
                at: self.input.len(),
                needed: length - rest.len() as u64,
            });
        };
        self.at += taken.len();
        Ok(taken)
    }
}

/// Writes items in the one accepted encoding.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn array(mut self, items: u64) -> Self {
        self.head(0x80, items);
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.head(0x40, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn text(mut self, text: &str) -> Self {
        self.head(0x60, text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn head(&mut self, major: u8, value: u64) {
        let bytes = value.to_be_bytes();
        match value {
            0..24 => self.0.push(major | bytes[7]),
            24..0x100 => self.0.extend([major | 24, bytes[7]]),
            0x100..0x1_0000 => {
                self.0.push(major | 25);
                self.0.extend_from_slice(&bytes[6..]);
            }
            0x1_0000..0x1_0000_0000 => {
                self.0.push(major | 26);
                self.0.extend_from_slice(&bytes[4..]);
            }
            _ => {
                self.0.push(major | 27);
                self.0.extend_from_slice(&bytes);
            }
        }
    }
}

#[cfg(feature = "mock")]
impl Writer {
    pub(crate) fn map(mut self, pairs: u64) -> Self {
        self.head(0xa0, pairs);
        self
    }

    /// A map that ends with [`Self::end_map`].
    pub(crate) fn open_map(mut self) -> Self {
        self.0.push(INDEFINITE_MAP);
        self
    }

    pub(crate) fn end_map(mut self) -> Self {
        self.0.push(BREAK);
        self
    }

    pub(crate) fn unsigned(mut self, value: u64) -> Self {
        self.head(0, value);
        self
    }

    pub(crate) fn null(mut self) -> Self {
        self.0.push(NULL);
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn unsigned(hex: &str) -> Result<u64, CborError> {
        let bytes = hex::decode(hex).unwrap();
        let mut reader = Reader::new(&bytes);
        let value = reader.unsigned()?;
        reader.end().map(|()| value)
    }

    #[test]
    fn integers_of_rfc_8949_appendix_a() {
        for (hex, value) in [
            ("00", 0),
            ("01", 1),
            ("0a", 10),
            ("17", 23),
            ("1818", 24),
            ("1819", 25),
            ("1864", 100),
            ("1903e8", 1000),
            ("1a000f4240", 1_000_000),
            ("1b000000e8d4a51000", 1_000_000_000_000),
            ("1bffffffffffffffff", u64::MAX),
        ] {
            assert_eq!(unsigned(hex), Ok(value), "{hex}");
            assert_eq!(hex::encode(Writer::default().unsigned(value).finish()), hex);
        }
    }

    #[test]
    fn only_the_shortest_definite_encoding() {
        for hex in [
            "1800",
            "1817",
            "190000",
            "1900ff",
            "1a00000000",
            "1a0000ffff",
            "1b0000000000000000",
            "1b00000000ffffffff",
        ] {
            assert_eq!(
                unsigned(hex),
                Err(CborError::NotShortest { at: 0 }),
                "{hex}"
            );
        }
        for hex in ["1c", "1d", "1e"] {
            assert_eq!(unsigned(hex), Err(CborError::Reserved { at: 0 }));
        }
        assert_eq!(unsigned("1f"), Err(CborError::Indefinite { at: 0 }));
        assert_eq!(
            unsigned("0000"),
            Err(CborError::Trailing { at: 1, extra: 1 })
        );
        assert_eq!(unsigned(""), Err(CborError::Truncated { at: 0, needed: 1 }));
        assert_eq!(
            unsigned("1903"),
            Err(CborError::Truncated { at: 2, needed: 1 })
        );
        assert_eq!(
            unsigned("20"),
            Err(CborError::Type {
                at: 0,
                expected: Kind::Unsigned,
                got: Kind::Negative
            })
        );
        assert_eq!(
            Reader::new(&[0x5f, 0x40, 0xff]).bytes(),
            Err(CborError::Indefinite { at: 0 })
        );
        assert_eq!(
            Reader::new(&[0x61, 0xff]).text(),
            Err(CborError::Utf8 { at: 0 })
        );
        assert_eq!(
            Reader::new(&[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).bytes(),
            Err(CborError::Truncated {
                at: 9,
                needed: u64::MAX
            })
        );
    }

    #[test]
    fn an_open_map_ends_by_count_or_break() {
        let entries = |hex: &str| -> Result<Vec<u64>, CborError> {
            let bytes = hex::decode(hex).unwrap();
            let mut reader = Reader::new(&bytes);
            let mut entries = reader.open_map()?;
            let mut keys = Vec::new();
            while entries.next(&mut reader)? {
                keys.push(reader.unsigned()?);
                reader.unsigned()?;
            }
            assert_eq!(entries.next(&mut reader), Ok(false));
            reader.end().map(|()| keys)
        };
        assert_eq!(entries("a0"), Ok(vec![]));
        assert_eq!(entries("bfff"), Ok(vec![]));
        assert_eq!(entries("a201020304"), Ok(vec![1, 3]));
        assert_eq!(entries("bf01020304ff"), Ok(vec![1, 3]));
        assert_eq!(
            entries("bf0102"),
            Err(CborError::Truncated { at: 3, needed: 1 })
        );
        assert_eq!(
            entries("bf0102ffff"),
            Err(CborError::Trailing { at: 4, extra: 1 })
        );
        assert_eq!(
            entries("a10102ff"),
            Err(CborError::Trailing { at: 3, extra: 1 })
        );
        // A break in place of a value.
        assert_eq!(
            entries("bf01ff"),
            Err(CborError::Type {
                at: 2,
                expected: Kind::Unsigned,
                got: Kind::Simple
            })
        );
    }

    #[test]
    fn null_is_an_absent_string_and_nothing_else_is() {
        assert_eq!(Reader::new(&[0xf6]).optional_bytes(), Ok(None));
        assert_eq!(Reader::new(&[0x40]).optional_bytes(), Ok(Some(&[][..])));
        for other in [0xf4, 0xf5, 0xf7, 0xe0, 0x00, 0x60] {
            assert!(
                matches!(
                    Reader::new(&[other]).optional_bytes(),
                    Err(CborError::Type { .. })
                ),
                "{other:#x}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_is_written(value: u64, bytes in proptest::collection::vec(any::<u8>(), 0..300), text in ".{0,80}") {
            let written = Writer::default().unsigned(value).bytes(&bytes).text(&text).array(value).map(value).finish();
            let mut reader = Reader::new(&written);
            prop_assert_eq!(reader.unsigned().unwrap(), value);
            prop_assert_eq!(reader.bytes().unwrap(), &bytes[..]);
            prop_assert_eq!(reader.text().unwrap(), text);
            prop_assert_eq!(reader.array().unwrap(), value);
            prop_assert_eq!(reader.map().unwrap(), value);
            reader.end().unwrap();
        }

        #[test]
        fn an_accepted_head_re_encodes_to_itself(bytes in proptest::collection::vec(any::<u8>(), 1..12)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(value) = reader.unsigned() {
                let written = Writer::default().unsigned(value).finish();
                prop_assert_eq!(&bytes[..reader.at], &written[..]);
            }
        }
    }
}
