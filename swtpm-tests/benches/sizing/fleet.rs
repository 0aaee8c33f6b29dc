//! Agents as connections: attested by token, each asking for itself what an agent asks.

use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::change::WatchChangesResponse;
use ironroot_api::pb::entry::SyncAuthorizedEntriesRequest;
use ironroot_api::pb::svid::{BatchNewX509svidRequest, NewX509svidParams};
use ironroot_lab::server_client::{Agent, ServerClient, wanted_of_entries};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Calls on their way at the same time while a fleet is made or everything is signed.
pub const AT_ONCE: usize = 64;
/// SPIRE's default of an agent's `sync_interval`.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(5);
/// How rarely an agent of ours asks that is told what changes.
pub const TOLD_SYNC_INTERVAL: Duration = Duration::from_secs(3600);
/// Agents at one of the loopback's addresses: each has so many ports at most for one server.
const AGENTS_AT_AN_ADDRESS: usize = 20_000;

/// A fleet that is attested and connected.
pub struct Fleet(Vec<Agent>);

/// The streams on which a fleet is told what changes, once it holds them.
#[derive(Default)]
pub struct Told(Vec<Streaming<WatchChangesResponse>>);

impl Fleet {
    /// So many agents, each attested with a token of its own.
    pub async fn attest(client: &ServerClient, agents: usize) -> Self {
        let attest = |number: usize| {
            let octet = u8::try_from(1 + number / AGENTS_AT_AN_ADDRESS).expect("some hundred addresses");
            let client = client.clone().at(Ipv4Addr::new(127, 0, 0, octet));
            async move { client.agent().await }
        };
        Self(stream::iter(0..agents).map(attest).buffer_unordered(AT_ONCE).collect().await)
    }

    pub fn agents(&self) -> &[Agent] {
        &self.0
    }

    /// The agent that a workload runs at: they are dealt out one after the other.
    pub fn of_workload(&self, number: usize) -> &Agent {
        &self.0[number % self.0.len()]
    }

    /// Every agent asks once in each `interval`, spread over it, for `window`; how long each question took, ms.
    pub async fn sync_for(&self, interval: Duration, window: Duration) -> Vec<f64> {
        let (began, count) = (Instant::now(), self.0.len() as u32);
        let ask = async |(number, agent): (u32, &Agent)| {
            let mut due = began + interval * number / count;
            let mut took = Vec::new();
            while due < began + window {
                tokio::time::sleep_until(due).await;
                let asked = Instant::now();
                sync(agent).await;
                took.push(asked.elapsed().as_secs_f64() * 1e3);
                due += interval;
            }
            took
        };
        join_all((0..).zip(&self.0).map(ask)).await.concat()
    }

    /// Every agent holds the stream on which it is told what changes.
    pub async fn hold(&self, told: &mut Told) {
        if told.0.is_empty() {
            told.0 = stream::iter(&self.0).map(Agent::listen).buffer_unordered(AT_ONCE).collect().await;
        }
    }

    /// Every agent lets it go.
    pub fn let_go(told: &mut Told) {
        told.0.clear();
    }
}

/// What SPIRE's agent asks in a sync: for the bundle, and for what it is authorised for, of more than a page only the revisions.
/// How many entries that is.
pub async fn sync(agent: &Agent) -> usize {
    agent.bundles().get_bundle(GetBundleRequest::default()).await.expect("a bundle");
    let (ask, asked) = mpsc::channel(1);
    let request = SyncAuthorizedEntriesRequest { output_mask: Some(wanted_of_entries()), ids: Vec::new() };
    ask.try_send(request).expect("room for the first message");
    let answers = agent.entries().sync_authorized_entries(ReceiverStream::new(asked)).await;
    let mut answers = answers.expect("answered").into_inner();
    let mut count = 0;
    while let Some(page) = answers.message().await.expect("a page") {
        count += page.entries.len() + page.entry_revisions.len();
        if !page.more {
            break;
        }
    }
    count
}

/// One SVID for each of these entries, with one request's key.
pub async fn sign(agent: &Agent, entries: &[String], csr: &[u8]) {
    let of = |id: &String| NewX509svidParams { entry_id: id.clone(), csr: csr.to_vec().into() };
    let request = BatchNewX509svidRequest { params: entries.iter().map(of).collect() };
    let results = agent.svids().batch_new_x509svid(request).await.expect("answered").into_inner().results;
    let refused = results.iter().find(|result| result.status.as_ref().is_none_or(|status| status.code != 0));
    assert!(refused.is_none() && results.len() == entries.len(), "{refused:?}");
}
