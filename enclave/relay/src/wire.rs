//! Reading and writing the fields of a body: little-endian integers, `u32`-prefixed bytes.

use crate::error::MAX_ERROR_TEXT;
use crate::{ErrorCode, HostError, WireError, printable};

/// Takes fields off a body, front to back.
pub(crate) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(what: &'static str, body: &'a [u8]) -> Self {
        Self { what, rest: body }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return Err(WireError::Truncated {
                what: self.what,
                expected: len,
                got: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A `u32` count of items, each at least `item_bytes` long: bounded by `limit` and by what is left of the body.
    pub(crate) fn count(
        &mut self,
        what: &'static str,
        limit: usize,
        item_bytes: usize,
    ) -> Result<usize, WireError> {
        let got = self.u32()? as usize;
        if got > limit {
            return Err(WireError::TooLong { what, limit, got });
        }
        if got.saturating_mul(item_bytes) > self.rest.len() {
            return Err(WireError::Truncated {
                what,
                expected: got.saturating_mul(item_bytes),
                got: self.rest.len(),
            });
        }
        Ok(got)
    }

    pub(crate) fn bytes(
        &mut self,
        what: &'static str,
        limit: usize,
    ) -> Result<&'a [u8], WireError> {
        let got = self.u32()? as usize;
        if got > limit {
            return Err(WireError::TooLong { what, limit, got });
        }
        self.take(got)
    }

    pub(crate) fn text(&mut self, what: &'static str, limit: usize) -> Result<String, WireError> {
        let bytes = self.bytes(what, limit)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(WireError::Invalid {
                what,
                why: "not UTF-8",
            }),
        }
    }

    pub(crate) fn host_error(&mut self) -> Result<HostError, WireError> {
        let code = ErrorCode::from_u16(self.u16()?);
        let text = self.bytes("error text", MAX_ERROR_TEXT)?;
        Ok(HostError::new(code, &printable(text, MAX_ERROR_TEXT)))
    }

    /// What is left, to the last byte.
    pub(crate) fn remainder(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(crate) fn end(self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(WireError::Trailing {
            what: self.what,
            got: self.rest.len(),
        })
    }
}

/// Appends the fields [`Reader`] takes.
pub(crate) trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_bytes(
        &mut self,
        what: &'static str,
        limit: usize,
        bytes: &[u8],
    ) -> Result<(), WireError> {
        if bytes.len() > limit.min(u32::MAX as usize) {
            return Err(WireError::TooLong {
                what,
                limit,
                got: bytes.len(),
            });
        }
        self.put(&(bytes.len() as u32).to_le_bytes());
        self.put(bytes);
        Ok(())
    }

    fn put_host_error(&mut self, error: &HostError) {
        self.put(&error.code().to_u16().to_le_bytes());
        self.put(&(error.text().len() as u32).to_le_bytes());
        self.put(error.text().as_bytes());
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}
