//! Levels of the log as SPIRE's logger API has them, and back.

use ironroot_api::pb::types;
use thiserror::Error;

use super::{Levels, LogLevel};

/// Why a number is no level that can be set. Source of the texts: SPIRE, pkg/server/api/logger/v1/service.go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LevelRefusal {
    /// Nothing was named.
    #[error("newLevel value cannot be LogLevel_UNSPECIFIED")]
    Unspecified,
    /// A level of another version.
    #[error("unsupported log level")]
    Unknown,
}

impl LogLevel {
    /// The level of the API that has the same name.
    pub fn to_pb(self) -> types::LogLevel {
        match self {
            Self::Panic => types::LogLevel::Panic,
            Self::Fatal => types::LogLevel::Fatal,
            Self::Error => types::LogLevel::Error,
            Self::Warn => types::LogLevel::Warn,
            Self::Info => types::LogLevel::Info,
            Self::Debug => types::LogLevel::Debug,
            Self::Trace => types::LogLevel::Trace,
        }
    }

    /// The level of that number.
    pub fn from_pb(number: i32) -> Result<Self, LevelRefusal> {
        match types::LogLevel::try_from(number) {
            Ok(types::LogLevel::Unspecified) => Err(LevelRefusal::Unspecified),
            Ok(level) => level.as_str_name().parse().map_err(|_| LevelRefusal::Unknown),
            Err(_) => Err(LevelRefusal::Unknown),
        }
    }
}

impl Levels {
    /// As the logger API answers.
    pub fn to_pb(self) -> types::Logger {
        types::Logger { current_level: self.current.to_pb().into(), launch_level: self.launch.to_pb().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_of_the_api_is_one_of_ours_and_comes_back() {
        for number in 1..=7 {
            assert_eq!(LogLevel::from_pb(number).map(|level| level.to_pb().into()), Ok(number));
        }
    }

    #[test]
    fn no_level_and_one_of_a_later_version_are_refused_in_spires_words() {
        for (number, text) in [
            (0, "newLevel value cannot be LogLevel_UNSPECIFIED"),
            (8, "unsupported log level"),
            (-1, "unsupported log level"),
        ] {
            assert_eq!(LogLevel::from_pb(number).expect_err("refused").to_string(), text);
        }
    }
}
