//! What the Workload API socket tells whom, and when.

#[path = "support/served.rs"]
mod served;

use aws_lc_rs::digest::{SHA256, digest};
use ironroot_agent::endpoints::{EndpointError, Limits, serve_workload_api};
use ironroot_agent::identities::Identities;
use ironroot_agent::requests::{self, Requests};
use ironroot_agent::server_answers::EntryTerms;
use ironroot_agent::trusted_time::system_unix;
use ironroot_api::pb::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use ironroot_api::pb::workload::{X509BundlesRequest, X509svidRequest};
use ironroot_api::unix_socket::UnixSocketError;
use served::{NOW, Served, asking, config, ending, ids, next, patiently, sources, terms};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{ChildStdout, Command};
use tonic::{Code, Request};

#[test]
fn acts_as_a_workload() {
    served::act();
}

//= WLE-06 WLE-07 WLA-06
#[tokio::test]
async fn two_users_get_different_identities_and_a_third_is_refused() {
    let served = Served::new(Limits::default());
    let authority = &served.authority;
    served.publish(vec![authority.issue("/web", 61001, 3600), authority.issue("/db", 61002, 3600)]);
    assert_eq!(served.told(61001).await, "spiffe://td/web");
    assert_eq!(served.told(61002).await, "spiffe://td/db");
    assert_eq!(served.told(61003).await, "PermissionDenied: no identity issued");
}

//= WLA-13 WLA-03
#[tokio::test]
async fn a_reconnecting_workload_gets_the_very_same_svid() {
    let served = Served::ours();
    let first = next(&mut served.fetch().await.expect("served")).await;
    let again = next(&mut served.fetch().await.expect("served")).await;
    assert_eq!(first, again);
    let svid = &first.svids[0];
    let identity = served.publisher.borrow().iter().next().expect("one").clone();
    assert_eq!((&svid.x509_svid, &svid.x509_svid_key), (identity.chain_der(), identity.key().pkcs8_der()));
    assert_eq!(&svid.bundle, served.publisher.borrow().bundle().expect("ready").concatenated());
}

//= WLA-02 FLT-A23
#[tokio::test]
async fn a_rotation_reaches_open_streams_and_what_others_get_does_not() {
    let served = Served::new(Limits::default());
    let authority = &served.authority;
    let (old, new) = (authority.issue("/test", 0, 3600), authority.issue("/test", 0, 7200));
    served.publish(vec![old.clone()]);
    let mut stream = served.fetch().await.expect("served");
    assert_eq!(&next(&mut stream).await.svids[0].x509_svid, old.chain_der());
    for other in ["/a", "/b", "/c"] {
        served.publish(vec![old.clone(), authority.issue(other, 61001, 3600)]);
        tokio::task::yield_now().await;
    }
    served.publish(vec![new.clone()]);
    let update = next(&mut stream).await;
    assert_eq!(&update.svids[0].x509_svid, new.chain_der(), "no message in between");
    served.publish(vec![new, authority.issue("/second", 0, 3600)]);
    assert_eq!(ids(&next(&mut stream).await), ["spiffe://td/second", "spiffe://td/test"], "always the whole state");
}

#[tokio::test]
async fn an_entry_that_is_the_first_to_ask_for_a_hash_reaches_open_streams() {
    let served = Served::ours();
    let mut stream = served.fetch().await.expect("served");
    next(&mut stream).await;
    let program = std::fs::read(std::env::current_exe().expect("a path")).expect("reads");
    let hash: String = digest(&SHA256, &program).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let (ours, hashed) = (["unix:uid:0"], ["unix:uid:0", &format!("unix:sha256:{hash}")]);
    let authority = &served.authority;
    served.publish(vec![authority.issue_to("/test", &ours, 3600), authority.issue_to("/hashed", &hashed, 3600)]);
    assert_eq!(ids(&next(&mut stream).await), ["spiffe://td/hashed", "spiffe://td/test"]);
}

//= WLA-14
#[tokio::test]
async fn a_workload_that_loses_its_last_identity_is_told_so() {
    let served = Served::ours();
    let mut stream = served.fetch().await.expect("served");
    next(&mut stream).await;
    served.publish(vec![served.authority.issue("/web", 61001, 3600)]);
    let status = ending(&mut stream).await;
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));
}

//= WLE-07
#[tokio::test]
async fn while_starting_the_answer_is_unavailable() {
    let served = Served::new(Limits::default());
    let status = served.fetch().await.expect_err("too early");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the agent is still starting"));
    served.publish(vec![served.authority.issue("/test", 0, 3600)]);
    assert!(served.fetch().await.is_ok());
}

//= FLT-A18
#[tokio::test]
async fn a_caller_that_the_agent_cannot_see_is_told_why() {
    let served = Served::ours();
    let socket = served.socket().with_file_name("inner.sock");
    let _agent = served.start_agent_in_pid_namespace(&socket);
    let channel = patiently(async {
        loop {
            match ironroot_api::unix_socket::connect(&socket).await {
                Ok(channel) => break channel,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    let status =
        SpiffeWorkloadApiClient::new(channel).fetch_x509svid(asking(X509svidRequest {})).await.expect_err("unseen");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("another PID namespace"), "{status}");
}

//= WLE-03 FLT-A11
#[tokio::test]
async fn a_request_without_the_exact_security_header_is_invalid() {
    let served = Served::ours();
    let mut client = served.client().await;
    for values in [&[][..], &["True"], &["1"], &[""], &["true", "true"], &["true", "false"]] {
        let mut request = Request::new(X509svidRequest {});
        for value in values {
            request.metadata_mut().append("workload.spiffe.io", value.parse().expect("ASCII"));
        }
        let status = client.fetch_x509svid(request).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{values:?}");
    }
    let status = client.fetch_x509_bundles(Request::new(X509BundlesRequest {})).await.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
}

//= FLT-A4
#[tokio::test]
async fn what_has_expired_is_neither_served_nor_left_on_open_streams() {
    let served = Served::new(Limits::default());
    let authority = &served.authority;
    served.publish(vec![authority.issue("/long", 0, 2), authority.issue("/short", 0, 1)]);
    let mut stream = served.fetch().await.expect("served");
    assert_eq!(ids(&next(&mut stream).await), ["spiffe://td/long", "spiffe://td/short"]);
    served.set_clock(NOW + 1);
    assert_eq!(ids(&next(&mut served.fetch().await.expect("served")).await), ["spiffe://td/long"]);
    assert_eq!(ids(&next(&mut stream).await), ["spiffe://td/long"], "without any publication");
    served.set_clock(NOW + 2);
    assert_eq!(ending(&mut stream).await.code(), Code::Unavailable, "entitled, but nothing valid is there");
    assert_eq!(served.fetch().await.expect_err("expired").code(), Code::Unavailable);
    served.publish(vec![served.authority.issue("/long", 0, 3600)]);
    assert_eq!(ids(&next(&mut served.fetch().await.expect("served")).await), ["spiffe://td/long"]);
}

//= WLA-08
#[tokio::test]
async fn the_bundle_is_the_own_trust_domains_and_only_for_callers_with_an_identity() {
    let served = Served::ours();
    let bundle = served.authority.bundle();
    let answer = served.client().await.fetch_x509_bundles(asking(X509BundlesRequest {})).await.expect("served");
    let message = patiently(answer.into_inner().message()).await.expect("no error").expect("no end");
    let found: Vec<_> = message.bundles.iter().collect();
    assert_eq!(found, [(&"spiffe://td".to_owned(), bundle.concatenated())]);
    served.publish(vec![served.authority.issue("/web", 61001, 3600)]);
    let status =
        served.client().await.fetch_x509_bundles(asking(X509BundlesRequest {})).await.expect_err("no identity");
    assert_eq!(status.code(), Code::PermissionDenied);
}

//= FLT-A8 FLT-A23
#[tokio::test]
async fn a_slow_reader_finds_the_newest_state_and_no_queue() {
    const UPDATES: usize = 3000;
    let served = Served::ours();
    let mut client = served.client_with_window(16 * 1024).await;
    let mut stream = client.fetch_x509svid(asking(X509svidRequest {})).await.expect("served").into_inner();
    next(&mut stream).await;
    let (a, b) = (served.authority.issue("/test", 0, 3600), served.authority.issue("/test", 0, 3600));
    for round in 0..UPDATES {
        served.publish(vec![if round % 2 == 0 { a.clone() } else { b.clone() }]);
        tokio::task::yield_now().await;
    }
    let last = served.authority.issue("/last", 0, 3600);
    served.publish(vec![last]);
    let mut messages = 0;
    while ids(&next(&mut stream).await) != ["spiffe://td/last"] {
        messages += 1;
    }
    assert!(messages < UPDATES / 20, "{messages} messages were queued");
}

//= FLT-A7
#[tokio::test]
async fn a_user_at_its_stream_limit_is_told_resource_exhausted_and_others_are_served() {
    let served = Served::new(Limits { max_streams_per_user: 2, ..Limits::default() });
    served.publish(vec![served.authority.issue("/test", 0, 3600), served.authority.issue("/web", 61001, 3600)]);
    let first = served.fetch().await.expect("served");
    let _second = served.fetch().await.expect("served");
    assert_eq!(served.fetch().await.expect_err("refused").code(), Code::ResourceExhausted);
    assert_eq!(served.told(61001).await, "spiffe://td/web");
    drop(first);
    patiently(async {
        while served.fetch().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

//= WLE-07 FLT-A6
#[tokio::test]
async fn a_user_that_asks_too_often_is_unavailable_to_itself_only() {
    let served = Served::new(Limits { burst_per_user: 9, rate_per_user: 1, ..Limits::default() });
    served.publish(vec![served.authority.issue("/test", 0, 3600), served.authority.issue("/web", 61001, 3600)]);
    let mut client = served.client().await;
    let mut answers = Vec::new();
    for _ in 0..30 {
        answers.push(client.fetch_x509svid(asking(X509svidRequest {})).await.map(drop).map_err(|s| s.code()));
    }
    assert!(answers.contains(&Ok(())) && answers.contains(&Err(Code::Unavailable)), "{answers:?}");
    assert_eq!(served.told(61001).await, "spiffe://td/web");
}

#[tokio::test]
async fn shutting_down_ends_streams_and_removes_the_socket() {
    let mut served = Served::ours();
    let mut stream = served.fetch().await.expect("served");
    next(&mut stream).await;
    served.stop().await.expect("in order");
    assert_eq!(ending(&mut stream).await.code(), Code::Unavailable);
    assert!(!served.socket().exists());
}

//= FLT-A20
#[tokio::test]
async fn a_second_agent_on_the_socket_does_not_start() {
    let served = Served::ours();
    let identities = served.publisher.subscribe();
    let sources = sources(identities, Requests::channel().0, Arc::new(|| NOW));
    let second = serve_workload_api(config(served.socket(), Limits::default()), sources, async {});
    let error = second.map(drop).expect_err("taken");
    assert!(matches!(error, EndpointError::Socket(UnixSocketError::InUse(_))), "{error}");
    assert!(served.fetch().await.is_ok(), "the first serves on");
}

#[tokio::test]
async fn a_workload_whose_svid_waits_to_be_asked_for_asks_and_gets_it_in_its_first_message() {
    let mut served = Served::new(Limits::default());
    let entry = EntryTerms { on_demand: true, ..served::terms("/rare", &["unix:uid:0"]) };
    let unsigned = |served: &Served| {
        Identities::clone(&served.authority.snapshot(vec![])).with_unsigned(vec![Arc::new(entry.clone())])
    };
    let first = unsigned(&served);
    served.publisher.send_replace(Arc::new(first));
    let (client, identity) = (served.client(), served.authority.issue("/rare", 0, 3600));
    let (mut client, publisher) = (client.await, served.publisher.clone());
    let snapshot = served.authority.snapshot(vec![identity]);
    let asked = &mut served.asked;
    let signs = async {
        let Some(requests::Request::X509Svids { entry_ids, tried }) = asked.recv().await else { panic!("nobody asks") };
        assert_eq!(entry_ids, ["entry of /rare"]);
        publisher.send_replace(snapshot);
        tried.send(()).expect("it waits");
    };
    let (answer, ()) = tokio::join!(client.fetch_x509svid(asking(X509svidRequest {})), signs);
    assert_eq!(ids(&next(&mut answer.expect("served").into_inner()).await), ["spiffe://td/rare"]);
}

#[tokio::test]
async fn a_workload_whose_svid_could_not_be_made_is_told_to_come_again_and_others_ask_for_nothing() {
    let mut served = Served::new(Limits::default());
    let entry = EntryTerms { on_demand: true, ..served::terms("/rare", &["unix:uid:0"]) };
    let others = EntryTerms { on_demand: true, ..served::terms("/others", &["unix:uid:61001"]) };
    let all =
        Identities::clone(&served.authority.snapshot(vec![])).with_unsigned(vec![Arc::new(entry), Arc::new(others)]);
    served.publisher.send_replace(Arc::new(all));
    let mut client = served.client().await;
    let asked = &mut served.asked;
    let fails = async {
        let Some(requests::Request::X509Svids { entry_ids, tried }) = asked.recv().await else { panic!("nobody asks") };
        assert_eq!(entry_ids, ["entry of /rare"], "nobody else's");
        tried.send(()).expect("it waits");
    };
    let (answer, ()) = tokio::join!(client.fetch_x509svid(asking(X509svidRequest {})), fails);
    let status = answer.expect_err("nothing to serve");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("made when it is asked for"), "{status}");
}

//= WLA-03
#[tokio::test]
async fn a_workload_with_an_identity_in_hand_does_not_wait_for_another_that_must_be_signed_first() {
    let mut served = Served::new(Limits::default());
    let entry = EntryTerms { on_demand: true, ..served::terms("/rare", &["unix:uid:0"]) };
    let (held, rare) = (served.authority.issue("/held", 0, 3600), served.authority.issue("/rare", 0, 3600));
    let all = Identities::clone(&served.authority.snapshot(vec![held.clone()])).with_unsigned(vec![Arc::new(entry)]);
    served.publisher.send_replace(Arc::new(all));
    let began = Instant::now();
    let mut stream = served.fetch().await.expect("served");
    assert_eq!(ids(&next(&mut stream).await), ["spiffe://td/held"]);
    assert!(began.elapsed() < Duration::from_secs(9), "nobody has answered: {:?}", began.elapsed());
    let Some(requests::Request::X509Svids { entry_ids, .. }) = served.asked.recv().await else { panic!("not asked") };
    assert_eq!(entry_ids, ["entry of /rare"]);
    served.publish(vec![held, rare]);
    assert_eq!(ids(&next(&mut stream).await), ["spiffe://td/held", "spiffe://td/rare"]);
}

//= WLA-04
#[tokio::test]
async fn a_client_shows_nothing_of_an_earlier_message_that_the_last_one_does_not_hold() {
    let served = Served::new(Limits::default());
    let now = system_unix();
    served.set_clock(now);
    let publish = |hint: &str| {
        let terms = EntryTerms { hint: hint.to_owned(), ..terms("/web", &["unix:uid:0"]) };
        served.publish(vec![served.authority.issue_for(terms, now - 60..now + 3600)]);
    };
    publish("blue");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ironroot-agent"));
    command.args(["api", "watch", "-socketPath"]).arg(served.socket()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut watching = command.spawn().expect("it runs");
    let mut shown = BufReader::new(watching.stdout.take().expect("piped"));
    let first = shown_next(&mut shown).await;
    assert!(first.contains("Hint:\t\t\tblue"), "{first}");
    publish("");
    let second = shown_next(&mut shown).await;
    assert!(second.contains("spiffe://td/web") && !second.contains("Hint"), "{second}");
}

#[tokio::test]
async fn who_fetches_without_an_identity_is_told_where_the_reason_stands() {
    let served = Served::new(Limits::default());
    served.publish(vec![served.authority.issue("/web", 61001, 3600)]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ironroot-agent"));
    command.args(["api", "fetch", "x509", "-socketPath"]).arg(served.socket());
    let output = patiently(command.output()).await.expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        said,
        "Error: no identity issued; the agent's log says why, and \"ironroot-agent api explain\" (code: PermissionDenied)\n"
    );
}

/// What `api watch` shows of one message: up to the second empty line.
async fn shown_next(shown: &mut BufReader<ChildStdout>) -> String {
    let mut text = String::new();
    while text.matches("\n\n").count() < 2 {
        assert_ne!(patiently(shown.read_line(&mut text)).await.expect("text"), 0, "it ended: {text}");
    }
    text
}

#[tokio::test]
async fn fetched_identities_are_written_and_printed_as_json_too_over_a_socket_that_is_named_as_a_uri() {
    let served = Served::ours();
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ironroot-agent"));
    command.args(["api", "fetch", "x509", "-timeout", "30", "-output", "json", "-write"]).arg(directory.path());
    command.arg("-socketPath").arg(format!("unix://{}", served.socket().display()));
    let output = patiently(command.output()).await.expect("starts");
    assert!(output.status.success(), "{output:?}");
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON alone");
    assert_eq!(printed["svids"][0]["spiffe_id"], "spiffe://td/test");
    for name in ["svid.0.pem", "svid.0.key", "bundle.0.pem"] {
        assert!(directory.path().join(name).exists(), "{name}");
    }
}
