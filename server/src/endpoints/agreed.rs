//! What handshakes have agreed on, for whoever debugs. Strangers make handshakes at will, so the lines have a limit as all others about
//! them have, and of their own: these cost no line about a refusal.

use std::fmt::Display;
use std::hash::Hash;
use std::time::{Duration, Instant};

use ironroot_api::tls::key_exchange;
use ironroot_shell::logging::{LineRate, LogLimit};
use rustls::ServerConnection;
use tracing::Level;

/// Lines about one client's handshakes, and about all.
const LINES_PER_CLIENT: LineRate = LineRate { burst: 5, interval: Duration::from_secs(10) };
const LINES_IN_ALL: LineRate = LineRate { burst: 100, interval: Duration::from_millis(200) };

/// The lines of one listener.
#[derive(Debug)]
pub struct AgreedLog<K>(LogLimit<K>);

impl<K: Hash + Eq + Clone> AgreedLog<K> {
    /// None yet.
    pub fn new() -> Self {
        Self(LogLimit::new(LINES_PER_CLIENT, LINES_IN_ALL))
    }

    /// `what` has come about with `client`.
    pub fn say(&self, client: K, address: impl Display, connection: &ServerConnection, what: &'static str) {
        if tracing::enabled!(Level::DEBUG)
            && let Some(pass) = self.0.admit(client, Instant::now())
        {
            let suppressed = pass.suppressed;
            tracing::debug!(%address, key_exchange = ?key_exchange(connection), suppressed, "{what}");
        }
    }
}
