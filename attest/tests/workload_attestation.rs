//! Which selectors a local process has, with real processes of several users.
#![cfg(feature = "workload")]

#[path = "support/actor.rs"]
mod actor;

use std::fs;
use std::os::unix::net::UnixStream;

use actor::{DISCOVER, Lab, STRANGER, hash_of_anybody, hear, peer_of};
use aws_lc_rs::digest::{SHA256, digest};
use ironroot_attest::SelectorSet;
use ironroot_attest::workload::{
    DEFAULT_SIZE_LIMIT, Demand, UnixAttestor, UnixAttestorConfig, Withheld, WithheldSelector, WorkloadRefusal,
};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

#[test]
fn acts_as_a_process() {
    actor::act();
}

fn attestor(config: UnixAttestorConfig) -> UnixAttestor {
    UnixAttestor::new(config).expect("our own /proc")
}

fn attest(config: UnixAttestorConfig, stream: &UnixStream) -> Result<SelectorSet, WorkloadRefusal> {
    hear(stream)?.attested(&attestor(config), &hash_of_anybody()).map(|attested| attested.selectors)
}

fn texts(selectors: &SelectorSet) -> Vec<String> {
    selectors.iter().map(ToString::to_string).collect()
}

fn sha256(path: &std::path::Path) -> String {
    let digest = digest(&SHA256, &fs::read(path).expect("reads"));
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn users_and_groups_are_those_of_the_process_with_names_where_there_are_names() {
    let lab = Lab::new();
    let _known = lab.start(&lab.program(), "become-then-connect 1 2 4,61005");
    let found = attest(UnixAttestorConfig::default(), &lab.accept()).expect("attests");
    assert_eq!(
        texts(&found),
        [
            "unix:gid:2",
            "unix:group:bin",
            "unix:supplementary_gid:4",
            "unix:supplementary_gid:61005",
            "unix:supplementary_group:adm",
            "unix:uid:1",
            "unix:user:daemon",
        ]
    );
    let _stranger = lab.start(&lab.program(), &format!("become-then-connect {STRANGER} {STRANGER}"));
    let found = attest(UnixAttestorConfig::default(), &lab.accept()).expect("attests");
    assert_eq!(texts(&found), [format!("unix:gid:{STRANGER}"), format!("unix:uid:{STRANGER}")]);
}

#[test]
fn a_process_whose_program_was_not_noted_at_accept_has_neither_path_nor_hash() {
    let lab = Lab::new();
    let _workload = lab.start(&lab.program(), "connect");
    let stream = lab.accept();
    let heard = hear(&stream).expect("a peer");
    let unnoted = peer_of(&stream).expect("a peer");
    let attested = attestor(DISCOVER).attest(&unnoted, &hash_of_anybody(), Ok(heard.write)).expect("attests");
    assert!(matches!(attested.withheld[..], [WithheldSelector { why: Withheld::NotNoted, .. }]), "{attested:?}");
    assert!(!attested.selectors.iter().any(|selector| selector.is_of_executable()));
}

#[test]
fn path_and_hash_are_found_when_asked_for() {
    let lab = Lab::new();
    let _workload = lab.start(&lab.program(), "become-then-connect 61001 61001");
    let stream = lab.accept();
    let found = texts(&attest(DISCOVER, &stream).expect("attests"));
    assert!(found.contains(&format!("unix:path:{}", lab.program().display())), "{found:?}");
    assert!(found.contains(&format!("unix:sha256:{}", sha256(&lab.program()))), "{found:?}");
    let found = texts(&attest(UnixAttestorConfig::default(), &stream).expect("attests"));
    assert!(!found.iter().any(|s| s.starts_with("unix:path:") || s.starts_with("unix:sha256:")), "{found:?}");
}

#[test]
fn nothing_is_hashed_unless_an_entry_with_this_users_other_selectors_asks_for_it() {
    let lab = Lab::new();
    let _workload = lab.start(&lab.program(), "become-then-connect 61001 61001");
    let stream = lab.accept();
    let heard = hear(&stream).expect("a peer");
    let entry = |texts: &[&str]| -> SelectorSet { texts.iter().map(|text| text.parse().expect("legal")).collect() };
    let path = format!("unix:path:{}", lab.program().display());
    for (entries, hashed) in [
        (vec![], false),
        (vec![entry(&["unix:uid:61001"]), entry(&["unix:uid:61002", "unix:sha256:00"])], false),
        (vec![entry(&["unix:uid:61001", "unix:sha256:00"])], true),
        (vec![entry(&["unix:uid:61001", "unix:sha256:00", &path])], true),
    ] {
        let found = heard.attested(&attestor(DISCOVER), &Demand::of(&entries)).expect("attests");
        let has = texts(&found.selectors).iter().any(|text| text.starts_with("unix:sha256:"));
        assert_eq!(has, hashed, "{entries:?}");
    }
}

/// That a sealed program has its digest is what `scripts/test-image fs-verity` shows.
//= FLT-A30
#[test]
fn of_a_program_that_the_kernel_does_not_guard_no_fs_verity_digest_is_told_whoever_asks_for_it() {
    let lab = Lab::new();
    let _workload = lab.start(&lab.program(), "become-then-connect 61001 61001");
    let stream = lab.accept();
    let heard = hear(&stream).expect("a peer");
    let entry = |texts: &[&str]| -> SelectorSet { texts.iter().map(|text| text.parse().expect("legal")).collect() };
    let (hashed, sealed) =
        (entry(&["unix:uid:61001", "unix:sha256:00"]), entry(&["unix:uid:61001", "unix:fs_verity:sha256:00"]));
    for (entries, workload_size_limit, has_hash, why_not) in [
        (vec![sealed.clone()], 0, false, true),
        (vec![sealed.clone(), hashed.clone()], 0, true, true),
        (vec![hashed.clone()], 0, true, false),
        (vec![sealed, hashed], -1, false, false),
        (vec![entry(&["unix:uid:61002", "unix:fs_verity:sha256:00"])], 0, false, false),
    ] {
        let attestor = attestor(UnixAttestorConfig { workload_size_limit, ..DISCOVER });
        let told = heard.attested(&attestor, &Demand::of(&entries)).expect("attests");
        let found = texts(&told.selectors);
        assert!(!found.iter().any(|text| text.starts_with("unix:fs_verity:")), "{found:?}");
        assert_eq!(found.iter().any(|text| text.starts_with("unix:sha256:")), has_hash, "{entries:?}");
        let reasons: Vec<_> = told.withheld.iter().map(|left| (left.selector, left.why.to_string())).collect();
        assert_eq!(reasons.len(), usize::from(why_not), "{reasons:?}");
        let is_said =
            |(selector, why): &(&str, String)| *selector == "unix:fs_verity" && why.contains("fsverity enable");
        assert!(reasons.iter().all(is_said), "{reasons:?}");
    }
}

//= FLT-A16
#[test]
fn a_sparse_program_of_forty_gigabytes_costs_one_hash_at_most_however_often_it_asks() {
    let cpu_seconds = || {
        let usage = getrusage(UsageWho::RUSAGE_SELF).expect("reads");
        (usage.user_time() + usage.system_time()).num_seconds()
    };
    let lab = Lab::new();
    fs::File::options().write(true).open(lab.program()).and_then(|file| file.set_len(40 << 30)).expect("sparse");
    let _workload = lab.start(&lab.program(), "become-then-connect 61001 61001");
    let stream = lab.accept();
    let heard = hear(&stream).expect("a peer");
    // The longest that one hash may take is 4 s.
    for (workload_size_limit, most_seconds) in [(DEFAULT_SIZE_LIMIT, 1), (0, 6)] {
        let (attestor, before) = (attestor(UnixAttestorConfig { workload_size_limit, ..DISCOVER }), cpu_seconds());
        for _ in 0..500 {
            let found = texts(&heard.attested(&attestor, &hash_of_anybody()).expect("attests").selectors);
            assert!(!found.iter().any(|text| text.starts_with("unix:sha256:")));
        }
        let spent = cpu_seconds() - before;
        assert!(spent <= most_seconds, "limit {workload_size_limit}: {spent} s of a core");
    }
}

//= FLT-A16
#[test]
fn a_size_limit_leaves_out_the_hash_of_larger_programs_and_a_negative_one_of_all() {
    let lab = Lab::new();
    let size = fs::metadata(lab.program()).expect("exists").len() as i64;
    let _workload = lab.start(&lab.program(), "connect");
    let stream = lab.accept();
    for (workload_size_limit, hashed) in [(0, true), (size, true), (size - 1, false), (-1, false)] {
        let found = attest(UnixAttestorConfig { workload_size_limit, ..DISCOVER }, &stream).expect("attests");
        let found = texts(&found);
        assert_eq!(found.iter().any(|s| s.starts_with("unix:sha256:")), hashed, "limit {workload_size_limit}");
        assert!(found.iter().any(|s| s.starts_with("unix:path:")));
    }
}

//= FLT-A17
#[test]
fn a_program_named_like_a_stat_line_is_attested_like_any_other() {
    let lab = Lab::new();
    let program = lab.path(") R 1 (");
    fs::rename(lab.program(), &program).expect("renames");
    let _workload = lab.start(&program, "connect");
    let found = texts(&attest(DISCOVER, &lab.accept()).expect("attests"));
    assert!(found.contains(&format!("unix:path:{}", program.display())), "{found:?}");
}

#[test]
fn a_path_that_no_selector_can_hold_is_left_out() {
    let lab = Lab::new();
    let program = lab.path("two\nlines");
    fs::rename(lab.program(), &program).expect("renames");
    let _workload = lab.start(&program, "connect");
    let found = texts(&attest(DISCOVER, &lab.accept()).expect("attests"));
    assert!(!found.iter().any(|s| s.starts_with("unix:path:")), "{found:?}");
    assert!(found.contains(&format!("unix:sha256:{}", sha256(&program))));
}

//= FLT-A17
#[test]
fn refuses_a_process_with_more_groups_than_are_looked_at() {
    let lab = Lab::new();
    for (count, fine) in [(1024, true), (1025, false), (65_536, false)] {
        let _workload = lab.start(&lab.program(), &format!("become-then-connect 0 0 {count}"));
        let found = attest(UnixAttestorConfig::default(), &lab.accept());
        assert_eq!(found.is_ok(), fine, "{count} groups");
        assert!(matches!(found, Ok(_) | Err(WorkloadRefusal::TooManyGroups { .. })));
    }
}

#[test]
fn refuses_what_is_no_socket() {
    let file = fs::File::open("/dev/null").expect("opens");
    assert!(matches!(peer_of(&file), Err(WorkloadRefusal::Credentials(_))));
}

#[test]
fn an_agent_without_sys_ptrace_still_attests_users_but_no_paths() {
    let verdict = Lab::new().verdict_of("exec setpriv --bounding-set -sys_ptrace \"$0\" \"$@\"", "serve", STRANGER);
    assert!(
        verdict.contains("unix:uid:61001") && !verdict.contains("path") && !verdict.contains("sha256"),
        "{verdict}"
    );
}

//= FLT-S23
#[test]
fn an_agent_out_of_descriptors_refuses_the_caller_and_says_which_file_it_missed() {
    let verdict = Lab::new().verdict_of("exec \"$0\" \"$@\"", "serve without-descriptors", STRANGER);
    assert!(verdict.starts_with("Err(") && verdict.contains("cannot read /proc/"), "{verdict}");
}
