//! What is on the disk is what the gateway has, whatever came before: a power cut finds it.

use std::collections::BTreeSet;
use std::process::Command;

use ironroot_lab::deployment::binary;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;

/// Writes of the sealed cache that may follow each other at once.
const WRITES_AT_ONCE: usize = 8;

impl Lab {
    fn count(&self, text: &str) -> usize {
        self.device.log().matches(text).count()
    }

    /// Entries come until the writes that need not wait are used up.
    fn use_up_the_writes(&self) {
        for number in 0.. {
            let sealed = self.count("identities sealed");
            if sealed >= WRITES_AT_ONCE {
                return;
            }
            self.server.create_entry(&self.parent, &format!("/more-{number}"), &["unix:uid:60009"], &[]);
            let is_sealed = || self.count("identities sealed") > sealed;
            expect_within(DEADLINE, "an entry is sealed", || self.device.log(), is_sealed);
        }
    }

    fn pid(&mut self) -> Pid {
        Pid::from_raw(self.device.process().expect("it runs").pid().cast_signed())
    }

    fn evict(&mut self) {
        let attested = self.count("agent attested");
        self.server.cli(&["agent", "evict", "-spiffeID", &self.device.agent_id()]);
        kill(self.pid(), Signal::SIGHUP).expect("sent");
        let is_attested = || self.count("agent attested") > attested;
        expect_within(DEADLINE, "it attests anew", || self.device.log(), is_attested);
    }

    fn is_sealed(&self) -> bool {
        self.device.data_directory().join("identities.sealed").exists()
    }

    fn status(&self) -> String {
        let mut command = Command::new(binary("ironroot-agent"));
        let output = command.args(["status", "-socketPath"]).arg(self.device.admin_socket()).output();
        String::from_utf8_lossy(&output.expect("it starts").stdout).into_owned()
    }

    /// The wrapped keys of the agent's CA and of its JWT-SVIDs.
    fn keys(&self) -> BTreeSet<Vec<u8>> {
        let directory = self.device.data_directory().join("local-authority");
        let files = [directory.clone(), directory.join("jwt")];
        let files = files.iter().flat_map(|directory| std::fs::read_dir(directory).expect("a directory"));
        let paths = files.map(|file| file.expect("a file").path());
        paths
            .filter(|path| path.extension().is_some_and(|kind| kind == "tpm"))
            .filter_map(|path| std::fs::read(path).ok())
            .collect()
    }
}

#[test]
fn after_a_ban_and_an_eviction_what_is_served_is_sealed_at_once_and_status_says_no_more_than_that() {
    let mut lab = lab("jwt_svids = true", DOWNSTREAM);
    lab.device.start();
    lab.device.expect_identity(ALICE);
    lab.expect_ca();
    lab.use_up_the_writes();
    lab.server.cli(&["agent", "ban", "-spiffeID", &lab.device.agent_id()]);
    lab.device.expect_log("this agent is banned");
    expect_within(DEADLINE, "the cache is wiped", || lab.device.log(), || !lab.is_sealed());
    lab.evict();
    lab.device.expect_identity(ALICE);
    expect_within(DEADLINE, "what is served is sealed", || lab.device.log(), || lab.is_sealed());
    expect_within(
        DEADLINE,
        "status says so",
        || lab.status(),
        || lab.status().contains("identities, sealed to the chip"),
    );

    // What still comes, such as a key that the bundle has now, is sealed too.
    let sealed = lab.device.data_directory().join("identities.sealed");
    let pid = lab.pid();
    let is_told = || {
        let _ = std::fs::remove_file(&sealed);
        kill(pid, Signal::SIGHUP).expect("sent");
        lab.status().contains("nothing new")
    };
    expect_within(DEADLINE, "status says that it is gone", || lab.status(), is_told);
    assert!(!lab.device.log().contains("not in the server's bundle"), "{}", lab.device.log());
}

#[test]
fn an_eviction_destroys_the_keys_of_the_ca_though_the_agent_attests_anew() {
    let mut lab = lab("jwt_svids = true", DOWNSTREAM);
    lab.device.start();
    lab.device.expect_identity(ALICE);
    lab.expect_ca();
    lab.device.expect_log("has changed what this agent signs JWT-SVIDs with");
    let (before, had) = (lab.keys(), lab.count("has a CA of its own"));
    assert!(before.len() >= 2, "one of each");
    lab.evict();
    let another = || lab.count("has a CA of its own") > had;
    expect_within(DEADLINE, "it has another CA", || lab.device.log(), another);
    assert!(lab.keys().is_disjoint(&before), "{}", lab.device.log());
}

#[test]
fn a_ca_that_was_renewed_twice_since_the_last_write_is_there_after_a_power_cut() {
    let mut lab = lab("ca_ttl = \"40s\"", DOWNSTREAM);
    lab.device.start();
    lab.device.expect_identity(ALICE);
    lab.expect_ca();
    lab.use_up_the_writes();
    let had = lab.count("has a CA of its own");
    let renewed = || lab.count("has a CA of its own") >= had + 3;
    expect_within(2 * DEADLINE, "its CA is renewed", || lab.device.log(), renewed);
    lab.server.kill();
    lab.device.kill_agent();
    lab.device.power_cycle();
    lab.device.start();
    lab.device.expect_log("own CA is taken up again");
}
