//! `spire.api.server.logger.v1`: how much the server logs, changed while it runs.

use std::sync::Arc;

use ironroot_api::pb::logger::logger_server::Logger;
use ironroot_api::pb::logger::{GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest};
use ironroot_api::pb::types;
use ironroot_shell::logging::{Levels, LogLevel};
use tonic::{Request, Response, Status};

use super::ServerState;
use super::caller::granted;
use crate::rights::Administrator;

/// SPIRE's `spire.api.server.logger.v1.Logger`.
#[derive(Clone, Debug)]
pub struct LoggerApi(pub(super) Arc<ServerState>);

#[tonic::async_trait]
impl Logger for LoggerApi {
    async fn get_logger(&self, request: Request<GetLoggerRequest>) -> Result<Response<types::Logger>, Status> {
        let _: Administrator = granted(&request)?;
        Ok(Response::new(self.0.log_level.levels().to_pb()))
    }

    async fn set_log_level(&self, request: Request<SetLogLevelRequest>) -> Result<Response<types::Logger>, Status> {
        let by: Administrator = granted(&request)?;
        let level = LogLevel::from_pb(request.into_inner().new_level).map_err(|refusal| {
            let status = Status::invalid_argument(refusal.to_string());
            self.0.audit.refused(by.caller(), "SetLogLevel", "", status)
        })?;
        Ok(Response::new(self.set(&by, "SetLogLevel", level).to_pb()))
    }

    async fn reset_log_level(&self, request: Request<ResetLogLevelRequest>) -> Result<Response<types::Logger>, Status> {
        let by: Administrator = granted(&request)?;
        let launch = self.0.log_level.levels().launch;
        Ok(Response::new(self.set(&by, "ResetLogLevel", launch).to_pb()))
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
