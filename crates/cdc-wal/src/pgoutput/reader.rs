//! Big-endian reads that fail instead of panicking.

use cdc_core::Lsn;

use crate::{Error, Result};

/// A cursor over the bytes of one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.bytes.split_at_checked(length).ok_or_else(truncated)?;
        self.bytes = rest;
        Ok(head)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk::<N>().ok_or_else(truncated)?;
        self.bytes = rest;
        Ok(*head)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn lsn(&mut self) -> Result<Lsn> {
        self.array().map(|bytes| Lsn(u64::from_be_bytes(bytes)))
    }

    /// Microseconds since 1970 of a protocol timestamp.
    pub(super) fn micros(&mut self) -> Result<i64> {
        self.i64().map(cdc_core::pg_micros_to_unix)
    }

    /// A zero-terminated UTF-8 string.
    pub(super) fn text(&mut self) -> Result<&'a str> {
        let end = self.bytes.iter().position(|byte| *byte == 0).ok_or_else(truncated)?;
        let text = std::str::from_utf8(&self.bytes[..end])
            .map_err(|_| Error::protocol("a name is not UTF-8"))?;
        self.bytes = &self.bytes[end + 1..];
        Ok(text)
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn finish(&self) -> Result<()> {
        match self.bytes.len() {
            0 => Ok(()),
            extra => Err(Error::protocol(format!("{extra} bytes behind the end of a message"))),
        }
    }
}

#[cold]
fn truncated() -> Error {
    Error::protocol("a message ends too early")
}
