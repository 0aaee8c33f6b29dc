//! Bytes to text with LF line ends.

use std::borrow::Cow;

use thiserror::Error;

/// Why bytes are not text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TextError {
    /// An encoding that is known by its first bytes and not read.
    #[error("it is {0}: save it as UTF-8")]
    Encoding(&'static str),
    /// A form that is known by its first bytes and is no text: what it is, what to do.
    #[error("it is {0}: {1}")]
    Binary(&'static str, &'static str),
    /// The mark of UTF-16, and then something else.
    #[error("it begins as UTF-16 and goes on otherwise: save it as UTF-8")]
    Utf16,
    /// Bytes that no UTF-8 has.
    #[error("line {line} is not UTF-8: save it as UTF-8 (a character there may be in Windows-1252 or Latin-1)")]
    NotUtf8 {
        /// Where the first such byte is, counted from 1.
        line: usize,
    },
}

/// The mark that some programs put in front of Unicode text.
const MARK: char = '\u{feff}';

/// The text of `bytes`: UTF-8, or UTF-16 with its mark. Marks at the beginning of lines are removed, and CR and CRLF become
/// LF. Borrowed if nothing had to be changed; else one string is made and no other copy, since the text may be a secret.
///
/// UTF-32 and UTF-16 without a mark are refused by name.
pub fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, TextError> {
    match bytes {
        // Before UTF-16's mark, which it begins with.
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Err(TextError::Encoding("UTF-32")),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes).map(Cow::Owned),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes).map(Cow::Owned),
        [0x30, 0x82, ..] | [0x30, 0x83, ..] => {
            Err(TextError::Binary("DER", "convert it with: openssl x509 -inform der -in FILE -out FILE.pem"))
        }
        [b'P', b'K', 3, 4, ..] => Err(TextError::Binary("a spreadsheet or an archive", "export it as CSV")),
        [0, first, 0, second, ..] | [first, 0, second, 0, ..] if *first != 0 && *second != 0 => {
            Err(TextError::Encoding("UTF-16 without a mark"))
        }
        _ => Ok(normalized(utf8(bytes)?)),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, TextError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        TextError::NotUtf8 { line: 1 + before.iter().filter(|byte| **byte == b'\n').count() }
    })
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, TextError> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(TextError::Utf16);
    }
    // No character needs more than three bytes for each of its units.
    let mut lines = Lines::with_capacity(3 * pairs.len());
    for character in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        lines.push(character.map_err(|_| TextError::Utf16)?);
    }
    Ok(lines.text)
}

fn normalized(text: &str) -> Cow<'_, str> {
    if !text.contains(['\r', MARK]) {
        return Cow::Borrowed(text);
    }
    let mut lines = Lines::with_capacity(text.len());
    text.chars().for_each(|character| lines.push(character));
    Cow::Owned(lines.text)
}

/// Text that is put together character by character, in memory that does not move.
struct Lines {
    text: String,
    after_cr: bool,
}

impl Lines {
    fn with_capacity(bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), after_cr: false }
    }

    fn push(&mut self, character: char) {
        let is_line_begin = self.text.is_empty() || self.text.ends_with('\n');
        match character {
            '\n' if self.after_cr => {}
            '\r' => self.text.push('\n'),
            MARK if is_line_begin => {}
            other => self.text.push(other),
        }
        self.after_cr = character == '\r';
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn marks_encodings_and_line_ends_do_not_reach_the_parser() {
        for bytes in [
            b"a\nb\n".to_vec(),
            b"a\r\nb\r\n".to_vec(),
            b"a\rb\r".to_vec(),
            b"\xef\xbb\xbfa\nb\n".to_vec(),
            b"\xef\xbb\xbf\xef\xbb\xbfa\n\xef\xbb\xbfb\n".to_vec(),
            utf16("\u{feff}a\r\nb\n", u16::to_le_bytes),
            utf16("\u{feff}a\nb\r\n", u16::to_be_bytes),
        ] {
            assert_eq!(decode(&bytes).as_deref(), Ok("a\nb\n"), "{bytes:?}");
        }
        assert!(matches!(decode("grün\n".as_bytes()), Ok(Cow::Borrowed("grün\n"))), "nothing to change");
        assert_eq!(decode(&utf16("\u{feff}grün 𝄞", u16::to_le_bytes)).as_deref(), Ok("grün 𝄞"));
        assert_eq!(decode(b"").as_deref(), Ok(""));
    }

    #[test]
    fn encodings_that_are_not_read_are_named() {
        assert_eq!(decode(b"\xff\xfe\0\0a\0\0\0"), Err(TextError::Encoding("UTF-32")));
        assert_eq!(decode(b"\0\0\xfe\xff\0\0\0a"), Err(TextError::Encoding("UTF-32")));
        for bare in [utf16("ek", u16::to_le_bytes), utf16("ek", u16::to_be_bytes)] {
            assert_eq!(decode(&bare), Err(TextError::Encoding("UTF-16 without a mark")));
        }
        assert!(matches!(decode(b"\x30\x82\x01\x02"), Err(TextError::Binary("DER", _))));
        assert!(matches!(decode(b"PK\x03\x04..."), Err(TextError::Binary("a spreadsheet or an archive", _))));
        assert_eq!(decode(b"\xff\xfea"), Err(TextError::Utf16), "half a character");
        assert_eq!(decode(b"\xff\xfe\x00\xd8a\0"), Err(TextError::Utf16), "half a pair");
        assert_eq!(decode(b"a\nM\xfcnchen\n"), Err(TextError::NotUtf8 { line: 2 }));
    }
}
