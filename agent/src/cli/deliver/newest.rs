//! What the agent says on its stream, of which the newest alone counts: each message is the whole state.

use std::pin::pin;
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};
use ironroot_shell::command_line::CommandError;
use tonic::Status;

use crate::trusted_time::Jumps;

/// What is to be looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News<A> {
    Answer(A),
    /// What is owed is due.
    Due,
}

/// A stream that is read while something else is done, so that nothing older waits in it.
pub(super) struct Newest<S, A> {
    stream: S,
    jumps: Jumps,
    unread: Option<A>,
    /// How it ended, if it did.
    end: Option<Result<(), Status>>,
}

impl<A, S: Stream<Item = Result<A, Status>> + Unpin> Newest<S, A> {
    pub(super) fn of(stream: S, jumps: Jumps) -> Self {
        Self { stream, jumps, unread: None, end: None }
    }

    /// The newest message that has not been handed out; or, `due` from now, that something is. That is so at once when the clock was set, or
    /// the device has slept: what is due is looked at by that clock too, and timers stand still over a sleep. None after the last.
    pub(super) async fn next(&mut self, due: Option<Duration>) -> Result<Option<News<A>>, CommandError> {
        while self.end.is_none() {
            // All that is there.
            match self.stream.next().now_or_never() {
                Some(heard) => self.take(heard),
                None => break,
            }
        }
        if self.unread.is_none() && self.end.is_none() {
            tokio::select! {
                heard = self.stream.next() => self.take(heard),
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => return Ok(Some(News::Due)),
                () = self.jumps.next(), if due.is_some() => return Ok(Some(News::Due)),
            }
        }
        match (self.unread.take(), self.end.take()) {
            (Some(answer), end) => {
                self.end = end;
                Ok(Some(News::Answer(answer)))
            }
            (None, Some(Err(status))) => Err(status.into()),
            (None, _) => Ok(None),
        }
    }

    /// Does `work`, and reads meanwhile.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                heard = self.stream.next(), if self.end.is_none() => self.take(heard),
            }
        }
    }

    fn take(&mut self, heard: Option<Result<A, Status>>) {
        match heard {
            Some(Ok(answer)) => self.unread = Some(answer),
            Some(Err(status)) => self.end = Some(Err(status)),
            None => self.end = Some(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::{self, BoxStream};
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    type Heard = Result<u32, Status>;

    fn channel() -> (mpsc::Sender<Heard>, Newest<BoxStream<'static, Heard>, u32>) {
        let (sender, receiver) = mpsc::channel(1);
        let stream =
            stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|heard| (heard, receiver)) });
        (sender, Newest::of(Box::pin(stream), Jumps::channel().1))
    }

    #[tokio::test]
    async fn what_is_due_later_is_looked_at_once_the_clock_was_set_or_the_device_has_slept() {
        let (jumping, jumps) = Jumps::channel();
        let mut newest = Newest::of(stream::pending::<Heard>(), jumps);
        // While something else was done.
        newest.during(async { jumping.send_replace(()) }).await;
        let later = Some(Duration::from_secs(86_400));
        assert_eq!(newest.next(later).await.expect("sound"), Some(News::Due));
        assert!(newest.next(later).now_or_never().is_none(), "once");
        jumping.send_replace(());
        assert!(newest.next(None).now_or_never().is_none(), "nothing is due");
    }

    #[tokio::test]
    async fn what_came_while_a_command_ran_is_delivered_newest_first_and_the_older_never() {
        let (sender, mut newest) = channel();
        sender.send(Ok(1)).await.expect("heard");
        assert_eq!(newest.next(None).await.expect("sound"), Some(News::Answer(1)));
        // No more than one waits on the way: the others come only if somebody reads.
        let (done, wait) = oneshot::channel();
        let sends = tokio::spawn(async move {
            for answer in 2..=5 {
                sender.send(Ok(answer)).await.expect("heard");
            }
            done.send(()).expect("the command runs");
        });
        newest.during(async { wait.await.expect("all were sent") }).await;
        sends.await.expect("sent");
        assert_eq!(newest.next(None).await.expect("sound"), Some(News::Answer(5)));
        assert_eq!(newest.next(None).await.expect("sound"), None, "the stream has ended");
    }

    #[tokio::test]
    async fn an_end_in_between_is_told_after_what_came_before_it_and_what_is_due_is() {
        let (sender, mut newest) = channel();
        assert_eq!(newest.next(Some(Duration::ZERO)).await.expect("sound"), Some(News::Due));
        sender.send(Ok(1)).await.expect("heard");
        let ends = async {
            sender.send(Ok(2)).await.expect("heard");
            sender.send(Err(Status::unavailable("gone"))).await.expect("heard");
        };
        newest.during(ends).await;
        assert_eq!(newest.next(None).await.expect("sound"), Some(News::Answer(2)));
        newest.next(None).await.expect_err("it has ended");
    }
}
