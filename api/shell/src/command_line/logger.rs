//! What `logger get`, `set` and `reset` of both daemons print.

use ironroot_api::pb::types;
use serde_json::json;

use super::{CommandError, Reply};
use crate::logging::LogLevel;

/// Source of the words: SPIRE, pkg/common/api/logger.
pub fn logger_reply(logger: &types::Logger) -> Result<Reply, CommandError> {
    let (current, launch) = (level(logger.current_level)?, level(logger.launch_level)?);
    let name = |level: LogLevel| level.to_pb().as_str_name();
    let json = json!({ "current_level": name(current), "launch_level": name(launch) });
    Ok(Reply::new(json, format!("Logger Level : {current}\nLaunch Level : {launch}\n\n")))
}

fn level(number: i32) -> Result<LogLevel, CommandError> {
    let unknown = |_| CommandError::Malformed(format!("the answer names a log level {number} that this command lacks"));
    LogLevel::from_pb(number).map_err(unknown)
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
        let answer = logger_reply(&logger(types::LogLevel::Warn, types::LogLevel::Debug)).expect("levels");
        assert_eq!(answer.text, "Logger Level : warning\nLaunch Level : debug\n\n");
        assert_eq!(answer.json.to_string(), r#"{"current_level":"WARN","launch_level":"DEBUG"}"#);
        assert!(logger_reply(&logger(types::LogLevel::Unspecified, types::LogLevel::Info)).is_err());
        assert!(logger_reply(&types::Logger { current_level: 9, launch_level: 5 }).is_err());
    }
}
