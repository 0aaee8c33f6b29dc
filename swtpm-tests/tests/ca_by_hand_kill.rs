//! Orders of an operator under kill -9, again and again, at any moment of any of them.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use ironroot_api::certificate::Certificate;
use ironroot_lab::authority::{AuthorityLab, NOW, administrator, assert_signs, spki, verify};
use ironroot_lab::softhsm::SoftHsm;
use ironroot_server::ca::{CertificateAuthority, IssuedSvid, Order, Purpose, SlotName};
use ironroot_server::clock::{ClockSource, Reading};
use serde::{Deserialize, Serialize};

const TEST: &str = "kill_minus_nine_at_any_moment_of_an_order_leaves_a_sound_ca";
const ROLE: &str = "IRONROOT_LAB_CA_ORDERS_KILL";
const KILLS: u32 = 24;
const DAY: i64 = 24 * 60 * 60;
const CA: Purpose = Purpose::X509Ca;

/// What the operator knows to be done: the answer came, and was written down.
#[derive(Default, Serialize, Deserialize)]
struct Memory {
    cycles: u32,
    sequence_number: u64,
    /// Signed by what signs now.
    svid: Vec<u8>,
    /// Signed by what was revoked last.
    revoked: Option<Vec<u8>>,
}

//= FLT-S1
#[test]
fn kill_minus_nine_at_any_moment_of_an_order_leaves_a_sound_ca() {
    match std::env::var(ROLE).as_deref() {
        Ok("victim") => live(u32::MAX),
        Ok("witness") => live(2),
        _ => kill_repeatedly(),
    }
}

fn kill_repeatedly() {
    let hsm = SoftHsm::new();
    for kill in 0..KILLS {
        let _ = std::fs::remove_file(hsm.file("logged-in"));
        let mut child = hsm.start_child(TEST, (ROLE, "victim"));
        wait_until_logged_in(&hsm, &mut child);
        // Spread over the first few cycles; the exact moment does not matter, many different ones do.
        std::thread::sleep(Duration::from_millis(u64::from(kill * 53 % 700)));
        let ended_by_itself = child.try_wait().unwrap();
        assert!(ended_by_itself.is_none(), "after {kill} kills: {}", hsm.child_output());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let status = hsm.start_child(TEST, (ROLE, "witness")).wait().unwrap();
    assert!(status.success(), "{}", hsm.child_output());
    let memory = remembered(&hsm.file("memory"));
    assert!(memory.cycles > 4, "the victims never got far: {} cycles", memory.cycles);
}

/// See `ca_kill.rs`: SoftHSM loses its token when it is killed while it logs in.
fn wait_until_logged_in(hsm: &SoftHsm, child: &mut Child) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !hsm.file("logged-in").exists() {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline, "{}", hsm.child_output());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn live(cycles: u32) {
    let hsm = SoftHsm::of_environment();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let lab = AuthorityLab::at(hsm.token_config(1), &hsm.file("datastore.sqlite3"), DAY);
    std::fs::write(hsm.file("logged-in"), "").unwrap();
    runtime.block_on(async {
        let clocks = ClockSource::new("lab", || Reading { wall_unix: NOW, boot_seconds: NOW });
        let (ca, rotation) = lab.start_rotating(clocks).await.unwrap();
        tokio::spawn(rotation.run());
        check_what_was_left(&ca, &remembered(&hsm.file("memory")));
        for _ in 0..cycles {
            cycle(&ca, &lab, &hsm.file("memory")).await;
        }
    });
}

fn check_what_was_left(ca: &CertificateAuthority, before: &Memory) {
    let bundle = ca.bundle().borrow().clone();
    assert!(bundle.sequence_number >= before.sequence_number, "the bundle went back");
    if let Some(revoked) = &before.revoked {
        verify(&svid(revoked), &bundle, NOW).expect_err("what was revoked stays so");
    }
}

/// From wherever the one before stopped.
async fn cycle(ca: &CertificateAuthority, lab: &AuthorityLab, file: &Path) {
    let order = async |order: Order| ca.obey(&administrator(), order).await.unwrap();
    let mut memory = remembered(file);
    if let Some(left) = ca.local_authorities(CA).old {
        // Tainted already, perhaps.
        let _ = ca.obey(&administrator(), Order::Taint(CA, left.id.clone())).await;
        order(Order::Revoke(CA, left.id)).await;
    }
    let old = ca.sign_server_svid(&spki(), NOW).await.unwrap();
    let first = ca.local_authorities(CA).active.unwrap().id;
    let prepared = match ca.local_authorities(CA).prepared {
        Some(prepared) if memory.cycles.is_multiple_of(2) => prepared,
        _ => order(Order::Prepare(CA)).await,
    };
    assert_signs(ca, NOW).await;
    order(Order::Activate(CA, prepared.id)).await;
    assert_signs(ca, NOW).await;
    order(Order::Taint(CA, first.clone())).await;
    order(Order::Revoke(CA, first)).await;
    assert_signs(ca, NOW).await;
    let bundle = ca.bundle().borrow().clone();
    verify(&old, &bundle, NOW).expect_err("it is revoked");
    let mut keys = 0;
    for slot in [SlotName::A, SlotName::B] {
        keys += u32::from(lab.token.find(&lab.key_name(slot)).await.unwrap().is_some());
    }
    assert_eq!((keys, bundle.authorities.len()), (1, 1), "nothing of the old ones is left");
    let svid = ca.sign_server_svid(&spki(), NOW).await.unwrap().chain[0].clone();
    memory = Memory {
        cycles: memory.cycles + 1,
        sequence_number: bundle.sequence_number,
        svid,
        revoked: Some(old.chain[0].clone()),
    };
    remember(file, &memory);
}

fn svid(leaf: &[u8]) -> IssuedSvid {
    let not_after_unix = Certificate::parse(leaf).unwrap().not_after_unix();
    IssuedSvid { chain: vec![leaf.to_vec()], serial: String::new(), not_after_unix }
}

fn remembered(file: &Path) -> Memory {
    std::fs::read(file).map_or_else(|_| Memory::default(), |bytes| serde_json::from_slice(&bytes).unwrap())
}

/// Whole or not at all, like the world outside.
fn remember(file: &Path, memory: &Memory) {
    let temporary = file.with_extension("new");
    std::fs::write(&temporary, serde_json::to_vec(memory).unwrap()).unwrap();
    std::fs::rename(temporary, file).unwrap();
}
