//! Two live connections of one agent: the newest, and whether somebody goes back to an older one.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::{Call, SETTLED, TURNS};

/// A newest connection that was silent for this long is over, and what is used beside it is no way back.
const SILENCE: Duration = Duration::from_secs(300);

/// An agent's newest connection, and the ways back from it.
#[derive(Debug)]
pub(super) struct Connections {
    opened: Instant,
    address: SocketAddr,
    dialled: SocketAddr,
    seen: Instant,
    /// Whether the last call came over an older one.
    went_back: bool,
    ways_back: u32,
}

impl Connections {
    pub fn new(call: Call<'_>, now: Instant) -> Self {
        let Call { opened, address, dialled, .. } = call;
        Self { opened, address, dialled, seen: now, went_back: false, ways_back: 0 }
    }

    /// The newest connection's address, when somebody has gone back from it to an older one often enough.
    pub fn note(&mut self, call: Call<'_>, now: Instant) -> Option<SocketAddr> {
        let is_over = now.saturating_duration_since(self.seen) >= SILENCE;
        if call.opened > self.opened || is_over {
            *self = Self::new(call, now);
            return None;
        }
        if call.opened == self.opened {
            (self.seen, self.went_back) = (now, false);
            return None;
        }
        let is_settled = now.saturating_duration_since(self.opened) >= SETTLED;
        if !self.went_back && is_settled && call.dialled == self.dialled {
            self.ways_back += 1;
        }
        self.went_back = true;
        (self.ways_back >= TURNS).then(|| {
            self.ways_back = 0;
            self.address
        })
    }
}
