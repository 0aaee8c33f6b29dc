//! The agent's configuration: what loads, what it means, and every mistake with its line.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ironroot_agent::config::{
    AgentConfig, Bootstrap, BoundedCall, BrokerConfig, BundleSource, ConfigErrors, KeyManager, LocalJwtConfig,
    LoggedSelectors, NodeAttestor, Override, PasswordSource, Rebootstrap, RebootstrapMode, ReferenceTypes,
    RenewalPatience, SdsConfig, TrustBundleFormat, VerifierPolicy, WorkloadAttestors, WorkloadKeyKind,
};
use ironroot_agent::node_attestation::KeySource;
use ironroot_api::SpiffeId;
use ironroot_attest::node::tpm2::PcrHash;
use ironroot_attest::tpm::{EndorsementChoice, EndorsementKind};
use ironroot_attest::workload::{
    ClientProof, ConnectionWriter, DockerConfig, ExecutableSelectors, KubeletPort, ServerProof,
};
use ironroot_shell::logging::{LogConfig, LogFormat, LogLevel};
use ironroot_shell::settings::Settings;

const TPM: &str = r#"NodeAttestor "tpm2" { } KeyManager "tpm" { } WorkloadAttestor "unix" { }"#;
const TOKEN: &str = r#"NodeAttestor "join_token" { } KeyManager "memory" { } WorkloadAttestor "unix" { }"#;

fn read(text: &str) -> Result<AgentConfig, ConfigErrors> {
    AgentConfig::from_settings(Settings::parse(Path::new("agent.conf"), text)?, &[])
}

fn minimal(agent: &str, plugins: &str) -> String {
    format!(
        "agent {{\n trust_domain = \"example.org\"\n server_address = \"s\" server_port = 8081 trust_bundle_path = \"b\"\n {agent}\n}}\nplugins {{ {plugins} }}\n"
    )
}

fn mistakes(text: &str) -> Vec<String> {
    read(text).expect_err("mistakes").to_string().lines().map(str::to_owned).collect()
}

/// Of what the example shows, what takes the place of something else that it has.
const OTHER_FORMS: [&str; 6] = [
    "join_token_file",
    "hierarchy_password",
    "policy_",
    "trust_bundle_url",
    "trust_bundle_unix_socket",
    "trust_bundle_spiffe_workload_api",
];

#[test]
fn the_example_file_loads_and_so_does_every_key_it_only_shows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agent.conf");
    let config = AgentConfig::load(&path, &[], false).expect("the example loads");
    assert_eq!(config.warnings, Vec::<String>::new());
    let shown = std::fs::read_to_string(&path).expect("readable");
    let text: Vec<&str> = shown
        .lines()
        .map(|line| match line.trim_start().strip_prefix("# ") {
            // Of these, one form is given at a time: see below.
            Some(code) if OTHER_FORMS.iter().any(|form| code.contains(form)) => line,
            Some(code) if is_code(code) => code,
            _ => line,
        })
        .collect();
    // Of what does not go together, one is read: a CA of its own is for an agent with one server.
    let text = text.join("\n");
    let (before, own_ca) = text.split_once("local_authority {").expect("it is shown");
    let text = format!("{before}local_authority {{{}", own_ca.replacen("enabled = true", "enabled = false", 1));
    // Of what there may be one of, one is read.
    let token = "KeyManager \"pkcs11\" {";
    let with_tpm = text.replace(token, &format!("{token}\n    enabled = false"));
    let with_token = text.replace("KeyManager \"tpm\" {", "KeyManager \"tpm\" {\n    enabled = false");
    let in_token = read(&with_token).expect("every key it shows is known").key_manager;
    assert!(matches!(in_token, KeyManager::Token { label, .. } if label == "ironroot-agent"));
    let mut all = read(&with_tpm).expect("every key it shows is known");
    let cache = all.offline_cache.as_mut().expect("on");
    assert_eq!(cache.max_age.take(), Some(Duration::from_secs(168 * 3600)));
    assert_eq!(all.log.file.take(), Some(PathBuf::from("/var/log/ironroot-agent.log")));
    assert_eq!(all.admin_socket_path.take(), Some(PathBuf::from("/tmp/spire-agent/private/admin.sock")));
    let proxy = SpiffeId::parse("spiffe://example.org/proxy").expect("legal");
    let unix = vec!["unix".parse().expect("a prefix")];
    assert_eq!(std::mem::take(&mut all.logged_selectors), LoggedSelectors::Beginning(unix));
    assert_eq!(std::mem::take(&mut all.renewal_patience).of_held(), Duration::from_secs(5));
    assert_eq!(std::mem::take(&mut all.delegates), [proxy.clone()].into_iter().collect());
    let types = "type.googleapis.com/spiffe.broker.WorkloadPIDReference".to_owned();
    let brokers = [(proxy, ReferenceTypes::Only([types].into()))].into_iter().collect();
    let socket_path = PathBuf::from("/run/ironroot-agent/brokers/broker.sock");
    assert_eq!(all.broker.take(), Some(BrokerConfig { socket_path, brokers }));
    assert!(all.telemetry.take().is_some_and(|telemetry| telemetry.prometheus.is_some_and(|it| it.port == 9989)));
    assert!(all.traces.take().is_some_and(|traces| traces.sample_one_in == 1));
    let containers = std::mem::take(&mut all.containers);
    assert_eq!(
        containers.docker,
        Some(DockerConfig {
            rootless_podman: "/run/user/%d/podman/podman.sock".parse().ok(),
            version: Some("1.41".to_owned()),
            ..DockerConfig::default()
        })
    );
    assert_eq!(
        containers.kubelet,
        read(&minimal("", &TPM.replace("\"unix\"", "\"k8s\""))).expect("loads").containers.kubelet
    );
    let souths = all.servers.pop().expect("the second that is shown");
    assert_eq!(souths.name.map(|name| name.to_string()).as_deref(), Some("south"));
    assert_eq!(all, config, "what is shown is the default");
}

/// A commented line that is configuration and no sentence.
fn is_code(comment: &str) -> bool {
    let comment = comment.trim().trim_start_matches("# ");
    comment == "}" || comment.ends_with('{') || comment.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
}

fn in_file(path: &str, format: TrustBundleFormat) -> Bootstrap {
    Bootstrap::TrustBundle(BundleSource::File { path: path.into(), format })
}

#[test]
fn defaults_are_spires_and_the_tpm_is_the_kernels() {
    let config = read(&minimal("", TPM)).expect("loads");
    let tpm = config.tpm().expect("a TPM").clone();
    assert_eq!(config.socket_path, PathBuf::from("/tmp/spire-agent/public/api.sock"));
    assert_eq!((config.data_dir, config.sync_interval), (PathBuf::from("."), Duration::from_secs(5)));
    assert_eq!(config.servers[0].bootstrap, in_file("b", TrustBundleFormat::Pem));
    assert_eq!(config.rebootstrap, Rebootstrap { mode: RebootstrapMode::Never, delay: Duration::from_secs(600) });
    assert_eq!(tpm.address, "/dev/tpmrm0".parse().expect("an address"));
    assert_eq!((config.node_attestor, config.key_manager), (NodeAttestor::Tpm2(tpm.clone()), KeyManager::Tpm(tpm)));
    let cache = config.offline_cache.expect("on with a TPM");
    assert_eq!((cache.pcrs.to_string().as_str(), cache.max_age, cache.tpm_nv_index), ("7", None, 0x0180_4952));
    assert_eq!(
        (config.workload_attestor.discover_workload_path, config.workload_attestor.workload_size_limit),
        (false, 512 << 20)
    );
}

#[test]
fn what_is_told_of_workloads_can_be_chosen() {
    let attestors = |text: &str| {
        read(&minimal("", &TPM.replace("WorkloadAttestor \"unix\" { }", text))).map(|config| config.workload_attestor)
    };
    let with = |data: &str| attestors(&format!("WorkloadAttestor \"unix\" {{ plugin_data {{ {data} }} }}"));
    let default = with("").expect("loads");
    assert_eq!(default.connection_writer, ConnectionWriter::Peer);
    assert_eq!(default.executable_selectors, ExecutableSelectors::Always);
    assert!(!default.allow_executable_only && !default.executable_in_other_mounts && !default.discover_cgroup);
    let none = WorkloadAttestors::default();
    assert_eq!(default.attestors, WorkloadAttestors { unix: true, ..none });
    let chosen = with(
        "connection_writer = \"user\" executable_selectors = \"where_unforgeable\" allow_executable_only = true executable_in_other_mounts = true discover_cgroup = true",
    );
    let chosen = chosen.expect("loads");
    assert_eq!(chosen.connection_writer, ConnectionWriter::User);
    assert_eq!(chosen.executable_selectors, ExecutableSelectors::WhereUnforgeable);
    assert!(chosen.allow_executable_only && chosen.executable_in_other_mounts && chosen.discover_cgroup);
    assert_eq!(
        with("executable_selectors = \"never\"").expect("loads").executable_selectors,
        ExecutableSelectors::Never
    );
    let both = attestors("WorkloadAttestor \"unix\" { } WorkloadAttestor \"systemd\" { }").expect("loads");
    assert_eq!(both.attestors, WorkloadAttestors { unix: true, systemd: true, ..none });
    let jobs = attestors("WorkloadAttestor \"slurm\" { } WorkloadAttestor \"unix\" { }").expect("loads");
    assert_eq!(jobs.attestors, WorkloadAttestors { unix: true, slurm: true, ..none });
    let mistake = attestors("WorkloadAttestor \"slurm\" { plugin_data { root = \"/\" } }").expect_err("no such key");
    assert!(mistake.to_string().contains("root"), "{mistake}");
    let wrong =
        with("connection_writer = \"any\" executable_selectors = \"withhold\"").expect_err("mistakes").to_string();
    assert!(
        wrong.contains("connection_writer: \"any\": use \"peer\"") && wrong.contains("\"withhold\": use \"always\""),
        "{wrong}"
    );
    let alone = attestors("WorkloadAttestor \"systemd\" { }").expect("loads");
    assert_eq!(alone.attestors, WorkloadAttestors { systemd: true, ..none });
    let nobody = attestors("").expect_err("a mistake").to_string();
    assert!(nobody.contains("add WorkloadAttestor \"unix\""), "{nobody}");
}

#[test]
fn who_is_asked_for_containers_is_said_with_spires_keys_and_a_containers_attestor_may_be_alone() {
    let containers = |text: &str| {
        read(&minimal("", &TPM.replace("WorkloadAttestor \"unix\" { }", text))).map(|config| config.containers)
    };
    let docker = |data: &str| containers(&format!("WorkloadAttestor \"docker\" {{ plugin_data {{ {data} }} }}"));
    let kubelet = |data: &str| containers(&format!("WorkloadAttestor \"k8s\" {{ plugin_data {{ {data} }} }}"));
    assert_eq!(docker("").expect("loads").docker, Some(DockerConfig::default()));
    let chosen =
        docker("docker_socket_path = \"unix:///d.sock\" podman_socket_path = \"/p.sock\" docker_version = \"v1.40\"");
    let chosen = chosen.expect("loads").docker.expect("there");
    assert_eq!((chosen.docker_socket, chosen.podman_socket), (PathBuf::from("/d.sock"), PathBuf::from("/p.sock")));
    assert_eq!((chosen.version.as_deref(), chosen.rootless_podman), (Some("1.40"), None));
    let port = |data: &str| kubelet(data).expect("loads").kubelet.expect("there").port;
    assert_eq!(port("kubelet_read_only_port = 10255"), KubeletPort::ReadOnly(10255));
    let (server, client) = (ServerProof::default(), ClientProof::default());
    assert_eq!(port(""), KubeletPort::Secure { port: 10250, server, client });
    let pair = "skip_kubelet_verification = true certificate_path = \"c\" private_key_path = \"k\"";
    let client = ClientProof::Certificate { certificate: "c".into(), private_key: "k".into() };
    assert_eq!(port(pair), KubeletPort::Secure { port: 10250, server: ServerProof::Nothing, client });
    let named =
        kubelet("node_name = \"n\" max_poll_attempts = 3 poll_retry_interval = \"1s\" reload_interval = \"1m\"");
    let named = named.expect("loads").kubelet.expect("there");
    assert_eq!((named.node_name.as_deref(), named.max_poll_attempts), (Some("n"), 3));
    for (interval, is_warned) in [("1999ms", false), ("2s", true)] {
        let k8s = format!("WorkloadAttestor \"k8s\" {{ plugin_data {{ poll_retry_interval = \"{interval}\" }} }}");
        let warnings = read(&minimal("", &TPM.replace("WorkloadAttestor \"unix\" { }", &k8s))).expect("loads").warnings;
        assert_eq!(warnings.iter().any(|line| line.contains("it is asked once")), is_warned, "{warnings:?}");
    }
    for (wrong, said) in [
        (docker("docker_socket_path = \"tcp://h:1\""), "give a socket of this machine"),
        (docker("podman_socket_path_template = \"unix:///p.sock\""), "%d stands once"),
        (docker("docker_version = \"latest\""), "such as 1.41"),
        (docker("container_id_cgroup_matchers = [\"/docker/<id>\"]"), "not supported"),
        (docker("use_new_container_locator = false"), "not supported"),
        (docker("sigstore { rekor_url = \"x\" }"), "not supported"),
        (kubelet("enable_namespace_labels = true"), "not supported"),
        (kubelet("disable_kubelet_client = true"), "not supported"),
        (kubelet("kubelet_read_only_port = 1 kubelet_secure_port = 2"), "keep one of them"),
        (kubelet("certificate_path = \"c\""), "give its key"),
        (kubelet("private_key_path = \"k\""), "give its certificate"),
        (kubelet("use_anonymous_authentication = true token_path = \"t\""), "token_path"),
        (kubelet("node = \"n\""), "unknown key"),
    ] {
        let wrong = wrong.expect_err(said).to_string();
        assert!(wrong.contains(said), "{said}: {wrong}");
    }
}

#[test]
fn works_without_a_tpm_and_then_without_a_cache() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    std::fs::write(&file, "the-token\n").expect("written");
    let agent = format!("join_token_file = \"{}\"", file.display());
    let config = read(&minimal(&agent, TOKEN)).expect("loads");
    let NodeAttestor::JoinToken(Some(token)) = &config.node_attestor else { panic!("a token") };
    assert_eq!((token.expose(), format!("{token:?}").as_str()), ("the-token", "JoinToken(redacted)"));
    assert_eq!((config.tpm(), &config.offline_cache, &config.key_manager), (None, &None, &KeyManager::Memory));
    let wanted = "agent.conf:4: agent.offline_cache.enabled: the cache is sealed to a TPM: add NodeAttestor \"tpm2\" or KeyManager \"tpm\"";
    assert_eq!(mistakes(&minimal("offline_cache { enabled = true }", TOKEN)), [wanted]);
}

#[test]
fn the_operators_key_and_its_policies_are_given_together_and_are_no_secret() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("policy.pub");
    let with = |keys: &str| minimal(&format!("offline_cache {{\n{keys}\n}}"), TPM);
    let key = format!("policy_key_path = \"{}\"", file.display());
    let both = format!("{key}\npolicy_directory = \"/etc/ironroot/policies\"");
    std::fs::write(&file, POLICY_KEY).expect("written");
    let states = read(&with(&both)).expect("loads").offline_cache.expect("on").signed_states.expect("given");
    assert_eq!(states.directory, PathBuf::from("/etc/ironroot/policies"));
    for (content, keys, said) in [
        (POLICY_KEY, key.clone(), "policy_directory: missing"),
        (POLICY_KEY, "policy_directory = \"d\"".to_owned(), "policy_key_path: missing"),
        (POLICY_KEY, format!("pcrs = []\n{both}"), "pcrs is empty"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", both.clone(), "must not be on a device"),
        ("no key", both.clone(), "it holds no public key"),
    ] {
        std::fs::write(&file, content).expect("written");
        let wrong = mistakes(&with(&keys));
        assert!(matches!(&wrong[..], [only] if only.contains(said)), "{said}: {wrong:?}");
    }
    std::fs::remove_file(&file).expect("removed");
    assert!(mistakes(&with(&both))[0].contains("policy.pub"), "the file is not there");
}

/// The generator of P-256 as a public key.
const POLICY_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt
6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==
-----END PUBLIC KEY-----
";

#[test]
fn x509pop_is_told_the_devices_files() {
    let with = |data: &str| {
        let plugins =
            TOKEN.replace("NodeAttestor \"join_token\" { }", &format!("NodeAttestor \"x509pop\" {{ {data} }}"));
        minimal("", &plugins)
    };
    let files = "private_key_path = \"k\" certificate_path = \"c\"";
    let attestor = |data: &str| match read(&with(&format!("plugin_data {{ {data} }}"))).expect("loads").node_attestor {
        NodeAttestor::X509Pop(files) => files,
        other => panic!("{other:?}"),
    };
    let told = attestor(files);
    assert_eq!((told.key, told.certificate, told.intermediates), (KeySource::File("k".into()), "c".into(), None));
    let told = attestor(&format!("{files} intermediates_path = \"i\""));
    assert_eq!(told.intermediates, Some("i".into()));
    let said = mistakes(&with("plugin_data { spiffe_endpoint_socket = \"s\" }")).join("\n");
    for why in ["private_key_path: missing", "certificate_path: missing", "spiffe_endpoint_socket: not supported"] {
        assert!(said.contains(why), "{said}");
    }
    let keyed = |uri: &str, more: &str| format!("private_key_uri = \"{uri}\" certificate_path = \"c\" {more}");
    let token = "pkcs11:token=t;object=k?module-path=/m.so&pin-source=file:/p";
    assert!(matches!(attestor(&keyed(token, "")).key, KeySource::Token { .. }));
    assert!(matches!(
        attestor(&keyed("pkcs11:token=t;id=%01", "module_path = \"/m.so\" login = \"none\"")).key,
        KeySource::Token { .. }
    ));
    let chip = attestor(&keyed("handle:0x81010002", "tpm_device_path = \"/dev/tpmrm1\""));
    let KeySource::Chip { handle, chip } = chip.key else { panic!("a key in the TPM") };
    assert_eq!((handle, chip.address.to_string()), (0x8101_0002, "/dev/tpmrm1".to_owned()));
    for (data, why) in [
        (keyed("pkcs11:token=t;object=k", ""), "module_path: missing"),
        (keyed("pkcs11:token=t;object=k", "module_path = \"/m.so\""), "pin_file: missing"),
        (keyed("pkcs11:token=t", ""), "names no key"),
        (keyed("handle:0x40000001", ""), "handle:0x81000000 to handle:0x81ffffff"),
        (format!("{files} private_key_uri = \"{token}\""), "not both"),
        (format!("{files} module_path = \"/m.so\""), "module_path: unknown key"),
    ] {
        let said = mistakes(&with(&format!("plugin_data {{ {data} }}"))).join("\n");
        assert!(said.contains(why), "{data}: {said}");
    }
}

#[test]
fn ways_to_attest_are_proven_together_if_the_first_ones_block_names_the_others() {
    let with = |attestors: &str| TPM.replace("NodeAttestor \"tpm2\" { }", attestors);
    let tpm2 = |others: &str| format!("NodeAttestor \"tpm2\" {{ plugin_data {{ together_with = [{others}] }} }}");
    let x509pop = "NodeAttestor \"x509pop\" { plugin_data { private_key_path = \"k\" certificate_path = \"c\" } }";
    let parts =
        |agent: &str, attestors: &str| match read(&minimal(agent, &with(attestors))).expect("loads").node_attestor {
            NodeAttestor::Together(parts) => parts,
            other => panic!("{other:?}"),
        };
    let alone = read(&minimal("", &with(&tpm2("")))).expect("loads").node_attestor;
    assert!(matches!(alone, NodeAttestor::Tpm2(_)), "an empty list names nobody");
    let token = parts("join_token = \"t\"", &tpm2("\"join_token\""));
    assert!(matches!(&token[..], [NodeAttestor::Tpm2(_), NodeAttestor::JoinToken(Some(_))]), "{token:?}");
    let later = parts("", &tpm2("\"join_token\""));
    assert!(matches!(&later[..], [NodeAttestor::Tpm2(_), NodeAttestor::JoinToken(None)]), "{later:?}");
    let both = parts("", &format!("{} {x509pop}", tpm2("\"x509pop\"")));
    assert!(matches!(&both[..], [NodeAttestor::Tpm2(_), NodeAttestor::X509Pop(_)]), "{both:?}");
    for (attestors, why) in [
        (tpm2("\"x509pop\""), "add NodeAttestor \"x509pop\""),
        (format!("{} {x509pop}", tpm2("\"join_token\"")), "name it in together_with of \"tpm2\", or remove it"),
        (format!("NodeAttestor \"tpm2\" {{ }} {x509pop}"), "only one can be enabled"),
    ] {
        let said = mistakes(&minimal("", &with(&attestors))).join("\n");
        assert!(said.contains(why), "{attestors}: {said}");
    }
}

#[test]
fn the_agents_key_can_be_in_a_token() {
    let with = |data: &str| {
        minimal("", &TOKEN.replace("\"memory\" { }", &format!("\"pkcs11\" {{ plugin_data {{ {data} }} }}")))
    };
    let token = "module_path = \"/m.so\" token_label = \"t\" pin_file = \"/p\"";
    let label = |data: &str| match read(&with(data)).expect("loads").key_manager {
        KeyManager::Token { label, .. } => label,
        other => panic!("{other:?}"),
    };
    assert_eq!(label(token), "ironroot-agent");
    assert_eq!(label(&format!("{token} key_label = \"gateway\"")), "gateway");
    for (data, why) in [
        ("", "module_path: missing"),
        ("module_path = \"/m.so\" pin_file = \"/p\"", "token_uri: missing: name the token with one of"),
        ("module_path = \"/m.so\" token_label = \"t\" pin = \"1234\"", "no place for a PIN"),
        (&*format!("{token} key_label = \"{}\"", "x".repeat(29)), "longer than 28 bytes"),
    ] {
        let said = mistakes(&with(data)).join("\n");
        assert!(said.contains(why), "{data}: {said}");
    }
}

#[test]
fn tpm_devid_is_told_spires_files_and_takes_the_endorsement_key_that_spires_server_does() {
    let with = |data: &str| {
        let devid = format!("NodeAttestor \"tpm_devid\" {{ plugin_data {{ {data} }} }}");
        minimal("", &TOKEN.replace("NodeAttestor \"join_token\" { }", &devid))
    };
    let files = "devid_cert_path = \"c\" devid_priv_path = \"s\" devid_pub_path = \"p\"";
    let attestor = |more: &str| match read(&with(&format!("{files} {more}"))).expect("loads").node_attestor {
        NodeAttestor::TpmDevId(files, tpm) => (files, tpm),
        other => panic!("{other:?}"),
    };
    let (told, tpm) = attestor("");
    assert_eq!((told.certificate, told.private, told.public), ("c".into(), "s".into(), "p".into()));
    assert_eq!((told.password, tpm.address.to_string()), (PasswordSource::Empty, "/dev/tpmrm0".to_owned()));
    assert_eq!(tpm.endorsement, EndorsementChoice::Only(EndorsementKind::Rsa2048));
    let more = "devid_password_file = \"/d\" owner_hierarchy_password_env = \"O\" tpm_device_path = \"/dev/tpm1\" ek = \"auto\"";
    let (told, tpm) = attestor(more);
    assert_eq!(told.password, PasswordSource::File("/d".into()));
    assert_eq!(
        (tpm.owner_password, tpm.endorsement),
        (PasswordSource::Environment("O".into()), EndorsementChoice::Auto)
    );
    assert_eq!(tpm.address.to_string(), "/dev/tpm1");
    let said = mistakes(&with("devid_password_env = \"A\" devid_password_file = \"/b\" mode = \"x\"")).join("\n");
    for why in [
        "devid_cert_path: missing",
        "devid_priv_path: missing",
        "devid_pub_path: missing",
        "give the password once",
        "mode",
    ] {
        assert!(said.contains(why), "{why}: {said}");
    }
}

#[test]
fn tpm_takes_the_endorsement_key_that_spires_plugin_shows_unless_another_is_named() {
    let with = |plugin: &str| {
        let block = format!("NodeAttestor \"tpm\" {{ {plugin} }}");
        minimal("", &TOKEN.replace("NodeAttestor \"join_token\" { }", &block))
    };
    let chip = |data: &str| match read(&with(&format!("plugin_data {{ {data} }}"))).expect("loads").node_attestor {
        NodeAttestor::Tpm(chip) => chip,
        other => panic!("{other:?}"),
    };
    assert_eq!(chip("").endorsement, EndorsementChoice::Only(EndorsementKind::Rsa2048));
    assert_eq!(chip("").address.to_string(), "/dev/tpmrm0");
    let told = chip("ek = \"p256\" tpm_device_path = \"/dev/tpm1\" owner_hierarchy_password_env = \"O\"");
    assert_eq!(told.endorsement, EndorsementChoice::Only(EndorsementKind::P256));
    assert_eq!(
        (told.address.to_string(), told.owner_password),
        ("/dev/tpm1".to_owned(), PasswordSource::Environment("O".into()))
    );
    // The plugin is built in.
    let said = mistakes(&with("plugin_cmd = \"/opt/tpm_attestor_agent\" plugin_data { }")).join("\n");
    assert!(said.contains("external plugins are not supported"), "{said}");
}

#[test]
fn the_cache_can_be_chosen() {
    let cache = |text: &str| read(&minimal(&format!("offline_cache {{ {text} }}"), TPM)).expect("loads").offline_cache;
    assert_eq!(cache("enabled = false"), None);
    let chosen = cache("pcrs = [] max_age = \"24h\" tpm_nv_index = \"0x01800100\"").expect("on");
    assert!(chosen.pcrs.is_empty());
    assert_eq!((chosen.max_age, chosen.tpm_nv_index), (Some(Duration::from_secs(24 * 3600)), 0x0180_0100));
}

#[test]
fn one_tpm_is_named_in_either_place_and_way() {
    let swtpm = "swtpm:host=127.0.0.1,port=2321";
    let plugins = |attestor: &str, key: &str| {
        format!(
            "NodeAttestor \"tpm2\" {{ plugin_data {{ {attestor} }} }} KeyManager \"tpm\" {{ plugin_data {{ {key} }} }} WorkloadAttestor \"unix\" {{ }}"
        )
    };
    let path = format!("tpm_device_path = \"{swtpm}\"");
    let address = format!("tpm_address = \"{swtpm}\"");
    for (attestor, key) in [(path.as_str(), ""), ("", address.as_str()), (&address, &path)] {
        let config = read(&minimal("", &plugins(attestor, key))).expect("loads");
        assert_eq!(config.tpm().expect("a TPM").address.to_string(), swtpm);
    }
    let found = mistakes(&minimal("", &plugins(&path, "tpm_device_path = \"/dev/tpm1\"")));
    assert_eq!(
        found,
        [format!(
            "agent.conf:6: plugins.KeyManager: names the TPM /dev/tpm1, NodeAttestor names {swtpm}: the agent works with one"
        )]
    );
}

fn with_tpm2(data: &str) -> String {
    let plugins = format!(
        "NodeAttestor \"tpm2\" {{ plugin_data {{ {data} }} }} KeyManager \"tpm\" {{ }} WorkloadAttestor \"unix\" {{ }}"
    );
    minimal("", &plugins)
}

#[test]
fn the_endorsement_key_and_the_bank_of_the_cache_can_be_set() {
    let tpm = |data: &str| read(&with_tpm2(data)).expect("loads").tpm().expect("a TPM").clone();
    assert_eq!(tpm("").endorsement, EndorsementChoice::Auto);
    assert_eq!(tpm("ek = \"rsa2048\"").endorsement, EndorsementChoice::Only(EndorsementKind::Rsa2048));
    let found = mistakes(&with_tpm2("ek = \"rsa\""));
    assert!(found[0].contains("plugin_data.ek: \"rsa\"") && found[0].contains("rsa2048"), "{found:?}");
    let cache = |text: &str| read(&minimal(&format!("offline_cache {{ {text} }}"), TPM)).expect("loads").offline_cache;
    assert_eq!(cache("pcr_bank = \"auto\"").expect("on").pcr_bank, None);
    assert_eq!(cache("pcr_bank = \"sha384\"").expect("on").pcr_bank, Some(PcrHash::Sha384));
    let found = mistakes(&minimal("offline_cache { pcr_bank = \"md5\" }", TPM));
    assert!(found[0].contains("agent.offline_cache.pcr_bank") && found[0].contains("sha256"), "{found:?}");
}

#[test]
fn the_passwords_of_the_hierarchies_come_in_four_forms() {
    for hierarchy in ["owner", "endorsement"] {
        let password = |data: &str| {
            let config = read(&with_tpm2(&data.replace("KEY", &format!("{hierarchy}_hierarchy_password"))));
            let config = config.expect("loads");
            let tpm = config.tpm().expect("a TPM").clone();
            let source = if hierarchy == "owner" { tpm.owner_password } else { tpm.endorsement_password };
            (source, config.warnings)
        };
        assert_eq!(password(""), (PasswordSource::Empty, Vec::new()));
        assert_eq!(password("KEY_file = \"/p\"").0, PasswordSource::File("/p".into()));
        assert_eq!(password("KEY_env = \"P\"").0, PasswordSource::Environment("P".into()));
        assert_eq!(password("KEY_credential = \"p\"").0, PasswordSource::Credential("p".into()));
        let (given, warnings) = password("KEY = \"hunter2\"");
        assert!(matches!(&given, PasswordSource::Given(_)) && !format!("{given:?}").contains("hunter2"));
        assert!(warnings[0].contains("_file") && !warnings[0].contains("hunter2"), "{warnings:?}");
        let twice = format!("{hierarchy}_hierarchy_password_file = \"/p\" {hierarchy}_hierarchy_password_env = \"P\"");
        assert!(mistakes(&with_tpm2(&twice))[0].contains("give the password once"));
        let path = format!("{hierarchy}_hierarchy_password_credential = \"../p\"");
        assert!(mistakes(&with_tpm2(&path))[0].contains("not a path"));
        let long = format!("{hierarchy}_hierarchy_password = \"{}\"", "x".repeat(65));
        assert!(mistakes(&with_tpm2(&long))[0].contains("at most 64 bytes"));
    }
    let keys = "NodeAttestor \"join_token\" { } KeyManager \"tpm\" { plugin_data { owner_hierarchy_password_env = \"P\" } } WorkloadAttestor \"unix\" { }";
    let config = read(&minimal("join_token = \"t\"", keys)).expect("loads");
    assert_eq!(config.tpm().expect("a TPM").owner_password, PasswordSource::Environment("P".into()));
}

#[test]
fn wit_svids_are_off_until_the_key_or_spires_feature_flag_switches_them_on() {
    for (lines, is_on) in [
        ("", false),
        ("enable_wit_svids = true", true),
        ("experimental { enable_wit_svids = true }", true),
        ("experimental { feature_flags = [\"wit-svid\"] }", true),
        ("experimental { feature_flags = [\"i_am_a_test_flag\"] }", false),
        ("enable_wit_svids = false", false),
    ] {
        assert_eq!(read(&minimal(lines, TPM)).expect("loads").wit_svids, is_on, "{lines}");
    }
    let unknown = mistakes(&minimal("experimental { feature_flags = [\"wit\"] }", TPM));
    assert!(unknown[0].contains("no such feature flag; there are wit-svid"), "{unknown:?}");
}

//= FLT-S19
#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let text = r#"agent {
    trust_domain = "example org"
    server_address = "host:8081"
    server_port = 0
    trust_bundle_path = "b"
    insecure_bootstrap = true
    trust_bundle_format = "der"
    join_token = "a"
    join_token_file = "/nonexistent/token"
    workload_x509_svid_key_type = "rsa-1024"
    sds { default_svid_name = "ALL" }
    admin_socket_path = "/tmp/spire-agent/public/sub/admin.sock"
    authorized_delegates = ["spiffe://example.org/proxy", "proxy"]
    retry_bootstrap = true
    experimental {
        sync_interval = "0s"
        sync_intervall = "5s"
    }
    offline_cache {
        pcrs = [16]
        tpm_nv_index = 1
    }
}
plugins {
    NodeAttestor "tpm2" { plugin_data { tpm_device_path = "tabrmd:" } }
    KeyManager "disk" { }
    WorkloadAttestor "windows" { }
    SVIDStore "aws" { }
}
"#;
    let found = mistakes(text);
    let wanted = [
        "agent.conf:2: agent.trust_domain: \"example org\": trust domain must be",
        "agent.conf:3: agent.server_address: \"host:8081\": not a host name or IP address (the port goes into server_port)",
        "agent.conf:4: agent.server_port: \"0\": not a whole number from 1 to 65535",
        "agent.conf:6: agent.insecure_bootstrap: give either trust_bundle_path or insecure_bootstrap, not both",
        "agent.conf:7: agent.trust_bundle_format: \"der\": not a bundle format: use pem or spiffe",
        "agent.conf:9: agent.join_token_file: give either join_token or join_token_file, not both",
        "agent.conf:9: agent.join_token_file: \"/nonexistent/token\": cannot read the file",
        "agent.conf:10: agent.workload_x509_svid_key_type: \"rsa-1024\": not a key type: use ec-p256, ec-p384 or rsa-2048",
        "agent.conf:11: agent.sds.default_svid_name: the three names of this block must differ",
        "agent.conf:12: agent.admin_socket_path: the admin socket cannot be in the same directory or a subdirectory",
        "agent.conf:13: agent.authorized_delegates: \"proxy\": ",
        "agent.conf:14: agent.retry_bootstrap: unknown key",
        "agent.conf:16: agent.experimental.sync_interval: must be above zero, such as 5s",
        "agent.conf:17: agent.experimental.sync_intervall: unknown key: did you mean sync_interval?",
        "agent.conf:20: agent.offline_cache.pcrs: \"16\" is not a PCR index from 0 to 15",
        "agent.conf:21: agent.offline_cache.tpm_nv_index: \"1\": not an NV index of the owner: 0x01800000 to 0x01bfffff",
        "agent.conf:25: plugins.NodeAttestor.tpm2.plugin_data.tpm_device_path: \"tabrmd:\":",
        "agent.conf:26: plugins.KeyManager.disk.plugin_data.directory: missing: give the directory for the key",
        "agent.conf:27: plugins.WorkloadAttestor.windows: not supported by ironroot-agent yet: use \"unix\", \"systemd\", \"docker\", \"k8s\" and \"slurm\"",
        "agent.conf:28: plugins.SVIDStore: not supported by ironroot-agent yet: remove it",
    ];
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
    for (found, wanted) in found.iter().zip(wanted) {
        assert!(found.starts_with(wanted), "{found}\n{wanted}");
    }
}

#[test]
fn envoys_secrets_have_spires_names_unless_others_are_given_and_each_api_can_be_switched_off() {
    let sds = |text: &str| read(&minimal(text, TOKEN)).expect("loads").secrets;
    assert_eq!(sds(""), Some(SdsConfig::default()));
    let default = sds("").expect("on");
    assert_eq!((&*default.default_svid_name, &*default.default_bundle_name), ("default", "ROOTCA"));
    assert_eq!((&*default.default_all_bundles_name, default.disable_spiffe_cert_validation), ("ALL", false));
    let given = sds(
        r#"sds { default_svid_name = "a" default_bundle_name = "b" default_all_bundles_name = "c" disable_spiffe_cert_validation = true }"#,
    );
    let given = given.expect("on");
    assert_eq!((&*given.default_svid_name, &*given.default_bundle_name), ("a", "b"));
    assert_eq!((&*given.default_all_bundles_name, given.disable_spiffe_cert_validation), ("c", true));
    assert_eq!(sds("disable_sds_api = true"), None);
    assert!(read(&minimal("", TOKEN)).expect("loads").workload_api);
    assert!(!read(&minimal("disable_workload_api = true", TOKEN)).expect("loads").workload_api);
}

#[test]
fn the_admin_socket_has_a_directory_of_its_own_and_delegates_are_workloads_of_the_trust_domain() {
    assert_eq!(read(&minimal("", TOKEN)).expect("loads").admin_socket_path, None);
    for (workloads, admin, is_legal) in [
        ("/run/a/public/api.sock", "/run/a/private/admin.sock", true),
        ("/run/a/public/api.sock", "/run/a/admin.sock", true),
        ("/run/a/public/api.sock", "/run/a/public2/admin.sock", true),
        ("/run/a/public/api.sock", "/run/a/public/admin.sock", false),
        ("/run/a/public/api.sock", "/run/a/public/deeper/admin.sock", false),
        ("/run/a/public/api.sock", "/run/a/private/../public/admin.sock", false),
    ] {
        let text = format!("socket_path = \"{workloads}\" admin_socket_path = \"{admin}\"");
        match read(&minimal(&text, TOKEN)) {
            Ok(config) => {
                assert_eq!((config.admin_socket_path, is_legal), (Some(PathBuf::from(admin)), true), "{admin}")
            }
            Err(mistakes) => {
                assert!(!is_legal && mistakes.to_string().contains("cannot be in the same directory"), "{mistakes}");
            }
        }
    }
    let foreign = "admin_socket_path = \"/a/b\" authorized_delegates = [\"spiffe://other/proxy\"]";
    assert!(mistakes(&minimal(foreign, TOKEN))[0].contains("agent.authorized_delegates: \"spiffe://other/proxy\""));
    let useless = read(&minimal("authorized_delegates = [\"spiffe://example.org/proxy\"]", TOKEN)).expect("loads");
    assert!(useless.warnings[0].contains("admin_socket_path"), "{:?}", useless.warnings);
}

/// An `agent` block with this in `experimental { broker { } }`.
fn with_broker(lines: &str) -> String {
    minimal(&format!("socket_path = \"/run/a/public/api.sock\" experimental {{ broker {{ {lines} }} }}"), TOKEN)
}

#[test]
fn brokers_are_those_that_the_file_names_with_the_types_of_references_it_grants() {
    assert_eq!(read(&minimal("", TOKEN)).expect("loads").broker, None);
    let id = |text: &str| SpiffeId::parse(text).expect("legal");
    let only = |types: &[&str]| ReferenceTypes::Only(types.iter().map(|text| (*text).to_owned()).collect());
    let as_list = r#"socket_path = "/run/a/brokers/broker.sock" brokers = [
        { id = "spiffe://example.org/a" allowed_reference_types = [{ type_url = "x" }, { type_url = "y" allow_over_tcp = true }] },
        { id = "spiffe://other/b" allowed_reference_types = [{ type_url = "*" }] },
    ]"#;
    let as_blocks = r#"socket_path = "/run/a/brokers/broker.sock" bind_address = ""
        brokers { id = "spiffe://example.org/a" allowed_reference_types { type_url = "x" } allowed_reference_types { type_url = "y" } }
        brokers { id = "spiffe://other/b" allowed_reference_types { type_url = "*" } }"#;
    let brokers = [(id("spiffe://example.org/a"), only(&["x", "y"])), (id("spiffe://other/b"), ReferenceTypes::Any)];
    let socket_path = PathBuf::from("/run/a/brokers/broker.sock");
    let wanted = Some(BrokerConfig { socket_path, brokers: brokers.into_iter().collect() });
    for text in [as_list, as_blocks] {
        assert_eq!(read(&with_broker(text)).expect("loads").broker, wanted, "{text}");
    }
    let warnings = read(&with_broker(as_list)).expect("loads").warnings;
    assert!(
        warnings.iter().any(|line| line.contains("brokers[0].allowed_reference_types[1].allow_over_tcp")),
        "{warnings:?}"
    );
    let unknown = |line: &&String| line.contains("allowed_reference_types[0].type_url: not understood here");
    assert_eq!(warnings.iter().filter(unknown).count(), 1, "{warnings:?}");
    let pid = "\"type.googleapis.com/spiffe.broker.WorkloadPIDReference\"";
    let known = as_blocks.replace("\"x\"", pid).replace("allowed_reference_types { type_url = \"y\" }", "");
    assert_eq!(read(&with_broker(&known)).expect("loads").warnings.iter().filter(unknown).count(), 0);
}

#[test]
fn mistakes_about_brokers_are_named() {
    let all = |brokers: &str| format!("socket_path = \"/run/a/brokers/b.sock\" brokers = [{brokers}]");
    let one = |types: &str| all(&format!("{{ id = \"spiffe://td/a\" allowed_reference_types = [{types}] }}"));
    let any = "{ id = \"spiffe://td/a\" allowed_reference_types = [{ type_url = \"*\" }] }";
    for (text, wanted) in [
        (format!("brokers = [{any}]"), "broker.socket_path: missing"),
        (all(&format!("{any}, {any}")), "broker.brokers[1].id: duplicate broker id spiffe://td/a"),
        (all(""), "broker.brokers: missing"),
        (all("{ allowed_reference_types = [{ type_url = \"*\" }] }"), "broker.brokers[0].id: missing"),
        (all("{ id = \"a\" allowed_reference_types = [{ type_url = \"*\" }] }"), "broker.brokers[0].id: \"a\""),
        (all("{ id = \"spiffe://td/a\" }"), "broker.brokers[0].allowed_reference_types: missing"),
        (all("\"a\""), "broker.brokers: expected a block in braces, found a string"),
        (all("{ idd = 1 }"), "broker.brokers[0].idd: unknown key: did you mean id?"),
        (one(""), "broker.brokers[0].allowed_reference_types: missing"),
        (one("{ allow_over_tcp = true }"), "allowed_reference_types[0].type_url: missing"),
        (one("{ type_url = \"*\" }, { type_url = \"x\" }"), "wildcard \"*\" must be the only allowed reference type"),
        (
            format!("bind_address = \"127.0.0.1:1\" {}", all(any)),
            "broker.bind_address: brokers are served on a unix socket",
        ),
        (
            format!("socket_path = \"/run/a/public/b/b.sock\" brokers = [{any}]"),
            "broker.socket_path: the broker socket cannot",
        ),
        (
            "socket_path = 7 brokers = 7".to_owned(),
            "broker.brokers: expected a list of blocks in braces, found a number",
        ),
    ] {
        let found = mistakes(&with_broker(&text));
        assert!(found.iter().any(|line| line.contains(wanted)), "{wanted} in {found:?}");
    }
}

#[test]
fn an_empty_file_says_everything_that_is_needed() {
    let found = mistakes("");
    for needed in [
        "agent.trust_domain: missing",
        "agent.server_address: missing",
        "agent.server_port: missing",
        "agent.trust_bundle_path: missing",
        "plugins.NodeAttestor: missing",
        "plugins.KeyManager: missing",
        "plugins.WorkloadAttestor: missing",
    ] {
        assert!(found.iter().any(|line| line.contains(needed)), "{needed} in {found:?}");
    }
}

#[test]
fn believing_the_first_server_is_warned_of() {
    let text = format!(
        "agent {{ trust_domain = \"td\" server_address = \"[::1]\" server_port = \"8081\" insecure_bootstrap = true }} plugins {{ {TOKEN} }}"
    );
    let config = read(&text).expect("loads");
    assert_eq!((&config.servers[0].bootstrap, config.servers[0].address.as_str()), (&Bootstrap::Insecure, "::1"));
    assert!(config.warnings[0].contains("the first server that answers will be believed"));
}

#[test]
fn the_command_line_wins_over_the_file() {
    let settings = Settings::parse(Path::new("agent.conf"), &minimal("log_level = \"INFO\"", TOKEN)).expect("HCL");
    let given = |flag, key, value: &str| Override { flag, key, value: value.to_owned() };
    let overrides =
        [given("-joinToken", "join_token", "from-flag"), given("-serverAddress", "server_address", "other")];
    let config = AgentConfig::from_settings(settings, &overrides).expect("loads");
    let NodeAttestor::JoinToken(Some(token)) = &config.node_attestor else { panic!("a token") };
    assert_eq!((token.expose(), config.servers[0].address.as_str()), ("from-flag", "other"));
}

#[test]
fn the_log_is_written_where_and_as_the_file_says() {
    let read_log = |lines: &str| read(&minimal(lines, TOKEN)).expect("loads").log;
    assert_eq!(read_log(""), LogConfig::default());
    let file = Some(PathBuf::from("/tmp/x.log"));
    let said = read_log("log_file = \"/tmp/x.log\" log_level = \"debug\" log_format = \"json\"");
    assert_eq!(said, LogConfig { file, level: LogLevel::Debug, format: LogFormat::Json });
    let found = mistakes(&minimal("log_level = \"loud\"\n log_format = \"xml\"", TOKEN));
    for (key, line) in ["log_level", "log_format"].iter().zip(&found) {
        assert!(line.contains(&format!("agent.{key}: ")), "{line}");
    }
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_bundle_may_be_spiffes_document_and_the_servers_place_is_what_the_file_names() {
    let servers = |lines: &str| read(&minimal(lines, TOKEN)).expect("loads").servers;
    let bootstrap = &servers("trust_bundle_format = \"spiffe\"")[0].bootstrap;
    assert_eq!(*bootstrap, in_file("b", TrustBundleFormat::Spiffe));
    let server = &servers("")[0];
    assert_eq!((server.address.as_str(), server.port), ("s", 8081));
}

/// A configuration whose server is known by what `lines` say.
fn known_by(lines: &str) -> String {
    minimal(lines, TPM).replace("trust_bundle_path = \"b\"", "")
}

fn source(lines: &str) -> String {
    match &read(&known_by(lines)).expect("loads").servers[0].bootstrap {
        Bootstrap::TrustBundle(source) => source.to_string(),
        Bootstrap::Insecure => "nothing".to_owned(),
    }
}

#[test]
fn a_bundle_may_be_a_web_servers_a_local_programs_or_another_agents() {
    let url = "https://bundles.example:8443/td.pem?a=b";
    assert_eq!(source(&format!("trust_bundle_url = \"{url}\"")), format!("trust_bundle_url {url}"));
    let local = "trust_bundle_url = \"http://localhost/td\"\n trust_bundle_unix_socket = \"/run/b.sock\"";
    assert_eq!(source(local), "trust_bundle_url http://localhost/td at /run/b.sock");
    for address in ["unix:///run/spire/agent.sock", "unix:/run/spire/agent.sock"] {
        let told = source(&format!("trust_bundle_spiffe_workload_api = \"{address}\""));
        assert_eq!(told, "trust_bundle_spiffe_workload_api /run/spire/agent.sock");
    }
    let other = "server \"a\" { server_address = \"s\" server_port = 1 trust_bundle_url = \"https://a/\" }";
    assert_eq!(read(&minimal(other, TPM)).expect("loads").servers.len(), 2, "of each server its own");
    for (lines, words) in [
        ("", "agent.trust_bundle_path: missing: the agent could not tell the server from an impostor"),
        ("trust_bundle_url = \"http://a/b\"", "agent.trust_bundle_url: \"http://a/b\": URL must use the https scheme"),
        ("trust_bundle_url = \"https:///b\"", "URL must specify the host"),
        ("trust_bundle_url = \"https://a:b@c/\"", "URL must not contain user info"),
        (
            "trust_bundle_url = \"https://a/b\"\n trust_bundle_unix_socket = \"/s\"",
            "agent.trust_bundle_url: \"https://a/b\": must start with http:// and a host",
        ),
        (
            "trust_bundle_url = \"http://a/b?x=y&spire-server-port=1\"\n trust_bundle_unix_socket = \"/s\"",
            "its parameter \"spire-server-port\" begins as those that the agent adds",
        ),
        ("insecure_bootstrap = true trust_bundle_unix_socket = \"/s\"", "asks nothing without trust_bundle_url"),
        ("trust_bundle_spiffe_workload_api = \"tcp://127.0.0.1:1\"", "not the address of a Workload API"),
        ("trust_bundle_spiffe_workload_api = \"unix:agent.sock\"", "the socket's path must be absolute"),
        (
            "trust_bundle_url = \"https://a/\" trust_bundle_spiffe_workload_api = \"unix:///s\"",
            "give either trust_bundle_url or trust_bundle_spiffe_workload_api, not both",
        ),
    ] {
        let found = mistakes(&known_by(lines));
        assert!(found.len() == 1 && found[0].contains(words), "{words} in {found:?}");
    }
}

#[test]
fn whether_and_when_the_server_is_known_anew_is_what_the_file_says() {
    for (text, mode) in
        [("never", RebootstrapMode::Never), ("auto", RebootstrapMode::Auto), ("always", RebootstrapMode::Always)]
    {
        let lines = format!("rebootstrap_mode = \"{text}\" rebootstrap_delay = \"90s\"");
        let said = read(&minimal(&lines, TPM)).expect("loads").rebootstrap;
        assert_eq!(said, Rebootstrap { mode, delay: Duration::from_secs(90) });
    }
    read(&minimal("rebootstrap_mode = \"auto\"", TOKEN)).expect("it is found out whether it may");
    for (text, words) in [
        (minimal("rebootstrap_mode = \"sometimes\"", TPM), "not a mode: use never, auto or always"),
        (minimal("rebootstrap_delay = \"soon\"", TPM), "agent.rebootstrap_delay: "),
        (minimal("rebootstrap_mode = \"always\"", TOKEN), "an agent with a join token may attest once"),
        (
            known_by("insecure_bootstrap = true rebootstrap_mode = \"auto\""),
            "agent.rebootstrap_mode: insecure_bootstrap cannot be used with it",
        ),
    ] {
        let found = mistakes(&text);
        assert!(found.len() == 1 && found[0].contains(words), "{words} in {found:?}");
    }
}

#[test]
fn what_the_agent_does_anyway_may_be_asked_for_and_anything_else_is_refused() {
    let lines = "\
                 experimental { use_sync_authorized_entries = false sync_interval = \"7s\" }";
    let config = read(&minimal(lines, TOKEN)).expect("loads");
    assert_eq!(config.sync_interval, Duration::from_secs(7));
    for (line, words) in [
        ("workload_x509_svid_key_type = \"x\"", "agent.workload_x509_svid_key_type: \"x\": not a key type"),
        ("experimental { use_sync_authorized_entries = \"no\" }", "agent.experimental.use_sync_authorized_entries: "),
    ] {
        let found = mistakes(&minimal(line, TOKEN));
        assert!(found.len() == 1 && found[0].contains(words), "{words} in {found:?}");
    }
}

#[test]
fn validate_looks_at_what_the_file_names_and_tells_all_of_it_at_once() {
    let directory = tempfile::tempdir().expect("directory");
    let at = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(at("not.pem"), "no certificate").expect("written");
    std::fs::write(at("file"), "").expect("written");
    let path = directory.path().join("agent.conf");
    let text = format!(
        "agent {{\n trust_domain = \"example.org\"\n server_address = \"s\"\n server_port = 8081\n trust_bundle_path = \"{bundle}\"\n \
         data_dir = \"{file}/below\"\n socket_path = \"{file}/api.sock\"\n log_file = \"{none}/log\"\n}}\nplugins {{\n \
         NodeAttestor \"tpm2\" {{ plugin_data {{ tpm_device_path = \"{none}/tpmrm0\" }} }}\n KeyManager \"tpm\" {{ }}\n \
         WorkloadAttestor \"unix\" {{ }}\n}}\n",
        bundle = at("not.pem"),
        file = at("file"),
        none = at("none"),
    );
    std::fs::write(&path, text).expect("written");
    AgentConfig::load(&path, &[], false).expect("as text it is right: another machine may have these files");
    let said = AgentConfig::validate(&path, &[], false).expect_err("mistakes").to_string();
    let lines: Vec<&str> = said.lines().collect();
    for (line, words) in [
        (5, "trust_bundle_path: "),
        (6, "data_dir: cannot use as a directory"),
        (7, "socket_path: "),
        (8, "log_file: there is no directory"),
        (11, "is there a TPM"),
    ] {
        let place = format!("{}:{line}: ", path.display());
        assert!(lines.iter().any(|said| said.starts_with(&place) && said.contains(words)), "{words}: {said}");
    }
    assert!(said.contains("not.pem: the trust bundle is not PEM certificates"), "{said}");
    let long = format!("socket_path = \"/{}\"", "x".repeat(130));
    let said = mistakes(&minimal(&long, TOKEN)).join("\n");
    assert!(said.contains("a socket's path has at most 107"), "{said}");
}

#[test]
fn a_kubelets_token_is_looked_for_by_its_own_name_and_a_docker_that_cannot_be_asked_is_a_warning() {
    let directory = tempfile::tempdir().expect("directory");
    let at = |name: &str| directory.path().join(name);
    let validated = |attestor: &str| {
        let plugins = format!(
            "NodeAttestor \"join_token\" {{ }} KeyManager \"memory\" {{ }} WorkloadAttestor \"unix\" {{ }} WorkloadAttestor {attestor}"
        );
        let here = format!("data_dir = \"{0}\" socket_path = \"{0}/public/api.sock\"", directory.path().display());
        let text = minimal(&here, &plugins).replace("trust_bundle_path = \"b\"", "insecure_bootstrap = true");
        std::fs::write(at("agent.conf"), text).expect("written");
        AgentConfig::validate(&at("agent.conf"), &[], false)
    };
    let kubelet = validated("\"k8s\" { plugin_data { skip_kubelet_verification = true } }").map(drop);
    let kubelet = kubelet.expect_err("no token").to_string();
    assert!(kubelet.contains("k8s.plugin_data.token_path: ") && !kubelet.contains("kubelet_ca_path"), "{kubelet}");
    let warnings = |socket: &Path| {
        let (socket, podman) = (socket.display(), at("podman.sock"));
        let docker = format!(
            "\"docker\" {{ plugin_data {{ docker_socket_path = \"unix://{socket}\" podman_socket_path = \"{}\" }} }}",
            podman.display()
        );
        let said = validated(&docker).map(|config| config.warnings).map_err(|error| error.to_string());
        format!("{said:?}")
    };
    let absent = warnings(&at("none.sock"));
    assert!(absent.contains("docker_socket_path: ") && absent.contains("none.sock is not there"), "{absent}");
    let _docker = std::os::unix::net::UnixListener::bind(at("docker.sock")).expect("binds");
    let there = warnings(&at("docker.sock"));
    assert!(!there.contains("docker.sock"), "{there}");
}

#[test]
fn what_is_wrong_is_told_once_and_of_the_key_that_says_it() {
    let directory = tempfile::tempdir().expect("directory");
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("open.key"), "a key").expect("written");
    std::fs::set_permissions(at("open.key"), std::fs::Permissions::from_mode(0o644)).expect("set");
    std::fs::write(at("in.the.way"), "no socket").expect("written");
    let looked_at = |agent: &str, plugins: &str| {
        let path = at("agent.conf");
        std::fs::write(&path, minimal(agent, plugins)).expect("written");
        AgentConfig::validate(&path, &[], false).expect_err("mistakes").to_string()
    };
    let rest = r#"KeyManager "tpm" { } WorkloadAttestor "unix" { }"#;
    let wrong_address =
        format!(r#"NodeAttestor "tpm2" {{ plugin_data {{ tpm_device_path = "swtpm:host=nope" }} }} {rest}"#);
    let said = looked_at("", &wrong_address);
    assert!(said.contains("tpm_device_path: \"swtpm:host=nope\": not a TPM address"), "{said}");
    assert!(!said.contains("cannot use the TPM"), "the default is not what was meant: {said}");

    let absent = r#"NodeAttestor "join_token" { } KeyManager "tpm" { plugin_data { tpm_device_path = "/nowhere/tpm" } } WorkloadAttestor "unix" { }"#;
    let said = looked_at("", absent);
    assert!(said.contains("plugins.KeyManager: cannot use the TPM /nowhere/tpm"), "{said}");

    let key = at("open.key");
    let open = format!(
        r#"NodeAttestor "x509pop" {{ plugin_data {{ private_key_path = "{}" certificate_path = "/nowhere/pem" }} }} KeyManager "memory" {{ }} WorkloadAttestor "unix" {{ }}"#,
        key.display()
    );
    let said = looked_at("", &open);
    assert!(said.contains(".private_key_path: the file with the device's private key is not used"), "{said}");
    assert!(said.contains(".certificate_path: cannot read /nowhere/pem"), "{said}");

    let said = looked_at(&format!("socket_path = \"{}\"", at("in.the.way").display()), TOKEN);
    assert!(said.contains("in.the.way\" exists and is not a socket"), "{said}");
}

/// An agent with these blocks of servers besides `agent`.
fn with_servers(agent: &str, servers: &str) -> String {
    format!("agent {{\n trust_domain = \"example.org\"\n {agent}\n {servers}\n}}\nplugins {{ {TOKEN} }}\n")
}

const NORTH: &str =
    "server \"north\" { server_address = \"n\" server_port = 1 trust_bundle_path = \"bn\" join_token = \"tn\" }";
const SOUTH: &str = "server \"south\" { server_address = \"s\" server_port = 2 insecure_bootstrap = true }";
const OWN: &str = "server_address = \"o\" server_port = 3 trust_bundle_path = \"bo\" join_token = \"to\"";

#[test]
fn servers_are_what_the_agent_block_names_and_a_block_each_which_keep_what_they_have_apart() {
    let servers = |agent: &str| read(&with_servers(agent, &format!("{NORTH}\n {SOUTH}"))).expect("loads");
    let both = servers("");
    let seen: Vec<_> = both.servers.iter().map(|server| (server.address.as_str(), server.port)).collect();
    assert_eq!(seen, [("n", 1), ("s", 2)]);
    let three = servers(OWN);
    let directory = |place: usize| three.servers[place].directory(Path::new("d"));
    assert_eq!(
        [directory(0), directory(1), directory(2)],
        ["d", "d/servers/north", "d/servers/south"].map(PathBuf::from),
        "what SPIRE's keys name keeps its place"
    );
    let token = |place: usize| match three.servers[place].node_attestor(&three.node_attestor) {
        NodeAttestor::JoinToken(token) => token.map(|token| token.expose().to_owned()),
        other => panic!("{other:?}"),
    };
    assert_eq!([token(0), token(1), token(2)], [Some("to".to_owned()), Some("tn".to_owned()), None]);
    assert_eq!(three.servers[1].key_label("label"), "label.north");
    assert_eq!(three.servers[0].key_label("label"), "label");
}

#[test]
fn mistakes_about_servers_name_the_block() {
    let found = |agent: &str, servers: &str| mistakes(&with_servers(agent, servers)).join("\n");
    for (agent, servers, said) in [
        (
            "",
            "server \"Nord\" { server_address = \"n\" server_port = 1 trust_bundle_path = \"b\" }",
            "not a server's name",
        ),
        (
            "",
            "server \"north\" { server_port = 1 trust_bundle_path = \"b\" }",
            "agent.server.north.server_address: missing",
        ),
        (
            "",
            "server \"north\" { server_address = \"n\" server_port = 1 trust_bundle_path = \"b\" colour = 1 }",
            "colour: unknown key",
        ),
        ("", &format!("{NORTH} {NORTH}"), "two servers are called \"north\""),
        ("trust_bundle_path = \"b\"", NORTH, "agent.trust_bundle_path: belongs to one of the servers"),
        ("join_token = \"t\"", NORTH, "agent.join_token: belongs to one of the servers"),
        ("", "server { server_address = \"n\" }", "server"),
        (OWN, &["a", "b", "c", "d"].map(|name| NORTH.replace("north", name)).join(" "), "at most 4 servers"),
    ] {
        let found = found(agent, servers);
        assert!(found.contains(said), "{said}: {found}");
    }
    let label = "KeyManager \"pkcs11\" { plugin_data { module_path = \"m\" token_label = \"t\" pin_file = \"p\" key_label = \"a-label-of-twenty-bytes\" } }";
    let text = with_servers(OWN, SOUTH).replace("KeyManager \"memory\" { }", label);
    assert!(text.contains("pkcs11"), "{text}");
    assert!(
        mistakes(&text).join("\n").contains("key_label and the name of a server together"),
        "{:?}",
        mistakes(&text)
    );
}

#[test]
fn several_servers_do_not_ask_at_one_port() {
    let text = |data: &str| {
        let attestor =
            format!("NodeAttestor \"http_challenge\" {{ plugin_data {{ hostname = \"h.example\" {data} }} }}");
        with_servers(OWN, SOUTH).replace("NodeAttestor \"join_token\" { }", &attestor)
    };
    assert!(text("").contains("http_challenge"), "{}", text(""));
    let said = |data: &str| mistakes(&text(data)).join("\n").contains("several servers cannot ask at one port");
    assert!(said("port = 8080") && said("advertised_port = 80"));
}

#[test]
fn a_ca_of_its_own_is_for_an_agent_that_says_so_within_bounds_and_with_one_server() {
    let own = |block: &str, plugins: &str| read(&minimal(block, plugins)).expect("good").local_authority;
    assert_eq!(own("", TPM), None);
    assert_eq!(own("local_authority { enabled = false }", TPM), None);
    let day = Duration::from_secs(24 * 3600);
    let hour = Duration::from_secs(3600);
    let config = own("local_authority { }", TPM).expect("the block is there");
    assert_eq!((config.ca_ttl, config.max_offline, config.default_x509_svid_ttl), (day, day, hour));
    let config = own("local_authority { ca_ttl = \"2h\" max_offline = \"1h\" default_x509_svid_ttl = \"5m\" }", TOKEN);
    let config = config.expect("the block is there");
    assert_eq!((config.ca_ttl, config.max_offline), (2 * hour, hour));
    assert_eq!(config.default_x509_svid_ttl, Duration::from_secs(300));

    assert_eq!(config.jwt_svids, None, "a key in everybody's bundle is there for who asks for it");
    let config = own("local_authority { jwt_svids = true }", TPM).expect("the block is there").jwt_svids;
    let default = LocalJwtConfig { default_ttl: Duration::from_secs(300), issuer: None };
    assert_eq!(config, Some(default));
    let block = "local_authority { jwt_svids = true default_jwt_svid_ttl = \"1m\" jwt_issuer = \"https://i.example\" }";
    let config = own(block, TPM).expect("the block is there").jwt_svids.expect("switched on");
    assert_eq!((config.default_ttl.as_secs(), config.issuer.as_deref()), (60, Some("https://i.example")));
    let found =
        mistakes(&minimal("local_authority { jwt_issuer = \"i\" default_jwt_svid_ttl = \"9s\" }", TPM)).join("\n");
    assert!(found.contains("set jwt_svids = true") && found.contains("default_jwt_svid_ttl: must be"), "{found}");

    let block =
        "local_authority { ca_ttl = \"9s\"\n max_offline = \"169h\"\n default_x509_svid_ttl = \"1s\"\n colour = 1 }";
    let found = mistakes(&minimal(block, TPM)).join("\n");
    for words in
        ["ca_ttl: must be from 10s to 168h", "max_offline: must be", "default_x509_svid_ttl: must be", "colour"]
    {
        assert!(found.contains(words), "{words} is not in: {found}");
    }
    let several = format!("local_authority {{ }}\n{SOUTH}");
    let found = mistakes(&minimal(&several, TPM)).join("\n");
    assert!(found.contains("with several servers"), "{found}");
    let long = "KeyManager \"pkcs11\" { plugin_data { module_path = \"m\" token_label = \"t\" pin_file = \"p\" key_label = \"a-label-of-twenty-six-byte\" } }";
    let plugins = format!("NodeAttestor \"join_token\" {{ }} {long} WorkloadAttestor \"unix\" {{ }}");
    let found = mistakes(&minimal("local_authority { }", &plugins)).join("\n");
    assert!(found.contains("make key_label at most 25 bytes long"), "{found}");
    let found = mistakes(&minimal("local_authority { jwt_svids = true }", &plugins)).join("\n");
    assert!(found.contains("make key_label at most 24 bytes long"), "{found}");
}

#[test]
fn what_verifiers_are_told_is_spires_unless_the_file_says_more() {
    assert_eq!(read(&minimal("", TOKEN)).expect("loads").verifiers, VerifierPolicy::default());
    let lines = "allowed_foreign_jwt_claims = [\"email\", \"groups\"] allow_unauthenticated_verifiers = true";
    let all = read(&minimal(lines, TOKEN)).expect("loads").verifiers;
    assert!(all.without_identity);
    assert_eq!(all.foreign_claims.into_iter().collect::<Vec<_>>(), ["email", "groups"]);
    for (line, words) in [
        ("allow_unauthenticated_verifiers = \"yes\"", "agent.allow_unauthenticated_verifiers: expected true or false"),
        ("allowed_foreign_jwt_claims = \"email\"", "agent.allowed_foreign_jwt_claims: expected a list"),
        (
            "allowed_foreign_jwt_claims = [\"email\", \"\"]",
            "agent.allowed_foreign_jwt_claims: \"\": no claim has this name",
        ),
    ] {
        let found = mistakes(&minimal(line, TOKEN));
        assert!(
            found.len() == 1 && found[0].starts_with("agent.conf:4: ") && found[0].contains(words),
            "{words} in {found:?}"
        );
    }
}

#[test]
fn workloads_have_keys_of_spires_three_kinds() {
    let kind = |line: &str| read(&minimal(line, TOKEN)).expect("loads").workload_keys;
    assert_eq!(kind(""), WorkloadKeyKind::EcP256);
    for (name, expected) in [
        ("ec-p256", WorkloadKeyKind::EcP256),
        ("EC-P384", WorkloadKeyKind::EcP384),
        ("ec-p384", WorkloadKeyKind::EcP384),
        ("rsa-2048", WorkloadKeyKind::Rsa2048),
    ] {
        assert_eq!(kind(&format!("workload_x509_svid_key_type = \"{name}\"")), expected);
    }
}

#[test]
fn all_selectors_are_logged_unless_the_file_allows_some() {
    let logged = |line: &str| read(&minimal(line, TOKEN)).expect("loads").logged_selectors;
    assert_eq!(logged(""), LoggedSelectors::All);
    assert_eq!(logged("log_selectors = []"), LoggedSelectors::Beginning(Vec::new()));
    let two = ["unix:uid", "k8s:ns"].map(|prefix| prefix.parse().expect("a prefix")).to_vec();
    assert_eq!(logged("log_selectors = [\"unix:uid\", \"k8s:ns\"]"), LoggedSelectors::Beginning(two));
    let found = mistakes(&minimal("log_selectors = [\"unix:\", \"unix\", \"\"]", TOKEN));
    assert_eq!(found.len(), 2, "{found:?}");
    for (line, wrong) in found.iter().zip(["\"unix:\"", "\"\""]) {
        assert!(
            line.starts_with(&format!("agent.conf:4: agent.log_selectors: {wrong}: no selector begins so")),
            "{line}"
        );
    }
}

#[test]
fn calls_are_bounded_by_the_rates_of_the_file_and_not_at_all_without() {
    let rates = |lines: &str| read(&minimal(&format!("experimental {{ {lines} }}"), TOKEN)).expect("loads").call_rates;
    assert_eq!(rates("").bounded().count(), 0);
    let some = rates("ratelimit { fetch_x509_svid = 100 fetch_jwt_bundles = 0 fetch_secrets = \"7\" }");
    let bounded: Vec<_> = some.bounded().collect();
    assert_eq!(bounded, [(BoundedCall::FetchX509Svid, 100), (BoundedCall::FetchSecrets, 7)]);
    let found = mistakes(&minimal(
        "experimental { ratelimit { fetch_jwt_svid = -1\n fetch_secrets = \"x\"\n fetch_all = 1 } }",
        TOKEN,
    ));
    let rate = "not a whole number from 0 to 1000000";
    for (line, found) in [
        format!("agent.conf:4: agent.experimental.ratelimit.fetch_jwt_svid: \"-1\": {rate}"),
        format!("agent.conf:5: agent.experimental.ratelimit.fetch_secrets: \"x\": {rate}"),
        "agent.conf:6: agent.experimental.ratelimit.fetch_all: unknown".to_owned(),
    ]
    .iter()
    .zip(&found)
    {
        assert!(found.starts_with(line), "{line} in {found}");
    }
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn the_patience_for_newer_tokens_is_within_spires_bounds() {
    let patience = |text: &str| {
        let lines = format!("experimental {{ jwt_svid_cache_hit_timeout = \"{text}\" }}");
        read(&minimal(&lines, TOKEN)).map(|config| config.renewal_patience)
    };
    assert_eq!(read(&minimal("", TOKEN)).expect("loads").renewal_patience, RenewalPatience::default());
    assert_eq!(patience("5s").expect("loads").of_held(), Duration::from_secs(5));
    for wrong in ["4s", "30s"] {
        let said = patience(wrong).expect_err("a mistake").to_string();
        assert!(
            said.contains("agent.experimental.jwt_svid_cache_hit_timeout: must be at least 5s and below 30s"),
            "{said}"
        );
    }
}
