//! The process behind a connection, admitted.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use ironroot_api::unix_socket::Tolerant;
use ironroot_api::watched::Watched;
use ironroot_attest::workload::{
    ConnectionWriter, Credentials, Peer, Report, UnixAttestor, Voice, Witnessed, WorkloadRefusal,
};
use ironroot_shell::logging::in_moderation;
use tokio::net::UnixStream;
use tracing::{error, warn};

use super::admission::{About, Admission, ConnectionSlot};
use super::broker::AuthenticatedBroker;
use super::paced::Paced;
use super::tally::Tally;
use super::tenancy::{PATIENCE, Tenancy};

/// What the log says where the kernel fails.
const UNASKED: &str = "cannot ask the kernel who connected";
const UNWATCHABLE: &str = "cannot watch for the exit of a caller";

/// Who is asking. Handlers find it among the request's extensions.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    known: Result<Known, Arc<WorkloadRefusal>>,
    connection: Arc<ConnectionSlot>,
    /// What it has proven by TLS, on the socket for brokers.
    broker: Option<Arc<AuthenticatedBroker>>,
}

/// A process that connected, and the connection's ear for it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub peer: Peer,
    pub voice: Voice,
}

impl Caller {
    /// Its process, or why that cannot be told.
    pub fn known(&self) -> Result<&Known, &WorkloadRefusal> {
        self.known.as_ref().map_err(Arc::as_ref)
    }

    /// Whom it has proven to be.
    pub fn broker(&self) -> Option<&Arc<AuthenticatedBroker>> {
        self.broker.as_ref()
    }

    /// The same, who has proven to be `broker`.
    pub fn proven(self, broker: AuthenticatedBroker) -> Self {
        Self { broker: Some(Arc::new(broker)), ..self }
    }

    /// Its process ID, if that can be told.
    pub fn pid(&self) -> Option<i32> {
        self.known().ok().map(|known| known.peer.pid())
    }

    /// What the connection holds of its user's share.
    pub fn connection(&self) -> &Arc<ConnectionSlot> {
        &self.connection
    }
}

/// What a connection must pass.
#[derive(Clone)]
pub(super) struct Gate {
    pub admission: Admission,
    pub attestor: Arc<UnixAttestor>,
    pub writers: ConnectionWriter,
    pub tally: Arc<Tally>,
}

/// A connection as the HTTP/2 server takes it.
pub(super) type LocalConnection = Watched<Tolerant<Paced<Witnessed>>, Tenancy>;

/// Takes in a new connection as it is, or drops it, which a gRPC client sees as `Unavailable`.
pub(super) fn admit(gate: &Gate, stream: UnixStream) -> Option<LocalConnection> {
    let (stream, tenancy) = take_in(gate, stream)?;
    Some(Watched::new(Tolerant::new(stream), tenancy, PATIENCE))
}

/// The same of a connection that is not to be read as it is yet.
pub(super) fn take_in(gate: &Gate, stream: UnixStream) -> Option<(Paced<Witnessed>, Tenancy)> {
    let Gate { admission, attestor, writers, .. } = gate;
    let now = Instant::now();
    let asked = Credentials::of(&stream);
    let asked = asked.inspect_err(|error| failed(UNASKED, error));
    let credentials = asked.ok()?;
    let uid = credentials.uid();
    let refused = |reason: &(dyn Error + 'static)| {
        if let Some(pass) = admission.should_log(uid, About::Connection, now) {
            warn!(uid, reason, suppressed = pass.suppressed, "refused a connection to the agent");
        }
    };
    let slot = admission.connect(uid, now).inspect_err(|crowded| refused(crowded)).ok()?;
    let peer = match attestor.peer(&stream, credentials) {
        Err(error @ (WorkloadRefusal::Exited { .. } | WorkloadRefusal::Credentials(_))) => {
            refused(&error);
            return None;
        }
        // Lives and can be helped: each request is answered with the reason.
        other => other.map_err(Arc::new),
    };
    let exit = peer.as_ref().ok().and_then(Peer::exit_event);
    let report = reporter(admission.clone(), uid);
    let (stream, known) = match peer {
        Err(refusal) => (Witnessed::of_nobody(stream), Err(refusal)),
        Ok(peer) => match Witnessed::begin(stream, peer.clone(), *writers, report.clone()) {
            Ok((stream, voice)) => (stream, Ok(Known { peer, voice })),
            Err(refusal) => {
                report(&refusal);
                return None;
            }
        },
    };
    let slot = Arc::new(slot);
    let stream = Paced::new(stream, slot.clone());
    let tenancy = Tenancy::new(Caller { known, connection: slot, broker: None }, exit);
    let tenancy = tenancy.inspect_err(|error: &io::Error| failed(UNWATCHABLE, error));
    Some((stream, tenancy.ok()?))
}

/// The kernel fails: of a caller that connects again and again this is said in moderation.
fn failed(what: &'static str, error: &(dyn Error + 'static)) {
    if let Some(pass) = in_moderation(what) {
        error!(error, suppressed = pass.suppressed, "{what}");
    }
}

/// Says why a connection of `uid` ends, once in a while.
fn reporter(admission: Admission, uid: u32) -> Report {
    Arc::new(move |refusal| {
        if let Some(pass) = admission.should_log(uid, About::Writer, Instant::now()) {
            let (reason, suppressed) = (refusal as &dyn Error, pass.suppressed);
            warn!(uid, reason, suppressed, "ended a connection to the agent");
        }
    })
}
