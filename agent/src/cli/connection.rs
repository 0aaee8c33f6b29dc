//! Reaching the agent's Workload API.

use std::path::{Path, PathBuf};

use clap::Args;
use ironroot_api::SpiffeId;
use ironroot_api::pb::hardware_key::hardware_key_client::HardwareKeyClient;
use ironroot_api::pb::hardware_key::{
    FetchIdentitiesRequest, FetchIdentitiesResponse, NewX509svidRequest, NewX509svidResponse,
};
use ironroot_api::pb::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use ironroot_api::pb::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, X509svidRequest, X509svidResponse,
};
use ironroot_api::unix_socket;
use ironroot_shell::command_line::{CommandError, SocketChoice, shown};
use prost::bytes::Bytes;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use crate::config::DEFAULT_SOCKET_PATH;

/// Where the package's agent serves workloads.
const PACKAGED_SOCKET: &str = "/run/ironroot-agent/public/api.sock";
/// Longest answer accepted, bytes: as much as an agent sends.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Flags of every command that asks the agent.
#[derive(Debug, Args)]
pub(super) struct Connection {
    /// The Workload API's socket; without the flag also environment variable SPIFFE_ENDPOINT_SOCKET
    #[arg(long = "socketPath", value_name = "PATH", default_value = DEFAULT_SOCKET_PATH)]
    socket_path: PathBuf,
    /// Name that replaces %i in the path given by environment variable SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
}

impl Connection {
    /// A channel to the agent.
    pub(super) async fn open(&self) -> Result<Channel, CommandError> {
        unix_socket::connect(&self.socket()?).await.map_err(CommandError::unreachable(PACKAGED_SOCKET))
    }

    /// Whether another socket than the usual one was named.
    pub(super) fn is_socket_named(&self) -> bool {
        self.socket_path != Path::new(DEFAULT_SOCKET_PATH)
    }

    /// The name given for %i.
    pub(super) fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }

    /// The stream of X.509-SVIDs: one message now, one at each change.
    pub(super) async fn x509_svids(&self) -> Result<Streaming<X509svidResponse>, CommandError> {
        let mut client = self.client().await?;
        Ok(client.fetch_x509svid(asking(X509svidRequest {})).await.map_err(advised)?.into_inner())
    }

    /// The stream of identities whose keys are in hardware, likewise.
    pub(super) async fn hardware_identities(&self) -> Result<Streaming<FetchIdentitiesResponse>, CommandError> {
        let mut client = self.hardware_client().await?;
        Ok(client.fetch_identities(asking(FetchIdentitiesRequest {})).await.map_err(advised)?.into_inner())
    }

    /// A certificate chain for a key in hardware: DER, one after the other. `csr`: a PKCS#10 request, DER.
    pub(super) async fn certified(&self, spiffe_id: &SpiffeId, csr: Vec<u8>) -> Result<Bytes, CommandError> {
        let request = NewX509svidRequest { spiffe_id: spiffe_id.to_string(), csr: csr.into() };
        let answered = self.hardware_client().await?.new_x509svid(asking(request)).await;
        let NewX509svidResponse { x509_svid } = answered.map_err(advised)?.into_inner();
        Ok(x509_svid)
    }

    async fn hardware_client(&self) -> Result<HardwareKeyClient<Channel>, CommandError> {
        let channel = self.open().await?;
        Ok(HardwareKeyClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// The JWT bundles, and JWT-SVIDs for `audience`: one for each identity, or for `spiffe_id` alone if that is not empty. Over one
    /// connection.
    pub(super) async fn jwt_bundles_and_svids(
        &self,
        audience: &[String],
        spiffe_id: &str,
    ) -> Result<(JwtBundlesResponse, JwtsvidResponse), CommandError> {
        let mut client = self.client().await?;
        let mut bundles = client.fetch_jwt_bundles(asking(JwtBundlesRequest {})).await.map_err(advised)?.into_inner();
        let ended = || CommandError::Malformed("the agent ended the stream without an answer".to_owned());
        let bundles = bundles.message().await?.ok_or_else(ended)?;
        let request = JwtsvidRequest { audience: audience.to_vec(), spiffe_id: spiffe_id.to_owned() };
        Ok((bundles, client.fetch_jwtsvid(asking(request)).await.map_err(advised)?.into_inner()))
    }

    /// Whether a JWT-SVID is good and for `audience`; a refusal that says so is [`CommandError::Malformed`] in SPIRE's words.
    pub(super) async fn validate(&self, audience: &str, svid: &str) -> Result<ValidateJwtsvidResponse, CommandError> {
        let request = ValidateJwtsvidRequest { audience: audience.to_owned(), svid: svid.to_owned() };
        match self.client().await?.validate_jwtsvid(asking(request)).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(refusal) if refusal.code() == Code::InvalidArgument => {
                Err(CommandError::Malformed(format!("SVID is not valid: {}", shown(refusal.message()))))
            }
            Err(refusal) => Err(advised(refusal).into()),
        }
    }

    async fn client(&self) -> Result<SpiffeWorkloadApiClient<Channel>, CommandError> {
        let channel = self.open().await?;
        Ok(SpiffeWorkloadApiClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    fn socket(&self) -> Result<PathBuf, CommandError> {
        let choice = SocketChoice {
            flag: &self.socket_path,
            instance: self.instance.as_deref(),
            template_variable: "SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE",
            variable: "SPIFFE_ENDPOINT_SOCKET",
            default: DEFAULT_SOCKET_PATH,
        };
        Ok(choice.resolve_here()?)
    }
}

/// A request as the Workload API wants it. Source: SPIFFE_Workload_API.md §3, against requests forged through another process.
pub(super) fn asking<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    request
}

/// A refusal of the agent's, which tells workloads no more than they need, with the place that tells its operator all.
fn advised(refusal: Status) -> Status {
    match refusal.code() {
        code @ (Code::PermissionDenied | Code::Unavailable) => Status::new(
            code,
            format!("{}; the agent's log says why, and \"ironroot-agent api explain\"", refusal.message()),
        ),
        _ => refusal,
    }
}
