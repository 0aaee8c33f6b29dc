//! Followers of the change log: memory that mirrors facts learns of them here, whoever wrote them.
//!
//! A follower stands at a position: the revision and the random ID of the newest row that it has taken in. The row at its
//! position proves that the log goes on from there; if it is another one, or gone, the follower takes in everything anew.
//!
//! ```text
//!  commit ──► catch_up ──► log after the position ──► News::Changes(which facts) ──► follower reads them ──► position moves
//!                              └── row is gone, or has another ID ──► News::Everything ──► follower reads all
//! ```

use std::collections::HashSet;
use std::hash::Hash;

use tracing::{info, warn};

use super::{Changed, Facts, StoreError};

/// Rows of the log that are taken in at once.
pub(super) const PAGE: usize = 1000;

/// What a follower is to take in.
#[derive(Debug)]
pub enum News {
    /// Whatever there is: it begins, or it cannot be told what it has missed.
    Everything,
    /// These facts, each once; what they are now is to be read.
    Changes(Vec<Changed>),
}

impl News {
    /// Whether that fact is among those that changed.
    pub fn names(&self, changed: &Changed) -> bool {
        matches!(self, Self::Changes(changes) if changes.contains(changed))
    }
}

/// Whether a follower wants to hear more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// Whoever holds its memory still looks at it.
    On,
    /// Nobody looks at its memory any more: it is told nothing again.
    Ended,
}

/// Takes news into memory. It runs on the store's thread, between a commit and the answers to those who asked for it. After an
/// error it is told the same again, later.
pub(super) type Follower = Box<dyn FnMut(&Facts<'_>, &News) -> Result<Follows, StoreError> + Send>;

/// A place in the log: its newest row that was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Counts changes, one after the other.
    pub revision: i64,
    /// Random: a revision that was issued again, after a rollback of the database, has another one.
    pub id: [u8; 16],
}

/// The log behind a position.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LogPage {
    /// Its next rows, [`PAGE`] at most; None where a row names nothing that we know.
    Rows(Vec<(Position, Option<Changed>)>),
    /// The log does not go on from there.
    Broken(Break),
}

/// Why a log does not go on from a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    /// The rows there were pruned.
    Pruned,
    /// The row there is another one, or there is none yet: the database was put back to an earlier state.
    OtherHistory,
}

/// Every follower with the position up to which it has taken the log in.
#[derive(Default)]
pub(super) struct Feed(Vec<(Position, Follower)>);

impl Feed {
    /// Has `follower` take in everything, and from then on what changes.
    pub fn begin(&mut self, facts: &Facts<'_>, mut follower: Follower) -> Result<(), StoreError> {
        // The position first: what is written after it is read again, what is written before it is not missed.
        let position = facts.log_end()?;
        if follower(facts, &News::Everything)? == Follows::On {
            self.0.push((position, follower));
        }
        Ok(())
    }

    /// Has every follower take in what was committed since. If one fails, the others go on, and its position stays.
    pub fn catch_up(&mut self, facts: &Facts<'_>) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        self.0.retain_mut(|(position, follower)| match advance(facts, position, follower) {
            Ok(follows) => follows == Follows::On,
            Err(error) => {
                outcome = Err(error);
                true
            }
        });
        outcome
    }
}

fn advance(facts: &Facts<'_>, position: &mut Position, follower: &mut Follower) -> Result<Follows, StoreError> {
    loop {
        let (end, news, more) = match facts.log_after(position)? {
            LogPage::Rows(rows) => {
                let Some((end, _)) = rows.last() else { return Ok(Follows::On) };
                let (end, more) = (*end, rows.len() == PAGE);
                (end, News::Changes(once_each(rows.into_iter().filter_map(|(_, changed)| changed))), more)
            }
            LogPage::Broken(why) => {
                tell(why, *position);
                (facts.log_end()?, News::Everything, false)
            }
        };
        if follower(facts, &news)? == Follows::Ended {
            return Ok(Follows::Ended);
        }
        *position = end;
        if !more {
            return Ok(Follows::On);
        }
    }
}

fn tell(why: Break, position: Position) {
    let revision = position.revision;
    match why {
        Break::Pruned => info!(revision, "change log was pruned beyond our place in it: everything is read again"),
        Break::OtherHistory => {
            warn!(revision, "database was put back to an earlier state: everything is read again");
        }
    }
}

fn once_each<T: Hash + Eq + Clone>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    items.filter(|item| seen.insert(item.clone())).collect()
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(position, _)| position)).finish()
    }
}
