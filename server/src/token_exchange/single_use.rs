//! A token is exchanged once: that it was is on the data store's disk before anything is signed for it, so that no restart forgets it, and
//! no other server of the data store takes the same token.

use aws_lc_rs::digest::{Context, SHA256};

use super::proven::ProvenToken;
use super::refusal::TokenRefusal;
use crate::store::{Store, StoreError, TokenUse};
use ironroot_shell::logging::in_moderation;

/// What the log says, in moderation.
const NOTE_FAILED: &str = "no note was taken of a token that was to be exchanged";

/// What the log says, in moderation.
const STAYS_USED: &str = "a token stays used up that nothing was issued for";

/// Tokens remembered whose hashes begin with the same byte. Past it no other such token is exchanged until one has ended: better none than
/// one twice.
const MAX_ALIKE: usize = 512;
/// Tokens remembered in all, some 100 bytes each.
pub const MAX_REMEMBERED: usize = 256 * MAX_ALIKE;

/// The hash of an issuer's URL and a token's ID.
type TokenHash = [u8; 32];

/// The one use of a token. Only [`take`](Self::take) makes one, and what is issued for a token demands it.
#[derive(Debug)]
#[must_use]
pub struct OneUse {
    taken: Option<TokenHash>,
}

impl OneUse {
    /// Uses up `token`. One without an ID, or of an issuer whose tokens are good until they end, has as many uses as are wanted.
    pub async fn take(store: &Store, token: &ProvenToken, now_unix: i64) -> Result<Self, TokenRefusal> {
        let Some(id) = token.token_id.as_deref() else { return Ok(Self { taken: None }) };
        let (hash, ends_at) = (hash(token.issuer_url(), id), token.expires_at());
        //= EXC-06 token exchange: "with an ID it is good once"
        let used = store.change(move |tx| tx.use_up_token(&hash, ends_at, now_unix, MAX_ALIKE)).await;
        match used.map_err(|why| not_noted(&why))? {
            TokenUse::First => Ok(Self { taken: Some(hash) }),
            TokenUse::Again => Err(TokenRefusal::Used),
            TokenUse::NoRoom => Err(TokenRefusal::TooManyUsed),
        }
    }

    /// Nothing was issued for the token: it may be shown again.
    pub async fn give_back(self, store: &Store) {
        let Some(hash) = self.taken else { return };
        let given = store.change(move |tx| tx.give_back_token(&hash)).await;
        if let Err(why) = given
            && let Some(pass) = in_moderation(STAYS_USED)
        {
            tracing::warn!(error = &why as &dyn std::error::Error, suppressed = pass.suppressed, "{STAYS_USED}");
        }
    }
}

fn not_noted(why: &StoreError) -> TokenRefusal {
    if let Some(pass) = in_moderation(NOTE_FAILED) {
        tracing::error!(error = why as &dyn std::error::Error, suppressed = pass.suppressed, "{NOTE_FAILED}");
    }
    TokenRefusal::NotNoted
}

fn hash(issuer: &str, token_id: &str) -> TokenHash {
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

    #[test]
    fn tokens_of_two_issuers_are_two_whatever_their_ids() {
        assert_ne!(hash("a", "bc"), hash("ab", "c"));
        assert_eq!(hash("a", "bc"), hash("a", "bc"));
    }
}
