//! Real Envoys whose certificates and authorities come from our agent, on the configuration of `docs/envoy.yaml`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, expect_within};
use ironroot_lab::envoy::{Envoy, EnvoyOptions};
use ironroot_lab::manufacturer::Manufacturer;

/// Who runs the Envoys, and the entries that they have.
const FRONT: u32 = 61_001;
const BACK: u32 = 61_002;
const STRANGER: u32 = 61_003;

/// A device with an entry for each of them, of SVIDs that are replaced within the test.
fn lab() -> (Server, Device) {
    lab_with("")
}

/// The same with more lines in the agent's block.
fn lab_with(agent_lines: &str) -> (Server, Device) {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let mut device = Device::manufacture(&maker);
    let server = Server::start(&ServerOptions::default());
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    for (path, uid) in [("/front", FRONT), ("/back", BACK), ("/stranger", STRANGER)] {
        let uid = format!("unix:uid:{uid}");
        server.create_entry(&device.agent_id(), path, &[&uid], &["-x509SVIDTTL", "20"]);
    }
    device.provision(&server, &AgentOptions { agent_lines: agent_lines.to_owned(), ..AgentOptions::default() });
    device.start();
    for uid in [FRONT, BACK, STRANGER] {
        device.expect_identity(uid);
    }
    (server, device)
}

/// A program that says back what it hears.
fn echo() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut room = [0; 64];
                while let Ok(read @ 1..) = stream.read(&mut room) {
                    if stream.write_all(&room[..read]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

fn options(device: &Device, uid: u32, program: u16, peer: u16) -> EnvoyOptions {
    EnvoyOptions {
        uid,
        agent: device.socket(),
        lets_in: "/front",
        program,
        peer,
        expects: "/back",
        plain_bundles: false,
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    stream
}

/// Whether what is said on `stream` comes back.
fn echoes(stream: &mut TcpStream, word: &[u8]) -> bool {
    let mut heard = vec![0; word.len()];
    stream.write_all(word).and_then(|()| stream.read_exact(&mut heard)).is_ok() && heard == word
}

#[test]
fn two_envoys_speak_mutual_tls_with_identities_of_our_agent_and_follow_their_rotation() {
    let (_server, device) = lab();
    let back = Envoy::start(&options(&device, BACK, echo(), 1));
    let front = Envoy::start(&options(&device, FRONT, 1, back.inbound));
    let mut open = connect(front.outbound);
    assert!(echoes(&mut open, b"hello"), "{}\n{}\n{}", front.log(), back.log(), device.log());
    assert_eq!(back.counter("ssl.fail_verify_san") + back.counter("ssl.fail_verify_error"), 0);

    let before = (front.serials(), back.serials());
    assert!(!before.0.is_empty() && !before.1.is_empty());
    let rotated = || {
        let now = (front.serials(), back.serials());
        let all_new =
            |now: &[String], before: &[String]| !now.is_empty() && now.iter().all(|one| !before.contains(one));
        all_new(&now.0, &before.0) && all_new(&now.1, &before.1)
    };
    expect_within(DEADLINE, "both Envoys show new certificates", || device.log(), rotated);
    assert!(echoes(&mut open, b"still here"), "the connection lives on");
    assert!(echoes(&mut connect(front.outbound), b"and again"), "{}\n{}", front.log(), back.log());
    assert!(device.log().contains("Envoy's secrets"), "{}", device.log());
    assert!(!device.log().contains("Envoy reported errors"), "{}", device.log());
}

#[test]
fn envoys_speak_mutual_tls_with_keys_of_each_kind() {
    for kind in ["rsa-2048", "ec-p384"] {
        let (_server, device) = lab_with(&format!("workload_x509_svid_key_type = \"{kind}\""));
        let back = Envoy::start(&options(&device, BACK, echo(), 1));
        let front = Envoy::start(&options(&device, FRONT, 1, back.inbound));
        let is_through = || echoes(&mut connect(front.outbound), b"hello");
        let explain = || format!("{kind}: {}{}{}", front.log(), back.log(), device.log());
        expect_within(DEADLINE, "a word goes through", explain, is_through);
        assert!(!device.log().contains("Envoy reported errors"), "{kind}: {}", device.log());
    }
}

#[test]
fn an_envoy_with_another_identity_is_not_let_in_and_one_that_expects_another_goes_nowhere() {
    let (_server, device) = lab();
    let back = Envoy::start(&options(&device, BACK, echo(), 1));
    let stranger = Envoy::start(&options(&device, STRANGER, 1, back.inbound));
    let refused = || {
        assert!(!echoes(&mut connect(stranger.outbound), b"hello"));
        back.counter("ssl.fail_verify_san") > 0
    };
    let explain = || format!("{}\n{}", back.admin("/stats?filter=ssl"), stranger.admin("/stats?filter=ssl"));
    expect_within(DEADLINE, "the one that is reached names the reason", explain, refused);

    let expects_another = EnvoyOptions { expects: "/other", ..options(&device, FRONT, 1, back.inbound) };
    let front = Envoy::start(&expects_another);
    let refused = || {
        assert!(!echoes(&mut connect(front.outbound), b"hello"));
        front.counter("cluster.peer.ssl.fail_verify_san") > 0
    };
    let explain = || front.admin("/stats?filter=ssl");
    expect_within(DEADLINE, "the one that reaches names the reason", explain, refused);

    let front = Envoy::start(&options(&device, FRONT, 1, back.inbound));
    assert!(echoes(&mut connect(front.outbound), b"hello"), "and the right one gets through");
}

#[test]
fn an_envoy_that_wants_plain_lists_of_authorities_gets_them() {
    let (_server, device) = lab();
    let back = Envoy::start(&EnvoyOptions { plain_bundles: true, ..options(&device, BACK, echo(), 1) });
    let front = Envoy::start(&options(&device, FRONT, 1, back.inbound));
    assert!(echoes(&mut connect(front.outbound), b"hello"), "{}\n{}", front.log(), back.log());
    let stranger = Envoy::start(&options(&device, STRANGER, 1, back.inbound));
    assert!(!echoes(&mut connect(stranger.outbound), b"hello"));
}

#[test]
fn an_envoy_without_an_entry_waits_and_has_its_secrets_once_there_is_one() {
    let (server, device) = lab();
    let late = 61_004;
    let envoy = Envoy::start_without_waiting(&options(&device, late, 1, 1));
    device.expect_log("method=\"StreamSecrets\"");
    assert!(device.log().contains("No identity issued"), "{}", device.log());
    server.create_entry(&device.agent_id(), "/late", &[&format!("unix:uid:{late}")], &[]);
    let has_one = || !envoy.serials().is_empty();
    expect_within(DEADLINE, "Envoy shows a certificate", || envoy.log() + &device.log(), has_one);
}
