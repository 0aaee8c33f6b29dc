//! A real balancer of TCP connections (HAProxy) before the server: whose a connection is, and who may say so.

use std::io::{Read, Write};
use std::net::TcpStream;

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, expect_within, free_port};
use ironroot_lab::haproxy::{Haproxy, SOURCE};
use ironroot_lab::manufacturer::Manufacturer;
use serde_json::Value;

/// Where the lab's clients are.
const CLIENTS: &str = "127.0.0.1";

struct Lab {
    server: Server,
    /// Of bundles.
    endpoint: u16,
    audit: tempfile::TempDir,
}

impl Lab {
    /// A server that believes `balancers`.
    fn new(balancers: &str) -> Self {
        let (audit, endpoint) = (tempfile::tempdir().expect("directory"), free_port());
        let server_lines = format!(
            "audit_log_file = \"{}\"
            proxy_protocol_trusted_cidrs = {balancers}
            federation {{ bundle_endpoint {{ address = \"127.0.0.1\" port = {endpoint} }} }}",
            audit.path().join("audit.json").display()
        );
        Self { server: Server::start(&ServerOptions { server_lines, ..ServerOptions::default() }), endpoint, audit }
    }

    /// Where the last agent that attested is, by the audit; agents come by that port.
    fn address_of_an_agent_by(&self, port: u16) -> String {
        let maker = Manufacturer::new("Toy TPM Works").expect("maker");
        let mut device = Device::manufacture(&maker);
        self.server.import_devices(&format!("ek_sha256,serial\n{},SN-{port}\n", device.ek_sha256()));
        device.provision(&self.server, &AgentOptions { server_port: Some(port), ..AgentOptions::default() });
        device.start();
        device.expect_log("attested");
        let text = std::fs::read_to_string(self.audit.path().join("audit.json")).expect("readable");
        let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let attested = lines.rfind(|line| line["method"] == "AttestAgent" && line["status"] == "success");
        let caller = attested.unwrap_or_else(|| panic!("{text}"))["caller"].as_str().expect("a caller").to_owned();
        caller.rsplit_once(':').map(|(address, _)| address.to_owned()).expect("an address and a port")
    }
}

#[test]
fn behind_a_balancer_callers_have_their_own_addresses_and_nobody_else_can_claim_one() {
    let lab = Lab::new(&format!("[\"{SOURCE}/32\", \"2001:db8::/32\"]"));
    for (options, wanted) in [
        ("send-proxy-v2 check inter 100ms", CLIENTS),
        ("send-proxy", CLIENTS),
        ("", SOURCE),
        ("check inter 100ms", SOURCE),
    ] {
        let balancer = Haproxy::start(&[lab.server.port()], options);
        let found = lab.address_of_an_agent_by(balancer.ports()[0]);
        assert_eq!(found, wanted, "{options}: {}\n{}", balancer.log(), lab.server.log());
        assert!(!balancer.log().contains("is DOWN"), "{options}: {}", balancer.log());
    }
    // Whoever is no balancer says nothing for anybody: to it the header is no beginning of a TLS handshake.
    let mut stranger = TcpStream::connect((CLIENTS, lab.server.port())).expect("connects");
    stranger.write_all(b"PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n").expect("sends");
    let _ = stranger.read_to_end(&mut Vec::new());
    let refused = || lab.server.log().contains("TLS handshake refused");
    expect_within(DEADLINE, "it is refused", || lab.server.log(), refused);
    assert!(!lab.server.log().contains("203.0.113.9"), "{}", lab.server.log());
}

#[test]
fn without_the_key_a_header_is_no_beginning_of_a_handshake() {
    let lab = Lab::new("[]");
    let balancer = Haproxy::start(&[lab.server.port()], "");
    assert_eq!(lab.address_of_an_agent_by(balancer.ports()[0]), SOURCE);
    let balancer = Haproxy::start(&[lab.server.port()], "send-proxy-v2");
    let mut client = TcpStream::connect((CLIENTS, balancer.ports()[0])).expect("connects");
    client.write_all(b"\x16").expect("sends");
    let refused = || lab.server.log().contains("TLS handshake refused");
    expect_within(DEADLINE, "it is refused", || lab.server.log(), refused);
}

#[test]
fn the_listeners_for_the_web_know_their_clients_behind_a_balancer_too() {
    let lab = Lab::new(&format!("[\"{SOURCE}/32\"]"));
    let balancer = Haproxy::start(&[lab.endpoint], "send-proxy-v2");
    let mut client = TcpStream::connect((CLIENTS, balancer.ports()[0])).expect("connects");
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sends");
    let _ = client.read_to_end(&mut Vec::new());
    let line = || {
        let log = lab.server.log();
        log.lines().find(|line| line.contains("bundle endpoint: connection ended early")).map(str::to_owned)
    };
    expect_within(DEADLINE, "a line of it", || lab.server.log(), || line().is_some());
    let line = line().expect("there");
    assert!(line.contains(CLIENTS) && !line.contains(SOURCE), "{line}");
    let header = |text: &[u8]| {
        // As a balancer that is broken: from its address, but with no header.
        let socket = socket_from(SOURCE, lab.endpoint);
        (&socket).write_all(text).expect("sends");
        let _ = (&socket).read_to_end(&mut Vec::new());
    };
    header(b"PROXY TCP4 nobody 127.0.0.1 1 2\r\n");
    let told = || lab.server.log().contains("the balancer's PROXY header is not taken");
    expect_within(DEADLINE, "it is told", || lab.server.log(), told);
}

fn socket_from(address: &str, port: u16) -> TcpStream {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    let at = |ip: &str, port: u16| {
        let ip: std::net::Ipv4Addr = ip.parse().expect("an address");
        SockaddrIn::from(std::net::SocketAddrV4::new(ip, port))
    };
    let made = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    let number = std::os::fd::AsRawFd::as_raw_fd(&made);
    bind(number, &at(address, 0)).expect("its address");
    connect(number, &at("127.0.0.1", port)).expect("connects");
    TcpStream::from(made)
}
