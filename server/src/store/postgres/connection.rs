//! One connection, and questions to it that end at a deadline.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::tls::NoTls;
use tokio_postgres::{AsyncMessage, Client, Config, Row, Statement};
use tracing::warn;

use super::address::Address;
use super::error::ends_connection;
use super::tls::Tls;
use crate::store::StoreError;
use crate::store::sql::Value;

/// How long one host has for TCP, TLS and the password.
const HOST_PATIENCE: Duration = Duration::from_secs(3);
/// How long an answer may be away, and each of its rows.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// Where servers tell each other that there is something new, and how.
const CHANNEL: &str = "ironroot";
const LISTEN: &str = "LISTEN ironroot";
const NOTIFY: &str = "NOTIFY ironroot";

/// What each connection is told at first: another server's transaction is waited for so long; a transaction of ours whose process
/// died or froze ends after so long, and so does a connection whose other end is gone.
const MANNERS: &str = "SET lock_timeout = '3s'; SET idle_in_transaction_session_timeout = '10s'; SET tcp_keepalives_idle = 5; \
                       SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; SET tcp_user_timeout = 10000";

/// A connection to the database. It is broken from the first answer that does not come, or that says that it is over.
#[derive(Debug)]
pub struct Connection {
    runtime: Arc<Runtime>,
    client: Client,
    parsed: RefCell<HashMap<String, Statement>>,
    broken: RefCell<Option<StoreError>>,
    rows_changed: Cell<u64>,
    /// The number of the process at its other end: what that says is our own word.
    own: Arc<AtomicI32>,
    /// What carries questions and answers; with it the connection ends.
    serving: JoinHandle<()>,
}

/// The answer did not come in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", .0.as_secs())]
struct NoAnswer(Duration);

impl Connection {
    /// Connects to the first of the hosts that lets us. `news`: told when another server says that there is something new.
    pub fn open(address: &Address, runtime: &Arc<Runtime>, news: &Arc<Notify>) -> Result<Self, StoreError> {
        let unreachable = |error: io::Error| StoreError::Unreachable(Arc::new(error));
        let tls = address.proof().map(Tls::of).transpose().map_err(unreachable)?;
        let mut last = None;
        for config in address.each_host() {
            let own = Arc::<AtomicI32>::default();
            let connecting = connect(&config, tls.clone(), Ears { news: news.clone(), own: own.clone() });
            match runtime.block_on(async { timeout(HOST_PATIENCE, connecting).await }) {
                Ok(Ok(connected)) => return Self::begin(connected, runtime, own),
                Ok(Err(why)) => last = Some(why),
                Err(_) => last = Some(StoreError::Unreachable(Arc::new(NoAnswer(HOST_PATIENCE)))),
            }
        }
        Err(last.unwrap_or(StoreError::Closed))
    }

    fn begin(
        (client, serving): (Client, JoinHandle<()>),
        runtime: &Arc<Runtime>,
        own: Arc<AtomicI32>,
    ) -> Result<Self, StoreError> {
        let (parsed, broken, rows_changed) = (RefCell::default(), RefCell::default(), Cell::default());
        let connection = Self { runtime: runtime.clone(), client, parsed, broken, rows_changed, own, serving };
        connection.batch(MANNERS)?;
        connection.learn_own()?;
        // A database that has no NOTIFY is looked at each second all the same.
        let listening = connection.client.batch_execute(LISTEN);
        let listening = runtime.block_on(async { timeout(DEADLINE, listening).await });
        match listening {
            Ok(Err(error)) if error.code().is_none() => Err(connection.judge(error)),
            Ok(_) => Ok(connection),
            Err(_) => Err(connection.breaks(StoreError::Unreachable(Arc::new(NoAnswer(DEADLINE))))),
        }
    }

    fn learn_own(&self) -> Result<(), StoreError> {
        self.each("SELECT pg_backend_pid()::bigint", &[], &mut |row| {
            let number: i64 = row.try_get(0)?;
            self.own.store(number.try_into().unwrap_or_default(), Ordering::Relaxed);
            Ok(())
        })
    }

    /// Why it can be asked no more; none if it can.
    pub fn broken(&self) -> Option<StoreError> {
        self.broken.borrow().clone()
    }

    /// It is asked no more.
    pub fn breaks(&self, why: StoreError) -> StoreError {
        self.broken.replace(Some(why.clone()));
        why
    }

    /// Ends it at this end, so that the database's session ends too, and gives back what it holds.
    pub fn hang_up(&mut self) {
        if self.broken().is_none() {
            self.breaks(StoreError::Closed);
        }
        self.serving.abort();
        if !self.serving.is_finished() {
            // Ended by force is how it is meant to end.
            let _ = self.runtime.block_on(&mut self.serving);
        }
    }

    /// How many rows were changed through it.
    pub fn rows_changed(&self) -> u64 {
        self.rows_changed.get()
    }

    /// Takes over the count of the connection before it.
    pub fn count_from(&self, rows: u64) {
        self.rows_changed.set(rows);
    }

    /// Runs statements that take no values and give nothing back.
    pub fn batch(&self, statements: &str) -> Result<(), StoreError> {
        self.ask(self.client.batch_execute(statements))
    }

    /// See [`crate::store::sql::Session::execute`].
    pub fn execute(&self, statement: &str, values: &[&dyn Value]) -> Result<u64, StoreError> {
        let parsed = self.parsed(statement)?;
        let rows = self.ask(self.client.execute_raw(&parsed, postgres_values(values)))?;
        self.rows_changed.set(self.rows_changed.get() + rows);
        Ok(rows)
    }

    /// See [`crate::store::sql::Session::each`]. Rows are taken as they come.
    pub fn each(
        &self,
        statement: &str,
        values: &[&dyn Value],
        take: &mut dyn FnMut(&Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let parsed = self.parsed(statement)?;
        let rows = self.ask(self.client.query_raw(&parsed, postgres_values(values)))?;
        let mut rows = pin!(rows);
        while let Some(row) = self.ask(async { rows.next().await.transpose() })? {
            take(&row)?;
        }
        let changed = rows.rows_affected().unwrap_or_default();
        if !statement.starts_with("SELECT") {
            self.rows_changed.set(self.rows_changed.get() + changed);
        }
        Ok(())
    }

    /// Each statement is parsed once; there are as many as this store has.
    fn parsed(&self, statement: &str) -> Result<Statement, StoreError> {
        if let Some(parsed) = self.parsed.borrow().get(statement) {
            return Ok(parsed.clone());
        }
        // Parameters are written as SQLite has them.
        let text = statement.replace('?', "$");
        let parsed = self.ask(self.client.prepare(&text))?;
        self.parsed.borrow_mut().insert(statement.to_owned(), parsed.clone());
        Ok(parsed)
    }

    fn ask<T>(&self, question: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, StoreError> {
        if let Some(why) = self.broken() {
            return Err(why);
        }
        match self.runtime.block_on(async { timeout(DEADLINE, question).await }) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.judge(error)),
            Err(_) => Err(self.breaks(StoreError::Unreachable(Arc::new(NoAnswer(DEADLINE))))),
        }
    }

    fn judge(&self, error: tokio_postgres::Error) -> StoreError {
        let ends = ends_connection(&error);
        let why = StoreError::from(error);
        if ends { self.breaks(why) } else { why }
    }

    /// Tells other servers that there is something new.
    pub fn notify(&self) {
        if self.broken().is_none() {
            // A lost word costs them a second.
            let _ = self.batch(NOTIFY);
        }
    }
}

fn postgres_values<'v>(
    values: &'v [&'v dyn Value],
) -> impl ExactSizeIterator<Item = &'v (dyn tokio_postgres::types::ToSql + Sync)> {
    values.iter().map(|value| *value as &(dyn tokio_postgres::types::ToSql + Sync))
}

/// What hears others' words.
struct Ears {
    news: Arc<Notify>,
    own: Arc<AtomicI32>,
}

impl Ears {
    fn is_anothers(&self, process: i32) -> bool {
        process != self.own.load(Ordering::Relaxed)
    }
}

async fn connect(config: &Config, tls: Option<Tls>, ears: Ears) -> Result<(Client, JoinHandle<()>), StoreError> {
    match tls {
        Some(tls) => {
            let (client, connection) = config.connect(tls).await.map_err(not_connected)?;
            Ok((client, tokio::spawn(serve(connection, ears))))
        }
        None => {
            let (client, connection) = config.connect(NoTls).await.map_err(not_connected)?;
            Ok((client, tokio::spawn(serve(connection, ears))))
        }
    }
}

/// Of several hosts one that takes no writes is not connected to, which the client says as the system would.
fn not_connected(error: tokio_postgres::Error) -> StoreError {
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
    match source.map(io::Error::to_string).as_deref() {
        Some("database does not allow writes") => StoreError::ReadOnly,
        _ => error.into(),
    }
}

/// Carries questions and answers, and hears what nobody asked for, until the connection ends.
async fn serve<S, T>(mut connection: tokio_postgres::Connection<S, T>, ears: Ears)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
        match message {
            AsyncMessage::Notification(word) if word.channel() == CHANNEL && ears.is_anothers(word.process_id()) => {
                ears.news.notify_one()
            }
            // Such as that a commit is here, and was not waited for at the standby.
            AsyncMessage::Notice(notice) if notice.severity() == "WARNING" => {
                warn!(code = notice.code().code(), "the database warns: {}", notice.message());
            }
            _ => {}
        }
    }
}
