//! One cell: a fleet with so many workloads, at rest, and when every SVID is wanted at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::future::join;
use futures_util::stream::{self, StreamExt};
use ironroot_api::pb::entry::BatchCreateEntryRequest;
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::types::{Entry, EntryMask, Selector, Spiffeid};
use ironroot_lab::deployment::{DEADLINE, TRUST_DOMAIN, expect_within_async};
use ironroot_lab::samples::percentile;
use ironroot_lab::server_client::{Agent, ServerClient, csr, key};
use ironroot_lab::usage::{pss_mb, whole_cpu_ms};

use super::fleet::{AT_ONCE, Fleet, SYNC_INTERVAL, TOLD_SYNC_INTERVAL, Told, sign, sync};

/// What is looked at: two syncs of each agent.
const WINDOW: Duration = Duration::from_secs(10);
/// SVIDs of an hour are renewed when half of it is left.
const RENEWED_AFTER: Duration = Duration::from_secs(30 * 60);
/// Entries in a call that makes them, and SVIDs in a call that asks for them.
const BATCH: usize = 500;

/// What was measured.
pub struct Cell {
    /// Of a core: the fleet polls, SVIDs are renewed as they fall due.
    pub cpu_percent: f64,
    /// The same when the agents hold a stream that tells of changes; none if the server has none.
    pub told_cpu_percent: Option<f64>,
    pub memory_mb: f64,
    /// Median and 99th percentile of a sync.
    pub sync_ms: (f64, f64),
    /// Until every workload's SVID is signed, the server asked for all at once.
    pub signed_seconds: f64,
}

/// Fills the server, whose process `pid` is, up to `workloads` entries, and measures.
pub async fn measure(
    client: &ServerClient,
    fleet: &Fleet,
    workloads: usize,
    pid: u32,
    told: Option<&mut Told>,
) -> Cell {
    let ids = fill(client, fleet, workloads).await;
    let request = csr(&key(), &[]);
    let began = Instant::now();
    sign_all(fleet, &ids, &request).await;
    let signed_seconds = began.elapsed().as_secs_f64();
    let told_cpu_percent = match told {
        Some(told) => {
            fleet.hold(told).await;
            let (percent, _) = rest(fleet, &ids, &request, TOLD_SYNC_INTERVAL, pid).await;
            Fleet::let_go(told);
            Some(percent)
        }
        None => None,
    };
    let (cpu_percent, mut took) = rest(fleet, &ids, &request, SYNC_INTERVAL, pid).await;
    let sync_ms = (percentile(&mut took, 0.5), percentile(&mut took, 0.99));
    Cell { cpu_percent, told_cpu_percent, memory_mb: pss_mb(pid), sync_ms, signed_seconds }
}

/// Share of a core, percent, and how long each sync took, while nothing but the usual happens.
async fn rest(fleet: &Fleet, ids: &[Vec<String>], csr: &[u8], interval: Duration, pid: u32) -> (f64, Vec<f64>) {
    let (began, cpu) = (Instant::now(), whole_cpu_ms(pid));
    let (took, ()) = join(fleet.sync_for(interval, WINDOW), renew(fleet, ids, csr)).await;
    let elapsed = began.elapsed().as_secs_f64();
    ((whole_cpu_ms(pid) - cpu) / 10.0 / elapsed.max(WINDOW.as_secs_f64()), took)
}

/// The SVIDs that fall due in a window: fewer than one in it are none.
async fn renew(fleet: &Fleet, ids: &[Vec<String>], csr: &[u8]) {
    let all: usize = ids.iter().map(Vec::len).sum();
    let due = (all as f64 * WINDOW.as_secs_f64() / RENEWED_AFTER.as_secs_f64()) as usize;
    let began = tokio::time::Instant::now();
    for number in 0..due {
        tokio::time::sleep_until(began + WINDOW.mul_f64(number as f64 / due as f64)).await;
        let agent = number % ids.len();
        let entry = number / ids.len() % ids[agent].len().max(1);
        sign(&fleet.agents()[agent], &ids[agent][entry..=entry], csr).await;
    }
    tokio::time::sleep_until(began + WINDOW).await;
}

/// Every agent asks for all of its SVIDs.
async fn sign_all(fleet: &Fleet, ids: &[Vec<String>], csr: &[u8]) {
    let batches =
        fleet.agents().iter().zip(ids).flat_map(|(agent, ids)| ids.chunks(BATCH).map(move |ids| (agent, ids)));
    stream::iter(batches).for_each_concurrent(AT_ONCE, async |(agent, ids)| sign(agent, ids, csr).await).await;
}

/// Adds entries until there are `workloads`; the ID of every one, by agent in the fleet's order.
async fn fill(client: &ServerClient, fleet: &Fleet, workloads: usize) -> Vec<Vec<String>> {
    let mut entries = EntryClient::new(client.admin().await);
    let there = list(client).await.values().map(Vec::len).sum();
    for first in (there..workloads).step_by(BATCH) {
        let batch = (first..workloads.min(first + BATCH)).map(|number| entry(number, fleet.of_workload(number)));
        let request = BatchCreateEntryRequest { entries: batch.collect(), output_mask: Some(EntryMask::default()) };
        let results = entries.batch_create_entry(request).await.expect("answered").into_inner().results;
        let refused = results.iter().find(|result| result.status.as_ref().is_none_or(|status| status.code != 0));
        assert!(refused.is_none(), "{refused:?}");
    }
    let mut by_parent = list(client).await;
    let ids: Vec<Vec<String>> =
        fleet.agents().iter().map(|agent| by_parent.remove(agent.id().path()).unwrap_or_default()).collect();
    let last = (workloads - 1) % ids.len();
    let mut said = 0;
    expect_within_async(
        DEADLINE,
        "the newest entry is its agent's",
        || format!("of {} entries", ids[last].len()),
        async || {
            said = sync(&fleet.agents()[last]).await;
            said == ids[last].len()
        },
    )
    .await;
    ids
}

/// IDs of the entries, by their parent's path.
async fn list(client: &ServerClient) -> HashMap<String, Vec<String>> {
    let mut entries = EntryClient::new(client.admin().await);
    let (mut found, mut page_token) = (HashMap::<String, Vec<String>>::new(), String::new());
    loop {
        let output_mask = Some(EntryMask { parent_id: true, ..EntryMask::default() });
        let request = ironroot_api::pb::entry::ListEntriesRequest {
            output_mask,
            page_size: 1_000,
            page_token: page_token.clone(),
            ..Default::default()
        };
        let page = entries.list_entries(request).await.expect("a page").into_inner();
        for entry in page.entries {
            found.entry(entry.parent_id.expect("asked for").path).or_default().push(entry.id);
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

fn entry(number: usize, agent: &Agent) -> Entry {
    let id = |path: String| Some(Spiffeid { trust_domain: TRUST_DOMAIN.to_owned(), path });
    Entry {
        spiffe_id: id(format!("/workload/{number}")),
        parent_id: id(agent.id().path().to_owned()),
        selectors: vec![Selector { r#type: "unix".into(), value: format!("uid:{number}") }],
        ..Entry::default()
    }
}
