//! The server's configuration: what loads, what it means, and every mistake with its line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ironroot_api::MlDsa;
use ironroot_attest::node::tpm2::PcrHash;
use ironroot_attest::node::x509pop::SizeLimits;
use ironroot_hsm::KeyKind;
use ironroot_server::config::{
    Admission, ConfigErrors, KeyManagerConfig, LoginMode, Override, PinSource, Pkcs11Config, ServerConfig,
    UpstreamConfig, WebCertificate, WebIdentity, X509PopMode,
};
use ironroot_server::store::Location;
use ironroot_shell::settings::Settings;
use ironroot_shell::telemetry::otlp::Collector;

const TOKEN: &str =
    r#"KeyManager "pkcs11" { plugin_data { module_path = "/m.so" token_label = "t" pin_env = "PIN" } }"#;

fn read(text: &str) -> Result<ServerConfig, ConfigErrors> {
    read_with(text, &[])
}

fn read_with(text: &str, overrides: &[Override]) -> Result<ServerConfig, ConfigErrors> {
    ServerConfig::from_settings(Settings::parse(Path::new("server.conf"), text)?, overrides)
}

fn minimal(server: &str, plugins: &str) -> String {
    format!(
        "server {{\n trust_domain = \"example.org\"\n data_dir = \"d\"\n {server}\n}}\nplugins {{ {TOKEN} NodeAttestor \"join_token\" {{ }}\n {plugins}\n}}\n"
    )
}

fn mistakes(text: &str) -> Vec<String> {
    read(text).expect_err("mistakes").to_string().lines().map(str::to_owned).collect()
}

#[test]
fn the_example_file_loads_and_so_does_every_key_it_only_shows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/server.conf");
    let config = ServerConfig::load(&path, &[], false).expect("the example loads");
    assert_eq!(config.warnings, Vec::<String>::new());
    let shown = std::fs::read_to_string(&path).expect("readable");
    let chosen =
        ["token_serial", "token_uri", "pin_credential", "pin_env", "# enrolled:", "# manufacturer:", "# approval:"];
    let text: Vec<&str> = shown
        .lines()
        .map(|line| match line.trim_start().strip_prefix("# ") {
            Some(code) if !chosen.iter().any(|c| line.contains(c)) && is_code(code) => code,
            _ => line,
        })
        .collect();
    // Of what there may be one of, one is read.
    let disk = "KeyManager \"disk\" {";
    let text = text.join("\n").replace(disk, &format!("{disk}\n    enabled = false"));
    let text = text.replace("KeyManager \"memory\" {", "KeyManager \"memory\" {\n    enabled = false");
    let all = read(&text).expect("every key it shows is known");
    assert_eq!(all.lifetimes.agent, Duration::from_secs(72 * 3600));
    assert_eq!(
        (all.prune_attested_nodes_expired_for, all.prune_tofu_nodes),
        (Some(Duration::from_secs(720 * 3600)), true)
    );
    assert!(all.balancers.have([192, 0, 2, 10].into()) && !all.balancers.have([192, 0, 3, 10].into()));
    let tpm2 = all.node_attestors.tpm2.expect("tpm2");
    assert_eq!((tpm2.pcrs.to_string().as_str(), tpm2.admission), ("0,2,4,7", Admission::Enrolled));
    assert_eq!(all.rate_limits, config.rate_limits);
    assert_eq!(all.ca_subject, config.ca_subject);
    let rootless = text.replacen("root {\n    enabled = true", "root {\n    enabled = false", 1);
    for name in ["disk", "pkcs11", "spire"] {
        let block = format!("UpstreamAuthority \"{name}\" {{\n    enabled = ");
        let chosen = rootless.replacen(&format!("{block}false"), &format!("{block}true"), 1);
        assert_ne!(chosen, rootless, "{name} is shown");
        assert!(read(&chosen).expect("its keys are known").upstream.is_some(), "{name}");
    }
}

#[test]
fn a_root_on_its_own_token_is_named_by_its_file_alone_or_with_the_whole_of_its_token() {
    let block = |lines: &str| minimal("", &format!("UpstreamAuthority \"pkcs11\" {{ plugin_data {{\n {lines}\n }} }}"));
    let token = "module_path = \"p.so\"\n token_label = \"ROOT\"\n pin_file = \"pin\"\n key_label = \"k\"";
    let roots = "roots_path = \"r.pem\"";
    for (lines, has_token) in [(roots.to_owned(), false), (format!("{roots}\n {token}"), true)] {
        let Some(UpstreamConfig::Token(root)) = read(&block(&lines)).expect(&lines).upstream else { panic!("{lines}") };
        assert_eq!((root.token.is_some(), root.ceremony_dir.as_path()), (has_token, Path::new("d/ceremony")));
    }
    let warned = read(&block(roots)).expect("loads").warnings.join("\n");
    assert!(warned.contains("the root has to be at hand every 12h"), "{warned}");
    let told = mistakes(&block("key_label = \"k\"")).join("\n");
    for key in ["roots_path", "module_path", "token_uri", "pin_file"] {
        assert!(told.contains(key), "{key} is not in: {told}");
    }
    let told = mistakes(&block(&format!("{roots}\n module_path = \"p.so\"\n pin = \"1234\""))).join("\n");
    assert!(told.contains("key_label") && told.contains("no place for a PIN"), "{told}");
}

/// A commented line that is configuration and no sentence.
fn is_code(comment: &str) -> bool {
    let comment = comment.trim();
    comment == "}" || comment.ends_with('{') || comment.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
}

fn token(config: &ServerConfig) -> &Pkcs11Config {
    config.key_managers.current.pkcs11().expect("a token")
}

#[test]
fn wit_svids_are_off_until_the_key_or_spires_feature_flag_switches_them_on() {
    for (lines, is_on) in [
        ("", false),
        ("enable_wit_svids = true", true),
        ("experimental { enable_wit_svids = true }", true),
        ("experimental { feature_flags = [\"wit-svid\"] }", true),
        ("experimental { feature_flags = [\"i_am_a_test_flag\"] }", false),
        ("experimental { wit_key_type = \"ec-p384\" }", false),
    ] {
        assert_eq!(read(&minimal(lines, "")).expect("loads").wit.is_some(), is_on, "{lines}");
    }
    let given = "enable_wit_svids = true experimental { wit_key_type = \"ec-p384\" wit_issuer = \"i\" }";
    let wit = read(&minimal(given, "")).expect("loads").wit.expect("on");
    assert_eq!((wit.key_kind, wit.issuer.as_deref()), (ironroot_hsm::KeyKind::EcP384, Some("i")));
    let beside = read(&minimal("enable_wit_svids = true ca_key_type = \"ml-dsa-44\"", "")).expect("loads");
    assert_eq!(beside.wit.expect("on").key_kind, KeyKind::EcP256);
    let refused = mistakes(&minimal("experimental { wit_key_type = \"ml-dsa-87\" }", ""));
    assert!(
        refused[0].contains("wit_key_type") && refused[0].contains("tokens are not signed with ML-DSA"),
        "{refused:?}"
    );
    let unknown = mistakes(&minimal("experimental { feature_flags = [\"wit\"] }", ""));
    assert!(unknown[0].contains("no such feature flag; there are wit-svid"), "{unknown:?}");
}

#[test]
fn defaults_are_spires() {
    let config = read(&minimal("", "")).expect("loads");
    assert_eq!(config.bind_address.to_string(), "0.0.0.0:8081");
    assert_eq!(config.socket_path, PathBuf::from("/tmp/spire-server/private/api.sock"));
    assert_eq!(config.data_store, Location::Sqlite("d/datastore.sqlite3".into()));
    assert_eq!(config.lifetimes.ca, Duration::from_secs(24 * 3600));
    assert_eq!(config.lifetimes.x509_svid, Duration::from_secs(3600));
    assert_eq!(config.lifetimes.agent, config.lifetimes.x509_svid);
    assert_eq!(config.lifetimes.jwt_svid, Duration::from_secs(300));
    let subject = &config.ca_subject;
    assert_eq!((subject.country.clone(), subject.organization.clone()), (vec!["US".into()], vec!["SPIFFE".into()]));
    assert!(config.rate_limits.attestation && config.rate_limits.signing && config.audit.enabled);
    assert_eq!((&config.audit.file, config.audit.required), (&None, false));
    assert_eq!(
        (token(&config).login.clone(), token(&config).sessions),
        (LoginMode::Pin(PinSource::Environment("PIN".into())), 4)
    );
    assert!(config.node_attestors.join_token && config.node_attestors.tpm2.is_none());
    assert_eq!((&config.health_checks, config.prune_attested_nodes_expired_for), (&None, None));
}

#[test]
fn the_forms_of_existing_files_are_understood() {
    let text = format!(
        "\"server\" = {{ trust_domain = \"td\", data_dir = \"./.data\", bind_port = \"8443\", bind_address = \"[::1]\"\n\
         ratelimit = {{ attestation = false }} experimental {{ }} profiling_enabled = false log_level = \"debug\" }}\n\
         plugins {{ DataStore \"sql\" {{ plugin_data {{ database_type = \"sqlite3\" connection_string = \"./.data/x.sqlite3\" }} }}\n\
         NodeAttestor \"join_token\" {{ plugin_data {{ }} }} NodeAttestor \"x509pop\" {{ enabled = false plugin_data {{ }} }} {TOKEN} }}\n\
         health_checks {{ listener_enabled = true bind_port = \"0\" }}"
    );
    let config = read(&text).expect("loads");
    assert_eq!(config.bind_address.to_string(), "[::1]:8443");
    assert_eq!(config.data_store, Location::Sqlite("./.data/x.sqlite3".into()));
    assert!(!config.rate_limits.attestation && config.rate_limits.signing);
    let health = config.health_checks.expect("enabled");
    assert_eq!((health.host.as_str(), health.port, health.ready_path.as_str()), ("localhost", 0, "/ready"));
}

//= FLT-S19 REG-14
#[test]
fn an_administrator_of_another_trust_domain_is_refused_with_what_is_the_matter() {
    let admin = r#"admin_ids = ["spiffe://example.org/a", "spiffe://other.org/b"]"#;
    let told = mistakes(&minimal(admin, ""));
    let wanted =
        "trust domain is \"other.org\", not \"example.org\": administrators of other trust domains are not supported";
    assert!(told.iter().any(|line| line.contains("server.admin_ids") && line.ends_with(wanted)), "{told:?}");
}

#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let text = r#"server {
    trust_domain = "Example.org"
    bind_address = "not an address"
    bind_port = 99999
    agent_ttl = "3 days"
    ca_ttl = "0s"
    ca_key_type = "rsa-1024"
    ca_subject { country = ["Germany"] }
    log_level = "loud"
    audit_log_enabled = "yes"
    federation { x = 1 }
    trust_domian = "x"
    admin_ids = ["spiffe://example.org/a", "nobody"]
}
telemetry { Statsd = [{ address = "localhost" }] M3 = [{ address = "x:1" env = "e" }] AllowedLabels = [] BlockedPrefixes = ["a b"] Prometheus { host = "x" tls { use_spire_svid = true } } MetricPrefix = "1" otlp { endpoint = "tcp://x:1" sample = 2 sample_one_in = 0 } }
plugins {
    DataStore "sql" { plugin_data { database_type = "mysql" connection_string = "x" } }
    KeyManager "aws_kms" { plugin_data { region = "r" } }
    NodeAttestor "aws_iid" { }
    NodeAttestor "tpm2" { plugin_data {
        admission = "everybody"
        pcrs = [0, 23]
    } }
    UpstreamAuthority "disk" { }
}
"#;
    let wanted = [
        "server.conf:1: server.data_dir: missing: give the directory the server may write to",
        "server.conf:2: server.trust_domain: \"Example.org\": trust domain must be 1 to 255 characters of a-z, 0-9, '.', '-' and '_'",
        "server.conf:3: server.bind_address: \"not an address\": not an IP address: give one of this machine's, or 0.0.0.0 for all",
        "server.conf:4: server.bind_port: \"99999\": not a whole number from 0 to 65535",
        "server.conf:5: server.agent_ttl: \"3 days\": not a duration: write numbers with units, such as 90s, 10m or 1h30m (units: ns, us, ms, s, m, h)",
        "server.conf:6: server.ca_ttl: must be from 1s to 87600h",
        "server.conf:7: server.ca_key_type: \"rsa-1024\": not a key type: use ec-p256, ec-p384, rsa-2048, rsa-4096, ml-dsa-44, ml-dsa-65 or ml-dsa-87",
        "server.conf:8: server.ca_subject.country: a country has two letters, such as \"DE\"",
        "server.conf:9: server.log_level: \"loud\": not a log level: use TRACE, DEBUG, INFO, WARN, ERROR, FATAL or PANIC",
        "server.conf:10: server.audit_log_enabled: expected true or false, found a string",
        "server.conf:11: server.federation.x: unknown key",
        "server.conf:12: server.trust_domian: unknown key: did you mean trust_domain?",
        "server.conf:13: server.admin_ids: \"nobody\": scheme is not \"spiffe://\"",
        "server.conf:15: telemetry.M3: not supported by ironroot-server: send metrics to Statsd or DogStatsd, or let Prometheus fetch them",
        "server.conf:15: telemetry.MetricPrefix: \"1\": a metric's name has letters, digits and '_', and begins with no digit",
        "server.conf:15: telemetry.BlockedPrefixes: \"a b\": names have letters, digits and '_', and '.' between their parts, such as spire_server.rpc",
        "server.conf:15: telemetry.Prometheus.port: missing: give the port that Prometheus asks, such as 9988",
        "server.conf:15: telemetry.Prometheus.tls.use_spire_svid: not supported by ironroot-server: give cert_file and key_file, and client_ca_file to say who may ask",
        "server.conf:15: telemetry.Prometheus.tls.cert_file: missing: give the PEM file with the listener's certificate",
        "server.conf:15: telemetry.Prometheus.tls.key_file: missing: give the PEM file with the certificate's private key",
        "server.conf:15: telemetry.Statsd[0].address: \"localhost\": give HOST:PORT, such as localhost:8125",
        "server.conf:15: telemetry.otlp.endpoint: \"tcp://x:1\": not an endpoint: write https://HOST:PORT, http://HOST:PORT or unix:///PATH",
        "server.conf:15: telemetry.otlp.sample_one_in: \"0\": not a whole number from 1 to 1000000",
        "server.conf:15: telemetry.otlp.sample: unknown key",
        "server.conf:17: plugins.DataStore.sql.plugin_data.database_type: \"mysql\": not supported by ironroot-server yet: use sqlite3 or postgres",
        "server.conf:18: plugins.KeyManager.aws_kms: not supported by ironroot-server yet: use \"pkcs11\", or \"disk\" for moving over from SPIRE",
        "server.conf:19: plugins.NodeAttestor.aws_iid: not supported by ironroot-server yet: use \"tpm2\", \"tpm\", \"tpm_devid\", \"x509pop\", \"sshpop\", \"http_challenge\" or \"join_token\"",
        "server.conf:21: plugins.NodeAttestor.tpm2.plugin_data.admission: \"everybody\": use enrolled (devices in the registry), manufacturer (their EK certificate) or approval (by hand)",
        "server.conf:22: plugins.NodeAttestor.tpm2.plugin_data.pcrs: \"23\" is not a PCR index from 0 to 15",
        "server.conf:24: plugins.UpstreamAuthority.disk.plugin_data.cert_file_path: missing: give the PEM file of the CA's certificate, and of what is between it and its root",
        "server.conf:24: plugins.UpstreamAuthority.disk.plugin_data.key_file_path: missing: give the PEM file of the CA's key",
    ];
    assert_eq!(mistakes(text), wanted);
}

#[test]
fn a_collector_has_a_place_that_says_how_it_is_reached_and_who_it_is() {
    let with = |otlp: &str| minimal("", "") + &format!("telemetry {{ otlp {{ {otlp} }} }}\n");
    let tls = Collector::Tls { host: "c.example".into(), port: 4317, ca_file: "/ca.pem".into() };
    for (otlp, place) in [
        ("endpoint = \"http://[::1]:1\"", Collector::Plain { host: "::1".into(), port: 1 }),
        ("endpoint = \"https://c.example/\" ca_file = \"/ca.pem\"", tls),
        ("endpoint = \"unix:///run/c.sock\"", Collector::Socket("/run/c.sock".into())),
    ] {
        let config = read(&with(otlp)).expect("loads");
        assert_eq!(config.traces.map(|traces| (traces.collector, traces.sample_one_in)), Some((place, 1)));
    }
    for (otlp, told) in [
        ("", "endpoint: missing: where the collector takes OTLP/gRPC: https://HOST:4317"),
        ("endpoint = \"https://c.example\"", "ca_file: missing: give the PEM file with the CAs that the collector's"),
        (
            "endpoint = \"http://localhost\" ca_file = \"/x\"",
            "ca_file: is for an endpoint of https: remove it, or write https",
        ),
        ("endpoint = \"https://c.example/v1/traces\" ca_file = \"/x\"", "OTLP over gRPC has no path: leave it out"),
        ("endpoint = \"https://me:pw@c.example\" ca_file = \"/x\"", "a user or password has no meaning here"),
        ("endpoint = \"unix://run/c.sock\"", "a socket's path is absolute: unix:///PATH"),
        ("endpoint = \"localhost:4317\"", "not an endpoint: write https://HOST:PORT"),
    ] {
        let found = mistakes(&with(otlp));
        assert!(found.len() == 1 && found[0].contains(told), "{otlp}: {found:?}");
    }
    let config = read(&with("endpoint = \"http://c.example\"")).expect("loads");
    assert!(config.warnings.iter().any(|line| line.contains("SPIFFE IDs go over the network in the clear")));
}

#[test]
fn an_empty_file_says_everything_that_is_needed() {
    let found = mistakes("");
    for needed in ["server.trust_domain: missing", "server.data_dir: missing", "KeyManager: missing"] {
        assert!(found.iter().any(|line| line.contains(needed)), "{needed} in {found:?}");
    }
}

#[test]
fn the_token_is_named_once_and_its_pin_never_written_down() {
    let with = |data: &str| {
        mistakes(&format!(
            "server {{ trust_domain = \"td\" data_dir = \"d\" }}\nplugins {{ NodeAttestor \"join_token\" {{ }} KeyManager \"pkcs11\" {{ plugin_data {{\n{data}\n}} }} }}"
        ))
    };
    let key = "plugins.KeyManager.pkcs11.plugin_data";
    assert_eq!(
        with("pin = \"1234\""),
        [
            format!(
                "server.conf:2: {key}.token_uri: missing: name the token with one of token_uri, token_label, token_serial"
            ),
            format!(
                "server.conf:2: {key}.module_path: missing: give the token maker's library, such as /usr/lib/softhsm/libsofthsm2.so"
            ),
            format!(
                "server.conf:2: {key}.pin_file: missing: say where the PIN comes from with one of pin_file, pin_credential, pin_env"
            ),
            format!(
                "server.conf:3: {key}.pin: a configuration file is no place for a PIN: put it in a file of mode 0600 and give pin_file"
            ),
        ]
    );
    assert_eq!(
        with("module_path = \"m\" pin_file = \"p\" pin_env = \"P\"\ntoken_label = \"a\" token_serial = \"b\""),
        [
            format!(
                "server.conf:3: {key}.pin_env: say where the PIN comes from with one of pin_file, pin_credential, pin_env, not with several"
            ),
            format!(
                "server.conf:4: {key}.token_serial: name the token with one of token_uri, token_label, token_serial, not with several"
            ),
        ]
    );
}

#[test]
fn a_pin_is_wanted_exactly_when_one_is_sent() {
    let with = |data: &str| {
        format!(
            "server {{ trust_domain = \"td\" data_dir = \"d\" }}\nplugins {{ NodeAttestor \"join_token\" {{ }} KeyManager \"pkcs11\" {{ plugin_data {{\nmodule_path = \"/m.so\" token_label = \"t\" {data}\n}} }} }}"
        )
    };
    let login = |data: &str| token(&read(&with(data)).expect("loads")).login.clone();
    assert_eq!(login("pin_credential = \"pin\""), LoginMode::Pin(PinSource::Credential("pin".into())));
    assert_eq!(login("login = \"pin\" pin_file = \"p\""), LoginMode::Pin(PinSource::File("p".into())));
    assert_eq!(login("login = \"pinpad\""), LoginMode::Pinpad);
    assert_eq!(login("login = \"none\""), LoginMode::None);
    for (data, expected) in [
        ("", "pin_file: missing: say where the PIN comes from"),
        ("login = \"pin\"", "pin_file: missing: say where the PIN comes from"),
        ("login = \"none\" pin_file = \"p\"", "login: \"none\" sends no PIN: remove where it comes from"),
        ("login = \"pinpad\" pin_env = \"P\"", "login: \"pinpad\" sends no PIN: remove where it comes from"),
        ("login = \"card\" pin_env = \"P\"", "login: \"card\": use pin (a PIN is sent), pinpad"),
    ] {
        let found = mistakes(&with(data));
        assert!(found.len() == 1 && found[0].contains(expected), "{data}: {found:?}");
    }
}

#[test]
fn at_most_one_authority_is_above_a_server_and_then_it_has_no_root_of_its_own() {
    let disk = "UpstreamAuthority \"disk\" { plugin_data { cert_file_path = \"c\" key_file_path = \"k\" } }";
    let spire = "UpstreamAuthority \"spire\" { plugin_data { server_address = \"up\" server_port = \"8081\" workload_api_socket = \"/s\" } }";
    assert_eq!(read(&minimal("", "")).expect("loads").upstream, None);
    let below_files = read(&minimal("", disk)).expect("loads");
    let Some(UpstreamConfig::Disk(files)) = &below_files.upstream else { panic!("{:?}", below_files.upstream) };
    assert_eq!((files.key_path.as_path(), &files.bundle_path), (Path::new("k"), &None));
    assert_eq!(below_files.lifetimes.root, None, "a root would have nothing to sign");
    let below_server = read(&minimal("root { enabled = false }", spire)).expect("loads");
    let Some(UpstreamConfig::Spire(server)) = &below_server.upstream else { panic!("{:?}", below_server.upstream) };
    assert_eq!((server.host.as_str(), server.port), ("up", 8081));
    let off = disk.replace("{ plugin_data", "{ enabled = false plugin_data");
    assert_eq!(read(&minimal("", &off)).expect("loads").upstream, None);
    let unique_ids = |plugins: &str| read(&minimal("", plugins)).map(|config| config.unique_ids);
    assert!(!unique_ids("").expect("loads") && unique_ids("CredentialComposer \"uniqueid\" {}").expect("loads"));
    for (lines, plugins, expected) in [
        (
            "",
            "CredentialComposer \"mine\" { }".to_owned(),
            "CredentialComposer.mine: not supported by ironroot-server yet",
        ),
        (
            "",
            "CredentialComposer \"uniqueid\" { plugin_data { oid = \"2.5.4.5\" } }".to_owned(),
            "CredentialComposer.uniqueid.plugin_data.oid: unknown key",
        ),
        ("root { ttl = \"175200h\" }", disk.to_owned(), "server.root: an UpstreamAuthority signs the CAs already"),
        ("", format!("{disk}\n{spire}"), "UpstreamAuthority.spire: only one can be enabled"),
        (
            "",
            "UpstreamAuthority \"vault\" { }".to_owned(),
            "UpstreamAuthority.vault: not supported by ironroot-server yet: use",
        ),
        ("", disk.replace("\"k\"", "\"k\" key_path = \"x\""), "plugin_data.key_path: unknown key"),
        ("", spire.replace("\"8081\"", "\"http\""), "server_port: \"http\": not a whole number"),
        (
            "",
            spire.replace("workload_api_socket = \"/s\"", ""),
            "workload_api_socket: missing: give the socket of the agent",
        ),
        ("", spire.replace("\"/s\"", "\"/s\" experimental { require_pq_kem = 7 }"), "require_pq_kem: "),
    ] {
        let found = mistakes(&minimal(lines, &plugins));
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
    }
}

#[test]
fn keys_of_an_administrator_are_named_by_identifier_or_label_and_each_once() {
    let with = |data: &str| {
        format!(
            "server {{ trust_domain = \"td\" data_dir = \"d\" }}\nplugins {{ NodeAttestor \"join_token\" {{ }} KeyManager \"pkcs11\" {{ plugin_data {{\nmodule_path = \"/m.so\" token_label = \"t\" pin_file = \"p\" {data}\n}} }} }}"
        )
    };
    let config = read(&with("key_labels = [\"a\", \"b\"] key_ids = [\"0A:01\"]")).expect("loads");
    let names: Vec<String> = token(&config).given_keys.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["CKA_ID 0a01", "CKA_LABEL \"a\"", "CKA_LABEL \"b\""]);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.jwt, None, "keys that were made for CAs do not go to JWT-SVIDs by themselves");
    let few = read(&with("key_labels = [\"a\", \"b\"]")).expect("loads").warnings;
    assert!(few.iter().any(|warning| warning.contains("need three keys")), "{few:?}");
    assert_eq!(read(&with("")).expect("loads").key_managers.given_keys(), 0);
    for (data, mistake) in [
        ("key_ids = [\"xyz\"]", "key_ids: \"xyz\": not a CKA_ID: write 1 to 255 bytes in hexadecimal"),
        ("key_labels = [\"\"]", "key_labels: \"\": a label is not empty"),
        ("key_labels = []", "key_labels: name at least one key, or remove it"),
        ("key_labels = [\"a\", \"b\", \"a\"]", "key_labels: CKA_LABEL \"a\" is named twice"),
    ] {
        let found = mistakes(&with(data));
        assert!(found.iter().any(|line| line.contains(mistake)), "{data}: {found:?}");
    }
}

#[test]
fn jwt_svids_are_signed_unless_they_are_disabled() {
    let jwt = |server: &str| read(&minimal(server, "")).expect("loads").jwt;
    let plain = jwt("").expect("by default");
    assert_eq!((plain.issuer, plain.svid_ttl_seconds), (None, 300));
    let said =
        jwt("jwt_issuer = \"https://oidc.example.org\" default_jwt_svid_ttl = \"1m\" jwt_key_type = \"ec-p256\"");
    let said = said.expect("not disabled");
    assert_eq!((said.issuer.as_deref(), said.svid_ttl_seconds), (Some("https://oidc.example.org"), 60));
    assert_eq!(jwt("jwt_issuer = \"\"").expect("not disabled").issuer, None);
    assert_eq!(jwt("disable_jwt_svids = true"), None);
    let given = "server { trust_domain = \"td\" data_dir = \"d\" disable_jwt_svids = false }\nplugins { NodeAttestor \"join_token\" { } \
                 KeyManager \"pkcs11\" { plugin_data { module_path = \"/m.so\" token_label = \"t\" pin_file = \"p\" key_labels = [\"a\"] } } }";
    assert!(read(given).expect("loads").jwt.is_some(), "where the file says so");
    let kind = |text: &str| jwt(&format!("jwt_key_type = \"{text}\"")).expect("not disabled").key_kind;
    let kinds = [KeyKind::EcP256, KeyKind::EcP384, KeyKind::Rsa2048, KeyKind::Rsa4096];
    assert_eq!(["ec-p256", "ec-p384", "rsa-2048", "rsa-4096"].map(kind), kinds);
    let other = given.replace("= false", "= false jwt_key_type = \"rsa-2048\"");
    for (text, words) in [
        (minimal("jwt_key_type = \"ed25519\"", ""), "not a key type: use ec-p256, ec-p384, rsa-2048 or rsa-4096"),
        (minimal("jwt_key_type = \"ml-dsa-65\"", ""), "tokens are not signed with ML-DSA"),
        (other, "keys that key_labels and key_ids name are P-256"),
    ] {
        let found = mistakes(&text);
        assert!(found.iter().any(|line| line.contains("jwt_key_type") && line.contains(words)), "{found:?}");
    }
}

#[test]
fn keys_in_software_are_taken_and_it_is_said_that_they_are_not_in_hardware() {
    let with = |managers: &str| {
        format!(
            "server {{ trust_domain = \"td\" data_dir = \"d\" }}\nplugins {{ NodeAttestor \"join_token\" {{ }}\n{managers}\n}}"
        )
    };
    let disk = "KeyManager \"disk\" { plugin_data { keys_path = \"k.json\" } }";
    for (managers, current) in
        [(disk, KeyManagerConfig::Disk("k.json".into())), ("KeyManager \"memory\" { }", KeyManagerConfig::Memory)]
    {
        let config = read(&with(managers)).expect("loads");
        assert_eq!((config.key_managers.current, config.key_managers.former), (current, None));
        let said =
            config.warnings.iter().any(|line| line.starts_with("server.conf:3") && line.contains("not in hardware"));
        assert!(said, "{:?}", config.warnings);
        let names_what_is_there = |line: &String| !line.contains("previous");
        assert!(config.warnings.iter().all(names_what_is_there), "{:?}", config.warnings);
    }
    let found = mistakes(&with("KeyManager \"disk\" { plugin_data { } }"));
    assert!(found[0].contains("keys_path: missing: give the file"), "{found:?}");
}

#[test]
fn the_key_manager_that_a_ca_moves_away_from_is_named_beside_the_one_that_makes_keys() {
    let with = |managers: &str| {
        format!(
            "server {{ trust_domain = \"td\" data_dir = \"d\" }}\nplugins {{ NodeAttestor \"join_token\" {{ }}\n{managers}\n}}"
        )
    };
    let disk = |more: &str| format!("KeyManager \"disk\" {{ plugin_data {{ keys_path = \"k\" {more} }} }}\n");
    let token = |label: &str, more: &str| {
        format!(
            "KeyManager \"pkcs11\" {{ plugin_data {{ module_path = \"/m.so\" token_label = \"{label}\" pin_env = \"P\" {more} }} }}\n"
        )
    };
    let moving = read(&with(&(disk("previous = true") + &token("a", "")))).expect("loads");
    assert_eq!(moving.key_managers.former, Some(KeyManagerConfig::Disk("k".into())));
    assert!(
        moving.key_managers.current.pkcs11().is_some() && moving.warnings.iter().all(|line| !line.contains("hardware"))
    );
    let tokens = read(&with(&(token("a", "previous = true") + &token("b", "")))).expect("loads").key_managers;
    assert_ne!(Some(tokens.current), tokens.former);
    for (managers, words) in [
        (disk("") + &token("a", ""), "KeyManager.pkcs11: only one makes keys"),
        (disk("previous = true"), "KeyManager.disk: nothing says where keys are made now"),
        (disk("previous = true") + &token("a", "previous = true") + &token("b", ""), "moves away from one at a time"),
        (token("a", "previous = true") + &token("a", ""), "names the token that keys are made in now"),
    ] {
        let found = mistakes(&with(&managers));
        assert!(found.iter().any(|line| line.contains(words)), "{managers}: {found:?}");
    }
}

#[test]
fn ca_keys_are_of_the_kind_that_the_file_says_and_those_of_jwt_svids_too_unless_it_says_otherwise() {
    let kinds = |server: &str| {
        let config = read(&minimal(server, "")).expect("loads");
        (config.ca_key_type, config.jwt.expect("not disabled").key_kind)
    };
    assert_eq!(kinds(""), (KeyKind::EcP256, KeyKind::EcP256));
    assert_eq!(kinds("ca_key_type = \"rsa-4096\""), (KeyKind::Rsa4096, KeyKind::Rsa4096));
    assert_eq!(kinds("ca_key_type = \"ec-p384\" jwt_key_type = \"rsa-2048\""), (KeyKind::EcP384, KeyKind::Rsa2048));
    for (name, set) in ["ml-dsa-44", "ml-dsa-65", "ml-dsa-87"].into_iter().zip(MlDsa::ALL) {
        let kind = KeyKind::MlDsa(set);
        assert_eq!(kinds(&format!("ca_key_type = \"{name}\"")), (kind, KeyKind::EcP256), "tokens stay on a curve");
    }
    let given = "server { trust_domain = \"td\" data_dir = \"d\" ca_key_type = \"ec-p384\" }\nplugins { NodeAttestor \"join_token\" { } \
                 KeyManager \"pkcs11\" { plugin_data { module_path = \"/m.so\" token_label = \"t\" pin_file = \"p\" key_labels = [\"a\"] } } }";
    let found = mistakes(given);
    assert!(
        found.iter().any(|line| line.contains("ca_key_type: keys that key_labels and key_ids name are P-256")),
        "{found:?}"
    );
}

#[test]
fn a_server_has_a_name_only_if_it_is_given_one() {
    let with = |server: &str| minimal(server, "");
    assert!(read(&with("")).expect("loads").server_name.is_unnamed());
    assert_eq!(read(&with("server_name = \"north-1\"")).expect("loads").server_name.as_str(), "north-1");
    let found = mistakes(&with("server_name = \"North 1\""));
    assert!(found.iter().any(|line| line.contains("server_name: \"North 1\": use 1 to 63 of")), "{found:?}");
}

#[test]
fn a_token_uri_may_name_module_and_pin_file() {
    let text = "server { trust_domain = \"td\" data_dir = \"d\" }\nplugins { NodeAttestor \"join_token\" { } KeyManager \"pkcs11\" { plugin_data {\
                token_uri = \"pkcs11:token=t?module-path=/m.so&pin-source=file:/etc/pin\" sessions = 2 } } }";
    let config = read(text).expect("loads");
    let token = token(&config);
    assert_eq!(
        (token.module_path.clone(), token.login.clone(), token.sessions),
        ("/m.so".into(), LoginMode::Pin(PinSource::File("/etc/pin".into())), 2)
    );
}

#[test]
fn what_contradicts_a_token_uri_is_refused() {
    let with = |more: &str| {
        let uri = "token_uri = \"pkcs11:token=t?module-path=/m.so&pin-source=file:/etc/pin\"";
        let manager = format!("KeyManager \"pkcs11\" {{ plugin_data {{ {uri} {more} }} }}");
        format!(
            "server {{ trust_domain = \"td\" data_dir = \"d\" }}\nplugins {{ NodeAttestor \"join_token\" {{ }}\n{manager}\n}}"
        )
    };
    assert!(
        read(&with("module_path = \"/m.so\" pin_file = \"/etc/pin\"")).is_ok(),
        "what is the same contradicts nothing"
    );
    for (more, words) in [
        ("module_path = \"/other.so\"", "module_path: token_uri names /m.so"),
        ("pin_file = \"/other\"", "pin_file: token_uri names /etc/pin"),
        ("pin_env = \"P\"", "pin_env: token_uri names /etc/pin"),
    ] {
        let found = mistakes(&with(more));
        assert!(found.iter().any(|line| line.contains(words)), "{more}: {found:?}");
    }
}

#[test]
fn a_token_uri_that_names_a_key_is_refused_and_told_where_keys_are_named() {
    let text = "server { trust_domain = \"td\" data_dir = \"d\" }\nplugins { NodeAttestor \"join_token\" { } KeyManager \"pkcs11\" { plugin_data {\
                module_path = \"/m.so\" pin_file = \"p\"\ntoken_uri = \"pkcs11:token=t;object=ca\" } } }";
    let found = mistakes(text);
    let [mistake] = &found[..] else { panic!("{found:?}") };
    let said = "server.conf:3: plugins.KeyManager.pkcs11.plugin_data.token_uri: \"pkcs11:token=t;object=ca\": \"object\" names an object";
    assert!(mistake.starts_with(said) && mistake.contains("key_ids and key_labels"), "{mistake}");
}

#[test]
fn manufacturers_are_needed_exactly_when_they_admit() {
    let tpm2 = |data: &str| minimal("", &format!("NodeAttestor \"tpm2\" {{ plugin_data {{ {data} }} }}"));
    let admission = |data: &str| read(&tpm2(data)).expect("loads").node_attestors.tpm2.expect("tpm2").admission;
    assert_eq!(admission("admission = \"approval\""), Admission::Approval);
    let both = "admission = \"manufacturer\" manufacturer_ca_path = \"a\" manufacturer_ca_paths = [\"b\"]";
    assert_eq!(admission(both), Admission::Manufacturer(vec!["a".into(), "b".into()]));
    assert!(mistakes(&tpm2("admission = \"manufacturer\""))[0].contains("manufacturer_ca_path: missing"));
    let unused = read(&tpm2("manufacturer_ca_path = \"a\"")).expect("loads");
    assert!(unused.warnings[0].contains("only used with admission"), "{:?}", unused.warnings);
}

#[test]
fn x509pop_is_told_whose_certificates_count_and_what_agents_are_called() {
    let x509pop = |data: &str| minimal("", &format!("NodeAttestor \"x509pop\" {{ plugin_data {{ {data} }} }}"));
    let loaded = |data: &str| {
        let attestors = read(&x509pop(data)).expect("loads").node_attestors;
        assert!(attestors.tpm2.is_none(), "only what is named attests");
        attestors.x509pop.expect("x509pop")
    };
    let files = |paths: &[&str]| X509PopMode::ExternalPki(paths.iter().map(PathBuf::from).collect());
    assert_eq!(loaded("ca_bundle_path = \"a\" mode = \"external_pki\"").mode, files(&["a"]));
    assert_eq!(loaded("ca_bundle_paths = [\"a\", \"b\"]").mode, files(&["a", "b"]));
    let spiffe = |prefix: &str| loaded(&format!("mode = \"spiffe\" {prefix}")).mode;
    for (data, prefix) in [
        ("", "/spire-exchange/"),
        ("spiffe_prefix = \"/devices\"", "/devices/"),
        ("svid_prefix = \"/devices/\"", "/devices/"),
        ("spiffe_prefix = \"\"", "/"),
    ] {
        assert_eq!(spiffe(data), X509PopMode::Spiffe(prefix.to_owned()), "{data}");
    }
    let default = loaded("ca_bundle_path = \"a\"");
    assert_eq!((default.limits, default.verify_client_ip), (SizeLimits { intermediates: 4, rsa_bits: 8192 }, false));
    let tuned = loaded("ca_bundle_path = \"a\" max_intermediates = 1 max_rsa_key_size = 2048 verify_client_ip = true");
    assert_eq!((tuned.limits, tuned.verify_client_ip), (SizeLimits { intermediates: 1, rsa_bits: 2048 }, true));
    assert_ne!(loaded("ca_bundle_path = \"a\" agent_path_template = \"/cn/{{ .Subject.CommonName }}\""), default);
    for (data, why) in [
        ("", "ca_bundle_path: missing: give the PEM file"),
        ("ca_bundle_path = \"\"", "ca_bundle_path: missing: give the PEM file"),
        // Else the way to attest would be shut without a word.
        ("ca_bundle_paths = []", "ca_bundle_paths: missing: give the PEM file"),
        ("ca_bundle_path = \"a\" ca_bundle_paths = [\"b\"]", "not both"),
        ("ca_bundle_path = \"a\" mode = \"tofu\"", "use external_pki, with ca_bundle_path, or spiffe"),
        ("ca_bundle_path = \"a\" mode = \"spiffe\"", "believes this trust domain's own authorities"),
        ("ca_bundle_path = \"a\" svid_prefix = \"/x\"", "in mode \"spiffe\" alone"),
        ("mode = \"spiffe\" spiffe_prefix = \"x\"", "begin it with \"/\""),
        ("mode = \"spiffe\" spiffe_prefix = \"/x\" svid_prefix = \"/x\"", "not both"),
        ("ca_bundle_path = \"a\" max_intermediates = 0", "not a whole number from 1 to 16"),
        ("ca_bundle_path = \"a\" max_rsa_key_size = 9000", "not a whole number from 2048 to 8192"),
        ("ca_bundle_path = \"a\" agent_path_template = \"/{{ .Subjct }}\"", "there is no field .Subjct"),
        ("ca_bundle_path = \"a\" agent_path_template = \"/{{ uuidv4 }}\"", "the function uuidv4 is not supported"),
    ] {
        let said = mistakes(&x509pop(data));
        assert!(said.len() == 1 && said[0].contains(why), "{data}: {said:?}");
    }
}

#[test]
fn ways_to_attest_that_count_together_are_named_in_the_first_ones_block() {
    let with = |plugins: &str| minimal("", plugins);
    let tpm2 = |others: &str| format!("NodeAttestor \"tpm2\" {{ plugin_data {{ together_with = [{others}] }} }}");
    let x509pop = "NodeAttestor \"x509pop\" { plugin_data { ca_bundle_path = \"a\" } }";
    let sshpop = "NodeAttestor \"sshpop\" { plugin_data { cert_authorities_path = \"a\" } }";
    let attestors = read(&with(&tpm2("\"join_token\""))).expect("loads").node_attestors;
    let loaded = attestors.load(0).expect("no files");
    let kinds: Vec<_> = loaded.iter().map(|attestor| attestor.kind()).filter(|kind| *kind != "join_token").collect();
    assert_eq!(kinds, ["tpm2+join_token"], "the TPM alone does not attest");
    // What is asked for besides proves nothing alone, unless it is said to.
    let counted = |x509pop: &str| {
        let attestors = read(&with(&format!("{} {x509pop}", tpm2("\"x509pop\"")))).expect("loads").node_attestors;
        (attestors.together.len(), attestors.alone)
    };
    assert_eq!(counted(x509pop), (1, Vec::new()));
    let alone = x509pop.replace("ca_bundle_path", "alone = true ca_bundle_path");
    assert_eq!(counted(&alone), (1, vec!["x509pop".to_owned()]));
    assert!(read(&with(&tpm2(""))).expect("loads").node_attestors.together.is_empty());
    for (plugins, why) in [
        (tpm2("\"tpm2\""), "name others of join_token, tpm2, tpm, tpm_devid, x509pop"),
        (tpm2("\"aws_iid\""), "name others of join_token, tpm2, tpm, tpm_devid, x509pop"),
        (tpm2("\"join_token\", \"join_token\""), "name each once"),
        (tpm2("\"x509pop\""), "together_with names \"x509pop\": add NodeAttestor \"x509pop\""),
        // An agent is stored with one certificate: a ban would not hold for the other.
        (
            format!("{} {sshpop}", x509pop.replace("ca_bundle_path", "together_with = [\"sshpop\"] ca_bundle_path")),
            "x509pop and sshpop both show a certificate",
        ),
        (
            format!("{} {x509pop} {sshpop}", tpm2("\"sshpop\", \"x509pop\"")),
            "sshpop and x509pop both show a certificate",
        ),
        (
            "NodeAttestor \"join_token\" { plugin_data { together_with = [\"tpm2\"] } }".to_owned(),
            "together_with: unknown key",
        ),
    ] {
        let said = mistakes(&with(&plugins));
        assert!(said.len() == 1 && said[0].contains(why), "{plugins}: {said:?}");
    }
}

#[test]
fn tpm_is_told_where_lists_are_as_the_plugin_is() {
    let tpm = |data: &str| minimal("", &format!("NodeAttestor \"tpm\" {{ plugin_data {{ {data} }} }}"));
    let config = |data: &str| read(&tpm(data)).expect("loads").node_attestors.tpm.expect("tpm");
    let both = config("hash_path = \"h\" ca_path = \"c\"");
    assert_eq!((both.hash_path, both.ca_path), (Some("h".into()), Some("c".into())));
    // Then the device registry alone says whose chips count.
    let neither = config("");
    assert_eq!((neither.hash_path, neither.ca_path), (None, None));
    let said = mistakes(&tpm("hash_file = \"x\""));
    assert!(said.len() == 1 && said[0].contains("hash_file"), "{said:?}");
}

#[test]
fn tpm_devid_is_told_whose_certificates_count_and_in_whose_chips_and_nothing_else() {
    let devid = |data: &str| minimal("", &format!("NodeAttestor \"tpm_devid\" {{ plugin_data {{ {data} }} }}"));
    let config = read(&devid("devid_ca_path = \"d\" endorsement_ca_path = \"e\"")).expect("loads").node_attestors;
    assert!(config.tpm2.is_none() && config.x509pop.is_none(), "only what is named attests");
    let config = config.tpm_devid.expect("tpm_devid");
    assert_eq!(config.devid_ca_path, PathBuf::from("d"));
    assert_eq!(config.endorsement_ca_path, PathBuf::from("e"));
    for (data, why) in [
        ("endorsement_ca_path = \"e\"", "devid_ca_path: missing: give the PEM file"),
        ("devid_ca_path = \"d\"", "endorsement_ca_path: missing: give the PEM file"),
        ("devid_ca_path = \"d\" endorsement_ca_path = \"e\" mode = \"x\"", "mode"),
    ] {
        let said = mistakes(&devid(data));
        assert!(said.len() == 1 && said[0].contains(why), "{data}: {said:?}");
    }
}

#[test]
fn the_pcr_banks_are_sha256_unless_an_operator_names_others() {
    let banks = |data: &str| {
        let config =
            read(&minimal("", &format!("NodeAttestor \"tpm2\" {{ plugin_data {{ {data} }} }}"))).expect("loads");
        (config.node_attestors.tpm2.expect("configured").pcr_banks, config.warnings)
    };
    assert_eq!(banks(""), (vec![PcrHash::Sha256], Vec::new()));
    assert_eq!(banks("pcr_banks = [\"sha384\", \"sha256\"]"), (vec![PcrHash::Sha384, PcrHash::Sha256], Vec::new()));
    let (taken, warnings) = banks("pcr_banks = [\"sha1\"]");
    assert_eq!(taken, [PcrHash::Sha1]);
    assert!(warnings[0].contains("sha1 is broken"), "{warnings:?}");
    for (wrong, why) in [("[]", "name at least one bank"), ("[\"md5\"]", "is no PCR bank")] {
        let text = minimal("", &format!("NodeAttestor \"tpm2\" {{ plugin_data {{ pcr_banks = {wrong} }} }}"));
        assert!(mistakes(&text)[0].contains(why));
    }
}

//= FLT-S10
#[test]
fn two_listeners_on_one_port_are_told_with_both_lines() {
    let text = |server: &str, rest: &str| minimal(&format!("bind_port = 8443\n {server}"), "") + rest;
    let bundle = "federation { bundle_endpoint { port = 8443 profile \"https_spiffe\" { } } }";
    let told = "server.conf:5: server.federation.bundle_endpoint.port: server.bind_port (line 4) listens on port 8443 of 0.0.0.0 already: give each a port of its own";
    assert_eq!(mistakes(&text(bundle, "")), [told]);
    let local =
        "health_checks { listener_enabled = true bind_port = 9988 }\ntelemetry { Prometheus { port = 9988 } }\n";
    let told = "telemetry.Prometheus.port: health_checks.bind_port (line 10) listens on port 9988 of localhost already";
    let both = mistakes(&text("", local));
    assert!(both.len() == 1 && both[0].contains(told), "{both:?}");
    for apart in [bundle.replace("port = ", "address = \"10.0.0.1\" port = 1"), bundle.replace("8443", "0")] {
        assert!(read(&text(&apart, "")).is_ok(), "{apart}");
    }
    let off = local.replace("listener_enabled = true", "");
    assert!(read(&text("", &off)).is_ok(), "what does not listen is in nobody's way");
}

#[test]
fn warns_when_a_ca_rotation_would_shorten_svids() {
    let warnings = |server: &str| read(&minimal(server, "")).expect("loads").warnings;
    assert_eq!(warnings("ca_ttl = \"6h\""), Vec::<String>::new());
    assert_eq!(
        warnings("ca_ttl = \"1m\" default_x509_svid_ttl = \"30s\""),
        [
            "server.conf:4: server.default_x509_svid_ttl: 30s is not always possible before a CA rotation, some SVIDs will be \
             shorter: set default_x509_svid_ttl to 10s or less, or ca_ttl to 3m or more"
        ]
    );
    assert!(warnings("ca_ttl = \"8760h\" agent_ttl = \"169h\"")[0].ends_with("set agent_ttl to 168h or less"));
}

#[test]
fn a_root_lives_for_twenty_years_and_much_longer_than_its_cas() {
    let root = |server: &str| read(&minimal(server, "")).expect("loads").lifetimes.root;
    let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
    assert_eq!(root(""), hours(175_200));
    assert_eq!(root("root { ttl = \"87600h\" }"), hours(87_600));
    assert_eq!(root("root { enabled = false }"), None);
    assert_eq!(root("ca_ttl = \"43800h\""), hours(350_400), "eight of its CAs");
    let text = "root { ttl = \"100h\" }";
    let said = mistakes(&minimal(text, ""));
    assert!(said[0].contains("root.ttl: must be from 192h (eight times ca_ttl) to 438000h"), "{said:?}");
    assert!(mistakes(&minimal("root { ttl = \"500000h\" }", ""))[0].contains("to 438000h"));
    assert!(mistakes(&minimal("root { enable = false }", ""))[0].contains("enable"), "unknown keys are named");
}

#[test]
fn the_command_line_wins_over_the_file() {
    let given = |flag, key, value: &str| Override { flag, key, value: value.to_owned() };
    let overrides = [given("-trustDomain", "trust_domain", "cli.example"), given("-serverPort", "bind_port", "1234")];
    let config = read_with(&minimal("bind_port = 1", ""), &overrides).expect("loads");
    assert_eq!((config.trust_domain.as_str(), config.bind_address.port()), ("cli.example", 1234));
    let errors = read_with(&minimal("", ""), &[given("-serverPort", "bind_port", "many")]).expect_err("no port");
    assert!(errors.to_string().starts_with("command line, -serverPort: server.bind_port: \"many\""), "{errors}");
}

#[test]
fn validate_looks_at_what_the_file_names_and_tells_all_of_it_at_once() {
    let directory = tempfile::tempdir().expect("directory");
    let at = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(at("file"), "no library, no certificate").expect("written");
    let path = directory.path().join("server.conf");
    let text = format!(
        "server {{\n trust_domain = \"example.org\"\n data_dir = \"{file}/data\"\n socket_path = \"{file}/api.sock\"\n}}\nplugins {{\n \
         KeyManager \"pkcs11\" {{ plugin_data {{\n module_path = \"{file}\"\n token_label = \"t\"\n pin_file = \"{none}\"\n }} }}\n \
         NodeAttestor \"tpm2\" {{ plugin_data {{\n admission = \"manufacturer\"\n manufacturer_ca_paths = [\"{file}\"]\n }} }}\n}}\n",
        file = at("file"),
        none = at("none"),
    );
    std::fs::write(&path, text).expect("written");
    ServerConfig::load(&path, &[], false).expect("as text it is right: another machine may have these files");
    let said = ServerConfig::validate(&path, &[], false).expect_err("mistakes").to_string();
    for (line, words) in [
        (3, "data_dir: cannot use as a directory"),
        (4, "socket_path: "),
        (8, "not a shared library"),
        (10, "cannot read PIN file"),
        (14, "manufacturer_ca_paths: "),
    ] {
        let place = format!("{}:{line}: ", path.display());
        assert!(said.lines().any(|said| said.starts_with(&place) && said.contains(words)), "{words}: {said}");
    }
}

#[test]
fn a_directory_that_nobody_makes_and_a_file_in_the_place_of_a_socket_are_told() {
    let directory = tempfile::tempdir().expect("directory");
    let at = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(at("in.the.way"), "no socket").expect("written");
    let looked_at = |data_dir: &str| {
        let path = directory.path().join("server.conf");
        let text = format!(
            "server {{\n trust_domain = \"example.org\"\n data_dir = {data_dir:?}\n socket_path = {socket:?}\n}}\nplugins {{\n \
             KeyManager \"disk\" {{ plugin_data {{ keys_path = {keys:?} }} }}\n \
             DataStore \"sql\" {{ plugin_data {{ connection_string = {database:?} }} }}\n NodeAttestor \"join_token\" {{ }}\n}}\n",
            socket = at("in.the.way"),
            keys = at("volume/keys.json"),
            database = at("volume/datastore.sqlite3"),
        );
        std::fs::write(&path, text).expect("written");
        ServerConfig::validate(&path, &[], false).expect_err("mistakes").to_string()
    };
    let said = looked_at(&at("data"));
    let missing = format!("there is no directory {}: make it", at("volume"));
    assert!(said.contains(&format!("keys_path: {missing}")), "{said}");
    assert!(said.contains(&format!("connection_string: {missing}")), "{said}");
    assert!(said.contains("in.the.way\" exists and is not a socket"), "{said}");
    // That one the server makes.
    let said = looked_at(&at("volume"));
    assert!(!said.contains("there is no directory"), "{said}");
}

#[test]
fn validate_knows_a_database_of_spires_and_says_what_to_do() {
    let directory = tempfile::tempdir().expect("directory");
    let at = |name: &str| directory.path().join(name).display().to_string();
    let spire = rusqlite::Connection::open(at("datastore.sqlite3")).expect("opens");
    spire.execute_batch("CREATE TABLE migrations (version integer, code_version varchar(255))").expect("made");
    let named = format!("DataStore \"sql\" {{ plugin_data {{ connection_string = {:?} }} }}", at("datastore.sqlite3"));
    for (data_dir, plugin) in [(at(""), ""), (at("elsewhere"), named.as_str())] {
        let text = minimal("", plugin).replace("\"d\"", &format!("{data_dir:?}"));
        let looking = Settings::parse(Path::new("server.conf"), &text).expect("HCL").looking();
        let said = ServerConfig::from_settings(looking, &[]).expect_err("mistakes").to_string();
        let line =
            said.lines().find(|line| line.contains("this is a SPIRE database")).unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains(&at("datastore.sqlite3")) && line.contains("import spire -datastore"), "{line}");
        assert!(read(&text).is_ok(), "run says so when it opens the database");
    }
}

#[test]
fn keys_of_spires_without_meaning_here_are_warned_of_and_passed_over() {
    let keys = "log_source_location = true\n profiling_enabled = true\n prune_attested_nodes_batch_size = 5\n experimental { \
                events_based_cache = true cache_reload_interval = \"5s\" }";
    let text = minimal(keys, "DataStore \"sql\" { plugin_data { max_open_conns = 5 } }") + "telemetry { }\n";
    let warnings = read(&text).expect("loads").warnings;
    for key in [
        "log_source_location",
        "profiling_enabled",
        "prune_attested_nodes_batch_size",
        "events_based_cache",
        "max_open_conns",
    ] {
        let told = format!("{key}: has no meaning in ironroot-server and is passed over");
        assert!(warnings.iter().any(|warning| warning.contains(&told)), "{key}: {warnings:?}");
    }
}

#[test]
fn without_a_node_attestor_join_tokens_attest_and_that_is_said() {
    let text = minimal("", "").replace("NodeAttestor \"join_token\" { }", "");
    let config = read(&text).expect("loads");
    assert!(config.node_attestors.join_token && config.node_attestors.tpm2.is_none());
    assert!(
        config.warnings.iter().any(|w| w.contains("devices attest with join tokens, as in SPIRE")),
        "{:?}",
        config.warnings
    );
    let only_tpm = minimal("", "NodeAttestor \"tpm2\" { }").replace("NodeAttestor \"join_token\" { }", "");
    assert!(!read(&only_tpm).expect("loads").node_attestors.join_token, "only what is named attests");
    let off = text.replace("plugins {", "plugins { NodeAttestor \"tpm2\" { enabled = false }");
    let config = read(&off).expect("one that is switched off is none");
    assert!(config.node_attestors.join_token && config.node_attestors.tpm2.is_none());
    assert!(config.warnings.iter().any(|w| w.contains("devices attest with join tokens")), "{:?}", config.warnings);
    let wrong = text.replace("plugins {", "plugins { NodeAttestor \"tpm3\" { }");
    let said = read(&wrong).expect_err("one that is wrong is not none").to_string();
    assert!(["tpm2", "x509pop", "join_token"].iter().all(|kind| said.contains(kind)), "{said}");
}

#[test]
fn federation_is_read_in_spires_forms_and_each_mistake_in_it_has_its_line() {
    let text = minimal(
        r#"federation {
    bundle_endpoint {
        address = "127.0.0.1"
        port = 8443
        refresh_hint = "10m"
        profile "https_web" {
            serving_cert_file { cert_file_path = "/c.pem" key_file_path = "/k.pem" file_sync_interval = "1m" }
        }
    }
    federates_with "one.example" {
        bundle_endpoint_url = "https://one.example:8443/bundle"
        bundle_endpoint_profile "https_spiffe" { endpoint_spiffe_id = "spiffe://one.example/spire/server" }
    }
    federates_with "spiffe://two.example" {
        bundle_endpoint_url = "https://two.example"
        bundle_endpoint_profile { https_web { } }
    }
}"#,
        "",
    );
    let federation = read(&text).expect("loads").federation;
    let endpoint = federation.bundle_endpoint.expect("there is one");
    let seconds = |seconds| Duration::from_secs(seconds);
    assert_eq!((endpoint.address.to_string().as_str(), endpoint.refresh_hint), ("127.0.0.1:8443", seconds(600)));
    let WebIdentity::Web(WebCertificate::Files(files)) = endpoint.identity else { panic!("by files") };
    assert_eq!((files.certificate, files.key), (PathBuf::from("/c.pem"), PathBuf::from("/k.pem")));
    assert_eq!(files.sync_interval, seconds(60));
    let names = federation.federates_with.iter().map(|one| (one.trust_domain.as_str(), one.profile.name()));
    assert_eq!(names.collect::<Vec<_>>(), [("one.example", "https_spiffe"), ("two.example", "https_web")]);

    let endpoint = |inside: &str| read(&minimal(&format!("federation {{ bundle_endpoint {{ {inside} }} }}"), ""));
    let plain = endpoint("port = 0").expect("loads");
    assert_eq!(plain.federation.bundle_endpoint.expect("there").identity, WebIdentity::Spiffe);
    assert!(plain.warnings[0].contains("https_spiffe is taken"), "{:?}", plain.warnings);
    assert!(
        endpoint("port = 0 profile \"https_spiffe\" { } refresh_hint = \"1s\"").expect("loads").warnings[0]
            .contains("1m")
    );
    for (inside, why) in [
        ("", "port: missing"),
        ("port = 1 profile \"https_web\" { }", "serving_cert_file: missing"),
        ("port = 1 profile \"https\" { }", "use \"https_spiffe\" or \"https_web\""),
        ("port = 1 profile \"https_spiffe\" { } profile \"https_web\" { }", "exactly one bundle endpoint profile"),
        ("port = 1 profile = \"https_spiffe\"", "takes a name"),
        ("port = 1 profile \"https_web\" { serving_cert_file { } }", "cert_file_path: missing"),
    ] {
        let said = endpoint(inside).expect_err(inside).to_string();
        assert!(said.contains(why), "{inside}: {said}");
    }
    let with = |name: &str, inside: &str| {
        let text = format!("federation {{ federates_with \"{name}\" {{ {inside} }} }}");
        read(&minimal(&text, "")).expect_err(inside).to_string()
    };
    let good = "bundle_endpoint_url = \"https://a\" bundle_endpoint_profile \"https_web\" { }";
    for (name, inside, why) in [
        ("A", good, "trust domain must be"),
        ("example.org", good, "the server's own trust domain"),
        ("a", "bundle_endpoint_profile \"https_web\" { }", "bundle_endpoint_url: missing"),
        (
            "a",
            "bundle_endpoint_url = \"http://a\" bundle_endpoint_profile \"https_web\" { }",
            "must use the https scheme",
        ),
        ("a", "bundle_endpoint_url = \"https://a\"", "exactly one is needed"),
        (
            "a",
            "bundle_endpoint_url = \"https://a\" bundle_endpoint_profile \"https_spiffe\" { }",
            "endpoint_spiffe_id: missing",
        ),
        ("a", &format!("{good} x = 1"), "x: unknown key"),
    ] {
        let said = with(name, inside);
        assert!(said.contains(why), "{name} {inside}: {said}");
    }
}

fn looked_at(text: &str) -> Result<ServerConfig, ConfigErrors> {
    ServerConfig::from_settings(Settings::parse(Path::new("server.conf"), text).expect("HCL").looking(), &[])
}

/// What is wrong with the line of `words`, if anything is.
fn said_of(text: &str, words: &str) -> Option<String> {
    let said = looked_at(text).expect_err("the token's module is not there").to_string();
    said.lines().find(|line| line.contains(words)).map(str::to_owned)
}

#[test]
fn validate_refuses_what_a_start_would_of_files() {
    let directory = tempfile::tempdir().expect("directory");
    let at = |name: &str| directory.path().join(name).display().to_string();
    let keys = [(); 2].map(|()| rcgen::KeyPair::generate().expect("a key"));
    let certificate = rcgen::CertificateParams::new(vec!["oidc.example.org".to_owned()]).expect("a name");
    let certificate = certificate.self_signed(&keys[0]).expect("signed");
    let write = |name: &str, text: &str, mode: u32| {
        std::fs::write(at(name), text).expect("written");
        std::fs::set_permissions(at(name), std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("set");
    };
    write("good.pem", &certificate.pem(), 0o644);
    write("empty.pem", "", 0o644);
    write("key.pem", &keys[0].serialize_pem(), 0o600);
    write("other.pem", &keys[1].serialize_pem(), 0o600);
    write("open.pem", &keys[0].serialize_pem(), 0o644);
    for (certificate, key, words) in [
        ("good.pem", "key.pem", None),
        ("good.pem", "other.pem", Some("is not that of the first certificate")),
        ("good.pem", "open.pem", Some("open.pem")),
        ("empty.pem", "key.pem", Some("empty.pem")),
    ] {
        let files =
            format!("serving_cert_file {{ cert_file_path = {:?} key_file_path = {:?} }}", at(certificate), at(key));
        let text = minimal(&format!("oidc_discovery {{ domains = [\"oidc.example.org\"] {files} }}"), "");
        let said = said_of(&text, "oidc_discovery.serving_cert_file");
        assert_eq!(said.is_some(), words.is_some(), "{said:?}");
        words.into_iter().for_each(|words| assert!(said.as_ref().is_some_and(|said| said.contains(words)), "{said:?}"));
    }
    for key in ["audit_log_file", "log_file"] {
        let said = said_of(&minimal(&format!("{key} = {:?}", at("")), ""), key).expect("a directory");
        assert!(said.contains("is a directory"), "{said}");
    }
}

#[test]
fn validate_tells_of_a_store_that_a_start_would_refuse_or_tighten() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("store.sqlite3");
    let own = ironroot_api::TrustDomain::new("example.org").expect("legal");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let store = ironroot_server::store::Store::open(&path, &own).expect("opens");
    runtime.block_on(store.close());
    let plugin = format!("DataStore \"sql\" {{ plugin_data {{ connection_string = {path:?} }} }}");
    let text = minimal("", &plugin);
    assert_eq!(said_of(&text, "DataStore"), None);
    std::fs::write(directory.path().join("store.sqlite3.restoring"), "").expect("written");
    let said = said_of(&text, "DataStore").expect("cut off");
    assert!(said.contains("was cut off: restore once more"), "{said}");
}
