//! What can be wrong with bytes from the other side, and the errors the host reports.

use std::fmt;
use std::io;

/// Longest error text, in bytes, that a host may send.
pub const MAX_ERROR_TEXT: usize = 256;

/// A frame or message that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The stream itself failed.
    #[error("relay stream: {0}")]
    Io(#[from] io::Error),
    /// A frame or field is longer than its limit.
    #[error("{what} is {got} bytes long, the limit is {limit}")]
    TooLong {
        /// The frame or field.
        what: &'static str,
        /// The greatest length allowed, in bytes or, where `what` names a list, in items.
        limit: usize,
        /// The length found or announced.
        got: usize,
    },
    /// A frame's body does not match the CRC-32 in its header.
    #[error("frame checksum: expected {expected:08x}, got {got:08x}")]
    Checksum {
        /// The checksum the header announced.
        expected: u32,
        /// The checksum of the bytes that came.
        got: u32,
    },
    /// The stream or the body ended inside a frame or field.
    #[error("{what} is truncated: expected {expected} bytes, got {got}")]
    Truncated {
        /// The frame or field.
        what: &'static str,
        /// Bytes needed.
        expected: usize,
        /// Bytes there were.
        got: usize,
    },
    /// A body has bytes after its last field.
    #[error("{what} has {got} bytes after its last field")]
    Trailing {
        /// The message.
        what: &'static str,
        /// How many bytes too many.
        got: usize,
    },
    /// A discriminant that this version does not know.
    #[error("unknown {what} {kind}")]
    UnknownKind {
        /// What the discriminant selects.
        what: &'static str,
        /// The value found.
        kind: u64,
    },
    /// A field's value is not allowed.
    #[error("{what}: {why}")]
    Invalid {
        /// The field.
        what: &'static str,
        /// The rule it breaks.
        why: &'static str,
    },
}

impl WireError {
    /// True if the stream failed or ended, so that connecting again may help; false if the other side broke the
    /// protocol.
    #[must_use]
    pub fn is_disconnect(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Truncated { what: "frame", .. })
    }
}

/// Why a host refused or failed a request. The host is not trusted: a code is a hint for the operator and for retries,
/// never evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorCode {
    /// Anything without a code of its own.
    Internal,
    /// The protocol version is not supported.
    Version,
    /// The request does not decode or breaks a limit.
    Malformed,
    /// A slot beyond the end of the page file.
    OutOfRange,
    /// The page file could not be read or written.
    Io,
    /// The disk is full.
    NoSpace,
    /// The target is not on the allow-list.
    NotAllowed,
    /// Too many connections or requests at once.
    Busy,
    /// The name does not resolve.
    NotFound,
    /// The target refuses or cannot be reached.
    Unreachable,
    /// The target did not answer in time.
    Timeout,
    /// The chain's node refused the transaction (funds, nonce, fee).
    Rejected,
    /// The transaction reverts.
    Reverted,
    /// A code of a later version.
    Other(u16),
}

impl ErrorCode {
    const TABLE: [(u16, Self); 13] = [
        (0, Self::Internal),
        (1, Self::Version),
        (2, Self::Malformed),
        (3, Self::OutOfRange),
        (4, Self::Io),
        (5, Self::NoSpace),
        (6, Self::NotAllowed),
        (7, Self::Busy),
        (8, Self::NotFound),
        (9, Self::Unreachable),
        (10, Self::Timeout),
        (11, Self::Rejected),
        (12, Self::Reverted),
    ];

    /// The number on the wire.
    #[must_use]
    pub fn to_u16(self) -> u16 {
        if let Self::Other(code) = self {
            return code;
        }
        Self::TABLE
            .iter()
            .find(|(_, code)| *code == self)
            .map_or(0, |(number, _)| *number)
    }

    /// The code of a number from the wire; unknown ones are kept.
    #[must_use]
    pub fn from_u16(number: u16) -> Self {
        Self::TABLE
            .iter()
            .find(|(n, _)| *n == number)
            .map_or(Self::Other(number), |(_, code)| *code)
    }
}

/// An error the host reported. The text is untrusted: it was cut to 256 bytes and holds printable ASCII only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct HostError {
    code: ErrorCode,
    text: String,
}

impl HostError {
    /// Makes an error whose text is filtered by [`printable`].
    #[must_use]
    pub fn new(code: ErrorCode, text: &str) -> Self {
        Self {
            code,
            text: printable(text.as_bytes(), MAX_ERROR_TEXT),
        }
    }

    /// The host's reason.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The host's words, safe to print.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host reports {:?}: {}", self.code, self.text)
    }
}

/// Makes untrusted bytes safe for a log line: at most `limit` bytes, every byte that is not printable ASCII becomes `?`.
#[must_use]
pub fn printable(bytes: &[u8], limit: usize) -> String {
    bytes
        .iter()
        .take(limit)
        .map(|&b| {
            if (0x20..0x7f).contains(&b) {
                char::from(b)
            } else {
                '?'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip() {
        for number in 0..40 {
            assert_eq!(ErrorCode::from_u16(number).to_u16(), number);
        }
    }

    #[test]
    fn host_text_is_cut_and_filtered() {
        let error = HostError::new(ErrorCode::Io, &format!("a\n\x1b[31m{}", "é".repeat(300)));
        assert_eq!(error.text().len(), MAX_ERROR_TEXT);
        assert!(error.text().starts_with("a??[31m????"));
    }
}
