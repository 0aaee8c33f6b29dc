//! What the console asks the server, over its admin socket.

use std::time::Duration;

use ironroot_api::SpiffeId;
use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::agent::{GetAgentRequest, ListAgentsRequest};
use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::pb::device::advise_on_entries_response::Advice;
use ironroot_api::pb::device::device_client::DeviceClient;
use ironroot_api::pb::device::{AdviseOnEntriesRequest, DeviceRecord, DeviceRequest, ListDevicesRequest};
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::entry::{ListEntriesRequest, ListEntriesResponse, list_entries_request};
use ironroot_api::pb::localauthority::local_authority_client::LocalAuthorityClient;
use ironroot_api::pb::localauthority::{GetX509AuthorityStateRequest, GetX509AuthorityStateResponse};
use ironroot_api::pb::server_status::status_client::StatusClient;
use ironroot_api::pb::server_status::{GetStatusRequest, GetStatusResponse};
use ironroot_api::pb::types::{Agent, AgentMask, Bundle, Entry};
use ironroot_shell::command_line::code_name;
use thiserror::Error;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

/// Devices, agents or entries asked for at once.
const PAGE_SIZE: i32 = 1000;
/// Longest answer accepted, bytes.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// Longest one question may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unanswered {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It was asked for what cannot be.
    #[error("{0}")]
    Malformed(String),
    /// The server said no, or says nothing.
    #[error("the server does not answer: {0}")]
    Failed(String),
}

impl From<Status> for Unanswered {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::NotFound => Self::NotFound(message),
            Code::InvalidArgument => Self::Malformed(message),
            code => Self::Failed(format!("{message} (code: {})", code_name(code))),
        }
    }
}

/// The server, asked anew each time.
#[derive(Clone, Debug)]
pub struct Server {
    channel: Channel,
}

impl Server {
    pub fn new(channel: Channel) -> Self {
        Self { channel }
    }

    pub async fn status(&self) -> Result<GetStatusResponse, Unanswered> {
        patiently(StatusClient::new(self.channel.clone()).get_status(GetStatusRequest {})).await
    }

    /// The devices that the request asks for, in the order they became known, until there are `most`.
    pub async fn devices(&self, mut request: ListDevicesRequest, most: usize) -> Result<Vec<DeviceRecord>, Unanswered> {
        let (mut client, mut devices) = (self.device_client(), Vec::new());
        request.page_size = PAGE_SIZE;
        loop {
            let page = patiently(client.list_devices(request.clone())).await?;
            devices.extend(page.devices);
            if page.next_page_token.is_empty() || devices.len() >= most {
                devices.truncate(most);
                return Ok(devices);
            }
            request.page_token = page.next_page_token;
        }
    }

    pub async fn device(&self, ek_sha256: &str) -> Result<DeviceRecord, Unanswered> {
        patiently(self.device_client().get_device(DeviceRequest { ek_sha256: ek_sha256.to_owned() })).await
    }

    pub async fn approve(&self, ek_sha256: &str) -> Result<DeviceRecord, Unanswered> {
        patiently(self.device_client().approve_device(DeviceRequest { ek_sha256: ek_sha256.to_owned() })).await
    }

    pub async fn ban(&self, ek_sha256: &str) -> Result<DeviceRecord, Unanswered> {
        patiently(self.device_client().ban_device(DeviceRequest { ek_sha256: ek_sha256.to_owned() })).await
    }

    /// Agents without their selectors, until there are `most`.
    pub async fn agents(&self, most: usize) -> Result<Vec<Agent>, Unanswered> {
        let mask = AgentMask {
            attestation_type: true,
            x509svid_expires_at: true,
            banned: true,
            agent_version: true,
            ..AgentMask::default()
        };
        let mut client = AgentClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let mut request = ListAgentsRequest { output_mask: Some(mask), page_size: PAGE_SIZE, ..Default::default() };
        let mut agents = Vec::new();
        loop {
            let page = patiently(client.list_agents(request.clone())).await?;
            agents.extend(page.agents);
            if page.next_page_token.is_empty() || agents.len() >= most {
                agents.truncate(most);
                return Ok(agents);
            }
            request.page_token = page.next_page_token;
        }
    }

    pub async fn agent(&self, id: &SpiffeId) -> Result<Agent, Unanswered> {
        let request = GetAgentRequest { id: Some(id.to_pb()), output_mask: None };
        patiently(AgentClient::new(self.channel.clone()).get_agent(request)).await
    }

    /// One page of entries.
    pub async fn entries(
        &self,
        filter: list_entries_request::Filter,
        page_size: i32,
        page_token: &str,
    ) -> Result<ListEntriesResponse, Unanswered> {
        let request = ListEntriesRequest {
            filter: Some(filter),
            page_size,
            page_token: page_token.to_owned(),
            ..ListEntriesRequest::default()
        };
        let client = EntryClient::new(self.channel.clone());
        patiently(client.max_decoding_message_size(MAX_ANSWER_BYTES).list_entries(request)).await
    }

    /// What an operator should know of each of the entries, in order.
    pub async fn advice(&self, entries: Vec<Entry>) -> Result<Vec<Advice>, Unanswered> {
        let client = self.device_client().max_encoding_message_size(MAX_ANSWER_BYTES);
        let mut client = client;
        Ok(patiently(client.advise_on_entries(AdviseOnEntriesRequest { entries })).await?.advice)
    }

    pub async fn bundle(&self) -> Result<Bundle, Unanswered> {
        patiently(BundleClient::new(self.channel.clone()).get_bundle(GetBundleRequest::default())).await
    }

    /// The CAs; none while there is none that signs.
    pub async fn x509_authorities(&self) -> Result<GetX509AuthorityStateResponse, Unanswered> {
        let mut client = LocalAuthorityClient::new(self.channel.clone());
        patiently(client.get_x509_authority_state(GetX509AuthorityStateRequest {})).await
    }

    fn device_client(&self) -> DeviceClient<Channel> {
        DeviceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }
}

async fn patiently<T>(asked: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Unanswered> {
    let late = || Unanswered::Failed(format!("nothing for {} seconds", PATIENCE.as_secs()));
    Ok(tokio::time::timeout(PATIENCE, asked).await.map_err(|_| late())??.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_of_whoever_asks_is_not_the_servers_silence() {
        let why = |status: Status| Unanswered::from(status).to_string();
        assert_eq!(
            why(Status::invalid_argument("ek_sha256 must be 64 hexadecimal digits")),
            "ek_sha256 must be 64 hexadecimal digits"
        );
        assert_eq!(why(Status::not_found("device not found")), "device not found");
        assert!(why(Status::unavailable("gone")).starts_with("the server does not answer: gone"));
    }
}
