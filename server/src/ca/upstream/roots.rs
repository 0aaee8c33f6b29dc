//! What the authority above has, as the data store keeps it for the bundle.

use ironroot_api::certificate::Certificate;
use thiserror::Error;

use crate::facts::tier::{TierAuthorities, TierAuthority, TierCredential, TierOrigin};
use crate::store::{StoreError, Transaction};

/// Authorities of the one above that are kept, those among them that it has no more. A handful, in a trust domain that is well.
pub(super) const MAX_KEPT: usize = 512;

/// Why what the authority above has is not kept.
#[derive(Debug, Error)]
pub enum KeepError {
    /// More than bundles should have.
    #[error(
        "the upstream authority has had more than {MAX_KEPT} authorities that have not ended yet; nothing of it is taken in any more"
    )]
    TooMany,
    /// The data store.
    #[error("what the upstream authority has cannot be stored")]
    Store(#[from] StoreError),
}

/// Adds these roots to those that are known. What is not among them any more stays until it ends: what it has signed is about.
pub(in crate::ca) fn keep_roots(tx: &Transaction<'_>, roots: &[Certificate]) -> Result<(), KeepError> {
    let known = tx.tier_authorities()?;
    let told = roots.iter().map(|root| above(TierCredential::Certificate(root.der().to_vec()), root.not_after_unix()));
    let is_new = |root: &TierAuthority| !known.authorities.iter().any(|one| is_same(one, root));
    let new: Vec<_> = told.filter(is_new).collect();
    put(tx, &known, &new)
}

/// Takes in all that the authority above has: what is new, and what is tainted. What it has no more goes if it was tainted: it is revoked.
/// Otherwise it stays until it ends. What ended at `over_at` or before and is not here is left above: SPIRE's servers keep it for a day, and
/// the plan here would put it out as often as it came in. Returns what was revoked. Source: SPIRE `SyncX509Roots`.
pub(super) fn take_in(
    tx: &Transaction<'_>,
    told: &[TierAuthority],
    over_at: i64,
) -> Result<Vec<TierAuthority>, KeepError> {
    let known = tx.tier_authorities()?;
    let is_revoked = |one: &&TierAuthority| {
        one.origin == TierOrigin::Above && one.tainted && !told.iter().any(|authority| is_same(authority, one))
    };
    let revoked: Vec<_> = known.authorities.iter().filter(is_revoked).cloned().collect();
    revoked.iter().try_for_each(|revoked| tx.remove_tier_authority(revoked))?;
    // What an operator has called tainted here stays so, whatever is said above.
    let is_tainted = |one: &TierAuthority| known.authorities.iter().any(|other| other.tainted && is_same(one, other));
    let told = told.iter().map(|one| TierAuthority { tainted: one.tainted || is_tainted(one), ..one.clone() });
    let is_here = |one: &TierAuthority| known.authorities.iter().any(|other| is_same(one, other));
    let told = told.filter(|one| one.expires_at > over_at || is_here(one));
    let new: Vec<_> = told.filter(|one| !known.authorities.contains(one)).collect();
    put(tx, &known, &new)?;
    Ok(revoked)
}

fn put(tx: &Transaction<'_>, known: &TierAuthorities, new: &[TierAuthority]) -> Result<(), KeepError> {
    let kept = known.authorities.iter().filter(|one| one.origin == TierOrigin::Above).count();
    let added = new.iter().filter(|one| !known.authorities.iter().any(|other| is_same(other, one))).count();
    if kept + added > MAX_KEPT {
        return Err(KeepError::TooMany);
    }
    Ok(new.iter().try_for_each(|authority| tx.put_tier_authority(authority))?)
}

/// An authority of the one above.
pub(super) fn above(credential: TierCredential, expires_at: i64) -> TierAuthority {
    TierAuthority { origin: TierOrigin::Above, credential, expires_at, tainted: false }
}

fn is_same(one: &TierAuthority, other: &TierAuthority) -> bool {
    let is_same = match (&one.credential, &other.credential) {
        (TierCredential::Certificate(one), TierCredential::Certificate(other)) => one == other,
        (TierCredential::JwtKey { key_id: one, .. }, TierCredential::JwtKey { key_id: other, .. })
        | (TierCredential::WitKey { key_id: one, .. }, TierCredential::WitKey { key_id: other, .. }) => one == other,
        _ => false,
    };
    is_same && one.origin == other.origin
}

#[cfg(test)]
mod tests {
    use ironroot_api::TrustDomain;

    use super::*;
    use crate::store::Store;

    fn key(key_id: &str) -> TierAuthority {
        above(TierCredential::JwtKey { key_id: key_id.to_owned(), spki: vec![1] }, 100)
    }

    fn tainted(authority: TierAuthority) -> TierAuthority {
        TierAuthority { tainted: true, ..authority }
    }

    async fn told(store: &Store, told: Vec<TierAuthority>) -> Result<Vec<TierAuthority>, KeepError> {
        store.change(move |tx| take_in(tx, &told, 99)).await?;
        Ok(store.tier_authorities().await?.authorities)
    }

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("datastore.sqlite3");
        (directory, Store::open(&path, &TrustDomain::new("td").unwrap()).unwrap())
    }

    #[tokio::test]
    async fn what_vanishes_above_stays_unless_it_was_tainted() {
        let (_directory, store) = store();
        assert_eq!(told(&store, vec![key("a"), key("b")]).await.unwrap(), [key("a"), key("b")]);
        assert_eq!(told(&store, vec![key("c")]).await.unwrap(), [key("a"), key("b"), key("c")]);
        let some = vec![tainted(key("a")), key("c")];
        assert_eq!(told(&store, some).await.unwrap(), [tainted(key("a")), key("b"), key("c")]);
        let revision = store.tier_authorities().await.unwrap().revision;
        assert_eq!(told(&store, vec![key("c")]).await.unwrap(), [key("b"), key("c")], "it was revoked");
        assert_eq!(told(&store, vec![key("c")]).await.unwrap().len(), 2);
        assert_eq!(store.tier_authorities().await.unwrap().revision, revision + 1, "nothing new changes nothing");
    }

    #[tokio::test]
    async fn what_is_over_and_was_put_out_here_does_not_come_in_again_while_it_is_kept_above() {
        let (_directory, store) = store();
        let both = vec![key("a"), key("b")];
        assert_eq!(told(&store, both.clone()).await.unwrap().len(), 2);
        store.change::<_, StoreError>(|tx| tx.remove_tier_authorities_expired_at(100)).await.unwrap();
        let again = both.clone();
        store.change(move |tx| take_in(tx, &again, 100)).await.unwrap();
        assert_eq!(store.tier_authorities().await.unwrap().authorities, []);
    }

    #[tokio::test]
    async fn no_more_is_kept_than_a_bound_and_nothing_half_taken() {
        let (_directory, store) = store();
        let many: Vec<_> = (0..MAX_KEPT).map(|number| key(&format!("{number:04}"))).collect();
        assert_eq!(told(&store, many.clone()).await.unwrap().len(), MAX_KEPT);
        let more = vec![key("0000"), key("x"), key("y")];
        assert!(matches!(told(&store, more).await, Err(KeepError::TooMany)));
        assert_eq!(told(&store, many).await.unwrap().len(), MAX_KEPT);
    }
}
