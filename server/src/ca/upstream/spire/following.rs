//! What the server above has is in the bundle here, and the keys of JWT-SVIDs from here are in the bundle there.

use std::sync::Arc;
use std::time::Duration;

use ironroot_api::pb::types;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::above::has_key;
use super::{Above, SpireAuthority, SpireError};
use crate::ca::bundle::{TokenKey, TrustBundle};
use crate::ca::performer::KEEP_EXPIRED_FOR;
use crate::ca::published::TokenKind;
use crate::ca::upstream::{Followers, KeepError, UpstreamError, roots};
use crate::facts::tier::{TierAuthority, TierOrigin};

/// How often the bundle above is looked at. Source: SPIRE `upstreamPollFreq`.
const POLL: Duration = Duration::from_secs(5);

/// How the last look went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Works,
    /// All is followed, and a key from here is not taken.
    Refuses,
    Fails,
}

/// Goes on for as long as it is polled: every few seconds, and when the bundle here has changed.
pub(in crate::ca::upstream) async fn follow(server: &SpireAuthority, followers: Followers) {
    let mut bundle = followers.published.bundle();
    let (mut link, mut takes_wit_keys) = (Link::Works, true);
    loop {
        let own = bundle.borrow_and_update().clone();
        // Another server may answer by now.
        takes_wit_keys |= link == Link::Fails;
        let met = meet(server, &followers, &own, &mut takes_wit_keys).await;
        link = tell(server, link, &met);
        rest(&mut bundle, link == Link::Fails).await;
    }
}

/// In the log once for each turn; how the link is now.
fn tell(server: &SpireAuthority, before: Link, met: &Result<Refused, UpstreamError>) -> Link {
    let (link, error) = match met {
        Ok(Refused(None)) => (Link::Works, None),
        Ok(Refused(Some(error))) => (Link::Refuses, Some(error as &dyn std::error::Error)),
        Err(error) => (Link::Fails, Some(error as &dyn std::error::Error)),
    };
    match link {
        _ if link == before => error.iter().for_each(|error| debug!(upstream = ?server, error, "the same again")),
        Link::Works => info!(upstream = ?server, "the upstream server answers again, and has all keys from here"),
        Link::Refuses => warn!(
            upstream = ?server,
            error,
            "the upstream server does not take every key of this server and of those below it: tokens of such a key are good \
             below this server; it is tried again"
        ),
        Link::Fails => {
            warn!(upstream = ?server, error, "what the upstream server has is not known; it is tried again")
        }
    }
    link
}

/// Until it is time to look again. What changes here does not hurry a server that does not answer.
async fn rest(bundle: &mut watch::Receiver<Arc<TrustBundle>>, fails: bool) {
    tokio::select! {
        () = tokio::time::sleep(POLL) => {}
        Ok(()) = bundle.changed(), if !fails => {}
    }
}

/// Takes in what is above, and publishes there what is not. `takes_wit_keys`: whether the server above takes keys of WIT-SVIDs.
async fn meet(
    server: &SpireAuthority,
    followers: &Followers,
    own: &TrustBundle,
    takes_wit_keys: &mut bool,
) -> Result<Refused, UpstreamError> {
    let above = server.above().await?;
    let known = followers.store.tier_authorities().await.map_err(KeepError::from)?.authorities;
    let now = (followers.now)();
    let jwt_keys = unpublished(TokenKind::Jwt, &own.jwt_authorities, &above, &known, now);
    let wit_keys = unpublished(TokenKind::Wit, &own.wit_authorities, &above, &known, now);
    // A taint, a revocation or a new root waits for nobody's key.
    let taken = take_in_all(followers, above.authorities, &known).await;
    let published = publish(server, jwt_keys, wit_keys, takes_wit_keys).await;
    taken.and(published)
}

/// The first key that the server above does not take, by its words; all others were tried.
#[derive(Debug, Default)]
struct Refused(Option<SpireError>);

impl Refused {
    /// Whether the key was published; an error if no other is worth a try now.
    fn note<T>(&mut self, key_id: &str, published: Result<T, SpireError>) -> Result<Option<T>, SpireError> {
        match published {
            Ok(done) => Ok(Some(done)),
            Err(error) if error.is_refusal() => {
                debug!(key_id, error = &error as &dyn std::error::Error, "the upstream server refuses a key");
                self.0.get_or_insert(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn has_no_room(&self) -> bool {
        self.0.as_ref().is_some_and(SpireError::has_no_room)
    }
}

/// Publishes each key. One that is refused says nothing of the others, unless there is no room for more.
async fn publish(
    server: &SpireAuthority,
    jwt_keys: Vec<types::JwtKey>,
    wit_keys: Vec<types::JwtKey>,
    takes_wit_keys: &mut bool,
) -> Result<Refused, UpstreamError> {
    let mut refused = Refused::default();
    for key in jwt_keys {
        let key_id = key.key_id.clone();
        if refused.note(&key_id, server.publish(key).await)?.is_some() {
            info!(key_id, "a key of JWT-SVIDs is published upstream");
        }
        if refused.has_no_room() {
            return Ok(refused);
        }
    }
    for key in wit_keys {
        if !*takes_wit_keys || refused.has_no_room() {
            break;
        }
        let types::JwtKey { public_key, key_id, expires_at, tainted } = key;
        let key = types::WitKey { public_key, key_id: key_id.clone(), expires_at, tainted };
        match refused.note(&key_id, server.publish_wit(key).await)? {
            Some(true) => info!(key_id, "a key of WIT-SVIDs is published upstream"),
            Some(false) => {
                *takes_wit_keys = false;
                debug!("the upstream server takes no keys of WIT-SVIDs: tokens are good below this server");
            }
            None => {}
        }
    }
    Ok(refused)
}

async fn take_in_all(
    followers: &Followers,
    told: Vec<TierAuthority>,
    known: &[TierAuthority],
) -> Result<(), UpstreamError> {
    leave_tainted(followers, &told, known).await?;
    Ok(take_in(followers, told).await?)
}

/// Has the CA here hang on no root that is called tainted above, before the bundle here says so: who reads that replaces SVIDs, and the new
/// ones are to be under another root. Source: SPIRE `SyncX509Roots`, which does it in this order.
async fn leave_tainted(
    followers: &Followers,
    told: &[TierAuthority],
    known: &[TierAuthority],
) -> Result<(), UpstreamError> {
    let (all, new) = (tainted_roots(told), tainted_roots(&unseen_taints(told, known)));
    if new.is_empty() && !followers.published.hangs_on(&all) {
        return Ok(());
    }
    // The next root may be as new as the taint of the one before.
    take_in(followers, told.iter().map(|one| without_new_taint(one, known)).collect()).await?;
    let left = followers.orders.leave_roots(all).await;
    left.map_err(|error| UpstreamError::Leave(Box::new(error)))?;
    new.iter().for_each(|root| info!(subject_key_id = root, "X.509 authority tainted"));
    Ok(())
}

async fn take_in(followers: &Followers, told: Vec<TierAuthority>) -> Result<(), KeepError> {
    let over_at = (followers.now)().saturating_sub(KEEP_EXPIRED_FOR);
    let revoked = followers.store.change(move |tx| roots::take_in(tx, &told, over_at)).await?;
    let revoked = revoked.iter().filter_map(TierAuthority::subject_key_id);
    revoked.for_each(|root| info!(subject_key_id = root, "X.509 authority revoked"));
    Ok(())
}

/// What is tainted above, and not yet here.
fn unseen_taints(told: &[TierAuthority], known: &[TierAuthority]) -> Vec<TierAuthority> {
    told.iter().filter(|one| one.tainted && !known.contains(one)).cloned().collect()
}

/// The same, as it is held here.
fn without_new_taint(one: &TierAuthority, known: &[TierAuthority]) -> TierAuthority {
    TierAuthority { tainted: one.tainted && known.contains(one), ..one.clone() }
}

/// Subject key IDs, in lower-case hexadecimal digits.
fn tainted_roots(authorities: &[TierAuthority]) -> Vec<String> {
    let tainted = authorities.iter().filter(|authority| authority.tainted);
    tainted.filter_map(TierAuthority::subject_key_id).collect()
}

/// Keys of this server, then of those below it, that the server above has never had. One that it has no more was revoked there.
fn unpublished(
    kind: TokenKind,
    own: &[TokenKey],
    above: &Above,
    known: &[TierAuthority],
    now_unix: i64,
) -> Vec<types::JwtKey> {
    let had: Vec<_> = known.iter().filter(|authority| authority.origin == TierOrigin::Above).cloned().collect();
    let is_new = |key: &&TokenKey| {
        key.not_after_unix > now_unix
            && !key.tainted
            && !above.has_key(kind, &key.key_id)
            && !has_key(kind, &had, &key.key_id)
    };
    let wire = |key: &TokenKey| types::JwtKey {
        public_key: key.spki_der.clone().into(),
        key_id: key.key_id.clone(),
        expires_at: key.not_after_unix,
        tainted: false,
    };
    let below: Vec<_> = known.iter().filter(|one| matches!(one.origin, TierOrigin::Below(_))).cloned().collect();
    let mut new: Vec<_> = own.iter().filter(is_new).map(wire).collect();
    new.sort_by_key(|key| has_key(kind, &below, &key.key_id));
    new
}

#[cfg(test)]
mod tests {
    use ironroot_api::TrustDomain;
    use tonic::{Code, Status};

    use super::*;
    use crate::ca::upstream::roots::above;
    use crate::facts::tier::TierCredential;

    fn key(key_id: &str, not_after_unix: i64, tainted: bool) -> TokenKey {
        TokenKey { key_id: key_id.to_owned(), spki_der: vec![1], not_after_unix, tainted }
    }

    fn told(key_id: &str, origin: TierOrigin) -> TierAuthority {
        let credential = TierCredential::JwtKey { key_id: key_id.to_owned(), spki: vec![1] };
        TierAuthority { origin, ..above(credential, 100) }
    }

    #[test]
    fn a_key_is_published_above_once_and_neither_when_it_was_revoked_there_nor_when_it_is_over() {
        let below = || TierOrigin::Below(TrustDomain::new("td").unwrap().server_id().into());
        let own = [
            key("below", 100, false),
            key("own", 100, false),
            key("there", 100, false),
            key("revoked", 100, false),
            key("over", 10, false),
            key("tainted", 100, true),
        ];
        let there = Above { roots: Vec::new(), authorities: vec![told("there", TierOrigin::Above)] };
        let known = [told("below", below()), told("revoked", TierOrigin::Above)];
        let published = |kind| -> Vec<_> {
            unpublished(kind, &own, &there, &known, 10).into_iter().map(|key| key.key_id).collect()
        };
        assert_eq!(published(TokenKind::Jwt), ["own", "below"], "the own ones first: there may be no room for all");
        let as_wit_keys = published(TokenKind::Wit);
        assert_eq!(as_wit_keys, ["below", "own", "there", "revoked"], "those were keys of JWT-SVIDs");
    }

    #[test]
    fn a_key_that_is_refused_keeps_no_other_from_being_published_and_a_server_that_is_away_does() {
        let said = |code| Err::<(), _>(SpireError::Refused(Status::new(code, "no")).at("failed to push JWT authority"));
        let mut refused = Refused::default();
        assert_eq!(refused.note("good", Ok(())).unwrap(), Some(()));
        assert_eq!(refused.note("its ID is taken", said(Code::InvalidArgument)).unwrap(), None);
        assert!(refused.0.is_some() && !refused.has_no_room());
        assert_eq!(refused.note("the next", Ok(())).unwrap(), Some(()));
        for code in [Code::Unavailable, Code::PermissionDenied, Code::Internal, Code::Unknown] {
            assert!(refused.note("any", said(code)).is_err());
        }
        let mut full = Refused::default();
        assert_eq!(full.note("one too many", said(Code::ResourceExhausted)).unwrap(), None);
        assert!(full.has_no_room());
    }
}
