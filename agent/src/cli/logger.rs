//! `logger`: how much the running agent logs.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use ironroot_api::pb::agent_logger::logger_client::LoggerClient;
use ironroot_api::pb::agent_logger::{GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest};
use ironroot_shell::command_line::logger_reply;
use ironroot_shell::logging::LogLevel;

use super::admin::Administration;

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

/// Shows how much the agent logs, and how much its configuration asks for.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-agent logger get")]
pub(super) struct Get {
    #[command(flatten)]
    administration: Administration,
}

impl Get {
    fn execute(self) -> ExitCode {
        self.administration.run(async |channel| {
            logger_reply(LoggerClient::new(channel).get_logger(GetLoggerRequest {}).await?.get_ref())
        })
    }
}

/// Has the agent log more or less, until it ends or `logger reset`.
#[derive(Debug, Args)]
#[command(after_help = "panic and fatal log what error does: nothing here is above it.

Example: ironroot-agent logger set -level debug")]
pub(super) struct Set {
    #[command(flatten)]
    administration: Administration,
    /// The new level: panic, fatal, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    level: LogLevel,
}

impl Set {
    fn execute(self) -> ExitCode {
        self.administration.run(async |channel| {
            let request = SetLogLevelRequest { new_level: self.level.to_pb().into() };
            logger_reply(LoggerClient::new(channel).set_log_level(request).await?.get_ref())
        })
    }
}

/// Has the agent log as much as its configuration asks for.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-agent logger reset")]
pub(super) struct Reset {
    #[command(flatten)]
    administration: Administration,
}

impl Reset {
    fn execute(self) -> ExitCode {
        self.administration.run(async |channel| {
            logger_reply(LoggerClient::new(channel).reset_log_level(ResetLogLevelRequest {}).await?.get_ref())
        })
    }
}
