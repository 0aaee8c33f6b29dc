//! Structured logs in text or JSON, to standard error or a file that can be moved away.
//!
//! Set up once, by `main`. Rooms only say `tracing::info!`.

mod json;
mod level_control;
mod library_limit;
mod limit;
mod moderation;
mod output;
mod text;
mod wire;
#[cfg(test)]
mod written;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::FilterExt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Filter, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

pub use json::json_line;
pub use level_control::{LevelControl, Levels};
pub use limit::{Clipped, LineRate, LogLimit, MAX_LOG_SOURCES, MAX_LOGGED_BYTES, Pass, clipped};
pub use moderation::in_moderation;
pub use output::LogOutput;
pub use wire::LevelRefusal;

use crate::telemetry::otlp::SpanLayer;
use library_limit::LibraryLimit;

/// How much is logged, in SPIRE's names: what stands below says more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// SPIRE's highest. What is logged is the same as at [`Error`](Self::Error), as nothing here is above that.
    Panic,
    /// SPIRE's second; likewise.
    Fatal,
    /// Something failed that should not have.
    Error,
    /// Something is wrong and was survived.
    Warn,
    /// What the process did.
    #[default]
    Info,
    /// And how it came to do it. Libraries say no more than INFO here too, and above it errors alone: what they warn of is what peers
    /// send. A few lines each pass at a time, at every level.
    Debug,
    /// And the single steps of that.
    Trace,
}

/// A text that is no log level or format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages say what is wanted")]
pub enum LogConfigError {
    #[error("not a log level: use TRACE, DEBUG, INFO, WARN, ERROR, FATAL or PANIC")]
    Level,
    #[error("not a log format: use text or json")]
    Format,
}

impl FromStr for LogLevel {
    type Err = LogConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "panic" => Ok(Self::Panic),
            "fatal" => Ok(Self::Fatal),
            "error" => Ok(Self::Error),
            "warn" | "warning" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err(LogConfigError::Level),
        }
    }
}

/// As SPIRE's commands print it. Source: logrus, `Level.MarshalText`.
impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Panic => "panic",
            Self::Fatal => "fatal",
            Self::Error => "error",
            Self::Warn => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

impl LogLevel {
    fn as_tracing(self) -> Level {
        match self {
            Self::Panic | Self::Fatal | Self::Error => Level::ERROR,
            Self::Warn => Level::WARN,
            Self::Info => Level::INFO,
            Self::Debug => Level::DEBUG,
            Self::Trace => Level::TRACE,
        }
    }
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of words: time, level, message, fields as `name=value`.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = LogConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LogConfigError::Format),
        }
    }
}

/// The settings of the log; the default is INFO as text on standard error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// The least important level that is written.
    pub level: LogLevel,
    /// For people or for programs; whatever it is, an event is one line.
    pub format: LogFormat,
    /// The file to append to; standard error if none.
    pub file: Option<PathBuf>,
}

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// The log file cannot be opened.
    #[error("cannot open the log file {}", .0.display())]
    Open(PathBuf, #[source] std::io::Error),
    /// The thread that waits for SIGUSR2 cannot be started.
    #[error("cannot watch for SIGUSR2")]
    Signal(#[source] std::io::Error),
    /// Somebody set logging up already.
    #[error("logging is set up already")]
    Twice,
}

/// The process's log while it runs.
#[derive(Clone, Debug)]
pub struct Log {
    /// Where lines go.
    pub output: LogOutput,
    /// Which lines there are.
    pub level: LevelControl,
}

/// Sends the process's logs where `config` says, from now on, and spans to `spans`, if there is one; returns what can be changed of that later. A log file is opened
/// again on each SIGUSR2 anyway.
///
/// Call before any other thread starts, so that every thread inherits the blocked SIGUSR2.
pub fn init(config: &LogConfig, spans: Option<SpanLayer>) -> Result<Log, LoggingError> {
    let output = LogOutput::open(config.file.as_deref())?;
    output.reopen_on_sigusr2().map_err(LoggingError::Signal)?;
    let (level, filter) = LevelControl::new(config.level);
    let layer = lines_to(output.clone(), config.format, filter, LibraryLimit::new());
    let spans = spans.map(|spans| spans.with_filter(SpanLayer::filter()));
    tracing_subscriber::registry().with(layer).with(spans).try_init().map_err(|_| LoggingError::Twice)?;
    Ok(Log { output, level })
}

/// Writes what passes `filter` and is not too much of a library.
fn lines_to<S, W>(
    writer: W,
    format: LogFormat,
    filter: impl Filter<S> + Send + Sync + 'static,
    libraries: LibraryLimit,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer).fmt_fields(text::Fields);
    let filter = filter.and(libraries.clone());
    match format {
        LogFormat::Text => layer.event_format(text::Lines::new(libraries)).with_filter(filter).boxed(),
        LogFormat::Json => layer.event_format(json::Lines::new(libraries)).with_filter(filter).boxed(),
    }
}
