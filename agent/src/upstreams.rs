//! Where what workloads ask for is signed: at the server whose entry it is.

use tokio::sync::watch;

use crate::local_authority::TokenSigner;
use crate::requests::Requests;
use crate::server_channel::Channel;
use crate::server_number::ServerNumber;
use crate::trusted_time::{Moment, TrustedTime};

/// One server.
#[derive(Clone)]
pub struct Upstream {
    /// The connection that its loop holds.
    pub link: watch::Receiver<Option<Channel>>,
    /// Asks its loop for one, and for a newer bundle.
    pub requests: Requests,
    /// What is known of the time, by what that server says.
    pub time: TrustedTime,
    /// What signs JWT-SVIDs here while that server is away; none while it is not, or may not.
    pub local_tokens: watch::Receiver<Option<TokenSigner>>,
}

impl Upstream {
    /// The connection that is there, or one that the loop makes now. None while the loop knows that the server is away: no
    /// workload can make this agent dial.
    pub(crate) async fn channel(&self) -> Option<Channel> {
        let open = self.link.borrow().clone();
        match open {
            Some(channel) => Some(channel),
            None => self.requests.connection().await,
        }
    }
}

/// All of them, in the order of their numbers.
#[derive(Clone)]
pub struct Upstreams {
    first: Upstream,
    others: Vec<Upstream>,
}

impl Upstreams {
    /// In the order of the servers; none without a server.
    pub fn of(each: Vec<Upstream>) -> Option<Self> {
        let mut each = each.into_iter();
        Some(Self { first: each.next()?, others: each.collect() })
    }

    /// The one of this number; of a number that nobody has, the first.
    pub(crate) fn at(&self, server: ServerNumber) -> &Upstream {
        self.iter().nth(server.place()).unwrap_or(&self.first)
    }

    /// What is known of the time: by the first server that is known to be in time with this device's clock, or has spoken in this
    /// run; else by the first.
    pub(crate) fn moment(&self) -> Moment {
        let moments = self.iter().map(|one| one.time.moment());
        moments.into_iter().find(Moment::is_placed).unwrap_or_else(|| self.first.time.moment())
    }

    fn iter(&self) -> impl Iterator<Item = &Upstream> {
        std::iter::once(&self.first).chain(&self.others)
    }
}
