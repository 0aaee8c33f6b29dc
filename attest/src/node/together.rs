//! Several attestation types as one: the parts' messages, one behind the other.
//!
//! The type on the wire is the types of the parts with a plus between, so both sides know how many messages there are and which
//! is whose. Each is four bytes of its length, big-endian, and the message; an empty one where a part has nothing to say. Nothing is
//! encoded a second time: an answer with a boot log is as long as it may be already.

use thiserror::Error;

/// Most parts.
pub const MAX_PARTS: usize = 4;

/// The bytes are not so many messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the message is not that of {expected} attestation types, one behind the other")]
pub struct TogetherRefusal {
    /// As the type on the wire has them.
    pub expected: usize,
}

/// The type on the wire of these parts.
pub fn type_of<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    parts.into_iter().collect::<Vec<_>>().join("+")
}

/// The messages of the parts as one. Each is shorter than 4 GiB.
pub fn join(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(messages.iter().map(|message| message.len() + 4).sum());
    for message in messages {
        joined.extend(u32::try_from(message.len()).expect("a message is some kilobytes").to_be_bytes());
        joined.extend_from_slice(message);
    }
    joined
}

/// The messages of exactly so many `parts`.
pub fn split(joined: &[u8], parts: usize) -> Result<Vec<&[u8]>, TogetherRefusal> {
    let refusal = TogetherRefusal { expected: parts };
    let (mut messages, mut rest) = (Vec::new(), joined);
    for _ in 0..parts.min(MAX_PARTS) {
        let (length, behind) = rest.split_first_chunk::<4>().ok_or(refusal)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| refusal)?;
        let (message, behind) = behind.split_at_checked(length).ok_or(refusal)?;
        messages.push(message);
        rest = behind;
    }
    if !rest.is_empty() || messages.len() != parts {
        return Err(refusal);
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_what_was_joined_and_of_any_other_number_none() {
        let messages = [b"one".to_vec(), Vec::new(), vec![7; 300]];
        let joined = join(&messages);
        assert_eq!(split(&joined, 3).as_deref(), Ok(&messages.each_ref().map(Vec::as_slice)[..]));
        for (bytes, parts) in [
            (joined.as_slice(), 2),
            (&joined, 4),
            (&joined[1..], 3),
            (&joined[..joined.len() - 1], 3),
            (b"", 1),
            (&[0xff; 8], 1),
            (&join(&[Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new()]), 5),
        ] {
            assert_eq!(split(bytes, parts), Err(TogetherRefusal { expected: parts }), "{parts}");
        }
        assert_eq!(type_of(["tpm2", "join_token"]), "tpm2+join_token");
    }

    #[test]
    fn messages_survive_damage() {
        ironroot_fuzz::Target::new("messages together").seed(join(&[vec![1; 9], vec![2]])).survives(|bytes| {
            let _ = (split(bytes, 1), split(bytes, 2), split(bytes, MAX_PARTS));
        });
    }
}
