//! Containers: what the control group says, and what docker, podman and the kubelet say, here stand-ins of the test's own.
//!
//! Against a real podman: `a_real_podman_says_what_its_container_is`, in the nightly run.
#![cfg(feature = "workload")]

#[path = "support/actor.rs"]
mod actor;
#[path = "support/daemon.rs"]
mod daemon;

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actor::{Actor, Lab, peer_of, within_patience};
use daemon::{Answer, Cluster, Daemon, ok, private_file};
use ironroot_attest::workload::{
    Attested, AttestorConfig, ClientProof, ContainerConfig, ContainerUntold, Demand, DockerConfig, KubeletConfig,
    KubeletPort, QuestionError, ServerProof, UnixAttestor, UnixAttestorConfig, Withheld, WithheldSelector,
    WorkloadRefusal,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than anybody is waited for.
const DEADLINE: Duration = Duration::from_secs(10);
/// An entry that any process in a container of docker's could have.
const LABEL: &str = "docker:label:app:web";
/// The same in a pod.
const POD_LABEL: &str = "k8s:pod-label:app:web";
const POD: &str = "2c48913c-b29f-11e7-9350-020968147796";

#[test]
fn acts_as_a_process() {
    actor::act();
}

/// Control groups in systemd's hierarchy where there are several, else in the only one; removed on drop.
struct Groups(Vec<PathBuf>);

impl Groups {
    fn make(&mut self, path: &str) -> PathBuf {
        let roots = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists()).expect("control groups");
        let group = root.join(path);
        fs::create_dir_all(&group).expect("root makes groups");
        self.0.extend(group.ancestors().take_while(|above| *above != root).map(Path::to_owned));
        group
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.0.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        self.0.dedup();
        // Only empty ones go: others may be of other tests.
        self.0.iter().for_each(|path| drop(fs::remove_dir(path)));
    }
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("signals");
}

fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

fn join(group: &Path, pid: i32) {
    fs::write(group.join("cgroup.procs"), pid.to_string()).expect("root moves processes");
}

/// A process that does nothing, killed on drop.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("sleep runs"))
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

/// A workload of user 61001, and the first process of a container, in no group yet.
struct Bench {
    _lab: Lab,
    workload: Actor,
    first: Sleeper,
    stream: UnixStream,
    groups: Groups,
    id: String,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.workload.kill();
        self.workload.reap();
        let _ = (self.first.0.kill(), self.first.0.wait());
    }
}

impl Bench {
    fn new() -> Self {
        Self::with("become-then-connect")
    }

    /// Its workload plays this role.
    fn with(role: &str) -> Self {
        let lab = Lab::new();
        let workload = lab.start(&lab.program(), &format!("{role} 61001 61001"));
        let stream = lab.accept();
        let id = format!("{:064x}", workload.pid());
        Self { _lab: lab, workload, first: Sleeper::start(), stream, groups: Groups(Vec::new()), id }
    }

    /// Both in the group of a container of this kind.
    fn in_container(path: impl Fn(&str) -> String) -> Self {
        Self::new().joining(path)
    }

    fn joining(mut self, path: impl Fn(&str) -> String) -> Self {
        let group = self.groups.make(&path(&self.id.clone()));
        join(&group, self.workload.pid());
        join(&group, self.first.pid());
        self
    }

    /// What a daemon says of the container.
    fn inspected(&self) -> String {
        inspected(&self.id, self.first.pid())
    }

    fn attest(&self, containers: ContainerConfig, entry: &str) -> Result<Attested, WorkloadRefusal> {
        attestor(containers).attest_user(&peer_of(&self.stream).expect("a peer"), &demand(entry))
    }

    /// What is told of the container, by docker at `daemon`.
    fn told_by(&self, daemon: &Daemon) -> Result<Vec<String>, ContainerUntold> {
        told(self.attest(docker(daemon), LABEL).expect("attests"))
    }
}

fn attestor(containers: ContainerConfig) -> UnixAttestor {
    let unix = Some(UnixAttestorConfig::default());
    UnixAttestor::new(AttestorConfig { unix, containers, ..AttestorConfig::default() }).expect("our own /proc")
}

/// Of one entry that asks for this alone.
fn demand(entry: &str) -> Demand {
    let entries: Vec<_> = [[entry.parse().expect("legal")].into_iter().collect()].into();
    Demand::of(&entries)
}

fn status(line: &str) -> Answer {
    (format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").into_bytes(), true)
}

fn inspected(id: &str, pid: i32) -> String {
    format!(
        "{{\"Id\":\"{id}\",\"Image\":\"sha256:01\",\"State\":{{\"Running\":true,\"Pid\":{pid}}},\
         \"Config\":{{\"Image\":\"web:1\",\"Env\":[\"A=b\"],\"Labels\":{{\"app\":\"web\"}}}}}}"
    )
}

/// What was told of the container; that of the user must be there in any case.
fn told(mut attested: Attested) -> Result<Vec<String>, ContainerUntold> {
    let all: Vec<String> = attested.selectors.iter().map(ToString::to_string).collect();
    assert!(all.contains(&"unix:uid:61001".to_owned()), "{all:?}");
    let found: Vec<_> = all.into_iter().filter(|text| !text.starts_with("unix:")).collect();
    match attested.withheld.pop() {
        None => Ok(found),
        Some(WithheldSelector { why: Withheld::Container(why), .. }) => {
            assert!(found.is_empty(), "{found:?}");
            Err(why)
        }
        Some(other) => panic!("{other:?}"),
    }
}

fn docker(daemon: &Daemon) -> ContainerConfig {
    let docker = DockerConfig { docker_socket: daemon.socket(), ..DockerConfig::default() };
    ContainerConfig { docker: Some(docker), kubelet: None }
}

fn dockers(id: &str) -> String {
    format!("docker/{id}")
}

const ALL_OF_DOCKERS: [&str; 4] =
    ["docker:env:A=b", "docker:image_config_digest:sha256:01", "docker:image_id:web:1", "docker:label:app:web"];

#[test]
fn what_docker_says_of_a_container_is_told_with_spires_selectors_and_asked_only_if_an_entry_wants_it() {
    let bench = Bench::in_container(dockers);
    let answer = bench.inspected();
    let daemon = Daemon::on_socket(move |_| ok(&answer));
    assert_eq!(bench.told_by(&daemon).expect("told"), ALL_OF_DOCKERS);
    let asked = daemon.asked();
    assert!(asked[0].starts_with(&format!("GET /containers/{}/json HTTP/1.1\r\n", bench.id)), "{asked:?}");
    let other = bench.attest(docker(&daemon), "unix:uid:61001").expect("attests");
    assert!(told(other).expect("nothing").is_empty() && daemon.asked().is_empty(), "no entry asks");
    let mut with_version = docker(&daemon);
    with_version.docker.as_mut().expect("there").version = Some("1.41".to_owned());
    assert_eq!(told(bench.attest(with_version, LABEL).expect("attests")).expect("told"), ALL_OF_DOCKERS);
    assert!(daemon.asked()[0].starts_with(&format!("GET /v1.41/containers/{}/json", bench.id)));
}

#[test]
fn podmans_container_is_asked_of_podman() {
    let bench = Bench::in_container(|id| format!("machine.slice/libpod-{id}.scope/container"));
    let answer = bench.inspected();
    let podman = Daemon::on_socket(move |_| ok(&answer));
    let config = DockerConfig {
        docker_socket: "/nonexistent".into(),
        podman_socket: podman.socket(),
        ..DockerConfig::default()
    };
    let config = ContainerConfig { docker: Some(config), kubelet: None };
    assert_eq!(told(bench.attest(config, LABEL).expect("attests")).expect("told"), ALL_OF_DOCKERS);
}

//= FLT-A27
#[test]
fn a_group_of_a_containers_name_that_a_user_made_below_its_own_is_no_container() {
    let mut bench = Bench::new();
    let (real, users) = (dockers(&bench.id), "user.slice/user-61001.slice/user@61001.service");
    let real = bench.groups.make(&real);
    join(&real, bench.first.pid());
    let forged = format!("{users}/docker-{}.scope", bench.id);
    let forged = bench.groups.make(&forged);
    // As systemd delegates it to the user's own manager.
    let delegated = forged.parent().expect("the user's");
    nix::unistd::chown(delegated, Some(61001.into()), Some(61001.into())).expect("root delegates");
    join(&forged, bench.workload.pid());
    let answer = bench.inspected();
    let daemon = Daemon::on_socket(move |_| ok(&answer));
    let why = bench.told_by(&daemon).expect_err("forged");
    assert!(matches!(why, ContainerUntold::NotInContainer(_)), "{why:?}");
}

#[test]
fn a_container_whose_first_process_has_just_ended_is_gone_and_not_in_another_group() {
    let mut bench = Bench::in_container(dockers);
    let pid = bench.first.pid();
    // The daemon's word is from before.
    let answer = bench.inspected();
    let daemon = Daemon::on_socket(move |_| ok(&answer));
    signal(pid, Signal::SIGKILL);
    within_patience("it does not end", || is_zombie(pid).then_some(()));
    let why = bench.told_by(&daemon).expect_err("it has ended");
    assert!(matches!(&why, ContainerUntold::Gone(id) if *id == bench.id), "{why:?}");
    bench.first.0.wait().expect("reaped");
    let why = bench.told_by(&daemon).expect_err("it is gone");
    assert!(matches!(why, ContainerUntold::Gone(_)), "{why:?}");
}

//= FLT-A27
#[test]
fn what_docker_has_said_of_a_process_counts_on_while_it_cannot_be_asked_and_not_when_it_says_otherwise() {
    let mut bench = Bench::in_container(dockers);
    let answers = Arc::new(Mutex::new(ok(&bench.inspected())));
    let said = answers.clone();
    let says = |answer: Answer| *answers.lock().expect("whole") = answer;
    let daemon = Daemon::on_socket(move |_| said.lock().expect("whole").clone());
    let (attestor, demand) = (attestor(docker(&daemon)), demand(LABEL));
    let peer = peer_of(&bench.stream).expect("a peer");
    let attest = || attestor.attest_user(&peer, &demand).expect("attests");
    assert_eq!((attest().is_kept, told(attest()).expect("told")), (false, ALL_OF_DOCKERS.map(str::to_owned).to_vec()));
    let away = daemon.socket().with_extension("away");
    let outages: [&dyn Fn(); 4] = [
        &|| says(status("500 Internal Server Error")),
        &|| says(status("503 Service Unavailable")),
        &|| says((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec(), true)),
        &|| fs::rename(daemon.socket(), &away).expect("renames"),
    ];
    for begins in outages {
        begins();
        let found = attest();
        assert!(found.is_kept && !found.is_unasked() && found.withheld.is_empty(), "{found:?}");
        assert_eq!(told(found).expect("told"), ALL_OF_DOCKERS);
        let other = peer_of(&bench.stream).expect("a connection of which nothing was proven");
        let found = attestor.attest_user(&other, &demand).expect("attests");
        assert!(found.is_unasked() && !found.is_kept, "{found:?}");
    }
    // It was moved meanwhile: what was said is of another place.
    let elsewhere = bench.groups.make(&dockers(&"e".repeat(64)));
    join(&elsewhere, bench.workload.pid());
    assert!(attest().is_unasked());
    let back = bench.groups.make(&dockers(&bench.id.clone()));
    join(&back, bench.workload.pid());
    assert!(attest().is_kept);
    fs::rename(&away, daemon.socket()).expect("renames");
    says(status("404 Not Found"));
    let found = attest();
    assert!(!found.is_unasked() && !found.is_kept && !found.withheld.is_empty(), "it is no container: {found:?}");
    says(status("500 Internal Server Error"));
    assert!(attest().is_unasked(), "and what it was is forgotten");
}

//= FLT-A27
#[test]
fn a_group_that_a_containers_root_made_for_another_container_is_still_its_own() {
    let mut bench = Bench::new();
    let (outer, inner) = (format!("{:064x}", 0xA), bench.id.clone());
    let group = bench.groups.make(&format!("docker/{outer}"));
    join(&group, bench.first.pid());
    let nested = bench.groups.make(&format!("docker/{outer}/docker-{inner}.scope"));
    join(&nested, bench.workload.pid());
    let answer = inspected(&outer, bench.first.pid());
    let daemon = Daemon::on_socket(move |_| ok(&answer));
    assert_eq!(bench.told_by(&daemon).expect("told"), ALL_OF_DOCKERS);
    assert!(daemon.asked()[0].contains(&outer), "the inner one is not even asked for");
}

//= FLT-A27
#[test]
fn what_a_users_own_podman_says_is_told_only_if_the_operator_wants_it_and_the_socket_is_that_users() {
    let users = "user.slice/user-61001.slice/user@61001.service/user.slice";
    let bench = Bench::in_container(|id| format!("{users}/libpod-{id}.scope/container"));
    let answer = bench.inspected();
    let podman = Daemon::on_socket(move |_| ok(&answer));
    let config = |template: Option<&str>| {
        let rootless_podman = template.map(|text| text.parse().expect("legal"));
        let docker = DockerConfig { rootless_podman, podman_socket: podman.socket(), ..DockerConfig::default() };
        ContainerConfig { docker: Some(docker), kubelet: None }
    };
    let why = told(bench.attest(config(None), LABEL).expect("attests")).expect_err("anybody could say it");
    assert!(matches!(why, ContainerUntold::Rootless(61001)), "{why:?}");
    assert!(podman.asked().is_empty());
    let theirs = podman.directory.path().join("61001.sock");
    fs::rename(podman.socket(), &theirs).expect("renames");
    let template = format!("unix://{}/%d.sock", podman.directory.path().display());
    let why = told(bench.attest(config(Some(&template)), LABEL).expect("attests")).expect_err("root's socket");
    assert!(matches!(why, ContainerUntold::NotTheirSocket { owner: 0, expected: 61001, .. }), "{why:?}");
    nix::unistd::chown(&theirs, Some(61001.into()), None).expect("root gives it away");
    let said = told(bench.attest(config(Some(&template)), LABEL).expect("attests"));
    assert_eq!(said.expect("told"), ALL_OF_DOCKERS);
}

//= FLT-A27 FLT-A12
#[test]
fn a_process_that_is_moved_or_ends_while_its_container_is_asked_for_is_told_nothing_of_it() {
    let mut bench = Bench::in_container(dockers);
    let elsewhere = bench.groups.make(&format!("ironroot-test-{}", bench.id));
    let (answer, pid) = (bench.inspected(), bench.workload.pid());
    let moving = Daemon::on_socket(move |_| {
        join(&elsewhere, pid);
        ok(&answer)
    });
    let why = bench.told_by(&moving).expect_err("moved");
    assert!(matches!(why, ContainerUntold::Moved), "{why:?}");
    let back = bench.groups.make(&dockers(&bench.id.clone()));
    join(&back, pid);
    let answer = bench.inspected();
    let killing = Daemon::on_socket(move |_| {
        signal(pid, Signal::SIGKILL);
        // Its first thread may be gone while another is not: only then the process is.
        let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        within_patience("it does not die", || (is_zombie(pid) && threads() <= 1).then_some(()));
        ok(&answer)
    });
    let refused = bench.attest(docker(&killing), LABEL).expect_err("it is gone");
    assert!(matches!(refused, WorkloadRefusal::Exited { .. }), "{refused:?}");
}

//= FLT-A27
#[test]
fn a_process_that_is_just_ending_is_gone_and_not_moved() {
    let bench = Bench::with("become-then-lose-main-thread").joining(dockers);
    let (answer, pid) = (bench.inspected(), bench.workload.pid());
    let ending = Daemon::on_socket(move |_| {
        signal(pid, Signal::SIGUSR1);
        within_patience("its first thread does not end", || is_zombie(pid).then_some(()));
        ok(&answer)
    });
    let attested = bench.attest(docker(&ending), LABEL);
    // The unified hierarchy keeps a thread in its place to the end: there the process is what it was while others live.
    match Path::new("/sys/fs/cgroup/systemd/cgroup.procs").exists() {
        true => assert!(matches!(attested, Err(WorkloadRefusal::Exited { .. })), "{attested:?}"),
        false => assert_eq!(told(attested.expect("others live")).expect("told"), ALL_OF_DOCKERS),
    }
    bench.attest(docker(&ending), LABEL).expect("asked again, it is a process that goes on without its first thread");
}

//= FLT-A27 FLT-A21
#[test]
fn each_hostile_answer_costs_the_containers_selectors_alone_and_is_refused_by_name() {
    let bench = Bench::in_container(dockers);
    let good = bench.inspected();
    let cut = &good[..good.len() / 2];
    let announced = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{cut}", good.len());
    let chunked = |chunk: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
    let huge = format!("\"{}\"", "x".repeat(2 << 20));
    let labels: String = (0..600).map(|n| format!("\"l{n}\":\"\",")).collect();
    let many = good.replace("\"app\":\"web\"", &format!("{labels}\"app\":\"web\""));
    let endless_head = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(64 << 10));
    let cases: [(&str, Answer); 14] = [
        ("breaks off", (announced.clone().into_bytes(), true)),
        ("does not answer in time", (announced.into_bytes(), false)),
        ("does not answer in time", (Vec::new(), false)),
        ("more than 1048576 bytes", ok(&huge)),
        ("more than 1048576 bytes", (chunked(&format!("200001\r\n{}", "x".repeat(2 << 20))).into_bytes(), true)),
        ("breaks off", (chunked("fffffffffffffffff\r\n").into_bytes(), true)),
        ("does not speak HTTP", (endless_head.into_bytes(), true)),
        ("does not speak HTTP", (b"SSH-2.0-x\r\n".to_vec(), true)),
        ("the status 404", (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(), true)),
        ("answered what cannot be read", ok("{\"Id\":\"x\"}")),
        ("answered what cannot be read", ok(&"[".repeat(100_000))),
        ("answered for \"0000", ok(&inspected(&"0".repeat(64), 1))),
        ("does not run", ok(&good.replace("\"Running\":true", "\"Running\":false"))),
        ("more than 512 selectors", ok(&many)),
    ];
    for (expected, answer) in cases {
        let daemon = Daemon::on_socket(move |_| answer.clone());
        let began = Instant::now();
        let why = bench.told_by(&daemon).expect_err(expected).to_string();
        assert!(why.contains(expected), "{expected}: {why}");
        assert!(began.elapsed() < DEADLINE);
    }
    let nobody = ContainerConfig { docker: Some(DockerConfig::default()), kubelet: None };
    let nobody = ContainerConfig {
        docker: nobody.docker.map(|docker| DockerConfig { docker_socket: "/nonexistent".into(), ..docker }),
        kubelet: None,
    };
    let why = told(bench.attest(nobody, LABEL).expect("attests")).expect_err("nobody there");
    assert!(matches!(why, ContainerUntold::Question(QuestionError::Connect(..))), "{why:?}");
}

fn pods(id: &str) -> String {
    format!(
        "{{\"items\":[{{\"metadata\":{{\"name\":\"web-0\",\"namespace\":\"shop\",\"uid\":\"{POD}\",\"labels\":{{\"app\":\"web\"}}}},\
         \"spec\":{{\"serviceAccountName\":\"web\",\"nodeName\":\"n\"}},\"status\":{{\"containerStatuses\":[{{\"name\":\"web\",\
         \"image\":\"web:1\",\"imageID\":\"web@sha256:01\",\"containerID\":\"containerd://{id}\"}}]}}}}]}}"
    )
}

fn in_pod() -> Bench {
    Bench::in_container(|id| format!("kubepods.slice/{}", in_slice_of_pod("kubepods", id)))
}

/// What a kubelet makes below its slice of this name.
fn in_slice_of_pod(kubepods: &str, id: &str) -> String {
    let (class, pod) = (format!("{kubepods}-besteffort"), POD.replace('-', "_"));
    format!("{class}.slice/{class}-pod{pod}.slice/cri-containerd-{id}.scope")
}

fn kubelet(port: KubeletPort) -> ContainerConfig {
    let kubelet = KubeletConfig {
        port,
        node_name: None,
        max_poll_attempts: 60,
        poll_retry_interval: Duration::from_millis(50),
        disable_container_selectors: false,
        only_hybrid_key_exchange: false,
        last: Arc::default(),
    };
    ContainerConfig { docker: None, kubelet: Some(kubelet) }
}

fn of_pod(bench: &Bench, config: ContainerConfig) -> Result<Vec<String>, ContainerUntold> {
    told(bench.attest(config, POD_LABEL).expect("attests"))
}

#[test]
fn what_the_kubelet_says_of_a_pod_is_told_once_it_knows_the_container() {
    let bench = in_pod();
    let answers = [pods(""), pods(&"0".repeat(64)), pods(&bench.id)];
    let mut next = 0;
    let daemon = Daemon::on_port(None, move |_| {
        next += 1;
        ok(&answers[next.min(answers.len()) - 1])
    });
    let config = kubelet(KubeletPort::ReadOnly(daemon.port));
    let found = of_pod(&bench, config.clone()).expect("told");
    for expected in ["k8s:ns:shop", "k8s:sa:web", POD_LABEL, "k8s:container-name:web", "k8s:container-image:web:1"] {
        assert!(found.contains(&expected.to_owned()), "{expected}: {found:?}");
    }
    assert_eq!(daemon.asked().len(), 3, "asked again until it knew");
    assert_eq!(of_pod(&bench, config).expect("told"), found);
    assert!(daemon.asked().len() <= 1, "what it said a moment ago is used again");
}

#[test]
fn a_pod_is_one_wherever_its_kubelet_has_its_cgroup_root() {
    for layout in [
        |id: &str| format!("kubelet.slice/kubelet-kubepods.slice/{}", in_slice_of_pod("kubelet-kubepods", id)),
        |id: &str| format!("kubelet/kubepods/burstable/pod{POD}/{id}"),
    ] {
        let bench = Bench::in_container(layout);
        let answer = pods(&bench.id);
        let daemon = Daemon::on_port(None, move |_| ok(&answer));
        let found = of_pod(&bench, kubelet(KubeletPort::ReadOnly(daemon.port))).expect("told");
        assert!(found.contains(&POD_LABEL.to_owned()), "{found:?}");
    }
}

#[test]
fn the_kubelet_proves_itself_and_hears_who_asks() {
    let bench = in_pod();
    let (cluster, other) = (Cluster::new("node-1"), Cluster::new("node-1"));
    let answer = pods(&bench.id);
    let daemon = Daemon::on_port(Some(cluster.server.clone()), move |_| ok(&answer));
    let directory = daemon.directory.path();
    let authority =
        |name, cluster: &Cluster| ServerProof::Authorities(private_file(directory, name, &cluster.authority_pem));
    let token = || ClientProof::Token(private_file(directory, "token", "abc.def\n"));
    let certificate = || ClientProof::Certificate {
        certificate: private_file(directory, "client.crt", &cluster.client.0),
        private_key: private_file(directory, "client.key", &cluster.client.1),
    };
    let named = |server, client, node_name: Option<&str>| {
        let mut config = kubelet(KubeletPort::Secure { port: daemon.port, server, client });
        config.kubelet.as_mut().expect("there").node_name = node_name.map(str::to_owned);
        of_pod(&bench, config)
    };
    assert!(named(authority("ca", &cluster), token(), None).is_ok(), "the chain alone counts on this machine");
    assert!(daemon.asked()[0].to_lowercase().contains("authorization: bearer abc.def\r\n"));
    assert!(named(authority("ca", &cluster), certificate(), None).is_ok());
    assert!(named(ServerProof::Nothing, ClientProof::Anonymous, None).is_ok());
    assert!(!daemon.asked().iter().any(|head| head.to_lowercase().contains("authorization")));
    let why = named(authority("other", &other), token(), None).expect_err("another cluster's");
    assert!(matches!(why, ContainerUntold::Question(QuestionError::Tls(..))), "{why:?}");
    let why = named(authority("ca", &cluster), token(), Some("localhost")).expect_err("of another name");
    assert!(matches!(why, ContainerUntold::Question(QuestionError::Tls(..))), "{why:?}");
    assert!(daemon.asked().is_empty(), "the token went to nobody else");
    let missing = ClientProof::Token(directory.join("none"));
    let why = named(authority("ca", &cluster), missing, None).expect_err("no token");
    assert!(matches!(why, ContainerUntold::Kubelet(_)), "{why:?}");
}

//= FLT-A27
#[test]
fn what_a_kubelet_has_said_counts_on_while_it_refuses_to_answer_and_not_when_it_knows_no_such_pod() {
    let bench = in_pod();
    let answers = Arc::new(Mutex::new(ok(&pods(&bench.id))));
    let said = answers.clone();
    let says = |answer: Answer| *answers.lock().expect("whole") = answer;
    let daemon = Daemon::on_port(None, move |_| said.lock().expect("whole").clone());
    let mut config = kubelet(KubeletPort::ReadOnly(daemon.port));
    // Nothing that it said is used twice.
    config.kubelet.as_mut().expect("there").poll_retry_interval = Duration::ZERO;
    let (attestor, demand) = (attestor(config), demand(POD_LABEL));
    let peer = peer_of(&bench.stream).expect("a peer");
    let attest = || attestor.attest_user(&peer, &demand).expect("attests");
    let all = told(attest()).expect("told");
    for refusal in ["500 Internal Server Error", "401 Unauthorized"] {
        says(status(refusal));
        let found = attest();
        assert!(found.is_kept, "{refusal}: {found:?}");
        assert_eq!(told(found).expect("told"), all);
    }
    says(ok("{\"items\":[]}"));
    let found = attest();
    assert!(!found.is_kept && !found.is_unasked() && !found.withheld.is_empty(), "{found:?}");
    assert!(!attest().is_unasked(), "nor does it come back");
}

//= FLT-A27
#[test]
fn a_pod_of_which_the_kubelet_has_not_heard_yet_may_well_be_one() {
    let bench = in_pod();
    let daemon = Daemon::on_port(None, move |_| ok("{\"items\":[]}"));
    let mut config = kubelet(KubeletPort::ReadOnly(daemon.port));
    config.kubelet.as_mut().expect("there").max_poll_attempts = 2;
    let found = bench.attest(config, POD_LABEL).expect("attests");
    assert!(found.is_unasked() && !found.is_kept, "its client tries again: {found:?}");
}

//= FLT-A27
#[test]
fn a_kubelets_tree_below_a_users_own_groups_is_not_asked_of_the_kubelet() {
    let bench =
        Bench::in_container(|id| format!("user.slice/user-61001.slice/user@61001.service/kubepods/pod{POD}/{id}"));
    let answer = pods(&bench.id);
    let daemon = Daemon::on_port(None, move |_| ok(&answer));
    let why = of_pod(&bench, kubelet(KubeletPort::ReadOnly(daemon.port))).expect_err("a user's");
    assert!(matches!(why, ContainerUntold::StrangePod(_)), "{why:?}");
    assert!(daemon.asked().is_empty());
}

//= FLT-A27
#[test]
fn each_hostile_answer_of_a_kubelet_costs_the_pods_selectors_alone() {
    let bench = in_pod();
    let good = pods(&bench.id);
    let twice = good.replace("\"items\":[", &format!("\"items\":[{},", &good["{\"items\":[".len()..good.len() - 2]));
    let huge = format!("{{\"x\":\"{}\"}}", "x".repeat(9 << 20));
    let cases: [(&str, Answer); 6] = [
        ("knows no pod", ok("{\"items\":null}")),
        ("knows two pods", ok(&twice)),
        ("answered what cannot be read", ok("{\"items\":{}}")),
        ("answered what cannot be read", ok(&good[..good.len() - 3])),
        ("more than 8388608 bytes", ok(&huge)),
        ("the status 401", (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_vec(), true)),
    ];
    for (expected, answer) in cases {
        let daemon = Daemon::on_port(None, move |_| answer.clone());
        let began = Instant::now();
        let why = of_pod(&bench, kubelet(KubeletPort::ReadOnly(daemon.port))).expect_err(expected).to_string();
        assert!(why.contains(expected), "{expected}: {why}");
        assert!(began.elapsed() < DEADLINE);
    }
}
