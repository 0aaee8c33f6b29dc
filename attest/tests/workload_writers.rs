//! Connections whose every byte has a writer.
#![cfg(feature = "workload")]

#[path = "support/actor.rs"]
mod actor;

use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use actor::{Lab, peer_of, within_patience};
use ironroot_attest::workload::{ConnectionWriter, Silence, Voice, Witnessed, WriterRefusal};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[test]
fn acts_as_a_process() {
    actor::act();
}

/// Both ends of a connection of this process to itself, into which `queued` was written before it was accepted.
fn connection(queued: &[u8]) -> (UnixStream, tokio::net::UnixStream) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).expect("binds");
    setsockopt(&listener, sockopt::PassCred, &true).expect("asks for writers");
    let mut client = UnixStream::connect(&path).expect("connects");
    client.write_all(queued).expect("fits");
    let server = listener.accept().expect("accepts").0;
    server.set_nonblocking(true).expect("does not block");
    (client, tokio::net::UnixStream::from_std(server).expect("a stream"))
}

fn begin(stream: tokio::net::UnixStream) -> Result<(Witnessed, Voice), WriterRefusal> {
    let peer = peer_of(&stream).expect("a peer");
    Witnessed::begin(stream, peer, ConnectionWriter::Peer, Arc::new(|_: &WriterRefusal| {}))
}

#[tokio::test]
async fn what_waited_comes_first_and_whole_however_little_is_read_at_once() {
    let queued: Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
    let (mut client, server) = connection(&queued);
    let (mut server, _voice) = begin(server).expect("its own");
    client.write_all(b"later").expect("writes");
    drop(client);
    let mut read = Vec::new();
    let mut byte = [0];
    while server.read(&mut byte).await.expect("reads") == 1 {
        read.push(byte[0]);
    }
    assert_eq!(read, [&queued[..], b"later"].concat());
}

#[tokio::test]
async fn the_end_of_a_stream_is_no_strangers() {
    let (client, server) = connection(b"");
    let (mut server, voice) = begin(server).expect("its own");
    client.shutdown(Shutdown::Write).expect("ends");
    assert_eq!(server.read(&mut [0; 8]).await.expect("no error"), 0);
    assert_eq!(voice.second_write(Duration::from_millis(1)).await.expect_err("silent"), Silence::NotSince);
    server.write_all(b"an answer can still be written").await.expect("writes");
}

/// What a client may have sent before it hears our SETTINGS: RFC 9113 §6.9.2, and headers.
const FIRST_FLIGHT: usize = 80 * 1024;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const ACKNOWLEDGEMENT: &[u8] = &[0, 0, 0, 4, 1, 0, 0, 0, 0];

#[tokio::test]
async fn an_acknowledgement_that_waited_counts_for_nothing_wherever_it_stands_and_one_that_came_later_counts() {
    for queued in [2_000, FIRST_FLIGHT] {
        let mut bytes = [PREFACE, &ACKNOWLEDGEMENT.repeat(queued / ACKNOWLEDGEMENT.len())].concat();
        // The last begins early and ends late.
        bytes.extend_from_slice(&ACKNOWLEDGEMENT[..4]);
        let (mut client, server) = connection(&bytes);
        let (mut server, voice) = begin(server).expect("its own");
        client.write_all(&ACKNOWLEDGEMENT[4..]).expect("writes");
        let mut read = vec![0; bytes.len() + 5];
        server.read_exact(&mut read).await.expect("reads all");
        assert_eq!(voice.second_write(Duration::ZERO).await.expect_err("nothing new"), Silence::NotSince);
        client.write_all(ACKNOWLEDGEMENT).expect("writes");
        server.read_exact(&mut read[..9]).await.expect("reads");
        voice.second_write(Duration::ZERO).await.expect("acknowledged");
    }
}

#[tokio::test]
async fn bytes_of_a_process_that_has_exited_end_the_connection() {
    let lab = Lab::new();
    let mut workload = lab.start(&lab.program(), "connect");
    let stream = lab.accept();
    stream.set_nonblocking(true).expect("does not block");
    let answer = stream.try_clone().expect("the same connection");
    let stream = tokio::net::UnixStream::from_std(stream).expect("a stream");
    let peer = peer_of(&stream).expect("a peer");
    let (mut server, _voice) =
        Witnessed::begin(stream, peer.clone(), ConnectionWriter::Peer, Arc::new(|_: &WriterRefusal| {}))
            .expect("its own");
    server.write_all(b"?").await.expect("asks");
    // It has answered once its answer can be read, which is left alone.
    let mut waiting = [PollFd::new(answer.as_fd(), PollFlags::POLLIN)];
    poll(&mut waiting, PollTimeout::NONE).expect("waits");
    workload.kill();
    within_patience("it lives on", || (!peer.still_alive()).then_some(()));
    let error = server.read(&mut [0; 64]).await.expect_err("its PID may be another's");
    let refusal = error.get_ref().and_then(|inner| inner.downcast_ref::<WriterRefusal>());
    assert!(matches!(refusal, Some(WriterRefusal::PeerExited { .. })), "{error}");
    workload.reap();
}

#[test]
fn a_writer_that_the_agent_cannot_see_ends_the_connection() {
    let inside = "exec unshare --pid --fork --kill-child --mount-proc \"$0\" \"$@\"";
    let verdict = Lab::new().verdict_of_lender(inside);
    assert!(verdict.contains("a process that the agent cannot see wrote"), "{verdict}");
}
