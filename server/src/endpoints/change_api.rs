//! `ironroot.api.server.change.v1`: word to agents that something of theirs has changed, and what, so that they need not poll for it.

mod held;
mod kept;
mod pushes;
mod telling;

use std::sync::Arc;

use ironroot_api::pb::change::change_server::Change;
use ironroot_api::pb::change::{WatchChangesRequest, WatchChangesResponse};
use ironroot_api::tls::TlsPeer;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status};

use super::ServerState;
use super::accept::Watching;
use super::caller::{Source, granted};
use crate::rights::AuthenticatedAgent;
use held::Line;
use telling::Telling;

pub use kept::{MAX_KEPT_ENTRIES, MAX_KEPT_VIEWS};
pub use pushes::{MAX_HELD_STREAMS, MAX_HELD_STREAMS_PER_AGENT, Pushes};
pub use telling::{MAX_DELTA_BYTES, MAX_DELTA_ENTRIES};

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
        let connection = connection.ok_or_else(|| Status::internal("connection without a watch"))?;
        let line = Line { opened: connection.opened, sent: connection.sent.clone(), _place: place };
        let (asked, _, request) = request.into_parts();
        let mut telling = Telling::asked_by(request)?;
        let mut heads = MetadataMap::new();
        // Who is told what changes syncs rarely.
        if telling.is_of_deltas() {
            telling.goes_on_from(self.server.exchange_heads(&agent, &asked, &mut heads));
        }
        let words = held::hold(self.server.clone(), agent, line, telling, self.stopping.clone());
        Ok(Response::from_parts(heads, words, Extensions::new()))
    }
}
