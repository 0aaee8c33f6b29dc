//! Which tokens were exchanged and have not ended. In memory: a restart forgets them, and each server has its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};

use super::proven::ProvenToken;
use super::refusal::TokenRefusal;

/// Tokens remembered, some 80 bytes each. Past it no token with an ID is exchanged until others have ended: better none than one twice.
pub const MAX_REMEMBERED: usize = 65_536;

/// The hash of an issuer's name and a token's ID.
type Used = [u8; 32];

/// Until when each is remembered, UNIX seconds. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct UsedTokens(Arc<Mutex<HashMap<Used, i64>>>);

/// The one use of a token. Unless it is [spent](Self::spend), the token may be shown again: nothing was issued for it.
#[derive(Debug)]
#[must_use]
pub struct OneUse {
    tokens: UsedTokens,
    taken: Option<Used>,
}

impl UsedTokens {
    /// Takes the one use of `token`. One without an ID, or of an issuer whose tokens are good until they end, has as many as are wanted.
    pub fn take(&self, token: &ProvenToken, now_unix: i64) -> Result<OneUse, TokenRefusal> {
        let taken = token.token_id.as_deref().map(|id| used(token.issuer(), id));
        if let Some(taken) = taken {
            self.remember(taken, token.expires_at(), now_unix)?;
        }
        Ok(OneUse { tokens: self.clone(), taken })
    }

    //= EXC-06 token exchange: "with an ID it is good once"
    fn remember(&self, token: Used, until: i64, now_unix: i64) -> Result<(), TokenRefusal> {
        let mut tokens = self.tokens();
        if tokens.contains_key(&token) {
            return Err(TokenRefusal::Used);
        }
        if tokens.len() >= MAX_REMEMBERED {
            tokens.retain(|_, until| now_unix < *until);
        }
        if tokens.len() >= MAX_REMEMBERED {
            return Err(TokenRefusal::TooManyUsed);
        }
        tokens.insert(token, until);
        Ok(())
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<Used, i64>> {
        // Plain values, changed one at a time: nothing panics between.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OneUse {
    /// Something was issued for the token.
    pub fn spend(mut self) {
        self.taken = None;
    }
}

impl Drop for OneUse {
    fn drop(&mut self) {
        if let Some(taken) = self.taken {
            self.tokens.tokens().remove(&taken);
        }
    }
}

fn used(issuer: &str, token_id: &str) -> Used {
    let mut hash = Context::new(&SHA256);
    for part in [issuer, token_id] {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn remembered(tokens: &UsedTokens, number: usize, until: i64, now: i64) -> Result<(), TokenRefusal> {
        tokens.remember(used("ci", &number.to_string()), until, now)
    }

    #[test]
    fn no_more_tokens_are_remembered_than_there_is_room_for_and_those_that_ended_make_some() {
        let tokens = UsedTokens::default();
        for number in 0..MAX_REMEMBERED {
            let until = if number % 2 == 0 { NOW + 10 } else { NOW + 100 };
            assert_eq!(remembered(&tokens, number, until, NOW), Ok(()));
        }
        assert_eq!(remembered(&tokens, MAX_REMEMBERED, NOW + 100, NOW + 9), Err(TokenRefusal::TooManyUsed));
        assert_eq!(remembered(&tokens, 1, NOW + 100, NOW + 10), Err(TokenRefusal::Used));
        assert_eq!(remembered(&tokens, MAX_REMEMBERED, NOW + 100, NOW + 10), Ok(()));
        assert_eq!(tokens.tokens().len(), MAX_REMEMBERED / 2 + 1);
    }

    #[test]
    fn tokens_of_two_issuers_are_two_whatever_their_ids() {
        assert_ne!(used("a", "bc"), used("ab", "c"));
        assert_eq!(used("a", "bc"), used("a", "bc"));
    }
}
