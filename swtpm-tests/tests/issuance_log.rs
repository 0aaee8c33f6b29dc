//! The log of everything that was issued and changed: nothing is taken out unnoticed, and no server goes back behind what agents have seen.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use ironroot_api::issuance_head::{self, HEAD_METADATA, HeadRefusal, IssuanceHead};
use ironroot_api::pb::entry::GetAuthorizedEntriesRequest;
use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Server, ServerOptions, binary, expect_within, wait_for,
};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::server_client::{Agent, ServerClient};
use ironroot_lab::small_disk::SmallDisk;
use ironroot_lab::upstream_files::UpstreamFiles;
use ironroot_server::issuance_log::{
    Event, Head, IssuanceLog, LogError, MAX_OBJECT_BYTES, MAX_SEGMENT_BYTES, MAX_SEGMENTS, MAX_WAITING, read,
    read_last, read_newest,
};
use rustls_pki_types::CertificateDer;
use tonic::Request;
use tonic::metadata::MetadataValue;

/// Something that is not kept in memory while the disk is full.
fn issued(object: String) -> Event {
    Event { method: "NewJWTSVID".into(), ..event(object) }
}

fn event(object: impl Into<String>) -> Event {
    Event { method: "BanAgent".into(), object: object.into(), by: "uid 0".into() }
}

/// Writes so many records and ends; the head.
fn log_of(directory: &Path, count: usize) -> ironroot_server::issuance_log::Head {
    let log = IssuanceLog::open(directory, None).expect("opened");
    (0..count).for_each(|number| log.append(event(number.to_string())));
    log.close();
    *log.durable().borrow()
}

fn only_segment(directory: &Path) -> PathBuf {
    let mut paths = fs::read_dir(directory).expect("listed").map(|entry| entry.expect("entry").path());
    paths.find(|path| path.extension().is_some_and(|end| end == "log")).expect("one")
}

#[test]
fn records_follow_each_other_over_restarts_and_a_torn_end_is_no_record() {
    let directory = tempfile::tempdir().expect("directory");
    let first = log_of(directory.path(), 3);
    assert_eq!(first.sequence, 3);
    let segment = only_segment(directory.path());
    let mut torn = fs::read(&segment).expect("read");
    torn.extend(b"{\"body\":{\"epo");
    fs::write(&segment, torn).expect("written");
    let second = log_of(directory.path(), 2);
    assert_eq!((second.sequence, second.epoch), (5, first.epoch));
    let reading = read(directory.path(), |_, _| {}).expect("whole").expect("there");
    assert_eq!((reading.records, reading.head), (5, second));
    let objects = read_last(directory.path(), 2).expect("read");
    assert_eq!(objects.iter().map(|record| record.body.object.as_str()).collect::<Vec<_>>(), ["0", "1"]);
}

#[test]
fn a_segment_that_was_not_begun_whole_holds_nothing_and_costs_nothing() {
    let directory = tempfile::tempdir().expect("directory");
    let first = log_of(directory.path(), 3);
    for torn in ["", "{\"epoch\":1,\"sequ"] {
        let begun = directory.path().join(format!("{:020}.log", 900));
        fs::write(&begun, torn).expect("written");
        assert_eq!(read(directory.path(), |_, _| {}).expect("whole").expect("there").head, first);
        assert!(read_newest(directory.path()).is_ok());
        let log = IssuanceLog::open(directory.path(), None).expect("opened");
        assert_eq!(*log.durable().borrow(), first);
        log.close();
        assert!(!begun.exists());
    }
    let only = tempfile::tempdir().expect("directory");
    fs::write(only.path().join(format!("{:020}.log", 1)), "").expect("written");
    log_of(only.path(), 2);
    assert_eq!(read(only.path(), |_, _| {}).expect("whole").expect("there").records, 2);
}

#[test]
fn heads_of_an_epoch_that_was_given_up_count_no_more_however_great_it_is() {
    let directory = tempfile::tempdir().expect("directory");
    let before = log_of(directory.path(), 1);
    let shown = before.epoch + 1_000_000_000;
    let log = IssuanceLog::open(directory.path(), Some(shown)).expect("opened");
    assert_eq!(log.contradicts(&Head { epoch: shown, ..before }), Some(false));
    log.close();
}

#[test]
fn a_record_that_is_taken_out_put_in_or_changed_is_found() {
    let directory = tempfile::tempdir().expect("directory");
    log_of(directory.path(), 5);
    let segment = only_segment(directory.path());
    let whole = fs::read_to_string(&segment).expect("read");
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let without = |line: usize| -> String {
        lines.iter().enumerate().filter(|(number, _)| *number != line).map(|(_, line)| *line).collect()
    };
    let doubled = [&lines[..3], &lines[2..]].concat().concat();
    let long = format!("{whole}{}\n", "x".repeat(64 * 1024));
    for changed in [without(2), doubled, whole.replacen("\"object\":\"2\"", "\"object\":\"7\"", 1), without(0), long] {
        fs::write(&segment, changed).expect("written");
        assert!(matches!(read(directory.path(), |_, _| {}), Err(LogError::Broken { .. })));
        assert!(IssuanceLog::open(directory.path(), None).is_err());
    }
    // Whoever takes the newest records away is found by whoever knows the head alone.
    fs::write(&segment, without(5)).expect("written");
    assert_eq!(read(directory.path(), |_, _| {}).expect("it hangs together").expect("there").head.sequence, 4);
}

#[test]
fn segments_are_bounded_in_size_and_number_and_the_chain_survives_the_oldest() {
    let directory = tempfile::tempdir().expect("directory");
    for old in 0..MAX_SEGMENTS {
        fs::write(directory.path().join(format!("{old:020}.log")), "").expect("written");
    }
    let real = directory.path().join(format!("{:020}.log", MAX_SEGMENTS));
    let before = format!("{{\"epoch\":1,\"sequence\":{},\"hash\":\"{}\"}}\n", MAX_SEGMENTS - 1, "0".repeat(64));
    fs::write(&real, before).expect("written");
    let log = IssuanceLog::open(directory.path(), None).expect("opened");
    let per_segment = usize::try_from(MAX_SEGMENT_BYTES).expect("fits") / MAX_OBJECT_BYTES;
    for _ in 0..per_segment + 2048 {
        log.append(event("x".repeat(2 * MAX_OBJECT_BYTES)));
    }
    log.close();
    let names: Vec<_> =
        fs::read_dir(directory.path()).expect("listed").map(|entry| entry.expect("entry").path()).collect();
    let names: Vec<_> = names.into_iter().filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    assert_eq!(names.len(), MAX_SEGMENTS);
    let newest = names.iter().max().expect("some");
    assert!(*newest > real, "{newest:?}");
    assert!(names.iter().all(|path| fs::metadata(path).expect("there").len() < MAX_SEGMENT_BYTES + 4 * 1024 * 1024));
    let again = IssuanceLog::open(directory.path(), None).expect("the newest says what comes before it");
    assert_eq!(again.durable().borrow().sequence, log.durable().borrow().sequence);
    again.close();
}

/// How many records are there, and how many others `LeftOut` ones say are not.
fn kept_and_left_out(directory: &Path) -> (u64, u64) {
    let (mut kept, mut left_out) = (0, 0);
    let count = |object: &str| object.split(' ').next().and_then(|count| count.parse::<u64>().ok());
    let whole = read(directory, |record, _| match record.body.method.as_str() {
        "LeftOut" => left_out += count(&record.body.object).expect("a count"),
        _ => kept += 1,
    });
    whole.expect("whole").expect("there");
    (kept, left_out)
}

#[test]
fn what_does_not_fit_on_the_disk_is_counted_in_a_record() {
    let directory = tempfile::tempdir().expect("directory");
    let disk = directory.path().join("disk");
    SmallDisk::at(&disk, |small| {
        let log = IssuanceLog::open(&disk.join("log"), None).expect("opened");
        small.fill();
        let mut sent = 0;
        let in_trouble = || {
            log.append(issued("x".repeat(MAX_OBJECT_BYTES)));
            sent += 1;
            log.trouble().is_some()
        };
        expect_within(DEADLINE, "the log is in trouble", String::new, in_trouble);
        small.make_room();
        expect_within(DEADLINE, "the log is written again", String::new, || log.trouble().is_none());
        log.close();
        let (kept, left_out) = kept_and_left_out(&disk.join("log"));
        assert!(left_out > 0);
        assert_eq!(kept + left_out, sent);
    });
}

#[test]
fn what_was_left_out_when_a_server_ended_on_a_full_disk_is_counted_by_the_next() {
    let directory = tempfile::tempdir().expect("directory");
    let disk = directory.path().join("disk");
    SmallDisk::at(&disk, |small| {
        let log = IssuanceLog::open(&disk.join("log"), None).expect("opened");
        small.fill();
        let mut sent = 0;
        // What is left of the file's last page takes a short record, and be it the one that says how many are not there.
        let mut nothing_fits = || {
            log.append(issued("x".repeat(MAX_OBJECT_BYTES)));
            sent += 1;
            let tried_alone = Instant::now() + Duration::from_millis(1500);
            while Instant::now() < tried_alone {
                std::thread::yield_now();
            }
            log.trouble().is_some()
        };
        expect_within(DEADLINE, "nothing fits any more", String::new, &mut nothing_fits);
        assert!(nothing_fits(), "and it is not said to be written again while it is not");
        log.close();
        let (kept, told) = kept_and_left_out(&disk.join("log"));
        assert!(kept + told < sent, "{kept} of {sent}, {told} told");
        small.make_room();
        for _ in 0..2 {
            IssuanceLog::open(&disk.join("log"), None).expect("opened").close();
            let (kept, left_out) = kept_and_left_out(&disk.join("log"));
            assert_eq!(kept + left_out, sent, "once");
        }
    });
}

#[test]
fn no_more_waits_than_may_and_what_is_left_out_of_a_full_queue_is_counted() {
    let directory = tempfile::tempdir().expect("directory");
    let log = IssuanceLog::open(directory.path(), None).expect("opened");
    let each = MAX_WAITING * 4;
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| (0..each).for_each(|_| log.append(issued("x".into()))));
        }
    });
    expect_within(DEADLINE, "all is written or counted", String::new, || {
        let (kept, left_out) = kept_and_left_out(directory.path());
        kept + left_out == 2 * each as u64
    });
    log.close();
}

#[test]
fn heads_that_were_kept_are_held_against_the_newest_records_and_epochs() {
    let directory = tempfile::tempdir().expect("directory");
    let kept = log_of(directory.path(), 4);
    let log = IssuanceLog::open(directory.path(), None).expect("opened");
    assert_eq!(log.contradicts(&kept), Some(false));
    assert_eq!(log.contradicts(&ironroot_server::issuance_log::Head { hash: [7; 32], ..kept }), Some(true), "a fork");
    assert_eq!(log.contradicts(&ironroot_server::issuance_log::Head { sequence: 5, ..kept }), Some(true), "ahead");
    let older = ironroot_server::issuance_log::Head { epoch: kept.epoch - 1, sequence: 99, ..kept };
    assert_eq!(log.contradicts(&older), Some(false), "given up");
    log.close();
    let anew = IssuanceLog::open(directory.path(), Some(0)).expect("opened");
    anew.append(event("accepted"));
    anew.close();
    assert!(anew.durable().borrow().epoch > kept.epoch);
    assert_eq!(anew.contradicts(&ironroot_server::issuance_log::Head { sequence: 99, ..kept }), Some(false));
}

/// A server that tells of its state in no other way than by its log: everything that it has is put back.
fn copy_all(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp is there");
    assert!(status.success());
}

async fn shown_to(agent: &Agent, kept: &[u8]) -> Option<Vec<u8>> {
    let mut request = Request::new(GetAuthorizedEntriesRequest::default());
    request.metadata_mut().insert_bin(HEAD_METADATA, MetadataValue::from_bytes(kept));
    let answer = agent.entries().get_authorized_entries(request).await.expect("answered");
    answer.metadata().get_bin(HEAD_METADATA).map(|head| head.to_bytes().expect("bytes").to_vec())
}

fn authorities(server: &Server) -> Vec<CertificateDer<'static>> {
    use rustls_pki_types::pem::PemObject;
    CertificateDer::pem_slice_iter(server.bundle_pem().as_bytes()).collect::<Result<_, _>>().expect("PEM")
}

fn proven(server: &Server, head: &[u8]) -> IssuanceHead {
    issuance_head::verify(head, &authorities(server)).expect("signed by this server's CA")
}

/// Waits for a head with that record in it.
async fn head_after(server: &Server, agent: &Agent, sequence: u64) -> Vec<u8> {
    loop {
        let head = shown_to(agent, &[]).await.filter(|head| proven(server, head).sequence >= sequence);
        if let Some(head) = head {
            return head;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn everything_that_is_done_is_in_the_log_and_an_agent_that_asks_is_shown_its_signed_head() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let entry = server.create_entry(agent.id().as_str(), "/web", &["unix:uid:1"], &[]);
    let head = tokio::time::timeout(DEADLINE, head_after(&server, &agent, 4)).await.expect("in time");
    assert_eq!(shown_to(&agent, &head).await, None, "who has it is not sent it again");
    let plain = agent.entries().get_authorized_entries(GetAuthorizedEntriesRequest::default()).await.expect("answered");
    assert!(plain.metadata().get_bin(HEAD_METADATA).is_none(), "who does not ask is sent none");
    let mut changed = head.clone();
    let place = changed.windows(8).position(|bytes| bytes == b"sequence").expect("it says so") + 10;
    changed[place] ^= 1;
    assert_eq!(issuance_head::verify(&changed, &authorities(&server)), Err(HeadRefusal::Signature));
    let other = Server::start(&ServerOptions::default());
    assert_eq!(issuance_head::verify(&head, &authorities(&other)), Err(HeadRefusal::UnknownSigner));

    let config = server.config_path();
    let log =
        |arguments: &[&str]| server.cli(&[&["log"], arguments, &["-config", config.to_str().expect("UTF-8")]].concat());
    let shown = log(&["show", "-last", "100"]);
    for done in ["AttestAgent", "CreateJoinToken", "BatchCreateEntry", "Authority x509-CA-A", &entry] {
        assert!(shown.contains(done), "{done} is not in {shown}");
    }
    assert!(log(&["verify"]).contains("follow each other"));
    let said: serde_json::Value = serde_json::from_str(&log(&["head", "-output", "json"])).expect("JSON");
    assert!(said["sequence"].as_u64() >= Some(4), "{said}");
}

//= FLT-S5
#[tokio::test]
async fn a_server_that_was_put_back_whole_is_told_by_an_agents_head_and_waits_for_the_operators_word() {
    let mut server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    tokio::time::timeout(DEADLINE, head_after(&server, &agent, 1)).await.expect("in time");
    server.kill();
    let (data, copy) = (server.directory().join("data"), server.directory().join("copy"));
    copy_all(&data, &copy);
    server.restart();
    let again = client.agent_of(agent.credentials.clone()).await;
    for number in 0..5 {
        server.create_entry(agent.id().as_str(), &format!("/{number}"), &["unix:uid:1"], &[]);
    }
    let before = proven(&server, &shown_to(&again, &[]).await.expect("shown")).sequence;
    let kept = tokio::time::timeout(DEADLINE, head_after(&server, &again, before + 3)).await.expect("in time");
    server.kill();
    copy_all(&copy, &data);
    server.restart();
    let again = client.agent_of(agent.credentials.clone()).await;
    // The first head is signed soon after the start.
    let look = async || shown_to(&again, &kept).await.is_some();
    tokio::time::timeout(DEADLINE, async {
        while !look().await {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("in time");
    expect_within(DEADLINE, "the server ends", || server.log(), || server.log().contains("server stopped"));
    assert!(server.log().contains("an agent keeps a signed head of the issuance log"), "{}", server.log());
    server.spawn();
    let waits = || String::from_utf8_lossy(&server.cli_output(&["healthcheck"]).stderr).contains("keeps a signed head");
    expect_within(DEADLINE, "the server waits", || server.log(), waits);
    server.cli(&["restore", "accept", "-config", server.config_path().to_str().expect("UTF-8")]);
    let healthy = || server.cli_output(&["healthcheck"]).status.success();
    expect_within(DEADLINE, "the server goes on", || server.log(), healthy);
    // The same head is of an epoch that was given up: it says nothing any more.
    let again = client.agent_of(agent.credentials.clone()).await;
    let shown = tokio::time::timeout(DEADLINE, head_after(&server, &again, 1)).await.expect("in time");
    let epoch = |head: &[u8]| issuance_head::read(head).expect("a head").epoch;
    assert!(epoch(&shown) > epoch(&kept));
    shown_to(&again, &kept).await.expect("another one");
    assert!(healthy(), "{}", server.log());
}

/// Of a gateway, say, or of a server beside: it leads to the same bundle, and is none of this server's.
//= FLT-S5
#[tokio::test]
async fn a_head_that_another_ca_below_the_root_has_signed_ends_no_server() {
    let upstream = UpstreamFiles::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let server = Server::start(&ServerOptions { plugins: upstream.plugin(), ..ServerOptions::default() });
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let shown = tokio::time::timeout(DEADLINE, head_after(&server, &agent, 1)).await.expect("in time");
    let (chain, ca) = upstream.ca_beside();
    let statement = IssuanceHead { sequence: 1_000_000, ..issuance_head::read(&shown).expect("a head") };
    let statement = serde_json::to_vec(&statement).expect("JSON");
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &ca.key().serialize_der()).expect("a key");
    let signature = key.sign(&SystemRandom::new(), &issuance_head::signed_bytes(&statement)).expect("signed");
    let forged = issuance_head::encode(statement, signature.as_ref().to_vec(), chain).expect("short enough");
    assert_eq!(proven(&server, &forged).sequence, 1_000_000, "it leads to the bundle");
    shown_to(&agent, &forged).await.expect("the true one");
    let refused = || server.log().contains("another CA than the server's has signed it");
    expect_within(DEADLINE, "it is refused", || server.log(), refused);
    assert!(server.cli_output(&["healthcheck"]).status.success(), "{}", server.log());
}

#[test]
fn an_agent_keeps_the_head_over_restarts_tells_of_a_step_back_within_one_sync_and_goes_on_serving() {
    let mut server = Server::start(&ServerOptions::default());
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let uid = nix::unistd::geteuid().as_raw();
    let mut device = Device::manufacture(&maker);
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    server.create_entry(&device.agent_id(), "/probe", &[&format!("unix:uid:{uid}")], &[]);
    let agent_lines = format!("admin_socket_path = \"{}\"", device.admin_socket().display());
    device.provision(&server, &AgentOptions { agent_lines, ..AgentOptions::default() });
    device.start();
    device.expect_identity(uid);
    let kept = device.data_directory().join("issuance-heads.json");
    expect_within(DEADLINE, "the head is kept", || device.log(), || kept.exists());
    let status = |device: &Device| {
        let output =
            Command::new(binary("ironroot-agent")).args(["status", "-socketPath"]).arg(device.admin_socket()).output();
        String::from_utf8_lossy(&output.expect("it runs").stdout).into_owned()
    };
    let shown = wait_for(DEADLINE, || Some(status(&device)).filter(|text| text.contains("Issuance log")));
    assert!(shown.is_some_and(|text| text.contains("records of epoch")));

    server.kill();
    let (data, copy) = (server.directory().join("data"), server.directory().join("copy"));
    copy_all(&data, &copy);
    server.restart();
    let streams = |device: &Device| device.log().matches("the server tells of changes").count();
    expect_within(DEADLINE, "the agent listens again", || device.log(), || streams(&device) == 2);
    let records = |device: &Device| -> Option<u64> {
        let text = status(device);
        let line = text.lines().find(|line| line.starts_with("Issuance log"))?;
        line.split(": ").nth(1)?.split(' ').next()?.parse().ok()
    };
    let before = wait_for(DEADLINE, || records(&device)).expect("an agent that answers");
    let create = |number: u64| server.create_entry(&device.agent_id(), &format!("/{number}"), &["unix:uid:77"], &[]);
    (0..20).for_each(|number| drop(create(number)));
    // A head is signed some seconds after what was done, and comes with the next thing that the agent is told, which asks for nothing.
    let (mut created, mut number) = (Instant::now(), 20);
    let has_seen_more = || {
        if created.elapsed() > Duration::from_secs(1) {
            create(number);
            (created, number) = (Instant::now(), number + 1);
        }
        records(&device).is_some_and(|records| records >= before + 20)
    };
    expect_within(DEADLINE, "the agent has seen more", || device.log(), has_seen_more);
    assert_eq!(streams(&device), 2, "over the same stream");
    server.kill();
    copy_all(&copy, &data);
    server.restart();
    expect_within(DEADLINE, "the agent tells of it", || device.log(), || device.log().contains("a step back"));
    let is_shown = || status(&device).contains("the server shows a step back");
    expect_within(DEADLINE, "its status says so", || status(&device), is_shown);
    expect_within(DEADLINE, "the server is told", || server.log(), || server.log().contains("server stopped"));
    device.fetch(uid).expect("what is held goes on being served");
}
