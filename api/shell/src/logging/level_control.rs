//! How much is logged, changed while the process runs.

use std::fmt;
use std::sync::{Arc, Mutex};

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Registry, reload};

use super::LogLevel;
use super::library_limit::OURS;
use crate::telemetry::otlp::SPANS;

/// How much is logged, and how much the configuration asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Since somebody set it last.
    pub current: LogLevel,
    /// When the process began.
    pub launch: LogLevel,
}

/// Sets the level of a running log. Clones set the same one.
#[derive(Clone)]
pub struct LevelControl {
    /// Locked while the filter is replaced, so that it is the filter of that level.
    levels: Arc<Mutex<Levels>>,
    filter: reload::Handle<Targets, Registry>,
}

impl LevelControl {
    /// A control, and the filter that it rules.
    pub fn new(level: LogLevel) -> (Self, reload::Layer<Targets, Registry>) {
        let (filter, handle) = reload::Layer::new(targets(level));
        let levels = Arc::new(Mutex::new(Levels { current: level, launch: level }));
        (Self { levels, filter: handle }, filter)
    }

    /// How much is logged.
    pub fn levels(&self) -> Levels {
        *self.lock()
    }

    /// From now on this much is logged, until the process ends.
    pub fn set(&self, level: LogLevel) -> Levels {
        let mut levels = self.lock();
        // A filter that is gone has no lines either.
        if self.filter.reload(targets(level)).is_ok() {
            levels.current = level;
        }
        *levels
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Levels> {
        self.levels.lock().expect("no panic while held: a filter of fixed names is replaced")
    }
}

impl fmt::Debug for LevelControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.levels().fmt(f)
    }
}

fn targets(level: LogLevel) -> Targets {
    let level = level.as_tracing();
    // What libraries warn of is what a peer sends, a line for each frame if the peer likes; ours name what matters. Their debug lines
    // hold raw bytes of handshakes and frames.
    let quiet = level.min(if level < Level::DEBUG { Level::ERROR } else { Level::INFO });
    OURS.into_iter()
        .fold(Targets::new().with_default(quiet), |filter, target| filter.with_target(target, level))
        .with_target(SPANS, LevelFilter::OFF)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::logging::library_limit::{LINES_PER_LIBRARY, LibraryLimit};
    use crate::logging::written::Written;
    use crate::logging::{LogFormat, lines_to};

    #[test]
    fn a_running_log_says_more_or_less_when_it_is_told_to_and_libraries_stay_quiet() {
        let lines = Written::default();
        let (control, filter) = LevelControl::new(LogLevel::Info);
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(lines.clone());
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter));
        let speak = |word: &'static str| {
            tracing::debug!("debug {word}");
            tracing::warn!("warn {word}");
            tracing::warn!(target: "audit", "audit {word}");
            tracing::error!(target: "h2::proto", "a library's error {word}");
            tracing::warn!(target: "h2::proto", "a library's warning {word}");
            tracing::debug!(target: "h2::frame", "frame {word}");
            tracing::info!(target: SPANS, "an event of a trace {word}");
        };
        tracing::subscriber::with_default(subscriber, || {
            speak("at info");
            assert_eq!(control.set(LogLevel::Debug), Levels { current: LogLevel::Debug, launch: LogLevel::Info });
            speak("at debug");
            control.clone().set(LogLevel::Fatal);
            speak("at fatal");
            assert_eq!(
                control.set(control.levels().launch),
                Levels { current: LogLevel::Info, launch: LogLevel::Info }
            );
            speak("at info again");
        });
        let lines = lines.text();
        let said: Vec<&str> = lines.lines().filter_map(|line| line.split(": ").nth(1)).collect();
        let wanted = [
            "warn at info",
            "audit at info",
            "a library's error at info",
            "debug at debug",
            "warn at debug",
            "audit at debug",
            "a library's error at debug",
            "a library's warning at debug",
            "a library's error at fatal",
            "warn at info again",
            "audit at info again",
            "a library's error at info again",
        ];
        assert_eq!(said, wanted, "{lines}");
    }

    //= FLT-S21
    #[test]
    fn no_library_writes_more_than_the_named_number_of_lines_at_any_level_and_what_is_left_out_is_counted() {
        for (level, format) in [(LogLevel::Debug, LogFormat::Text), (LogLevel::Info, LogFormat::Json)] {
            let now = Arc::new(Mutex::new(Instant::now()));
            let clock = now.clone();
            let libraries = LibraryLimit::by(move || *clock.lock().expect("whole"));
            let lines = Written::default();
            let (_, filter) = LevelControl::new(level);
            let layer = lines_to(lines.clone(), format, filter, libraries);
            let bound = LINES_PER_LIBRARY.burst as usize;
            tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
                for _ in 0..bound + 3000 {
                    tracing::error!(target: "h2::proto::ping_pong", "of a stranger");
                    tracing::error!("of our own");
                }
                *now.lock().expect("whole") += LINES_PER_LIBRARY.interval;
                tracing::error!(target: "h2::proto", "of a stranger");
                tracing::error!(target: "rustls::conn", "of another library");
            });
            let text = lines.text();
            let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
            assert_eq!((count("of a stranger"), count("of our own")), (bound + 1, bound + 3000));
            let told: Vec<&str> = text.lines().filter(|line| line.contains("suppressed")).collect();
            assert!(told.len() == 1 && told[0].contains("of a stranger") && told[0].contains("3000"), "{told:?}");
            assert_eq!(count("of another library"), 1, "another library is not limited by it");
        }
    }
}
