//! gRPC over a unix socket, the client's side.

use std::path::Path;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::UnixSocketError;

/// Connects to the server at `path`. The channel reconnects by itself when the server returns.
pub async fn connect(path: &Path) -> Result<Channel, UnixSocketError> {
    let socket = path.to_owned();
    let connector = service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The address is never resolved: the connector knows where to go.
    let endpoint = Endpoint::from_static("http://localhost");
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|source| UnixSocketError::Connect { path: path.to_owned(), source })
}
