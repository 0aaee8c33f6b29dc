//! A workload's side of the Workload API, as small as it can be.

use std::path::Path;
use std::time::{Duration, Instant};

use ironroot_api::pb::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use ironroot_api::pb::workload::{X509svidRequest, X509svidResponse};
use ironroot_api::unix_socket;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// A client on `socket`. Nothing is sent yet.
pub async fn client(socket: &Path) -> Result<SpiffeWorkloadApiClient<Channel>, Status> {
    let channel = unix_socket::connect(socket).await.map_err(|e| Status::unavailable(e.to_string()))?;
    Ok(SpiffeWorkloadApiClient::new(channel))
}

/// Opens FetchX509SVID with the header that the standard asks for.
pub async fn watch(client: &mut SpiffeWorkloadApiClient<Channel>) -> Result<Streaming<X509svidResponse>, Status> {
    let mut request = Request::new(X509svidRequest {});
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().expect("a legal header value"));
    Ok(client.fetch_x509svid(request).await?.into_inner())
}

/// The first message of a new stream on a new connection.
pub async fn fetch(socket: &Path) -> Result<X509svidResponse, Status> {
    let mut stream = watch(&mut client(socket).await?).await?;
    stream.message().await?.ok_or_else(|| Status::unavailable("stream ended without a message"))
}

/// Asks until there is an identity: the answer, and how long after `since` it came.
pub async fn first_svid(
    socket: &Path,
    since: Instant,
    deadline: Duration,
) -> Result<(X509svidResponse, Duration), Status> {
    loop {
        match fetch(socket).await {
            Ok(response) => return Ok((response, since.elapsed())),
            Err(status) if since.elapsed() > deadline => return Err(status),
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}
