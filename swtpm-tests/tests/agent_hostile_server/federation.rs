//! Bundles of other trust domains: asked for while entries ask, and no lie about one replaces the last good one.

use std::time::Duration;

use ironroot_agent::jwt_svids::RenewalPatience;
use ironroot_api::pb::types;
use ironroot_api::pb::types::Entry;
use ironroot_lab::scripted_server::{DeltaLie, PushPlay, ScriptedServer, entry};
use ironroot_lab::toy_ca::ToyCa;
use tonic::Code;

use super::{Agent, Pace, selectors, serving, until};

impl Agent {
    /// The authorities of other trust domains that a process of uid 1000 gets: names, and DER end to end.
    fn federated(&self) -> Vec<(String, Vec<u8>)> {
        let shown = self.identities.borrow().federated_for(&selectors());
        shown.iter().map(|b| (b.trust_domain().as_str().to_owned(), b.concatenated().to_vec())).collect()
    }
}

fn bundle(of: &str, authorities: &[&[u8]]) -> types::Bundle {
    let authority = |der: &&[u8]| types::X509Certificate { asn1: der.to_vec().into(), tainted: false };
    types::Bundle {
        trust_domain: of.to_owned(),
        x509_authorities: authorities.iter().map(authority).collect(),
        ..types::Bundle::default()
    }
}

fn say(server: &ScriptedServer, of: &str, bundle: types::Bundle) {
    server.play(|script| drop(script.federated.insert(of.to_owned(), bundle)));
}

fn friends(server: &ScriptedServer, with: &[&str], revision_number: i64) {
    let federates_with = with.iter().map(|&name| name.to_owned()).collect();
    server.play(|script| {
        script.entries = vec![Entry { federates_with, ..entry("workload", "/workload", revision_number) }];
    });
}

/// A new version of the entry comes: it has a new SVID though the bundle that it asks for cannot be had.
async fn expect_signing(server: &ScriptedServer, agent: &Agent) {
    let (before, asked) = (agent.serial(), server.asked().federated);
    server.play(|script| script.entries[0].revision_number += 1);
    let is_signed = || agent.serial() != before && server.asked().federated > asked;
    until("an SVID is signed all the same", is_signed).await;
}

//= FED-05 FLT-A25
#[tokio::test]
async fn no_lie_about_another_trust_domains_bundle_replaces_the_last_good_one() {
    let server = ScriptedServer::start();
    let (first, second) = (ToyCa::new("friend"), ToyCa::new("friend"));
    say(&server, "friend", bundle("friend", &[first.der()]));
    friends(&server, &["friend"], 1);
    let agent = serving(&server).await;
    let held = vec![("friend".to_owned(), first.der().to_vec())];
    until("the bundle is held", || agent.federated() == held).await;
    let too_many = vec![types::X509Certificate::default(); 2_000_000];
    for lie in [
        bundle("stranger", &[second.der()]),
        bundle("", &[second.der()]),
        bundle("friend", &[second.der(), b"no certificate"]),
        types::Bundle { x509_authorities: too_many, ..bundle("friend", &[]) },
    ] {
        let asked = server.asked().federated;
        say(&server, "friend", lie);
        until("it asks again and again", || server.asked().federated > asked + 2).await;
        assert_eq!(agent.federated(), held);
        expect_signing(&server, &agent).await;
    }
    say(&server, "friend", bundle("friend", &[second.der()]));
    until("the truth is taken", || agent.federated() == [("friend".to_owned(), second.der().to_vec())]).await;
}

//= FLT-A25
#[tokio::test]
async fn what_the_server_cannot_say_of_another_trust_domain_keeps_nobody_from_an_svid() {
    let server = ScriptedServer::start();
    let ca = ToyCa::new("friend");
    say(&server, "friend", bundle("friend", &[ca.der()]));
    friends(&server, &["friend"], 1);
    let agent = serving(&server).await;
    until("the bundle is held", || agent.federated().len() == 1).await;
    for code in [
        Code::Internal,
        Code::InvalidArgument,
        Code::ResourceExhausted,
        Code::PermissionDenied,
        // As an agent says it of a bundle that a slow link does not bring in time.
        Code::DeadlineExceeded,
    ] {
        server.play(|script| script.federated_refusal = Some(code));
        expect_signing(&server, &agent).await;
        assert_eq!(agent.federated().len(), 1, "{code:?}");
    }
}

#[tokio::test]
async fn a_bundle_that_could_not_be_had_is_asked_for_again_by_an_agent_that_is_told_of_changes() {
    let server = ScriptedServer::start();
    let ca = ToyCa::new("friend");
    say(&server, "friend", bundle("friend", &[ca.der()]));
    server.play(|script| script.pushes = PushPlay::Deltas(DeltaLie::Honest));
    let agent = Agent::start_at(
        &server,
        Pace { sync_interval: Duration::from_millis(100), max_age: None, patience: RenewalPatience::default() },
    );
    until("it serves", || agent.serial().is_some() && server.asked().watches == 1).await;
    server.play(|script| script.federated_refusal = Some(Code::Internal));
    friends(&server, &["friend"], 2);
    let before = agent.serial();
    server.push();
    until("the entry that federates has its SVID", || server.asked().federated > 0 && agent.serial() != before).await;
    assert!(agent.federated().is_empty());
    server.play(|script| script.federated_refusal = None);
    until("the bundle is there", || agent.federated().len() == 1).await;
}

//= WLA-04
#[tokio::test]
async fn bundles_are_asked_for_while_entries_ask_and_what_the_server_forgets_is_gone() {
    let server = ScriptedServer::start();
    let ca = ToyCa::new("friend");
    say(&server, "friend", bundle("friend", &[ca.der()]));
    let agent = serving(&server).await;
    until("several syncs", || server.asked().syncs > 3).await;
    assert_eq!(server.asked().federated, 0, "no entry asks");
    friends(&server, &["friend", "nobody"], 2);
    until("what there is, is held", || agent.federated().len() == 1).await;
    server.play(|script| script.federated.clear());
    until("it is gone", || agent.federated().is_empty()).await;
    say(&server, "friend", bundle("friend", &[ca.der()]));
    until("it is back", || agent.federated().len() == 1).await;
    friends(&server, &[], 3);
    until("nobody asks any more", || agent.federated().is_empty()).await;
}
