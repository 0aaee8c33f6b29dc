//! An agent that is told what changes of what it may serve.

use ironroot_api::pb::change::change_client::ChangeClient;
use ironroot_api::pb::change::{WatchChangesRequest, WatchChangesResponse};
use ironroot_api::pb::types::EntryMask;
use tonic::Streaming;

use super::Agent;

impl Agent {
    /// A stream of deltas, whose first message was read.
    pub async fn listen(&self) -> Streaming<WatchChangesResponse> {
        let request = WatchChangesRequest { output_mask: Some(wanted_of_entries()), ..WatchChangesRequest::default() };
        let opened = ChangeClient::new(self.channel.clone()).watch_changes(request).await;
        let mut stream = opened.expect("held").into_inner();
        stream.message().await.expect("no error").expect("the first message");
        stream
    }
}

/// What SPIRE's agent asks of each entry.
pub fn wanted_of_entries() -> EntryMask {
    EntryMask {
        spiffe_id: true,
        selectors: true,
        federates_with: true,
        admin: true,
        downstream: true,
        revision_number: true,
        store_svid: true,
        hint: true,
        created_at: true,
        ..EntryMask::default()
    }
}
