//! Authorities of the bundle that servers of other tiers have: keys of JWT-SVIDs that servers below have published, and all that the
//! authority above has.

use ironroot_api::SpiffeId;
use ironroot_api::certificate::Certificate;
use ironroot_text::hex::hex;

/// A key of a server below whose entry is gone stays so long for an entry of the same ID, seconds, outside the bundle: what makes entries by
/// itself removes one and makes the next in one go, and the server below publishes a key once.
pub const REPRIEVE: i64 = 300;

/// An authority of the trust domain that no CA of this data store has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierAuthority {
    /// Who has told of it.
    pub origin: TierOrigin,
    /// What its signatures are verified with.
    pub credential: TierCredential,
    /// When it signs no more, UNIX seconds.
    pub expires_at: i64,
    /// Whether it signs no more before that, since it may be somebody else's by now.
    pub tainted: bool,
}

/// Who has told of an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TierOrigin {
    /// A server below.
    Below(Publisher),
    /// The authority above.
    Above,
    /// An administrator, with AppendBundle.
    Administrator,
}

/// A server below that has published a key of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publisher {
    /// The ID that it showed.
    pub id: SpiffeId,
    /// The decimal serial number of the SVID that it showed: that says [through which agent](super::through::is_through) it was fetched. Empty
    /// of what was published before this was noted.
    pub serial: String,
    /// Since when no entry gives that ID a CA, UNIX seconds; 0 while one does.
    pub orphaned_at: i64,
}

impl From<SpiffeId> for Publisher {
    fn from(id: SpiffeId) -> Self {
        Self { id, serial: String::new(), orphaned_at: 0 }
    }
}

/// What an authority's signatures are verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TierCredential {
    /// X.509: DER.
    Certificate(Vec<u8>),
    /// JWT.
    JwtKey {
        /// The `kid` of tokens, at most [`ironroot_api::jwt::MAX_KEY_ID_BYTES`].
        key_id: String,
        /// DER SubjectPublicKeyInfo.
        spki: Vec<u8>,
    },
    /// WIT.
    WitKey {
        /// The `kid` of tokens, at most [`ironroot_api::jwt::MAX_KEY_ID_BYTES`].
        key_id: String,
        /// DER SubjectPublicKeyInfo.
        spki: Vec<u8>,
    },
}

/// All of them as they are at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TierAuthorities {
    /// In the order of their kinds and names.
    pub authorities: Vec<TierAuthority>,
    /// Grows with each change of them.
    pub revision: u64,
}

impl TierAuthority {
    /// What a root is called: its subject key ID, in lower-case hexadecimal digits; none of a key of tokens.
    pub fn subject_key_id(&self) -> Option<String> {
        let TierCredential::Certificate(der) = &self.credential else { return None };
        Certificate::parse(der).ok()?.subject_key_id().map(|id| hex(&id))
    }

    /// The server below that has published it.
    pub fn publisher(&self) -> Option<&Publisher> {
        match &self.origin {
            TierOrigin::Below(publisher) => Some(publisher),
            TierOrigin::Above | TierOrigin::Administrator => None,
        }
    }

    /// The ID of a key of tokens; none of a root.
    pub fn key_id(&self) -> Option<&str> {
        match &self.credential {
            TierCredential::Certificate(_) => None,
            TierCredential::JwtKey { key_id, .. } | TierCredential::WitKey { key_id, .. } => Some(key_id),
        }
    }

    /// Whether bundles have it: not while no entry stands behind it.
    pub fn is_shown(&self) -> bool {
        self.publisher().is_none_or(|publisher| publisher.orphaned_at == 0)
    }

    /// Whether it may be forgotten at `now_unix`.
    pub fn is_over(&self, now_unix: i64) -> bool {
        self.expires_at <= now_unix || self.is_abandoned(now_unix)
    }

    /// Whether no entry stood behind it for so long that at `now_unix` none brings it back.
    pub fn is_abandoned(&self, now_unix: i64) -> bool {
        let orphaned_at = self.publisher().map_or(0, |publisher| publisher.orphaned_at);
        orphaned_at != 0 && orphaned_at <= now_unix.saturating_sub(REPRIEVE)
    }
}

impl TierAuthorities {
    /// Whether any is over at `now_unix`.
    pub fn has_expired(&self, now_unix: i64) -> bool {
        self.authorities.iter().any(|authority| authority.is_over(now_unix))
    }

    /// Whether a key of a server below is good for longer than until `latest`, UNIX seconds.
    pub fn outlast(&self, latest: i64) -> bool {
        self.authorities.iter().any(|authority| authority.publisher().is_some() && authority.expires_at > latest)
    }
}
