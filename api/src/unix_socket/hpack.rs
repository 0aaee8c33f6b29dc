//! Finds the value of `:authority` in a header block without decoding the block. Source: RFC 7541 §5, §6.
//!
//! No table is kept: a value is made legal where it is spelled out, so what a decoder later stores from there is legal too.

use super::authority::Rule;
use super::huffman::{self, Cleaned};

const NAME: &[u8] = b":authority";
/// `:authority` in HPACK's Huffman code.
const NAME_HUFFMAN: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];
/// `:authority` in the static table, RFC 7541 Appendix A.
const STATIC_INDEX: u32 = 1;
/// Integers above 2^28 are no length a server accepts.
const MAX_SHIFT: u32 = 21;

/// Where in a header block the next byte is.
#[derive(Clone, Copy, Debug)]
enum Step {
    Field,
    Integer {
        of: Integer,
        value: u32,
        shift: u32,
    },
    NameLength,
    Name {
        left: u32,
        huffman: bool,
        matches: bool,
    },
    ValueLength {
        authority: bool,
    },
    Skip {
        left: u32,
    },
    Plain {
        left: u32,
        rule: Rule,
    },
    /// `bit`: where in the next byte the next symbol begins.
    Huffman {
        left: u32,
        bit: usize,
        rule: Rule,
    },
}

/// What an integer is the value of.
#[derive(Clone, Copy, Debug)]
enum Integer {
    Ignored,
    NameIndex,
    NameLength { huffman: bool },
    ValueLength { huffman: bool, authority: bool },
}

/// A header block as it passes by, in pieces of any size.
#[derive(Debug)]
pub(super) struct Block(Step);

/// The block cannot be followed any further.
pub(super) struct Lost;

impl Block {
    pub(super) fn new() -> Self {
        Self(Step::Field)
    }

    /// Walks the next bytes of the block. Returns how many are final; the rest (at most four) hold an unfinished symbol
    /// and are to be offered again with their successors. `frame_ends`: other bytes than the block's follow; then all
    /// are final, and a Huffman-coded value cut in the middle of a symbol stays as it is from there on.
    pub(super) fn walk(&mut self, bytes: &mut [u8], frame_ends: bool) -> Result<usize, Lost> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &mut bytes[at..];
            let used = match self.0 {
                Step::Skip { .. } | Step::Name { .. } | Step::Plain { .. } => self.pass(rest),
                Step::Huffman { left, bit, rule } => {
                    let used = self.huffman(rest, left, bit, rule, frame_ends);
                    if used == 0 {
                        return Ok(at);
                    }
                    used
                }
                _ => {
                    self.byte(rest[0])?;
                    1
                }
            };
            at += used;
        }
        Ok(at)
    }

    /// One byte of an integer or of a field's first byte.
    fn byte(&mut self, byte: u8) -> Result<(), Lost> {
        match self.0 {
            Step::Field if byte & 0x80 != 0 => self.integer(byte, 7, Integer::Ignored),
            Step::Field if byte & 0xc0 == 0x40 => self.integer(byte, 6, Integer::NameIndex),
            Step::Field if byte & 0xe0 == 0x20 => self.integer(byte, 5, Integer::Ignored),
            Step::Field => self.integer(byte, 4, Integer::NameIndex),
            Step::NameLength => self.integer(byte, 7, Integer::NameLength { huffman: byte & 0x80 != 0 }),
            Step::ValueLength { authority } => {
                self.integer(byte, 7, Integer::ValueLength { huffman: byte & 0x80 != 0, authority });
            }
            Step::Integer { of, value, shift } => {
                let value = value + (u32::from(byte & 0x7f) << shift);
                match byte & 0x80 {
                    0 => self.known(of, value),
                    _ if shift == MAX_SHIFT => return Err(Lost),
                    _ => self.0 = Step::Integer { of, value, shift: shift + 7 },
                }
            }
            Step::Name { .. } | Step::Skip { .. } | Step::Plain { .. } | Step::Huffman { .. } => return Err(Lost),
        }
        Ok(())
    }

    /// An integer begins in the low `bits` of `byte`.
    fn integer(&mut self, byte: u8, bits: u32, of: Integer) {
        let mask = (1u32 << bits) - 1;
        match u32::from(byte) & mask {
            value if value == mask => self.0 = Step::Integer { of, value, shift: 0 },
            value => self.known(of, value),
        }
    }

    fn known(&mut self, of: Integer, value: u32) {
        self.0 = match of {
            Integer::Ignored => Step::Field,
            Integer::NameIndex if value == 0 => Step::NameLength,
            Integer::NameIndex => Step::ValueLength { authority: value == STATIC_INDEX },
            Integer::NameLength { .. } if value == 0 => Step::ValueLength { authority: false },
            Integer::NameLength { huffman } => {
                Step::Name { left: value, huffman, matches: value as usize == spelled(huffman).len() }
            }
            Integer::ValueLength { .. } if value == 0 => Step::Field,
            Integer::ValueLength { authority: false, .. } => Step::Skip { left: value },
            Integer::ValueLength { huffman: false, .. } => Step::Plain { left: value, rule: Rule::default() },
            Integer::ValueLength { huffman: true, .. } => Step::Huffman { left: value, bit: 0, rule: Rule::default() },
        };
    }

    /// Bytes of a name, of a value that does not matter, or of a plain authority. Returns how many it took.
    fn pass(&mut self, bytes: &mut [u8]) -> usize {
        match &mut self.0 {
            Step::Skip { left } => {
                let n = fitting(*left, bytes);
                *left -= n as u32;
                if *left == 0 {
                    self.0 = Step::Field;
                }
                n
            }
            Step::Name { left, huffman, matches } => {
                let (n, name) = (fitting(*left, bytes), spelled(*huffman));
                if *matches {
                    let from = name.len() - *left as usize;
                    *matches = name[from..][..n] == bytes[..n];
                }
                *left -= n as u32;
                if *left == 0 {
                    self.0 = Step::ValueLength { authority: *matches };
                }
                n
            }
            Step::Plain { left, rule } => {
                let n = fitting(*left, bytes);
                bytes[..n].iter_mut().filter(|b| !rule.accepts(**b)).for_each(|b| *b = b'-');
                *left -= n as u32;
                if *left == 0 {
                    self.0 = Step::Field;
                }
                n
            }
            _ => 0,
        }
    }

    /// Bytes of a Huffman-coded authority. Returns how many are final: none if more are needed.
    fn huffman(&mut self, bytes: &mut [u8], left: u32, bit: usize, mut rule: Rule, frame_ends: bool) -> usize {
        let n = fitting(left, bytes);
        let value_ends = n as u32 == left;
        match huffman::clean(&mut bytes[..n], bit, &mut rule) {
            _ if value_ends => {
                self.0 = Step::Field;
                n
            }
            Cleaned::UpTo(end) if !frame_ends || end == 8 * n => {
                let used = end / 8;
                self.0 = Step::Huffman { left: left - used as u32, bit: end % 8, rule };
                used
            }
            _ => {
                self.0 = Step::Skip { left: left - n as u32 };
                n
            }
        }
    }
}

fn spelled(huffman: bool) -> &'static [u8] {
    if huffman { NAME_HUFFMAN } else { NAME }
}

fn fitting(left: u32, bytes: &[u8]) -> usize {
    bytes.len().min(left as usize)
}
