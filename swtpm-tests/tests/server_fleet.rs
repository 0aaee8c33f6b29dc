//! What administrators see and decide of agents and devices.

use std::collections::HashMap;
use std::sync::Arc;

use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::agent::{
    BanAgentRequest, CountAgentsRequest, CreateJoinTokenRequest, DeleteAgentRequest, GetAgentRequest,
    ListAgentsRequest, PostStatusRequest, count_agents_request, list_agents_request,
};
use ironroot_api::pb::device::device_client::DeviceClient;
use ironroot_api::pb::device::{DeviceRequest, DeviceState, ImportDevicesRequest, ListDevicesRequest, NewDevice};
use ironroot_api::pb::entry::GetAuthorizedEntriesRequest;
use ironroot_api::pb::types;
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::permission::denial_reason;
use ironroot_lab::deployment::{Admission, Server, ServerOptions};
use ironroot_lab::server_client::{Agent, ServerClient, SharedServer, SoftwareDevice, TpmNode};
use tonic::transport::Channel;
use tonic::{Code, Status};

static SERVER: SharedServer = SharedServer::new();

async fn lab() -> (Arc<Server>, ServerClient) {
    let server = SERVER.get(&ServerOptions { require_resident_key: false, ..Default::default() });
    let client = ServerClient::new(&server).await;
    (server, client)
}

async fn calls(agent: &Agent) -> Result<(), Status> {
    agent.entries().get_authorized_entries(GetAuthorizedEntriesRequest::default()).await.map(drop)
}

async fn reason(agent: &Agent) -> Option<Reason> {
    denial_reason(&calls(agent).await.expect_err("denied"))
}

fn id_of(agent: &Agent) -> Option<types::Spiffeid> {
    Some(agent.id().to_pb())
}

struct Agents(AgentClient<Channel>);

impl Agents {
    async fn ids(&mut self, filter: list_agents_request::Filter) -> Vec<types::Spiffeid> {
        let request = ListAgentsRequest { filter: Some(filter.clone()), ..Default::default() };
        let listed = self.0.list_agents(request).await.expect("listed").into_inner().agents;
        let same = count_agents_request::Filter {
            by_attestation_type: filter.by_attestation_type,
            by_selector_match: filter.by_selector_match,
            by_banned: filter.by_banned,
            by_can_reattest: filter.by_can_reattest,
            by_expires_before: filter.by_expires_before,
        };
        let count = self.0.count_agents(CountAgentsRequest { filter: Some(same) }).await.expect("counted");
        assert_eq!(count.into_inner().count as usize, listed.len(), "count and list agree");
        listed.into_iter().map(|agent| agent.id.expect("an ID")).collect()
    }
}

/// A server of its own: it counts all agents there are.
#[tokio::test]
async fn agents_are_listed_by_how_they_attested_and_where_they_stand() {
    let server = Server::start(&ServerOptions { require_resident_key: false, ..Default::default() });
    let client = ServerClient::new(&server).await;
    let (plain, banned) = (client.agent().await, client.agent().await);
    let node = TpmNode::new().await;
    server.import_devices(&format!("ek_sha256,label:site\n{},berlin\n", node.ek_sha256()));
    let tpm = client.agent_of(node.attest(&client).await.expect("enrolled")).await;
    let version = PostStatusRequest { agent_version: "1.2.3".into(), ..Default::default() };
    tpm.agents().post_status(version).await.expect("noted");
    let mut agents = Agents(AgentClient::new(client.admin().await));
    agents.0.ban_agent(BanAgentRequest { id: id_of(&banned) }).await.expect("banned");

    let (plain_id, banned_id, tpm_id) = (plain.id().to_pb(), banned.id().to_pb(), tpm.id().to_pb());
    let all = vec![plain_id.clone(), banned_id.clone(), tpm_id.clone()];
    let tokens = vec![plain_id.clone(), banned_id.clone()];
    let site = |value: &str, how| {
        let selectors = vec![types::Selector { r#type: "tpm2".into(), value: format!("label:site:{value}") }];
        Some(types::SelectorMatch { selectors, r#match: how })
    };
    let (exact, superset, any) = (0, 2, 3);
    type Filter = list_agents_request::Filter;
    for (filter, expected) in [
        (Filter::default(), &all[..]),
        (Filter { by_attestation_type: "join_token".into(), ..Default::default() }, &tokens),
        (Filter { by_attestation_type: "tpm2".into(), ..Default::default() }, &all[2..]),
        (Filter { by_attestation_type: "aws_iid".into(), ..Default::default() }, &[]),
        (Filter { by_banned: Some(true), ..Default::default() }, &all[1..2]),
        (Filter { by_banned: Some(false), ..Default::default() }, &[plain_id.clone(), tpm_id.clone()]),
        (Filter { by_can_reattest: Some(true), ..Default::default() }, &all[2..]),
        (Filter { by_can_reattest: Some(false), ..Default::default() }, &tokens),
        (Filter { by_selector_match: site("berlin", superset), ..Default::default() }, &all[2..]),
        (Filter { by_selector_match: site("berlin", any), ..Default::default() }, &all[2..]),
        (Filter { by_selector_match: site("berlin", exact), ..Default::default() }, &[]),
        (Filter { by_selector_match: site("paris", superset), ..Default::default() }, &[]),
        (Filter { by_expires_before: "2020-01-01 00:00:00 +0000 +00".into(), ..Default::default() }, &[]),
        (Filter { by_expires_before: "2199-01-01 00:00:00 -0700 -07".into(), ..Default::default() }, &all),
    ] {
        assert_eq!(agents.ids(filter.clone()).await, expected, "{filter:?}");
    }
    for filter in [
        Filter { by_expires_before: "next week".into(), ..Default::default() },
        Filter { by_selector_match: site("berlin", 9), ..Default::default() },
    ] {
        let request = ListAgentsRequest { filter: Some(filter), ..Default::default() };
        assert_eq!(agents.0.list_agents(request).await.expect_err("refused").code(), Code::InvalidArgument);
    }

    let get = |id: &types::Spiffeid, output_mask| GetAgentRequest { id: Some(id.clone()), output_mask };
    let shown = agents.0.get_agent(get(&tpm_id, None)).await.expect("found").into_inner();
    assert_eq!(shown.x509svid_serial_number, tpm.credentials.leaf().serial_decimal());
    assert_eq!(shown.x509svid_expires_at, tpm.credentials.leaf().not_after_unix());
    assert_eq!((shown.agent_version.as_str(), shown.can_reattest, shown.banned), ("1.2.3", true, false));
    assert!(shown.selectors.iter().any(|s| s.value == "label:site:berlin"), "{shown:?}");
    let shown = agents.0.get_agent(get(&banned_id, None)).await.expect("found").into_inner();
    assert_eq!((shown.banned, shown.x509svid_serial_number.as_str()), (true, ""));
    let mask = types::AgentMask { attestation_type: true, ..Default::default() };
    let shown = agents.0.get_agent(get(&tpm_id, Some(mask))).await.expect("found").into_inner();
    let expected = types::Agent { id: Some(tpm_id), attestation_type: "tpm2".into(), ..Default::default() };
    assert_eq!(shown, expected);

    let mut seen = Vec::new();
    let mut request = ListAgentsRequest { page_size: 2, ..Default::default() };
    for pages in 1.. {
        let page = agents.0.list_agents(request.clone()).await.expect("a page").into_inner();
        seen.extend(page.agents.into_iter().map(|agent| agent.id.expect("an ID")));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            assert_eq!((pages, seen), (2, all));
            break;
        }
    }
}

#[tokio::test]
async fn a_banned_agent_stays_out_until_it_is_deleted_and_an_evicted_one_may_come_back() {
    let (_server, client) = lab().await;
    let mut agents = AgentClient::new(client.admin().await);
    let token = client.join_token().await;
    let agent = client.agent_of(client.attest_with_token(&token).await.expect("attests")).await;
    calls(&agent).await.expect("an agent");
    agents.ban_agent(BanAgentRequest { id: id_of(&agent) }).await.expect("banned");
    assert_eq!(reason(&agent).await, Some(Reason::AgentBanned));

    let same_token = CreateJoinTokenRequest { ttl: 600, token: token.clone(), agent_id: None };
    agents.create_join_token(same_token.clone()).await.expect("the old one was used");
    let status = client.attest_with_token(&token).await.err().expect("refused");
    assert_eq!(denial_reason(&status), Some(Reason::AgentBanned), "{status}");
    agents.delete_agent(DeleteAgentRequest { id: id_of(&agent) }).await.expect("deleted");
    assert_eq!(reason(&agent).await, Some(Reason::AgentNotAttested));
    let status = agents.create_join_token(same_token).await.expect_err("the refused attestation has not used it up");
    assert_eq!(status.code(), Code::AlreadyExists);
    let again = client.agent_of(client.attest_with_token(&token).await.expect("attests")).await;
    calls(&again).await.expect("an agent again");
    assert_eq!(again.id(), agent.id());
    assert_eq!(reason(&agent).await, Some(Reason::AgentNotActive), "the certificate from before the ban stays out");

    for request in [None, Some(types::Spiffeid { trust_domain: "x y".into(), path: String::new() })] {
        let status = agents.delete_agent(DeleteAgentRequest { id: request.clone() }).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument);
        let status = agents.ban_agent(BanAgentRequest { id: request }).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    agents.delete_agent(DeleteAgentRequest { id: id_of(&again) }).await.expect("deleted");
    for status in [
        agents.delete_agent(DeleteAgentRequest { id: id_of(&again) }).await.expect_err("gone"),
        agents.ban_agent(BanAgentRequest { id: id_of(&again) }).await.expect_err("gone"),
        agents.get_agent(GetAgentRequest { id: id_of(&again), output_mask: None }).await.map(drop).expect_err("gone"),
    ] {
        assert_eq!(status.code(), Code::NotFound);
    }
}

#[tokio::test]
async fn a_status_has_a_bound_and_needs_a_certificate() {
    let (_server, client) = lab().await;
    let agent = client.agent().await;
    let post = |version: String| PostStatusRequest { agent_version: version, ..Default::default() };
    agent.agents().post_status(post("v".repeat(255))).await.expect("noted");
    let status = agent.agents().post_status(post("v".repeat(256))).await.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_status_that_names_no_version_leaves_the_one_that_is_known() {
    let (_server, client) = lab().await;
    let agent = client.agent().await;
    for version in ["1.2.3", ""] {
        let status = PostStatusRequest { agent_version: version.to_owned(), ..Default::default() };
        agent.agents().post_status(status).await.expect("noted");
        let mut agents = AgentClient::new(client.admin().await);
        let asked = GetAgentRequest { id: id_of(&agent), output_mask: None };
        let known = agents.get_agent(asked).await.expect("there").into_inner();
        assert_eq!(known.agent_version, "1.2.3", "after {version:?}");
    }
}

fn hash(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn device(ek_sha256: &str, labels: &[(&str, &str)]) -> NewDevice {
    let labels: HashMap<String, String> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    NewDevice { ek_sha256: ek_sha256.to_owned(), labels: labels.into_iter().collect(), ..Default::default() }
}

#[tokio::test]
async fn an_import_enrols_all_devices_or_none_and_names_every_mistake() {
    let (_server, client) = lab().await;
    let mut devices = DeviceClient::new(client.admin().await);
    let both = NewDevice { ek_certificate: vec![1].into(), ..device(&hash('2'), &[]) };
    let two_mistakes = NewDevice { serial: Some("a\nb".into()), ..device("short", &[("colour:of", "\t")]) };
    let request = ImportDevicesRequest {
        devices: vec![
            device(&hash('1'), &[("import", "x")]),
            both,
            two_mistakes,
            device(&hash('3'), &[("import", "x")]),
            device(&hash('1'), &[]),
            NewDevice { ek_certificate: vec![0x30, 3, 2, 1, 1].into(), ..Default::default() },
        ],
        ..Default::default()
    };
    let status = devices.import_devices(request).await.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    for mistake in [
        "device 1: exactly one of ek_sha256 and ek_certificate",
        "device 2: ek_sha256 must be 64 hexadecimal digits",
        "device 2: serial must",
        "device 2: label name \"colour:of\"",
        "device 4: is device 0 again",
        "device 5: ek_certificate is unreadable",
    ] {
        assert!(status.message().contains(mistake), "{:?} lacks {mistake:?}", status.message());
    }
    assert!(!status.message().contains("device 0:") && !status.message().contains("device 3:"));
    let listed = devices.list_devices(by_label("import", "x")).await.expect("listed").into_inner();
    assert_eq!(listed.devices, [], "one mistake, no device");

    let good = ImportDevicesRequest {
        devices: vec![device(&hash('1'), &[("import", "x")]), device(&hash('3'), &[])],
        ..Default::default()
    };
    let answer = devices.import_devices(good.clone()).await.expect("imported").into_inner();
    assert_eq!((answer.created, answer.updated, answer.results.len()), (2, 0, 2));
    let answer = devices.import_devices(good).await.expect("the same again").into_inner();
    assert_eq!((answer.created, answer.updated), (0, 0), "an import may be repeated");
    let many = ImportDevicesRequest { devices: vec![device("bad", &[]); 1000], ..Default::default() };
    let status = devices.import_devices(many).await.expect_err("refused");
    assert!(status.message().contains("and 980 more"), "{status}");
}

fn by_label(name: &str, value: &str) -> ListDevicesRequest {
    let by_labels = [(name.to_owned(), value.to_owned())].into_iter().collect();
    ListDevicesRequest { by_labels, ..Default::default() }
}

#[tokio::test]
async fn devices_are_listed_by_label_and_state_page_by_page() {
    let (_server, client) = lab().await;
    let mut devices = DeviceClient::new(client.admin().await);
    let ek = |number: u32| format!("{number:064x}");
    let fleet = (0..10).map(|n| device(&ek(n), &[("fleet", "pages"), ("half", if n < 5 { "a" } else { "b" })]));
    devices
        .import_devices(ImportDevicesRequest { devices: fleet.collect(), ..Default::default() })
        .await
        .expect("imported");
    let ban = DeviceRequest { ek_sha256: ek(7).to_uppercase() };
    let banned = devices.ban_device(ban).await.expect("hex of either case").into_inner();
    assert_eq!(banned.state(), DeviceState::Banned);
    let mut listed = async |request: ListDevicesRequest| -> Vec<String> {
        let answer = devices.list_devices(request).await.expect("listed").into_inner();
        answer.devices.into_iter().map(|device| device.ek_sha256).collect()
    };
    assert_eq!(listed(by_label("fleet", "pages")).await.len(), 10);
    assert_eq!(listed(by_label("fleet", "other")).await, Vec::<String>::new());
    let half = ListDevicesRequest { by_state: DeviceState::Enrolled.into(), ..by_label("half", "b") };
    assert_eq!(listed(half).await, [ek(5), ek(6), ek(8), ek(9)]);
    let banned = ListDevicesRequest { by_state: DeviceState::Banned.into(), ..by_label("fleet", "pages") };
    assert_eq!(listed(banned).await, [ek(7)]);
    let mut seen = Vec::new();
    let mut request = ListDevicesRequest { page_size: 4, ..by_label("fleet", "pages") };
    loop {
        let page = devices.list_devices(request.clone()).await.expect("a page").into_inner();
        seen.extend(page.devices.into_iter().map(|device| device.ek_sha256));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, (0..10).map(ek).collect::<Vec<_>>());
    for bad in ["", "xyz", &ek(1)[1..]] {
        let status = devices.get_device(DeviceRequest { ek_sha256: bad.into() }).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{bad:?}");
    }
    let unknown = DeviceRequest { ek_sha256: hash('e') };
    assert_eq!(devices.get_device(unknown.clone()).await.expect_err("unknown").code(), Code::NotFound);
    assert_eq!(devices.ban_device(unknown.clone()).await.expect_err("unknown").code(), Code::NotFound);
    assert_eq!(devices.delete_device(unknown).await.expect_err("unknown").code(), Code::NotFound);
}

#[tokio::test]
async fn an_approval_with_serial_or_labels_enrols_all_that_it_names_or_nobody() {
    let server = Server::start(&ServerOptions { admission: Admission::Approval, ..Default::default() });
    let client = ServerClient::new(&server).await;
    let (first, second) = (SoftwareDevice::new(), SoftwareDevice::new());
    for device in [&first, &second] {
        let waits = device.attest(&client).await.map(drop).expect_err("nobody vouches for it");
        assert!(waits.message().contains("waits for approval"), "{waits}");
    }
    let (first, second, banned, unknown) = (first.ek_sha256(), second.ek_sha256(), hash('b'), hash('e'));
    server.import_devices(&format!("ek_sha256,serial\n{},SN-1\n{banned},SN-2\n", hash('c')));
    server.cli(&["device", "ban", &banned]);
    let pending = || server.cli(&["device", "list", "-state", "pending"]);
    for (arguments, words) in [
        (&[&*first, "-serial", "SN-1"][..], "1 serial would belong to several devices"),
        (&[&first, &second, "-serial", "SN-3"], "-serial can be given to one device only"),
        (&[&first, &second, "-label", "si te=berlin"], "label name"),
        (&[&first, &unknown, "-label", "site=berlin"], &format!("{unknown}: device not found")),
        (&[&first, &banned, "-label", "site=berlin"], &format!("{banned}: device is banned")),
    ] {
        let refused = server.cli_output(&[&["device", "approve"], arguments].concat());
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains(words), "{arguments:?}: {said}");
        assert!(pending().starts_with("Found 2 devices\n"), "{arguments:?}: {}", pending());
    }
    let imports = || server.log().matches("method=\"ImportDevices\" object=0 created").count();
    let before = imports();
    server.cli(&["device", "approve", &first, &second, "-label", "site=berlin"]);
    assert_eq!(imports() - before, 1, "{}", server.log());
    assert!(server.log().contains("object=0 created, 2 updated"), "{}", server.log());
    assert!(pending().starts_with("Found 0 devices\n"), "{}", pending());
    assert!(server.cli(&["device", "list", "-label", "site=berlin"]).starts_with("Found 2 devices\n"));
}

//= TPM-20
#[tokio::test]
async fn a_device_was_last_seen_when_its_agent_called() {
    let (_server, client) = lab().await;
    let mut devices = DeviceClient::new(client.admin().await);
    let node = TpmNode::new().await;
    let request = DeviceRequest { ek_sha256: node.ek_sha256() };
    let import = ImportDevicesRequest { devices: vec![device(&node.ek_sha256(), &[])], ..Default::default() };
    devices.import_devices(import).await.expect("imported");
    let agent = client.agent_of(node.attest(&client).await.expect("enrolled")).await;
    let before = devices.get_device(request.clone()).await.expect("known").into_inner();
    assert!(before.last_attested_at > 0 && before.last_seen_at == 0, "{before:?}");
    calls(&agent).await.expect("an agent");
    let after = devices.get_device(request).await.expect("known").into_inner();
    assert!(after.last_seen_at >= after.last_attested_at, "{after:?}");
}

#[tokio::test]
async fn a_ban_of_a_device_reaches_its_agent_at_once_and_lasts_until_both_are_forgotten() {
    let (server, client) = lab().await;
    let mut devices = DeviceClient::new(client.admin().await);
    let node = TpmNode::new().await;
    let request = DeviceRequest { ek_sha256: node.ek_sha256() };
    let import = ImportDevicesRequest { devices: vec![device(&node.ek_sha256(), &[])], ..Default::default() };
    devices.import_devices(import.clone()).await.expect("imported");
    let agent = client.agent_of(node.attest(&client).await.expect("enrolled")).await;
    calls(&agent).await.expect("an agent");
    let known = devices.get_device(request.clone()).await.expect("known").into_inner();
    assert_eq!(known.agent_id, agent.id().as_str());
    // Forgotten and imported again: the record no longer names the agent, the ban must reach it all the same.
    devices.delete_device(request.clone()).await.expect("deleted");
    devices.import_devices(import.clone()).await.expect("imported again");
    devices.ban_device(request.clone()).await.expect("banned");
    assert_eq!(reason(&agent).await, Some(Reason::AgentBanned));
    let refused = |status: &Status| denial_reason(status) == Some(Reason::AgentBanned);
    let status = node.attest(&client).await.err().expect("a banned device");
    assert!(refused(&status), "{status}");
    assert_eq!(devices.approve_device(request.clone()).await.expect_err("banned").code(), Code::PermissionDenied);
    devices.import_devices(import.clone()).await.expect("answered");
    assert!(node.attest(&client).await.is_err(), "an import lifts no ban");

    devices.delete_device(request.clone()).await.expect("deleted");
    devices.import_devices(import).await.expect("imported");
    let status = node.attest(&client).await.err().expect("the agent is still banned");
    assert!(refused(&status), "{status}");
    server.cli(&["agent", "evict", "-spiffeID", agent.id().as_str()]);
    let again = client.agent_of(node.attest(&client).await.expect("both bans are lifted")).await;
    calls(&again).await.expect("an agent again");
    assert_eq!(reason(&agent).await, Some(Reason::AgentNotActive));
}
