//! `logger`: how much the running server logs.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use ironroot_api::pb::logger::logger_client::LoggerClient;
use ironroot_api::pb::logger::{GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest};
use ironroot_shell::command_line::logger_reply;
use ironroot_shell::logging::LogLevel;

use super::connection::Connection;

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
            logger_reply(answer.get_ref())
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
            let request = SetLogLevelRequest { new_level: self.level.to_pb().into() };
            logger_reply(LoggerClient::new(connection.open().await?).set_log_level(request).await?.get_ref())
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
            logger_reply(answer.get_ref())
        })
    }
}
