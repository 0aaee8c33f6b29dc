//! `unix:cgroup`, and the jobs of Slurm, of real processes in groups of the unified hierarchy.
#![cfg(feature = "workload")]

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ironroot_attest::workload::{
    Attested, AttestorConfig, CgroupUntold, Demand, JobUntold, UnixAttestor, UnixAttestorConfig, Withheld,
};
use ironroot_attest::{Selector, SelectorSet};

const USER: u32 = 61_001;

/// A control group of this test's, removed on drop.
struct Group {
    directory: PathBuf,
    path: String,
}

impl Group {
    /// Below the root of the hierarchy, which must be mounted; root makes it.
    fn new(name: &str) -> Self {
        Self::at(&format!("/ironroot-test-{}-{name}", std::process::id()))
    }

    /// A task of a job, where Slurm puts it; each test's daemon has its own name.
    fn of_task(daemon: &str, job_and_step: &str) -> Self {
        let daemon = format!("ironroot-test-{}-{daemon}_slurmstepd.scope", std::process::id());
        Self::at(&format!("/system.slice/{daemon}/{job_and_step}/user/task_0"))
    }

    fn at(path: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("reads");
        let of_mount = |line: &str| {
            let mut words = line.split(' ').skip(1);
            let (place, kind) = (words.next()?, words.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(place))
        };
        let root = mounts.lines().find_map(of_mount).expect("the unified hierarchy (cgroup v2) is mounted");
        let directory = root.join(&path[1..]);
        fs::create_dir_all(&directory).expect("root makes control groups");
        Self { directory, path: path.to_owned() }
    }

    fn takes(&self, pid: i32) {
        fs::write(self.directory.join("cgroup.procs"), pid.to_string()).expect("root moves processes");
    }

    fn selector(&self) -> Selector {
        format!("unix:cgroup:{}", self.path).parse().expect("legal")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // And those above it that are empty.
        let _ = self.directory.ancestors().try_for_each(fs::remove_dir);
    }
}

struct Sleeper(Child);

impl Sleeper {
    fn start(program: &mut Command) -> Self {
        Self(program.uid(USER).gid(USER).stdin(Stdio::null()).spawn().expect("starts"))
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

fn attest(discover_cgroup: bool, pid: i32, demand: &Demand) -> Attested {
    let config = UnixAttestorConfig { discover_cgroup, ..UnixAttestorConfig::default() };
    UnixAttestor::new(config).expect("our own /proc").attest_numbered(pid, demand).expect("attests").1
}

/// What is told of its job.
fn attest_job(pid: i32, demand: &Demand) -> Attested {
    let config = AttestorConfig { slurm: true, unix: Some(UnixAttestorConfig::default()), ..AttestorConfig::default() };
    UnixAttestor::new(config).expect("our own /proc").attest_numbered(pid, demand).expect("attests").1
}

fn job_of(attested: &Attested) -> Vec<String> {
    attested.selectors.iter().filter(|selector| selector.kind() == "slurm").map(ToString::to_string).collect()
}

fn asking() -> Demand {
    asking_for("unix:cgroup:/a")
}

fn asking_for(selector: &str) -> Demand {
    let entry: SelectorSet =
        [selector, "unix:uid:61001"].map(|text| text.parse().expect("legal")).into_iter().collect();
    Demand::of(&[entry])
}

fn has_some(attested: &Attested) -> bool {
    attested.selectors.iter().any(|selector| selector.value().starts_with("cgroup:"))
}

#[test]
fn a_process_has_the_group_that_it_is_in_now_if_the_operator_wants_it_told() {
    let (one, other) = (Group::new("one"), Group::new("other"));
    let process = Sleeper::start(Command::new("sleep").arg("60"));
    for group in [&one, &other] {
        group.takes(process.pid());
        let told = attest(true, process.pid(), &Demand::default());
        assert!(told.selectors.contains(&group.selector()) && told.withheld.is_empty(), "{told:?}");
    }
    assert!(!has_some(&attest(false, process.pid(), &asking())));
}

#[test]
fn a_user_cannot_move_into_a_group_that_is_not_delegated_to_it_nor_bear_its_name_elsewhere() {
    let (theirs, own) = (Group::new("theirs"), Group::new("own"));
    let chown = |path: &Path| nix::unistd::chown(path, Some(USER.into()), Some(USER.into())).expect("root gives away");
    [own.directory.clone(), own.directory.join("cgroup.procs")].iter().for_each(|path| chown(path));
    // Below its own group the user makes one of the same name, and goes there; into the other one it is not let.
    let below = own.directory.join(theirs.directory.file_name().expect("a name"));
    let script = "until grep -q \"$3\" /proc/$$/cgroup; do :; done; echo $$ > \"$1/cgroup.procs\" && exit 9; mkdir \"$2\" && echo $$ > \"$2/cgroup.procs\" && exec sleep 60";
    let process =
        Sleeper::start(Command::new("sh").args(["-c", script, "sh"]).arg(&theirs.directory).arg(&below).arg(&own.path));
    own.takes(process.pid());
    let wanted: Selector = format!("unix:cgroup:{}{}", own.path, theirs.path).parse().expect("legal");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let told = attest(true, process.pid(), &Demand::default());
        assert!(!told.selectors.contains(&theirs.selector()), "{told:?}");
        if told.selectors.contains(&wanted) {
            break;
        }
        assert!(Instant::now() < deadline, "it has not moved: {told:?}");
        std::thread::yield_now();
    }
    drop(process);
    let _ = fs::remove_dir(&below);
}

#[test]
fn a_group_whose_name_is_no_text_for_a_selector_is_withheld_and_said_to_whoever_asks() {
    let group = Group::new("a\tb");
    let process = Sleeper::start(Command::new("sleep").arg("60"));
    group.takes(process.pid());
    let told = attest(true, process.pid(), &asking());
    assert!(!has_some(&told), "{told:?}");
    assert!(
        matches!(told.withheld[..], [ref one] if matches!(one.why, Withheld::Cgroup(CgroupUntold::Unspeakable(_)))),
        "{told:?}"
    );
    let unasked = attest(true, process.pid(), &Demand::default());
    assert!(unasked.withheld.is_empty() && unasked.selectors.iter().any(|s| s.to_string() == "unix:uid:61001"));
}

#[test]
fn a_process_has_the_job_and_step_that_slurm_has_put_it_in_and_none_after_it_was_moved_elsewhere() {
    let (job, elsewhere) = (Group::of_task("told", "job_4711/step_batch"), Group::new("elsewhere"));
    let process = Sleeper::start(Command::new("sleep").arg("60"));
    assert_eq!(job_of(&attest_job(process.pid(), &Demand::default())), [""; 0]);
    job.takes(process.pid());
    let told = attest_job(process.pid(), &Demand::default());
    assert_eq!(job_of(&told), ["slurm:job_id:4711", "slurm:step:batch"]);
    assert!(told.withheld.is_empty() && told.selectors.iter().any(|selector| selector.to_string() == "unix:uid:61001"));
    elsewhere.takes(process.pid());
    let told = attest_job(process.pid(), &asking_for("slurm:job_id:4711"));
    assert!(job_of(&told).is_empty() && told.withheld.is_empty(), "{told:?}");
    drop(process);
}

#[test]
fn a_user_makes_no_job_below_a_group_that_is_its_own() {
    let own = Group::new("of-a-user");
    let look_alike = Group::at(&format!("{}/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0", own.path));
    let process = Sleeper::start(Command::new("sleep").arg("60"));
    look_alike.takes(process.pid());
    let told = attest_job(process.pid(), &asking_for("slurm:job_id:4711"));
    assert!(job_of(&told).is_empty() && told.withheld.is_empty(), "{told:?}");
    drop(process);
}

#[test]
fn a_step_whose_name_is_no_text_for_a_selector_is_withheld_and_said_to_whoever_asks() {
    let job = Group::of_task("untold", "job_4711/step_a\tb");
    let process = Sleeper::start(Command::new("sleep").arg("60"));
    job.takes(process.pid());
    let told = attest_job(process.pid(), &asking_for("slurm:step:0"));
    assert!(job_of(&told).is_empty(), "{told:?}");
    assert!(
        matches!(told.withheld[..], [ref one] if matches!(one.why, Withheld::Job(JobUntold::Unspeakable(_)))),
        "{told:?}"
    );
    assert!(attest_job(process.pid(), &Demand::default()).withheld.is_empty(), "nobody asks");
    drop(process);
}
