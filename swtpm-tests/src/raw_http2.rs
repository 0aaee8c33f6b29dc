//! HTTP/2 by hand, for clients that keep to none of its limits. Source: RFC 9113, RFC 7541.

/// The client's preface and empty SETTINGS.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Largest frame that needs no leave, bytes.
const MAX_FRAME_BYTES: usize = 16_384;

/// A HEADERS frame that begins a gRPC call of `path` on stream `number` (1, 3, ...) and no request, with a header of
/// `padding` bytes.
pub fn half_open_call(number: u32, path: &str, padding: usize) -> Vec<u8> {
    // :method POST and :scheme http stand in the static table.
    let mut block = vec![0x83, 0x86];
    for (index, value) in [(4, path), (1, "localhost")] {
        block.push(index);
        string(&mut block, value.as_bytes());
    }
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        literal(&mut block, name, value.as_bytes());
    }
    literal(&mut block, "x-padding", &vec![b'x'; padding]);
    const END_HEADERS: u8 = 4;
    frame(1, END_HEADERS, number, &block)
}

/// A DATA frame that does not end its stream.
pub fn data(number: u32, bytes: &[u8]) -> Vec<u8> {
    frame(0, 0, number, bytes)
}

/// A PING frame that is to be answered.
pub fn ping(payload: [u8; 8]) -> Vec<u8> {
    frame(6, 0, 0, &payload)
}

/// A PING frame that answers one of that payload.
pub fn ping_answer(payload: [u8; 8]) -> Vec<u8> {
    const ACK: u8 = 1;
    frame(6, ACK, 0, &payload)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= MAX_FRAME_BYTES, "{} bytes", payload.len());
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field whose name is not in the table, and which is not put there.
fn literal(block: &mut Vec<u8>, name: &str, value: &[u8]) {
    block.push(0);
    string(block, name.as_bytes());
    string(block, value);
}

/// Not Huffman-coded.
fn string(block: &mut Vec<u8>, text: &[u8]) {
    let mut length = text.len();
    if length < 127 {
        block.push(length as u8);
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push((length % 128) as u8 | 128);
            length /= 128;
        }
        block.push(length as u8);
    }
    block.extend(text);
}
