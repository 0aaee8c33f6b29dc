//! What entries cost a server that starts: seconds, and bytes of memory for each.
//!
//! `cargo bench -p ironroot-server --bench registry -- 1000000`: so many entries (100,000 without a number), each for its own
//! SPIFFE ID below one of as many parents as SPIRE's documentation would have nodes.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use ironroot_api::TrustDomain;
use ironroot_api::pb::types;
use ironroot_server::facts::entry::NewEntry;
use ironroot_server::registry::{EntryFilter, Registry};
use ironroot_server::store::{Store, StoreError};

/// Set for the process that only reads: the database.
const DATABASE: &str = "IRONROOT_BENCH_DATABASE";
/// Entries in one transaction.
const BATCH: usize = 10_000;
/// Entries below one parent.
const BELOW_ONE_PARENT: usize = 100;
/// Most bytes of memory for an entry, and most seconds of a start with a million: the goals.
const GOALS: (usize, f64) = (450, 5.0);

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    if let Some(database) = std::env::var_os(DATABASE) {
        return runtime.block_on(measure(Path::new(&database)));
    }
    let count = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(100_000);
    let directory = tempfile::tempdir().expect("a directory");
    let database = directory.path().join("datastore.sqlite3");
    runtime.block_on(fill(&database, count));
    let itself = std::env::current_exe().expect("this program");
    let measured = Command::new(itself).env(DATABASE, &database).status().expect("started");
    assert!(measured.success());
}

async fn fill(database: &Path, count: usize) {
    let store = Store::open(database, &trust_domain()).expect("opens");
    for batch in 0..count.div_ceil(BATCH) {
        let numbers = batch * BATCH..count.min((batch + 1) * BATCH);
        let add = move |tx: &ironroot_server::store::Transaction<'_>| {
            numbers.clone().try_for_each(|number| tx.add_entry(&entry(number)))
        };
        store.change::<_, StoreError>(add).await.expect("adds");
    }
    store.close().await;
}

fn entry(number: usize) -> ironroot_server::facts::entry::RegistrationEntry {
    let id = |path: String| Some(types::Spiffeid { trust_domain: "example.org".into(), path });
    let wire = types::Entry {
        spiffe_id: id(format!("/workload/{number}")),
        parent_id: id(format!("/spire/agent/tpm2/{:064x}", number / BELOW_ONE_PARENT)),
        selectors: vec![types::Selector { r#type: "unix".into(), value: format!("uid:{number}") }],
        ..types::Entry::default()
    };
    let new = NewEntry::from_pb(&wire, &trust_domain()).expect("legal");
    new.register(uuid::Uuid::new_v4().to_string(), 1_800_000_000)
}

async fn measure(database: &Path) {
    let (before, started) = (resident_bytes(), Instant::now());
    let store = Store::open(database, &trust_domain()).expect("opens");
    let opened = started.elapsed().as_secs_f64();
    let registry = Registry::load(store.clone()).await.expect("loads");
    let loaded = started.elapsed().as_secs_f64();
    let entries = registry.count_entries(&EntryFilter::default());
    let bytes = resident_bytes().saturating_sub(before) / entries.max(1);
    println!("entries in the registry                 {entries}");
    println!("seconds to open and check the database  {opened:.2}");
    println!("seconds until they are served           {loaded:.2}   (goal for a million: {})", GOALS.1);
    println!("bytes of memory for each                {bytes}   (goal: {})", GOALS.0);
    store.close().await;
}

fn trust_domain() -> TrustDomain {
    TrustDomain::new("example.org").expect("legal")
}

/// What of this process is in memory. Source: proc(5), statm.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}
