//! What to size a server by: memory for each connection that polls, each stream that is held on it and each entry, CPU for each poll.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ironroot_api::pb::change::change_client::ChangeClient;
use ironroot_api::pb::change::{WatchChangesRequest, WatchChangesResponse};
use ironroot_api::pb::entry::GetAuthorizedEntriesRequest;
use ironroot_lab::server_client::{Agent, Credentials, ServerClient};
use ironroot_lab::usage::{cpu_ms, pss_mb};
use tonic::Streaming;

use super::{Pair, pair, row};

/// Polls of each agent, one a second: memory that a connection takes is there after the first ones.
const POLLS: usize = 10;
/// Entries that the server is filled with, in batches as command lines make them.
const ENTRIES: usize = 20_000;

pub struct Sizes {
    connection_kb: f64,
    /// Of a server that holds streams.
    stream_kb: Option<f64>,
    poll_us: f64,
    entry_bytes: f64,
    entries_per_second: f64,
}

pub fn report(measured: &(Sizes, Option<Sizes>)) {
    row("server memory (PSS) per polling connection, kB", &pair(measured, |s| s.connection_kb), 1, "≤ 30");
    if let Some(ours) = measured.0.stream_kb {
        row("server memory (PSS) per stream held to tell of changes, kB", &Pair { ours, spires: None }, 1, "-");
    }
    row("server CPU per poll of an agent without entries, µs", &pair(measured, |s| s.poll_us), 0, "≤ 0.25 of SPIRE's");
    row(&format!("server memory (PSS) per entry, of {ENTRIES}, bytes"), &pair(measured, |s| s.entry_bytes), 0, "≤ 450");
    row(
        "entries created per second, in batches of 500",
        &pair(measured, |s| s.entries_per_second),
        0,
        "≥ 5 of SPIRE's",
    );
}

/// Of the server whose process `pid` is.
pub async fn sizes(client: &ServerClient, fleet: &[Credentials], pid: u32) -> Sizes {
    let before = settled(pid).await;
    let agents: Vec<Agent> = join_all(fleet.iter().map(|credentials| client.agent_of(credentials.clone()))).await;
    poll(&agents).await;
    let cpu = cpu_ms(pid);
    for _ in 0..POLLS {
        let (turn, ()) = tokio::join!(tokio::time::sleep(Duration::from_secs(1)), poll(&agents));
        turn
    }
    let polls = (POLLS * agents.len()) as f64;
    let poll_us = (cpu_ms(pid) - cpu) * 1e3 / polls;
    let connection_kb = (settled(pid).await - before) * 1024.0 / agents.len() as f64;
    let stream_kb = held_streams_kb(&agents, pid).await;
    let before = settled(pid).await;
    let began = Instant::now();
    client.fill(ENTRIES).await;
    let seconds = began.elapsed().as_secs_f64();
    let entry_bytes = (settled(pid).await - before) * 1024.0 * 1024.0 / ENTRIES as f64;
    Sizes { connection_kb, stream_kb, poll_us, entry_bytes, entries_per_second: ENTRIES as f64 / seconds }
}

/// Each agent asks once for its entries, on the connection that it has.
async fn poll(agents: &[Agent]) {
    let ask = async |agent: &Agent| {
        agent.entries().get_authorized_entries(GetAuthorizedEntriesRequest::default()).await.expect("answered");
    };
    join_all(agents.iter().map(ask)).await;
}

/// Of each agent's stream that tells of changes; none if the server tells of none.
async fn held_streams_kb(agents: &[Agent], pid: u32) -> Option<f64> {
    let before = settled(pid).await;
    let held: Vec<Streaming<WatchChangesResponse>> =
        join_all(agents.iter().map(hold)).await.into_iter().flatten().collect();
    let grown_kb = (settled(pid).await - before) * 1024.0;
    (!held.is_empty()).then(|| grown_kb / held.len() as f64)
}

/// With the first word read.
async fn hold(agent: &Agent) -> Option<Streaming<WatchChangesResponse>> {
    let mut stream =
        ChangeClient::new(agent.channel.clone()).watch_changes(WatchChangesRequest::default()).await.ok()?.into_inner();
    stream.message().await.expect("the first word");
    Some(stream)
}

/// Megabytes, once they stay the same for three seconds.
async fn settled(pid: u32) -> f64 {
    let mut last = [0.0; 3];
    for _ in 0..20 {
        let now = pss_mb(pid);
        if last.iter().all(|before| (now - before).abs() < 0.01 * now) {
            break;
        }
        last = [last[1], last[2], now];
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    pss_mb(pid)
}
