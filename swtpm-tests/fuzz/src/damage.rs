//! What may happen to bytes.

use proptest::prelude::*;
use proptest::sample::Index;

/// Bytes and pieces that parsers are known to stumble over.
const PIECES: [&[u8]; 26] = [
    b"\0",
    b"\r",
    b"\n",
    b"\r\n",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xef\xbb\xbf",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\"",
    b"'",
    b",",
    b";",
    b"{",
    b"}",
    b"[",
    b"]",
    b"=",
    b"${",
    b"\\",
    b"-----BEGIN CERTIFICATE-----\n",
    b"-----END CERTIFICATE-----\n",
    b"/*",
    b"<<E\n",
    b"\x30\x84\xff\xff\xff\xff",
];

/// One way to damage an input; several may follow each other.
#[derive(Clone, Debug)]
pub(crate) enum Damage {
    Flip(Index, u8),
    Set(Index, u8),
    Insert(Index, Index),
    Delete(Index, u8),
    Repeat(Index, u8, u8),
    Cut(Index),
    /// From here on the other seed.
    Splice(Index, Index),
}

pub(crate) fn any_damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        3 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        4 => (any::<Index>(), any::<Index>()).prop_map(|(at, piece)| Damage::Insert(at, piece)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, length)| Damage::Delete(at, length)),
        1 => (any::<Index>(), any::<u8>(), 1..16_u8).prop_map(|(at, length, times)| Damage::Repeat(at, length, times)),
        1 => any::<Index>().prop_map(Damage::Cut),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(at, from)| Damage::Splice(at, from)),
    ]
}

/// `seed` after all of the changes.
pub(crate) fn damaged(seed: &[u8], other: &[u8], damages: &[Damage]) -> Vec<u8> {
    damages.iter().fold(seed.to_vec(), |bytes, damage| changed(bytes, other, damage))
}

fn changed(mut bytes: Vec<u8>, other: &[u8], damage: &Damage) -> Vec<u8> {
    // A place at or behind a byte; the end counts.
    let place = |at: &Index, length: usize| at.index(length + 1);
    let length = bytes.len();
    match damage {
        Damage::Flip(at, bit) if length > 0 => bytes[at.index(length)] ^= 1 << bit,
        Damage::Set(at, byte) if length > 0 => bytes[at.index(length)] = *byte,
        Damage::Insert(at, piece) => {
            let at = place(at, length);
            bytes.splice(at..at, piece.get(&PIECES).iter().copied());
        }
        Damage::Delete(at, count) => {
            let at = place(at, length);
            bytes.drain(at..length.min(at + usize::from(*count)));
        }
        Damage::Repeat(at, count, times) => {
            let at = place(at, length);
            let piece = bytes[at..length.min(at + usize::from(*count))].repeat(usize::from(*times));
            bytes.splice(at..at, piece);
        }
        Damage::Cut(at) => bytes.truncate(place(at, length)),
        Damage::Splice(at, from) => {
            bytes.truncate(place(at, length));
            bytes.extend_from_slice(&other[place(from, other.len())..]);
        }
        Damage::Flip(..) | Damage::Set(..) => {}
    }
    bytes
}
