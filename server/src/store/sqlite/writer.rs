//! The one thread that owns the connection, and group commit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::change_log;
use super::file::Database;
use crate::store::feed::{Feed, Follower};
use crate::store::{Changed, StoreError, Transaction};

/// Changes that may wait. More callers than this wait for a place: the disk sets the pace.
const QUEUE: usize = 1024;
/// Most changes in one transaction: bounds how long the first of them waits for its commit.
const BATCH: usize = 256;

/// Runs one change (or, given why it cannot be run, answers at once).
type Job = Box<dyn FnOnce(Result<&Transaction<'_>, StoreError>) -> Ran + Send>;
/// Answers a caller once the fate of the transaction is known.
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Tells a caller how something went.
type Done = oneshot::Sender<Result<(), StoreError>>;

struct Ran {
    keep: bool,
    answer: Answer,
}

enum Message {
    Change(Job),
    Follow(Follower, Done),
    CatchUp(Done),
    Close(oneshot::Sender<()>),
}

/// The queue's sending end.
#[derive(Clone)]
pub(in crate::store) struct Writer {
    queue: mpsc::Sender<Message>,
    trouble: Trouble,
}

/// A change that has its place in the queue: it comes after all that were queued before it, and it is done whether or not its
/// answer is waited for.
#[derive(Debug)]
#[must_use = "what became of the change is in its answer"]
pub struct Queued<T, E>(Result<oneshot::Receiver<Result<T, E>>, E>);

impl<T, E: From<StoreError>> Queued<T, E> {
    /// A change that was refused before it came into the queue.
    pub fn refused(why: E) -> Self {
        Self(Err(why))
    }

    /// What became of it, once it is on disk and followed.
    pub async fn answer(self) -> Result<T, E> {
        self.0?.await.map_err(|_| E::from(StoreError::Closed))?
    }
}

/// Why the last change did not get to the disk, or from there to those who follow; none once one has. Commits that changed
/// nothing say nothing: SQLite does not touch the disk for them.
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
        let desk = Desk { database, feed: Feed::default(), trouble: trouble.clone() };
        let run = move || desk.work(messages);
        thread::Builder::new().name("store".into()).spawn(run).map_err(|e| StoreError::open(&path, e))?;
        Ok(Self { queue, trouble })
    }

    /// Why the last change did not get to the disk; none if it did.
    pub fn trouble(&self) -> Option<StoreError> {
        self.trouble.lock().clone()
    }

    /// See [`crate::store::Store::queue`].
    pub async fn queue<G, T, E>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<(G, T), E> + Send + 'static,
    ) -> Queued<T, E>
    where
        G: Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let job: Job = Box::new(move |transaction| {
            let outcome = transaction.map_err(E::from).and_then(work);
            let keep = outcome.is_ok();
            let answer: Answer = Box::new(move |fate| {
                let outcome = outcome.map(|(held, done)| {
                    drop(held);
                    done
                });
                // A caller that went away has its change all the same.
                let _ = reply.send(fate.map_err(E::from).and(outcome));
            });
            Ran { keep, answer }
        });
        let queued = self.queue.send(Message::Change(job)).await;
        Queued(queued.map(|()| result).map_err(|_| E::from(StoreError::Closed)))
    }

    /// See [`crate::store::Store::follow`].
    pub async fn follow(&self, follower: Follower) -> Result<(), StoreError> {
        self.ask(|done| Message::Follow(follower, done)).await
    }

    /// Has all followers take in what other programs have written meanwhile.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        self.ask(Message::CatchUp).await
    }

    async fn ask(&self, message: impl FnOnce(Done) -> Message) -> Result<(), StoreError> {
        let (done, result) = oneshot::channel();
        self.queue.send(message(done)).await.map_err(|_| StoreError::Closed)?;
        result.await.map_err(|_| StoreError::Closed)?
    }

    /// Waits until what is queued is done and the file is closed.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.queue.send(Message::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }
}

/// What the thread has before it.
struct Desk {
    database: Database,
    feed: Feed,
    trouble: Trouble,
}

impl Desk {
    fn work(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut closing = None;
        while closing.is_none() {
            let Some(first) = messages.blocking_recv() else { break };
            let (jobs, then) = gather(first, &mut messages);
            self.commit_all(jobs);
            match then {
                Some(Message::Follow(follower, done)) => {
                    let _ = done.send(self.feed.begin(&self.database.facts(), follower));
                }
                Some(Message::CatchUp(done)) => {
                    let _ = done.send(self.catch_up());
                }
                Some(Message::Close(done)) => closing = Some(done),
                Some(Message::Change(_)) | None => {}
            }
        }
        self.database.close();
        if let Some(done) = closing {
            let _ = done.send(());
        }
    }

    /// Commits all jobs, in one transaction unless SQLite gives one up half-way (full disk): then the jobs after it get a
    /// transaction of their own. Callers hear of it once whoever follows has taken it in.
    fn commit_all(&mut self, jobs: Vec<Job>) {
        let mut jobs = jobs.into_iter();
        while jobs.len() > 0 {
            if let Err(why) = run(&self.database.connection, "BEGIN IMMEDIATE") {
                error!(error = %why, "database refused a transaction");
                self.trouble.set(Some(why.clone()));
                jobs.by_ref().for_each(|job| (job(Err(why.clone())).answer)(Err(why.clone())));
                return;
            }
            let changes_before = self.database.connection.total_changes();
            let mut batch = Batch::default();
            let mut fate = batch.run_and_commit(&self.database, &mut jobs, &self.trouble);
            match &fate {
                Err(why) => {
                    let changes = batch.answers.len();
                    error!(error = why as &dyn std::error::Error, changes, "database refused a commit");
                    self.trouble.set(Some(why.clone()));
                }
                Ok(()) if self.database.connection.total_changes() > changes_before => self.trouble.set(None),
                Ok(()) => {}
            }
            if fate.is_ok() && !batch.noted.is_empty() {
                fate = self.catch_up();
            }
            batch.answers.into_iter().for_each(|answer| answer(fate.clone()));
        }
    }

    /// In one transaction: whoever reads outside of one locks the file anew for each question.
    fn catch_up(&mut self) -> Result<(), StoreError> {
        let connection = &self.database.connection;
        let caught_up = run(connection, "BEGIN").and_then(|()| {
            let caught_up = self.feed.catch_up(&self.database.facts());
            caught_up.and(run(connection, "COMMIT").inspect_err(|_| rollback(connection)))
        });
        if let Err(why) = &caught_up {
            error!(error = why as &dyn std::error::Error, "what is on disk could not be taken into memory");
            self.trouble.set(Some(why.clone()));
        }
        caught_up
    }
}

/// The changes that wait, [`BATCH`] at most, and what came behind them that is no change.
fn gather(first: Message, messages: &mut mpsc::Receiver<Message>) -> (Vec<Job>, Option<Message>) {
    let (mut jobs, mut next) = (Vec::new(), Some(first));
    while let Some(message) = next {
        match message {
            Message::Change(job) => jobs.push(job),
            other => return (jobs, Some(other)),
        }
        next = if jobs.len() < BATCH { messages.try_recv().ok() } else { None };
    }
    (jobs, None)
}

/// One transaction: answers that are owed, and what it changes.
#[derive(Default)]
struct Batch {
    answers: Vec<Answer>,
    noted: Vec<Changed>,
}

impl Batch {
    fn run_and_commit(
        &mut self,
        database: &Database,
        jobs: &mut impl Iterator<Item = Job>,
        trouble: &Trouble,
    ) -> Result<(), StoreError> {
        let ran = jobs.try_for_each(|job| self.run_in_savepoint(database, job, trouble));
        let fate = ran.and_then(|()| self.log_and_commit(&database.connection));
        if fate.is_err() {
            rollback(&database.connection);
        }
        fate
    }

    /// Whether the transaction around the job still stands.
    fn run_in_savepoint(&mut self, database: &Database, job: Job, trouble: &Trouble) -> Result<(), StoreError> {
        let connection = &database.connection;
        if let Err(why) = run(connection, "SAVEPOINT change") {
            self.answers.push(job(Err(why.clone())).answer);
            return Err(why);
        }
        let transaction = database.transaction();
        let ran = job(Ok(&transaction));
        if !ran.keep && connection.is_autocommit() {
            // This job's own error says why; the ones before it learn that they went with it. Whoever hears of it may ask at once.
            trouble.set(Some(StoreError::RolledBack));
            (ran.answer)(Ok(()));
            return Err(StoreError::RolledBack);
        }
        self.answers.push(ran.answer);
        if ran.keep {
            self.noted.extend(transaction.into_noted());
            return run(connection, "RELEASE change");
        }
        run(connection, "ROLLBACK TO change").and_then(|()| run(connection, "RELEASE change"))
    }

    fn log_and_commit(&self, connection: &Connection) -> Result<(), StoreError> {
        if !self.noted.is_empty() {
            change_log::append(connection, &self.noted)?;
        }
        run(connection, "COMMIT")
    }
}

/// Each is parsed once.
fn run(connection: &Connection, statement: &str) -> Result<(), StoreError> {
    connection.prepare_cached(statement)?.execute([])?;
    Ok(())
}

fn rollback(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(why) = connection.execute_batch("ROLLBACK")
    {
        error!(error = &why as &dyn std::error::Error, "database refused a rollback");
    }
}
