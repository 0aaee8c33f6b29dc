//! Orders of operators, and words from above, on their way to the one task that renews the CA: one is carried out at a time, beside the
//! plan's steps.

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::CaError;
use super::local_authorities::AuthorityState;
use super::rotation::by_hand::{Order, OrderRefusal};

/// Orders that wait for those before them. Each costs a key of the token at most, and is an operator's.
pub const MAX_WAITING_ORDERS: usize = 16;

/// Why an order was not carried out.
#[derive(Debug, Error)]
pub enum OrderError {
    /// The journal says that this may not be done, or not now.
    #[error(transparent)]
    Refused(#[from] OrderRefusal),
    /// The token or the data store fails, or what it takes is not there.
    #[error(transparent)]
    Failed(#[from] CaError),
    /// It is done, and what should sign from then on is not at hand.
    #[error(
        "it is done in the CA journal, but the {noun} that should sign now is not at hand ({why}): what may sign beside it goes on; it is \
         looked for again every few seconds"
    )]
    SignerMissing {
        /// What should sign.
        noun: &'static str,
        /// Why it does not.
        why: String,
    },
    /// As many wait as may.
    #[error("{MAX_WAITING_ORDERS} orders are waiting; try again")]
    Busy,
    /// Nobody carries orders out any more.
    #[error("the server is stopping")]
    Stopped,
}

/// What is asked for, and who waits for what comes of it.
pub(super) enum Request {
    /// By an operator.
    Order { order: Order, reply: oneshot::Sender<Result<AuthorityState, OrderError>> },
    /// By the authority above, which has called roots of its own tainted: by their subject key IDs, in lower-case hexadecimal digits.
    LeaveRoots { roots: Vec<String>, reply: oneshot::Sender<Result<(), OrderError>> },
}

/// Where orders are given.
#[derive(Clone)]
pub(super) struct Orders(mpsc::Sender<Request>);

impl Orders {
    /// And where they arrive.
    pub(super) fn channel() -> (Self, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING_ORDERS);
        (Self(sender), receiver)
    }

    /// Gives one, and waits for what comes of it. It is carried out whether anybody waits or not.
    pub(super) async fn give(&self, order: Order) -> Result<AuthorityState, OrderError> {
        self.ask(|reply| Request::Order { order, reply }).await
    }

    /// Has the CA leave these roots of the authority above: see [`Request::LeaveRoots`].
    pub(super) async fn leave_roots(&self, roots: Vec<String>) -> Result<(), OrderError> {
        self.ask(|reply| Request::LeaveRoots { roots, reply }).await
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, OrderError>>) -> Request,
    ) -> Result<T, OrderError> {
        let (reply, done) = oneshot::channel();
        self.0.try_send(request(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => OrderError::Busy,
            mpsc::error::TrySendError::Closed(_) => OrderError::Stopped,
        })?;
        done.await.unwrap_or(Err(OrderError::Stopped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::purpose::Purpose;

    #[tokio::test]
    async fn so_many_orders_wait_and_the_next_is_refused_at_once() {
        let (orders, arriving) = Orders::channel();
        let order = || Order::Prepare(Purpose::X509Ca);
        let waiting: Vec<_> = (0..MAX_WAITING_ORDERS)
            .map(|_| {
                tokio::spawn({
                    let orders = orders.clone();
                    async move { orders.give(order()).await }
                })
            })
            .collect();
        while orders.0.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(orders.give(order()).await, Err(OrderError::Busy)));
        drop(arriving);
        for waiting in waiting {
            assert!(matches!(waiting.await.expect("no panic"), Err(OrderError::Stopped)));
        }
        assert!(matches!(orders.give(order()).await, Err(OrderError::Stopped)));
    }
}
