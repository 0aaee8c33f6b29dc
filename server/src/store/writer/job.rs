//! A change that a caller waits for, on its way through the queue.

use tokio::sync::oneshot;

use crate::store::{StoreError, Transaction};

/// A change on its way.
pub(super) trait Job: Send {
    /// Does it in the transaction; whether it is to be kept. An engine may have to do it again, in another transaction.
    fn run(&mut self, transaction: &Transaction<'_>) -> bool;

    /// Answers its caller, once the fate of the transaction is known.
    fn answer(self: Box<Self>, fate: Result<(), StoreError>);
}

/// What a caller asked for, what came of it, and where that is waited for.
pub(super) struct Work<F, G, T, E> {
    work: F,
    outcome: Option<Result<(G, T), E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<F, G, T, E> Work<F, G, T, E> {
    pub fn new(work: F, reply: oneshot::Sender<Result<T, E>>) -> Self {
        Self { work, outcome: None, reply }
    }
}

impl<F, G, T, E> Job for Work<F, G, T, E>
where
    F: Fn(&Transaction<'_>) -> Result<(G, T), E> + Send,
    G: Send,
    T: Send,
    E: From<StoreError> + Send,
{
    fn run(&mut self, transaction: &Transaction<'_>) -> bool {
        self.outcome.insert((self.work)(transaction)).is_ok()
    }

    fn answer(self: Box<Self>, fate: Result<(), StoreError>) {
        let Self { outcome, reply, .. } = *self;
        let outcome = outcome.unwrap_or_else(|| Err(E::from(StoreError::Closed))).map(|(held, done)| {
            drop(held);
            done
        });
        // A caller that went away has its change all the same.
        let _ = reply.send(fate.map_err(E::from).and(outcome));
    }
}
