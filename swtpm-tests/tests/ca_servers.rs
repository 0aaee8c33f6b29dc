//! Several servers of a trust domain on one token, with one data store or with one each.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use futures_util::FutureExt;
use ironroot_api::tls::AuthorityMark;
use ironroot_lab::authority::{AuthorityLab as Lab, NOW, assert_signs, spki, verify};
use ironroot_lab::quirk::Quirks;
use ironroot_lab::softhsm::SoftHsm;
use ironroot_server::ca::{CaError, Place, ServerName, SlotName};
use ironroot_server::clock::{ClockSource, Reading};

const DAY: i64 = 24 * 60 * 60;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// The public halves of the keys that a server has in the token.
async fn keys(lab: &Lab) -> Vec<Vec<u8>> {
    let journal = lab.journal().await;
    let mut keys = Vec::new();
    for place in Place::all() {
        if let Some(key) = journal.slot(place).key() {
            keys.push(lab.token.find(&key.name).await.unwrap().expect("it has its key").spki_der().to_vec());
        }
    }
    keys
}

/// Both rotate for three days, in turns; what each has is the same before and after the other's turn.
async fn rotate_in_turns(servers: &[Lab; 2]) {
    let mut all = std::collections::BTreeSet::new();
    for server in servers {
        server.start(NOW).await.unwrap();
    }
    for eighth in 1..24 {
        let now = NOW + eighth * DAY / 8;
        for (number, server) in servers.iter().enumerate() {
            let other = &servers[1 - number];
            let before = (other.journal().await, keys(other).await);
            assert_signs(&server.start(now).await.unwrap(), now).await;
            assert_eq!((other.journal().await, keys(other).await), before, "{number} touched what is the other's");
            all.extend(keys(server).await);
        }
    }
    assert!(all.len() >= 10, "both rotated: {} keys", all.len());
}

//= FLT-S7
#[test]
fn two_servers_on_one_token_rotate_and_neither_touches_the_others_keys() {
    SoftHsm::run_in_child("two_servers_on_one_token_rotate_and_neither_touches_the_others_keys", |hsm| {
        run(async {
            for rooted in [false, true] {
                let lab = |name: &str| {
                    let lab = Lab::new(hsm, DAY);
                    let lab = if rooted { lab.rooted(40 * DAY) } else { lab };
                    lab.renamed(name)
                };
                let servers = [lab("one"), lab("two")];
                rotate_in_turns(&servers).await;
                for server in servers {
                    server.forget_keys().await;
                }
            }
        });
    });
}

/// No server founds a CA in a store that has one, so these rows come from two.
#[test]
fn two_cas_whose_rows_are_in_one_store_rotate_and_each_bundle_holds_what_both_sign_with() {
    SoftHsm::run_in_child(
        "two_cas_whose_rows_are_in_one_store_rotate_and_each_bundle_holds_what_both_sign_with",
        |hsm| {
            run(async {
                for rooted in [false, true] {
                    let lab = if rooted { Lab::new(hsm, DAY).rooted(40 * DAY) } else { Lab::new(hsm, DAY) };
                    let (one, two) = (
                        lab.renamed("one"),
                        if rooted { Lab::new(hsm, DAY).rooted(40 * DAY) } else { Lab::new(hsm, DAY) },
                    );
                    let two = two.renamed("two");
                    for server in [&one, &two] {
                        server.start(NOW).await.unwrap();
                    }
                    let two = one.take_in(&two).await;
                    let servers = [one, two];
                    rotate_in_turns(&servers).await;
                    let now = NOW + 3 * DAY;
                    let mut signed = Vec::new();
                    let mut bundles = Vec::new();
                    for server in &servers {
                        let ca = server.start(now).await.unwrap();
                        signed.push(ca.sign_server_svid(&spki(), now).await.unwrap());
                    }
                    for server in &servers {
                        bundles.push(server.start(now).await.unwrap().bundle().borrow().clone());
                    }
                    assert_eq!(bundles[0], bundles[1]);
                    for (svid, bundle) in
                        signed.iter().flat_map(|svid| bundles.iter().map(move |bundle| (svid, bundle)))
                    {
                        verify(svid, bundle, now).unwrap();
                    }
                    for server in servers {
                        server.forget_keys().await;
                    }
                }
            });
        },
    );
}

//= FLT-S29
#[test]
fn a_ca_of_another_server_counts_as_soon_as_what_is_told_of_the_journals_is_shown() {
    SoftHsm::run_in_child("a_ca_of_another_server_counts_as_soon_as_what_is_told_of_the_journals_is_shown", |hsm| {
        run(async {
            let lab = |name: &str| Lab::new(hsm, DAY).rooted(40 * DAY).renamed(name);
            let (one, two) = (lab("one"), lab("two"));
            for server in [&one, &two] {
                server.start(NOW).await.unwrap();
            }
            let two = one.take_in(&two).await;
            let now = NOW + DAY * 5 / 6;
            let clocks = ClockSource::new("lab", move || Reading { wall_unix: now, boot_seconds: now });
            let (ca, rotation) = two.start_rotating(clocks).await.unwrap();
            let before = marks(&one).await;
            one.start(now).await.unwrap();
            let new: Vec<_> = marks(&one).await.into_iter().filter(|mark| !before.contains(mark)).collect();
            assert!(!new.is_empty(), "it has prepared its next CA");
            let knows = || new.iter().all(|mark| ca.own_authorities().has(mark));
            let mut shown = Box::pin(ca.shows_own_authorities());
            assert!((&mut shown).now_or_never().is_none() && !knows(), "the store's followers know, and nobody else");
            tokio::select! {
                () = rotation.run() => unreachable!("it runs for ever"),
                () = shown => assert!(knows()),
            }
            for server in [one, two] {
                server.forget_keys().await;
            }
        });
    });
}

/// The CAs of that server.
async fn marks(server: &Lab) -> Vec<AuthorityMark> {
    let journal = server.journal().await;
    let places = [SlotName::A, SlotName::B].map(Place::ca);
    let cas = places.iter().filter_map(|place| journal.slot(*place).authority()?.credential.certificate());
    cas.map(|certificate| AuthorityMark::of_certificate(certificate).unwrap()).collect()
}

#[test]
fn a_server_that_is_given_a_name_goes_on_with_its_ca_and_its_next_keys_carry_the_name() {
    SoftHsm::run_in_child(
        "a_server_that_is_given_a_name_goes_on_with_its_ca_and_its_next_keys_carry_the_name",
        |hsm| {
            run(async {
                let lab = Lab::new(hsm, DAY);
                let bundle = lab.start(NOW).await.unwrap().bundle().borrow().clone();
                let named = lab.named("north");
                let ca = named.start(NOW + 60).await.unwrap();
                assert_eq!(*ca.bundle().borrow(), bundle);
                assert!(!lab.has_journal().await, "the row has moved");
                let north: ServerName = "north".parse().unwrap();
                for moment in [DAY / 2, DAY * 5 / 6, DAY * 4 / 3, DAY * 5 / 3, DAY * 7 / 3] {
                    named.start(NOW + moment).await.unwrap();
                }
                let journal = named.journal().await;
                assert!(Place::all().any(|place| journal.slot(place).key().is_some()));
                for place in Place::all() {
                    let key = journal.slot(place).key().map(|key| key.name.clone());
                    assert!(key.is_none_or(|key| key == place.key_name(&lab.trust_domain(), &north)), "{place}");
                    let old = place.key_name(&lab.trust_domain(), &ServerName::default());
                    assert!(
                        lab.token.find(&old).await.unwrap().is_none(),
                        "{place}: the key without the name is destroyed"
                    );
                }
            });
        },
    );
}

//= FLT-S7
#[test]
fn a_server_whose_name_is_changed_or_removed_founds_no_second_ca_and_says_which_name_to_set() {
    const TEST: &str = "a_server_whose_name_is_changed_or_removed_founds_no_second_ca_and_says_which_name_to_set";
    SoftHsm::run_in_child(TEST, |hsm| {
        run(async {
            let north = Lab::new(hsm, DAY).rooted(40 * DAY).renamed("north");
            let bundle = north.start(NOW).await.unwrap().bundle().borrow().clone();
            let changed = north.named("nroth").start(NOW + 60).await.unwrap_err();
            assert!(matches!(changed, CaError::OtherServersCa { .. }), "{changed}");
            let words =
                ["holds the CA of server_name \"north\"", "this server is \"nroth\"", "set server_name to that"];
            assert!(words.iter().all(|word| changed.to_string().contains(word)), "{changed}");
            let removed = north.unnamed().start(NOW + 60).await.unwrap_err();
            assert!(matches!(removed, CaError::OtherServersCa { .. }), "{removed}");
            assert!(removed.to_string().contains("this server is without a server_name"), "{removed}");
            let again = north.named("north").start(NOW + 60).await.unwrap();
            assert_eq!(*again.bundle().borrow(), bundle, "nothing was written");
        });
    });
}

/// The token could make no key: the mistyped name has a row, and no CA.
#[test]
fn a_start_under_a_mistyped_name_that_failed_before_founding_keeps_nobody_from_founding() {
    const TEST: &str = "a_start_under_a_mistyped_name_that_failed_before_founding_keeps_nobody_from_founding";
    Quirks::run_in_child(TEST, |hsm, quirks| {
        run(async {
            let mistyped = Lab::with_token(quirks.token_config(hsm, 2), DAY).renamed("nroth");
            quirks.set(&["fail C_GenerateKeyPair 0x31"]);
            let refused = mistyped.start(NOW).await.unwrap_err();
            assert!(matches!(refused, CaError::Token(_)), "{refused}");
            assert!(mistyped.has_journal().await);
            quirks.set(&[]);
            let north = mistyped.named("north");
            let bundle = north.start(NOW).await.unwrap().bundle().borrow().clone();
            let again = mistyped.start(NOW).await.unwrap_err();
            let CaError::OtherServersCa { found, .. } = again else { panic!("{again}") };
            assert_eq!(found, ["north".parse().unwrap()], "a row is no leave to found a second CA");
            assert_eq!(*north.start(NOW + 60).await.unwrap().bundle().borrow(), bundle);
        });
    });
}

#[test]
fn a_second_server_without_a_name_on_the_same_token_is_refused_and_told_how() {
    SoftHsm::run_in_child("a_second_server_without_a_name_on_the_same_token_is_refused_and_told_how", |hsm| {
        run(async {
            let first = Lab::new(hsm, DAY);
            first.start(NOW).await.unwrap();
            let refused = Lab::new(hsm, DAY).start(NOW).await.unwrap_err();
            assert!(matches!(refused, CaError::KeyWithoutJournal { .. }), "{refused}");
            assert!(refused.to_string().contains("give each its server_name"), "{refused}");
            assert_signs(&Lab::new(hsm, DAY).renamed("two").start(NOW).await.unwrap(), NOW).await;
        });
    });
}
