//! Reading a log: little-endian integers and counted bytes, to the exact end.

use super::EventLogError;

/// Reads from the front of `rest`, and knows which event it is in.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    event: usize,
}

impl<'a> Reader<'a> {
    /// At the log's first event, which is number 0.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, event: 0 }
    }

    /// Whether nothing is left.
    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next event begins here.
    pub fn begin_event(&mut self) {
        self.event += 1;
    }

    /// The event that is being read, by its place in the log; the header is 0.
    pub fn event(&self) -> usize {
        self.event
    }

    pub fn u8(&mut self) -> Result<u8, EventLogError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, EventLogError> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, EventLogError> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, EventLogError> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], EventLogError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(EventLogError::Truncated { event: self.event })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EventLogError> {
        Ok(self.take(N)?.try_into().expect("take gives N bytes"))
    }
}
