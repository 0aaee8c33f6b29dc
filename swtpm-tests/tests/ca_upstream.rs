//! CAs that the files of another PKI certify: `UpstreamAuthority "disk"`.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use ironroot_api::certificate::Certificate;
use ironroot_lab::authority::{AuthorityLab as Lab, NOW, administrator, spki, verify};
use ironroot_lab::deployment::{DEADLINE, expect_within_async};
use ironroot_lab::softhsm::SoftHsm;
use ironroot_lab::upstream_files::UpstreamFiles;
use ironroot_server::ca::{CaError, CertificateAuthority, IssuedSvid, Order, Purpose, SlotName};
use ironroot_server::clock::{ClockSource, Reading};
use tokio::task::JoinHandle;

const DAY: i64 = 24 * 60 * 60;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

fn issuer(svid: &IssuedSvid) -> String {
    Certificate::parse(&svid.chain[1]).unwrap().serial_decimal()
}

#[test]
fn cas_below_another_pki_come_and_go_and_its_root_alone_verifies_their_svids() {
    SoftHsm::run_in_child("cas_below_another_pki_come_and_go_and_its_root_alone_verifies_their_svids", |hsm| {
        run(async {
            let [ecdsa, rsa] = [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256];
            for algorithm in [ecdsa, rsa] {
                let files = UpstreamFiles::new(algorithm);
                let lab = Lab::new(hsm, DAY).below(&files);
                let image = lab.start(NOW).await.unwrap().bundle().borrow().clone();
                assert_eq!(image.authorities.len(), 1, "the root, and not the CA");
                let mut issuers = std::collections::HashSet::new();
                for quarter in 0..8 {
                    let now = NOW + quarter * DAY / 4;
                    let ca = lab.start(now).await.unwrap();
                    let svid = ca.sign_server_svid(&spki(), now).await.unwrap();
                    assert_eq!(svid.chain.len(), 3, "SVID, CA, the CA in the file");
                    issuers.insert(issuer(&svid));
                    verify(&svid, &image, now).expect("who has only the root believes it");
                    assert_eq!(*ca.bundle().borrow(), image, "rotations change nothing in the bundle");
                }
                assert!(issuers.len() >= 3, "{} CAs", issuers.len());
                lab.forget_keys().await;
            }
        });
    });
}

#[test]
fn while_the_files_are_away_the_ca_that_is_there_signs_to_its_end() {
    SoftHsm::run_in_child("while_the_files_are_away_the_ca_that_is_there_signs_to_its_end", |hsm| {
        run(async {
            let files = UpstreamFiles::new(&rcgen::PKCS_ECDSA_P256_SHA256);
            let lab = Lab::new(hsm, DAY).below(&files);
            let first = lab.start(NOW).await.unwrap().sign_server_svid(&spki(), NOW).await.unwrap();
            files.has_key(false);
            let late = NOW + DAY - 60;
            let ca = lab.start(late).await.expect("a start needs nobody above while there is a CA");
            let svid = ca.sign_server_svid(&spki(), late).await.unwrap();
            assert_eq!(issuer(&svid), issuer(&first));
            verify(&svid, &ca.bundle().borrow().clone(), late).unwrap();
            let over = lab.start(NOW + DAY + 1).await.map(drop).expect_err("its time is over");
            assert!(matches!(over, CaError::Upstream(_)), "{over}");
            files.has_key(true);
            let again = lab.start(NOW + DAY + 1).await.expect("the files are there again");
            let svid = again.sign_server_svid(&spki(), NOW + DAY + 1).await.unwrap();
            assert_ne!(issuer(&svid), issuer(&first));
        });
    });
}

#[test]
fn for_a_ca_that_is_asked_for_again_and_again_one_key_is_made_and_health_checks_learn_of_it() {
    let name = "for_a_ca_that_is_asked_for_again_and_again_one_key_is_made_and_health_checks_learn_of_it";
    SoftHsm::run_in_child(name, |hsm| {
        run(async {
            let files = UpstreamFiles::new(&rcgen::PKCS_ECDSA_P256_SHA256);
            let lab = Lab::new(hsm, DAY).below(&files);
            let clock = Arc::new(AtomicI64::new(NOW));
            let now = clock.clone();
            let reading = move || {
                let now_unix = now.load(Ordering::Relaxed);
                Reading { wall_unix: now_unix, boot_seconds: now_unix }
            };
            let (ca, rotation) = lab.start_rotating(ClockSource::new("boot", reading)).await.unwrap();
            files.has_key(false);
            clock.store(NOW + DAY * 3 / 4, Ordering::Relaxed);
            let rotating = tokio::spawn(rotation.run());
            let name = lab.key_name(SlotName::B);
            let key = async || lab.token.find(name.clone()).await.unwrap().map(|key| key.spki_der().to_vec());
            let explain = || "no key".to_owned();
            expect_within_async(DEADLINE, "a key is made", explain, async || key().await.is_some()).await;
            let first = key().await.unwrap();
            let told = async || ca.rotation_trouble().is_some_and(|why| why.contains("upstream CA key"));
            expect_within_async(DEADLINE, "health checks are told", || format!("{:?}", ca.rotation_trouble()), told)
                .await;
            assert_eq!(key().await, Some(first.clone()), "after three tries it is the same");
            files.has_key(true);
            let prepared = async || lab.journal().await.slots(Purpose::X509Ca).prepared().is_some();
            expect_within_async(DEADLINE, "it is certified", || "it is not".to_owned(), prepared).await;
            let journal = lab.journal().await;
            let (_, next) = journal.slots(Purpose::X509Ca).prepared().unwrap();
            assert!(next.credential.is_of(&first));
            rotating.abort();
        });
    });
}

#[test]
fn files_are_read_anew_for_each_ca_and_both_roots_are_in_the_bundle() {
    SoftHsm::run_in_child("files_are_read_anew_for_each_ca_and_both_roots_are_in_the_bundle", |hsm| {
        run(async {
            let files = UpstreamFiles::new(&rcgen::PKCS_ECDSA_P256_SHA256);
            let lab = Lab::new(hsm, DAY).below(&files);
            let first = lab.start(NOW).await.unwrap().sign_server_svid(&spki(), NOW).await.unwrap();
            let root = files.replace(&rcgen::PKCS_RSA_SHA256);
            let next = NOW + DAY * 11 / 12;
            lab.start(NOW + DAY / 2).await.unwrap();
            let ca = lab.start(next).await.unwrap();
            let bundle = ca.bundle().borrow().clone();
            assert!(bundle.authorities.len() == 2 && bundle.authorities.contains(&root));
            let svid = ca.sign_server_svid(&spki(), next).await.unwrap();
            assert_ne!(issuer(&svid), issuer(&first));
            for svid in [first, svid] {
                verify(&svid, &bundle, NOW + 1800).unwrap_or_else(|_| verify(&svid, &bundle, next).unwrap());
            }
        });
    });
}

#[test]
fn a_ca_of_before_goes_on_until_the_next_is_certified_above_and_back_again() {
    SoftHsm::run_in_child("a_ca_of_before_goes_on_until_the_next_is_certified_above_and_back_again", |hsm| {
        run(async {
            let files = UpstreamFiles::new(&rcgen::PKCS_ECDSA_P256_SHA256);
            let mut lab = Lab::new(hsm, DAY).rooted(7300 * DAY);
            let own = lab.start(NOW).await.unwrap().sign_server_svid(&spki(), NOW).await.unwrap();
            lab = lab.unrooted().below(&files);
            let ca = lab.start(NOW + 60).await.unwrap();
            let svid = ca.sign_server_svid(&spki(), NOW + 60).await.unwrap();
            assert_eq!(issuer(&svid), issuer(&own), "no rotation is due");
            let mut now = NOW + 60;
            for _ in 0..8 {
                now += DAY / 8;
                lab.start(now).await.unwrap();
            }
            let ca = lab.start(now).await.unwrap();
            let svid = ca.sign_server_svid(&spki(), now).await.unwrap();
            let bundle = ca.bundle().borrow().clone();
            assert_eq!(
                (svid.chain.len(), bundle.authorities.len()),
                (3, 2),
                "the root of before verifies what it signed"
            );
            verify(&svid, &bundle, now).unwrap();
            lab = lab.alone().rooted(7300 * DAY);
            for _ in 0..8 {
                now += DAY / 8;
                lab.start(now).await.unwrap();
            }
            let ca = lab.start(now).await.unwrap();
            let svid = ca.sign_server_svid(&spki(), now).await.unwrap();
            assert_eq!(svid.chain.len(), 2, "the server's own root signs again");
            verify(&svid, &ca.bundle().borrow().clone(), now).unwrap();
        });
    });
}

/// A CA whose clock stands still, and what it does by itself.
async fn rotating(lab: &Lab) -> (CertificateAuthority, JoinHandle<()>) {
    let reading = Reading { wall_unix: NOW, boot_seconds: NOW };
    let (ca, rotation) = lab.start_rotating(ClockSource::new("boot", move || reading)).await.unwrap();
    (ca, tokio::spawn(rotation.run()))
}

#[test]
fn a_root_above_that_signs_nothing_any_more_is_tainted_and_revoked_by_its_subject_key_id() {
    let name = "a_root_above_that_signs_nothing_any_more_is_tainted_and_revoked_by_its_subject_key_id";
    SoftHsm::run_in_child(name, |hsm| {
        run(async {
            let files = UpstreamFiles::new(&rcgen::PKCS_ECDSA_P256_SHA256);
            let lab = Lab::new(hsm, DAY).below(&files);
            let (ca, rotating) = rotating(&lab).await;
            let operator = administrator();
            let first = ca.local_authorities(Purpose::X509Ca).active.unwrap();
            let old_root = ca.bundle().borrow().authorities[0].clone();
            let taint = || Order::TaintUpstream(first_root(&old_root));
            let refused = ca.obey(&operator, taint()).await.unwrap_err();
            assert!(
                refused.to_string().contains("unable to use upstream authority singing current authority"),
                "{refused}"
            );
            let refused = ca.obey(&operator, Order::Taint(Purpose::X509Ca, first.id)).await.unwrap_err();
            assert!(refused.to_string().contains("if there is an upstream authority"), "{refused}");
            files.replace(&rcgen::PKCS_ECDSA_P256_SHA256);
            let next = ca.obey(&operator, Order::Prepare(Purpose::X509Ca)).await.unwrap();
            assert!(!next.upstream_id.is_empty() && next.upstream_id != first_root(&old_root));
            ca.obey(&operator, Order::Activate(Purpose::X509Ca, next.id)).await.unwrap();
            ca.obey(&operator, taint()).await.unwrap();
            let bundle = async |holds: &dyn Fn(&[Vec<u8>], bool) -> bool| {
                let explain = || format!("{:?}", ca.bundle().borrow());
                expect_within_async(DEADLINE, "the bundle says so", explain, async || {
                    let bundle = ca.bundle().borrow().clone();
                    holds(&bundle.authorities, bundle.tainted_authorities.contains(&old_root))
                })
                .await;
            };
            bundle(&|authorities, is_tainted| authorities.len() == 2 && is_tainted).await;
            ca.obey(&operator, Order::RevokeUpstream(first_root(&old_root))).await.unwrap();
            bundle(&|authorities, _| authorities.len() == 1 && !authorities.contains(&old_root)).await;
            let svid = ca.sign_server_svid(&spki(), NOW).await.unwrap();
            verify(&svid, &ca.bundle().borrow().clone(), NOW).unwrap();
            rotating.abort();
        });
    });
}

#[test]
fn what_is_prepared_stays_where_the_authority_above_does_not_certify_another_and_roots_above_are_shown() {
    let name = "what_is_prepared_stays_where_the_authority_above_does_not_certify_another_and_roots_above_are_shown";
    SoftHsm::run_in_child(name, |hsm| {
        run(async {
            let files = UpstreamFiles::new(&rcgen::PKCS_ECDSA_P256_SHA256);
            let lab = Lab::new(hsm, DAY).below(&files);
            let (ca, rotating) = rotating(&lab).await;
            let operator = administrator();
            let prepare = || Order::Prepare(Purpose::X509Ca);
            let prepared = ca.obey(&operator, prepare()).await.unwrap();
            files.has_key(false);
            ca.obey(&operator, prepare()).await.expect_err("nobody certifies");
            let stays = async || ca.local_authorities(Purpose::X509Ca).prepared == Some(prepared.clone());
            expect_within_async(DEADLINE, "it stays", || format!("{:?}", ca.local_authorities(Purpose::X509Ca)), stays)
                .await;
            files.has_key(true);
            let root = first_root(&ca.bundle().borrow().authorities[0]);
            files.replace(&rcgen::PKCS_ECDSA_P256_SHA256);
            let next = ca.obey(&operator, prepare()).await.unwrap();
            assert_ne!(next.id, prepared.id);
            let shown = async || {
                let roots = ca.local_authorities(Purpose::Root);
                let id = |state: Option<ironroot_server::ca::AuthorityState>| state.map(|state| state.id);
                (id(roots.active), id(roots.prepared)) == (Some(root.clone()), Some(next.upstream_id.clone()))
            };
            expect_within_async(DEADLINE, "both roots", || format!("{:?}", ca.local_authorities(Purpose::Root)), shown)
                .await;
            assert!(ca.renewed_above().is_some_and(|how| how.contains("puts certificate and key there")));
            rotating.abort();
        });
    });
}

fn first_root(der: &[u8]) -> String {
    let id = Certificate::parse(der).unwrap().subject_key_id().unwrap();
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
