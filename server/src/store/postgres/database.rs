//! The engine: its connection and the one after it, transactions that come one after the other, commits whose fate is found out.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ironroot_api::TrustDomain;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, mpsc};
use tracing::info;

use super::claim::{Claim, try_claim};
use super::schema::{self, MIGRATIONS};
use super::{Address, Connection};
use crate::clock::Moment;
use crate::store::engine::{Engine, Next};
use crate::store::sql::Session;
use crate::store::{Facts, StoreError, Transaction};

/// How often is looked what other servers have written, even if nobody says that they have.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long another connection with our server's name is waited for: that of this server's process before this one.
const CLAIM_PATIENCE: Duration = Duration::from_secs(5);
/// How long this server's session of before is waited for once it was told to end.
const OWN_PATIENCE: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(100);

/// One writing transaction at a time, of all servers: whoever has locked the counter writes. A transaction of ours that has not ended
/// after so long is one whose answers did not come.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = '10s'; SELECT revision FROM revision FOR UPDATE";
const BEGIN_READING: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// An open database.
#[derive(Debug)]
pub(in crate::store) struct Database {
    address: Address,
    trust_domain: TrustDomain,
    runtime: Arc<Runtime>,
    connection: Connection,
    news: Arc<Notify>,
    look_at: Instant,
    /// Whether the last that was to be done was a look: the next one is counted from its end, so that messages have their turn however
    /// long it lasted.
    has_looked: bool,
    /// The name that no other server has meanwhile.
    claimed: Option<String>,
    /// Whether its connection is another one than that on which was compared last what the log says.
    is_new: bool,
    changed_before: u64,
}

/// Opens the database at `address`, and makes or migrates its tables. Not to be called on a thread of an asynchronous runtime.
pub(in crate::store) fn open(address: &Address, trust_domain: &TrustDomain) -> Result<Database, StoreError> {
    open_with(address, trust_domain, MIGRATIONS)
}

pub(super) fn open_with(
    address: &Address,
    trust_domain: &TrustDomain,
    migrations: &[&str],
) -> Result<Database, StoreError> {
    let (runtime, news) = (runtime()?, Arc::<Notify>::default());
    let address = address.clone().with_own_sessions();
    let connection = Connection::open(&address, &runtime, &news)?;
    schema::migrate(&connection, trust_domain, migrations)?;
    Ok(Database {
        address,
        trust_domain: trust_domain.clone(),
        runtime,
        connection,
        news,
        look_at: Instant::now() + LOOK_INTERVAL,
        has_looked: false,
        claimed: None,
        is_new: false,
        changed_before: 0,
    })
}

/// What a connection lives in: it runs while its thread waits for it.
pub(super) fn runtime() -> Result<Arc<Runtime>, StoreError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    Ok(Arc::new(runtime.map_err(|error| StoreError::Sql(Arc::new(error)))?))
}

impl Database {
    /// Begins a transaction; once more on a new connection if this one broke meanwhile.
    fn begin_by(&mut self, statements: &str) -> Result<(), StoreError> {
        if self.connection.broken().is_none() {
            match self.connection.batch(statements) {
                Err(_) if self.connection.broken().is_some() => {}
                Err(why) => {
                    self.rollback();
                    return Err(why);
                }
                Ok(()) => return Ok(()),
            }
        }
        self.reconnect()?;
        self.connection.batch(statements).inspect_err(|_| self.rollback())
    }

    fn reconnect(&mut self) -> Result<(), StoreError> {
        // What it holds in the database, a name among it, must not be in the way of the next one.
        self.connection.hang_up();
        let connection = Connection::open(&self.address, &self.runtime, &self.news)?;
        connection.count_from(self.connection.rows_changed());
        if let Some(server) = &self.claimed {
            claim_again(&connection, server)?;
        }
        (self.connection, self.is_new) = (connection, true);
        info!("connected to the database again");
        Ok(())
    }
}

/// The name that the connection before this one had. Its session in the database may not have ended yet.
fn claim_again(connection: &Connection, server: &str) -> Result<(), StoreError> {
    let deadline = Instant::now() + OWN_PATIENCE;
    loop {
        match try_claim(connection, server)? {
            Claim::Ours => return Ok(()),
            Claim::Another => return Err(StoreError::SameName(server.to_owned())),
            Claim::OwnBefore if Instant::now() > deadline => return Err(StoreError::OwnSession),
            Claim::OwnBefore => thread::sleep(RETRY),
        }
    }
}

impl Engine for Database {
    fn next<M>(&mut self, messages: &mut mpsc::Receiver<M>) -> Next<M> {
        if self.has_looked {
            self.look_at = Instant::now() + LOOK_INTERVAL;
        }
        let (news, look_at) = (self.news.clone(), tokio::time::Instant::from_std(self.look_at));
        let next = self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(look_at) => Next::Look,
                message = messages.recv() => message.map_or(Next::Nobody, Next::Message),
                () = news.notified() => Next::Look,
            }
        });
        self.has_looked = matches!(next, Next::Look);
        next
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.begin_by(BEGIN)?;
        self.changed_before = self.rows_changed();
        Ok(())
    }

    fn begin_reading(&mut self) -> Result<(), StoreError> {
        self.begin_by(BEGIN_READING)
    }

    fn run(&self, statement: &'static str) -> Result<(), StoreError> {
        self.connection.batch(statement)
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let Err(why) = self.connection.batch("COMMIT") else { return Ok(()) };
        let is_certain = self.connection.broken().is_none() || self.rows_changed() == self.changed_before;
        Err(if is_certain { why } else { StoreError::OutcomeUnknown(Arc::new(why)) })
    }

    fn is_unchecked(&self) -> bool {
        self.is_new
    }

    fn was_checked(&mut self) {
        self.is_new = false;
    }

    fn rollback(&self) {
        if self.connection.broken().is_none() {
            // If that fails, the connection is over, and its transaction with it.
            let _ = self.connection.batch("ROLLBACK");
        }
    }

    fn given_up(&self) -> Option<StoreError> {
        self.connection.broken()
    }

    fn tries_again(&self) -> bool {
        true
    }

    fn rows_changed(&self) -> u64 {
        self.connection.rows_changed()
    }

    fn facts(&self) -> Facts<'_> {
        Facts::new(self.session(), &self.trust_domain)
    }

    fn transaction(&self, moment: Moment) -> Transaction<'_> {
        Transaction::new(self.session(), &self.trust_domain, moment)
    }

    fn session(&self) -> Session<'_> {
        Session::Postgres(&self.connection)
    }

    fn tell_others(&self) {
        self.connection.notify();
    }

    fn claim(&mut self, server: &str) -> Result<(), StoreError> {
        let deadline = Instant::now() + CLAIM_PATIENCE;
        if self.connection.broken().is_some() || self.connection.batch("SELECT 1").is_err() {
            self.reconnect()?;
        }
        loop {
            match try_claim(&self.connection, server)? {
                Claim::Ours => break,
                Claim::Another if Instant::now() > deadline => return Err(StoreError::SameName(server.to_owned())),
                Claim::OwnBefore if Instant::now() > deadline => return Err(StoreError::OwnSession),
                Claim::Another | Claim::OwnBefore => thread::sleep(RETRY),
            }
        }
        self.claimed = Some(server.to_owned());
        Ok(())
    }

    fn close(self) {
        let Self { connection, runtime, .. } = self;
        drop(connection);
        // Lets the connection say its farewell.
        runtime.block_on(tokio::task::yield_now());
    }
}
