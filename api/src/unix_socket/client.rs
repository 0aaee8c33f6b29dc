//! gRPC over a unix socket, the client's side.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use nix::unistd::geteuid;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::UnixSocketError;
use crate::directory::closed_on_the_way_to;

/// How often, and with which pause, a full queue of waiting connections is tried again.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// Connects to the server at `path`. The channel reconnects by itself when the server returns.
pub async fn connect(path: &Path) -> Result<Channel, UnixSocketError> {
    let socket = path.to_owned();
    let connector = service_fn(move |_| {
        let socket = socket.clone();
        async move { open(&socket).await.map(TokioIo::new) }
    });
    // The address is never resolved: the connector knows where to go.
    let endpoint = Endpoint::from_static("http://localhost");
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|source| match closed_on_the_way_to(path) {
        Some(directory) => no_way(path, directory),
        None => UnixSocketError::Connect { path: path.to_owned(), source },
    })
}

fn no_way(socket: &Path, directory: PathBuf) -> UnixSocketError {
    let mode = fs::symlink_metadata(&directory).map_or(0, |facts| facts.mode() & 0o7777);
    UnixSocketError::NoWay { socket: socket.to_owned(), uid: geteuid().as_raw(), directory, mode }
}

/// Unlike TCP, a unix socket with a full backlog refuses at once (EAGAIN) whoever does not block.
async fn open(socket: &Path) -> io::Result<UnixStream> {
    for _ in 1..ATTEMPTS {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(PAUSE).await,
            connected => return connected,
        }
    }
    UnixStream::connect(socket).await
}
