//! Telling a service manager how the process is, where there is one. Source: sd_notify(3), sd_watchdog_enabled(3).

use std::future;
use std::time::Duration;

use sd_notify::NotifyState;

/// The process serves: a unit of `Type=notify` counts as started. `status` is what `systemctl status` shows.
pub fn started(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// What `systemctl status` shows from now on.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// The process is on its way out; it may take a while to finish what it does.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Feeds the watchdog of the unit (`WatchdogSec=`) for as long as it is polled; waits for ever where there is none. Run it on the
/// runtime that serves: a runtime that hangs feeds nobody, and the process is started anew.
pub async fn feed_watchdog() {
    let Some(patience) = sd_notify::watchdog_enabled() else { return future::pending().await };
    let mut tick = tokio::time::interval((patience / 2).max(SHORTEST_INTERVAL));
    loop {
        tick.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

/// A `WatchdogSec=` of less than twice this cannot be kept.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
