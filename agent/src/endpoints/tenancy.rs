//! How long a caller's connection stays: until its process exits, its room goes to another user, or it is of no use.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ironroot_api::watched::{Patience, Tenure};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::broker::AuthenticatedBroker;
use super::caller::Caller;

/// How long a client has to send the HTTP/2 preface, and how long a connection may be without a stream: clients connect again
/// when they need one.
pub(super) const PATIENCE: Patience =
    Patience { preface: Duration::from_secs(10), idle: Duration::from_secs(300), age: None };

/// A caller on its connection.
#[derive(Debug)]
pub(super) struct Tenancy {
    caller: Caller,
    exit: Option<AsyncFd<Arc<OwnedFd>>>,
}

impl Tenancy {
    /// Ends as soon as `exit` becomes readable: a pidfd does when its process exits.
    pub fn new(caller: Caller, exit: Option<Arc<OwnedFd>>) -> io::Result<Self> {
        #[expect(deprecated, reason = "its successor is unsafe; an OwnedFd keeps its descriptor open and the same")]
        let exit = exit.map(|event| AsyncFd::with_interest(event, Interest::READABLE)).transpose()?;
        Ok(Self { caller, exit })
    }

    /// Who is on the connection.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The same, whose caller has proven to be `broker`.
    pub fn proven(self, broker: AuthenticatedBroker) -> Self {
        Self { caller: self.caller.proven(broker), ..self }
    }
}

impl Tenure for Tenancy {
    type Info = Caller;

    fn info(&self) -> Caller {
        self.caller.clone()
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(Poll::Ready(_)) = self.exit.as_ref().map(|event| event.poll_read_ready(cx)) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if self.caller.connection().eviction().poll_asked(cx) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "gave way to another connection"));
        }
        Ok(())
    }

    fn idle_since(&self) -> Option<Instant> {
        self.caller.connection().idle_since().map(Instant::from)
    }
}
