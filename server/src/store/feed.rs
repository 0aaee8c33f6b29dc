//! Followers of the change log: memory that mirrors facts learns of them here, whoever wrote them.
//!
//! A follower stands at a position: the revision and the random ID of the newest row that it has taken in. The row at its
//! position proves that the log goes on from there; if it was pruned, the follower takes in everything anew; if it is another one,
//! nothing more is taken in.
//!
//! ```text
//!  commit ──► catch_up ──► log after the position ──► News::Changes(which facts) ──► follower reads them ──► position moves
//!                              ├── row was pruned ──► News::Everything ──► follower reads all
//!                              └── row has another ID, or is not there yet ──► an error: commits that were followed are lost
//! ```

use std::collections::HashSet;
use std::hash::Hash;

use tracing::info;

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
    /// The row there is another one, or there is none yet: the database was put back to an earlier state, which has come so far.
    OtherHistory(i64),
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

    /// An error if the log does not go on from where followers stand.
    pub fn check(&self, facts: &Facts<'_>) -> Result<(), StoreError> {
        match self.0.first() {
            Some((position, _)) => facts.check_place(position),
            None => Ok(()),
        }
    }

    /// Has every follower take in what was committed since. If one fails, the others go on, and its position stays. Followers stand at the
    /// same place, so the log is read once for all of them.
    pub fn catch_up(&mut self, facts: &Facts<'_>) -> Result<(), StoreError> {
        let (mut outcome, mut step) = (Ok(()), None);
        self.0.retain_mut(|(position, follower)| match advance(facts, position, follower, &mut step) {
            Ok(follows) => follows == Follows::On,
            Err(error) => {
                outcome = Err(error);
                true
            }
        });
        outcome
    }
}

/// What a follower at `from` takes in next.
struct Step {
    from: Position,
    end: Position,
    news: News,
    /// Whether the log goes on behind it.
    more: bool,
}

impl Step {
    /// None if there is nothing behind `from`.
    fn read(facts: &Facts<'_>, from: Position) -> Result<Option<Self>, StoreError> {
        match facts.log_after(&from)? {
            LogPage::Rows(rows) => {
                let Some((end, _)) = rows.last() else { return Ok(None) };
                let (end, more) = (*end, rows.len() == PAGE);
                let news = News::Changes(once_each(rows.into_iter().filter_map(|(_, changed)| changed)));
                Ok(Some(Self { from, end, news, more }))
            }
            LogPage::Broken(Break::Pruned) => {
                let revision = from.revision;
                info!(revision, "change log was pruned beyond our place in it: everything is read again");
                Ok(Some(Self { from, end: facts.log_end()?, news: News::Everything, more: false }))
            }
            LogPage::Broken(Break::OtherHistory(found)) => {
                Err(StoreError::OtherHistory { followed: from.revision, found })
            }
        }
    }
}

/// `step`: the one that was read last.
fn advance(
    facts: &Facts<'_>,
    position: &mut Position,
    follower: &mut Follower,
    step: &mut Option<Step>,
) -> Result<Follows, StoreError> {
    loop {
        if step.as_ref().is_none_or(|step| step.from != *position) {
            *step = Step::read(facts, *position)?;
        }
        let Some(Step { end, news, more, .. }) = step else { return Ok(Follows::On) };
        if follower(facts, news)? == Follows::Ended {
            return Ok(Follows::Ended);
        }
        *position = *end;
        if !*more {
            return Ok(Follows::On);
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
