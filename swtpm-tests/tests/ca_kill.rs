//! The CA under kill -9, again and again, at any moment of a rotation.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use ironroot_api::certificate::Certificate;
use ironroot_lab::authority::{AuthorityLab, NOW, sign_jwt, spki, verify, verify_jwt};
use ironroot_lab::softhsm::SoftHsm;
use ironroot_server::ca::IssuedSvid;
use serde::{Deserialize, Serialize};

const TEST: &str = "kill_minus_nine_at_any_moment_loses_no_authority";
const ROLE: &str = "IRONROOT_LAB_CA_KILL";
const KILLS: u32 = 30;
/// Prepared after 3000 s, activated after 5000 s.
const CA_TTL: i64 = 6000;
/// From one start to the next: most starts have something to do.
const STEP: i64 = 1000;

/// What the world outside remembers of the CA.
#[derive(Serialize, Deserialize)]
struct Memory {
    now: i64,
    sequence_number: u64,
    svid: Vec<u8>,
    token: String,
}

//= FLT-S1
#[test]
fn kill_minus_nine_at_any_moment_loses_no_authority() {
    match std::env::var(ROLE).as_deref() {
        Ok("victim") => live(u32::MAX),
        Ok("witness") => live(15),
        _ => kill_repeatedly(),
    }
}

fn kill_repeatedly() {
    let hsm = SoftHsm::new();
    for kill in 0..KILLS {
        let _ = std::fs::remove_file(hsm.file("logged-in"));
        let mut child = hsm.start_child(TEST, (ROLE, "victim"));
        wait_until_logged_in(&hsm, &mut child);
        // Spread over the first few lives; the exact moment does not matter, many different ones do.
        std::thread::sleep(Duration::from_millis(u64::from(kill * 37 % 600)));
        let ended_by_itself = child.try_wait().unwrap();
        assert!(ended_by_itself.is_none(), "after {kill} kills: {}", hsm.child_output());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let status = hsm.start_child(TEST, (ROLE, "witness")).wait().unwrap();
    assert!(status.success(), "{}", hsm.child_output());
    let memory = remembered(&hsm.file("memory")).expect("the witness wrote it");
    assert!(memory.now > NOW + 15 * STEP, "the victims never got far: {}", memory.now - NOW);
}

/// SoftHSM 2.6 empties and rewrites its token file at each login: killed in that moment it has lost the token, and no server
/// can help. What it does with keys is part of the test.
fn wait_until_logged_in(hsm: &SoftHsm, child: &mut Child) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !hsm.file("logged-in").exists() {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline, "{}", hsm.child_output());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn live(lives: u32) {
    let hsm = SoftHsm::of_environment();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let lab = AuthorityLab::at(hsm.token_config(1), &hsm.file("datastore.sqlite3"), CA_TTL).with_jwt();
    std::fs::write(hsm.file("logged-in"), "").unwrap();
    for _ in 0..lives {
        runtime.block_on(live_once(&lab, &hsm.file("memory")));
    }
}

/// Starts the CA some time later; what it signed before must still verify, and its bundle must not have gone back.
async fn live_once(lab: &AuthorityLab, file: &Path) {
    let before = remembered(file);
    let now = before.as_ref().map_or(NOW, |memory| memory.now + STEP);
    let ca = lab.start(now).await.unwrap();
    let bundle = ca.bundle().borrow().clone();
    if let Some(before) = before {
        assert!(bundle.sequence_number >= before.sequence_number, "the bundle went back");
        let not_after_unix = Certificate::parse(&before.svid).unwrap().not_after_unix();
        verify_jwt(&before.token, &bundle).expect("the key of a token of before the kill is still published");
        let svid = IssuedSvid { chain: vec![before.svid], serial: String::new(), not_after_unix };
        if not_after_unix > now {
            verify(&svid, &bundle, now).expect("what was signed before the kill is still good");
        }
    }
    let svid = ca.sign_server_svid(&spki(), now).await.unwrap();
    verify(&svid, &bundle, now).unwrap();
    let token = sign_jwt(&ca, now).await.unwrap().token;
    verify_jwt(&token, &bundle).unwrap();
    let (sequence_number, svid) = (bundle.sequence_number, svid.chain[0].clone());
    remember(file, &Memory { now, sequence_number, svid, token });
}

fn remembered(file: &Path) -> Option<Memory> {
    std::fs::read(file).ok().map(|bytes| serde_json::from_slice(&bytes).unwrap())
}

/// Whole or not at all, like the world outside.
fn remember(file: &Path, memory: &Memory) {
    let temporary = file.with_extension("new");
    std::fs::write(&temporary, serde_json::to_vec(memory).unwrap()).unwrap();
    std::fs::rename(temporary, file).unwrap();
}
