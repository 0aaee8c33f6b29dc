//! The one thread that writes.

mod recent;
mod segments;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ironroot_shell::clock::wall_unix;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::chain::{Body, Head, MAX_OBJECT_BYTES, longest_object, push_line, recorded};
use super::error::LogError;
use super::kept;
use super::left_out::LeftOut;
use super::segment;
pub use recent::RECENT;
use recent::Recent;
use segments::Segments;

/// Events that may wait for the disk, some 300 bytes each. One more is left out, and counted in a record of its own.
pub const MAX_WAITING: usize = 16 * 1024;
/// Events that may wait for the disk beside those, of what operators did: nobody's SVIDs take this room, and as many are kept in memory while
/// nothing can be written. A server tells all bans anew as it starts, two events each.
pub const MAX_OPERATORS_WAITING: usize = 32 * 1024;
/// How often it is tried to write what is left as the log ends: what is in doubt first, and what has waited for that behind it.
const LAST_TRIES: usize = 3;
/// Records that are written at once.
const BATCH: usize = 1024;
/// What comes within this time of the first is written with it: a busy server's callers do not wake the thread for each record.
const GATHERING: Duration = Duration::from_millis(5);
/// What is written is on the disk after that time.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// What is written is on the disk before it is more than so many bytes: as many are kept to write them again.
const MAX_UNSYNCED_BYTES: usize = 4 * 1024 * 1024;

/// Something that was issued or changed.
#[derive(Clone, Debug)]
pub struct Event {
    /// See [`Body::method`].
    pub method: String,
    /// See [`Body::object`].
    pub object: String,
    /// See [`Body::by`].
    pub by: String,
}

/// An event, when it was, UNIX seconds, and how far the data store had come by then.
struct Queued {
    event: Event,
    at: i64,
    revision: Option<i64>,
}

impl Queued {
    fn is_kept(&self) -> bool {
        kept::is_kept_method(&self.event.method)
    }
}

/// The log, open; clones share it.
#[derive(Clone)]
pub struct IssuanceLog {
    shared: Arc<Shared>,
    durable: watch::Receiver<Head>,
}

struct Shared {
    queue: Mutex<Option<SyncSender<Queued>>>,
    /// Of what waits in it, how much is not of operators.
    others_waiting: AtomicUsize,
    /// How far the data store has come; below zero: nobody has said so yet.
    revision: AtomicI64,
    left_out: AtomicU64,
    recent: Mutex<Recent>,
    trouble: Mutex<Option<String>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Shared {
    fn new(queue: Option<SyncSender<Queued>>, recent: Recent, left_out: u64) -> Self {
        Self {
            queue: Mutex::new(queue),
            others_waiting: AtomicUsize::new(0),
            revision: AtomicI64::new(-1),
            left_out: AtomicU64::new(left_out),
            recent: Mutex::new(recent),
            trouble: Mutex::default(),
            thread: Mutex::default(),
        }
    }

    /// Whether there was room for it.
    fn queue(&self, queued: Queued) -> bool {
        let queue = lock(&self.queue);
        let Some(queue) = queue.as_ref() else { return false };
        let others = usize::from(!queued.is_kept());
        // Counted up under the queue's lock alone, and before the thread counts it down.
        if others > 0 && self.others_waiting.load(Ordering::Relaxed) >= MAX_WAITING {
            return false;
        }
        self.others_waiting.fetch_add(others, Ordering::Relaxed);
        let is_queued = queue.try_send(queued).is_ok();
        if !is_queued {
            self.others_waiting.fetch_sub(others, Ordering::Relaxed);
        }
        is_queued
    }
}

impl IssuanceLog {
    /// Opens the log in `directory`, or begins one. `given_up`: an older state was accepted, and heads of before count no more, up to
    /// that epoch and the log's own: the epoch that begins is on the disk on return, since a head that is shown must not go back.
    ///
    /// Blocks: the newest segment is read whole and proven.
    pub fn open(directory: &Path, given_up: Option<u64>) -> Result<Self, LogError> {
        segment::make(directory)?;
        let (mut segments, mut recent) = Segments::open(directory)?;
        let note = LeftOut::open(directory);
        let note = note.inspect_err(|why| warn!(error = %why, "what the issuance log leaves out is not noted")).ok();
        if let Some(given_up) = given_up {
            let epoch = now().max(recent.head.epoch.max(given_up).saturating_add(1));
            let begun = segments.begin_epoch(&Head { epoch, ..recent.head });
            recent.push(begun.map_err(|error| LogError::Io { doing: "write", path: directory.to_owned(), error })?);
        }
        let head = recent.head;
        let (queue, events) = sync_channel(MAX_WAITING + MAX_OPERATORS_WAITING);
        let (durable, shown) = watch::channel(head);
        let left_out = note.as_ref().map_or(0, LeftOut::noted);
        let shared = Arc::new(Shared::new(Some(queue), recent, left_out));
        let desk = Desk::new(segments, note, head, durable, Arc::clone(&shared));
        let run = move || desk.work(&events);
        let thread = thread::Builder::new().name("issuance log".into()).spawn(run);
        let thread = thread.map_err(|error| LogError::Io { doing: "write", path: directory.to_owned(), error })?;
        *lock(&shared.thread) = Some(thread);
        Ok(Self { shared, durable: shown })
    }

    /// Has it written down. Nothing is waited for.
    pub fn append(&self, event: Event) {
        let revision = Some(self.shared.revision.load(Ordering::Acquire)).filter(|revision| *revision >= 0);
        let queued = Queued { event, at: wall_unix(), revision };
        if !self.shared.queue(queued) {
            self.shared.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The data store has come to that revision, on the disk: what is appended from now on says so.
    pub fn data_store_at(&self, revision: i64) {
        self.shared.revision.store(revision, Ordering::Release);
    }

    /// The head of what is on the disk, now and after each change.
    pub fn durable(&self) -> watch::Receiver<Head> {
        self.durable.clone()
    }

    /// Whether a chain that has that head is another one, or goes beyond this one; none if it is too old to tell.
    pub fn contradicts(&self, kept: &Head) -> Option<bool> {
        let recent = lock(&self.shared.recent);
        if kept.epoch != recent.head.epoch {
            // An epoch of before was given up, by an operator's word or with the files.
            return Some(kept.epoch > recent.head.epoch);
        }
        if kept.sequence > recent.head.sequence {
            return Some(true);
        }
        recent.hash_of(kept.sequence).map(|hash| *hash != kept.hash)
    }

    /// Why nothing is written now; none if it is.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.shared.trouble).clone()
    }

    /// Writes what waits, and ends. Blocks.
    pub fn close(&self) {
        lock(&self.shared.queue).take();
        let thread = lock(&self.shared.thread).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            error!("the issuance log's thread ended early");
        }
    }
}

/// What the thread has before it.
struct Desk {
    segments: Segments,
    /// Where there is room for it.
    note: Option<LeftOut>,
    head: Head,
    durable: watch::Sender<Head>,
    shared: Arc<Shared>,
    synced: Instant,
    /// The lines that were written since what is durable.
    unsynced: Vec<u8>,
    /// Whether they may be missing on the disk, whatever the next sync says, or behind a part of a line that nobody could take back.
    is_in_doubt: bool,
    /// What operators did while nothing could be written, [`MAX_OPERATORS_WAITING`] at most; what was issued is only counted.
    held: Vec<Queued>,
}

impl Desk {
    fn new(
        segments: Segments,
        note: Option<LeftOut>,
        head: Head,
        durable: watch::Sender<Head>,
        shared: Arc<Shared>,
    ) -> Self {
        let (synced, unsynced, is_in_doubt, held) = (Instant::now(), Vec::new(), false, Vec::new());
        Self { segments, note, head, durable, shared, synced, unsynced, is_in_doubt, held }
    }

    fn work(mut self, events: &Receiver<Queued>) {
        loop {
            let first = match events.recv_timeout(SYNC_INTERVAL) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if first.is_some() {
                thread::sleep(GATHERING);
            }
            let batch: Vec<Queued> = first.into_iter().chain(events.try_iter().take(BATCH - 1)).collect();
            let others = batch.iter().filter(|queued| !queued.is_kept()).count();
            self.shared.others_waiting.fetch_sub(others, Ordering::Relaxed);
            self.write(batch);
            if self.synced.elapsed() >= SYNC_INTERVAL {
                self.sync();
            }
        }
        self.end();
    }

    fn end(&mut self) {
        for _ in 0..LAST_TRIES {
            self.write(Vec::new());
            self.sync();
        }
        if self.is_in_doubt {
            let lost = self.head.sequence.saturating_sub(self.durable.borrow().sequence);
            self.shared.left_out.fetch_add(lost, Ordering::Relaxed);
            self.note();
        }
        let (left_out, noted) = (self.left_out(), self.note.as_ref().map(LeftOut::noted));
        if left_out > 0 {
            let is_noted = noted == Some(left_out);
            error!(
                left_out,
                is_noted, "the issuance log ends without these records; what is noted the next start writes down"
            );
        }
    }

    /// With what is held: that is written down if this process has the time for it.
    fn left_out(&self) -> u64 {
        self.shared.left_out.load(Ordering::Relaxed) + self.held.len() as u64
    }

    /// What cannot be written now is counted, and what operators did of it is kept for later.
    fn put_off(&mut self, events: Vec<Queued>) {
        let mut left_out = 0;
        for queued in events {
            match queued.is_kept() && self.held.len() < MAX_OPERATORS_WAITING {
                true => self.held.push(queued),
                false => left_out += 1,
            }
        }
        self.shared.left_out.fetch_add(left_out, Ordering::Relaxed);
    }

    /// So that the next process knows how many, whatever becomes of this one.
    fn note(&mut self) {
        let left_out = self.left_out();
        if let Some(Err(why)) = self.note.as_mut().map(|note| note.note(left_out)) {
            warn!(error = %why, left_out, "how many records the issuance log leaves out is not noted any more");
            self.note = None;
        }
    }

    fn write(&mut self, events: Vec<Queued>) {
        if self.segments.is_full() {
            self.turn();
        }
        if self.is_in_doubt || self.segments.is_full() {
            return self.put_off(events);
        }
        let left_out = self.shared.left_out.swap(0, Ordering::Relaxed);
        let missing = (left_out > 0).then(|| {
            let (method, object) = ("LeftOut".to_owned(), format!("{left_out} records"));
            Queued { event: Event { method, object, by: String::new() }, at: wall_unix(), revision: None }
        });
        let events: Vec<Queued> = std::mem::take(&mut self.held).into_iter().chain(events).collect();
        let (mut lines, mut heads, mut head) = (Vec::new(), Vec::new(), self.head);
        for event in missing.iter().chain(&events) {
            let (record, next) = head.with(body(event, &head));
            push_line(&mut lines, &record);
            heads.push(next);
            head = next;
        }
        if heads.is_empty() {
            return;
        }
        let written = self.segments.write(&lines, head.epoch);
        self.tell(&written);
        match written {
            Ok(()) => {
                self.head = head;
                self.unsynced.append(&mut lines);
                let mut recent = lock(&self.shared.recent);
                heads.into_iter().for_each(|head| recent.push(head));
            }
            Err(_) => {
                self.is_in_doubt = self.segments.is_torn;
                self.shared.left_out.fetch_add(left_out, Ordering::Relaxed);
                self.put_off(events);
            }
        }
        if self.unsynced.len() > MAX_UNSYNCED_BYTES {
            self.sync();
        }
    }

    /// Another segment, once all of this one is on the disk.
    fn turn(&mut self) {
        self.sync();
        if !self.is_in_doubt {
            let turned = self.segments.turn(&self.head);
            self.tell(&turned);
        }
    }

    fn sync(&mut self) {
        self.synced = Instant::now();
        let durable = *self.durable.borrow();
        if durable == self.head && !self.is_in_doubt {
            return self.note();
        }
        let synced = match self.is_in_doubt {
            true => self.segments.write_again(&durable, &self.unsynced),
            false => self.segments.sync(),
        };
        self.is_in_doubt = synced.is_err();
        // What was written before the disk was full is on it; nothing is written again by that.
        if synced.is_err() || self.left_out() == 0 {
            self.tell(&synced);
        }
        if synced.is_ok() {
            self.unsynced = Vec::new();
            self.durable.send_replace(self.head);
            self.note();
        }
    }

    fn tell(&self, done: &io::Result<()>) {
        let mut trouble = lock(&self.shared.trouble);
        match (done, &*trouble) {
            (Err(why), None) => warn!(error = %why, "the issuance log is not written"),
            (Ok(()), Some(_)) => info!("the issuance log is written again"),
            _ => {}
        }
        *trouble = done.as_ref().err().map(ToString::to_string);
    }
}

fn body(Queued { event, at, revision }: &Queued, head: &Head) -> Body {
    let object = recorded(&event.object, longest_object(&event.method));
    let [method, by] = [&event.method, &event.by].map(|text| recorded(text, MAX_OBJECT_BYTES));
    Body { epoch: head.epoch, sequence: head.sequence + 1, at: *at, method, object, by, revision: *revision }
}

fn now() -> u64 {
    wall_unix().try_into().unwrap_or_default()
}

/// One value, replaced as a whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for IssuanceLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IssuanceLog({})", *self.durable.borrow())
    }
}

#[cfg(test)]
mod tests;
