//! SSH's data types: numbers in network order, strings with their length in front. Source: RFC 4251, 5.

use thiserror::Error;

/// The bytes are not what they should be: cut off, or too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it is cut off, or longer than it says")]
pub struct Damaged;

/// What is left to read.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// So many bytes.
    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A `uint32`.
    pub fn u32(&mut self) -> Result<u32, Damaged> {
        let (number, rest) = self.0.split_first_chunk::<4>().ok_or(Damaged)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*number))
    }

    /// A `uint64`.
    pub fn u64(&mut self) -> Result<u64, Damaged> {
        let (number, rest) = self.0.split_first_chunk::<8>().ok_or(Damaged)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*number))
    }

    /// A `string`, which need not be text.
    pub fn string(&mut self) -> Result<&'a [u8], Damaged> {
        let length = usize::try_from(self.u32()?).map_err(|_| Damaged)?;
        self.take(length)
    }

    /// A `string` that is text.
    pub fn text(&mut self) -> Result<&'a str, Damaged> {
        std::str::from_utf8(self.string()?).map_err(|_| Damaged)
    }

    /// An `mpint` above zero, without the zero in front that says so; each number has one form.
    pub fn positive(&mut self) -> Result<&'a [u8], Damaged> {
        match self.string()? {
            [0, number @ ..] if number.first().is_some_and(|first| first & 0x80 != 0) => Ok(number),
            number if number.first().is_some_and(|first| (1..0x80).contains(first)) => Ok(number),
            _ => Err(Damaged),
        }
    }

    /// Nothing is left.
    pub fn finish(self) -> Result<(), Damaged> {
        if self.0.is_empty() { Ok(()) } else { Err(Damaged) }
    }
}

/// `bytes` as a `string`.
pub fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a message is some kilobytes");
    [&length.to_be_bytes(), bytes].concat()
}

/// A number above zero, big-endian, as an `mpint`.
pub fn positive(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let number = &number[zeros..];
    match number.first() {
        Some(first) if first & 0x80 != 0 => string(&[&[0], number].concat()),
        _ => string(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Vectors: RFC 4251, 5, mpint.
    #[test]
    fn numbers_have_one_form() {
        let good: [(&[u8], &[u8]); 2] = [
            (
                &[0, 0, 0, 8, 0x09, 0xa3, 0x78, 0xf9, 0xb2, 0xe3, 0x32, 0xa7],
                &[0x09, 0xa3, 0x78, 0xf9, 0xb2, 0xe3, 0x32, 0xa7],
            ),
            (&[0, 0, 0, 2, 0, 0x80], &[0x80]),
        ];
        for (bytes, number) in good {
            assert_eq!(Reader::new(bytes).positive(), Ok(number));
            assert_eq!(positive(number), bytes);
        }
        // Zero, a negative number, and a zero too many in front.
        for bytes in [&[0, 0, 0, 0][..], &[0, 0, 0, 1, 0], &[0, 0, 0, 2, 0xed, 0xcc], &[0, 0, 0, 2, 0, 0x7f]] {
            assert_eq!(Reader::new(bytes).positive(), Err(Damaged), "{bytes:?}");
        }
        assert_eq!(Reader::new(&[0, 0, 0, 2, 1]).string(), Err(Damaged));
        assert_eq!(Reader::new(&[0xff; 4]).string(), Err(Damaged));
        assert_eq!(string(b"ab"), [0, 0, 0, 2, b'a', b'b']);
    }
}
