//! When an agent's own CA signs nothing: what is valid is served on, and the reason is said.

use super::*;

#[test]
fn a_ca_that_ends_signs_nothing_more_and_what_it_has_signed_ends_with_it() {
    let mut lab = lab("ca_ttl = \"60s\"", DOWNSTREAM);
    lab.device.start();
    let own = goes_on_by_itself(&mut lab);
    let ca = own_ca(&own).expect("its own");
    lab.device.expect_log("this agent's own CA ends at");
    if let Ok(still) = lab.device.fetch(ALICE) {
        verify(&still);
    }
    let gone = || lab.device.fetch(ALICE).is_err();
    expect_within(DEADLINE, "nothing outlasts the CA", || lab.device.log(), gone);
    assert!(ironroot_agent::trusted_time::system_unix() >= ca.not_after_unix() - 1, "and nothing ends before");
    lab.server.restart();
    lab.device.expect_identity(ALICE);
}

#[test]
fn after_the_longest_absence_nothing_is_signed_though_the_ca_lasts() {
    let mut lab = lab("max_offline = \"40s\"", DOWNSTREAM);
    lab.device.start();
    goes_on_by_itself(&mut lab);
    lab.device.expect_log("max_offline is over");
    let gone = || lab.device.fetch(ALICE).is_err();
    expect_within(DEADLINE, "nothing that was signed outlasts it", || lab.device.log(), gone);
}

#[test]
fn a_ban_takes_the_ca_with_everything_else() {
    let mut lab = lab("", DOWNSTREAM);
    lab.device.start();
    lab.device.expect_identity(ALICE);
    lab.expect_ca();
    let directory = lab.device.data_directory().join("local-authority");
    let keys = || {
        let files = std::fs::read_dir(&directory).expect("a directory");
        files.filter(|file| file.as_ref().expect("a file").path().extension().is_some_and(|kind| kind == "tpm")).count()
    };
    assert!(keys() > 0);
    lab.server.cli(&["agent", "ban", "-spiffeID", &lab.device.agent_id()]);
    lab.device.expect_log("this agent is banned");
    expect_within(DEADLINE, "its keys are gone", || lab.device.log(), || keys() == 0);
    lab.server.kill();
    let before = lab.own_serials();
    let asked_again = || lab.device.log().matches("banned: nothing is served").count() >= 2;
    expect_within(2 * DEADLINE, "the server is missed", || lab.device.log(), asked_again);
    assert_eq!((lab.own_serials(), lab.device.fetch(ALICE).is_err()), (before, true));

    // The power went between the ban's note and the wipe: the next start finds a key.
    lab.device.kill_agent();
    std::fs::write(directory.join("local-authority-a.tpm"), "a key").expect("written");
    lab.device.start();
    expect_within(DEADLINE, "its keys are gone after a restart", || lab.device.log(), || keys() == 0);
}

#[test]
fn a_clock_that_nobody_has_confirmed_signs_nothing() {
    let mut lab = lab("", DOWNSTREAM);
    lab.device.start();
    lab.device.expect_identity(ALICE);
    lab.expect_ca();
    lab.device.expect_sealed(1);
    lab.server.kill();
    lab.device.power_cycle();
    lab.device.start_at(Some("-2d"));
    lab.device.expect_log("own CA is taken up again");
    lab.device.expect_log("no server has confirmed this device's clock");
    assert_eq!(lab.own_serials(), 0, "{}", lab.device.log());
    lab.server.restart();
    lab.device.expect_identity(ALICE);
}

#[test]
fn an_entry_that_is_not_downstream_gives_no_ca_and_the_log_says_what_to_do() {
    let mut lab = lab("", Some(&[]));
    lab.device.start();
    lab.device.expect_identity(ALICE);
    lab.device.expect_log("is not downstream; set that on the server");
    let show = ["entry", "show", "-spiffeID", &id("/gateway-ca"), "-output", "json"];
    let shown: serde_json::Value = serde_json::from_str(&lab.server.cli(&show)).expect("JSON");
    let entry = shown["entries"][0]["id"].as_str().expect("an ID");
    let (own, parent) = (id("/gateway-ca"), lab.parent.clone());
    let update = ["entry", "update", "-entryID", entry, "-spiffeID", &own, "-parentID", &parent, "-selector", OWN_CA];
    lab.server.cli(&[&update[..], &["-downstream"]].concat());
    lab.expect_ca();
}

#[test]
fn without_an_entry_of_its_own_an_agent_serves_as_ever_and_says_what_it_lacks() {
    let mut lab = lab("", None);
    lab.device.start();
    lab.device.expect_identity(ALICE);
    lab.device.expect_log("no entry below this agent has the one selector ironroot:local_authority");
    lab.server.create_entry(&lab.parent, "/gateway-ca", &[OWN_CA], &["-downstream"]);
    lab.expect_ca();
}
