//! The one thread that owns the connection, and group commit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::StoreError;
use super::file::Database;

/// Changes that may wait. More callers than this wait for a place: the disk sets the pace.
const QUEUE: usize = 1024;
/// Most changes in one transaction: bounds how long the first of them waits for its commit.
const BATCH: usize = 256;

/// Runs one change (or, given why it cannot be run, answers at once).
type Job = Box<dyn FnOnce(Result<&Connection, StoreError>) -> Ran + Send>;
/// Answers a caller once the fate of the transaction is known.
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

struct Ran {
    keep: bool,
    answer: Answer,
}

enum Message {
    Change(Job),
    Close(oneshot::Sender<()>),
}

/// The queue's sending end.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
    trouble: Trouble,
}

/// Why the last change did not get to the disk; none once one has. Commits that changed nothing say nothing: SQLite does
/// not touch the disk for them.
#[derive(Clone, Default)]
struct Trouble(Arc<Mutex<Option<StoreError>>>);

impl Trouble {
    fn set(&self, why: Option<StoreError>) {
        *self.lock() = why;
    }

    fn lock(&self) -> MutexGuard<'_, Option<StoreError>> {
        // One value, replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Starts the thread that owns `database` until it is told to close, or until nobody can send to it any more.
    pub fn start(database: Database) -> Result<Self, StoreError> {
        let (queue, messages) = mpsc::channel(QUEUE);
        let (path, trouble) = (database.path.clone(), Trouble::default());
        let run = {
            let trouble = trouble.clone();
            move || write_until_closed(database, messages, &trouble)
        };
        thread::Builder::new().name("store".into()).spawn(run).map_err(|e| StoreError::open(&path, e))?;
        Ok(Self { queue, trouble })
    }

    /// Why the last change did not get to the disk; none if it did.
    pub fn trouble(&self) -> Option<StoreError> {
        self.trouble.lock().clone()
    }

    /// See [`super::Store::change`].
    pub async fn run<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        committed: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let outcome = connection.map_err(E::from).and_then(work);
            let keep = outcome.is_ok();
            let answer: Answer = Box::new(move |fate| {
                let outcome = fate.map_err(E::from).and(outcome);
                if let Ok(value) = &outcome {
                    committed(value);
                }
                // A caller that went away has its change all the same.
                let _ = reply.send(outcome);
            });
            Ran { keep, answer }
        });
        let closed = || E::from(StoreError::Closed);
        self.queue.send(Message::Change(job)).await.map_err(|_| closed())?;
        result.await.map_err(|_| closed())?
    }

    /// Waits until what is queued is done and the file is closed.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.queue.send(Message::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }
}

fn write_until_closed(database: Database, mut messages: mpsc::Receiver<Message>, trouble: &Trouble) {
    let mut closing = None;
    while closing.is_none() {
        let Some(first) = messages.blocking_recv() else { break };
        let mut jobs = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Change(job) => jobs.push(job),
                Message::Close(done) => closing = Some(done),
            }
            next = if closing.is_none() && jobs.len() < BATCH { messages.try_recv().ok() } else { None };
        }
        commit_all(&database.connection, jobs, trouble);
    }
    database.close();
    if let Some(done) = closing {
        let _ = done.send(());
    }
}

/// Commits all jobs, in one transaction unless SQLite gives one up half-way (full disk): then the jobs after it get a
/// transaction of their own.
fn commit_all(connection: &Connection, jobs: Vec<Job>, trouble: &Trouble) {
    let mut jobs = jobs.into_iter();
    while jobs.len() > 0 {
        if let Err(why) = connection.execute_batch("BEGIN IMMEDIATE").map_err(StoreError::from) {
            error!(error = %why, "database refused a transaction");
            trouble.set(Some(why.clone()));
            jobs.by_ref().for_each(|job| (job(Err(why.clone())).answer)(Err(why.clone())));
            return;
        }
        let changes_before = connection.total_changes();
        let (answers, fate) = run_and_commit(connection, &mut jobs, trouble);
        match &fate {
            Err(why) => {
                error!(error = why as &dyn std::error::Error, changes = answers.len(), "database refused a commit");
                trouble.set(Some(why.clone()));
            }
            Ok(()) if connection.total_changes() > changes_before => trouble.set(None),
            Ok(()) => {}
        }
        answers.into_iter().for_each(|answer| answer(fate.clone()));
    }
}

fn run_and_commit(
    connection: &Connection,
    jobs: &mut impl Iterator<Item = Job>,
    trouble: &Trouble,
) -> (Vec<Answer>, Result<(), StoreError>) {
    let mut answers = Vec::new();
    for job in jobs {
        let (answer, fate) = run_in_savepoint(connection, job, trouble);
        answers.extend(answer);
        if fate.is_err() {
            rollback(connection);
            return (answers, fate);
        }
    }
    let fate = connection.execute_batch("COMMIT").map_err(StoreError::from);
    if fate.is_err() {
        rollback(connection);
    }
    (answers, fate)
}

/// The job's answer if it is still owed, and whether the transaction around it still stands.
fn run_in_savepoint(connection: &Connection, job: Job, trouble: &Trouble) -> (Option<Answer>, Result<(), StoreError>) {
    if let Err(why) = connection.execute_batch("SAVEPOINT change").map_err(StoreError::from) {
        return (Some(job(Err(why.clone())).answer), Err(why));
    }
    let ran = job(Ok(connection));
    if !ran.keep && connection.is_autocommit() {
        // This job's own error says why; the ones before it learn that they went with it. Whoever hears of it may ask at once.
        trouble.set(Some(StoreError::RolledBack));
        (ran.answer)(Ok(()));
        return (None, Err(StoreError::RolledBack));
    }
    let end = if ran.keep { "RELEASE change" } else { "ROLLBACK TO change; RELEASE change" };
    (Some(ran.answer), connection.execute_batch(end).map_err(StoreError::from))
}

fn rollback(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(why) = connection.execute_batch("ROLLBACK")
    {
        error!(error = &why as &dyn std::error::Error, "database refused a rollback");
    }
}
