//! Durable facts: entries, agents, join tokens, devices, the CA's journal.
//!
//! One thread owns the SQLite connection. Changes that wait in its queue are committed together; each is its own
//! savepoint, so one that fails takes nobody else with it. A method returns once its change is on disk.
//!
//! ```text
//!  registry, devices, ca ── change(work, committed) ──► queue ──► writer thread: BEGIN, work.., COMMIT, committed.., reply..
//! ```

mod agents;
mod ca_journal;
mod contradictions;
mod devices;
mod entries;
mod error;
mod file;
mod join_tokens;
mod schema;
#[cfg(test)]
mod tests;
mod transaction;
mod writer;

use std::path::Path;

use ironroot_api::TrustDomain;

pub use error::StoreError;
pub use transaction::Transaction;

use writer::Writer;

/// A handle to the server's database; clones share it.
#[derive(Clone)]
pub struct Store {
    trust_domain: TrustDomain,
    writer: Writer,
}

impl Store {
    /// Opens the database at `path`, or founds it if neither it nor a trace of it is there. Blocks: the whole file is
    /// checked before it is believed.
    pub fn open(path: &Path, trust_domain: &TrustDomain) -> Result<Self, StoreError> {
        let database = file::open(path, trust_domain)?;
        Ok(Self { trust_domain: trust_domain.clone(), writer: Writer::start(database)? })
    }

    /// Why [`open`](Self::open) would refuse the file at `path` for whose it is: SPIRE's, another trust domain's, a newer
    /// server's. Reads a few pages and changes nothing; a server may be running on it.
    pub fn recognise(path: &Path, trust_domain: &TrustDomain) -> Result<(), StoreError> {
        file::recognise(path, trust_domain)
    }

    /// The trust domain whose facts these are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Runs `work` in a transaction. If it succeeds and is on disk, `committed` is called on the writer's thread, in the
    /// order of the changes, and then the result is returned. Dropping the future changes nothing: what was queued runs.
    pub async fn change<T, E>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
        committed: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let trust_domain = self.trust_domain.clone();
        self.writer.run(move |connection| work(&Transaction::new(connection, &trust_domain)), committed).await
    }

    /// Runs `work` in a transaction; for what no memory mirrors.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.change(work, |_| ()).await
    }

    /// Why the last change did not get to the disk; none if it did. Answers at once: see [`Store::probe`].
    pub fn trouble(&self) -> Option<StoreError> {
        self.writer.trouble()
    }

    /// Writes something to the disk that leaves no trace in the tables, so that [`Store::trouble`] tells today's truth.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.run(|tx| {
            tx.connection.execute("INSERT INTO about (trust_domain) VALUES ('probe')", [])?;
            tx.connection.execute("DELETE FROM about WHERE rowid = last_insert_rowid()", [])?;
            Ok(())
        })
        .await
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
