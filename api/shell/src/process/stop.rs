//! Being told to stop.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Done when the process is told to stop, by SIGTERM or SIGINT: from the call on these end it no longer by themselves. Call it inside
/// a tokio runtime.
pub fn stop_asked() -> io::Result<impl Future<Output = ()>> {
    //= FLT-S24 server faults: "SIGTERM is an orderly end"
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::sys::signal::{Signal, raise};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn either_signal_asks_to_stop_and_ends_nothing_by_itself() {
        for asked in [Signal::SIGTERM, Signal::SIGINT] {
            let stop = stop_asked().expect("registered");
            raise(asked).expect("sent to ourselves");
            timeout(Duration::from_secs(30), stop).await.expect("heard");
        }
    }
}
