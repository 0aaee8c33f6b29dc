//! One JWT-SVID as it was signed, verified before anybody gets it.

use std::fmt;
use std::sync::Arc;

use ironroot_api::jwt::{Audiences, UnverifiedJwtSvid};
use zeroize::Zeroizing;

use super::FetchError;
use crate::identities::Identities;
use crate::server_answers::{EntryTerms, TrustBundle};
use crate::trusted_time::{Lifetime, Span, TrustedTime};

/// What is asked for. Two wishes are the same when they are for one entry and the same audiences.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// Whose token.
    pub terms: Arc<EntryTerms>,
    /// For whom.
    pub audiences: Audiences,
}

/// A bearer's secret until it ends: not shown, and wiped; what gRPC copies of it is not.
pub struct Token {
    text: Zeroizing<String>,
    key_id: String,
    lifetime: Lifetime,
}

impl Token {
    /// Checks what the server signed: by a key of the bundle, for the entry's ID, for these audiences and no others.
    pub(super) fn from_answer(
        text: &Zeroizing<String>,
        wish: &Wish,
        bundle: &TrustBundle,
        time: &TrustedTime,
    ) -> Result<Self, FetchError> {
        let svid = UnverifiedJwtSvid::parse(text)?.verify(bundle.jwt_authorities())?;
        if *svid.subject() != wish.terms.spiffe_id {
            return Err(FetchError::Other("SPIFFE ID"));
        }
        if Audiences::try_new(svid.audience().to_vec()).as_ref() != Ok(&wish.audiences) {
            return Err(FetchError::Other("audience"));
        }
        let issued_at = svid.issued_at().ok_or(FetchError::Other("time of issue"))?;
        if svid.expires_at() <= issued_at {
            return Err(FetchError::Other("end"));
        }
        let span = Span { not_before: issued_at, not_after: svid.expires_at() };
        let (key_id, lifetime) = (svid.key_id().to_owned(), time.count(issued_at, span));
        Ok(Self { text: text.clone(), key_id, lifetime })
    }

    /// The token itself.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The key that signed it.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// How long it lasts.
    pub fn lifetime(&self) -> &Lifetime {
        &self.lifetime
    }

    #[cfg(test)]
    pub(super) fn unchecked(text: &str, key_id: &str, lifetime: Lifetime) -> Self {
        Self { text: Zeroizing::new(text.to_owned()), key_id: key_id.to_owned(), lifetime }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("key_id", &self.key_id).field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

/// Whether the key that signed it still is in the bundle, and is not tainted.
pub(super) fn is_trusted(token: &Token, all: &Identities) -> bool {
    let key = all.bundle().and_then(|bundle| bundle.jwt_authorities().find(token.key_id()));
    key.is_some_and(|key| !key.is_tainted())
}
