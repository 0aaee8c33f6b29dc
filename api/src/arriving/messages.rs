//! Where the messages of a body begin and end.

/// Bytes before each message: compressed or not, and its length. Source: gRPC over HTTP/2, Length-Prefixed-Message.
pub const PREFIX_BYTES: usize = 5;

/// What comes next in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A message of this many bytes.
    Begin(usize),
    /// Some of its bytes.
    Bytes(&'a [u8]),
    /// No byte of it follows; its next prefix, if any, begins another message.
    End,
}

/// A body of which some bytes have been seen.
#[derive(Debug)]
pub struct Messages(Reading);

#[derive(Debug)]
enum Reading {
    Prefix { bytes: [u8; PREFIX_BYTES], have: usize },
    Message { left: usize },
}

impl Default for Messages {
    /// Nothing seen yet.
    fn default() -> Self {
        Self(Reading::Prefix { bytes: [0; PREFIX_BYTES], have: 0 })
    }
}

impl Messages {
    /// Takes the next part off `bytes`. None once they are used up.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Part<'a>> {
        match &mut self.0 {
            Reading::Message { left: 0 } => {
                *self = Self::default();
                Some(Part::End)
            }
            Reading::Message { left } => {
                let part = bytes.split_off(..bytes.len().min(*left)).filter(|part| !part.is_empty())?;
                *left -= part.len();
                Some(Part::Bytes(part))
            }
            Reading::Prefix { bytes: prefix, have } => {
                let part = bytes.split_off(..bytes.len().min(PREFIX_BYTES - *have))?;
                prefix[*have..*have + part.len()].copy_from_slice(part);
                *have += part.len();
                let [_, length @ ..] = *prefix;
                if *have < PREFIX_BYTES {
                    return None;
                }
                let length = u32::from_be_bytes(length) as usize;
                self.0 = Reading::Message { left: length };
                Some(Part::Begin(length))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths and the bytes of the messages that ended.
    fn cut(body: &[u8], piece: usize) -> Vec<(usize, Vec<u8>)> {
        let (mut messages, mut found, mut ended) = (Messages::default(), Vec::new(), 0);
        for mut bytes in body.chunks(piece) {
            while let Some(part) = messages.next(&mut bytes) {
                match (part, found.last_mut()) {
                    (Part::Begin(length), _) => found.push((length, Vec::new())),
                    (Part::Bytes(part), Some((_, bytes))) => bytes.extend_from_slice(part),
                    (Part::Bytes(_), None) => panic!("bytes before a message"),
                    (Part::End, _) => ended += 1,
                }
            }
            assert!(bytes.is_empty());
        }
        found.truncate(ended);
        found
    }

    #[test]
    fn messages_are_found_however_the_body_is_cut() {
        let body =
            [&[0, 0, 0, 0, 3][..], b"abc", &[0; 5], &[1, 0, 0, 1, 0], &[7; 256], &[0, 0, 0, 0, 9], b"unfin"].concat();
        let wanted = vec![(3, b"abc".to_vec()), (0, Vec::new()), (256, vec![7; 256])];
        for piece in [1, 2, 4, 5, 6, 100, body.len()] {
            assert_eq!(cut(&body, piece), wanted, "pieces of {piece}");
        }
    }
}
