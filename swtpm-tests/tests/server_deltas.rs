//! WatchChanges with deltas: who applies them holds what the server says, goes on after a break, and is told of nothing but its own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ironroot_api::pb::change::change_client::ChangeClient;
use ironroot_api::pb::change::{Delta, WatchChangesRequest, WatchChangesResponse};
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::entry::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, BatchUpdateEntryRequest, GetAuthorizedEntriesRequest,
};
use ironroot_api::pb::types::{Entry, EntryMask, Selector};
use ironroot_api::permission::denial_reason;
use ironroot_api::view::{BundleName, ViewName};
use ironroot_lab::deployment::{DEADLINE, MovedOn, Server, ServerOptions};
use ironroot_lab::server_client::{Agent, Outcast, ServerClient};
use ironroot_server::endpoints::MAX_DELTA_ENTRIES;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// Well above what a push takes; nothing is known to come within it.
const A_WHILE: Duration = Duration::from_secs(2);
/// Steps of the long run, and how many of them come between two looks.
const STEPS: u64 = 60;

fn mask() -> EntryMask {
    EntryMask {
        spiffe_id: true,
        selectors: true,
        revision_number: true,
        created_at: true,
        hint: true,
        ..EntryMask::default()
    }
}

/// What an agent holds, and the stream that it follows.
#[derive(Default)]
struct Follower {
    stream: Option<Streaming<WatchChangesResponse>>,
    held: BTreeMap<String, Entry>,
    bundle: Option<BundleName>,
    number: u64,
}

impl Follower {
    /// Of an agent that has asked for everything.
    async fn begin(agent: &Agent) -> Self {
        let mut follower = Self::default();
        let first = follower.open(agent, b"").await.expect("held");
        assert!(first.full_sync && first.entries.is_empty(), "it holds nothing yet: {first:?}");
        follower.sync(agent).await;
        assert_eq!(follower.name().as_bytes(), &first.view[..]);
        follower
    }

    /// The first message of a stream, to an agent that says that it holds `view`. The place of a stream that ended is free a moment
    /// later.
    async fn open(&mut self, agent: &Agent, view: &[u8]) -> Result<Delta, Status> {
        let bundle = self.bundle.map(|name| name.as_bytes().to_vec().into()).unwrap_or_default();
        let asked = WatchChangesRequest { output_mask: Some(mask()), view: view.to_vec().into(), bundle };
        let began = Instant::now();
        let stream = loop {
            match ChangeClient::new(agent.channel.clone()).watch_changes(asked.clone()).await {
                Err(status) if status.code() == Code::ResourceExhausted && began.elapsed() < DEADLINE => {}
                opened => break opened?.into_inner(),
            }
        };
        (self.stream, self.number) = (Some(stream), 0);
        self.next().await
    }

    /// The same with what it holds.
    async fn resume(&mut self, agent: &Agent) -> Delta {
        let name = self.name();
        self.open(agent, name.as_bytes()).await.expect("held")
    }

    async fn next(&mut self) -> Result<Delta, Status> {
        let stream = self.stream.as_mut().expect("open");
        let word = tokio::time::timeout(DEADLINE, stream.message()).await.expect("a word in time")?;
        let delta = word.ok_or_else(|| Status::aborted("the end"))?.delta.expect("it says what has changed");
        self.number += 1;
        assert_eq!(delta.number, self.number);
        Ok(delta)
    }

    /// Takes the next delta in; what it says is new, and what is gone.
    async fn follow(&mut self) -> (Vec<String>, Vec<String>) {
        let delta = self.next().await.expect("told");
        assert!(!delta.full_sync, "{delta:?}");
        self.take(delta)
    }

    fn take(&mut self, delta: Delta) -> (Vec<String>, Vec<String>) {
        self.held.retain(|id, _| !delta.removed.contains(id));
        self.held.extend(delta.entries.iter().map(|entry| (entry.id.clone(), entry.clone())));
        self.bundle = delta.bundle.as_ref().map(BundleName::of).or(self.bundle);
        assert_eq!(self.name().as_bytes(), &delta.view[..], "it leads to what it says");
        (delta.entries.into_iter().map(|entry| entry.id).collect(), delta.removed)
    }

    async fn sync(&mut self, agent: &Agent) {
        let asked = GetAuthorizedEntriesRequest { output_mask: Some(mask()) };
        let answer = agent.entries().get_authorized_entries(asked).await.expect("answered").into_inner();
        self.held = answer.entries.into_iter().map(|entry| (entry.id.clone(), entry)).collect();
    }

    async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(A_WHILE, self.stream.as_mut().expect("open").message()).await.is_err()
    }

    fn name(&self) -> ViewName {
        ViewName::of(self.held.values().map(|entry| (entry.id.as_str(), entry.revision_number, entry.created_at)))
    }
}

fn entry(agent: &Agent, id: &str, path: &str) -> Entry {
    let id_of = |path: &str| agent.id().trust_domain().id_with_path(path).expect("legal").to_pb();
    Entry {
        id: id.to_owned(),
        spiffe_id: Some(id_of(path)),
        parent_id: Some(agent.id().to_pb()),
        selectors: vec![Selector { r#type: "unix".into(), value: "uid:1".into() }],
        ..Entry::default()
    }
}

async fn admin(client: &ServerClient) -> EntryClient<Channel> {
    EntryClient::new(client.admin().await)
}

async fn create(client: &ServerClient, entries: Vec<Entry>) {
    let asked = BatchCreateEntryRequest { entries, output_mask: None };
    let results = admin(client).await.batch_create_entry(asked).await.expect("answered").into_inner().results;
    assert!(results.iter().all(|result| result.status.as_ref().is_some_and(|status| status.code == 0)), "{results:?}");
}

async fn delete(client: &ServerClient, ids: Vec<String>) {
    admin(client).await.batch_delete_entry(BatchDeleteEntryRequest { ids }).await.expect("answered");
}

async fn update(client: &ServerClient, entry: Entry) {
    let asked = BatchUpdateEntryRequest { entries: vec![entry], ..BatchUpdateEntryRequest::default() };
    admin(client).await.batch_update_entry(asked).await.expect("answered");
}

#[tokio::test]
async fn an_agent_is_told_what_of_its_own_has_changed_and_nothing_of_others() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let (agent, other) = (client.agent().await, client.agent().await);
    let (mut follower, mut others) = (Follower::begin(&agent).await, Follower::begin(&other).await);
    // One at a time: the entries of one call may be told in several messages.
    for (id, path) in [("a", "/a"), ("b", "/b")] {
        create(&client, vec![entry(&agent, id, path)]).await;
        assert_eq!(follower.follow().await, (vec![id.to_owned()], vec![]));
    }
    assert_eq!(follower.held["a"].spiffe_id, entry(&agent, "a", "/a").spiffe_id);
    assert!(follower.held["a"].parent_id.is_none(), "only what was named");
    update(&client, Entry { hint: "changed".into(), ..entry(&agent, "b", "/b") }).await;
    assert_eq!(follower.follow().await, (vec!["b".into()], vec![]));
    assert_eq!(follower.held["b"].hint, "changed");
    delete(&client, vec!["a".into()]).await;
    assert_eq!(follower.follow().await, (vec![], vec!["a".into()]));
    assert!(others.is_silent().await, "nothing of it is another agent's business");
    update(&client, Entry { parent_id: Some(other.id().to_pb()), ..entry(&agent, "b", "/b") }).await;
    assert_eq!(others.follow().await, (vec!["b".into()], vec![]), "it is that one's now");
    assert_eq!(follower.follow().await, (vec![], vec!["b".into()]));
}

#[tokio::test]
async fn entries_reach_agents_through_any_number_of_parents() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let mut follower = Follower::begin(&agent).await;
    let below = |id: &str, path: &str, parent: &str| {
        let parent_id = agent.id().trust_domain().id_with_path(parent).expect("legal").to_pb();
        Entry { parent_id: Some(parent_id), ..entry(&agent, id, path) }
    };
    create(&client, vec![below("leaf", "/leaf", "/branch")]).await;
    create(&client, vec![below("branch", "/branch", "/root")]).await;
    assert!(follower.is_silent().await, "nothing leads there yet");
    create(&client, vec![entry(&agent, "root", "/root")]).await;
    assert_eq!(follower.follow().await, (vec!["branch".into(), "leaf".into(), "root".into()], vec![]));
    create(&client, vec![below("twig", "/twig", "/leaf")]).await;
    assert_eq!(follower.follow().await, (vec!["twig".into()], vec![]), "what has come is followed, too");
    delete(&client, vec!["branch".into()]).await;
    assert_eq!(follower.follow().await, (vec![], vec!["branch".into(), "leaf".into(), "twig".into()]));
}

#[tokio::test]
async fn an_agent_goes_on_from_what_it_was_told_last_and_asks_for_everything_after_too_much() {
    let mut server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let mut follower = Follower::begin(&agent).await;
    create(&client, vec![entry(&agent, "a", "/a")]).await;
    follower.follow().await;
    follower.stream = None;
    create(&client, vec![entry(&agent, "b", "/b")]).await;
    delete(&client, vec!["a".into()]).await;
    let resumed = follower.resume(&agent).await;
    assert!(resumed.bundle.is_some() && resumed.federated, "of those it said nothing");
    assert_eq!(follower.take(resumed), (vec!["b".into()], vec!["a".into()]));
    let unknown = Follower::default().open(&agent, b"unknown").await.expect("held");
    assert!(unknown.full_sync && unknown.entries.is_empty() && unknown.bundle.is_none(), "{unknown:?}");
    server.kill();
    server.restart();
    let agent = client.agent_of(agent.credentials).await;
    let resumed = follower.resume(&agent).await;
    assert!(
        !resumed.full_sync && resumed.bundle.is_none(),
        "a server that knows nothing of it has the same: {resumed:?}"
    );
    assert_eq!(follower.take(resumed), (vec![], vec![]));
    let many = (0..=MAX_DELTA_ENTRIES).map(|number| entry(&agent, &format!("m{number}"), &format!("/m/{number}")));
    follower.stream = None;
    create(&client, many.collect()).await;
    let told = follower.resume(&agent).await;
    assert!(told.full_sync && told.entries.is_empty(), "more than a message holds");
    follower.sync(&agent).await;
    assert_eq!(follower.name().as_bytes(), &told.view[..]);
    delete(&client, vec!["m0".into()]).await;
    assert_eq!(follower.follow().await, (vec![], vec!["m0".into()]), "and on it goes");
}

#[tokio::test]
async fn who_may_not_go_on_is_told_why_and_nothing_else() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    for outcast in Outcast::of_each_kind(&client).await {
        let mut follower = Follower::begin(&outcast.agent).await;
        outcast.cast_out(&client).await;
        create(&client, vec![entry(&outcast.agent, "", "/late")]).await;
        let status = follower.next().await.expect_err("the end");
        assert_eq!(denial_reason(&status), Some(outcast.reason), "{status:?}");
        let again = Follower::default().open(&outcast.agent, b"").await;
        assert_eq!(again.expect_err("refused").code(), Code::PermissionDenied);
    }
}

#[tokio::test]
async fn who_is_told_nothing_for_four_minutes_is_told_that_nothing_has_changed_and_where_it_is() {
    let time = MovedOn::new();
    let server = Server::start(&ServerOptions { environment: time.environment(), ..ServerOptions::default() });
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let mut follower = Follower::begin(&agent).await;
    create(&client, vec![entry(&agent, "a", "/a")]).await;
    follower.follow().await;
    // What concerns nobody wakes the server, which looks at the clock then.
    let elapses = async |seconds: u32| {
        time.to(seconds);
        let nobody = agent.id().trust_domain().id_with_path("/nobody").expect("legal").to_pb();
        create(&client, vec![Entry { parent_id: Some(nobody), ..entry(&agent, "", &format!("/{seconds}")) }]).await;
    };
    for (before, after) in [(200, 270), (470, 540)] {
        elapses(before).await;
        assert!(follower.is_silent().await, "the earliest comes 216 s after the last word");
        elapses(after).await;
        assert_eq!(follower.follow().await, (vec![], vec![]), "it leads to what it holds");
        assert!(follower.is_silent().await, "once");
    }
}

#[tokio::test]
async fn fields_that_leave_out_an_entrys_state_are_refused() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let asked = WatchChangesRequest { output_mask: Some(EntryMask::default()), ..WatchChangesRequest::default() };
    let refused = ChangeClient::new(agent.channel.clone()).watch_changes(asked).await;
    assert_eq!(refused.expect_err("refused").code(), Code::InvalidArgument);
}

/// A number in 0..`limit`, from the state that it leaves behind. Source: Marsaglia, "Xorshift RNGs", 2003.
fn drawn(state: &mut u64, limit: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % limit
}

#[tokio::test]
async fn whatever_happens_the_deltas_lead_to_what_a_sync_says() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let (agent, other) = (client.agent().await, client.agent().await);
    let mut follower = Follower::begin(&agent).await;
    let seed = u64::from(std::process::id()) << 20 | 1;
    let mut state = seed;
    for step in 0..STEPS {
        let number = drawn(&mut state, 8);
        let (id, path) = (format!("e{number}"), format!("/w/{}", drawn(&mut state, 3)));
        let of = if drawn(&mut state, 4) == 0 { &other } else { &agent };
        match drawn(&mut state, 4) {
            0 => delete(&client, vec![id]).await,
            1 => update(&client, Entry { hint: step.to_string(), ..entry(of, &id, &path) }).await,
            2 => follower.stream = None,
            _ => {
                let asked = BatchCreateEntryRequest { entries: vec![entry(of, &id, &path)], output_mask: None };
                admin(&client).await.batch_create_entry(asked).await.expect("answered");
            }
        }
        if follower.stream.is_none() {
            match follower.resume(&agent).await {
                delta if delta.full_sync => follower.sync(&agent).await,
                delta => _ = follower.take(delta),
            }
        }
        let mut whole = Follower::default();
        whole.sync(&agent).await;
        // A sync may have been ahead of the first deltas of a stream: what they say is in already.
        while follower.held != whole.held {
            let delta = follower.next().await.unwrap_or_else(|status| panic!("seed {seed}, step {step}: {status}"));
            assert!(!delta.full_sync, "seed {seed}, step {step}");
            follower.take(delta);
        }
    }
}
