//! Certificates of one agent that replace each other: whoever shows a replaced one has lost the newer, or never had it.

use std::net::SocketAddr;

use tokio::time::Instant;

use super::{Call, MEMORY, SETTLED, TURNS};

/// The certificate in use, and the one that must be lost if the agent is one.
#[derive(Debug)]
pub(super) struct Serials {
    in_use: String,
    since: Instant,
    lost: Option<Lost>,
    ways_back: u32,
    last_way_back: Option<Instant>,
}

#[derive(Debug)]
struct Lost {
    serial: String,
    /// Who showed an older one.
    shown_by: SocketAddr,
}

impl Serials {
    pub fn new(call: Call<'_>, now: Instant) -> Self {
        Self { in_use: call.serial.to_owned(), since: now, lost: None, ways_back: 0, last_way_back: None }
    }

    /// Where the other one is, when what must be lost was shown all the same, often enough.
    pub fn note(&mut self, call: Call<'_>, now: Instant) -> Option<SocketAddr> {
        let found = self.lost.take_if(|lost| lost.serial == call.serial);
        if call.is_current && call.serial != self.in_use {
            (self.in_use, self.since) = (call.serial.to_owned(), now);
        } else if !call.is_current && call.serial != self.in_use && self.is_settled(now) {
            self.lost = Some(Lost { serial: self.in_use.clone(), shown_by: call.address });
        }
        let other = found?.shown_by;
        let is_recent = self.last_way_back.is_some_and(|last| now.saturating_duration_since(last) < MEMORY);
        self.ways_back = if is_recent { self.ways_back + 1 } else { 1 };
        self.last_way_back = Some(now);
        (self.ways_back >= TURNS).then(|| {
            self.ways_back = 0;
            other
        })
    }

    fn is_settled(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= SETTLED
    }
}
