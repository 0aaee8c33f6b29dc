//! Keys of JWT-SVIDs and of WIT-SVIDs that servers below publish here: which are taken, and how many.

use ironroot_api::jwt::{JwtAuthority as Usable, MAX_JWT_AUTHORITIES, MAX_KEY_ID_BYTES};
use ironroot_api::pb::types;
use ironroot_api::utc;
use ironroot_shell::logging::in_moderation;
use thiserror::Error;
use tracing::warn;

use super::bundle::TokenKey;
use crate::facts::tier::{Publisher, TierAuthorities, TierAuthority, TierCredential, TierOrigin};
use crate::rights::{CaScope, DownstreamServer};
use crate::store::{StoreError, Transaction};

/// Keys that one server below may have in the bundle. It needs three; several servers may share an identity, and one whose `ca_ttl` is a
/// minute has a few more for a while.
pub const MAX_KEYS_OF_A_SERVER: usize = 32;
/// Keys of all servers below. Agents take [`MAX_JWT_AUTHORITIES`], and this server's own are among them.
pub const MAX_PUBLISHED_KEYS: usize = MAX_JWT_AUTHORITIES - 32;

/// A published key is good for no longer than this, or twice `ca_ttl` if that is more, seconds: whoever signs for longer publishes another in
/// time, and what is not taken away by anybody ends. SPIRE's server below publishes for its own `ca_ttl`, a day unless it says otherwise, and
/// an agent for twice `max_offline`.
pub const LONGEST_PUBLISHED_LIFE: i64 = 7 * 24 * 60 * 60;

const CLIPPED: &str = "a server below publishes a key for longer than twice this server's ca_ttl, or a week: it leaves the trust bundle before its end";

/// For how long a published key may be good, seconds.
pub(super) fn longest_published_life(ca_ttl_seconds: i64) -> i64 {
    ca_ttl_seconds.saturating_mul(2).max(LONGEST_PUBLISHED_LIFE)
}

/// A key that a server below may have put into the bundle.
///
/// ```compile_fail
/// # fn forge(key: &ironroot_api::pb::types::JwtKey) {
/// drop(ironroot_server::ca::PublishedKey::judge(ironroot_server::ca::TokenKind::Jwt, key, 0, 0));
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct PublishedKey {
    publisher: Publisher,
    kind: TokenKind,
    wire: types::JwtKey,
}

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// JWT-SVIDs.
    Jwt,
    /// WIT-SVIDs.
    Wit,
}

/// Why a key is not taken. Source of the first text: SPIRE `ParseJWTAuthorities`, which asks no more of a key than that it is one.
#[derive(Debug, Error)]
pub enum PublishError {
    /// Tokens name no key without one.
    #[error("missing key ID")]
    NoKeyId,
    /// Longer than agents take.
    #[error("key ID has {0} bytes, at most {MAX_KEY_ID_BYTES}")]
    KeyIdTooLong(usize),
    /// It would stand in logs and on terminals.
    #[error("key ID has control characters")]
    KeyIdControls,
    /// A ban could not tell that it is the agent's.
    #[error("the key of an agent is named by the serial number of the SVID that publishes it: its key ID must be {0}")]
    NotNamedByItsSvid(String),
    /// The ban came while the request was under way.
    #[error("its agent is banned")]
    Banned,
    /// No key, or one of a kind that signs no JWT-SVIDs.
    #[error(
        "its public key is none that JWT-SVIDs can be verified with: EC P-256, P-384, P-521, or RSA of 2048 to 8192 bits"
    )]
    Key,
    /// It would be forgotten at once.
    #[error("it says that it has ended: publish a key whose expires_at is to come")]
    Ended,
    /// Whoever verifies a token could not tell the two apart.
    #[error("its key ID is that of another key: publish it under one of its own")]
    KeyIdTaken,
    /// Too many of this server.
    #[error(
        "{MAX_KEYS_OF_A_SERVER} keys of this downstream server are in the bundle already; the oldest leave it when they end"
    )]
    TooManyOfThisServer,
    /// Too many in all.
    #[error(
        "{MAX_PUBLISHED_KEYS} keys of downstream servers are in the bundle already; the oldest leave it when they end"
    )]
    TooMany,
    /// It cannot be kept.
    #[error("the key cannot be stored")]
    Store(#[from] StoreError),
}

impl PublishedKey {
    /// What `by` publishes, if tokens can be verified with it, for `longest` seconds at most. Whether the key is tainted is not `by`'s to say,
    /// as in SPIRE.
    pub fn judge(
        by: &DownstreamServer,
        kind: TokenKind,
        wire: &types::JwtKey,
        now_unix: i64,
        longest: i64,
    ) -> Result<Self, PublishError> {
        let mut wire = usable(wire)?;
        // Without an end. Source: SPIRE's API, types/jwtkey.proto.
        if wire.expires_at == 0 {
            wire.expires_at = i64::MAX;
        }
        if wire.expires_at <= now_unix {
            return Err(PublishError::Ended);
        }
        check_attribution(by, &wire.key_id)?;
        let latest = now_unix.saturating_add(longest);
        if wire.expires_at > latest {
            if let Some(pass) = in_moderation(CLIPPED) {
                let (asked, until, suppressed) = (utc(wire.expires_at), utc(latest), pass.suppressed);
                warn!(publisher = %by.id(), key_id = wire.key_id, asked, until, suppressed, "{CLIPPED}");
            }
            wire.expires_at = latest;
        }
        let serial = by.caller().svid().map(|svid| svid.serial().to_owned()).unwrap_or_default();
        Ok(Self { publisher: Publisher { serial, ..by.id().clone().into() }, kind, wire })
    }

    /// What it signs.
    pub fn kind(&self) -> TokenKind {
        self.kind
    }

    /// The `kid` of its tokens.
    pub fn key_id(&self) -> &str {
        &self.wire.key_id
    }

    /// As bundles have it.
    pub(super) fn in_bundle(&self) -> TokenKey {
        TokenKey {
            key_id: self.wire.key_id.clone(),
            spki_der: self.wire.public_key.to_vec(),
            not_after_unix: self.wire.expires_at,
            tainted: false,
        }
    }

    /// Refuses it if its ID is another key's among those.
    pub(super) fn check_name(&self, known: &[TokenKey]) -> Result<(), PublishError> {
        let is_taken = |key: &TokenKey| key.key_id == self.wire.key_id && key.spki_der != self.wire.public_key;
        if known.iter().any(is_taken) { Err(PublishError::KeyIdTaken) } else { Ok(()) }
    }

    /// Stores it; nothing changes if it is there.
    pub(super) fn store(&self, tx: &Transaction<'_>) -> Result<(), PublishError> {
        let mut new = self.stored();
        let known = tx.tier_authorities()?;
        if known.authorities.contains(&new) {
            return Ok(());
        }
        self.check_room(&known)?;
        if tx.is_through_banned_agent(&self.publisher.serial)? {
            return Err(PublishError::Banned);
        }
        // An operator's word outlives what the publisher says again.
        new.tainted = known.authorities.iter().any(|one| one.tainted && one.credential == new.credential);
        tx.put_tier_authority(&new)?;
        // The entry may have gone while the request was under way.
        Ok(tx.settle_keys_of(self.publisher.id.as_str())?)
    }

    fn check_room(&self, known: &TierAuthorities) -> Result<(), PublishError> {
        let (mut of_this_server, mut of_all) = (0, 0);
        for authority in &known.authorities {
            let TierOrigin::Below(publisher) = &authority.origin else { continue };
            let (key_id, spki) = match (self.kind, &authority.credential) {
                (TokenKind::Jwt, TierCredential::JwtKey { key_id, spki })
                | (TokenKind::Wit, TierCredential::WitKey { key_id, spki }) => (key_id, spki),
                _ => continue,
            };
            match (*key_id == self.wire.key_id, publisher.id == self.publisher.id) {
                (true, _) if *spki != self.wire.public_key => return Err(PublishError::KeyIdTaken),
                // It takes the place of what was said of it before.
                (true, true) => {}
                (_, is_own) => (of_this_server, of_all) = (of_this_server + usize::from(is_own), of_all + 1),
            }
        }
        match (of_this_server < MAX_KEYS_OF_A_SERVER, of_all < MAX_PUBLISHED_KEYS) {
            (false, _) => Err(PublishError::TooManyOfThisServer),
            (_, false) => Err(PublishError::TooMany),
            (true, true) => Ok(()),
        }
    }

    fn stored(&self) -> TierAuthority {
        let (key_id, spki) = (self.wire.key_id.clone(), self.wire.public_key.to_vec());
        TierAuthority {
            origin: TierOrigin::Below(self.publisher.clone()),
            credential: match self.kind {
                TokenKind::Jwt => TierCredential::JwtKey { key_id, spki },
                TokenKind::Wit => TierCredential::WitKey { key_id, spki },
            },
            expires_at: self.wire.expires_at,
            tainted: false,
        }
    }
}

/// Many agents may publish by one entry. The serial number of the SVID that one of them shows tells which
/// ([`is_through`](crate::facts::through::is_through)), so its key is named by that, and goes with its ban.
fn check_attribution(by: &DownstreamServer, key_id: &str) -> Result<(), PublishError> {
    let serial = by.caller().svid().map(|svid| svid.serial()).unwrap_or_default();
    match by.scope() {
        CaScope::LocalAuthority if key_id != serial => Err(PublishError::NotNamedByItsSvid(serial.to_owned())),
        CaScope::LocalAuthority | CaScope::Server => Ok(()),
    }
}

/// The key, untainted, if tokens can be verified with it.
pub(super) fn usable(wire: &types::JwtKey) -> Result<types::JwtKey, PublishError> {
    match wire.key_id.len() {
        0 => return Err(PublishError::NoKeyId),
        long if long > MAX_KEY_ID_BYTES => return Err(PublishError::KeyIdTooLong(long)),
        _ if wire.key_id.contains(char::is_control) => return Err(PublishError::KeyIdControls),
        _ => {}
    }
    let wire = types::JwtKey { tainted: false, ..wire.clone() };
    Usable::from_wire(&wire).ok_or(PublishError::Key)?;
    Ok(wire)
}
