use ironroot_fuzz::proptest::prelude::*;

use super::*;

const PATH: &[u8] = b"%2Ftmp%2Fagent%2Fapi.sock";
const CLEAN: &[u8] = b"-2Ftmp-2Fagent-2Fapi.sock";

/// `:path: /x` (literal, never indexed) and `:method: POST` (indexed): what surrounds an authority.
const OTHER_FIELDS: &[u8] = b"\x14\x02/x\x83";

/// Huffman codes of what the tests spell. Source: RFC 7541 Appendix B.
fn huffman(text: &[u8]) -> Vec<u8> {
    const CODES: [(u8, &str); 24] = [
        (b'%', "010101"),
        (b'/', "011000"),
        (b'-', "010110"),
        (b'.', "010111"),
        (b'2', "00010"),
        (b'F', "1100001"),
        (b't', "01001"),
        (b'm', "101001"),
        (b'p', "101011"),
        (b'a', "00011"),
        (b'g', "100110"),
        (b'e', "00101"),
        (b'n', "101010"),
        (b'i', "00110"),
        (b's', "01000"),
        (b'o', "00111"),
        (b'c', "00100"),
        (b'k', "1110101"),
        (b':', "1011100"),
        (b'0', "00000"),
        (b'#', "111111111010"),
        (b'~', "1111111111101"),
        (b'@', "1111111111010"),
        (b'\n', "111111111111111111111111111100"),
    ];
    let code = |b: &u8| CODES.iter().find(|(symbol, _)| symbol == b).map(|(_, code)| *code).expect("in the list");
    let mut bits: String = text.iter().map(code).collect();
    while !bits.len().is_multiple_of(8) {
        bits.push('1');
    }
    (0..bits.len()).step_by(8).map(|i| u8::from_str_radix(&bits[i..i + 8], 2).expect("bits")).collect()
}

fn string(bytes: &[u8], huffman: bool) -> Vec<u8> {
    assert!(bytes.len() < 127);
    [&[bytes.len() as u8 | if huffman { 0x80 } else { 0 }], bytes].concat()
}

/// The ways a client may spell the field.
fn spellings(value: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for value in [string(value, false), string(&huffman(value), true)] {
        for first in [0x41u8, 0x01, 0x11] {
            all.push([&[first], &value[..]].concat());
        }
        all.push([&[0x40], &string(b":authority", false)[..], &value].concat());
        let name = [0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];
        all.push([&[0x10], &string(&name, true)[..], &value].concat());
    }
    all
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

/// A connection whose second frame carries `block`, cut into HEADERS and CONTINUATION frames of `piece` bytes.
fn connection(block: &[u8], piece: usize, padded: bool, priority: bool) -> Vec<u8> {
    let mut bytes = [&PREFACE[..], &frame(4, 0, &[0, 3, 0, 0, 0, 9])].concat();
    let pieces: Vec<&[u8]> = block.chunks(piece).collect();
    for (i, part) in pieces.iter().enumerate() {
        let mut flags = if i + 1 == pieces.len() { END_HEADERS } else { 0 };
        let mut payload = part.to_vec();
        if i == 0 && priority {
            flags |= PRIORITY;
            payload.splice(0..0, *b"%/%/%");
        }
        if i == 0 && padded {
            flags |= PADDED;
            payload.insert(0, 7);
            payload.extend_from_slice(b"%%%%%%%");
        }
        bytes.extend(frame(if i == 0 { HEADERS } else { CONTINUATION }, flags, &payload));
    }
    bytes.extend(frame(0, 1, b"%2F data is no header"));
    bytes
}

/// Passes `bytes` through the fix in chunks, offering again what is held.
fn pass(bytes: &[u8], chunk: usize) -> Vec<u8> {
    let (mut fix, mut held, mut out) = (AuthorityFix::default(), Vec::new(), Vec::new());
    for part in bytes.chunks(chunk) {
        held.extend_from_slice(part);
        let done = fix.fix(&mut held);
        assert!(held.len() - done <= MAX_HELD_BYTES);
        out.extend(held.drain(..done));
    }
    out.extend(held);
    out
}

fn around(field: &[u8]) -> Vec<u8> {
    [OTHER_FIELDS, field, OTHER_FIELDS].concat()
}

#[test]
fn a_socket_path_becomes_a_legal_authority_in_every_spelling_and_every_chunk_size() {
    for (dirty, clean) in spellings(PATH).iter().zip(spellings(CLEAN)) {
        for (padded, priority) in [(false, false), (true, false), (false, true), (true, true)] {
            let sent = connection(&around(dirty), 200, padded, priority);
            let expected = connection(&around(&clean), 200, padded, priority);
            for chunk in (1..80).chain([sent.len()]) {
                assert_eq!(pass(&sent, chunk), expected, "chunk {chunk}, padded {padded}, priority {priority}");
            }
        }
    }
}

#[test]
fn a_plain_authority_is_found_across_continuation_frames_of_any_size() {
    for (dirty, clean) in spellings(PATH).iter().zip(spellings(CLEAN)).take(5) {
        for piece in 1..70 {
            let (dirty, clean) = (around(dirty), around(&clean));
            let (sent, expected) = (connection(&dirty, piece, true, true), connection(&clean, piece, true, true));
            for chunk in [1, 7, sent.len()] {
                assert_eq!(pass(&sent, chunk), expected, "piece {piece}, chunk {chunk}");
            }
        }
    }
}

#[test]
fn a_huffman_authority_cut_inside_a_symbol_by_a_frame_keeps_its_frames_intact() {
    for dirty in spellings(PATH).iter().skip(5) {
        for piece in 1..50 {
            let sent = connection(&around(dirty), piece, false, false);
            let passed = pass(&sent, 3);
            assert_eq!(passed.len(), sent.len());
            assert!(passed.ends_with(&frame(0, 1, b"%2F data is no header")));
        }
    }
}

#[test]
fn later_requests_on_the_connection_are_fixed_too() {
    let one = |value: &[u8]| frame(HEADERS, END_HEADERS, &around(&spellings(value)[0]));
    let start = connection(OTHER_FIELDS, 9, false, false);
    let sent = [&start[..], &one(PATH), &frame(6, 0, b"%2F%2F%2"), &one(PATH)].concat();
    let expected = [&start[..], &one(CLEAN), &frame(6, 0, b"%2F%2F%2"), &one(CLEAN)].concat();
    assert_eq!(pass(&sent, 11), expected);
}

#[test]
fn legal_authorities_and_other_fields_pass_unchanged() {
    for text in [&b"tmp"[..], b"agent.sock:2020", b"a-a", b"0.0"] {
        for field in spellings(text) {
            let sent = connection(&around(&field), 200, false, false);
            assert_eq!(pass(&sent, 13), sent);
        }
    }
    // `%2F` in a path, in a header that only ends like the name, and after a table size update.
    let block =
        [&b"\x3f\xe1\x1f"[..], b"\x04\x04/%2F", b"\x40\x0b-:authority\x03%2F", b"\x40\x0a:authoritx\x03%2F"].concat();
    let sent = connection(&block, 200, false, false);
    assert_eq!(pass(&sent, 1), sent);
}

#[test]
fn symbols_without_a_legal_twin_of_their_length_become_several() {
    // 12, 13 and 30 bits: '#', '~', '\n'.
    let field = spellings(b"a#~\n@0").swap_remove(5);
    let sent = connection(&field, 200, false, false);
    let passed = pass(&sent, 5);
    assert_eq!(passed.len(), sent.len());
    assert_ne!(passed, sent);
    assert_eq!(pass(&passed, 5), passed, "nothing illegal is left");
}

#[test]
fn a_second_colon_and_a_leading_one_are_replaced() {
    let field = |value: &[u8]| connection(&[&[0x01][..], &string(value, false)].concat(), 99, false, false);
    assert_eq!(pass(&field(b":a:b:c"), 4), field(b"-a-b-c"));
    assert_eq!(pass(&field(b"a:b:c"), 4), field(b"a:b-c"));
}

#[test]
fn what_is_not_http2_passes_untouched() {
    let texts =
        [&b"GET /%2F HTTP/1.1\r\nhost: %2F\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01", b"PRI * HTTP/2.0\r\n\r\nSN%2F"];
    for text in texts {
        assert_eq!(pass(text, 1), text);
        assert_eq!(pass(text, 100), text);
    }
}

proptest! {
    #![proptest_config(ironroot_fuzz::cases(2000))]
    #[test]
    fn any_stream_keeps_its_length_and_is_the_same_in_whatever_chunks_it_comes(stream in any_stream(), chunk in 1..80_usize) {
        let whole = pass(&stream, stream.len().max(1));
        prop_assert_eq!(whole.len(), stream.len());
        prop_assert_eq!(pass(&stream, chunk), whole);
    }
}

/// Connections that were damaged on their way, and whatever else begins like one.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let connections = spellings(PATH).iter().map(|field| connection(&around(field), 20, true, true)).collect();
    let frames = prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| [PREFACE, &bytes[..]].concat());
    prop_oneof![3 => ironroot_fuzz::damaged(connections), 1 => frames]
}
