//! Takes big-endian numbers and strings off the front of a message.
//!
//! Invariant: every method answers `None`, and never panics, where the message is too short.

pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string of at most `limit` bytes behind its 32-bit length.
    pub(super) fn string(&mut self, limit: usize) -> Option<&'a str> {
        let len = self
            .u32()
            .and_then(|len| usize::try_from(len).ok())
            .filter(|&len| len <= limit)?;
        self.bytes(len).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }
}
