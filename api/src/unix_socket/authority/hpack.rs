//! Finds the value of `:authority` in a header block without decoding the block. Source: RFC 7541 §5, §6.
//!
//! No table is kept: a value is made legal where it is spelled out, so what a decoder later stores from there is legal too.

const NAME: &[u8] = b":authority";
/// `:authority` in HPACK's Huffman code.
const NAME_HUFFMAN: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];
/// `:authority` in the static table, RFC 7541 Appendix A.
const STATIC_INDEX: u32 = 1;
/// Integers above 2^28 are no length a server accepts.
const MAX_SHIFT: u32 = 21;

/// Which bytes an authority may hold here: letters, digits, `.`, `_`, `-`, and one colon that is not the first byte.
#[derive(Clone, Copy, Debug, Default)]
struct Rule {
    begun: bool,
    colon: bool,
}

impl Rule {
    fn accepts(&mut self, byte: u8) -> bool {
        let first_colon = byte == b':' && self.begun && !self.colon;
        self.begun = true;
        self.colon |= byte == b':';
        first_colon || byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
    }
}

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
        match clean(&mut bytes[..n], bit, &mut rule) {
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

// Just enough of HPACK's Huffman code to overwrite symbols in place. Source: RFC 7541 Appendix B. The code is canonical, so the
// symbols of each length in order are the whole table. Nothing longer than eight bits is legal in an authority, so longer codes need
// no names, only numbers.

/// How many codes there are of each length, 0..=30 bits.
const COUNTS: [u32; 31] =
    [0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];
/// The symbols with codes of 5, 6, 7 and 8 bits, in code order.
const SHORT: [&[u8]; 4] =
    [b"012aceiost", b" %-./3456789=A_bdfghlmnpru", b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz", b"&*,;XZ"];

/// What is at a bit position.
enum Decoded {
    /// A symbol (`None`: one that needs ten bits or more) and its length in bits.
    Symbol(Option<u8>, usize),
    /// The bytes end inside a symbol, or inside the padding.
    Incomplete,
    /// No code begins like this.
    Invalid,
}

/// Where cleaning stopped.
enum Cleaned {
    /// Every symbol up to this bit is legal now; the next one is not complete in these bytes.
    UpTo(usize),
    /// Not a Huffman string: the rest is left as it is.
    Invalid,
}

/// Overwrites what `rule` refuses with legal symbols of together the same length, from bit `from` on.
fn clean(bytes: &mut [u8], from: usize, rule: &mut Rule) -> Cleaned {
    let mut at = from;
    loop {
        match decode(bytes, at) {
            Decoded::Symbol(symbol, length) => {
                if !symbol.is_some_and(|s| rule.accepts(s)) {
                    write(bytes, at, filler(length), length);
                }
                at += length;
            }
            Decoded::Incomplete => return Cleaned::UpTo(at),
            Decoded::Invalid => return Cleaned::Invalid,
        }
    }
}

fn decode(bytes: &[u8], at: usize) -> Decoded {
    let (mut code, mut first) = (0u32, 0u32);
    for (length, count) in COUNTS.iter().enumerate().skip(1) {
        let bit = at + length - 1;
        let Some(byte) = bytes.get(bit / 8) else { return Decoded::Incomplete };
        code = code << 1 | u32::from(byte >> (7 - bit % 8) & 1);
        if let Some(nth) = code.checked_sub(first).filter(|nth| nth < count) {
            let symbol = SHORT.get(length.wrapping_sub(5)).and_then(|symbols| symbols.get(nth as usize));
            // The last code of 30 bits is EOS, which no string may hold.
            return if length == 30 && nth == 3 { Decoded::Invalid } else { Decoded::Symbol(symbol.copied(), length) };
        }
        first = (first + count) << 1;
    }
    Decoded::Invalid
}

/// Codes of harmless symbols, `bits` long together. HPACK has no code of 9 bits, so 5..=8, 10..=15 and 19.. do.
fn filler(bits: usize) -> u32 {
    let (mut codes, mut left) = (0, bits);
    while left > 0 {
        let (code, length) = match left {
            6 => (0b01_0110, 6),   // '-'
            7 | 14 => (0x74, 7),   // 'j'
            8 => (0xfc, 8),        // 'X'
            _ => (0, 5.min(left)), // '0'
        };
        codes = codes << length | code;
        left -= length;
    }
    codes
}

fn write(bytes: &mut [u8], at: usize, code: u32, length: usize) {
    for i in 0..length {
        let (bit, mask) = (at + i, 0x80 >> ((at + i) % 8));
        match code >> (length - 1 - i) & 1 {
            1 => bytes[bit / 8] |= mask,
            _ => bytes[bit / 8] &= !mask,
        }
    }
}

#[cfg(test)]
mod tests;
