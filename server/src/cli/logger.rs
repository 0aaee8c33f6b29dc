//! `logger`: how much the running server logs.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use ironroot_api::pb::logger::logger_client::LoggerClient;
use ironroot_api::pb::logger::{GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest};
use ironroot_api::pb::types;
use ironroot_shell::command_line::{CommandError, Reply};
use ironroot_shell::logging::LogLevel;
use serde_json::json;

use super::connection::Connection;
use crate::log_level;

#[derive(Debug, Subcommand)]
pub(super) enum Logger {
    Get(Get),
    Set(Set),
    Reset(Reset),
}

impl Logger {
    pub(super) fn execute(self) -> ExitCode {
        match self {
            Self::Get(get) => get.execute(),
            Self::Set(set) => set.execute(),
            Self::Reset(reset) => reset.execute(),
        }
    }
}

/// Shows how much the server logs, and how much its configuration asks for.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server logger get")]
pub(super) struct Get {
    #[command(flatten)]
    connection: Connection,
}

impl Get {
    fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let answer = LoggerClient::new(connection.open().await?).get_logger(GetLoggerRequest {}).await?;
            reply(answer.into_inner())
        })
    }
}

/// Has the server log more or less, until it ends or `logger reset`.
#[derive(Debug, Args)]
#[command(
    after_help = "panic and fatal log what error does: nothing here is above it. At warn and above there are no audit lines.

Example: ironroot-server logger set -level debug"
)]
pub(super) struct Set {
    #[command(flatten)]
    connection: Connection,
    /// The new level: panic, fatal, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    level: LogLevel,
}

impl Set {
    fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let request = SetLogLevelRequest { new_level: log_level::to_pb(self.level).into() };
            reply(LoggerClient::new(connection.open().await?).set_log_level(request).await?.into_inner())
        })
    }
}

/// Has the server log as much as its configuration asks for.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server logger reset")]
pub(super) struct Reset {
    #[command(flatten)]
    connection: Connection,
}

impl Reset {
    fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let answer = LoggerClient::new(connection.open().await?).reset_log_level(ResetLogLevelRequest {}).await?;
            reply(answer.into_inner())
        })
    }
}

/// Source of the words: SPIRE, pkg/common/api/logger.
fn reply(logger: types::Logger) -> Result<Reply, CommandError> {
    let (current, launch) = (level(logger.current_level)?, level(logger.launch_level)?);
    let name = |level| log_level::to_pb(level).as_str_name();
    let json = json!({ "current_level": name(current), "launch_level": name(launch) });
    Ok(Reply::new(json, format!("Logger Level : {current}\nLaunch Level : {launch}\n\n")))
}

fn level(number: i32) -> Result<LogLevel, CommandError> {
    let unknown = || CommandError::Malformed(format!("the server names a log level {number} that this command lacks"));
    log_level::from_pb(number).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_printed_as_spires_command_prints_them() {
        let logger = |current: types::LogLevel, launch: types::LogLevel| types::Logger {
            current_level: current.into(),
            launch_level: launch.into(),
        };
        let answer = reply(logger(types::LogLevel::Warn, types::LogLevel::Debug)).expect("levels");
        assert_eq!(answer.text, "Logger Level : warning\nLaunch Level : debug\n\n");
        assert_eq!(answer.json.to_string(), r#"{"current_level":"WARN","launch_level":"DEBUG"}"#);
        assert!(reply(logger(types::LogLevel::Unspecified, types::LogLevel::Info)).is_err());
        assert!(reply(types::Logger { current_level: 9, launch_level: 5 }).is_err());
    }
}
