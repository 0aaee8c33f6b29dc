//! Keys that server and agent have in common.

use std::path::PathBuf;

use super::{Section, places};
use crate::logging::{LogConfig, LogFormat, LogLevel};

/// Where the health listener answers. Source: SPIRE's `health_checks` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthChecks {
    /// Host name or address to listen on.
    pub host: String,
    /// Port; 0 lets the kernel choose.
    pub port: u16,
    /// Path that says whether the process lives.
    pub live_path: String,
    /// Path that says whether it can do its work.
    pub ready_path: String,
}

/// Reads the top-level `health_checks` block of `root`; `None` unless its listener is enabled.
pub fn read_health_checks(root: &Section<'_>) -> Option<HealthChecks> {
    let section = root.block("health_checks");
    let path = |key: &str, default: &str| {
        let rooted = |text: &str| match text.starts_with('/') {
            true => Ok(text.to_owned()),
            false => Err("a path begins with \"/\""),
        };
        section.parsed(key, rooted).unwrap_or_else(|| default.to_owned())
    };
    let checks = HealthChecks {
        host: section.host("bind_address").unwrap_or_else(|| "localhost".to_owned()),
        port: section.port("bind_port", 0).unwrap_or(80),
        live_path: path("live_path", "/live"),
        ready_path: path("ready_path", "/ready"),
    };
    let enabled = section.boolean("listener_enabled").unwrap_or(false);
    if enabled {
        section.listens("bind_port", &checks.host, checks.port);
    }
    section.finish();
    enabled.then_some(checks)
}

/// Reads `log_file`, `log_level` and `log_format`.
pub fn read_logging(section: &Section<'_>) -> LogConfig {
    let file = section.string("log_file").filter(|file| file != "-").map(PathBuf::from);
    if let Some(file) = &file {
        section.look("log_file", || places::appendable_file(file));
    }
    LogConfig {
        level: section.parsed("log_level", str::parse::<LogLevel>).unwrap_or_default(),
        format: section.parsed("log_format", str::parse::<LogFormat>).unwrap_or_default(),
        file,
    }
}
