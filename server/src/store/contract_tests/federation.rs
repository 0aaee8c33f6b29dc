//! Other trust domains: what is logged, what is read back, what goes with what.

use ironroot_api::TrustDomain;
use ironroot_api::bundle::Bundle;
use ironroot_api::pb::types;
use ironroot_api::pb::types::federation_relationship::BundleEndpointProfile;

use super::{Fixture, administrator, entry, listen, told};
use crate::facts::federation::{EndpointProfile, EndpointUrl, FederationRelationship};
use crate::federation::{DeleteMode, Federation, FederationError, FetchedBundle, MAX_TRUST_DOMAINS};
use crate::registry::{EntryFilter, Registry, RegistryError};
use crate::store::{Changed, Transaction};

fn other(name: &str) -> TrustDomain {
    TrustDomain::new(name).expect("legal")
}

fn bundle(name: &str, sequence_number: u64) -> Bundle {
    let wire = types::Bundle { trust_domain: name.into(), sequence_number, refresh_hint: 60, ..Default::default() };
    Bundle::from_pb(&wire).expect("legal")
}

fn relationship(name: &str, url: &str) -> types::FederationRelationship {
    types::FederationRelationship {
        trust_domain: name.into(),
        bundle_endpoint_url: url.into(),
        bundle_endpoint_profile: Some(BundleEndpointProfile::HttpsSpiffe(types::HttpsspiffeProfile {
            endpoint_spiffe_id: format!("spiffe://{name}/spire/server"),
        })),
        trust_domain_bundle: None,
    }
}

/// The same, as it is asked for.
fn asked(name: &str, url: &str) -> FederationRelationship {
    FederationRelationship {
        trust_domain: other(name),
        url: EndpointUrl::parse(url).expect("legal"),
        profile: EndpointProfile::HttpsSpiffe(other(name).server_id()),
    }
}

fn federating(id: &str, with: &str) -> types::Entry {
    types::Entry { federates_with: vec![with.into()], ..entry(id) }
}

#[tokio::test]
async fn each_change_of_a_bundle_or_a_relationship_is_logged_and_read_back_as_it_was() {
    for fixture in Fixture::of_each_engine() {
        let (heard, by) = (listen(&fixture.store).await, administrator());
        let federation = Federation::load(fixture.store.clone()).await.expect("loads");
        told(&heard);
        let (of_bundle, of_relationship) = (Changed::Bundle(other("other")), Changed::Relationship(other("other")));
        federation.set_bundle(&by, bundle("other", 1)).await.expect("set");
        assert_eq!(told(&heard), [Some(vec![of_bundle.clone()])]);
        let asked = relationship("other", "https://other.test/");
        let with_bundle = types::FederationRelationship {
            trust_domain_bundle: Some(bundle("other", 2).to_pb().clone()),
            ..asked.clone()
        };
        federation.create_relationship(&by, &with_bundle).await.expect("created");
        assert_eq!(told(&heard), [Some(vec![of_bundle.clone(), of_relationship.clone()])], "one commit");
        let again = Federation::load(fixture.another()).await.expect("loads");
        for federation in [&federation, &again] {
            let held = federation.bundle(&other("other")).expect("held");
            assert_eq!(*held, bundle("other", 2));
            let relationship = federation.relationship(&other("other")).expect("held");
            assert_eq!(relationship.to_pb(None, None), asked);
        }
        let moved = relationship("other", "https://elsewhere.test/");
        federation.update_relationship(&by, &moved, None).await.expect("updated");
        assert_eq!(told(&heard), [Some(vec![of_relationship.clone()])]);
        federation.delete_relationship(&by, &other("other")).await.expect("deleted");
        assert_eq!(told(&heard), [Some(vec![of_relationship])]);
        assert!(federation.bundle(&other("other")).is_some(), "the bundle stays");
        federation.delete_bundle(&by, &other("other"), DeleteMode::Restrict).await.expect("deleted");
        assert_eq!(told(&heard), [Some(vec![of_bundle])]);
        assert!(federation.bundle(&other("other")).is_none() && federation.relationship(&other("other")).is_none());
    }
}

#[tokio::test]
async fn an_entry_asks_for_no_bundle_that_the_server_lacks() {
    for fixture in Fixture::of_each_engine() {
        let by = administrator();
        let registry = Registry::load(fixture.store.clone()).await.expect("loads");
        let federation = Federation::load(fixture.store.clone()).await.expect("loads");
        let create = async |id: &str| registry.create_entry(&by, &federating(id, "other"), 1).await.answer().await;
        let refused = create("e").await.expect_err("there is no bundle");
        assert!(matches!(&refused, RegistryError::UnknownBundle(td) if *td == other("other")), "{refused}");
        assert_eq!(refused.to_string(), "unable to find federated bundle \"spiffe://other\"");
        federation.set_bundle(&by, bundle("other", 1)).await.expect("set");
        create("e").await.expect("there is one");
        let update = async |with: &str| registry.update_entry(&by, &federating("e", with), None).await.answer().await;
        assert!(matches!(update("third").await, Err(RegistryError::UnknownBundle(_))));
        update("td").await.expect("the server's own is there always");
    }
}

#[tokio::test]
async fn a_bundle_that_entries_ask_for_goes_as_its_mode_says_or_not_at_all() {
    for fixture in Fixture::of_each_engine() {
        let by = administrator();
        let registry = Registry::load(fixture.store.clone()).await.expect("loads");
        let federation = Federation::load(fixture.store.clone()).await.expect("loads");
        let set = async || federation.set_bundle(&by, bundle("other", 1)).await.expect("set");
        let create = async |wire: types::Entry| registry.create_entry(&by, &wire, 1).await.answer().await;
        set().await;
        for wire in [federating("a", "other"), federating("b", "other"), entry("c")] {
            create(wire).await.expect("created");
        }
        let delete = async |mode| federation.delete_bundle(&by, &other("other"), mode).await;
        let in_use = delete(DeleteMode::Restrict).await.expect_err("entries ask for it");
        assert!(matches!(in_use, FederationError::BundleInUse(2)));
        assert!(federation.bundle(&other("other")).is_some());
        delete(DeleteMode::Dissociate).await.expect("goes");
        let entry_of = |id: &str| registry.entry(id).expect("stays");
        assert!(["a", "b"].iter().all(|id| entry_of(id).federates_with().is_empty()));
        assert_eq!((entry_of("a").revision_number(), entry_of("c").revision_number()), (1, 0), "agents take notice");
        assert!(matches!(delete(DeleteMode::Delete).await, Err(FederationError::BundleNotFound)));
        set().await;
        registry.update_entry(&by, &federating("a", "other"), None).await.answer().await.expect("updated");
        delete(DeleteMode::Delete).await.expect("goes");
        assert!(registry.entry("a").is_none() && registry.entry("b").is_some());
        set().await;
        // An entry that is gone, in whatever way, asks for nothing.
        let ending = types::Entry { expires_at: 5, ..federating("d", "other") };
        create(ending).await.expect("created");
        registry.prune_expired_entries(5).await.expect("pruned");
        delete(DeleteMode::Restrict).await.expect("nobody asks for it");
        assert_eq!(registry.count_entries(&EntryFilter::default()), 2);
        assert_eq!(fixture.number("SELECT count(*) FROM entry_federations"), 0);
    }
}

#[tokio::test]
async fn what_was_being_fetched_when_its_relationship_was_deleted_or_moved_is_left_aside() {
    for fixture in Fixture::of_each_engine() {
        let by = administrator();
        let configured = asked("configured", "https://configured.test/");
        let federation = Federation::load_beside(fixture.store.clone(), vec![configured.clone()]).await.expect("loads");
        let fetched = |of: &FederationRelationship| FetchedBundle::read(of, br#"{"keys":[]}"#).expect("a document");
        let take_in = async |of: &FederationRelationship| federation.take_in(fetched(of)).await;
        federation.create_relationship(&by, &relationship("other", "https://other.test/")).await.expect("created");
        let before = asked("other", "https://other.test/");
        take_in(&before).await.expect("its relationship stands");
        // As an administrator does it to be rid of a trust domain.
        federation.delete_relationship(&by, &other("other")).await.expect("deleted");
        federation.delete_bundle(&by, &other("other"), DeleteMode::Restrict).await.expect("deleted");
        let refused = take_in(&before).await.expect_err("nobody wants it any more");
        assert!(matches!(refused, FederationError::NoLongerManaged), "{refused}");
        assert!(federation.bundle(&other("other")).is_none(), "it does not come back");
        federation.create_relationship(&by, &relationship("other", "https://moved.test/")).await.expect("created");
        assert!(matches!(take_in(&before).await, Err(FederationError::NoLongerManaged)), "it is shown elsewhere");
        take_in(&asked("other", "https://moved.test/")).await.expect("by its address of now");
        take_in(&configured).await.expect("the configuration's is stored nowhere");
        let elsewhere = take_in(&asked("configured", "https://other.test/")).await;
        assert!(matches!(elsewhere, Err(FederationError::NoLongerManaged)));
    }
}

#[tokio::test]
async fn a_server_knows_so_many_other_trust_domains_and_no_more() {
    for fixture in Fixture::of_each_engine() {
        let by = administrator();
        let federation = Federation::load(fixture.store.clone()).await.expect("loads");
        let fill = |tx: &Transaction<'_>| {
            (0..MAX_TRUST_DOMAINS).try_for_each(|number| tx.put_federated_bundle(&bundle(&format!("td{number}"), 1)))
        };
        fixture.store.change(fill).await.expect("filled");
        assert!(matches!(federation.set_bundle(&by, bundle("other", 1)).await, Err(FederationError::TooMany)));
        assert!(matches!(federation.create_bundle(&by, bundle("other", 1)).await, Err(FederationError::TooMany)));
        federation.set_bundle(&by, bundle("td0", 2)).await.expect("one that is there is replaced");
        let (mut seen, mut token) = (0, String::new());
        loop {
            let page = federation.list_bundles(100, &token).expect("a page");
            seen += page.items.len();
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, 256);
    }
}
