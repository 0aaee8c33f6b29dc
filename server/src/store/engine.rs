//! What the writer asks of an engine: transactions on the one connection that it owns.

use tokio::sync::mpsc;

use super::sql::Session;
use super::{Facts, StoreError, Transaction};
use crate::clock::Moment;

/// What a writer's thread does next.
#[derive(Debug)]
pub(super) enum Next<M> {
    /// What was sent to it.
    Message(M),
    /// Look what other programs have written.
    Look,
    /// Nobody can send to it any more.
    Nobody,
}

/// A connection to a database that was opened, checked and brought to today's form. Used by one thread.
pub(super) trait Engine: Send + 'static {
    /// Waits for a message, or until it is time to look what others have written.
    fn next<M>(&mut self, messages: &mut mpsc::Receiver<M>) -> Next<M>;

    /// Begins a transaction that writes. Until it ends no other program's begins.
    fn begin(&mut self) -> Result<(), StoreError>;

    /// Begins one that reads one moment's state. It ends by [`rollback`](Self::rollback).
    fn begin_reading(&mut self) -> Result<(), StoreError>;

    /// Runs a statement that gives nothing back.
    fn run(&self, statement: &'static str) -> Result<(), StoreError>;

    /// Ends a transaction that writes. After an error nothing of it is in the database, unless that is [`StoreError::OutcomeUnknown`].
    fn commit(&mut self) -> Result<(), StoreError>;

    /// Whether the connection is another one than that which [`was_checked`](Self::was_checked): what it leads to may have another history.
    fn is_unchecked(&self) -> bool;

    /// What the connection leads to has the history that was followed.
    fn was_checked(&mut self);

    /// Ends the transaction, if one is open, without its changes.
    fn rollback(&self);

    /// Why the transaction is over before it was ended; none if it stands.
    fn given_up(&self) -> Option<StoreError>;

    /// Whether the work of a transaction that was given up is worth another try in a new one.
    fn tries_again(&self) -> bool;

    /// How many rows were changed since the connection was made.
    fn rows_changed(&self) -> u64;

    /// What it says now.
    fn facts(&self) -> Facts<'_>;

    /// The transaction that is open on its connection, and began then.
    fn transaction(&self, moment: Moment) -> Transaction<'_>;

    /// Whom statements are sent to.
    fn session(&self) -> Session<'_>;

    /// Tells other programs that there is something new.
    fn tell_others(&self);

    /// From now on no other program has that server's name; an error if one has.
    fn claim(&mut self, server: &str) -> Result<(), StoreError>;

    /// Ends the connection.
    fn close(self);
}
