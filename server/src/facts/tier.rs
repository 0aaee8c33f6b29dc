//! Authorities of the bundle that servers of other tiers have: keys of JWT-SVIDs that servers below have published, and all that the
//! authority above has.

use ironroot_api::SpiffeId;
use ironroot_api::certificate::Certificate;
use ironroot_text::hex::hex;

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
    /// A server below, by the ID that it showed.
    Below(SpiffeId),
    /// The authority above.
    Above,
    /// An administrator, with AppendBundle.
    Administrator,
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
}

impl TierAuthorities {
    /// Whether any is over at `now_unix`.
    pub fn has_expired(&self, now_unix: i64) -> bool {
        self.authorities.iter().any(|authority| authority.expires_at <= now_unix)
    }
}
