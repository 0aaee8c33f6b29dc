//! `api explain`: why a process gets what it gets, told to itself and to people at the admin socket.

#[path = "support/served.rs"]
mod served;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ironroot_agent::endpoints::Limits;
use ironroot_api::pb::explain::explain_any_client::ExplainAnyClient;
use ironroot_api::pb::explain::explain_client::ExplainClient;
use ironroot_api::pb::explain::{ExplainCallerRequest, ExplainProcessRequest, Explanation};
use ironroot_api::unix_socket::connect;
use serde_json::{Value, json};
use served::{NOW, Served, asking, patiently};
use tonic::Code;

#[test]
fn acts_as_a_workload() {
    served::act();
}

/// With an admin socket, `/web` for user 61001, and `/db` for a user of that name who is also called something else.
fn published() -> Served {
    let served = Served::with_delegate("/proxy");
    let pair = ["unix:uid:61001", "unix:user:nobody-else"];
    served.publish(vec![served.authority.issue("/other", 61002, 3600), served.authority.issue_to("/db", &pair, 3600)]);
    served
}

async fn of_caller(socket: &Path) -> Explanation {
    let mut client = ExplainClient::new(connect(socket).await.expect("connects"));
    patiently(client.explain_caller(asking(ExplainCallerRequest {}))).await.expect("told").into_inner()
}

/// What the command says to `uid`; `Err` if it fails.
fn command(arguments: &[&str], uid: u32) -> Result<String, String> {
    // Of a place that this user can run programs of.
    let directory = tempfile::tempdir().expect("a directory");
    let open = Command::new("chmod").arg("755").arg(directory.path()).status().expect("runs");
    assert!(open.success());
    let program = directory.path().join("ironroot-agent");
    let built = env!("CARGO_BIN_EXE_ironroot-agent");
    assert!(Command::new("install").args(["-m", "755", built]).arg(&program).status().expect("runs").success());
    let output = Command::new(program).args(["api", "explain"]).args(arguments).uid(uid).gid(uid).output();
    let output = output.expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

async fn told(arguments: Vec<String>, uid: u32) -> Result<String, String> {
    let run = move || command(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), uid);
    patiently(tokio::task::spawn_blocking(run)).await.expect("does not panic")
}

fn texts(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_owned()).collect()
}

/// A process of `uid`, killed on drop.
struct Sleeper(Child);

impl Sleeper {
    fn start(uid: u32) -> Self {
        Self(Command::new("sleep").arg("60").uid(uid).gid(uid).stdin(Stdio::null()).spawn().expect("sleep starts"))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

#[tokio::test]
async fn a_workload_is_told_its_selectors_and_nothing_of_entries_that_are_not_its_own() {
    let served = published();
    let said = told(texts(&["-socketPath", served.socket().to_str().expect("text")]), 61001).await.expect("told");
    for part in
        ["user 61001, group 61001", "Selector     : unix:uid:61001\n", "Not served   : it has all selectors of no"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("/db") && !said.contains("nobody-else") && !said.contains("61002"), "{said}");
    served.publish(vec![served.authority.issue("/web", 61001, 3600)]);
    let said = told(texts(&["-socketPath", served.socket().to_str().expect("text")]), 61001).await.expect("told");
    assert!(said.contains("Its own      : spiffe://td/web (entry entry of /web): served until "), "{said}");
    assert!(said.ends_with("Served       : yes\n"), "{said}");
}

#[tokio::test]
async fn an_administrator_is_told_of_any_process_which_entry_nearly_matches_and_what_is_missing() {
    let served = published();
    let process = Sleeper::start(61001);
    let pid = process.0.id().to_string();
    let admin = served.admin_socket();
    let asks = ["-pid", &pid, "-adminSocketPath", admin.to_str().expect("text")];
    let said = told(texts(&asks), 0).await.expect("told");
    let nearly = "Nearly       : spiffe://td/db (entry entry of /db): unix:user:nobody-else is missing\n";
    assert!(said.contains(nearly) && said.contains("Not served   : "), "{said}");
    let said = told(texts(&[&asks[..], &["-output", "json"]].concat()), 0).await.expect("told");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["nearest"][0]["lacks"], json!(["unix:user:nobody-else"]));
    assert_eq!((&said["uid"], &said["pid"]), (&json!(61001), &json!(process.0.id())));
    let refused = told(texts(&asks), 61001).await.expect_err("not its socket");
    assert!(refused.contains("this user (uid 61001) may not pass"), "{refused}");
}

#[tokio::test]
async fn a_process_that_is_gone_or_nobody_is_said_to_be_so() {
    let served = published();
    let mut gone = Sleeper::start(61001);
    gone.0.kill().and_then(|()| gone.0.wait()).expect("ends");
    let mut client = ExplainAnyClient::new(connect(&served.admin_socket()).await.expect("connects"));
    let pid = gone.0.id() as i32;
    let refused = client.explain_process(ExplainProcessRequest { pid }).await.expect_err("nobody");
    assert_eq!((refused.code(), refused.message()), (Code::NotFound, &*format!("there is no process {pid}")));
    let (number, admin) = (pid.to_string(), served.admin_socket());
    let asks = ["-pid", &number, "-adminSocketPath", admin.to_str().expect("text")];
    let said = told(texts(&asks), 0).await.expect_err("the command fails");
    assert!(said.contains(&format!("there is no process {pid}")) && !said.contains("user 0"), "{said}");
    for pid in [0, -1] {
        let refused = client.explain_process(ExplainProcessRequest { pid }).await.expect_err("nobody");
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn on_the_workloads_socket_nobody_else_can_be_named_and_no_page_can_ask() {
    let served = published();
    let channel = connect(&served.socket()).await.expect("connects");
    let asked = ExplainAnyClient::new(channel.clone()).explain_process(asking(ExplainProcessRequest { pid: 1 })).await;
    assert_eq!(asked.expect_err("not there").code(), Code::Unimplemented);
    let asked = ExplainClient::new(channel).explain_caller(ExplainCallerRequest {}).await;
    assert_eq!(asked.expect_err("no header").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_has_ended_and_an_agent_without_an_answer_are_told_apart() {
    let served = Served::new(Limits::default());
    let told = of_caller(&served.socket()).await;
    assert_eq!(told.reasons, ["the agent has had no answer of its server, and found none in its cache"]);
    served.publish(vec![served.authority.issue("/test", 0, 3600)]);
    assert!(of_caller(&served.socket()).await.reasons.is_empty());
    served.set_clock(NOW + 3601);
    let told = of_caller(&served.socket()).await;
    assert_eq!((told.entries[0].state.as_str(), told.entries[0].ends_at), ("expired", NOW + 3600));
    assert!(told.reasons[0].starts_with("its identities have ended, the last one at 2027-"), "{:?}", told.reasons);
}

#[tokio::test]
async fn a_caller_in_another_namespace_is_told_that_this_is_why() {
    let served = Served::new(Limits::default());
    let socket = served.socket().with_file_name("elsewhere.sock");
    let _agent = served.start_agent_in_pid_namespace(&socket);
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        tokio::task::yield_now().await;
    }
    let told = of_caller(&socket).await;
    assert!(told.refused.contains("in another PID namespace"), "{told:?}");
    assert_eq!((told.pid, told.uid), (0, 0));
}

#[tokio::test]
async fn a_program_that_is_not_under_fs_verity_is_said_to_be_so() {
    let served = published();
    let sealed = ["unix:uid:0", "unix:fs_verity:sha256:00"];
    served.publish(vec![served.authority.issue_to("/app", &sealed, 3600)]);
    let told = of_caller(&served.socket()).await;
    let left: Vec<&str> = told.withheld.iter().map(|left| left.selectors.as_str()).collect();
    assert_eq!(left, ["unix:fs_verity"], "{told:?}");
    assert!(told.withheld[0].reason.contains("fsverity enable"), "{told:?}");
    assert!(told.reasons.iter().any(|reason| reason.contains("could not be told")), "{told:?}");
}

#[tokio::test]
async fn a_program_that_could_not_be_told_is_said_with_the_reason() {
    let served = published();
    let user_and_path = ["unix:uid:61001", "unix:path:/usr/bin/sleep"];
    served.publish(vec![served.authority.issue_to("/app", &user_and_path, 3600)]);
    let process = Sleeper::start(61001);
    let mut client = ExplainAnyClient::new(connect(&served.admin_socket()).await.expect("connects"));
    let asked = ExplainProcessRequest { pid: process.0.id() as i32 };
    let told = client.explain_process(asked).await.expect("told").into_inner();
    assert!(told.withheld[0].reason.contains("on a connection of its own"), "{told:?}");
    assert_eq!(told.nearest[0].lacks, ["unix:path:/usr/bin/sleep"]);
    assert!(told.reasons.iter().any(|reason| reason.contains("could not be told")), "{told:?}");
}
