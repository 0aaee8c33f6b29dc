//! A registry as big as the biggest fleets': memory, a restart, and how long a page of a list takes, on the running server.

use std::fmt::Write;
use std::time::{Duration, Instant};

use ironroot_api::pb::device::ListDevicesRequest;
use ironroot_api::pb::device::device_client::DeviceClient;
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::entry::{CountEntriesRequest, ListEntriesRequest};
use ironroot_lab::deployment::{Server, ServerOptions};
use ironroot_lab::samples::percentile;
use ironroot_lab::server_client::ServerClient;
use ironroot_lab::usage::{cpu_ms, pss_mb};
use tokio::runtime::Runtime;
use tonic::transport::Channel;

/// Devices in one manifest.
const MANIFEST: usize = 100_000;
/// By when it must have read them all.
const LONGEST_START: Duration = Duration::from_secs(600);
/// Pages that are asked for, one after the other, each of so many.
const PAGES: usize = 500;
const PAGE: i32 = 50;

/// Fills a server with so many entries and devices, starts it anew, and lists.
pub fn report(runtime: &Runtime, entries: usize, devices: usize) {
    let mut server = Server::start(&ServerOptions::default());
    let empty_mb = pss_mb(server.process().expect("it runs").pid());
    let began = Instant::now();
    for first in (0..devices).step_by(MANIFEST) {
        server.import_devices(&manifest(first..devices.min(first + MANIFEST)));
    }
    let imported = began.elapsed().as_secs_f64();
    let began = Instant::now();
    runtime.block_on(async { ServerClient::new(&server).await.fill(entries).await });
    let created = began.elapsed().as_secs_f64();
    println!("| what | measured |\n|---|---|");
    println!("| {devices} devices imported, s | {imported:.0} |");
    println!("| {entries} entries created, in batches of 500, s | {created:.0} |");
    server.kill();
    let began = Instant::now();
    server.restart_within(LONGEST_START);
    let restarted = began.elapsed().as_secs_f64();
    let pid = server.process().expect("it runs").pid();
    println!("| started anew: until it answers, s; its CPU, s | {restarted:.1}; {:.1} |", cpu_ms(pid) / 1e3);
    let held_mb = pss_mb(pid) - empty_mb;
    println!("| memory (PSS) beyond an empty server's, MB | {held_mb:.0} |");
    runtime.block_on(lists(&server, entries));
}

async fn lists(server: &Server, entries: usize) {
    let client = ServerClient::new(server).await;
    let admin = client.admin().await;
    let count = EntryClient::new(admin.clone()).count_entries(CountEntriesRequest::default()).await;
    assert_eq!(count.expect("counted").into_inner().count as usize, entries);
    pages("entries", &mut async |token| page_of_entries(&admin, token).await).await;
    pages("devices", &mut async |token| page_of_devices(&admin, token).await).await;
}

/// One page after the other, as a person or a console goes on reading.
async fn pages(what: &str, ask: &mut impl AsyncFnMut(String) -> String) {
    let (mut took, mut token) = (Vec::with_capacity(PAGES), String::new());
    for _ in 0..PAGES {
        let began = Instant::now();
        token = ask(token).await;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    println!(
        "| a page of {PAGE} {what}, median / 99th percentile, ms | {:.2} / {:.2} |",
        percentile(&mut took, 0.5),
        percentile(&mut took, 0.99)
    );
}

async fn page_of_entries(admin: &Channel, page_token: String) -> String {
    let request = ListEntriesRequest { page_size: PAGE, page_token, ..Default::default() };
    EntryClient::new(admin.clone()).list_entries(request).await.expect("a page").into_inner().next_page_token
}

async fn page_of_devices(admin: &Channel, page_token: String) -> String {
    let request = ListDevicesRequest { page_size: PAGE, page_token, ..Default::default() };
    DeviceClient::new(admin.clone()).list_devices(request).await.expect("a page").into_inner().next_page_token
}

fn manifest(numbers: std::ops::Range<usize>) -> String {
    let mut csv = "ek_sha256,serial\n".to_owned();
    for number in numbers {
        // Spread as hashes are.
        let spread = (number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        writeln!(csv, "{spread:032x}{number:032x},SN-{number:08}").expect("a string takes it");
    }
    csv
}
