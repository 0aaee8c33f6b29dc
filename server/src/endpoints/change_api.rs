//! `ironroot.api.server.change.v1`: word to agents that something of theirs has changed, so that they need not poll for it.

mod held;
mod pushes;

use std::sync::Arc;

use ironroot_api::pb::change::change_server::Change;
use ironroot_api::pb::change::{WatchChangesRequest, WatchChangesResponse};
use ironroot_api::tls::TlsPeer;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::ServerState;
use super::accept::Watching;
use super::caller::{Source, granted};
use crate::rights::AuthenticatedAgent;

pub use pushes::{MAX_HELD_STREAMS, MAX_HELD_STREAMS_PER_AGENT, Pushes};

/// The change service.
#[derive(Clone, Debug)]
pub struct ChangeApi {
    pub(super) server: Arc<ServerState>,
    /// Becomes true when the server ends: a stream that is held must not hold it up.
    pub(super) stopping: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl Change for ChangeApi {
    type WatchChangesStream = ReceiverStream<Result<WatchChangesResponse, Status>>;

    async fn watch_changes(
        &self,
        request: Request<WatchChangesRequest>,
    ) -> Result<Response<Self::WatchChangesStream>, Status> {
        let agent: AuthenticatedAgent = granted(&request)?;
        let place = self.server.pushes.place(Source::of(agent.caller()));
        let place =
            place.ok_or_else(|| Status::resource_exhausted("too many streams are held; poll, and try again later"))?;
        let connection = request.extensions().get::<Watching<TlsPeer>>();
        let opened = connection.ok_or_else(|| Status::internal("connection without a watch"))?.opened;
        Ok(Response::new(held::hold(self.server.clone(), agent, place, opened, self.stopping.clone())))
    }
}
