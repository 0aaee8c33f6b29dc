//! Docker is away for a moment: nobody loses what was proven of it, and who was never proven is told to come again.

#[path = "support/served.rs"]
mod served;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ironroot_agent::identities::Identity;
use ironroot_attest::workload::{AttestorConfig, ContainerConfig, DockerConfig, UnixAttestor, UnixAttestorConfig};
use served::{Served, ending, ids, next};
use tonic::Code;

const LABEL: &str = "docker:label:app:web";

#[test]
fn acts_as_a_workload() {
    served::act();
}

/// This process in the control group of a container; moved back on drop.
struct InContainer {
    id: String,
    before: PathBuf,
    group: PathBuf,
}

impl InContainer {
    fn enter() -> Self {
        let roots = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists()).expect("control groups");
        let is_of_root = |line: &&str| line.contains("name=systemd") || line.starts_with("0::");
        let own = fs::read_to_string("/proc/self/cgroup").expect("reads");
        let own = own.lines().find(is_of_root).and_then(|line| line.splitn(3, ':').nth(2)).expect("a group");
        let before = root.join(own.trim_start_matches('/'));
        let id = format!("{:064x}", std::process::id());
        let group = root.join("docker").join(&id);
        fs::create_dir_all(&group).expect("root makes groups");
        fs::write(group.join("cgroup.procs"), std::process::id().to_string()).expect("root moves processes");
        Self { id, before, group }
    }
}

impl Drop for InContainer {
    fn drop(&mut self) {
        let _ = fs::write(self.before.join("cgroup.procs"), std::process::id().to_string());
        let _ = (fs::remove_dir(&self.group), self.group.parent().map(fs::remove_dir));
    }
}

/// A docker that says what it is told to say; its thread ends with the test.
fn docker(socket: &Path) -> Arc<Mutex<String>> {
    let listener = UnixListener::bind(socket).expect("binds");
    let answer = Arc::new(Mutex::new(String::new()));
    let says = answer.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accepts");
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let _ = stream.write_all(says.lock().expect("whole").as_bytes());
        }
    });
    answer
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// All that this process logs: attestation is on other threads than the test.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("whole").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines_with(&self, part: &str) -> usize {
        let text = String::from_utf8(self.0.lock().expect("whole").clone()).expect("text");
        text.lines().filter(|line| line.contains(part) && line.contains("WARN")).count()
    }
}

//= FLT-A27
#[tokio::test]
async fn an_outage_of_docker_takes_no_identity_away_and_its_word_that_there_is_no_such_container_does() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("docker.sock");
    let (container, says) = (InContainer::enter(), docker(&socket));
    let inspected = format!(
        "{{\"Id\":\"{}\",\"State\":{{\"Running\":true,\"Pid\":{}}},\"Config\":{{\"Labels\":{{\"app\":\"web\"}}}}}}",
        container.id,
        std::process::id()
    );
    let docker_says = |status: &str| *says.lock().expect("whole") = answer(status, &inspected);
    let served = Served::with(|config| {
        let docker = DockerConfig { docker_socket: socket.clone(), ..DockerConfig::default() };
        let containers = ContainerConfig { docker: Some(docker), kubelet: None };
        let unix = Some(UnixAttestorConfig::default());
        let attestor = AttestorConfig { unix, containers, ..AttestorConfig::default() };
        config.attestor = UnixAttestor::new(attestor).expect("our own /proc");
    });
    let web = |ttl| served.authority.issue_to("/web", &[LABEL], ttl);
    let user = |ttl| -> Arc<Identity> { served.authority.issue("/user", 0, ttl) };

    docker_says("200 OK");
    served.publish(vec![web(3600)]);
    let mut alone = served.fetch().await.expect("served");
    assert_eq!(ids(&next(&mut alone).await), ["spiffe://td/web"]);
    served.publish(vec![web(3600), user(3600)]);
    assert_eq!(ids(&next(&mut alone).await).len(), 2);

    docker_says("500 Internal Server Error");
    served.publish(vec![web(7200), user(7200)]);
    let renewed = next(&mut alone).await;
    assert_eq!(ids(&renewed).len(), 2, "a message without it would say that it is revoked: {:?}", ids(&renewed));
    served.publish(vec![web(7300)]);
    assert_eq!(ids(&next(&mut alone).await), ["spiffe://td/web"], "the stream goes on");
    let refused = served.fetch().await.expect_err("of this connection nothing was proven");
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("cannot be asked now"), "{refused}");
    assert_eq!(log.lines_with("attestor cannot be asked"), 1, "once for an outage");

    docker_says("200 OK");
    let mut again = served.fetch().await.expect("served");
    assert_eq!(ids(&next(&mut again).await), ["spiffe://td/web"]);
    assert_eq!(log.lines_with("attestor answers again"), 1);

    docker_says("404 Not Found");
    served.publish(vec![web(7400)]);
    assert_eq!(ending(&mut alone).await.code(), Code::PermissionDenied, "it is in no container any more");
}
