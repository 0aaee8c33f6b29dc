//! The accept loop: a stream of connections that were admitted.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use futures_util::Stream;
use tokio::net::UnixStream;
use tracing::error;

use super::SocketListener;

/// How long to leave the backlog alone when `accept` fails for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts for ever; `admit` decides about each connection at once and drops what it refuses (having said why).
pub fn incoming<C, A>(listener: SocketListener, admit: A) -> impl Stream<Item = Result<C, Infallible>>
where
    A: FnMut(UnixStream) -> Option<C>,
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
