//! The server's signing keys replaced by hand over the admin socket: SPIRE's verbs, words and refusals.

use ironroot_api::pb::localauthority::local_authority_client::LocalAuthorityClient;
use ironroot_api::pb::localauthority::{
    ActivateJwtAuthorityRequest, GetJwtAuthorityStateRequest, GetWitAuthorityStateRequest, PrepareWitAuthorityRequest,
    RevokeX509AuthorityRequest, TaintX509UpstreamAuthorityRequest,
};
use ironroot_api::unix_socket;
use ironroot_lab::deployment::{DEADLINE, Server, ServerOptions, expect_within};
use serde_json::Value;
use tokio::runtime::Runtime;
use tonic::{Code, Status};

const SELF_SIGNED: &str = "root { enabled = false }";

fn server(lines: &str) -> Server {
    Server::start(&ServerOptions { server_lines: lines.to_owned(), ..ServerOptions::default() })
}

fn json(server: &Server, arguments: &[&str]) -> Value {
    serde_json::from_str(&server.cli(&[arguments, &["-output", "json"]].concat())).expect("JSON")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// What the command says on standard error when it is refused.
fn refused(server: &Server, arguments: &[&str]) -> String {
    let output = server.cli_output(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn an_operator_replaces_a_ca_with_spires_verbs_and_reads_spires_words() {
    let server = server(SELF_SIGNED);
    let shown = server.cli(&["localauthority", "x509", "show"]);
    let active = text(&json(&server, &["localauthority", "x509", "show"])["active"]["authority_id"]);
    assert!(
        shown.starts_with(&format!("Active X.509 authority:\n  Authority ID: {active}\n  Expires at: ")),
        "{shown}"
    );
    assert!(
        shown.contains("  Upstream authority ID: No upstream authority\n\nPrepared X.509 authority:\n  No prepared"),
        "{shown}"
    );
    let prepared = text(&json(&server, &["localauthority", "x509", "prepare"])["prepared_authority"]["authority_id"]);
    let bundle = || json(&server, &["bundle", "show"])["x509_authorities"].as_array().expect("a list").clone();
    assert_eq!(bundle().len(), 2);
    let said = server.cli(&["localauthority", "x509", "activate", "-authorityID", &prepared]);
    assert!(said.starts_with(&format!("Activated X.509 authority:\n  Authority ID: {prepared}\n")), "{said}");
    let said = server.cli(&["localauthority", "x509", "taint", "-authorityID", &active]);
    assert!(said.starts_with(&format!("Tainted X.509 authority:\n  Authority ID: {active}\n")), "{said}");
    assert_eq!(bundle().iter().filter(|authority| authority["tainted"] == true).count(), 1);
    let again = refused(&server, &["localauthority", "x509", "taint", "-authorityID", &active]);
    assert!(again.contains("failed to taint X.509 authority: root CA is already tainted"), "{again}");
    let said = server.cli(&["localauthority", "x509", "revoke", "-authorityID", &active]);
    assert!(said.starts_with(&format!("Revoked X.509 authority:\n  Authority ID: {active}\n")), "{said}");
    assert!(said.contains("  Expires at: 20"), "the time that it had: {said}");
    assert_eq!(bundle().len(), 1);
    server.cli(&["healthcheck"]);
    let log = server.log();
    for line in [
        "X509 CA prepared",
        "X509 CA activated",
        "X.509 authority tainted successfully",
        "X.509 authority revoked successfully",
    ] {
        assert!(log.contains(line), "{line}\n{log}");
    }
    for method in ["PrepareX509Authority", "ActivateX509Authority", "TaintX509Authority", "RevokeX509Authority"] {
        assert!(log.contains(&format!("method=\"{method}\"")), "{method}\n{log}");
    }
}

#[test]
fn an_operator_replaces_a_key_of_jwt_svids_likewise() {
    let server = server("");
    let state = |verb: &str, more: &[&str]| json(&server, &[&["localauthority", "jwt", verb], more].concat());
    let active = text(&state("show", &[])["active"]["authority_id"]);
    let prepared = text(&state("prepare", &[])["prepared_authority"]["authority_id"]);
    assert_eq!(text(&state("show", &[])["prepared"]["authority_id"]), prepared);
    let activated = state("activate", &["-authorityID", &prepared]);
    assert_eq!(text(&activated["activated_authority"]["authority_id"]), prepared);
    let untainted = refused(&server, &["localauthority", "jwt", "revoke", "-authorityID", &active]);
    assert!(
        untainted.contains("failed to revoke JWT authority: it is not possible to revoke an untainted key"),
        "{untainted}"
    );
    let tainted = state("taint", &["-authorityID", &active]);
    let ends_at = |key: &Value| text(&key["expires_at"]).parse::<i64>().expect("a number");
    assert!(ends_at(&tainted["tainted_authority"]) > 0, "SPIRE tells none, and prints 1970");
    state("revoke", &["-authorityID", &active]);
    let keys = json(&server, &["bundle", "show"])["jwt_authorities"].clone();
    assert_eq!((keys.as_array().expect("a list").len(), text(&keys[0]["key_id"])), (1, prepared));
    let log = server.log();
    for line in [
        "JWT key prepared",
        "JWT key activated",
        "JWT authority tainted successfully",
        "JWT authority revoked successfully",
    ] {
        assert!(log.contains(line), "{line}\n{log}");
    }
}

#[test]
fn below_a_root_a_ca_is_not_tainted_and_the_refusal_is_spires() {
    let server = server("");
    let active = json(&server, &["localauthority", "x509", "show"])["active"].clone();
    let (id, root) = (text(&active["authority_id"]), text(&active["upstream_authority_subject_key_id"]));
    for (verb, words) in [("taint", "tainted"), ("revoke", "revoked")] {
        let said = refused(&server, &["localauthority", "x509", verb, "-authorityID", &id]);
        assert!(
            said.contains(&format!("local authority can't be {words} if there is an upstream authority")),
            "{said}"
        );
        let said = refused(&server, &["upstreamauthority", verb, "-subjectKeyID", &root]);
        assert!(said.contains("unable to use upstream authority singing current authority"), "{said}");
    }
    let prepared = json(&server, &["localauthority", "x509", "prepare"])["prepared_authority"].clone();
    assert_eq!(text(&prepared["upstream_authority_subject_key_id"]), root);
    server.cli(&["localauthority", "x509", "activate", "-authorityID", &text(&prepared["authority_id"])]);
    assert_eq!(json(&server, &["bundle", "show"])["x509_authorities"].as_array().expect("a list").len(), 1, "the root");
}

#[test]
fn a_command_without_an_id_asks_for_one_before_it_asks_the_server() {
    let server = server(SELF_SIGNED);
    for noun in ["x509", "jwt"] {
        for verb in ["activate", "taint", "revoke"] {
            let said = refused(&server, &["localauthority", noun, verb]);
            assert!(said.contains("an authority ID is required"), "{said}");
        }
    }
    let said = refused(&server, &["upstreamauthority", "taint"]);
    assert!(said.contains("the Subject Key ID of the X.509 upstream authority is required"), "{said}");
}

#[test]
fn what_is_not_offered_is_said_to_be_so() {
    let server = server(&format!("{SELF_SIGNED}\n    disable_jwt_svids = true"));
    let runtime = Runtime::new().expect("runtime");
    runtime.block_on(async {
        let channel = unix_socket::connect(&server.socket()).await.expect("the admin socket");
        let mut client = LocalAuthorityClient::new(channel);
        let said = |status: Status| (status.code(), status.message().to_owned());
        let jwt = client.get_jwt_authority_state(GetJwtAuthorityStateRequest {}).await.expect_err("disabled");
        assert_eq!(said(jwt), (Code::Unimplemented, "JWT functionality is disabled".to_owned()));
        let request = ActivateJwtAuthorityRequest { authority_id: "x".to_owned() };
        let jwt = client.activate_jwt_authority(request).await.expect_err("disabled");
        assert_eq!(jwt.code(), Code::Unimplemented);
        let wit = client.get_wit_authority_state(GetWitAuthorityStateRequest {}).await.expect_err("none");
        assert_eq!(said(wit), (Code::Unimplemented, "WIT functionality is disabled".to_owned()));
        let wit = client.prepare_wit_authority(PrepareWitAuthorityRequest {}).await.expect_err("none");
        assert_eq!(wit.code(), Code::Unimplemented);
        let request = TaintX509UpstreamAuthorityRequest { subject_key_id: "x".to_owned() };
        let root = client.taint_x509_upstream_authority(request).await.expect_err("there is no root");
        assert_eq!(said(root), (Code::FailedPrecondition, "upstream authority is not configured".to_owned()));
        let request = RevokeX509AuthorityRequest { authority_id: "x".to_owned() };
        let other = client.revoke_x509_authority(request).await.expect_err("nothing is old");
        let words = "invalid authority ID: only Old local authority can be revoked";
        assert_eq!(said(other), (Code::InvalidArgument, words.to_owned()));
    });
}

#[test]
fn what_was_ordered_outlives_kill_minus_nine() {
    let mut server = server(SELF_SIGNED);
    let show = |server: &Server| json(server, &["localauthority", "x509", "show"]);
    let first = text(&show(&server)["active"]["authority_id"]);
    let second = text(&json(&server, &["localauthority", "x509", "prepare"])["prepared_authority"]["authority_id"]);
    let crash = |server: &mut Server| (server.kill(), server.restart());
    crash(&mut server);
    assert_eq!(text(&show(&server)["prepared"]["authority_id"]), second);
    server.cli(&["localauthority", "x509", "activate", "-authorityID", &second]);
    crash(&mut server);
    assert_eq!(text(&show(&server)["old"]["authority_id"]), first);
    server.cli(&["localauthority", "x509", "taint", "-authorityID", &first]);
    crash(&mut server);
    let bundle = json(&server, &["bundle", "show"])["x509_authorities"].clone();
    assert!(bundle.as_array().expect("a list").iter().any(|authority| authority["tainted"] == true), "{bundle}");
    server.cli(&["localauthority", "x509", "revoke", "-authorityID", &first]);
    crash(&mut server);
    let authorities = || json(&server, &["bundle", "show"])["x509_authorities"].as_array().map_or(0, Vec::len);
    expect_within(DEADLINE, "only the second is left", || server.log(), || authorities() == 1);
    assert_eq!(text(&show(&server)["active"]["authority_id"]), second);
}

#[test]
fn a_root_is_replaced_by_hand_after_which_the_cas_below_it_are_worth_nothing() {
    let server = server("");
    let ask = |noun: &str, verb: &str, more: &[&str]| json(&server, &[&[noun, verb], more].concat());
    let first = text(&ask("upstreamauthority", "show", &[])["active"]["authority_id"]);
    let shown = server.cli(&["upstreamauthority", "show"]);
    assert!(shown.starts_with(&format!("Active X.509 upstream authority:\n  Subject Key ID: {first}\n")), "{shown}");
    let next = text(&ask("upstreamauthority", "prepare", &[])["prepared_authority"]["authority_id"]);
    let again = refused(&server, &["upstreamauthority", "prepare"]);
    assert!(again.contains("the next one is prepared already; activate it"), "{again}");
    ask("upstreamauthority", "activate", &["-subjectKeyID", &next.to_uppercase()]);
    let prepared = ask("localauthority", "x509", &["prepare"])["prepared_authority"].clone();
    assert_eq!(text(&prepared["upstream_authority_subject_key_id"]), next);
    ask("localauthority", "x509", &["activate", "-authorityID", &text(&prepared["authority_id"])]);
    let said = server.cli(&["upstreamauthority", "taint", "-subjectKeyID", &first]);
    assert_eq!(said, format!("Tainted X.509 upstream authority:\n  Subject Key ID: {first}\n"));
    server.cli(&["upstreamauthority", "revoke", "-subjectKeyID", &first]);
    assert_eq!(json(&server, &["bundle", "show"])["x509_authorities"].as_array().expect("a list").len(), 1);
    assert_eq!(ask("upstreamauthority", "show", &[])["old"], Value::Null);
    server.cli(&["healthcheck"]);
    let without = self::server(SELF_SIGNED);
    assert!(refused(&without, &["upstreamauthority", "show"]).contains("upstream authority is not configured"));
}
