//! The process behind a connection, admitted.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use ironroot_api::unix_socket::{PeerCredentials, UnixConnection};
use ironroot_attest::workload::{Peer, WorkloadRefusal};
use tokio::net::UnixStream;
use tracing::{error, warn};

use super::admission::{Admission, Kind, Slot};

/// Who is asking. Handlers find it among the request's extensions.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    peer: Result<Peer, Arc<WorkloadRefusal>>,
    _connection: Arc<Slot>,
}

impl Caller {
    /// Its process, or why that cannot be told.
    pub fn peer(&self) -> Result<&Peer, &WorkloadRefusal> {
        self.peer.as_ref().map_err(Arc::as_ref)
    }
}

/// Takes in a new connection, or drops it, which a gRPC client sees as `Unavailable`.
pub(super) fn admit(admission: &Admission, stream: UnixStream) -> Option<UnixConnection<Caller>> {
    let now = Instant::now();
    let uid = match PeerCredentials::of(&stream) {
        Ok(peer) => peer.uid,
        Err(error) => {
            error!(error = &error as &dyn Error, "cannot ask the kernel who connected");
            return None;
        }
    };
    let refused = |reason: &str, error: Option<&(dyn Error + 'static)>| {
        if admission.should_log(uid, now) {
            warn!(uid, reason, error, "refused a connection to the Workload API");
        }
    };
    if !admission.is_in_rate(uid, now) {
        refused("its user connects or asks too often", None);
        return None;
    }
    let Some(slot) = admission.occupy(uid, Kind::Connection, now) else {
        refused("too many connections are open", None);
        return None;
    };
    let peer = match Peer::of(&stream) {
        Err(error @ (WorkloadRefusal::Exited { .. } | WorkloadRefusal::Credentials(_))) => {
            refused("its process cannot be told", Some(&error));
            return None;
        }
        // Lives and can be helped: each request is answered with the reason.
        other => other.map_err(Arc::new),
    };
    let exit = peer.as_ref().ok().and_then(Peer::exit_event);
    let connection = UnixConnection::new(stream, Caller { peer, _connection: Arc::new(slot) });
    let Some(exit) = exit else { return Some(connection) };
    let ending = connection.ending_with(exit);
    ending.inspect_err(|error| error!(error = error as &dyn Error, "cannot watch for the exit of a caller")).ok()
}
