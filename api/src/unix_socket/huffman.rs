//! Just enough of HPACK's Huffman code to overwrite symbols in place. Source: RFC 7541 Appendix B.
//!
//! The code is canonical, so the symbols of each length in order are the whole table. Nothing longer than eight bits is
//! legal in an authority, so longer codes need no names, only numbers.

use super::authority::Rule;

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
pub(super) enum Cleaned {
    /// Every symbol up to this bit is legal now; the next one is not complete in these bytes.
    UpTo(usize),
    /// Not a Huffman string: the rest is left as it is.
    Invalid,
}

/// Overwrites what `rule` refuses with legal symbols of together the same length, from bit `from` on.
pub(super) fn clean(bytes: &mut [u8], from: usize, rule: &mut Rule) -> Cleaned {
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
mod tests {
    use super::*;

    fn symbols(bytes: &[u8]) -> Vec<Option<u8>> {
        let (mut at, mut found) = (0, Vec::new());
        while let Decoded::Symbol(symbol, length) = decode(bytes, at) {
            found.push(symbol);
            at += length;
        }
        found
    }

    #[test]
    fn decodes_the_standards_examples() {
        // RFC 7541 C.4.1 and C.6.1.
        let www = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(symbols(&www), b"www.example.com".map(Some));
        assert_eq!(symbols(&[0x64, 0x02]), b"302".map(Some));
    }

    #[test]
    fn every_filler_is_legal_and_of_its_length() {
        for bits in (5..=8).chain(10..=15).chain(19..=30) {
            let mut bytes = [0xff; 5];
            write(&mut bytes, 0, filler(bits), bits);
            let (mut at, mut rule) = (0, Rule::default());
            while at < bits {
                let Decoded::Symbol(Some(symbol), length) = decode(&bytes, at) else { panic!("{bits} bits at {at}") };
                assert!(rule.accepts(symbol));
                at += length;
            }
            assert_eq!(at, bits, "ends where the replaced symbol ended");
        }
    }
}
