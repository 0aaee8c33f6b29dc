//! The one thread that owns the connection, and group commit.

mod batch;
mod doubt;
mod job;
mod unfollowed;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::error;

use self::batch::Batch;
use self::doubt::Doubt;
use self::job::{Job, Work};
use self::unfollowed::Unfollowed;
use super::deciding::Deciding;
use super::engine::{Engine, Next};
use super::feed::{Feed, Follower};
use super::{Facts, StoreError, Transaction};

/// Changes that may wait. More callers than this wait for a place: the disk sets the pace.
const QUEUE: usize = 1024;
/// Most changes in one transaction: bounds how long the first of them waits for its commit.
const BATCH: usize = 256;
/// How often a transaction is tried that the engine gives up for a reason that passes: another server's writing, a connection that broke.
const MAX_TRIES: usize = 3;

/// Tells a caller how something went.
type Done = oneshot::Sender<Result<(), StoreError>>;

enum Message {
    Change(Box<dyn Job>),
    Follow(Follower, Done),
    CatchUp(Done),
    Claim(String, Done),
    Close(oneshot::Sender<()>),
}

/// The queue's sending end.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
    pub(super) deciding: Deciding,
    trouble: Trouble,
    /// Why nothing is written or taken in any more; none as long as it is.
    halted: watch::Receiver<Option<StoreError>>,
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
/// nothing say nothing: the disk is not touched for them.
#[derive(Clone, Default)]
struct Trouble(Arc<Mutex<Option<StoreError>>>);

impl Trouble {
    fn set(&self, why: Option<StoreError>) {
        *self.lock() = why;
    }

    /// Notes it, and says so in the log unless the same was said before and is so still. `changes`: how many callers are told.
    fn note(&self, why: &StoreError, what: &str, changes: usize) {
        let before = self.lock().replace(why.clone());
        if before.is_none_or(|before| before.to_string() != why.to_string()) {
            error!(error = why as &dyn std::error::Error, changes, "{what}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<StoreError>> {
        // One value, replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Starts the thread that owns `engine`'s connection until it is told to close, or until nobody can send to it any more.
    pub fn start(engine: impl Engine) -> Result<Self, StoreError> {
        let (queue, messages) = mpsc::channel(QUEUE);
        let trouble = Trouble::default();
        let (deciding, (halt, halted)) = (Deciding::default(), watch::channel(None));
        let (feed, clock) = (Feed::default(), deciding.clone());
        let desk =
            Desk { engine, feed, deciding: clock, trouble: trouble.clone(), doubt: None, unfollowed: None, halt };
        let run = move || desk.work(messages);
        thread::Builder::new().name("store".into()).spawn(run).map_err(|e| StoreError::Sql(Arc::new(e)))?;
        Ok(Self { queue, deciding, trouble, halted })
    }

    /// Why the last change did not get to the disk; none if it did.
    pub fn trouble(&self) -> Option<StoreError> {
        self.trouble.lock().clone()
    }

    /// Waits until nothing is written or taken in any more; why.
    pub async fn halted(&self) -> StoreError {
        let mut halted = self.halted.clone();
        loop {
            if let Some(why) = halted.borrow_and_update().clone() {
                return why;
            }
            if halted.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// See [`crate::store::Store::queue`].
    pub async fn queue<G, T, E>(
        &self,
        work: impl Fn(&Transaction<'_>) -> Result<(G, T), E> + Send + 'static,
    ) -> Queued<T, E>
    where
        G: Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let job = Box::new(Work::new(work, reply));
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

    /// See [`crate::store::Store::claim`].
    pub async fn claim(&self, server: &str) -> Result<(), StoreError> {
        self.ask(|done| Message::Claim(server.to_owned(), done)).await
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
struct Desk<E> {
    engine: E,
    feed: Feed,
    deciding: Deciding,
    trouble: Trouble,
    /// A commit whose answer was lost. Nothing is written behind it before it is known what became of it.
    doubt: Option<Doubt>,
    /// A commit that is done and not followed yet. Nothing is written behind it before it is.
    unfollowed: Option<Unfollowed>,
    halt: watch::Sender<Option<StoreError>>,
}

impl<E: Engine> Desk<E> {
    fn work(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut closing = None;
        while closing.is_none() {
            match self.engine.next(&mut messages) {
                Next::Message(first) => closing = self.attend_to(first, &mut messages),
                Next::Look => self.look(),
                Next::Nobody => break,
            }
        }
        self.give_up_doubt();
        self.give_up_unfollowed();
        self.engine.close();
        if let Some(done) = closing {
            let _ = done.send(());
        }
    }

    /// Whoever asks next hears of a failure; it is in the log already.
    fn look(&mut self) {
        if self.doubt.is_some() {
            self.commit_all(VecDeque::new());
        }
        if self.doubt.is_none() {
            let _ = self.catch_up();
        }
    }

    /// Who waits for the end, if this was the last message.
    fn attend_to(&mut self, first: Message, messages: &mut mpsc::Receiver<Message>) -> Option<oneshot::Sender<()>> {
        let Gathered { jobs, looks, then } = gather(first, messages);
        self.commit_all(jobs);
        self.look_for(looks);
        match then? {
            Message::Follow(follower, done) => {
                let begun = self.reading(|feed, facts| feed.begin(facts, follower));
                let _ = done.send(begun);
            }
            Message::Claim(server, done) => {
                let _ = done.send(self.engine.claim(&server));
            }
            Message::Close(done) => return Some(done),
            Message::Change(_) | Message::CatchUp(_) => {}
        }
        None
    }

    /// Answers by one look all who asked for it before it began.
    fn look_for(&mut self, looks: Vec<Done>) {
        if looks.iter().any(|done| !done.is_closed()) {
            let caught_up = self.catch_up();
            looks.into_iter().for_each(|done| drop(done.send(caught_up.clone())));
        }
    }

    /// Commits all jobs, in one transaction unless the engine gives one up half-way (a full disk): then the jobs after it get a
    /// transaction of their own. Callers hear of it once whoever follows has taken it in.
    fn commit_all(&mut self, mut jobs: VecDeque<Box<dyn Job>>) {
        // How often what is at the front was tried in vain.
        let mut failed = 0;
        while self.doubt.is_some() || !jobs.is_empty() {
            match self.begin(&mut jobs) {
                Ok(again) => failed += again,
                Err(why) => {
                    self.trouble.note(&why, "database refused a transaction", jobs.len());
                    jobs.drain(..).for_each(|job| job.answer(Err(why.clone())));
                    return self.end_old_doubt();
                }
            }
            if jobs.is_empty() {
                // There was a doubt, and it is answered.
                return self.engine.rollback();
            }
            let changes_before = self.engine.rows_changed();
            let mut batch = Batch::new(self.deciding.moment(), failed);
            let fate = batch.run_and_commit(&mut self.engine, &mut jobs, &self.trouble);
            if let Err(why) = &fate
                && batch.tries < MAX_TRIES
                && self.is_worth_another_try(why)
            {
                failed = batch.try_again(why, &mut jobs);
                continue;
            }
            failed = 0;
            let changed = self.engine.rows_changed() > changes_before;
            match (fate, batch.id) {
                (Err(StoreError::OutcomeUnknown(why)), Some(id)) => {
                    self.doubt = Some(Doubt::new(batch, id, why));
                }
                (fate, _) => self.finish(batch, fate, changed),
            }
        }
    }

    /// Begins a transaction behind all that was committed, in the history that was followed. How often what is to be done in it before all
    /// others was tried in vain.
    fn begin(&mut self, jobs: &mut VecDeque<Box<dyn Job>>) -> Result<usize, StoreError> {
        let halted = self.halt.borrow().clone();
        if let Some(why) = halted {
            self.give_up_doubt();
            return Err(why);
        }
        if self.unfollowed.is_some() {
            self.catch_up()?;
        }
        self.engine.begin()?;
        self.check_history().and_then(|()| self.resolve_doubt(jobs)).map_err(|why| {
            self.engine.rollback();
            self.noting_history(why)
        })
    }

    /// A check that failed, for whatever reason, is done again before anything is written.
    fn check_history(&mut self) -> Result<(), StoreError> {
        if self.engine.is_unchecked() {
            self.feed.check(&self.engine.facts())?;
            self.engine.was_checked();
        }
        Ok(())
    }

    /// After a loss of what was followed nothing is written any more.
    fn noting_history(&self, why: StoreError) -> StoreError {
        //= FLT-S28 server faults: "nothing is written into it"
        if matches!(why, StoreError::OtherHistory { .. }) {
            self.halt.send_replace(Some(why.clone()));
        }
        why
    }

    fn is_worth_another_try(&self, why: &StoreError) -> bool {
        self.engine.tries_again() && self.engine.given_up().is_some() && !matches!(why, StoreError::OutcomeUnknown(_))
    }

    /// Has what was committed taken in, and answers.
    fn finish(&mut self, batch: Batch, fate: Result<(), StoreError>, changed: bool) {
        match &fate {
            Err(why) => self.trouble.note(why, "database refused a commit", batch.jobs.len()),
            Ok(()) if changed => self.trouble.set(None),
            Ok(()) => {}
        }
        if fate.is_err() || batch.noted.is_empty() {
            return batch.answer(&fate);
        }
        self.unfollowed = Some(Unfollowed::new(batch));
        // Whoever waits for the commit is answered by that.
        let _ = self.catch_up();
    }

    fn catch_up(&mut self) -> Result<(), StoreError> {
        let caught_up = self.reading(|feed, facts| feed.catch_up(facts)).map_err(|why| self.noting_history(why));
        if let Err(why) = &caught_up {
            self.trouble.note(why, "what is in the database could not be taken into memory", 0);
        }
        self.settle(&caught_up);
        caught_up
    }

    /// In one transaction: what is read is one moment's.
    fn reading(
        &mut self,
        read: impl FnOnce(&mut Feed, &Facts<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let halted = self.halt.borrow().clone();
        if let Some(why) = halted {
            return Err(why);
        }
        self.engine.begin_reading()?;
        let read = read(&mut self.feed, &self.engine.facts());
        self.engine.rollback();
        read
    }
}

/// What waits at one moment.
struct Gathered {
    jobs: VecDeque<Box<dyn Job>>,
    /// Who waits for a look at what others have written.
    looks: Vec<Done>,
    /// What came behind them that is neither.
    then: Option<Message>,
}

/// The changes and looks that wait, [`BATCH`] at most.
fn gather(first: Message, messages: &mut mpsc::Receiver<Message>) -> Gathered {
    let (mut jobs, mut looks, mut next) = (VecDeque::new(), Vec::new(), Some(first));
    while let Some(message) = next {
        match message {
            Message::Change(job) => jobs.push_back(job),
            Message::CatchUp(done) => looks.push(done),
            other => return Gathered { jobs, looks, then: Some(other) },
        }
        next = if jobs.len() + looks.len() < BATCH { messages.try_recv().ok() } else { None };
    }
    Gathered { jobs, looks, then: None }
}
