//! What the CA signs, for whom, and that it goes on signing while it rotates.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ironroot_api::certificate::Certificate;
use ironroot_lab::authority::{AuthorityLab, NOW, asking, authorized_entry, joined, spki, verify};
use ironroot_lab::softhsm::SoftHsm;
use ironroot_server::ca::AgentToSign;
use ironroot_server::clock::ClockSource;
use ironroot_server::registry::Registry;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

#[test]
fn svids_carry_the_names_and_lifetimes_of_their_entries() {
    SoftHsm::run_in_child("svids_carry_the_names_and_lifetimes_of_their_entries", |hsm| {
        run(async {
            let lab = AuthorityLab::new(hsm, 24 * 3600);
            let ca = lab.start(NOW).await.unwrap();
            let bundle = ca.bundle().borrow().clone();
            for (path, ttl, dns_names, lives) in
                [("/web", 0, &["web.example.org", "www.example.org"][..], 3600), ("/db", 10, &[][..], 10)]
            {
                let (entry, key) = (authorized_entry(&lab, path, ttl, dns_names).await, spki());
                let requests = vec![(entry.clone(), key.clone())];
                let svid = ca.sign_workload_svids(&asking(), requests, NOW).await.pop().unwrap().unwrap();
                verify(&svid, &bundle, NOW).unwrap();
                let certificate = Certificate::parse(&svid.chain[0]).unwrap();
                assert_eq!(svid.chain.len(), 1);
                assert_eq!(certificate.leaf_spiffe_id().unwrap(), *entry.entry().spiffe_id());
                assert_eq!(certificate.spki_der(), key.as_der());
                assert_eq!((certificate.serial_decimal(), certificate.not_after_unix()), (svid.serial, NOW + lives));
                assert_eq!(svid.not_after_unix, NOW + lives);
            }
            let agent = joined(&lab, &Registry::load(lab.store.clone()).await.unwrap()).await;
            let svid = ca.sign_agent_svid(AgentToSign::attested(&agent), NOW).await.unwrap();
            let certificate = Certificate::parse(&svid.chain[0]).unwrap();
            assert_eq!(certificate.leaf_spiffe_id().unwrap(), *agent.id());
            assert_eq!(certificate.spki_der(), agent.csr().spki().as_der());
            let svid = ca.sign_server_svid(&spki(), NOW).await.unwrap();
            let id = Certificate::parse(&svid.chain[0]).unwrap().leaf_spiffe_id().unwrap();
            assert_eq!(id.as_str(), "spiffe://example.org/spire/server");
        });
    });
}

#[test]
fn a_batch_is_answered_in_order_and_every_key_gets_its_own_certificate() {
    SoftHsm::run_in_child("a_batch_is_answered_in_order_and_every_key_gets_its_own_certificate", |hsm| {
        run(async {
            let lab = AuthorityLab::new(hsm, 24 * 3600);
            let ca = lab.start(NOW).await.unwrap();
            let bundle = ca.bundle().borrow().clone();
            let entry = authorized_entry(&lab, "/web", 60, &[]).await;
            let keys: Vec<_> = (0..200).map(|_| spki()).collect();
            let requests = keys.iter().map(|key| (entry.clone(), key.clone())).collect();
            let issued = ca.sign_workload_svids(&asking(), requests, NOW).await;
            assert_eq!(issued.len(), keys.len());
            let mut serials = std::collections::HashSet::new();
            for (svid, key) in issued.into_iter().zip(&keys) {
                let svid = svid.unwrap();
                verify(&svid, &bundle, NOW).unwrap();
                assert_eq!(Certificate::parse(&svid.chain[0]).unwrap().spki_der(), key.as_der());
                assert!(serials.insert(svid.serial));
            }
            assert!(ca.sign_workload_svids(&asking(), Vec::new(), NOW).await.is_empty());
        });
    });
}

#[test]
fn an_expired_authority_and_a_clock_gone_back_sign_nothing() {
    SoftHsm::run_in_child("an_expired_authority_and_a_clock_gone_back_sign_nothing", |hsm| {
        run(async {
            let lab = AuthorityLab::new(hsm, 60);
            let ca = lab.start(NOW).await.unwrap();
            for now in [NOW + 60, NOW + 3600, NOW - 3600] {
                let error = ca.sign_server_svid(&spki(), now).await.unwrap_err();
                assert!(matches!(error, ironroot_server::ca::CaError::Profile(_)), "{error}");
            }
        });
    });
}

/// A CA lifetime of 12 s: prepare after 6 s, activate after 10 s. What was signed last verifies with every later bundle.
#[test]
fn there_is_no_moment_without_a_valid_svid_while_the_ca_rotates() {
    SoftHsm::run_in_child("there_is_no_moment_without_a_valid_svid_while_the_ca_rotates", |hsm| {
        run(async {
            let lab = AuthorityLab::new(hsm, 12);
            let (ca, rotation) = lab.start_rotating(ClockSource::of_this_machine()).await.unwrap();
            let running = tokio::spawn(rotation.run());
            let mut issued_at = unix_now();
            let mut held = ca.sign_server_svid(&spki(), issued_at).await.unwrap();
            let deadline = Instant::now() + Duration::from_secs(90);
            let mut signers = std::collections::HashSet::new();
            while signers.len() < 3 {
                assert!(Instant::now() < deadline, "signed by {} authorities", signers.len());
                let (bundle, now) = (ca.bundle().borrow().clone(), unix_now());
                verify(&held, &bundle, now).expect("what is held is good");
                // As agents do: at half its life.
                if now - issued_at >= held.not_after_unix - now {
                    (held, issued_at) = (ca.sign_server_svid(&spki(), now).await.unwrap(), now);
                    verify(&held, &bundle, now)
                        .expect("who has the bundle of the moment before accepts what is signed now");
                }
                signers.insert(Certificate::parse(&held.chain[0]).unwrap().authority_key_id());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            running.abort();
        });
    });
}

fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}
