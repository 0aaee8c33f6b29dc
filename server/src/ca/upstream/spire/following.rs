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
            "the upstream server has not taken every key of this server and of those below it: until it does, tokens of such a key are \
             good below this server alone; it is tried again"
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
    let published = publish(jwt_keys, wit_keys, takes_wit_keys, |kind, key| server.publish(kind, key)).await;
    taken.and(published.map_err(UpstreamError::from))
}

/// The first key that the server above does not take, by its words; all others were tried, but for those that there was no room for.
#[derive(Debug, Default)]
struct Refused(Option<SpireError>);

/// What came of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    Published,
    /// The server above takes none of this kind.
    NoSuchKind,
    /// It says nothing of the others.
    Refused,
    /// Nor is there room for the next one of this kind.
    NoRoom,
}

impl Refused {
    /// What came of the key; an error if no other is worth a try now.
    fn note(&mut self, key_id: &str, taken: Result<bool, SpireError>) -> Result<Tried, SpireError> {
        match taken {
            Ok(true) => Ok(Tried::Published),
            Ok(false) => Ok(Tried::NoSuchKind),
            Err(error) if error.is_refusal() => {
                debug!(key_id, error = &error as &dyn std::error::Error, "the upstream server refuses a key");
                let tried = if error.has_no_room() { Tried::NoRoom } else { Tried::Refused };
                self.0.get_or_insert(error);
                Ok(tried)
            }
            Err(error) => Err(error),
        }
    }
}

/// Publishes each key with `push`, which says whether it was taken. The room for each kind is its own.
async fn publish<F: Future<Output = Result<bool, SpireError>>>(
    jwt_keys: Vec<types::JwtKey>,
    wit_keys: Vec<types::JwtKey>,
    takes_wit_keys: &mut bool,
    push: impl Fn(TokenKind, types::JwtKey) -> F,
) -> Result<Refused, SpireError> {
    let mut refused = Refused::default();
    for key in jwt_keys {
        let key_id = key.key_id.clone();
        match refused.note(&key_id, push(TokenKind::Jwt, key).await)? {
            Tried::Published => info!(key_id, "a key of JWT-SVIDs is published upstream"),
            Tried::Refused => {}
            Tried::NoRoom | Tried::NoSuchKind => break,
        }
    }
    for key in if *takes_wit_keys { wit_keys } else { Vec::new() } {
        let key_id = key.key_id.clone();
        match refused.note(&key_id, push(TokenKind::Wit, key).await)? {
            Tried::Published => info!(key_id, "a key of WIT-SVIDs is published upstream"),
            Tried::Refused => {}
            Tried::NoRoom => break,
            Tried::NoSuchKind => {
                *takes_wit_keys = false;
                debug!("the upstream server takes no keys of WIT-SVIDs: tokens are good below this server");
                break;
            }
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
    use std::cell::RefCell;
    use std::future::ready;

    use futures_util::FutureExt;
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

    fn said<T>(code: Code) -> Result<T, SpireError> {
        Err(SpireError::Refused(Status::new(code, "no")).at("failed to push JWT authority"))
    }

    #[test]
    fn a_key_that_is_refused_keeps_no_other_from_being_published_and_a_server_that_is_away_does() {
        let mut refused = Refused::default();
        assert_eq!(refused.note("good", Ok(true)).unwrap(), Tried::Published);
        assert_eq!(refused.note("its ID is taken", said(Code::InvalidArgument)).unwrap(), Tried::Refused);
        assert!(refused.0.is_some());
        assert_eq!(refused.note("the next", Ok(true)).unwrap(), Tried::Published);
        for code in [Code::Unavailable, Code::PermissionDenied, Code::Internal, Code::Unknown] {
            assert!(refused.note("any", said(code)).is_err());
        }
    }

    #[test]
    fn keys_of_one_kind_that_there_is_no_room_for_keep_none_of_the_other_from_being_published() {
        let keys = |key_ids: &[&str]| -> Vec<_> {
            let key = |key_id: &&str| types::JwtKey { key_id: (*key_id).to_owned(), ..types::JwtKey::default() };
            key_ids.iter().map(key).collect()
        };
        let (tried, mut takes_wit_keys) = (RefCell::new(Vec::new()), true);
        let mut published = |full: TokenKind, takes: bool| {
            tried.borrow_mut().clear();
            let push = |kind, key: types::JwtKey| {
                tried.borrow_mut().push(key.key_id.clone());
                ready(match key.key_id.as_str() {
                    "taken" => said(Code::InvalidArgument),
                    _ if kind == full => said(Code::ResourceExhausted),
                    _ => Ok(kind == TokenKind::Jwt || takes),
                })
            };
            let (jwt_keys, wit_keys) = (keys(&["taken", "j1", "j2"]), keys(&["taken", "w1", "w2"]));
            let done = publish(jwt_keys, wit_keys, &mut takes_wit_keys, push).now_or_never().unwrap().unwrap();
            assert!(done.0.is_some_and(|first| first.is_refusal() && !first.has_no_room()), "the first is told");
            tried.borrow().join(" ")
        };
        assert_eq!(published(TokenKind::Jwt, true), "taken j1 taken w1 w2");
        assert_eq!(published(TokenKind::Wit, true), "taken j1 j2 taken w1");
        assert_eq!(published(TokenKind::Jwt, false), "taken j1 taken w1");
        assert_eq!(published(TokenKind::Jwt, true), "taken j1", "it takes no such keys, and is not asked again");
    }
}
