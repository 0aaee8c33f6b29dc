//! WatchChanges: agents are told of what concerns them when it happens, and only while they may be.

use std::time::Duration;

use ironroot_api::SpiffeId;
use ironroot_api::pb::change::change_client::ChangeClient;
use ironroot_api::pb::change::{WatchChangesRequest, WatchChangesResponse};
use ironroot_api::pb::entry::GetAuthorizedEntriesRequest;
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::permission::denial_reason;
use ironroot_attest::node::tpm2::ClockReading;
use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within_async,
};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::server_client::{Agent, Outcast, ServerClient, SoftwareDevice};
use ironroot_lab::workload_client;
use ironroot_server::endpoints::MAX_HELD_STREAMS_PER_AGENT;
use tonic::{Code, Status, Streaming};

/// Well above what a push takes; nothing is known to come within it.
const A_WHILE: Duration = Duration::from_secs(2);

/// The stream that tells an agent of changes.
struct Watch(Streaming<WatchChangesResponse>);

impl Watch {
    async fn open(agent: &Agent) -> Result<Self, Status> {
        let stream = ChangeClient::new(agent.channel.clone()).watch_changes(WatchChangesRequest::default()).await?;
        Ok(Self(stream.into_inner()))
    }

    /// Open, and the first word read.
    async fn begin(agent: &Agent) -> Self {
        let mut watch = Self::open(agent).await.expect("held");
        watch.next().await.expect("the first word comes at once");
        watch
    }

    /// The revision of the next word.
    async fn next(&mut self) -> Result<i64, Status> {
        let word = tokio::time::timeout(DEADLINE, self.0.message()).await.expect("a word in time")?;
        Ok(word.ok_or_else(|| Status::aborted("the end"))?.revision)
    }

    async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(A_WHILE, self.0.message()).await.is_err()
    }
}

fn create(server: &Server, agent: &SpiffeId, path: &str) -> String {
    server.create_entry(agent.as_str(), path, &["unix:uid:1"], &[])
}

#[tokio::test]
async fn an_agent_is_told_of_its_own_entries_and_of_no_others() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let (told, other) = (client.agent().await, client.agent().await);
    let (mut watch, mut others) = (Watch::begin(&told).await, Watch::begin(&other).await);
    let entry = create(&server, &told.id(), "/a");
    let created = watch.next().await.expect("told of a new entry");
    server.cli(&["entry", "delete", "-entryID", &entry]);
    let deleted = watch.next().await.expect("told of its end");
    assert!(created < deleted, "{created}, {deleted}");
    assert!(others.is_silent().await, "another agent is none of its business");
    create(&server, &other.id(), "/b");
    assert!(others.next().await.expect("told of its own") > deleted);
}

#[tokio::test]
async fn each_word_says_over_how_long_agents_are_to_come_back() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let mut watch = Watch::open(&agent).await.expect("held");
    let word = watch.0.message().await.expect("told").expect("a word");
    assert_eq!(word.come_back_ms, 250, "of a few: one after the other all the same");
}

#[tokio::test]
async fn a_device_whose_labels_are_others_is_told_when_other_entries_are_its() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let device = SoftwareDevice::new();
    server.import_devices(&format!("ek_sha256,label:site\n{},berlin\n", device.ek_sha256()));
    let agent = client.agent_of(device.attest(&client).await.expect("enrolled")).await;
    let group = server.create_node_alias("/rome", "site:rome");
    server.create_entry(&group, "/w", &["unix:uid:1"], &[]);
    let mut watch = Watch::begin(&agent).await;
    server.import_devices(&format!("ek_sha256,label:site\n{},rome\n", device.ek_sha256()));
    watch.next().await.expect("told");
}

#[tokio::test]
async fn the_copy_of_a_chip_is_made_to_ask_when_the_original_contradicts_it() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let mut chip = SoftwareDevice::new();
    server.import_devices(&format!("ek_sha256\n{}\n", chip.ek_sha256()));
    let ahead = ClockReading { clock_ms: 3600 * 1000, reset_count: 9, restart_count: 0, safe: true };
    chip.node.clock = ahead;
    let copy = client.agent_of(chip.attest(&client).await.expect("enrolled")).await;
    let mut watch = Watch::begin(&copy).await;
    chip.node.clock = ClockReading { reset_count: 8, ..ahead };
    chip.attest(&client).await.map(drop).expect_err("older");
    watch.next().await.expect("told");
    let caught = copy.entries().get_authorized_entries(GetAuthorizedEntriesRequest::default()).await;
    assert_eq!(denial_reason(&caught.expect_err("banned")), Some(Reason::AgentBanned));
}

#[tokio::test]
async fn who_may_not_go_on_is_told_why_at_once() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    for outcast in Outcast::of_each_kind(&client).await {
        let mut watch = Watch::begin(&outcast.agent).await;
        outcast.cast_out(&client).await;
        let status = watch.next().await.expect_err("the end");
        assert_eq!(denial_reason(&status), Some(outcast.reason), "{status:?}");
    }
}

#[tokio::test]
async fn an_agent_holds_no_more_streams_than_it_needs_and_gets_a_place_back() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let mut held = Vec::new();
    for _ in 0..MAX_HELD_STREAMS_PER_AGENT {
        held.push(Watch::begin(&agent).await);
    }
    let refused = Watch::open(&agent).await.err().expect("refused");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    held.pop();
    let is_free = async || Watch::open(&agent).await.is_ok();
    expect_within_async(DEADLINE, "the place that was given back is free", String::new, is_free).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_told_to_stop_does_not_wait_for_streams_that_it_holds() {
    let mut server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let mut watch = Watch::begin(&agent).await;
    assert!(server.process().expect("running").terminate(), "{}", server.log());
    watch.next().await.expect_err("the end");
    assert!(!server.log().contains("cut off"), "{}", server.log());
}

#[tokio::test]
async fn a_new_entry_reaches_a_workloads_stream_though_the_next_poll_is_an_hour_away() {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let mut device = Device::manufacture(&maker);
    let server = Server::start(&ServerOptions::default());
    server.import_devices(&format!("ek_sha256,serial,label:site\n{},SN-1,berlin\n", device.ek_sha256()));
    let gateway = server.create_node_alias("/gateway", "site:berlin");
    let own = nix::unistd::geteuid().as_raw();
    let uid = format!("unix:uid:{own}");
    server.create_entry(&gateway, "/first", &[&uid], &[]);
    device.provision(&server, &AgentOptions { sync_interval: "5m", ..AgentOptions::default() });
    device.start();
    device.expect_log("the server tells of changes");
    device.expect_identity(own);
    let mut client = workload_client::client(&device.socket()).await.expect("connected");
    let mut stream = workload_client::watch(&mut client).await.expect("served");
    let mut ids = async || {
        let message = tokio::time::timeout(DEADLINE, stream.message()).await.expect("in time");
        let message = message.expect("no error").expect("no end");
        message.svids.into_iter().map(|svid| svid.spiffe_id).collect::<Vec<_>>()
    };
    let id = |path: &str| format!("spiffe://{TRUST_DOMAIN}{path}");
    assert_eq!(ids().await, [id("/first")]);
    server.create_entry(&gateway, "/second", &[&uid], &[]);
    while !ids().await.contains(&id("/second")) {}
    server.cli(&["agent", "ban", "-spiffeID", &device.agent_id()]);
    device.expect_log("this agent is banned");
}
