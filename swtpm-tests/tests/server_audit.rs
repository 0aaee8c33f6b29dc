//! What callers leave in the server's log, however hard they try.

use std::net::Ipv4Addr;

use ironroot_api::pb::agent::CountAgentsRequest;
use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::device::device_client::DeviceClient;
use ironroot_api::pb::device::{DeviceRequest, DeviceState};
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::entry::{BatchCreateEntryRequest, CountEntriesRequest, GetAuthorizedEntriesRequest};
use ironroot_api::pb::svid::{BatchNewX509svidRequest, NewX509svidParams};
use ironroot_api::pb::types;
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::permission::denial_reason;
use ironroot_attest::node::tpm2::ClockReading;
use ironroot_lab::deployment::{
    Admission, DEADLINE, Server, ServerOptions, TRUST_DOMAIN, expect_within, expect_within_async,
};
use ironroot_lab::server_client::{ServerClient, SoftwareDevice, TpmNode, attest, csr, key, params};
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::Channel;

/// Most bytes that the attacks of these tests may leave in the log.
const MAX_LOGGED: usize = 200_000;

#[tokio::test]
async fn an_agent_cannot_fill_the_log() {
    let server = Server::start(&ServerOptions::default());
    let agent = ServerClient::new(&server).await.agent().await;
    let before = server.log().len();
    let csr = csr(&key(), &[]);
    let item = |entry_id: String| NewX509svidParams { entry_id, csr: csr.clone().into() };
    for _ in 0..20 {
        let params = vec![item("x".repeat(900_000))];
        let answer = agent.svids().batch_new_x509svid(BatchNewX509svidRequest { params }).await.expect("answered");
        let status = answer.into_inner().results.swap_remove(0).status.expect("a status");
        assert_eq!(status.code, Code::InvalidArgument as i32, "{}", status.message);
        let params = (0..500).map(|number| item(format!("{number:0>250}"))).collect();
        agent.svids().batch_new_x509svid(BatchNewX509svidRequest { params }).await.expect("answered");
    }
    let logged = server.log().len() - before;
    assert!(logged < MAX_LOGGED, "10,020 refused items left {logged} bytes");
    assert!(server.log().contains("... (900000 bytes)") || !server.log().contains("xxxx"), "{}", server.log());
}

#[tokio::test]
async fn audit_lines_name_the_local_administrator_and_the_device_that_was_refused() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    client.join_token().await;
    let (uid, pid) = (nix::unistd::geteuid(), std::process::id());
    let local = format!("caller=\"local\" caller_uid={uid} caller_pid={pid}");
    assert!(server.log().contains(&local), "{}", server.log());
    let node = TpmNode::new().await;
    node.attest(&client).await.map(drop).expect_err("not enrolled");
    let device = format!("device=\"{}\"", node.ek_sha256());
    assert!(server.log().contains(&device), "{}", server.log());
}

fn entry(number: usize) -> types::Entry {
    let id = |path: String| Some(types::Spiffeid { trust_domain: TRUST_DOMAIN.into(), path });
    types::Entry {
        spiffe_id: id(format!("/w/{number}")),
        parent_id: id("/group".into()),
        selectors: vec![types::Selector { r#type: "unix".into(), value: format!("uid:{number}") }],
        ..types::Entry::default()
    }
}

/// Entries of the batch: so many take the server many commits.
const BATCH: usize = 5000;

#[tokio::test]
async fn a_batch_whose_caller_hangs_up_is_done_to_its_end_and_each_change_has_its_audit_line() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let (mut admin, mut watcher) = (EntryClient::new(client.admin().await), EntryClient::new(client.admin().await));
    let output_mask = Some(types::EntryMask::default());
    let batch = BatchCreateEntryRequest { entries: (0..BATCH).map(entry).collect(), output_mask };
    let caller = tokio::spawn(async move { admin.batch_create_entry(batch).await.map(drop) });
    let mut created =
        async || watcher.count_entries(CountEntriesRequest::default()).await.expect("counted").into_inner().count;
    expect_within_async(DEADLINE, "an entry is created", String::new, async || created().await > 0).await;
    caller.abort();
    assert!(caller.await.is_err_and(|gone| gone.is_cancelled()), "it hangs up before its answer");
    let lines = || server.log().lines().filter(|line| line.contains("method=\"BatchCreateEntry\"")).count();
    expect_within(DEADLINE, "a line for each", || format!("{} lines", lines()), || lines() == BATCH);
    assert_eq!(created().await as usize, BATCH);
}

/// Nodes that attest at once: fewer than one address may have connections.
const NODES: usize = 100;

#[tokio::test]
async fn an_agent_that_is_stored_has_its_audit_line_although_its_node_hung_up() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let mut agents = AgentClient::new(client.admin().await);
    let mut attesting = Vec::new();
    for _ in 0..NODES {
        let params = params("join_token", client.join_token().await.into_bytes(), csr(&key(), &[]));
        attesting.push(attest(client.anonymous().await, params, None));
    }
    let mut nodes: JoinSet<_> = attesting.into_iter().collect();
    expect_within_async(DEADLINE, "a node attests", String::new, async || count(&mut agents).await > 0).await;
    nodes.abort_all();
    let mut answered = 0;
    while let Some(ended) = nodes.join_next().await {
        match ended {
            Ok(attested) => answered += usize::from(attested.is_ok()),
            Err(gone) => assert!(gone.is_cancelled(), "{gone}"),
        }
    }
    assert!(answered < NODES, "all nodes were answered: nobody hung up");
    let is_line = |line: &&str| line.contains("status=\"success\"") && line.contains("method=\"AttestAgent\"");
    let lines = || server.log().lines().filter(is_line).count();
    let said = || format!("{} lines, {answered} nodes answered", lines());
    let mut told = async || {
        let stored = count(&mut agents).await;
        stored > answered && stored == lines()
    };
    expect_within_async(DEADLINE, "more agents are stored than answered, each with its line", said, &mut told).await;
}

#[tokio::test]
async fn a_device_that_comes_to_wait_for_approval_has_its_audit_line_and_only_one() {
    let server = Server::start(&ServerOptions { admission: Admission::Approval, ..Default::default() });
    let (client, device) = (ServerClient::new(&server).await, SoftwareDevice::new());
    for _ in 0..2 {
        device.attest(&client).await.map(drop).expect_err("nobody vouches for it");
    }
    let waits = format!("device {} waits for approval", device.ek_sha256());
    let is_line = |line: &&str| line.contains("status=\"success\"") && line.contains(&waits);
    assert_eq!(server.log().lines().filter(is_line).count(), 1, "{}", server.log());
}

async fn count(agents: &mut AgentClient<Channel>) -> usize {
    agents.count_agents(CountAgentsRequest::default()).await.expect("counted").into_inner().count as usize
}

/// A copy of a chip's state is started beside the original. Which of them is right nobody can say.
//= TPM-17
#[tokio::test]
async fn a_chip_that_runs_twice_is_banned_with_both_addresses_in_the_log() {
    let options = ServerOptions { require_resident_key: false, ..Default::default() };
    let server = Server::start(&options);
    let client = ServerClient::new(&server).await;
    let thief = client.clone().at(Ipv4Addr::new(127, 0, 0, 7));
    let original = TpmNode::new().await;
    server.import_devices(&format!("ek_sha256,serial\n{},SN-1\n", original.ek_sha256()));
    let first = client.agent_of(original.attest(&client).await.expect("enrolled")).await;
    first.entries().get_authorized_entries(GetAuthorizedEntriesRequest::default()).await.expect("attested");
    let copy = original.copy().await;
    let stolen = thief.agent_of(copy.attest(&thief).await.expect("nothing contradicts it yet")).await;
    stolen.entries().get_authorized_entries(GetAuthorizedEntriesRequest::default()).await.expect("attested");
    let refused = original.attest(&client).await.map(drop).expect_err("its counters are older than the copy's");
    assert!(refused.message().contains("reset counter went back"), "{refused}");
    let caught = stolen.entries().get_authorized_entries(GetAuthorizedEntriesRequest::default()).await;
    assert_eq!(denial_reason(&caught.expect_err("both are banned")), Some(Reason::AgentBanned));
    let request = DeviceRequest { ek_sha256: original.ek_sha256() };
    let device = DeviceClient::new(client.admin().await).get_device(request).await.expect("known").into_inner();
    assert_eq!(device.state(), DeviceState::Banned);
    let seen: Vec<_> = device.ban.expect("why").sightings.into_iter().map(|seen| seen.address).collect();
    assert!(seen[0].starts_with("127.0.0.1:") && seen[1].starts_with("127.0.0.7:"), "{seen:?}");
    let log = server.log();
    let alarm =
        log.lines().find(|line| line.contains("a chip runs twice")).unwrap_or_else(|| panic!("no alarm\n{log}"));
    assert!(alarm.contains("address=127.0.0.7:") && alarm.contains("other_address=127.0.0.1:"), "{alarm}");
    // From these lines the ban is given again to an older database.
    let bans = |line: &&str| line.contains("method=\"BanDevice\"") && line.contains(&original.ek_sha256());
    assert_eq!(log.lines().filter(bans).count(), 2, "the device, and its agent\n{log}");
}

/// After a restart of the server every connection is new. What the refused chip said is kept: the other's clock is too far ahead.
//= TPM-17
#[tokio::test]
async fn a_copy_is_proven_by_its_clock_after_a_restart_of_the_server_too() {
    let mut server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let mut chip = SoftwareDevice::new();
    server.import_devices(&format!("ek_sha256,serial\n{},SN-1\n", chip.ek_sha256()));
    let original = ClockReading { clock_ms: 24 * 3600 * 1000, reset_count: 9, restart_count: 0, safe: true };
    let copy = ClockReading { clock_ms: 3600 * 1000, reset_count: 8, ..original };
    chip.node.clock = original;
    chip.attest(&client).await.map(drop).expect("enrolled");
    chip.node.clock = copy;
    let refused = chip.attest(&client.clone().at(Ipv4Addr::new(127, 0, 0, 7))).await.map(drop).expect_err("older");
    assert!(refused.message().contains("reset counter went back"), "{refused}");
    server.restart();
    let client = ServerClient::new(&server).await;
    chip.node.clock = ClockReading { clock_ms: original.clock_ms + 60_000, ..original };
    let caught = chip.attest(&client).await.map(drop).expect_err("both are banned");
    assert_eq!(denial_reason(&caught), Some(Reason::AgentBanned), "{caught}");
    let device =
        DeviceClient::new(client.admin().await).get_device(DeviceRequest { ek_sha256: chip.ek_sha256() }).await;
    let ban = device.expect("known").into_inner().ban.expect("why");
    let seen: Vec<_> = ban.sightings.iter().map(|seen| seen.address.split(':').next().expect("an IP")).collect();
    assert_eq!(seen, ["127.0.0.7", "127.0.0.1"]);
}

/// A copy that never attests has the original's certificate and key. It is seen from another address, and behind the same.
//= TPM-17
#[tokio::test]
async fn one_certificate_that_asks_in_turns_over_two_connections_is_told_with_both_addresses() {
    for from in [Ipv4Addr::new(127, 0, 0, 7), Ipv4Addr::LOCALHOST] {
        let server = Server::start(&ServerOptions::default());
        let client = ServerClient::new(&server).await;
        let original = client.agent().await;
        let copy = client.clone().at(from).agent_of(original.credentials.clone()).await;
        let said = || server.log();
        let told = async || {
            for agent in [&original, &copy] {
                agent.entries().get_authorized_entries(GetAuthorizedEntriesRequest::default()).await.expect("answered");
            }
            said().contains("one certificate is used in turns")
        };
        expect_within_async(DEADLINE, "the turns are told", said, told).await;
        let line = said().lines().find(|line| line.contains("in turns")).map(str::to_owned).expect("said");
        // Which of the two it was told at depends on how long each call took.
        let addresses = |one: Ipv4Addr, other: Ipv4Addr| {
            line.contains(&format!(" address={one}:")) && line.contains(&format!("other_address={other}:"))
        };
        let here = Ipv4Addr::LOCALHOST;
        assert!(addresses(here, from) || addresses(from, here), "{line}");
        assert!(line.contains(&original.id().to_string()), "{line}");
        assert_eq!(said().matches("in turns").count(), 1);
    }
}
