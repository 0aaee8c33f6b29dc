//! The acknowledgement of our SETTINGS, in what an HTTP/2 client writes.
//!
//! Any byte would show that a process still speaks, but not that it speaks HTTP/2: a program whose output was bound to the
//! connection before it was started writes too. Source: RFC 9113 §3.4 (preface), §4.1 (frames), §6.5.3 (acknowledgement).

/// Bytes before the first frame.
const PREFACE_BYTES: u64 = 24;
const HEADER_BYTES: usize = 9;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;

/// Follows the frames of a client from its preface on. Whether they are legal is for others to judge.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes of preface or payload still to come.
    skip: u64,
    header: [u8; HEADER_BYTES],
    in_header: usize,
    /// A part of this header was written too early.
    began_before: bool,
}

impl Frames {
    pub fn new() -> Self {
        Self { skip: PREFACE_BYTES, header: [0; HEADER_BYTES], in_header: 0, began_before: false }
    }

    /// Goes on with `bytes`, which count only if `now`. Whether they complete an acknowledgement all of which counts.
    pub fn acknowledge(&mut self, mut bytes: &[u8], now: bool) -> bool {
        let mut found = false;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
                self.skip -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (HEADER_BYTES - self.in_header).min(bytes.len());
            self.header[self.in_header..][..taken].copy_from_slice(&bytes[..taken]);
            self.in_header += taken;
            self.began_before |= !now;
            bytes = &bytes[taken..];
            if self.in_header == HEADER_BYTES {
                found |= !self.began_before && self.is_acknowledgement();
                let [a, b, c, ..] = self.header;
                (self.skip, self.in_header, self.began_before) = (u32::from_be_bytes([0, a, b, c]).into(), 0, false);
            }
        }
        found
    }

    fn is_acknowledgement(&self) -> bool {
        let [length @ .., _, _, _, _, _, _] = self.header;
        let [_, _, _, kind, flags, stream @ ..] = self.header;
        length == [0; 3] && kind == SETTINGS && flags & ACK != 0 && u32::from_be_bytes(stream) << 1 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const ACKNOWLEDGEMENT: &[u8] = &[0, 0, 0, 4, 1, 0, 0, 0, 0];

    /// Whether an acknowledgement is found in `before` and, in parts of `chunk` bytes, `now`.
    fn found(before: &[u8], now: &[u8], chunk: usize) -> bool {
        let mut frames = Frames::new();
        let early = frames.acknowledge(before, false);
        assert!(!early);
        now.chunks(chunk).fold(false, |found, part| frames.acknowledge(part, true) | found)
    }

    #[test]
    fn frames_survive_damage_however_they_are_cut() {
        let client = [PREFACE, ACKNOWLEDGEMENT, &[0, 0, 1, 6, 0, 0, 0, 0, 0, 9], ACKNOWLEDGEMENT].concat();
        ironroot_fuzz::Target::new("HTTP/2 frames").seed(client).survives(|bytes| {
            assert_eq!(found(b"", bytes, 1), found(b"", bytes, bytes.len().max(1)), "cutting changes nothing");
        });
    }

    #[test]
    fn an_acknowledgement_counts_if_it_is_a_frame_and_all_of_it_came_now() {
        let settings: &[u8] = &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 9];
        let hungry: &[u8] = &[0, 64, 0, 0xbe, 0, 0, 0, 0, 0];
        let data: &[u8] = &[0, 0, 9, 0, 0, 0, 0, 0, 1];
        let on_stream: &[u8] = &[0, 0, 0, 4, 1, 0, 0, 0, 1];
        let ping: &[u8] = &[0, 0, 0, 6, 1, 0, 0, 0, 0];
        let reserved: &[u8] = &[0, 0, 0, 4, 1, 0x80, 0, 0, 0];
        for (before, now, expected) in [
            (PREFACE.to_vec(), ACKNOWLEDGEMENT.to_vec(), true),
            (PREFACE[..7].to_vec(), [&PREFACE[7..], settings, ACKNOWLEDGEMENT].concat(), true),
            (Vec::new(), [PREFACE, settings, reserved].concat(), true),
            ([PREFACE, settings, ACKNOWLEDGEMENT].concat(), ACKNOWLEDGEMENT.to_vec(), true),
            ([PREFACE, settings, ACKNOWLEDGEMENT].concat(), settings.to_vec(), false),
            ([PREFACE, &ACKNOWLEDGEMENT[..1]].concat(), ACKNOWLEDGEMENT[1..].to_vec(), false),
            ([PREFACE, &ACKNOWLEDGEMENT[..8]].concat(), ACKNOWLEDGEMENT[8..].to_vec(), false),
            ([PREFACE, hungry].concat(), b"ready\n2026-11-26 started\n".to_vec(), false),
            ([PREFACE, data].concat(), ACKNOWLEDGEMENT.to_vec(), false),
            (PREFACE.to_vec(), [on_stream, ping, settings].concat(), false),
            (PREFACE.to_vec(), Vec::new(), false),
        ] {
            for chunk in [1, 2, 5, 4096] {
                assert_eq!(found(&before, &now, chunk), expected, "{before:?} {now:?} in parts of {chunk}");
            }
        }
    }
}
