//! The `token_exchange` block: whose tokens are taken, and each mistake in it with its line.

use std::path::Path;

use ironroot_api::jwt::Algorithm;
use ironroot_server::config::{ServerConfig, TokenExchangeConfig};
use ironroot_server::token_exchange::KeySource;
use ironroot_shell::settings::{ConfigErrors, Settings};

const TOKEN: &str =
    "KeyManager \"pkcs11\" { plugin_data { module_path = \"/p11.so\" token_label = \"t\" pin_file = \"/pin\" } }";
const CERTIFICATE: &str = "serving_cert_file { cert_file_path = \"/c\" key_file_path = \"/k\" }";

fn read(exchange: &str) -> Result<ServerConfig, ConfigErrors> {
    let text = format!(
        "server {{\n trust_domain = \"td\"\n data_dir = \"d\"\n token_exchange {{\n {exchange}\n }}\n}}\nplugins {{ {TOKEN} NodeAttestor \"join_token\" {{ }}\n}}\n"
    );
    ServerConfig::from_settings(Settings::parse(Path::new("server.conf"), &text)?, &[])
}

fn good(issuers: &str) -> TokenExchangeConfig {
    let read = read(&format!("port = 8444 {CERTIFICATE}\n {issuers}"));
    read.unwrap_or_else(|mistakes| panic!("{mistakes}")).token_exchange.expect("it is there")
}

fn mistakes(exchange: &str) -> String {
    read(exchange).expect_err("mistakes").to_string()
}

#[test]
fn an_issuer_is_its_name_its_url_and_for_whom_its_tokens_are() {
    let exchange = good("issuer \"ci\" {\n url = \"https://ci.example/a/\"\n audience = [\"me\"]\n }");
    assert_eq!(exchange.address.to_string(), "0.0.0.0:8444");
    let [issuer] = &exchange.issuers[..] else { panic!("{:?}", exchange.issuers) };
    assert_eq!((issuer.name.as_str(), issuer.parent.as_str()), ("ci", "spiffe://td/spire/exchange/ci"));
    assert_eq!((issuer.url.as_str(), issuer.single_use), ("https://ci.example/a/", true), "to the letter");
    assert_eq!(issuer.algorithms, [Algorithm::Rs256, Algorithm::Es256]);
    assert!(issuer.required.is_empty());
    let KeySource::Discovery { url, ca_file: None } = &issuer.keys else { panic!("{:?}", issuer.keys) };
    assert_eq!(url.as_str(), "https://ci.example/a/.well-known/openid-configuration");
    assert_eq!(read_nothing().token_exchange, None, "off unless it is asked for");
}

fn read_nothing() -> ServerConfig {
    let text = format!(
        "server {{ trust_domain = \"td\" data_dir = \"d\" }}\nplugins {{ {TOKEN} NodeAttestor \"join_token\" {{ }} }}\n"
    );
    let settings = Settings::parse(Path::new("server.conf"), &text).expect("HCL");
    ServerConfig::from_settings(settings, &[]).expect("good")
}

#[test]
fn an_issuer_may_be_told_more_closely() {
    let exchange = good(
        "issuer \"github\" {\n url = \"https://token.actions.githubusercontent.com\"\n audience = [\"me\", \"us\"]
            required_claims = [\"repository_owner_id:65\", \"sub:repo:a/b:ref:refs/heads/main\"]\n algorithms = [\"ES384\", \"PS256\"]\n single_use = false\n }
        issuer \"file\" {\n url = \"https://b.example\"\n audience = [\"me\"]\n jwks_file = \"/keys\"\n }",
    );
    let [github, file] = &exchange.issuers[..] else { panic!("{:?}", exchange.issuers) };
    let required: Vec<String> = github.required.iter().map(ToString::to_string).collect();
    assert_eq!(required, ["oidc:repository_owner_id:65", "oidc:sub:repo:a/b:ref:refs/heads/main"]);
    assert_eq!((&github.algorithms[..], github.single_use), (&[Algorithm::Es384, Algorithm::Ps256][..], false));
    assert!(matches!(&file.keys, KeySource::File(path) if path == Path::new("/keys")));
}

#[test]
fn every_mistake_is_told_at_once() {
    let told = mistakes(
        "issuer \"a/b\" {\n url = \"http://ci.example\"\n algorithms = [\"none\", \"HS256\"]\n required_claims = [\"sub\"]\n typo = 1\n }
        issuer \"gitlab\" {\n url = \"https://gitlab.com\"\n audience = []\n jwks_file = \"/k\"\n ca_file = \"/c\"\n }",
    );
    for part in [
        "port: missing",
        "serving_cert_file: missing: tokens are shown over HTTPS alone",
        "must use the https scheme",
        "not one of RS256",
        "a claim is written name:value",
        "typo",
        "is the last part of its entries' parent",
        "everybody has tokens of this issuer: say whose count",
        "for whom its tokens are to be",
        "with jwks_file nothing is fetched",
    ] {
        assert!(told.contains(part), "{part}:\n{told}");
    }
    assert!(mistakes(&format!("port = 1 {CERTIFICATE}")).contains("whose tokens?"));
    let plain = mistakes(&format!(
        "port = 1 {CERTIFICATE} issuer \"a\" {{ url = \"http://ci.example\" audience = [\"me\"] jwks_file = \"/keys\" }}"
    ));
    assert!(plain.contains("an issuer's URL must use the https scheme"), "{plain}");
    assert!(!plain.contains("unknown key"), "one mistake is not told as two: {plain}");
    let issuer = |name: &str| format!("issuer \"{name}\" {{ url = \"https://ci.example\" audience = [\"me\"] }}");
    let twice = mistakes(&format!("port = 1 {CERTIFICATE} {} {}", issuer("a"), issuer("b")));
    assert!(twice.contains("https://ci.example is named twice"), "{twice}");
    let many: String = (0..=ironroot_server::config::MAX_ISSUERS).map(|n| issuer(&format!("i{n}"))).collect();
    assert!(mistakes(&format!("port = 1 {CERTIFICATE} {many}")).contains("more than 16"));
}
