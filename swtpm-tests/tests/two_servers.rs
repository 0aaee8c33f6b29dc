//! A device with two servers of one trust domain that share no database: each has a CA of its own. Either may be away for longer than
//! an SVID lives.

use std::time::Duration;

use ironroot_api::certificate::Certificate;
use ironroot_api::pb::workload::X509svidResponse;
use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, binary, expect_within,
};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::mutual_tls::handshake;
use ironroot_lab::stand_in_web::{StandInWeb, answer};
use ironroot_lab::traffic::Traffic;
use ironroot_lab::web_certificate::WebCertificate;
use ironroot_lab::workload_client;
use tokio::runtime::Runtime;

/// How long SVIDs live here, so that a server is away for more than twice as long.
const SVID_TTL: &str = "8s";
const AWAY: Duration = Duration::from_secs(20);

fn server() -> Server {
    Server::start(&ServerOptions { x509_svid_ttl: SVID_TTL, ..ServerOptions::default() })
}

struct Lab {
    maker: Manufacturer,
    north: Server,
    south: Server,
}

impl Lab {
    fn new() -> Self {
        let maker = Manufacturer::new("Toy TPM Works").expect("maker");
        Self { maker, north: server(), south: server() }
    }

    /// A device that both servers know. For them, this process is `path`, if they are to have an entry for it.
    fn device(&self, entries: &[(&Server, &str)]) -> Device {
        let device = Device::manufacture(&self.maker);
        for server in [&self.north, &self.south] {
            server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
        }
        for (server, path) in entries {
            create_entry(server, &device, path);
        }
        self.provision(&device);
        device
    }

    fn provision(&self, device: &Device) {
        let bundle = device.bundle_path().with_file_name("south.pem");
        std::fs::write(&bundle, self.south.bundle_pem()).expect("written");
        self.provision_by(device, &format!("trust_bundle_path = \"{}\"", bundle.display()));
    }

    /// Where the device finds the bundle of the south is what `source` says.
    fn provision_by(&self, device: &Device, source: &str) {
        let agent_lines = format!(
            "admin_socket_path = \"{}\"
             server \"south\" {{ server_address = \"127.0.0.1\" server_port = {} {source} }}",
            device.admin_socket().display(),
            self.south.port(),
        );
        device.provision(&self.north, &AgentOptions { agent_lines, ..AgentOptions::default() });
    }
}

fn create_entry(server: &Server, device: &Device, path: &str) -> String {
    let uid = format!("unix:uid:{}", nix::unistd::geteuid());
    server.create_entry(&device.agent_id(), path, &[&uid], &[])
}

/// The SPIFFE IDs' paths that this process gets, sorted: the order of entries that were made in one second is that of their random IDs.
fn paths(runtime: &Runtime, device: &Device) -> Vec<String> {
    let fetched = runtime.block_on(workload_client::fetch(&device.socket()));
    let own = format!("spiffe://{TRUST_DOMAIN}");
    let path = |id: String| id.strip_prefix(&own).map(str::to_owned).unwrap_or(id);
    let mut paths: Vec<String> =
        fetched.map(|message| message.svids.into_iter().map(|svid| path(svid.spiffe_id)).collect()).unwrap_or_default();
    paths.sort();
    paths
}

fn expect_paths(runtime: &Runtime, device: &Device, wanted: &[&str]) {
    let claim = format!("this process is {wanted:?}");
    let explain = || format!("it is {:?}\n{}", paths(runtime, device), device.log());
    expect_within(DEADLINE, &claim, explain, || paths(runtime, device) == wanted);
}

/// Whether the first identity chains to what that server alone has in its bundle.
fn is_of(runtime: &Runtime, server_bundle: &[u8], message: &X509svidResponse) -> bool {
    let mut dialer = message.clone();
    dialer.svids[0].bundle = server_bundle.to_vec().into();
    runtime.block_on(handshake(message, &dialer)).is_ok_and(|()| true)
}

fn bundle_der(server: &Server) -> Vec<u8> {
    let all = Certificate::parse_pem(&server.bundle_pem()).expect("PEM");
    all.iter().flat_map(|one| one.der().to_vec()).collect()
}

/// Until that long has passed, during which nothing is to fail.
fn while_away(device: &Device, claim: &str, holds: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    expect_within(DEADLINE + AWAY, claim, || device.log(), || holds() && began.elapsed() >= AWAY);
}

//= FLT-A28
#[test]
fn either_server_is_away_for_longer_than_an_svid_lives_and_no_fetch_and_no_handshake_fails() {
    let runtime = Runtime::new().expect("runtime");
    let mut lab = Lab::new();
    let both = [(&lab.north, "/web"), (&lab.south, "/web")];
    let (mut one, mut other) = (lab.device(&both), lab.device(&both));
    for device in [&mut one, &mut other] {
        device.start();
    }
    for device in [&one, &other] {
        expect_paths(&runtime, device, &["/web"]);
        expect_within(
            DEADLINE,
            "both have signed",
            || device.log(),
            || device.log().matches("SVID rotated").count() >= 2,
        );
    }
    let (norths, souths) = (bundle_der(&lab.north), bundle_der(&lab.south));
    let message = || {
        let mut message = runtime.block_on(workload_client::fetch(&one.socket())).expect("an identity");
        // What both have: of entries that were made in one second a random one is first.
        message.svids.retain(|svid| svid.spiffe_id.ends_with("/web"));
        message
    };
    assert!(is_of(&runtime, &norths, &message()) && !is_of(&runtime, &souths, &message()), "the first server's");
    let traffic = Traffic::between(one.socket(), other.socket());

    lab.north.kill();
    create_entry(&lab.south, &one, "/while-north-is-away");
    expect_paths(&runtime, &one, &["/web", "/while-north-is-away"]);
    while_away(&one, "the other server's SVID is served", || is_of(&runtime, &souths, &message()));
    let back = |device: &Device| device.log().matches("in sync with the server again").count();
    let before = [&one, &other].map(back);
    lab.north.restart();
    let known = || [&one, &other].into_iter().zip(before).all(|(device, before)| back(device) > before);
    expect_within(2 * DEADLINE, "it is known again", || one.log(), known);
    expect_within(
        DEADLINE,
        "the first server's is served again",
        || one.log(),
        || is_of(&runtime, &norths, &message()),
    );

    lab.south.kill();
    create_entry(&lab.north, &one, "/while-south-is-away");
    // What the south alone has an entry for has an SVID of 8 s.
    expect_paths(&runtime, &one, &["/web", "/while-south-is-away"]);
    while_away(&one, "the first server's is served", || is_of(&runtime, &norths, &message()));
    lab.south.restart();
    expect_paths(&runtime, &one, &["/web", "/while-north-is-away", "/while-south-is-away"]);

    let (done, failed) = traffic.end();
    println!("{done} rounds of fetch, handshake, token and validation; {} failed", failed.len());
    assert!(failed.is_empty(), "{failed:#?}\n{}", one.log());
    assert!(done > 50, "{done}");
}

//= FLT-A29
#[test]
fn a_ban_at_either_server_withdraws_everything_and_holds_over_a_restart_while_that_server_is_away() {
    let runtime = Runtime::new().expect("runtime");
    let mut lab = Lab::new();
    let mut device = lab.device(&[(&lab.north, "/north"), (&lab.south, "/south")]);
    device.start();
    expect_within(DEADLINE, "it has both", || device.log(), || paths(&runtime, &device).len() == 2);
    device.expect_sealed(1);
    let caches = [device.data_directory(), device.data_directory().join("servers/south")]
        .map(|directory| directory.join("identities.sealed"));
    expect_within(DEADLINE, "both are kept", || device.log(), || caches.iter().all(|file| file.exists()));
    // There is one chip, and one note of the key that it is known by.
    let note = |directory: &str| device.data_directory().join(directory).join("endorsement-key").exists();
    assert!(note("") && !note("servers/south"), "where the next start looks for it");

    lab.south.cli(&["device", "ban", device.ek_sha256()]);
    expect_within(DEADLINE, "nothing is served", || device.log(), || paths(&runtime, &device).is_empty());
    expect_within(DEADLINE, "nothing is kept", || device.log(), || caches.iter().all(|file| !file.exists()));
    let status = |device: &Device| {
        let mut command = std::process::Command::new(binary("ironroot-agent"));
        let output = command.args(["status", "-socketPath"]).arg(device.admin_socket()).output().expect("it starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(status(&device).matches("Standing      : banned").count(), 2, "{}", status(&device));
    assert!(status(&device).contains("south at 127.0.0.1:"), "{}", status(&device));

    lab.south.kill();
    device.kill_agent();
    device.start();
    device.expect_log("banned: nothing is served error=\"cannot reach the server");
    let told = || device.log().matches("another server bans this agent").count() == 2;
    expect_within(DEADLINE, "the other loop heeds it", || device.log(), told);
    assert!(paths(&runtime, &device).is_empty(), "{}", device.log());

    lab.south.restart();
    lab.south.cli(&["device", "delete", device.ek_sha256()]);
    lab.south.cli(&["agent", "evict", "-spiffeID", &device.agent_id()]);
    lab.south.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    device.kill_agent();
    device.start();
    expect_within(DEADLINE, "it has both again", || device.log(), || paths(&runtime, &device).len() == 2);
}

#[test]
fn after_a_power_cut_without_any_server_the_identities_and_authorities_of_both_are_served() {
    let runtime = Runtime::new().expect("runtime");
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let [north, south] = [(); 2].map(|()| Server::start(&ServerOptions::default()));
    let mut lab = Lab { maker, north, south };
    let mut device = lab.device(&[(&lab.north, "/north"), (&lab.south, "/south")]);
    device.start();
    expect_within(DEADLINE, "it has both", || device.log(), || paths(&runtime, &device).len() == 2);
    let before = runtime.block_on(workload_client::fetch(&device.socket())).expect("identities");
    let sealed = || {
        let (log, servers) = (device.log(), [&lab.north, &lab.south]);
        let line = |server: &Server| format!("identities sealed identities=1 server=\"127.0.0.1:{}\"", server.port());
        servers.iter().all(|server| log.contains(&line(server)))
    };
    expect_within(DEADLINE, "both are sealed", || device.log(), sealed);
    lab.north.kill();
    lab.south.kill();
    device.power_cycle();
    device.start();
    expect_within(DEADLINE, "it has both again", || device.log(), || paths(&runtime, &device).len() == 2);
    let after = runtime.block_on(workload_client::fetch(&device.socket())).expect("identities");
    let seen = |message: &X509svidResponse| {
        let one = |svid: &ironroot_api::pb::workload::X509svid| {
            (svid.spiffe_id.clone(), svid.x509_svid.clone(), svid.bundle.clone())
        };
        message.svids.iter().map(one).collect::<Vec<_>>()
    };
    assert_eq!(seen(&after), seen(&before), "the same SVIDs in the same order, under the same authorities");
    assert_eq!(Certificate::parse_concatenated(&after.svids[0].bundle).expect("DER").len(), 2);
}

#[test]
fn a_device_that_has_never_met_one_of_its_servers_serves_what_the_other_gives_and_trusts_both() {
    let runtime = Runtime::new().expect("runtime");
    let mut lab = Lab::new();
    let mut device = lab.device(&[(&lab.north, "/north"), (&lab.south, "/south")]);
    lab.south.kill();
    device.start();
    expect_paths(&runtime, &device, &["/north"]);
    assert_eq!(roots(&runtime, &device), 2);
    lab.south.restart();
    expect_within(DEADLINE, "it meets the other", || device.log(), || paths(&runtime, &device).len() == 2);
}

fn roots(runtime: &Runtime, device: &Device) -> usize {
    let message = runtime.block_on(workload_client::fetch(&device.socket())).expect("an identity");
    Certificate::parse_concatenated(&message.svids[0].bundle).expect("DER").len()
}

#[test]
fn a_bundle_that_a_web_server_has_counts_before_its_server_was_met() {
    let runtime = Runtime::new().expect("runtime");
    let mut lab = Lab::new();
    let web = WebCertificate::new();
    let stand_in = StandInWeb::start(&web, vec![answer(&lab.south.bundle_pem())]);
    let mut device = lab.device(&[(&lab.north, "/north")]).with_environment("SSL_CERT_FILE", web.authority());
    lab.provision_by(&device, &format!("trust_bundle_url = \"https://localhost:{}/south.pem\"", stand_in.port()));
    lab.south.kill();
    device.start();
    expect_paths(&runtime, &device, &["/north"]);
    expect_within(DEADLINE, "workloads trust both", || device.log(), || roots(&runtime, &device) == 2);
}

#[test]
fn while_one_server_is_away_a_workload_that_names_nobody_has_the_tokens_of_the_other() {
    let runtime = Runtime::new().expect("runtime");
    let mut lab = Lab::new();
    let mut device = lab.device(&[(&lab.north, "/north"), (&lab.south, "/south")]);
    device.start();
    expect_paths(&runtime, &device, &["/north", "/south"]);
    let uid = nix::unistd::geteuid().as_raw();
    let tokens = |audience: &str| {
        let output = device.api(uid, &["fetch", "jwt", "-audience", audience, "-timeout", "50s"]);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), ["/north", "/south"].map(|path| told.contains(path)), output)
    };
    let (is_good, ids, said) = tokens("before");
    assert!(is_good && ids == [true, true], "{said:?}");
    lab.south.kill();
    let (is_good, ids, said) = tokens("after");
    assert!(is_good && ids == [true, false], "{said:?}\n{}", device.log());
    device.expect_log("JWT-SVIDs of a server that is away are left out");
}
