//! The kernel's word that its clock was set, or that the machine slept: nobody needs to look at the clock now and then for that.
//!
//! ```text
//!  clock set, or end of a sleep ─► the timer is cancelled ─► Jumps of each who listens ─► the timer set again, a second later
//! ```
//! The timer is one of CLOCK_REALTIME that never fires. Source: timerfd_create(2), TFD_TIMER_CANCEL_ON_SET; for the end of a sleep,
//! over which the monotonic clock stands still, Linux's `timerfd_resume` (before 5.15 `clock_was_set`, called by `hrtimers_resume`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::time_t;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::sleep;

use super::clocks::system_unix;

/// How far ahead the timer is set. It is set again when it fires.
const AHEAD: i64 = 31_557_600;
/// Jumps are told this far apart at least: a clock that somebody sets all the time costs one look a second.
const SPACING: Duration = Duration::from_secs(1);

/// Told when the kernel's clock was set, or the machine has slept. Each clone hears of it by itself.
#[derive(Clone, Debug)]
pub struct Jumps(watch::Receiver<()>);

impl Jumps {
    /// Heard of what `sender` sends; of nothing more once that is gone.
    pub fn channel() -> (watch::Sender<()>, Self) {
        let (sender, receiver) = watch::channel(());
        (sender, Self(receiver))
    }

    /// Waits for the next; several that nobody waited for are one. For ever if nobody tells of any.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// What listens to the kernel.
#[derive(Debug)]
pub struct Listener {
    timer: AsyncFd<Timer>,
    told: watch::Sender<()>,
}

#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Timer {
    /// Sets it, so that the next jump is heard.
    fn set(&self) -> io::Result<()> {
        // Where the kernel's numbers have 32 bits, a clock that is beyond them fires it all the time: a look a second.
        let at = time_t::try_from(system_unix().saturating_add(AHEAD)).unwrap_or(time_t::MAX);
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        match self.0.set(Expiration::OneShot(TimeSpec::new(at, 0)), flags) {
            // There was another jump just now; it is set all the same.
            Ok(()) | Err(Errno::ECANCELED) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Listener {
    /// Needs a runtime. What happens from now on is heard by the [`Jumps`].
    ///
    /// Errors: the kernel's; it has no descriptor left.
    pub fn begin() -> io::Result<(Self, Jumps)> {
        let timer = Timer(TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?);
        timer.set()?;
        #[expect(deprecated, reason = "its successor is unsafe; a TimerFd keeps its descriptor open and the same")]
        let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
        let (told, jumps) = Jumps::channel();
        Ok((Self { timer, told }, jumps))
    }

    /// Listens for as long as it is polled.
    ///
    /// Errors: the kernel's, which does not happen: nobody hears of jumps any more.
    pub async fn follow(self) -> io::Result<()> {
        loop {
            self.timer.async_io(Interest::READABLE, |timer| Ok(timer.0.wait()?)).await?;
            // The timer first: a jump after the word is another.
            self.timer.get_ref().set()?;
            self.told.send_replace(());
            sleep(SPACING).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_listens_hears_of_jumps_once_and_each_clone_by_itself() {
        let (sender, mut jumps) = Jumps::channel();
        let mut other = jumps.clone();
        assert!(jumps.next().now_or_never().is_none(), "none yet");
        sender.send_replace(());
        sender.send_replace(());
        jumps.next().await;
        assert!(jumps.next().now_or_never().is_none(), "two that nobody waited for are one");
        other.next().await;
        drop(sender);
        assert!(jumps.next().now_or_never().is_none(), "for ever");
    }

    #[tokio::test]
    async fn a_clock_that_nobody_sets_wakes_nobody() {
        let (listener, mut jumps) = Listener::begin().expect("a timer");
        assert!(listener.timer.get_ref().0.get().expect("asked").is_some(), "it is set");
        assert!(listener.follow().now_or_never().is_none() && jumps.next().now_or_never().is_none());
    }

    /// As if it were cancelled: it fires, and is set again.
    #[tokio::test]
    async fn a_timer_that_tells_is_set_again() {
        let (listener, mut jumps) = Listener::begin().expect("a timer");
        let soon = Expiration::OneShot(TimeSpec::from(Duration::from_nanos(1)));
        listener.timer.get_ref().0.set(soon, TimerSetTimeFlags::empty()).expect("set");
        let mut following = Box::pin(listener.follow());
        tokio::select! {
            ended = &mut following => panic!("it listens on: {ended:?}"),
            () = jumps.next() => {}
        }
        assert!(following.now_or_never().is_none());
    }
}
