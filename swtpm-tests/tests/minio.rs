//! Object storage that gives credentials for JWT-SVIDs, as a cloud's AssumeRoleWithWebIdentity does: a real MinIO, set up by the very lines of
//! the handbook. By night: `scripts/setup --minio` compiles it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ironroot_lab::deployment::{DEADLINE, Process, Server, ServerOptions, TRUST_DOMAIN, expect_within, free_port};
use ironroot_lab::handbook;
use ironroot_lab::web_certificate::WebCertificate;
use serde_json::json;

const AUDIENCE: &str = "https://minio.example.org";
const ROOT: &str = "root-of-the-lab";

/// What `scripts/setup --minio` has built.
fn minio() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/go/bin/minio");
    assert!(path.exists(), "{} is missing: run scripts/setup --minio", path.display());
    path
}

/// What credentials are.
struct Credentials {
    key: String,
    secret: String,
    session: String,
}

struct Lab {
    _web: WebCertificate,
    server: Server,
    minio: Process,
    address: String,
    role: String,
}

impl Lab {
    fn new() -> Self {
        let (web, port, minio_port) = (WebCertificate::new(), free_port(), free_port());
        let (issuer, server_lines) = web.oidc_discovery(port);
        let server = Server::start(&ServerOptions { server_lines, ..Default::default() });
        let lines = handbook::block("export MINIO_IDENTITY_OPENID_CONFIG_URL=");
        let lines =
            lines.replace("https://oidc.example.org", &issuer).replace(":9000", &format!("127.0.0.1:{minio_port}"));
        let lines = lines.replace("/srv/minio", &server.directory().join("minio").display().to_string());
        let directory = minio().parent().expect("a directory").display().to_string();
        let environment = [
            ("SSL_CERT_FILE", web.authority()),
            ("HOME", server.directory().to_owned()),
            ("PATH", format!("{directory}:/usr/bin:/bin").into()),
            ("MINIO_ROOT_USER", ROOT.into()),
            ("MINIO_ROOT_PASSWORD", ROOT.into()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value));
        let log = server.directory().join("minio.log");
        let arguments = ["-eu", "-c", &lines].map(str::to_owned);
        let minio = Process::start(Path::new("/bin/bash"), &arguments, &environment, &log);
        let address = format!("http://127.0.0.1:{minio_port}");
        let mut lab = Self { _web: web, server, minio, address, role: String::new() };
        let is_ready = || lab.run("curl -sf $AT/minio/health/cluster").status.success() && lab.told_role().is_some();
        expect_within(DEADLINE, "MinIO is ready and tells its role", || lab.minio.log(), is_ready);
        lab.role = lab.told_role().expect("it was there");
        lab
    }

    /// The role that the log of its start names.
    fn told_role(&self) -> Option<String> {
        let log = self.minio.log();
        let from = log.find("arn:minio:iam:")?;
        Some(log[from..].split(|c: char| c.is_whitespace() || c == '\u{1b}').next()?.to_owned())
    }

    /// What a shell makes of `script`; it has MinIO's address as `AT`.
    fn run(&self, script: &str) -> Output {
        let mut command = Command::new("bash");
        command.env("AT", &self.address).args(["-eu", "-o", "pipefail", "-c"]).arg(script).output().expect("bash")
    }

    fn jwt_svid(&self, audience: &str) -> String {
        let id = format!("spiffe://{TRUST_DOMAIN}/app");
        self.server.cli(&["jwt", "mint", "-spiffeID", &id, "-audience", audience]).trim().to_owned()
    }

    /// What the workload's lines of the handbook get for that token; else what MinIO says.
    fn assume_role(&self, jwt: &str) -> Result<Credentials, String> {
        let lines = handbook::block("curl -s http://localhost:9000 -d Action=AssumeRoleWithWebIdentity");
        let lines = lines.replace("http://localhost:9000", "$AT");
        let output = self.run(&format!("JWT='{jwt}' ROLE='{}'\n{lines}", self.role));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let field = |name: &str| {
            let (_, from) = said.split_once(&format!("<{name}>"))?;
            Some(from.split_once('<')?.0.to_owned())
        };
        let found = || {
            let (key, secret, session) = (field("AccessKeyId")?, field("SecretAccessKey")?, field("SessionToken")?);
            Some(Credentials { key, secret, session })
        };
        found().ok_or_else(|| said.clone() + &String::from_utf8_lossy(&output.stderr))
    }

    /// A request of S3's, signed with these: its status, and what comes back.
    fn s3(&self, credentials: &Credentials, arguments: &str) -> String {
        let Credentials { key, secret, session } = credentials;
        let session = if session.is_empty() { String::new() } else { format!("-H 'x-amz-security-token: {session}'") };
        let script = format!(
            "curl -s -w '%{{http_code}}' -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' --aws-sigv4 aws:amz:us-east-1:s3 --user '{key}:{secret}' {session} {arguments}"
        );
        String::from_utf8_lossy(&self.run(&script).stdout).into_owned()
    }
}

fn administrator() -> Credentials {
    Credentials { key: ROOT.to_owned(), secret: ROOT.to_owned(), session: String::new() }
}

/// A token by HMAC with an empty key, under the name by which MinIO knows the client's secret.
fn forged() -> String {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({ "alg": "HS256", "kid": AUDIENCE, "typ": "JWT" }));
    let claims = part(json!({ "aud": AUDIENCE, "sub": "spiffe://evil/app", "exp": 4_000_000_000_u64 }));
    let signed = format!("{header}.{claims}");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b""), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[test]
#[ignore = "compiles MinIO: by night, after scripts/setup --minio"]
fn a_workload_assumes_a_role_with_its_jwt_svid_before_and_after_the_key_is_rotated_and_nobody_else_does() {
    let lab = Lab::new();
    assert!(lab.s3(&administrator(), "-X PUT $AT/shelf").ends_with("200"), "{}", lab.minio.log());
    assert!(lab.s3(&administrator(), "-X PUT -d hunter2 $AT/shelf/book").ends_with("200"), "{}", lab.minio.log());

    let before = lab.jwt_svid(AUDIENCE);
    let credentials = lab.assume_role(&before).unwrap_or_else(|why| panic!("{why}\n{}", lab.minio.log()));
    assert_eq!(lab.s3(&credentials, "$AT/shelf/book"), "hunter2200");
    assert!(lab.s3(&credentials, "-X PUT -d mine $AT/shelf/book").ends_with("403"), "the role only reads");

    let refused = |jwt: &str| lab.assume_role(jwt).map(|found| found.key).expect_err("it is nobody's here");
    let elsewhere = refused(&lab.jwt_svid("https://elsewhere"));
    assert!(elsewhere.contains("must match configured OpenID Client ID"), "{elsewhere}");
    let mut damaged = before.clone();
    damaged.truncate(before.len() - 8);
    refused(&(damaged + "AAAAAAAA"));
    refused(&forged());

    let prepared: serde_json::Value =
        serde_json::from_str(&lab.server.cli(&["localauthority", "jwt", "prepare", "-output", "json"])).expect("JSON");
    let next = prepared["prepared_authority"]["authority_id"].as_str().expect("an ID");
    lab.server.cli(&["localauthority", "jwt", "activate", "-authorityID", next]);
    let after = lab.jwt_svid(AUDIENCE);
    let credentials = lab.assume_role(&after).unwrap_or_else(|why| panic!("{why}\n{}", lab.minio.log()));
    assert_eq!(lab.s3(&credentials, "$AT/shelf/book"), "hunter2200");
    lab.assume_role(&before).map(drop).expect("tokens of the key before are good until they end");
}
