//! JWT-SVIDs: signed once, held while they last, and never anything but what was asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ironroot_agent::jwt_svids::{FetchError, MAX_CALLS, RenewalPatience, Token};
use ironroot_api::jwt::{Audiences, JwtRefusal};
use ironroot_api::pb::types::entry::AdditionalAttributes;
use ironroot_lab::scripted_server::{JwtLie, JwtScript, ScriptedServer, entry};
use tokio::sync::Semaphore;
use tonic::Code;

use super::{Agent, DEADLINE, Pace, selectors, serving, until};

/// Calls that one user has under way here.
const TURNS: usize = 4;
/// Who holds a token is answered before: at once, or after the two seconds that a renewal is given.
const WHOEVER_HAS_NONE_WAITS: Duration = Duration::from_secs(10);

impl Agent {
    async fn token(&self, audience: &str) -> Result<Arc<Token>, FetchError> {
        self.token_in_turn(audience, &Arc::new(Semaphore::new(TURNS))).await
    }

    async fn token_in_turn(&self, audience: &str, turns: &Arc<Semaphore>) -> Result<Arc<Token>, FetchError> {
        let identities = self.identities.borrow().clone();
        let terms = identities.entries_for(&selectors()).first().copied().cloned().expect("an entry");
        let audiences = Audiences::try_new(vec![audience.to_owned()]).expect("legal");
        self.jwt_svids.fetch(&terms, &audiences, &|_| turns.clone()).await
    }
}

fn script(server: &ScriptedServer, change: impl FnOnce(&mut JwtScript)) {
    server.play(|script| change(&mut script.jwt));
}

#[tokio::test]
async fn a_token_is_signed_once_for_all_who_ask_at_once_and_served_from_then_on() {
    let server = ScriptedServer::start();
    let agent = serving(&server).await;
    let tokens = join_all((0..50).map(|_| agent.token("us"))).await;
    let first = tokens[0].as_ref().expect("signed").text().to_owned();
    assert!(tokens.iter().all(|token| token.as_ref().is_ok_and(|token| token.text() == first)));
    assert_eq!(agent.token("us").await.expect("held").text(), first);
    assert_eq!((server.asked().tokens, agent.jwt_svids.count()), (1, 1));
    assert_ne!(agent.token("them").await.expect("signed").text(), first);
    assert_eq!(server.asked().tokens, 2);
}

#[tokio::test]
async fn a_workload_waits_for_a_newer_token_as_long_as_the_file_says_and_then_has_what_is_held() {
    let server = ScriptedServer::start();
    script(&server, |jwt| jwt.ttl = 16);
    let patience = RenewalPatience::try_new(Duration::from_secs(5)).expect("in bounds");
    let agent = Agent::start_at(&server, Pace { sync_interval: Duration::from_millis(100), max_age: None, patience });
    until("an identity", || !agent.ids().is_empty()).await;
    let first = agent.token("us").await.expect("signed");
    script(&server, |jwt| jwt.lie = JwtLie::Silence);
    let waited = loop {
        let asked = Instant::now();
        assert_eq!(agent.token("us").await.expect("held").text(), first.text());
        if asked.elapsed() > Duration::from_secs(1) {
            break asked.elapsed();
        }
        tokio::task::yield_now().await;
    };
    assert!((Duration::from_secs(5)..Duration::from_secs(8)).contains(&waited), "{waited:?}");
}

#[tokio::test]
async fn a_token_of_which_half_is_over_is_replaced_and_served_to_its_end_if_it_cannot_be() {
    let server = ScriptedServer::start();
    script(&server, |jwt| jwt.ttl = 6);
    let agent = serving(&server).await;
    let began = Instant::now();
    let first = agent.token("us").await.expect("signed");
    let mut token = first.clone();
    while token.text() == first.text() {
        tokio::task::yield_now().await;
        token = agent.token("us").await.expect("held or signed");
    }
    assert!(began.elapsed() > Duration::from_secs(1), "not before its half");
    assert_eq!(server.asked().tokens, 2);

    script(&server, |jwt| jwt.lie = JwtLie::Silence);
    let renewed = Instant::now();
    let mut slowest = Duration::ZERO;
    let ended = loop {
        let asked = Instant::now();
        match agent.token("us").await {
            Ok(held) => assert_eq!(held.text(), token.text()),
            Err(error) => break error,
        }
        slowest = slowest.max(asked.elapsed());
        if renewed.elapsed() > Duration::from_secs(5) {
            // What follows is the end of the token: the server is known to be away, so that nobody waits for it.
            server.play(|script| script.jwt.lie = JwtLie::Disabled);
        }
        tokio::task::yield_now().await;
    };
    assert!(renewed.elapsed() > Duration::from_secs(3), "served after its half");
    assert!(renewed.elapsed() < Duration::from_secs(60), "and not after its end");
    assert!(slowest < WHOEVER_HAS_NONE_WAITS, "a server that hangs keeps nobody from what is held: {slowest:?}");
    assert!(matches!(ended, FetchError::Server { .. } | FetchError::Late), "{ended}");
}

#[tokio::test]
async fn no_lie_about_a_token_is_handed_to_anybody() {
    for (lie, expected) in [
        (JwtLie::OtherId, FetchError::Other("SPIFFE ID")),
        (JwtLie::OtherAudience, FetchError::Other("audience")),
        (JwtLie::Forged, FetchError::Token(JwtRefusal::Signature)),
        (JwtLie::Ended, FetchError::Other("end")),
        (JwtLie::Undated, FetchError::Other("time of issue")),
        (JwtLie::Garbage, FetchError::Token(JwtRefusal::NotCompact)),
    ] {
        let server = ScriptedServer::start();
        let agent = serving(&server).await;
        script(&server, |jwt| jwt.lie = lie);
        assert_eq!(agent.token("us").await.map(drop), Err(expected), "{lie:?}");
        assert_eq!(agent.jwt_svids.count(), 0, "{lie:?}");
        script(&server, |jwt| jwt.lie = JwtLie::Honest);
        assert!(agent.token("us").await.is_ok(), "{lie:?}: an honest answer is taken");
    }
    let server = ScriptedServer::start();
    let agent = serving(&server).await;
    script(&server, |jwt| jwt.lie = JwtLie::Oversized);
    let error = agent.token("us").await.expect_err("above every bound");
    assert!(matches!(error, FetchError::Server { code: Code::OutOfRange, .. }), "{error}");
    script(&server, |jwt| jwt.lie = JwtLie::Disabled);
    let error = agent.token("us").await.expect_err("none is signed");
    let spires = "failed to fetch JWT SVID: rpc error: code = Unimplemented desc = JWT functionality is disabled";
    assert_eq!(error.to_string(), spires);
}

#[tokio::test]
async fn what_is_held_is_served_while_the_server_is_away_and_nothing_else() {
    let mut server = ScriptedServer::start();
    let agent = serving(&server).await;
    let held = agent.token("us").await.expect("signed");
    server.stop();
    let mut last = None;
    while last != Some(FetchError::ServerAway) {
        last = agent.token("them").await.err();
        assert!(last.is_some(), "nobody signs");
    }
    let asked = Instant::now();
    assert_eq!(agent.token("us").await.expect("held").text(), held.text());
    assert!(agent.token("them").await.is_err());
    assert!(asked.elapsed() < WHOEVER_HAS_NONE_WAITS, "at once: no workload makes this agent dial");
    server.start_again();
    while agent.token("them").await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_call_that_does_not_reach_the_server_is_made_again() {
    let server = ScriptedServer::start();
    let agent = serving(&server).await;
    script(&server, |jwt| jwt.away_for = 1);
    assert!(agent.token("us").await.is_ok());
    assert_eq!(server.asked().tokens, 2);
}

#[tokio::test]
async fn tokens_go_when_their_key_is_tainted_or_gone_or_their_entry_is() {
    let server = ScriptedServer::start();
    let agent = serving(&server).await;
    agent.token("us").await.expect("signed");
    script(&server, |jwt| (jwt.bundle, jwt.signer) = (vec!["a", "b"], "b"));
    until("the new key is known", || keys(&agent) == 2).await;
    assert_eq!(agent.jwt_svids.count(), 1, "a new key takes nothing from anybody");
    script(&server, |jwt| jwt.bundle = vec!["b"]);
    until("a token goes with its key", || agent.jwt_svids.count() == 0).await;
    assert_eq!(agent.token("us").await.expect("signed").key_id(), "b");
    script(&server, |jwt| jwt.tainted = true);
    until("or with its key's taint", || agent.jwt_svids.count() == 0).await;
    assert!(agent.token("us").await.is_ok(), "who asks gets what the server signs");
    assert_eq!(agent.jwt_svids.count(), 0, "but it is not held");
    script(&server, |jwt| jwt.tainted = false);
    until("the key is good again", || is_untainted(&agent)).await;
    agent.token("us").await.expect("signed");
    server.play(|script| script.entries = vec![entry("other", "/other", 1)]);
    until("or with its entry", || agent.jwt_svids.count() == 0).await;
}

fn keys(agent: &Agent) -> usize {
    agent.identities.borrow().bundle().map_or(0, |bundle| bundle.jwt_authorities().len())
}

fn is_untainted(agent: &Agent) -> bool {
    let bundle = agent.identities.borrow().bundle().cloned();
    bundle.is_some_and(|bundle| bundle.jwt_authorities().find("b").is_some_and(|key| !key.is_tainted()))
}

#[tokio::test]
async fn a_key_that_began_to_sign_since_the_last_sync_is_asked_for() {
    let server = ScriptedServer::start();
    let agent = Agent::start_at(
        &server,
        Pace { sync_interval: Duration::from_secs(300), max_age: None, patience: RenewalPatience::default() },
    );
    until("it serves", || agent.serial().is_some()).await;
    script(&server, |jwt| (jwt.bundle, jwt.signer) = (vec!["a", "b"], "b"));
    assert_eq!(agent.token("us").await.expect("signed").key_id(), "b");
    assert_eq!(keys(&agent), 2, "workloads know the key before they get what it signed");
}

#[tokio::test]
async fn an_agent_that_keeps_no_connection_dials_for_a_workload() {
    let server = ScriptedServer::start();
    let agent = Agent::start_at(
        &server,
        Pace { sync_interval: Duration::from_secs(3600), max_age: None, patience: RenewalPatience::default() },
    );
    until("it serves", || agent.serial().is_some()).await;
    let connections = server.asked().mutual_connections;
    // The turn that made it serve may still be under way, and its connection open.
    let (began, mut number) = (Instant::now(), 0);
    while server.asked().mutual_connections == connections {
        assert!(agent.token(&format!("a{number}")).await.is_ok());
        assert!(began.elapsed() < DEADLINE, "the connection is hung up after the turn");
        number += 1;
    }
}

#[tokio::test]
async fn tokens_with_an_id_of_their_own_are_made_anew_for_each_request() {
    let server = ScriptedServer::start();
    let attributes = AdditionalAttributes { jwt_svid_include_jti: true, ..AdditionalAttributes::default() };
    server.play(|script| script.entries[0].additional_attributes = Some(attributes));
    let agent = serving(&server).await;
    let (one, two) = tokio::join!(agent.token("us"), agent.token("us"));
    assert_ne!(one.expect("signed").text(), two.expect("signed").text());
    assert_eq!((server.asked().tokens, agent.jwt_svids.count()), (2, 0));
}

#[tokio::test]
async fn one_users_calls_that_hang_leave_room_for_anothers() {
    let server = ScriptedServer::start();
    let agent = Arc::new(serving(&server).await);
    script(&server, |jwt| jwt.lie = JwtLie::Silence);
    let (greedy, modest) = (Arc::new(Semaphore::new(TURNS)), Arc::new(Semaphore::new(TURNS)));
    let mut waiting = Vec::new();
    for n in 0..3 * MAX_CALLS {
        let (agent, greedy) = (agent.clone(), greedy.clone());
        waiting.push(tokio::spawn(async move { agent.token_in_turn(&format!("a{n}"), &greedy).await }));
    }
    until("the user's turns are taken", || server.asked().tokens as usize == TURNS).await;
    script(&server, |jwt| jwt.lie = JwtLie::Honest);
    assert!(agent.token_in_turn("us", &modest).await.is_ok());
    assert_eq!(server.asked().tokens as usize, TURNS + 1, "and the greedy user's others still wait");
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}
