//! An entry of one device, while 5,000 others listen; and one that concerns some of them.

use std::path::Path;
use std::time::Instant;

use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::entry::{BatchCreateEntryRequest, BatchDeleteEntryRequest};
use ironroot_api::pb::types::{Entry, Selector, Spiffeid};
use ironroot_api::pb::workload::X509svidResponse;
use ironroot_lab::deployment::{Server, ServerOptions, TRUST_DOMAIN};
use ironroot_lab::samples::percentile;
use ironroot_lab::server_client::ServerClient;
use ironroot_lab::usage::{cpu_ms, pss_mb};
use ironroot_lab::workload_client;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tonic::Streaming;
use tonic::transport::Channel;

use super::fleet::{Watcher, listening};
use super::{row, standing};

/// Agents that listen besides the device.
const WATCHERS: usize = 5000;
/// Changes in each measurement.
const ROUNDS: usize = 300;

pub fn report() {
    raise_descriptor_limit();
    let (mut server, device) = standing(&ServerOptions::default());
    let own = nix::unistd::geteuid().as_raw();
    let pid = server.process().expect("it runs").pid();
    let lab = Lab { socket: device.socket(), parent: device.agent_id(), uid: own, pid };
    Runtime::new().expect("a runtime").block_on(lab.measure(&server));
}

struct Lab {
    socket: std::path::PathBuf,
    parent: String,
    uid: u32,
    /// The server's.
    pid: u32,
}

impl Lab {
    async fn measure(&self, server: &Server) {
        let client = ServerClient::new(server).await;
        let mut entries = EntryClient::new(client.admin().await);
        self.of_one_device(&mut entries, 0).await;
        let before = pss_mb(self.pid);
        let mut watchers = listening(&client, WATCHERS).await;
        let kilobytes = (pss_mb(self.pid) - before) * 1024.0 / WATCHERS as f64;
        row(
            "server memory (PSS) per agent that listens, its connection and its row with it",
            &format!("{kilobytes:.1} kB"),
            "-",
        );
        self.of_one_device(&mut entries, WATCHERS).await;
        of_one_watcher(&mut entries, &mut watchers).await;
    }

    /// From the call that creates an entry to the message of the workload's stream that has its SVID.
    async fn of_one_device(&self, entries: &mut EntryClient<Channel>, watchers: usize) {
        let mut stream = open(&self.socket).await;
        let (mut samples, cpu) = (Vec::with_capacity(ROUNDS), cpu_ms(self.pid));
        for round in 0..ROUNDS {
            let path = format!("/round/{watchers}/{round}");
            let began = Instant::now();
            let id = create(entries, entry(&self.parent, &path, self.uid)).await;
            until(&mut stream, &path, true).await;
            samples.push(began.elapsed().as_secs_f64() * 1e3);
            delete(entries, id).await;
            until(&mut stream, &path, false).await;
        }
        let cpu = (cpu_ms(self.pid) - cpu) / (2 * ROUNDS) as f64;
        let (p50, p99) = (percentile(&mut samples, 0.5), percentile(&mut samples, 0.99));
        row(
            &format!("entry created to the workload's stream, {watchers} others listen"),
            &format!("p50 {p50:.1} ms, p99 {p99:.1} ms; server CPU of a change {cpu:.2} ms"),
            "p99 ≤ 250 ms",
        );
    }
}

/// From the call that creates an entry of one of the fleet to its delta; each time of another one.
async fn of_one_watcher(entries: &mut EntryClient<Channel>, watchers: &mut [Watcher]) {
    let mut samples = Vec::with_capacity(ROUNDS);
    let step = watchers.len() / ROUNDS;
    for watcher in watchers.iter_mut().step_by(step.max(1)) {
        let began = Instant::now();
        create(entries, entry(watcher.agent.id().as_str(), "/watched", 1)).await;
        let word = watcher.stream.message().await.expect("no error").expect("a delta");
        assert_eq!(word.delta.map(|delta| delta.entries.len()), Some(1));
        samples.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let (p50, p99) = (percentile(&mut samples, 0.5), percentile(&mut samples, 0.99));
    row("entry created to the delta of the agent it is for", &format!("p50 {p50:.1} ms, p99 {p99:.1} ms"), "-");
}

async fn open(socket: &Path) -> Streaming<X509svidResponse> {
    let mut client = workload_client::client(socket).await.expect("connected");
    workload_client::watch(&mut client).await.expect("served")
}

/// Reads until an SVID of that path is there, or is not.
async fn until(stream: &mut Streaming<X509svidResponse>, path: &str, there: bool) {
    let id = format!("spiffe://{TRUST_DOMAIN}{path}");
    loop {
        let message = stream.message().await.expect("no error").expect("no end");
        if message.svids.iter().any(|svid| svid.spiffe_id == id) == there {
            return;
        }
    }
}

fn entry(parent: &str, path: &str, uid: u32) -> Entry {
    let id = |path: &str| Some(Spiffeid { trust_domain: TRUST_DOMAIN.into(), path: path.into() });
    let parent = parent.strip_prefix(&format!("spiffe://{TRUST_DOMAIN}")).expect("of this trust domain");
    Entry {
        spiffe_id: id(path),
        parent_id: id(parent),
        selectors: vec![Selector { r#type: "unix".into(), value: format!("uid:{uid}") }],
        ..Entry::default()
    }
}

async fn create(entries: &mut EntryClient<Channel>, entry: Entry) -> String {
    let asked = BatchCreateEntryRequest { entries: vec![entry], output_mask: None };
    let answer = entries.batch_create_entry(asked).await.expect("answered").into_inner();
    answer.results.into_iter().find_map(|result| result.entry).expect("created").id
}

async fn delete(entries: &mut EntryClient<Channel>, id: String) {
    entries.batch_delete_entry(BatchDeleteEntryRequest { ids: vec![id] }).await.expect("answered");
}

/// This process holds the fleet's connections, and the server inherits what it may.
fn raise_descriptor_limit() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("it may be raised");
}
