//! What both daemons show to Prometheus: what happened, how it is, and nobody's name.

use std::fmt::Write;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within, free_port, wait_for,
};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::metrics::{self, scrape, series, switch_on, switch_on_tls, value};
use ironroot_lab::web_certificate::WebCertificate;

const ALICE: u32 = 60_001;
const STRANGER: u32 = 60_003;
/// Devices and entries of the test that nothing grows with them.
const MANY: usize = 10_000;

/// A server that shows its metrics at the port.
fn server(options: &ServerOptions) -> (Server, u16) {
    let (mut server, port) = (Server::prepare(options), free_port());
    switch_on(&server.config_path(), port);
    server.restart();
    (server, port)
}

fn page(port: u16) -> String {
    wait_for(DEADLINE, || scrape(port)).expect("a page of metrics")
}

/// Waits until the series has a value that is `good`.
fn expect(port: u16, name: &str, labels: &[&str], good: impl Fn(f64) -> bool) {
    let found = || value(&page(port), name, labels).is_some_and(&good);
    expect_within(DEADLINE, &format!("{name} {labels:?}"), || page(port), found);
}

#[test]
fn both_daemons_show_what_happened_and_how_they_are() {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let mut device = Device::manufacture(&maker);
    let (server, server_port) = server(&ServerOptions::default());
    server.import_devices(&format!("ek_sha256,serial,label:site\n{},SN-1,berlin\n", device.ek_sha256()));
    let parent = server.create_node_alias("/gateway", "site:berlin");
    server.create_entry(&parent, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    device.provision(&server, &AgentOptions::default());
    let agent_port = free_port();
    switch_on(&device.config_path(), agent_port);
    device.start();
    device.expect_identity(ALICE);
    device.expect_sealed(1);
    device.fetch(STRANGER).expect_err("no entry, no identity");

    for (name, labels) in [
        ("spire_server_rpc_agent_v1_agent_attest_agent", &["status=\"OK\""][..]),
        ("spire_server_rpc_svid_v1_svid_batch_new_x509svid_elapsed_time_count", &["status=\"OK\""]),
        ("spire_server_server_ca_sign_x509_svid", &[]),
        ("spire_server_ca_manager_x509_ca_prepare", &["status=\"OK\""]),
        ("spire_server_ca_manager_x509_ca_activate", &[]),
        ("spire_server_manager_x509_ca_rotate_ttl", &[]),
        ("spire_server_svid_rotate", &["status=\"OK\""]),
        ("ironroot_server_sign_seconds_count", &["for=\"agent\""]),
        ("ironroot_server_sign_seconds_bucket", &["for=\"workload\"", "le=\"+Inf\""]),
        ("ironroot_server_calls_total", &["caller=\"agent\"", "status=\"OK\""]),
        ("ironroot_server_agents", &["state=\"current\""]),
        ("ironroot_server_devices", &["state=\"enrolled\""]),
        ("ironroot_server_device_boots", &["boot=\"unjudged\""]),
        ("ironroot_server_entries", &[]),
        ("ironroot_server_ready", &[]),
        ("ironroot_server_authority_ends_seconds", &["authority=\"x509_ca\""]),
        ("ironroot_server_svid_ends_seconds", &[]),
        ("ironroot_server_bundle_authorities", &["kind=\"x509\"", "state=\"trusted\""]),
        ("process_start_time_seconds", &[]),
    ] {
        expect(server_port, name, labels, |value| value > 0.0);
    }
    for (name, labels) in [
        ("ironroot_server_trouble", &["what=\"token\""][..]),
        ("ironroot_server_clock_doubted", &[]),
        ("ironroot_server_token_queue", &[]),
        ("ironroot_server_rotation_failures_total", &["authority=\"x509_ca\""]),
    ] {
        expect(server_port, name, labels, |value| value == 0.0);
    }
    for (name, labels) in [
        ("spire_agent_rpc_workload_api_fetch_x509svid", &["status=\"OK\""][..]),
        ("spire_agent_rpc_workload_api_fetch_x509svid", &["status=\"PermissionDenied\""]),
        ("spire_agent_node_attestor_new_svid", &["attestor=\"tpm2\"", "status=\"OK\""]),
        ("spire_agent_manager_sync_fetch_entries_updates", &["status=\"OK\""]),
        ("spire_agent_workload_api_workload_attestation", &["status=\"OK\""]),
        ("spire_agent_sync_entries_total", &[]),
        ("spire_agent_bootstrapped", &[]),
        ("ironroot_agent_standing", &["standing=\"attested\""]),
        ("ironroot_agent_svid_ends_seconds", &[]),
        ("ironroot_agent_certificate_ends_seconds", &[]),
        ("ironroot_agent_cache_sealed", &[]),
        ("ironroot_agent_clock", &["standing=\"confirmed\""]),
        ("ironroot_agent_kept_total", &["status=\"OK\""]),
    ] {
        expect(agent_port, name, labels, |value| value > 0.0);
    }
    expect(agent_port, "ironroot_agent_last_sync_age_seconds", &[], |value| value < 60.0);
    names_nobody(&page(server_port), &device);
    names_nobody(&page(agent_port), &device);
    form_is_right(&page(server_port));
    form_is_right(&page(agent_port));
}

#[test]
fn what_the_operator_blocks_is_on_no_page() {
    let filters = |own: &str| {
        format!(
            "BlockedPrefixes = [\"ironroot_{own}\", \"spire_{own}.rpc\"] AllowedPrefixes = [\"spire_{own}.rpc.svid\", \
             \"ironroot_{own}.certificate\"] BlockedLabels = [\"host\"] }}\n"
        )
    };
    let switch_on = |config: &Path, own: &str| {
        let port = free_port();
        let block = metrics::block(port).replace("}\n", &filters(own));
        let text = std::fs::read_to_string(config).expect("the configuration");
        std::fs::write(config, text + &block).expect("written");
        port
    };
    let mut server = Server::prepare(&ServerOptions::default());
    let server_port = switch_on(&server.config_path(), "server");
    server.restart();
    let mut device = Device::manufacture(&Manufacturer::new("Toy TPM Works").expect("maker"));
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    server.create_entry(&device.agent_id(), "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    device.provision(&server, &AgentOptions::default());
    let agent_port = switch_on(&device.config_path(), "agent");
    device.start();
    device.expect_identity(ALICE);
    expect(server_port, "spire_server_rpc_svid_v1_svid_batch_new_x509svid", &["status=\"OK\""], |calls| calls > 0.0);
    expect(agent_port, "ironroot_agent_certificate_ends_seconds", &[], |seconds| seconds > 0.0);
    for (page, blocked) in [
        (page(server_port), ["spire_server_rpc_agent", "ironroot_server", "host="]),
        (page(agent_port), ["spire_agent_rpc", "ironroot_agent_standing", "host="]),
    ] {
        assert!(blocked.iter().all(|blocked| !page.contains(blocked)), "{blocked:?} in {page}");
        form_is_right(&page);
    }
}

/// Waits until a collector has heard a line that begins and ends so.
fn expect_line(collector: &UdpSocket, [begins, ends]: [&str; 2]) {
    let (end, mut heard) = (Instant::now() + DEADLINE, String::new());
    collector.set_read_timeout(Some(DEADLINE)).expect("set");
    while !heard.lines().any(|line| line.starts_with(begins) && line.ends_with(ends)) {
        assert!(Instant::now() < end, "{begins} ... {ends} in {heard}");
        let mut datagram = [0; 2048];
        let length = collector.recv(&mut datagram).unwrap_or_else(|error| panic!("{error}: {begins} in {heard}"));
        heard.push_str(std::str::from_utf8(&datagram[..length]).expect("text"));
    }
}

#[test]
fn both_daemons_send_their_metrics_to_collectors_and_open_no_port_for_that() {
    let collector = || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let address = socket.local_addr().expect("an address");
        (socket, address)
    };
    let switch_on = |config: &Path, more: &str| {
        let text = std::fs::read_to_string(config).expect("the configuration");
        // Where nobody listens, a datagram is refused: that costs the others nothing.
        let block =
            format!("telemetry {{ EnableHostnameLabel = false Statsd {{ address = \"127.0.0.1:1\" }} {more} }}\n");
        std::fs::write(config, text + &block).expect("written");
    };
    let ((statsd, at), (dog, dog_at)) = (collector(), collector());
    let mut server = Server::prepare(&ServerOptions::default());
    switch_on(&server.config_path(), &format!("Statsd {{ address = \"{at}\" }}"));
    server.restart();
    let mut device = Device::manufacture(&Manufacturer::new("Toy TPM Works").expect("maker"));
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    server.create_entry(&device.agent_id(), "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    device.provision(&server, &AgentOptions::default());
    let more = format!("DogStatsd = [{{ address = \"{dog_at}\" }}] BlockedPrefixes = [\"process_\"]");
    switch_on(&device.config_path(), &more);
    device.start();
    device.expect_identity(ALICE);
    expect_line(&statsd, ["spire_server.rpc.agent.v1.agent.attest_agent.OK:1.000000|c", ""]);
    expect_line(&statsd, ["ironroot_server.agents.current:1.000000|g", ""]);
    expect_line(&dog, ["spire_agent.rpc.workload_api.fetch_x509svid:", "|c|#status:OK"]);
    expect_line(&dog, ["ironroot_agent.standing:1|g|#standing:attested", ""]);
}

fn names_nobody(page: &str, device: &Device) {
    for name in [TRUST_DOMAIN, "spiffe:", "alice", "gateway", "SN-1", "berlin", &device.ek_sha256()[..16], "127.0.0.1"]
    {
        assert!(!page.contains(name), "{name} in {page}");
    }
}

/// Prometheus's own tool reads the page. It complains of names (SPIRE's counters do not end with `_total`), of nothing else.
fn form_is_right(page: &str) {
    let mut tool = Command::new("promtool");
    tool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tool = tool.spawn().expect("promtool: scripts/setup --tests installs it");
    std::io::Write::write_all(&mut tool.stdin.take().expect("piped"), page.as_bytes()).expect("taken");
    let output = tool.wait_with_output().expect("ended");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("error while linting") && !said.contains("parsing"), "{said}");
    let ours = said.lines().filter(|line| line.starts_with("ironroot_"));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new(), "names of our own are as Prometheus wants them");
}

#[test]
fn ten_thousand_devices_and_entries_make_no_series() {
    let (server, port) = server(&ServerOptions::default());
    let grow = |from: usize, to: usize| {
        let mut devices = "ek_sha256,serial,label:site\n".to_owned();
        let mut entries = "{\"entries\":[".to_owned();
        for number in from..to {
            writeln!(devices, "{number:064x},SN-{number},site-{number}").expect("a string");
            let comma = if number == from { "" } else { "," };
            write!(
                entries,
                "{comma}{{\"selectors\":[{{\"type\":\"unix\",\"value\":\"uid:{number}\"}}],\
                 \"spiffe_id\":\"spiffe://{TRUST_DOMAIN}/app/{number}\",\"parent_id\":\"spiffe://{TRUST_DOMAIN}/node\"}}"
            )
            .expect("a string");
        }
        server.import_devices(&devices);
        let file = server.directory().join("entries.json");
        std::fs::write(&file, entries + "]}").expect("written");
        server.cli(&["entry", "create", "-data", &file.display().to_string()]);
    };
    grow(0, 1);
    expect(port, "ironroot_server_entries", &[], |value| value == 1.0);
    let before = series(&page(port)).count();
    grow(1, MANY);
    expect(port, "ironroot_server_entries", &[], |value| value == MANY as f64);
    expect(port, "ironroot_server_devices", &["state=\"enrolled\""], |value| value == MANY as f64);
    assert_eq!(series(&page(port)).count(), before, "{}", page(port));
}

/// What curl gets over TLS from `localhost`, trusting `authority`; as a client with `shown` if it shows something.
fn curl(port: u16, authority: &Path, shown: Option<&[PathBuf; 2]>) -> Result<String, String> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--max-time", "10", "--cacert"]).arg(authority);
    if let Some([certificate, key]) = shown {
        command.arg("--cert").arg(certificate).arg("--key").arg(key);
    }
    let output = command.arg(format!("https://localhost:{port}/metrics")).output().expect("curl starts");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
}

#[test]
fn metrics_are_shown_over_tls_with_the_files_as_they_are_now_and_to_whom_they_name() {
    let (mut server, port) = (Server::prepare(&ServerOptions::default()), free_port());
    let (first, second, scraper) = (WebCertificate::new(), WebCertificate::new(), WebCertificate::for_client());
    let files = ["metrics.pem", "metrics.key", "scrapers.pem"].map(|name| server.directory().join(name));
    let [certificate, key, clients] = &files;
    let renew = |with: &WebCertificate| {
        let [new_certificate, new_key] = with.certificate_and_key();
        std::fs::copy(new_certificate, certificate).expect("copied");
        std::fs::copy(new_key, key).expect("copied");
    };
    renew(&first);
    std::fs::copy(second.authority(), clients).expect("copied");
    let more = format!("client_ca_file = \"{}\"", clients.display());
    switch_on_tls(&server.config_path(), port, &[certificate.clone(), key.clone()], &more);
    server.restart();
    let shown = scraper.certificate_and_key();
    assert!(curl(port, &first.authority(), None).is_err(), "who shows nothing gets nothing");
    assert!(curl(port, &first.authority(), Some(&shown)).is_err(), "nor who shows another's");
    assert_eq!(scrape(port), None, "nothing in the clear");
    std::fs::copy(scraper.authority(), clients).expect("copied");
    let page = || curl(port, &first.authority(), Some(&shown));
    expect_within(DEADLINE, "new CAs of clients count", || format!("{:?} {}", page(), server.log()), || page().is_ok());
    assert!(page().expect("still").contains("ironroot_server_ready"));
    std::fs::write(key, "half written").expect("written");
    assert!(page().is_ok(), "a bad file changes nothing");
    renew(&second);
    let renewed = || curl(port, &second.authority(), Some(&shown));
    expect_within(DEADLINE, "a new certificate is shown", || format!("{:?}", renewed()), || renewed().is_ok());
    assert!(page().is_err(), "and the one from before no more");
}

#[test]
fn a_listener_whose_files_are_bad_at_the_start_is_a_server_that_does_not_start() {
    let (mut server, port) = (Server::prepare(&ServerOptions::default()), free_port());
    let [certificate, _] = WebCertificate::new().certificate_and_key();
    switch_on_tls(&server.config_path(), port, &[certificate.clone(), certificate], "");
    server.spawn();
    let told = "cannot use the files of telemetry { Prometheus { tls } }";
    expect_within(DEADLINE, "why", || server.log(), || server.log().contains(told));
}
