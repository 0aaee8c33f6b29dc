//! Which selectors stand in the log: SPIRE's `log_selectors`.

use ironroot_shell::settings::Section;

use super::LoggedSelectors;

/// Reads the key. Without it all of them do.
pub(super) fn read(agent: &Section<'_>) -> LoggedSelectors {
    agent.parsed_list("log_selectors", str::parse).map_or(LoggedSelectors::All, LoggedSelectors::Beginning)
}
