//! Processes that pretend to be others, and worlds in which the agent cannot tell. Source: the faults A12-A18.
#![cfg(feature = "workload")]

#[path = "support/actor.rs"]
mod actor;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command};

use actor::{DISCOVER, Heard, Lab, STRANGER, hash_of_anybody, hear, peer_of, within_patience};
use aws_lc_rs::digest::{SHA256, digest};
use ironroot_attest::workload::{Demand, UnixAttestor, UnixAttestorConfig, WorkloadRefusal};

#[test]
fn acts_as_a_process() {
    actor::act();
}

fn attestor(config: UnixAttestorConfig) -> UnixAttestor {
    UnixAttestor::new(config).expect("our own /proc")
}

fn attest(heard: &Heard) -> Result<Vec<String>, WorkloadRefusal> {
    let attested = heard.attested(&attestor(DISCOVER), &hash_of_anybody())?;
    Ok(attested.selectors.iter().map(ToString::to_string).collect())
}

fn sha256(path: &Path) -> String {
    let digest = digest(&SHA256, &fs::read(path).expect("reads"));
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn has(selectors: &[String], prefix: &str) -> bool {
    selectors.iter().any(|selector| selector.starts_with(prefix))
}

/// Starts processes until one gets `pid`.
fn reuse(pid: i32) -> Child {
    within_patience("the PID was not given again", || {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("root");
        let mut child = Command::new("sleep").arg("60").spawn().expect("runs");
        if child.id() as i32 == pid {
            return Some(child);
        }
        child.kill().and_then(|()| child.wait()).expect("ends");
        None
    })
}

//= FLT-A12
#[test]
fn refuses_a_process_that_took_over_the_pid_of_the_one_that_connected() {
    let lab = Lab::new();
    let mut before = lab.start(&lab.program(), "connect-hand-over-and-exit");
    let stream = lab.accept();
    let accepted_early = peer_of(&stream);
    before.reap();
    let mut successor = reuse(before.pid());
    assert!(matches!(peer_of(&stream), Err(WorkloadRefusal::Exited { .. })), "accepted after the takeover");
    if let Ok(peer) = accepted_early {
        assert!(!peer.still_alive());
        assert!(
            matches!(attestor(DISCOVER).attest_user(&peer, &Demand::default()), Err(WorkloadRefusal::Exited { .. })),
            "accepted before the takeover"
        );
    }
    successor.kill().and_then(|()| successor.wait()).expect("ends");
}

//= FLT-A12
#[test]
fn refuses_a_process_that_has_exited_even_while_it_is_a_zombie() {
    let lab = Lab::new();
    let mut workload = lab.start(&lab.program(), "connect");
    let stream = lab.accept();
    let heard = hear(&stream).expect("a peer");
    assert!(attest(&heard).is_ok());
    workload.kill();
    within_patience("it lives on", || (!heard.peer.still_alive()).then_some(()));
    assert!(matches!(attest(&heard), Err(WorkloadRefusal::Exited { .. })));
    workload.reap();
    assert!(matches!(attest(&heard), Err(WorkloadRefusal::Exited { .. })));
}

//= FLT-A13
#[test]
fn a_path_forged_with_a_mount_namespace_is_no_selector() {
    let lab = Lab::new();
    let forge =
        "exec unshare -m sh -c 'mount --bind \"$0\" /usr/bin/sleep && exec /usr/bin/sleep \"$@\"' \"$0\" \"$@\"";
    let _workload = lab.start_in(forge, "connect");
    let stream = lab.accept();
    let heard = hear(&stream).expect("a peer");
    let shown = fs::read_link(format!("/proc/{}/exe", heard.peer.pid())).expect("reads");
    assert_eq!(shown, Path::new("/usr/bin/sleep"), "the forgery as such works");
    let found = attest(&heard).expect("attests");
    assert!(!has(&found, "unix:path:") && !has(&found, "unix:sha256:"), "{found:?}");
    let elsewhere = UnixAttestorConfig { executable_in_other_mounts: true, ..DISCOVER };
    let found = heard.attested(&attestor(elsewhere), &hash_of_anybody()).expect("attests").selectors;
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(!has(&found, "unix:path:"), "{found:?}");
    assert!(found.contains(&format!("unix:sha256:{}", sha256(&lab.program()))), "the hash is of what runs: {found:?}");
}

//= FLT-A15
#[test]
fn a_program_that_lives_in_memory_only_has_no_path() {
    let lab = Lab::new();
    let _workload = lab.start(&lab.program(), "connect-from-memory");
    let stream = lab.accept();
    let found = attest(&hear(&stream).expect("a peer")).expect("attests");
    assert!(!has(&found, "unix:path:"), "{found:?}");
    assert!(found.contains(&format!("unix:sha256:{}", sha256(&lab.program()))));
}

//= FLT-A15
#[test]
fn a_deleted_program_has_no_path_even_if_a_file_bears_the_name_it_shows() {
    let lab = Lab::new();
    let hash = sha256(&lab.program());
    let _workload = lab.start(&lab.program(), "connect");
    let stream = lab.accept();
    let heard = hear(&stream).expect("a peer");
    fs::rename(lab.program(), lab.path("kept")).expect("renames");
    fs::copy(lab.path("kept"), lab.path("workload (deleted)")).expect("copies");
    fs::remove_file(lab.path("kept")).expect("deletes");
    fs::rename(lab.path("workload (deleted)"), lab.path("kept (deleted)")).expect("renames");
    let shown = fs::read_link(format!("/proc/{}/exe", heard.peer.pid())).expect("reads");
    assert_eq!(shown, lab.path("kept (deleted)"), "the forgery as such works");
    let found = attest(&heard).expect("attests");
    assert!(!has(&found, "unix:path:") && found.contains(&format!("unix:sha256:{hash}")), "{found:?}");
}

//= FLT-A14
#[test]
fn a_process_that_connects_and_then_becomes_another_program_has_neither_path_nor_hash() {
    let lab = Lab::new();
    let _workload = lab.start(&lab.program(), "connect-then-exec /usr/bin/sleep");
    let mut stream = lab.accept();
    let heard = hear(&stream).expect("a peer");
    assert!(has(&attest(&heard).expect("attests"), "unix:path:"));
    stream.write_all(b"!").expect("tells it to go on");
    let exe = format!("/proc/{}/exe", heard.peer.pid());
    within_patience("it did not exec", || fs::read_link(&exe).ok().filter(|exe| exe.ends_with("sleep")));
    let found = attest(&heard).expect("its user still is who it is");
    assert!(!has(&found, "unix:path:") && !has(&found, "unix:sha256:") && has(&found, "unix:uid:0"), "{found:?}");
}

#[test]
fn refuses_a_process_that_changed_its_user_after_it_connected() {
    let lab = Lab::new();
    let _workload = lab.start(&lab.program(), &format!("connect-then-become {STRANGER} {STRANGER}"));
    let stream = lab.accept();
    let peer = peer_of(&stream).expect("a peer");
    let refusal = within_patience("still root", || attestor(DISCOVER).attest_user(&peer, &Demand::default()).err());
    assert!(
        matches!(refusal, WorkloadRefusal::CredentialsChanged { old_uid: 0, .. }),
        "between setgid and setuid, or after both: {refusal}"
    );
}

//= FLT-A18
#[test]
fn refuses_a_caller_from_outside_the_agents_pid_namespace_and_names_the_cause() {
    let inside = "exec unshare --pid --fork --kill-child --mount-proc \"$0\" \"$@\"";
    let verdict = Lab::new().verdict_of(inside, "serve", STRANGER);
    assert!(verdict.contains("another PID namespace") && verdict.contains("uid 61001"), "{verdict}");
}

#[test]
fn does_not_start_on_the_proc_of_another_pid_namespace() {
    let inside = "exec unshare --pid --fork --kill-child \"$0\" \"$@\"";
    let verdict = Lab::new().verdict_of(inside, "serve", STRANGER);
    assert!(verdict.contains("/proc belongs to another PID namespace"), "{verdict}");
}

//= FLT-A17
#[test]
fn refuses_a_caller_that_hidepid_hides_and_says_what_to_do() {
    let hidden = "exec unshare -m sh -c 'mount -t proc -o hidepid=2 proc /proc && \
                  exec setpriv --regid 4242 --clear-groups --bounding-set -sys_ptrace \"$0\" \"$@\"' \"$0\" \"$@\"";
    let verdict = Lab::new().verdict_of(hidden, "serve", STRANGER);
    assert!(verdict.contains("hidden") && verdict.contains("CAP_SYS_PTRACE"), "{verdict}");
}
