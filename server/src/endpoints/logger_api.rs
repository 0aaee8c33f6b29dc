//! `spire.api.server.logger.v1`: how much the server logs, changed while it runs.

use std::sync::Arc;

use ironroot_api::pb::logger::logger_server::Logger;
use ironroot_api::pb::logger::{GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest};
use ironroot_api::pb::types;
use ironroot_shell::logging::{Levels, LogLevel};
use tonic::{Request, Response, Status};

use super::ServerState;
use super::caller::granted;
use crate::log_level;
use crate::rights::Administrator;

/// SPIRE's `spire.api.server.logger.v1.Logger`.
#[derive(Clone, Debug)]
pub struct LoggerApi(pub(super) Arc<ServerState>);

#[tonic::async_trait]
impl Logger for LoggerApi {
    async fn get_logger(&self, request: Request<GetLoggerRequest>) -> Result<Response<types::Logger>, Status> {
        let _: Administrator = granted(&request)?;
        Ok(Response::new(to_pb(self.0.log_level.levels())))
    }

    async fn set_log_level(&self, request: Request<SetLogLevelRequest>) -> Result<Response<types::Logger>, Status> {
        let by: Administrator = granted(&request)?;
        let level = level(request.into_inner().new_level)
            .map_err(|status| self.0.audit.refused(by.caller(), "SetLogLevel", "", status))?;
        Ok(Response::new(to_pb(self.set(&by, "SetLogLevel", level))))
    }

    async fn reset_log_level(&self, request: Request<ResetLogLevelRequest>) -> Result<Response<types::Logger>, Status> {
        let by: Administrator = granted(&request)?;
        let launch = self.0.log_level.levels().launch;
        Ok(Response::new(to_pb(self.set(&by, "ResetLogLevel", launch))))
    }
}

impl LoggerApi {
    /// The line of the audit is written at the more talkative of the two levels: it is of level INFO.
    fn set(&self, by: &Administrator, method: &str, level: LogLevel) -> Levels {
        let before = self.0.log_level.levels().current;
        let says_more = level > before;
        if !says_more {
            self.0.audit.done(by.caller(), method, level);
        }
        let levels = self.0.log_level.set(level);
        if says_more {
            self.0.audit.done(by.caller(), method, level);
        }
        levels
    }
}

/// Source of the texts: SPIRE, pkg/server/api/logger/v1/service.go.
fn level(number: i32) -> Result<LogLevel, Status> {
    if number == i32::from(types::LogLevel::Unspecified) {
        return Err(Status::invalid_argument("newLevel value cannot be LogLevel_UNSPECIFIED"));
    }
    log_level::from_pb(number).ok_or_else(|| Status::invalid_argument("unsupported log level"))
}

fn to_pb(Levels { current, launch }: Levels) -> types::Logger {
    types::Logger { current_level: log_level::to_pb(current).into(), launch_level: log_level::to_pb(launch).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_level_and_one_of_a_later_version_are_refused_in_spires_words() {
        for (number, text) in [(0, "newLevel value cannot be LogLevel_UNSPECIFIED"), (8, "unsupported log level")] {
            let status = level(number).expect_err("refused");
            assert_eq!((status.code(), status.message()), (tonic::Code::InvalidArgument, text));
        }
    }
}
