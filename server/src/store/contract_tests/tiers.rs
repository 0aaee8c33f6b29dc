//! Authorities of other tiers.

use ironroot_api::SpiffeId;

use super::{Fixture, listen, told};
use crate::facts::tier::{TierAuthority, TierCredential, TierOrigin};
use crate::store::{Changed, StoreError};

fn below(path: &str) -> TierOrigin {
    TierOrigin::Below(SpiffeId::parse(&format!("spiffe://td{path}")).expect("legal"))
}

fn jwt(origin: TierOrigin, key_id: &str, expires_at: i64) -> TierAuthority {
    let credential = TierCredential::JwtKey { key_id: key_id.to_owned(), spki: vec![1, 2, 3] };
    TierAuthority { origin, credential, expires_at, tainted: false }
}

fn x509(der: &[u8]) -> TierAuthority {
    let credential = TierCredential::Certificate(der.to_vec());
    TierAuthority { origin: TierOrigin::Above, credential, expires_at: 100, tainted: true }
}

#[tokio::test]
async fn what_other_tiers_have_is_read_back_as_it_was_told_by_each_of_them() {
    for fixture in Fixture::of_each_engine() {
        let heard = listen(&fixture.store).await;
        told(&heard);
        let appended = TierAuthority { origin: TierOrigin::Administrator, tainted: false, ..x509(b"two") };
        let all = [x509(b"one"), appended, jwt(TierOrigin::Above, "k", 9), jwt(below("/a"), "k", 5)];
        let put = all.clone();
        let change =
            move |tx: &crate::store::Transaction<'_>| put.iter().try_for_each(|one| tx.put_tier_authority(one));
        fixture.store.change::<_, StoreError>(change).await.expect("written");
        assert_eq!(told(&heard), [Some(vec![Changed::Tiers])], "however many");
        let read = fixture.store.tier_authorities().await.expect("read");
        assert!(
            read.authorities.len() == all.len() && all.iter().all(|one| read.authorities.contains(one)),
            "{read:?}"
        );
        assert_eq!(read.revision, 4);
        assert!(read.has_expired(5) && !read.has_expired(4));

        let again = TierAuthority { expires_at: 7, ..jwt(below("/a"), "k", 5) };
        let (replaced, gone) = (again.clone(), x509(b"one"));
        let change = move |tx: &crate::store::Transaction<'_>| {
            tx.put_tier_authority(&replaced)?;
            tx.remove_tier_authority(&gone)?;
            tx.remove_tier_authority(&gone)
        };
        fixture.store.change::<_, StoreError>(change).await.expect("written");
        let read = fixture.store.tier_authorities().await.expect("read");
        assert!(read.authorities.contains(&again) && !read.authorities.contains(&x509(b"one")), "{read:?}");
        assert_eq!((read.authorities.len(), read.revision), (3, 6));
        for (at, removed, revision) in [(6, 0, 6), (9, 2, 7)] {
            let removal = fixture.store.change(move |tx| tx.remove_tier_authorities_expired_at(at)).await;
            assert_eq!(removal.expect("written"), removed);
            assert_eq!(fixture.store.tier_authorities().await.expect("read").revision, revision);
        }
    }
}

#[tokio::test]
async fn a_damaged_row_is_told_by_its_name() {
    for fixture in Fixture::of_each_engine() {
        for (kind, origin) in [("rune", ""), ("jwt", "web")] {
            let credential = fixture.bytes("00");
            let values = format!("'{kind}', 'n', '{origin}', {credential}, 1, FALSE");
            fixture.sql(&format!("INSERT INTO tier_authorities VALUES ({values})"));
            let read = fixture.store.tier_authorities().await;
            assert!(matches!(&read, Err(StoreError::Corrupt(why)) if why.contains("authority n")), "{read:?}");
            fixture.sql("DELETE FROM tier_authorities");
        }
    }
}
