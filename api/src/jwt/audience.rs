//! For whom a JWT-SVID is asked for.

use std::sync::Arc;

use thiserror::Error;

/// Most audiences in one request: a token with more fits into no HTTP header.
pub const MAX_AUDIENCES: usize = 256;
/// Longest audience, bytes: as long as the longest SPIFFE ID, and longer than any URL that is one.
pub const MAX_AUDIENCE_BYTES: usize = 2048;
/// Longest list of them as a token has it, JSON, bytes: with the longest SPIFFE ID and in base64url it still is a token of no more than
/// [`MAX_TOKEN_BYTES`](super::MAX_TOKEN_BYTES).
pub const MAX_AUDIENCES_BYTES: usize = 8 * 1024;
/// What one text takes besides its bytes: the string, and the allocator's share.
const HOLDING_BYTES: usize = size_of::<String>() + 16;

/// Why a list of audiences is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AudienceRefusal {
    /// A token for nobody in particular is good for everybody.
    #[error("audience must be specified")]
    None,
    /// One of them is the empty text.
    #[error("audience must not be empty")]
    Empty,
    /// More than [`MAX_AUDIENCES`].
    #[error("more than {MAX_AUDIENCES} audiences")]
    TooMany,
    /// One is longer than [`MAX_AUDIENCE_BYTES`].
    #[error("an audience is longer than {MAX_AUDIENCE_BYTES} bytes")]
    TooLong,
    /// Together they are longer than [`MAX_AUDIENCES_BYTES`].
    #[error("the audiences are longer than {MAX_AUDIENCES_BYTES} bytes together: no token holds them")]
    TooMuch,
}

/// Refuses audiences that fit into no token, before anything is signed for them.
pub fn check_room(audiences: &[String]) -> Result<(), AudienceRefusal> {
    // Quotes, and a comma.
    let bytes: usize = audiences.iter().map(|audience| json_bytes(audience) + 3).sum();
    if bytes > MAX_AUDIENCES_BYTES { Err(AudienceRefusal::TooMuch) } else { Ok(()) }
}

/// How many bytes a text takes between quotes in JSON at most. Source: RFC 8259 §7.
fn json_bytes(text: &str) -> usize {
    let of = |byte: u8| match byte {
        b'"' | b'\\' => 2,
        byte if byte < 0x20 => 6,
        _ => 1,
    };
    text.bytes().map(of).sum()
}

/// At least one audience; two lists with the same members are the same, in whatever order. Clones share them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Audiences(Arc<[String]>);

impl Audiences {
    /// Checks what somebody asks for.
    pub fn try_new(mut audiences: Vec<String>) -> Result<Self, AudienceRefusal> {
        if audiences.is_empty() {
            return Err(AudienceRefusal::None);
        }
        if audiences.len() > MAX_AUDIENCES {
            return Err(AudienceRefusal::TooMany);
        }
        if audiences.iter().any(String::is_empty) {
            return Err(AudienceRefusal::Empty);
        }
        if audiences.iter().any(|audience| audience.len() > MAX_AUDIENCE_BYTES) {
            return Err(AudienceRefusal::TooLong);
        }
        audiences.sort_unstable();
        audiences.dedup();
        check_room(&audiences)?;
        Ok(Self(audiences.into()))
    }

    /// Each once, sorted.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// How much memory they take, bytes: their texts, and what holds each.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|audience| audience.len() + HOLDING_BYTES).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(audiences: &[&str]) -> Result<Audiences, AudienceRefusal> {
        Audiences::try_new(audiences.iter().map(|&audience| audience.to_owned()).collect())
    }

    #[test]
    fn audiences_are_a_set_in_which_nothing_is_empty_and_no_more_than_a_token_can_carry() {
        assert_eq!(of(&["b", "a", "b"]), of(&["a", "b"]));
        assert_ne!(of(&["ab"]), of(&["a", "b"]));
        assert_eq!(of(&[]), Err(AudienceRefusal::None));
        assert_eq!(of(&["a", ""]), Err(AudienceRefusal::Empty));
        assert_eq!(Audiences::try_new(vec!["a".to_owned(); MAX_AUDIENCES + 1]), Err(AudienceRefusal::TooMany));
        assert_eq!(of(&[&"a".repeat(MAX_AUDIENCE_BYTES + 1)]), Err(AudienceRefusal::TooLong));
        // 4 and 5 of 2038 bytes, six of which are one control character's.
        let several = |count: u8| (0..count).map(|n| format!("{n}{}\u{1}", "a".repeat(2031))).collect::<Vec<_>>();
        assert!(Audiences::try_new(several(4)).is_ok());
        assert_eq!(Audiences::try_new(several(5)), Err(AudienceRefusal::TooMuch));
        let controls = vec!["\u{1}".repeat(MAX_AUDIENCES_BYTES / 6)];
        assert_eq!(Audiences::try_new(controls), Err(AudienceRefusal::TooMuch));
        let longest = of(&[&"a".repeat(MAX_AUDIENCE_BYTES)]).map(|audiences| audiences.bytes());
        assert_eq!(longest, Ok(MAX_AUDIENCE_BYTES + HOLDING_BYTES), "what holds a text is counted too");
    }
}
