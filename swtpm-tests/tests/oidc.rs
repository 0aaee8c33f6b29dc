//! OpenID Connect discovery by the server itself: a stock library verifies our JWT-SVIDs with what it finds there.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ironroot_lab::deployment::{Server, ServerOptions, TRUST_DOMAIN, free_port};
use ironroot_lab::web_certificate::WebCertificate;
use serde_json::Value;

const AUDIENCE: &str = "https://vault.example.org";

/// The interpreter that `scripts/setup --tests` has prepared.
fn python() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/python");
    assert!(path.exists(), "{} is missing: run scripts/setup --tests", path.display());
    path
}

#[test]
fn a_stock_openid_library_verifies_a_jwt_svid_by_what_discovery_says() {
    let (web, port) = (WebCertificate::new(), free_port());
    let (issuer, server_lines) = web.oidc_discovery(port);
    let server = Server::start(&ServerOptions { server_lines, ..Default::default() });
    let id = format!("spiffe://{TRUST_DOMAIN}/job");
    let token = server.cli(&["jwt", "mint", "-spiffeID", &id, "-audience", AUDIENCE]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oidc_verifier.py");
    let mut command = Command::new(python());
    command.arg(script).arg(web.authority()).arg(format!("{issuer}/.well-known/openid-configuration")).arg(AUDIENCE);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut verifier = command.spawn().expect("python starts");
    verifier.stdin.take().expect("piped").write_all(token.as_bytes()).expect("written");
    let output = verifier.wait_with_output().expect("ended");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}\n{}", String::from_utf8_lossy(&output.stderr), server.log());
    let answer: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&answer["sub"], &answer["iss"]), (&id.into(), &issuer.into()));
    assert_eq!((&answer["refused"], &answer["cached"]), (&true.into(), &"public, max-age=300".into()));
}

#[test]
fn behind_a_proxy_discovery_is_on_a_unix_socket_and_shows_keys_of_jwt_svids_alone() {
    let directory = tempfile::tempdir().expect("directory");
    let socket = directory.path().join("oidc.sock");
    let lines =
        format!("oidc_discovery {{ domains = [\"oidc.example\"] listen_socket_path = \"{}\" }}", socket.display());
    let server = Server::start(&ServerOptions { server_lines: lines, ..Default::default() });
    let ask = |path: &str, host: &str| {
        let mut stream = UnixStream::connect(&socket).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let keys = ask("/keys", "oidc.example");
    assert!(keys.starts_with("HTTP/1.1 200 OK\r\n"), "{keys}\n{}", server.log());
    for header in [
        "content-type: application/json",
        "cache-control: no-cache, no-store, must-revalidate",
        "access-control-allow-origin: *",
    ] {
        assert!(keys.contains(header), "{keys}");
    }
    let body = keys.split("\r\n\r\n").nth(1).expect("a body");
    let keys: Value = serde_json::from_str(body).expect("JSON");
    let keys = keys["keys"].as_array().expect("a list");
    assert!(!keys.is_empty() && keys.iter().all(|key| key["alg"] == "ES256" && key["kid"].is_string()), "{keys:?}");
    assert!(keys.iter().all(|key| key.get("x5c").is_none() && key.get("use").is_none()), "{keys:?}");
    assert!(ask("/.well-known/openid-configuration", "oidc.example").contains("\"issuer\": \"https://oidc.example\""));
    assert!(
        ask("/.well-known/openid-configuration", "evil.example").contains("domain \"evil.example\" is not allowed")
    );
}
