//! A workload's side of the Workload API, as small as it can be.

use std::path::Path;
use std::time::{Duration, Instant};

use ironroot_api::pb::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use ironroot_api::pb::workload::{
    JwtBundlesRequest, Jwtsvid, JwtsvidRequest, ValidateJwtsvidRequest, WitBundlesRequest, Witsvid, WitsvidRequest,
    X509svidRequest, X509svidResponse,
};
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
    Ok(client.fetch_x509svid(asking(X509svidRequest {})).await?.into_inner())
}

/// A request with the header that the standard asks for.
fn asking<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().expect("a legal header value"));
    request
}

/// FetchJWTSVID: a token for each identity of this process, or for `spiffe_id` if it is not empty.
pub async fn fetch_jwt(socket: &Path, audience: &[&str], spiffe_id: &str) -> Result<Vec<Jwtsvid>, Status> {
    let audience = audience.iter().map(|&audience| audience.to_owned()).collect();
    let request = JwtsvidRequest { audience, spiffe_id: spiffe_id.to_owned() };
    Ok(client(socket).await?.fetch_jwtsvid(asking(request)).await?.into_inner().svids)
}

/// ValidateJWTSVID: whose a token is, or why it is not good.
pub async fn validate_jwt(socket: &Path, audience: &str, token: &str) -> Result<String, Status> {
    let request = ValidateJwtsvidRequest { audience: audience.to_owned(), svid: token.to_owned() };
    Ok(client(socket).await?.validate_jwtsvid(asking(request)).await?.into_inner().spiffe_id)
}

/// The key IDs of the first message of FetchJWTBundles, sorted; of `trust_domain`, which must be the only one.
pub async fn jwt_key_ids(socket: &Path, trust_domain: &str) -> Result<Vec<String>, Status> {
    let mut stream = client(socket).await?.fetch_jwt_bundles(asking(JwtBundlesRequest {})).await?.into_inner();
    let message = stream.message().await?.ok_or_else(|| Status::unavailable("stream ended without a message"))?;
    let own = message.bundles.get(&format!("spiffe://{trust_domain}"));
    let own = own.filter(|_| message.bundles.len() == 1).ok_or_else(|| Status::internal("another trust domain"))?;
    let jwks: serde_json::Value = serde_json::from_slice(own).map_err(|e| Status::internal(e.to_string()))?;
    let keys = jwks["keys"].as_array().cloned().unwrap_or_default();
    let mut ids: Vec<String> = keys.iter().filter_map(|key| key["kid"].as_str().map(str::to_owned)).collect();
    ids.sort();
    Ok(ids)
}

/// The first message of FetchWITSVID, for all identities of this process or for `spiffe_id` if it is not empty.
pub async fn fetch_wit(socket: &Path, spiffe_id: &str) -> Result<Vec<Witsvid>, Status> {
    let request = WitsvidRequest { spiffe_id: spiffe_id.to_owned() };
    let mut stream = client(socket).await?.fetch_witsvid(asking(request)).await?.into_inner();
    let message = stream.message().await?.ok_or_else(|| Status::unavailable("stream ended without a message"))?;
    Ok(message.svids)
}

/// The JWK Set of `trust_domain` in the first message of FetchWITBundles.
pub async fn wit_keys(socket: &Path, trust_domain: &str) -> Result<serde_json::Value, Status> {
    let mut stream = client(socket).await?.fetch_wit_bundles(asking(WitBundlesRequest {})).await?.into_inner();
    let message = stream.message().await?.ok_or_else(|| Status::unavailable("stream ended without a message"))?;
    let own = message.bundles.get(&format!("spiffe://{trust_domain}")).map(String::as_str).unwrap_or_default();
    serde_json::from_str(own).map_err(|error| Status::internal(error.to_string()))
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
