//! SyncAuthorizedEntries and GetAuthorizedEntries as SPIRE's agents use them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ironroot_api::pb::agent::BanAgentRequest;
use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::entry::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, BatchUpdateEntryRequest, EntryRevision,
    GetAuthorizedEntriesRequest, SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse,
};
use ironroot_api::pb::types;
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::permission::denial_reason;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_lab::deployment::{DEADLINE, Server, ServerOptions, TRUST_DOMAIN, expect_within_async};
use ironroot_lab::server_client::{Agent, Outcast, ServerClient, SharedServer};
use ironroot_server::facts::mask::agent_entry_mask;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

static SERVER: SharedServer = SharedServer::new();

async fn lab() -> (Arc<Server>, ServerClient) {
    let server = SERVER.get(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    (server, client)
}

fn entry(parent: &SpiffeId, number: usize) -> types::Entry {
    let id = TrustDomain::new(TRUST_DOMAIN).expect("legal").id_with_path(&format!("/w/{number}")).expect("legal");
    types::Entry {
        id: format!("{}.{number:04}", parent.path().rsplit('/').next().expect("a token")),
        spiffe_id: Some(id.to_pb()),
        parent_id: Some(parent.to_pb()),
        selectors: vec![types::Selector { r#type: "unix".into(), value: format!("uid:{number}") }],
        dns_names: vec![format!("w{number}.example.org")],
        x509_svid_ttl: 600,
        hint: format!("h{number}"),
        ..Default::default()
    }
}

/// What was created does not come back: large entries would be more than a client takes.
async fn create(client: &ServerClient, entries: Vec<types::Entry>) {
    let request = BatchCreateEntryRequest { entries, output_mask: Some(types::EntryMask::default()) };
    let answer = EntryClient::new(client.admin().await).batch_create_entry(request).await.expect("answered");
    for result in answer.into_inner().results {
        assert_eq!(result.status.expect("a status").code, 0);
    }
}

async fn delete(client: &ServerClient, id: &str) {
    let request = BatchDeleteEntryRequest { ids: vec![id.to_owned()] };
    EntryClient::new(client.admin().await).batch_delete_entry(request).await.expect("deleted");
}

/// One sync under way.
struct Sync {
    ask: mpsc::Sender<SyncAuthorizedEntriesRequest>,
    answers: Streaming<SyncAuthorizedEntriesResponse>,
}

impl Sync {
    async fn begin(agent: &Agent, first: SyncAuthorizedEntriesRequest) -> Result<Self, Status> {
        let (ask, asked) = mpsc::channel(4);
        ask.try_send(first).expect("room for the first message");
        let answers = agent.entries().sync_authorized_entries(ReceiverStream::new(asked)).await?.into_inner();
        Ok(Self { ask, answers })
    }

    async fn next(&mut self) -> Result<Option<SyncAuthorizedEntriesResponse>, Status> {
        self.answers.message().await
    }

    /// Reads up to and with the message that says there are no more.
    async fn pages(&mut self) -> Vec<SyncAuthorizedEntriesResponse> {
        let mut pages = Vec::new();
        loop {
            let page = self.next().await.expect("a page").expect("a page");
            let more = page.more;
            pages.push(page);
            if !more {
                return pages;
            }
        }
    }

    async fn ask_for(&mut self, ids: Vec<String>) -> Vec<SyncAuthorizedEntriesResponse> {
        self.ask.send(SyncAuthorizedEntriesRequest { output_mask: None, ids }).await.expect("the stream is open");
        self.pages().await
    }
}

fn mask() -> SyncAuthorizedEntriesRequest {
    SyncAuthorizedEntriesRequest { output_mask: Some(agent_entry_mask()), ids: Vec::new() }
}

fn sizes(pages: &[SyncAuthorizedEntriesResponse]) -> Vec<(usize, usize, bool)> {
    pages.iter().map(|page| (page.entry_revisions.len(), page.entries.len(), page.more)).collect()
}

fn ids(pages: &[SyncAuthorizedEntriesResponse]) -> Vec<String> {
    pages.iter().flat_map(|page| &page.entries).map(|entry| entry.id.clone()).collect()
}

#[tokio::test]
async fn an_agent_that_is_banned_during_a_sync_gets_no_further_entry() {
    let (_server, client) = lab().await;
    let agent = client.agent().await;
    create(&client, (0..501).map(|number| entry(&agent.id(), number)).collect()).await;
    let mut sync = Sync::begin(&agent, mask()).await.expect("begun");
    let first = sync.pages().await[0].entry_revisions[0].id.clone();
    let ban = BanAgentRequest { id: Some(agent.id().to_pb()) };
    AgentClient::new(client.admin().await).ban_agent(ban).await.expect("banned");
    let ask = SyncAuthorizedEntriesRequest { output_mask: None, ids: vec![first] };
    sync.ask.send(ask).await.expect("the stream is open");
    let refused = sync.next().await.expect_err("refused");
    assert_eq!(denial_reason(&refused), Some(Reason::AgentBanned), "{refused:?}");
}

/// A sync of which nothing has been asked yet.
async fn opened(agent: &Agent) -> Sync {
    let (ask, asked) = mpsc::channel(4);
    let answers =
        agent.entries().sync_authorized_entries(ReceiverStream::new(asked)).await.expect("opened").into_inner();
    Sync { ask, answers }
}

/// What the first request of a sync that was opened before meets.
async fn first_request(mut sync: Sync) -> Option<Reason> {
    sync.ask.send(mask()).await.expect("the stream is open");
    denial_reason(&sync.next().await.expect_err("an entry list"))
}

//= FLT-S14
#[tokio::test]
async fn a_sync_opened_before_a_ban_an_eviction_or_a_replacement_gets_nothing_afterwards() {
    let (_server, client) = lab().await;
    let outcasts = Outcast::of_each_kind(&client).await;
    let mut syncs = Vec::new();
    for outcast in &outcasts {
        syncs.push(opened(&outcast.agent).await);
        outcast.cast_out(&client).await;
    }
    for (sync, outcast) in syncs.into_iter().zip(&outcasts) {
        assert_eq!(first_request(sync).await, Some(outcast.reason));
    }
}

#[tokio::test]
async fn a_sync_gets_nothing_after_its_agents_certificate_has_ended() {
    let server = Server::start(&ServerOptions { agent_ttl: "3s", ..Default::default() });
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let sync = opened(&agent).await;
    let ended = async || {
        let calls = agent.entries().get_authorized_entries(GetAuthorizedEntriesRequest::default()).await;
        calls.is_err_and(|status| denial_reason(&status) == Some(Reason::AgentExpired))
    };
    expect_within_async(DEADLINE, "the certificate counts no longer", String::new, ended).await;
    assert_eq!(first_request(sync).await, Some(Reason::AgentExpired));
}

/// As large as an entry may be: 1 MiB of selectors.
fn largest_entry(parent: &SpiffeId, number: usize) -> types::Entry {
    let selector = |n: usize| types::Selector { r#type: "unix".into(), value: format!("gid:{n:0>4000}") };
    types::Entry { selectors: (0..256).map(selector).collect(), ..entry(parent, number) }
}

/// What one message of a sync may have, bytes: a page of 1 MiB, and what its last entry has more.
const MAX_PAGE_BYTES: usize = 5 << 19;

#[tokio::test]
async fn an_entry_asked_for_two_thousand_times_comes_once_and_large_ones_come_in_pages_of_a_megabyte() {
    let (_server, client) = lab().await;
    let agent = client.agent().await;
    create(&client, (0..5).map(|number| largest_entry(&agent.id(), number)).collect()).await;
    let mut sync = Sync::begin(&agent, mask()).await.expect("begun");
    assert_eq!(sizes(&sync.pages().await), [(5, 0, false)], "together they are too large to be sent at once");
    let all: Vec<String> = (0..5).map(|number| entry(&agent.id(), number).id).collect();
    let many_times = sync.ask_for(vec![all[0].clone(); 2000]).await;
    assert_eq!(sizes(&many_times), [(0, 1, false)]);
    let pages = sync.ask_for(all.clone()).await;
    assert_eq!(ids(&pages), all);
    assert!(pages.len() > 2, "{:?}", sizes(&pages));
    assert!(pages.iter().all(|page| page.encoded_len() <= MAX_PAGE_BYTES), "{:?}", sizes(&pages));
}

#[tokio::test]
async fn up_to_five_hundred_entries_come_whole_and_more_come_as_pages_of_revisions() {
    let (_server, client) = lab().await;
    let agent = client.agent().await;
    let mut there = 0;
    for count in [0, 10, 500, 501, 1200] {
        create(&client, (there..count).map(|number| entry(&agent.id(), number)).collect()).await;
        there = count;
        let mut sync = Sync::begin(&agent, mask()).await.expect("begun");
        let pages = sync.pages().await;
        match count {
            501 => assert_eq!(sizes(&pages), [(500, 0, true), (1, 0, false)]),
            1200 => assert_eq!(sizes(&pages), [(500, 0, true), (500, 0, true), (200, 0, false)]),
            _ => {
                assert_eq!(sizes(&pages), [(0, count, false)]);
                assert_eq!(sync.next().await.expect("a good end"), None, "the full list ends the call");
                continue;
            }
        }
        let revisions: Vec<EntryRevision> = pages.into_iter().flat_map(|page| page.entry_revisions).collect();
        let all: Vec<String> = revisions.iter().map(|revision| revision.id.clone()).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), count, "each entry once");
        assert!(revisions.iter().all(|revision| revision.created_at > 0 && revision.revision_number == 0));

        let wanted = vec![all[3].clone(), "no-such-entry".into(), all[0].clone(), all[count - 1].clone()];
        let got = sync.ask_for(wanted.clone()).await;
        assert_eq!(sizes(&got), [(0, 3, false)], "unknown ids are skipped");
        let set = |ids: &[String]| ids.iter().filter(|id| *id != "no-such-entry").cloned().collect::<BTreeSet<_>>();
        assert_eq!(set(&ids(&got)), set(&wanted));
        let nothing = sync.ask_for(vec!["no-such-entry".into()]).await;
        assert_eq!(sizes(&nothing), [(0, 0, false)]);
        let everything = sync.ask_for(all.clone()).await;
        let expected = match count {
            501 => vec![(0, 500, true), (0, 1, false)],
            _ => vec![(0, 500, true), (0, 500, true), (0, 200, false)],
        };
        assert_eq!(sizes(&everything), expected);
        assert_eq!(set(&ids(&everything)), set(&all));
        drop(sync.ask);
        assert_eq!(sync.answers.message().await.expect("a good end"), None);
    }
}

#[tokio::test]
async fn an_agent_sees_the_fields_it_asked_for_and_no_others() {
    let (_server, client) = lab().await;
    let agent = client.agent().await;
    create(&client, vec![entry(&agent.id(), 1)]).await;
    let only_hint = types::EntryMask { hint: true, revision_number: true, ..Default::default() };
    for (mask, parent, dns, selectors) in [
        (None, true, true, true),
        (Some(agent_entry_mask()), false, false, true),
        (Some(only_hint), false, false, false),
    ] {
        let request = SyncAuthorizedEntriesRequest { output_mask: mask, ids: Vec::new() };
        let pages = Sync::begin(&agent, request).await.expect("begun").pages().await;
        let asked = GetAuthorizedEntriesRequest { output_mask: mask };
        let got = agent.entries().get_authorized_entries(asked).await.expect("answered").into_inner();
        assert_eq!(pages[0].entries, got.entries, "both calls show the same");
        let [entry] = &got.entries[..] else { panic!("{got:?}") };
        let shown = (entry.parent_id.is_some(), !entry.dns_names.is_empty(), !entry.selectors.is_empty());
        assert_eq!(shown, (parent, dns, selectors), "mask {mask:?}");
        assert_eq!((entry.hint.as_str(), entry.x509_svid_ttl), ("h1", if mask.is_none() { 600 } else { 0 }));
    }
}

#[tokio::test]
async fn a_sync_begins_with_a_mask_that_shows_revisions_and_with_no_ids() {
    let (_server, client) = lab().await;
    let agent = client.agent().await;
    let blind = types::EntryMask { revision_number: false, ..agent_entry_mask() };
    let with_ids = SyncAuthorizedEntriesRequest { output_mask: None, ids: vec!["x".into()] };
    for (request, why) in [
        (SyncAuthorizedEntriesRequest { output_mask: Some(blind), ids: Vec::new() }, "cannot be masked"),
        (with_ids, "specifying IDs on initial request is not supported"),
    ] {
        let mut sync = Sync::begin(&agent, request).await.expect("begun");
        let status = sync.next().await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(why), "{status}");
    }
    let nothing = agent.entries().sync_authorized_entries(tokio_stream::empty()).await.expect("begun");
    assert_eq!(nothing.into_inner().message().await.expect("a good end"), None, "an agent may change its mind");
}

async fn revisions(agent: &Agent) -> BTreeMap<String, (i64, i64)> {
    let mut sync = Sync::begin(agent, mask()).await.expect("begun");
    let pages = sync.pages().await;
    let whole = pages.iter().flat_map(|page| &page.entries);
    let whole = whole.map(|entry| (entry.id.clone(), (entry.revision_number, entry.created_at)));
    // What a connection has had comes as revisions.
    let known = pages.iter().flat_map(|page| &page.entry_revisions);
    whole.chain(known.map(|known| (known.id.clone(), (known.revision_number, known.created_at)))).collect()
}

async fn update(client: &ServerClient, entries: Vec<types::Entry>) {
    let request = BatchUpdateEntryRequest { entries, input_mask: None, output_mask: None };
    EntryClient::new(client.admin().await).batch_update_entry(request).await.expect("updated");
}

fn bytes(pages: &[SyncAuthorizedEntriesResponse]) -> usize {
    pages.iter().map(prost::Message::encoded_len).sum()
}

#[tokio::test]
async fn a_connection_that_has_had_the_list_gets_revisions_and_then_the_entries_it_asks_for() {
    const COUNT: usize = 100;
    let (_server, client) = lab().await;
    let agent = client.agent().await;
    // As long as entries are: a path of some segments, the user and the program.
    let whole = |number: usize| {
        let path = format!("/region/europe/site/berlin/workload/{number}");
        let spiffe_id = TrustDomain::new(TRUST_DOMAIN).expect("legal").id_with_path(&path).expect("legal");
        let selector = |value: String| types::Selector { r#type: "unix".into(), value };
        let selectors = vec![selector(format!("uid:{number}")), selector(format!("path:/usr/bin/workload-{number}"))];
        types::Entry { spiffe_id: Some(spiffe_id.to_pb()), selectors, ..entry(&agent.id(), number) }
    };
    let all: Vec<types::Entry> = (0..COUNT).map(whole).collect();
    create(&client, all.clone()).await;
    let sync = async || Sync::begin(&agent, mask()).await.expect("begun").pages().await;
    let first = sync().await;
    assert_eq!(sizes(&first), [(0, COUNT, false)]);
    let second = sync().await;
    assert_eq!(sizes(&second), [(COUNT, 0, false)]);
    let (whole, revisions) = (bytes(&first), bytes(&second));
    assert!(revisions * 100 <= whole * 35, "{revisions} of {whole} bytes");

    let changed = types::Entry { hint: "other".into(), ..all[7].clone() };
    update(&client, vec![changed.clone()]).await;
    delete(&client, &all[9].id).await;
    let mut third = Sync::begin(&agent, mask()).await.expect("begun");
    let pages = third.pages().await;
    assert_eq!(sizes(&pages), [(COUNT - 1, 0, false)]);
    let newer = pages[0].entry_revisions.iter().filter(|revision| revision.revision_number == 1);
    assert_eq!(newer.map(|revision| &revision.id).collect::<Vec<_>>(), [&changed.id]);
    let asked = third.ask_for(vec![changed.id.clone(), all[9].id.clone()]).await;
    assert_eq!(asked[0].entries.iter().map(|entry| &*entry.hint).collect::<Vec<_>>(), ["other"]);

    let other_fields = SyncAuthorizedEntriesRequest { output_mask: None, ids: Vec::new() };
    let pages = Sync::begin(&agent, other_fields).await.expect("begun").pages().await;
    assert_eq!(sizes(&pages), [(0, COUNT - 1, false)], "in a form that it has not had");
}

#[tokio::test]
async fn a_connection_that_lacks_most_of_the_list_gets_all_of_it() {
    let (_server, client) = lab().await;
    let agent = client.agent().await;
    let sync = async || sizes(&Sync::begin(&agent, mask()).await.expect("begun").pages().await);
    assert_eq!(sync().await, [(0, 0, false)]);
    assert_eq!(sync().await, [(0, 0, false)], "of nothing there are no revisions");
    let all: Vec<types::Entry> = (0..10).map(|number| entry(&agent.id(), number)).collect();
    create(&client, all[..4].to_vec()).await;
    assert_eq!(sync().await, [(0, 4, false)]);
    create(&client, all[4..8].to_vec()).await;
    assert_eq!(sync().await, [(0, 8, false)], "half of it is new");
    create(&client, all[8..].to_vec()).await;
    assert_eq!(sync().await, [(10, 0, false)], "two of ten are new");
    let changed = all[..6].iter().map(|entry| types::Entry { hint: "other".into(), ..entry.clone() });
    update(&client, changed.collect()).await;
    assert_eq!(sync().await, [(0, 10, false)], "most are in another state");
}

#[tokio::test]
async fn an_update_and_a_recreation_under_the_same_id_both_show() {
    let (_server, client) = lab().await;
    let agent = client.agent().await;
    let first = entry(&agent.id(), 1);
    create(&client, vec![first.clone()]).await;
    let created = revisions(&agent).await[&first.id];
    assert_eq!(created.0, 0);
    update(&client, vec![types::Entry { hint: "other".into(), ..first.clone() }]).await;
    let updated = revisions(&agent).await[&first.id];
    assert_eq!(updated, (1, created.1), "the revision grows, the creation stays");
    delete(&client, &first.id).await;
    assert!(!revisions(&agent).await.contains_key(&first.id));
    let is_later =
        async || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64 > created.1;
    expect_within_async(DEADLINE, "another second", String::new, is_later).await;
    create(&client, vec![first.clone()]).await;
    let recreated = revisions(&agent).await[&first.id];
    assert_eq!(recreated.0, 0);
    assert!(recreated.1 > created.1, "creation times tell a new entry from an old one of the same ID");
}

//= FLT-S15
#[tokio::test]
async fn an_agent_sees_its_own_entries_and_nobody_elses() {
    let (server, client) = lab().await;
    let (mine, other) = (client.agent().await, client.agent().await);
    create(&client, vec![entry(&mine.id(), 7001), entry(&other.id(), 7002)]).await;
    // A parent that no other test has: whoever serves it serves what is below it.
    let child = server.create_entry(&format!("spiffe://{TRUST_DOMAIN}/w/7001"), "/w/child", &["unix:uid:9"], &[]);
    let (seen, theirs) = (revisions(&mine).await, revisions(&other).await);
    assert!(seen.contains_key(&child), "entries below entries are the agent's too");
    assert!(!theirs.is_empty() && theirs.keys().all(|id| !seen.contains_key(id)));
    server.cli(&["agent", "evict", "-spiffeID", mine.id().as_str()]);
    let status = Sync::begin(&mine, mask()).await.err().expect("refused");
    assert_eq!(status.code(), Code::PermissionDenied);
}
