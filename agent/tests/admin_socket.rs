//! The admin socket: what the agent says of itself, how much it logs, and identities of others for delegates.

#[path = "support/log.rs"]
mod log;
#[path = "support/relay.rs"]
mod relay;
#[path = "support/served.rs"]
mod served;
#[path = "../../api/tests/support/signer.rs"]
mod signer;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use ironroot_agent::endpoints::{Delegates, EndpointError, Limits, serve_workload_api};
use ironroot_agent::identities::{Identities, Identity};
use ironroot_agent::requests;
use ironroot_agent::server_answers::{EntryTerms, TrustBundle};
use ironroot_api::pb::agent_debug::GetInfoRequest;
use ironroot_api::pb::agent_debug::debug_client::DebugClient;
use ironroot_api::pb::agent_logger::logger_client::LoggerClient;
use ironroot_api::pb::agent_logger::{GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest};
use ironroot_api::pb::agent_status::GetStatusRequest;
use ironroot_api::pb::agent_status::status_client::StatusClient;
use ironroot_api::pb::delegated::delegated_identity_client::DelegatedIdentityClient;
use ironroot_api::pb::delegated::{
    FetchJwtsviDsRequest, SubscribeToJwtBundlesRequest, SubscribeToX509BundlesRequest, SubscribeToX509sviDsRequest,
    SubscribeToX509sviDsResponse,
};
use ironroot_api::pb::types::{LogLevel, Logger, Selector};
use ironroot_api::pb::workload::X509svidRequest;
use ironroot_api::pb::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use ironroot_api::unix_socket::connect;
use log::Log;
use relay::Relay;
use served::{Authority, NOW, Served, asking, patiently, td, terms};
use signer::Signer;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

#[test]
fn acts_as_a_workload() {
    served::act();
}

/// With `/proxy` for our own user, who may ask for others, and `/web` for another one.
fn delegating() -> Served {
    let served = Served::with_delegate("/proxy");
    served.publish(vec![served.authority.issue("/proxy", 0, 3600), served.authority.issue("/web", 61001, 3600)]);
    served
}

async fn channel(served: &Served) -> Channel {
    connect(&served.admin_socket()).await.expect("connects")
}

async fn client(served: &Served) -> DelegatedIdentityClient<Channel> {
    DelegatedIdentityClient::new(channel(served).await)
}

fn selectors(texts: &[&str]) -> Vec<Selector> {
    let split =
        |text: &&str| text.split_once(':').map(|(kind, value)| Selector { r#type: kind.into(), value: value.into() });
    texts.iter().filter_map(split).collect()
}

fn of(texts: &[&str], pid: i32) -> SubscribeToX509sviDsRequest {
    SubscribeToX509sviDsRequest { selectors: selectors(texts), pid }
}

async fn subscribe(
    served: &Served,
    request: SubscribeToX509sviDsRequest,
) -> Result<Streaming<SubscribeToX509sviDsResponse>, Status> {
    client(served).await.subscribe_to_x509svi_ds(request).await.map(tonic::Response::into_inner)
}

async fn next<T>(stream: &mut Streaming<T>) -> T {
    patiently(stream.message()).await.expect("no error").expect("no end")
}

fn paths(answer: &SubscribeToX509sviDsResponse) -> Vec<String> {
    let id = |svid: &ironroot_api::pb::delegated::X509svidWithKey| {
        svid.x509_svid.clone().expect("one").id.expect("its ID").path
    };
    answer.x509_svids.iter().map(id).collect()
}

fn refusal<T>(outcome: Result<T, Status>) -> (Code, String) {
    let status = outcome.err().expect("refused");
    (status.code(), status.message().to_owned())
}

/// A process of `uid`, killed on drop.
struct Sleeper(Child);

impl Sleeper {
    fn start(uid: u32) -> Self {
        Self(Command::new("sleep").arg("60").uid(uid).gid(uid).spawn().expect("sleep starts"))
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_delegate_gets_identities_of_others_by_their_selectors_or_their_process() {
    let served = delegating();
    let identity = served.publisher.borrow().iter().nth(1).expect("the second").clone();
    let process = Sleeper::start(61001);
    for request in [of(&["unix:uid:61001"], 0), of(&["unix:uid:61001", "k8s:ns:x"], 0), of(&[], process.pid())] {
        let answer = next(&mut subscribe(&served, request).await.expect("a delegate")).await;
        assert_eq!((paths(&answer), answer.federates_with.len()), (vec!["/web".to_owned()], 0));
        let svid = &answer.x509_svids[0];
        assert_eq!(&svid.x509_svid_key, identity.key().pkcs8_der());
        let chain = &svid.x509_svid.as_ref().expect("one").cert_chain;
        assert_eq!((chain.len(), &chain[0][..]), (1, &identity.chain_der()[..]));
        assert_eq!(svid.x509_svid.as_ref().expect("one").expires_at, NOW + 3600);
    }
}

#[tokio::test]
async fn whoever_is_no_delegate_is_refused_in_spires_words_and_leaves_a_line() {
    let (served, log) = (delegating(), Log::start());
    served.publish(vec![served.authority.issue("/other", 0, 3600)]);
    let mut client = client(&served).await;
    let not_a_delegate = (Code::PermissionDenied, "caller not configured as an authorized delegate".to_owned());
    assert_eq!(refusal(client.subscribe_to_x509svi_ds(of(&["unix:uid:1"], 0)).await), not_a_delegate);
    assert_eq!(refusal(client.subscribe_to_x509_bundles(SubscribeToX509BundlesRequest {}).await), not_a_delegate);
    assert_eq!(refusal(client.subscribe_to_jwt_bundles(SubscribeToJwtBundlesRequest {}).await), not_a_delegate);
    let jwt = FetchJwtsviDsRequest { audience: vec!["us".into()], selectors: selectors(&["unix:uid:1"]), pid: 0 };
    assert_eq!(refusal(client.fetch_jwtsvi_ds(jwt.clone()).await), not_a_delegate);
    // Nor is it told whether what it asks makes sense; only without an audience it is, as by SPIRE.
    assert_eq!(refusal(client.subscribe_to_x509svi_ds(of(&[], 0)).await), not_a_delegate);
    let nobody = FetchJwtsviDsRequest { audience: Vec::new(), ..jwt };
    assert_eq!(
        refusal(client.fetch_jwtsvi_ds(nobody).await),
        (Code::InvalidArgument, "audience must be specified".into())
    );
    served.publish(vec![served.authority.issue("/web", 61001, 3600)]);
    let unknown = (Code::PermissionDenied, "no identity issued".to_owned());
    assert_eq!(refusal(client.subscribe_to_x509_bundles(SubscribeToX509BundlesRequest {}).await), unknown);
    let log = log.text();
    for (line, parts) in [
        ("not configured as an authorized delegate", &["uid=0", "pid=", "default_id=spiffe://td/other"][..]),
        (
            "No identity issued",
            &["nearest=spiffe://td/web", "lacks=unix:uid:61001", "method=\"SubscribeToX509Bundles\""],
        ),
    ] {
        let lines: Vec<&str> = log.lines().filter(|found| found.contains(line)).collect();
        assert_eq!(lines.len(), 1, "{line}: {log}");
        assert!(parts.iter().all(|part| lines[0].contains(part)), "{}", lines[0]);
    }
}

#[tokio::test]
async fn who_is_asked_for_must_be_named_in_one_way_and_legally() {
    let served = delegating();
    let words = "must provide either selectors or non-zero PID, but not both";
    for both_or_none in [of(&["unix:uid:1"], 7), of(&[], 0)] {
        assert_eq!(refusal(subscribe(&served, both_or_none).await), (Code::InvalidArgument, words.to_owned()));
    }
    let illegal = SubscribeToX509sviDsRequest { selectors: vec![Selector::default()], pid: 0 };
    let words = "could not parse provided selectors".to_owned();
    assert_eq!(refusal(subscribe(&served, illegal).await), (Code::InvalidArgument, words));
    let many: Vec<String> = (0..513).map(|n| format!("a:{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(refusal(subscribe(&served, of(&many, 0)).await).0, Code::InvalidArgument);
    let long = "x".repeat(33_000);
    assert_eq!(refusal(subscribe(&served, of(&[&format!("a:{long}")], 0)).await).0, Code::OutOfRange);
    let mut gone = Sleeper::start(61001);
    gone.0.kill().and_then(|()| gone.0.wait()).expect("ends");
    let (code, text) = refusal(subscribe(&served, of(&[], gone.pid())).await);
    assert_eq!(code, Code::Unavailable);
    assert!(text.starts_with("workload attestation failed"), "{text}");
    for no_number in [-1, i32::MIN] {
        let (code, text) = refusal(subscribe(&served, of(&[], no_number)).await);
        assert!(code == Code::InvalidArgument && text.contains("by its number"), "{code:?} {text}");
    }
}

#[tokio::test]
async fn a_delegates_stream_follows_rotation_and_stays_when_nobody_has_an_identity() {
    let served = delegating();
    let proxy = served.authority.issue("/proxy", 0, 3600);
    served.publish(vec![proxy.clone()]);
    let mut stream = subscribe(&served, of(&["unix:uid:61001"], 0)).await.expect("a delegate");
    assert_eq!(paths(&next(&mut stream).await), [""; 0], "nobody yet, and no refusal");
    served.publish(vec![proxy.clone(), served.authority.issue("/web", 61001, 3600)]);
    assert_eq!(paths(&next(&mut stream).await), ["/web"]);
    let new = served.authority.issue("/web", 61001, 7200);
    served.publish(vec![proxy.clone(), new.clone()]);
    let rotated = next(&mut stream).await;
    assert_eq!(&rotated.x509_svids[0].x509_svid_key, new.key().pkcs8_der());
    served.publish(vec![proxy]);
    assert_eq!(paths(&next(&mut stream).await), [""; 0]);
    served.publish(vec![new]);
    let lost = patiently(stream.message()).await.expect_err("it is no delegate any more");
    assert_eq!((lost.code(), lost.message()), (Code::PermissionDenied, "no identity issued"));
}

#[tokio::test]
async fn a_stream_for_a_process_ends_with_it_though_nothing_is_published() {
    let served = delegating();
    let mut process = Sleeper::start(61001);
    let mut stream = subscribe(&served, of(&[], process.pid())).await.expect("a delegate");
    assert_eq!(paths(&next(&mut stream).await), ["/web"]);
    process.0.kill().and_then(|()| process.0.wait()).expect("ends");
    let ended = patiently(stream.message()).await.expect_err("nobody is there for it");
    assert_eq!(ended.code(), Code::Unavailable);
    assert!(ended.message().contains("has exited"), "{ended}");
}

/// A process of our own user that joins a group, and leaves all others, when it is told to; killed on drop.
fn joiner(gid: u32) -> Sleeper {
    let script = format!("read _; exec setpriv --groups {gid} sleep 60");
    Sleeper(Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().expect("a shell starts"))
}

impl Sleeper {
    /// Tells it, and waits until it has.
    fn join(&mut self) {
        drop(self.0.stdin.take().expect("it listens").write_all(b"\n"));
        let name = format!("/proc/{}/comm", self.pid());
        while std::fs::read_to_string(&name).expect("it lives").trim() != "sleep" {
            std::thread::yield_now();
        }
    }
}

#[tokio::test]
async fn a_process_that_a_delegate_names_is_known_as_it_is_now_before_each_update() {
    let served = delegating();
    let mut process = joiner(61077);
    let publish = |ttl| {
        let grouped = served.authority.issue_to("/grouped", &["unix:supplementary_gid:61077"], 3600);
        served.publish(vec![served.authority.issue("/proxy", 0, ttl), grouped]);
    };
    publish(3600);
    let mut stream = subscribe(&served, of(&[], process.pid())).await.expect("a delegate");
    assert_eq!(paths(&next(&mut stream).await), ["/proxy"], "not in the group yet");
    process.join();
    publish(7200);
    assert_eq!(paths(&next(&mut stream).await), ["/grouped", "/proxy"]);
}

#[tokio::test]
async fn a_delegate_in_another_pid_namespace_names_nobody_by_a_number() {
    let served = delegating();
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path().join("relay.sock");
    let _relay = Relay::in_a_pid_namespace(&at, &served.admin_socket());
    let mut client = DelegatedIdentityClient::new(connect(&at).await.expect("connects"));
    let process = Sleeper::start(61001);
    for pid in [process.pid(), 1] {
        let refused = client.subscribe_to_x509svi_ds(of(&[], pid)).await.map(drop);
        let (code, text) = refusal(refused);
        assert!(code == Code::InvalidArgument && text.contains("another PID namespace"), "{text}");
        let jwt = FetchJwtsviDsRequest { audience: vec!["us".into()], selectors: Vec::new(), pid };
        assert!(refusal(client.fetch_jwtsvi_ds(jwt).await).1.contains("another PID namespace"));
    }
    let by_selectors = client.subscribe_to_x509svi_ds(of(&["unix:uid:61001"], 0)).await;
    let mut stream = by_selectors.expect("who gives selectors is answered").into_inner();
    assert_eq!(paths(&next(&mut stream).await), ["/web"]);
}

fn privileged(authority: &Authority, path: &str, is_privileged: Option<bool>) -> Arc<Identity> {
    authority.issue_for(EntryTerms { is_privileged, ..terms(path, &["unix:uid:61001"]) }, NOW - 60..NOW + 3600)
}

#[tokio::test]
async fn identities_of_administrators_and_servers_are_never_handed_on_nor_those_of_whom_nothing_is_known() {
    let (served, log) = (delegating(), Log::start());
    let authority = &served.authority;
    served.publish(vec![
        authority.issue("/proxy", 0, 3600),
        privileged(authority, "/admin", Some(true)),
        privileged(authority, "/older", None),
    ]);
    let mut stream = subscribe(&served, of(&["unix:uid:61001"], 0)).await.expect("a delegate");
    assert_eq!(paths(&next(&mut stream).await), [""; 0]);
    let jwt = FetchJwtsviDsRequest { audience: vec!["us".into()], selectors: selectors(&["unix:uid:61001"]), pid: 0 };
    let refused = refusal(client(&served).await.fetch_jwtsvi_ds(jwt).await);
    assert_eq!(refused, (Code::PermissionDenied, "no identity issued".to_owned()));
    let log = log.text();
    assert!(log.contains("its SVID is signed, and not handed out by this method"), "{log}");
    assert_eq!(served.told(61001).await, "spiffe://td/admin,spiffe://td/older", "itself it gets them");
}

#[tokio::test]
async fn two_identities_of_one_hint_are_both_a_delegates_to_choose_from() {
    let served = delegating();
    let hinted = |path: &str| {
        let terms = EntryTerms { hint: "internal".into(), ..terms(path, &["unix:uid:61001"]) };
        served.authority.issue_for(terms, NOW - 60..NOW + 3600)
    };
    served.publish(vec![served.authority.issue("/proxy", 0, 3600), hinted("/a"), hinted("/b")]);
    let answer = next(&mut subscribe(&served, of(&["unix:uid:61001"], 0)).await.expect("a delegate")).await;
    assert_eq!(paths(&answer), ["/a", "/b"]);
    assert_eq!(served.told(61001).await, "spiffe://td/a", "the workload itself gets the oldest of a hint");
}

#[tokio::test]
async fn an_identity_that_is_made_on_demand_is_made_for_a_delegate() {
    let mut served = delegating();
    let entry = EntryTerms { on_demand: true, ..terms("/late", &["unix:uid:61001"]) };
    let proxy = served.authority.issue("/proxy", 0, 3600);
    let all = Identities::try_new(td("td"), vec![proxy.clone()], served.authority.bundle()).expect("sound");
    served.publisher.send_replace(Arc::new(all.with_unsigned(vec![Arc::new(entry.clone())])));
    let mut client = client(&served).await;
    let subscribing = tokio::spawn(async move { client.subscribe_to_x509svi_ds(of(&["unix:uid:61001"], 0)).await });
    let Some(requests::Request::X509Svids { entry_ids, tried }) = patiently(served.asked.recv()).await else {
        panic!("a request")
    };
    assert_eq!(entry_ids, ["entry of /late"]);
    served.publish(vec![proxy, served.authority.issue_for(entry, NOW - 60..NOW + 3600)]);
    tried.send(()).expect("waits");
    let mut stream = subscribing.await.expect("whole").expect("a delegate").into_inner();
    assert_eq!(paths(&next(&mut stream).await), ["/late"]);
}

#[tokio::test]
async fn a_delegate_follows_all_bundles_of_either_kind() {
    let served = delegating();
    let mut client = client(&served).await;
    let mut x509 =
        client.subscribe_to_x509_bundles(SubscribeToX509BundlesRequest {}).await.expect("opens").into_inner();
    let mut jwt = client.subscribe_to_jwt_bundles(SubscribeToJwtBundlesRequest {}).await.expect("opens").into_inner();
    let first = next(&mut x509).await.ca_certificates;
    assert_eq!(&first["spiffe://td"], served.authority.bundle().concatenated());
    let jwks = next(&mut jwt).await.bundles["spiffe://td"].clone();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&jwks).expect("JSON")["keys"], serde_json::json!([]));
    let key = Signer::new().wire("k");
    let bundle = Arc::new(TrustBundle::clone(&served.authority.bundle()).with_jwt(&[key], 0));
    let identities = served.publisher.borrow().iter().cloned().collect();
    let all = Identities::try_new(td("td"), identities, bundle).expect("sound");
    served.publisher.send_replace(Arc::new(all));
    let jwks = next(&mut jwt).await.bundles["spiffe://td"].clone();
    let jwks: serde_json::Value = serde_json::from_slice(&jwks).expect("JSON");
    assert_eq!(jwks["keys"][0]["kid"], "k");
    let other = Authority::new();
    served.publisher.send_replace(other.snapshot(vec![served.authority.issue("/proxy", 0, 3600)]));
    assert_eq!(&next(&mut x509).await.ca_certificates["spiffe://td"], other.bundle().concatenated());
}

#[tokio::test]
async fn the_agent_says_what_it_is() {
    let served = delegating();
    let info = DebugClient::new(channel(&served).await).get_info(GetInfoRequest {}).await.expect("says").into_inner();
    assert_eq!((info.cached_x509_svids_count, info.cached_jwt_svids_count, info.last_sync_success), (2, 0, 0));
    assert!(info.svid_chain.is_empty(), "it has not attested");
}

#[tokio::test]
async fn the_agent_says_how_it_is_and_who_uses_it() {
    let served = delegating();
    let mut stream = subscribe(&served, of(&["unix:uid:61001"], 0)).await.expect("a delegate");
    next(&mut stream).await;
    let mut client = StatusClient::new(channel(&served).await);
    let status = client.get_status(GetStatusRequest {}).await.expect("says").into_inner();
    assert_eq!((&*status.trust_domain, &*status.standing, &*status.spiffe_id), ("td", "new", ""));
    assert_eq!((status.entries, status.x509_svids, status.jwt_svids), (2, 2, 0));
    assert_eq!((status.users, status.connections, status.streams), (1, 1, 1), "the delegate, without who asks now");
    let ends: Vec<_> = status.next_to_end.iter().map(|ending| (&*ending.spiffe_id, ending.ends_at)).collect();
    assert_eq!(ends, [("spiffe://td/proxy", NOW + 3600), ("spiffe://td/web", NOW + 3600)]);
}

#[tokio::test]
async fn the_level_of_the_log_is_got_set_and_reset() {
    let served = delegating();
    let mut client = LoggerClient::new(channel(&served).await);
    let levels = |current: LogLevel| Logger { current_level: current.into(), launch_level: LogLevel::Info.into() };
    assert_eq!(client.get_logger(GetLoggerRequest {}).await.expect("says").into_inner(), levels(LogLevel::Info));
    let set = client.set_log_level(SetLogLevelRequest { new_level: LogLevel::Debug.into() }).await;
    // The filter of this control is gone with the test's subscriber: the level stays what it was.
    assert_eq!(set.expect("sets").into_inner().launch_level, i32::from(LogLevel::Info));
    let reset = client.reset_log_level(ResetLogLevelRequest {}).await.expect("resets").into_inner();
    assert_eq!(reset, levels(LogLevel::Info));
    for (number, text) in [(0, "newLevel value cannot be LogLevel_UNSPECIFIED"), (8, "unsupported log level")] {
        let refused = refusal(client.set_log_level(SetLogLevelRequest { new_level: number }).await);
        assert_eq!(refused, (Code::InvalidArgument, text.to_owned()));
    }
}

#[tokio::test]
async fn neither_socket_answers_for_the_other_and_the_admin_socket_is_not_everybodys() {
    let served = delegating();
    let mut workload = SpiffeWorkloadApiClient::new(channel(&served).await);
    let elsewhere = workload.fetch_x509svid(asking(X509svidRequest {})).await.expect_err("not here");
    assert_eq!(elsewhere.code(), Code::Unimplemented);
    let workloads = connect(&served.socket()).await.expect("connects");
    let elsewhere = DebugClient::new(workloads).get_info(GetInfoRequest {}).await.expect_err("not there");
    assert_eq!(elsewhere.code(), Code::Unimplemented);
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&served.admin_socket()), 0o770);
    assert_eq!(mode(served.admin_socket().parent().expect("a directory")), 0o750);
}

#[tokio::test]
async fn an_admin_socket_that_a_link_leads_into_the_workloads_directory_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let (public, link) = (directory.path().join("public"), directory.path().join("private"));
    std::fs::create_dir(&public).expect("made");
    std::os::unix::fs::symlink(&public, &link).expect("linked");
    let (_, identities) = tokio::sync::watch::channel(Arc::new(Identities::starting(td("td"))));
    let sources = served::sources(identities, requests::Requests::channel().0, Arc::new(|| NOW));
    let mut config = served::config(public.join("api.sock"), Limits::default());
    config.admin = Some(served::admin(link.join("admin.sock"), Delegates::default()));
    let refused = serve_workload_api(config, sources, std::future::pending()).err().expect("refused");
    assert!(matches!(refused, EndpointError::AdminSocketPlace(_)), "{refused}");
}
