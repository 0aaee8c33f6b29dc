//! What the daemons deny others, and what a signal of a supervisor may do to them.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Process, Server, ServerOptions, as_uid, expect_within, wait_for,
};
use ironroot_lab::manufacturer::Manufacturer;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const UNPRIVILEGED: u32 = 60_001;

fn lab() -> (Server, Device) {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let device = Device::manufacture(&maker);
    let server = Server::start(&ServerOptions::default());
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    server.create_entry(&device.agent_id(), "/w", &[&format!("unix:uid:{UNPRIVILEGED}")], &[]);
    (server, device)
}

/// A field of `/proc/PID/status`.
fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("the kernel tells it");
    line.trim_start_matches(':').trim().to_owned()
}

fn core_limit(pid: u32) -> String {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("the process lives");
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).expect("told");
    line.split_whitespace().skip(4).take(2).collect::<Vec<_>>().join(" ")
}

fn hang_up(process: &Process) {
    kill(Pid::from_raw(process.pid().cast_signed()), Signal::SIGHUP).expect("sent");
}

/// Capability numbers: CAP_DAC_OVERRIDE 1, CAP_NET_BIND_SERVICE 10. Source: capabilities(7).
const SERVER_KEEPS: u64 = 1 << 1 | 1 << 10;

//= FLT-S21
#[test]
fn neither_daemon_can_be_dumped_or_gains_privileges_and_both_give_up_what_they_have_no_use_for() {
    let (mut server, mut device) = lab();
    device.provision(&server, &AgentOptions::default());
    device.start();
    device.expect_identity(UNPRIVILEGED);
    let (server, agent) = (server.process().expect("started").pid(), device.process().expect("started").pid());
    for (pid, keeps) in [(server, SERVER_KEEPS), (agent, 1 << 1)] {
        assert_eq!(status(pid, "NoNewPrivs"), "1");
        assert_eq!(core_limit(pid), "0 0");
        let held = u64::from_str_radix(&status(pid, "CapPrm"), 16).expect("hex");
        assert_eq!(held & !keeps, 0, "{held:x}");
    }
}

//= WLE-01
#[test]
fn an_agent_listens_on_its_unix_socket_and_on_no_port_of_the_network() {
    let (server, mut device) = lab();
    device.provision(&server, &AgentOptions::default());
    device.start();
    device.expect_identity(UNPRIVILEGED);
    let pid = device.process().expect("started").pid();
    let table = |name: &str| fs::read_to_string(format!("/proc/{pid}/net/{name}")).expect("the process lives");
    let paths = table("unix");
    assert!(paths.lines().any(|line| line.ends_with(&device.socket().display().to_string())), "{paths}");
    let sockets = sockets_of(pid);
    assert!(!sockets.is_empty());
    for (name, is_open_to_others) in
        [("tcp", is_listening as fn(&str) -> bool), ("tcp6", is_listening), ("udp", |_| true), ("udp6", |_| true)]
    {
        for line in table(name).lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            assert!(
                !(sockets.contains(&format!("socket:[{}]", fields[9])) && is_open_to_others(fields[3])),
                "{name}: {line}"
            );
        }
    }
}

/// State TCP_LISTEN in a line of `/proc/net/tcp`. Source: Linux, include/net/tcp_states.h.
fn is_listening(state: &str) -> bool {
    state == "0A"
}

/// The sockets among the descriptors of `pid`, as `socket:[INODE]`.
fn sockets_of(pid: u32) -> Vec<String> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives");
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.map(|link| link.display().to_string()).filter(|link| link.starts_with("socket:")).collect()
}

//= FLT-S21
#[test]
fn a_neighbour_of_the_same_user_cannot_read_the_agents_memory() {
    let directory = tempfile::Builder::new().prefix("ironroot-unprivileged-").tempdir().expect("directory");
    chown(directory.path(), Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("given away");
    let mut agent = unprivileged_agent(directory.path());
    let log = || fs::read_to_string(directory.path().join("log")).unwrap_or_default();
    expect_within(DEADLINE, "the agent starts", log, || log().contains("agent started"));
    // setpriv has replaced itself: the child is the agent. Who may not be dumped belongs to root. Source: proc(5).
    let owner = fs::metadata(format!("/proc/{}/mem", agent.id())).expect("it lives").uid();
    assert_eq!(owner, 0, "the agent is dumpable");
    agent.kill().and_then(|()| agent.wait()).expect("ended");
}

/// The configuration of an agent that has nothing but its own directory, and no server.
fn unprivileged_config(directory: &Path) -> PathBuf {
    let at = |name: &str| directory.join(name).display().to_string();
    let config = format!(
        "agent {{\n trust_domain = \"lab.example\"\n server_address = \"127.0.0.1\"\n server_port = 1\n insecure_bootstrap = true\n \
         data_dir = \"{}\"\n socket_path = \"{}\"\n log_file = \"{}\"\n}}\nplugins {{\n NodeAttestor \"join_token\" {{ }}\n \
         KeyManager \"memory\" {{ }}\n WorkloadAttestor \"unix\" {{ }}\n}}\n",
        at("data"),
        at("run/public/api.sock"),
        at("log"),
    );
    let path = directory.join("agent.conf");
    fs::write(&path, config).expect("written");
    path
}

fn unprivileged_agent(directory: &Path) -> Child {
    let config = unprivileged_config(directory);
    let binary = directory.join("ironroot-agent");
    fs::copy(ironroot_lab::deployment::binary("ironroot-agent"), &binary).expect("copied");
    let mut command = as_uid(UNPRIVILEGED, &binary);
    command.arg("run").arg("-config").arg(config);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started")
}

//= FLT-S24
#[test]
fn a_hangup_reopens_logs_and_asks_again_and_ends_nothing() {
    let (mut server, mut device) = lab();
    let late = device.bundle_path();
    device.provision_with_bundle("", server.port(), &AgentOptions { sync_interval: "1h", ..AgentOptions::default() });
    fs::remove_file(&late).expect("an image without a bundle");
    device.start();
    device.expect_log("sync failed");
    // The agent itself would look again within a minute; the operator does not want to wait for that.
    fs::write(&late, server.bundle_pem()).expect("the bundle arrives");
    hang_up(device.process().expect("started"));
    device.expect_log("reload asked for");
    device.expect_identity(UNPRIVILEGED);
    hang_up(server.process().expect("started"));
    expect_within(DEADLINE, "the server says so", String::new, || server.log().contains("reload asked for"));
    assert!(server.process().expect("started").runs() && device.process().expect("started").runs());
}

#[test]
fn the_tpm_library_writes_nothing_into_the_agents_log() {
    let (server, mut device) = lab();
    device.provision(&server, &AgentOptions::default());
    device.tpm().stop().expect("stopped");
    device.start();
    device.expect_log("cannot open the TPM");
    device.tpm().start_again().expect("started");
    device.expect_identity(UNPRIVILEGED);
    let foreign = |line: &str| line.starts_with("ERROR:") || line.starts_with("WARNING:");
    let said = wait_for(DEADLINE, || Some(device.log())).expect("at once");
    assert!(!said.lines().any(foreign), "{said}");
}

#[test]
fn a_chip_that_is_silent_at_the_start_is_told_to_whoever_asks_and_waited_for() {
    let (server, mut device) = lab();
    let agent_lines = format!("admin_socket_path = \"{}\"", device.admin_socket().display());
    device.provision(&server, &AgentOptions { agent_lines, ..AgentOptions::default() });
    device.tpm().freeze().expect("frozen");
    device.start();
    let said = |device: &Device| {
        let mut command = std::process::Command::new(ironroot_lab::deployment::binary("ironroot-agent"));
        let output = command.args(["status", "-socketPath"]).arg(device.admin_socket()).output().expect("it starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let why = "1 time in a row: waiting for the TPM: it has not answered for 5 s";
    expect_within(DEADLINE, "status says so", || said(&device), || said(&device).contains(why));
    device.tpm().thaw().expect("thawed");
    device.expect_identity(UNPRIVILEGED);
    expect_within(DEADLINE, "it fails no more", || said(&device), || !said(&device).contains("in a row"));
}

#[test]
fn a_service_manager_hears_when_the_agent_serves_that_it_lives_and_when_it_stops() {
    let directory = tempfile::Builder::new().prefix("ironroot-notify-").tempdir().expect("directory");
    let manager = std::os::unix::net::UnixDatagram::bind(directory.path().join("notify")).expect("bound");
    manager.set_read_timeout(Some(DEADLINE)).expect("set");
    let hears = |wanted: &str| {
        let mut message = [0; 4096];
        wait_for(DEADLINE, || {
            let length = manager.recv(&mut message).ok()?;
            String::from_utf8_lossy(&message[..length]).contains(wanted).then_some(())
        })
    };
    let environment =
        [("NOTIFY_SOCKET".to_owned(), directory.path().join("notify")), ("WATCHDOG_USEC".to_owned(), "200000".into())];
    let config = unprivileged_config(directory.path());
    let arguments = ["run".to_owned(), "-config".to_owned(), config.display().to_string()];
    let binary = ironroot_lab::deployment::binary("ironroot-agent");
    let mut agent = Process::start(&binary, &arguments, &environment, &directory.path().join("output"));
    hears("READY=1").expect("it serves");
    hears("WATCHDOG=1").expect("it lives");
    assert!(agent.terminate());
    hears("STOPPING=1").expect("it said so");
}
