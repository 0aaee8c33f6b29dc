//! The accept loop: a stream of connections that were admitted.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{error, warn};

use super::{PeerCredentials, SocketListener, UnixConnection};

/// How long to leave the backlog alone when `accept` fails for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts for ever; `admit` decides about each connection at once and drops what it refuses (having said why).
pub fn incoming<I, S, A>(
    listener: SocketListener,
    admit: A,
) -> impl Stream<Item = Result<UnixConnection<I, S>, Infallible>>
where
    A: FnMut(UnixStream) -> Option<UnixConnection<I, S>>,
{
    futures_util::stream::unfold((listener, admit), |(listener, mut admit)| async move {
        loop {
            let stream = next(&listener).await;
            if let Some(connection) = admit(stream) {
                return Some((Ok(connection), (listener, admit)));
            }
        }
    })
}

/// The next connection; while there is none to be had, says so once.
async fn next(listener: &SocketListener) -> UnixStream {
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok(stream) => return stream,
            Err(error) if !failing => {
                let path = listener.path().display();
                error!(%path, error = &error as &dyn Error, "cannot accept connections; trying again");
                failing = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What handlers find among a request's extensions behind [`local_incoming`].
#[derive(Clone, Debug)]
pub struct LocalPeer {
    /// Who connected.
    pub credentials: PeerCredentials,
    _slot: Arc<OwnedSemaphorePermit>,
}

/// Accepts at most `max_connections` at a time, for sockets whose mode already says who may connect.
pub fn local_incoming(
    listener: SocketListener,
    max_connections: usize,
) -> impl Stream<Item = Result<UnixConnection<LocalPeer>, Infallible>> {
    let slots = Arc::new(Semaphore::new(max_connections));
    let path = listener.path().to_owned();
    incoming(listener, move |stream| {
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            warn!(path = %path.display(), max_connections, "refused a connection: too many are open");
            return None;
        };
        let credentials = PeerCredentials::of(&stream).ok()?;
        Some(UnixConnection::new(stream, LocalPeer { credentials, _slot: Arc::new(slot) }))
    })
}
