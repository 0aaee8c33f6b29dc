//! `acme` blocks of the configuration: what they mean, and every mistake with its line.

use std::path::{Path, PathBuf};

use ironroot_server::config::{
    AcmeConfig, ConfigErrors, MAX_ACME_NAMES, OidcListener, ServerConfig, WebCertificate, WebIdentity,
};
use ironroot_shell::settings::Settings;

const WEB: &str = "port = 1 profile \"https_web\" {";

fn read(server: &str) -> Result<ServerConfig, ConfigErrors> {
    let text = format!(
        "server {{\n trust_domain = \"example.org\"\n data_dir = \"d\"\n {server}\n}}\nplugins {{ KeyManager \"memory\" {{ }} NodeAttestor \"join_token\" {{ }} }}\n"
    );
    ServerConfig::from_settings(Settings::parse(Path::new("server.conf"), &text)?, &[])
}

fn endpoint(inside: &str) -> Result<ServerConfig, ConfigErrors> {
    read(&format!("federation {{ bundle_endpoint {{ {inside} }} }}"))
}

fn discovery(inside: &str) -> Result<ServerConfig, ConfigErrors> {
    read(&format!("jwt_issuer = \"https://a.example\"\n oidc_discovery {{ {inside} }}"))
}

fn of_endpoint(config: ServerConfig) -> AcmeConfig {
    match config.federation.bundle_endpoint.expect("there is one").identity {
        WebIdentity::Web(WebCertificate::Acme(acme)) => acme,
        other => panic!("{other:?}"),
    }
}

#[test]
fn acme_is_read_in_spires_forms() {
    let block = "domain_name = \"Bundle.example\" email = \"a@example.org\" tos_accepted = true";
    let acme = of_endpoint(endpoint(&format!("{WEB} acme {{ {block} }} }}")).expect("loads"));
    assert_eq!(acme.directory_url.as_str(), "https://acme-v02.api.letsencrypt.org/directory");
    assert_eq!(
        (acme.names, acme.email.as_str(), acme.cache_dir),
        (vec!["bundle.example".into()], "a@example.org", None)
    );
    let elsewhere = format!("{WEB} acme {{ {block} directory_url = \"https://ca.example/dir\" }} }}");
    assert_eq!(of_endpoint(endpoint(&elsewhere).expect("loads")).directory_url.as_str(), "https://ca.example/dir");
    let old = endpoint(&format!("port = 1 acme {{ {block} }}")).expect("SPIRE's form of before there were profiles");
    assert!(old.warnings.iter().any(|line| line.contains("acme: is deprecated here")), "{:?}", old.warnings);
    assert_eq!(of_endpoint(old).names, ["bundle.example"]);

    let account = "email = \"a@example.org\" tos_accepted = true cache_dir = \"/c\"";
    let config = discovery(&format!("domains = [\"b.example\", \"a.example\"] acme {{ {account} }}")).expect("loads");
    let Some(OidcListener::Https(at, WebCertificate::Acme(acme))) = config.oidc.map(|oidc| oidc.listener) else {
        panic!("by ACME")
    };
    assert_eq!(at.port(), 443);
    assert_eq!((acme.names, acme.cache_dir), (vec!["a.example".into(), "b.example".into()], Some(PathBuf::from("/c"))));
}

#[test]
fn each_mistake_in_an_acme_block_has_its_line_and_terms_that_are_not_accepted_are_one() {
    let good = "domain_name = \"a.example\" email = \"a@example.org\" tos_accepted = true";
    for (inside, whys) in [
        (format!("{WEB} acme {{ }} }}"), vec!["domain_name: missing", "email: missing", "tos_accepted: must be true"]),
        (
            format!("{WEB} acme {{ {} }} }}", good.replace("true", "false")),
            vec!["server.conf:4: ", "read the terms of service of the CA"],
        ),
        (
            format!("{WEB} acme {{ {} }} }}", good.replace("a.example", "*.example")),
            vec!["domain_name: \"*.example\": must be a DNS name"],
        ),
        (format!("{WEB} acme {{ {} }} }}", good.replace("a.example", "10.0.0.1")), vec!["must be a DNS name"]),
        (format!("{WEB} acme {{ {} }} }}", good.replace("a@", "a,b@")), vec!["must be one e-mail address"]),
        (
            format!("{WEB} acme {{ {good} directory_url = \"http://ca\" }} }}"),
            vec!["must be the https URL of a CA's directory"],
        ),
        (format!("{WEB} acme {{ {good} domain = \"x\" }} }}"), vec!["unknown key"]),
        (
            format!("{WEB} acme {{ {good} }} serving_cert_file {{ }} }}"),
            vec!["acme: give either this or serving_cert_file"],
        ),
        (
            format!("port = 1 acme {{ {good} }} profile \"https_spiffe\" {{ }}"),
            vec!["acme: give either this or profile"],
        ),
    ] {
        let said = endpoint(&inside).expect_err(&inside).to_string();
        whys.iter().for_each(|why| assert!(said.contains(why), "{inside}: {said}"));
    }
    let account = "email = \"a@example.org\" tos_accepted = true";
    let many = (0..=MAX_ACME_NAMES).map(|n| format!("\"n{n}.example\"")).collect::<Vec<_>>().join(", ");
    for (inside, why) in [
        (format!("domains = [{many}] acme {{ {account} }}"), "domains: certificates for at most 32 names"),
        (format!("domains = [\"10.0.0.1\"] acme {{ {account} }}"), "domains: \"10.0.0.1\": must be a DNS name"),
        (format!("domains = [\"a.example\"] acme {{ {account} cache_dir = \"\" }}"), "cache_dir: must not be empty"),
        (
            format!("domains = [\"a.example\"] acme {{ {account} }} listen_socket_path = \"/s\""),
            "give either this, serving_cert_file or acme",
        ),
        ("domains = [\"a.example\"]".to_owned(), "missing: give it, acme { email, tos_accepted }"),
    ] {
        let said = discovery(&inside).expect_err(&inside).to_string();
        assert!(said.contains(why), "{inside}: {said}");
    }
}
