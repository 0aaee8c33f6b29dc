use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

const PATIENCE: Patience = Patience {
    preface: Duration::from_millis(100),
    idle: Duration::from_millis(300),
    age: Some(Duration::from_millis(900)),
};

struct Staged {
    idle_since: Option<Instant>,
    has_to_go: Arc<AtomicBool>,
}

impl Tenure for Staged {
    type Info = ();

    fn info(&self) {}

    fn poll_end(&mut self, _: &mut Context<'_>) -> io::Result<()> {
        if self.has_to_go.load(Ordering::Acquire) { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    fn idle_since(&self) -> Option<Instant> {
        self.idle_since
    }
}

fn watched(at_work: bool) -> (DuplexStream, Watched<DuplexStream, Staged>, Arc<AtomicBool>) {
    let (client, server) = duplex(64);
    let (idle_since, has_to_go) = ((!at_work).then(Instant::now), Arc::<AtomicBool>::default());
    let tenure = Staged { idle_since, has_to_go: has_to_go.clone() };
    (client, Watched::new(server, tenure, PATIENCE), has_to_go)
}

/// Reads the preface, then waits for the end.
async fn ended_after(preface: usize, at_work: bool) -> Duration {
    let (mut client, mut connection, _) = watched(at_work);
    let began = Instant::now();
    client.write_all(&vec![0; preface]).await.expect("written");
    connection.read_exact(&mut vec![0; preface]).await.expect("read");
    let error = connection.read(&mut [0; 1]).await.expect_err("the client says nothing");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    began.elapsed()
}

#[tokio::test]
async fn a_connection_without_a_preface_is_closed() {
    let ended = ended_after(PREFACE_BYTES - 1, false).await;
    assert!(ended >= PATIENCE.preface && ended < PATIENCE.idle, "{ended:?}");
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let ended = ended_after(PREFACE_BYTES, false).await;
    assert!(ended >= PATIENCE.idle && Some(ended) < PATIENCE.age, "{ended:?}");
}

#[tokio::test]
async fn a_connection_with_a_call_lives_to_its_age_and_no_longer() {
    assert!(Some(ended_after(PREFACE_BYTES, true).await) >= PATIENCE.age);
}

#[tokio::test]
async fn a_preface_that_has_arrived_counts_however_late_it_is_read() {
    let (mut client, mut connection, _) = watched(true);
    client.write_all(&[0; PREFACE_BYTES]).await.expect("written");
    tokio::time::sleep_until(connection.opened + PATIENCE.preface).await;
    connection.write_all(b"SETTINGS").await.expect("an HTTP/2 server speaks before it listens");
    connection.read_exact(&mut [0; PREFACE_BYTES]).await.expect("it was there in time");
}

#[tokio::test]
async fn a_connection_that_has_to_go_is_neither_read_nor_written() {
    let (mut client, mut connection, has_to_go) = watched(true);
    client.write_all(b"more").await.expect("written");
    has_to_go.store(true, Ordering::Release);
    for ended in [connection.read(&mut [0; 4]).await, connection.write(b"answer").await] {
        assert_eq!(ended.expect_err("over").kind(), io::ErrorKind::ConnectionAborted);
    }
}
