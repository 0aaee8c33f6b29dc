//! CA and SVID rotation under live workloads, and a server killed at any moment of it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ironroot_api::certificate::Certificate;
use ironroot_api::pb::workload::X509svidResponse;
use ironroot_api::tls::TrustAnchors;
use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Keys, Server, ServerOptions, expect_within, wait_for};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::workload_client;

/// SPIRE's thresholds on a CA of one minute: a new one is prepared after 30 s and activated after 50 s.
fn minute_ca() -> ServerOptions {
    ServerOptions { ca_ttl: "1m", agent_ttl: "10s", x509_svid_ttl: "10s", ..Default::default() }
}

fn lab(options: &ServerOptions) -> (Server, Device) {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let mut device = Device::manufacture(&maker);
    let server = Server::start(options);
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    let own = nix::unistd::geteuid().as_raw();
    server.create_entry(&device.agent_id(), "/probe", &[&format!("unix:uid:{own}")], &[]);
    device.provision(&server, &AgentOptions::default());
    device.start();
    (server, device)
}

fn now_unix() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

/// What a workload checks of each message: one SVID, valid now, that chains to the bundle beside it. Its serial and issuer.
fn invariant_the_svid_is_valid_now(response: &X509svidResponse) -> (String, Vec<u8>) {
    let [svid] = &response.svids[..] else { panic!("{} SVIDs", response.svids.len()) };
    let chain = Certificate::parse_concatenated(&svid.x509_svid).expect("chain");
    let bundle: Vec<_> =
        Certificate::parse_concatenated(&svid.bundle).expect("bundle").iter().map(|c| c.der().clone()).collect();
    let id = chain[0].leaf_spiffe_id().expect("an X509-SVID");
    let anchors = TrustAnchors::new(id.trust_domain(), &bundle).expect("anchors");
    let intermediates: Vec<_> = chain[1..].iter().map(|c| c.der().clone()).collect();
    let verified = anchors.verify(chain[0].der(), &intermediates, webpki::KeyUsage::server_auth(), now_unix());
    verified.unwrap_or_else(|refusal| panic!("served an SVID that does not verify: {refusal:?}"));
    (chain[0].serial_decimal(), chain[0].authority_key_id().expect("AKI"))
}

//= FED-01
#[test]
fn workloads_always_hold_a_valid_svid_while_the_ca_rotates_twice() {
    let (server, device) = lab(&minute_ca());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        workload_client::first_svid(&device.socket(), Instant::now(), DEADLINE).await.expect("served");
        let mut stream = workload_client::watch(&mut workload_client::client(&device.socket()).await.expect("client"))
            .await
            .expect("open");
        let (mut serials, mut issuers) = (Vec::new(), Vec::new());
        let end = Instant::now() + Duration::from_secs(150);
        while issuers.len() < 3 {
            // Half of 10 s and a sync later there must be another: a longer silence would be a moment without an SVID.
            let message = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
            let message = message.unwrap_or_else(|_| panic!("no new SVID before the old one ended\n{}", device.log()));
            let message =
                message.unwrap_or_else(|s| panic!("stream broke: {s}\n{}", device.log())).expect("stream goes on");
            let (serial, issuer) = invariant_the_svid_is_valid_now(&message);
            if !serials.contains(&serial) {
                serials.push(serial);
            }
            if !issuers.contains(&issuer) {
                issuers.push(issuer);
            }
            assert!(Instant::now() < end, "the CA did not rotate twice\n{}", server.log());
        }
        assert!(serials.len() > 10, "rotated {} times", serials.len());
    });
}

/// Each message, and whether its SVID verifies by the bundle of the message before too: by a peer that has not heard of it yet.
#[test]
fn workloads_hold_valid_svids_and_no_handshake_fails_while_the_ca_moves_from_a_file_to_a_token() {
    let options = ServerOptions { keys: Keys::File, ..minute_ca() };
    let (mut server, device) = lab(&options);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        workload_client::first_svid(&device.socket(), Instant::now(), DEADLINE).await.expect("served");
        let mut client = workload_client::client(&device.socket()).await.expect("client");
        let mut stream = workload_client::watch(&mut client).await.expect("open");
        let mut next = async |wanted: &mut dyn FnMut(&[u8]) -> bool, server: &Server| {
            let (end, mut before) = (Instant::now() + DEADLINE + Duration::from_secs(60), None::<X509svidResponse>);
            loop {
                let message = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
                let message =
                    message.unwrap_or_else(|_| panic!("no new SVID before the old one ended\n{}", device.log()));
                let message = message.expect("the stream goes on").expect("the stream goes on");
                let (_, issuer) = invariant_the_svid_is_valid_now(&message);
                if let Some(before) = before {
                    let mut for_one_who_has_not_heard = message.clone();
                    for_one_who_has_not_heard.svids[0].bundle = before.svids[0].bundle.clone();
                    invariant_the_svid_is_valid_now(&for_one_who_has_not_heard);
                }
                if wanted(&issuer) {
                    return issuer;
                }
                assert!(Instant::now() < end, "{}", server.log());
                before = Some(message);
            }
        };
        let first = next(&mut |_| true, &server).await;
        server.reconfigure(&ServerOptions { keys: Keys::FromFileToToken, ..minute_ca() });
        server.kill();
        server.restart();
        let says = "nothing is signed any more with keys of the key manager of before";
        let moved = next(&mut |issuer| issuer != first && server.log().contains(says), &server).await;
        server.reconfigure(&minute_ca());
        std::fs::remove_file(server.key_file()).expect("nobody needs it");
        server.kill();
        server.restart();
        next(&mut |issuer| issuer != first && issuer != moved, &server).await;
    });
    for refusal in ["invalid peer certificate", "UnknownIssuer", "handshake failed"] {
        assert!(!device.log().contains(refusal), "{refusal}\n{}", device.log());
    }
}

#[test]
fn the_ca_is_the_same_after_a_restart() {
    let (mut server, device) = lab(&ServerOptions::default());
    let before = server.bundle_pem();
    for _ in 0..3 {
        server.kill();
        server.restart();
        assert_eq!(server.bundle_pem(), before, "the same key is found again in the token");
    }
    let served = wait_for(DEADLINE, || device.fetch(nix::unistd::geteuid().as_raw()).ok());
    assert!(served.is_some(), "{}", device.log());
}

//= FLT-S11
#[test]
fn a_server_whose_clock_is_set_years_ahead_is_not_ready_says_why_and_is_itself_again_afterwards() {
    let (mut server, device) = lab(&ServerOptions::default());
    let uid = nix::unistd::geteuid().as_raw();
    device.expect_identity(uid);
    let before = server.bundle_pem();
    for clock in ["+3650d", "-30d", "+21h"] {
        server.kill();
        server.spawn_at(clock);
        let said = || server.log().matches("by the seconds counted it is").count();
        let alarms = said();
        let unready = || {
            let health = server.cli_output(&["healthcheck"]);
            !health.status.success() && String::from_utf8_lossy(&health.stderr).contains("by the seconds counted it is")
        };
        expect_within(DEADLINE, "the server says what is wrong with its clock", || server.log(), unready);
        assert!(said() >= alarms.max(1), "{}", server.log());
        server.kill();
        server.restart();
        assert_eq!(server.bundle_pem(), before, "{clock}");
    }
    assert!(!server.log().contains("key destroyed"), "{}", server.log());
    let served = wait_for(DEADLINE, || device.fetch(uid).ok());
    assert!(served.is_some(), "{}", device.log());
}

//= FLT-H8
#[test]
fn a_lost_ca_key_is_a_loud_error_and_never_a_new_ca() {
    let (mut server, _device) = lab(&ServerOptions::default());
    server.kill();
    for object in std::fs::read_dir(server.token().token_directory()).expect("token directory") {
        let directory = object.expect("entry").path();
        for file in std::fs::read_dir(&directory).expect("token").flatten() {
            let name = file.file_name().into_string().unwrap_or_default();
            if name.ends_with(".object") && name != "token.object" {
                std::fs::remove_file(file.path()).expect("key destroyed");
            }
        }
    }
    server.spawn();
    let ended = || server.process().is_none_or(|p| !p.runs()).then_some(());
    assert!(wait_for(DEADLINE, ended).is_some(), "the server must not run without its CA key");
    let log = server.log();
    assert!(log.contains("Error:") || log.contains("ERROR"), "{log}");
}

//= TDB-02 FLT-S1
#[test]
fn a_server_killed_at_any_moment_of_a_rotation_finds_its_way() {
    let options = ServerOptions { ca_ttl: "12s", agent_ttl: "2s", x509_svid_ttl: "2s", ..Default::default() };
    let mut server = Server::start(&options);
    let (mut sequence, mut keys) = (0, serde_json::Value::Null);
    // A rotation every few seconds, a kill every few hundred milliseconds: after a while one has hit each step.
    for round in 0..25u64 {
        let moment = Instant::now() + Duration::from_millis(97 * (round % 9));
        wait_for(Duration::from_secs(2), || (Instant::now() >= moment).then_some(()));
        server.kill();
        server.restart();
        let json: serde_json::Value =
            serde_json::from_str(&server.cli(&["bundle", "show", "-format", "spiffe"])).expect("a SPIFFE bundle");
        let now = json["spiffe_sequence"].as_u64().expect("sequence");
        assert!(now >= sequence, "round {round}: the bundle's sequence went back from {sequence} to {now}");
        assert!(!json["keys"].as_array().expect("keys").is_empty(), "round {round}: no authority");
        assert!(now > sequence || json["keys"] == keys, "round {round}: other keys under one sequence number {now}");
        (sequence, keys) = (now, json["keys"].clone());
    }
}
