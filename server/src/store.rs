//! Durable facts: entries, agents, join tokens, devices, the CA's journal. And a log of what changed, for memory to follow.
//!
//! One thread owns the engine's connection. Changes that wait in its queue are committed together; each is its own savepoint,
//! so one that fails takes nobody else with it. Each fact that a commit changes has a row in the change log, and whoever
//! mirrors facts in memory follows that log, whoever wrote it. A method returns once its change is on disk and followed.
//!
//! ```text
//!  registry, devices, ca ── change(work) ──► queue ──► store's thread: BEGIN, work.., log, COMMIT ──► feed ──► reply..
//!                                                                                                      │
//!  registry, devices, bundle ◄── follow(follower): News::Everything once, then News::Changes ◄─────────┘
//! ```

mod changed;
#[cfg(test)]
mod contract_tests;
mod deciding;
mod engine;
mod error;
mod feed;
mod location;
mod postgres;
mod shown_token;
pub mod spire;
mod sql;
mod sqlite;
mod summary;
mod token_use;
mod writer;

use std::path::Path;
use std::sync::Arc;

use ironroot_api::TrustDomain;
use tokio::sync::watch;

pub use changed::Changed;
pub use error::{Cause, StoreError};
pub use feed::{Follows, News};
pub use location::Location;
pub use postgres::{Address, AddressError};
pub use shown_token::ShownToken;
pub(crate) use sql::SLICE;
pub use sql::{Facts, Transaction};
pub use sqlite::{Belonging, StoppedStore};
pub use summary::Summary;
pub use token_use::{REMEMBERED_AFTER_END, TokenUse};
pub use writer::Queued;

use crate::clock::ServerClock;
use crate::facts::older_state::Evidence;
use crate::facts::tier::TierAuthorities;

/// A handle to the server's database; clones share it.
#[derive(Clone)]
pub struct Store {
    trust_domain: TrustDomain,
    writer: writer::Writer,
    is_shared: bool,
}

impl Store {
    /// Opens SQLite's database at `path`, or makes it if neither it nor a trace of it is there. Blocks: the whole file is
    /// checked before it is believed.
    pub fn open(path: &Path, trust_domain: &TrustDomain) -> Result<Self, StoreError> {
        let database = sqlite::open(path, trust_domain)?;
        Ok(Self { trust_domain: trust_domain.clone(), writer: writer::Writer::start(database)?, is_shared: false })
    }

    /// Why [`open`](Self::open) would refuse the file at `path` for whose it is: SPIRE's, another trust domain's, a newer
    /// server's. Reads a few pages and changes nothing; a server may be running on it.
    pub fn recognise(path: &Path, trust_domain: &TrustDomain) -> Result<(), StoreError> {
        sqlite::would_open(path, trust_domain)
    }

    /// What SQLite's file at `path` says, read without changing it and checked whole. Of today's schema, and with no server running on
    /// it.
    pub fn read_file<T>(
        path: &Path,
        trust_domain: &TrustDomain,
        read: impl FnOnce(&Facts<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        sqlite::read(path, trust_domain, read)
    }

    /// The trust domain whose facts these are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Whether several servers may have it open at once.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Runs `work` in a transaction. If it succeeds and is on disk, followers take it in, and then the result is returned.
    /// Dropping the future changes nothing: what was queued runs. An engine that several servers share may have to run `work`
    /// more than once.
    pub async fn change<T, E>(&self, work: impl Fn(&Transaction<'_>) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.queue(move |tx| Ok(((), work(tx)?))).await.answer().await
    }

    /// Runs `work`, which does `slice` of what there is to do at most, in a transaction of its own again and again, until it has done less;
    /// how much it has done in all. Other servers, and callers of this one, have their turn in between. After an error what was done before it stays done.
    pub async fn change_in_slices<E: From<StoreError> + Send + 'static>(
        &self,
        slice: i64,
        work: impl Fn(&Transaction<'_>) -> Result<usize, E> + Clone + Send + 'static,
    ) -> Result<usize, E> {
        let mut all = 0;
        loop {
            let done = self.change(work.clone()).await?;
            all += done;
            if done < slice as usize {
                return Ok(all);
            }
        }
    }

    /// As [`Store::change`], in two steps: whoever queues one change after the other has them done in that order, and waits for
    /// all their answers together. What `work` gives beside its result is held until followers have taken the change in, or
    /// until the change has failed, whether or not anybody waits for it.
    pub async fn queue<G, T, E>(
        &self,
        work: impl Fn(&Transaction<'_>) -> Result<(G, T), E> + Send + 'static,
    ) -> Queued<T, E>
    where
        G: Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.writer.queue(work).await
    }

    /// Has `follower` read everything now, and then told of each change, in the order of commits: of this handle's, and of
    /// other programs' at the next commit or [`Store::probe`]. It runs on the store's thread and must not wait for it.
    pub async fn follow(
        &self,
        follower: impl FnMut(&Facts<'_>, &News) -> Result<Follows, StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        self.writer.follow(Box::new(follower)).await
    }

    /// The CA's journal of this server, if it ever wrote one.
    pub async fn ca_journal(&self, server: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let server = server.to_owned();
        self.change(move |tx| tx.ca_journal(&server)).await
    }

    /// Every server's name, and its CA's journal.
    pub async fn ca_journals(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.change(|tx| tx.ca_journals()).await
    }

    /// Replaces the CA's journal of this server; durable on return.
    pub async fn put_ca_journal(&self, server: &str, journal: Vec<u8>) -> Result<(), StoreError> {
        let server = server.to_owned();
        self.change(move |tx| tx.put_ca_journal(&server, &journal)).await
    }

    /// Gives the journal of the server without a name to `server`, which has none; whether there was one.
    pub async fn name_ca_journal(&self, server: &str) -> Result<bool, StoreError> {
        let server = server.to_owned();
        self.change(move |tx| tx.name_ca_journal(&server)).await
    }

    /// Every authority of another tier.
    pub async fn tier_authorities(&self) -> Result<TierAuthorities, StoreError> {
        self.change(|tx| tx.tier_authorities()).await
    }

    /// What a join token is worth at that time. It is spent by the change that stores its agent.
    pub async fn join_token(&self, token: &str, now_unix: i64) -> Result<ShownToken, StoreError> {
        let token = token.to_owned();
        self.change(move |tx| tx.join_token(&token, now_unix)).await
    }

    /// Changes when the bundle may: when a CA's journal or an authority of another tier does, whoever wrote it; what this handle writes
    /// is marked before its writer goes on.
    pub async fn bundle_changes(&self) -> Result<watch::Receiver<u64>, StoreError> {
        let (changes, receiver) = watch::channel(0);
        let follower = move |_: &Facts<'_>, news: &News| {
            if matches!(news, News::Everything) || news.names(&Changed::CaJournal) || news.names(&Changed::Tiers) {
                changes.send_modify(|times| *times += 1);
            }
            Ok(if changes.is_closed() { Follows::Ended } else { Follows::On })
        };
        self.follow(follower).await?;
        Ok(receiver)
    }

    /// Why the last change did not get to the disk, or not from there into memory; none if it did. Answers at once: see
    /// [`Store::probe`].
    pub fn trouble(&self) -> Option<StoreError> {
        self.writer.trouble()
    }

    /// Writes something to the disk that leaves no trace in the tables, so that [`Store::trouble`] tells today's truth, and has
    /// followers take in what other programs wrote meanwhile.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.change(|tx| tx.leave_no_trace()).await?;
        self.catch_up().await
    }

    /// Has followers take in all that is in the database when this is asked, whoever wrote it. Whoever asks while others wait is answered
    /// with them, by one look.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        self.writer.catch_up().await
    }

    /// Waits until the database has another history than the one that was followed: a standby without the last commits has taken the place
    /// of the server before it. From then on every change is refused, and memory stays as it was.
    pub async fn went_back(&self) -> Evidence {
        match self.writer.halted().await {
            StoreError::OtherHistory { followed, found } => Evidence::Followed { followed, revision: found },
            _ => std::future::pending().await,
        }
    }

    /// From now on changes decide by that clock what time it is, and whether anything may be destroyed by it.
    pub fn decide_by(&self, clock: Arc<ServerClock>) {
        self.writer.deciding.by(clock);
    }

    /// From now on, and as long as this handle is open, no other server of that name is let in.
    pub async fn claim(&self, server: &str) -> Result<(), StoreError> {
        self.writer.claim(server).await
    }

    /// Finishes what is queued, closes the file and gives up the lock. Later calls on any clone fail.
    pub async fn close(&self) {
        self.writer.close().await;
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.trust_domain)
    }
}
