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
use ironroot_attest::workload::{ConnectionWriter, MAX_QUEUED_BYTES, Silence, Voice, Witnessed, WriterRefusal};
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

#[tokio::test]
async fn one_byte_more_than_is_kept_is_too_much() {
    let (_client, server) = connection(&vec![0; MAX_QUEUED_BYTES]);
    assert!(begin(server).is_ok());
    let (_client, server) = connection(&vec![0; MAX_QUEUED_BYTES + 1]);
    assert!(matches!(begin(server), Err(WriterRefusal::TooMuchQueued { .. })));
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
