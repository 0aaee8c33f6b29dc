//! Whoever has no agent: a CI job shows its issuer's token to the real server with curl, and gets SVIDs that anybody can verify.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use ironroot_lab::deployment::{DEADLINE, Server, ServerOptions, TRUST_DOMAIN, expect_within, free_port};
use ironroot_lab::handbook;
use ironroot_lab::jwt::Jwks;
use ironroot_lab::metrics;
use ironroot_lab::token_issuer::{TokenIssuer, TokenKey, key_set};
use ironroot_lab::web_certificate::WebCertificate;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use serde_json::{Value, json};
use tempfile::TempDir;
use x509_cert::Certificate;
use x509_cert::der::{DecodePem, Encode};

const AUDIENCE: &str = "https://spire.example.org";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const X509_SVID: &str = "urn:ironroot:token-type:x509-svid";

fn now_unix() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

fn id(path: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}{path}")
}

/// A server that believes two issuers: one by its documents, one by a file of keys.
struct Lab {
    server: Server,
    web: WebCertificate,
    directory: TempDir,
    port: u16,
    key: TokenKey,
    cluster: TokenKey,
    issuer: TokenIssuer,
}

impl Lab {
    fn new(more: &str) -> Self {
        Self::audited(None, more)
    }

    /// Its audit goes to that file, or to one of its own.
    fn audited(audit: Option<&Path>, more: &str) -> Self {
        let (web, directory) = (WebCertificate::new(), tempfile::tempdir().expect("directory"));
        let has_own_audit = audit.is_none();
        let audit = audit.map_or_else(|| directory.path().join("audit.json"), Path::to_owned);
        let (port, key, cluster) = (free_port(), TokenKey::rsa("k1"), TokenKey::p256("c1"));
        let issuer = TokenIssuer::with_keys(&web, &[&key]);
        let keys = directory.path().join("cluster.json");
        std::fs::write(&keys, key_set(&[&cluster])).expect("written");
        let server_lines = format!(
            "audit_log_file = \"{}\"
            token_exchange {{
                address = \"127.0.0.1\"
                port = {port}
                {}
                issuer \"ci\" {{
                    url = \"{}\"
                    audience = [\"{AUDIENCE}\"]
                    required_claims = [\"owner:acme\"]
                    ca_file = \"{}\"
                }}
                issuer \"cluster\" {{
                    url = \"https://kubernetes.default.svc\"
                    audience = [\"{AUDIENCE}\"]
                    jwks_file = \"{}\"
                }}
            }}
            {more}",
            audit.display(),
            web.block(),
            issuer.url(),
            web.authority().display(),
            keys.display()
        );
        let options = ServerOptions { server_lines, ..Default::default() };
        let server = if has_own_audit { Server::start(&options) } else { Self::not_healthy(&options) };
        Self { server, web, directory, port, key, cluster, issuer }
    }

    /// One whose required lines cannot be written is up, and not healthy.
    fn not_healthy(options: &ServerOptions) -> Server {
        let mut server = Server::prepare(options);
        server.spawn();
        expect_within(DEADLINE, "the server is up", || server.log(), || server.log().contains("server ready"));
        server
    }

    fn entry(&self, issuer: &str, path: &str, selectors: &[&str], more: &[&str]) {
        self.server.create_entry(&id(&format!("/spire/exchange/{issuer}")), path, selectors, more);
    }

    fn claims(&self, job: &str) -> Value {
        let now = now_unix();
        json!({
            "iss": self.issuer.url(), "sub": "repo:acme/app", "owner": "acme", "ref": "refs/heads/main", "aud": AUDIENCE,
            "iat": now, "exp": now + 200, "jti": job
        })
    }

    fn token(&self, job: &str) -> String {
        self.key.sign(&self.claims(job))
    }

    /// What the listener says to a form, with the status.
    fn post(&self, form: &[(&str, &str)]) -> (u16, Value) {
        let mut arguments: Vec<String> = Vec::new();
        form.iter()
            .for_each(|(name, value)| arguments.extend(["--data-urlencode".to_owned(), format!("{name}={value}")]));
        let (status, body) = self.curl("/token", &arguments);
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status}: {body}\n{}", self.server.log())))
    }

    fn curl(&self, path: &str, arguments: &[String]) -> (u16, String) {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "60", "--write-out", "\n%{http_code}", "--cacert"]);
        curl.arg(self.web.authority()).args(arguments).arg(format!("https://localhost:{}{path}", self.port));
        let output = curl.output().expect("curl runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = said.rsplit_once('\n').expect("a status");
        let why = String::from_utf8_lossy(&output.stderr);
        (status.parse().unwrap_or_else(|_| panic!("{said}{why}")), body.to_owned())
    }

    fn exchange(&self, token: &str, more: &[(&str, &str)]) -> (u16, Value) {
        let form = [("grant_type", GRANT), ("subject_token_type", JWT), ("subject_token", token)];
        self.post(&[&form, more].concat())
    }

    fn jwt(&self, token: &str) -> (u16, Value) {
        self.exchange(token, &[("audience", "https://db.example.org")])
    }

    fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.directory.path().join("audit.json")).expect("readable");
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.filter(|line| line["method"] == "ExchangeToken").collect()
    }
}

fn told(refused: &(u16, Value)) -> (u16, &str, &str) {
    let text = |name: &str| refused.1[name].as_str().unwrap_or_default();
    (refused.0, text("error"), text("error_description"))
}

//= EXC-06
#[test]
fn a_ci_job_gets_a_jwt_svid_that_ends_with_its_token_and_every_outcome_has_its_line() {
    let lab = Lab::new("");
    lab.entry("ci", "/deploy", &["oidc:sub:repo:acme/app", "oidc:ref:refs/heads/main"], &[]);
    lab.entry("cluster", "/other", &["oidc:sub:repo:acme/app"], &[]);
    let (status, answer) = lab.jwt(&lab.token("job-1"));
    assert_eq!(status, 200, "{answer}\n{}", lab.server.log());
    let told_of = ["issued_token_type", "token_type", "scope"].map(|name| answer[name].as_str().unwrap_or_default());
    assert_eq!(told_of, [JWT, "Bearer", id("/deploy").as_str()]);
    let svid = answer["access_token"].as_str().expect("a token");
    let verified = Jwks::printed_by(&lab.server).verify(svid, "https://db.example.org", now_unix()).expect("verified");
    assert_eq!(verified["sub"], id("/deploy").as_str());
    let lasts = verified["exp"].as_i64().expect("a date") - verified["iat"].as_i64().expect("a date");
    assert!((190..=200).contains(&lasts) && answer["expires_in"] == lasts, "no longer than the token: {lasts}");
    let again = lab.jwt(&lab.token("job-1"));
    assert_eq!(told(&again), (400, "invalid_request", "token was exchanged already: it is good once"));
    let lines = lab.audit();
    let line = |status: &str| lines.iter().find(|line| line["status"] == status).expect("a line");
    let done = format!("{} audience https://db.example.org for ci repo:acme/app", id("/deploy"));
    assert_eq!(line("success")["object"], done.as_str());
    assert_eq!(line("error")["object"], "ci repo:acme/app", "{lines:?}");
    assert!(line("success")["caller"].as_str().is_some_and(|caller| caller.starts_with("127.0.0.1:")), "{lines:?}");
}

#[test]
fn a_certificate_request_gets_an_x509_svid_of_the_entrys_names_for_its_key() {
    let lab = Lab::new("");
    lab.entry("cluster", "/batch", &["oidc:sub:system:serviceaccount:jobs:batch"], &["-dns", "batch.example.org"]);
    let mut claims = lab.claims("j");
    (claims["iss"], claims["sub"]) =
        ("https://kubernetes.default.svc".into(), "system:serviceaccount:jobs:batch".into());
    let key = KeyPair::generate().expect("a key");
    let mut wishes = CertificateParams::new(vec!["evil.example.org".to_owned()]).expect("legal");
    wishes.distinguished_name.push(rcgen::DnType::CommonName, "evil");
    let csr = wishes.serialize_request(&key).expect("signed").pem().expect("PEM");
    let more = [("requested_token_type", X509_SVID), ("csr", csr.as_str())];
    let (status, answer) = lab.exchange(&lab.cluster.sign(&claims), &more);
    assert_eq!((status, &answer["token_type"]), (200, &"N_A".into()), "{answer}\n{}", lab.server.log());
    let [chain, bundle] = ["access_token", "trust_bundle"].map(|name| answer[name].as_str().expect("PEM"));
    assert_eq!(bundle, lab.server.bundle_pem(), "what others are verified by");
    verified_by_openssl(lab.directory.path(), chain, bundle);
    let svid = Certificate::from_pem(&chain[..=chain.find("-----END").map(|at| at + 24).expect("PEM")])
        .expect("a certificate");
    let spki = svid.tbs_certificate().subject_public_key_info().to_der().expect("DER");
    assert_eq!(spki, key.subject_public_key_info());
    let text = format!("{:?}", svid.tbs_certificate().extensions());
    assert!(!text.contains("evil"), "names come from the entry");
    let left = svid.tbs_certificate().validity().not_after.to_unix_duration().as_secs() as i64 - now_unix();
    assert!((150..=200).contains(&left), "no longer than the token: {left}");
}

fn verified_by_openssl(directory: &Path, chain: &str, bundle: &str) {
    let [chain_file, bundle_file] = ["chain.pem", "bundle.pem"].map(|name| directory.join(name));
    std::fs::write(&chain_file, chain).expect("written");
    std::fs::write(&bundle_file, bundle).expect("written");
    let mut openssl = Command::new("openssl");
    openssl.arg("verify").arg("-CAfile").arg(&bundle_file).arg("-untrusted").args([&chain_file, &chain_file]);
    let output = openssl.output().expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

//= EXC-06
#[test]
fn which_identity_a_token_has_entries_say_and_nobody_else() {
    let lab = Lab::new("");
    let refused = |token: &str, scope: &str| lab.exchange(token, &[("audience", "a"), ("scope", scope)]);
    let none = refused(&lab.token("1"), "");
    assert_eq!(
        told(&none).2,
        format!("no entry below {} is for a token that says repo:acme/app", id("/spire/exchange/ci"))
    );
    lab.entry("ci", "/deploy", &["oidc:ref:refs/heads/main"], &[]);
    lab.entry("ci", "/release", &["oidc:ref:refs/tags/v1"], &[]);
    // Below another issuer, below an agent, below the server: for nobody's token of this one.
    lab.entry("cluster", "/cluster", &["oidc:ref:refs/heads/main"], &[]);
    lab.server.create_entry(&id("/spire/agent/x"), "/agent", &["oidc:ref:refs/heads/main"], &[]);
    lab.server.cli(&["entry", "create", "-node", "-spiffeID", &id("/group"), "-selector", "oidc:ref:refs/heads/main"]);
    assert_eq!(refused(&lab.token("2"), "").0, 200, "one is left");
    let wrong = refused(&lab.token("3"), &id("/release"));
    let words = format!(
        "the token may have none of the identities below {} called {}",
        id("/spire/exchange/ci"),
        id("/release")
    );
    assert_eq!(told(&wrong), (400, "invalid_scope", words.as_str()));
    lab.entry("ci", "/test", &["oidc:sub:repo:acme/app"], &[]);
    let several = refused(&lab.token("4"), "");
    let several_words =
        format!("the token may have several identities, name one as scope: {}, {}", id("/deploy"), id("/test"));
    assert_eq!(told(&several), (400, "invalid_scope", several_words.as_str()));
    assert_eq!(
        refused(&lab.token("4"), &id("/test")).1["scope"],
        id("/test").as_str(),
        "a refused token is not used up"
    );
    lab.entry("ci", "/admin", &["oidc:sub:repo:acme/app"], &["-admin"]);
    let privileged = refused(&lab.token("5"), &id("/admin"));
    let words = format!("{} has rights at this server (admin, downstream): no token is exchanged for it", id("/admin"));
    assert_eq!(told(&privileged), (400, "invalid_request", words.as_str()));
    let told_of = told(&refused(&lab.token("5"), "")).2.to_owned();
    assert_eq!(told_of, several_words, "what has rights is no choice");
    // Rights are an identity's, whichever entry gives them.
    lab.entry("ci", "/ops", &["oidc:sub:repo:acme/app"], &[]);
    lab.server.create_entry(&id("/host"), "/ops", &["unix:uid:0"], &["-admin"]);
    let wanted = refused(&lab.token("5"), &id("/ops"));
    assert!(told(&wanted).2.starts_with(&format!("{} has rights at this server", id("/ops"))), "{wanted:?}");
    let mut foreign = lab.claims("6");
    foreign["owner"] = "evil".into();
    let missing = refused(&lab.key.sign(&foreign), &id("/test"));
    assert_eq!(told(&missing).2, "token does not say oidc:owner:acme, as each of this issuer's must");
}

//= EXC-06
#[test]
fn neither_a_used_token_nor_a_deleted_entry_is_good_again_after_a_restart() {
    let mut lab = Lab::new("");
    lab.entry("ci", "/deploy", &["oidc:sub:repo:acme/app"], &["-entryID", "ci-deploy"]);
    assert_eq!(lab.jwt(&lab.token("1")).0, 200);
    lab.server.restart();
    assert_eq!(told(&lab.jwt(&lab.token("1"))).2, "token was exchanged already: it is good once");
    assert_eq!(lab.jwt(&lab.token("2")).0, 200, "the entry is found again");
    lab.server.cli(&["entry", "delete", "-entryID", "ci-deploy"]);
    assert_eq!(lab.jwt(&lab.token("3")).0, 400);
}

//= EXC-06
#[test]
fn a_caller_that_hangs_up_leaves_a_token_that_is_still_good_or_a_line_of_what_was_issued() {
    let lab = Lab::new("");
    lab.entry("ci", "/deploy", &["oidc:sub:repo:acme/app"], &[]);
    let jobs: Vec<String> = (0..12).map(|number| format!("job-{number}")).collect();
    for (number, job) in jobs.iter().enumerate() {
        // Each has a little longer, so that some hang up before, some while and some after it is signed.
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", &format!("0.{:03}", 4 + 5 * number), "--cacert"]).arg(lab.web.authority());
        let token = format!("subject_token={}", lab.token(job));
        for form in [format!("grant_type={GRANT}"), format!("subject_token_type={JWT}"), "audience=db".into(), token] {
            curl.args(["--data-urlencode", &form]);
        }
        curl.arg(format!("https://localhost:{}/token", lab.port)).output().expect("curl runs");
    }
    let good = jobs.iter().filter(|job| lab.jwt(&lab.token(job)).0 == 200).count();
    // Those that were good are used up now, with a line each; so are the others, or they would have been good.
    let issued = || lab.audit().iter().filter(|line| line["status"] == "success").count();
    let lines = || format!("{:?}", lab.audit());
    expect_within(DEADLINE, "a line for each token", lines, || issued() == jobs.len());
    assert!(jobs.iter().all(|job| lab.jwt(&lab.token(job)).0 == 400), "{good} were good");
}

#[test]
fn tokens_that_were_shown_are_counted_by_what_came_of_it() {
    let (mut lab, port) = (Lab::new(""), free_port());
    metrics::switch_on(&lab.server.config_path(), port);
    lab.server.restart();
    lab.entry("ci", "/deploy", &["oidc:sub:repo:acme/app"], &[]);
    assert_eq!([lab.jwt(&lab.token("1")).0, lab.jwt(&lab.token("1")).0, lab.jwt("a.b.c").0], [200, 400, 400]);
    let page = metrics::scrape(port).expect("answers");
    let times = |status: &str| {
        let status = format!("status=\"{status}\"");
        metrics::value(&page, "ironroot_server_token_exchanges_total", &[&status])
    };
    assert_eq!([times("OK"), times("PermissionDenied")], [Some(1.0), Some(2.0)], "{page}");
}

#[test]
fn what_is_no_request_is_answered_without_a_look_at_the_token() {
    let lab = Lab::new("");
    let arguments = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let status = |path: &str, all: &[&str]| lab.curl(path, &arguments(all)).0;
    assert_eq!(status("/token", &[]), 405, "GET");
    assert_eq!(status("/token", &["--data", "{}", "--header", "content-type: application/json"]), 415);
    assert_eq!(status("/", &["--data", "a=b"]), 404);
    let file = lab.directory.path().join("large");
    std::fs::File::create(&file).and_then(|mut file| file.write_all(&[b'a'; 70_000])).expect("written");
    assert_eq!(status("/token", &["--data-binary", &format!("@{}", file.display())]), 413);
    let refused = lab.post(&[("grant_type", "password")]);
    assert_eq!(told(&refused).1, "unsupported_grant_type");
    let refused = lab.exchange("a.b.c", &[]);
    assert_eq!(told(&refused), (400, "invalid_target", "audience must be specified"));
    let refused = lab.jwt("a.b.c");
    assert_eq!(told(&refused).1, "invalid_request");
    assert_eq!(lab.issuer.asked(), 2, "the issuer was asked at the start and by no such request");
}

#[test]
fn without_jwt_svids_an_x509_svid_is_what_a_token_is_exchanged_for() {
    let lab = Lab::new("disable_jwt_svids = true");
    lab.entry("ci", "/deploy", &["oidc:sub:repo:acme/app"], &[]);
    let refused = lab.jwt(&lab.token("1"));
    assert_eq!(told(&refused), (400, "invalid_request", "JWT-SVIDs are disabled at this server"));
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate().expect("a key")).expect("signed");
    let more = [("requested_token_type", X509_SVID), ("csr", &csr.pem().expect("PEM"))];
    assert_eq!(lab.exchange(&lab.token("1"), &more).0, 200, "the token was not used up");
}

#[test]
fn where_lines_are_required_nothing_is_exchanged_without_them() {
    let lab = Lab::audited(Some(Path::new("/dev/full")), "audit_log_required = true");
    let refused = lab.jwt(&lab.token("1"));
    let (status, error, words) = told(&refused);
    assert_eq!((status, error), (503, "temporarily_unavailable"));
    assert!(words.contains("audit_log_required"), "{words}");
}

#[test]
fn the_lines_of_the_handbook_are_what_a_job_types() {
    let lab = Lab::new("");
    lab.entry("ci", "/deploy", &["oidc:sub:repo:acme/app"], &[]);
    let run = |first: &str, job: &str| {
        let lines = handbook::block(first)
            .replace("https://spire.example.org:8444", &format!("https://localhost:{}", lab.port));
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", &lines]).current_dir(lab.directory.path());
        let output =
            shell.env("TOKEN", lab.token(job)).env("CURL_CA_BUNDLE", lab.web.authority()).output().expect("bash runs");
        assert!(output.status.success(), "{lines}\n{}", String::from_utf8_lossy(&output.stderr));
    };
    run("curl -sS --fail-with-body https://spire.example.org:8444/token", "1");
    run("openssl req -new -newkey ec", "2");
    let read = |name: &str| std::fs::read_to_string(lab.directory.path().join(name)).expect("written");
    let verified = Jwks::printed_by(&lab.server).verify(read("svid.jwt").trim(), "https://db.example.org", now_unix());
    assert_eq!(verified.expect("verified")["sub"], id("/deploy").as_str());
    verified_by_openssl(lab.directory.path(), &read("svid.pem"), &read("bundle.pem"));
}
