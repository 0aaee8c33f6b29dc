//! How much strangers can have this server ask of others at the same time.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Hosts asked at the same time: each is a connection, for ten seconds at most.
pub const MAX_QUESTIONS: usize = 512;
/// Questions to one host at the same time: one whose port says nothing takes no more.
pub const MAX_PER_HOST: usize = 2;
/// Names looked up at the same time. Each may hold a thread for as long as the name service is silent, also when nobody waits any more.
pub const MAX_LOOKUPS: usize = 32;

/// See the module.
#[derive(Debug)]
pub struct Questions {
    all: Semaphore,
    lookups: Arc<Semaphore>,
    hosts: Mutex<HashMap<String, usize>>,
}

/// A place for one question; given back on drop.
#[derive(Debug)]
pub(super) struct Place<'a> {
    questions: &'a Questions,
    host: &'a str,
    _one_of_all: SemaphorePermit<'a>,
}

impl Default for Questions {
    fn default() -> Self {
        Self {
            all: Semaphore::new(MAX_QUESTIONS),
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            hosts: Mutex::default(),
        }
    }
}

impl Questions {
    /// A place for a question to `host`; none while that host, or this server, has its share.
    pub(super) fn place<'a>(&'a self, host: &'a str) -> Option<Place<'a>> {
        let one_of_all = self.all.try_acquire().ok()?;
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = hosts.entry(host.to_owned()).or_default();
        if *asked >= MAX_PER_HOST {
            return None;
        }
        *asked += 1;
        Some(Place { questions: self, host, _one_of_all: one_of_all })
    }

    /// Where the host is. The name service's own patience may be longer than ours.
    pub(super) async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let turn = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let host = host.to_owned();
        let found = tokio::task::spawn_blocking(move || {
            let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
            drop(turn);
            found
        });
        found.await.map_err(io::Error::other)?
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut hosts = self.questions.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = hosts.get_mut(self.host) {
            *asked -= 1;
            if *asked == 0 {
                hosts.remove(self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_share_and_gives_it_back_and_nothing_is_remembered() {
        let questions = Questions::default();
        let held: Vec<_> = (0..MAX_PER_HOST).map(|_| questions.place("a").expect("a place")).collect();
        assert!(questions.place("a").is_none() && questions.place("b").is_some());
        drop(held);
        assert!(questions.place("a").is_some());
        assert!(questions.hosts.lock().expect("no panic").is_empty());
    }

    #[test]
    fn all_hosts_together_have_no_more_than_the_bound() {
        let questions = Questions::default();
        let names: Vec<String> = (0..MAX_QUESTIONS).map(|number| number.to_string()).collect();
        let held: Vec<_> = names.iter().map(|name| questions.place(name).expect("a place")).collect();
        assert!(questions.place("another").is_none());
        drop(held);
        assert!(questions.place("another").is_some());
    }

    #[tokio::test]
    async fn an_address_is_not_looked_up() {
        let questions = Questions { lookups: Arc::new(Semaphore::new(0)), ..Questions::default() };
        let found = questions.addresses("127.0.0.1", 80).await.expect("an address");
        assert_eq!(found, [SocketAddr::from(([127, 0, 0, 1], 80))]);
    }
}
