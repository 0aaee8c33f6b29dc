//! A secret store that workloads log in to with JWT-SVIDs: a real OpenBao (as Vault), set up by the very lines of the handbook.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ironroot_lab::deployment::{DEADLINE, Process, Server, ServerOptions, TRUST_DOMAIN, expect_within, free_port};
use ironroot_lab::handbook;
use ironroot_lab::web_certificate::WebCertificate;
use serde_json::Value;

const AUDIENCE: &str = "https://bao.example.org:8200";

/// What `scripts/setup --tests` has installed.
fn bao() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/bao");
    assert!(path.exists(), "{} is missing: run scripts/setup --tests", path.display());
    path
}

struct Lab {
    _web: WebCertificate,
    server: Server,
    bao: Process,
    address: String,
    issuer: String,
}

impl Lab {
    fn new() -> Self {
        let (web, port, bao_port) = (WebCertificate::new(), free_port(), free_port());
        let (issuer, server_lines) = web.oidc_discovery(port);
        let server = Server::start(&ServerOptions { server_lines, ..Default::default() });
        let arguments =
            ["server", "-dev", "-dev-root-token-id=root", "-dev-no-store-token"].map(str::to_owned).into_iter();
        let arguments = arguments.chain([format!("-dev-listen-address=127.0.0.1:{bao_port}")]);
        let environment = [("SSL_CERT_FILE", web.authority()), ("HOME", server.directory().to_owned())];
        let environment = environment.map(|(name, value)| (name.to_owned(), value));
        let log = server.directory().join("bao.log");
        let bao = Process::start(&bao(), &arguments.collect::<Vec<_>>(), &environment, &log);
        let address = format!("http://127.0.0.1:{bao_port}");
        let lab = Self { _web: web, server, bao, address, issuer };
        let answers = || lab.run("root", "bao status").status.success();
        expect_within(DEADLINE, "OpenBao is unsealed", || lab.bao.log(), answers);
        lab
    }

    /// What a shell makes of `script`, as who has that token of OpenBao's.
    fn run(&self, token: &str, script: &str) -> Output {
        let mut command = Command::new("bash");
        let path = format!("{}:/usr/bin:/bin", bao().parent().expect("a directory").display());
        command
            .env("PATH", path)
            .env("BAO_ADDR", &self.address)
            .env("BAO_TOKEN", token)
            .env("HOME", self.server.directory());
        command.args(["-eu", "-o", "pipefail", "-c"]).arg(script).output().expect("bash")
    }

    fn administrator(&self, script: &str) {
        let output = self.run("root", script);
        assert!(output.status.success(), "{script}: {}\n{}", String::from_utf8_lossy(&output.stderr), self.bao.log());
    }

    fn jwt_svid(&self, path: &str, audience: &str) -> String {
        let id = format!("spiffe://{TRUST_DOMAIN}{path}");
        self.server.cli(&["jwt", "mint", "-spiffeID", &id, "-audience", audience]).trim().to_owned()
    }

    /// The token of OpenBao's that a JWT-SVID is worth.
    fn log_in(&self, jwt: &str) -> Result<String, String> {
        let output = self.run("", &format!("bao write -format=json auth/jwt/login role=app jwt={jwt}"));
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        Ok(json["auth"]["client_token"].as_str().expect("a token").to_owned())
    }

    fn secret(&self, token: &str) -> String {
        let output = self.run(token, "bao kv get -field=password secret/app");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }
}

#[test]
fn a_workload_logs_in_to_openbao_with_its_jwt_svid_before_and_after_the_key_is_rotated_and_nobody_else_does() {
    let lab = Lab::new();
    let lines = handbook::block("bao auth enable jwt").replace("https://oidc.example.org", &lab.issuer);
    lab.administrator(&lines.replace("spiffe://example.org/", &format!("spiffe://{TRUST_DOMAIN}/")));
    let before = lab.jwt_svid("/app", AUDIENCE);
    let token = lab.log_in(&before).unwrap_or_else(|why| panic!("{why}\n{}", lab.bao.log()));
    assert_eq!(lab.secret(&token), "hunter2");

    let other = lab.log_in(&lab.jwt_svid("/other", AUDIENCE)).expect_err("another workload");
    assert!(other.contains("(sub)"), "{other}");
    let elsewhere = lab.log_in(&lab.jwt_svid("/app", "https://elsewhere")).expect_err("a token for somebody else");
    assert!(elsewhere.contains("(aud)"), "{elsewhere}");
    let mut forged = before.clone();
    forged.truncate(before.len() - 8);
    lab.log_in(&(forged + "AAAAAAAA")).expect_err("a signature that is none");

    let prepared: Value =
        serde_json::from_str(&lab.server.cli(&["localauthority", "jwt", "prepare", "-output", "json"])).expect("JSON");
    let next = prepared["prepared_authority"]["authority_id"].as_str().expect("an ID");
    lab.server.cli(&["localauthority", "jwt", "activate", "-authorityID", next]);
    let after = lab.jwt_svid("/app", AUDIENCE);
    let token = lab.log_in(&after).unwrap_or_else(|why| panic!("{why}\n{}", lab.bao.log()));
    assert_eq!(lab.secret(&token), "hunter2");
    lab.log_in(&before).expect("tokens of the key before are good until they end");
}
