//! How many reads of one user there are before everybody else who waits has had a turn of the agent's one thread.
//!
//! ```text
//!  a read: one of AT_ONCE ─► none left: a ticket ─► the next round, when all tasks that were ready have run: AT_ONCE tickets are called
//! ```
//! So what one user may have done between two steps of another is bounded, however many connections it has. A ticket that is called and not
//! taken up is lost and keeps nobody waiting.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Reads of a user in a round: of at most 1 KiB each, some hundred requests together.
const AT_ONCE: u64 = 4;

/// Of one user.
#[derive(Clone, Debug, Default)]
pub(in crate::endpoints) struct Rounds(Arc<Mutex<Round>>);

#[derive(Debug, Default)]
struct Round {
    /// A task ends the rounds, and is there while there are any.
    running: bool,
    reads: u64,
    /// All tickets below this one are called; the first that waits has it.
    called: u64,
    waiting: VecDeque<Waker>,
}

/// A place in the queue.
#[derive(Debug)]
pub(in crate::endpoints) struct Ticket(u64);

impl Rounds {
    /// Whether there may be one more read; if not, takes `ticket` or keeps it, and wakes `cx` when it is called.
    pub fn poll(&self, ticket: &mut Option<Ticket>, cx: &Context<'_>) -> Poll<()> {
        let mut round = self.round();
        let is_through = match ticket {
            Some(Ticket(number)) => *number < round.called,
            None => round.has_room(),
        };
        if !is_through {
            round.queue(ticket, cx);
            return Poll::Pending;
        }
        if ticket.take().is_none() {
            round.reads += 1;
        }
        if !std::mem::replace(&mut round.running, true) {
            tokio::spawn(self.clone().run());
        }
        Poll::Ready(())
    }

    /// There was nothing to be read.
    pub fn give_back(&self) {
        let mut round = self.round();
        round.reads = round.reads.saturating_sub(1);
    }

    /// Ends round after round, until nobody waits and nobody has read.
    async fn run(self) {
        loop {
            tokio::task::yield_now().await;
            let (is_over, called) = self.round().next();
            called.into_iter().for_each(Waker::wake);
            if is_over {
                return;
            }
        }
    }

    fn round(&self) -> MutexGuard<'_, Round> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Round {
    fn has_room(&self) -> bool {
        self.reads < AT_ONCE && self.waiting.is_empty()
    }

    fn queue(&mut self, ticket: &mut Option<Ticket>, cx: &Context<'_>) {
        let waker = cx.waker().clone();
        match ticket {
            Some(Ticket(number)) => {
                // It waits, since its number has not been called.
                let place = usize::try_from(*number - self.called).unwrap_or(usize::MAX);
                self.waiting.get_mut(place).into_iter().for_each(|waiting| waiting.clone_from(&waker));
            }
            None => {
                *ticket = Some(Ticket(self.called + self.waiting.len() as u64));
                self.waiting.push_back(waker);
            }
        }
    }

    /// Begins the next round: whether there is none, and whom to wake.
    fn next(&mut self) -> (bool, Vec<Waker>) {
        let is_over = self.reads == 0 && self.waiting.is_empty();
        let called: Vec<_> = (0..AT_ONCE).map_while(|_| self.waiting.pop_front()).collect();
        self.reads = called.len() as u64;
        self.called += self.reads;
        self.running = !is_over;
        (is_over, called)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One that wants to read again and again.
    #[derive(Default)]
    struct Reader {
        ticket: Option<Ticket>,
        woken: Arc<Woken>,
    }

    impl Reader {
        fn reads(&mut self, rounds: &Rounds) -> bool {
            let waker = self.woken.clone().into();
            rounds.poll(&mut self.ticket, &Context::from_waker(&waker)).is_ready()
        }

        fn is_woken(&self) -> bool {
            self.woken.0.swap(0, Ordering::Relaxed) > 0
        }
    }

    /// Until the rounds' task has had its turn.
    async fn round() {
        tokio::task::yield_now().await;
    }

    #[tokio::test]
    async fn a_user_reads_no_more_than_so_often_in_a_round_and_first_come_is_first_served() {
        let rounds = Rounds::default();
        let mut readers: Vec<Reader> = (0..3 * AT_ONCE).map(|_| Reader::default()).collect();
        let reading: Vec<bool> = readers.iter_mut().map(|reader| reader.reads(&rounds)).collect();
        assert_eq!(reading.iter().filter(|reads| **reads).count() as u64, AT_ONCE);
        for turn in 1..3 {
            while !readers[(turn * AT_ONCE) as usize].is_woken() {
                round().await;
            }
            let reading = readers.iter_mut().skip((turn * AT_ONCE) as usize).map(|reader| reader.reads(&rounds));
            let reading: Vec<bool> = reading.collect();
            assert!(reading[..AT_ONCE as usize].iter().all(|reads| *reads), "turn {turn}");
            assert!(reading[AT_ONCE as usize..].iter().all(|reads| !reads), "turn {turn}");
        }
    }

    #[tokio::test]
    async fn a_ticket_that_is_not_taken_up_keeps_nobody_waiting_and_rest_ends_the_rounds() {
        let rounds = Rounds::default();
        let mut readers: Vec<Reader> = (0..3 * AT_ONCE).map(|_| Reader::default()).collect();
        for reader in &mut readers {
            reader.reads(&rounds);
        }
        let mut last = readers.pop().expect("the last");
        while !last.is_woken() {
            round().await;
        }
        assert!(last.reads(&rounds), "none of those before it came back");
        while rounds.round().running {
            round().await;
        }
        assert!(Reader::default().reads(&rounds) && rounds.round().running);
    }

    #[tokio::test]
    async fn one_user_waits_for_no_other_one() {
        let (theirs, ours) = (Rounds::default(), Rounds::default());
        for _ in 0..512 {
            Reader::default().reads(&theirs);
        }
        assert!(Reader::default().reads(&ours));
    }
}
