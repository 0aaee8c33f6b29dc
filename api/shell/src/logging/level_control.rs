//! How much is logged, changed while the process runs.

use std::fmt;
use std::sync::{Arc, Mutex};

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Registry, reload};

use super::LogLevel;
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
    // Their debug lines hold raw bytes of handshakes and frames; ours name what matters.
    let quiet = level.min(Level::INFO);
    ["h2", "hyper", "hyper_util", "rustls", "tonic", "tower"]
        .into_iter()
        .fold(Targets::new().with_default(level), |filter, target| filter.with_target(target, quiet))
        .with_target(SPANS, LevelFilter::OFF)
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::Layer;
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("whole").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn a_running_log_says_more_or_less_when_it_is_told_to_and_libraries_stay_quiet() {
        let lines = Lines::default();
        let (control, filter) = LevelControl::new(LogLevel::Info);
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(lines.clone());
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter));
        let speak = |word: &'static str| {
            tracing::debug!("debug {word}");
            tracing::warn!("warn {word}");
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
        let lines = String::from_utf8(lines.0.lock().expect("whole").clone()).expect("text");
        let said: Vec<&str> = lines.lines().filter_map(|line| line.split(": ").nth(1)).collect();
        assert_eq!(said, ["warn at info", "debug at debug", "warn at debug", "warn at info again"], "{lines}");
    }
}
