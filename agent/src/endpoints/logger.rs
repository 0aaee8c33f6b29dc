//! `spire.api.agent.logger.v1`: how much the agent logs, changed while it runs, by whoever may open the admin socket.

use ironroot_api::pb::agent_logger::logger_server::Logger;
use ironroot_api::pb::agent_logger::{GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest};
use ironroot_api::pb::types;
use ironroot_shell::logging::{LevelControl, Levels, LogLevel};
use tonic::{Request, Response, Status};
use tracing::info;

use super::door::Admitted;

/// SPIRE's `spire.api.agent.logger.v1.Logger`.
pub(super) struct LoggerApi(pub LevelControl);

#[tonic::async_trait]
impl Logger for LoggerApi {
    async fn get_logger(&self, _request: Request<GetLoggerRequest>) -> Result<Response<types::Logger>, Status> {
        Ok(Response::new(self.0.levels().to_pb()))
    }

    async fn set_log_level(&self, request: Request<SetLogLevelRequest>) -> Result<Response<types::Logger>, Status> {
        let by = By::of(&request);
        let level = LogLevel::from_pb(request.into_inner().new_level);
        let level = level.map_err(|refusal| Status::invalid_argument(refusal.to_string()))?;
        Ok(Response::new(self.set(by, "SetLogLevel Called", level).to_pb()))
    }

    async fn reset_log_level(&self, request: Request<ResetLogLevelRequest>) -> Result<Response<types::Logger>, Status> {
        let launch = self.0.levels().launch;
        Ok(Response::new(self.set(By::of(&request), "ResetLogLevel Called", launch).to_pb()))
    }
}

/// Who changes the level.
#[derive(Clone, Copy)]
struct By {
    uid: Option<u32>,
    pid: Option<i32>,
}

impl By {
    fn of(request: &Request<impl Sized>) -> Self {
        let caller = request.extensions().get::<Admitted>().map(Admitted::caller);
        Self { uid: caller.map(|caller| caller.connection().uid()), pid: caller.and_then(|caller| caller.pid()) }
    }
}

impl LoggerApi {
    /// Said at the more talkative of the two levels: the line is of level INFO. The words are SPIRE's.
    fn set(&self, by: By, words: &'static str, level: LogLevel) -> Levels {
        let say = || info!(uid = by.uid, pid = by.pid, new_log_level = %level, "{words}");
        let says_more = level > self.0.levels().current;
        if !says_more {
            say();
        }
        let levels = self.0.set(level);
        if says_more {
            say();
        }
        levels
    }
}
