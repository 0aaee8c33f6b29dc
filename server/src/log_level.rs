//! Levels of the log as SPIRE's logger API has them, and back.

use ironroot_api::pb::types;
use ironroot_shell::logging::LogLevel;

/// The level of the API that has the same name.
pub(crate) fn to_pb(level: LogLevel) -> types::LogLevel {
    match level {
        LogLevel::Panic => types::LogLevel::Panic,
        LogLevel::Fatal => types::LogLevel::Fatal,
        LogLevel::Error => types::LogLevel::Error,
        LogLevel::Warn => types::LogLevel::Warn,
        LogLevel::Info => types::LogLevel::Info,
        LogLevel::Debug => types::LogLevel::Debug,
        LogLevel::Trace => types::LogLevel::Trace,
    }
}

/// The level of that number; none if it is no level.
pub(crate) fn from_pb(number: i32) -> Option<LogLevel> {
    types::LogLevel::try_from(number).ok()?.as_str_name().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_of_the_api_is_one_of_ours_and_comes_back() {
        for number in 1..=7 {
            assert_eq!(from_pb(number).map(|level| to_pb(level).into()), Some(number));
        }
        assert_eq!([0, 8, -1].map(from_pb), [None; 3], "none, and those of later versions");
    }
}
