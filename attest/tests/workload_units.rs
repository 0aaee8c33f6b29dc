//! Units: what the control group says, and what systemd says over the system bus, here a bus of the test's own.
//!
//! Against a real systemd: scripts/try-units, in the nightly run.
#![cfg(feature = "workload")]

#[path = "support/actor.rs"]
mod actor;
#[path = "support/system_bus.rs"]
mod system_bus;

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use actor::{Actor, DISCOVER, Lab, peer_of};
use ironroot_attest::workload::{
    Attested, AttestorConfig, Demand, SystemBus, UnitUntold, UnixAttestor, Withheld, WithheldSelector,
};
use system_bus::{Bus, Version};

/// Longer than systemd is waited for.
const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn acts_as_a_process() {
    actor::act();
}

/// A control group of systemd's hierarchy, as systemd would make it for a unit; removed on drop.
struct Group(PathBuf);

impl Group {
    fn new(unit: &str) -> Self {
        // systemd's own hierarchy where there are several, else the only one.
        let roots = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup"].map(Path::new);
        let root =
            roots.into_iter().find(|root| root.join("cgroup.procs").exists()).expect("control groups are mounted");
        let group = Self(root.join("system.slice").join(unit));
        fs::create_dir_all(&group.0).expect("root makes groups");
        group
    }

    fn join(&self, pid: i32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("root moves processes");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Only an empty one goes: the slice stays if it is systemd's.
        let _ = (fs::remove_dir(&self.0), fs::remove_dir(self.0.parent().expect("a slice")));
    }
}

/// A workload in a unit's control group.
struct Bench {
    _lab: Lab,
    workload: Actor,
    stream: UnixStream,
    group: Group,
    unit: String,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.workload.kill();
        self.workload.reap();
    }
}

impl Bench {
    fn new(name: &str) -> Self {
        let lab = Lab::new();
        let unit = format!("ironroot-test-{name}-{}.service", std::process::id());
        let workload = lab.start(&lab.program(), "become-then-connect 61001 61001");
        let stream = lab.accept();
        Self { _lab: lab, workload, stream, group: Group::new(&unit), unit }
    }

    fn in_its_group(name: &str) -> Self {
        let bench = Self::new(name);
        bench.group.join(bench.workload.pid());
        bench
    }

    /// As an agent would whose entries have these selectors, each alone.
    fn attest(&self, systemd: SystemBus, entries: &[&str]) -> Attested {
        let entries: Vec<_> = entries.iter().map(|text| [text.parse().expect("legal")].into_iter().collect()).collect();
        let config = AttestorConfig { systemd: Some(systemd), ..AttestorConfig::default() };
        let peer = peer_of(&self.stream).expect("a peer");
        let attestor = UnixAttestor::new(config).expect("our own /proc");
        attestor.attest_user(&peer, &Demand::of(&entries)).expect("attests")
    }

    fn id(&self) -> String {
        format!("systemd:id:{}", self.unit)
    }
}

fn texts(attested: &Attested) -> Vec<String> {
    attested.selectors.iter().map(ToString::to_string).collect()
}

fn no_bus() -> SystemBus {
    "unix:path=/nonexistent/system_bus_socket".parse().expect("legal")
}

/// An entry that any process in a unit could have, and that asks for the unit's file.
const FILE_OF_ANY: &str = "systemd:fragment_path:/lib/systemd/system/app.service";
const FILE: &str = "/lib/systemd/system/ironroot-test.service";

#[test]
fn the_unit_of_a_process_is_found_when_asked_for() {
    let bench = Bench::new("asked-for");
    assert!(bench.attest(no_bus(), &[]).selectors.is_empty(), "in no unit yet");
    bench.group.join(bench.workload.pid());
    assert_eq!(texts(&bench.attest(no_bus(), &[])), [bench.id()]);
    let peer = peer_of(&bench.stream).expect("a peer");
    let unix_alone = UnixAttestor::new(DISCOVER).expect("our own /proc");
    let found = texts(&unix_alone.attest_user(&peer, &Demand::default()).expect("attests"));
    assert!(found.contains(&"unix:uid:61001".to_owned()) && !found.contains(&bench.id()), "{found:?}");
}

#[test]
fn systemd_says_by_the_descriptor_of_the_process_what_its_unit_and_file_are() {
    let bench = Bench::in_its_group("pidfd");
    let bus = Bus::start(Version::V253);
    bus.systemd_knows(bench.workload.pid(), &bench.unit, FILE);
    let attested = bench.attest(bus.address(), &[FILE_OF_ANY]);
    assert_eq!(texts(&attested), [format!("systemd:fragment_path:{FILE}"), bench.id()]);
    assert!(attested.withheld.is_empty(), "{attested:?}");
    assert_eq!(bus.asked(), ["GetUnitByPIDFD", "FragmentPath"]);
    // Only what an entry depends on is asked for, and nothing if none does.
    assert_eq!(texts(&bench.attest(bus.address(), &[&bench.id()])), [bench.id()]);
    assert_eq!(bus.asked(), ["GetUnitByPIDFD"]);
    assert_eq!(texts(&bench.attest(bus.address(), &["systemd:id:other.service", "unix:uid:61001"])), [bench.id()]);
    assert_eq!(bus.asked(), [""; 0]);
}

#[test]
fn an_older_systemd_is_asked_by_number() {
    let bench = Bench::in_its_group("number");
    let bus = Bus::start(Version::V252);
    bus.systemd_knows(bench.workload.pid(), &bench.unit, FILE);
    let found = texts(&bench.attest(bus.address(), &[FILE_OF_ANY]));
    assert_eq!(found, [format!("systemd:fragment_path:{FILE}"), bench.id()]);
    assert_eq!(bus.asked(), ["GetUnitByPID", "Id", "FragmentPath"]);
}

#[test]
fn where_systemd_and_the_control_group_disagree_no_unit_is_told() {
    let bench = Bench::in_its_group("disagree");
    for version in [Version::V252, Version::V253] {
        let bus = Bus::start(version);
        for systemd in [None, Some("other.service")] {
            if let Some(other) = systemd {
                bus.systemd_knows(bench.workload.pid(), other, FILE);
            }
            let attested = bench.attest(bus.address(), &[FILE_OF_ANY, &bench.id()]);
            assert!(attested.selectors.is_empty(), "{attested:?}");
            let [WithheldSelector { why: Withheld::Unit(UnitUntold::Disagreement { systemd: said, .. }), .. }] =
                &attested.withheld[..]
            else {
                panic!("{attested:?}")
            };
            assert_eq!(said.as_deref(), systemd);
        }
    }
}

//= FLT-A21
#[test]
fn without_an_answer_in_time_the_control_group_says_the_unit() {
    let bench = Bench::in_its_group("silent");
    let silent = Bus::start(Version::Hangs);
    let empty = Bus::start(Version::None);
    for address in [no_bus(), silent.address(), empty.address()] {
        let began = Instant::now();
        let attested = bench.attest(address, &[FILE_OF_ANY]);
        assert!(began.elapsed() < DEADLINE);
        assert_eq!(texts(&attested), [bench.id()]);
        let why = attested.withheld.first().expect("an entry asks for the file");
        assert!(matches!(why.why, Withheld::Unit(UnitUntold::Unanswered(_))), "{why:?}");
    }
}

//= FLT-A27
#[test]
fn the_file_that_systemd_has_said_counts_on_while_it_cannot_be_asked() {
    let bench = Bench::in_its_group("kept");
    let bus = Bus::start(Version::V253);
    bus.systemd_knows(bench.workload.pid(), &bench.unit, FILE);
    let config = AttestorConfig { systemd: Some(bus.address()), ..AttestorConfig::default() };
    let attestor = UnixAttestor::new(config).expect("our own /proc");
    let demand = Demand::of(&[[FILE_OF_ANY.parse().expect("legal")].into_iter().collect()]);
    let peer = peer_of(&bench.stream).expect("a peer");
    let attest = |peer| attestor.attest_user(peer, &demand).expect("attests");
    let both = [format!("systemd:fragment_path:{FILE}"), bench.id()];
    assert_eq!(texts(&attest(&peer)), both);
    drop(bus);
    let kept = attest(&peer);
    assert!(texts(&kept) == both && kept.is_kept && !kept.is_unasked(), "{kept:?}");
    let other = attest(&peer_of(&bench.stream).expect("a connection of which nothing was proven"));
    assert!(texts(&other) == both[1..] && other.is_unasked(), "{other:?}");
}

/// Of the suite's systemd, whichever way it is asked.
#[test]
#[ignore = "needs to be root under a booted systemd: scripts/try-units"]
fn a_real_systemd_says_the_unit_and_the_file_of_a_service() {
    const NAME: &str = "ironroot-test.service";
    let file = Path::new("/run/systemd/system").join(NAME);
    let lab = Lab::new();
    let (program, socket) = (lab.program(), lab.socket());
    let service = format!(
        "[Service]\nExecStart={} --exact acts_as_a_process --nocapture\nEnvironment={}=connect {}={}\nUser=nobody\n",
        program.display(),
        actor::ROLE,
        actor::SOCKET,
        socket.display(),
    );
    fs::create_dir_all("/run/systemd/system").and_then(|()| fs::write(&file, service)).expect("writes");
    let systemctl = |arguments: &[&str]| {
        assert!(
            std::process::Command::new("systemctl").args(arguments).status().expect("runs").success(),
            "{arguments:?}"
        );
    };
    systemctl(&["daemon-reload"]);
    systemctl(&["start", NAME]);
    // The process lives as long as the connection.
    let stream = lab.accept();
    let peer = peer_of(&stream).expect("a peer");
    let config = AttestorConfig { systemd: Some(SystemBus::default()), ..AttestorConfig::default() };
    let demand = Demand::of(&[[FILE_OF_ANY.parse().expect("legal")].into_iter().collect()]);
    let attested = UnixAttestor::new(config).expect("our own /proc").attest_user(&peer, &demand).expect("attests");
    let expected = [format!("systemd:fragment_path:{}", file.display()), format!("systemd:id:{NAME}")];
    assert_eq!(texts(&attested), expected, "{attested:?}");
    systemctl(&["stop", NAME]);
}
